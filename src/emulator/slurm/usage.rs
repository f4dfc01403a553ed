//! What jobs have used: the controller's raw usage and the hourly rollup of the database.

use super::billing::Billing;
use super::job::{Job, TimeLimit};
use super::times;
use super::tree::Tree;
use super::tres::{CPU, ENERGY};
use super::world::World;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap};

/// Raw usage of an association with everything below it, as the controller counts it since the last reset.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RawUsage {
    /// Seconds times untruncated billing times usage factor.
    pub(super) billing: f64,
    /// Seconds times amount, per resource.
    pub(super) tres: BTreeMap<u32, f64>,
    /// Seconds that running jobs may still use, times amount, per resource.
    pub(super) committed: BTreeMap<u32, u64>,
    /// Seconds of wall time.
    pub(super) wall: f64,
    /// Jobs running.
    pub(super) running: u32,
    /// Jobs running or waiting.
    pub(super) submitted: u32,
    /// Amounts in use now.
    pub(super) in_use: BTreeMap<u32, u64>,
}

impl RawUsage {
    /// Adds the usage of another.
    pub(super) fn add(&mut self, other: &RawUsage) {
        self.billing += other.billing;
        self.wall += other.wall;
        self.running += other.running;
        self.submitted += other.submitted;
        for (id, amount) in &other.tres {
            *self.tres.entry(*id).or_default() += amount;
        }
        for (id, amount) in &other.committed {
            *self.committed.entry(*id).or_default() += amount;
        }
        for (id, amount) in &other.in_use {
            *self.in_use.entry(*id).or_default() += amount;
        }
    }
}

impl World {
    /// Raw usage of every association (by position), sub-accounts and users included.
    pub(super) fn raw_usage(&self, tree: &Tree<'_>) -> Vec<RawUsage> {
        self.raw_usage_at(tree, self.now())
    }

    /// The same at an instant that may be past.
    pub(super) fn raw_usage_at(&self, tree: &Tree<'_>, now: i64) -> Vec<RawUsage> {
        let at_id = tree.by_id();
        let billing = self.billing();
        let mut usage = vec![RawUsage::default(); tree.list.len()];
        // Where something above was deleted once, no association can take what those below it show.
        let mut apart = Vec::new();
        for job in self.jobs.iter().filter(|job| !job.runaway && job.cluster.is_none()) {
            let Some(at) = at_id.get(&job.association).copied() else { continue };
            let reset_at = tree.list[at].usage_reset_at;
            let upwards = || std::iter::successors(Some(at), |at| tree.parent[*at]);
            if upwards().all(|place| tree.list[place].usage_left_at == 0) {
                self.count_job(job, &billing, reset_at, now, &mut usage[at]);
                continue;
            }
            for place in upwards() {
                let mut of_job = RawUsage::default();
                let since = reset_at.max(tree.list[place].usage_left_at);
                self.count_job(job, &billing, since, now, &mut of_job);
                apart.push((place, of_job));
            }
        }
        for at in (0..usage.len()).rev() {
            if let Some(above) = tree.parent[at] {
                let own = std::mem::take(&mut usage[at]);
                usage[above].add(&own);
                usage[at] = own;
            }
        }
        apart.iter().for_each(|(place, of_job)| usage[*place].add(of_job));
        usage
    }

    /// Adds what a job has used since the last reset, and what it holds now.
    pub(super) fn count_job(
        &self,
        job: &Job,
        billing: &Billing<'_>,
        reset_at: i64,
        now: i64,
        usage: &mut RawUsage,
    ) {
        if job.is_alive() {
            usage.submitted += 1;
        }
        if job.start <= 0 {
            return;
        }
        let factor = self.qos.iter().find(|qos| qos.name == job.qos).map_or(1.0, |qos| qos.usage_factor);
        let end = if job.end == 0 { now } else { job.end.min(now) };
        let seconds = (end - job.start.max(reset_at)).max(0) as f64 * factor;
        if seconds > 0.0 {
            usage.billing += seconds * billing.of(&job.partition, &job.allocated);
            usage.wall += seconds;
            for (id, count) in job.allocated.iter().filter(|(_, count)| **count > 0) {
                *usage.tres.entry(*id).or_default() += seconds * *count as f64;
            }
        }
        if !job.is_running() {
            return;
        }
        usage.running += 1;
        let limit_s = match job.time_limit {
            TimeLimit::Minutes(minutes) => i64::from(minutes) * 60,
            TimeLimit::Unlimited | TimeLimit::Partition => i64::from(u32::MAX) * 60,
        };
        let left_s = u64::try_from(job.start + limit_s - now).unwrap_or(0);
        for (id, count) in &job.allocated {
            *usage.committed.entry(*id).or_default() += left_s * count;
            *usage.in_use.entry(*id).or_default() += count;
        }
    }

    /// Throws away the raw usage of an association and all below it.
    pub(super) fn reset_usage(&mut self, at: usize) {
        let now = self.now();
        let end = self.tree().end[at];
        for association in &mut self.associations[at..end] {
            association.usage_reset_at = now;
        }
    }

    /// First second that has not been rolled up: the end of the last whole hour, or what was rolled up by command.
    pub(super) fn rolled_up_to(&self) -> i64 {
        let zone = times::zone_of(&BTreeMap::new(), &self.time_zone);
        start_of_hour(self.now(), &zone).max(self.rolled_until)
    }

    /// Used seconds per association id and resource in the rolled-up part of `[from, to)`, own jobs only: wall time
    /// counts, only CPUs lose suspended time, energy counts once per hour that a job touches (22.05.8, as_mysql_rollup).
    pub(super) fn rolled_usage(&self, from: i64, to: i64) -> HashMap<u32, BTreeMap<u32, u64>> {
        let to = to.min(self.rolled_up_to());
        let zone = times::zone_of(&BTreeMap::new(), &self.time_zone);
        let mut usage: HashMap<u32, BTreeMap<u32, u64>> = HashMap::new();
        for job in self.jobs.iter().filter(|job| job.cluster.is_none() && job.eligible != 0 && job.start > 0)
        {
            let begin = job.start.max(from).max(if job.eligible > job.start {
                start_of_hour(job.eligible, &zone)
            } else {
                job.start
            });
            let end = if job.end == 0 { to } else { job.end.min(to) };
            if end <= begin {
                continue;
            }
            let stopped: i64 = job
                .suspensions
                .iter()
                .map(|part| (part.to.unwrap_or(end).min(end) - part.from.max(begin)).max(0))
                .sum();
            let wall = u64::try_from(end - begin).unwrap_or(0);
            let busy = u64::try_from(end - begin - stopped).unwrap_or(0);
            for (id, count) in &job.allocated {
                let seconds = match *id {
                    ENERGY => {
                        u64::try_from((end - 1).div_euclid(3600) - begin.div_euclid(3600) + 1).unwrap_or(1)
                    }
                    CPU => busy,
                    _ => wall,
                };
                if seconds * count > 0 {
                    *usage.entry(job.association).or_default().entry(*id).or_default() += seconds * count;
                }
            }
        }
        usage
    }
}

/// The beginning of the hour of local time that an instant lies in.
pub(super) fn start_of_hour(at: i64, zone: &TimeZone) -> i64 {
    let offset = i64::from(times::local(at, zone).offset().seconds());
    (at + offset).div_euclid(3600) * 3600 - offset
}
