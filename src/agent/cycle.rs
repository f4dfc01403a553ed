//! The straight line that every datum takes: one call per step, in the order of design.md section 3. The daemon, a signal and
//! `--evaluate-now` all come here, with no data of their own.
//!
//! The accounts are observed before the totals, because what an account used includes what is below it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Agent;
use super::agreement::{self, Disagreement};
use super::amie;
use super::apply::{self, ChangeState, Made};
use super::deliver::{self, DeliveryState};
use super::error::{AgentError, chain};
use super::facts::{self, Asking, Facts, SourceState};
use super::judge::{self, Grounds, Periods, Totals};
use super::ledger::{self, CollectionState};
use super::orders::{self, CommandSettled, Orders};
use super::quota_wishes;
use super::shrink::{self, HeldUsage};
use super::step::Step;
use super::summary::{self, CycleSummary};
use super::tell;
use crate::config::Enforcement;
use crate::core::association::Observed;
use crate::core::command::Mode;
use crate::core::desired::{Desired, Wish, desired};
use crate::core::evaluate::{Decided, Decision, PartitionWeights, Rules};
use crate::core::name::AccountName;
use crate::core::own::OwnValues;
use crate::core::plan::{Change, Outcome, Owned, Plan, PlanLimits, PlannedChange, ResetMarker, plan};
use crate::core::quota_rules::QuotaStanding;
use crate::core::time::Epoch;
use crate::store::ResetHow;

/// What is asked of a cycle.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Stop before anything is changed or sent. The store is a private copy then.
    pub dry_run: bool,
    /// Change only this account.
    pub account: Option<AccountName>,
    /// Read the open periods again.
    pub deep: bool,
    /// Leave the usage reports for their own schedule.
    pub no_reports: bool,
    /// Ask only the sources that said that they have changed, and deliver nothing: what they want is to be in force at
    /// once.
    pub stirred: bool,
}

/// What a cycle found and did.
#[derive(Debug, Clone, Serialize)]
pub struct CycleReport {
    /// When.
    pub at: Epoch,
    /// Real or emulated Slurm.
    pub mode: Mode,
    /// Whether it stopped before changing anything.
    pub dry_run: bool,
    /// Sources.
    pub sources: Vec<SourceState>,
    /// Collection of jobs.
    pub collection: CollectionState,
    /// A decision for every allocation.
    pub decisions: Vec<Decision>,
    /// Changes, made or (in a dry run) due.
    pub changes: Vec<ChangeState>,
    /// Changes that wait for an operator.
    pub held: Vec<ChangeState>,
    /// Why they wait, and how to let them go.
    pub held_because: Option<String>,
    /// Commands that got a verdict.
    pub commands: Vec<CommandSettled>,
    /// Messages put into the outbox.
    pub enqueued: usize,
    /// Messages delivered.
    pub delivered: DeliveryState,
    /// What the agent and the servers see differently.
    pub disagreements: Vec<Disagreement>,
    /// How many of those there have been since the store began.
    pub disagreements_total: u64,
    /// Totals of usage that are not told because they would shrink.
    pub held_usage: Vec<HeldUsage>,
    /// Where the rules of quotas stand.
    pub quotas: Vec<QuotaStanding>,
    /// When the next window of a quota has rolled away: a cycle is due then.
    pub wake: Option<Epoch>,
    /// What people should know.
    pub findings: Vec<String>,
    /// Of a dry run: what its plan was made from.
    #[serde(skip)]
    pub weighed: Option<Weighed>,
}

/// What the plan of a dry run was made from, for who explains it.
#[derive(Debug, Clone)]
pub struct Weighed {
    /// Accounts as they are.
    pub observed: Observed,
    /// Everything that is asked for, by policies as decided here, by the servers' flags and by commands.
    pub wishes: Vec<Wish>,
    /// What rows had of their own where the agent has set a value that it gives back.
    pub own: OwnValues,
    /// What comes of it for every account.
    pub wanted: BTreeMap<AccountName, Desired>,
}

impl CycleReport {
    /// Whether nothing was to be done: no change, no command, no message.
    pub fn is_quiet(&self) -> bool {
        self.changes.is_empty()
            && self.held.is_empty()
            && self.commands.is_empty()
            && self.enqueued == 0
            && self.delivered.is_empty()
    }

    /// Whether somebody should look: an outage, a refusal, a held plan, an undecided account, no decision at all (the
    /// accounts could not be observed).
    pub fn needs_attention(&self) -> bool {
        let refused = |change: &ChangeState| {
            matches!(change.outcome, Some(Outcome::Refused { .. } | Outcome::Unknown { .. }))
        };
        self.sources.iter().any(|source| source.error.is_some())
            || self.collection.incomplete.is_some()
            || self.decisions.iter().any(|decision| decision.decided().is_none())
            || (self.decisions.is_empty() && self.sources.iter().any(|source| source.allocations > 0))
            || self.changes.iter().any(refused)
            || !self.held.is_empty()
            || !self.held_usage.is_empty()
            || self.delivered.values().any(|kind| kind.failed + kind.dead > 0)
    }
}

/// One cycle. Fails only when the store does; outages of Slurm and servers are in the report.
pub async fn cycle(agent: &mut Agent, ask: &Ask) -> Result<CycleReport, AgentError> {
    let now = agent.clock.now();
    agent.cycle += 1;
    let mut report = CycleReport {
        at: now,
        mode: agent.mode,
        dry_run: ask.dry_run,
        sources: Vec::new(),
        collection: CollectionState::default(),
        decisions: Vec::new(),
        changes: Vec::new(),
        held: Vec::new(),
        held_because: None,
        commands: Vec::new(),
        enqueued: 0,
        delivered: DeliveryState::new(),
        disagreements: Vec::new(),
        disagreements_total: 0,
        held_usage: Vec::new(),
        quotas: Vec::new(),
        wake: None,
        findings: Vec::new(),
        weighed: None,
    };

    // 1 what the sources say
    let asking = if ask.stirred { Asking::Stirred } else { Asking::Everyone };
    let facts = facts::fetch_from(agent, asking, now).await?;
    Step::Fetched.passed();
    let previous_s = i64::try_from(agent.config.reports.previous_period.as_secs()).unwrap_or(i64::MAX);
    let periods = Periods::of(&facts, now, &agent.config.cluster.time_zone, previous_s)?;
    // 2, 3 jobs into the ledger
    report.collection =
        ledger::collect(agent, periods.needed_from(), &periods.edges(), ask.deep, now).await?;
    report.findings.extend(ledger_findings(&report.collection));
    if ask.deep && report.collection.incomplete.is_none() {
        agent.store.put_success(shrink::DEEP_READ, now)?;
    }
    if ask.deep {
        agent.store.quick_integrity()?;
    }
    // 6 accounts as they are
    match observe(agent).await {
        Ok((observed, rules)) => {
            let totals = judge::totals(agent, &periods, now, ask.deep, &mut report.findings)?;
            report.findings.extend(judge::unplaced(&totals, &observed));
            let scene = Scene { facts: &facts, periods: &periods, totals: &totals, rules: &rules };
            govern(agent, ask, &scene, observed, &mut report, now).await?;
        }
        Err(reason) => report.findings.push(reason),
    }
    report.held_usage = shrink::held(agent)?;
    report.findings.extend(report.held_usage.iter().map(shrink::HeldUsage::finding));
    report.sources = facts.states;
    // 12 tell
    if !ask.dry_run && !ask.stirred {
        let amie = amie::make(agent, now).await?;
        report.enqueued += amie.made;
        report.findings.extend(amie.findings);
        report.delivered = deliver::deliver(agent, now).await?;
        report.delivered.extend(amie::deliver(agent, now).await?);
        report.findings.extend(amie::read_back(agent, now, false).await?.findings);
    }
    if !ask.dry_run {
        agent.store.put_report(summary::CYCLE, &CycleSummary::of(&report), now)?;
    }
    agent.store.rest()?;
    Ok(report)
}

fn ledger_findings(collection: &CollectionState) -> Vec<String> {
    let mut findings: Vec<String> = collection.incomplete.iter().cloned().collect();
    if collection.rejected > 0 {
        findings.push(format!(
            "{} lines of sacct were not understood and count nowhere; the first: {}",
            collection.rejected,
            collection.samples.first().map_or("", String::as_str)
        ));
    }
    if collection.runaway > 0 {
        findings.push(format!(
            "{} job records have no end and no job; they are not counted: see `sacctmgr show runaway`",
            collection.runaway
        ));
    }
    findings
}

/// Everything that decisions are made from.
struct Scene<'a> {
    facts: &'a Facts,
    periods: &'a Periods,
    totals: &'a Totals,
    rules: &'a Rules,
}

async fn observe(agent: &Agent) -> Result<(Observed, Rules), String> {
    let observed = agent.slurm.observe().await.map_err(|error| {
        format!("the accounts could not be observed, nothing is changed: {}", chain(&error))
    })?;
    let partitions = match agent.slurm.partitions().await {
        // Weights that are not understood are no weights that could be compared.
        Ok(partitions) => partitions
            .into_iter()
            .map(|partition| match partition.weights_text {
                Some(_) => Some((partition.name, partition.weights?)),
                None => Some((partition.name, BTreeMap::new())),
            })
            .collect::<Option<_>>()
            .map(|partitions| PartitionWeights { partitions }),
        Err(error) => {
            tracing::warn!(error = chain(&error), "the partitions could not be read");
            None
        }
    };
    Ok((observed, agent.rules(partitions)))
}

/// Steps 4, 5 and 7 to 11.
async fn govern(
    agent: &mut Agent,
    ask: &Ask,
    scene: &Scene<'_>,
    mut observed: Observed,
    report: &mut CycleReport,
    now: Epoch,
) -> Result<(), AgentError> {
    // 4, 5 decide
    let grounds = Grounds {
        periods: scene.periods,
        totals: scene.totals,
        observed: &observed,
        incomplete: report.collection.incomplete.as_deref(),
        rules: scene.rules,
    };
    let mut decisions = judge::decide(agent, scene.facts, &grounds);
    let incomplete = report.collection.incomplete.as_deref();
    let quotas = quota_wishes::verdict(agent, scene.facts, &observed, incomplete, now).await?;
    decisions.extend(quota_wishes::undecided(&quotas));
    report.wake = quotas.wake();
    judge::log(agent, &decisions, now)?;
    for decided in decisions.iter().filter_map(Decision::decided) {
        report
            .findings
            .extend(decided.findings.iter().map(|text| format!("account {}: {text}", decided.account)));
    }
    if !ask.dry_run {
        report.findings.extend(apply::settle_open_intents(agent, &observed, now).await?);
    }
    // 7 plan
    let mut orders =
        orders::sort(agent, scene.facts, scene.periods, &decisions, scene.rules, now, ask.dry_run).await?;
    report.commands.append(&mut orders.settled);
    if let Some(only) = &ask.account {
        orders.new.retain(|order| order.account == *only);
    }
    let resets = due_resets(agent, &decisions, &orders, now)?;
    agreement::read_logs(agent, scene.facts, !ask.no_reports, now).await?;
    (report.disagreements, report.disagreements_total) =
        agreement::compare(agent, scene.facts, &decisions, &orders, now)?;
    report.findings.extend(report.disagreements.iter().map(|one| one.finding(&agent.config)));
    let mut wishes = agreement::wishes(&agent.config, scene.facts, &decisions, &orders, &scene.rules.qos);
    wishes.extend(quotas.wishes);
    report.quotas = quotas.standings;
    report.findings.extend(quotas.findings);
    let own = agent.store.own_values()?;
    let mut wanted = desired(&decisions, &wishes, &resets, &observed, &own, &scene.rules.qos);
    tracing::debug!(cycle = agent.cycle, accounts = wanted.len(), "desired");
    if ask.dry_run {
        report.weighed =
            Some(Weighed { observed: observed.clone(), wishes, own: own.clone(), wanted: wanted.clone() });
    } else {
        drop(wishes);
    }
    if let Some(only) = &ask.account {
        wanted.retain(|account, _| account == only);
    }
    let plan = make_plan(agent, &wanted, &observed, own, scene.rules, ask.dry_run)?;
    drop(wanted);
    Step::Planned.passed();
    report.findings.extend(plan.findings.iter().cloned());
    report.findings.extend(plan.missing.iter().map(|name| format!("account {name} does not exist")));
    report.held_because.clone_from(&plan.held_because);
    let unmade = |planned: &PlannedChange| ChangeState {
        argv: agent.slurm.argv(&planned.change).to_string(),
        change: planned.change.clone(),
        because: planned.because.clone(),
        outcome: None,
    };
    report.held = plan.held.iter().map(unmade).collect();
    if ask.dry_run {
        report.changes = plan.changes.iter().map(unmade).collect();
        report.decisions = decisions;
        return Ok(());
    }
    // What the changes give back one day is remembered before any of them is run.
    if !plan.remember.is_empty() || !plan.forget.is_empty() {
        agent.store.put_own_values(&plan.remember, &plan.forget)?;
    }
    // 8 to 11 apply, read back, settle
    let mut made = apply::apply(agent, &plan.changes, &observed, now).await?;
    leave_open(agent, &plan, &mut made)?;
    if let Some(after) = made.observed.take() {
        observed = after;
    }
    let settled =
        orders::conclude(agent, orders.new, scene.facts, &made, &observed, scene.rules, now).await?;
    report.changes = made.changes;
    report.commands.extend(settled);
    if agent.config.reports.backend_metadata {
        report.enqueued += tell::backend_metadata(agent, &decisions, &observed, &scene.rules.qos, now)?;
    }
    report.decisions = decisions;
    if !ask.no_reports {
        report.enqueued +=
            tell::component_usage(agent, scene.facts, scene.periods, scene.totals, &observed, now)?;
    }
    Ok(())
}

/// Accounts of which this cycle could not do all that is asked for: the plan waits, or an intent has no outcome yet.
fn leave_open(agent: &Agent, plan: &Plan, made: &mut Made) -> Result<(), AgentError> {
    let waiting = plan.held.iter().chain(&plan.later);
    made.open.extend(waiting.flat_map(|planned| planned.change.accounts().cloned()));
    for intent in agent.store.unsettled_intents()? {
        made.open.extend(intent.change.change.accounts().cloned());
    }
    Ok(())
}

/// Resets that are due: one per account, policy and period, never for the period in which the agent first saw the
/// policy, never while an earlier one is not settled.
fn due_resets(
    agent: &mut Agent,
    decisions: &[Decision],
    orders: &Orders,
    now: Epoch,
) -> Result<Vec<ResetMarker>, AgentError> {
    let open: BTreeSet<ResetMarker> = agent
        .store
        .unsettled_intents()?
        .into_iter()
        .filter_map(|intent| match intent.change.change {
            Change::ResetRawUsage { marker, .. } => Some(marker),
            _ => None,
        })
        .collect();
    let mut due: BTreeSet<ResetMarker> = BTreeSet::new();
    let resetting: Vec<&Decided> =
        decisions.iter().filter_map(Decision::decided).filter(|d| d.raw_usage_reset).collect();
    let names = resetting
        .iter()
        .map(|d| [d.account.as_str(), d.source.as_str(), d.policy.as_str(), d.period.name.as_str()]);
    let (mut looked_at, mut begun) = (BTreeSet::new(), Vec::new());
    for place in agent.store.resets_without_marker(names)? {
        let decided = resetting[place];
        let marker = ResetMarker {
            account: decided.account.clone(),
            source: decided.source.clone(),
            policy: decided.policy.clone(),
            period: decided.period.name.clone(),
        };
        // Two allocations of one account have one marker.
        if !looked_at.insert(marker.clone()) {
            continue;
        }
        let servers = agreement::enforcement(&agent.config, &marker.source) == Enforcement::Server;
        let adopted = agent.store.adopted(&marker.account, &marker.source, &marker.policy)?.is_some();
        // Where the server alone counts, its command is the only reset; should that change, the period is taken as begun.
        if servers || !adopted {
            begun.push(marker);
        } else {
            due.insert(marker);
        }
    }
    if !begun.is_empty() {
        agent.store.put_resets(&begun, now, ResetHow::Adopted)?;
    }
    due.extend(orders.new.iter().filter(|order| order.binding).filter_map(|order| order.reset.clone()));
    Ok(due.into_iter().filter(|marker| !open.contains(marker)).collect())
}

fn make_plan(
    agent: &mut Agent,
    wanted: &BTreeMap<AccountName, Desired>,
    observed: &Observed,
    own: OwnValues,
    rules: &Rules,
    dry_run: bool,
) -> Result<Plan, AgentError> {
    let mut owned = Owned { limits: agent.store.owned()?, own };
    if rules.partitions.is_none() {
        // Whether a limit on billing is still wanted is not known now: what is in force stays in force.
        owned.limits.clear();
    }
    let rules = &rules.qos;
    let limits = &agent.config.limits;
    let plan_limits = PlanLimits {
        changes_max: limits.changes_max,
        tighten_accounts_max: limits.tighten_accounts_max,
        tighten_share_percent: limits.tighten_share_percent,
        names_per_modify_max: limits.names_per_modify_max,
    };
    let mut made = plan(wanted, observed, &owned, rules, &plan_limits, false);
    if made.held_because.is_some() {
        let hash = super::hold::fingerprint(&made.held);
        if super::hold::is_confirmed(&agent.config.store.path, &hash) {
            made = plan(wanted, observed, &owned, rules, &plan_limits, true);
            if !dry_run {
                // The word is meant for the cycle that applies the plan; a look at it leaves it there.
                super::hold::used(&agent.config.store.path);
            }
            agent.store.clear_held()?;
        } else {
            let summary: Vec<String> =
                made.held.iter().map(|planned| agent.slurm.argv(&planned.change).to_string()).collect();
            agent.store.put_held(&hash, &summary.join("\n"), agent.clock.now())?;
        }
    } else if agent.store.held()?.is_some() {
        agent.store.clear_held()?;
    }
    Ok(made)
}
