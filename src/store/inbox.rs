//! Commands of the central servers: each received once, settled once, and never forgotten.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::columns::{UnknownWord, count, from_json, from_json_maybe, json, unreadable};
use super::error::{Fault, StoreError};
use super::{Store, outbox};
use crate::core::command::{Command, CommandState, Verdict};
use crate::core::name::SourceName;
use crate::core::report::Message;
use crate::core::time::Epoch;

/// A command and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxCommand {
    /// As received.
    pub command: Command,
    /// Where it stands.
    pub state: CommandState,
    /// When it was first seen.
    pub received: Epoch,
    /// When it got its verdict (or was adopted).
    pub settled: Option<Epoch>,
    /// The verdict; none while pending, and for adopted ones.
    pub verdict: Option<Verdict>,
}

const STATES: [(CommandState, &str); 6] = [
    (CommandState::Pending, "pending"),
    (CommandState::Done, "done"),
    (CommandState::Failed, "failed"),
    (CommandState::Refused, "refused"),
    (CommandState::Superseded, "superseded"),
    (CommandState::Adopted, "adopted"),
];

fn word(state: CommandState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map(|(_, word)| *word).expect("STATES has every state")
}

fn read_state(row: &Row<'_>, column: usize) -> rusqlite::Result<CommandState> {
    let text: String = row.get(column)?;
    let found = STATES.iter().find(|(_, word)| *word == text).map(|(state, _)| *state);
    found.ok_or_else(|| unreadable(column, UnknownWord(text)))
}

impl Store {
    /// Stores commands that were not known before as pending and returns them. A known uuid is ignored whatever it
    /// says now and whichever source shows it: a command is acted on at most once.
    pub fn receive(&mut self, commands: &[Command], at: Epoch) -> Result<Vec<Command>, StoreError> {
        self.transaction("receiving commands", |tx| {
            let mut new = Vec::new();
            for command in commands {
                if insert(tx, command, CommandState::Pending, at)? {
                    new.push(command.clone());
                }
            }
            Ok(new)
        })
    }

    /// Stores the commands of a server's history as it was when the agent first looked: never acted on, never
    /// reported. Says how many were not known.
    pub fn adopt(&mut self, commands: &[Command], at: Epoch) -> Result<usize, StoreError> {
        self.transaction("adopting a history of commands", |tx| {
            let mut adopted = 0;
            for command in commands {
                adopted += usize::from(insert(tx, command, CommandState::Adopted, at)?);
            }
            Ok(adopted)
        })
    }

    /// Whether a command of that uuid was ever received or adopted.
    pub fn knows_command(&self, uuid: &str) -> Result<bool, StoreError> {
        self.reading("looking for a command", |conn| {
            conn.prepare_cached(
                "SELECT 1 FROM commands WHERE uuid = ?1 UNION ALL SELECT 1 FROM forgotten_commands WHERE uuid = ?1",
            )?
            .exists([uuid])
        })
    }

    /// Commands without a verdict, the oldest first.
    pub fn pending(&self) -> Result<Vec<Command>, StoreError> {
        self.reading("reading pending commands", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT body FROM commands WHERE state = 'pending' ORDER BY issued, body ->> 'issued_ns', id",
            )?;
            let rows = statement.query_map([], |row| from_json(row, 0))?;
            rows.collect()
        })
    }

    /// When a command was first seen.
    pub fn received(&self, uuid: &str) -> Result<Option<Epoch>, StoreError> {
        self.reading("looking for a command", |conn| {
            conn.prepare_cached("SELECT received FROM commands WHERE uuid = ?1")?
                .query_row([uuid], |row| row.get(0))
                .optional()
        })
    }

    /// Gives a pending command its verdict and enqueues the message that tells it. The same verdict again changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownCommand`]; [`StoreError::CommandSettled`] when it has another verdict;
    /// [`StoreError::NoVerdict`] for pending and adopted.
    pub fn settle_command(
        &mut self,
        uuid: &str,
        verdict: &Verdict,
        message: Option<&Message>,
        at: Epoch,
    ) -> Result<(), StoreError> {
        self.transaction("settling a command", |tx| {
            if settle(tx, uuid, verdict, at)?
                && let Some(message) = message
            {
                outbox::enqueue(tx, message, at)?;
            }
            Ok(())
        })
    }

    /// The latest commands, newest first.
    pub fn commands(&self, limit: usize) -> Result<Vec<InboxCommand>, StoreError> {
        self.reading("reading commands", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT body, state, received, settled, verdict FROM commands ORDER BY id DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([count(limit)], |row| {
                Ok(InboxCommand {
                    command: from_json(row, 0)?,
                    state: read_state(row, 1)?,
                    received: row.get(2)?,
                    settled: row.get(3)?,
                    verdict: from_json_maybe(row, 4)?,
                })
            })?;
            rows.collect()
        })
    }

    /// For each account and type of command of a source the last issued one that is in effect, with the time of its
    /// verdict.
    pub fn standing(&self, source: &SourceName) -> Result<Vec<(Command, Epoch)>, StoreError> {
        self.reading("reading standing commands", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT body, settled FROM commands AS c WHERE state = 'done' AND source = ?1 \
                 AND account IS NOT NULL AND NOT EXISTS (\
                 SELECT 1 FROM commands AS d WHERE d.state = 'done' AND d.source = c.source \
                 AND d.account = c.account AND d.type = c.type \
                 AND (d.issued, coalesce(d.body ->> 'issued_ns', 0), d.id) \
                 > (c.issued, coalesce(c.body ->> 'issued_ns', 0), c.id)) \
                 ORDER BY account, type",
            )?;
            let rows = statement.query_map([source.as_str()], |row| Ok((from_json(row, 0)?, row.get(1)?)))?;
            rows.collect()
        })
    }
}

fn insert(tx: &Transaction<'_>, command: &Command, state: CommandState, at: Epoch) -> rusqlite::Result<bool> {
    let forgotten =
        tx.prepare_cached("SELECT 1 FROM forgotten_commands WHERE uuid = ?1")?.exists([&command.uuid])?;
    if forgotten {
        return Ok(false);
    }
    let account = command.account();
    let settled = (state != CommandState::Pending).then_some(at);
    let rows = tx
        .prepare_cached(
            "INSERT INTO commands (uuid, source, account, type, issued, received, state, settled, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            command.uuid,
            command.source.as_str(),
            account.as_ref().map(|name| name.as_str()),
            command.kind.type_name(),
            command.issued,
            at,
            word(state),
            settled,
            json(command)?,
        ])?;
    Ok(rows == 1)
}

/// Gives a command its verdict; `false` when it has this very one already.
pub(super) fn settle(tx: &Transaction<'_>, uuid: &str, verdict: &Verdict, at: Epoch) -> Result<bool, Fault> {
    let uuid_owned = || uuid.to_owned();
    if matches!(verdict.state, CommandState::Pending | CommandState::Adopted) {
        return Err(StoreError::NoVerdict { uuid: uuid_owned(), state: verdict.state }.into());
    }
    let known = tx
        .prepare_cached("SELECT state, verdict FROM commands WHERE uuid = ?1")?
        .query_row([uuid], |row| Ok((read_state(row, 0)?, from_json_maybe::<Verdict>(row, 1)?)))
        .optional()?;
    let Some((state, stored)) = known else {
        return Err(StoreError::UnknownCommand { uuid: uuid_owned() }.into());
    };
    if state != CommandState::Pending {
        if stored.as_ref() == Some(verdict) {
            return Ok(false);
        }
        return Err(StoreError::CommandSettled { uuid: uuid_owned(), state }.into());
    }
    tx.prepare_cached("UPDATE commands SET state = ?2, settled = ?3, verdict = ?4 WHERE uuid = ?1")?
        .execute(params![uuid, word(verdict.state), at, json(verdict)?])?;
    Ok(true)
}
