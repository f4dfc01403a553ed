//! What ends a cycle early, and what a caller does about it.

use crate::central::CentralError;
use crate::config::{ConfigErrors, SecretError};
use crate::core::class::Class;
use crate::slurm::SlurmError;
use crate::store::StoreError;

/// Why the agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// A secret could not be read.
    #[error("a secret could not be read")]
    Secret(#[from] SecretError),
    /// The store failed; nothing may be changed without it.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Slurm could not be asked, where an answer was all that was wanted.
    #[error("Slurm could not be asked")]
    Slurm(#[from] SlurmError),
    /// A server could not be prepared or asked.
    #[error("the central server could not be used")]
    Central(#[from] CentralError),
    /// An instant without a calendar.
    #[error("the clock is wrong")]
    Calendar(#[from] crate::core::period::CalendarError),
    /// The emulated world could not be kept.
    #[error("the emulated world: {0}")]
    Emulator(String),
    /// The operating system refused something the daemon needs.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// A timer could not be set.
    #[error("the schedule could not be set")]
    Schedule(#[from] super::schedule::ScheduleError),
    /// An operator asked for something that is not there.
    #[error("{0}")]
    Asked(String),
}

/// The documented exit codes of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, nothing to look at.
    Done = 0,
    /// Done, and something needs a look: a refused change, a held plan, an undecided account, a finding.
    Attention = 1,
    /// The command line or the configuration is wrong.
    Misconfigured = 2,
    /// Slurm or a server did not answer; the same call may work later.
    Unreachable = 3,
    /// The store is in use, full or broken.
    Store = 4,
}

impl AgentError {
    /// The exit code that says what to do.
    pub fn exit(&self) -> Exit {
        match self {
            AgentError::Config(_)
            | AgentError::Secret(_)
            | AgentError::Calendar(_)
            | AgentError::Schedule(_)
            | AgentError::Asked(_) => Exit::Misconfigured,
            AgentError::Store(error) => match error.class() {
                Class::Misconfigured => Exit::Misconfigured,
                _ => Exit::Store,
            },
            AgentError::Slurm(error) => match error.class() {
                Class::Misconfigured => Exit::Misconfigured,
                _ => Exit::Unreachable,
            },
            AgentError::Central(error) => match error.class() {
                Class::Misconfigured => Exit::Misconfigured,
                _ => Exit::Unreachable,
            },
            AgentError::Emulator(_) | AgentError::System { .. } => Exit::Unreachable,
        }
    }
}

/// An error with everything below it, one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
