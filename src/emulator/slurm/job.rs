//! The record of a job in the emulated accounting database.

use super::tres::{Amounts, BILLING};
use std::fmt;

/// State of a job, as sacct prints it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum JobState {
    /// Waiting.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Stopped for a while, keeping its resources.
    Suspended,
    /// Ended well.
    Completed,
    /// Ended by somebody.
    Cancelled,
    /// Ended with an error.
    Failed,
    /// Ended at its time limit.
    Timeout,
    /// Ended with its node.
    NodeFail,
    /// Ended for another job.
    Preempted,
    /// Its nodes did not start.
    BootFail,
    /// Not done by its deadline.
    Deadline,
    /// Used too much memory.
    OutOfMemory,
    /// This run ended and another began.
    Requeued,
    /// This piece ended when the job changed its size.
    Resizing,
    /// Ran on a sibling cluster.
    Revoked,
    /// Any other text.
    Other(String),
}

impl JobState {
    const NAMED: [(JobState, &'static str, &'static str); 15] = [
        (JobState::Pending, "PENDING", "PD"),
        (JobState::Running, "RUNNING", "R"),
        (JobState::Suspended, "SUSPENDED", "S"),
        (JobState::Completed, "COMPLETED", "CD"),
        (JobState::Cancelled, "CANCELLED", "CA"),
        (JobState::Failed, "FAILED", "F"),
        (JobState::Timeout, "TIMEOUT", "TO"),
        (JobState::NodeFail, "NODE_FAIL", "NF"),
        (JobState::Preempted, "PREEMPTED", "PR"),
        (JobState::BootFail, "BOOT_FAIL", "BF"),
        (JobState::Deadline, "DEADLINE", "DL"),
        (JobState::OutOfMemory, "OUT_OF_MEMORY", "OOM"),
        (JobState::Requeued, "REQUEUED", "RQ"),
        (JobState::Resizing, "RESIZING", "RS"),
        (JobState::Revoked, "REVOKED", "RV"),
    ];

    /// The state called `name` in full or by its letters, whatever the case.
    pub(super) fn named(name: &str) -> Option<JobState> {
        Self::NAMED
            .iter()
            .find(|(_, full, short)| full.eq_ignore_ascii_case(name) || short.eq_ignore_ascii_case(name))
            .map(|(state, _, _)| state.clone())
    }

    /// The state of this text; unknown texts are kept.
    pub fn from_text(text: &str) -> JobState {
        JobState::named(text).unwrap_or_else(|| JobState::Other(text.to_owned()))
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let JobState::Other(text) = self {
            return f.write_str(text);
        }
        let known = Self::NAMED.iter().find(|(state, _, _)| state == self);
        f.write_str(known.map_or("?", |(_, full, _)| full))
    }
}

/// Time limit of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeLimit {
    /// The partition's.
    #[default]
    Partition,
    /// None.
    Unlimited,
    /// This many minutes.
    Minutes(u32),
}

/// Seconds in which a job was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspension {
    /// First second.
    pub from: i64,
    /// First second after it; none while it lasts.
    pub to: Option<i64>,
}

/// The part a job plays in an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayPart {
    /// Id of the array.
    pub job: u32,
    /// Number of the task; none in the record of the tasks that have not started.
    pub task: Option<u32>,
    /// The tasks that have not started, as `1-5%2`.
    pub waiting: Option<String>,
}

/// One record of the job table: one allocation of one run of a job. Times are seconds of the epoch, 0 for none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Job {
    /// Key in the database; 0 is filled in by [`super::World::add_job`].
    pub db_index: u64,
    /// Raw id of the job; 0 is filled in.
    pub id: u32,
    /// Id of its association; 0 is looked up from account and user.
    pub association: u32,
    /// Cluster, when not the local one.
    pub cluster: Option<String>,
    /// Name, raw: anything a user can type.
    pub name: String,
    /// Account.
    pub account: String,
    /// User.
    pub user: String,
    /// Partition.
    pub partition: String,
    /// QOS.
    pub qos: String,
    /// State.
    pub state: JobState,
    /// When it was submitted, requeued or resized.
    pub submit: i64,
    /// When it could first have started; 0 when held.
    pub eligible: i64,
    /// When it started.
    pub start: i64,
    /// When it ended.
    pub end: i64,
    /// When it was stopped, in order.
    pub suspensions: Vec<Suspension>,
    /// Time limit.
    pub time_limit: TimeLimit,
    /// What it got, with billing.
    pub allocated: Amounts,
    /// What it asked for.
    pub requested: Amounts,
    /// Nodes.
    pub nodes: String,
    /// Exit status and signal.
    pub exit_code: (i32, i32),
    /// Uid of who ended it.
    pub cancelled_by: Option<u32>,
    /// Part in an array.
    pub array: Option<ArrayPart>,
    /// Leader and offset in a heterogeneous job.
    pub het: Option<(u32, u32)>,
    /// Flags as sacct prints them.
    pub flags: Vec<String>,
    /// Priority.
    pub priority: u32,
    /// Why it waited.
    pub reason: String,
    /// Command line, comments and the like: anything a user can type.
    pub submit_line: String,
    /// Working directory.
    pub work_dir: String,
    /// The user's comment.
    pub comment: String,
    /// The administrator's comment.
    pub admin_comment: String,
    /// Workload key.
    pub wckey: String,
    /// True when the controller has lost it, though the database has no end.
    pub runaway: bool,
    /// When it will end by itself, once started.
    pub runs_for_s: Option<i64>,
    /// Parameters of its submission that matter until it starts.
    pub held: bool,
}

impl Job {
    /// True when it runs or is suspended now.
    pub fn is_running(&self) -> bool {
        self.start != 0 && self.end == 0 && matches!(self.state, JobState::Running | JobState::Suspended)
    }

    /// True when the controller still has it, waiting or running.
    pub fn is_alive(&self) -> bool {
        self.end == 0
            && !self.runaway
            && matches!(self.state, JobState::Pending | JobState::Running | JobState::Suspended)
    }

    /// True when it got resources and nobody has said what they are billed.
    pub(super) fn missing_billing(&self) -> bool {
        !self.allocated.is_empty() && !self.allocated.contains_key(&BILLING)
    }

    /// Adds billing that was missing; what it got is also what it asked for, when nobody has said otherwise.
    pub(super) fn complete_amounts(&mut self, billing: Option<u64>) {
        if let Some(billing) = billing {
            self.allocated.insert(BILLING, billing);
        }
        if self.requested.is_empty() {
            self.requested.clone_from(&self.allocated);
        }
    }

    /// Seconds of closed suspensions, and of the open one when the job is suspended.
    pub(super) fn suspended_s(&self, now: i64) -> i64 {
        let open = self.state == JobState::Suspended;
        self.suspensions
            .iter()
            .map(|part| match part.to {
                Some(to) => (to - part.from).max(0),
                None if open => (now - part.from).max(0),
                None => 0,
            })
            .sum()
    }
}
