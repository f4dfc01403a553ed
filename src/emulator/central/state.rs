//! Everything the emulated server knows. The same shape is the format of state files and of
//! seed files written by hand: every field has a default, objects may be named instead of numbered.
//!
//! ```json
//! {
//!   "clock": {"fixed": "2026-11-22T10:00:00Z"},
//!   "users": [{"username": "agent", "token": "agent-token", "role": "staff"}],
//!   "policies": [{"period": 3, "grace_ratio": 0.2, "actions": "request_slurm_resource_pausing"}],
//!   "resources": [{"name": "bio42", "limits": {"cpu": 1000}}],
//!   "commands": [{"resource": "bio42", "command_type": "fairshare", "parameters": {"fairshare": 333}}],
//!   "component_usages": [{"resource": "bio42", "type": "cpu", "usage": "512.25"}],
//!   "quotas": [{"scope": "bio42", "name": "nc_cpu_usage", "limit": 60000, "follows": {"component": "cpu", "factor": 60}}],
//!   "amie": {"sites": [{"name": "SITE", "api_key": "key"}], "projects": [{"local_project_id": "bio42"}]},
//!   "nomad": {
//!     "tokens": [{"secret": "nomad-token", "may_write": true}],
//!     "quotas": [{"Name": "bio42", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 64, "MemoryMB": 256000}}]}]
//!   },
//!   "datarobot": {
//!     "tokens": [{"secret": "datarobot-token", "may_write": true}],
//!     "quotas": [{"resourceId": "bio42", "defaultRules": [{"rule": "requests", "limit": 100, "window": "hour"}]}]
//!   }
//! }
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::amie::AmieState;
use super::amount::Amount;
use super::clock::Clock;
use super::datarobot::DataRobotState;
use super::faults::Fault;
use super::nomad::NomadState;
use super::waldur::period::PolicyPeriod;
use super::waldur::quotas::Quota;

/// Space of the name-based uuids that stand in for names in seed files.
const NAMES: Uuid = Uuid::from_u128(0x5c1a_7e0f_8f3b_4a0e_9b55_0d2f_6f1e_a001);

/// The whole state of the emulated central server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CentralState {
    /// What the server takes for now.
    pub clock: Clock,
    /// Seed of faults that happen with a probability.
    pub seed: u64,
    /// How the emulated Waldur behaves where deployments differ.
    pub settings: WaldurSettings,
    pub users: Vec<User>,
    pub offerings: Vec<Offering>,
    pub policies: Vec<Policy>,
    pub resources: Vec<Resource>,
    /// Commands the server issued; the agent finds the unexecuted ones by polling.
    pub commands: Vec<Command>,
    pub evaluation_logs: Vec<EvaluationLog>,
    pub component_usages: Vec<ComponentUsage>,
    pub user_usages: Vec<UserUsage>,
    /// Quotas of `/api/quotas/`.
    pub quotas: Vec<Quota>,
    /// Every report-command-result the server accepted, oldest first.
    pub results: Vec<CommandResult>,
    pub amie: AmieState,
    pub nomad: NomadState,
    pub datarobot: DataRobotState,
    /// Faults still to happen, in order of precedence.
    pub faults: Vec<Fault>,
    /// Draws made from `seed` so far.
    pub draws: u64,
    /// Ids given out so far.
    pub ids_issued: u64,
    /// When settings were last compared with what was issued.
    pub synced_at: Option<Timestamp>,
}

/// Waldur behaviour that differs between versions and deployments, or that tests need to switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaldurSettings {
    /// Where the real server omits or sends null what its published schema calls mandatory
    /// (`fired_datetime`, `warnings`, `billing_period_start`), send a value that fits the schema.
    /// The public client parses no policy that never fired without this.
    pub schema_conform: bool,
    /// Send usages as whole numbers, as the published schema says; otherwise as decimal text.
    pub whole_usages: bool,
    /// Owners of the offering may report command results; the real server allows staff only.
    pub owners_report_results: bool,
    /// Reported usage evaluates the policies of the offering at once, as Waldur's handlers do.
    pub evaluate_on_usage: bool,
    /// Issue `qos` commands when a resource is paused, downscaled or released.
    pub qos_commands: bool,
    /// Seconds between two comparisons of settings with what was issued (Waldur: every 10 minutes).
    pub sync_every_s: i64,
}

impl Default for WaldurSettings {
    fn default() -> Self {
        Self {
            schema_conform: false,
            whole_usages: true,
            owners_report_results: false,
            evaluate_on_usage: true,
            qos_commands: true,
            sync_every_s: 600,
        }
    }
}

/// What a user may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Staff,
    /// What concerns the offerings of the user's customers.
    Owner,
    /// Nothing but being known.
    #[default]
    User,
}

/// A person or program with a token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    pub username: String,
    pub full_name: String,
    pub token: String,
    pub role: Role,
    /// Customers an owner owns; empty means all of them.
    pub customers: Vec<String>,
}

/// How a component is billed; decides who may report usage for past months.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BillingType {
    Fixed,
    #[default]
    Usage,
    Limit,
}

/// Something an offering measures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfferingComponent {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub measured_unit: String,
    pub billing_type: BillingType,
    /// `month`, `quarterly`, `annual` or `total`; decides the period of the offering's policy.
    pub limit_period: Option<String>,
}

/// A cluster on offer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Offering {
    pub uuid: Uuid,
    pub name: String,
    pub customer: String,
    pub components: Vec<OfferingComponent>,
    /// A site agent listens for periodic limits; without it policies carry warnings and no commands are issued.
    pub site_agent_queue: bool,
}

impl Default for Offering {
    fn default() -> Self {
        let component = |kind: &str, name: &str, unit: &str| OfferingComponent {
            kind: kind.to_owned(),
            name: name.to_owned(),
            measured_unit: unit.to_owned(),
            ..OfferingComponent::default()
        };
        Self {
            uuid: Uuid::nil(),
            name: "cluster".to_owned(),
            customer: "site".to_owned(),
            components: vec![
                component("cpu", "CPU", "k-hours"),
                component("mem", "RAM", "gb-hours"),
                component("gpu", "GPU", "gpu-hours"),
            ],
            site_agent_queue: true,
        }
    }
}

/// The limit of one component in a policy; the server shows it and computes from the resource's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentLimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub limit: i64,
}

/// A SLURM periodic usage policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub uuid: Uuid,
    /// The offering the policy is for; the first one when left out.
    #[serde(deserialize_with = "uuid_or_name")]
    pub offering: Uuid,
    pub actions: String,
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub has_fired: bool,
    pub fired_datetime: Option<Timestamp>,
    pub options: Map<String, Value>,
    /// URLs of organization groups.
    pub organization_groups: Vec<String>,
    pub apply_to_all: bool,
    pub component_limits_set: Vec<ComponentLimit>,
    pub period: PolicyPeriod,
    pub limit_type: String,
    pub tres_billing_enabled: bool,
    pub tres_billing_weights: BTreeMap<String, f64>,
    pub carryover_factor: u32,
    pub grace_ratio: f64,
    pub carryover_enabled: bool,
    pub raw_usage_reset: bool,
    pub qos_strategy: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            offering: Uuid::nil(),
            actions:
                "request_slurm_resource_downscaling,request_slurm_resource_pausing,notify_organization_owners"
                    .to_owned(),
            created: None,
            created_by: String::new(),
            has_fired: false,
            fired_datetime: None,
            options: Map::new(),
            organization_groups: Vec::new(),
            apply_to_all: true,
            component_limits_set: Vec::new(),
            period: PolicyPeriod::Quarter,
            limit_type: "GrpTRESMins".to_owned(),
            tres_billing_enabled: true,
            tres_billing_weights: BTreeMap::new(),
            carryover_factor: 50,
            grace_ratio: 0.2,
            carryover_enabled: true,
            raw_usage_reset: true,
            qos_strategy: "threshold".to_owned(),
        }
    }
}

/// An allocation: a Slurm account with limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resource {
    pub uuid: Uuid,
    #[serde(deserialize_with = "uuid_or_name")]
    pub offering: Uuid,
    pub name: String,
    /// The Slurm account; the name when left out.
    pub backend_id: String,
    pub backend_metadata: Map<String, Value>,
    /// What the order of the resource said.
    pub attributes: Map<String, Value>,
    /// `Creating`, `OK`, `Erred`, `Updating`, `Terminating` or `Terminated`.
    pub state: String,
    /// Per component type, in the component's unit.
    pub limits: BTreeMap<String, f64>,
    pub current_usages: BTreeMap<String, Amount>,
    pub paused: bool,
    pub downscaled: bool,
    pub restrict_member_access: bool,
    pub project: String,
    pub customer: String,
    pub created: Option<Timestamp>,
    pub last_sync: Option<Timestamp>,
    /// Fingerprint of the settings last issued for it.
    pub issued_settings: Option<String>,
    /// The period whose settings were last issued; a new one issues a reset of raw usage.
    pub issued_period: Option<String>,
    /// A seeded resource counts as having its settings already, unless this is false.
    pub settings_issued: bool,
}

impl Default for Resource {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            offering: Uuid::nil(),
            name: String::new(),
            backend_id: String::new(),
            backend_metadata: Map::new(),
            attributes: Map::new(),
            state: "OK".to_owned(),
            limits: BTreeMap::new(),
            current_usages: BTreeMap::new(),
            paused: false,
            downscaled: false,
            restrict_member_access: false,
            project: "project".to_owned(),
            customer: "customer".to_owned(),
            created: None,
            last_sync: None,
            issued_settings: None,
            issued_period: None,
            settings_issued: true,
        }
    }
}

impl Resource {
    /// The Slurm account as commands name it.
    pub fn account(&self) -> &str {
        if self.backend_id.is_empty() { &self.name } else { &self.backend_id }
    }

    /// Whether it still exists for policies.
    pub fn is_active(&self) -> bool {
        !matches!(self.state.as_str(), "Terminated" | "Terminating")
    }
}

/// A row of the command history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Command {
    pub uuid: Uuid,
    /// The policy; that of the resource's offering when left out.
    #[serde(deserialize_with = "uuid_or_name")]
    pub policy: Uuid,
    #[serde(deserialize_with = "uuid_or_name")]
    pub resource: Uuid,
    pub billing_period: String,
    /// `fairshare`, `limits`, `qos` or `reset_usage`; anything else is kept and sent as it is.
    pub command_type: String,
    pub description: String,
    pub shell_command: String,
    /// `account` is filled in when left out.
    pub parameters: Map<String, Value>,
    pub executed_at: Option<Timestamp>,
    pub execution_mode: String,
    pub success: bool,
    pub error_message: String,
}

impl Default for Command {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            policy: Uuid::nil(),
            resource: Uuid::nil(),
            billing_period: String::new(),
            command_type: String::new(),
            description: String::new(),
            shell_command: String::new(),
            parameters: Map::new(),
            executed_at: None,
            execution_mode: "production".to_owned(),
            success: true,
            error_message: String::new(),
        }
    }
}

/// What a policy restricts a resource by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restrictions {
    pub paused: bool,
    pub downscaled: bool,
}

/// One evaluation of one resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationLog {
    pub uuid: Uuid,
    #[serde(deserialize_with = "uuid_or_name")]
    pub policy: Uuid,
    #[serde(deserialize_with = "uuid_or_name")]
    pub resource: Uuid,
    pub billing_period: String,
    pub usage_percentage: f64,
    pub grace_limit_percentage: f64,
    pub actions_taken: Vec<String>,
    pub previous_state: Restrictions,
    pub new_state: Restrictions,
    pub stomp_message_sent: bool,
    pub site_agent_confirmed: Option<bool>,
    pub site_agent_response: Option<Value>,
    pub evaluated_at: Option<Timestamp>,
}

/// Usage of one component of one resource in one billing month. Amounts are absolute.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComponentUsage {
    pub uuid: Uuid,
    #[serde(deserialize_with = "uuid_or_name")]
    pub resource: Uuid,
    #[serde(rename = "type")]
    pub kind: String,
    pub usage: Amount,
    pub description: String,
    /// First day of the billing month; `2026-11` is understood.
    #[serde(deserialize_with = "month")]
    pub billing_period: Option<Date>,
    /// When the usage was, as the reporter said.
    pub date: Option<Timestamp>,
    pub created: Option<Timestamp>,
    pub recurring: bool,
    pub modified_by: Option<u32>,
}

/// Usage of one user within a component usage. Absolute too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserUsage {
    pub uuid: Uuid,
    pub component_usage: Uuid,
    pub username: String,
    /// URL of the offering user, when the reporter named one.
    pub user: Option<String>,
    pub usage: Amount,
    pub date: Option<Timestamp>,
    pub created: Option<Timestamp>,
    pub modified: Option<Timestamp>,
}

/// One accepted report of a command result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    pub policy: Uuid,
    pub resource: Uuid,
    pub success: bool,
    pub error_message: String,
    pub mode: String,
    pub commands_executed: Vec<String>,
    pub reported_at: Timestamp,
}

impl CentralState {
    /// The emulated instant.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new id: the next of a fixed row, so that runs repeat.
    pub(super) fn next_uuid(&mut self) -> Uuid {
        self.ids_issued += 1;
        Uuid::new_v5(&NAMES, format!("issued {} {}", self.seed, self.ids_issued).as_bytes())
    }

    /// The policy of an offering; there is at most one.
    pub fn policy_of_offering(&self, offering: Uuid) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.offering == offering)
    }

    /// A policy by uuid.
    pub fn policy(&self, uuid: Uuid) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.uuid == uuid)
    }

    /// An offering by uuid.
    pub fn offering(&self, uuid: Uuid) -> Option<&Offering> {
        self.offerings.iter().find(|offering| offering.uuid == uuid)
    }

    /// A resource by uuid.
    pub fn resource(&self, uuid: Uuid) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.uuid == uuid)
    }

    /// A resource by its Slurm account.
    pub fn resource_of_account(&self, account: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.account() == account)
    }
}

/// The id that stands for a name.
pub(super) fn named(name: &str) -> Uuid {
    Uuid::new_v5(&NAMES, name.as_bytes())
}

/// Reads a uuid, or a name as the id that stands for it.
fn uuid_or_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Uuid::try_parse(&text).unwrap_or_else(|_| named(&text)))
}

/// Reads a day or a month as the first day of its month.
fn month<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let day = if text.len() == "2026-11".len() { format!("{text}-01") } else { text.clone() };
    let day: Date =
        day.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a month like 2026-11")))?;
    Ok(Some(day.first_of_month()))
}
