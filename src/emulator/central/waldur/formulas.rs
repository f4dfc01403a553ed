//! The arithmetic of Waldur's policies, in floating point as the server has it
//! (its policy model and preview module as of 2026). Units are those of the component, mostly hours.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Amount per component type.
pub(crate) type Amounts = BTreeMap<String, f64>;

/// Accounts the server reckons with when it turns an allocation into a fairshare.
const FAIRSHARE_ACCOUNTS: f64 = 3.0;

/// Minutes in an hour, the unit of TRES minute limits.
const MINUTES: f64 = 60.0;

/// Weights of a policy that has none of its own.
pub(crate) fn default_weights() -> Amounts {
    [("CPU", 0.015_625), ("Mem", 0.001_953_125), ("GRES/gpu", 0.25)]
        .into_iter()
        .map(|(name, weight)| (name.to_owned(), weight))
        .collect()
}

/// Carryover of one component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Carryover {
    pub unused: f64,
    pub cap: f64,
    pub carried: f64,
    pub total: f64,
}

/// What of an unused allocation goes over into the next period: at most `factor` percent of it.
pub(crate) fn carryover(base: f64, previous_usage: f64, factor: u32) -> Carryover {
    let unused = (base - previous_usage).max(0.0);
    let cap = f64::from(factor) / 100.0 * base;
    let carried = unused.min(cap);
    Carryover { unused, cap, carried, total: base + carried }
}

/// The weight of a component: exact key first, then without regard to case; none when it is zero.
fn weight_of(weights: &Amounts, component: &str) -> Option<f64> {
    let exact = weights.get(component).copied().filter(|weight| *weight != 0.0);
    exact.or_else(|| {
        weights
            .iter()
            .find(|(name, _)| name.to_lowercase() == component.to_lowercase())
            .map(|(_, weight)| *weight)
            .filter(|weight| *weight != 0.0)
    })
}

/// A sum as Python has it: of nothing it is 0.0, where Rust's has the sign of -0.0.
pub(crate) fn sum(amounts: impl Iterator<Item = f64>) -> f64 {
    amounts.fold(0.0, |sum, amount| sum + amount)
}

/// The billing sum; a component without a weight counts nothing.
pub(crate) fn billing_sum(amounts: &Amounts, weights: &Amounts) -> f64 {
    sum(amounts.iter().map(|(component, amount)| amount * weight_of(weights, component).unwrap_or(0.0)))
}

/// The sum percentages are made of; here a component without a weight counts with its raw value.
pub(crate) fn percentage_sum(amounts: &Amounts, weights: &Amounts) -> f64 {
    sum(amounts.iter().map(|(component, amount)| amount * weight_of(weights, component).unwrap_or(1.0)))
}

/// Share of the allocation that is used, in percent; 0 without an allocation.
pub(crate) fn usage_percentage(usage: &Amounts, total: &Amounts, weights: &Amounts) -> f64 {
    let allocated = percentage_sum(total, weights);
    if allocated > 0.0 { percentage_sum(usage, weights) / allocated * 100.0 } else { 0.0 }
}

/// `max(1, floor(sum / 3))`.
pub(crate) fn fairshare(total: &Amounts) -> i64 {
    ((total.values().sum::<f64>() / FAIRSHARE_ACCOUNTS).floor() as i64).max(1)
}

/// Limits in TRES minutes, at the end of the grace zone; `billing` among them when billing is on.
pub(crate) fn tres_minutes(
    total: &Amounts,
    weights: &Amounts,
    billing: bool,
    grace_ratio: f64,
) -> BTreeMap<String, i64> {
    let whole = |value: f64| value.trunc() as i64;
    let mut minutes: BTreeMap<String, i64> =
        total.iter().map(|(component, hours)| (component.clone(), whole(hours * MINUTES))).collect();
    if billing && !weights.is_empty() {
        minutes.insert("billing".to_owned(), whole(billing_sum(total, weights) * MINUTES));
    }
    if grace_ratio > 0.0 {
        for limit in minutes.values_mut() {
            *limit = whole(*limit as f64 * (1.0 + grace_ratio));
        }
    }
    minutes
}

/// A number rounded to so many decimals as Python's `round` does: exactly, halves to even.
pub(crate) fn round(value: f64, decimals: usize) -> f64 {
    // Formatting with a precision rounds the exact binary value, halves to even, as Python does.
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

/// A JSON number: whole values without a fraction, as limits are stored.
pub(crate) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(pairs: &[(&str, f64)]) -> Amounts {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn carryover_is_the_unused_part_up_to_the_cap() {
        // 1000 - 200 = 800 unused; cap 50 % of 1000 = 500.
        assert_eq!(
            carryover(1000.0, 200.0, 50),
            Carryover { unused: 800.0, cap: 500.0, carried: 500.0, total: 1500.0 }
        );
        // 1000 - 900 = 100 unused, under the cap of 150.
        assert_eq!(
            carryover(1000.0, 900.0, 15),
            Carryover { unused: 100.0, cap: 150.0, carried: 100.0, total: 1100.0 }
        );
        // Overused: nothing.
        assert_eq!(carryover(1000.0, 1200.0, 50).carried, 0.0);
    }

    #[test]
    fn limits_sit_at_the_end_of_the_grace_zone_and_billing_is_weighted() {
        // cpu 640 h = 38400 min; mem 5120 = 307200 min; billing (640/64 + 5120/512) h = 20 h = 1200 min; all x 1.2.
        let limits =
            tres_minutes(&amounts(&[("cpu", 640.0), ("mem", 5120.0)]), &default_weights(), true, 0.2);
        let expected = [("billing", 1440), ("cpu", 46080), ("mem", 368_640)];
        assert_eq!(limits, expected.map(|(k, v)| (k.to_owned(), v)).into());
        // Without billing and grace the minutes alone, cut: 1.509 h = 90.54 min.
        let limits = tres_minutes(&amounts(&[("node", 1.509)]), &default_weights(), false, 0.0);
        assert_eq!(limits, [("node".to_owned(), 90)].into());
    }

    #[test]
    fn an_unweighted_component_counts_raw_in_percentages_and_nothing_in_billing() {
        let total = amounts(&[("cpu", 64.0), ("storage", 10.0)]);
        assert_eq!(billing_sum(&total, &default_weights()), 1.0);
        assert_eq!(percentage_sum(&total, &default_weights()), 11.0);
        assert_eq!(usage_percentage(&amounts(&[("storage", 5.5)]), &total, &default_weights()), 50.0);
        assert_eq!(usage_percentage(&amounts(&[("cpu", 5.0)]), &Amounts::new(), &default_weights()), 0.0);
    }

    #[test]
    fn no_usage_is_sent_as_zero_without_a_sign() {
        let total = amounts(&[("cpu", 64.0)]);
        let percentage = usage_percentage(&Amounts::new(), &total, &default_weights());
        assert_eq!(json!(percentage).to_string(), "0.0");
        assert_eq!(json!(billing_sum(&Amounts::new(), &default_weights())).to_string(), "0.0");
    }

    #[test]
    fn fairshare_is_a_third_of_the_sum_and_at_least_one() {
        assert_eq!(fairshare(&amounts(&[("cpu", 700.0), ("mem", 300.0)])), 333);
        assert_eq!(fairshare(&amounts(&[("cpu", 2.0)])), 1);
        assert_eq!(fairshare(&Amounts::new()), 1);
    }

    #[test]
    fn rounding_is_that_of_python() {
        // round(2.675, 2) == 2.67, round(0.125, 2) == 0.12, round(0.25, 1) == 0.2, round(66.666, 1) == 66.7
        assert_eq!(round(2.675, 2), 2.67);
        assert_eq!(round(0.125, 2), 0.12);
        assert_eq!(round(0.25, 1), 0.2);
        assert_eq!(round(66.666, 1), 66.7);
    }
}
