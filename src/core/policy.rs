//! A usage policy as accepted from a source.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::component::ComponentName;
use super::exact::Exact;
use super::name::SourceName;
use super::period::PeriodKind;
use super::small_map::SmallMap;
use super::tres::BillingWeights;

/// Which limit of an association holds the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LimitType {
    /// TRES-minutes of the account and everything below it.
    GrpTRESMins,
    /// TRES-minutes of one job (sacctmgr's MaxTRESMins).
    MaxTRESMins,
    /// TRES in use at one time.
    GrpTRES,
}

impl LimitType {
    /// Every type.
    pub const ALL: [LimitType; 3] = [LimitType::GrpTRESMins, LimitType::MaxTRESMins, LimitType::GrpTRES];

    /// sacctmgr's word.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitType::GrpTRESMins => "GrpTRESMins",
            LimitType::MaxTRESMins => "MaxTRESMins",
            LimitType::GrpTRES => "GrpTRES",
        }
    }

    /// Reads the word whatever its case, with or without underscores (`grp_tres_mins`).
    pub fn parse(text: &str) -> Option<LimitType> {
        let folded: String = text.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
        LimitType::ALL.into_iter().find(|t| t.as_str().to_ascii_lowercase() == folded)
    }
}

impl fmt::Display for LimitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How usage turns into a QOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QosStrategy {
    /// normal, slowdown at 100 %, blocked at the grace limit.
    Threshold,
    /// The site's ladder of percentages.
    Progressive,
}

/// What the policy allows to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// Slow the account down at 100 %.
    pub downscale: bool,
    /// Block it at the grace limit.
    pub pause: bool,
    /// Tell people at 80 %.
    pub notify: bool,
    /// The portal refuses new resources; nothing for Slurm.
    pub block_creation: bool,
    /// Names this agent does not know, kept to be shown.
    pub unknown: Vec<String>,
}

/// A usage policy. Amounts are in component units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Who says so.
    pub source: SourceName,
    /// The server's uuid, or `local:ACCOUNT`.
    pub id: String,
    /// For people.
    pub name: String,
    /// How long a budget lasts.
    pub period: PeriodKind,
    /// Which limit holds it.
    pub limit_type: LimitType,
    /// Compare one weighted scalar (else the component closest to its own total decides).
    pub billing: bool,
    /// Weights per component.
    pub weights: BillingWeights,
    /// Share of the base that may be carried over, percent; `None` when carryover is off.
    pub carryover_percent: Option<u8>,
    /// Share above 100 % that is tolerated, 0.2 for 20 %.
    pub grace: Exact,
    /// Zero Slurm's raw usage when a period begins.
    pub raw_usage_reset: bool,
    /// How usage turns into a QOS.
    pub strategy: QosStrategy,
    /// What may happen.
    pub actions: Actions,
    /// Budget of allocations that have no limits of their own.
    pub component_limits: SmallMap<ComponentName, Exact>,
    /// Texts for people from the server.
    pub warnings: Vec<String>,
}

/// The server's weights for a policy that has none (per hour of CPU, GB of memory, GPU).
pub fn default_weights() -> BillingWeights {
    let weight = |n, d| Exact::fraction(n, d).expect("a constant denominator is not 0");
    BillingWeights::from([
        ("CPU".to_owned(), weight(1, 64)),
        ("Mem".to_owned(), weight(1, 512)),
        ("GRES/gpu".to_owned(), weight(1, 4)),
    ])
}
