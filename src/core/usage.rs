//! Totals of job records clipped to a window: exact TRES-seconds per account and user.
//!
//! The rules are Slurm's own hourly rollup (`as_mysql_hourly_rollup`, unchanged 20.11 to 26.05): every TRES of AllocTRES counts
//! wall time from start to end, cpu alone loses suspended seconds. `energy` is not an amount per second and is
//! left out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use super::association::AccountTree;
use super::job::{JobRecord, Printed, SuspendedBefore};
use super::name::AccountName;
use super::time::{Epoch, Window};
use super::tres::{Tres, TresSeconds};

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
    /// Account as Slurm printed it, then user.
    accounts: BTreeMap<Printed, BTreeMap<Printed, Packed>>,
    /// The TRES that occur, by the number that stands for each in [`Packed`].
    tres: Vec<Tres>,
    /// Records that used time in the window.
    pub jobs: u64,
    /// Records whose cpu time is an upper bound because their suspension could not be split.
    pub inexact: u64,
}

/// Amounts of one user: number of the TRES and TRES-seconds in turn, seven bits to a byte. A site of 100,000 associations has
/// as many of these in memory for each period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Packed(Box<[u8]>);

impl Packed {
    fn of(amounts: &[(usize, u128)]) -> Packed {
        let mut bytes = Vec::with_capacity(amounts.len() * 8);
        for (tres, amount) in amounts {
            push_number(&mut bytes, *tres as u128);
            push_number(&mut bytes, *amount);
        }
        Packed(bytes.into())
    }

    fn amounts(&self) -> impl Iterator<Item = (usize, u128)> + '_ {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let tres = take_number(&mut rest)?;
            Some((tres as usize, take_number(&mut rest)?))
        })
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u128) {
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u128> {
    let (mut number, mut shift) = (0u128, 0);
    loop {
        let (first, after) = rest.split_first()?;
        *rest = after;
        number |= u128::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

impl Usage {
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
        self.add_shared(&job.account, &job.user, used.0.iter().map(|(tres, amount)| (tres, *amount)));
    }

    /// Adds TRES-seconds of one user; the texts are kept as they are given, so that windows can share them.
    pub fn add_shared<'t>(
        &mut self,
        account: &Printed,
        user: &Printed,
        used: impl Iterator<Item = (&'t Tres, u128)>,
    ) {
        if let Some(known) = self.accounts.get_mut(account) {
            match known.get_mut(user) {
                Some(sum) => *sum = add_packed(&mut self.tres, sum, used),
                None => {
                    let sum = add_packed(&mut self.tres, &Packed::default(), used);
                    known.insert(user.clone(), sum);
                }
            }
        } else {
            let sum = add_packed(&mut self.tres, &Packed::default(), used);
            self.accounts.insert(account.clone(), BTreeMap::from([(user.clone(), sum)]));
        }
    }

    /// Every user of every account with what was used, by account and user.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, TresSeconds)> {
        self.accounts.iter().flat_map(move |(account, users)| {
            users.iter().map(move |(user, used)| {
                let mut sum = TresSeconds::default();
                self.unpack(used, &mut sum);
                (account.as_str(), user.as_str(), sum)
            })
        })
    }

    fn unpack(&self, used: &Packed, sum: &mut TresSeconds) {
        for (tres, amount) in used.amounts() {
            sum.add_amount(&self.tres[tres], amount);
        }
    }

    /// Accounts with use, as Slurm printed them.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(Printed::as_str)
    }

    /// Totals per user over several accounts, an account and those below it.
    pub fn by_user<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> BTreeMap<String, TresSeconds> {
        let mut users: BTreeMap<String, TresSeconds> = BTreeMap::new();
        for own in accounts.filter_map(|account| self.accounts.get(account)) {
            for (user, used) in own {
                self.unpack(used, users.entry(user.to_string()).or_default());
            }
        }
        users
    }

    /// Sum over several accounts, an account and those below it.
    pub fn sum<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> TresSeconds {
        let mut sum = vec![0; self.tres.len()];
        accounts.for_each(|account| self.add_account(account, &mut sum));
        named(&self.tres, &sum)
    }

    /// Sums of every account with everything below it, odd names included, each record looked at once whatever the depth of the tree.
    pub fn sums_of_subtrees(&self, tree: &AccountTree<'_>) -> SubtreeSums {
        let mut sums: HashMap<AccountName, Vec<u128>> = HashMap::new();
        for account in tree.from_the_leaves() {
            let mut sum = sums.remove(&account.account).unwrap_or_else(|| vec![0; self.tres.len()]);
            self.add_account(account.account.as_str(), &mut sum);
            tree.odd_below(&account.account).into_iter().for_each(|odd| self.add_account(odd, &mut sum));
            if let Some(parent) = &account.parent {
                let above = sums.entry(parent.clone()).or_insert_with(|| vec![0; self.tres.len()]);
                above.iter_mut().zip(&sum).for_each(|(above, own)| *above += own);
            }
            sums.insert(account.account.clone(), sum);
        }
        SubtreeSums { tres: self.tres.clone(), sums }
    }

    fn add_account(&self, account: &str, sum: &mut [u128]) {
        for (tres, amount) in
            self.accounts.get(account).iter().flat_map(|own| own.values()).flat_map(Packed::amounts)
        {
            sum[tres] += amount;
        }
    }

    /// Sum of one user's TRES over everything, for comparisons with sreport.
    pub fn get(&self, account: &str, user: &str, tres: &Tres) -> u128 {
        let used = self.accounts.get(account).and_then(|users| users.get(user));
        let amount = used.and_then(|used| used.amounts().find(|(place, _)| self.tres[*place] == *tres));
        amount.map_or(0, |(_, amount)| amount)
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
    sums: HashMap<AccountName, Vec<u128>>,
}

impl SubtreeSums {
    /// Of one account; `None` when it is not in the tree.
    pub fn get(&self, account: &AccountName) -> Option<TresSeconds> {
        self.sums.get(account).map(|sum| named(&self.tres, sum))
    }
}

fn named(tres: &[Tres], sum: &[u128]) -> TresSeconds {
    let used = tres.iter().zip(sum).filter(|(_, amount)| **amount > 0);
    TresSeconds(used.map(|(tres, amount)| (tres.clone(), *amount)).collect())
}

/// The sum of both; amounts of 0 leave no trace, so that equal totals are equal however they came about.
fn add_packed<'t>(
    tres: &mut Vec<Tres>,
    known: &Packed,
    used: impl Iterator<Item = (&'t Tres, u128)>,
) -> Packed {
    let mut amounts: Vec<(usize, u128)> = known.amounts().collect();
    for (name, amount) in used.filter(|(_, amount)| *amount > 0) {
        let place = tres.iter().position(|known| known == name).unwrap_or_else(|| {
            tres.push(name.clone());
            tres.len() - 1
        });
        match amounts.iter_mut().find(|(known, _)| *known == place) {
            Some((_, sum)) => *sum += amount,
            None => amounts.push((place, amount)),
        }
    }
    Packed::of(&amounts)
}

impl PartialEq for Usage {
    fn eq(&self, other: &Usage) -> bool {
        (self.jobs, self.inexact) == (other.jobs, other.inexact) && self.rows().eq(other.rows())
    }
}

impl Eq for Usage {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::job::JobKey;
    use crate::core::name::ClusterName;
    use crate::core::tres::TresCounts;

    fn job(start: i64, end: Option<i64>, suspended_s: u64) -> JobRecord {
        JobRecord {
            key: JobKey { cluster: ClusterName::parse("lab").unwrap(), dbindex: 1 },
            job_id: 1,
            account: "bio".into(),
            user: "alice".into(),
            state: "COMPLETED".into(),
            submit: Epoch(start - 5),
            eligible: Some(Epoch(start - 5)),
            start: Some(Epoch(start)),
            end: end.map(Epoch),
            suspended_s,
            elapsed_s: 0,
            partition: "debug".into(),
            qos: "normal".into(),
            assoc_id: Some(2),
            alloc: [("cpu", 2), ("billing", 2), ("mem", 100), ("energy", 77)]
                .into_iter()
                .map(|(name, n)| (Tres::parse(name).unwrap(), n))
                .collect::<TresCounts>()
                .into(),
        }
    }

    fn window(from: i64, until: i64) -> Window {
        Window::new(Epoch(from), Epoch(until))
    }

    #[test]
    fn suspended_seconds_leave_cpu_only_and_only_on_their_side_of_the_edge() {
        // The worked example of a real 22.05: billing 2, from 05:09:46 over 06:00, suspended 05:12:53 to 06:01:17.
        let hour = 5 * 3600;
        let job = job(hour + 586, Some(hour + 3700), 2904);
        let key = job.key.clone();
        let edges = SuspensionEdges::new(&[SuspendedBefore { key, edge: Epoch(hour + 3600), seconds: 2827 }]);
        let (used, exact) = job_usage(&job, window(hour, hour + 3600), Epoch(99999), Counting::Once, &edges);
        assert!(exact);
        assert_eq!(used.get(&Tres::billing()), 6028);
        assert_eq!(used.get(&Tres::cpu()), 374);
        assert_eq!(used.get(&Tres::parse("energy").unwrap()), 0);
    }

    #[test]
    fn an_unknown_split_of_a_suspension_is_said_and_counts_as_not_suspended() {
        let job = job(1000, Some(9000), 100);
        let (used, exact) =
            job_usage(&job, window(0, 3600), Epoch(9999), Counting::Once, &SuspensionEdges::default());
        assert!(!exact);
        assert_eq!(used.get(&Tres::cpu()), 2 * 2600);
        assert!(needs_suspension_split(&job, Epoch(3600), Epoch(9999)));
    }

    #[test]
    fn a_piece_of_a_resized_job_counts_from_when_it_was_made() {
        let mut piece = job(1000, Some(2000), 0);
        piece.submit = Epoch(1600);
        let edges = SuspensionEdges::default();
        let used = |counting| job_usage(&piece, window(0, 5000), Epoch(5000), counting, &edges).0;
        assert_eq!(used(Counting::Once).get(&Tres::billing()), 2 * 400);
        assert_eq!(used(Counting::SreportEqual).get(&Tres::billing()), 2 * 1000);
    }

    #[test]
    fn a_running_job_counts_up_to_now_and_a_pending_one_not_at_all() {
        let edges = SuspensionEdges::default();
        let (used, _) = job_usage(&job(1000, None, 0), window(0, 5000), Epoch(1500), Counting::Once, &edges);
        assert_eq!(used.get(&Tres::cpu()), 1000);
        let mut pending = job(1000, None, 0);
        pending.start = None;
        assert!(job_usage(&pending, window(0, 5000), Epoch(1500), Counting::Once, &edges).0.is_empty());
    }

    proptest! {
        #[test]
        fn split_windows_add_up(
            start in 0i64..10_000, length in 0i64..10_000, edge in 0i64..20_000, suspended in 0u64..100,
        ) {
            let job = job(start, Some(start + length), suspended.min(length as u64));
            let held = job.held(Epoch(30_000)).unwrap();
            let known: Vec<SuspendedBefore> = held
                .contains(Epoch(edge))
                .then(|| SuspendedBefore { key: job.key.clone(), edge: Epoch(edge), seconds: job.suspended_s.min((edge - start) as u64) })
                .into_iter()
                .collect();
            let edges = SuspensionEdges::new(&known);
            let used = |from, until| job_usage(&job, window(from, until), Epoch(30_000), Counting::Once, &edges).0;
            let mut parts = used(0, edge);
            parts.merge(&used(edge, 30_000));
            prop_assert_eq!(parts, used(0, 30_000));
        }

        #[test]
        fn the_order_of_records_does_not_matter(jobs in prop::collection::vec((0i64..5000, 0i64..5000), 0..20)) {
            let total = |jobs: &mut dyn Iterator<Item = &(i64, i64)>| {
                let mut usage = Usage::default();
                for (start, length) in jobs {
                    usage.add(&job(*start, Some(start + length), 0), window(100, 4000), Epoch(9000), Counting::Once, &SuspensionEdges::default());
                }
                usage
            };
            prop_assert_eq!(total(&mut jobs.iter()), total(&mut jobs.iter().rev()));
        }
    }
}
