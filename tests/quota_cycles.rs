//! The agent against the embedded servers of Waldur, Nomad and DataRobot: what they say is asked for, kept while they are
//! down, and known at once where a server can push it.

#[path = "support/bench.rs"]
mod bench;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::Bench;
use serde_json::{Value, json};
use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::facts;
use slurm_site_agent::agent::quotas::QuotaOffer;
use slurm_site_agent::agent::schedule::{Bell, Due};
use slurm_site_agent::agent::watch::Watchers;
use slurm_site_agent::central::nomad::FIRST_PAUSE;
use slurm_site_agent::core::exact::Exact;
use slurm_site_agent::core::quota::Bound;
use slurm_site_agent::core::quota_map::SourceQuotas;
use slurm_site_agent::emulator::central::nomad::{QuotaLimit, QuotaSpec, RegionLimit};
use slurm_site_agent::emulator::central::{CentralState, Fault, FaultKind};
use support::TOKEN;

/// Longest time that an awaited thing may take; what it takes is a small part of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Three servers that have a quota of physics each.
fn servers() -> Value {
    json!({
        "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
        "resources": [{"name": "physics"}],
        "quotas": [{"scope": "physics", "name": "nc_cpu_usage", "limit": 60000, "threshold": 48000}],
        "nomad": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [{"Name": "research", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 8}}]}]
        },
        "datarobot": {
            "tokens": [{"secret": TOKEN, "may_write": true}],
            "quotas": [{"resourceId": "dep-1", "defaultRules": [{"rule": "concurrentRequests", "limit": 30}]}]
        }
    })
}

const WALDUR: &str = "[[source]]\nname = \"waldur\"\nkind = \"waldur-quota\"\nurl = \"URL/api/\"\n\
                      token_file = \"FOLDER/token\"\ntimeout = \"2s\"\nattempts_max = 1\n";
const NOMAD: &str = "[[source]]\nname = \"nomad\"\nkind = \"nomad\"\nurl = \"URL/nomad/v1/\"\n\
                     token_file = \"FOLDER/token\"\ntimeout = \"2s\"\nattempts_max = 1\nwait = \"1s\"\n\
                     accounts = { research = \"physics\" }\n";
const ROBOT: &str = "[[source]]\nname = \"robot\"\nkind = \"datarobot\"\nurl = \"URL/api/v2/\"\n\
                     token_file = \"FOLDER/token\"\ntimeout = \"2s\"\nattempts_max = 1\n\
                     resources = { dep-1 = \"physics\" }\n";

async fn all_three() -> Bench {
    Bench::of_sources(&servers(), &[WALDUR, NOMAD, ROBOT].concat()).await
}

/// What the sources say, asked now.
async fn said(bench: &mut Bench) -> Vec<QuotaOffer> {
    let now = bench.site.clock.now();
    facts::fetch(&mut bench.site.agent, now).await.expect("the store works").quotas
}

fn cores(offer: &QuotaOffer) -> Bound {
    match &offer.quotas {
        SourceQuotas::Concurrency { quotas, .. } => quotas[0].regions["global"].all.cores,
        other => panic!("{other:?} is not of Nomad"),
    }
}

fn most(number: i128) -> Bound {
    Bound::AtMost(Exact::whole(number))
}

/// Changes the quota at the server, as somebody else would.
fn set_cores(state: &mut CentralState, cores: i64) {
    let region_limit = RegionLimit { cores, ..RegionLimit::default() };
    let limit = QuotaLimit { region: "global".into(), region_limit, ..QuotaLimit::default() };
    state.nomad.put(QuotaSpec { name: "research".into(), limits: vec![limit], ..QuotaSpec::default() });
}

fn errors(report: &CycleReport) -> Vec<&str> {
    report.sources.iter().filter(|source| source.error.is_some()).map(|source| source.name.as_str()).collect()
}

#[tokio::test]
async fn every_kind_of_source_is_asked_in_a_cycle_and_the_second_cycle_has_nothing_to_do() {
    for (source, kind) in [(WALDUR, "waldur"), (NOMAD, "nomad"), (ROBOT, "robot")] {
        let mut bench = Bench::of_sources(&servers(), source).await;
        let report = bench.cycle().await;
        assert!(errors(&report).is_empty(), "{kind}: {:?}", report.sources);
        assert_eq!((report.sources.len(), report.sources[0].quotas), (1, 1), "{kind}");
        bench.settle(3).await;
        let offers = said(&mut bench).await;
        assert!(offers[0].stale.is_none() && offers[0].quotas.len() == 1, "{kind}: {offers:?}");
    }
}

#[tokio::test]
async fn sources_that_are_down_stand_with_what_they_said_last_and_then_decide_nothing_until_they_are_back() {
    let mut bench = all_three().await;
    let before = said(&mut bench).await;
    let answered = bench.site.clock.now();
    assert!(
        before.iter().all(|offer| offer.answered == Some(answered) && offer.stale.is_none()),
        "{before:?}"
    );
    bench.portal.down().await;
    bench.advance(3600);
    let report = bench.cycle().await;
    assert_eq!(errors(&report), ["waldur", "nomad", "robot"]);
    assert!(report.sources.iter().all(|source| source.quotas == 1), "{:?}", report.sources);
    let age_max = i64::try_from(bench.site.agent.config.limits.facts_age_max.as_secs()).unwrap();
    bench.advance(age_max - 3600);
    let quotas = |offers: &[QuotaOffer]| offers.iter().map(|offer| offer.quotas.clone()).collect::<Vec<_>>();
    let last = said(&mut bench).await;
    assert_eq!(quotas(&last), quotas(&before), "the last limits stay");
    assert!(last.iter().all(|offer| offer.stale.is_none()), "exactly as old as allowed: {last:?}");
    bench.advance(1);
    let old = said(&mut bench).await;
    assert!(old.iter().all(|offer| offer.stale.is_some()), "{old:?}");
    assert_eq!(quotas(&old), quotas(&before), "never no limit");
    bench.portal.up(|state| set_cores(state, 3)).await;
    let back = said(&mut bench).await;
    assert!(back.iter().all(|offer| offer.stale.is_none()), "{back:?}");
    assert_eq!(cores(&back[1]), most(3));
}

#[tokio::test]
async fn a_source_that_answers_nonsense_for_one_quota_keeps_that_one_as_it_was() {
    let mut bench = Bench::of_sources(&servers(), ROBOT).await;
    let before = said(&mut bench).await;
    bench.portal.handle.with_state(|state| state.datarobot.quotas[0].default_rules[0].rule = "wishes".into());
    let report = bench.cycle().await;
    assert!(report.sources[0].notices[0].contains("wishes"), "{:?}", report.sources);
    let offers = said(&mut bench).await;
    assert_eq!(offers[0].quotas, before[0].quotas);
}

/// A Nomad that is watched, and what is heard of it.
struct Watched {
    bench: Bench,
    bell: Bell,
    watchers: Watchers,
    started: Instant,
    rings: u32,
}

impl Watched {
    async fn start() -> Watched {
        let bench = Bench::of_sources(&servers(), NOMAD).await;
        let bell = Bell::default();
        let agent = &bench.site.agent;
        // A manual clock would not wait between two questions; this one does.
        let manual = agent.clock.clone();
        let clock = Clock::Emulated(Arc::new(move || manual.now()));
        let watchers = Watchers::start(&agent.config, &clock, &bell, &agent.stirred).expect("watchers");
        let mut watched = Watched { bench, bell, watchers, started: Instant::now(), rings: 0 };
        assert_eq!(watched.heard_until(8).await, 1, "the first answer is a change: nothing was known");
        watched
    }

    /// Lets the agent ask whenever the bell rings, until the quota has so many cores. Gives how often it rang.
    async fn heard_until(&mut self, cores_wanted: i128) -> usize {
        for rung in 1..=20 {
            let due = tokio::time::timeout(DEADLINE, self.bell.wait()).await.expect("the bell rings");
            assert_eq!(due, [Due::Stirred]);
            self.rings += 1;
            let ask = Ask { stirred: true, ..Ask::default() };
            cycle(&mut self.bench.site.agent, &ask).await.expect("the store works");
            let name = self.bench.site.agent.config.sources[0].name.clone();
            let accepted = self.bench.site.agent.store.quotas(&name).expect("the store works");
            let Some(accepted) = accepted else { continue };
            if let SourceQuotas::Concurrency { quotas, .. } = &accepted.said
                && quotas[0].regions["global"].all.cores == most(cores_wanted)
            {
                return rung;
            }
        }
        panic!("{cores_wanted} cores were never heard of");
    }

    /// Comes back when the server holds the watcher's query.
    async fn is_held(&self) {
        let held = async {
            while self.bench.portal.handle.queries_held() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, held).await.expect("the query is held");
    }

    /// Ends, and fails when more was asked than one question of a cycle per ring and one of the watcher in the least time
    /// that it lets pass between two (half of [`FIRST_PAUSE`] after a failure).
    async fn end(self) {
        self.watchers.stop().await;
        let pauses = self.started.elapsed().as_millis() / (FIRST_PAUSE / 2).as_millis();
        let questions = self.bench.portal.handle.requests().len();
        let most = u128::from(self.rings) + pauses + 2;
        assert!(questions as u128 <= most, "{questions} questions where {most} are enough");
    }

    /// The indexes that the watcher asked with.
    fn asked(&self) -> Vec<String> {
        let requests = self.bench.portal.handle.requests();
        let index = |target: &str| {
            target.split(['?', '&']).find_map(|part| part.strip_prefix("index=")).map(str::to_owned)
        };
        requests.iter().filter_map(|request| index(&request.target)).collect()
    }
}

#[tokio::test]
async fn a_changed_quota_is_heard_of_without_polling_and_an_unchanged_one_rings_no_bell() {
    let mut watched = Watched::start().await;
    watched.is_held().await;
    watched.bench.portal.handle.with_state(|state| set_cores(state, 5));
    assert_eq!(watched.heard_until(5).await, 1);
    // The same written again is a change for the server alone: the answer comes, and the bell is silent.
    watched.is_held().await;
    let asked = watched.asked().len();
    watched.bench.portal.handle.with_state(|state| set_cores(state, 5));
    while watched.asked().len() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched.bench.portal.handle.with_state(|state| set_cores(state, 6));
    assert_eq!(watched.heard_until(6).await, 1, "one ring for one change");
    watched.end().await;
}

#[tokio::test]
async fn a_nomad_that_restarts_with_an_older_index_is_followed_from_the_beginning() {
    let mut watched = Watched::start().await;
    for cores in [5, 6, 7] {
        watched.is_held().await;
        watched.bench.portal.handle.with_state(|state| set_cores(state, cores));
        watched.heard_until(cores.into()).await;
    }
    watched.is_held().await;
    watched.bench.portal.down().await;
    watched
        .bench
        .portal
        .up(|state| {
            state.nomad.restart(Some(1));
            set_cores(state, 2);
        })
        .await;
    watched.heard_until(2).await;
    watched.is_held().await;
    let index = watched.bench.portal.handle.with_state(|state| state.nomad.quotas_index);
    assert_eq!(watched.asked().last(), Some(&index.to_string()), "it waits behind the new index");
    watched.bench.portal.handle.with_state(|state| set_cores(state, 9));
    watched.heard_until(9).await;
    watched.end().await;
}

#[tokio::test]
async fn an_index_that_goes_back_while_connections_stay_is_noticed_when_the_wait_is_over() {
    let mut watched = Watched::start().await;
    for cores in [5, 6, 7] {
        watched.is_held().await;
        watched.bench.portal.handle.with_state(|state| set_cores(state, cores));
        watched.heard_until(cores.into()).await;
    }
    watched.is_held().await;
    watched.bench.portal.handle.with_state(|state| {
        let restarts = state.nomad.restarts;
        state.nomad.restart(Some(1));
        state.nomad.restarts = restarts;
        set_cores(state, 3);
    });
    watched.heard_until(3).await;
    watched.end().await;
}

#[tokio::test]
async fn a_lost_leader_failures_and_a_hang_are_outlived_without_a_busy_loop_and_no_change_is_missed() {
    let mut watched = Watched::start().await;
    watched.is_held().await;
    let before = watched.bench.portal.handle.requests().len();
    watched.bench.portal.handle.with_state(|state| state.nomad.has_leader = false);
    while watched.bench.portal.handle.requests().len() < before + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched.bench.portal.handle.with_state(|state| {
        state.nomad.has_leader = true;
        set_cores(state, 4);
    });
    watched.heard_until(4).await;
    watched.is_held().await;
    for kind in [FaultKind::AnswerLost, FaultKind::BrokenJson, FaultKind::Hang] {
        watched.bench.portal.handle.push_fault(Fault::once(kind).on("GET", "/nomad/v1/quotas"));
    }
    // Each fault hits one question; the change comes while they last.
    watched.bench.portal.handle.with_state(|state| set_cores(state, 12));
    watched.heard_until(12).await;
    let hit = || watched.bench.portal.handle.with_state(|state| state.faults.len());
    while hit() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched.bench.portal.handle.with_state(|state| set_cores(state, 13));
    watched.heard_until(13).await;
    watched.end().await;
}
