//! Why the controller refuses a submission or lets a job wait: limits of QOS and associations, enforced with `safe`.
//!
//! A QOS limit takes the place of the association's limit of the same kind (per resource). Not emulated: `DenyOnLimit`,
//! partition QOS, limit factors, and the room on the nodes.

use super::billing::Billing;
use super::configuration;
use super::job::{Job, TimeLimit};
use super::limits::{Count, Limits, PerTres};
use super::tree::Tree;
use super::tres::{Amounts, BILLING, CPU, MEM, NODE};
use super::usage::RawUsage;
use super::world::{Qos, World};
use std::collections::HashMap;

/// Usage of a QOS: in all, and by those it limits.
#[derive(Debug, Clone, Default)]
struct QosUsage {
    all: RawUsage,
    by_user: HashMap<String, RawUsage>,
    by_account: HashMap<String, RawUsage>,
}

/// What counts against limits at an instant.
pub(super) struct Ledger<'a> {
    world: &'a World,
    tree: Tree<'a>,
    billing: Billing<'a>,
    at: i64,
    usage: Vec<RawUsage>,
    of_qos: HashMap<&'a str, QosUsage>,
    places: HashMap<u32, usize>,
    safe: bool,
}

/// Kinds of limits per resource, for the words of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Group,
    GroupMinutes,
    GroupRunMinutes,
    Job,
    JobMinutes,
    User,
    Account,
}

impl<'a> Ledger<'a> {
    /// The usage at this instant.
    pub(super) fn new(world: &'a World, at: i64) -> Ledger<'a> {
        let tree = world.tree();
        let billing = world.billing();
        let usage = world.raw_usage_at(&tree, at);
        let mut of_qos: HashMap<&str, QosUsage> = HashMap::new();
        for qos in world.qos.iter().filter(|qos| qos.limits != Limits::default()) {
            of_qos.insert(&qos.name, QosUsage::default());
        }
        let resets: HashMap<&str, i64> =
            world.qos.iter().map(|qos| (qos.name.as_str(), qos.usage_reset_at)).collect();
        for job in world.jobs.iter().filter(|job| !job.runaway && job.cluster.is_none()) {
            let Some(of_qos) = of_qos.get_mut(job.qos.as_str()) else { continue };
            let reset_at = resets.get(job.qos.as_str()).copied().unwrap_or(0);
            let mut of_job = RawUsage::default();
            world.count_job(job, &billing, reset_at, at, &mut of_job);
            of_qos.add(job, &of_job);
        }
        let safe = configuration::value(world, "AccountingStorageEnforce").contains("safe");
        let places = tree.by_id();
        Ledger { world, tree, billing, at, usage, of_qos, places, safe }
    }

    /// The first limit that refuses `count` more jobs of this user in this account with this QOS.
    pub(super) fn refusal(&self, place: usize, qos: &str, count: u32) -> Option<&'static str> {
        let own = &self.tree.list[place];
        let user = own.user.as_deref().unwrap_or("");
        let qos = self.world.qos_named(qos);
        let over = |limit: Option<u32>, used: u32| limit.is_some_and(|limit| used + count > limit);
        let of_qos = |which: Count| qos.and_then(|qos| qos.limits.count(which));
        if let Some(used) = qos.and_then(|qos| self.of_qos.get(qos.name.as_str())) {
            let submitted =
                |by: &HashMap<String, RawUsage>, name: &str| by.get(name).map_or(0, |u| u.submitted);
            if over(of_qos(Count::GrpSubmitJobs), used.all.submitted) {
                return Some("QOSGrpSubmitJobsLimit");
            }
            if over(of_qos(Count::MaxSubmitJobsPerAccount), submitted(&used.by_account, &own.account)) {
                return Some("MaxSubmitJobsPerAccount");
            }
            if over(of_qos(Count::MaxSubmitJobsPerUser), submitted(&used.by_user, user)) {
                return Some("QOSMaxSubmitJobPerUserLimit");
            }
        }
        let qos_limits_submission =
            of_qos(Count::MaxSubmitJobsPerUser).or(of_qos(Count::MaxSubmitJobsPerAccount)).is_some();
        for at in self.tree.upwards(place) {
            let limits = &self.tree.list[at].limits;
            if of_qos(Count::GrpSubmitJobs).is_none()
                && over(limits.count(Count::GrpSubmitJobs), self.usage[at].submitted)
            {
                return Some("AssocGrpSubmitJobsLimit");
            }
            if at == place
                && !qos_limits_submission
                && over(self.tree.count(at, Count::MaxSubmitJobs), self.usage[at].submitted)
            {
                return Some("AssocMaxSubmitJobLimit");
            }
        }
        None
    }

    /// Why a job that waits cannot start now; the controller's word for it.
    pub(super) fn obstacle(&self, job: &Job) -> Option<String> {
        if job.held {
            return Some("JobHeldUser".to_owned());
        }
        if job.eligible > self.at {
            return Some("BeginTime".to_owned());
        }
        if let Some(partition) = self.world.partitions.iter().find(|known| known.name == job.partition) {
            let has = |id: &u32| partition.tres.get(id).copied().unwrap_or(0);
            if job.requested.iter().any(|(id, wanted)| *id != BILLING && *wanted > has(id)) {
                return Some("PartitionConfig".to_owned());
            }
            if !partition.up {
                return Some("PartitionDown".to_owned());
            }
        }
        let Some(place) = self.places.get(&job.association).copied() else {
            return Some("InvalidAccount".to_owned());
        };
        let qos = self.world.qos_named(&job.qos);
        self.numbers(job, place, qos).or_else(|| self.amounts(job, place, qos))
    }

    /// Numbers of jobs and wall time.
    fn numbers(&self, job: &Job, place: usize, qos: Option<&Qos>) -> Option<String> {
        let of_qos = |which: Count| qos.and_then(|qos| qos.limits.count(which));
        let full = |limit: Option<u32>, used: u32| limit.is_some_and(|limit| used >= limit);
        let too_long = |limit: Option<u32>| limit.is_some_and(|limit| minutes(job) > u64::from(limit));
        if let Some(used) = qos.and_then(|qos| self.of_qos.get(qos.name.as_str())) {
            let running = |by: &HashMap<String, RawUsage>, name: &str| by.get(name).map_or(0, |u| u.running);
            if full(of_qos(Count::GrpJobs), used.all.running) {
                return Some("QOSGrpJobsLimit".to_owned());
            }
            if self.wall_is_used(of_qos(Count::GrpWall), used.all.wall, job) {
                return Some("QOSGrpWallLimit".to_owned());
            }
            if full(of_qos(Count::MaxJobsPerAccount), running(&used.by_account, &job.account)) {
                return Some("MaxJobsPerAccount".to_owned());
            }
            if full(of_qos(Count::MaxJobsPerUser), running(&used.by_user, &job.user)) {
                return Some("QOSMaxJobsPerUserLimit".to_owned());
            }
            if too_long(of_qos(Count::MaxWall)) {
                return Some("QOSMaxWallDurationPerJobLimit".to_owned());
            }
        }
        let qos_limits_jobs = of_qos(Count::MaxJobsPerUser).or(of_qos(Count::MaxJobsPerAccount)).is_some();
        for at in self.tree.upwards(place) {
            let limits = &self.tree.list[at].limits;
            if of_qos(Count::GrpJobs).is_none() && full(limits.count(Count::GrpJobs), self.usage[at].running)
            {
                return Some("AssocGrpJobsLimit".to_owned());
            }
            if of_qos(Count::GrpWall).is_none()
                && self.wall_is_used(limits.count(Count::GrpWall), self.usage[at].wall, job)
            {
                return Some("AssocGrpWallLimit".to_owned());
            }
            if at != place {
                continue;
            }
            if !qos_limits_jobs && full(self.tree.count(at, Count::MaxJobs), self.usage[at].running) {
                return Some("AssocMaxJobsLimit".to_owned());
            }
            if of_qos(Count::MaxWall).is_none() && too_long(self.tree.count(at, Count::MaxWall)) {
                return Some("AssocMaxWallDurationPerJobLimit".to_owned());
            }
        }
        None
    }

    fn wall_is_used(&self, limit: Option<u32>, used_s: f64, job: &Job) -> bool {
        let used = used_s as u64 / 60;
        limit.is_some_and(|limit| {
            let limit = u64::from(limit);
            used >= limit || (self.safe && used.saturating_add(minutes(job)) > limit)
        })
    }

    /// Amounts of resources: of the QOS first, then of the association and everything above it.
    fn amounts(&self, job: &Job, place: usize, qos: Option<&Qos>) -> Option<String> {
        if let Some(qos) = qos
            && let Some(used) = self.of_qos.get(qos.name.as_str())
        {
            let limit = |which: PerTres| qos.limits.amounts(which).cloned().unwrap_or_default();
            let nothing = RawUsage::default();
            let of_user = used.by_user.get(&job.user).unwrap_or(&nothing);
            let of_account = used.by_account.get(&job.account).unwrap_or(&nothing);
            let reason = self
                .group("QOS", job, &used.all, limit)
                .or_else(|| self.per_job("QOS", job, limit))
                .or_else(|| {
                    in_use("QOS", Kind::User, self.world, job, &limit(PerTres::MaxTresPerUser), of_user)
                })
                .or_else(|| {
                    in_use("", Kind::Account, self.world, job, &limit(PerTres::MaxTresPerAccount), of_account)
                });
            if reason.is_some() {
                return reason;
            }
        }
        let left_to_association = |which: PerTres, mut amounts: Amounts| {
            let of_qos = qos.and_then(|qos| qos.limits.amounts(which));
            amounts.retain(|id, _| of_qos.is_none_or(|of_qos| !of_qos.contains_key(id)));
            amounts
        };
        for at in self.tree.upwards(place) {
            let own = &self.tree.list[at].limits;
            let limit =
                |which: PerTres| left_to_association(which, own.amounts(which).cloned().unwrap_or_default());
            let mut reason = self.group("Assoc", job, &self.usage[at], limit);
            if at == place && reason.is_none() {
                let inherited = |which: PerTres| left_to_association(which, self.tree.amounts(at, which));
                reason = self.per_job("Assoc", job, inherited);
            }
            if reason.is_some() {
                return reason;
            }
        }
        None
    }

    fn group(
        &self,
        whose: &str,
        job: &Job,
        used: &RawUsage,
        limit: impl Fn(PerTres) -> Amounts,
    ) -> Option<String> {
        for (id, limit) in limit(PerTres::GrpTresMins) {
            let wanted = job.requested.get(&id).copied().unwrap_or(0);
            let spent = used.tres.get(&id).copied().unwrap_or(0.0) as u64 / 60;
            let committed = used.committed.get(&id).copied().unwrap_or(0) / 60;
            let needed = wanted.saturating_mul(minutes(job)).saturating_add(committed).saturating_add(spent);
            if wanted > 0 && (spent >= limit || (self.safe && needed > limit)) {
                return Some(reason(whose, Kind::GroupMinutes, self.world, id));
            }
        }
        for (id, limit) in limit(PerTres::GrpTresRunMins) {
            let wanted = job.requested.get(&id).copied().unwrap_or(0);
            let committed = used.committed.get(&id).copied().unwrap_or(0) / 60;
            if wanted > 0 && wanted.saturating_mul(minutes(job)).saturating_add(committed) > limit {
                return Some(reason(whose, Kind::GroupRunMinutes, self.world, id));
            }
        }
        in_use(whose, Kind::Group, self.world, job, &limit(PerTres::GrpTres), used)
    }

    fn per_job(&self, whose: &str, job: &Job, limit: impl Fn(PerTres) -> Amounts) -> Option<String> {
        let wanted = |id: u32| job.requested.get(&id).copied().unwrap_or(0);
        for (id, limit) in limit(PerTres::MaxTresMins) {
            if wanted(id) > 0 && wanted(id).saturating_mul(minutes(job)) > limit {
                return Some(reason(whose, Kind::JobMinutes, self.world, id));
            }
        }
        let over = limit(PerTres::MaxTres).into_iter().find(|(id, limit)| wanted(*id) > *limit);
        over.map(|(id, _)| reason(whose, Kind::Job, self.world, id))
    }

    /// Position of the association of this id.
    pub(super) fn place(&self, association: u32) -> Option<usize> {
        self.places.get(&association).copied()
    }

    /// Counts a job that starts now.
    pub(super) fn begin(&mut self, job: &Job) {
        let mut of_job = RawUsage::default();
        self.world.count_job(job, &self.billing, 0, self.at, &mut of_job);
        of_job.submitted = 0;
        if let Some(place) = self.places.get(&job.association) {
            for at in self.tree.upwards(*place).collect::<Vec<_>>() {
                self.usage[at].add(&of_job);
            }
        }
        if let Some(of_qos) = self.of_qos.get_mut(job.qos.as_str()) {
            of_qos.add(job, &of_job);
        }
    }
}

impl QosUsage {
    fn add(&mut self, job: &Job, of_job: &RawUsage) {
        self.all.add(of_job);
        self.by_user.entry(job.user.clone()).or_default().add(of_job);
        self.by_account.entry(job.account.clone()).or_default().add(of_job);
    }
}

/// Minutes that a job may take; a number larger than any limit when it may take for ever.
fn minutes(job: &Job) -> u64 {
    match job.time_limit {
        TimeLimit::Minutes(minutes) => u64::from(minutes),
        TimeLimit::Unlimited | TimeLimit::Partition => u64::from(u32::MAX),
    }
}

fn in_use(
    whose: &str,
    kind: Kind,
    world: &World,
    job: &Job,
    limits: &Amounts,
    used: &RawUsage,
) -> Option<String> {
    let over = limits.iter().find(|(id, limit)| {
        let wanted = job.requested.get(id).copied().unwrap_or(0);
        wanted > 0 && used.in_use.get(id).copied().unwrap_or(0) + wanted > **limit
    });
    over.map(|(id, _)| reason(whose, kind, world, *id))
}

/// The controller's word for a limit on a resource: `AssocGrpBillingMinutes`, `QOSGrpCPUMinutesLimit`, ...
fn reason(whose: &str, kind: Kind, world: &World, id: u32) -> String {
    let memory = if whose == "Assoc" { "Mem" } else { "Memory" };
    let name = match id {
        CPU => "Cpu",
        MEM => memory,
        NODE => "Node",
        BILLING => "Billing",
        _ if world.tres.by_id(id).is_some_and(|tres| tres.kind == "gres") => "GRES",
        _ => "Unknown",
    };
    let limit = match (id, kind) {
        (CPU, _) => "Limit",
        (NODE, Kind::Group | Kind::Job | Kind::User) | (MEM, Kind::Group) => "Limit",
        _ => "",
    };
    match kind {
        Kind::Group if id == MEM => format!("{whose}GrpMemLimit"),
        Kind::Group => format!("{whose}Grp{name}{limit}"),
        Kind::GroupMinutes | Kind::GroupRunMinutes => {
            let name = if id == CPU { "CPU" } else { name };
            let run = if kind == Kind::GroupRunMinutes { "Run" } else { "" };
            format!("{whose}Grp{name}{run}Minutes{limit}")
        }
        Kind::Job => format!("{whose}Max{name}PerJob{limit}"),
        Kind::JobMinutes => format!("{whose}Max{name}MinutesPerJob{limit}"),
        Kind::User => format!("{whose}Max{name}PerUser{limit}"),
        Kind::Account => format!("Max{name}PerAccount"),
    }
}

impl World {
    /// Why a job waits, in the controller's word; none when it does not wait.
    pub fn reason_to_wait(&self, id: u32) -> Option<String> {
        let job = self.job(id)?;
        if job.start != 0 || job.end != 0 {
            return None;
        }
        Ledger::new(self, self.now()).obstacle(job)
    }
}
