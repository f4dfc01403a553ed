//! What a source of quotas last said, accepted as a whole.

use rusqlite::{OptionalExtension, params};

use super::Store;
use super::columns::{from_json, json};
use super::error::StoreError;
use crate::core::name::SourceName;
use crate::core::quota_map::SourceQuotas;
use crate::core::time::Epoch;

/// A source's last accepted answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedQuotas {
    /// What it said, with the map that was in use then.
    pub said: SourceQuotas,
    /// When it said so last.
    pub at: Epoch,
    /// Since when it has said the same.
    pub since: Epoch,
}

impl Store {
    /// Replaces what the source last said. The same content again only moves the time.
    pub fn put_quotas(
        &mut self,
        source: &SourceName,
        said: &SourceQuotas,
        at: Epoch,
    ) -> Result<(), StoreError> {
        self.transaction("storing the quotas of a source", |tx| {
            let body = json(said)?;
            let moved = tx
                .prepare_cached("UPDATE source_quotas SET at = ?2 WHERE source = ?1 AND body = ?3")?
                .execute(params![source.as_str(), at, body])?;
            if moved == 0 {
                tx.prepare_cached(
                    "INSERT INTO source_quotas (source, since, at, body) VALUES (?1, ?2, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET since = excluded.since, at = excluded.at, body = excluded.body",
                )?
                .execute(params![source.as_str(), at, body])?;
            }
            Ok(())
        })
    }

    /// What the source last said.
    pub fn quotas(&self, source: &SourceName) -> Result<Option<AcceptedQuotas>, StoreError> {
        self.reading("reading the quotas of a source", |conn| {
            conn.prepare_cached("SELECT body, at, since FROM source_quotas WHERE source = ?1")?
                .query_row([source.as_str()], |row| {
                    Ok(AcceptedQuotas { said: from_json(row, 0)?, at: row.get(1)?, since: row.get(2)? })
                })
                .optional()
        })
    }
}
