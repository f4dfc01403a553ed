//! What the agent must not forget: one SQLite file, durable at every commit.
//!
//! Facts, promises and results are in one file so that one transaction can hold all that belongs together: a
//! collection and its watermark, an outcome and the messages that tell it. Every method that writes is one
//! transaction: after a crash at any point a store shows all of it or nothing.
//!
//! Verbs have fixed meanings: `put` makes a row so (again: no change), `settle` gives something open its end,
//! `enqueue`, `acquire`, `delivered`, `failed` move messages through the outbox.
//!
//! It does NOT read clocks (instants are arguments), decide, or speak to Slurm or a server. It does not wait for
//! another writer: one process writes ([`Store::open`]), any number read beside it ([`Store::open_reader`]).
//!
//! What fails: see [`StoreError`]. After [`Class::Corrupt`] nothing may be changed in Slurm any more.

mod amie;
mod columns;
mod compaction;
mod cursors;
mod decisions;
mod error;
mod held;
mod inbox;
mod intents;
mod jobs;
mod lock;
mod names;
mod outbox;
mod ownership;
mod place;
mod put;
mod reports;
mod retention;
mod schema;
mod snapshots;
mod source_quotas;
#[cfg(test)]
mod tests;
mod totals;

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use amie::{
    AmieFailure, AmieFilter, AmieMade, AmieMark, AmieRetention, AmieRow, AmieState, AmieSum, AmieWaiting,
    FORGOTTEN, JobChange, StorageCollection, Word,
};
pub use compaction::Compacted;
pub use decisions::LoggedDecision;
pub use error::{Class, StoreError};
pub use held::HeldPlan;
pub use inbox::InboxCommand;
pub use intents::{Intent, IntentId};
pub use jobs::{Collected, Collection, LoggedCollection};
pub use lock::Holder;
pub use outbox::{DeadLetter, Delivery, Enqueued, FailedDelivery, LEASE_S, Lease, MessageState, OutboxCount};
pub use ownership::{Owned, ResetHow};
pub use retention::{Pruned, Retention};
pub use snapshots::Snapshot;
pub use source_quotas::AcceptedQuotas;
pub use totals::{KeptWindows, Recount};

use error::Fault;

/// How long a reader or the writer waits for SQLite's own short locks (checkpoint, recovery), in milliseconds.
const BUSY_MS: u64 = 5000;
/// Statements kept prepared: more than there are in this room.
const STATEMENTS_MAX: usize = 128;
/// Page cache in KiB of a store at rest and of a quiet cycle.
const CACHE_KIB: i64 = 2 * 1024;
/// Page cache in KiB while many jobs come: what the indexes of ten million jobs need while new ones arrive in order. Three
/// times as much gained nothing.
const CACHE_BULK_KIB: i64 = 16 * 1024;
/// A file up to this size is checked whole at opening, in bytes: a tenth of a second. Of a larger one the tables of jobs and
/// records are left to the deep scan, so that opening does not take longer from year to year.
const CHECKED_WHOLE_BYTES: i64 = 32 * 1024 * 1024;
/// Tables that grow with jobs and users.
const LARGE_TABLES: [&str; 7] =
    ["jobs", "totals", "names", "suspended", "decisions", "amie_records", "delivered"];
/// Page of a new store: a first load is about a fifth faster than with 4096, and a small commit stays small.
const PAGE_BYTES: i64 = 8192;
/// The write-ahead log is brought into the file when it has grown to this, in bytes, and cut back to it afterwards:
/// during a first load most pages of the indexes are then written once instead of many times.
const JOURNAL_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Findings of an integrity check that are shown.
const FINDINGS_MAX: usize = 5;

/// An open store.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    path: PathBuf,
    /// Numbers of names that were stored lately.
    names: names::NameIds,
    /// Device and inode of the file that is open.
    file: Option<(u64, u64)>,
    /// Held for as long as the store is open for writing; a reader has none. Given back last.
    lock: Option<lock::WriterLock>,
}

impl Store {
    /// Opens the store for writing and makes it where there is none: directory (mode 0700), file (0600), tables.
    /// Takes the writer's lock, brings the schema up to date, checks the file (`quick_check`, of a large one only the
    /// tables that do not grow with jobs), and gives back the leases of a writer that is gone.
    ///
    /// # Errors
    /// Among others [`StoreError::Held`] with the holder, [`StoreError::NetworkFileSystem`],
    /// [`StoreError::Newer`], [`StoreError::Corrupt`].
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        place::prepare(path)?;
        let lock = lock::WriterLock::acquire(path)?;
        place::make_file(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let (conn, names) = (connect(path, flags)?, names::NameIds::default());
        let file = place::file_at(path);
        let mut store = Store { conn, path: path.to_owned(), names, file, lock: Some(lock) };
        let found = store.schema_found()?;
        store.check_at_opening()?;
        store.set_up_writing()?;
        if found < schema::NEWEST {
            if found > 0 {
                tracing::info!(
                    from = found,
                    to = schema::NEWEST,
                    "the store gets a newer schema; a large one takes minutes"
                );
            }
            store.transaction("bringing the schema up to date", |tx| Ok(schema::upgrade(tx, found)?))?;
        }
        store.transaction("giving back leases", outbox::release_all)?;
        Ok(store)
    }

    /// Opens the store for reading, beside a running writer or without one. Methods that write fail on it.
    ///
    /// # Errors
    /// [`StoreError::Absent`] where there is none, [`StoreError::Older`] and [`StoreError::Newer`] where the schema
    /// is not this program's.
    pub fn open_reader(path: &Path) -> Result<Store, StoreError> {
        match path.metadata() {
            Ok(_) => place::refuse_network(&place::directory_of(path))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Absent { path: path.to_owned() });
            }
            Err(source) => {
                return Err(StoreError::Place { doing: "looking at", path: path.to_owned(), source });
            }
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let (conn, names) = (connect(path, flags)?, names::NameIds::default());
        let file = place::file_at(path);
        let store = Store { conn, path: path.to_owned(), names, file, lock: None };
        match store.schema_found()? {
            schema::NEWEST => Ok(store),
            0 => Err(StoreError::Absent { path: path.to_owned() }),
            found => Err(StoreError::Older { path: path.to_owned(), found, known: schema::NEWEST }),
        }
    }

    /// Copies the store at `from` (as it is at this instant, also beside its running writer) to `to`, and opens the copy for
    /// writing; an empty one where there is none at `from`.
    pub fn open_copy(from: &Path, to: &Path) -> Result<Store, StoreError> {
        match Store::open_reader(from) {
            Ok(original) => {
                place::prepare(to)?;
                place::make_file(to)?;
                original.reading("copying the store", |conn| {
                    conn.backup(rusqlite::MAIN_DB, to, None::<fn(rusqlite::backup::Progress)>)
                })?;
            }
            Err(StoreError::Absent { .. }) => {}
            Err(error) => return Err(error),
        }
        Store::open(to)
    }

    /// Checks every page, row and index of the file. Takes minutes on a large one.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first findings and the next step.
    pub fn integrity(&self) -> Result<(), StoreError> {
        self.check("integrity_check")
    }

    /// Checks every page and row of the file, without comparing indexes with their rows. Takes seconds per gigabyte.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first findings and the next step.
    pub fn quick_integrity(&self) -> Result<(), StoreError> {
        self.check("quick_check")
    }

    /// Gives back the memory that a cycle has used and the next one reads again.
    pub fn rest(&mut self) -> Result<(), StoreError> {
        self.names = names::NameIds::default();
        self.reading("giving memory back", |conn| {
            conn.flush_prepared_statement_cache();
            conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
            conn.execute_batch("PRAGMA shrink_memory")
        })
    }

    fn check_at_opening(&self) -> Result<(), StoreError> {
        let (bytes, tables) = self.reading("looking at the file", |conn| {
            let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
            let mut tables = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
            let tables =
                tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            Ok((number("PRAGMA page_count")? * number("PRAGMA page_size")?, tables))
        })?;
        if bytes <= CHECKED_WHOLE_BYTES {
            return self.check("quick_check");
        }
        self.check_length(bytes)?;
        let small = tables.iter().filter(|table| !LARGE_TABLES.contains(&table.as_str()));
        small
            .map(String::as_str)
            .try_for_each(|table| self.findings(&format!("PRAGMA quick_check('{table}')")))
    }

    /// A file that was cut off behind the tables that are checked.
    fn check_length(&self, bytes: i64) -> Result<(), StoreError> {
        let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
        let mut journal = self.path.clone().into_os_string();
        journal.push("-wal");
        let found = length(&self.path);
        // Pages may still be in the journal alone.
        if length(Path::new(&journal)) == 0 && found < bytes.cast_unsigned() {
            let detail = format!("the file has {found} bytes and should have {bytes}");
            return Err(StoreError::Corrupt { path: self.path.clone(), detail });
        }
        Ok(())
    }

    /// Who has the store at `path` open for writing, as far as the kernel's list of locks tells; `None` also where it
    /// tells nothing. Takes no lock itself.
    pub fn holder(path: &Path) -> Option<Holder> {
        lock::holder(path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's schema; refuses files of other programs and of newer versions of this one before anything is
    /// written to them.
    fn schema_found(&self) -> Result<i64, StoreError> {
        let path = || self.path.clone();
        let (found, id, tables) = self.reading("looking at the schema", |conn| {
            let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
            Ok((
                number("PRAGMA user_version")?,
                number("PRAGMA application_id")?,
                number("SELECT count(*) FROM sqlite_schema")?,
            ))
        })?;
        if id != schema::APPLICATION_ID && (id, tables) != (0, 0) {
            return Err(StoreError::Foreign { path: path(), found: id });
        }
        if found > schema::NEWEST {
            return Err(StoreError::Newer { path: path(), found, known: schema::NEWEST });
        }
        Ok(found)
    }

    fn set_up_writing(&self) -> Result<(), StoreError> {
        let mode: String = self.reading("setting up the write-ahead log", |conn| {
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "page_size", PAGE_BYTES)?;
            conn.pragma_update_and_check(None, "wal_autocheckpoint", JOURNAL_BYTES_MAX / PAGE_BYTES, |_| {
                Ok(())
            })?;
            conn.pragma_update_and_check(None, "journal_size_limit", JOURNAL_BYTES_MAX, |_| Ok(()))?;
            conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        })?;
        if mode == "wal" {
            return Ok(());
        }
        Err(StoreError::NoWriteAheadLog { path: self.path.clone(), mode })
    }

    fn check(&self, pragma: &str) -> Result<(), StoreError> {
        self.findings(&format!("PRAGMA {pragma}({FINDINGS_MAX})"))
    }

    fn findings(&self, check: &str) -> Result<(), StoreError> {
        let findings = self.reading("checking the file", |conn| {
            let mut statement = conn.prepare(check)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        if findings == ["ok"] {
            return Ok(());
        }
        Err(StoreError::Corrupt { path: self.path.clone(), detail: findings.join("; ") })
    }

    /// Runs `read` and gives SQLite's errors their context.
    fn reading<T>(
        &self,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        read(&self.conn).map_err(|source| StoreError::of(doing, self.path.clone(), source))
    }

    /// Runs `write` in one transaction: durable when this returns `Ok`, else nothing of it was stored.
    fn transaction<T>(
        &mut self,
        doing: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let path = &self.path;
        if self.lock.is_none() {
            return Err(StoreError::ReadOnly { doing, path: path.clone() });
        }
        // SQLite would go on with a file that nobody can find any more (seen with its write-ahead log).
        if place::file_at(path) != self.file {
            return Err(StoreError::Replaced { doing, path: path.clone() });
        }
        let run = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = write(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        run(&mut self.conn).map_err(|fault| match fault {
            Fault::Sql(source) => StoreError::of(doing, path.clone(), source),
            Fault::Rule(error) => error,
        })
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let open = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Else every statement with a parameter is compiled anew for every value it is given, as far as SQLite has statistics.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(conn)
    };
    open().map_err(|source| StoreError::of("opening the store", path.to_owned(), source))
}
