//! What is the agent's own in Slurm: the limits it has set, what rows had of their own before, and the resets of raw usage it
//! has done.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::Store;
use super::columns::{UnknownWord, from_json, from_json_maybe, json, parsed, unreadable};
use super::error::StoreError;
use crate::core::association::{Assignments, Limit};
use crate::core::name::{AccountName, SourceName, UserName};
use crate::core::own::{Own, OwnField, OwnKey, OwnValues};
use crate::core::plan::{Change, Outcome, ResetMarker};
use crate::core::policy::LimitType;
use crate::core::time::Epoch;
use crate::core::tres::Tres;

/// Limits the agent has set, per account: they are its to clear.
pub type Owned = BTreeMap<AccountName, BTreeSet<(LimitType, Tres)>>;

/// How a period got its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetHow {
    /// Raw usage was zeroed for it.
    Reset,
    /// It was running when the agent first saw the policy: nothing was zeroed.
    Adopted,
}

impl ResetHow {
    fn word(self) -> &'static str {
        match self {
            ResetHow::Reset => "reset",
            ResetHow::Adopted => "adopted",
        }
    }
}

impl Store {
    /// Of resets given by account, source, policy and period the places of those that have no marker.
    pub fn resets_without_marker<'a>(
        &self,
        resets: impl Iterator<Item = [&'a str; 4]>,
    ) -> Result<Vec<usize>, StoreError> {
        self.reading("looking for markers of resets", |conn| {
            let mut marker = conn.prepare_cached(
                "SELECT 1 FROM resets WHERE account = ?1 AND source = ?2 AND policy = ?3 AND period = ?4",
            )?;
            let mut without = Vec::new();
            for (place, reset) in resets.enumerate() {
                if !marker.exists(reset)? {
                    without.push(place);
                }
            }
            Ok(without)
        })
    }

    /// How that account, policy and period got its marker, when it has one.
    pub fn reset_how(&self, marker: &ResetMarker) -> Result<Option<ResetHow>, StoreError> {
        self.reading("looking for a reset's marker", |conn| {
            conn.prepare_cached(
                "SELECT how FROM resets WHERE account = ?1 AND source = ?2 AND policy = ?3 AND period = ?4",
            )?
            .query_row(
                params![marker.account.as_str(), marker.source.as_str(), marker.policy, marker.period],
                |row| {
                    let word: String = row.get(0)?;
                    let known =
                        [ResetHow::Reset, ResetHow::Adopted].into_iter().find(|how| how.word() == word);
                    known.ok_or_else(|| unreadable(0, UnknownWord(word)))
                },
            )
            .optional()
        })
    }

    /// Stores markers, all in one transaction. The first one of a reset stays, except that a reset done in an adopted period
    /// counts as a reset.
    pub fn put_resets(
        &mut self,
        markers: &[ResetMarker],
        at: Epoch,
        how: ResetHow,
    ) -> Result<(), StoreError> {
        self.transaction("storing markers of resets", |tx| {
            Ok(markers.iter().try_for_each(|marker| put_marker(tx, marker, at, how))?)
        })
    }

    /// Name of the period that was running when the agent first saw this policy of this account.
    pub fn adopted(
        &self,
        account: &AccountName,
        source: &SourceName,
        policy: &str,
    ) -> Result<Option<String>, StoreError> {
        self.reading("looking for an adopted period", |conn| {
            conn.prepare_cached(
                "SELECT period FROM resets WHERE account = ?1 AND source = ?2 AND policy = ?3 ORDER BY at LIMIT 1",
            )?
            .query_row(params![account.as_str(), source.as_str(), policy], |row| row.get(0))
            .optional()
        })
    }

    /// Limits the agent has set and not taken away.
    pub fn owned(&self) -> Result<Owned, StoreError> {
        self.reading("reading owned limits", |conn| {
            let mut statement = conn.prepare_cached("SELECT account, limit_type, tres FROM owned_limits")?;
            let mut rows = statement.query([])?;
            let mut owned = Owned::new();
            while let Some(row) = rows.next()? {
                let word: String = row.get(1)?;
                let limit_type = LimitType::parse(&word).ok_or_else(|| unreadable(1, UnknownWord(word)))?;
                owned
                    .entry(parsed(row, 0, AccountName::parse)?)
                    .or_default()
                    .insert((limit_type, parsed(row, 2, Tres::parse)?));
            }
            Ok(owned)
        })
    }

    /// What rows had of their own where the agent has set a value that it gives back.
    pub fn own_values(&self) -> Result<OwnValues, StoreError> {
        self.reading("reading own values", |conn| {
            let mut statement = conn
                .prepare_cached("SELECT account, user, part, field, before, now, earlier FROM own_values")?;
            let mut rows = statement.query([])?;
            let mut own = OwnValues::new();
            while let Some(row) = rows.next()? {
                let user: String = row.get(1)?;
                let user = if user.is_empty() { None } else { Some(parsed(row, 1, UserName::parse)?) };
                let word: String = row.get(3)?;
                let key = OwnKey {
                    account: parsed(row, 0, AccountName::parse)?,
                    user,
                    partition: Some(row.get::<_, String>(2)?).filter(|name| !name.is_empty()),
                    field: OwnField::parse(&word).ok_or_else(|| unreadable(3, UnknownWord(word)))?,
                };
                own.insert(
                    key,
                    Own {
                        before: from_json(row, 4)?,
                        set: from_json(row, 5)?,
                        earlier: from_json_maybe(row, 6)?,
                    },
                );
            }
            Ok(own)
        })
    }

    /// Remembers what rows have of their own, before the agent sets other values there, and forgets what has been given
    /// back. Durable when this returns.
    pub fn put_own_values(
        &mut self,
        remember: &OwnValues,
        forget: &BTreeSet<OwnKey>,
    ) -> Result<(), StoreError> {
        self.transaction("remembering own values", |tx| {
            let place = |key: &OwnKey| {
                let user = key.user.as_ref().map_or("", UserName::as_str).to_owned();
                let partition = key.partition.clone().unwrap_or_default();
                [key.account.to_string(), user, partition, key.field.to_string()]
            };
            for key in forget {
                tx.prepare_cached(
                    "DELETE FROM own_values WHERE account = ?1 AND user = ?2 AND part = ?3 AND field = ?4",
                )?
                .execute(place(key))?;
                if let (None, OwnField::Tres(kind, tres)) = (&key.user, &key.field) {
                    tx.prepare_cached(
                        "DELETE FROM owned_limits WHERE account = ?1 AND limit_type = ?2 AND tres = ?3",
                    )?
                    .execute([key.account.as_str(), kind.as_str(), tres.as_str()])?;
                }
            }
            for (key, own) in remember {
                let [account, user, partition, field] = place(key);
                tx.prepare_cached(
                    "INSERT INTO own_values (account, user, part, field, before, now, earlier) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE \
                     SET before = excluded.before, now = excluded.now, earlier = excluded.earlier",
                )?
                .execute(params![
                    account,
                    user,
                    partition,
                    field,
                    json(&own.before)?,
                    json(&own.set)?,
                    own.earlier.as_ref().map(json).transpose()?
                ])?;
            }
            Ok(())
        })
    }
}

/// What the outcome of a change means for what the agent owns. A change that may be in effect (Unknown) makes its
/// limits the agent's own, so that they can be cleared later; only what is seen to be cleared is given up. What is given back
/// in another way (limits on jobs, everything of single users) is remembered by [`Store::put_own_values`].
pub(super) fn follow(
    tx: &Transaction<'_>,
    change: &Change,
    outcome: &Outcome,
    at: Epoch,
) -> rusqlite::Result<()> {
    let in_effect = matches!(outcome, Outcome::Applied | Outcome::AlreadyInEffect);
    let maybe = in_effect || matches!(outcome, Outcome::Unknown { .. });
    match change {
        Change::Accounts { accounts, set } if maybe => {
            for account in accounts.iter() {
                follow_limits(tx, account, set, in_effect)?;
            }
            Ok(())
        }
        Change::ResetRawUsage { marker, .. } if in_effect => put_marker(tx, marker, at, ResetHow::Reset),
        Change::Accounts { .. }
        | Change::User { .. }
        | Change::Users { .. }
        | Change::ResetRawUsage { .. } => Ok(()),
    }
}

fn follow_limits(
    tx: &Transaction<'_>,
    account: &AccountName,
    set: &Assignments,
    in_effect: bool,
) -> rusqlite::Result<()> {
    for (limit_type, limits) in &set.limits {
        for (tres, limit) in limits {
            let sql = match limit {
                Limit::At(_) => {
                    "INSERT INTO owned_limits (account, limit_type, tres) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
                }
                Limit::Cleared if in_effect => {
                    "DELETE FROM owned_limits WHERE account = ?1 AND limit_type = ?2 AND tres = ?3"
                }
                Limit::Cleared => continue,
            };
            tx.prepare_cached(sql)?.execute([account.as_str(), limit_type.as_str(), tres.as_str()])?;
        }
    }
    Ok(())
}

fn put_marker(tx: &Transaction<'_>, marker: &ResetMarker, at: Epoch, how: ResetHow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO resets (account, source, policy, period, at, how) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO UPDATE SET how = excluded.how, at = excluded.at \
         WHERE resets.how = 'adopted' AND excluded.how = 'reset'",
    )?
    .execute(params![
        marker.account.as_str(),
        marker.source.as_str(),
        marker.policy,
        marker.period,
        at,
        how.word(),
    ])?;
    Ok(())
}
