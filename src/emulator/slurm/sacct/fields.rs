//! The fields of `sacct`: names and widths of 22.05.8, and the value of each for a job and for its batch step.

use super::super::job::{Job, TimeLimit};
use super::super::table::Cell;
use super::super::times::{self, TimeStyle};
use super::super::tres::{Amounts, CPU, ENERGY, MEM, NODE, Units, write_unit};
use super::super::world::World;
use std::collections::HashMap;

/// A field: its title, its width (negative is left-aligned), and what it shows.
pub(super) struct Known {
    /// Title.
    pub(super) title: &'static str,
    /// Width.
    pub(super) width: i32,
    /// What it shows.
    pub(super) id: Field,
}

const fn field(title: &'static str, width: i32, id: Field) -> Known {
    Known { title, width, id }
}

/// What a field shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Account,
    AdminComment,
    AllocCpus,
    AllocNodes,
    AllocTres,
    AssocId,
    Unused,
    AveCpuFreq,
    Cluster,
    Comment,
    ConsumedEnergy,
    ConsumedEnergyRaw,
    CpuTime,
    CpuTimeRaw,
    DbIndex,
    DerivedExitCode,
    Elapsed,
    ElapsedRaw,
    Eligible,
    End,
    ExitCode,
    Flags,
    Gid,
    Group,
    JobId,
    JobIdRaw,
    JobName,
    Layout,
    NodeCount,
    NodeList,
    TaskCount,
    Partition,
    Priority,
    Qos,
    QosRaw,
    Reason,
    CpuFreq,
    ReqCpus,
    ReqMem,
    ReqNodes,
    ReqTres,
    Reserved,
    ReservedCpu,
    ReservedCpuRaw,
    Start,
    State,
    Submit,
    SubmitLine,
    Suspended,
    CpuUsed,
    TimeLimit,
    TimeLimitRaw,
    Uid,
    User,
    WcKey,
    WcKeyId,
    WorkDir,
}

/// Every field, in the order that decides what a prefix means.
pub(super) const FIELDS: &[Known] = &[
    field("Account", 10, Field::Account),
    field("AdminComment", 15, Field::AdminComment),
    field("AllocCPUS", 10, Field::AllocCpus),
    field("AllocNodes", 10, Field::AllocNodes),
    field("AllocTRES", 10, Field::AllocTres),
    field("AssocID", 7, Field::AssocId),
    field("AveCPU", 10, Field::Unused),
    field("AveCPUFreq", 10, Field::AveCpuFreq),
    field("AveDiskRead", 14, Field::Unused),
    field("AveDiskWrite", 14, Field::Unused),
    field("AvePages", 10, Field::Unused),
    field("AveRSS", 10, Field::Unused),
    field("AveVMSize", 10, Field::Unused),
    field("BlockID", 16, Field::Unused),
    field("Cluster", 10, Field::Cluster),
    field("Comment", 14, Field::Comment),
    field("Constraints", 19, Field::Unused),
    field("ConsumedEnergy", 14, Field::ConsumedEnergy),
    field("ConsumedEnergyRaw", 17, Field::ConsumedEnergyRaw),
    field("Container", 19, Field::Unused),
    field("CPUTime", 10, Field::CpuTime),
    field("CPUTimeRAW", 10, Field::CpuTimeRaw),
    field("DBIndex", -10, Field::DbIndex),
    field("DerivedExitCode", 15, Field::DerivedExitCode),
    field("Elapsed", 10, Field::Elapsed),
    field("ElapsedRaw", 10, Field::ElapsedRaw),
    field("Eligible", 19, Field::Eligible),
    field("End", 19, Field::End),
    field("ExitCode", 8, Field::ExitCode),
    field("Flags", 19, Field::Flags),
    field("GID", 6, Field::Gid),
    field("Group", 9, Field::Group),
    field("JobID", -12, Field::JobId),
    field("JobIDRaw", -12, Field::JobIdRaw),
    field("JobName", 10, Field::JobName),
    field("Layout", 9, Field::Layout),
    field("MaxDiskRead", 12, Field::Unused),
    field("MaxDiskReadNode", 15, Field::Unused),
    field("MaxDiskReadTask", 15, Field::Unused),
    field("MaxDiskWrite", 12, Field::Unused),
    field("MaxDiskWriteNode", 16, Field::Unused),
    field("MaxDiskWriteTask", 16, Field::Unused),
    field("MaxPages", 8, Field::Unused),
    field("MaxPagesNode", 12, Field::Unused),
    field("MaxPagesTask", 14, Field::Unused),
    field("MaxRSS", 10, Field::Unused),
    field("MaxRSSNode", 10, Field::Unused),
    field("MaxRSSTask", 10, Field::Unused),
    field("MaxVMSize", 10, Field::Unused),
    field("MaxVMSizeNode", 14, Field::Unused),
    field("MaxVMSizeTask", 14, Field::Unused),
    field("McsLabel", 12, Field::Unused),
    field("MinCPU", 10, Field::Unused),
    field("MinCPUNode", 10, Field::Unused),
    field("MinCPUTask", 10, Field::Unused),
    field("NCPUS", 10, Field::AllocCpus),
    field("NNodes", 8, Field::NodeCount),
    field("NodeList", 15, Field::NodeList),
    field("NTasks", 8, Field::TaskCount),
    field("Partition", 10, Field::Partition),
    field("Priority", 10, Field::Priority),
    field("QOS", 10, Field::Qos),
    field("QOSRAW", 6, Field::QosRaw),
    field("Reason", 22, Field::Reason),
    field("ReqCPUFreq", 10, Field::CpuFreq),
    field("ReqCPUFreqGov", 13, Field::CpuFreq),
    field("ReqCPUFreqMax", 13, Field::CpuFreq),
    field("ReqCPUFreqMin", 13, Field::CpuFreq),
    field("ReqCPUS", 8, Field::ReqCpus),
    field("ReqMem", 10, Field::ReqMem),
    field("ReqNodes", 8, Field::ReqNodes),
    field("ReqTRES", 10, Field::ReqTres),
    field("Reservation", 20, Field::Unused),
    field("ReservationId", 8, Field::Unused),
    field("Reserved", 10, Field::Reserved),
    field("ResvCPU", 10, Field::ReservedCpu),
    field("ResvCPURAW", 10, Field::ReservedCpuRaw),
    field("Start", 19, Field::Start),
    field("State", 10, Field::State),
    field("Submit", 19, Field::Submit),
    field("SubmitLine", 20, Field::SubmitLine),
    field("Suspended", 10, Field::Suspended),
    field("SystemComment", 15, Field::Unused),
    field("SystemCPU", 10, Field::CpuUsed),
    field("Timelimit", 10, Field::TimeLimit),
    field("TimelimitRaw", 10, Field::TimeLimitRaw),
    field("TotalCPU", 10, Field::CpuUsed),
    field("TRESUsageInAve", 14, Field::Unused),
    field("TRESUsageInMax", 14, Field::Unused),
    field("TRESUsageInMaxNode", 18, Field::Unused),
    field("TRESUsageInMaxTask", 18, Field::Unused),
    field("TRESUsageInMin", 14, Field::Unused),
    field("TRESUsageInMinNode", 18, Field::Unused),
    field("TRESUsageInMinTask", 18, Field::Unused),
    field("TRESUsageInTot", 14, Field::Unused),
    field("TRESUsageOutAve", 15, Field::Unused),
    field("TRESUsageOutMax", 15, Field::Unused),
    field("TRESUsageOutMaxNode", 19, Field::Unused),
    field("TRESUsageOutMaxTask", 19, Field::Unused),
    field("TRESUsageOutMin", 15, Field::Unused),
    field("TRESUsageOutMinNode", 19, Field::Unused),
    field("TRESUsageOutMinTask", 19, Field::Unused),
    field("TRESUsageOutTot", 15, Field::Unused),
    field("UID", 6, Field::Uid),
    field("User", 9, Field::User),
    field("UserCPU", 10, Field::CpuUsed),
    field("WCKey", 10, Field::WcKey),
    field("WCKeyID", 10, Field::WcKeyId),
    field("WorkDir", 20, Field::WorkDir),
];

/// A record with its times as the query wants them.
pub(super) struct Row<'a> {
    /// The record.
    pub(super) job: &'a Job,
    /// Start.
    pub(super) start: i64,
    /// End.
    pub(super) end: i64,
    /// Elapsed seconds without suspensions.
    pub(super) elapsed: i64,
    /// Suspended seconds.
    pub(super) suspended: i64,
}

/// What all rows need.
pub(super) struct RowContext<'a> {
    world: &'a World,
    now: i64,
    style: TimeStyle,
    units: Units,
    qos: HashMap<&'a str, u32>,
    associations: HashMap<u32, (&'a str, Option<&'a str>)>,
}

impl<'a> RowContext<'a> {
    /// Looks up once what every row needs.
    pub(super) fn new(world: &'a World, now: i64, style: TimeStyle, units: Units) -> RowContext<'a> {
        RowContext {
            world,
            now,
            style,
            units,
            qos: world.qos.iter().map(|qos| (qos.name.as_str(), qos.id)).collect(),
            associations: world
                .associations
                .iter()
                .map(|a| (a.id, (a.account.as_str(), a.user.as_deref())))
                .collect(),
        }
    }

    /// The value of a field for a job.
    pub(super) fn cell(&self, field: Field, row: &Row<'_>) -> Cell {
        let job = row.job;
        match field {
            Field::Start => self.time(row.start),
            Field::End => self.time(row.end),
            Field::Submit => self.time(job.submit),
            Field::Eligible => self.time(job.eligible),
            Field::Elapsed => seconds(row.elapsed),
            Field::ElapsedRaw => Cell::Number(row.elapsed.to_string()),
            Field::Suspended => seconds(row.suspended),
            Field::CpuTime => seconds(row.elapsed * self.cpus(job)),
            Field::CpuTimeRaw => Cell::Number((row.elapsed * self.cpus(job)).to_string()),
            Field::CpuUsed => text("00:00:00"),
            Field::AveCpuFreq | Field::Layout | Field::TaskCount | Field::Unused => Cell::Blank,
            Field::Reserved => waited(self.waited(row)),
            Field::ReservedCpu => waited(self.waited_cpus(row)),
            Field::ReservedCpuRaw => Cell::Number(self.waited_cpus(row).cast_unsigned().to_string()),
            Field::CpuFreq => text("Unknown"),
            _ => self.resource_cell(field, job),
        }
    }

    fn resource_cell(&self, field: Field, job: &Job) -> Cell {
        match field {
            Field::AllocCpus => Cell::Number(self.cpus(job).to_string()),
            Field::AllocNodes => {
                let nodes = job.allocated.get(&NODE).copied().unwrap_or(0);
                text(&write_unit(nodes as f64, 0, self.plain_units()))
            }
            Field::AllocTres => text(&self.world.tres.write(&job.allocated, self.units)),
            Field::ReqTres => text(&self.world.tres.write(&job.requested, self.units)),
            Field::ConsumedEnergy => match self.energy(job) {
                Some(energy) => text(&energy.to_string()),
                None => text(""),
            },
            Field::ConsumedEnergyRaw => Cell::number(self.energy(job)),
            Field::NodeCount => {
                let list = if job.allocated.is_empty() { &job.requested } else { &job.allocated };
                Cell::Number(list.get(&NODE).copied().unwrap_or(0).to_string())
            }
            Field::ReqCpus => Cell::Number(self.requested_cpus(job).to_string()),
            Field::ReqMem => {
                let memory = job.requested.get(&MEM).copied().unwrap_or(0);
                text(&write_unit(memory as f64, 2, self.units))
            }
            Field::ReqNodes => {
                let nodes = job.requested.get(&NODE).copied().unwrap_or(0);
                text(&write_unit(nodes as f64, 0, self.units))
            }
            Field::NodeList => text(if !job.nodes.is_empty() {
                &job.nodes
            } else if job.start == 0 {
                "None assigned"
            } else {
                "(unknown)"
            }),
            _ => self.identity_cell(field, job),
        }
    }

    fn identity_cell(&self, field: Field, job: &Job) -> Cell {
        match field {
            Field::Account => {
                let known = self.associations.get(&job.association).filter(|_| job.cluster.is_none());
                text(known.map_or(job.account.as_str(), |(account, _)| account))
            }
            Field::User => {
                let known = self.associations.get(&job.association).filter(|_| job.cluster.is_none());
                Cell::text(known.and_then(|(_, user)| *user).or(Some(&job.user)))
            }
            Field::AdminComment => text(&job.admin_comment),
            Field::AssocId => Cell::Number(job.association.to_string()),
            Field::Cluster => text(job.cluster.as_deref().unwrap_or(&self.world.cluster)),
            Field::Comment => text(&job.comment),
            Field::DbIndex => Cell::Number(job.db_index.to_string()),
            Field::DerivedExitCode => text("0:0"),
            Field::ExitCode => text(&exit_code(job.exit_code)),
            Field::Flags if job.flags.is_empty() => Cell::Blank,
            Field::Flags => text(&job.flags.join(",")),
            Field::Gid | Field::Uid => Cell::number(self.world.uid(&job.user)),
            Field::Group => Cell::text(self.world.uid(&job.user).and_then(|uid| self.world.user_of(uid))),
            Field::JobId => text(&job_id(job)),
            Field::JobIdRaw => text(&job.id.to_string()),
            Field::JobName => text(&job.name),
            Field::Partition => text(&job.partition),
            Field::Priority => Cell::Number(job.priority.to_string()),
            Field::Qos if self.qos.contains_key(job.qos.as_str()) => text(&job.qos),
            Field::Qos => text("Unknown"),
            // A QOS that is gone is kept in the record by its number.
            Field::QosRaw => match self.qos.get(job.qos.as_str()) {
                Some(id) => Cell::Number(id.to_string()),
                None => Cell::Number(job.qos.parse::<u32>().unwrap_or(0).to_string()),
            },
            Field::Reason if job.reason.is_empty() => text("None"),
            Field::Reason => text(&job.reason),
            Field::State => text(&state(job)),
            Field::SubmitLine => text(&job.submit_line),
            Field::TimeLimit => limit(job.time_limit, times::write_minutes),
            Field::TimeLimitRaw => limit(job.time_limit, |minutes| minutes.to_string()),
            Field::WcKey => text(&job.wckey),
            Field::WcKeyId => Cell::Number("0".to_owned()),
            Field::WorkDir => text(&job.work_dir),
            _ => Cell::Blank,
        }
    }

    /// The value of a field for the batch step of a job, as far as an emulated step has any.
    pub(super) fn step_cell(&self, field: Field, row: &Row<'_>) -> Cell {
        let job = row.job;
        let without_billing = || -> Amounts {
            job.allocated
                .iter()
                .filter(|(id, _)| **id != super::super::tres::BILLING)
                .map(|(id, n)| (*id, *n))
                .collect()
        };
        match field {
            Field::JobId => text(&format!("{}.batch", job_id(job))),
            Field::JobIdRaw => text(&format!("{}.batch", job.id)),
            Field::JobName => text("batch"),
            Field::Layout => text("Unknown"),
            Field::TaskCount => Cell::Number("1".to_owned()),
            Field::CpuFreq | Field::AveCpuFreq | Field::ConsumedEnergy => text("0"),
            Field::ConsumedEnergyRaw => Cell::Number("0".to_owned()),
            Field::AllocTres => text(&self.world.tres.write(&without_billing(), self.units)),
            Field::Submit | Field::Eligible => self.time(row.start),
            Field::ReqCpus => Cell::Number(self.cpus(job).to_string()),
            Field::State => text(&job.state.to_string()),
            Field::Flags
            | Field::Gid
            | Field::Group
            | Field::Uid
            | Field::User
            | Field::Partition
            | Field::Priority
            | Field::Qos
            | Field::QosRaw
            | Field::Reason
            | Field::ReqMem
            | Field::ReqTres
            | Field::Reserved
            | Field::ReservedCpu
            | Field::ReservedCpuRaw
            | Field::SubmitLine
            | Field::TimeLimit
            | Field::TimeLimitRaw
            | Field::WcKey
            | Field::WcKeyId
            | Field::WorkDir
            | Field::Comment
            | Field::AdminComment
            | Field::DerivedExitCode => Cell::Blank,
            other => self.cell(other, row),
        }
    }

    fn time(&self, at: i64) -> Cell {
        text(&self.style.write(at))
    }

    fn plain_units(&self) -> Units {
        if self.units == Units::Unconverted { Units::Unconverted } else { Units::Exact }
    }

    fn cpus(&self, job: &Job) -> i64 {
        let list = if job.allocated.is_empty() { &job.requested } else { &job.allocated };
        list.get(&CPU).and_then(|cpus| i64::try_from(*cpus).ok()).unwrap_or(0)
    }

    fn requested_cpus(&self, job: &Job) -> i64 {
        job.requested.get(&CPU).and_then(|cpus| i64::try_from(*cpus).ok()).unwrap_or(0)
    }

    /// Consumed energy: unset for a job that ran without a meter, 0 for one that never ran.
    fn energy(&self, job: &Job) -> Option<u64> {
        job.allocated.get(&ENERGY).copied().or_else(|| job.allocated.is_empty().then_some(0))
    }

    fn waited_cpus(&self, row: &Row<'_>) -> i32 {
        self.waited(row).wrapping_mul(wrapped(self.requested_cpus(row.job)))
    }

    /// Seconds between eligible and start, up to now for a job that waits, in the 32 bits that sacct has for them.
    fn waited(&self, row: &Row<'_>) -> i32 {
        let seconds = match (row.job.eligible, row.start) {
            (0, _) => 0,
            (eligible, 0) => self.now - eligible,
            (eligible, times::NONE) => i64::from(u32::MAX - 1) - eligible,
            (eligible, start) => start - eligible,
        };
        wrapped(seconds)
    }
}

/// The low 32 bits, as C cuts them.
fn wrapped(number: i64) -> i32 {
    let low = u32::try_from(number.cast_unsigned() & u64::from(u32::MAX)).unwrap_or(0);
    low.cast_signed()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn seconds(seconds: i64) -> Cell {
    Cell::Number(times::write_seconds(u64::try_from(seconds).unwrap_or(0)))
}

/// A span that may be negative, which Slurm calls INVALID.
fn waited(seconds: i32) -> Cell {
    match u64::try_from(seconds) {
        Ok(seconds) => Cell::Number(times::write_seconds(seconds)),
        Err(_) => Cell::Number("INVALID".to_owned()),
    }
}

fn limit(limit: TimeLimit, minutes: impl Fn(u64) -> String) -> Cell {
    match limit {
        TimeLimit::Unlimited => text("UNLIMITED"),
        TimeLimit::Partition => text("Partition_Limit"),
        TimeLimit::Minutes(0) => Cell::Blank,
        TimeLimit::Minutes(number) => text(&minutes(u64::from(number))),
    }
}

fn exit_code((status, signal): (i32, i32)) -> String {
    let status = if status >= 128 { status - 128 } else { status };
    format!("{status}:{signal}")
}

fn state(job: &Job) -> String {
    match (&job.state, job.cancelled_by) {
        (super::super::job::JobState::Cancelled, Some(uid)) => format!("CANCELLED by {uid}"),
        (state, _) => state.to_string(),
    }
}

/// `7`, `8_3`, `8_[1-5%2]` or `12+1`.
fn job_id(job: &Job) -> String {
    match (&job.array, job.het) {
        (Some(part), _) => match (&part.waiting, part.task) {
            (Some(waiting), _) => format!("{}_[{waiting}]", part.job),
            (None, Some(task)) => format!("{}_{task}", part.job),
            (None, None) => job.id.to_string(),
        },
        (None, Some((leader, offset))) => format!("{leader}+{offset}"),
        (None, None) => job.id.to_string(),
    }
}
