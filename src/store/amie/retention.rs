//! Which AMIE records may be forgotten: those that are settled, older than the configured age, and whose job is no longer in
//! the ledger, so that nothing can be compared with them any more. What was told and is forgotten must never be told again:
//! [`FORGOTTEN`] is the instant before which no job counts as new.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::core::time::Epoch;
use crate::store::Store;
use crate::store::columns::count;
use crate::store::error::{Fault, StoreError};
use crate::store::retention::ROWS_PER_TRANSACTION;

/// Name of the mark: records of jobs that ended before it may have been told and forgotten.
pub const FORGOTTEN: &str = "amie_forgotten_before";

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmieRetention {
    /// Settled records that happened before this instant. Never later than the end of the oldest job that the ledger keeps.
    pub records_before: Epoch,
    /// Older versions of loaded records that were made before this instant, and carried-out words.
    pub history_before: Epoch,
    /// Whether the server never tells what it has loaded: then accepted is as far as a record comes.
    pub accepted_is_settled: bool,
}

impl Store {
    /// Removes what may go, in several transactions; how many versions went.
    pub fn prune_amie(&mut self, keep: AmieRetention) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let rows = self.transaction("removing old AMIE records", |tx| {
                let compute = settled(tx, keep, COMPUTE_AND_STORAGE)?;
                forget(tx, &compute, keep.records_before)?;
                Ok(compute.len())
            })?;
            removed += rows;
            if rows < ROWS_PER_TRANSACTION {
                break;
            }
        }
        // A refund or correction goes after the record it is about: as long as that stays, they are compared together.
        removed += self.transaction("removing old AMIE adjustments", |tx| {
            let mut gone = Vec::new();
            for (id, local_record_id, of_job) in settled(tx, keep, ADJUSTMENTS)? {
                let there = match about(&local_record_id) {
                    Some(base) => tx
                        .prepare_cached(
                            "SELECT 1 FROM amie_records WHERE newest = 1 AND local_record_id = ?1",
                        )?
                        .exists([base])?,
                    None => false,
                };
                if !there {
                    gone.push((id, local_record_id, of_job));
                }
            }
            forget(tx, &gone, keep.records_before)?;
            Ok(gone.len())
        })?;
        removed += self.transaction("removing old versions of AMIE records", |tx| {
            Ok(tx.prepare_cached(OLD_VERSIONS)?.execute([keep.history_before])?)
        })?;
        self.transaction("removing old storage reports and words", |tx| {
            tx.prepare_cached("DELETE FROM amie_words WHERE at < ?1")?.execute([keep.records_before])?;
            tx.prepare_cached("DELETE FROM amie_storage WHERE tried < ?1 AND waiting = '[]'")?
                .execute([keep.records_before])?;
            Ok(())
        })?;
        Ok(removed)
    }
}

/// A job in the ledger, waiting ones too, keeps what was told of it; a record of no job (storage) has nothing to wait for.
const COMPUTE_AND_STORAGE: &str = "SELECT id, local_record_id, dbindex IS NOT NULL FROM amie_records AS r WHERE newest = 1 \
    AND kind <> 'Adjustment' AND happened < ?1 AND (settled IS NULL OR settled < ?1) AND (state IN ('loaded', 'superseded') \
    OR (state = 'failed' AND cleared IS NOT NULL) OR (state = 'accepted' AND ?2)) AND NOT EXISTS (\
    SELECT 1 FROM clusters JOIN jobs ON jobs.cluster = clusters.id WHERE clusters.name = r.cluster \
    AND jobs.dbindex = r.dbindex) LIMIT ?3";

const ADJUSTMENTS: &str = "SELECT id, local_record_id, dbindex IS NOT NULL FROM amie_records AS r WHERE newest = 1 \
    AND kind = 'Adjustment' AND happened < ?1 AND (settled IS NULL OR settled < ?1) AND (state IN ('loaded', 'superseded') \
    OR (state = 'failed' AND cleared IS NOT NULL) OR (state = 'accepted' AND ?2)) LIMIT ?3";

/// Only beside a loaded version: else an older one may be all that is known to be at the server.
const OLD_VERSIONS: &str = "DELETE FROM amie_records WHERE id IN (SELECT o.id FROM amie_records AS n \
    JOIN amie_records AS o USING (local_record_id, resource, kind) \
    WHERE n.newest = 1 AND n.state = 'loaded' AND o.newest = 0 AND o.made < ?1)";

fn settled(
    tx: &Transaction<'_>,
    keep: AmieRetention,
    sql: &str,
) -> rusqlite::Result<Vec<(i64, String, bool)>> {
    let mut statement = tx.prepare_cached(sql)?;
    let rows = statement.query_map(
        params![keep.records_before, keep.accepted_is_settled, count(ROWS_PER_TRANSACTION)],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    rows.collect()
}

/// The record that a refund or a correction is about, from its id.
fn about(local_record_id: &str) -> Option<&str> {
    if let Some(base) = local_record_id.strip_suffix(".refund") {
        return Some(base);
    }
    let (base, number) = local_record_id.rsplit_once(".c")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(base)
}

/// All versions of these records, and the mark where some are of jobs.
fn forget(tx: &Transaction<'_>, rows: &[(i64, String, bool)], before: Epoch) -> Result<(), Fault> {
    let mut delete = tx.prepare_cached(
        "DELETE FROM amie_records WHERE (local_record_id, resource, kind) = (\
         SELECT local_record_id, resource, kind FROM amie_records WHERE id = ?1)",
    )?;
    for (id, _, _) in rows {
        delete.execute([id])?;
    }
    if !rows.iter().any(|(_, _, of_job)| *of_job) {
        return Ok(());
    }
    let known: Option<Epoch> = tx
        .prepare_cached("SELECT at FROM marks WHERE name = ?1")?
        .query_row([FORGOTTEN], |row| row.get(0))
        .optional()?;
    if known.is_none_or(|known| known < before) {
        tx.prepare_cached(
            "INSERT INTO marks (name, at) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at",
        )?
        .execute(params![FORGOTTEN, before])?;
    }
    Ok(())
}
