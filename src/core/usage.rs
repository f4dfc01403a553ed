//! Totals of job records clipped to a window: exact TRES-seconds per account and user.
//!
//! The rules are Slurm's own hourly rollup (`as_mysql_hourly_rollup`, unchanged 20.11 to 26.05): every TRES of AllocTRES counts
//! wall time from start to end, cpu alone loses suspended seconds. `energy` is not an amount per second and is
//! left out.

mod account_use;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use super::association::AccountTree;
use super::job::{JobRecord, Printed, SuspendedBefore};
use super::time::{Epoch, Window};
use super::tres::{Tres, TresSeconds};
use account_use::TresPlaces;
pub use account_use::{AccountUse, BrokenUse, Changed};

/// Which wall time of a record counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// As sreport adds up the raw rows: overlapping pieces of a resized job count twice. For the audit only.
    SreportEqual,
    /// Every second once. Decisions and reports use this.
    Once,
}

/// Seconds of suspension before given edges, by DBIndex.
#[derive(Debug, Clone, Default)]
pub struct SuspensionEdges(BTreeMap<(u64, Epoch), u64>);

impl SuspensionEdges {
    /// From what the ledger keeps of one cluster.
    pub fn new(known: &[SuspendedBefore]) -> Self {
        Self(known.iter().map(|s| ((s.key.dbindex, s.edge), s.seconds)).collect())
    }
}

/// Whether the seconds a job was suspended must be asked for at `edge` before its cpu time can be split there.
pub fn needs_suspension_split(job: &JobRecord, edge: Epoch, now: Epoch) -> bool {
    job.suspended_s > 0 && job.held(now).is_some_and(|held| held.from < edge && edge < held.until)
}

/// Seconds of one record inside a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSeconds {
    /// What every TRES but cpu counts.
    pub wall: u64,
    /// What cpu counts: suspension taken off.
    pub cpu: u64,
    /// False when the suspension could not be split at an edge; then `cpu` is an upper bound.
    pub exact: bool,
}

/// The seconds of a record that held its allocation in `held` and was suspended for `suspended_s` of them, inside `window`;
/// `None` when there are none. `before` tells the seconds of suspension before an edge of the window inside the run.
pub fn held_seconds(
    held: Window,
    suspended_s: u64,
    window: Window,
    before: impl Fn(Epoch) -> Option<u64>,
) -> Option<HeldSeconds> {
    let inside = held.overlap(window);
    let wall = inside.seconds();
    if wall == 0 {
        return None;
    }
    if suspended_s == 0 {
        return Some(HeldSeconds { wall, cpu: wall, exact: true });
    }
    let until_edge = |edge: Epoch| {
        if edge <= held.from {
            Some(0)
        } else if edge >= held.until {
            Some(suspended_s)
        } else {
            before(edge)
        }
    };
    let suspended =
        until_edge(inside.until).zip(until_edge(inside.from)).map(|(until, from)| until.saturating_sub(from));
    let cpu = wall.saturating_sub(suspended.unwrap_or(0));
    Some(HeldSeconds { wall, cpu, exact: suspended.is_some() })
}

/// Which of a record's seconds one TRES counts; `None` for `energy`, which is not an amount per second.
pub fn seconds_of(tres: &str, held: HeldSeconds) -> Option<u64> {
    match tres {
        "energy" => None,
        "cpu" => Some(held.cpu),
        _ => Some(held.wall),
    }
}

/// What one job used inside `window`; `exact` is false when its suspension could not be split at an edge, then cpu
/// is an upper bound.
pub fn job_usage(
    job: &JobRecord,
    window: Window,
    now: Epoch,
    counting: Counting,
    edges: &SuspensionEdges,
) -> (TresSeconds, bool) {
    let mut used = TresSeconds::default();
    let held = match counting {
        Counting::SreportEqual => job.held(now),
        Counting::Once => job.held_once(now),
    };
    let before = |edge| edges.0.get(&(job.key.dbindex, edge)).copied();
    let Some(seconds) = held.and_then(|held| held_seconds(held, job.suspended_s, window, before)) else {
        return (used, true);
    };
    for (tres, count) in job.alloc.iter() {
        if let Some(counted) = seconds_of(tres.as_str(), seconds) {
            used.add(tres, *count, counted);
        }
    }
    (used, seconds.exact)
}

/// Totals of one window.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// By account as Slurm printed it.
    accounts: BTreeMap<Printed, AccountUse>,
    /// The TRES that occur.
    tres: TresPlaces,
    /// Records that used time in the window.
    pub jobs: u64,
    /// Records whose cpu time is an upper bound because their suspension could not be split.
    pub inexact: u64,
}

impl Usage {
    /// Puts the packed use of an account in the place of what is known of it.
    ///
    /// # Errors
    /// When the bytes are not the use of an account.
    pub fn put(&mut self, account: Printed, bytes: &[u8]) -> Result<(), BrokenUse> {
        let used = AccountUse::read(bytes)?;
        self.tres.learn(&used)?;
        self.accounts.insert(account, used);
        Ok(())
    }

    /// These totals and those of more records.
    #[must_use]
    pub fn and(mut self, more: &Adding) -> Usage {
        let tres: Vec<&str> = more.tres.0.iter().map(Tres::as_str).collect();
        for (account, users) in &more.users {
            let users = users.iter().map(|(user, amounts)| (user.as_str(), amounts.as_slice()));
            match AccountUse::changed(self.accounts.get(account), &tres, users) {
                Changed::Use(used) => {
                    self.tres.learn(&used).expect("TRES of records were checked");
                    self.accounts.insert(account.clone(), used);
                }
                Changed::Nothing => {}
                Changed::Negative => {
                    unreachable!("records only add, and ten million of them stay below 2^101")
                }
            }
        }
        self.jobs += more.jobs;
        self.inexact += more.inexact;
        self
    }

    /// Every user of every account with what was used, by account and user.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, TresSeconds)> {
        self.accounts.iter().flat_map(|(account, used)| {
            let mut rows = Vec::new();
            self.each_user(used, |user, sum| rows.push((account.as_str(), user, sum)));
            rows
        })
    }

    fn each_user<'u>(&self, used: &'u AccountUse, mut f: impl FnMut(&'u str, TresSeconds)) {
        let places = self.tres.places(used);
        used.each_user(|user, amounts| {
            let amounts = places.iter().zip(amounts).filter(|(_, amount)| **amount > 0);
            let sum = amounts.map(|(place, amount)| (self.tres.0[*place].clone(), *amount)).collect();
            f(user, TresSeconds(sum));
        });
    }

    /// Accounts with use, as Slurm printed them.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(Printed::as_str)
    }

    /// Totals per user over several accounts, an account and those below it.
    pub fn by_user<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> BTreeMap<String, TresSeconds> {
        let mut users: BTreeMap<String, TresSeconds> = BTreeMap::new();
        for used in accounts.filter_map(|account| self.accounts.get(account)) {
            self.each_user(used, |user, sum| match users.get_mut(user) {
                Some(known) => known.merge(&sum),
                None => {
                    users.insert(user.to_owned(), sum);
                }
            });
        }
        users
    }

    /// Sum over several accounts, an account and those below it.
    pub fn sum<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> TresSeconds {
        let mut sum = vec![0; self.tres.0.len()];
        accounts.for_each(|account| self.add_account(account, &mut sum));
        named(&self.tres.0, &sum)
    }

    /// Sums of every account with everything below it, odd names included, each record looked at once whatever the depth of the tree.
    pub fn sums_of_subtrees(&self, tree: &AccountTree<'_>) -> SubtreeSums {
        let width = self.tres.0.len();
        let mut sums = vec![0; tree.count() * width];
        let mut is_known = vec![false; tree.count()];
        for place in tree.from_the_leaves() {
            is_known[place] = true;
            let (account, own) = (&tree.at(place).account, place * width..(place + 1) * width);
            self.add_account(account.as_str(), &mut sums[own.clone()]);
            tree.odd_below(account).into_iter().for_each(|odd| self.add_account(odd, &mut sums[own.clone()]));
            if let Some(above) = tree.above(place) {
                own.enumerate().for_each(|(tres, own)| sums[above * width + tres] += sums[own]);
            }
        }
        SubtreeSums { tres: self.tres.0.clone(), sums, is_known }
    }

    fn add_account(&self, account: &str, sum: &mut [u128]) {
        if let Some(used) = self.accounts.get(account) {
            self.tres.add(used, sum);
        }
    }

    /// What one user used of one TRES, for comparisons with sreport.
    pub fn get(&self, account: &str, user: &str, tres: &Tres) -> u128 {
        let Some(used) = self.accounts.get(account) else { return 0 };
        let Some(place) = used.tres().into_iter().position(|name| name == tres.as_str()) else { return 0 };
        let mut found = 0;
        used.each_user(|name, amounts| {
            if name == user {
                found = amounts[place];
            }
        });
        found
    }
}

/// Totals of one window that grow by one record after the other.
#[derive(Debug, Clone, Default)]
pub struct Adding {
    /// By account and user, one amount for each TRES that was known at the time.
    users: HashMap<Printed, HashMap<Printed, Vec<u128>>>,
    tres: TresPlaces,
    jobs: u64,
    inexact: u64,
}

impl Adding {
    /// Adds one record.
    pub fn add(
        &mut self,
        job: &JobRecord,
        window: Window,
        now: Epoch,
        counting: Counting,
        edges: &SuspensionEdges,
    ) {
        let (used, exact) = job_usage(job, window, now, counting, edges);
        if used.is_empty() {
            return;
        }
        self.jobs += 1;
        self.inexact += u64::from(!exact);
        if !self.users.contains_key(&job.account) {
            self.users.insert(job.account.clone(), HashMap::new());
        }
        let users = self.users.get_mut(&job.account).expect("it was put there");
        if !users.contains_key(&job.user) {
            users.insert(job.user.clone(), Vec::new());
        }
        let sums = users.get_mut(&job.user).expect("it was put there");
        for (tres, amount) in &used.0 {
            let place = self.tres.of(tres.as_str()).unwrap_or_else(|| {
                self.tres.0.push(tres.clone());
                self.tres.0.len() - 1
            });
            if sums.len() <= place {
                sums.resize(place + 1, 0);
            }
            sums[place] += amount;
        }
    }

    /// What was added, as totals.
    pub fn usage(&self) -> Usage {
        Usage::default().and(self)
    }
}

/// An amount that two totals of one window have differently, in TRES-seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageDifference {
    /// Account.
    pub account: String,
    /// User.
    pub user: String,
    /// TRES.
    pub tres: Tres,
    /// In the kept totals.
    pub kept: u128,
    /// As counted.
    pub counted: u128,
}

impl fmt::Display for UsageDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}: kept {}, counted {}",
            self.account, self.user, self.tres, self.kept, self.counted
        )
    }
}

impl Usage {
    /// Every amount that is another one in `counted`, by account, user and TRES.
    pub fn differences(&self, counted: &Usage) -> Vec<UsageDifference> {
        let mut found = Vec::new();
        let mut compare = |account: &str, user: &str, kept: &TresSeconds, counted: &TresSeconds| {
            let all: BTreeSet<&Tres> = kept.0.keys().chain(counted.0.keys()).collect();
            found.extend(all.into_iter().filter(|tres| kept.get(tres) != counted.get(tres)).map(|tres| {
                UsageDifference {
                    account: account.to_owned(),
                    user: user.to_owned(),
                    tres: tres.clone(),
                    kept: kept.get(tres),
                    counted: counted.get(tres),
                }
            }));
        };
        let nothing = TresSeconds::default();
        let (mut ours, mut theirs) = (self.rows().peekable(), counted.rows().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => (a.0, a.1).cmp(&(b.0, b.1)),
            };
            let a = if order.is_le() { ours.next() } else { None };
            let b = if order.is_ge() { theirs.next() } else { None };
            if let Some((account, user, _)) = a.as_ref().or(b.as_ref()) {
                let kept = a.as_ref().map_or(&nothing, |(_, _, used)| used);
                compare(account, user, kept, b.as_ref().map_or(&nothing, |(_, _, used)| used));
            }
        }
    }
}

/// Usage of accounts with everything below them, in one window.
#[derive(Debug, Clone, Default)]
pub struct SubtreeSums {
    tres: Vec<Tres>,
    /// By place in the tree, one for each TRES.
    sums: Vec<u128>,
    is_known: Vec<bool>,
}

impl SubtreeSums {
    /// Of the account at a place of the tree; `None` when no sum of it can be made, since accounts there are in a circle.
    pub fn at(&self, place: usize) -> Option<TresSeconds> {
        let width = self.tres.len();
        self.is_known.get(place)?.then(|| named(&self.tres, &self.sums[place * width..(place + 1) * width]))
    }
}

fn named(tres: &[Tres], sum: &[u128]) -> TresSeconds {
    let used = tres.iter().zip(sum).filter(|(_, amount)| **amount > 0);
    TresSeconds(used.map(|(tres, amount)| (tres.clone(), *amount)).collect())
}

impl PartialEq for Usage {
    fn eq(&self, other: &Usage) -> bool {
        (self.jobs, self.inexact) == (other.jobs, other.inexact) && self.accounts == other.accounts
    }
}

impl Eq for Usage {}
