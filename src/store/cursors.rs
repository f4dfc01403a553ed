//! Small named numbers: how far a consumer has read, when a schedule last succeeded, counters that never go back.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::Store;
use super::columns::{bits, unsigned};
use super::error::StoreError;
use crate::core::time::Epoch;

impl Store {
    /// How far the consumer of that name has read; `None` before it first said so.
    pub fn get_cursor(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.reading("reading a cursor", |conn| {
            conn.prepare_cached("SELECT value FROM cursors WHERE name = ?1")?
                .query_row([name], |row| unsigned(row, 0))
                .optional()
        })
    }

    /// Stores how far a consumer has read. [`Store::enqueue_all`] does it together with what came of the reading.
    pub fn put_cursor(&mut self, name: &str, value: u64) -> Result<(), StoreError> {
        self.transaction("storing a cursor", |tx| Ok(put_cursor(tx, name, value)?))
    }

    /// When the schedule of that name last succeeded.
    pub fn last_success(&self, name: &str) -> Result<Option<Epoch>, StoreError> {
        self.reading("reading a schedule's mark", |conn| {
            conn.prepare_cached("SELECT at FROM marks WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()
        })
    }

    /// Stores that the schedule of that name succeeded.
    pub fn put_success(&mut self, name: &str, at: Epoch) -> Result<(), StoreError> {
        self.transaction("storing a schedule's mark", |tx| {
            tx.prepare_cached(
                "INSERT INTO marks (name, at) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at",
            )?
            .execute(params![name, at])?;
            Ok(())
        })
    }
}

pub(super) fn put_cursor(tx: &Transaction<'_>, name: &str, value: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO cursors (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, bits(value)])?;
    Ok(())
}

/// A counter of the store itself, 0 before it was first put.
pub(super) fn counter(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    let value = conn
        .prepare_cached("SELECT value FROM counters WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(value.unwrap_or(0))
}

pub(super) fn put_counter(tx: &Transaction<'_>, name: &str, value: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO counters (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?
    .execute(params![name, value])?;
    Ok(())
}
