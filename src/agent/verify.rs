//! Kept totals against a full recount of the jobs: the proof that following changes lost nothing.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Agent;
use super::error::AgentError;
use crate::core::name::ClusterName;
use crate::core::time::Window;
use crate::core::usage::UsageDifference;
use crate::store::{Recount, Store};

/// Differences of one window that are kept for people.
const DIFFERENCES_MAX: usize = 50;

/// Kept totals of one window beside what its jobs add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowAgreement {
    /// The window.
    pub window: Window,
    /// Records that used time in it, as kept.
    pub jobs_kept: u64,
    /// The same, counted.
    pub jobs_counted: u64,
    /// Records whose cpu time is an upper bound, as kept.
    pub inexact_kept: u64,
    /// The same, counted.
    pub inexact_counted: u64,
    /// Amounts that differ, at most fifty.
    pub differences: Vec<UsageDifference>,
    /// How many differ.
    pub differing: usize,
}

impl WindowAgreement {
    fn of(recount: &Recount) -> WindowAgreement {
        let mut differences = recount.kept.differences(&recount.counted);
        let differing = differences.len();
        differences.truncate(DIFFERENCES_MAX);
        WindowAgreement {
            window: recount.window,
            jobs_kept: recount.kept.jobs,
            jobs_counted: recount.counted.jobs,
            inexact_kept: recount.kept.inexact,
            inexact_counted: recount.counted.inexact,
            differences,
            differing,
        }
    }

    /// Whether both are the same.
    pub fn agrees(&self) -> bool {
        self.differing == 0
            && (self.jobs_kept, self.inexact_kept) == (self.jobs_counted, self.inexact_counted)
    }

    /// In words, that the recount stands.
    pub fn finding(&self) -> String {
        let first: Vec<String> = self.differences.iter().take(3).map(ToString::to_string).collect();
        format!(
            "the kept totals from {} until {} differed from a recount in {} amounts ({} and {} jobs); the recount stands: {}",
            self.window.from,
            self.window.until,
            self.differing,
            self.jobs_kept,
            self.jobs_counted,
            first.join("; ")
        )
    }
}

/// Compares all kept totals of a cluster with a recount of its jobs. Takes seconds per million jobs.
pub fn verify(store: &Store, cluster: &ClusterName) -> Result<Vec<WindowAgreement>, AgentError> {
    Ok(store.recount(cluster)?.iter().map(WindowAgreement::of).collect())
}

/// Adds up again those that do not agree.
pub fn repair(agent: &mut Agent, found: &[WindowAgreement]) -> Result<(), AgentError> {
    let wrong: BTreeSet<Window> =
        found.iter().filter(|window| !window.agrees()).map(|window| window.window).collect();
    if !wrong.is_empty() {
        let (cluster, now) = (agent.config.cluster.name.clone(), agent.clock.now());
        agent.store.drop_totals(&cluster, &wrong)?;
        agent.store.keep_totals(&cluster, &wrong, now)?;
    }
    Ok(())
}
