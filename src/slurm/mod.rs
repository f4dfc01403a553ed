//! EDGE: Slurm, through its own programs.
//!
//! Argument vectors and the parsers of their answers stand side by side, one file per program; [`runner`] is the one door.
//! This room decides nothing about budgets, stores nothing and knows no server. It shares no code with the emulated
//! Slurm, so that their errors cannot cancel out.
//!
//! Everything that reads can be repeated. [`Slurm::apply`] and [`Slurm::roll_up`] change Slurm; when they fail to
//! return an answer, only reading back tells what happened.

pub mod argv;
pub mod error;
mod rows;
pub mod runner;
pub mod sacct;
pub mod sacctmgr;
pub mod sshare;
pub mod tres_text;

use std::collections::BTreeMap;

use crate::core::association::Observed;
use crate::core::job::{JobRecord, SuspendedBefore};
use crate::core::name::{AccountName, ClusterName};
use crate::core::plan::Change;
use crate::core::time::{Epoch, Window};

pub use argv::{Argv, Program};
pub use error::{Class, SlurmError};
pub use runner::{Answer, EmulatedBody, Processes, RunError, Runner};
pub use sacct::JobLines;
pub use sacctmgr::modify::{Applied, Echoed};
pub use sshare::RawUsage;

/// One cluster, seen through Slurm's programs.
#[derive(Clone)]
pub struct Slurm {
    runner: Runner,
    cluster: ClusterName,
}

impl Slurm {
    /// The cluster of that name behind that door.
    pub fn new(runner: Runner, cluster: ClusterName) -> Slurm {
        Slurm { runner, cluster }
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Every record that overlaps the window: each incarnation of each job, running ones too.
    ///
    /// # Errors
    /// When sacct gave no answer or refused. No records is not an error, and proves nothing (facts 1.8).
    pub async fn collect(&self, window: Window) -> Result<JobLines, SlurmError> {
        let operation =
            format!("collect the jobs of {} from {} until {}", self.cluster, window.from, window.until);
        let answer = self.ask(&operation, &sacct::jobs_argv(&self.cluster, window)).await?;
        Ok(sacct::parse_jobs(&answer, &self.cluster))
    }

    /// How long each of `jobs` had been suspended before `edge`. A job that sacct does not answer for is absent: not
    /// known. A suspension still open at the time of asking is not counted by any release (facts 1.3).
    ///
    /// # Errors
    /// When sacct gave no answer or refused.
    pub async fn suspended_before(
        &self,
        jobs: &[JobRecord],
        edge: Epoch,
    ) -> Result<Vec<SuspendedBefore>, SlurmError> {
        let operation = format!("ask how long {} jobs had been suspended before {edge}", jobs.len());
        let mut answered = BTreeMap::new();
        for argv in sacct::suspended_argvs(&self.cluster, jobs, edge) {
            let answer = self.ask(&operation, &argv).await?;
            answered.extend(sacct::parse_suspended(&answer, &self.cluster));
        }
        Ok(sacct::suspended_of(jobs, edge, &answered))
    }

    /// All associations of the cluster.
    ///
    /// # Errors
    /// When sacctmgr gave no answer, refused, or showed no root: every cluster has one, so its absence means an
    /// unknown cluster or a failed query.
    pub async fn observe(&self) -> Result<Observed, SlurmError> {
        let operation = format!("observe the associations of {}", self.cluster);
        let argv = sacctmgr::assoc::argv(&self.cluster);
        let (observed, samples) = sacctmgr::assoc::read(&self.ask(&operation, &argv).await?, &self.cluster);
        if !observed.accounts.keys().any(AccountName::is_root) {
            return Err(SlurmError::incomplete(
                &operation,
                &argv,
                format!("root account of cluster {}", self.cluster),
            ));
        }
        warn_of_rejects(&operation, observed.rejected, &samples);
        Ok(observed)
    }

    /// What [`Slurm::apply`] would run.
    pub fn argv(&self, change: &Change) -> Argv {
        sacctmgr::modify::argv(change, &self.cluster)
    }

    /// Makes one change. What Slurm says against it is in the result; only reading back proves it.
    ///
    /// # Errors
    /// When sacctmgr gave no answer (then it may or may not have happened), or the change is senseless (then nothing
    /// was run).
    pub async fn apply(&self, change: &Change) -> Result<Applied, SlurmError> {
        let argv = self.argv(change);
        if let Some(reason) = sacctmgr::modify::senseless(change) {
            return Err(SlurmError::Senseless {
                operation: format!("run {argv}"),
                reason: reason.to_owned(),
            });
        }
        let answer = self.run(&format!("apply {argv}"), &argv).await?;
        Ok(sacctmgr::modify::judge(change, &self.cluster, &argv, &answer))
    }

    /// What slurmctld has counted for every account of the local cluster. An account that is not understood is
    /// absent: not known.
    ///
    /// # Errors
    /// When sshare gave no answer, refused, or showed no root.
    pub async fn raw_usage(&self) -> Result<BTreeMap<AccountName, RawUsage>, SlurmError> {
        let operation = "read the raw usage of all accounts";
        let argv = sshare::argv();
        let (usage, rejects) = sshare::read(&self.ask(operation, &argv).await?);
        if !usage.keys().any(AccountName::is_root) {
            return Err(SlurmError::incomplete(operation, &argv, "root account"));
        }
        warn_of_rejects(operation, rejects.count, &rejects.samples);
        Ok(usage)
    }

    async fn run(&self, operation: &str, argv: &Argv) -> Result<Answer, SlurmError> {
        self.runner
            .run(argv)
            .await
            .map_err(|source| SlurmError::Run { operation: operation.to_owned(), source })
    }

    /// Standard output of a program that reads.
    async fn ask(&self, operation: &str, argv: &Argv) -> Result<Vec<u8>, SlurmError> {
        accepted(operation, argv, self.run(operation, argv).await?)
    }
}

/// What a reading program said, unless it failed: a status other than 0, or nothing but a complaint. A complaint beside
/// an answer (an obsolete line in slurm.conf makes every program complain) is logged and no more: replies arrive
/// whole or not at all.
fn accepted(operation: &str, argv: &Argv, answer: Answer) -> Result<Vec<u8>, SlurmError> {
    let said = error::words(&answer.stderr);
    if answer.status != 0 || (answer.stdout.is_empty() && !said.is_empty()) {
        let words =
            Some(said).filter(|said| !said.is_empty()).unwrap_or_else(|| error::words(&answer.stdout));
        return Err(SlurmError::Failed {
            operation: operation.to_owned(),
            argv: argv.to_string(),
            status: answer.status,
            words: if words.is_empty() { "it gave no reason".to_owned() } else { words },
        });
    }
    if !said.is_empty() {
        tracing::warn!(%argv, slurm = %said, "Slurm complained while answering");
    }
    Ok(answer.stdout)
}

fn warn_of_rejects(operation: &str, rejected: usize, samples: &[String]) {
    if rejected > 0 {
        tracing::warn!(
            operation,
            rejected,
            ?samples,
            "rows of Slurm's answer were not understood and are left out"
        );
    }
}
