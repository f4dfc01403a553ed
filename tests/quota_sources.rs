//! Sources of quotas against the embedded server: what they say becomes facts, stands while they are down, and is known at
//! once when it changes. The last tests run the real program.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::facts::{Asking, Facts, fetch, fetch_from};
use slurm_site_agent::agent::schedule::{Bell, Due};
use slurm_site_agent::agent::watch::{Stirred, Watchers};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::core::exact::Exact;
use slurm_site_agent::core::name::SourceName;
use slurm_site_agent::core::quota::{Bound, RuleKind, Window};
use slurm_site_agent::core::quota_map::SourceQuotas;
use slurm_site_agent::emulator::central::{CentralState, Fault, FaultKind};
use slurm_site_agent::store::Store;
use support::{Portal, Site, TOKEN, at};

const NOW: &str = "2026-11-22T10:00:00Z";
const HOUR: i64 = 3600;
/// Longest wait for a process to do what it is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a quota of each kind for account bio42, and others for nobody here.
fn state() -> CentralState {
    let state = json!({
        "clock": {"fixed": NOW},
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "resources": [{"name": "bio42", "limits": {"cpu": 1000}}, {"name": "chem7", "limits": {"cpu": 1}}],
        "quotas": [
            {"scope": "bio42", "name": "nc_cpu_usage", "limit": 600, "usage": 20.5, "threshold": 480},
            {"scope": "bio42", "name": "nc_gpu_usage"},
            {"scope": "bio42", "name": "storage", "limit": 5},
            {"scope": "/api/projects/00000000000040008000000000000001/", "name": "nc_cpu_usage", "limit": 1}
        ],
        "nomad": {
            "tokens": [{"secret": TOKEN}],
            "quotas": [
                {"Name": "bio", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 2}}]},
                {"Name": "nobody", "Limits": []}
            ],
            "usages": [{"Name": "bio", "Used": [{"Region": "global", "RegionLimit": {"Cores": 1}}]}]
        },
        "datarobot": {
            "tokens": [{"secret": TOKEN}],
            "quotas": [
                {"id": "65f0c2aa9d3b7c0012ab34cd", "resourceId": "d1", "defaultRules": [{"rule": "requests", "limit": 3}],
                 "policies": [{"consumerId": "u1", "consumerType": "user", "reserved": 0.25,
                               "rules": [{"rule": "token", "limit": 60, "window": "hour"}]}],
                 "saturationThreshold": 0.8},
                {"id": "65f0c2aa9d3b7c0012ab34ce", "resourceId": "elsewhere", "defaultRules": []}
            ]
        }
    });
    serde_json::from_value(state).expect("a state of the embedded server")
}

fn nomad(url: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"nomad\"\nkind = \"nomad\"\nurl = \"{url}nomad/\"\ntoken_file = \"FOLDER/token\"\n\
         accounts = {{ bio = \"bio42\" }}\npoll_interval = \"1h\"\n{more}\n"
    )
}

/// All three kinds; Slurm is not asked by these tests.
fn configuration(url: &str) -> String {
    let head = "[cluster]\nname = \"lab\"\nbin_dir = \"FOLDER\"\n[store]\npath = \"FOLDER/state.db\"\n\
                [limits]\nfacts_age_max = \"2h\"\n";
    let waldur = format!(
        "[[source]]\nname = \"waldur\"\nkind = \"waldur-quota\"\nurl = \"{url}api/\"\ntoken_file = \"FOLDER/token\"\n"
    );
    let datarobot = format!(
        "[[source]]\nname = \"robot\"\nkind = \"datarobot\"\nurl = \"{url}\"\ntoken_file = \"FOLDER/token\"\n\
         resources = {{ d1 = \"bio42\" }}\nusers = {{ u1 = \"alice\" }}\n"
    );
    [head, &waldur, &nomad(url, "shared = true"), &datarobot].concat()
}

async fn site() -> (Portal, Site) {
    let portal = Portal::start(state()).await;
    let site = Site::new(&configuration(&portal.url), at(NOW), None);
    (portal, site)
}

fn name(text: &str) -> SourceName {
    SourceName::parse(text).expect("a name")
}

fn most(number: i128) -> Bound {
    Bound::AtMost(Exact::whole(number))
}

/// Cores that Nomad grants, of the facts.
fn cores(facts: &Facts) -> Bound {
    match &facts.quotas[1].quotas {
        SourceQuotas::Concurrency { quotas, .. } => quotas[0].regions["global"].all.cores,
        other => panic!("{other:?}"),
    }
}

fn set_cores(portal: &Portal, cores: i64) {
    let quota = json!({"Name": "bio", "Limits": [{"Region": "global", "RegionLimit": {"Cores": cores}}]});
    let quota = serde_json::from_value(quota).expect("a quota");
    portal.handle.with_state(|state| state.nomad.put(quota));
}

#[tokio::test]
async fn each_kind_of_source_is_asked_in_its_own_words_and_only_what_is_for_accounts_here_is_kept() {
    let (_portal, mut site) = site().await;
    let facts = fetch(&mut site.agent, at(NOW)).await.expect("the store works");
    for (offer, state) in facts.quotas.iter().zip(&facts.states) {
        assert_eq!((offer.answered, &offer.stale), (Some(at(NOW)), &None), "{state:?}");
        assert_eq!((state.error.as_deref(), state.notices.len()), (None, 0), "{state:?}");
        assert_eq!((&state.name, state.quotas), (&offer.source, offer.quotas.len()));
    }
    let [waldur, nomad, robot] = facts.quotas.as_slice() else { panic!("{facts:?}") };
    let SourceQuotas::Budget { quotas, map } = &waldur.quotas else { panic!("{waldur:?}") };
    let cpu = quotas.iter().find(|quota| quota.name == "nc_cpu_usage").expect("the quota on cpu");
    assert_eq!(map.account(&cpu.scope).map(|account| account.as_str()), Some("bio42"), "by its backend_id");
    let decimal = |text| Exact::parse(text).expect("a number");
    assert_eq!((cpu.limit, cpu.usage, cpu.threshold), (most(600), decimal("20.5"), Some(decimal("480"))));
    assert_eq!((quotas.len(), quotas[1].limit), (2, Bound::Unlimited), "no storage, no project");
    let SourceQuotas::Concurrency { quotas, usages, .. } = &nomad.quotas else { panic!("{nomad:?}") };
    assert_eq!((quotas.len(), cores(&facts)), (1, most(2)));
    assert_eq!(usages[0].regions["global"].all.cores, most(1), "asked for, since the quota is shared");
    let SourceQuotas::Rate { quotas, map } = &robot.quotas else { panic!("{robot:?}") };
    let (rule, policy) = (quotas[0].default_rules[0], &quotas[0].policies[0]);
    assert_eq!((rule.kind, rule.limit, rule.window), (RuleKind::Requests, 3, Window::Min));
    assert_eq!((policy.reserved, policy.rules[0].window), (Some(decimal("0.25")), Window::Hour));
    assert_eq!((quotas.len(), map.users["u1"].as_str()), (1, "alice"));
}

#[tokio::test]
async fn a_source_that_is_down_stands_with_what_it_said_until_it_is_too_old_and_is_never_no_limit() {
    let (portal, mut site) = site().await;
    let said = fetch(&mut site.agent, at(NOW)).await.expect("the store works");
    portal.handle.push_fault(Fault { times: None, ..Fault::once(FaultKind::Cut) });
    for (later_s, decides) in [(HOUR, true), (2 * HOUR, true), (2 * HOUR + 1, false), (100 * HOUR, false)] {
        let now = at(NOW).plus(later_s);
        // Each look is of a new process: what was said is durable.
        let config = site.agent.config.clone();
        let outside = Outside { clock: Clock::manual(now), ..Outside::real(&config) };
        let path = config.store.path.clone();
        drop(site.agent);
        site.agent = Agent::new(config, outside, Store::open(&path).expect("the store")).expect("an agent");
        let facts = fetch(&mut site.agent, now).await.expect("the store works");
        for (offer, first) in facts.quotas.iter().zip(&said.quotas) {
            assert_eq!((&offer.quotas, offer.answered), (&first.quotas, Some(at(NOW))));
            assert_eq!(offer.stale.is_none(), decides, "{later_s}: {:?}", offer.stale);
        }
        assert!(facts.states.iter().all(|state| state.error.is_some()), "{:?}", facts.states);
    }
    portal.handle.with_state(|state| state.faults.clear());
    set_cores(&portal, 5);
    let back = fetch(&mut site.agent, at(NOW).plus(101 * HOUR)).await.expect("the store works");
    assert!(back.quotas.iter().all(|offer| offer.stale.is_none()));
    assert_eq!(cores(&back), most(5));
}

#[tokio::test]
async fn a_source_that_has_never_answered_decides_nothing() {
    let (portal, mut site) = site().await;
    portal.handle.push_fault(Fault { times: None, ..Fault::once(FaultKind::Cut) });
    let facts = fetch(&mut site.agent, at(NOW)).await.expect("the store works");
    assert_eq!(facts.quotas.len(), 3);
    for offer in &facts.quotas {
        assert!(offer.quotas.is_empty() && offer.answered.is_none());
        let stale = offer.stale.as_deref().expect("why nothing is decided");
        assert!(stale.contains("has never answered; what is in force stays in force"), "{stale}");
    }
    let SourceQuotas::Concurrency { map, .. } = &facts.quotas[1].quotas else { panic!("{facts:?}") };
    assert_eq!(map.accounts["bio"].as_str(), "bio42", "whom it would govern is known all the same");
}

#[tokio::test]
async fn a_cycle_for_a_change_asks_only_who_has_changed_and_again_when_that_failed() {
    let (portal, mut site) = site().await;
    fetch(&mut site.agent, at(NOW)).await.expect("the store works");
    set_cores(&portal, 3);
    portal.handle.forget_requests();
    site.agent.stirred.note(&name("nomad"));
    let facts = fetch_from(&mut site.agent, Asking::Stirred, at(NOW)).await.expect("the store works");
    assert_eq!((facts.quotas.len(), cores(&facts)), (3, most(3)));
    let asked: Vec<_> = portal.handle.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(asked, ["/nomad/v1/quotas", "/nomad/v1/quota-usages"]);
    assert!(!site.agent.stirred.any());
    set_cores(&portal, 4);
    site.agent.stirred.note(&name("nomad"));
    portal.handle.push_fault(Fault::once(FaultKind::Cut).on("GET", "/nomad/").times(4));
    let failed = fetch_from(&mut site.agent, Asking::Stirred, at(NOW)).await.expect("the store works");
    assert_eq!(cores(&failed), most(3), "what it said last stands");
    assert!(failed.states[1].error.is_some() && site.agent.stirred.any(), "the change is not forgotten");
    let facts = fetch_from(&mut site.agent, Asking::Stirred, at(NOW)).await.expect("the store works");
    assert_eq!(cores(&facts), most(4));
}

/// Watchers of a Nomad, whose waits take no time.
struct Watched {
    portal: Portal,
    bell: Bell,
    stirred: Stirred,
    watchers: Watchers,
    _site: Site,
}

impl Watched {
    async fn start() -> Watched {
        let portal = Portal::start(state()).await;
        let site = Site::new(&configuration(&portal.url), at(NOW), None);
        let (bell, stirred) = (Bell::default(), Stirred::default());
        let watchers = Watchers::start(&site.agent.config, &site.clock, &bell, &stirred).expect("watchers");
        Watched { portal, bell, stirred, watchers, _site: site }
    }

    /// Waits for the bell, as the daemon does.
    async fn rung(&self) {
        assert_eq!(self.bell.wait().await, [Due::Stirred]);
        assert!(self.stirred.take(&name("nomad")));
    }

    /// Waits until the server holds a question for what comes after its present state, and takes the rings before it.
    async fn caught_up(&self) {
        let index = self.portal.handle.with_state(|state| state.nomad.quotas_index);
        let last = || self.portal.handle.requests().last().map(|request| request.target.clone());
        while !last().is_some_and(|target| target.contains(&format!("index={index}&"))) {
            tokio::task::yield_now().await;
        }
        if self.stirred.any() {
            self.rung().await;
        }
    }

    /// Waits until the server holds the question.
    async fn held(&self) {
        while self.portal.handle.queries_held() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_changed_quota_rings_at_once_and_nothing_is_polled() {
    let watched = Watched::start().await;
    watched.rung().await;
    for cores in 3..10 {
        watched.held().await;
        set_cores(&watched.portal, cores);
        watched.rung().await;
    }
    watched.held().await;
    let asked = watched.portal.handle.requests();
    assert_eq!(asked.len(), 9, "one to begin with, and one held for each change and the next: {asked:#?}");
    assert!(asked[1..].iter().all(|request| request.target.contains("index=")), "{asked:#?}");
    assert!(asked[1..].iter().all(|request| request.target.contains("wait=300s")), "{asked:#?}");
    watched.watchers.stop().await;
    while watched.portal.handle.queries_held() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_change_is_missed_through_restarts_lost_leaders_and_broken_answers() {
    let watched = Watched::start().await;
    watched.rung().await;
    let faults = [
        FaultKind::Cut,
        FaultKind::Truncated,
        FaultKind::BrokenJson,
        FaultKind::AnswerLost,
        FaultKind::HtmlPage { code: 502 },
        FaultKind::Status { code: 500, retry_after: None },
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        watched.held().await;
        watched.portal.handle.push_fault(Fault::once(fault.clone()).on("GET", "/nomad/v1/quotas"));
        set_cores(&watched.portal, 20 + 2 * n as i64);
        watched.rung().await;
        // The question after that meets the fault, at once or when it is answered: the change behind it must be seen.
        set_cores(&watched.portal, 21 + 2 * n as i64);
        watched.rung().await;
        watched.caught_up().await;
        assert!(watched.portal.handle.with_state(|state| state.faults.is_empty()), "{fault:?}");
    }
    // Restored from a backup with a lower index, and started again.
    watched.held().await;
    watched.portal.handle.with_state(|state| state.nomad.restart(Some(1)));
    watched.rung().await;
    watched.held().await;
    set_cores(&watched.portal, 99);
    watched.rung().await;
    watched.held().await;
    watched.portal.handle.with_state(|state| state.nomad.has_leader = false);
    // It is asked on and on, slowly but for the clock of this test; no answer is no change.
    tokio::task::yield_now().await;
    assert!(!watched.stirred.any());
    watched.portal.handle.with_state(|state| state.nomad.has_leader = true);
    watched.rung().await;
    watched.caught_up().await;
    watched.watchers.stop().await;
}

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
    let portal = Portal::start(state()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = configuration(&portal.url);
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
        said.is_some_and(|accepted| match accepted.said {
            SourceQuotas::Concurrency { quotas, .. } => quotas[0].regions["global"].all.cores == most(wanted),
            _ => false,
        })
    };
    until("it is stored", || stored(2)).await;
    for (cores, reload) in [(7, false), (8, true), (9, false)] {
        if reload {
            let before = asked(&portal).get("held").copied().unwrap_or(0);
            daemon.signal(Signal::SIGHUP);
            until("it watches anew", || held() && asked(&portal).get("held").copied().unwrap_or(0) > before)
                .await;
        }
        until("a question is held", held).await;
        set_cores(&portal, i64::from(cores));
        until("the change is stored", || stored(cores.into())).await;
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
