//! A Nomad that is watched with blocking queries: every change is heard of at once, none is missed, nothing is polled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, cycle};
use slurm_site_agent::agent::schedule::{Bell, Due};
use slurm_site_agent::agent::watch::Watchers;
use slurm_site_agent::central::nomad::FIRST_PAUSE;
use slurm_site_agent::emulator::central::{CentralHandle, Fault, FaultKind};

use super::bench::Bench;
use super::{NOMAD, PATIENCE, cores, most, name, servers, set_cores};

/// Questions that a server holds for a second, and that give up soon.
const HASTY: &str = "timeout = \"2s\"\nattempts_max = 1\nwait = \"1s\"\n";

/// A watched Nomad, and what is heard of it.
struct Watched {
    bench: Bench,
    bell: Bell,
    watchers: Watchers,
    started: Instant,
    rings: u32,
}

impl Watched {
    /// Pauses between two questions take no time, and a question is held for as long as is the default.
    fn without_pauses(bench: Bench) -> Watched {
        let clock = bench.site.clock.clone();
        Watched::by(bench, &clock)
    }

    /// Pauses take their time. The quota has been heard of.
    async fn with_pauses() -> Watched {
        let bench = Bench::of_sources(&servers(), &[NOMAD, HASTY].concat()).await;
        let manual = bench.site.clock.clone();
        let mut watched = Watched::by(bench, &Clock::Emulated(Arc::new(move || manual.now())));
        assert_eq!(watched.heard_until(2).await, 1, "the first answer is a change: nothing was known");
        watched
    }

    fn by(bench: Bench, clock: &Clock) -> Watched {
        let (bell, agent) = (Bell::default(), &bench.site.agent);
        let watchers = Watchers::start(&agent.config, clock, &bell, &agent.stirred).expect("watchers");
        Watched { bench, bell, watchers, started: Instant::now(), rings: 0 }
    }

    fn server(&self) -> &CentralHandle {
        &self.bench.portal.handle
    }

    fn set_cores(&self, cores: i64) {
        self.server().with_state(|state| set_cores(state, cores));
    }

    /// Waits for the bell, as the daemon does.
    async fn rings(&mut self) {
        let due = tokio::time::timeout(PATIENCE, self.bell.wait()).await.expect("the bell rings");
        assert_eq!(due, [Due::Stirred]);
        self.rings += 1;
    }

    /// Waits for the bell and takes what it rang for; nobody asks.
    async fn rung(&mut self) {
        self.rings().await;
        assert!(self.bench.site.agent.stirred.take(&name("nomad")));
    }

    /// Lets the agent ask whenever the bell rings, until the quota has so many cores. Gives how often it rang.
    async fn heard_until(&mut self, cores_wanted: i128) -> usize {
        for rung in 1..=20 {
            self.rings().await;
            let ask = Ask { stirred: true, ..Ask::default() };
            let agent = &mut self.bench.site.agent;
            cycle(agent, &ask).await.expect("the store works");
            let accepted = agent.store.quotas(&name("nomad")).expect("the store works");
            if accepted.is_some_and(|accepted| cores(&accepted.said) == most(cores_wanted)) {
                return rung;
            }
        }
        panic!("{cores_wanted} cores were never heard of");
    }

    /// Waits until something is so at the server.
    async fn until(&self, what: &str, is_so: impl Fn(&CentralHandle) -> bool) {
        let begun = Instant::now();
        while !is_so(self.server()) {
            assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Comes back when the server holds the watcher's question.
    async fn is_held(&self) {
        self.until("a question is held", |server| server.queries_held() > 0).await;
    }

    /// Waits until the server holds a question for what comes after its present state, and takes the rings before it.
    async fn caught_up(&mut self) {
        let index = self.server().with_state(|state| state.nomad.quotas_index);
        let asked = format!("index={index}&");
        let is_last = |server: &CentralHandle| {
            server.requests().last().is_some_and(|request| request.target.contains(&asked))
        };
        self.until("the last question waits behind the present state", is_last).await;
        if self.bench.site.agent.stirred.any() {
            self.rung().await;
        }
    }

    /// The indexes that the watcher asked with.
    fn asked(&self) -> Vec<String> {
        let index = |target: &str| {
            target.split(['?', '&']).find_map(|part| part.strip_prefix("index=")).map(str::to_owned)
        };
        self.server().requests().iter().filter_map(|request| index(&request.target)).collect()
    }

    /// Ends, and fails when more was asked than one look of a cycle (two questions, since the quota is shared) per ring and one
    /// question of the watcher in the least time that it lets pass between two (half of [`FIRST_PAUSE`] after a failure).
    async fn end(self) {
        self.watchers.stop().await;
        let pauses = self.started.elapsed().as_millis() / (FIRST_PAUSE / 2).as_millis();
        let requests = self.bench.portal.handle.requests();
        let questions = requests.iter().filter(|request| !request.target.contains("quota-usages")).count();
        let most = u128::from(self.rings) + pauses + 2;
        assert!(questions as u128 <= most, "{questions} questions where {most} are enough");
    }
}

#[tokio::test]
async fn a_changed_quota_rings_at_once_and_nothing_is_polled() {
    let mut watched = Watched::without_pauses(Bench::of_sources(&servers(), NOMAD).await);
    watched.rung().await;
    for cores in 3..10 {
        watched.is_held().await;
        watched.set_cores(cores);
        watched.rung().await;
    }
    watched.is_held().await;
    let asked = watched.server().requests();
    assert_eq!(asked.len(), 9, "one to begin with, and one held for each change and the next: {asked:#?}");
    assert!(asked[1..].iter().all(|request| request.target.contains("index=")), "{asked:#?}");
    assert!(asked[1..].iter().all(|request| request.target.contains("wait=300s")), "{asked:#?}");
    let server = watched.bench.portal.handle.clone();
    watched.watchers.stop().await;
    let begun = Instant::now();
    while server.queries_held() > 0 {
        assert!(begun.elapsed() < PATIENCE, "the held question goes with the watcher");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_change_is_missed_through_restarts_lost_leaders_and_broken_answers() {
    let mut watched = Watched::without_pauses(Bench::of_sources(&servers(), NOMAD).await);
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
        watched.is_held().await;
        watched.server().push_fault(Fault::once(fault.clone()).on("GET", "/nomad/v1/quotas"));
        watched.set_cores(20 + 2 * n as i64);
        watched.rung().await;
        // The question after that meets the fault, at once or when it is answered: the change behind it must be seen.
        watched.set_cores(21 + 2 * n as i64);
        watched.rung().await;
        watched.caught_up().await;
        assert!(watched.server().with_state(|state| state.faults.is_empty()), "{fault:?}");
    }
    // Restored from a backup with a lower index, and started again.
    watched.is_held().await;
    watched.server().with_state(|state| state.nomad.restart(Some(1)));
    watched.rung().await;
    watched.is_held().await;
    watched.set_cores(99);
    watched.rung().await;
    watched.is_held().await;
    watched.server().with_state(|state| state.nomad.has_leader = false);
    // It is asked on and on, slowly but for the clock of this test; no answer is no change.
    tokio::task::yield_now().await;
    assert!(!watched.bench.site.agent.stirred.any());
    watched.server().with_state(|state| state.nomad.has_leader = true);
    watched.rung().await;
    watched.caught_up().await;
    watched.watchers.stop().await;
}

#[tokio::test]
async fn an_unchanged_quota_rings_no_bell() {
    let mut watched = Watched::with_pauses().await;
    watched.is_held().await;
    watched.set_cores(5);
    assert_eq!(watched.heard_until(5).await, 1);
    // The same written again is a change for the server alone: the answer comes, and the bell is silent.
    watched.is_held().await;
    let asked = watched.asked().len();
    watched.set_cores(5);
    while watched.asked().len() < asked + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched.set_cores(6);
    assert_eq!(watched.heard_until(6).await, 1, "one ring for one change");
    watched.end().await;
}

/// A watched Nomad that has had some changes, and holds a question for the next.
async fn with_a_past() -> Watched {
    let mut watched = Watched::with_pauses().await;
    for cores in [5, 6, 7] {
        watched.is_held().await;
        watched.set_cores(cores);
        watched.heard_until(cores.into()).await;
    }
    watched.is_held().await;
    watched
}

#[tokio::test]
async fn a_nomad_that_restarts_with_an_older_index_is_followed_from_the_beginning() {
    let mut watched = with_a_past().await;
    watched.bench.portal.down().await;
    let restarted = |state: &mut _| {
        let state: &mut slurm_site_agent::emulator::central::CentralState = state;
        state.nomad.restart(Some(1));
        set_cores(state, 2);
    };
    watched.bench.portal.up(restarted).await;
    watched.heard_until(2).await;
    watched.is_held().await;
    let index = watched.server().with_state(|state| state.nomad.quotas_index);
    assert_eq!(watched.asked().last(), Some(&index.to_string()), "it waits behind the new index");
    watched.set_cores(9);
    watched.heard_until(9).await;
    watched.end().await;
}

#[tokio::test]
async fn an_index_that_goes_back_while_connections_stay_is_noticed_when_the_wait_is_over() {
    let mut watched = with_a_past().await;
    watched.server().with_state(|state| {
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
    let mut watched = Watched::with_pauses().await;
    watched.is_held().await;
    let before = watched.server().requests().len();
    watched.server().with_state(|state| state.nomad.has_leader = false);
    while watched.server().requests().len() < before + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched.server().with_state(|state| {
        state.nomad.has_leader = true;
        set_cores(state, 4);
    });
    watched.heard_until(4).await;
    watched.is_held().await;
    for kind in [FaultKind::AnswerLost, FaultKind::BrokenJson, FaultKind::Hang] {
        watched.server().push_fault(Fault::once(kind).on("GET", "/nomad/v1/quotas"));
    }
    // Each fault hits one question; the change comes while they last.
    watched.set_cores(12);
    watched.heard_until(12).await;
    watched
        .until("the faults are used up", |server| server.with_state(|state| state.faults.is_empty()))
        .await;
    watched.set_cores(13);
    watched.heard_until(13).await;
    watched.end().await;
}
