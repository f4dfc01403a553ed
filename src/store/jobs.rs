//! The ledger of jobs, its watermark and the log of collections.
//!
//! A record replaces the stored one of the same key; an equal one is not written. Each new or changed record gets
//! the next `seq`, which never comes back, so that [`Store::visit_changed`] shows every change once.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::columns::{bits, count, counted, counts, from_json, json, parsed, unsigned};
use super::error::{Fault, StoreError};
use super::names::NameTexts;
use super::put::{Putting, RECORD, StoredJob};
use super::totals::Ledgered;
use super::{Store, cursors};
use crate::core::job::{JobKey, JobRecord, Printed, SuspendedBefore};
use crate::core::name::ClusterName;
use crate::core::time::{Epoch, Window};

/// Records of a collection from which on it is worth room for pages.
const MANY: usize = 5_000;

/// What one reading of sacct brought, or a part of it, stored as a whole.
#[derive(Debug)]
pub struct Collection<'a> {
    /// The cluster of every record in it.
    pub cluster: &'a ClusterName,
    /// What was asked for.
    pub window: Window,
    /// When it was read.
    pub now: Epoch,
    /// Up to where the ledger is complete from now on; `None` leaves it where it is.
    pub watermark: Option<Epoch>,
    /// Records, in any order.
    pub records: &'a [JobRecord],
    /// What became of the records of the same window that were stored before these.
    pub before: Collected,
    /// Whether more records of the window follow: then these are facts and no more, nothing is logged and the watermark stays.
    pub more: bool,
    /// Suspension before edges of windows.
    pub suspended: &'a [SuspendedBefore],
    /// Lines that were not understood.
    pub rejected: usize,
    /// Some of them, for people.
    pub reject_samples: Vec<String>,
    /// Whether it can be trusted as the whole of the window.
    pub complete: bool,
}

/// What became of the records of a collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Not known before.
    pub new: usize,
    /// Different from what was stored.
    pub changed: usize,
    /// As stored; not written.
    pub unchanged: usize,
    /// Stored rows that went because the same job and submit time came with another DBIndex; the records that took
    /// their place count as new or changed as well.
    pub rekeyed: usize,
}

impl Collected {
    /// Both together.
    pub fn and(self, other: Collected) -> Collected {
        Collected {
            new: self.new + other.new,
            changed: self.changed + other.changed,
            unchanged: self.unchanged + other.unchanged,
            rekeyed: self.rekeyed + other.rekeyed,
        }
    }
}

/// One line of the log of collections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCollection {
    /// Cluster.
    pub cluster: ClusterName,
    /// When it was read.
    pub at: Epoch,
    /// What was asked for.
    pub window: Window,
    /// What became of the records.
    pub collected: Collected,
    /// Lines that were not understood.
    pub rejected: usize,
    /// Some of them.
    pub reject_samples: Vec<String>,
    /// Whether it could be trusted as the whole of the window.
    pub complete: bool,
}

impl Store {
    /// Stores a collection: records, suspensions, watermark and its line in the log.
    ///
    /// # Errors
    /// [`StoreError::ForeignRecord`] when a record belongs to another cluster.
    pub fn put_collection(&mut self, collection: &Collection<'_>) -> Result<Collected, StoreError> {
        if collection.records.len() >= MANY {
            self.reading("making room", |conn| {
                conn.pragma_update(None, "cache_size", -super::CACHE_BULK_KIB)
            })?;
        }
        // Numbers of names only count once they are committed.
        let mut names = std::mem::take(&mut self.names);
        let collected = self.transaction("storing a collection", |tx| {
            let foreign = |found: &ClusterName| StoreError::ForeignRecord {
                expected: collection.cluster.clone(),
                found: found.clone(),
            };
            let keys = collection.records.iter().map(|record| &record.key);
            let all = keys.chain(collection.suspended.iter().map(|before| &before.key));
            if let Some(key) = all.into_iter().find(|key| key.cluster != *collection.cluster) {
                return Err(foreign(&key.cluster).into());
            }
            let cluster = put_cluster(tx, collection.cluster)?;
            let mut putting = Putting::new(tx, cluster, &mut names)?;
            for record in collection.records {
                putting.put(record)?;
            }
            putting.put_suspended(collection.suspended)?;
            let collected = putting.finish()?;
            if collection.more {
                return Ok(collected);
            }
            if let Some(watermark) = collection.watermark {
                // Reading the past anew takes nothing back of what is complete up to now.
                tx.prepare_cached(
                    "UPDATE clusters SET watermark = max(coalesce(watermark, ?2), ?2) WHERE id = ?1",
                )?
                .execute(params![cluster, watermark])?;
            }
            log_collection(tx, cluster, collection, collection.before.and(collected))?;
            Ok(collected)
        })?;
        self.names = names;
        Ok(collected)
    }

    /// Up to where the ledger of a cluster is complete; it never goes back.
    pub fn watermark(&self, cluster: &ClusterName) -> Result<Option<Epoch>, StoreError> {
        self.reading("reading the watermark", |conn| {
            conn.prepare_cached("SELECT watermark FROM clusters WHERE name = ?1")?
                .query_row([cluster.as_str()], |row| row.get(0))
                .optional()
                .map(Option::flatten)
        })
    }

    /// Shows every job that started before the window's end and had not ended at its beginning, in no order. Runaway
    /// jobs are left out. After an error the jobs shown so far are not all there are.
    pub fn visit_jobs(
        &self,
        cluster: &ClusterName,
        window: Window,
        f: &mut dyn FnMut(JobRecord),
    ) -> Result<(), StoreError> {
        // One statement, so that a job that ends meanwhile is seen once.
        let by_end = format!(
            "SELECT {RECORD} FROM jobs WHERE cluster = ?1 AND ended > ?2 AND started < ?3 AND runaway = 0 \
             UNION ALL \
             SELECT {RECORD} FROM jobs WHERE cluster = ?1 AND ended IS NULL AND started < ?3 AND runaway = 0"
        );
        let all = format!(
            "SELECT {RECORD} FROM jobs NOT INDEXED \
             WHERE cluster = ?1 AND (ended > ?2 OR ended IS NULL) AND started < ?3 AND runaway = 0"
        );
        self.reading("reading jobs", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(()) };
            let sql = if qualify_all(conn, id, window)? { &all } else { &by_end };
            let mut statement = conn.prepare_cached(sql)?;
            let mut names = NameTexts::new(conn)?;
            let mut rows = statement.query(params![id, window.from, window.until])?;
            while let Some(row) = rows.next()? {
                f(read_record(row, 0, cluster, &mut names)?);
            }
            Ok(())
        })
    }

    /// Shows every record submitted after an instant, with the end of the record of the same job id before it: `None`
    /// when there is none, `Some(None)` when that one has not ended. In no order. Its cost follows what has ended since then
    /// and what has not, not the ledger.
    pub fn visit_submitted(
        &self,
        cluster: &ClusterName,
        after: Epoch,
        f: &mut dyn FnMut(JobRecord, Option<Option<Epoch>>),
    ) -> Result<(), StoreError> {
        let columns = RECORD.split(", ").map(|column| format!("j.{}", column.trim())).collect::<Vec<_>>();
        let before = "FROM jobs p WHERE p.cluster = j.cluster AND p.job_id = j.job_id AND p.submit < j.submit \
                      ORDER BY p.submit DESC LIMIT 1";
        let select = format!(
            "SELECT (SELECT 1 {before}), (SELECT p.ended {before}), {} FROM jobs j INDEXED BY",
            columns.join(", ")
        );
        // Who was submitted since then ends after it or has not ended; those that Slurm says to have ended before have an index
        // of their own.
        let sql = format!(
            "{select} jobs_ended WHERE j.cluster = ?1 AND j.ended > ?2 AND j.submit > ?2 \
             UNION ALL {select} jobs_ended WHERE j.cluster = ?1 AND j.ended IS NULL AND j.submit > ?2 \
             UNION ALL {select} jobs_odd WHERE j.cluster = ?1 AND j.ended < j.submit AND j.ended <= ?2 AND j.submit > ?2"
        );
        self.reading("reading submissions", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(()) };
            let mut statement = conn.prepare_cached(&sql)?;
            let mut names = NameTexts::new(conn)?;
            let mut rows = statement.query(params![id, after])?;
            while let Some(row) = rows.next()? {
                let known: Option<i64> = row.get(0)?;
                let ended: Option<Epoch> = row.get(1)?;
                f(read_record(row, 2, cluster, &mut names)?, known.map(|_| ended));
            }
            Ok(())
        })
    }

    /// Shows at most `limit` jobs that are new or changed since `after_seq`, in order of their change; a job that
    /// changed several times is shown once, as it is now. Runaway jobs are left out (and shown when they no longer
    /// are).
    pub fn visit_changed(
        &self,
        cluster: &ClusterName,
        after_seq: u64,
        limit: usize,
        f: &mut dyn FnMut(u64, JobRecord),
    ) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT seq, {RECORD} FROM jobs NOT INDEXED WHERE seq > ?2 AND cluster = ?1 AND runaway = 0 \
             ORDER BY seq LIMIT ?3"
        );
        self.reading("reading changed jobs", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(()) };
            let mut statement = conn.prepare_cached(&sql)?;
            let mut names = NameTexts::new(conn)?;
            let mut rows = statement.query(params![id, bits(after_seq), count(limit)])?;
            while let Some(row) = rows.next()? {
                f(unsigned(row, 0)?, read_record(row, 1, cluster, &mut names)?);
            }
            Ok(())
        })
    }

    /// The number of the last change of the ledger: changes that come later have a larger `seq`.
    pub fn ledger_seq(&self) -> Result<u64, StoreError> {
        self.reading("reading the ledger's last change", |conn| {
            Ok(u64::try_from(cursors::counter(conn, "seq")?).unwrap_or(0))
        })
    }

    /// Jobs that Slurm has not said to have ended: waiting, running and runaway ones.
    pub fn open_jobs(&self, cluster: &ClusterName) -> Result<Vec<JobRecord>, StoreError> {
        self.records(cluster, "ended IS NULL")
    }

    /// Says of a job whether it is a runaway (no end, and no longer known to slurmctld). A change counts as a change
    /// of the job. `false` when the ledger has no such job. A job that is stored with an end is no runaway any more.
    pub fn mark_runaway(&mut self, key: &JobKey, runaway: bool) -> Result<bool, StoreError> {
        self.transaction("marking a runaway job", |tx| {
            let Some(cluster) = cluster_id(tx, &key.cluster)? else { return Ok(false) };
            let sql = format!("SELECT seq, runaway, {RECORD} FROM jobs WHERE cluster = ?1 AND dbindex = ?2");
            let known = tx
                .prepare_cached(&sql)?
                .query_row(params![cluster, bits(key.dbindex)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, StoredJob::read(row, 2)?))
                })
                .optional()?;
            let Some((seq, marked, job)) = known else { return Ok(false) };
            if marked != runaway {
                let mut totals = Ledgered::of(tx, cluster)?;
                if runaway {
                    totals.take_off(&job)?
                } else {
                    totals.count(&job)?
                }
                totals.store()?;
                let next = cursors::counter(tx, "seq")? + 1;
                tx.prepare_cached("UPDATE jobs SET seq = ?2, runaway = ?3 WHERE seq = ?1")?
                    .execute(params![seq, next, runaway])?;
                cursors::put_counter(tx, "seq", next)?;
            }
            Ok(true)
        })
    }

    /// Jobs marked as runaways.
    pub fn runaways(&self, cluster: &ClusterName) -> Result<Vec<JobRecord>, StoreError> {
        self.records(cluster, "runaway = 1")
    }

    /// A job that ran and ended inside the window (after its first second), the latest: it must show again when the
    /// window is read again. `None` where the ledger has none.
    pub fn sentinel(&self, cluster: &ClusterName, window: Window) -> Result<Option<JobRecord>, StoreError> {
        let sql = format!(
            "SELECT {RECORD} FROM jobs WHERE cluster = ?1 AND ended > ?2 AND ended < ?3 AND started < ended \
             ORDER BY ended DESC LIMIT 1"
        );
        self.reading("looking for a sentinel", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(None) };
            conn.prepare_cached(&sql)?
                .query_row(params![id, window.from, window.until], |row| {
                    read_record(row, 0, cluster, &mut NameTexts::new(conn)?)
                })
                .optional()
        })
    }

    /// Whether the ledger has any of these jobs, with an end.
    pub fn knows_ended(&self, cluster: &ClusterName, dbindexes: &BTreeSet<u64>) -> Result<bool, StoreError> {
        self.reading("looking for known jobs", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(false) };
            let mut known = conn.prepare_cached(
                "SELECT 1 FROM jobs WHERE cluster = ?1 AND dbindex = ?2 AND ended IS NOT NULL",
            )?;
            for dbindex in dbindexes {
                if known.exists(params![id, bits(*dbindex)])? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Suspensions before edges that lie in the window or are its end, by edge and job.
    pub fn suspended_before(
        &self,
        cluster: &ClusterName,
        window: Window,
    ) -> Result<Vec<SuspendedBefore>, StoreError> {
        self.reading("reading suspensions", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(Vec::new()) };
            let mut statement = conn.prepare_cached(
                "SELECT dbindex, edge, seconds FROM suspended WHERE cluster = ?1 AND edge >= ?2 AND edge <= ?3 \
                 ORDER BY edge, dbindex",
            )?;
            let rows = statement.query_map(params![id, window.from, window.until], |row| {
                Ok(SuspendedBefore {
                    key: JobKey { cluster: cluster.clone(), dbindex: unsigned(row, 0)? },
                    edge: row.get(1)?,
                    seconds: unsigned(row, 2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The latest collections of all clusters, newest first.
    pub fn last_collections(&self, limit: usize) -> Result<Vec<LoggedCollection>, StoreError> {
        self.reading("reading the log of collections", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT name, at, window_from, window_until, new, changed, unchanged, rekeyed, rejected, \
                 reject_samples, complete FROM collections JOIN clusters ON clusters.id = cluster \
                 ORDER BY collections.id DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([count(limit)], |row| {
                Ok(LoggedCollection {
                    cluster: parsed(row, 0, ClusterName::parse)?,
                    at: row.get(1)?,
                    window: Window::new(row.get(2)?, row.get(3)?),
                    collected: Collected {
                        new: counted(row, 4)?,
                        changed: counted(row, 5)?,
                        unchanged: counted(row, 6)?,
                        rekeyed: counted(row, 7)?,
                    },
                    rejected: counted(row, 8)?,
                    reject_samples: from_json(row, 9)?,
                    complete: row.get(10)?,
                })
            })?;
            rows.collect()
        })
    }

    fn records(&self, cluster: &ClusterName, which: &str) -> Result<Vec<JobRecord>, StoreError> {
        let sql = format!("SELECT {RECORD} FROM jobs WHERE cluster = ?1 AND {which} ORDER BY seq");
        self.reading("reading jobs", |conn| {
            let Some(id) = cluster_id(conn, cluster)? else { return Ok(Vec::new()) };
            let mut statement = conn.prepare_cached(&sql)?;
            let mut names = NameTexts::new(conn)?;
            let rows = statement.query_map([id], |row| read_record(row, 0, cluster, &mut names))?;
            rows.collect()
        })
    }
}

/// Number of a cluster in this store.
pub(super) fn cluster_id(conn: &Connection, cluster: &ClusterName) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM clusters WHERE name = ?1")?
        .query_row([cluster.as_str()], |row| row.get(0))
        .optional()
}

/// The number of a cluster, which gets one when it has none.
pub(super) fn put_cluster(tx: &Transaction<'_>, cluster: &ClusterName) -> rusqlite::Result<i64> {
    if let Some(id) = cluster_id(tx, cluster)? {
        return Ok(id);
    }
    tx.execute("INSERT INTO clusters (name) VALUES (?1)", [cluster.as_str()])?;
    Ok(tx.last_insert_rowid())
}

/// Whether every ended job ended after the window's beginning: then the index would only lead from page to page in another
/// order.
pub(super) fn qualify_all(conn: &Connection, cluster: i64, window: Window) -> rusqlite::Result<bool> {
    let first_end: Option<Epoch> = conn
        .prepare_cached("SELECT min(ended) FROM jobs WHERE cluster = ?1")?
        .query_row([cluster], |row| row.get(0))?;
    Ok(first_end.is_none_or(|first| window.from < first))
}

fn read_record(
    row: &Row<'_>,
    first: usize,
    cluster: &ClusterName,
    names: &mut NameTexts<'_>,
) -> rusqlite::Result<JobRecord> {
    let mut text = |column: usize| -> rusqlite::Result<Printed> {
        Ok(names.text(row.get(first + column)?, first + column)?.clone())
    };
    Ok(JobRecord {
        key: JobKey { cluster: cluster.clone(), dbindex: unsigned(row, first)? },
        job_id: unsigned(row, first + 1)?,
        account: text(2)?,
        user: text(3)?,
        state: text(4)?,
        submit: row.get(first + 5)?,
        eligible: row.get(first + 6)?,
        start: row.get(first + 7)?,
        end: row.get(first + 8)?,
        suspended_s: unsigned(row, first + 9)?,
        elapsed_s: unsigned(row, first + 10)?,
        partition: text(11)?,
        qos: text(12)?,
        assoc_id: row.get::<_, Option<i64>>(first + 13)?.map(i64::cast_unsigned),
        alloc: counts(row, first + 14)?.into(),
    })
}

fn log_collection(
    tx: &Transaction<'_>,
    cluster: i64,
    collection: &Collection<'_>,
    collected: Collected,
) -> Result<(), Fault> {
    tx.prepare_cached(
        "INSERT INTO collections (cluster, at, window_from, window_until, new, changed, unchanged, rekeyed, rejected, \
         reject_samples, complete) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        cluster,
        collection.now,
        collection.window.from,
        collection.window.until,
        count(collected.new),
        count(collected.changed),
        count(collected.unchanged),
        count(collected.rekeyed),
        count(collection.rejected),
        json(&collection.reject_samples)?,
        collection.complete,
    ])?;
    Ok(())
}
