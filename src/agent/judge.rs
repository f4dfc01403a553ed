//! Steps 4 and 5: totals of the periods in use, and a decision for every allocation.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;

use super::Agent;
use super::error::AgentError;
use super::facts::{Facts, Offer};
use super::step::Step;
use super::verify::{WindowAgreement, repair, verify};
use crate::core::allocation::Allocation;
use crate::core::association::{AccountTree, Observed, TresLimits};
use crate::core::desired::ancestors_of;
use crate::core::evaluate::{Decision, Level, Rules, UsageFacts, evaluate};
use crate::core::exact::Exact;
use crate::core::job::JobRecord;
use crate::core::name::{AccountName, QosName, SourceName};
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::Policy;
use crate::core::time::{Epoch, Window};
use crate::core::usage::{Adding, Counting, SubtreeSums, SuspensionEdges, Usage};
use crate::store::KeptWindows;

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
        let kinds: BTreeSet<PeriodKind> = kinds.chain([PeriodKind::Month]).collect();
        for kind in kinds {
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

/// Totals of the periods in use: what has ended, as the ledger keeps it, and what runs, up to `now`. `recount` adds
/// everything up again; where that differs the recount stands, and a finding says so.
pub fn totals(
    agent: &mut Agent,
    periods: &Periods,
    now: Epoch,
    recount: bool,
    findings: &mut Vec<String>,
) -> Result<Totals, AgentError> {
    let windows = periods.windows();
    let cluster = agent.config.cluster.name.clone();
    if recount {
        let found = verify(&agent.store, &cluster)?;
        repair(agent, &found)?;
        findings.extend(found.iter().filter(|window| !window.agrees()).map(WindowAgreement::finding));
    }
    let kept = agent.store.keep_totals(&cluster, &windows, now)?;
    findings.extend(kept.added.iter().filter_map(|window| unexpected(*window, &kept)));
    let ended = agent.store.totals(&cluster, &windows)?;
    with_running(agent, ended, now)
}

/// In words, that totals of a window were not kept although others were and it does not follow one of those.
fn unexpected(window: Window, kept: &KeptWindows) -> Option<String> {
    let follows = kept.before.is_empty() || kept.before.iter().any(|before| before.until == window.from);
    (!follows).then(|| {
        format!(
            "the totals from {} until {} were not kept (the period of a policy, the time zone or what the ledger keeps has \
             changed); they were added up from the whole ledger",
            window.from, window.until
        )
    })
}

/// Totals of any windows: those the ledger keeps, the others added up from its jobs.
pub fn totals_of(agent: &Agent, windows: BTreeSet<Window>, now: Epoch) -> Result<Totals, AgentError> {
    let cluster = &agent.config.cluster.name;
    let mut totals = agent.store.totals(cluster, &windows)?;
    let others: BTreeSet<Window> =
        windows.into_iter().filter(|window| !totals.contains_key(window)).collect();
    totals.extend(agent.store.add_up_plainly(cluster, &others)?);
    with_running(agent, totals, now)
}

/// Adds what runs.
fn with_running(agent: &Agent, totals: Totals, now: Epoch) -> Result<Totals, AgentError> {
    let cluster = &agent.config.cluster.name;
    let runaway: BTreeSet<u64> =
        agent.store.runaways(cluster)?.iter().map(|record| record.key.dbindex).collect();
    let running: Vec<JobRecord> = agent.store.open_jobs(cluster)?;
    let edges = match reach(&totals, now) {
        Some(reach) if running.iter().any(|job| job.suspended_s > 0) => {
            SuspensionEdges::new(&agent.store.suspended_before(cluster, reach)?)
        }
        _ => SuspensionEdges::default(),
    };
    let counted = totals.into_iter().map(|(window, usage)| {
        let mut adding = Adding::default();
        for job in running.iter().filter(|job| !runaway.contains(&job.key.dbindex)) {
            adding.add(job, window, now, Counting::Once, &edges);
        }
        (window, usage.and(&adding))
    });
    Ok(counted.collect())
}

/// From the first second of any of the windows to now.
fn reach(totals: &Totals, now: Epoch) -> Option<Window> {
    let from = totals.keys().map(|window| window.from).min()?;
    let until = totals.keys().map(|window| window.until).max()?;
    Some(Window::new(from, until.min(now.plus(1))))
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
    let sums = grounds.totals.iter().map(|(window, usage)| (*window, usage.sums_of_subtrees(&tree)));
    let judge = Judge { agent, grounds, sums: sums.collect(), tree: &tree };
    let mut decisions = Vec::new();
    for offer in &facts.offers {
        for allocation in &offer.allocations {
            for policy in &offer.policies {
                decisions.push(judge.decide(offer, allocation, policy));
            }
        }
    }
    decisions
}

/// Decides for one allocation after the other.
struct Judge<'a> {
    agent: &'a Agent,
    grounds: &'a Grounds<'a>,
    /// Usage of every account with all below it, of every window.
    sums: BTreeMap<Window, SubtreeSums>,
    tree: &'a AccountTree<'a>,
}

impl Judge<'_> {
    fn decide(&self, offer: &Offer, allocation: &Allocation, policy: &Policy) -> Decision {
        let usage = self.usage_of(offer, allocation, policy);
        let unknown = Period { kind: policy.period, name: "unknown".into(), start: Epoch(0), end: None };
        let period = self.grounds.periods.pairs.get(&policy.period).map_or(&unknown, |pair| &pair.current);
        evaluate(policy, allocation, usage.as_ref().map_err(String::as_str), period, self.grounds.rules)
    }

    fn usage_of(
        &self,
        offer: &Offer,
        allocation: &Allocation,
        policy: &Policy,
    ) -> Result<UsageFacts, String> {
        if let Some(stale) = &offer.stale {
            return Err(stale.clone());
        }
        if let Some(incomplete) = self.grounds.incomplete {
            return Err(incomplete.to_owned());
        }
        let (account, config) = (&allocation.account, &self.agent.config);
        let observed = self.grounds.observed;
        let place = self.tree.place(account);
        let known = place.map(|place| self.tree.at(place));
        config.accounts.allows(account, ancestors_of(known, observed))?;
        let Some(place) = place else {
            return Err(format!(
                "account {account} does not exist on cluster {}; create it or correct the resource's backend_id",
                config.cluster.name
            ));
        };
        let pair = self.grounds.periods.pairs.get(&policy.period).ok_or("the period is not known")?;
        let sum = |period: &Period| self.sums.get(&period.window()).and_then(|sums| sums.at(place));
        Ok(UsageFacts {
            current: sum(&pair.current).ok_or("the usage of the period is not known")?,
            previous: pair.previous.as_ref().and_then(sum).unwrap_or_default(),
        })
    }
}

/// Names shown in one finding.
const UNPLACED_SHOWN_MAX: usize = 5;

/// Accounts with use and odd names whose place in the tree is not known, while rows of accounts could not be read (a separator
/// or a line break in a name): what is used there counts for nobody.
pub fn unplaced(totals: &Totals, observed: &Observed) -> Option<String> {
    if observed.rejected <= observed.odd.len() {
        return None;
    }
    let tree = observed.tree();
    let placed: BTreeSet<&str> =
        observed.accounts.keys().flat_map(|account| tree.odd_below(account)).collect();
    let used = totals.values().flat_map(Usage::accounts);
    // An ordinary name that is not there is an account that was deleted.
    let names: BTreeSet<&str> =
        used.filter(|name| !placed.contains(name) && AccountName::parse(name).is_err()).collect();
    let shown: Vec<String> = names.iter().take(UNPLACED_SHOWN_MAX).map(|name| format!("{name:?}")).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "jobs of {} accounts count for no allocation, because sacctmgr's rows of them cannot be read: {}; rename or \
             remove these accounts",
            names.len(),
            shown.join(", ")
        )
    })
}

/// What is logged of one decision: numbers that move with every look are left out.
#[derive(Hash, Serialize)]
#[serde(untagged)]
enum Logged<'a> {
    Decided {
        source: &'a SourceName,
        policy: &'a str,
        period: &'a str,
        level: Level,
        effect: Level,
        qos: &'a QosName,
        fairshare: u32,
        limits: &'a TresLimits,
        total: Exact,
    },
    Undecided {
        source: &'a SourceName,
        undecided: Option<&'a str>,
    },
}

impl<'a> Logged<'a> {
    fn of(decision: &'a Decision) -> Self {
        match decision {
            Decision::Decided(decided) => Logged::Decided {
                source: &decided.source,
                policy: &decided.policy,
                period: &decided.period.name,
                level: decided.level,
                effect: decided.effect,
                qos: &decided.qos,
                fairshare: decided.fairshare,
                limits: &decided.limits,
                total: decided.total,
            },
            // Slurm's words after it speak of another window in every cycle; the last cycle's report has them.
            Decision::Undecided { source, reason, .. } => {
                Logged::Undecided { source, undecided: reason.split(": ").next() }
            }
        }
    }
}

/// Another list of decisions has another digest. Where a newer program makes another one of the same list, that is found to be
/// the same when it is compared with what was logged.
fn digest(decisions: &[Decision]) -> u64 {
    let mut digest = DefaultHasher::new();
    for decision in decisions {
        (decision.account(), Logged::of(decision)).hash(&mut digest);
    }
    digest.finish()
}

/// Logs what changed in the decisions, all of an account as one list.
pub fn log(agent: &mut Agent, decisions: &[Decision], now: Epoch) -> Result<(), AgentError> {
    let digest = digest(decisions);
    if agent.store.decisions_digest()? == Some(digest) {
        Step::Evaluated.passed();
        return Ok(());
    }
    // Logged one by one, two policies of one account would each differ from the account's last row in every cycle.
    let mut rows: BTreeMap<AccountName, Vec<serde_json::Value>> = BTreeMap::new();
    for decision in decisions {
        let body = json!(Logged::of(decision));
        rows.entry(decision.account().clone()).or_default().push(body);
    }
    let rows: Vec<(AccountName, serde_json::Value)> =
        rows.into_iter().map(|(account, bodies)| (account, bodies.into())).collect();
    agent.store.put_decisions(now, agent.cycle, &rows, digest)?;
    Step::Evaluated.passed();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Outside;
    use crate::config;
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
