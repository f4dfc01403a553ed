//! The server's formulas, computed by hand and computed anew: the agent's decision has the same numbers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::*;
use crate::core::evaluate::{Decided, Decision, Level, PartitionWeights, Rules, evaluate};
use crate::core::exact::Exact;
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::{LimitType, Policy, QosStrategy, default_weights};
use crate::core::time::Epoch;
use crate::core::tres::{BillingWeights, TresSeconds};

/// Granted in every case: cpu 640 h, ram 5120 GB-h, gpu 40 h. Used in the previous period: cpu 540 h, ram 0, gpu 50 h.
/// Half of the base may be carried over:
///   cpu min(640 - 540, 320) = 100 -> 740;  ram min(5120 - 0, 2560) = 2560 -> 7680;  gpu min(max(0, 40 - 50), 20) = 0 -> 40
/// fairshare without carryover floor((640 + 5120 + 40) / 3) = floor(1933.3) = 1933, with it (740 + 7680 + 40) / 3 = 2820.
const GRANTED: [(&str, &str); 3] = [("cpu", "640"), ("ram", "5120"), ("gpu", "40")];

/// Usage: cpu h, ram GB-h, gpu h.
const SOME: (u128, u128, u128) = (592, 4096, 38);
const MUCH: (u128, u128, u128) = (800, 6400, 50);

#[derive(Clone, Copy, PartialEq)]
enum Weights {
    /// 1/64, 1/512, 1/4
    Default,
    /// cpu 1, ram 0.5, gpu 10
    Given,
}

struct Row {
    /// With which weights billing is on; `None`: it is off.
    billing: Option<Weights>,
    carryover: bool,
    usage: (u128, u128, u128),
    /// Scalar used and total.
    scalar: (&'static str, &'static str),
    /// At grace 0 and at grace 0.3.
    levels: [Level; 2],
    /// Limits (TRES, minutes) at grace 0 and at grace 0.3.
    limits: [&'static [(&'static str, u64)]; 2],
    fairshare: u32,
}

use Level::{Blocked, Normal, Notification, Slowdown};

const ROWS: [Row; 12] = [
    // Default weights. Total 640/64 + 5120/512 + 40/4 = 10 + 10 + 10 = 30; used 9.25 + 8 + 9.5 = 26.75, that is 89.2 %.
    // Limit int(30 x 60) = 1800; int(1800 x 1.3) = 2340.
    Row {
        billing: Some(Weights::Default),
        carryover: false,
        usage: SOME,
        scalar: ("26.75", "30"),
        levels: [Notification, Notification],
        limits: [&[("billing", 1800)], &[("billing", 2340)]],
        fairshare: 1933,
    },
    // Total 740/64 + 7680/512 + 40/4 = 11.5625 + 15 + 10 = 36.5625: 73.2 %.
    // Limit int(2193.75) = 2193; int(2193 x 1.3) = int(2850.9) = 2850.
    Row {
        billing: Some(Weights::Default),
        carryover: true,
        usage: SOME,
        scalar: ("26.75", "36.5625"),
        levels: [Normal, Normal],
        limits: [&[("billing", 2193)], &[("billing", 2850)]],
        fairshare: 2820,
    },
    // Used 800/64 + 6400/512 + 50/4 = 37.5 of 30: 125 %, past 100 % and below 130 %.
    Row {
        billing: Some(Weights::Default),
        carryover: false,
        usage: MUCH,
        scalar: ("37.5", "30"),
        levels: [Blocked, Slowdown],
        limits: [&[("billing", 1800)], &[("billing", 2340)]],
        fairshare: 1933,
    },
    // 37.5 of 36.5625: 102.6 %.
    Row {
        billing: Some(Weights::Default),
        carryover: true,
        usage: MUCH,
        scalar: ("37.5", "36.5625"),
        levels: [Blocked, Slowdown],
        limits: [&[("billing", 2193)], &[("billing", 2850)]],
        fairshare: 2820,
    },
    // Given weights. Total 640 + 2560 + 400 = 3600; used 592 + 2048 + 380 = 3020: 83.9 %. 3600 x 60 = 216000, x 1.3 = 280800.
    Row {
        billing: Some(Weights::Given),
        carryover: false,
        usage: SOME,
        scalar: ("3020", "3600"),
        levels: [Notification, Notification],
        limits: [&[("billing", 216_000)], &[("billing", 280_800)]],
        fairshare: 1933,
    },
    // Total 740 + 3840 + 400 = 4980: 60.6 %. 4980 x 60 = 298800, x 1.3 = 388440.
    Row {
        billing: Some(Weights::Given),
        carryover: true,
        usage: SOME,
        scalar: ("3020", "4980"),
        levels: [Normal, Normal],
        limits: [&[("billing", 298_800)], &[("billing", 388_440)]],
        fairshare: 2820,
    },
    // Used 800 + 3200 + 500 = 4500 of 3600: 125 %.
    Row {
        billing: Some(Weights::Given),
        carryover: false,
        usage: MUCH,
        scalar: ("4500", "3600"),
        levels: [Blocked, Slowdown],
        limits: [&[("billing", 216_000)], &[("billing", 280_800)]],
        fairshare: 1933,
    },
    // 4500 of 4980: 90.4 %.
    Row {
        billing: Some(Weights::Given),
        carryover: true,
        usage: MUCH,
        scalar: ("4500", "4980"),
        levels: [Notification, Notification],
        limits: [&[("billing", 298_800)], &[("billing", 388_440)]],
        fairshare: 2820,
    },
    // Billing off: cpu 592/640 = 92.5 %, ram 80 %, gpu 38/40 = 95 % decides.
    // cpu 640 x 60 = 38400, x 1.3 = 49920; ram 5120 x 1024 x 60 = 314572800 MB-minutes, x 1.3 = 408944640;
    // gpu 2400, x 1.3 = 3120.
    Row {
        billing: None,
        carryover: false,
        usage: SOME,
        scalar: ("38", "40"),
        levels: [Notification, Notification],
        limits: [
            &[("cpu", 38_400), ("mem", 314_572_800), ("gres/gpu", 2400)],
            &[("cpu", 49_920), ("mem", 408_944_640), ("gres/gpu", 3120)],
        ],
        fairshare: 1933,
    },
    // cpu 592/740 = 80 %, ram 4096/7680 = 53 %, gpu still 95 %.
    // cpu 740 x 60 = 44400, x 1.3 = 57720; ram 7680 x 1024 x 60 = 471859200, x 1.3 = 613416960.
    Row {
        billing: None,
        carryover: true,
        usage: SOME,
        scalar: ("38", "40"),
        levels: [Notification, Notification],
        limits: [
            &[("cpu", 44_400), ("mem", 471_859_200), ("gres/gpu", 2400)],
            &[("cpu", 57_720), ("mem", 613_416_960), ("gres/gpu", 3120)],
        ],
        fairshare: 2820,
    },
    // All three at 125 %; of equals the first by name decides.
    Row {
        billing: None,
        carryover: false,
        usage: MUCH,
        scalar: ("800", "640"),
        levels: [Blocked, Slowdown],
        limits: [
            &[("cpu", 38_400), ("mem", 314_572_800), ("gres/gpu", 2400)],
            &[("cpu", 49_920), ("mem", 408_944_640), ("gres/gpu", 3120)],
        ],
        fairshare: 1933,
    },
    // cpu 800/740 = 108 %, ram 83 %, gpu 50/40 = 125 % decides.
    Row {
        billing: None,
        carryover: true,
        usage: MUCH,
        scalar: ("50", "40"),
        levels: [Blocked, Slowdown],
        limits: [
            &[("cpu", 44_400), ("mem", 471_859_200), ("gres/gpu", 2400)],
            &[("cpu", 57_720), ("mem", 613_416_960), ("gres/gpu", 3120)],
        ],
        fairshare: 2820,
    },
];

fn weights(which: Weights) -> BillingWeights {
    match which {
        Weights::Default => default_weights(),
        Weights::Given => BillingWeights::from([
            ("cpu".to_owned(), exact("1")),
            ("RAM".to_owned(), exact("0.5")),
            ("GRES/gpu".to_owned(), exact("10")),
        ]),
    }
}

/// A Slurm that bills as the policy does: per TRES-hour, memory per MB.
fn slurm_bills(which: Weights) -> Rules {
    let mut rules = rules();
    if which == Weights::Given {
        let billed = [("cpu", "1"), ("mem", "1/2048"), ("gres/gpu", "10")];
        let weights = billed.map(|(name, weight)| (tres(name), exact(weight))).into();
        rules.partitions =
            Some(PartitionWeights { partitions: BTreeMap::from([("debug".to_owned(), weights)]) });
    }
    rules
}

fn decide(
    policy: &Policy,
    limits: &[(&str, &str)],
    current: TresSeconds,
    previous: TresSeconds,
    rules: &Rules,
) -> Decided {
    // 2026-11-06
    let period = Period::containing(policy.period, Epoch(1_794_000_000), &jiff::tz::TimeZone::UTC).unwrap();
    match evaluate(policy, &allocation(limits), Ok(&facts(current, previous)), &period, rules) {
        Decision::Decided(decided) => *decided,
        Decision::Undecided { reason, .. } => panic!("undecided: {reason}"),
    }
}

/// The QOS by hand: the ladder of this folder is low from 50 %, lower from 100 %.
fn expected_qos(strategy: QosStrategy, level: Level, percent: Exact) -> &'static str {
    match (strategy, level) {
        (_, Blocked) => "blocked",
        (QosStrategy::Threshold, Slowdown) => "slowdown",
        (QosStrategy::Threshold, _) => "normal",
        (QosStrategy::Progressive, _) if percent >= exact("100") => "lower",
        (QosStrategy::Progressive, _) if percent >= exact("50") => "low",
        (QosStrategy::Progressive, _) => "normal",
    }
}

fn check(row: &Row, policy: &Policy, which: Weights, grace: usize) {
    let (current, previous) = (used(row.usage.0, row.usage.1, row.usage.2), used(540, 0, 50));
    let seen = decide(policy, &GRANTED, current, previous, &slurm_bills(which));
    let case = format!("{policy:?} {:?}", row.usage);
    assert_eq!((seen.used, seen.total), (exact(row.scalar.0), exact(row.scalar.1)), "{case}");
    assert_eq!((seen.level, seen.effect), (row.levels[grace], row.levels[grace]), "{case}");
    let limits = row.limits[grace].iter().map(|(name, minutes)| (tres(name), *minutes));
    assert_eq!(seen.limits, [(LimitType::GrpTRESMins, limits.collect())].into(), "{case}");
    assert_eq!(seen.fairshare, row.fairshare, "{case}");
    let qos_wanted = expected_qos(policy.strategy, seen.level, seen.percent.unwrap());
    assert_eq!(seen.qos, qos(qos_wanted), "{case}");
    assert_eq!(seen.raw_usage_reset, policy.period != PeriodKind::Total, "{case}");
    let name = match policy.period {
        PeriodKind::Month => "2026-11",
        PeriodKind::Quarter => "2026-Q4",
        PeriodKind::Year => "2026",
        PeriodKind::Total => "total",
    };
    assert_eq!(seen.period.name, name);
    assert_eq!(seen.findings, Vec::<String>::new(), "{case}");
}

#[test]
fn every_kind_of_policy_has_the_numbers_computed_by_hand() {
    let mut cases = 0;
    for period in [PeriodKind::Month, PeriodKind::Quarter, PeriodKind::Year, PeriodKind::Total] {
        for (carryover, which, billing) in [false, true].into_iter().flat_map(|carryover| {
            [Weights::Default, Weights::Given]
                .into_iter()
                .flat_map(move |which| [true, false].map(|billing| (carryover, which, billing)))
        }) {
            // `total` has no period before it and carries nothing over.
            let carried = carryover && period != PeriodKind::Total;
            let rows =
                ROWS.iter().filter(|row| row.carryover == carried && row.billing == billing.then_some(which));
            for row in rows {
                for (grace, strategy) in [0, 1].into_iter().flat_map(|grace| {
                    [QosStrategy::Threshold, QosStrategy::Progressive].map(|strategy| (grace, strategy))
                }) {
                    let policy = Policy {
                        period,
                        billing,
                        weights: weights(which),
                        carryover_percent: carryover.then_some(50),
                        grace: exact(["0", "0.3"][grace]),
                        strategy,
                        ..policy()
                    };
                    check(row, &policy, which, grace);
                    cases += 1;
                }
            }
        }
    }
    // 4 periods x carryover x weights x billing x 2 usages x 2 graces x 2 strategies.
    assert_eq!(cases, 4 * 2 * 2 * 2 * 2 * 2 * 2);
}

#[test]
fn without_billing_a_component_that_was_neither_granted_nor_used_does_not_decide() {
    let policy = Policy { billing: false, ..policy() };
    let seen =
        decide(&policy, &[("cpu", "0"), ("gpu", "40")], used(0, 0, 4), TresSeconds::default(), &rules());
    assert_eq!((seen.level, seen.percent), (Normal, Some(exact("10"))));
    let used_anyway =
        decide(&policy, &[("cpu", "0"), ("gpu", "40")], used(1, 0, 4), TresSeconds::default(), &rules());
    assert_eq!(used_anyway.level, Blocked);
}

/// The server's formulas in whole numbers: amounts of a component are (base, previous, used) in hours, weights in 64ths,
/// totals in hundredths of an hour.
struct Server {
    /// Total of each component, in hundredths.
    totals: Vec<u128>,
    weights: [u128; 3],
    tenths: u128,
}

impl Server {
    fn new(
        amounts: &[(u128, u128, u128); 3],
        weights: [u128; 3],
        carry: Option<u128>,
        tenths: u128,
    ) -> Server {
        let total = |(base, previous, _): &(u128, u128, u128)| {
            let carried =
                carry.map_or(0, |percent| (100 * base.saturating_sub(*previous)).min(percent * base));
            100 * base + carried
        };
        Server { totals: amounts.iter().map(total).collect(), weights, tenths }
    }

    fn minutes_with_grace(&self, minutes: u128) -> u128 {
        minutes * (10 + self.tenths) / 10
    }

    fn weighted(&self, amounts: impl Iterator<Item = u128>) -> u128 {
        amounts.zip(self.weights).map(|(amount, weight)| amount * weight).sum()
    }

    fn fairshare(&self) -> u128 {
        (self.totals.iter().sum::<u128>() / 300).max(1)
    }

    fn billing_minutes(&self) -> u128 {
        self.minutes_with_grace(self.weighted(self.totals.iter().copied()) * 60 / 6400)
    }

    fn component_minutes(&self, which: usize) -> u128 {
        self.minutes_with_grace(self.totals[which] * 60 / 100)
    }

    /// Used and total in the same unit.
    fn used_of_total(&self, amounts: &[(u128, u128, u128); 3]) -> (u128, u128) {
        let used = self.weighted(amounts.iter().map(|(_, _, used)| 100 * used));
        (used, self.weighted(self.totals.iter().copied()))
    }

    fn level(&self, used: u128, total: u128) -> Level {
        let reaches = |tenths: u128| used * 10 >= total * tenths;
        match () {
            () if reaches(10 + self.tenths) => Blocked,
            () if reaches(10) => Slowdown,
            () if reaches(8) => Notification,
            () => Normal,
        }
    }
}

fn amounts() -> impl Strategy<Value = (u128, u128, u128)> {
    (prop_oneof![1 => Just(0), 4 => 0u128..5000], 0u128..6000, prop_oneof![1 => Just(0), 4 => 0u128..7000])
}

proptest! {
    #[test]
    fn percentage_limits_fairshare_and_level_are_those_of_the_servers_formulas(
        amounts in [amounts(), amounts(), amounts()],
        weights in [1u128..500, 1u128..500, 1u128..500],
        carry in prop::option::of(0u8..=100),
        tenths in 0u128..10,
        billing in any::<bool>(),
    ) {
        let server = Server::new(&amounts, weights, carry.map(u128::from), tenths);
        let weight = |n: usize, per: i128| Exact::fraction(weights[n] as i128, 64 * per).unwrap();
        let policy = Policy {
            period: PeriodKind::Quarter,
            billing,
            weights: BillingWeights::from([
                ("CPU".to_owned(), weight(0, 1)),
                ("ram".to_owned(), weight(1, 1)),
                ("gpu".to_owned(), weight(2, 1)),
            ]),
            carryover_percent: carry,
            grace: Exact::fraction(tenths as i128, 10).unwrap(),
            ..policy()
        };
        let mut rules = rules();
        let billed = [(tres("cpu"), weight(0, 1)), (tres("mem"), weight(1, 1024)), (tres("gres/gpu"), weight(2, 1))];
        rules.partitions =
            Some(PartitionWeights { partitions: BTreeMap::from([("debug".to_owned(), billed.into())]) });
        let texts = amounts.map(|(base, _, _)| base.to_string());
        let granted = [("cpu", texts[0].as_str()), ("ram", texts[1].as_str()), ("gpu", texts[2].as_str())];
        let [cpu, ram, gpu] = amounts;
        let seen = decide(&policy, &granted, used(cpu.2, ram.2, gpu.2), used(cpu.1, ram.1, gpu.1), &rules);
        prop_assert_eq!(u128::from(seen.fairshare), server.fairshare());
        let limits = &seen.limits[&LimitType::GrpTRESMins];
        let minutes = |name: &str| u128::from(limits[&tres(name)]);
        if billing {
            let (used, total) = server.used_of_total(&amounts);
            let percent = Exact::fraction(100 * used as i128, total as i128);
            prop_assert_eq!(seen.percent, percent);
            prop_assert_eq!(seen.level, server.level(used, total));
            prop_assert_eq!(minutes("billing"), server.billing_minutes());
        } else {
            prop_assert_eq!(minutes("cpu"), server.component_minutes(0));
            prop_assert_eq!(minutes("gres/gpu"), server.component_minutes(2));
            // The server cuts GB-minutes off, the agent MB-minutes: never less, and by less than three GB-minutes more.
            let theirs = server.component_minutes(1) * 1024;
            prop_assert!((theirs..theirs + 3 * 1024).contains(&minutes("mem")), "{} {theirs}", minutes("mem"));
            // A component that was neither granted nor used says nothing.
            let said = amounts.iter().zip(&server.totals).filter(|(amount, total)| amount.2 > 0 || **total > 0);
            let levels = said.map(|(amount, total)| server.level(100 * amount.2, *total));
            prop_assert_eq!(seen.level, levels.max().unwrap_or(Blocked));
        }
    }
}
