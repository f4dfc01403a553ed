//! The difference between what is there and what should be, as changes that leave no choice to whoever applies
//! them.

use serde::{Deserialize, Serialize};

use super::association::Assignments;
use super::name::{AccountName, Names, SourceName, UserName};

/// One sacctmgr process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// `modify account` of one or several accounts that need the same values.
    Accounts {
        /// Which.
        accounts: Names<AccountName>,
        /// What.
        set: Assignments,
    },
    /// `modify user` of one association.
    User {
        /// Which user.
        user: UserName,
        /// Below which account.
        account: AccountName,
        /// What.
        set: Assignments,
    },
    /// `modify account ... set RawUsage=0`
    ResetRawUsage {
        /// Which account.
        account: AccountName,
        /// The allocation, policy and period this reset belongs to: at most one for each.
        marker: ResetMarker,
    },
}

/// What a reset of raw usage happens once for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResetMarker {
    /// Account.
    pub account: AccountName,
    /// Where the policy came from.
    pub source: SourceName,
    /// Policy.
    pub policy: String,
    /// Period name.
    pub period: String,
}

/// Who asked for a change, and why, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Because {
    /// The account whose decision it is.
    pub account: AccountName,
    /// Where the rule came from.
    pub source: SourceName,
    /// The rule in one line.
    pub text: String,
}

/// A change with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// What to do.
    pub change: Change,
    /// Why.
    pub because: Vec<Because>,
}

/// What became of a change, told by reading back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Done and seen.
    Applied,
    /// Was already so; nothing was run.
    AlreadyInEffect,
    /// Slurm said no, or what is there differs from what was asked.
    Refused {
        /// Slurm's words.
        reason: String,
    },
    /// It could not be seen; the next cycle looks again.
    Unknown {
        /// Why.
        reason: String,
    },
}
