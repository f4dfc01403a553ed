//! Quotas as the three quota systems mean them, before anything of them is mapped to Slurm.
//!
//! Each system says something of its own: Waldur a budget with a level of warning, Nomad what may be in use at one time,
//! DataRobot rules over rolling windows. The clients of `central` turn their wire shapes into these types, and the
//! configuration makes [`RateQuota`]s of its own; what they mean for an account is worked out from here on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact::Exact;

/// How much of something there may be. What a server spells as "unlimited" (-1 at Waldur, 0 at Nomad) is told apart
/// where it is read, so that no number has a second meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// As much as there is.
    Unlimited,
    /// So much; 0 is nothing at all.
    AtMost(Exact),
}

/// A quota of Waldur's `/api/quotas/`: a budget on one thing of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetQuota {
    /// Its uuid.
    pub id: String,
    /// What is limited, as `nc_cpu_usage`.
    pub name: String,
    /// URL of the object that it is of.
    pub scope: String,
    /// The budget, in the unit that the configuration states.
    pub limit: Bound,
    /// What the server counts as used, in the same unit.
    pub usage: Exact,
    /// From where on people are warned, in the same unit; `None` when nobody is.
    pub threshold: Option<Exact>,
}

/// A quota of Nomad's `/v1/quotas`: what may be in use at one time, per region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyQuota {
    /// Its name, which is its key.
    pub name: String,
    /// For people.
    pub description: String,
    /// By region.
    pub regions: BTreeMap<String, RegionLimit>,
    /// Raft index of its last change.
    pub modify_index: u64,
}

/// What may be in use (or, of a usage, what is in use: [`Bound::AtMost`] then) in one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLimit {
    /// Everything in the region.
    pub all: Capacity,
    /// In single node pools besides that.
    pub node_pools: BTreeMap<String, Capacity>,
}

/// Amounts in the units of Nomad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Whole cores.
    pub cores: Bound,
    /// Shares of CPU in MHz.
    pub cpu_mhz: Bound,
    /// Memory in MiB.
    pub memory_mb: Bound,
    /// Devices by name (`nvidia/gpu/Tesla M60`, `nvidia/gpu`, `gpu`).
    pub devices: BTreeMap<String, Bound>,
}

/// What is in use of one quota of Nomad, by region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyUsage {
    /// Name of the quota.
    pub name: String,
    /// By region; every bound is `AtMost` what is used.
    pub regions: BTreeMap<String, RegionLimit>,
    /// Raft index of its last change.
    pub modify_index: u64,
}

/// A quota of DataRobot's `/api/v2/quotas`, or a `[[quota]]` of the configuration: rules on the consumers of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateQuota {
    /// Its id.
    pub id: String,
    /// The resource that is consumed.
    pub resource_id: String,
    /// Rules for every consumer without a policy of its own.
    pub default_rules: Vec<Rule>,
    /// What replaces them for single consumers.
    pub policies: Vec<ConsumerPolicy>,
    /// What the resource can do, when it is known.
    pub capacity: Option<RateCapacity>,
    /// Share of the capacity (0 to 1) from where on reserved shares count.
    pub saturation_threshold: Option<Exact>,
    /// Person it belongs to, as the server says.
    pub owner: String,
}

/// The rules of one consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerPolicy {
    /// Who.
    pub consumer: Consumer,
    /// For people.
    pub name: Option<String>,
    /// Share of the capacity (0 to 1) that is kept for it under saturation.
    pub reserved: Option<Exact>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Who uses a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Consumer {
    /// What `id` names.
    pub kind: ConsumerKind,
    /// Name or id.
    pub id: String,
}

/// What a consumer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsumerKind {
    /// A deployment: an account.
    Deployment,
    /// A person: a user's association.
    User,
    /// A group of persons or accounts.
    UserGroup,
}

/// What a resource can do in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateCapacity {
    /// How much.
    pub capacity: u64,
    /// Of what.
    pub units: CapacityUnits,
}

/// What capacity is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapacityUnits {
    /// Requests: submissions of jobs.
    Requests,
    /// Tokens: billing minutes.
    Token,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// What is counted.
    pub kind: RuleKind,
    /// How much is allowed.
    pub limit: u64,
    /// In how much time; it has no meaning for [`RuleKind::ConcurrentRequests`] and [`RuleKind::InputSequenceLength`].
    pub window: Window,
}

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleKind {
    /// Submissions in the window.
    Requests,
    /// Billing minutes in the window.
    Token,
    /// Jobs at one time.
    ConcurrentRequests,
    /// Billing minutes of one job.
    InputSequenceLength,
}

/// A rolling window that ends now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// 60 seconds.
    #[default]
    Min,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds.
    Day,
}

impl Window {
    /// Length in seconds: a day of a rolling window has no zone and no leap.
    pub fn seconds(self) -> i64 {
        match self {
            Window::Min => 60,
            Window::Hour => 3_600,
            Window::Day => 86_400,
        }
    }
}

/// A template of rules, that a site may apply to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaTemplate {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}
