//! How the last cycle ended, short enough to be stored: what `status` shows beside a running daemon.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::agreement::Disagreement;
use super::apply::ChangeState;
use super::cycle::CycleReport;
use super::facts::SourceState;
use super::ledger::CollectionState;
use super::shrink::HeldUsage;
use crate::core::command::Mode;
use crate::core::evaluate::{Decision, Level};
use crate::core::name::{AccountName, SourceName};
use crate::core::plan::Outcome;
use crate::core::quota_rules::QuotaStanding;
use crate::core::time::Epoch;

/// Name of this kind of report in the store.
pub const CYCLE: &str = "cycle";

/// An account on which nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecided {
    /// The account.
    pub account: AccountName,
    /// Whose policy.
    pub source: SourceName,
    /// Which fact is missing.
    pub reason: String,
}

/// A change that is not in effect, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// The program as a person would type it.
    pub argv: String,
    /// Slurm's words, or what differs.
    pub reason: String,
}

/// How a cycle ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CycleSummary {
    /// When it began.
    pub at: Epoch,
    /// Real or emulated Slurm.
    pub mode: Mode,
    /// The sources.
    pub sources: Vec<SourceState>,
    /// The collection of jobs.
    pub collection: CollectionState,
    /// Accounts by the highest level that a policy has them at.
    pub levels: BTreeMap<Level, usize>,
    /// Accounts on which nothing is decided.
    pub undecided: Vec<Undecided>,
    /// Changes made.
    pub changes: usize,
    /// Those of them that are not in effect, or not known to be.
    pub unsettled: Vec<Unsettled>,
    /// Changes that wait for an operator.
    pub held: usize,
    /// Why they wait.
    pub held_because: Option<String>,
    /// What the agent and the servers see differently.
    #[serde(default)]
    pub disagreements: Vec<Disagreement>,
    /// How many of those there have been since the store began.
    #[serde(default)]
    pub disagreements_total: u64,
    /// Totals of usage that are not told because they would shrink.
    #[serde(default)]
    pub held_usage: Vec<HeldUsage>,
    /// Where the rules of quotas stand.
    #[serde(default)]
    pub quotas: Vec<QuotaStanding>,
    /// What people should know.
    pub findings: Vec<String>,
}

impl CycleSummary {
    /// Of a report.
    pub fn of(report: &CycleReport) -> CycleSummary {
        CycleSummary {
            at: report.at,
            mode: report.mode,
            sources: report.sources.clone(),
            collection: report.collection.clone(),
            levels: levels(&report.decisions),
            undecided: report.decisions.iter().filter_map(undecided).collect(),
            changes: report.changes.len(),
            unsettled: report.changes.iter().filter_map(unsettled).collect(),
            held: report.held.len(),
            held_because: report.held_because.clone(),
            disagreements: report.disagreements.clone(),
            disagreements_total: report.disagreements_total,
            held_usage: report.held_usage.clone(),
            quotas: report.quotas.clone(),
            findings: report.findings.clone(),
        }
    }
}

fn levels(decisions: &[Decision]) -> BTreeMap<Level, usize> {
    let decided = decisions.iter().filter_map(Decision::decided);
    let mut highest: Vec<(&AccountName, Level)> =
        decided.map(|decided| (&decided.account, decided.level)).collect();
    highest.sort_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
    highest.dedup_by(|next, first| next.0 == first.0);
    let mut counts = BTreeMap::new();
    highest.iter().for_each(|(_, level)| *counts.entry(*level).or_default() += 1);
    counts
}

fn undecided(decision: &Decision) -> Option<Undecided> {
    match decision {
        Decision::Decided(_) => None,
        Decision::Undecided { account, source, reason, .. } => {
            Some(Undecided { account: account.clone(), source: source.clone(), reason: reason.clone() })
        }
    }
}

fn unsettled(change: &ChangeState) -> Option<Unsettled> {
    match &change.outcome {
        Some(Outcome::Refused { reason } | Outcome::Unknown { reason }) => {
            Some(Unsettled { argv: change.argv.clone(), reason: reason.clone() })
        }
        Some(Outcome::Applied | Outcome::AlreadyInEffect) | None => None,
    }
}
