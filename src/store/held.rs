//! A plan that is too large to be applied without somebody's word.

use rusqlite::{OptionalExtension, params};

use super::Store;
use super::error::StoreError;
use crate::core::time::Epoch;

/// The plan that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPlan {
    /// What the operator confirms.
    pub hash: String,
    /// What it would do, for people.
    pub summary: String,
    /// Since when this very plan waits.
    pub since: Epoch,
    /// When it was last planned.
    pub at: Epoch,
}

impl Store {
    /// Stores that a plan waits, in place of any other that did.
    pub fn put_held(&mut self, plan_hash: &str, summary: &str, at: Epoch) -> Result<(), StoreError> {
        self.transaction("storing a held plan", |tx| {
            tx.prepare_cached(
                "INSERT INTO held_plan (one, hash, summary, since, at) VALUES (1, ?1, ?2, ?3, ?3) \
                 ON CONFLICT DO UPDATE SET since = iif(hash = excluded.hash, since, excluded.since), \
                 hash = excluded.hash, summary = excluded.summary, at = excluded.at",
            )?
            .execute(params![plan_hash, summary, at])?;
            Ok(())
        })
    }

    /// The plan that waits.
    pub fn held(&self) -> Result<Option<HeldPlan>, StoreError> {
        self.reading("reading the held plan", |conn| {
            conn.prepare_cached("SELECT hash, summary, since, at FROM held_plan")?
                .query_row([], |row| {
                    Ok(HeldPlan {
                        hash: row.get(0)?,
                        summary: row.get(1)?,
                        since: row.get(2)?,
                        at: row.get(3)?,
                    })
                })
                .optional()
        })
    }

    /// Stores that no plan waits any more.
    pub fn clear_held(&mut self) -> Result<(), StoreError> {
        self.transaction("clearing the held plan", |tx| {
            tx.prepare_cached("DELETE FROM held_plan")?.execute([])?;
            Ok(())
        })
    }
}
