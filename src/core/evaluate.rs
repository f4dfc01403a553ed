//! From a policy, an allocation and usage to a decision with its reason. Pure and total: a missing or
//! contradictory fact gives [`Decision::Undecided`], and what is in force stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::allocation::Allocation;
use super::association::TresLimits;
use super::component::{ComponentName, Components};
use super::exact::Exact;
use super::name::{AccountName, QosName, SourceName};
use super::period::{Period, PeriodKind};
use super::policy::{LimitType, Policy, QosStrategy};
use super::small_map::SmallMap;
use super::tres::{BillingWeights, Tres, TresSeconds};

/// Share of the total at which people are told, percent.
pub const NOTIFICATION_PERCENT: i128 = 80;
/// Share of the total at which an account is slowed down, percent.
pub const SLOWDOWN_PERCENT: i128 = 100;

/// How far an allocation is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Below 80 %.
    Normal,
    /// From 80 %.
    Notification,
    /// From 100 %.
    Slowdown,
    /// From (1 + grace) x 100 %.
    Blocked,
}

impl Level {
    /// The server's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Notification => "notification",
            Level::Slowdown => "slowdown",
            Level::Blocked => "blocked",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One step of a site's ladder: from this percentage on, this QOS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Percentage of the total.
    pub percent: Exact,
    /// The QOS from there on.
    pub qos: QosName,
}

/// How an account is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lever {
    /// The blocked QOS becomes its only one of the ladder.
    Qos,
    /// GrpSubmitJobs=0 on the account.
    Submit,
}

/// The QOS names that the agent owns, mildest first in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosRules {
    /// For accounts within their total.
    pub normal: QosName,
    /// From 100 %.
    pub slowdown: QosName,
    /// From the grace limit.
    pub blocked: QosName,
    /// For the progressive strategy, ascending.
    pub ladder: Vec<Rung>,
    /// How an account is blocked.
    pub lever: Lever,
}

impl QosRules {
    /// Every QOS name the agent owns.
    pub fn owned(&self) -> BTreeSet<&QosName> {
        let mut names = BTreeSet::from([&self.normal, &self.slowdown, &self.blocked]);
        names.extend(self.ladder.iter().map(|rung| &rung.qos));
        names
    }

    /// How strict an owned QOS is; `None` for others'.
    pub fn strictness(&self, qos: &QosName) -> Option<Exact> {
        if *qos == self.blocked {
            Some(Exact::whole(i128::from(u32::MAX)))
        } else if *qos == self.normal {
            Some(Exact::ZERO)
        } else if let Some(rung) = self.ladder.iter().rev().find(|rung| rung.qos == *qos) {
            Some(rung.percent)
        } else {
            (*qos == self.slowdown).then(|| Exact::whole(SLOWDOWN_PERCENT))
        }
    }
}

/// Weights by which partitions turn TRES into Slurm's own billing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionWeights {
    /// Partition, then weight per unit of each TRES (memory per MB); an empty map bills by CPU count.
    pub partitions: BTreeMap<String, BTreeMap<Tres, Exact>>,
}

/// What a site fixes for all its policies.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Components.
    pub components: Components,
    /// QOS names.
    pub qos: QosRules,
    /// Slurm's own weights; `None` when they could not be read.
    pub partitions: Option<PartitionWeights>,
}

/// Facts about usage that a decision rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageFacts {
    /// Used in the period so far, sub-accounts included.
    pub current: TresSeconds,
    /// Used in the previous period.
    pub previous: TresSeconds,
}

/// One component of an allocation; amounts in its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Granted.
    pub base: Exact,
    /// Carried over from the previous period.
    pub carryover: Exact,
    /// base + carryover
    pub total: Exact,
    /// Used in this period.
    pub used: Exact,
    /// Used in the previous one.
    pub previous: Exact,
}

/// A decision on one account by one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Account.
    pub account: AccountName,
    /// Source of the policy.
    pub source: SourceName,
    /// Policy.
    pub policy: String,
    /// Allocation.
    pub allocation: String,
    /// Period.
    pub period: Period,
    /// Per component.
    pub components: SmallMap<ComponentName, Balance>,
    /// The scalar of usage, weighted or that of the deciding component.
    pub used: Exact,
    /// The scalar of the total.
    pub total: Exact,
    /// 100 x used / total; `None` when the total is 0.
    pub percent: Option<Exact>,
    /// How far it is used up.
    pub level: Level,
    /// What the policy's actions let happen: never above `level`.
    pub effect: Level,
    /// The QOS to be in force.
    pub qos: QosName,
    /// Fairshare.
    pub fairshare: u32,
    /// Limits to be in force.
    pub limits: TresLimits,
    /// Whether raw usage is to be zeroed when a period begins.
    pub raw_usage_reset: bool,
    /// The rule in one line.
    pub reason: Arc<str>,
    /// Where Slurm cannot mean what the policy says.
    pub findings: Vec<String>,
}

/// What is to be done with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// This.
    Decided(Box<Decided>),
    /// Nothing: what is in force stays in force.
    Undecided {
        /// Account.
        account: AccountName,
        /// Source of the policy.
        source: SourceName,
        /// Allocation.
        allocation: String,
        /// Which fact is missing.
        reason: String,
    },
}

impl Decision {
    /// The account.
    pub fn account(&self) -> &AccountName {
        match self {
            Decision::Decided(decided) => &decided.account,
            Decision::Undecided { account, .. } => account,
        }
    }

    /// The decision, when there is one.
    pub fn decided(&self) -> Option<&Decided> {
        match self {
            Decision::Decided(decided) => Some(decided),
            Decision::Undecided { .. } => None,
        }
    }
}

/// Evaluates one policy for one allocation. `usage` is an error text when the facts are stale or incomplete.
pub fn evaluate(
    policy: &Policy,
    allocation: &Allocation,
    usage: Result<&UsageFacts, &str>,
    period: &Period,
    rules: &Rules,
) -> Decision {
    let undecided = |reason: String| Decision::Undecided {
        account: allocation.account.clone(),
        source: policy.source.clone(),
        allocation: allocation.id.clone(),
        reason,
    };
    let usage = match usage {
        Ok(usage) => usage,
        Err(reason) => return undecided(reason.to_owned()),
    };
    match decide(policy, allocation, usage, period, rules) {
        Ok(decided) => Decision::Decided(Box::new(decided)),
        Err(reason) => undecided(reason),
    }
}

const NO_ROOM: &str = "a number of the policy or the usage is too large to be computed exactly";

fn decide(
    policy: &Policy,
    allocation: &Allocation,
    usage: &UsageFacts,
    period: &Period,
    rules: &Rules,
) -> Result<Decided, String> {
    let components = balances(policy, allocation, usage, period, rules)?;
    let scalar = Scalar::of(policy, &components, rules)?;
    let grace_factor = Exact::ONE.plus(policy.grace).ok_or(NO_ROOM)?;
    let level = scalar.level(grace_factor)?;
    let effect = match level {
        Level::Blocked if policy.actions.pause => Level::Blocked,
        Level::Blocked | Level::Slowdown if policy.actions.downscale => Level::Slowdown,
        Level::Normal => Level::Normal,
        _ => Level::Notification,
    };
    let qos = wanted_qos(policy, &scalar, effect, rules)?;
    let percent = scalar.percent();
    let totals = components.values().try_fold(Exact::ZERO, |sum, b| sum.plus(b.total)).ok_or(NO_ROOM)?;
    let third = totals.over(Exact::whole(3)).ok_or(NO_ROOM)?.floor().clamp(1, i128::from(u32::MAX - 2));
    let (limits, findings) = limits(policy, &components, grace_factor, rules)?;
    let reason = reason(policy, &scalar, percent, level, effect, &qos).into();
    let (used, total) = (scalar.used, scalar.total);
    Ok(Decided {
        account: allocation.account.clone(),
        source: policy.source.clone(),
        policy: policy.id.clone(),
        allocation: allocation.id.clone(),
        period: period.clone(),
        used,
        total,
        percent,
        level,
        effect,
        reason,
        qos,
        fairshare: u32::try_from(third).map_err(|_| NO_ROOM)?,
        limits,
        raw_usage_reset: policy.raw_usage_reset && policy.period != PeriodKind::Total,
        components,
        findings,
    })
}

fn balances(
    policy: &Policy,
    allocation: &Allocation,
    usage: &UsageFacts,
    period: &Period,
    rules: &Rules,
) -> Result<SmallMap<ComponentName, Balance>, String> {
    let mut bases: SmallMap<ComponentName, Exact> = SmallMap::new();
    for (name, base) in policy.component_limits.iter().chain(&allocation.limits) {
        bases.insert(name.to_ascii_lowercase(), *base);
    }
    if bases.is_empty() {
        return Err("neither the allocation nor its policy grants an amount of any component".into());
    }
    let mut balances = SmallMap::new();
    for (name, base) in bases {
        if base.is_negative() {
            return Err(format!("the granted amount of component {name} is negative ({base})"));
        }
        let unknown = || {
            format!(
                "component {name} is not in the configuration; add [components.{name}] with its TRES and unit"
            )
        };
        let used = rules.components.amount(&name, &usage.current).ok_or_else(unknown)?;
        let previous = rules.components.amount(&name, &usage.previous).ok_or_else(unknown)?;
        let carryover = match policy.carryover_percent {
            Some(percent) if period.end.is_some() => carryover(base, previous, percent).ok_or(NO_ROOM)?,
            _ => Exact::ZERO,
        };
        let total = base.plus(carryover).ok_or(NO_ROOM)?;
        balances.insert(name, Balance { base, carryover, total, used, previous });
    }
    Ok(balances)
}

/// What stays of an unused base: at most `percent` of it, never negative.
pub fn carryover(base: Exact, previous: Exact, percent: u8) -> Option<Exact> {
    let unused = base.minus(previous)?.max(Exact::ZERO);
    let most = base.times(Exact::fraction(i128::from(percent), 100)?)?;
    Some(unused.min(most))
}

/// The weight of a component, whatever the spelling of its key.
pub fn weight_of(weights: &BillingWeights, component: &str, tres: Option<&Tres>) -> Option<Exact> {
    let family: &[&str] = match tres.map(Tres::as_str) {
        Some("mem") => &["mem", "ram", "memory"],
        Some("cpu") => &["cpu"],
        Some(gpu) if gpu == "gres/gpu" || gpu.starts_with("gres/gpu:") => &["gpu", "gres/gpu"],
        _ => &[],
    };
    let find = |name: &str| weights.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, w)| *w);
    find(component)
        .or_else(|| tres.and_then(|tres| find(tres.as_str())))
        .or_else(|| family.iter().find_map(|name| find(name)))
}

/// The one number that is compared with the thresholds.
struct Scalar<'a> {
    used: Exact,
    total: Exact,
    /// The component that decides when billing is off.
    component: Option<&'a str>,
}

impl<'a> Scalar<'a> {
    fn of(
        policy: &Policy,
        components: &'a SmallMap<ComponentName, Balance>,
        rules: &Rules,
    ) -> Result<Scalar<'a>, String> {
        if policy.billing {
            let (mut used, mut total) = (Exact::ZERO, Exact::ZERO);
            for (name, balance) in components {
                // Here the server counts a component without a weight with its raw value.
                let tres = rules.components.get(name).map(|component| &component.tres);
                let weight = weight_of(&policy.weights, name, tres).unwrap_or(Exact::ONE);
                used = weight.times(balance.used).and_then(|w| used.plus(w)).ok_or(NO_ROOM)?;
                total = weight.times(balance.total).and_then(|w| total.plus(w)).ok_or(NO_ROOM)?;
            }
            return Ok(Scalar { used, total, component: None });
        }
        let mut decisive: Option<Scalar> = None;
        for (name, balance) in components {
            let candidate =
                Scalar { used: balance.used, total: balance.total, component: Some(name.as_str()) };
            let closer = match &decisive {
                None => true,
                // Nothing granted and nothing used says nothing, unless it is all there is.
                Some(best) if best.used == Exact::ZERO && best.total == Exact::ZERO => true,
                Some(best) => {
                    let ours = candidate.used.times(best.total).ok_or(NO_ROOM)?;
                    let theirs = best.used.times(candidate.total).ok_or(NO_ROOM)?;
                    ours > theirs
                }
            };
            if closer {
                decisive = Some(candidate);
            }
        }
        decisive.ok_or_else(|| "the allocation has no component".to_owned())
    }

    /// Whether usage has reached `percent` of the total; reaching is crossing.
    fn reaches(&self, percent: Exact) -> Result<bool, String> {
        let used = self.used.times(Exact::whole(100)).ok_or(NO_ROOM)?;
        Ok(used >= self.total.times(percent).ok_or(NO_ROOM)?)
    }

    fn level(&self, grace_factor: Exact) -> Result<Level, String> {
        let blocked = grace_factor.times(Exact::whole(100)).ok_or(NO_ROOM)?;
        Ok(if self.reaches(blocked)? {
            Level::Blocked
        } else if self.reaches(Exact::whole(SLOWDOWN_PERCENT))? {
            Level::Slowdown
        } else if self.reaches(Exact::whole(NOTIFICATION_PERCENT))? {
            Level::Notification
        } else {
            Level::Normal
        })
    }

    fn percent(&self) -> Option<Exact> {
        self.used.times(Exact::whole(100))?.over(self.total)
    }
}

fn wanted_qos(policy: &Policy, scalar: &Scalar<'_>, effect: Level, rules: &Rules) -> Result<QosName, String> {
    let qos = &rules.qos;
    let mut wanted = match effect {
        Level::Blocked if qos.lever == Lever::Qos => return Ok(qos.blocked.clone()),
        Level::Blocked | Level::Slowdown => &qos.slowdown,
        Level::Notification | Level::Normal => &qos.normal,
    };
    if policy.strategy == QosStrategy::Progressive && policy.actions.downscale {
        for rung in &qos.ladder {
            if scalar.reaches(rung.percent)? {
                wanted = &rung.qos;
            }
        }
    }
    Ok(wanted.clone())
}

fn reason(
    policy: &Policy,
    scalar: &Scalar<'_>,
    percent: Option<Exact>,
    level: Level,
    effect: Level,
    qos: &QosName,
) -> String {
    let mut text = String::with_capacity(REASON_BYTES);
    match percent.and_then(|percent| percent.to_decimal(2)) {
        Some(percent) => text.extend([&percent, " %"]),
        None => text.push_str("all"),
    }
    match scalar.component {
        Some(component) => text.extend([" of ", component, ", the component closest to its total,"]),
        None => text.push_str(" of the weighted total"),
    }
    text.extend([" is used: ", level.as_str(), ", QOS ", qos.as_str()]);
    if effect < level && level >= Level::Slowdown {
        write!(text, "; the policy's actions ({}) allow no more", action_names(policy))
            .expect("writing to a string cannot fail");
    }
    text
}

/// Room for a reason as nearly all are, bytes.
const REASON_BYTES: usize = 96;

fn action_names(policy: &Policy) -> String {
    let named = [
        (policy.actions.downscale, "downscale"),
        (policy.actions.pause, "pause"),
        (policy.actions.notify, "notify"),
        (policy.actions.block_creation, "block creation"),
    ];
    let names: Vec<&str> = named.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Minutes of an amount, cut off, then with grace, cut off again: as the server computes them.
fn minutes_with_grace(minutes: Exact, grace_factor: Exact) -> Option<u64> {
    let base = Exact::whole(minutes.floor());
    u64::try_from(base.times(grace_factor)?.floor()).ok()
}

fn limits(
    policy: &Policy,
    components: &SmallMap<ComponentName, Balance>,
    grace_factor: Exact,
    rules: &Rules,
) -> Result<(TresLimits, Vec<String>), String> {
    let mut findings = Vec::new();
    let mut values = SmallMap::new();
    if policy.billing && !policy.weights.is_empty() {
        match billing_differs(policy, components, rules) {
            Some(finding) => findings.push(finding),
            None => {
                let mut scalar = Exact::ZERO;
                for (name, balance) in components {
                    let tres = rules.components.get(name).map(|c| &c.tres);
                    let weight = weight_of(&policy.weights, name, tres).unwrap_or(Exact::ZERO);
                    scalar = weight.times(balance.total).and_then(|w| scalar.plus(w)).ok_or(NO_ROOM)?;
                }
                let minutes = scalar.times(Exact::whole(60)).ok_or(NO_ROOM)?;
                values.insert(Tres::billing(), minutes_with_grace(minutes, grace_factor).ok_or(NO_ROOM)?);
            }
        }
    } else {
        for (name, balance) in components {
            let Some(component) = rules.components.get(name) else { continue };
            let unit = Exact::fraction(component.unit.tres_seconds(), 60).ok_or(NO_ROOM)?;
            let minutes = balance.total.times(unit).ok_or(NO_ROOM)?;
            let value = minutes_with_grace(minutes, grace_factor).ok_or(NO_ROOM)?;
            let least = values.or_insert(component.tres.clone(), value);
            *least = value.min(*least);
        }
    }
    if policy.limit_type == LimitType::GrpTRES && !values.is_empty() {
        findings.push(
            "limit_type GrpTRES limits what is in use at one time and is no budget: the QOS enforces the budget"
                .into(),
        );
    }
    Ok((TresLimits::from([(policy.limit_type, values)]), findings))
}

/// Says so when Slurm would count a `billing` limit in other units than the policy's.
fn billing_differs(
    policy: &Policy,
    components: &SmallMap<ComponentName, Balance>,
    rules: &Rules,
) -> Option<String> {
    let left_out = "the limit on billing is left out and the QOS enforces the budget";
    let Some(partitions) = &rules.partitions else {
        return Some(format!("the partitions' TRESBillingWeights could not be read: {left_out}"));
    };
    // Weight per TRES-hour of Slurm's own unit (memory per MB): the policy's weight is per unit of the component.
    let mut ours: BTreeMap<Tres, Exact> = BTreeMap::new();
    for name in components.keys() {
        let component = rules.components.get(name)?;
        let weight = weight_of(&policy.weights, name, Some(&component.tres)).unwrap_or(Exact::ZERO);
        let per_tres = Exact::fraction(3600, component.unit.tres_seconds()).and_then(|f| weight.times(f))?;
        if per_tres != Exact::ZERO {
            ours.insert(component.tres.clone(), per_tres);
        }
    }
    let show = |weights: &BTreeMap<Tres, Exact>| {
        let list: Vec<String> = weights.iter().map(|(t, w)| format!("{t}={w}")).collect();
        list.join(",")
    };
    let billed_by_cpu = BTreeMap::from([(Tres::cpu(), Exact::ONE)]);
    for (partition, weights) in &partitions.partitions {
        let mut theirs = if weights.is_empty() { billed_by_cpu.clone() } else { weights.clone() };
        theirs.retain(|_, weight| *weight != Exact::ZERO);
        if theirs != ours {
            return Some(format!(
                "partition {partition} bills {} where the policy weighs {} (per TRES-hour, memory per MB): {left_out}",
                show(&theirs),
                show(&ours)
            ));
        }
    }
    None
}
