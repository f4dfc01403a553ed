//! Everything the emulated cluster knows, and the typed operations that tests and scenarios use on it.

use super::clock::Clock;
use super::fault::Fault;
use super::job::{Job, JobState};
use super::limits::Limits;
use super::tree::Tree;
use super::tres::{Amounts, CPU, MEM, NODE, TresTable};
use std::collections::BTreeMap;

/// `fairshare=parent`: slurmdbd keeps it as this number, so setting the number means the same (22.05.8).
pub const SHARES_OF_PARENT: u32 = 0x7FFF_FFFF;

/// What a user may do in slurmdbd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum AdminLevel {
    /// Look.
    #[default]
    None,
    /// Change accounts, users and limits.
    Operator,
    /// Change QOS and reset usage too.
    Administrator,
}

impl AdminLevel {
    /// Slurm's word.
    pub fn name(self) -> &'static str {
        match self {
            AdminLevel::None => "None",
            AdminLevel::Operator => "Operator",
            AdminLevel::Administrator => "Administrator",
        }
    }
}

/// An account; its place in the tree and its limits are in its [`Association`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Organization.
    pub organization: String,
}

/// A user of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// What the user may do.
    pub admin_level: AdminLevel,
}

/// A place in the tree of accounts: an account, or a user in an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Association {
    /// Id in the database.
    pub id: u32,
    /// Account.
    pub account: String,
    /// User; none for the account itself.
    pub user: Option<String>,
    /// Partition that it is for; none for all.
    pub partition: Option<String>,
    /// Parent account; none for root and for users.
    pub parent: Option<String>,
    /// Raw shares, or [`SHARES_OF_PARENT`].
    pub shares: u32,
    /// Its own limits.
    pub limits: Limits,
    /// Its own list of QOS; empty takes the parent's.
    pub qos: Vec<String>,
    /// QOS added (true) to or removed (false) from the inherited list.
    pub delta_qos: Vec<(bool, String)>,
    /// Its own default QOS.
    pub default_qos: Option<String>,
    /// True for the user's default account.
    pub is_default: bool,
    /// Kept only because jobs refer to it.
    pub deleted: bool,
    /// Second up to which raw usage of its jobs has been thrown away.
    pub usage_reset_at: i64,
    /// Second of its last deletion: added again it shows nothing from before, while the accounts above still count it (22.05.8).
    pub usage_left_at: i64,
}

/// A quality of service.
#[derive(Debug, Clone, PartialEq)]
pub struct Qos {
    /// Id in the database.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Flags, as sacctmgr prints them.
    pub flags: Vec<String>,
    /// What raw usage is multiplied by.
    pub usage_factor: f64,
    /// Limits and priority.
    pub limits: Limits,
    /// Second up to which raw usage of its jobs has been thrown away.
    pub usage_reset_at: i64,
}

impl Qos {
    /// A QOS that limits nothing.
    pub fn new(id: u32, name: &str) -> Qos {
        Qos {
            id,
            name: name.to_owned(),
            description: name.to_owned(),
            flags: Vec::new(),
            usage_factor: 1.0,
            limits: Limits::default(),
            usage_reset_at: 0,
        }
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name.
    pub name: String,
    /// True for the one that jobs go to by default.
    pub is_default: bool,
    /// False keeps jobs waiting.
    pub up: bool,
    /// `TRESBillingWeights` as written in slurm.conf; empty counts CPUs.
    pub billing_weights: String,
    /// Nodes.
    pub nodes: String,
    /// What the nodes have, without billing.
    pub tres: Amounts,
}

/// Which daemons answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Services {
    /// The controller.
    pub slurmctld: bool,
    /// The database daemon.
    pub slurmdbd: bool,
}

/// Everything the emulated cluster knows.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Name of the cluster.
    pub cluster: String,
    /// Release, as `22.05.8`.
    pub version: String,
    /// The clock.
    pub clock: Clock,
    /// Time zone of programs whose environment has no TZ.
    pub time_zone: String,
    /// Who runs the programs; root and the Slurm user may do everything.
    pub acting_user: String,
    /// Trackable resources.
    pub tres: TresTable,
    /// QOS, in order of id.
    pub qos: Vec<Qos>,
    /// Accounts.
    pub accounts: Vec<Account>,
    /// Users.
    pub users: Vec<User>,
    /// Numbers of users on this host, beside root.
    pub uids: BTreeMap<String, u32>,
    /// Associations in the order of the tree: a parent before its children, later children first.
    pub associations: Vec<Association>,
    /// Partitions.
    pub partitions: Vec<Partition>,
    /// Values of `scontrol show config` and `sacctmgr show config` that differ from the built-in ones.
    pub config: BTreeMap<String, String>,
    /// Other clusters of the same database.
    pub other_clusters: Vec<String>,
    /// Job records, to be added with [`World::add_job`].
    pub jobs: Vec<Job>,
    /// Second up to which hours were rolled up by command, beyond those that are over.
    pub rolled_until: i64,
    /// Second up to which the controller has ended and started jobs.
    pub(super) lived_until: i64,
    /// Which daemons answer.
    pub services: Services,
    /// Faults to come.
    pub faults: Vec<Fault>,
    pub(super) last_job: u32,
    pub(super) last_index: u64,
    pub(super) next_association: u32,
    pub(super) next_qos: u32,
}

impl World {
    /// A new cluster: account root with user root, QOS normal, the usual resources, and one partition of one node with
    /// 32 CPUs, 15000 MB and 4 GPUs whose weights are those of `lab/real-slurm.sh`.
    pub fn new(cluster: &str) -> World {
        let mut world = World {
            cluster: cluster.to_owned(),
            version: "22.05.8".to_owned(),
            clock: Clock::default(),
            time_zone: "UTC".to_owned(),
            acting_user: "root".to_owned(),
            tres: TresTable::default(),
            qos: Vec::new(),
            accounts: Vec::new(),
            users: Vec::new(),
            uids: BTreeMap::new(),
            associations: Vec::new(),
            partitions: Vec::new(),
            config: BTreeMap::new(),
            other_clusters: Vec::new(),
            jobs: Vec::new(),
            rolled_until: 0,
            lived_until: 0,
            services: Services { slurmctld: true, slurmdbd: true },
            faults: Vec::new(),
            last_job: 0,
            last_index: 0,
            next_association: 1,
            next_qos: 1,
        };
        let normal = Qos { description: "Normal QOS default".to_owned(), ..Qos::new(0, "normal") };
        world.put_qos(normal);
        world.accounts.push(Account {
            name: "root".to_owned(),
            description: "default root account".to_owned(),
            organization: "root".to_owned(),
        });
        world.users.push(User { name: "root".to_owned(), admin_level: AdminLevel::Administrator });
        let root = Association {
            account: "root".to_owned(),
            shares: 1,
            qos: vec!["normal".to_owned()],
            ..Association::default()
        };
        world.put_associations(None, vec![root]);
        let user = Association {
            account: "root".to_owned(),
            user: Some("root".to_owned()),
            shares: 1,
            is_default: true,
            ..Association::default()
        };
        world.put_associations(Some("root"), vec![user]);
        let gpu = world.tres.add("gres/gpu");
        world.partitions.push(Partition {
            name: "debug".to_owned(),
            is_default: true,
            up: true,
            billing_weights: "CPU=1.0,Mem=0.25G,GRES/gpu=8.0".to_owned(),
            nodes: "n1".to_owned(),
            tres: Amounts::from([(CPU, 32), (MEM, 15_000), (NODE, 1), (gpu, 4)]),
        });
        world
    }

    /// The current second of the epoch on the cluster.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Lets this many seconds pass; jobs end and start as they go.
    pub fn advance(&mut self, seconds: i64) {
        self.let_time_pass();
        self.clock = self.clock.moved_by(seconds);
        self.let_time_pass();
    }

    /// Moves the clock to this second of the epoch.
    pub fn move_clock(&mut self, to: i64) {
        self.let_time_pass();
        self.clock = self.clock.moved_to(to);
        self.let_time_pass();
    }

    /// Plants a fault.
    pub fn plant(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Adds an account below `parent`, which must be there; nothing when the account is there already.
    pub fn add_account(&mut self, name: &str, parent: &str) {
        if self.account_association(name).is_some() {
            return;
        }
        self.accounts.push(Account {
            name: name.to_owned(),
            description: name.to_owned(),
            organization: if parent == "root" { name.to_owned() } else { parent.to_owned() },
        });
        let new = Association {
            account: name.to_owned(),
            parent: Some(parent.to_owned()),
            shares: 1,
            ..Association::default()
        };
        self.put_associations(Some(parent), vec![new]);
    }

    /// Adds a user to an account, which must be there; a user's first account becomes the default.
    pub fn add_user(&mut self, name: &str, account: &str) {
        if self.user_association(name, account).is_some() {
            return;
        }
        let is_default = !self.associations.iter().any(|a| !a.deleted && a.user.as_deref() == Some(name));
        if !self.users.iter().any(|user| user.name == name) {
            self.users.push(User { name: name.to_owned(), admin_level: AdminLevel::None });
        }
        self.give_uid(name);
        let new = Association {
            account: account.to_owned(),
            user: Some(name.to_owned()),
            shares: 1,
            is_default,
            ..Association::default()
        };
        self.put_associations(Some(account), vec![new]);
    }

    /// Adds a QOS, or replaces the one of this name; its id is kept or given.
    pub fn put_qos(&mut self, qos: Qos) {
        if let Some(old) = self.qos.iter_mut().find(|old| old.name == qos.name) {
            *old = Qos { id: old.id, ..qos };
            return;
        }
        let id = if qos.id == 0 { self.next_qos } else { qos.id };
        self.next_qos = self.next_qos.max(id + 1);
        self.qos.push(Qos { id, ..qos });
        self.qos.sort_by_key(|qos| qos.id);
    }

    /// The association of an account.
    pub fn account_association(&self, account: &str) -> Option<&Association> {
        self.associations.iter().find(|a| !a.deleted && a.user.is_none() && a.account == account)
    }

    /// The association of a user in an account.
    pub fn user_association(&self, user: &str, account: &str) -> Option<&Association> {
        self.associations
            .iter()
            .find(|a| !a.deleted && a.account == account && a.user.as_deref() == Some(user))
    }

    /// Adds a job record and gives its raw id: ids, association, QOS, partition and billing that are missing are
    /// filled in.
    pub fn add_job(&mut self, mut job: Job) -> u32 {
        if job.db_index == 0 {
            job.db_index = self.last_index + 1;
        }
        if job.id == 0 {
            job.id = self.last_job + 1;
        }
        self.last_index = self.last_index.max(job.db_index);
        self.last_job = self.last_job.max(job.id);
        if job.association == 0 {
            job.association = self.user_association(&job.user, &job.account).map_or(0, |a| a.id);
        }
        if job.qos.is_empty() {
            "normal".clone_into(&mut job.qos);
        }
        if job.partition.is_empty() {
            job.partition = self.default_partition().map(|p| p.name.clone()).unwrap_or_default();
        }
        let missing = job.missing_billing().then(|| self.billable(&job.partition, &job.allocated) as u64);
        job.complete_amounts(missing);
        let id = job.id;
        self.jobs.push(job);
        id
    }

    /// Changes every record of this raw id; false when there is none.
    pub fn change_job(&mut self, id: u32, change: impl Fn(&mut Job)) -> bool {
        let mut found = false;
        for job in self.jobs.iter_mut().filter(|job| job.id == id) {
            change(job);
            found = true;
        }
        found
    }

    /// The newest record of this raw id.
    pub fn job(&self, id: u32) -> Option<&Job> {
        self.jobs.iter().filter(|job| job.id == id).max_by_key(|job| job.submit)
    }

    /// A job waits no more and begins a new run: its record ends as REQUEUED and another begins now. False when no such
    /// job runs.
    pub fn requeue_job(&mut self, id: u32) -> bool {
        let now = self.now();
        let Some(old) = self.jobs.iter_mut().find(|job| job.id == id && job.end == 0) else { return false };
        old.state = JobState::Requeued;
        old.end = now;
        let again = Job {
            db_index: 0,
            state: JobState::Pending,
            submit: now,
            eligible: now,
            start: 0,
            end: 0,
            allocated: Amounts::new(),
            suspensions: Vec::new(),
            ..old.clone()
        };
        self.add_job(again);
        true
    }

    /// Number of a user on this host.
    pub(super) fn uid(&self, user: &str) -> Option<u32> {
        if user == "root" { Some(0) } else { self.uids.get(user).copied() }
    }

    /// User of a number on this host.
    pub(super) fn user_of(&self, uid: u32) -> Option<&str> {
        if uid == 0 {
            return Some("root");
        }
        self.uids.iter().find(|(_, number)| **number == uid).map(|(name, _)| name.as_str())
    }

    /// Gives a user of the database a number on this host.
    pub(super) fn give_uid(&mut self, name: &str) {
        if name != "root" && !self.uids.contains_key(name) {
            let next = self.uids.values().max().map_or(1001, |last| last + 1);
            self.uids.insert(name.to_owned(), next);
        }
    }

    /// What the acting user may do.
    pub(super) fn admin_level(&self) -> AdminLevel {
        if self.acting_user == "root" {
            return AdminLevel::Administrator;
        }
        self.users
            .iter()
            .find(|user| user.name == self.acting_user)
            .map_or(AdminLevel::None, |user| user.admin_level)
    }

    /// The QOS of this name, whatever the case.
    pub(super) fn qos_named(&self, name: &str) -> Option<&Qos> {
        self.qos.iter().find(|qos| qos.name.eq_ignore_ascii_case(name))
    }

    /// The partition that jobs go to by default.
    pub(super) fn default_partition(&self) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.is_default).or(self.partitions.first())
    }

    /// Puts new associations below an account as its first children, in order, and gives them ids. `None` puts the
    /// root. An unknown parent stands for root.
    pub(super) fn put_associations(&mut self, parent: Option<&str>, new: Vec<Association>) {
        let at = parent
            .and_then(|name| self.associations.iter().position(|a| a.user.is_none() && a.account == name))
            .map_or_else(|| self.associations.len().min(1), |at| at + 1);
        let mut numbered = Vec::with_capacity(new.len());
        for mut association in new {
            if association.id == 0 {
                association.id = self.next_association;
            }
            self.next_association = self.next_association.max(association.id + 1);
            numbered.push(association);
        }
        self.associations.splice(at..at, numbered);
    }

    /// The tree of accounts.
    pub(super) fn tree(&self) -> Tree<'_> {
        Tree::new(&self.associations)
    }
}

impl World {
    /// Brings back a deleted association of the same account, user and partition with new values; false when there is
    /// none.
    pub(super) fn revive(&mut self, new: &Association) -> bool {
        let same = |a: &Association| {
            a.deleted && a.account == new.account && a.user == new.user && a.partition == new.partition
        };
        let Some(at) = self.associations.iter().position(same) else { return false };
        let end = self.tree().end[at];
        let mut subtree: Vec<Association> = self.associations.drain(at..end).collect();
        if let Some(first) = subtree.first_mut() {
            let (id, usage_reset_at, usage_left_at) = (first.id, first.usage_reset_at, first.usage_left_at);
            *first = Association { id, usage_reset_at, usage_left_at, ..new.clone() };
        }
        let above = match (&new.user, &new.parent) {
            (Some(_), _) => Some(new.account.clone()),
            (None, parent) => parent.clone(),
        };
        self.put_associations(above.as_deref(), subtree);
        true
    }

    /// Removes associations with everything below them; those that jobs refer to are kept as deleted.
    pub(super) fn remove_associations(&mut self, places: &[usize]) {
        let now = self.now();
        let used: std::collections::HashSet<u32> = self.jobs.iter().map(|job| job.association).collect();
        let tree = self.tree();
        let mut gone = vec![false; self.associations.len()];
        for at in places {
            gone[*at..tree.end[*at]].fill(true);
        }
        let mut kept: Vec<bool> = gone.iter().map(|gone| !gone).collect();
        for at in (0..kept.len()).rev() {
            kept[at] |= used.contains(&self.associations[at].id);
            if kept[at]
                && let Some(above) = tree.parent[at]
            {
                kept[above] = true;
            }
        }
        let old = std::mem::take(&mut self.associations);
        self.associations = old
            .into_iter()
            .enumerate()
            .filter(|(at, _)| kept[*at])
            .map(|(at, mut association)| {
                association.deleted |= gone[at];
                if gone[at] {
                    association.usage_left_at = now;
                }
                association
            })
            .collect();
    }

    /// Takes the mark of the default account from all associations of a user.
    pub(super) fn clear_default_account(&mut self, user: &str) {
        for association in self.associations.iter_mut().filter(|a| a.user.as_deref() == Some(user)) {
            association.is_default = false;
        }
    }

    /// Host of the controller, as clusters are listed.
    pub(super) fn control_host(&self) -> &str {
        self.config.get("ControlHost").map_or("127.0.0.1", String::as_str)
    }

    /// Port of the controller.
    pub(super) fn control_port(&self) -> u32 {
        self.config.get("SlurmctldPort").and_then(|port| port.parse().ok()).unwrap_or(6817)
    }
}
