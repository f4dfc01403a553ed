//! The last report of each kind: what a reader beside the writer could not work out from the other tables.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::columns::{from_json, json};
use super::error::StoreError;
use crate::core::time::Epoch;

impl Store {
    /// Stores a report in the place of the one before of that kind.
    pub fn put_report<T: Serialize>(&mut self, kind: &str, report: &T, at: Epoch) -> Result<(), StoreError> {
        self.transaction("storing a report", |tx| {
            tx.prepare_cached(
                "INSERT INTO reports (kind, at, body) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET at = excluded.at, body = excluded.body",
            )?
            .execute(params![kind, at, json(report)?])?;
            Ok(())
        })
    }

    /// The last report of that kind and its time.
    ///
    /// # Errors
    /// Also when it has not the shape that is asked for.
    pub fn last_report<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<(T, Epoch)>, StoreError> {
        self.reading("reading a report", |conn| {
            conn.prepare_cached("SELECT body, at FROM reports WHERE kind = ?1")?
                .query_row([kind], |row| Ok((from_json(row, 0)?, row.get(1)?)))
                .optional()
        })
    }
}
