//! The fewest processes for a set of differences: what needs equal values goes into one modify.
//!
//! Slurm takes several accounts in one `modify account`, and several users in several accounts in one `modify user`: the latter
//! touches EVERY association that there is of those users in those accounts (seen on 22.05.8), so only such sets are put together in
//! which each of them needs the values.
//!
//! A modify is all or nothing: one association that Slurm refuses keeps the others of its group from being changed (seen on
//! 22.05.8). [`halves`] is the way out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Because, Change, Difference, PlannedChange};
use crate::core::association::{Assignments, Observed};
use crate::core::name::{AccountName, Names, UserName};

/// Users first: Slurm refuses an account before the rows below it have been changed.
pub(super) fn grouped(
    differences: Vec<Difference>,
    observed: &Observed,
    names_per_modify_max: usize,
) -> Vec<PlannedChange> {
    let mut of_accounts: BTreeMap<Assignments, Vec<(AccountName, Vec<Because>)>> = BTreeMap::new();
    let mut of_users: BTreeMap<Assignments, Rows> = BTreeMap::new();
    for difference in differences {
        match difference.user {
            None => {
                of_accounts.entry(difference.set).or_default().push((difference.account, difference.because));
            }
            Some(user) => {
                let rows = of_users.entry(difference.set).or_default();
                rows.entry(difference.account).or_default().insert(user, difference.because);
            }
        }
    }
    let most = names_per_modify_max.max(1);
    let mut changes = Vec::new();
    for (set, rows) in of_users {
        changes.extend(blocks(rows, observed, most).into_iter().filter_map(|block| block.change(&set)));
    }
    for (set, accounts) in of_accounts {
        for chunk in accounts.chunks(most) {
            let names = chunk.iter().map(|(name, _)| name.clone()).collect();
            let Some(accounts) = Names::of(names) else { continue };
            let because = chunk.iter().flat_map(|(_, because)| because.clone()).collect();
            changes.push(PlannedChange { change: Change::Accounts { accounts, set: set.clone() }, because });
        }
    }
    changes
}

/// Users that need one set of values, by account.
type Rows = BTreeMap<AccountName, BTreeMap<UserName, Vec<Because>>>;

/// Users and accounts of one `modify user`.
#[derive(Debug, Clone, Default)]
struct Block {
    users: BTreeSet<UserName>,
    accounts: Vec<AccountName>,
    /// Who has associations in these accounts that are to stay as they are.
    others: BTreeSet<UserName>,
    because: BTreeSet<Because>,
}

impl Block {
    /// Takes these users of one more account in, unless that is too much for one modify or would touch anybody else.
    fn with(&self, more: &Block, names_max: usize) -> Option<Block> {
        let block = Block {
            users: self.users.union(&more.users).cloned().collect(),
            accounts: self.accounts.iter().chain(&more.accounts).cloned().collect(),
            others: self.others.union(&more.others).cloned().collect(),
            because: self.because.union(&more.because).cloned().collect(),
        };
        let fits = block.users.len() <= names_max && block.accounts.len() <= names_max;
        (fits && block.users.is_disjoint(&block.others)).then_some(block)
    }

    fn change(self, set: &Assignments) -> Option<PlannedChange> {
        let users = Names::of(self.users.into_iter().collect())?;
        let change = users_of(users, Names::of(self.accounts)?, set);
        Some(PlannedChange { change, because: self.because.into_iter().collect() })
    }
}

/// Few blocks that cover the rows and nothing else that is there. Accounts with the same users come one after the other, so
/// that they meet in one block.
fn blocks(rows: Rows, observed: &Observed, names_max: usize) -> Vec<Block> {
    let mut singles: Vec<Block> = Vec::new();
    for (account, users) in rows {
        let there = observed.accounts.get(&account).into_iter().flat_map(|account| &account.users);
        let others = there
            .filter(|row| row.partition.is_some() || !users.contains_key(&row.user))
            .map(|row| row.user.clone())
            .collect();
        let because = users.values().flatten().cloned().collect();
        let mut users = users.into_keys().collect::<Vec<_>>();
        while !users.is_empty() {
            let rest = users.split_off(users.len().min(names_max));
            singles.push(Block {
                users: std::mem::replace(&mut users, rest).into_iter().collect(),
                accounts: vec![account.clone()],
                others: BTreeSet::clone(&others),
                because: BTreeSet::clone(&because),
            });
        }
    }
    singles.sort_by(|a, b| a.users.cmp(&b.users));
    let mut blocks: Vec<Block> = Vec::new();
    for single in singles {
        match blocks.last().and_then(|block| block.with(&single, names_max)) {
            Some(larger) => *blocks.last_mut().expect("there is one") = larger,
            None => blocks.push(single),
        }
    }
    blocks
}

/// A change of several names as two of half as many each; `None` for one that names a single association.
pub fn halves(planned: &PlannedChange) -> Option<[PlannedChange; 2]> {
    let changes = match &planned.change {
        Change::Accounts { accounts, set } => {
            accounts.halves()?.map(|accounts| Change::Accounts { accounts, set: set.clone() })
        }
        Change::Users { users, accounts, set } => match (accounts.halves(), users.halves()) {
            (Some(halves), _) => halves.map(|accounts| users_of(users.clone(), accounts, set)),
            (None, Some(halves)) => halves.map(|users| users_of(users, accounts.clone(), set)),
            (None, None) => return None,
        },
        Change::User { .. } | Change::ResetRawUsage { .. } => return None,
    };
    let others = [1, 0].map(|other| changes[other].accounts().cloned().collect::<BTreeSet<_>>());
    let [first, second] = changes;
    let half = |change: Change, others: &BTreeSet<AccountName>| {
        let own: BTreeSet<AccountName> = change.accounts().cloned().collect();
        // A reason that names neither is one of an account above both.
        let about = |because: &&Because| own.contains(&because.account) || !others.contains(&because.account);
        PlannedChange { because: planned.because.iter().filter(about).cloned().collect(), change }
    };
    Some([half(first, &others[0]), half(second, &others[1])])
}

fn users_of(users: Names<UserName>, accounts: Names<AccountName>, set: &Assignments) -> Change {
    let set = set.clone();
    match (users.only(), accounts.only()) {
        (Some(user), Some(account)) => Change::User { user: user.clone(), account: account.clone(), set },
        _ => Change::Users { users, accounts, set },
    }
}
