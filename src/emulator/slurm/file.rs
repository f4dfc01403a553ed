//! The world as a JSON file: the state of an emulated cluster, and the seed files that people write.
//!
//! A seed names accounts, users, QOS, partitions and jobs; everything that Slurm would number or fill in may be left
//! out. Times are seconds of the epoch, RFC 3339 texts, or relative to the clock: `now`, `now-2h`, `now+30m`.

use super::clock::Clock;
use super::fault::Fault;
use super::job::{ArrayPart, Job, JobState, Suspension, TimeLimit};
use super::limits::{Count, Limits, PerTres};
use super::tres::{Amounts, TresTable};
use super::world::{
    Account, AdminLevel, Association, Partition, Qos, SHARES_OF_PARENT, Services, User, World,
};
use jiff::Timestamp;
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
        Loader::load(file)
    }

    /// The whole state as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&written(self)).unwrap_or_default()
    }
}

/// A file on its way to a world.
struct Loader {
    world: World,
    now: i64,
}

impl Loader {
    fn load(file: WorldFile) -> Result<World, WorldFileError> {
        let mut world = World::new(&file.cluster);
        world.version = file.version;
        world.clock = match &file.clock {
            ClockFile::Offset(seconds) => Clock::Offset(*seconds),
            ClockFile::Fixed(at) => Clock::Fixed(moment(at, Clock::default().now(), "clock")?),
        };
        world.time_zone = file.time_zone;
        world.acting_user = file.acting_user;
        world.services = Services { slurmctld: file.slurmctld_up, slurmdbd: file.slurmdbd_up };
        world.other_clusters = file.other_clusters;
        world.config = file.config;
        world.uids = file.uids;
        world.rolled_until = file.rolled_until;
        world.faults = file.faults;
        if !file.tres.is_empty() {
            world.tres = TresTable::numbered(&file.tres);
        }
        let now = world.now();
        let mut loader = Loader { world, now };
        if let Some(partitions) = file.partitions {
            loader.partitions(partitions)?;
        }
        for qos in file.qos {
            loader.qos(qos)?;
        }
        loader.accounts(file.accounts, file.users)?;
        loader.jobs(file.jobs)?;
        let mut world = loader.world;
        world.next_association = world.next_association.max(file.next_association);
        world.next_qos = world.next_qos.max(file.next_qos);
        Ok(world)
    }

    fn amounts(&mut self, text: &str, place: &str) -> Result<Amounts, WorldFileError> {
        self.world.tres.parse_seed(text).map_err(|refused| wrong(place, refused.0))
    }

    fn partitions(&mut self, list: Vec<PartitionFile>) -> Result<(), WorldFileError> {
        self.world.partitions.clear();
        for file in list {
            let tres = self.amounts(&file.tres, &format!("partition {}", file.name))?;
            for part in file.billing_weights.split(',') {
                if let Some((name, _)) = part.split_once('=') {
                    self.world.tres.add(&name.to_lowercase());
                }
            }
            self.world.partitions.push(Partition {
                name: file.name,
                is_default: file.default,
                up: file.up,
                billing_weights: file.billing_weights,
                nodes: file.nodes,
                tres,
            });
        }
        Ok(())
    }

    fn qos(&mut self, file: QosFile) -> Result<(), WorldFileError> {
        let mut limits = self.limits(&file.limits, &format!("qos {}", file.name))?;
        if let Some(priority) = file.priority {
            limits.set_count(Count::Priority, Some(priority));
        }
        let known = self.world.qos_named(&file.name).map(|qos| qos.description.clone());
        let description = file.description.or(known).unwrap_or_else(|| file.name.clone());
        self.world.put_qos(Qos {
            id: file.id,
            description,
            flags: file.flags,
            usage_factor: file.usage_factor,
            limits,
            usage_reset_at: file.usage_reset_at,
            name: file.name,
        });
        Ok(())
    }

    fn limits(&mut self, file: &BTreeMap<String, Value>, place: &str) -> Result<Limits, WorldFileError> {
        let mut limits = Limits::default();
        for (key, value) in file {
            let place = format!("{place}: {key}");
            if let Some(which) = Count::ALL.iter().find(|count| count.name().eq_ignore_ascii_case(key)) {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                limits.set_count(*which, Some(number.ok_or_else(|| wrong(place, "not a number"))?));
            } else if let Some(which) = PerTres::ALL.iter().find(|tres| tres.name().eq_ignore_ascii_case(key))
            {
                let text = value.as_str().ok_or_else(|| wrong(&place, "not a text like billing=100"))?;
                let amounts = self.amounts(text, &place)?;
                limits.set_amounts(*which, amounts);
            } else {
                return Err(wrong(place, "no such limit"));
            }
        }
        Ok(limits)
    }

    /// Accounts and users: those with an order stand where it says, the others come as if added one by one.
    fn accounts(&mut self, accounts: Vec<AccountFile>, users: Vec<UserFile>) -> Result<(), WorldFileError> {
        let mut ordered: Vec<(u32, Association)> = Vec::new();
        for file in accounts {
            let place = format!("account {}", file.name);
            let limits = self.limits(&file.limits, &place)?;
            let parent = match file.parent {
                None if file.name == "root" => None,
                parent => Some(parent.unwrap_or_else(|| "root".to_owned())),
            };
            let association = Association {
                id: file.id,
                account: file.name.clone(),
                parent: parent.clone(),
                shares: shares(file.fairshare.as_ref(), &place)?,
                limits,
                default_qos: file.default_qos,
                deleted: file.deleted,
                usage_reset_at: file.usage_reset_at,
                ..with_qos(&file.qos)
            };
            if !file.deleted {
                self.describe(&file.name, file.description, file.organization, parent.as_deref());
            }
            self.place(file.order, association, &mut ordered, &place)?;
        }
        for user in users {
            self.user(user, &mut ordered)?;
        }
        if !ordered.is_empty() {
            ordered.sort_by_key(|(order, _)| *order);
            let rest = std::mem::take(&mut self.world.associations);
            self.world.associations = ordered.into_iter().map(|(_, association)| association).collect();
            for association in rest {
                let known = self
                    .world
                    .associations
                    .iter()
                    .any(|a| a.account == association.account && a.user == association.user);
                if !known {
                    let above = association.parent.clone().unwrap_or_else(|| association.account.clone());
                    self.world.put_associations(Some(&above), vec![association]);
                }
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        order: u32,
        association: Association,
        ordered: &mut Vec<(u32, Association)>,
        place: &str,
    ) -> Result<(), WorldFileError> {
        if order > 0 {
            self.world.next_association = self.world.next_association.max(association.id + 1);
            ordered.push((order, association));
            return Ok(());
        }
        let same = |a: &&mut Association| {
            a.account == association.account
                && a.user == association.user
                && a.partition == association.partition
        };
        if let Some(known) = self.world.associations.iter_mut().find(same) {
            let id = known.id;
            let qos = if association.qos.is_empty() { known.qos.clone() } else { association.qos.clone() };
            *known = Association { id, qos, ..association };
            return Ok(());
        }
        let above = match (&association.user, &association.parent) {
            (Some(_), _) => association.account.clone(),
            (None, parent) => parent.clone().unwrap_or_else(|| "root".to_owned()),
        };
        if self.world.account_association(&above).is_none() {
            return Err(wrong(place, format!("account {above} must come before it")));
        }
        self.world.put_associations(Some(&above), vec![association]);
        Ok(())
    }

    fn describe(
        &mut self,
        name: &str,
        description: Option<String>,
        organization: Option<String>,
        parent: Option<&str>,
    ) {
        let by_default = match parent {
            Some(parent) if parent != "root" => parent.to_owned(),
            _ => name.to_owned(),
        };
        let account = Account {
            name: name.to_owned(),
            description: description.unwrap_or_else(|| name.to_owned()),
            organization: organization.unwrap_or(by_default),
        };
        match self.world.accounts.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = account,
            None => self.world.accounts.push(account),
        }
    }

    fn user(&mut self, file: UserFile, ordered: &mut Vec<(u32, Association)>) -> Result<(), WorldFileError> {
        let place = format!("user {}", file.name);
        let admin_level = match file.admin_level.as_deref() {
            None if file.name == "root" => AdminLevel::Administrator,
            None => AdminLevel::None,
            Some(text) => [AdminLevel::None, AdminLevel::Operator, AdminLevel::Administrator]
                .into_iter()
                .find(|level| level.name().eq_ignore_ascii_case(text))
                .ok_or_else(|| wrong(&place, "admin_level is None, Operator or Administrator"))?,
        };
        self.world.users.retain(|known| known.name != file.name);
        if !file.deleted {
            self.world.users.push(User { name: file.name.clone(), admin_level });
        }
        if let Some(uid) = file.uid {
            self.world.uids.insert(file.name.clone(), uid);
        } else {
            self.world.give_uid(&file.name);
        }
        let default = file.default_account.or_else(|| file.accounts.first().cloned());
        for account in file.accounts {
            let association = Association {
                is_default: default.as_deref() == Some(account.as_str()),
                account,
                user: Some(file.name.clone()),
                shares: 1,
                ..Association::default()
            };
            self.place(0, association, ordered, &place)?;
        }
        for at_length in file.associations {
            let place = format!("{place} in {}", at_length.account);
            let limits = self.limits(&at_length.limits, &place)?;
            let association = Association {
                id: at_length.id,
                account: at_length.account,
                user: Some(file.name.clone()),
                partition: at_length.partition,
                shares: shares(at_length.fairshare.as_ref(), &place)?,
                limits,
                default_qos: at_length.default_qos,
                is_default: at_length.default,
                deleted: at_length.deleted,
                usage_reset_at: at_length.usage_reset_at,
                ..with_qos(&at_length.qos)
            };
            self.place(at_length.order, association, ordered, &place)?;
        }
        Ok(())
    }

    fn jobs(&mut self, list: Vec<JobFile>) -> Result<(), WorldFileError> {
        let mut next_index = list.iter().map(|job| job.db_index).max().unwrap_or(0);
        let mut next_id = list.iter().map(|job| job.id).max().unwrap_or(0);
        let at_id: BTreeMap<(String, String), u32> = self
            .world
            .associations
            .iter()
            .filter_map(|a| Some(((a.account.clone(), a.user.clone()?), a.id)))
            .collect();
        let mut jobs = Vec::with_capacity(list.len());
        for (at, file) in list.into_iter().enumerate() {
            let mut job = self.job(file, &format!("jobs[{at}]"))?;
            if job.db_index == 0 {
                next_index += 1;
                job.db_index = next_index;
            }
            if job.id == 0 {
                next_id += 1;
                job.id = next_id;
            }
            if job.association == 0 {
                job.association = at_id.get(&(job.account.clone(), job.user.clone())).copied().unwrap_or(0);
            }
            jobs.push(job);
        }
        self.world.jobs = jobs;
        Ok(())
    }

    fn job(&mut self, file: JobFile, place: &str) -> Result<Job, WorldFileError> {
        let at = |value: &Option<Value>, name: &str| match value {
            None | Some(Value::Null) => Ok(0),
            Some(value) => moment(value, self.now, &format!("{place}: {name}")),
        };
        let start = at(&file.start, "start")?;
        let end = at(&file.end, "end")?;
        let submit = if file.submit.is_none() { start } else { at(&file.submit, "submit")? };
        let eligible = if file.eligible.is_none() { submit } else { at(&file.eligible, "eligible")? };
        let suspensions = self.suspensions(&file.suspended, place)?;
        let allocated = self.amounts(&file.allocated, place)?;
        let requested = self.amounts(&file.requested, place)?;
        let partition = match (file.partition, self.world.default_partition()) {
            (name, _) if !name.is_empty() => name,
            (_, Some(partition)) => partition.name.clone(),
            (_, None) => String::new(),
        };
        let nodes = match file.nodes {
            Some(nodes) => nodes,
            None if start == 0 => String::new(),
            None => self
                .world
                .partitions
                .iter()
                .find(|known| known.name == partition)
                .map(|known| known.nodes.clone())
                .unwrap_or_default(),
        };
        let mut job = Job {
            db_index: file.db_index,
            id: file.id,
            association: file.association,
            cluster: file.cluster,
            name: file.name,
            account: file.account,
            user: file.user,
            partition,
            qos: if file.qos.is_empty() { "normal".to_owned() } else { file.qos },
            state: match &file.state {
                Some(text) => JobState::from_text(text),
                None if start == 0 && end == 0 => JobState::Pending,
                None if end == 0 => JobState::Running,
                None => JobState::Completed,
            },
            submit,
            eligible,
            start,
            end,
            suspensions,
            time_limit: time_limit(file.time_limit.as_ref(), place)?,
            allocated,
            requested,
            nodes,
            exit_code: exit_code(file.exit_code.as_deref(), place)?,
            cancelled_by: file.cancelled_by,
            array: file.array.map(|a| ArrayPart { job: a.job, task: a.task, waiting: a.waiting }),
            het: file.het,
            flags: file.flags.unwrap_or_else(|| vec!["SchedMain".to_owned(), "StartRecieved".to_owned()]),
            priority: file.priority.unwrap_or(1),
            reason: file.reason,
            submit_line: file.submit_line,
            work_dir: file.work_dir,
            comment: file.comment,
            admin_comment: file.admin_comment,
            wckey: file.wckey,
            runaway: file.runaway,
            runs_for_s: file.runs_for_s,
            held: file.held,
        };
        self.world.fill_billing(&mut job);
        Ok(job)
    }

    fn suspensions(
        &self,
        list: &[(Value, Option<Value>)],
        place: &str,
    ) -> Result<Vec<Suspension>, WorldFileError> {
        let place = format!("{place}: suspended");
        list.iter()
            .map(|(from, to)| {
                let to = match to {
                    None | Some(Value::Null) => None,
                    Some(to) => Some(moment(to, self.now, &place)?),
                };
                Ok(Suspension { from: moment(from, self.now, &place)?, to })
            })
            .collect()
    }
}

/// A list of QOS: plain names make the list, names with a sign change the inherited one.
fn with_qos(list: &[String]) -> Association {
    let mut association = Association::default();
    for name in list {
        match (name.strip_prefix('+'), name.strip_prefix('-')) {
            (Some(name), _) => association.delta_qos.push((true, name.to_owned())),
            (_, Some(name)) => association.delta_qos.push((false, name.to_owned())),
            _ => association.qos.push(name.clone()),
        }
    }
    association
}

fn shares(value: Option<&Value>, place: &str) -> Result<u32, WorldFileError> {
    match value {
        None => Ok(1),
        Some(Value::String(text)) if text == "parent" => Ok(SHARES_OF_PARENT),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(place, "fairshare is a number or \"parent\"")),
    }
}

fn time_limit(value: Option<&Value>, place: &str) -> Result<TimeLimit, WorldFileError> {
    match value {
        None | Some(Value::Null) => Ok(TimeLimit::Partition),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("unlimited") => Ok(TimeLimit::Unlimited),
        Some(value) => value
            .as_u64()
            .and_then(|minutes| u32::try_from(minutes).ok())
            .map(TimeLimit::Minutes)
            .ok_or_else(|| wrong(place, "time_limit is minutes or \"UNLIMITED\"")),
    }
}

fn exit_code(text: Option<&str>, place: &str) -> Result<(i32, i32), WorldFileError> {
    let Some(text) = text else { return Ok((0, 0)) };
    text.split_once(':')
        .and_then(|(status, signal)| Some((status.parse().ok()?, signal.parse().ok()?)))
        .ok_or_else(|| wrong(place, "exit_code is like 1:0"))
}

/// A time: seconds of the epoch, RFC 3339, or relative to now.
fn moment(value: &Value, now: i64, place: &str) -> Result<i64, WorldFileError> {
    if let Some(at) = value.as_i64() {
        return Ok(at);
    }
    let text = value.as_str().ok_or_else(|| wrong(place, "not a time"))?;
    if let Some(offset) = text.strip_prefix("now") {
        return relative(offset).map(|seconds| now + seconds).ok_or_else(|| wrong(place, "not like now-2h"));
    }
    text.parse::<Timestamp>()
        .map(|at| at.as_second())
        .map_err(|error| wrong(place, format!("not an RFC 3339 time: {error}")))
}

/// `-2h30m`, `+45s`, or nothing.
fn relative(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let (sign, mut rest) = match (text.strip_prefix('-'), text.strip_prefix('+')) {
        (Some(rest), _) => (-1, rest),
        (_, Some(rest)) => (1, rest),
        _ => return None,
    };
    let mut seconds = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..end].parse().ok()?;
        let unit = match rest[end..].chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end + 1..];
    }
    Some(sign * seconds)
}

fn written(world: &World) -> WorldFile {
    let clock = match world.clock {
        Clock::Fixed(at) => ClockFile::Fixed(Value::from(at)),
        Clock::Offset(seconds) => ClockFile::Offset(seconds),
    };
    let (accounts, users) = written_accounts(world);
    WorldFile {
        cluster: world.cluster.clone(),
        version: world.version.clone(),
        clock,
        time_zone: world.time_zone.clone(),
        acting_user: world.acting_user.clone(),
        slurmctld_up: world.services.slurmctld,
        slurmdbd_up: world.services.slurmdbd,
        other_clusters: world.other_clusters.clone(),
        config: world.config.clone(),
        tres: world.tres.iter().map(|tres| (tres.id, tres.full_name())).collect(),
        partitions: Some(
            world.partitions.iter().map(|partition| written_partition(world, partition)).collect(),
        ),
        qos: world.qos.iter().map(|qos| written_qos(world, qos)).collect(),
        accounts,
        users,
        uids: world.uids.clone(),
        jobs: world.jobs.iter().map(|job| written_job(world, job)).collect(),
        rolled_until: world.rolled_until,
        next_association: world.next_association,
        next_qos: world.next_qos,
        faults: world.faults.clone(),
    }
}

fn written_partition(world: &World, partition: &Partition) -> PartitionFile {
    PartitionFile {
        name: partition.name.clone(),
        default: partition.is_default,
        up: partition.up,
        billing_weights: partition.billing_weights.clone(),
        nodes: partition.nodes.clone(),
        tres: plain(world, &partition.tres),
    }
}

/// Amounts that parse back to the same numbers.
fn plain(world: &World, amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts
        .iter()
        .filter_map(|(id, count)| Some(format!("{}={count}", world.tres.by_id(*id)?.full_name())))
        .collect();
    parts.join(",")
}

fn written_limits(world: &World, limits: &Limits) -> BTreeMap<String, Value> {
    let counts = limits.counts.iter().map(|(which, number)| (which.name().to_owned(), Value::from(*number)));
    let tres = limits
        .tres
        .iter()
        .map(|(which, amounts)| (which.name().to_owned(), Value::from(plain(world, amounts))));
    counts.chain(tres).collect()
}

fn written_qos(world: &World, qos: &Qos) -> QosFile {
    QosFile {
        name: qos.name.clone(),
        id: qos.id,
        description: Some(qos.description.clone()),
        priority: None,
        flags: qos.flags.clone(),
        usage_factor: qos.usage_factor,
        limits: written_limits(world, &qos.limits),
        usage_reset_at: qos.usage_reset_at,
    }
}

fn written_shares(association: &Association) -> Option<Value> {
    match association.shares {
        1 => None,
        SHARES_OF_PARENT => Some(Value::from("parent")),
        shares => Some(Value::from(shares)),
    }
}

fn written_qos_list(association: &Association) -> Vec<String> {
    let deltas =
        association.delta_qos.iter().map(|(added, name)| format!("{}{name}", if *added { '+' } else { '-' }));
    association.qos.iter().cloned().chain(deltas).collect()
}

fn written_accounts(world: &World) -> (Vec<AccountFile>, Vec<UserFile>) {
    let mut accounts = Vec::new();
    let mut users: Vec<UserFile> = Vec::new();
    let mut at_name: BTreeMap<String, usize> = BTreeMap::new();
    let described: BTreeMap<&str, &Account> = world.accounts.iter().map(|a| (a.name.as_str(), a)).collect();
    for user in &world.users {
        at_name.insert(user.name.clone(), users.len());
        users.push(written_user(world, &user.name, user.admin_level, false));
    }
    for (at, association) in world.associations.iter().enumerate() {
        let order = u32::try_from(at + 1).unwrap_or(u32::MAX);
        match &association.user {
            None => accounts.push(AccountFile {
                name: association.account.clone(),
                parent: association.parent.clone(),
                description: described.get(association.account.as_str()).map(|a| a.description.clone()),
                organization: described.get(association.account.as_str()).map(|a| a.organization.clone()),
                id: association.id,
                order,
                fairshare: written_shares(association),
                qos: written_qos_list(association),
                default_qos: association.default_qos.clone(),
                limits: written_limits(world, &association.limits),
                usage_reset_at: association.usage_reset_at,
                deleted: association.deleted,
            }),
            Some(name) => {
                let at = *at_name.entry(name.clone()).or_insert_with(|| {
                    users.push(written_user(world, name, AdminLevel::None, true));
                    users.len() - 1
                });
                users[at].associations.push(written_user_association(world, association, order));
            }
        }
    }
    (accounts, users)
}

fn written_user(world: &World, name: &str, level: AdminLevel, deleted: bool) -> UserFile {
    UserFile {
        name: name.to_owned(),
        uid: world.uids.get(name).copied(),
        admin_level: Some(level.name().to_owned()),
        accounts: Vec::new(),
        default_account: None,
        associations: Vec::new(),
        deleted,
    }
}

fn written_user_association(world: &World, association: &Association, order: u32) -> UserAssociationFile {
    UserAssociationFile {
        account: association.account.clone(),
        partition: association.partition.clone(),
        id: association.id,
        order,
        fairshare: written_shares(association),
        qos: written_qos_list(association),
        default_qos: association.default_qos.clone(),
        limits: written_limits(world, &association.limits),
        usage_reset_at: association.usage_reset_at,
        default: association.is_default,
        deleted: association.deleted,
    }
}

fn written_job(world: &World, job: &Job) -> JobFile {
    let at = |at: i64| (at != 0).then(|| Value::from(at));
    JobFile {
        id: job.id,
        db_index: job.db_index,
        association: job.association,
        cluster: job.cluster.clone(),
        account: job.account.clone(),
        user: job.user.clone(),
        name: job.name.clone(),
        partition: job.partition.clone(),
        qos: job.qos.clone(),
        state: Some(job.state.to_string()),
        submit: Some(Value::from(job.submit)),
        eligible: Some(Value::from(job.eligible)),
        start: at(job.start),
        end: at(job.end),
        suspended: job
            .suspensions
            .iter()
            .map(|part| (Value::from(part.from), part.to.map(Value::from)))
            .collect(),
        time_limit: match job.time_limit {
            TimeLimit::Partition => None,
            TimeLimit::Unlimited => Some(Value::from("UNLIMITED")),
            TimeLimit::Minutes(minutes) => Some(Value::from(minutes)),
        },
        allocated: plain(world, &job.allocated),
        requested: plain(world, &job.requested),
        nodes: Some(job.nodes.clone()),
        exit_code: Some(format!("{}:{}", job.exit_code.0, job.exit_code.1)),
        cancelled_by: job.cancelled_by,
        array: job.array.as_ref().map(|part| ArrayFile {
            job: part.job,
            task: part.task,
            waiting: part.waiting.clone(),
        }),
        het: job.het,
        flags: Some(job.flags.clone()),
        priority: Some(job.priority),
        reason: job.reason.clone(),
        submit_line: job.submit_line.clone(),
        work_dir: job.work_dir.clone(),
        comment: job.comment.clone(),
        admin_comment: job.admin_comment.clone(),
        wckey: job.wckey.clone(),
        runaway: job.runaway,
        runs_for_s: job.runs_for_s,
        held: job.held,
    }
}
