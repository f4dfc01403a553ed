//! The real program as a process: as a daemon its readiness, watchdog, signals, reload, drain, abort, and its loop, seen from the
//! service manager's socket; as a backfill that is told to stop. Slurm is the emulated one behind executables of the test; the portal is the embedded server.

mod support;

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::store::Store;
use support::{Portal, TOKEN};

const PROGRAM: &str = env!("CARGO_BIN_EXE_slurm-site-agent");
const OFFERING: &str = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";
/// How long anything may take before a test gives up; nothing here is expected to take a tenth of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// systemd's WatchdogSec in these tests.
const WATCHDOG: Duration = Duration::from_secs(6);

/// A site on disk: configuration, secret, store, and executables that are Slurm.
struct Place {
    folder: tempfile::TempDir,
    portal: Portal,
}

impl Place {
    async fn new(poll_interval: &str) -> Place {
        Place::with_jobs(poll_interval, &json!([])).await
    }

    async fn with_jobs(poll_interval: &str, jobs: &Value) -> Place {
        let state = json!({
            "settings": {"evaluate_on_usage": false},
            "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
            "offerings": [{"uuid": OFFERING}],
            "policies": [{"period": 2, "tres_billing_enabled": false, "carryover_enabled": false, "raw_usage_reset": false}],
            "resources": [{"name": "bio", "limits": {"cpu": 100}}],
        });
        let portal = Portal::start(serde_json::from_value(state).expect("a state")).await;
        let place = Place { folder: tempfile::tempdir().expect("a folder"), portal };
        place.write_slurm(jobs);
        std::fs::write(place.path("token"), TOKEN).expect("a secret");
        mode(&place.path("token"), 0o600);
        place.configure(poll_interval, "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Executables that ask the emulated Slurm. sacct first waits at the gate, where there is one.
    fn write_slurm(&self, jobs: &Value) {
        let world = json!({
            "cluster": "town",
            "partitions": [{"name": "batch", "default": true, "tres": "cpu=4000,mem=2000G,node=10"}],
            "qos": [{"name": "normal", "priority": 100}, {"name": "slowdown", "priority": 10},
                    {"name": "blocked", "limits": {"MaxSubmitJobsPerUser": 0}}],
            "accounts": [{"name": "bio"}, {"name": "geo"}],
            "users": [{"name": "alice", "accounts": ["bio", "geo"]}],
            "jobs": jobs,
        });
        std::fs::create_dir(self.path("world")).expect("a folder");
        std::fs::write(self.path("world/slurm.json"), world.to_string()).expect("a seed");
        std::fs::create_dir(self.path("bin")).expect("a folder");
        for program in ["sacct", "sacctmgr", "sreport", "sshare", "scontrol"] {
            let gate = self.path("gate").display().to_string();
            let wait = format!("if [ -p {gate} ]; then : > {gate}.reached; read -r _ < {gate}; fi\n");
            let wait = if program == "sacct" { wait.as_str() } else { "" };
            let world = self.path("world");
            let run = format!("exec {PROGRAM} --emulator-state {} emulate {program} \"$@\"", world.display());
            let path = self.path("bin").join(program);
            std::fs::write(&path, format!("#!/bin/sh\n{wait}{run}\n")).expect("an executable");
            mode(&path, 0o755);
        }
    }

    fn configure(&self, poll_interval: &str, more: &str) {
        let folder = self.folder.path().display();
        let text = format!(
            "[cluster]\nname = \"town\"\nbin_dir = \"{folder}/bin\"\ntime_zone = \"UTC\"\n[store]\npath = \"{folder}/state.db\"\n\
             [components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n[limits]\ntighten_share_percent = 100\n\
             [[source]]\nname = \"portal\"\nkind = \"waldur-policy\"\nurl = \"{}\"\ntoken_file = \"{folder}/token\"\n\
             offering = \"{OFFERING}\"\npoll_interval = \"{poll_interval}\"\n{more}",
            self.portal.url
        );
        std::fs::write(self.path("config.toml"), text).expect("a configuration");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("config.toml")).args(args);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// A field of bio's association in the emulated Slurm.
    fn shows(&self, field: &str) -> String {
        let args = ["-nP", "show", "assoc", "where", "account=bio", "user=", &format!("format={field}")];
        let output = Command::new(self.path("bin/sacctmgr")).args(args).output().expect("it starts");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// Makes the next sacct wait; what is written to the gate lets it go on.
    fn close_gate(&self) -> Gate {
        let path = self.path("gate");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a gate");
        Gate { path }
    }

    fn daemon(&self) -> Daemon {
        let manager = UnixDatagram::bind(self.path("notify")).expect("a socket");
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = self.command(&[]);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        Daemon { child, manager, log: self.path("log") }
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
}

/// Where sacct waits.
struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Until sacct has come to it.
    fn reached(&self) {
        wait_for("sacct at the gate", || self.path.with_extension("reached").exists());
    }

    /// Lets the sacct that waits, or the next one that comes, go on; those after it wait again.
    fn pass(&self) {
        self.reached();
        std::fs::remove_file(self.path.with_extension("reached")).expect("the mark of the one that waits");
        // Opening waits for the reader.
        let gate = std::fs::OpenOptions::new().write(true).open(&self.path);
        gate.and_then(|mut gate| gate.write_all(b"\n")).expect("sacct reads");
    }
}

impl Drop for Gate {
    /// Opens it for good: later ones find none, and the one that waits goes on.
    fn drop(&mut self) {
        let aside = self.path.with_extension("open");
        std::fs::rename(&self.path, &aside).expect("the gate");
        // Without a reader there is nobody to let through.
        let open = std::fs::OpenOptions::new().write(true).custom_flags_nonblocking().open(&aside);
        if let Ok(mut gate) = open {
            gate.write_all(b"\n").expect("sacct reads");
        }
    }
}

/// Opening for writing that does not wait for a reader.
trait Nonblocking {
    fn custom_flags_nonblocking(&mut self) -> &mut Self;
}

impl Nonblocking for std::fs::OpenOptions {
    fn custom_flags_nonblocking(&mut self) -> &mut Self {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, nix::fcntl::OFlag::O_NONBLOCK.bits())
    }
}

/// The running program with its service manager.
struct Daemon {
    child: Child,
    manager: UnixDatagram,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// The next message, if one comes in time.
    fn message(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.manager.set_read_timeout(Some(within)).expect("a timeout");
        match self.manager.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8")),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message that is no ping of the watchdog and no plea for a longer start; it must begin so.
    #[track_caller]
    fn says(&self, begin: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.message(Duration::from_secs(1)) {
                Some(other) if other == "WATCHDOG=1" || other.starts_with("EXTEND_TIMEOUT_USEC=") => {}
                Some(message) => {
                    assert!(
                        message.starts_with(begin),
                        "{message:?} in place of {begin:?}\n{}",
                        self.logged()
                    );
                    return message;
                }
                None => {}
            }
        }
        panic!("no {begin:?} in time\n{}", self.logged())
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the daemon", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

/// Looks again and again until it is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_says_how_it_stands_feeds_the_watchdog_in_time_and_ends_when_told() {
    let place = Place::new("10m").await;
    let mut daemon = place.daemon();
    let first = daemon.message(PATIENCE);
    assert!(first.as_deref().is_some_and(|first| first.starts_with("EXTEND_TIMEOUT_USEC=")), "{first:?}");
    daemon.says("READY=1");
    let status = daemon.says("STATUS=last cycle ");
    assert!(status.ends_with(": 1 accounts, 0 undecided, 1 changes, 0 waiting"), "{status}");
    assert_eq!(place.shows("grptresmins"), "cpu=7200");
    for _ in 0..3 {
        assert_eq!(daemon.message(WATCHDOG).as_deref(), Some("WATCHDOG=1"), "within WatchdogSec");
    }
    daemon.signal(Signal::SIGTERM);
    daemon.says("STOPPING=1");
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn usr1_evaluates_now() {
    let place = Place::new("10m").await;
    let daemon = place.daemon();
    daemon.says("READY=1");
    daemon.says("STATUS=");
    place.portal.handle.with_state(|state| state.resources[0].limits.insert("cpu".into(), 50.0));
    daemon.signal(Signal::SIGUSR1);
    let status = daemon.says("STATUS=");
    assert!(status.contains("1 changes"), "{status}");
    assert_eq!(place.shows("grptresmins"), "cpu=3600");
}

#[tokio::test(flavor = "multi_thread")]
async fn hup_reads_the_configuration_again_and_one_that_cannot_be_used_changes_nothing() {
    let place = Place::new("10m").await;
    let daemon = place.daemon();
    daemon.says("READY=1");
    assert!(daemon.says("STATUS=").contains(": 1 accounts"));
    place.configure("10m", "[[allocation]]\naccount = \"geo\"\nlimits = { cpu = 5 }\nbilling = false\n");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.says("RELOADING=1").contains("\nMONOTONIC_USEC="));
    daemon.says("READY=1");
    assert!(daemon.says("STATUS=").contains(": 2 accounts"));
    // A mistake; a secret that others may read; another store.
    let good = std::fs::read_to_string(place.path("config.toml")).expect("it is there");
    let other_store = good.replace("state.db", "other.db");
    for (text, secret_mode, reason) in [
        (good.replace("[limits]", "[limmits]"), 0o600, "limmits"),
        (good.clone(), 0o644, "mode 0644"),
        (other_store, 0o600, "needs a restart"),
    ] {
        std::fs::write(place.path("config.toml"), text).expect("a configuration");
        mode(&place.path("token"), secret_mode);
        daemon.signal(Signal::SIGHUP);
        daemon.says("RELOADING=1");
        daemon.says("READY=1");
        assert!(daemon.logged().contains(reason), "no {reason:?} in {}", daemon.logged());
        daemon.signal(Signal::SIGUSR1);
        assert!(daemon.says("STATUS=").contains(": 2 accounts"), "the old one stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hup_during_a_cycle_reads_the_configuration_again_after_it() {
    let place = Place::new("10m").await;
    let gate = place.close_gate();
    let daemon = place.daemon();
    daemon.says("READY=1");
    gate.reached();
    place.configure("10m", "[[allocation]]\naccount = \"geo\"\nlimits = { cpu = 5 }\nbilling = false\n");
    daemon.signal(Signal::SIGHUP);
    drop(gate);
    assert!(daemon.says("STATUS=").contains(": 1 accounts"), "the running cycle ends as it began");
    daemon.says("RELOADING=1");
    daemon.says("READY=1");
    assert!(daemon.says("STATUS=").contains(": 2 accounts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_term_lets_the_cycle_end_and_the_second_ends_at_once() {
    for twice in [false, true] {
        let place = Place::new("10m").await;
        let gate = place.close_gate();
        let mut daemon = place.daemon();
        daemon.says("READY=1");
        gate.reached();
        daemon.signal(Signal::SIGTERM);
        wait_for("draining", || daemon.logged().contains("draining"));
        if twice {
            daemon.signal(Signal::SIGTERM);
            let status = daemon.ended();
            assert_eq!((status.code(), status.signal()), (Some(143), None), "{}", daemon.logged());
            assert_eq!(place.shows("grptresmins"), "", "the cycle did not end");
        } else {
            drop(gate);
            daemon.says("STOPPING=1");
            assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.logged());
            assert_eq!(place.shows("grptresmins"), "cpu=7200", "the cycle came to its end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_refused_and_a_dry_run_works_beside_the_running_one() {
    let place = Place::new("10m").await;
    let daemon = place.daemon();
    daemon.says("READY=1");
    daemon.says("STATUS=");
    for args in [&[][..], &["--evaluate-now"][..]] {
        let second = place.run(args);
        let said = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(4), "{args:?}: {said}");
        assert!(
            said.contains(&daemon.child.id().to_string()),
            "{args:?} names the process that has it: {said}"
        );
    }
    place.portal.handle.with_state(|state| state.resources[0].limits.insert("cpu".into(), 50.0));
    let dry = place.run(&["--evaluate-now", "--dry-run", "--json"]);
    let report: Value = serde_json::from_slice(&dry.stdout).expect("JSON");
    assert_eq!(dry.status.code(), Some(0), "{}", String::from_utf8_lossy(&dry.stderr));
    assert!(report["changes"][0]["argv"].as_str().is_some_and(|argv| argv.contains("cpu=3600")), "{report}");
    assert_eq!(place.shows("grptresmins"), "cpu=7200", "nothing was changed");
    daemon.signal(Signal::SIGUSR1);
    assert!(daemon.says("STATUS=").contains("1 changes"), "the running one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changed_at_the_server_is_in_force_after_one_poll_interval() {
    let place = Place::new("1s").await;
    let daemon = place.daemon();
    daemon.says("READY=1");
    daemon.says("STATUS=");
    place.portal.handle.with_state(|state| state.policies[0].grace_ratio = 0.5);
    // One cycle may have been under way; the one after it has the change.
    let begun: Vec<String> = (0..2).map(|_| daemon.says("STATUS=")).collect();
    assert_eq!(place.shows("grptresmins"), "cpu=9000", "{begun:?}\n{}", daemon.logged());
}

/// Days that the backfill of these tests reads, with a job on every second one.
const DAYS: i64 = 200;

/// The ledger as it is: every job record in it.
fn ledger(place: &Place) -> Vec<Value> {
    let store = Store::open_reader(&place.path("state.db")).expect("the store");
    let (all, cluster) =
        (Window::new(Epoch(0), Epoch(i64::MAX)), ClusterName::parse("town").expect("a name"));
    let mut jobs = Vec::new();
    let mut keep = |job| jobs.push(serde_json::to_value(job).expect("JSON"));
    store.visit_jobs(&cluster, all, &mut keep).expect("its jobs");
    jobs.sort_by_key(|job| job["key"]["dbindex"].as_u64());
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_told_to_stop_ends_after_its_window_and_goes_on_to_the_ledger_of_an_undisturbed_one() {
    let today =
        jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).start_of_day().expect("a midnight");
    let midnight = today.timestamp().as_second();
    let job = |day: i64| {
        let start = midnight - day * 86_400 + 6 * 3600;
        json!({"account": "bio", "user": "alice", "state": "COMPLETED", "allocated": "cpu=4,mem=8G,node=1,billing=4",
               "submit": start - 60, "start": start, "end": start + 7200 + day})
    };
    let jobs: Value = (1..DAYS).step_by(2).map(job).collect();
    let from = Epoch(midnight - DAYS * 86_400).to_string();
    let call = ["ledger", "backfill", "--from", &from[..10]];
    let calm = Place::with_jobs("10m", &jobs).await;
    let undisturbed = calm.run(&call);
    assert_eq!(undisturbed.status.code(), Some(0), "{}", String::from_utf8_lossy(&undisturbed.stderr));
    let whole = ledger(&calm);
    assert_eq!(whole.len(), jobs.as_array().map_or(0, Vec::len));

    let place = Place::with_jobs("10m", &jobs).await;
    let mut known = 0;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let gate = place.close_gate();
        let mut command = place.command(&call);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        for _ in 0..3 {
            gate.pass();
        }
        gate.reached();
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
        gate.pass();
        wait_for("its end", || child.try_wait().expect("a child").is_some());
        let output = child.wait_with_output().expect("its end");
        drop(gate);
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{signal}: {said}{errors}");
        assert!(said.contains(" in 4 windows, "), "the window under way is the last one: {said}{errors}");
        assert!(said.ends_with("stopped as asked; the same call goes on from there\n"), "{said}{errors}");
        let kept = ledger(&place);
        assert!(kept.len() > known && kept.len() < whole.len(), "{known}, {}: {said}", kept.len());
        known = kept.len();
    }
    let rest = place.run(&[&call[..], &["--json"]].concat());
    let rest: Value = serde_json::from_slice(&rest.stdout).expect("JSON");
    assert_eq!((&rest["ending"], &rest["new"]), (&json!("done"), &json!(whole.len() - known)), "{rest:#}");
    assert_eq!(ledger(&place), whole);
    let verified = place.run(&["ledger", "verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
