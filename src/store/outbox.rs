//! Messages that wait to be told, and what was told last under each key.
//!
//! Every message is absolute, so the newest of a key is all that matters: it takes the place of one that waits. One
//! that is being told (leased) is left alone, and the newer one waits until that has ended; two of one key are never
//! told at once. A lease ends with its result, with its time, or with the process: the one writer that opens the
//! store next gives all leases back.
//!
//! What was delivered last is certain until another message of that key is handed out. Only against a certain
//! delivery is an equal message left out.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::columns::{UnknownWord, count, counted, from_json, json, unreadable};
use super::error::{Fault, StoreError};
use super::{Store, cursors};
use crate::core::report::{Message, MessageKind};
use crate::core::time::Epoch;

/// How long a message may be on its way, in seconds: longer than any request with all its time limits, and short
/// enough that a delivery that never came back is tried again the same hour.
pub const LEASE_S: i64 = 900;

/// The right to tell the result of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    number: i64,
    until: Epoch,
}

impl Lease {
    /// When somebody else may get the message.
    pub fn until(&self) -> Epoch {
        self.until
    }
}

/// A message handed out to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Number in the outbox.
    pub id: i64,
    /// The message's key.
    pub key: String,
    /// What to tell.
    pub message: Message,
    /// Which try this is, from 1.
    pub attempts: u32,
    /// Needed to tell the result.
    pub lease: Lease,
}

/// What became of messages that were to be enqueued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Wait now.
    pub queued: usize,
    /// Wait now in the place of an older one of the same key.
    pub replaced: usize,
    /// Left out: delivered, waiting, on its way or refused for good with the same content.
    pub unchanged: usize,
}

/// Where a message stands that is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageState {
    /// To be told.
    Waiting,
    /// On its way.
    Leased,
    /// Given up.
    Dead,
}

impl MessageState {
    const ALL: [MessageState; 3] = [MessageState::Waiting, MessageState::Leased, MessageState::Dead];

    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            MessageState::Waiting => "waiting",
            MessageState::Leased => "leased",
            MessageState::Dead => "dead",
        }
    }
}

/// How many messages of a kind are in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxCount {
    /// Kind.
    pub kind: MessageKind,
    /// State.
    pub state: MessageState,
    /// How many.
    pub count: usize,
    /// When the oldest of them was enqueued.
    pub oldest: Epoch,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What was to be told.
    pub message: Message,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub tried: Option<Epoch>,
    /// What the server said.
    pub error: String,
}

/// A message whose last delivery failed: it waits for the next try, or was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDelivery {
    /// What was to be told.
    pub message: Message,
    /// Waiting or dead (leased while it is being tried again).
    pub state: MessageState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried last.
    pub tried: Option<Epoch>,
    /// Why it was not told.
    pub error: String,
}

impl Store {
    /// Makes a message wait to be told. See [`Store::enqueue_all`].
    pub fn enqueue(&mut self, message: &Message, at: Epoch) -> Result<Enqueued, StoreError> {
        self.enqueue_all(std::slice::from_ref(message), None, at)
    }

    /// Makes messages wait to be told, and moves the cursor they came from, in one transaction.
    pub fn enqueue_all(
        &mut self,
        messages: &[Message],
        cursor: Option<(&str, u64)>,
        at: Epoch,
    ) -> Result<Enqueued, StoreError> {
        self.transaction("enqueuing messages", |tx| {
            let mut enqueued = Enqueued::default();
            for message in messages {
                match enqueue(tx, message, at)? {
                    Placed::Queued => enqueued.queued += 1,
                    Placed::Replaced => enqueued.replaced += 1,
                    Placed::Unchanged => enqueued.unchanged += 1,
                }
            }
            if let Some((name, value)) = cursor {
                cursors::put_cursor(tx, name, value)?;
            }
            Ok(enqueued)
        })
    }

    /// Hands out at most `limit` messages of a kind that are due, the oldest first, each with a lease of [`LEASE_S`].
    /// Messages whose lease has run out are due again.
    ///
    /// Verdicts on commands of one resource are told in their order: a newer one waits until an older one may be tried
    /// again, because the server marks the newest commands of the resource with whatever verdict comes last.
    pub fn acquire(
        &mut self,
        kind: MessageKind,
        now: Epoch,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.transaction("handing out messages", |tx| {
            release_expired(tx, kind, now)?;
            let mut due = tx.prepare_cached(
                "SELECT id, key, body, attempts, lease FROM outbox AS o WHERE kind = ?1 AND state = 'waiting' \
                 AND not_before <= ?2 \
                 AND NOT EXISTS (SELECT 1 FROM outbox AS l WHERE l.key = o.key AND l.state = 'leased') \
                 AND (kind <> 'command_result' OR NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.kind = o.kind \
                 AND e.id < o.id AND (e.state = 'leased' OR (e.state = 'waiting' AND e.not_before > ?2)) \
                 AND e.body ->> '$.source' = o.body ->> '$.source' \
                 AND e.body ->> '$.allocation' = o.body ->> '$.allocation')) \
                 ORDER BY id LIMIT ?3",
            )?;
            let until = now.plus(LEASE_S);
            let deliveries = due
                .query_map(params![kind.as_str(), now, count(limit)], |row| read_delivery(row, until))?
                .collect::<rusqlite::Result<Vec<Delivery>>>()?;
            let mut lease = tx.prepare_cached(
                "UPDATE outbox SET state = 'leased', attempts = ?2, lease = ?3, lease_until = ?4, tried = ?5 WHERE id = ?1",
            )?;
            let mut doubt = tx.prepare_cached("UPDATE delivered SET certain = 0 WHERE key = ?1 AND certain = 1")?;
            for delivery in &deliveries {
                lease.execute(params![delivery.id, delivery.attempts, delivery.lease.number, until, now])?;
                doubt.execute([&delivery.key])?;
            }
            Ok(deliveries)
        })
    }

    /// Stores that a message has been told.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease has run out and somebody else got the message: it may be told twice,
    /// which has the effect of once.
    pub fn delivered(&mut self, delivery: &Delivery, at: Epoch) -> Result<(), StoreError> {
        self.transaction("storing a delivery", |tx| {
            let kind = delivery.message.kind().as_str();
            finish_lease(tx, delivery)?;
            let body: String = tx
                .prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING body")?
                .query_row([delivery.id], |row| row.get(0))?;
            tx.prepare_cached(
                "INSERT INTO delivered (key, kind, at, certain, body) VALUES (?1, ?2, ?3, 1, ?4) ON CONFLICT \
                 DO UPDATE SET kind = excluded.kind, at = excluded.at, certain = 1, body = excluded.body",
            )?
            .execute(params![delivery.key, kind, at, body])?;
            Ok(())
        })
    }

    /// Stores that a message could not be told: it waits until `retry_at`, or is given up when that is `None`. When
    /// a newer one of the same key waits already, that one is all that is left.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] as with [`Store::delivered`].
    pub fn failed(
        &mut self,
        delivery: &Delivery,
        error: &str,
        retry_at: Option<Epoch>,
    ) -> Result<(), StoreError> {
        self.transaction("storing a failed delivery", |tx| {
            finish_lease(tx, delivery)?;
            if release(tx, delivery.id, &delivery.key)? {
                let state = if retry_at.is_some() { MessageState::Waiting } else { MessageState::Dead };
                tx.prepare_cached("UPDATE outbox SET state = ?2, error = ?3, not_before = ?4 WHERE id = ?1")?
                    .execute(params![delivery.id, state.as_str(), error, retry_at.unwrap_or(Epoch(0))])?;
            }
            Ok(())
        })
    }

    /// How many messages are in the outbox, by kind and state; only what there is.
    pub fn outbox_counts(&self) -> Result<Vec<OutboxCount>, StoreError> {
        self.reading("counting the outbox", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT kind, state, count(*), min(enqueued) FROM outbox GROUP BY kind, state ORDER BY kind, state",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(OutboxCount {
                    kind: read_word(row, 0, &MessageKind::ALL, MessageKind::as_str)?,
                    state: read_word(row, 1, &MessageState::ALL, MessageState::as_str)?,
                    count: counted(row, 2)?,
                    oldest: row.get(3)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Messages that were given up, the oldest first.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        self.reading("reading dead letters", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT body, attempts, tried, error FROM outbox WHERE state = 'dead' ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(DeadLetter {
                    message: from_json(row, 0)?,
                    attempts: row.get(1)?,
                    tried: row.get(2)?,
                    error: row.get(3)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Messages whose last delivery failed, the latest try first.
    pub fn failed_deliveries(&self, limit: usize) -> Result<Vec<FailedDelivery>, StoreError> {
        self.reading("reading failed deliveries", |conn| {
            let mut statement = conn.prepare_cached(
                "SELECT body, state, attempts, tried, error FROM outbox WHERE error <> '' \
                 ORDER BY tried DESC, id DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([count(limit)], |row| {
                Ok(FailedDelivery {
                    message: from_json(row, 0)?,
                    state: read_word(row, 1, &MessageState::ALL, MessageState::as_str)?,
                    attempts: row.get(2)?,
                    tried: row.get(3)?,
                    error: row.get(4)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Makes every message that was given up wait again, from its first try; says how many.
    pub fn retry_dead_letters(&mut self, at: Epoch) -> Result<usize, StoreError> {
        self.transaction("trying dead letters again", |tx| {
            Ok(tx
                .prepare_cached(
                    "UPDATE outbox SET state = 'waiting', attempts = 0, not_before = ?1 WHERE state = 'dead'",
                )?
                .execute([at])?)
        })
    }

    /// What was told last under a key, as far as is known.
    pub fn last_delivered(&self, key: &str) -> Result<Option<Message>, StoreError> {
        self.reading("reading the last delivery", |conn| {
            conn.prepare_cached("SELECT body FROM delivered WHERE key = ?1")?
                .query_row([key], |row| from_json(row, 0))
                .optional()
        })
    }
}

/// Where a message was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Queued,
    Replaced,
    Unchanged,
}

/// What the outbox holds under one key: at most one message in each state.
struct Slot {
    waiting: Option<String>,
    leased: Option<String>,
    dead: Option<String>,
    /// Told last, where nothing was handed out since.
    told: Option<String>,
}

impl Slot {
    fn read(conn: &Connection, key: &str) -> rusqlite::Result<Slot> {
        let mut statement = conn.prepare_cached("SELECT body FROM outbox WHERE key = ?1 AND state = ?2")?;
        let mut body = |state: MessageState| {
            statement.query_row(params![key, state.as_str()], |row| row.get(0)).optional()
        };
        let (waiting, leased) = (body(MessageState::Waiting)?, body(MessageState::Leased)?);
        let dead = body(MessageState::Dead)?;
        let told = conn
            .prepare_cached("SELECT body FROM delivered WHERE key = ?1 AND certain = 1")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        Ok(Slot { waiting, leased, dead, told })
    }

    /// Whether the key ends up with this content when nothing waits.
    fn comes_to(&self, body: &str) -> bool {
        let ends_with = self.leased.as_ref().or(self.dead.as_ref()).or(self.told.as_ref());
        ends_with.is_some_and(|end| end == body)
    }
}

/// Makes a message wait, unless its content is what the key has or comes to anyway. In the place of one that waits
/// it keeps that one's turn and the time before which the server wants no request.
pub(super) fn enqueue(tx: &Transaction<'_>, message: &Message, at: Epoch) -> Result<Placed, Fault> {
    let (key, body) = (message.key(), json(message)?);
    let slot = Slot::read(tx, &key)?;
    if slot.waiting.as_ref() == Some(&body) {
        return Ok(Placed::Unchanged);
    }
    if slot.comes_to(&body) {
        remove(tx, &key, MessageState::Waiting)?;
        return Ok(Placed::Unchanged);
    }
    remove(tx, &key, MessageState::Dead)?;
    if slot.waiting.is_some() {
        tx.prepare_cached(
            "UPDATE outbox SET body = ?2, attempts = 0, error = '' WHERE key = ?1 AND state = 'waiting'",
        )?
        .execute([&key, &body])?;
        return Ok(Placed::Replaced);
    }
    tx.prepare_cached(
        "INSERT INTO outbox (key, kind, state, enqueued, not_before, body) VALUES (?1, ?2, 'waiting', ?3, ?3, ?4)",
    )?
    .execute(params![key, message.kind().as_str(), at, body])?;
    let replaced = slot.dead.is_some();
    Ok(if replaced { Placed::Replaced } else { Placed::Queued })
}

/// Gives back the leases of a writer that is gone: nobody else can be telling them, only one process writes.
pub(super) fn release_all(tx: &Transaction<'_>) -> Result<(), Fault> {
    release_each(tx, "SELECT id, key FROM outbox WHERE state = 'leased'", [])
}

fn release_expired(tx: &Transaction<'_>, kind: MessageKind, now: Epoch) -> Result<(), Fault> {
    let sql = "SELECT id, key FROM outbox WHERE kind = ?1 AND state = 'leased' AND lease_until <= ?2";
    release_each(tx, sql, params![kind.as_str(), now])
}

fn release_each(tx: &Transaction<'_>, which: &str, params: impl rusqlite::Params) -> Result<(), Fault> {
    let mut statement = tx.prepare_cached(which)?;
    let rows = statement.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (id, key) in rows.collect::<rusqlite::Result<Vec<(i64, String)>>>()? {
        release(tx, id, &key)?;
    }
    Ok(())
}

/// Ends a lease without a result: the message waits again, or goes when a newer one of its key waits (`false`).
fn release(tx: &Transaction<'_>, id: i64, key: &str) -> rusqlite::Result<bool> {
    let newer_waits =
        tx.prepare_cached("SELECT 1 FROM outbox WHERE key = ?1 AND state = 'waiting'")?.exists([key])?;
    let sql = if newer_waits {
        "DELETE FROM outbox WHERE id = ?1"
    } else {
        "UPDATE outbox SET state = 'waiting', lease_until = NULL WHERE id = ?1"
    };
    tx.prepare_cached(sql)?.execute([id])?;
    Ok(!newer_waits)
}

/// Checks that the delivery still has its lease.
fn finish_lease(tx: &Transaction<'_>, delivery: &Delivery) -> Result<(), Fault> {
    let held = tx
        .prepare_cached("SELECT 1 FROM outbox WHERE id = ?1 AND state = 'leased' AND lease = ?2")?
        .exists([delivery.id, delivery.lease.number])?;
    if held { Ok(()) } else { Err(StoreError::LeaseLost { key: delivery.key.clone() }.into()) }
}

fn remove(tx: &Transaction<'_>, key: &str, state: MessageState) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM outbox WHERE key = ?1 AND state = ?2")?.execute([key, state.as_str()])?;
    Ok(())
}

fn read_delivery(row: &Row<'_>, until: Epoch) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        key: row.get(1)?,
        message: from_json(row, 2)?,
        attempts: row.get::<_, u32>(3)?.saturating_add(1),
        lease: Lease { number: row.get::<_, i64>(4)? + 1, until },
    })
}

fn read_word<T: Copy>(
    row: &Row<'_>,
    column: usize,
    all: &[T],
    word: fn(T) -> &'static str,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    all.iter().copied().find(|item| word(*item) == text).ok_or_else(|| unreadable(column, UnknownWord(text)))
}
