//! What jobs have used: the billing of an allocation, the controller's raw usage, and the hourly rollup of the database.

use super::job::{Job, TimeLimit};
use super::times;
use super::tree::Tree;
use super::tres::{BILLING, CPU, ENERGY, MEM, NODE, unit_number};
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
    fn add(&mut self, other: &RawUsage) {
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
    /// What Slurm bills for these resources in a partition, before it is cut to an integer: the sum of weight times
    /// amount, or the larger of the node's resources with `MAX_TRES`; without weights the CPUs.
    pub fn billable(&self, partition: &str, allocated: &BTreeMap<u32, u64>) -> f64 {
        let weights = self
            .partitions
            .iter()
            .find(|known| known.name == partition)
            .map(|known| self.weights(&known.billing_weights))
            .unwrap_or_default();
        let cpus = allocated.get(&CPU).copied().unwrap_or(0) as f64;
        if weights.is_empty() {
            return cpus;
        }
        let largest_wins = self.config.get("PriorityFlags").is_some_and(|flags| flags.contains("MAX_TRES"));
        let (mut of_node, mut rest) = (0.0_f64, 0.0_f64);
        for (id, count) in allocated.iter().filter(|(id, _)| **id != BILLING) {
            let value = *count as f64 * weights.get(id).copied().unwrap_or(0.0);
            let is_of_node = matches!(*id, CPU | MEM | NODE)
                || self.tres.by_id(*id).is_some_and(|tres| tres.kind.eq_ignore_ascii_case("gres"));
            if largest_wins && is_of_node {
                of_node = of_node.max(value);
            } else {
                rest += value;
            }
        }
        of_node + rest
    }

    /// `TRESBillingWeights` by resource, per unit that Slurm counts in (memory: MB; K changes nothing there).
    fn weights(&self, text: &str) -> HashMap<u32, f64> {
        let mut weights = HashMap::new();
        for part in text.split(',') {
            let Some((name, value)) = part.split_once('=') else { continue };
            let Some(tres) = self.tres.by_name(name) else { continue };
            let end = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
            let Ok(number) = value[..end].parse::<f64>() else { continue };
            let base = if tres.id == MEM { 2 } else { 0 };
            let unit = value[end..].chars().next().and_then(|unit| unit_number(unit).ok()).unwrap_or(0);
            let divisor =
                if unit > base { 1024_f64.powi(i32::try_from(unit - base).unwrap_or(0)) } else { 1.0 };
            weights.insert(tres.id, number / divisor);
        }
        weights
    }

    /// Raw usage of every association (by position), sub-accounts and users included.
    pub(super) fn raw_usage(&self, tree: &Tree<'_>) -> Vec<RawUsage> {
        let now = self.now();
        let at_id = tree.by_id();
        let mut usage = vec![RawUsage::default(); tree.list.len()];
        let factors: HashMap<&str, f64> =
            self.qos.iter().map(|qos| (qos.name.as_str(), qos.usage_factor)).collect();
        for job in self.jobs.iter().filter(|job| !job.runaway && job.cluster.is_none()) {
            let Some(at) = at_id.get(&job.association).copied() else { continue };
            if job.is_alive() {
                usage[at].submitted += 1;
            }
            if job.start <= 0 {
                continue;
            }
            let factor = factors.get(job.qos.as_str()).copied().unwrap_or(1.0);
            self.count_run(job, tree.list[at].usage_reset_at, now, factor, &mut usage[at]);
        }
        for at in (0..usage.len()).rev() {
            if let Some(above) = tree.parent[at] {
                let own = std::mem::take(&mut usage[at]);
                usage[above].add(&own);
                usage[at] = own;
            }
        }
        usage
    }

    fn count_run(&self, job: &Job, reset_at: i64, now: i64, factor: f64, usage: &mut RawUsage) {
        let end = if job.end == 0 { now } else { job.end.min(now) };
        let seconds = (end - job.start.max(reset_at)).max(0) as f64 * factor;
        if seconds > 0.0 {
            usage.billing += seconds * self.billable(&job.partition, &job.allocated);
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
