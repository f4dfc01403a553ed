//! What can go wrong between the agent and Slurm, and what a caller can do about it.

use super::argv::Argv;
use super::rows::escaped;
use super::runner::RunError;
pub use crate::core::class::Class;

/// An operation on Slurm that failed.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The program gave no answer.
    #[error("could not {operation}")]
    Run {
        /// What was tried, on what.
        operation: String,
        /// Why there is no answer.
        source: RunError,
    },
    /// The program answered with a refusal.
    #[error("could not {operation}: {words} (exit status {status} of: {argv})")]
    Failed {
        /// What was tried, on what.
        operation: String,
        /// The program as typed.
        argv: String,
        /// Its exit status.
        status: i32,
        /// Slurm's own words.
        words: String,
    },
    /// The answer lacks what every such answer of a working Slurm has.
    #[error(
        "could not {operation}: the answer of {argv} has no {missing}; run it by hand and look at slurmdbd's log"
    )]
    Incomplete {
        /// What was tried, on what.
        operation: String,
        /// The program as typed.
        argv: String,
        /// What is missing.
        missing: String,
    },
    /// The answer shows a record a second time, so far from the first that the two cannot be compared.
    #[error(
        "could not {operation}: the answer of {argv} shows DBIndex {dbindex} twice, which slurmdbd's table cannot hold; look for \
         account names with line breaks in `sacctmgr show account`, and ask for shorter windows (limits.window)"
    )]
    Repeated {
        /// What was tried, on what.
        operation: String,
        /// The program as typed.
        argv: String,
        /// The record's key.
        dbindex: u64,
    },
    /// The request itself makes no sense; nothing was run.
    #[error("did not {operation}: {reason}")]
    Senseless {
        /// What was to be done.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl SlurmError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            SlurmError::Run { source, .. } => source.class(),
            SlurmError::Failed { words, .. } => class_of_words(words),
            SlurmError::Incomplete { .. } | SlurmError::Repeated { .. } => Class::Corrupt,
            SlurmError::Senseless { .. } => Class::Misconfigured,
        }
    }

    pub(super) fn incomplete(operation: &str, argv: &Argv, missing: impl Into<String>) -> SlurmError {
        SlurmError::Incomplete {
            operation: operation.to_owned(),
            argv: argv.to_string(),
            missing: missing.into(),
        }
    }
}

/// Slurm's exit statuses do not tell an outage from a refusal; its words do. What is not recognised may pass.
fn class_of_words(words: &str) -> Class {
    let words = words.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    if says(&["permission denied", "privilege", "only admins", "must have an adminlevel"]) {
        return Class::Refused;
    }
    if says(&[
        "invalid field",
        "unknown field",
        "no valid tres",
        "unrecognized option",
        "invalid option",
        "unknown option",
        "invalid keyword",
        "invalid time",
    ]) || says(&["unable to establish configuration source", "could not establish a configuration source"])
    {
        return Class::Misconfigured;
    }
    Class::Transient
}

/// Whether Slurm's words are those of an outage of slurmdbd or slurmctld and not a refusal.
pub(super) fn is_outage(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        "connect",
        "unable to contact",
        "getting response to message",
        "talking to the database",
        "timed out",
        "zero bytes were transmitted",
        "communication",
        "not responding",
    ]
    .iter()
    .any(|text| words.contains(text))
}

/// Most of Slurm's words that go into one message. A refusal names one association a line, and there can be thousands.
const WORDS_BYTES_MAX: usize = 600;

/// Slurm's words on one line: the program's own prefix, blank lines and control characters removed.
pub(super) fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = line.trim();
            let line = line.split_once(": error: ").map_or(line, |(_, rest)| rest);
            line.strip_prefix("error: ").unwrap_or(line).trim()
        })
        .filter(|line| !line.is_empty())
        .map(|line| escaped(line.as_bytes(), WORDS_BYTES_MAX))
        .collect();
    let mut said = lines.join("; ");
    if said.len() > WORDS_BYTES_MAX {
        let end = (0..=WORDS_BYTES_MAX).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
        said.truncate(end);
        said.push_str(" ...");
    }
    said
}
