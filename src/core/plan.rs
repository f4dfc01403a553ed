//! The difference between what is there and what should be, as changes that leave no choice to whoever applies
//! them.

mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::association::{
    AccountTree, Assignments, Limit, Observed, ObservedAccount, ObservedAssociation, Share, UserRow,
};
use super::desired::{Desired, DesiredUser};
use super::evaluate::QosRules;
use super::exact::Exact;
use super::name::{AccountName, Names, QosName, SourceName, UserName};
use super::own::{OwnField, OwnKey, OwnValues, Row, RowDifference, RowWanted, of_account};
use super::policy::LimitType;
use super::tres::Tres;
use group::grouped;

pub use group::halves;

/// One sacctmgr process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// `modify account` of one or several accounts that need the same values.
    Accounts {
        /// Which.
        accounts: Names<AccountName>,
        /// What.
        set: Assignments,
    },
    /// `modify user` of one association.
    User {
        /// Which user.
        user: UserName,
        /// Below which account.
        account: AccountName,
        /// Which of the user's rows there.
        #[serde(default)]
        row: UserRow,
        /// What.
        set: Assignments,
    },
    /// `modify user` of every association that there is of these users in these accounts.
    Users {
        /// Which users.
        users: Names<UserName>,
        /// Below which accounts.
        accounts: Names<AccountName>,
        /// What.
        set: Assignments,
    },
    /// `modify account ... set RawUsage=0`
    ResetRawUsage {
        /// Which account.
        account: AccountName,
        /// The allocation, policy and period this reset belongs to: at most one for each.
        marker: ResetMarker,
    },
}

impl Change {
    /// Accounts whose associations it touches.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountName> {
        let (several, one) = match self {
            Change::Accounts { accounts, .. } | Change::Users { accounts, .. } => {
                (Some(accounts.iter()), None)
            }
            Change::User { account, .. } | Change::ResetRawUsage { account, .. } => (None, Some(account)),
        };
        several.into_iter().flatten().chain(one)
    }
}

/// What a reset of raw usage happens once for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResetMarker {
    /// Account.
    pub account: AccountName,
    /// Where the policy came from.
    pub source: SourceName,
    /// Policy.
    pub policy: String,
    /// Period name.
    pub period: String,
}

/// Who asked for a change, and why, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Because {
    /// The account whose decision it is.
    pub account: AccountName,
    /// Where the rule came from.
    pub source: SourceName,
    /// The rule in one line.
    pub text: Arc<str>,
}

/// A change with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// What to do.
    pub change: Change,
    /// Why.
    pub because: Vec<Because>,
}

/// What became of a change, told by reading back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Done and seen.
    Applied,
    /// Was already so; nothing was run.
    AlreadyInEffect,
    /// Slurm said no, or what is there differs from what was asked.
    Refused {
        /// Slurm's words.
        reason: String,
    },
    /// It could not be seen; the next cycle looks again.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What the agent has set before and may therefore take away again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Limits per account.
    pub limits: BTreeMap<AccountName, BTreeSet<(LimitType, Tres)>>,
    /// What rows had before the agent set a value that it gives back.
    pub own: OwnValues,
}

/// How much one cycle may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// sacctmgr processes per cycle.
    pub changes_max: usize,
    /// Accounts that may be tightened without an operator's word.
    pub tighten_accounts_max: usize,
    /// The same as a share of all managed accounts, percent; applies from ten accounts on.
    pub tighten_share_percent: u8,
    /// Accounts named in one modify, and users.
    pub names_per_modify_max: usize,
}

/// Share of tightened accounts is judged from this many managed accounts on: below, one account is a large share.
pub const SHARE_APPLIES_FROM_ACCOUNTS: usize = 10;

/// What to do, what waits, what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// To be applied in this order.
    pub changes: Vec<PlannedChange>,
    /// Waiting for an operator's word because too many accounts would be tightened.
    pub held: Vec<PlannedChange>,
    /// Waiting for the next cycle, because one cycle makes only so many changes.
    pub later: Vec<PlannedChange>,
    /// Why `held` waits.
    pub held_because: Option<String>,
    /// Accounts that should be changed and do not exist.
    pub missing: Vec<AccountName>,
    /// Own values of rows, to be remembered before anything is run.
    pub remember: OwnValues,
    /// Own values that need not be remembered any longer.
    pub forget: BTreeSet<OwnKey>,
    /// Things people should know.
    pub findings: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.held.is_empty() && self.missing.is_empty()
    }
}

/// One account's or user's difference before grouping.
struct Difference {
    user: Option<(UserName, UserRow)>,
    account: AccountName,
    set: Assignments,
    tightens: bool,
    because: Vec<Because>,
}

/// The changes that turn `observed` into `desired`. `confirmed`: an operator has allowed the tightening that would
/// else be held.
pub fn plan(
    desired: &BTreeMap<AccountName, Desired>,
    observed: &Observed,
    owned: &Owned,
    rules: &QosRules,
    limits: &PlanLimits,
    confirmed: bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut differences = Vec::new();
    let (tree, ladder) = (observed.tree(), Ladder { rules, owned: rules.owned() });
    for wanted in desired.values() {
        let Some(account) = tree.place(&wanted.account).map(|place| tree.at(place)) else {
            let nobody_asks = wanted.because.is_empty() && wanted.users.is_empty();
            plan.forget.extend(of_account(&wanted.account, &owned.own).cloned());
            if !nobody_asks {
                plan.missing.push(wanted.account.clone());
            }
            continue;
        };
        if wanted.account.is_root() {
            plan.findings.push("root is never managed; remove the allocation that maps to it".into());
            continue;
        }
        for marker in &wanted.resets {
            let change = Change::ResetRawUsage { account: marker.account.clone(), marker: marker.clone() };
            plan.changes.push(PlannedChange { change, because: wanted.because.clone() });
        }
        differences.extend(below(wanted, desired, &tree, &ladder));
        differences.extend(users_difference(wanted, account, owned, &mut plan));
        differences.extend(account_difference(wanted, account, owned, &ladder, &mut plan));
        plan.findings.extend(weak_block(wanted, account, &ladder));
    }
    let tightened: BTreeSet<&AccountName> =
        differences.iter().filter(|d| d.tightens).map(|d| &d.account).collect();
    let held_because = too_many(tightened.len(), desired.len(), limits).filter(|_| !confirmed);
    let (waiting, now): (Vec<Difference>, Vec<Difference>) =
        differences.into_iter().partition(|d| d.tightens && held_because.is_some());
    plan.held = grouped(waiting, observed, limits.names_per_modify_max);
    plan.changes.extend(grouped(now, observed, limits.names_per_modify_max));
    plan.held_because = held_because;
    if plan.changes.len() > limits.changes_max {
        plan.findings.push(format!(
            "{} changes are due and one cycle makes at most {}: the rest follows in the next",
            plan.changes.len(),
            limits.changes_max
        ));
        plan.later = plan.changes.split_off(limits.changes_max);
    }
    plan
}

fn too_many(tightened: usize, managed: usize, limits: &PlanLimits) -> Option<String> {
    let share = tightened * 100 > managed * usize::from(limits.tighten_share_percent);
    if tightened > limits.tighten_accounts_max || (managed >= SHARE_APPLIES_FROM_ACCOUNTS && share) {
        return Some(format!(
            "{tightened} of {managed} managed accounts would be tightened at once (allowed without a word: {} or {} %); \
             look at them, then run `slurm-site-agent confirm`",
            limits.tighten_accounts_max, limits.tighten_share_percent
        ));
    }
    None
}

/// The QOS that are the agent's.
struct Ladder<'a> {
    rules: &'a QosRules,
    owned: BTreeSet<&'a QosName>,
}

fn account_difference(
    wanted: &Desired,
    account: &ObservedAccount,
    owned: &Owned,
    ladder: &Ladder<'_>,
    plan: &mut Plan,
) -> Option<Difference> {
    let row = &account.row;
    let agents = owned.limits.get(&wanted.account);
    let of = Row { account: &wanted.account, user: None, partition: None, row };
    let returned = RowDifference::of(
        &of,
        &RowWanted {
            fairshare: wanted.fairshare,
            limits: &wanted.limits,
            jobs: &wanted.jobs,
            returning: &wanted.returning,
        },
        &owned.own,
        agents,
    );
    let RowDifference { mut set, mut tightens, remember, forget, findings } = returned;
    plan.remember.extend(remember);
    plan.forget.extend(forget);
    plan.findings.extend(findings);
    if let Some(fairshare) = wanted.fairshare.filter(|_| !wanted.returning.contains(&OwnField::Fairshare))
        && row.share != Share::Number(fairshare)
    {
        set.fairshare = Some(fairshare);
    }
    for (kind, values) in &wanted.limits {
        for (tres, value) in values {
            let now = row.limits.get(kind).and_then(|l| l.get(tres));
            let returns = wanted.returning.contains(&OwnField::Tres(*kind, tres.clone()));
            if now != Some(value) && !returns {
                tightens |= now.is_some_and(|now| value < now);
                set.limits.entry(*kind).or_default().insert(tres.clone(), Limit::At(*value));
            }
        }
    }
    for (kind, tres) in agents.into_iter().flatten().filter(|_| wanted.governed) {
        let still_wanted = wanted.limits.get(kind).is_some_and(|l| l.contains_key(tres));
        let there = row.limits.get(kind).is_some_and(|l| l.contains_key(tres));
        if !still_wanted && there {
            set.limits.entry(*kind).or_default().entry(tres.clone()).or_insert(Limit::Cleared);
        }
    }
    if let Some(qos) = &wanted.qos {
        tightens |= assign_qos(&mut set, row, qos, ladder);
    }
    (!set.is_empty()).then(|| Difference {
        user: None,
        account: wanted.account.clone(),
        set,
        tightens,
        because: wanted.because.clone(),
    })
}

/// What quotas ask of single users, in each of their rows, and what is to be given back to rows of users.
fn users_difference(
    wanted: &Desired,
    account: &ObservedAccount,
    owned: &Owned,
    plan: &mut Plan,
) -> Vec<Difference> {
    let of_users = own_of_users(&account.account, &owned.own);
    let mut found = Vec::new();
    if wanted.users.is_empty() && of_users.is_empty() {
        return found;
    }
    let (nothing, bound) = (DesiredUser::default(), account.bound_users());
    for user in &account.users {
        let asked = wanted.users.get(&user.user);
        if asked.is_none() && !of_users.contains_key(&(&user.user, user.partition.as_deref())) {
            continue;
        }
        let asked = asked.unwrap_or(&nothing);
        let mut returning: BTreeSet<OwnField> = BTreeSet::from([OwnField::Fairshare]);
        for (kind, values) in &asked.limits {
            returning.extend(values.keys().map(|tres| OwnField::Tres(*kind, tres.clone())));
        }
        let of = Row {
            account: &account.account,
            user: Some(&user.user),
            partition: user.partition.as_deref(),
            row: &user.row,
        };
        let wanted = RowWanted {
            fairshare: asked.fairshare,
            limits: &asked.limits,
            jobs: &asked.jobs,
            returning: &returning,
        };
        let RowDifference { set, tightens, remember, forget, findings } =
            RowDifference::of(&of, &wanted, &owned.own, None);
        plan.remember.extend(remember);
        plan.forget.extend(forget);
        plan.findings.extend(findings);
        if !set.is_empty() {
            found.push(Difference {
                user: Some((user.user.clone(), user.addressed(&bound))),
                account: account.account.clone(),
                set,
                tightens,
                because: asked.because.clone(),
            });
        }
    }
    let there: BTreeSet<(&UserName, Option<&str>)> =
        account.users.iter().map(|row| (&row.user, row.partition.as_deref())).collect();
    let gone = of_users.into_iter().filter(|(row, _)| !there.contains(row));
    plan.forget.extend(gone.flat_map(|(_, keys)| keys).cloned());
    found
}

/// What is remembered of the rows of an account's users, by user and partition.
fn own_of_users<'a>(
    account: &AccountName,
    own: &'a OwnValues,
) -> BTreeMap<(&'a UserName, Option<&'a str>), Vec<&'a OwnKey>> {
    let mut found: BTreeMap<_, Vec<&OwnKey>> = BTreeMap::new();
    for key in of_account(account, own) {
        if let Some(user) = &key.user {
            found.entry((user, key.partition.as_deref())).or_default().push(key);
        }
    }
    found
}

/// Sets the QOS list and default where they differ; others' QOS stay in the list and others' default stays. Says
/// whether that is stricter than what is there.
fn assign_qos(
    set: &mut Assignments,
    row: &ObservedAssociation,
    wanted: &QosName,
    ladder: &Ladder<'_>,
) -> bool {
    let Ladder { rules, owned } = ladder;
    let default_is_ours = row.default_qos.as_ref().is_none_or(|default| owned.contains(default));
    let is_there =
        row.qos.contains(wanted) && row.qos.iter().all(|name| name == wanted || !owned.contains(name));
    if !is_there {
        let others = row.qos.iter().filter(|name| !owned.contains(name));
        set.qos = Some(others.chain([wanted]).cloned().collect());
    }
    if default_is_ours && row.default_qos.as_ref() != Some(wanted) {
        set.default_qos = Some(wanted.clone());
    }
    let now = || row.qos.iter().filter_map(|q| rules.strictness(q)).min();
    set.qos.is_some() && rules.strictness(wanted) > now().or(Some(Exact::ZERO))
}

/// Rows below an account that have a QOS list or default of their own do not follow it: they are set as well, else
/// the account's QOS could be stepped around. They come before the account, since Slurm refuses to take a QOS from an
/// account while the default of a row below it would become unusable (seen on 22.05.8).
fn below(
    wanted: &Desired,
    desired: &BTreeMap<AccountName, Desired>,
    tree: &AccountTree<'_>,
    ladder: &Ladder<'_>,
) -> Vec<Difference> {
    let Some(qos) = &wanted.qos else { return Vec::new() };
    let mut found = Vec::new();
    for account in
        tree.subtree_without(&wanted.account, |name| desired.get(name).is_some_and(|below| below.governed))
    {
        let is_top = account.account == wanted.account;
        if !is_top && has_own_qos(&account.row) {
            found.extend(row_below(wanted, None, account, &account.row, qos, ladder));
        }
        let mut of_users = account.users.iter().filter(|user| has_own_qos(&user.row)).peekable();
        if of_users.peek().is_some() {
            let bound = account.bound_users();
            found.extend(of_users.filter_map(|user| {
                let row = user.addressed(&bound);
                row_below(wanted, Some((&user.user, row)), account, &user.row, qos, ladder)
            }));
        }
    }
    found
}

/// Whether a row does not follow the account above it.
fn has_own_qos(row: &ObservedAssociation) -> bool {
    row.qos_is_own || row.default_qos_is_own
}

fn row_below(
    wanted: &Desired,
    user: Option<(&UserName, UserRow)>,
    account: &ObservedAccount,
    row: &ObservedAssociation,
    qos: &QosName,
    ladder: &Ladder<'_>,
) -> Option<Difference> {
    let mut set = Assignments::default();
    let tightens = assign_qos(&mut set, row, qos, ladder);
    (!set.is_empty()).then(|| Difference {
        user: user.map(|(user, row)| (user.clone(), row)),
        account: account.account.clone(),
        set,
        tightens,
        because: wanted.because.clone(),
    })
}

fn weak_block(wanted: &Desired, account: &ObservedAccount, ladder: &Ladder<'_>) -> Option<String> {
    let strict = wanted.qos.as_ref().and_then(|q| ladder.rules.strictness(q)) > Some(Exact::ZERO);
    if !strict || wanted.submit_blocked() {
        return None;
    }
    let others: Vec<&str> =
        account.row.qos.iter().filter(|q| !ladder.owned.contains(q)).map(QosName::as_str).collect();
    (!others.is_empty()).then(|| {
        format!(
            "account {} is to be held to QOS {} but may also use {}: jobs there are not slowed or blocked",
            wanted.account,
            wanted.qos.as_ref().map_or("", QosName::as_str),
            others.join(", ")
        )
    })
}
