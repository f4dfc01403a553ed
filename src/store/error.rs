//! What can go wrong with the store, and what an operator does about it.

pub use crate::core::class::Class;
use std::path::PathBuf;

use super::lock::Holder;
use crate::core::command::CommandState;
use crate::core::name::ClusterName;

/// A failure of the store. Each variant is what was tried on what.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file of the store could not be made or looked at.
    #[error("{doing} {path} failed; check that the directory exists and belongs to the agent's user")]
    Place {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The directory lies on a file system that other hosts can change.
    #[error(
        "{path} lies on {file_system}, a network file system, where the store cannot be kept safe; \
         set the store path to a directory on a local disk such as /var/lib/slurm-site-agent"
    )]
    NetworkFileSystem {
        /// Directory of the store.
        path: PathBuf,
        /// Its kind.
        file_system: &'static str,
    },
    /// Another process writes to the store.
    #[error(
        "the store {path} is in use by {holder}; stop that process first (systemctl stop slurm-site-agent), \
         or use status, usage, explain and history, which read beside it"
    )]
    Held {
        /// The store.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The file system cannot hold a write-ahead log, without which readers would stop the writer.
    #[error(
        "the journal of the store {path} stays in mode {mode:?}; set the store path to a directory on a local disk \
         such as /var/lib/slurm-site-agent"
    )]
    NoWriteAheadLog {
        /// The store.
        path: PathBuf,
        /// The mode it stays in.
        mode: String,
    },
    /// There is no store to read.
    #[error("there is no store at {path} yet; start the daemon or run --evaluate-now once")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program newer than this one wrote the store.
    #[error(
        "the store {path} has schema {found}, this program knows up to {known}; install the newer \
         slurm-site-agent again, older programs cannot use its store"
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// A reader met a store that has to be brought up to date by a writer first.
    #[error(
        "the store {path} has schema {found}, older than {known}; start the daemon once to bring it up to date"
    )]
    Older {
        /// The store.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The one that is needed.
        known: i64,
    },
    /// The file is an SQLite database of another program.
    #[error(
        "{path} is a database of another program (application id {found:#x}); set the store path to a file of its own"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its `application_id`.
        found: i64,
    },
    /// SQLite or the integrity check says that the file is damaged.
    #[error(
        "the store {path} is damaged ({detail}); stop the agent, keep the file (mv {path} {path}.damaged, with its \
         -wal and -shm), then put back a copy or start without one: jobs are read again from slurmdbd, commands \
         already issued are not acted on a second time, and no raw usage is reset in the running period"
    )]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A row is not what this program writes.
    #[error(
        "{doing} in {path} met a row that this program did not write ({detail}); restore the store from a copy, \
         or report it with the output of `sqlite3 {path} .schema`"
    )]
    Row {
        /// What was tried.
        doing: &'static str,
        /// The store.
        path: PathBuf,
        /// Column and reason.
        detail: String,
    },
    /// No room on the disk.
    #[error(
        "{doing} in {path} failed: no room is left; nothing of it was stored. Free space on that file system"
    )]
    Full {
        /// What was tried.
        doing: &'static str,
        /// The store.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// Any other refusal of SQLite.
    #[error(
        "{doing} in {path} failed; nothing of it was stored. Check the file's owner, mode and disk (dmesg)"
    )]
    Statement {
        /// What was tried.
        doing: &'static str,
        /// The store.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// A reader was asked to write.
    #[error("{doing} needs the store {path} open for writing; stop the agent that has it and run this again")]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// The store.
        path: PathBuf,
    },
    /// The file is no longer the one that was opened.
    #[error(
        "{doing}: the store {path} was removed or replaced while it was open; nothing of it was stored. Put the file back, \
         or start the agent on the one that is there now"
    )]
    Replaced {
        /// What was tried.
        doing: &'static str,
        /// The store.
        path: PathBuf,
    },
    /// A record of one cluster in a collection of another.
    #[error("a record of cluster {found} is in a collection of cluster {expected}; nothing was stored")]
    ForeignRecord {
        /// The collection's.
        expected: ClusterName,
        /// The record's.
        found: ClusterName,
    },
    /// A command that was never received.
    #[error("command {uuid} is not in the inbox; nothing was stored")]
    UnknownCommand {
        /// The server's uuid.
        uuid: String,
    },
    /// A command has its verdict already, and it is another.
    #[error("command {uuid} is {state:?} already; nothing was stored")]
    CommandSettled {
        /// The server's uuid.
        uuid: String,
        /// Where it stands.
        state: CommandState,
    },
    /// A verdict that leaves a command where it was or skips the rules.
    #[error("{state:?} is no verdict on command {uuid}; nothing was stored")]
    NoVerdict {
        /// The server's uuid.
        uuid: String,
        /// The refused state.
        state: CommandState,
    },
    /// An intent that was never stored.
    #[error("intent {id} is not stored; nothing was stored")]
    UnknownIntent {
        /// Its number.
        id: i64,
    },
    /// An intent has its outcome already, and it is another.
    #[error("intent {id} is settled already with another outcome; nothing was stored")]
    IntentSettled {
        /// Its number.
        id: i64,
    },
    /// A delivery whose lease has run out, was replaced or was finished.
    #[error("the lease on message {key} is no longer held; whoever holds it now tells the result")]
    LeaseLost {
        /// The message's key.
        key: String,
    },
}

impl StoreError {
    /// What a caller does with it.
    pub fn class(&self) -> Class {
        use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly};
        match self {
            StoreError::Place { .. }
            | StoreError::NetworkFileSystem { .. }
            | StoreError::NoWriteAheadLog { .. }
            | StoreError::Absent { .. }
            | StoreError::Newer { .. }
            | StoreError::Older { .. }
            | StoreError::Foreign { .. } => Class::Misconfigured,
            StoreError::Held { .. } | StoreError::Full { .. } => Class::Transient,
            StoreError::Corrupt { .. } | StoreError::Row { .. } | StoreError::Replaced { .. } => {
                Class::Corrupt
            }
            StoreError::Statement { source, .. } => match source.sqlite_error_code() {
                Some(CannotOpen | PermissionDenied | ReadOnly) => Class::Misconfigured,
                Some(code) if is_passing(code) => Class::Transient,
                _ => Class::Refused,
            },
            StoreError::ReadOnly { .. }
            | StoreError::ForeignRecord { .. }
            | StoreError::UnknownCommand { .. }
            | StoreError::CommandSettled { .. }
            | StoreError::NoVerdict { .. }
            | StoreError::UnknownIntent { .. }
            | StoreError::IntentSettled { .. }
            | StoreError::LeaseLost { .. } => Class::Refused,
        }
    }

    /// SQLite's answer to what was tried, by what it means.
    pub(super) fn of(doing: &'static str, path: PathBuf, source: rusqlite::Error) -> StoreError {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                return StoreError::Corrupt { path, detail: source.to_string() };
            }
            Some(DiskFull) => return StoreError::Full { doing, path, source },
            _ => {}
        }
        match source {
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => {
                StoreError::Row { doing, path, detail: source.to_string() }
            }
            source => StoreError::Statement { doing, path, source },
        }
    }
}

/// Whether SQLite's code speaks of something that passes by itself.
fn is_passing(code: rusqlite::ErrorCode) -> bool {
    use rusqlite::ErrorCode::{
        DatabaseBusy, DatabaseLocked, FileLockingProtocolFailed, OperationInterrupted, OutOfMemory,
        SystemIoFailure,
    };
    matches!(
        code,
        DatabaseBusy
            | DatabaseLocked
            | FileLockingProtocolFailed
            | OperationInterrupted
            | OutOfMemory
            | SystemIoFailure
    )
}

/// Why the inside of a transaction ended: SQLite's word, which gets its context outside, or a rule of the store.
pub(super) enum Fault {
    /// SQLite's answer.
    Sql(rusqlite::Error),
    /// A rule was broken.
    Rule(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(source: rusqlite::Error) -> Fault {
        Fault::Sql(source)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Rule(error)
    }
}
