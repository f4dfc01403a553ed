//! What each account should have, after all decisions on it: the strictest wins in every field, and each field
//! knows who asked for it.

use std::collections::BTreeMap;

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

fn inherit_strictness(wanted: &mut BTreeMap<AccountName, Desired>, observed: &Observed, rules: &QosRules) {
    let names: Vec<AccountName> = wanted.keys().cloned().collect();
    for name in names {
        for above in ancestors(&name, observed) {
            let Some(parent) = wanted.get(&above) else { continue };
            let (qos, because) = (parent.qos.clone(), parent.because.clone());
            if let Some(entry) = wanted.get_mut(&name)
                && qos.as_ref().and_then(|q| rules.strictness(q))
                    > entry.qos.as_ref().and_then(|q| rules.strictness(q))
            {
                entry.qos = qos;
                entry.because.extend(because);
            }
        }
    }
}

/// The accounts above one, nearest first, root excluded.
pub fn ancestors(account: &AccountName, observed: &Observed) -> Vec<AccountName> {
    let mut found = Vec::new();
    let mut next = observed.accounts.get(account).and_then(|a| a.parent.clone());
    while let Some(parent) = next {
        if parent.is_root() || found.contains(&parent) {
            break;
        }
        next = observed.accounts.get(&parent).and_then(|a| a.parent.clone());
        found.push(parent);
    }
    found
}
