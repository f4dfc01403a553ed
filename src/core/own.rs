//! What an association had of its own before the agent set a value that stands only for a while, so that it can be given
//! back: a window of a quota stops submissions and lets them go again, a reserved share counts under saturation only.
//!
//! A remembered value counts while what is there is what the agent has set. Once somebody else has set another value, that
//! one is the association's own from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::association::{Assignments, JobLimit, JobLimits, Limit, ObservedAssociation, Share, TresLimits};
use super::name::{AccountName, UserName};
use super::policy::LimitType;
use super::tres::Tres;

/// One field of an association.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OwnField {
    /// Fairshare.
    Fairshare,
    /// A limit on a number of jobs.
    Jobs(JobLimit),
    /// A limit on a TRES.
    Tres(LimitType, Tres),
}

impl OwnField {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<OwnField> {
        if text == "fairshare" {
            return Some(OwnField::Fairshare);
        }
        match text.split_once(' ') {
            Some((kind, tres)) => Some(OwnField::Tres(LimitType::parse(kind)?, Tres::parse(tres).ok()?)),
            None => JobLimit::ALL.into_iter().find(|limit| limit.as_str() == text).map(OwnField::Jobs),
        }
    }

    /// What a row has there.
    pub fn value_in(&self, row: &ObservedAssociation) -> OwnValue {
        let limit = |value: Option<&u64>| OwnValue::Limit(value.map_or(Limit::Cleared, |v| Limit::At(*v)));
        match self {
            OwnField::Fairshare => OwnValue::Share(row.share),
            OwnField::Jobs(which) => limit(row.jobs.get(which)),
            OwnField::Tres(kind, tres) => limit(row.limits.get(kind).and_then(|values| values.get(tres))),
        }
    }

    /// Puts a value of this field among what is to be set. Assignments have no word for `fairshare=parent`: it is left out.
    pub fn assign(&self, value: OwnValue, set: &mut Assignments) {
        match (self, value) {
            (OwnField::Fairshare, OwnValue::Share(Share::Number(shares))) => set.fairshare = Some(shares),
            (OwnField::Jobs(which), OwnValue::Limit(limit)) => {
                set.jobs.insert(*which, limit);
            }
            (OwnField::Tres(kind, tres), OwnValue::Limit(limit)) => {
                set.limits.entry(*kind).or_default().insert(tres.clone(), limit);
            }
            (OwnField::Fairshare, _) | (_, OwnValue::Share(_)) => {}
        }
    }
}

impl fmt::Display for OwnField {
    /// sacctmgr's word, with the TRES of a limit after it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnField::Fairshare => f.write_str("fairshare"),
            OwnField::Jobs(which) => f.write_str(which.as_str()),
            OwnField::Tres(kind, tres) => write!(f, "{kind} {tres}"),
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnValue {
    /// Of fairshare.
    Share(Share),
    /// Of a limit.
    Limit(Limit),
}

/// One field of one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnKey {
    /// The account.
    pub account: AccountName,
    /// The user below it; `None` for the account's own row.
    pub user: Option<UserName>,
    /// The partition the user's row is bound to.
    pub partition: Option<String>,
    /// The field.
    pub field: OwnField,
}

/// What a field had of its own, and what the agent has set in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Its own value.
    pub before: OwnValue,
    /// The agent's.
    pub set: OwnValue,
    /// The agent's value that was there when `set` was remembered: until that is seen, this may still be there.
    pub earlier: Option<OwnValue>,
}

impl Own {
    /// Whether a value that is there is the agent's.
    pub fn is_agents(&self, now: OwnValue) -> bool {
        self.set == now || self.earlier == Some(now)
    }

    /// What is to be remembered when `set` takes the place of `now`.
    fn next(known: Option<&Own>, before: OwnValue, set: OwnValue, now: OwnValue) -> Own {
        let agents = known.is_some_and(|known| known.is_agents(now));
        Own { before, set, earlier: Some(now).filter(|now| agents && *now != set) }
    }
}

/// Everything remembered.
pub type OwnValues = BTreeMap<OwnKey, Own>;

/// What a field has of its own where `now` is there: what is remembered while that is the agent's, else `now` itself.
pub fn own_value(own: &OwnValues, key: &OwnKey, now: OwnValue) -> OwnValue {
    own.get(key).filter(|known| known.is_agents(now)).map_or(now, |known| known.before)
}

/// What is remembered of an account's own row and of its users' rows.
pub fn of_account<'a>(account: &AccountName, own: &'a OwnValues) -> impl Iterator<Item = &'a OwnKey> {
    // An account's own row comes first, and of it fairshare.
    let from = OwnKey { account: account.clone(), user: None, partition: None, field: OwnField::Fairshare };
    own.range(from.clone()..).map(|(key, _)| key).take_while(move |key| key.account == from.account)
}

/// What a row should have, where values may have to be given back.
#[derive(Debug, Clone, Copy)]
pub struct RowWanted<'a> {
    /// Fairshare; `None` leaves it.
    pub fairshare: Option<u32>,
    /// Limits on TRES.
    pub limits: &'a TresLimits,
    /// Limits on numbers of jobs: these are always given back.
    pub jobs: &'a JobLimits,
    /// Which of fairshare and the limits on TRES are given back when nobody asks for them any more.
    pub returning: &'a BTreeSet<OwnField>,
}

/// A row as it is, and whose.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The account.
    pub account: &'a AccountName,
    /// The user below it.
    pub user: Option<&'a UserName>,
    /// The partition it is bound to.
    pub partition: Option<&'a str>,
    /// Its values.
    pub row: &'a ObservedAssociation,
}

impl Row<'_> {
    /// Where a value of this row is remembered.
    pub fn key(&self, field: OwnField) -> OwnKey {
        OwnKey {
            account: self.account.clone(),
            user: self.user.cloned(),
            partition: self.partition.map(str::to_owned),
            field,
        }
    }
}

/// What is to be set in one row, and what is to be remembered of it.
#[derive(Debug, Default)]
pub struct RowDifference {
    /// To be set.
    pub set: Assignments,
    /// Whether that is stricter than what is there.
    pub tightens: bool,
    /// To be remembered before anything is run.
    pub remember: OwnValues,
    /// Not to be remembered any longer.
    pub forget: BTreeSet<OwnKey>,
    /// What cannot be done.
    pub findings: Vec<String>,
}

impl RowDifference {
    /// The difference in the fields that are given back. A row's own limit that is stricter than what is asked for
    /// stays: strictest wins. `agents`: limits on TRES that the agent itself has put there for good.
    pub fn of(
        row: &Row<'_>,
        wanted: &RowWanted<'_>,
        own: &OwnValues,
        agents: Option<&BTreeSet<(LimitType, Tres)>>,
    ) -> RowDifference {
        let mut difference = RowDifference::default();
        let mut asked = BTreeSet::new();
        for (which, value) in wanted.jobs {
            asked.insert(OwnField::Jobs(*which));
            difference.limit(row, OwnField::Jobs(*which), *value, own, false);
        }
        for (kind, values) in wanted.limits {
            for (tres, value) in values {
                let field = OwnField::Tres(*kind, tres.clone());
                if wanted.returning.contains(&field) {
                    let is_agents = agents.is_some_and(|set| set.contains(&(*kind, tres.clone())));
                    difference.limit(row, field.clone(), *value, own, is_agents);
                }
                asked.insert(field);
            }
        }
        if let Some(shares) = wanted.fairshare {
            asked.insert(OwnField::Fairshare);
            if wanted.returning.contains(&OwnField::Fairshare) {
                difference.share(row, shares, own);
            }
        }
        difference.give_back(row, &asked, own);
        difference
    }

    fn limit(&mut self, row: &Row<'_>, field: OwnField, value: u64, own: &OwnValues, is_agents: bool) {
        let key = row.key(field.clone());
        let now = field.value_in(row.row);
        let known = own.get(&key);
        let before = match known {
            Some(known) if known.is_agents(now) => known.before,
            _ if is_agents => OwnValue::Limit(Limit::Cleared),
            _ => now,
        };
        let target = match before {
            OwnValue::Limit(Limit::At(own)) => own.min(value),
            _ => value,
        };
        let set = OwnValue::Limit(Limit::At(target));
        if now != set {
            self.tightens |= match now {
                OwnValue::Limit(Limit::At(now)) => target < now,
                // A limit that comes to be is told as tightening only where it lets nothing through.
                _ => target == 0,
            };
            field.assign(set, &mut self.set);
        }
        if before == set {
            // Until it is there again, it must not be forgotten.
            self.forget.extend(known.filter(|_| now == set).map(|_| key));
        } else if known != Some(&Own::next(known, before, set, now)) {
            self.remember.insert(key, Own::next(known, before, set, now));
        }
    }

    fn share(&mut self, row: &Row<'_>, shares: u32, own: &OwnValues) {
        let Share::Number(_) = row.row.share else {
            let whose = row.user.map_or(String::new(), |user| format!("user {user} of "));
            self.findings.push(format!(
                "{whose}account {} has fairshare=parent and so no share of its own that could be reserved",
                row.account
            ));
            return;
        };
        let key = row.key(OwnField::Fairshare);
        let now = OwnValue::Share(row.row.share);
        let set = OwnValue::Share(Share::Number(shares));
        let known = own.get(&key);
        let before = own_value(own, &key, now);
        if now != set {
            self.set.fairshare = Some(shares);
        }
        if before == set {
            // Until it is there again, it must not be forgotten.
            self.forget.extend(known.filter(|_| now == set).map(|_| key));
        } else if known != Some(&Own::next(known, before, set, now)) {
            self.remember.insert(key, Own::next(known, before, set, now));
        }
    }

    /// What nobody asks for any more gets back what it had, unless somebody else has set it meanwhile.
    fn give_back(&mut self, row: &Row<'_>, asked: &BTreeSet<OwnField>, own: &OwnValues) {
        let from = OwnKey {
            account: row.account.clone(),
            user: row.user.cloned(),
            partition: row.partition.map(str::to_owned),
            field: OwnField::Fairshare,
        };
        let of_row = own.range(from.clone()..).take_while(|(key, _)| {
            (&key.account, &key.user, &key.partition) == (&from.account, &from.user, &from.partition)
        });
        for (key, known) in of_row.filter(|(key, _)| !asked.contains(&key.field)) {
            let now = key.field.value_in(row.row);
            if !known.is_agents(now) || now == known.before {
                self.forget.insert(key.clone());
                continue;
            }
            key.field.assign(known.before, &mut self.set);
        }
    }
}
