//! Steps 4 and 5: totals of the periods in use, and a decision for every allocation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use serde_json::json;

use super::Agent;
use super::error::AgentError;
use super::facts::{Facts, Offer};
use super::step::Step;
use crate::core::allocation::Allocation;
use crate::core::association::{AccountTree, Observed};
use crate::core::desired::ancestors;
use crate::core::evaluate::{Decision, Rules, UsageFacts, evaluate};
use crate::core::job::JobRecord;
use crate::core::name::AccountName;
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::Policy;
use crate::core::time::{Epoch, Window};
use crate::core::usage::{Counting, SuspensionEdges, Usage};

/// A period in use and the one before it.
#[derive(Debug, Clone)]
pub struct PeriodPair {
    /// The one that contains now.
    pub current: Period,
    /// The one before; `None` for total.
    pub previous: Option<Period>,
}

/// The periods that policies and reports need now.
#[derive(Debug, Clone)]
pub struct Periods {
    /// By kind.
    pub pairs: BTreeMap<PeriodKind, PeriodPair>,
    /// The months to be reported: the current one, and the one before for a while after its end.
    pub months: Vec<Period>,
}

impl Periods {
    /// For these policies at `now`.
    pub fn of(facts: &Facts, now: Epoch, zone: &TimeZone, previous_s: i64) -> Result<Periods, AgentError> {
        let mut pairs = BTreeMap::new();
        let kinds = facts.offers.iter().flat_map(|offer| offer.policies.iter().map(|policy| policy.period));
        for kind in kinds.chain([PeriodKind::Month]) {
            let current = Period::containing(kind, now, zone)?;
            let previous = current.previous(zone);
            pairs.insert(kind, PeriodPair { current, previous });
        }
        let mut months = Vec::new();
        if let Some(month) = pairs.get(&PeriodKind::Month) {
            let still = now.since(month.current.start) < previous_s;
            months.extend(month.previous.clone().filter(|_| still));
            months.push(month.current.clone());
        }
        Ok(Periods { pairs, months })
    }

    /// Every window that totals are needed of.
    pub fn windows(&self) -> BTreeSet<Window> {
        let pairs = self.pairs.values().flat_map(|pair| {
            std::iter::once(pair.current.window()).chain(pair.previous.iter().map(Period::window))
        });
        pairs.chain(self.months.iter().map(Period::window)).collect()
    }

    /// The first second that any of them needs.
    pub fn needed_from(&self) -> Epoch {
        self.windows().iter().map(|window| window.from).min().unwrap_or(Epoch(0))
    }

    /// Every edge at which the suspension of a job may have to be split.
    pub fn edges(&self) -> BTreeSet<Epoch> {
        self.windows().iter().flat_map(|window| [window.from, window.until]).collect()
    }
}

/// Totals by window.
pub type Totals = BTreeMap<Window, Usage>;

/// Totals of ended jobs as last added up. While the process lives a cycle only adds what has come since: its cost follows what
/// changed and not the length of the ledger.
#[derive(Debug, Default)]
pub struct EndedTotals {
    generation: u64,
    seq: u64,
    totals: Totals,
}

/// Jobs looked at in one go while following changes.
const CHANGES_AT_ONCE: usize = 50_000;

/// Totals of the periods in use: what has ended, and what runs, up to `now`. `recount` adds everything up again and says
/// in a finding when that differs from what had been followed.
pub fn totals(
    agent: &mut Agent,
    periods: &Periods,
    now: Epoch,
    recount: bool,
    findings: &mut Vec<String>,
) -> Result<Totals, AgentError> {
    let windows = periods.windows();
    let edges = edges(agent, &windows, now)?;
    let known =
        agent.ended.totals.keys().eq(windows.iter()) && agent.ended.generation == agent.store.generation()?;
    if known {
        follow(agent, now, &edges)?;
    }
    if !known || recount {
        let counted = count(agent, windows, now, &edges)?;
        if known && counted.totals != agent.ended.totals {
            findings.push(
                "the totals followed from cycle to cycle differed from a recount; the recount stands".into(),
            );
        }
        agent.ended = counted;
    }
    with_running(agent, agent.ended.totals.clone(), now, &edges)
}

/// Totals of any windows, added up from the whole ledger.
pub fn totals_of(agent: &Agent, windows: BTreeSet<Window>, now: Epoch) -> Result<Totals, AgentError> {
    let edges = edges(agent, &windows, now)?;
    let counted = count(agent, windows, now, &edges)?;
    with_running(agent, counted.totals, now, &edges)
}

/// From the first second of any of the windows to now.
fn reach(windows: &BTreeSet<Window>, now: Epoch) -> Window {
    Window::new(
        windows.iter().map(|window| window.from).min().unwrap_or(Epoch(0)),
        windows.iter().map(|window| window.until).max().unwrap_or(now).min(now.plus(1)),
    )
}

fn edges(agent: &Agent, windows: &BTreeSet<Window>, now: Epoch) -> Result<SuspensionEdges, AgentError> {
    let cluster = &agent.config.cluster.name;
    Ok(SuspensionEdges::new(&agent.store.suspended_before(cluster, reach(windows, now))?))
}

fn add(totals: &mut Totals, job: &JobRecord, now: Epoch, edges: &SuspensionEdges) {
    for (window, usage) in totals {
        usage.add(job, *window, now, Counting::Once, edges);
    }
}

/// Adds what has ended since.
fn follow(agent: &mut Agent, now: Epoch, edges: &SuspensionEdges) -> Result<(), AgentError> {
    let cluster = &agent.config.cluster.name;
    let ended = &mut agent.ended;
    loop {
        let mut looked_at = 0;
        let (mut seq, totals) = (ended.seq, &mut ended.totals);
        agent.store.visit_changed(cluster, ended.seq, CHANGES_AT_ONCE, &mut |change, job| {
            (looked_at, seq) = (looked_at + 1, change);
            if job.has_ended() {
                add(totals, &job, now, edges);
            }
        })?;
        ended.seq = seq;
        if looked_at < CHANGES_AT_ONCE {
            return Ok(());
        }
    }
}

/// Adds up everything that has ended.
fn count(
    agent: &Agent,
    windows: BTreeSet<Window>,
    now: Epoch,
    edges: &SuspensionEdges,
) -> Result<EndedTotals, AgentError> {
    let all = reach(&windows, now);
    let mut totals: Totals = windows.into_iter().map(|window| (window, Usage::default())).collect();
    let (generation, seq) = (agent.store.generation()?, agent.store.last_seq()?);
    agent.store.visit_jobs(&agent.config.cluster.name, all, &mut |job| {
        if job.has_ended() {
            add(&mut totals, &job, now, edges);
        }
    })?;
    Ok(EndedTotals { generation, seq, totals })
}

/// Adds what runs.
fn with_running(
    agent: &Agent,
    mut totals: Totals,
    now: Epoch,
    edges: &SuspensionEdges,
) -> Result<Totals, AgentError> {
    let cluster = &agent.config.cluster.name;
    let runaway: BTreeSet<u64> =
        agent.store.runaways(cluster)?.iter().map(|record| record.key.dbindex).collect();
    for job in agent.store.open_jobs(cluster)? {
        if !runaway.contains(&job.key.dbindex) {
            add(&mut totals, &job, now, edges);
        }
    }
    Ok(totals)
}

/// What decisions rest on besides policies and allocations.
pub struct Grounds<'a> {
    /// Periods in use.
    pub periods: &'a Periods,
    /// Totals of their windows.
    pub totals: &'a Totals,
    /// Accounts as they are.
    pub observed: &'a Observed,
    /// Why usage cannot be trusted now, when that is so.
    pub incomplete: Option<&'a str>,
    /// The site's rules.
    pub rules: &'a Rules,
}

/// Decides for every allocation by every policy of its source.
pub fn decide(agent: &Agent, facts: &Facts, grounds: &Grounds<'_>) -> Vec<Decision> {
    let tree = grounds.observed.tree();
    let mut decisions = Vec::new();
    for offer in &facts.offers {
        for allocation in &offer.allocations {
            for policy in &offer.policies {
                decisions.push(decide_one(agent, offer, allocation, policy, grounds, &tree));
            }
        }
    }
    decisions
}

fn decide_one(
    agent: &Agent,
    offer: &Offer,
    allocation: &Allocation,
    policy: &Policy,
    grounds: &Grounds<'_>,
    tree: &AccountTree<'_>,
) -> Decision {
    let usage = usage_of(agent, offer, allocation, policy, grounds, tree);
    let unknown = Period { kind: policy.period, name: "unknown".into(), start: Epoch(0), end: None };
    let period = grounds.periods.pairs.get(&policy.period).map_or(&unknown, |pair| &pair.current);
    evaluate(policy, allocation, usage.as_ref().map_err(String::as_str), period, grounds.rules)
}

fn usage_of(
    agent: &Agent,
    offer: &Offer,
    allocation: &Allocation,
    policy: &Policy,
    grounds: &Grounds<'_>,
    tree: &AccountTree<'_>,
) -> Result<UsageFacts, String> {
    if let Some(stale) = &offer.stale {
        return Err(stale.clone());
    }
    if let Some(incomplete) = grounds.incomplete {
        return Err(incomplete.to_owned());
    }
    let above = ancestors(&allocation.account, grounds.observed);
    agent.config.accounts.allows(&allocation.account, &above)?;
    let names = subtree(&allocation.account, tree);
    if names.is_empty() {
        return Err(format!(
            "account {} does not exist on cluster {}; create it or correct the resource's backend_id",
            allocation.account, agent.config.cluster.name
        ));
    }
    let pair = grounds.periods.pairs.get(&policy.period).ok_or("the period is not known")?;
    let sum = |period: &Period| {
        grounds.totals.get(&period.window()).map(|usage| usage.sum(names.iter().map(AccountName::as_str)))
    };
    Ok(UsageFacts {
        current: sum(&pair.current).ok_or("the usage of the period is not known")?,
        previous: pair.previous.as_ref().and_then(sum).unwrap_or_default(),
    })
}

/// The account and everything below it; empty when it is not there.
pub fn subtree(account: &AccountName, tree: &AccountTree<'_>) -> Vec<AccountName> {
    tree.subtree(account).into_iter().map(|below| below.account.clone()).collect()
}

/// Logs what changed in the decisions, all of an account as one list; numbers that move with every look are left out.
pub fn log(agent: &mut Agent, decisions: &[Decision], now: Epoch) -> Result<(), AgentError> {
    // Logged one by one, two policies of one account would each differ from the account's last row in every cycle.
    let mut rows: BTreeMap<AccountName, Vec<serde_json::Value>> = BTreeMap::new();
    for decision in decisions {
        let body = match decision {
            Decision::Decided(decided) => json!({
                "source": decided.source, "policy": decided.policy, "period": decided.period.name,
                "level": decided.level, "effect": decided.effect, "qos": decided.qos,
                "fairshare": decided.fairshare, "limits": decided.limits, "total": decided.total,
            }),
            // Slurm's words after it speak of another window in every cycle; the last cycle's report has them.
            Decision::Undecided { source, reason, .. } => {
                json!({"source": source, "undecided": reason.split(": ").next()})
            }
        };
        rows.entry(decision.account().clone()).or_default().push(body);
    }
    let rows: Vec<(AccountName, serde_json::Value)> =
        rows.into_iter().map(|(account, bodies)| (account, bodies.into())).collect();
    agent.store.put_decisions(now, agent.cycle, &rows)?;
    Step::Evaluated.passed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Outside;
    use crate::config;
    use crate::core::name::SourceName;
    use crate::store::Store;

    #[test]
    fn decisions_that_stay_as_they_are_are_logged_once_whatever_the_number_of_policies() {
        let place = tempfile::tempdir().unwrap();
        let config = config::parse("[cluster]\nname = \"lab\"\n", "test.toml").unwrap();
        let outside = Outside::real(&config);
        let store = Store::open(&place.path().join("state.db")).unwrap();
        let mut agent = Agent::offline(config, outside, store);
        let bio = AccountName::parse("bio").unwrap();
        let undecided = |source: &str, reason: &str| Decision::Undecided {
            account: bio.clone(),
            source: SourceName::parse(source).unwrap(),
            allocation: "r".into(),
            reason: reason.into(),
        };
        for cycle in 0..3 {
            let window = format!("sacct did not answer: window {cycle}");
            log(&mut agent, &[undecided("a", &window), undecided("b", "stale")], Epoch(cycle)).unwrap();
        }
        let logged = agent.store.decisions(Some(&bio), 10).unwrap();
        assert_eq!(logged.len(), 1);
        assert_eq!(
            logged[0].body,
            json!([{"source": "a", "undecided": "sacct did not answer"}, {"source": "b", "undecided": "stale"}])
        );
        log(&mut agent, &[undecided("a", "stale"), undecided("b", "stale")], Epoch(9)).unwrap();
        assert_eq!(agent.store.decisions(Some(&bio), 10).unwrap().len(), 2);
    }
}
