//! What Slurm bills for resources: `TRESBillingWeights` of partitions.

use super::tres::{Amounts, BILLING, CPU, MEM, NODE, unit_number};
use super::world::World;
use std::collections::{HashMap, HashSet};

/// The weights of every partition, taken apart once.
pub(super) struct Billing<'a> {
    by_partition: HashMap<&'a str, HashMap<u32, f64>>,
    of_node: HashSet<u32>,
    largest_wins: bool,
}

impl World {
    /// The weights that hold now.
    pub(super) fn billing(&self) -> Billing<'_> {
        let is_of_node =
            |id: u32, kind: &str| matches!(id, CPU | MEM | NODE) || kind.eq_ignore_ascii_case("gres");
        Billing {
            by_partition: self
                .partitions
                .iter()
                .map(|partition| (partition.name.as_str(), self.weights(&partition.billing_weights)))
                .collect(),
            of_node: self
                .tres
                .iter()
                .filter(|tres| is_of_node(tres.id, &tres.kind))
                .map(|tres| tres.id)
                .collect(),
            largest_wins: self.config.get("PriorityFlags").is_some_and(|flags| flags.contains("MAX_TRES")),
        }
    }

    /// What Slurm bills for these resources in a partition, before it is cut to an integer.
    pub fn billable(&self, partition: &str, allocated: &Amounts) -> f64 {
        self.billing().of(partition, allocated)
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
}

impl Billing<'_> {
    /// The sum of weight times amount; with `MAX_TRES` only the largest of a node's resources counts beside the others;
    /// without weights the CPUs.
    pub(super) fn of(&self, partition: &str, allocated: &Amounts) -> f64 {
        let cpus = allocated.get(&CPU).copied().unwrap_or(0) as f64;
        let Some(weights) = self.by_partition.get(partition).filter(|weights| !weights.is_empty()) else {
            return cpus;
        };
        let (mut largest, mut rest) = (0.0_f64, 0.0_f64);
        for (id, count) in allocated.iter().filter(|(id, _)| **id != BILLING) {
            let value = *count as f64 * weights.get(id).copied().unwrap_or(0.0);
            if self.largest_wins && self.of_node.contains(id) {
                largest = largest.max(value);
            } else {
                rest += value;
            }
        }
        largest + rest
    }
}
