//! Whether everything around the agent is as it needs it, found out without changing anything.
//!
//! [`ask`] asks Slurm, the servers and the host; [`judge`] says what the answers mean. Judging is pure, so that every
//! rule is tested as a table. What is true of a real Slurm: facts of 22.05.8 and the manual pages of slurm.conf, sacctmgr
//! and the resource limits page.

mod ask;
mod host;
mod policies;
mod qos;
mod slurm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::core::association::Observed;
use crate::core::command::Mode;
use crate::core::name::{AccountName, QosName, SourceName};
use crate::core::period::PeriodKind;
use crate::core::policy::Policy;
use crate::core::time::Epoch;
use crate::slurm::{
    AdminLevel, Controller, KnownCluster, ObservedQos, Partition, RawUsage, Settings, SlurmConfiguration,
    Versions,
};
use crate::store::{Holder, Snapshot};

pub use ask::ask;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Note,
    /// Something will not work as the policies mean it.
    Warning,
    /// The agent cannot do its work.
    Error,
}

impl Severity {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; stable.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What comes of it; empty when it is as it should be.
    pub consequence: String,
    /// A command to run or a key to change; empty when there is nothing to do.
    pub fix: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        let (consequence, fix) = (String::new(), String::new());
        Finding { check, severity: Severity::Ok, found: found.into(), consequence, fix }
    }

    fn of(
        severity: Severity,
        check: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding { check, severity, found: found.into(), consequence: consequence.into(), fix: fix.into() }
    }

    fn note(
        check: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::of(Severity::Note, check, found, consequence, fix)
    }

    fn warning(
        check: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::of(Severity::Warning, check, found, consequence, fix)
    }

    fn error(
        check: &'static str,
        found: impl Into<String>,
        consequence: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding::of(Severity::Error, check, found, consequence, fix)
    }
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, String>;

/// Everything that was asked.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now.
    pub now: Epoch,
    /// Real or emulated Slurm.
    pub mode: Mode,
    /// Programs that are not there or cannot be run, with the reason; empty when all are.
    pub missing_programs: Vec<(PathBuf, String)>,
    /// Versions.
    pub versions: Answer<Versions>,
    /// Every slurmctld.
    pub controllers: Answer<Vec<Controller>>,
    /// slurmctld's configuration.
    pub configuration: Answer<SlurmConfiguration>,
    /// slurmdbd's.
    pub database: Answer<Settings>,
    /// Clusters of slurmdbd.
    pub clusters: Answer<Vec<KnownCluster>>,
    /// QOS.
    pub qos: Answer<BTreeMap<QosName, ObservedQos>>,
    /// Accounts.
    pub observed: Answer<Observed>,
    /// Partitions.
    pub partitions: Answer<Vec<Partition>>,
    /// Slurm's own counters; resets are proved there.
    pub raw_usage: Answer<BTreeMap<AccountName, RawUsage>>,
    /// Who the agent runs as.
    pub user: AgentUser,
    /// That user's AdminLevel; `None` inside: slurmdbd does not know the user.
    pub admin_level: Answer<Option<AdminLevel>>,
    /// Servers of policies, and AMIE.
    pub servers: Vec<ServerFacts>,
    /// What each source says now, else said last.
    pub offers: Vec<(SourceName, Snapshot)>,
    /// The store.
    pub store: StoreFacts,
}

/// Who the agent runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentUser {
    /// Name, or the number where there is none.
    pub name: String,
    /// Whether it is root.
    pub is_root: bool,
    /// How that is known.
    pub because: &'static str,
}

/// Why a secret cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFacts {
    /// It can.
    Readable,
    /// It is a credential of the unit, which only systemd hands out.
    OnlyInUnit {
        /// Its name.
        credential: String,
    },
    /// It cannot.
    Unreadable(String),
}

/// A server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// The source's name, or `amie`.
    pub name: String,
    /// Its address.
    pub url: url::Url,
    /// The secret.
    pub secret: SecretFacts,
    /// Its answer; `None` when it was not asked, because there is no secret.
    pub answer: Option<Answer<ServerAnswer>>,
}

/// What a server answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerAnswer {
    /// What it has, in words.
    pub has: String,
    /// Seconds its clock is ahead of ours; `None` when it does not tell.
    pub clock_skew_s: Option<i64>,
    /// Rows that could not be used as they are meant.
    pub notices: Vec<String>,
}

/// The store.
#[derive(Debug, Clone)]
pub struct StoreFacts {
    /// Its file.
    pub path: PathBuf,
    /// Whether it can be read: the watermark, `None` inside where there is no store yet.
    pub readable: Answer<Option<StoreContent>>,
    /// Why its directory cannot be written to by the agent's user.
    pub unwritable: Option<String>,
    /// Who has it open for writing.
    pub holder: Option<Holder>,
}

/// What an existing store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreContent {
    /// Up to when jobs are collected.
    pub collected: Option<Epoch>,
}

impl Facts {
    /// All policies.
    fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.offers.iter().flat_map(|(_, snapshot)| &snapshot.policies)
    }

    /// Whether raw usage is to be reset: some policy wants it, or the policies are not known.
    fn resets_wanted(&self) -> bool {
        let known = self.policies().next().is_some();
        !known || self.policies().any(|p| p.raw_usage_reset && p.period != PeriodKind::Total)
    }
}

/// What the answers mean, in the order of topics.
pub fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = slurm::judge(facts, config);
    findings.extend(qos::judge(facts, config));
    findings.extend(policies::judge(facts, config));
    findings.extend(host::judge(facts, config));
    findings
}

/// A question that Slurm did not answer.
fn unanswered(check: &'static str, question: &str, reason: &str) -> Finding {
    Finding::error(
        check,
        format!("{question}: {reason}"),
        "what is not known cannot be checked, and the agent changes nothing without it",
        "correct what the message names, then run check again",
    )
}
