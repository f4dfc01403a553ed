//! The world as a JSON file: the state of an emulated cluster, and the seed files that people write.
//!
//! A seed names accounts, users, QOS, partitions and jobs; everything that Slurm would number or fill in may be left
//! out. Times are seconds of the epoch, RFC 3339 texts, or relative to the clock: `now`, `now-2h`, `now+30m`.

mod read;
mod write;

use super::fault::Fault;
use super::world::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a file is not a world.
#[derive(Debug, thiserror::Error)]
pub enum WorldFileError {
    /// Not JSON of this shape.
    #[error("read the emulated Slurm's world as JSON")]
    Json(#[from] serde_json::Error),
    /// A value that means nothing.
    #[error("{place}: {problem}")]
    Value {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn wrong(place: impl Into<String>, problem: impl Into<String>) -> WorldFileError {
    WorldFileError::Value { place: place.into(), problem: problem.into() }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldFile {
    cluster: String,
    #[serde(default = "default_version")]
    version: String,
    #[serde(default)]
    clock: ClockFile,
    #[serde(default = "default_zone")]
    time_zone: String,
    #[serde(default = "default_user")]
    acting_user: String,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    slurmctld_up: bool,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    slurmdbd_up: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_clusters: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    config: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tres: BTreeMap<u32, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionFile>>,
    #[serde(default)]
    qos: Vec<QosFile>,
    #[serde(default)]
    accounts: Vec<AccountFile>,
    #[serde(default)]
    users: Vec<UserFile>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    uids: BTreeMap<String, u32>,
    #[serde(default)]
    jobs: Vec<JobFile>,
    #[serde(default, skip_serializing_if = "is_zero")]
    rolled_until: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    lived_until: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    last_job: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    next_association: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    next_qos: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    faults: Vec<Fault>,
}

/// `{"fixed": "2026-11-22T05:00:00Z"}` or `{"offset": -3600}`; a bare time is fixed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClockFile {
    Fixed(Value),
    Offset(i64),
}

impl Default for ClockFile {
    fn default() -> Self {
        ClockFile::Offset(0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionFile {
    name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    default: bool,
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    up: bool,
    #[serde(default, rename = "TRESBillingWeights", skip_serializing_if = "String::is_empty")]
    billing_weights: String,
    #[serde(default = "default_nodes")]
    nodes: String,
    #[serde(default = "default_capacity")]
    tres: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QosFile {
    name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flags: Vec<String>,
    #[serde(default = "unit", skip_serializing_if = "is_unit")]
    usage_factor: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "is_zero")]
    usage_reset_at: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountFile {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    order: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fairshare: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    qos: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_qos: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "is_zero")]
    usage_reset_at: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    usage_left_at: i64,
    #[serde(default, skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserFile {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin_level: Option<String>,
    /// Accounts in short; the first is the default unless another is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_account: Option<String>,
    /// Accounts at length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    associations: Vec<UserAssociationFile>,
    /// The user itself was deleted, its associations are kept for jobs.
    #[serde(default, skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserAssociationFile {
    account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    order: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fairshare: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    qos: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_qos: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "is_zero")]
    usage_reset_at: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    usage_left_at: i64,
    #[serde(default, skip_serializing_if = "is_false")]
    default: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct JobFile {
    #[serde(skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(skip_serializing_if = "is_zero")]
    db_index: u64,
    #[serde(skip_serializing_if = "is_zero")]
    association: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    account: String,
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    partition: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    qos: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eligible: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suspended: Vec<(Value, Option<Value>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    allocated: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    requested: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    array: Option<ArrayFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    het: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    submit_line: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    work_dir: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    admin_comment: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    wckey: String,
    #[serde(skip_serializing_if = "is_false")]
    runaway: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_for_s: Option<i64>,
    #[serde(skip_serializing_if = "is_false")]
    held: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArrayFile {
    job: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
}

fn default_version() -> String {
    "22.05.8".to_owned()
}
fn default_zone() -> String {
    "UTC".to_owned()
}
fn default_user() -> String {
    "root".to_owned()
}
fn default_nodes() -> String {
    "n1".to_owned()
}
fn default_capacity() -> String {
    "cpu=32,mem=15000M,node=1,gres/gpu=4".to_owned()
}
fn yes() -> bool {
    true
}
fn unit() -> f64 {
    1.0
}
fn is_true(value: &bool) -> bool {
    *value
}
fn is_false(value: &bool) -> bool {
    !*value
}
fn is_unit(value: &f64) -> bool {
    (*value - 1.0).abs() < f64::EPSILON
}
fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

impl World {
    /// Reads a world: a state written by [`World::to_json`], or a seed written by a person.
    ///
    /// # Errors
    /// Text that is not JSON of this shape, and values that mean nothing, with their place.
    pub fn from_json(text: &str) -> Result<World, WorldFileError> {
        let file: WorldFile = serde_json::from_str(text)?;
        read::world(file)
    }

    /// The whole state as JSON. Its maps have texts as keys, so that writing it cannot fail.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&write::file(self)).unwrap_or_default()
    }
}
