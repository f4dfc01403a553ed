//! What each account should have, after all decisions on it: the strictest wins in every field, and each field
//! knows who asked for it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::association::{Observed, TresLimits};
use super::evaluate::{Decided, Decision, Level, Lever, QosRules};
use super::name::{AccountName, QosName, SourceName};
use super::plan::{Because, ResetMarker};

/// A wish of one source for one account: from its policy as evaluated here, or from a command of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The account.
    pub account: AccountName,
    /// Who wishes.
    pub source: SourceName,
    /// The rule in one line, for people.
    pub text: String,
    /// Fairshare.
    pub fairshare: Option<u32>,
    /// Limits.
    pub limits: TresLimits,
    /// QOS of the ladder.
    pub qos: Option<QosName>,
    /// Whether every submission is to be refused by GrpSubmitJobs.
    pub submit_blocked: bool,
}

impl Wish {
    /// What a decision asks for.
    pub fn of(decided: &Decided, qos: &QosRules) -> Wish {
        Wish {
            account: decided.account.clone(),
            source: decided.source.clone(),
            text: decided.reason.clone(),
            fairshare: Some(decided.fairshare),
            limits: decided.limits.clone(),
            qos: Some(decided.qos.clone()),
            submit_blocked: qos.lever == Lever::Submit && decided.effect == Level::Blocked,
        }
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
    /// The one QOS of the ladder it should have; `None` leaves them.
    pub qos: Option<QosName>,
    /// Whether every submission is refused.
    pub submit_blocked: bool,
    /// Resets of raw usage that are due.
    pub resets: Vec<ResetMarker>,
    /// Who asked.
    pub because: Vec<Because>,
}

/// Joins wishes. Accounts with an undecided decision are left out altogether: what is in force stays. The QOS of
/// an account is never milder than that of a managed account above it.
pub fn desired(
    decisions: &[Decision],
    wishes: &[Wish],
    resets: &[ResetMarker],
    observed: &Observed,
    rules: &QosRules,
) -> BTreeMap<AccountName, Desired> {
    let mut wanted: BTreeMap<AccountName, Desired> = BTreeMap::new();
    for wish in wishes {
        let entry = wanted.entry(wish.account.clone()).or_insert_with(|| Desired {
            account: wish.account.clone(),
            fairshare: None,
            limits: TresLimits::new(),
            qos: None,
            submit_blocked: false,
            resets: Vec::new(),
            because: Vec::new(),
        });
        join(entry, wish, rules);
    }
    for marker in resets {
        if let Some(entry) = wanted.get_mut(&marker.account) {
            entry.resets.push(marker.clone());
        }
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
    entry.fairshare = match (entry.fairshare, wish.fairshare) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    for (kind, values) in &wish.limits {
        let limits = entry.limits.entry(*kind).or_default();
        for (tres, value) in values {
            limits.entry(tres.clone()).and_modify(|v| *v = (*v).min(*value)).or_insert(*value);
        }
    }
    if let Some(qos) = &wish.qos {
        let stricter = entry.qos.as_ref().is_none_or(|now| rules.strictness(qos) > rules.strictness(now));
        if stricter {
            entry.qos = Some(qos.clone());
        }
    }
    entry.submit_blocked |= wish.submit_blocked;
    entry.because.push(Because {
        account: wish.account.clone(),
        source: wish.source.clone(),
        text: wish.text.clone(),
    });
}

/// From the top of the tree down, so that each account looks at the nearest managed one above it and no further.
fn inherit_strictness(wanted: &mut BTreeMap<AccountName, Desired>, observed: &Observed, rules: &QosRules) {
    let from_the_top: Vec<&AccountName> =
        observed.tree().from_the_leaves().into_iter().rev().map(|account| &account.account).collect();
    // The nearest managed account at or above each one that was passed.
    let mut nearest: HashMap<&AccountName, &AccountName> = HashMap::new();
    for name in from_the_top {
        let parent = observed.accounts.get(name).and_then(|account| account.parent.as_ref());
        let above = parent.and_then(|parent| nearest.get(parent)).copied();
        if let Some(parent) = above.and_then(|above| wanted.get(above)) {
            let (qos, because) = (parent.qos.clone(), parent.because.clone());
            if let Some(entry) = wanted.get_mut(name)
                && qos.as_ref().and_then(|q| rules.strictness(q))
                    > entry.qos.as_ref().and_then(|q| rules.strictness(q))
            {
                entry.qos = qos;
                entry.because.extend(because);
            }
        }
        if wanted.contains_key(name) && !name.is_root() {
            nearest.insert(name, name);
        } else if let Some(above) = above {
            nearest.insert(name, above);
        }
    }
}

/// The accounts above one, nearest first, root excluded.
pub fn ancestors<'a>(account: &AccountName, observed: &'a Observed) -> impl Iterator<Item = &'a AccountName> {
    let above = |name: &AccountName| observed.accounts.get(name)?.parent.as_ref().filter(|up| !up.is_root());
    // No way up is longer than there are accounts: the walk ends should Slurm ever show a circle.
    std::iter::successors(above(account), move |name| above(name)).take(observed.accounts.len())
}
