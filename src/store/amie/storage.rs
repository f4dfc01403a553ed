//! Collections of storage reports: when each was read, what came of it, and the lines that wait for a project.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::{AmieMade, newest, put_version};
use crate::core::amie::{Record, Stored};
use crate::core::time::Epoch;
use crate::store::Store;
use crate::store::columns::{count, counted, from_json, json};
use crate::store::error::StoreError;

/// One report in one interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorageCollection {
    /// Name of the report.
    pub report: String,
    /// First day of the interval, in days since 1970.
    pub day: i64,
    /// When it was tried last.
    pub tried: Epoch,
    /// When what it says was true; `None` when it could not be collected.
    pub collected: Option<Epoch>,
    /// Lines that were understood.
    pub lines: usize,
    /// Records made of them.
    pub records: usize,
    /// Lines that the site leaves out.
    pub excluded: usize,
    /// Lines that could not be used.
    pub rejected: usize,
    /// Some of those with the reason.
    pub samples: Vec<String>,
    /// Why nothing was collected.
    pub error: String,
    /// Lines whose account has no project yet.
    pub waiting: Vec<Stored>,
}

impl StorageCollection {
    /// One that was tried and of which nothing is known yet.
    pub fn tried(report: &str, day: i64, tried: Epoch) -> StorageCollection {
        StorageCollection {
            report: report.to_owned(),
            day,
            tried,
            collected: None,
            lines: 0,
            records: 0,
            excluded: 0,
            rejected: 0,
            samples: Vec::new(),
            error: String::new(),
            waiting: Vec::new(),
        }
    }
}

const ROW: &str =
    "report, day, tried, collected, lines, records, excluded, rejected, samples, error, waiting";

impl Store {
    /// Stores what came of a report together with its records; the same interval again replaces it. Equal records are left
    /// alone.
    pub fn put_amie_storage(
        &mut self,
        collection: &StorageCollection,
        records: &[Record],
        now: Epoch,
    ) -> Result<AmieMade, StoreError> {
        self.transaction("storing a storage report", |tx| {
            let mut made = AmieMade::default();
            for record in records {
                if newest(tx, record)?.is_none_or(|(_, _, held)| held != *record) {
                    put_version(tx, record, None, now, &mut made)?;
                }
            }
            tx.prepare_cached(&format!(
                "INSERT OR REPLACE INTO amie_storage ({ROW}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
            ))?
            .execute(params![
                collection.report,
                collection.day,
                collection.tried,
                collection.collected,
                count(collection.lines),
                count(collection.records),
                count(collection.excluded),
                count(collection.rejected),
                json(&collection.samples)?,
                collection.error,
                json(&collection.waiting)?,
            ])?;
            Ok(made)
        })
    }

    /// What came of a report in the interval that begins on a day.
    pub fn amie_storage(&self, report: &str, day: i64) -> Result<Option<StorageCollection>, StoreError> {
        self.reading("reading a storage report", |conn| {
            conn.prepare_cached(&format!("SELECT {ROW} FROM amie_storage WHERE report = ?1 AND day = ?2"))?
                .query_row(params![report, day], read_row)
                .optional()
        })
    }

    /// The newest collection of every report.
    pub fn amie_storage_newest(&self) -> Result<Vec<StorageCollection>, StoreError> {
        self.reading("reading the storage reports", |conn| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT {ROW} FROM amie_storage AS s WHERE day = (\
                 SELECT max(day) FROM amie_storage AS t WHERE t.report = s.report) ORDER BY report"
            ))?;
            let rows = statement.query_map([], read_row)?;
            rows.collect()
        })
    }

    /// Every collection of a report that has lines that wait, the oldest first.
    pub fn amie_storage_waiting(&self, report: &str) -> Result<Vec<StorageCollection>, StoreError> {
        self.reading("looking for storage that waits for a project", |conn| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT {ROW} FROM amie_storage WHERE report = ?1 AND waiting <> '[]' ORDER BY day"
            ))?;
            let rows = statement.query_map([report], read_row)?;
            rows.collect()
        })
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<StorageCollection> {
    Ok(StorageCollection {
        report: row.get(0)?,
        day: row.get(1)?,
        tried: row.get(2)?,
        collected: row.get(3)?,
        lines: counted(row, 4)?,
        records: counted(row, 5)?,
        excluded: counted(row, 6)?,
        rejected: counted(row, 7)?,
        samples: from_json(row, 8)?,
        error: row.get(9)?,
        waiting: from_json(row, 10)?,
    })
}
