//! A small site that the tests of this folder share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::allocation::Allocation;
use crate::core::association::{Observed, ObservedAccount, ObservedAssociation, Share, TresLimits};
use crate::core::component::{Component, Components, Unit};
use crate::core::evaluate::{Lever, PartitionWeights, QosRules, Rules, Rung, UsageFacts};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, QosName, SourceName};
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::{Actions, LimitType, Policy, QosStrategy, default_weights};
use crate::core::time::Epoch;
use crate::core::tres::{Tres, TresSeconds};

pub fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

pub fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

pub fn qos(name: &str) -> QosName {
    QosName::parse(name).unwrap()
}

pub fn tres(name: &str) -> Tres {
    Tres::parse(name).unwrap()
}

pub fn qos_rules() -> QosRules {
    QosRules {
        normal: qos("normal"),
        slowdown: qos("slowdown"),
        blocked: qos("blocked"),
        ladder: vec![
            Rung { percent: exact("50"), qos: qos("low") },
            Rung { percent: exact("100"), qos: qos("lower") },
        ],
        lever: Lever::Qos,
    }
}

pub fn rules() -> Rules {
    let component = |name: &str, of: &str, unit| (name.to_owned(), Component { tres: tres(of), unit });
    Rules {
        components: Components(BTreeMap::from([
            component("cpu", "cpu", Unit::H),
            component("ram", "mem", Unit::GbH),
            component("gpu", "gres/gpu", Unit::H),
        ])),
        qos: qos_rules(),
        // Slurm's own weights equal the defaults: memory per MB is 1/512/1024.
        partitions: Some(PartitionWeights {
            partitions: BTreeMap::from([(
                "debug".to_owned(),
                BTreeMap::from([
                    (tres("cpu"), exact("1/64")),
                    (tres("mem"), exact("1/524288")),
                    (tres("gres/gpu"), exact("1/4")),
                ]),
            )]),
        }),
    }
}

pub fn policy() -> Policy {
    Policy {
        source: SourceName::parse("waldur").unwrap(),
        id: "p1".into(),
        name: "policy".into(),
        period: PeriodKind::Month,
        limit_type: LimitType::GrpTRESMins,
        billing: true,
        weights: default_weights(),
        carryover_percent: None,
        grace: exact("0.2"),
        raw_usage_reset: true,
        strategy: QosStrategy::Threshold,
        actions: Actions { downscale: true, pause: true, notify: true, ..Actions::default() },
        component_limits: Default::default(),
        warnings: Vec::new(),
    }
}

pub fn allocation(limits: &[(&str, &str)]) -> Allocation {
    Allocation {
        source: SourceName::parse("waldur").unwrap(),
        id: "r1".into(),
        name: "resource".into(),
        account: account("bio"),
        limits: limits.iter().map(|(name, amount)| ((*name).to_owned(), exact(amount))).collect(),
        paused: false,
        downscaled: false,
    }
}

/// Hours of cpu and gpu, GB-hours of memory.
pub fn used(cpu_h: u128, ram_gbh: u128, gpu_h: u128) -> TresSeconds {
    TresSeconds(BTreeMap::from([
        (tres("cpu"), cpu_h * 3600),
        (tres("mem"), ram_gbh * 3600 * 1024),
        (tres("gres/gpu"), gpu_h * 3600),
    ]))
}

pub fn facts(current: TresSeconds, previous: TresSeconds) -> UsageFacts {
    UsageFacts { current, previous }
}

pub fn november() -> Period {
    Period::containing(PeriodKind::Month, Epoch(1_794_000_000), &jiff::tz::TimeZone::UTC).unwrap()
}

pub fn row(list: &[&str]) -> ObservedAssociation {
    ObservedAssociation {
        share: Share::Number(1),
        limits: TresLimits::new(),
        jobs: Default::default(),
        qos: list.iter().map(|name| qos(name)).collect(),
        qos_is_own: true,
        default_qos: list.first().map(|name| qos(name)),
        default_qos_is_own: true,
    }
}

pub fn observed(accounts: &[(&str, &str)]) -> Observed {
    let mut all = BTreeMap::from([(
        account("root"),
        ObservedAccount {
            account: account("root"),
            parent: None,
            row: row(&["normal"]).into(),
            users: Vec::new(),
        },
    )]);
    for (name, parent) in accounts {
        all.insert(
            account(name),
            ObservedAccount {
                account: account(name),
                parent: Some(account(parent)),
                row: row(&["normal"]).into(),
                users: Vec::new(),
            },
        );
    }
    Observed { accounts: all, rejected: 0, ..Observed::default() }
}

/// The row of an account, to be changed.
pub fn row_of<'a>(observed: &'a mut Observed, name: &str) -> &'a mut ObservedAssociation {
    Arc::make_mut(&mut observed.accounts.get_mut(&account(name)).unwrap().row)
}

pub fn names(list: &[&str]) -> BTreeSet<QosName> {
    list.iter().map(|name| qos(name)).collect()
}
