//! What is the agent's own in Slurm: the limits it has set, and the resets of raw usage it has done.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::Store;
use super::columns::{UnknownWord, parsed, unreadable};
use super::error::StoreError;
use crate::core::association::{Assignments, Limit};
use crate::core::name::{AccountName, SourceName};
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
    /// Whether the reset of that account, policy and period is done or not to be done: it has a marker.
    pub fn reset_done(&self, marker: &ResetMarker) -> Result<bool, StoreError> {
        self.reading("looking for a reset's marker", |conn| {
            conn.prepare_cached(
                "SELECT 1 FROM resets WHERE account = ?1 AND source = ?2 AND policy = ?3 AND period = ?4",
            )?
            .exists(params![
                marker.account.as_str(),
                marker.source.as_str(),
                marker.policy,
                marker.period
            ])
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

    /// Stores a marker. The first one stays, except that a reset done in an adopted period counts as a reset.
    pub fn put_reset(&mut self, marker: &ResetMarker, at: Epoch, how: ResetHow) -> Result<(), StoreError> {
        self.transaction("storing a reset's marker", |tx| Ok(put_marker(tx, marker, at, how)?))
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

    /// Accounts whose GrpSubmitJobs the agent has set and not taken away.
    pub fn owned_submit(&self) -> Result<BTreeSet<AccountName>, StoreError> {
        self.reading("reading owned GrpSubmitJobs", |conn| {
            let mut statement = conn.prepare_cached("SELECT account FROM owned_submit")?;
            let rows = statement.query_map([], |row| parsed(row, 0, AccountName::parse))?;
            rows.collect()
        })
    }
}

/// What the outcome of a change means for what the agent owns. A change that may be in effect (Unknown) makes its
/// limits the agent's own, so that they can be cleared later; only what is seen to be cleared is given up. Limits of
/// single users are not tracked: the agent sets none.
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
    let sql = match set.grp_submit_jobs {
        Some(Limit::At(_)) => "INSERT INTO owned_submit (account) VALUES (?1) ON CONFLICT DO NOTHING",
        Some(Limit::Cleared) if in_effect => "DELETE FROM owned_submit WHERE account = ?1",
        Some(Limit::Cleared) | None => return Ok(()),
    };
    tx.prepare_cached(sql)?.execute([account.as_str()])?;
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
