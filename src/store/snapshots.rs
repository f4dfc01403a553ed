//! What a source last said, accepted as a whole.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::Store;
use super::columns::{from_json, json};
use super::error::StoreError;
use crate::core::allocation::Allocation;
use crate::core::name::SourceName;
use crate::core::policy::Policy;
use crate::core::time::Epoch;

/// Policies and allocations of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Accepted policies.
    pub policies: Vec<Policy>,
    /// Accepted allocations.
    pub allocations: Vec<Allocation>,
}

impl Store {
    /// Replaces what the source last said. The same content again only moves the time.
    pub fn put_snapshot(
        &mut self,
        source: &SourceName,
        snapshot: &Snapshot,
        at: Epoch,
    ) -> Result<(), StoreError> {
        self.transaction("storing a snapshot", |tx| {
            let body = json(snapshot)?;
            let moved = tx
                .prepare_cached("UPDATE snapshots SET at = ?2 WHERE source = ?1 AND body = ?3")?
                .execute(params![source.as_str(), at, body])?;
            if moved == 0 {
                tx.prepare_cached(
                    "INSERT INTO snapshots (source, since, at, body) VALUES (?1, ?2, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET since = excluded.since, at = excluded.at, body = excluded.body",
                )?
                .execute(params![source.as_str(), at, body])?;
            }
            Ok(())
        })
    }

    /// What the source last said, and when it said so last.
    pub fn snapshot(&self, source: &SourceName) -> Result<Option<(Snapshot, Epoch)>, StoreError> {
        self.reading("reading a snapshot", |conn| {
            conn.prepare_cached("SELECT body, at FROM snapshots WHERE source = ?1")?
                .query_row([source.as_str()], |row| Ok((from_json(row, 0)?, row.get(1)?)))
                .optional()
        })
    }

    /// Since when the source has said the same.
    pub fn snapshot_since(&self, source: &SourceName) -> Result<Option<Epoch>, StoreError> {
        self.reading("reading a snapshot's time", |conn| {
            conn.prepare_cached("SELECT since FROM snapshots WHERE source = ?1")?
                .query_row([source.as_str()], |row| row.get(0))
                .optional()
        })
    }
}
