//! Associations as sacctmgr shows them, and the values the agent may set on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::{AccountName, QosName, UserName};
use super::policy::LimitType;
use super::small_map::SmallMap;
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
pub type TresLimits = SmallMap<LimitType, SmallMap<Tres, u64>>;

/// A limit on a number of jobs, which is one number of an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobLimit {
    /// Jobs that run at one time, of the association and everything below it.
    GrpJobs,
    /// Jobs that wait or run at one time, of the association and everything below it; 0 refuses every submission.
    GrpSubmitJobs,
    /// Jobs of one user's association that run at one time; an account's is inherited by the users below it.
    MaxJobs,
    /// Jobs of one user's association that wait or run at one time; inherited in the same way.
    MaxSubmitJobs,
}

impl JobLimit {
    /// Every one.
    pub const ALL: [JobLimit; 4] =
        [JobLimit::GrpJobs, JobLimit::GrpSubmitJobs, JobLimit::MaxJobs, JobLimit::MaxSubmitJobs];

    /// sacctmgr's word.
    pub fn as_str(self) -> &'static str {
        match self {
            JobLimit::GrpJobs => "GrpJobs",
            JobLimit::GrpSubmitJobs => "GrpSubmitJobs",
            JobLimit::MaxJobs => "MaxJobs",
            JobLimit::MaxSubmitJobs => "MaxSubmitJobs",
        }
    }

    /// Whether an account's value reaches the users below it, so that sacctmgr lists them as changed too (22.05.8).
    pub fn is_inherited(self) -> bool {
        matches!(self, JobLimit::MaxJobs | JobLimit::MaxSubmitJobs)
    }
}

impl fmt::Display for JobLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Limits on numbers of jobs; what is absent is unlimited or inherited.
pub type JobLimits = SmallMap<JobLimit, u64>;

/// What one row of `sacctmgr show assoc` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAssociation {
    /// Fairshare.
    pub share: Share,
    /// Limits set on it.
    pub limits: TresLimits,
    /// Limits on numbers of jobs that are set on it.
    pub jobs: JobLimits,
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
    pub partition: Option<Box<str>>,
    /// Its values; rows that say the same share them, as nearly all rows of users do.
    pub row: Arc<ObservedAssociation>,
}

/// An account and the user associations directly below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAccount {
    /// The account.
    pub account: AccountName,
    /// Its parent; `None` for root.
    pub parent: Option<AccountName>,
    /// Its values.
    pub row: Arc<ObservedAssociation>,
    /// Users directly below it, no user and partition twice.
    pub users: Vec<ObservedUser>,
}

/// All accounts of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// By name.
    pub accounts: BTreeMap<AccountName, ObservedAccount>,
    /// How many rows were not understood (odd names); they are never acted on.
    pub rejected: usize,
    /// Of those the accounts whose names are odd, or a name above them, with the account above, as printed: what is used
    /// there counts for the accounts above, as Slurm's own counters have it.
    pub odd: BTreeMap<String, String>,
}

impl Observed {
    /// The account tree, built once for many questions.
    pub fn tree(&self) -> AccountTree<'_> {
        let mut tree = AccountTree {
            accounts: self.accounts.values().collect(),
            places: self.accounts.keys().enumerate().map(|(place, name)| (name.as_str(), place)).collect(),
            parents: Vec::with_capacity(self.accounts.len()),
            children: vec![Vec::new(); self.accounts.len()],
            odd: BTreeMap::new(),
        };
        for (place, account) in self.accounts.values().enumerate() {
            let parent = account.parent.as_ref().and_then(|parent| tree.place(parent));
            if let Some(parent) = parent {
                tree.children[parent].push(place);
            }
            tree.parents.push(parent);
        }
        for (name, above) in &self.odd {
            if !AccountName::parse(name).is_ok_and(|name| self.accounts.contains_key(&name)) {
                tree.odd.entry(above).or_default().push(name);
            }
        }
        tree
    }
}

/// Accounts with those above and below them; each is told by its place.
#[derive(Debug, Clone)]
pub struct AccountTree<'a> {
    /// By name.
    accounts: Vec<&'a ObservedAccount>,
    places: HashMap<&'a str, usize, foldhash::fast::RandomState>,
    /// The account directly above each, where it is there.
    parents: Vec<Option<usize>>,
    /// Those directly below each.
    children: Vec<Vec<usize>>,
    /// Accounts with odd names by the account above.
    odd: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> AccountTree<'a> {
    /// The place of an account; `None` when it is not there. Places are those of [`Observed::accounts`] in order.
    pub fn place(&self, name: &AccountName) -> Option<usize> {
        self.places.get(name.as_str()).copied()
    }

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
        let mut found: Vec<usize> = self.place(top).into_iter().collect();
        let mut next = 0;
        // A tree visits every account once; the second condition ends the walk should Slurm ever show a circle.
        while next < found.len() && found.len() <= self.accounts.len() {
            let below = self.children[found[next]].iter();
            found.extend(below.filter(|place| !apart(&self.accounts[**place].account)));
            next += 1;
        }
        found.into_iter().map(|place| self.accounts[place]).collect()
    }

    /// The account at a place.
    pub fn at(&self, place: usize) -> &'a ObservedAccount {
        self.accounts[place]
    }

    /// The place of the account directly above, where it is there.
    pub fn above(&self, place: usize) -> Option<usize> {
        self.parents[place]
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.accounts.len()
    }

    /// The places of all accounts, those below one before it. Accounts in a circle, and what is above them, are left out.
    pub fn from_the_leaves(&self) -> Vec<usize> {
        let mut waiting_for: Vec<usize> = self.children.iter().map(Vec::len).collect();
        let mut found: Vec<usize> = Vec::with_capacity(self.accounts.len());
        found
            .extend(waiting_for.iter().enumerate().filter(|(_, below)| **below == 0).map(|(place, _)| place));
        let mut next = 0;
        while let Some(place) = found.get(next) {
            next += 1;
            if let Some(parent) = self.parents[*place] {
                waiting_for[parent] -= 1;
                if waiting_for[parent] == 0 {
                    found.push(parent);
                }
            }
        }
        found
    }

    /// Names, as jobs carry them, of the account and everything below it, odd names included; itself first, empty when it is
    /// not there.
    pub fn names(&self, top: &AccountName) -> Vec<String> {
        let accounts = self.subtree(top).into_iter().map(|below| &below.account);
        accounts
            .flat_map(|name| std::iter::once(name.as_str()).chain(self.odd_below(name)))
            .map(str::to_owned)
            .collect()
    }

    /// Accounts with odd names below an account, without those below its other accounts.
    pub fn odd_below(&self, account: &AccountName) -> Vec<&'a str> {
        let below = |name: &str| self.odd.get(name).into_iter().flatten().copied();
        let mut found: Vec<&str> = below(account.as_str()).collect();
        let mut next = 0;
        // Each has one account above it: from an account of the tree no circle can be reached.
        while let Some(name) = found.get(next).copied() {
            found.extend(below(name));
            next += 1;
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
#[serde(from = "StoredAssignments")]
pub struct Assignments {
    /// Fairshare.
    pub fairshare: Option<u32>,
    /// Limits per kind and TRES.
    pub limits: BTreeMap<LimitType, BTreeMap<Tres, Limit>>,
    /// Limits on numbers of jobs.
    pub jobs: BTreeMap<JobLimit, Limit>,
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

/// Assignments as an older program stored them too: with GrpSubmitJobs as a field of its own.
#[derive(Deserialize)]
struct StoredAssignments {
    fairshare: Option<u32>,
    limits: BTreeMap<LimitType, BTreeMap<Tres, Limit>>,
    #[serde(default)]
    grp_submit_jobs: Option<Limit>,
    #[serde(default)]
    jobs: BTreeMap<JobLimit, Limit>,
    qos: Option<BTreeSet<QosName>>,
    default_qos: Option<QosName>,
}

impl From<StoredAssignments> for Assignments {
    fn from(stored: StoredAssignments) -> Assignments {
        let StoredAssignments { fairshare, limits, grp_submit_jobs, mut jobs, qos, default_qos } = stored;
        jobs.extend(grp_submit_jobs.map(|limit| (JobLimit::GrpSubmitJobs, limit)));
        Assignments { fairshare, limits, jobs, qos, default_qos }
    }
}

/// Which of a user's associations of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRow {
    /// The only one there is, bound to no partition.
    #[default]
    Only,
    /// The one bound to no partition, beside others that are.
    Unbound,
    /// The one bound to this partition.
    Partition(String),
}

impl UserRow {
    /// The partition it is bound to.
    pub fn partition(&self) -> Option<&str> {
        match self {
            UserRow::Partition(name) => Some(name),
            UserRow::Only | UserRow::Unbound => None,
        }
    }
}

impl ObservedAccount {
    /// Users with rows that are bound to partitions.
    pub fn bound_users(&self) -> BTreeSet<&UserName> {
        self.users.iter().filter(|row| row.partition.is_some()).map(|row| &row.user).collect()
    }

    /// A user's row.
    pub fn user(&self, user: &UserName, row: &UserRow) -> Option<&ObservedUser> {
        self.users.iter().find(|known| known.user == *user && known.partition.as_deref() == row.partition())
    }
}

impl ObservedUser {
    /// How the row is addressed, where `bound` are its account's [`ObservedAccount::bound_users`].
    pub fn addressed(&self, bound: &BTreeSet<&UserName>) -> UserRow {
        match &self.partition {
            Some(partition) => UserRow::Partition(partition.to_string()),
            None if bound.contains(&self.user) => UserRow::Unbound,
            None => UserRow::Only,
        }
    }
}
