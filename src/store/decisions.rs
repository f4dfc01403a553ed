//! The log of decisions: one row per account and change of mind.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::Store;
use super::columns::{bits, count, from_json, json, parsed, unsigned};
use super::cursors::put_cursor;
use super::error::StoreError;
use crate::core::name::AccountName;
use crate::core::time::Epoch;

/// One logged decision.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedDecision {
    /// When it was made.
    pub at: Epoch,
    /// In which cycle.
    pub cycle: u64,
    /// For which account.
    pub account: AccountName,
    /// The decision, as the caller wrote it.
    pub body: Value,
}

/// Name of the digest of the decisions that were logged last, among the cursors.
const DIGEST: &str = "decisions";

impl Store {
    /// The caller's digest of all decisions that were logged last: where it is the same again, nothing has to be logged.
    pub fn decisions_digest(&self) -> Result<Option<u64>, StoreError> {
        self.get_cursor(DIGEST)
    }

    /// Logs the decisions that differ from their account's last logged one, and keeps the digest of them all; says how many
    /// differed. Numbers that change with every look must be left out by the caller, else each look is logged.
    pub fn put_decisions(
        &mut self,
        at: Epoch,
        cycle: u64,
        decisions: &[(AccountName, Value)],
        digest: u64,
    ) -> Result<usize, StoreError> {
        self.transaction("logging decisions", |tx| {
            let mut last =
                tx.prepare_cached("SELECT body FROM decisions WHERE account = ?1 ORDER BY id DESC LIMIT 1")?;
            let mut insert = tx
                .prepare_cached("INSERT INTO decisions (at, cycle, account, body) VALUES (?1, ?2, ?3, ?4)")?;
            let mut logged = 0;
            for (account, body) in decisions {
                let text = json(body)?;
                // The same text is the same decision; another text need not be another one.
                let is_known = |row: &rusqlite::Row<'_>| -> rusqlite::Result<bool> {
                    Ok(row.get_ref(0)?.as_str().is_ok_and(|last| last == text)
                        || from_json::<Value>(row, 0)? == *body)
                };
                let known = last.query_row([account.as_str()], is_known).optional()?;
                if known != Some(true) {
                    insert.execute(params![at, bits(cycle), account.as_str(), text])?;
                    logged += 1;
                }
            }
            put_cursor(tx, DIGEST, digest)?;
            Ok(logged)
        })
    }

    /// The latest logged decisions, of one account or of all, newest first.
    pub fn decisions(
        &self,
        account: Option<&AccountName>,
        limit: usize,
    ) -> Result<Vec<LoggedDecision>, StoreError> {
        let which = if account.is_some() { "account = ?1" } else { "?1 IS NULL" };
        let sql =
            format!("SELECT at, cycle, account, body FROM decisions WHERE {which} ORDER BY id DESC LIMIT ?2");
        self.reading("reading decisions", |conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows =
                statement.query_map(params![account.map(AccountName::as_str), count(limit)], |row| {
                    Ok(LoggedDecision {
                        at: row.get(0)?,
                        cycle: unsigned(row, 1)?,
                        account: parsed(row, 2, AccountName::parse)?,
                        body: from_json(row, 3)?,
                    })
                })?;
            rows.collect()
        })
    }
}
