//! EDGE: Slurm, through its own programs.
//!
//! Argument vectors and the parsers of their answers stand side by side, one file per program; [`runner`] is the one door.
//! This room decides nothing about budgets, stores nothing and knows no server. It shares no code with the emulated
//! Slurm, so that their errors cannot cancel out.
//!
//! Everything that reads can be repeated. [`Slurm::apply`] and [`Slurm::roll_up`] change Slurm; when they fail to
//! return an answer, only reading back tells what happened.

pub mod argv;
mod digits;
pub mod error;
mod job_reader;
mod job_rows;
mod job_stream;
mod known;
mod marks;
mod rows;
pub mod runner;
pub mod sacct;
pub mod sacctmgr;
pub mod scontrol;
mod shown;
pub mod sreport;
pub mod sshare;
pub mod totals;
pub mod tres_text;

use std::collections::{BTreeMap, BTreeSet};

use crate::core::association::Observed;
use crate::core::job::{JobRecord, SuspendedBefore};
use crate::core::name::{AccountName, ClusterName, QosName, UserName};
use crate::core::plan::Change;
use crate::core::time::{Epoch, Window};
use crate::core::tres::Tres;

pub use argv::{Argv, Program};
pub use error::{Class, SlurmError};
pub use job_stream::JobStream;
pub use runner::{Answer, EmulatedBody, Processes, RunError, Runner, SiteProgram};
pub use sacct::{JobLabel, JobLines};
pub use sacctmgr::modify::{Applied, Echoed};
pub use sacctmgr::qos::ObservedQos;
pub use sacctmgr::tables::{AdminLevel, KnownCluster};
pub use scontrol::{Controller, Partition, Settings, SlurmConfiguration};
pub use sreport::SreportRow;
pub use sshare::RawUsage;

/// SLURM_VERSION of the three parts; `None` where one did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// The programs the agent runs.
    pub client: Option<String>,
    /// slurmctld.
    pub controller: Option<String>,
    /// slurmdbd.
    pub database: Option<String>,
}

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

    /// The door.
    pub fn runner(&self) -> &Runner {
        &self.runner
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
        let mut stream = self.jobs(window)?;
        let mut records = Vec::new();
        while let Some(batch) = stream.next_batch().await? {
            records.extend(batch);
        }
        records.sort_by_key(|record| record.key.dbindex);
        Ok(JobLines { records, rejected: stream.rejected(), samples: stream.samples().to_vec() })
    }

    /// As [`Slurm::collect`], in batches as sacct prints them: for windows of any number of records. sacct is ended when the
    /// stream is dropped.
    ///
    /// # Errors
    /// When sacct could not be started.
    pub fn jobs(&self, window: Window) -> Result<JobStream, SlurmError> {
        let operation =
            format!("collect the jobs of {} from {} until {}", self.cluster, window.from, window.until);
        let argv = sacct::jobs_argv(&self.cluster, window);
        match self.runner.start(&argv) {
            Ok(running) => Ok(JobStream::new(operation, argv, running, &self.cluster)),
            Err(source) => Err(SlurmError::Run { operation, source }),
        }
    }

    /// How long each of `jobs` had been suspended before `edge`, which lies before `now`. A job that sacct does not answer
    /// for is absent: not known. A suspension that is still open is left out of that answer by every release (facts 1.3), so
    /// the jobs suspended now are asked about once more.
    ///
    /// # Errors
    /// When sacct gave no answer or refused.
    pub async fn suspended_before(
        &self,
        jobs: &[JobRecord],
        edge: Epoch,
        now: Epoch,
    ) -> Result<Vec<SuspendedBefore>, SlurmError> {
        let operation = format!("ask how long {} jobs had been suspended before {edge}", jobs.len());
        let mut answered = BTreeMap::new();
        for argv in sacct::suspended_argvs(&self.cluster, jobs, edge) {
            let answer = self.ask(&operation, &argv).await?;
            answered.extend(sacct::parse_suspended(&answer, &self.cluster));
        }
        let open = sacct::suspended_now(jobs, edge);
        let mut closed = BTreeMap::new();
        for argv in sacct::suspended_argvs(&self.cluster, &open, now) {
            let answer = self.ask(&operation, &argv).await?;
            closed.extend(sacct::parse_suspended(&answer, &self.cluster));
        }
        Ok(sacct::suspended_of(jobs, edge, &answered, &closed))
    }

    /// Leader and, where `separator` is given (unguessable, new in every call), name of each of `jobs`, by DBIndex. A
    /// job that sacct does not answer for is absent.
    ///
    /// # Errors
    /// When sacct gave no answer or refused.
    pub async fn labels(
        &self,
        jobs: &[JobRecord],
        separator: Option<&str>,
    ) -> Result<BTreeMap<u64, JobLabel>, SlurmError> {
        let operation = format!("ask what {} jobs belong to", jobs.len());
        let mut labels = BTreeMap::new();
        for argv in sacct::label_argvs(&self.cluster, jobs, separator) {
            let answer = self.ask(&operation, &argv).await?;
            labels.extend(sacct::parse_labels(&answer, &self.cluster, separator));
        }
        Ok(labels)
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
        trace_rejects(&operation, observed.rejected, &samples);
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
        trace_rejects(operation, rejects.count, &rejects.samples);
        Ok(usage)
    }

    /// All QOS. One that is not understood is absent.
    ///
    /// # Errors
    /// When sacctmgr gave no answer, refused, or showed none at all.
    pub async fn qos(&self) -> Result<BTreeMap<QosName, ObservedQos>, SlurmError> {
        let operation = "read all QOS";
        let argv = sacctmgr::qos::argv();
        let (qos, rejects) = sacctmgr::qos::read(&self.ask(operation, &argv).await?);
        if qos.is_empty() {
            return Err(SlurmError::incomplete(operation, &argv, "QOS"));
        }
        trace_rejects(operation, rejects.count, &rejects.samples);
        Ok(qos)
    }

    /// slurmctld's configuration in force.
    ///
    /// # Errors
    /// When scontrol gave no answer or refused, or the answer lacks SLURM_VERSION or ClusterName.
    pub async fn configuration(&self) -> Result<SlurmConfiguration, SlurmError> {
        let operation = "read slurmctld's configuration";
        let argv = scontrol::configuration_argv();
        let answer = self.ask(operation, &argv).await?;
        scontrol::parse_configuration(&answer)
            .ok_or_else(|| SlurmError::incomplete(operation, &argv, "SLURM_VERSION and ClusterName"))
    }

    /// slurmdbd's configuration; empty when slurmdbd does not answer.
    ///
    /// # Errors
    /// When sacctmgr gave no answer or refused.
    pub async fn database_configuration(&self) -> Result<Settings, SlurmError> {
        let argv = sacctmgr::tables::configuration_argv();
        let answer = self.ask("read slurmdbd's configuration", &argv).await?;
        Ok(sacctmgr::tables::parse_database_configuration(&answer))
    }

    /// All partitions with what they charge.
    ///
    /// # Errors
    /// When scontrol gave no answer or refused, or a line is no partition.
    pub async fn partitions(&self) -> Result<Vec<Partition>, SlurmError> {
        let operation = "read the partitions";
        let argv = scontrol::partitions_argv();
        let answer = self.ask(operation, &argv).await?;
        scontrol::parse_partitions(&answer)
            .ok_or_else(|| SlurmError::incomplete(operation, &argv, "line for each partition"))
    }

    /// Every slurmctld and whether it is up. One that is down makes the programs wait for MessageTimeout first.
    ///
    /// # Errors
    /// When scontrol gave no answer, or none that names a slurmctld.
    pub async fn ping(&self) -> Result<Vec<Controller>, SlurmError> {
        let operation = "ask whether slurmctld is up";
        let argv = scontrol::ping_argv();
        let answer = self.run(operation, &argv).await?;
        let controllers = scontrol::parse_ping(&answer.stdout);
        if controllers.is_empty() {
            accepted(operation, &argv, answer)?;
            return Err(SlurmError::incomplete(operation, &argv, "slurmctld"));
        }
        Ok(controllers)
    }

    /// All clusters of slurmdbd.
    ///
    /// # Errors
    /// When sacctmgr gave no answer or refused.
    pub async fn clusters(&self) -> Result<Vec<KnownCluster>, SlurmError> {
        let answer = self.ask("read the clusters", &sacctmgr::tables::clusters_argv()).await?;
        Ok(sacctmgr::tables::parse_clusters(&answer))
    }

    /// All TRES that slurmdbd knows.
    ///
    /// # Errors
    /// When sacctmgr gave no answer, refused, or showed no `cpu`.
    pub async fn tres(&self) -> Result<BTreeSet<Tres>, SlurmError> {
        let operation = "read the TRES";
        let argv = sacctmgr::tables::tres_argv();
        let answer = self.ask(operation, &argv).await?;
        let tres: BTreeSet<Tres> = sacctmgr::tables::parse_tres(&answer).into_iter().collect();
        if !tres.contains(&Tres::cpu()) {
            return Err(SlurmError::incomplete(operation, &argv, "cpu"));
        }
        Ok(tres)
    }

    /// The AdminLevel of a user, `None` when slurmdbd does not know the user.
    ///
    /// # Errors
    /// When the text cannot be a user's name, sacctmgr gave no answer or refused, or the answer is not understood.
    pub async fn admin_level(&self, user: &str) -> Result<Option<AdminLevel>, SlurmError> {
        let operation = format!("read the AdminLevel of {user:?}");
        let user = UserName::parse(user).map_err(|error| SlurmError::Senseless {
            operation: operation.clone(),
            reason: error.to_string(),
        })?;
        let argv = sacctmgr::tables::admin_level_argv(&user);
        let answer = self.ask(&operation, &argv).await?;
        sacctmgr::tables::parse_admin_level(&answer, &user)
            .ok_or_else(|| SlurmError::incomplete(&operation, &argv, "AdminLevel that is understood"))
    }

    /// Versions of the programs, slurmctld and slurmdbd. What does not answer is `None`.
    ///
    /// # Errors
    /// When the programs themselves cannot be run.
    pub async fn versions(&self) -> Result<Versions, SlurmError> {
        let argv = sacctmgr::tables::version_argv();
        let answer = self.ask("read the version of Slurm's programs", &argv).await?;
        let controller = self.configuration().await.ok();
        let database = self.database_configuration().await.ok();
        Ok(Versions {
            client: sacctmgr::tables::parse_version(&answer),
            controller: controller.and_then(|known| known.version().map(str::to_owned)),
            database: database.and_then(|known| known.get("SLURMDBD_VERSION").map(str::to_owned)),
        })
    }

    /// Usage as slurmdbd has rolled it up, for windows of whole hours. Hours not rolled up, rows without usage and TRES
    /// that do not exist are absent; so are rows that are not understood.
    ///
    /// # Errors
    /// When the window is not of whole hours or no TRES is asked for; when sreport gave no answer or refused.
    pub async fn account_utilization(
        &self,
        window: Window,
        tres: &[Tres],
    ) -> Result<Vec<SreportRow>, SlurmError> {
        let operation =
            format!("read sreport of {} from {} until {}", self.cluster, window.from, window.until);
        if !sreport::is_whole_hours(window) || tres.is_empty() {
            let reason = "it needs whole hours and at least one TRES".to_owned();
            return Err(SlurmError::Senseless { operation, reason });
        }
        let argv = sreport::argv(&self.cluster, window, tres);
        let (rows, rejects) = sreport::read(&self.ask(&operation, &argv).await?, &self.cluster);
        trace_rejects(&operation, rejects.count, &rejects.samples);
        Ok(rows)
    }

    /// Has slurmdbd roll up the hours of a window anew. sacctmgr's verb for it is undocumented; only tests on a private
    /// cluster use it.
    ///
    /// # Errors
    /// When sacctmgr gave no answer, or said anything but SUCCESS (a refusal has status 0 as well).
    pub async fn roll_up(&self, window: Window) -> Result<(), SlurmError> {
        let operation = format!("roll up {} from {} until {}", self.cluster, window.from, window.until);
        let argv = sacctmgr::tables::roll_up_argv(window);
        let answer = self.run(&operation, &argv).await?;
        let words = error::words(&answer.stderr);
        if answer.status == 0 && words.ends_with("SUCCESS") {
            return Ok(());
        }
        Err(SlurmError::Failed { operation, argv: argv.to_string(), status: answer.status, words })
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

/// What a reading program said, unless it failed: a status other than 0, nothing but a complaint, or a last line without its
/// end (rows after it may be missing as well). A complaint beside
/// an answer (an obsolete line in slurm.conf makes every program complain) is logged and no more: replies arrive
/// whole or not at all.
fn accepted(operation: &str, argv: &Argv, answer: Answer) -> Result<Vec<u8>, SlurmError> {
    let whole = answer.stdout.last().is_none_or(|byte| *byte == b'\n');
    judge(operation, argv, &answer.stdout, whole, &answer)?;
    Ok(answer.stdout)
}

/// The judgement of [`accepted`], given the beginning of standard output and whether its last line is whole.
fn judge(
    operation: &str,
    argv: &Argv,
    first_words: &[u8],
    whole: bool,
    answer: &Answer,
) -> Result<(), SlurmError> {
    let said = error::words(&answer.stderr);
    if answer.status != 0 || (first_words.is_empty() && !said.is_empty()) {
        let words = Some(said).filter(|said| !said.is_empty()).unwrap_or_else(|| error::words(first_words));
        return Err(SlurmError::Failed {
            operation: operation.to_owned(),
            argv: argv.to_string(),
            status: answer.status,
            words: if words.is_empty() { "it gave no reason".to_owned() } else { words },
        });
    }
    if !whole {
        return Err(SlurmError::incomplete(operation, argv, "end: its last line is cut off"));
    }
    if !said.is_empty() {
        tracing::warn!(%argv, slurm = %said, "Slurm complained while answering");
    }
    Ok(())
}

/// Odd names stay for years: what is left out is for who looks closely; the count is in the result, or the row is absent.
fn trace_rejects(operation: &str, rejected: usize, samples: &[String]) {
    if rejected > 0 {
        tracing::debug!(
            operation,
            rejected,
            ?samples,
            "rows of Slurm's answer were not understood and are left out"
        );
    }
}
