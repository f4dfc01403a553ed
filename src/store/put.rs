//! Records of one collection on their way into the ledger.
//!
//! New records go in by groups, one statement for each group. A group in which any record meets a stored one is taken
//! back and its records are put one by one. Totals change with every record, in the same transaction.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{CachedStatement, OptionalExtension, Row, Transaction, params};

use super::columns::{bits, write_counts};
use super::cursors;
use super::jobs::Collected;
use super::names::NameIds;
use super::totals::Ledgered;
use crate::core::job::{JobRecord, SuspendedBefore};
use crate::core::tres::TresCounts;

/// Records in one statement. SQLite copies each page that a statement touches aside, once, in case it has to take it back: with
/// jobs that end in another order than they came, 256 records for each copy take a sixth less time than 32. More gain little, and
/// 256 rows of 17 values stay far below SQLite's 32,766 parameters. Fewer in this room's tests, whose collections fill groups too.
const GROUP: usize = if cfg!(test) { 32 } else { 256 };

/// Values of one row.
const VALUES: usize = 17;

/// The columns of a job that come from Slurm, in the order of [`StoredJob::read`].
pub(super) const RECORD: &str = "dbindex, job_id, account, user, state, submit, eligible, started, ended, suspended_s, \
     elapsed_s, part, qos, assoc_id, alloc";

/// A job as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredJob {
    pub(super) dbindex: i64,
    pub(super) job_id: i64,
    pub(super) account: i64,
    pub(super) user: i64,
    pub(super) state: i64,
    pub(super) submit: i64,
    pub(super) eligible: Option<i64>,
    pub(super) started: Option<i64>,
    pub(super) ended: Option<i64>,
    pub(super) suspended_s: i64,
    pub(super) elapsed_s: i64,
    pub(super) part: i64,
    pub(super) qos: i64,
    pub(super) assoc_id: Option<i64>,
    pub(super) alloc: Arc<str>,
}

impl StoredJob {
    /// Reads [`RECORD`] from column `first` on.
    pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredJob> {
        Ok(StoredJob {
            dbindex: row.get(first)?,
            job_id: row.get(first + 1)?,
            account: row.get(first + 2)?,
            user: row.get(first + 3)?,
            state: row.get(first + 4)?,
            submit: row.get(first + 5)?,
            eligible: row.get(first + 6)?,
            started: row.get(first + 7)?,
            ended: row.get(first + 8)?,
            suspended_s: row.get(first + 9)?,
            elapsed_s: row.get(first + 10)?,
            part: row.get(first + 11)?,
            qos: row.get(first + 12)?,
            assoc_id: row.get(first + 13)?,
            alloc: row.get(first + 14)?,
        })
    }

    /// The row of a record.
    fn of<'r>(
        tx: &Transaction<'_>,
        names: &mut NameIds,
        allocs: &mut AllocTexts<'r>,
        record: &'r JobRecord,
    ) -> rusqlite::Result<StoredJob> {
        Ok(StoredJob {
            dbindex: bits(record.key.dbindex),
            job_id: bits(record.job_id),
            account: names.id(tx, &record.account)?,
            user: names.id(tx, &record.user)?,
            state: names.id(tx, &record.state)?,
            submit: record.submit.0,
            eligible: record.eligible.map(|at| at.0),
            started: record.start.map(|at| at.0),
            ended: record.end.map(|at| at.0),
            suspended_s: bits(record.suspended_s),
            elapsed_s: bits(record.elapsed_s),
            part: names.id(tx, &record.partition)?,
            qos: names.id(tx, &record.qos)?,
            assoc_id: record.assoc_id.map(bits),
            alloc: allocs.text(&record.alloc),
        })
    }

    /// Binds the values of a row whose first is the parameter after `before`.
    fn bind(
        &self,
        statement: &mut CachedStatement<'_>,
        before: usize,
        seq: i64,
        cluster: i64,
    ) -> rusqlite::Result<()> {
        let numbers =
            [seq, cluster, self.dbindex, self.job_id, self.account, self.user, self.state, self.submit];
        let mut place = before;
        for number in numbers {
            place += 1;
            statement.raw_bind_parameter(place, number)?;
        }
        for number in [self.eligible, self.started, self.ended] {
            place += 1;
            statement.raw_bind_parameter(place, number)?;
        }
        for number in [self.suspended_s, self.elapsed_s, self.part, self.qos] {
            place += 1;
            statement.raw_bind_parameter(place, number)?;
        }
        statement.raw_bind_parameter(place + 1, self.assoc_id)?;
        statement.raw_bind_parameter(place + 2, &*self.alloc)
    }
}

/// Texts of what jobs held. Records of one answer share their counts, so that each is written once.
#[derive(Default)]
struct AllocTexts<'r> {
    /// By where the counts lie, which does not change while the records are borrowed.
    texts: HashMap<*const TresCounts, (&'r Arc<TresCounts>, Arc<str>), foldhash::fast::RandomState>,
    text: String,
}

impl<'r> AllocTexts<'r> {
    fn text(&mut self, counts: &'r Arc<TresCounts>) -> Arc<str> {
        let (_, text) = self.texts.entry(Arc::as_ptr(counts)).or_insert_with(|| {
            write_counts(counts, &mut self.text);
            (counts, self.text.as_str().into())
        });
        Arc::clone(text)
    }
}

/// The statement that inserts so many rows, as far as none of them meets a stored one.
fn insert<'tx>(tx: &'tx Transaction<'tx>, rows: usize) -> rusqlite::Result<CachedStatement<'tx>> {
    let row = |place: usize| {
        let values: Vec<String> = (1..=VALUES).map(|value| format!("?{}", place * VALUES + value)).collect();
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    tx.prepare_cached(&format!(
        "INSERT INTO jobs (seq, cluster, {RECORD}) VALUES {} ON CONFLICT DO NOTHING",
        rows.join(", ")
    ))
}

/// The statements of one collection, prepared once.
pub(super) struct Putting<'tx, 'r> {
    tx: &'tx Transaction<'tx>,
    cluster: i64,
    seq: i64,
    names: &'tx mut NameIds,
    totals: Ledgered<'tx>,
    allocs: AllocTexts<'r>,
    /// Records that wait for their group to be full.
    group: Vec<StoredJob>,
    /// Whether the last records were new; else each is looked up first.
    new_ones: bool,
    collected: Collected,
    /// Prepared when there is a full group: a quiet cycle has none.
    insert_group: Option<CachedStatement<'tx>>,
    insert: CachedStatement<'tx>,
    find: CachedStatement<'tx>,
    replace: CachedStatement<'tx>,
    rivals: CachedStatement<'tx>,
}

impl<'tx, 'r> Putting<'tx, 'r> {
    pub(super) fn new(
        tx: &'tx Transaction<'tx>,
        cluster: i64,
        names: &'tx mut NameIds,
    ) -> rusqlite::Result<Putting<'tx, 'r>> {
        Ok(Putting {
            tx,
            cluster,
            seq: cursors::counter(tx, "seq")?,
            names,
            totals: Ledgered::of(tx, cluster)?,
            allocs: AllocTexts::default(),
            group: Vec::with_capacity(GROUP),
            new_ones: true,
            collected: Collected::default(),
            insert_group: None,
            insert: insert(tx, 1)?,
            find: tx.prepare_cached(&format!(
                "SELECT runaway, {RECORD} FROM jobs WHERE cluster = ?1 AND dbindex = ?2"
            ))?,
            replace: tx.prepare_cached(
                "UPDATE jobs SET seq = ?1, job_id = ?4, account = ?5, user = ?6, state = ?7, submit = ?8, \
                 eligible = ?9, started = ?10, ended = ?11, suspended_s = ?12, elapsed_s = ?13, part = ?14, qos = ?15, \
                 assoc_id = ?16, alloc = ?17, runaway = runaway AND ?11 IS NULL WHERE cluster = ?2 AND dbindex = ?3",
            )?,
            rivals: tx.prepare_cached(&format!(
                "DELETE FROM jobs WHERE job_id = ?2 AND submit = ?3 AND cluster = ?1 AND dbindex <> ?4 \
                 RETURNING runaway, {RECORD}"
            ))?,
        })
    }

    pub(super) fn put(&mut self, record: &'r JobRecord) -> rusqlite::Result<()> {
        self.group.push(StoredJob::of(self.tx, self.names, &mut self.allocs, record)?);
        if self.group.len() == GROUP { self.put_group() } else { Ok(()) }
    }

    /// Puts what waits.
    fn put_group(&mut self) -> rusqlite::Result<()> {
        let mut group = std::mem::take(&mut self.group);
        if !(self.new_ones && group.len() == GROUP && self.insert_all(&group)?) {
            let before = self.collected.new;
            group.iter().try_for_each(|job| self.put_one(job))?;
            self.new_ones = self.collected.new - before == group.len();
        }
        group.clear();
        self.group = group;
        Ok(())
    }

    /// Inserts a full group; `false` when one of it met a stored row, then none of it is stored.
    fn insert_all(&mut self, group: &[StoredJob]) -> rusqlite::Result<bool> {
        let mut seq = self.seq;
        let statement = match &mut self.insert_group {
            Some(prepared) => prepared,
            None => self.insert_group.insert(insert(self.tx, GROUP)?),
        };
        for (place, job) in group.iter().enumerate() {
            seq += 1;
            job.bind(statement, place * VALUES, seq, self.cluster)?;
        }
        let inserted = statement.raw_execute()?;
        if inserted < GROUP {
            self.tx
                .prepare_cached("DELETE FROM jobs WHERE seq > ?1 AND seq <= ?2")?
                .execute([self.seq, seq])?;
            return Ok(false);
        }
        self.seq = seq;
        self.collected.new += GROUP;
        group.iter().try_for_each(|job| self.totals.count(job))?;
        Ok(true)
    }

    fn put_one(&mut self, job: &StoredJob) -> rusqlite::Result<()> {
        let stored = self
            .find
            .query_row([self.cluster, job.dbindex], |row| {
                Ok((row.get::<_, bool>(0)?, StoredJob::read(row, 1)?))
            })
            .optional()?;
        let Some((runaway, stored)) = stored else {
            if !self.write(job, false)? {
                self.remove_rivals(job)?;
                self.write(job, false)?;
            }
            self.totals.count(job)?;
            self.collected.new += 1;
            return Ok(());
        };
        if stored == *job {
            self.collected.unchanged += 1;
            return Ok(());
        }
        self.remove_rivals(job)?;
        if !runaway {
            self.totals.take_off(&stored)?;
        }
        self.write(job, true)?;
        if !(runaway && job.ended.is_none()) {
            self.totals.count(job)?;
        }
        self.collected.changed += 1;
        Ok(())
    }

    /// Writes a job under the next number; `false` when it met a stored one.
    fn write(&mut self, job: &StoredJob, replace: bool) -> rusqlite::Result<bool> {
        let statement = if replace { &mut self.replace } else { &mut self.insert };
        job.bind(statement, 0, self.seq + 1, self.cluster)?;
        let rows = statement.raw_execute()?;
        self.seq += i64::from(rows == 1);
        Ok(rows == 1)
    }

    /// Removes rows of the same job and submit time under another DBIndex, with what hangs on them.
    fn remove_rivals(&mut self, job: &StoredJob) -> rusqlite::Result<()> {
        let gone = self
            .rivals
            .query_map([self.cluster, job.job_id, job.submit, job.dbindex], |row| {
                Ok((row.get::<_, bool>(0)?, StoredJob::read(row, 1)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for (runaway, rival) in &gone {
            if !runaway {
                self.totals.take_off(rival)?;
            }
            self.tx
                .prepare_cached("DELETE FROM suspended WHERE cluster = ?1 AND dbindex = ?2")?
                .execute([self.cluster, rival.dbindex])?;
        }
        self.collected.rekeyed += gone.len();
        Ok(())
    }

    /// Stores suspensions; what they change of totals changes with them.
    pub(super) fn put_suspended(&mut self, all: &[SuspendedBefore]) -> rusqlite::Result<()> {
        self.put_group()?;
        let mut put = self.tx.prepare_cached(
            "INSERT INTO suspended (cluster, edge, dbindex, seconds) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET seconds = excluded.seconds",
        )?;
        let mut known = self.tx.prepare_cached(
            "SELECT 1 FROM suspended WHERE cluster = ?1 AND edge = ?2 AND dbindex = ?3 AND seconds = ?4",
        )?;
        for before in all {
            let dbindex = bits(before.key.dbindex);
            let row = params![self.cluster, before.edge, dbindex, bits(before.seconds)];
            if known.exists(row)? {
                continue;
            }
            let job = self
                .find
                .query_row([self.cluster, dbindex], |row| {
                    Ok((row.get::<_, bool>(0)?, StoredJob::read(row, 1)?))
                })
                .optional()?;
            let counted = job.filter(|(runaway, _)| !runaway).map(|(_, job)| job);
            if let Some(job) = &counted {
                self.totals.take_off(job)?;
            }
            put.execute(row)?;
            if let Some(job) = &counted {
                self.totals.count(job)?;
            }
        }
        Ok(())
    }

    /// Puts what still waits, and says what became of all.
    pub(super) fn finish(mut self) -> rusqlite::Result<Collected> {
        self.put_group()?;
        self.totals.store()?;
        cursors::put_counter(self.tx, "seq", self.seq)?;
        Ok(self.collected)
    }
}
