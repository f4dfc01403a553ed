//! `[[allocation]]`: budgets of a site without a server, as the same domain types that a server's become.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::accounts::changeable;
use super::document::{Item, Section};
use super::print::{Printer, exact_table, exact_value, written};
use super::source::LOCAL_SOURCE;
use crate::core::allocation::Allocation;
use crate::core::component::Components;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::period::PeriodKind;
use crate::core::policy::{Actions, LimitType, Policy, QosStrategy, default_weights};
use crate::core::small_map::SmallMap;
use crate::core::tres::BillingWeights;

/// A budget for each quarter, as the server's own default.
pub const PERIOD: PeriodKind = PeriodKind::Quarter;
/// The limit that holds a budget of TRES-minutes.
pub const LIMIT_TYPE: LimitType = LimitType::GrpTRESMins;
/// The server's default: 20 % above the budget are tolerated.
pub const GRACE: (i128, i128) = (1, 5);
/// The server's default: half of the budget may be carried over.
pub const CARRYOVER_PERCENT: u8 = 50;
/// More than this is no grace but a mistake of a ratio for a percentage.
const GRACE_MAX: i128 = 10;

const PERIODS: [(&str, PeriodKind); 4] = [
    ("month", PeriodKind::Month),
    ("quarter", PeriodKind::Quarter),
    ("year", PeriodKind::Year),
    ("total", PeriodKind::Total),
];
const STRATEGIES: [(&str, QosStrategy); 2] =
    [("threshold", QosStrategy::Threshold), ("progressive", QosStrategy::Progressive)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Downscale,
    Pause,
    Notify,
}

const ACTIONS: [(&str, Action); 3] =
    [("downscale", Action::Downscale), ("pause", Action::Pause), ("notify", Action::Notify)];

/// One budget with its policy; source `local`, ids `local:ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAllocation {
    /// The budget.
    pub allocation: Arc<Allocation>,
    /// Its rules.
    pub policy: Arc<Policy>,
}

/// What is written besides account and name.
struct Rules {
    limits: SmallMap<String, Exact>,
    period: PeriodKind,
    limit_type: LimitType,
    grace: Exact,
    billing: bool,
    weights: BillingWeights,
    carryover_percent: u8,
    raw_usage_reset: bool,
    strategy: QosStrategy,
    actions: Vec<Action>,
}

impl LocalAllocation {
    /// `components`: those of the configuration; `None` when they could not be read, then names are not checked.
    pub(super) fn read_all(
        root: &mut Section<'_>,
        components: Option<&Components>,
    ) -> Option<Vec<LocalAllocation>> {
        let mut accounts = BTreeSet::new();
        root.sections("allocation", |section| {
            let account = section.required("account", |item| new_account(item, &mut accounts));
            let name = section.optional("name", Item::words);
            let rules = Rules::read(section, components);
            let (account, rules) = (account?, rules?);
            let name = name?.unwrap_or_else(|| account.as_str().to_owned());
            Some(LocalAllocation::of(account, name, rules))
        })
    }

    fn of(account: AccountName, name: String, rules: Rules) -> LocalAllocation {
        let source = SourceName::parse(LOCAL_SOURCE).expect("the constant is a name");
        let id = format!("{LOCAL_SOURCE}:{account}");
        let does = |action| rules.actions.contains(&action);
        let policy = Policy {
            source: source.clone(),
            id: id.clone(),
            name: name.clone(),
            period: rules.period,
            limit_type: rules.limit_type,
            billing: rules.billing,
            weights: rules.weights,
            carryover_percent: (rules.carryover_percent > 0).then_some(rules.carryover_percent),
            grace: rules.grace,
            raw_usage_reset: rules.raw_usage_reset,
            strategy: rules.strategy,
            actions: Actions {
                downscale: does(Action::Downscale),
                pause: does(Action::Pause),
                notify: does(Action::Notify),
                ..Actions::default()
            },
            component_limits: SmallMap::new(),
            warnings: Vec::new(),
        };
        let allocation =
            Allocation { source, id, name, account, limits: rules.limits, paused: false, downscaled: false };
        LocalAllocation { allocation: Arc::new(allocation), policy: Arc::new(policy) }
    }

    pub(super) fn print(&self, to: &mut Printer) {
        let (allocation, policy) = (&self.allocation, &self.policy);
        to.entry_of("allocation");
        to.key("account", allocation.account.as_str());
        to.key("name", allocation.name.as_str());
        to.key("limits", exact_table(&allocation.limits));
        to.key("period", written(&PERIODS, policy.period));
        to.key("limit_type", policy.limit_type.as_str());
        to.key("grace", exact_value(policy.grace));
        to.key("billing", policy.billing);
        to.key("weights", exact_table(&policy.weights));
        to.number("carryover_percent", policy.carryover_percent.unwrap_or(0).into());
        to.key("raw_usage_reset", policy.raw_usage_reset);
        to.key("qos_strategy", written(&STRATEGIES, policy.strategy));
        let actions = [
            (policy.actions.downscale, Action::Downscale),
            (policy.actions.pause, Action::Pause),
            (policy.actions.notify, Action::Notify),
        ];
        let actions = actions.into_iter().filter(|(on, _)| *on).map(|(_, action)| written(&ACTIONS, action));
        to.key("actions", actions.map(toml::Value::from).collect::<Vec<_>>());
    }
}

impl Rules {
    fn read(section: &mut Section<'_>, components: Option<&Components>) -> Option<Rules> {
        let limits = section.required("limits", |item| read_limits(item, components));
        let period = section.or("period", PERIOD, |item| item.one_of(&PERIODS));
        let limit_type = section.or("limit_type", LIMIT_TYPE, |item| {
            item.one_of(&LimitType::ALL.map(|kind| (kind.as_str(), kind)))
        });
        let default_grace = Exact::fraction(GRACE.0, GRACE.1).expect("the constant's denominator is not 0");
        let grace = section.or("grace", default_grace, read_grace);
        let billing = section.or("billing", true, Item::boolean);
        let weights = section.or("weights", default_weights(), read_weights);
        let carryover_percent =
            section.or("carryover_percent", CARRYOVER_PERCENT, |item| item.integer(0..=100));
        let raw_usage_reset = section.or("raw_usage_reset", true, Item::boolean);
        let strategy = section.or("qos_strategy", QosStrategy::Threshold, |item| item.one_of(&STRATEGIES));
        let every_action = ACTIONS.map(|(_, action)| action).to_vec();
        let actions = section.or("actions", every_action, |item| item.list(|entry| entry.one_of(&ACTIONS)));
        Some(Rules {
            limits: limits?,
            period: period?,
            limit_type: limit_type?,
            grace: grace?,
            billing: billing?,
            weights: weights?,
            carryover_percent: carryover_percent?,
            raw_usage_reset: raw_usage_reset?,
            strategy: strategy?,
            actions: actions?,
        })
    }
}

fn new_account(item: &Item<'_>, accounts: &mut BTreeSet<AccountName>) -> Option<AccountName> {
    const ALLOWED: &str = "an account that no other [[allocation]] has, never root";
    let account = changeable(item, ALLOWED)?;
    if !accounts.insert(account.clone()) {
        return item.wrong("this account has another [[allocation]]", ALLOWED);
    }
    Some(account)
}

fn read_limits(item: &Item<'_>, components: Option<&Components>) -> Option<SmallMap<String, Exact>> {
    let mut limits = SmallMap::new();
    item.entries(|name, entry| {
        let amount = entry.exact();
        let folded = name.to_ascii_lowercase();
        if let Some(components) = components
            && components.get(&folded).is_none()
        {
            let known = components.0.keys().cloned().collect::<Vec<_>>().join(", ");
            return entry.wrong("no such component is in [components]", known);
        }
        match limits.insert(folded, amount?) {
            None => Some(()),
            Some(_) => entry
                .wrong("this component is there twice; letter case does not count", "one amount for each"),
        }
    })?;
    if limits.is_empty() {
        return item.wrong("nothing is granted", "at least one amount, such as { cpu = 1000 }");
    }
    Some(limits)
}

fn read_grace(item: &Item<'_>) -> Option<Exact> {
    let grace = item.exact()?;
    if grace > Exact::whole(GRACE_MAX) {
        return item.wrong("it is a ratio, not a percentage", format!("from 0 to {GRACE_MAX}; 0.2 for 20 %"));
    }
    Some(grace)
}

fn read_weights(item: &Item<'_>) -> Option<BillingWeights> {
    let weights = item.entries(|name, entry| {
        if name.is_empty() || name.chars().any(char::is_control) {
            return entry.wrong("this cannot be the name of a component", "such as CPU, Mem or \"GRES/gpu\"");
        }
        Some((name.to_owned(), entry.exact()?))
    })?;
    Some(weights.into_iter().collect())
}
