//! The real program as a daemon: a change is fetched at once, also after a reload, and nothing is polled.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slurm_site_agent::store::Store;

use super::support::{self, Portal};
use super::{NOMAD, PATIENCE, ROBOT, WALDUR, cores, most, name, servers, set_cores};

/// The real program as a daemon.
struct Daemon(Child);

impl Daemon {
    fn start(config: &Path) -> Daemon {
        let child = Command::new(env!("CARGO_BIN_EXE_slurm-site-agent"))
            .arg("--config")
            .arg(config)
            .env_remove("NOTIFY_SOCKET")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        Daemon(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it runs");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It is gone already where the test has come to its end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for another process.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often each address was asked, held questions apart.
fn asked(portal: &Portal) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in portal.handle.requests() {
        let held = request.target.contains("index=");
        *counts.entry(if held { "held".to_owned() } else { request.target }).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn the_daemon_fetches_a_changed_quota_at_once_watches_on_after_a_reload_and_ends_when_told_to() {
    let portal =
        Portal::start(serde_json::from_value(servers()).expect("a state of the embedded server")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let sources = [WALDUR, NOMAD, ROBOT].concat().replace("URL", portal.url.trim_end_matches('/'));
    let text = format!(
        "[cluster]\nname = \"lab\"\nbin_dir = \"FOLDER\"\n[store]\npath = \"FOLDER/state.db\"\n{sources}"
    );
    support::read(&text, folder.path());
    let path = folder.path().join("config.toml");
    let text = text.replace("FOLDER", folder.path().to_str().expect("UTF-8"));
    std::fs::write(&path, &text).expect("the configuration");
    let mut daemon = Daemon::start(&path);
    let held = || portal.handle.queries_held() == 1;
    until("a question is held", held).await;
    // The watcher's own first question, the cycle of the start, and one for what the watcher saw first, at most.
    let list = "/nomad/v1/quotas";
    until("the start is over", || asked(&portal).get(list).is_some_and(|count| *count >= 2)).await;
    let store = folder.path().join("state.db");
    let stored = |wanted: i128| {
        let said =
            Store::open_reader(&store).ok().and_then(|store| store.quotas(&name("nomad")).ok().flatten());
        said.is_some_and(|accepted| cores(&accepted.said) == most(wanted))
    };
    until("it is stored", || stored(2)).await;
    for (granted, reload) in [(7, false), (8, true), (9, false)] {
        if reload {
            let before = asked(&portal).get("held").copied().unwrap_or(0);
            daemon.signal(Signal::SIGHUP);
            until("it watches anew", || held() && asked(&portal).get("held").copied().unwrap_or(0) > before)
                .await;
        }
        until("a question is held", held).await;
        portal.handle.with_state(|state| set_cores(state, i64::from(granted)));
        until("the change is stored", || stored(granted.into())).await;
    }
    until("a question is held", held).await;
    daemon.signal(Signal::SIGTERM);
    let status = daemon.0.wait().expect("its end");
    assert_eq!(status.code(), Some(0));
    until("the held question is gone", || portal.handle.queries_held() == 0).await;
    let counts: Value = json!(asked(&portal));
    assert!(counts["held"].as_u64().is_some_and(|held| held <= 6), "no polling: {counts}");
    let waldur =
        counts.as_object().expect("counts").iter().filter(|(target, _)| target.contains("/api/quotas/"));
    // Six names of quotas, at the start and at the reload.
    let waldur: u64 = waldur.filter_map(|(_, count)| count.as_u64()).sum();
    assert!(waldur <= 12, "a change at Nomad asks nobody else: {counts}");
}
