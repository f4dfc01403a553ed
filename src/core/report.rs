//! What will be told to whom. Every message is absolute, so that telling it twice has the effect of once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::association::TresLimits;
use super::command::Mode;
use super::component::ComponentName;
use super::evaluate::Level;
use super::name::{QosName, SourceName};
use super::time::Epoch;

/// One message of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Message {
    /// The verdict on one command.
    CommandResult(CommandResult),
    /// Usage of one allocation in one month.
    ComponentUsage(ComponentUsage),
    /// What is in force on the account of one allocation.
    BackendMetadata(BackendMetadata),
}

impl Message {
    /// The kind as stored and counted.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::CommandResult(_) => MessageKind::CommandResult,
            Message::ComponentUsage(_) => MessageKind::ComponentUsage,
            Message::BackendMetadata(_) => MessageKind::BackendMetadata,
        }
    }

    /// The name under which it is in effect once: a newer message of the same key replaces a waiting older one.
    pub fn key(&self) -> String {
        match self {
            Message::CommandResult(result) => format!("result:{}", result.command),
            Message::ComponentUsage(usage) => usage.key(),
            Message::BackendMetadata(state) => format!("metadata:{}", state.allocation),
        }
    }
}

/// Kinds of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Verdicts.
    CommandResult,
    /// Component usage.
    ComponentUsage,
    /// What is in force.
    BackendMetadata,
}

impl MessageKind {
    /// Every kind, in the order of delivery.
    pub const ALL: [MessageKind; 3] =
        [MessageKind::CommandResult, MessageKind::ComponentUsage, MessageKind::BackendMetadata];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageKind::CommandResult => "command_result",
            MessageKind::ComponentUsage => "component_usage",
            MessageKind::BackendMetadata => "backend_metadata",
        }
    }
}

/// The verdict on one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command's uuid.
    pub command: String,
    /// The server.
    pub source: SourceName,
    /// The policy's uuid.
    pub policy: String,
    /// The resource's uuid; `None` when no resource could be found, then it cannot be told and stays shown.
    pub allocation: Option<String>,
    /// Whether it is in effect, or was replaced by a newer one.
    pub success: bool,
    /// Why not.
    pub error: String,
    /// Real or emulated.
    pub mode: Mode,
    /// Argument vectors that were run.
    pub commands: Vec<String>,
}

/// Usage of one allocation in one calendar month, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentUsage {
    /// The server.
    pub source: SourceName,
    /// The resource's uuid.
    pub allocation: String,
    /// Month such as `2026-11`.
    pub month: String,
    /// An instant inside the month, up to which usage is counted.
    pub date: Epoch,
    /// Amount per component in its unit, decimal text with two digits after the point.
    pub amounts: BTreeMap<ComponentName, String>,
    /// The same per user.
    pub users: BTreeMap<ComponentName, BTreeMap<String, String>>,
}

impl ComponentUsage {
    /// As [`Message::key`].
    pub fn key(&self) -> String {
        format!("usage:{}:{}", self.allocation, self.month)
    }
}

/// What is in force on the account of one allocation, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendMetadata {
    /// The server.
    pub source: SourceName,
    /// The resource's uuid.
    pub allocation: String,
    /// How far the budget is used up.
    pub level: Level,
    /// The QOS of the ladder that the account has.
    pub qos: Vec<QosName>,
    /// Fairshare; `parent` for that of the account above.
    pub fairshare: String,
    /// Limits of the association.
    pub limits: TresLimits,
    /// Whether submission is refused by GrpSubmitJobs=0.
    pub submit_blocked: bool,
    /// When it was first seen so.
    pub since: Epoch,
}
