//! One record of slurmdbd's job table: an allocation, or one incarnation or piece of it.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::ClusterName;
use super::time::{Epoch, Window};
use super::tres::TresCounts;

/// A text as Slurm printed it, not checked; bytes that were not UTF-8 have become U+FFFD. Records of one answer share
/// theirs: a clone copies no text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Printed(Arc<str>);

impl Printed {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Printed {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Printed {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for Printed {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Printed {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Printed> for String {
    fn from(text: Printed) -> String {
        text.0.as_ref().to_owned()
    }
}

impl PartialEq<str> for Printed {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Printed {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Printed {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

/// The job table's primary key. DBIndex is 64 bits wide since 24.11.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Cluster the job ran on.
    pub cluster: ClusterName,
    /// Slurm's DBIndex.
    pub dbindex: u64,
}

/// What the agent keeps of a job. Records change (end, state, TRES, even start): always replaced, never added
/// to. Texts are as Slurm printed them; only `job_id`, times and counts are used in arithmetic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Primary key.
    pub key: JobKey,
    /// JobIDRaw.
    pub job_id: u64,
    /// Account as printed, not checked.
    pub account: Printed,
    /// User as printed, not checked.
    pub user: Printed,
    /// State as printed, such as `COMPLETED` or `CANCELLED by 1000`; usage does not depend on it.
    pub state: Printed,
    /// When it was submitted, requeued or resized.
    pub submit: Epoch,
    /// When it became eligible.
    pub eligible: Option<Epoch>,
    /// When it started; `None` when it never did.
    pub start: Option<Epoch>,
    /// When it ended; `None` while it runs or waits.
    pub end: Option<Epoch>,
    /// Seconds suspended so far.
    pub suspended_s: u64,
    /// ElapsedRaw: seconds of running time, suspension taken off.
    pub elapsed_s: u64,
    /// Partition as printed.
    pub partition: Printed,
    /// QOS as printed.
    pub qos: Printed,
    /// Association id, where there is one.
    pub assoc_id: Option<u64>,
    /// AllocTRES; empty while pending. Records that hold the same share it.
    pub alloc: Arc<TresCounts>,
}

impl JobRecord {
    /// Wall time it held its allocation, up to `now` while it runs, as slurmdbd stores it. `None` when it never
    /// started.
    pub fn held(&self, now: Epoch) -> Option<Window> {
        Some(Window::new(self.start?, self.end.unwrap_or(now)))
    }

    /// As [`JobRecord::held`], with the start of a resized piece moved to when the piece was made, so that no
    /// second counts twice (pieces can carry the original start: 20.11 always, later after any update).
    pub fn held_once(&self, now: Epoch) -> Option<Window> {
        let held = self.held(now)?;
        Some(Window::new(held.from.max(self.submit), held.until))
    }

    /// Whether Slurm says it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }
}

/// Seconds a job had been suspended before an instant inside its run; needed only where a suspended job crosses the
/// edge of a window (`sacct -T`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspendedBefore {
    /// The job.
    pub key: JobKey,
    /// The edge.
    pub edge: Epoch,
    /// Seconds of suspension before it.
    pub seconds: u64,
}
