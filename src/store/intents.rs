//! What the agent is about to change in Slurm, stored before it is run, and what became of it.

use std::fmt;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::columns::{count, from_json, from_json_maybe, json};
use super::error::{Fault, StoreError};
use super::{Store, inbox, outbox, ownership};
use crate::core::command::Verdict;
use crate::core::name::AccountName;
use crate::core::plan::{Outcome, PlannedChange};
use crate::core::report::Message;
use crate::core::time::Epoch;

/// Number of an intent; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(i64);

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An intent as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Its number.
    pub id: IntentId,
    /// When it was stored, before anything was run.
    pub at: Epoch,
    /// The change and its reasons.
    pub change: PlannedChange,
    /// The argument vector that is run for it.
    pub argv: Vec<String>,
    /// What was there before, as the caller wrote it.
    pub before: Option<Value>,
    /// What became of it, as far as it was seen.
    pub outcome: Option<Outcome>,
    /// When its outcome became final.
    pub settled: Option<Epoch>,
}

const INTENT: &str = "id, at, body, argv, before, outcome, settled";

impl Store {
    /// Stores what is about to be run. Durable when this returns: only then may it be run.
    pub fn put_intent(
        &mut self,
        change: &PlannedChange,
        argv: &[String],
        before: Option<&Value>,
        at: Epoch,
    ) -> Result<IntentId, StoreError> {
        self.transaction("storing an intent", |tx| {
            let before = before.map(json).transpose()?;
            tx.prepare_cached("INSERT INTO intents (at, body, argv, before) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![at, json(change)?, json(argv)?, before])?;
            let id = tx.last_insert_rowid();
            let mut link = tx.prepare_cached(
                "INSERT INTO intent_accounts (account, intent) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?;
            for account in change.change.accounts() {
                link.execute(params![account.as_str(), id])?;
            }
            Ok(IntentId(id))
        })
    }

    /// Stores what became of an intent, with everything that follows from it, in one transaction: the marker of a
    /// reset and the limits the agent owns from now on (outcomes Applied and AlreadyInEffect), verdicts on commands,
    /// messages.
    ///
    /// [`Outcome::Unknown`] is noted, and the intent stays open: it is among [`Store::unsettled_intents`] until it
    /// gets another outcome. The same final outcome again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownIntent`]; [`StoreError::IntentSettled`] when it has another final outcome; those of
    /// [`Store::settle_command`].
    pub fn settle_intent(
        &mut self,
        id: IntentId,
        outcome: &Outcome,
        verdicts: &[(String, Verdict)],
        messages: &[Message],
        at: Epoch,
    ) -> Result<(), StoreError> {
        self.transaction("settling an intent", |tx| {
            let found = tx
                .prepare_cached(&format!("SELECT {INTENT} FROM intents WHERE id = ?1"))?
                .query_row([id.0], read_intent)
                .optional()?;
            let Some(intent) = found else { return Err(StoreError::UnknownIntent { id: id.0 }.into()) };
            if intent.settled.is_some() {
                if intent.outcome.as_ref() == Some(outcome) {
                    return Ok(());
                }
                return Err(StoreError::IntentSettled { id: id.0 }.into());
            }
            settle(tx, &intent, outcome, at)?;
            for (uuid, verdict) in verdicts {
                inbox::settle(tx, uuid, verdict, at)?;
            }
            for message in messages {
                outbox::enqueue(tx, message, at)?;
            }
            Ok(())
        })
    }

    /// Intents without a final outcome, the oldest first: after a crash they are looked at before anything is run.
    pub fn unsettled_intents(&self) -> Result<Vec<Intent>, StoreError> {
        let sql = format!("SELECT {INTENT} FROM intents WHERE settled IS NULL ORDER BY id");
        self.reading("reading unsettled intents", |conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([], read_intent)?;
            rows.collect()
        })
    }

    /// The latest intents, of one account or of all, newest first.
    pub fn history(&self, limit: usize, account: Option<&AccountName>) -> Result<Vec<Intent>, StoreError> {
        let which = match account {
            Some(_) => "id IN (SELECT intent FROM intent_accounts WHERE account = ?1)",
            None => "?1 IS NULL",
        };
        let sql = format!("SELECT {INTENT} FROM intents WHERE {which} ORDER BY id DESC LIMIT ?2");
        self.reading("reading the history of changes", |conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let rows =
                statement.query_map(params![account.map(AccountName::as_str), count(limit)], read_intent)?;
            rows.collect()
        })
    }
}

fn settle(tx: &Transaction<'_>, intent: &Intent, outcome: &Outcome, at: Epoch) -> Result<(), Fault> {
    let is_final = !matches!(outcome, Outcome::Unknown { .. });
    tx.prepare_cached("UPDATE intents SET outcome = ?2, looked = ?3, settled = ?4 WHERE id = ?1")?
        .execute(params![intent.id.0, json(outcome)?, at, is_final.then_some(at)])?;
    ownership::follow(tx, &intent.change.change, outcome, at)?;
    Ok(())
}

fn read_intent(row: &Row<'_>) -> rusqlite::Result<Intent> {
    Ok(Intent {
        id: IntentId(row.get(0)?),
        at: row.get(1)?,
        change: from_json(row, 2)?,
        argv: from_json(row, 3)?,
        before: from_json_maybe(row, 4)?,
        outcome: from_json_maybe(row, 5)?,
        settled: row.get(6)?,
    })
}
