//! Associations as sacctmgr shows them, and the values the agent may set on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{AccountName, QosName, UserName};
use super::policy::LimitType;
use super::tres::Tres;

/// An association's share of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// A number of shares.
    Number(u32),
    /// `fairshare=parent`: no share of its own.
    Parent,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Number(n) => write!(f, "{n}"),
            Share::Parent => f.write_str("parent"),
        }
    }
}

/// Limits of one association by kind and TRES. GrpTRESMins and MaxTRESMins in TRES-minutes (memory MB-minutes), GrpTRES
/// in counts (memory MB).
pub type TresLimits = BTreeMap<LimitType, BTreeMap<Tres, u64>>;

/// What one row of `sacctmgr show assoc` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAssociation {
    /// Fairshare.
    pub share: Share,
    /// Limits set on it.
    pub limits: TresLimits,
    /// GrpSubmitJobs, `None` when unlimited.
    pub grp_submit_jobs: Option<u64>,
    /// QOS it may use, inherited ones included.
    pub qos: BTreeSet<QosName>,
    /// Whether that list is its own; an inherited one follows the association above.
    pub qos_is_own: bool,
    /// Default QOS, where one is set or inherited.
    pub default_qos: Option<QosName>,
    /// Whether that default is its own.
    pub default_qos_is_own: bool,
}

/// A user's association below an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedUser {
    /// The user.
    pub user: UserName,
    /// The partition the association is bound to, where it is.
    pub partition: Option<String>,
    /// Its values.
    pub row: ObservedAssociation,
}

/// An account and the user associations directly below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAccount {
    /// The account.
    pub account: AccountName,
    /// Its parent; `None` for root.
    pub parent: Option<AccountName>,
    /// Its values.
    pub row: ObservedAssociation,
    /// Users directly below it.
    pub users: Vec<ObservedUser>,
}

/// All accounts of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// By name.
    pub accounts: BTreeMap<AccountName, ObservedAccount>,
    /// How many rows were not understood (odd names); they are never acted on.
    pub rejected: usize,
}

impl Observed {
    /// The account tree, built once for many questions.
    pub fn tree(&self) -> AccountTree<'_> {
        let mut children: BTreeMap<&AccountName, Vec<&ObservedAccount>> = BTreeMap::new();
        for account in self.accounts.values() {
            if let Some(parent) = &account.parent {
                children.entry(parent).or_default().push(account);
            }
        }
        AccountTree { observed: self, children }
    }
}

/// Accounts by parent.
#[derive(Debug, Clone)]
pub struct AccountTree<'a> {
    observed: &'a Observed,
    children: BTreeMap<&'a AccountName, Vec<&'a ObservedAccount>>,
}

impl<'a> AccountTree<'a> {
    /// The account and everything below it, itself first; empty when it is not there.
    pub fn subtree(&self, top: &AccountName) -> Vec<&'a ObservedAccount> {
        self.subtree_without(top, |_| false)
    }

    /// As [`AccountTree::subtree`], without accounts that are `apart` and what is below those.
    pub fn subtree_without(
        &self,
        top: &AccountName,
        apart: impl Fn(&AccountName) -> bool,
    ) -> Vec<&'a ObservedAccount> {
        let mut found: Vec<&ObservedAccount> = self.observed.accounts.get(top).into_iter().collect();
        let mut next = 0;
        // A tree visits every account once; the second condition ends the walk should Slurm ever show a circle.
        while next < found.len() && found.len() <= self.observed.accounts.len() {
            if let Some(below) = self.children.get(&found[next].account) {
                found.extend(below.iter().filter(|account| !apart(&account.account)));
            }
            next += 1;
        }
        found
    }

    /// Every account, those below one before it. Accounts in a circle, and what is above them, are left out.
    pub fn from_the_leaves(&self) -> Vec<&'a ObservedAccount> {
        let below = |name: &AccountName| self.children.get(name).map_or(0, Vec::len);
        let mut waiting_for: HashMap<&AccountName, usize> = HashMap::new();
        let mut found = Vec::with_capacity(self.observed.accounts.len());
        for (name, account) in &self.observed.accounts {
            match below(name) {
                0 => found.push(account),
                children => {
                    waiting_for.insert(name, children);
                }
            }
        }
        let mut next = 0;
        while let Some(account) = found.get(next).copied() {
            next += 1;
            let Some(parent) = account.parent.as_ref().and_then(|name| self.observed.accounts.get(name))
            else {
                continue;
            };
            if let Some(left) = waiting_for.get_mut(&parent.account) {
                *left -= 1;
                if *left == 0 {
                    found.push(parent);
                }
            }
        }
        found
    }
}

/// A limit to be set or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Limit {
    /// This value.
    At(u64),
    /// None: written as -1.
    Cleared,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::At(value) => write!(f, "{value}"),
            Limit::Cleared => f.write_str("-1"),
        }
    }
}

/// Absolute values to give an association; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Assignments {
    /// Fairshare.
    pub fairshare: Option<u32>,
    /// Limits per kind and TRES.
    pub limits: BTreeMap<LimitType, BTreeMap<Tres, Limit>>,
    /// GrpSubmitJobs: 0 refuses every submission.
    pub grp_submit_jobs: Option<Limit>,
    /// The whole QOS list.
    pub qos: Option<BTreeSet<QosName>>,
    /// The default QOS.
    pub default_qos: Option<QosName>,
}

impl Assignments {
    /// Whether there is nothing to set.
    pub fn is_empty(&self) -> bool {
        *self == Assignments::default()
    }
}
