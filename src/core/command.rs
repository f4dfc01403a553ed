//! Commands of the central server: what they ask, and what became of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::name::{AccountName, SourceName};
use super::policy::LimitType;
use super::time::Epoch;

/// What is asked. The server's shell text is for people and never run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum CommandKind {
    /// Set fairshare.
    Fairshare {
        /// Shares.
        fairshare: u32,
    },
    /// Set limits; keys are component names or `billing`, values component-minutes (for GrpTRES counts).
    Limits {
        /// Which limit.
        limit_type: LimitType,
        /// Values as the server computed them.
        limits: BTreeMap<String, Exact>,
    },
    /// Set the QOS.
    Qos {
        /// The server's word: a level (normal, slowdown, blocked) or a QOS name.
        qos: String,
        /// Its reason, for people.
        reason: String,
    },
    /// Zero the raw usage.
    ResetUsage,
    /// Anything else; refused with the reason.
    NotUnderstood {
        /// The server's type.
        command_type: String,
        /// What is wrong.
        reason: String,
    },
}

impl CommandKind {
    /// The server's word for the type.
    pub fn type_name(&self) -> &str {
        match self {
            CommandKind::Fairshare { .. } => "fairshare",
            CommandKind::Limits { .. } => "limits",
            CommandKind::Qos { .. } => "qos",
            CommandKind::ResetUsage => "reset_usage",
            CommandKind::NotUnderstood { command_type, .. } => command_type,
        }
    }
}

/// One command as found in a policy's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The server's uuid: acted on at most once.
    pub uuid: String,
    /// Where it came from.
    pub source: SourceName,
    /// The policy it belongs to.
    pub policy: String,
    /// The account it names, as written.
    pub account_text: String,
    /// When the server issued it.
    pub issued: Epoch,
    /// The server's text for people.
    pub description: String,
    /// What is asked.
    pub kind: CommandKind,
}

impl Command {
    /// The account, where the text is a usable name.
    pub fn account(&self) -> Option<AccountName> {
        AccountName::parse(&self.account_text).ok()
    }
}

/// Where a command stands in the inbox. `Pending` -> one of the others, and never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Found, not yet settled.
    Pending,
    /// In effect.
    Done,
    /// Tried, not in effect.
    Failed,
    /// Not tried: unknown, foreign, stale.
    Refused,
    /// A newer one of the same type for the same account took its place.
    Superseded,
    /// In the history before the agent first looked; never acted on, never reported.
    Adopted,
}

/// What the server is told of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where it ends.
    pub state: CommandState,
    /// Why it is not in effect, else empty.
    pub error: String,
    /// The argument vectors that were run for it, for people.
    pub commands: Vec<String>,
}

/// Whether Slurm was real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A real Slurm.
    Production,
    /// The emulated one.
    Emulator,
}
