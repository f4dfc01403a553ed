//! What each account should have, after all decisions on it: the strictest wins in every field, and each field
//! knows who asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::association::{JobLimit, JobLimits, Observed, ObservedAccount, TresLimits};
use super::evaluate::{Decided, Decision, Level, Lever, QosRules};
use super::name::{AccountName, QosName, SourceName, UserName};
use super::own::{OwnField, OwnValues};
use super::plan::{Because, ResetMarker};
use super::small_map::SmallMap;

/// A wish of one source for one account, or for a user's associations of it: from its policy as evaluated here, from a
/// command of its server, or from a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The account.
    pub account: AccountName,
    /// The user whose associations of the account are meant; `None` for the account itself.
    pub user: Option<UserName>,
    /// Who wishes.
    pub source: SourceName,
    /// The rule in one line, for people.
    pub text: Arc<str>,
    /// Fairshare.
    pub fairshare: Option<u32>,
    /// Limits.
    pub limits: TresLimits,
    /// Limits on numbers of jobs.
    pub jobs: JobLimits,
    /// QOS of the ladder.
    pub qos: Option<QosName>,
    /// Whether what was there before comes back when nobody asks for it any more: so it is with quotas. A fairshare that
    /// returns is a reserved share, which takes the place of what policies ask for.
    pub returns: bool,
}

impl Wish {
    /// A wish for nothing yet.
    pub fn new(account: AccountName, source: SourceName, text: impl Into<Arc<str>>) -> Wish {
        Wish {
            account,
            user: None,
            source,
            text: text.into(),
            fairshare: None,
            limits: TresLimits::new(),
            jobs: JobLimits::new(),
            qos: None,
            returns: false,
        }
    }

    /// What a decision asks for.
    pub fn of(decided: &Decided, qos: &QosRules) -> Wish {
        let wish = Wish {
            fairshare: Some(decided.fairshare),
            limits: decided.limits.clone(),
            qos: Some(decided.qos.clone()),
            ..Wish::new(decided.account.clone(), decided.source.clone(), Arc::clone(&decided.reason))
        };
        if qos.lever == Lever::Submit && decided.effect == Level::Blocked { wish.refusing() } else { wish }
    }

    /// The same, with every submission refused.
    pub fn refusing(mut self) -> Wish {
        self.jobs.insert(JobLimit::GrpSubmitJobs, 0);
        self
    }
}

/// What one account should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// The account.
    pub account: AccountName,
    /// Fairshare; `None` leaves it.
    pub fairshare: Option<u32>,
    /// Limits.
    pub limits: TresLimits,
    /// Limits on numbers of jobs.
    pub jobs: JobLimits,
    /// The one QOS of the ladder it should have; `None` leaves them.
    pub qos: Option<QosName>,
    /// Which of fairshare and limits are given back when nobody asks for them any more.
    #[serde(skip)]
    pub returning: BTreeSet<OwnField>,
    /// Whether anybody but a quota asks for something: where nobody does, what policies once set stays.
    #[serde(skip)]
    pub governed: bool,
    /// What single users' associations of it should have.
    pub users: BTreeMap<UserName, DesiredUser>,
    /// Resets of raw usage that are due.
    pub resets: Vec<ResetMarker>,
    /// Who asked.
    pub because: Vec<Because>,
}

/// What the associations of one user with one account should have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DesiredUser {
    /// Fairshare; `None` leaves it.
    pub fairshare: Option<u32>,
    /// Limits.
    pub limits: TresLimits,
    /// Limits on numbers of jobs.
    pub jobs: JobLimits,
    /// Who asked.
    pub because: Vec<Because>,
}

impl Desired {
    fn nothing(account: &AccountName) -> Desired {
        Desired {
            account: account.clone(),
            fairshare: None,
            limits: TresLimits::new(),
            jobs: JobLimits::new(),
            qos: None,
            returning: BTreeSet::new(),
            governed: false,
            users: BTreeMap::new(),
            resets: Vec::new(),
            because: Vec::new(),
        }
    }

    /// Whether every submission is refused.
    pub fn submit_blocked(&self) -> bool {
        self.jobs.get(&JobLimit::GrpSubmitJobs) == Some(&0)
    }
}

/// Joins wishes. Accounts with an undecided decision are left out altogether: what is in force stays. The QOS of
/// an account is never milder than that of a managed account above it. Accounts that nobody asks anything for are there
/// when something has to be given back to them.
pub fn desired(
    decisions: &[Decision],
    wishes: &[Wish],
    resets: &[ResetMarker],
    observed: &Observed,
    own: &OwnValues,
    rules: &QosRules,
) -> BTreeMap<AccountName, Desired> {
    let mut wanted: BTreeMap<AccountName, Desired> = BTreeMap::new();
    for wish in wishes {
        let entry = wanted.entry(wish.account.clone()).or_insert_with(|| Desired::nothing(&wish.account));
        match &wish.user {
            None => join(entry, wish, rules),
            Some(user) => join_user(entry.users.entry(user.clone()).or_default(), wish),
        }
    }
    for marker in resets {
        if let Some(entry) = wanted.get_mut(&marker.account) {
            entry.resets.push(marker.clone());
        }
    }
    for account in own.keys().map(|key| &key.account) {
        wanted.entry(account.clone()).or_insert_with(|| Desired::nothing(account));
    }
    for decision in decisions {
        if decision.decided().is_none() {
            wanted.remove(decision.account());
        }
    }
    inherit_strictness(&mut wanted, observed, rules);
    wanted
}

fn join(entry: &mut Desired, wish: &Wish, rules: &QosRules) {
    entry.governed |= !wish.returns;
    if let Some(shares) = wish.fairshare {
        let reserved = entry.returning.contains(&OwnField::Fairshare);
        entry.fairshare = match (entry.fairshare, reserved, wish.returns) {
            (Some(now), true, true) => Some(now.max(shares)),
            (Some(now), true, false) => Some(now),
            (Some(now), false, false) => Some(now.min(shares)),
            (_, _, _) => Some(shares),
        };
    }
    join_limits(&mut entry.limits, &wish.limits);
    join_jobs(&mut entry.jobs, &wish.jobs);
    if wish.returns {
        entry.returning.extend(wish.fairshare.map(|_| OwnField::Fairshare));
        let limits =
            wish.limits.iter().flat_map(|(kind, values)| values.keys().map(move |tres| (kind, tres)));
        entry.returning.extend(limits.map(|(kind, tres)| OwnField::Tres(*kind, tres.clone())));
    }
    if let Some(qos) = &wish.qos {
        let stricter = entry.qos.as_ref().is_none_or(|now| rules.strictness(qos) > rules.strictness(now));
        if stricter {
            entry.qos = Some(qos.clone());
        }
    }
    entry.because.push(because(wish));
}

fn join_user(entry: &mut DesiredUser, wish: &Wish) {
    entry.fairshare = entry.fairshare.max(wish.fairshare);
    join_limits(&mut entry.limits, &wish.limits);
    join_jobs(&mut entry.jobs, &wish.jobs);
    entry.because.push(because(wish));
}

fn because(wish: &Wish) -> Because {
    Because { account: wish.account.clone(), source: wish.source.clone(), text: wish.text.clone() }
}

fn join_limits(into: &mut TresLimits, from: &TresLimits) {
    for (kind, values) in from {
        let limits = into.or_insert(*kind, SmallMap::new());
        for (tres, value) in values {
            let least = limits.or_insert(tres.clone(), *value);
            *least = (*least).min(*value);
        }
    }
}

fn join_jobs(into: &mut JobLimits, from: &JobLimits) {
    for (which, value) in from {
        let least = into.or_insert(*which, *value);
        *least = (*least).min(*value);
    }
}

/// From the top of the tree down, so that each account looks at the nearest managed one above it and no further.
fn inherit_strictness(wanted: &mut BTreeMap<AccountName, Desired>, observed: &Observed, rules: &QosRules) {
    let tree = observed.tree();
    // The place of the nearest managed account at or above each one that was passed.
    let mut nearest: Vec<Option<usize>> = vec![None; tree.count()];
    for place in tree.from_the_leaves().into_iter().rev() {
        let name = &tree.at(place).account;
        let above = tree.above(place).and_then(|above| nearest[above]);
        // An account that only quotas ask something of follows the one above it by itself.
        let governed = wanted.get(name).is_some_and(|entry| entry.governed);
        if governed && let Some(parent) = above.and_then(|above| wanted.get(&tree.at(above).account)) {
            let strictness = |of: &Desired| of.qos.as_ref().and_then(|qos| rules.strictness(qos));
            if wanted.get(name).is_some_and(|entry| strictness(parent) > strictness(entry)) {
                let (qos, because) = (parent.qos.clone(), parent.because.clone());
                if let Some(entry) = wanted.get_mut(name) {
                    entry.qos = qos;
                    entry.because.extend(because);
                }
            }
        }
        nearest[place] = if governed && !name.is_root() { Some(place) } else { above };
    }
}

/// The accounts above one, nearest first, root excluded.
pub fn ancestors<'a>(account: &AccountName, observed: &'a Observed) -> impl Iterator<Item = &'a AccountName> {
    ancestors_of(observed.accounts.get(account), observed)
}

/// As [`ancestors`], of an account that has been looked up.
pub fn ancestors_of<'a>(
    account: Option<&'a ObservedAccount>,
    observed: &'a Observed,
) -> impl Iterator<Item = &'a AccountName> {
    let above = |account: &'a ObservedAccount| account.parent.as_ref().filter(|up| !up.is_root());
    let next = move |name: &&AccountName| observed.accounts.get(*name).and_then(above);
    // No way up is longer than there are accounts: the walk ends should Slurm ever show a circle.
    std::iter::successors(account.and_then(above), next).take(observed.accounts.len())
}
