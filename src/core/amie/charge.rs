//! What a job costs. Exact fractions all the way; rounded once, at the end.

use std::collections::BTreeMap;

use super::{Waits, charge_text};
use crate::core::exact::Exact;
use crate::core::job::JobRecord;
use crate::core::time::{Epoch, Window};
use crate::core::tres::Tres;

/// MB in a GB, as Slurm counts.
const MB_PER_GB: i128 = 1024;

/// What is multiplied with time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// The billing TRES as Slurm recorded it, in hours.
    Billing,
    /// The number of nodes, in hours.
    Nodes,
    /// A weight per hour of each TRES; of memory per hour of 1024 MB. cpu loses the time the job was suspended.
    Tres(BTreeMap<Tres, Exact>),
}

/// One price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRule {
    /// Only for this resource; `None`: for all.
    pub resource: Option<String>,
    /// For jobs that ended at this instant or later.
    pub since: Epoch,
    /// What counts.
    pub basis: Basis,
    /// Multiplies everything.
    pub factor: Exact,
    /// Multiplies jobs of a partition.
    pub partitions: BTreeMap<String, Exact>,
    /// Multiplies jobs of a QOS.
    pub qos: BTreeMap<String, Exact>,
}

impl Default for ChargeRule {
    fn default() -> ChargeRule {
        ChargeRule {
            resource: None,
            since: Epoch(i64::MIN),
            basis: Basis::Billing,
            factor: Exact::ONE,
            partitions: BTreeMap::new(),
            qos: BTreeMap::new(),
        }
    }
}

/// The charge of a job that held its allocation in the window; billing-hours where no rule is meant for it.
pub(super) fn charge(
    rules: &[ChargeRule],
    resource: &str,
    job: &JobRecord,
    held: Window,
) -> Result<String, Waits> {
    let standard = ChargeRule::default();
    let meant = |rule: &&ChargeRule| {
        rule.resource.as_deref().is_none_or(|wanted| wanted == resource) && rule.since <= held.until
    };
    let rule = rules.iter().rev().find(meant).unwrap_or(&standard);
    let no_room = || Waits { reason: "the charge has no room".into(), what: job.account.to_string() };
    let mut charge = base(&rule.basis, job, held)?.ok_or_else(no_room)?;
    let factors =
        [Some(&rule.factor), rule.partitions.get(job.partition.as_str()), rule.qos.get(job.qos.as_str())];
    for factor in factors.into_iter().flatten() {
        charge = charge.times(*factor).ok_or_else(no_room)?;
    }
    charge_text(charge).ok_or_else(no_room)
}

fn base(basis: &Basis, job: &JobRecord, held: Window) -> Result<Option<Exact>, Waits> {
    let wall_s = held.seconds();
    let hours = |count: u64, seconds: u64| Exact::fraction(i128::from(count) * i128::from(seconds), 3600);
    let recorded = |tres: &Tres| {
        job.alloc.get(tres).copied().ok_or_else(|| Waits {
            reason: format!("AllocTRES has no {tres}"),
            what: job.account.to_string(),
        })
    };
    match basis {
        Basis::Billing => Ok(hours(recorded(&Tres::billing())?, wall_s)),
        Basis::Nodes => {
            let node = Tres::parse("node")
                .map_err(|error| Waits { reason: error.to_string(), what: job.account.to_string() })?;
            Ok(hours(recorded(&node)?, wall_s))
        }
        Basis::Tres(weights) => Ok(weights.iter().try_fold(Exact::ZERO, |sum, (tres, weight)| {
            // A job without a TRES holds none of it.
            let count = job.alloc.get(tres).copied().unwrap_or(0);
            let cpu = *tres == Tres::cpu();
            let seconds = if cpu { wall_s.saturating_sub(job.suspended_s) } else { wall_s };
            let mut amount = hours(count, seconds)?;
            if tres.is_mem() {
                amount = amount.over(Exact::whole(MB_PER_GB))?;
            }
            sum.plus(amount.times(*weight)?)
        })),
    }
}
