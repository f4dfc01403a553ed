//! Totals of job records clipped to a window: exact TRES-seconds per account and user.
//!
//! The rules are Slurm's own hourly rollup (`as_mysql_hourly_rollup`, unchanged 20.11 to 26.05): every TRES of AllocTRES counts
//! wall time from start to end, cpu alone loses suspended seconds. `energy` is not an amount per second and is
//! left out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::job::{JobRecord, SuspendedBefore};
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

    /// Seconds of suspension of a job before `edge`; `None` when it lies inside the run and is not known.
    fn before(&self, job: &JobRecord, held: Window, edge: Epoch) -> Option<u64> {
        if edge <= held.from {
            Some(0)
        } else if edge >= held.until {
            Some(job.suspended_s)
        } else {
            self.0.get(&(job.key.dbindex, edge)).copied()
        }
    }
}

/// Whether the seconds a job was suspended must be asked for at `edge` before its cpu time can be split there.
pub fn needs_suspension_split(job: &JobRecord, edge: Epoch, now: Epoch) -> bool {
    job.suspended_s > 0 && job.held(now).is_some_and(|held| held.from < edge && edge < held.until)
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
    let Some(held) = held else { return (used, true) };
    let inside = held.overlap(window);
    let wall_s = inside.seconds();
    if wall_s == 0 {
        return (used, true);
    }
    let mut suspended_s = Some(0);
    if job.suspended_s > 0 {
        suspended_s = edges
            .before(job, held, inside.until)
            .zip(edges.before(job, held, inside.from))
            .map(|(until, from)| until.saturating_sub(from));
    }
    for (tres, count) in job.alloc.iter() {
        match tres.as_str() {
            "energy" => {}
            "cpu" => used.add(tres, *count, wall_s.saturating_sub(suspended_s.unwrap_or(0))),
            _ => used.add(tres, *count, wall_s),
        }
    }
    (used, suspended_s.is_some())
}

/// Totals of one window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Account as Slurm printed it, then user, then TRES-seconds.
    pub accounts: BTreeMap<String, BTreeMap<String, TresSeconds>>,
    /// Records that used time in the window.
    pub jobs: u64,
    /// Records whose cpu time is an upper bound because their suspension could not be split.
    pub inexact: u64,
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
        if !self.accounts.contains_key(job.account.as_str()) {
            self.accounts.insert(job.account.to_string(), BTreeMap::new());
        }
        if let Some(users) = self.accounts.get_mut(job.account.as_str()) {
            users.entry(job.user.to_string()).or_default().merge(&used);
        }
    }

    /// Totals per user over several accounts, an account and those below it.
    pub fn by_user<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> BTreeMap<String, TresSeconds> {
        let mut users: BTreeMap<String, TresSeconds> = BTreeMap::new();
        for own in accounts.filter_map(|account| self.accounts.get(account)) {
            for (user, used) in own {
                users.entry(user.clone()).or_default().merge(used);
            }
        }
        users
    }

    /// Sum over several accounts, an account and those below it.
    pub fn sum<'a>(&self, accounts: impl Iterator<Item = &'a str>) -> TresSeconds {
        let mut sum = TresSeconds::default();
        for own in accounts.filter_map(|account| self.accounts.get(account)) {
            own.values().for_each(|used| sum.merge(used));
        }
        sum
    }

    /// Sum of one user's TRES over everything, for comparisons with sreport.
    pub fn get(&self, account: &str, user: &str, tres: &Tres) -> u128 {
        self.accounts.get(account).and_then(|users| users.get(user)).map_or(0, |used| used.get(tres))
    }
}

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
