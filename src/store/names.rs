//! Texts of jobs (accounts, users, states, partitions, QOS), each kept once and named by a number.

use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction};

use super::columns::{UnknownWord, unreadable};
use crate::core::job::Printed;

/// Most numbers remembered: twice the associations of a very large site.
const REMEMBERED_MAX: usize = 250_000;

/// Numbers of texts that were looked up lately. Only to be used again when the transaction that filled it was committed.
#[derive(Debug, Default)]
pub(super) struct NameIds(HashMap<Box<str>, i64, foldhash::quality::RandomState>);

impl NameIds {
    /// The number of a text; a new text is stored.
    pub(super) fn id(&mut self, tx: &Transaction<'_>, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.0.get(name) {
            return Ok(*id);
        }
        let known = tx
            .prepare_cached("SELECT id FROM names WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                tx.prepare_cached("INSERT INTO names (name) VALUES (?1)")?.execute([name])?;
                tx.last_insert_rowid()
            }
        };
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(name.into(), id);
        Ok(id)
    }
}

/// The texts of numbers, each looked up once.
pub(super) struct NameTexts<'c> {
    find: CachedStatement<'c>,
    known: HashMap<i64, Printed, foldhash::fast::RandomState>,
}

impl<'c> NameTexts<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<NameTexts<'c>> {
        let find = conn.prepare_cached("SELECT name FROM names WHERE id = ?1")?;
        Ok(NameTexts { find, known: HashMap::default() })
    }

    /// The text of a number that a row holds in `column`.
    pub(super) fn text(&mut self, id: i64, column: usize) -> rusqlite::Result<&Printed> {
        if !self.known.contains_key(&id) {
            let name: Option<String> = self.find.query_row([id], |row| row.get(0)).optional()?;
            let name = name.ok_or_else(|| unreadable(column, UnknownWord(format!("name {id}"))))?;
            self.known.insert(id, name.into());
        }
        self.known.get(&id).ok_or_else(|| unreadable(column, UnknownWord(format!("name {id}"))))
    }
}
