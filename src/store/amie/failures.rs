//! What the server lists as failed, and operators' words about it.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::{AmieMade, AmieMark, newest, put_version, set_mark};
use crate::core::amie::Record;
use crate::core::time::Epoch;
use crate::store::Store;
use crate::store::error::StoreError;

/// A record that the server listed as failed when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AmieFailure {
    /// The server's id, by which it is cleared.
    pub failed_record_id: String,
    /// Kind as the server names it.
    pub kind: String,
    /// AMIE resource.
    pub resource: String,
    /// Our id.
    pub local_record_id: String,
    /// The server's reason.
    pub error: String,
    /// When it was seen first.
    pub seen: Epoch,
    /// The server's row, JSON.
    pub body: String,
}

/// An operator's word that was carried out once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Its own id.
    pub id: String,
    /// When it was carried out.
    pub at: Epoch,
    /// What was asked, JSON.
    pub body: String,
    /// What came of it.
    pub outcome: String,
}

impl Store {
    /// Replaces what the server lists as failed; the time a failure was seen first stays.
    pub fn put_amie_failures(&mut self, failures: &[AmieFailure]) -> Result<(), StoreError> {
        self.transaction("storing what failed at AMIE", |tx| {
            let known = read_failures(tx)?;
            tx.execute("DELETE FROM amie_failures", [])?;
            let mut put = tx.prepare_cached(
                "INSERT INTO amie_failures (failed_record_id, kind, resource, local_record_id, error, seen, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            )?;
            for failure in failures {
                let first = known.iter().find(|known| known.failed_record_id == failure.failed_record_id);
                put.execute(params![
                    failure.failed_record_id,
                    failure.kind,
                    failure.resource,
                    failure.local_record_id,
                    failure.error,
                    first.map_or(failure.seen, |first| first.seen),
                    failure.body,
                ])?;
            }
            Ok(())
        })
    }

    /// What the server listed as failed when it was asked last.
    pub fn amie_failures(&self) -> Result<Vec<AmieFailure>, StoreError> {
        self.reading("reading what failed at AMIE", read_failures)
    }

    /// Carries out an operator's word once: records to store, marks to set. `None` when it was carried out before.
    pub fn put_amie_word(
        &mut self,
        word: &Word,
        records: &[Record],
        marks: &[(i64, AmieMark)],
    ) -> Result<Option<AmieMade>, StoreError> {
        self.transaction("carrying out an operator's word", |tx| {
            let new = tx
                .prepare_cached(
                    "INSERT INTO amie_words (id, at, body, outcome) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                )?
                .execute(params![word.id, word.at, word.body, word.outcome])?;
            if new == 0 {
                return Ok(None);
            }
            let mut made = AmieMade::default();
            for record in records {
                if newest(tx, record)?.is_none_or(|(_, _, held)| held != *record) {
                    put_version(tx, record, None, word.at, &mut made)?;
                }
            }
            for (id, mark) in marks {
                set_mark(tx, *id, mark, word.at)?;
            }
            Ok(Some(made))
        })
    }
}

fn read_failures(conn: &Connection) -> rusqlite::Result<Vec<AmieFailure>> {
    let mut statement = conn.prepare_cached(
        "SELECT failed_record_id, kind, resource, local_record_id, error, seen, body FROM amie_failures \
         ORDER BY seen, failed_record_id",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(AmieFailure {
            failed_record_id: row.get(0)?,
            kind: row.get(1)?,
            resource: row.get(2)?,
            local_record_id: row.get(3)?,
            error: row.get(4)?,
            seen: row.get(5)?,
            body: row.get(6)?,
        })
    })?;
    rows.collect()
}
