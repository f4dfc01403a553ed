//! The ledger of AMIE records: every version of every record, and where it stands.
//!
//! `pending` waits to be sent; `sent` is on its way, or was when the process ended, and is simply sent again; `accepted`
//! was taken by the server; `loaded` was seen in its accounting; `failed` was refused and waits for an operator or a mended
//! map; `superseded` is an older version, or a withdrawal of what never reached the server. Rows are never removed while their
//! job may change.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::columns::{UnknownWord, bits, count, counted, from_json, json, unreadable, unsigned};
use super::error::{Fault, StoreError};
use super::{Store, cursors};
use crate::core::amie::{Held, Kind, Record};
use crate::core::exact::Exact;
use crate::core::job::JobKey;
use crate::core::name::ClusterName;
use crate::core::time::Epoch;

mod failures;
mod retention;
mod storage;

pub use failures::{AmieFailure, Word};
pub use retention::{AmieRetention, FORGOTTEN};
pub use storage::StorageCollection;

/// Where a version of a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AmieState {
    /// To be sent.
    Pending,
    /// Sent, without an answer so far.
    Sent,
    /// The server took it; it is not loaded yet.
    Accepted,
    /// In the server's accounting.
    Loaded,
    /// Refused, here or there.
    Failed,
    /// An older version.
    Superseded,
}

impl AmieState {
    /// Every state.
    pub const ALL: [AmieState; 6] = [
        AmieState::Pending,
        AmieState::Sent,
        AmieState::Accepted,
        AmieState::Loaded,
        AmieState::Failed,
        AmieState::Superseded,
    ];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            AmieState::Pending => "pending",
            AmieState::Sent => "sent",
            AmieState::Accepted => "accepted",
            AmieState::Loaded => "loaded",
            AmieState::Failed => "failed",
            AmieState::Superseded => "superseded",
        }
    }
}

/// One version of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AmieRow {
    /// Number in the ledger.
    pub id: i64,
    /// From 1, per kind, resource and LocalRecordID.
    pub version: u32,
    /// Its content.
    pub record: Record,
    /// Where it stands.
    pub state: AmieState,
    /// When this version was made.
    pub made: Epoch,
    /// Tries so far.
    pub attempts: u32,
    /// Not sent before this instant.
    pub not_before: Epoch,
    /// When it was sent last.
    pub sent: Option<Epoch>,
    /// When the server took it.
    pub accepted: Option<Epoch>,
    /// When it was seen to be loaded or failed.
    pub settled: Option<Epoch>,
    /// Charge that the server shows.
    pub loaded_charge: Option<String>,
    /// The last refusal or failure.
    pub error: String,
    /// When an operator gave a failed one up.
    pub cleared: Option<Epoch>,
    /// The account of its job as it was told; empty where it is of no job.
    pub account: String,
}

/// New versions that come of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobChange {
    /// The job.
    pub key: JobKey,
    /// When it ended.
    pub ended: Option<Epoch>,
    /// Its account, where what is told of it belongs to this one from now on.
    pub account: Option<String>,
    /// New versions.
    pub records: Vec<Record>,
    /// Reason and account when it cannot be told yet.
    pub waits: Option<(String, String)>,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AmieMade {
    /// First versions.
    pub new: usize,
    /// Later versions.
    pub restated: usize,
}

/// Jobs that wait, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AmieWaiting {
    /// What is missing.
    pub reason: String,
    /// Of which account.
    pub account: String,
    /// How many jobs.
    pub jobs: usize,
    /// When the first of them ended.
    pub oldest: Option<Epoch>,
}

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AmieMark {
    /// The server took it.
    Accepted,
    /// It could not be told; try again then.
    Retry(String, Epoch),
    /// It was refused.
    Failed(String),
    /// The server shows it with this charge.
    Loaded(String),
    /// To be sent again from its first try.
    Again,
    /// A failed one was given up by an operator.
    Cleared,
}

/// Which rows are meant. Nothing given: the newest version of every record.
#[derive(Debug, Clone, Default)]
pub struct AmieFilter {
    /// Happened at or after.
    pub from: Option<Epoch>,
    /// Happened before.
    pub until: Option<Epoch>,
    /// In this state.
    pub state: Option<AmieState>,
    /// Of this project.
    pub project: Option<String>,
    /// Of this person.
    pub username: Option<String>,
    /// On this resource.
    pub resource: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this id.
    pub local_record_id: Option<String>,
    /// Older versions too.
    pub history: bool,
}

/// Records and their charges in one state of one project, person and resource are shown together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmieSum {
    /// State.
    pub state: AmieState,
    /// How many.
    pub records: usize,
    /// Kind.
    pub kind: Kind,
    /// When the oldest version was made.
    pub oldest: Epoch,
}

const ROW: &str = "id, version, state, made, attempts, not_before, sent, accepted, settled, loaded_charge, error, cleared, body, account";

impl Store {
    /// The newest versions that were made of a job, whatever its DBIndex was then: under its DBIndex, its own id, or an id
    /// that begins with its own and a point. Of other origin (an operator's) only those with one of `ids`.
    pub fn amie_held(&self, key: &JobKey, own: &str, ids: &[String]) -> Result<Vec<Held>, StoreError> {
        self.reading("reading what was reported of a job", |conn| {
            let mut held: BTreeMap<i64, Held> = BTreeMap::new();
            let mut take = |row: &Row<'_>| -> rusqlite::Result<()> {
                held.insert(
                    row.get(0)?,
                    Held { taken: row.get(1)?, record: from_json(row, 2)?, account: row.get(3)? },
                );
                Ok(())
            };
            let columns =
                "SELECT id, state IN ('accepted', 'loaded'), body, account FROM amie_records WHERE newest = 1";
            let mut by_job = conn.prepare_cached(&format!(
                "{columns} AND cluster = ?1 AND dbindex = ?2 AND dbindex IS NOT NULL"
            ))?;
            let mut rows = by_job.query(params![key.cluster.as_str(), bits(key.dbindex)])?;
            while let Some(row) = rows.next()? {
                take(row)?;
            }
            let mut by_name = conn.prepare_cached(&format!(
                "{columns} AND (local_record_id = ?1 OR (local_record_id > ?2 AND local_record_id < ?3)) \
                 AND dbindex IS NOT NULL"
            ))?;
            let mut rows = by_name.query(params![own, format!("{own}."), format!("{own}/")])?;
            while let Some(row) = rows.next()? {
                take(row)?;
            }
            let mut by_id = conn.prepare_cached(&format!("{columns} AND local_record_id = ?1"))?;
            for id in ids {
                let mut rows = by_id.query([id])?;
                while let Some(row) = rows.next()? {
                    take(row)?;
                }
            }
            Ok(held.into_values().collect())
        })
    }

    /// The submission of the first incarnation of a job that the ledger knows.
    pub fn first_submit(&self, cluster: &ClusterName, job_id: u64) -> Result<Option<Epoch>, StoreError> {
        self.reading("looking for the first incarnation of a job", |conn| {
            conn.prepare_cached(
                "SELECT min(submit) FROM jobs WHERE job_id = ?2 AND cluster = (SELECT id FROM clusters WHERE name = ?1)",
            )?
            .query_row(params![cluster.as_str(), bits(job_id)], |row| row.get(0))
        })
    }

    /// Stores new versions, who waits, and how far the jobs were looked at, in one transaction. A version that could only
    /// be refused is `failed` at once.
    pub fn put_amie(
        &mut self,
        changes: &[JobChange],
        cursor: Option<(&str, u64)>,
        now: Epoch,
    ) -> Result<AmieMade, StoreError> {
        self.transaction("storing AMIE records", |tx| {
            let mut made = AmieMade::default();
            for change in changes {
                put_waiting(tx, change)?;
                for record in &change.records {
                    let job = (&change.key, change.account.as_deref());
                    put_version(tx, record, Some(job), now, &mut made)?;
                }
                if let Some(account) = &change.account {
                    tx.prepare_cached(
                        "UPDATE amie_records SET account = ?3 WHERE newest = 1 AND cluster = ?1 AND dbindex = ?2 \
                         AND dbindex IS NOT NULL AND account <> ?3",
                    )?
                    .execute(params![change.key.cluster.as_str(), bits(change.key.dbindex), account])?;
                }
            }
            if let Some((name, value)) = cursor {
                cursors::put_cursor(tx, name, value)?;
            }
            Ok(made)
        })
    }

    /// Stores records that belong to no job; equal ones are left alone.
    pub fn put_amie_records(&mut self, records: &[Record], now: Epoch) -> Result<AmieMade, StoreError> {
        self.transaction("storing AMIE records", |tx| {
            let mut made = AmieMade::default();
            for record in records {
                if newest(tx, record)?.is_none_or(|(_, _, held)| held != *record) {
                    put_version(tx, record, None, now, &mut made)?;
                }
            }
            Ok(made)
        })
    }

    /// Hands out at most `limit` records of a kind that are due and marks them sent, before they are.
    pub fn acquire_amie(&mut self, kind: Kind, now: Epoch, limit: usize) -> Result<Vec<AmieRow>, StoreError> {
        self.transaction("handing out AMIE records", |tx| {
            let mut due = tx.prepare_cached(&format!(
                "SELECT {ROW} FROM amie_records WHERE newest = 1 AND kind = ?1 AND state IN ('pending', 'sent') \
                 AND not_before <= ?2 ORDER BY id LIMIT ?3"
            ))?;
            let rows = due
                .query_map(params![kind.as_str(), now, count(limit)], read_row)?
                .collect::<rusqlite::Result<Vec<AmieRow>>>()?;
            let mut mark = tx.prepare_cached(
                "UPDATE amie_records SET state = 'sent', sent = ?2, attempts = attempts + 1 WHERE id = ?1",
            )?;
            for row in &rows {
                mark.execute(params![row.id, now])?;
            }
            Ok(rows
                .into_iter()
                .map(|row| AmieRow { attempts: row.attempts.saturating_add(1), sent: Some(now), ..row })
                .collect())
        })
    }

    /// Stores what became of versions, in one transaction. A mark on a version that is superseded meanwhile changes
    /// nothing but its own history.
    pub fn mark_amie(&mut self, marks: &[(i64, AmieMark)], now: Epoch) -> Result<(), StoreError> {
        self.transaction("storing what became of AMIE records", |tx| {
            for (id, mark) in marks {
                set_mark(tx, *id, mark, now)?;
            }
            Ok(())
        })
    }

    /// Shows rows in order of what happened.
    pub fn visit_amie(
        &self,
        filter: &AmieFilter,
        limit: usize,
        f: &mut dyn FnMut(AmieRow),
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT {ROW} FROM amie_records WHERE (newest = 1 OR ?1) AND (?2 IS NULL OR happened >= ?2) \
             AND (?3 IS NULL OR happened < ?3) AND (?4 IS NULL OR state = ?4) AND (?5 IS NULL OR project = ?5) \
             AND (?6 IS NULL OR username = ?6) AND (?7 IS NULL OR resource = ?7) AND (?8 IS NULL OR kind = ?8) \
             AND (?9 IS NULL OR local_record_id = ?9) ORDER BY happened, id LIMIT ?10"
        );
        self.reading("reading AMIE records", |conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params![
                filter.history,
                filter.from,
                filter.until,
                filter.state.map(AmieState::as_str),
                filter.project,
                filter.username,
                filter.resource,
                filter.kind.map(Kind::as_str),
                filter.local_record_id,
                count(limit),
            ])?;
            while let Some(row) = rows.next()? {
                f(read_row(row)?);
            }
            Ok(())
        })
    }

    /// The newest versions with an id, of every kind and resource.
    pub fn amie_by_id(&self, local_record_id: &str) -> Result<Vec<AmieRow>, StoreError> {
        self.reading("reading an AMIE record", |conn| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT {ROW} FROM amie_records WHERE newest = 1 AND local_record_id = ?1"
            ))?;
            let rows = statement.query_map([local_record_id], read_row)?;
            rows.collect()
        })
    }

    /// How many newest versions are in which state, and since when.
    pub fn amie_sums(&self) -> Result<Vec<AmieSum>, StoreError> {
        self.reading("counting AMIE records", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT kind, state, count(*), min(made) FROM amie_records WHERE newest = 1 GROUP BY kind, state \
                 ORDER BY kind, state",
            )?;
            let rows = statement.query_map([], |row| {
                let kind: String = row.get(0)?;
                Ok(AmieSum {
                    kind: Kind::parse(&kind).ok_or_else(|| unreadable(0, UnknownWord(kind)))?,
                    state: state(row, 1)?,
                    records: counted(row, 2)?,
                    oldest: row.get(3)?,
                })
            })?;
            rows.collect()
        })
    }

    /// When the oldest version was sent that the server has not been seen to settle; `None` when all are settled.
    pub fn amie_unsettled_since(&self) -> Result<Option<Epoch>, StoreError> {
        self.reading("looking for AMIE records without an end", |conn| {
            conn.prepare_cached(
                "SELECT min(sent) FROM amie_records WHERE newest = 1 AND state IN ('accepted', 'failed') \
                 AND sent IS NOT NULL AND cleared IS NULL",
            )?
            .query_row([], |row| row.get(0))
        })
    }

    /// Whether a job waits: nothing of it was told.
    pub fn amie_waits(&self, key: &JobKey) -> Result<bool, StoreError> {
        self.reading("looking for a job that waits for AMIE", |conn| {
            conn.prepare_cached("SELECT 1 FROM amie_waiting WHERE cluster = ?1 AND dbindex = ?2")?
                .exists(params![key.cluster.as_str(), bits(key.dbindex)])
        })
    }

    /// Jobs that wait, by reason and account.
    pub fn amie_waiting(&self) -> Result<Vec<AmieWaiting>, StoreError> {
        self.reading("counting jobs that wait for AMIE", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT reason, what, count(*), min(ended) FROM amie_waiting GROUP BY reason, what ORDER BY 3 DESC, 1, 2",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(AmieWaiting {
                    reason: row.get(0)?,
                    account: row.get(1)?,
                    jobs: counted(row, 2)?,
                    oldest: row.get(3)?,
                })
            })?;
            rows.collect()
        })
    }
}

fn put_waiting(tx: &Transaction<'_>, change: &JobChange) -> Result<(), Fault> {
    let (cluster, dbindex) = (change.key.cluster.as_str(), bits(change.key.dbindex));
    match &change.waits {
        Some((reason, what)) => {
            tx.prepare_cached(
                "INSERT INTO amie_waiting (cluster, dbindex, reason, what, ended) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT DO UPDATE SET reason = excluded.reason, what = excluded.what, ended = excluded.ended",
            )?
            .execute(params![cluster, dbindex, reason, what, change.ended])?;
        }
        None => {
            tx.prepare_cached("DELETE FROM amie_waiting WHERE cluster = ?1 AND dbindex = ?2")?
                .execute(params![cluster, dbindex])?;
        }
    }
    Ok(())
}

/// Row, version and content of the newest version.
fn newest(tx: &Transaction<'_>, record: &Record) -> rusqlite::Result<Option<(i64, u32, Record)>> {
    tx.prepare_cached(
        "SELECT id, version, body FROM amie_records WHERE newest = 1 AND local_record_id = ?1 AND resource = ?2 \
         AND kind = ?3",
    )?
    .query_row(params![record.local_record_id, record.resource, record.kind().as_str()], |row| {
        Ok((row.get(0)?, row.get(1)?, from_json(row, 2)?))
    })
    .optional()
}

/// Whether any version was sent and is not known to have failed.
fn may_be_there(tx: &Transaction<'_>, record: &Record) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT 1 FROM amie_records WHERE local_record_id = ?1 AND resource = ?2 AND kind = ?3 AND sent IS NOT NULL \
         AND (settled IS NULL OR loaded_charge IS NOT NULL OR error = '')",
    )?
    .exists(params![record.local_record_id, record.resource, record.kind().as_str()])
}

fn put_version(
    tx: &Transaction<'_>,
    record: &Record,
    job: Option<(&JobKey, Option<&str>)>,
    now: Epoch,
    made: &mut AmieMade,
) -> Result<(), Fault> {
    let held = newest(tx, record)?;
    if let Some((id, _, _)) = &held {
        tx.prepare_cached("UPDATE amie_records SET newest = 0, state = 'superseded' WHERE id = ?1")?
            .execute([id])?;
        made.restated += 1;
    } else {
        made.new += 1;
    }
    let fault = record.fault().map(|fault| format!("not sent: {fault}"));
    let withdrawn = held.is_some() && record.amount() == Some(Exact::ZERO);
    let state = match &fault {
        // Where no version can be at the server, there is nothing to take back.
        _ if withdrawn && !may_be_there(tx, record)? => AmieState::Superseded,
        Some(_) => AmieState::Failed,
        None => AmieState::Pending,
    };
    tx.prepare_cached(
        "INSERT INTO amie_records (kind, resource, local_record_id, version, newest, cluster, dbindex, project, username, \
         happened, made, state, not_before, error, body, account) VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?10, \
         ?12, ?13, ?14)",
    )?
    .execute(params![
        record.kind().as_str(),
        record.resource,
        record.local_record_id,
        held.map_or(1, |(_, version, _)| version.saturating_add(1)),
        job.map(|(key, _)| key.cluster.as_str()),
        job.map(|(key, _)| bits(key.dbindex)),
        record.local_project_id,
        record.username,
        record.happened(),
        now,
        state.as_str(),
        fault.unwrap_or_default(),
        json(record)?,
        job.and_then(|(_, account)| account).unwrap_or_default(),
    ])?;
    Ok(())
}

fn set_mark(tx: &Transaction<'_>, id: i64, mark: &AmieMark, now: Epoch) -> rusqlite::Result<()> {
    let (sql, text, at): (&str, &str, Epoch) = match mark {
        AmieMark::Accepted => (
            "UPDATE amie_records SET state = iif(newest = 1, 'accepted', state), accepted = ?3, error = ?2 WHERE id = ?1",
            "",
            now,
        ),
        AmieMark::Retry(why, at) => (
            "UPDATE amie_records SET state = 'pending', error = ?2, not_before = ?3 WHERE id = ?1 AND newest = 1",
            why,
            *at,
        ),
        AmieMark::Failed(why) => (
            "UPDATE amie_records SET state = 'failed', error = ?2, settled = ?3, cleared = NULL \
             WHERE id = ?1 AND newest = 1",
            why,
            now,
        ),
        AmieMark::Loaded(charge) => (
            "UPDATE amie_records SET state = 'loaded', loaded_charge = ?2, settled = ?3, error = '', \
             accepted = coalesce(accepted, ?3) WHERE id = ?1 AND newest = 1",
            charge,
            now,
        ),
        AmieMark::Again => (
            "UPDATE amie_records SET state = 'pending', error = ?2, not_before = ?3, attempts = 0, settled = NULL, \
             cleared = NULL WHERE id = ?1 AND newest = 1",
            "",
            now,
        ),
        AmieMark::Cleared => (
            "UPDATE amie_records SET cleared = ?3, error = error || ?2 WHERE id = ?1 AND newest = 1 \
             AND state = 'failed'",
            "",
            now,
        ),
    };
    tx.prepare_cached(sql)?.execute(params![id, text, at])?;
    Ok(())
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<AmieState> {
    let text: String = row.get(column)?;
    let known = AmieState::ALL.into_iter().find(|state| state.as_str() == text);
    known.ok_or_else(|| unreadable(column, UnknownWord(text)))
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<AmieRow> {
    Ok(AmieRow {
        id: row.get(0)?,
        version: u32::try_from(unsigned(row, 1)?)
            .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, i64::MAX))?,
        state: state(row, 2)?,
        made: row.get(3)?,
        attempts: row.get(4)?,
        not_before: row.get(5)?,
        sent: row.get(6)?,
        accepted: row.get(7)?,
        settled: row.get(8)?,
        loaded_charge: row.get(9)?,
        error: row.get(10)?,
        cleared: row.get(11)?,
        record: from_json(row, 12)?,
        account: row.get(13)?,
    })
}
