//! What may be forgotten. Never anything open: pending commands, unsettled intents, undelivered messages, dead
//! letters, jobs without an end or that wait for AMIE, markers of resets, limits the agent owns.

use rusqlite::params;

use super::Store;
use super::columns::count;
use super::error::{Fault, StoreError};
use super::put::{RECORD, StoredJob};
use super::totals::Ledgered;
use crate::core::time::Epoch;

/// Rows removed in one transaction: a daemon's reader or cycle is never kept waiting long.
pub(super) const ROWS_PER_TRANSACTION: usize = 50_000;

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Jobs after their end, and what was told of them; seconds.
    pub jobs_s: i64,
    /// Logs, settled commands and intents; seconds.
    pub history_s: i64,
    /// Jobs that ended at this instant or later stay whatever `jobs_s` says: the oldest period still in use.
    pub oldest_needed: Epoch,
}

/// How many rows went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs.
    pub jobs: usize,
    /// Suspensions of jobs that are gone, and before edges that no window needs any more.
    pub suspended: usize,
    /// Lines of the log of collections.
    pub collections: usize,
    /// Logged decisions.
    pub decisions: usize,
    /// Settled commands; their uuids stay known.
    pub commands: usize,
    /// Settled intents.
    pub intents: usize,
    /// What was told last under keys that are as old as the jobs that go.
    pub delivered: usize,
}

impl Store {
    /// Removes what is older than it must be kept. In several transactions: stopped in between it has done a part,
    /// and the next call does the rest.
    pub fn prune(&mut self, now: Epoch, keep: Retention) -> Result<Pruned, StoreError> {
        let jobs_before = now.plus(keep.jobs_s.saturating_neg()).min(keep.oldest_needed);
        let history_before = now.plus(keep.history_s.saturating_neg());
        Ok(Pruned {
            jobs: self.prune_jobs(jobs_before)?,
            suspended: self.prune_all(SUSPENDED, jobs_before)?,
            collections: self.prune_all(COLLECTIONS, history_before)?,
            decisions: self.prune_all(DECISIONS, history_before)?,
            commands: self.prune_commands(history_before)?,
            intents: self.prune_all(INTENTS, history_before)?,
            delivered: self.prune_all(DELIVERED, jobs_before)?,
        })
    }

    /// What goes is taken off the totals in the same transaction.
    fn prune_jobs(&mut self, before: Epoch) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let rows = self.transaction("removing old jobs", |tx| {
                let mut clusters = tx.prepare_cached("SELECT id FROM clusters")?;
                let clusters =
                    clusters.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
                let mut gone = 0;
                for cluster in clusters {
                    let mut totals = Ledgered::of(tx, cluster)?;
                    let mut old = tx.prepare_cached(&format!("{JOBS} RETURNING runaway, {RECORD}"))?;
                    let mut rows = old.query(params![cluster, before, count(ROWS_PER_TRANSACTION)])?;
                    while let Some(row) = rows.next()? {
                        gone += 1;
                        if !row.get::<_, bool>(0)? {
                            totals.take_off(&StoredJob::read(row, 1)?)?;
                        }
                    }
                    totals.store()?;
                }
                Ok::<usize, Fault>(gone)
            })?;
            removed += rows;
            if rows < ROWS_PER_TRANSACTION {
                return Ok(removed);
            }
        }
    }

    fn prune_all(&mut self, sql: &str, before: Epoch) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let rows = self.transaction("removing old rows", |tx| {
                Ok(tx.prepare_cached(sql)?.execute(params![before, count(ROWS_PER_TRANSACTION)])?)
            })?;
            removed += rows;
            if rows < ROWS_PER_TRANSACTION {
                return Ok(removed);
            }
        }
    }

    /// The uuid of a command that goes stays known, in the same transaction: the server may show it again.
    fn prune_commands(&mut self, before: Epoch) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let rows = self.transaction("removing old commands", |tx| {
                let mut old = tx.prepare_cached(COMMANDS)?;
                let rows = old.query_map(params![before, count(ROWS_PER_TRANSACTION)], |row| row.get(0))?;
                let uuids = rows.collect::<rusqlite::Result<Vec<String>>>()?;
                let mut forget = tx.prepare_cached(
                    "INSERT INTO forgotten_commands (uuid) VALUES (?1) ON CONFLICT DO NOTHING",
                )?;
                let mut delete = tx.prepare_cached("DELETE FROM commands WHERE uuid = ?1")?;
                for uuid in &uuids {
                    forget.execute([uuid])?;
                    delete.execute([uuid])?;
                }
                Ok::<usize, Fault>(uuids.len())
            })?;
            removed += rows;
            if rows < ROWS_PER_TRANSACTION {
                return Ok(removed);
            }
        }
    }
}

/// Not those that wait to be told to AMIE: they are the only trace of what has to be told.
const JOBS: &str = "DELETE FROM jobs WHERE seq IN (\
    SELECT seq FROM jobs WHERE cluster = ?1 AND ended < ?2 AND NOT EXISTS (\
    SELECT 1 FROM amie_waiting AS w JOIN clusters ON clusters.name = w.cluster \
    WHERE clusters.id = ?1 AND w.dbindex = jobs.dbindex) LIMIT ?3)";

const SUSPENDED: &str = "DELETE FROM suspended WHERE (cluster, edge, dbindex) IN (\
    SELECT cluster, edge, dbindex FROM suspended AS s WHERE edge < ?1 AND NOT EXISTS (\
    SELECT 1 FROM jobs WHERE jobs.cluster = s.cluster AND jobs.dbindex = s.dbindex) LIMIT ?2)";

/// The last line of each cluster stays.
const COLLECTIONS: &str = "DELETE FROM collections WHERE id IN (\
    SELECT id FROM collections AS c WHERE at < ?1 AND id < (\
    SELECT max(id) FROM collections AS d WHERE d.cluster = c.cluster) LIMIT ?2)";

/// The last decision of each account stays: it is what the next one is compared with.
const DECISIONS: &str = "DELETE FROM decisions WHERE id IN (\
    SELECT id FROM decisions AS c WHERE at < ?1 AND id < (\
    SELECT max(id) FROM decisions AS d WHERE d.account = c.account) LIMIT ?2)";

/// What stands stays: for each account and type the last issued one that is in effect.
const COMMANDS: &str = "SELECT uuid FROM commands AS c WHERE settled < ?1 AND state <> 'pending' \
    AND (state <> 'done' OR account IS NULL OR EXISTS (\
    SELECT 1 FROM commands AS d WHERE d.state = 'done' AND d.source = c.source AND d.account = c.account \
    AND d.type = c.type AND (d.issued, d.id) > (c.issued, c.id))) LIMIT ?2";

const INTENTS: &str = "DELETE FROM intents WHERE id IN (SELECT id FROM intents WHERE settled < ?1 LIMIT ?2)";

/// Not while a message of the key is in the outbox: it may have to be compared with.
const DELIVERED: &str = "DELETE FROM delivered WHERE key IN (\
    SELECT key FROM delivered AS c WHERE at < ?1 AND NOT EXISTS (\
    SELECT 1 FROM outbox WHERE outbox.key = c.key) LIMIT ?2)";
