//! `[[quota]]`: rules on submissions, use, jobs and shares of a site without any server for them, as the same domain types that
//! DataRobot's quotas become.

use std::collections::BTreeMap;

use super::accounts::changeable;
use super::document::{Item, Section};
use super::print::{Printer, exact_value, written};
use super::source::LOCAL_SOURCE;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, UserName};
use crate::core::quota::{
    CapacityUnits, Consumer, ConsumerKind, ConsumerPolicy, RateCapacity, RateQuota, Rule, RuleKind, Window,
};
use crate::core::quota_map::{RateMap, SourceQuotas};

/// From this share of the capacity on reserved shares count.
pub const SATURATION_THRESHOLD: (i128, i128) = (4, 5);
/// Capacity is counted in billing-minutes a minute.
pub const CAPACITY_UNITS: CapacityUnits = CapacityUnits::Token;
/// Largest number of a rule: 2^53, which every program keeps whole.
const NUMBER_MAX: u64 = 1 << 53;
/// Stands for every user of the account by itself.
const EACH_USER: &str = "*";

const RULES: [(&str, RuleKind); 4] = [
    ("requests", RuleKind::Requests),
    ("token", RuleKind::Token),
    ("concurrentRequests", RuleKind::ConcurrentRequests),
    ("inputSequenceLength", RuleKind::InputSequenceLength),
];
const WINDOWS: [(&str, Window); 3] = [("min", Window::Min), ("hour", Window::Hour), ("day", Window::Day)];
const UNITS: [(&str, CapacityUnits); 2] =
    [("requests", CapacityUnits::Requests), ("token", CapacityUnits::Token)];

/// Who a local quota is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalConsumer {
    /// The account as a whole.
    Account,
    /// One user of it.
    User(UserName),
    /// Every user of it, each by itself.
    EachUser,
}

/// One local quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalQuota {
    /// The account.
    pub account: AccountName,
    /// For people.
    pub name: String,
    /// Who it is for.
    pub consumer: LocalConsumer,
    /// Its rule, where it has one.
    pub rule: Option<Rule>,
    /// Share of the capacity that is reserved; 0 for none.
    pub reserved: Exact,
    /// What the cluster can do in a minute; 0 where no share is reserved.
    pub capacity: u64,
    /// What capacity is counted in.
    pub capacity_units: CapacityUnits,
    /// From this share of the capacity on reserved shares count.
    pub saturation_threshold: Exact,
}

impl LocalQuota {
    pub(super) fn read_all(root: &mut Section<'_>) -> Option<Vec<LocalQuota>> {
        root.sections("quota", LocalQuota::read)
    }

    fn read(section: &mut Section<'_>) -> Option<LocalQuota> {
        let account = section.required("account", account);
        let name = section.optional("name", Item::words);
        let consumer = section.optional("user", consumer);
        let kind = section.optional("rule", |item| item.one_of(&RULES));
        let limit = match &kind {
            Some(Some(_)) => section.required("limit", number).map(Some),
            _ => section.optional("limit", number),
        };
        let window = section.or("window", Window::default(), |item| item.one_of(&WINDOWS));
        let reserved = section.or("reserved", Exact::ZERO, share);
        let capacity = section.or("capacity", 0, number);
        let capacity_units = section.or("capacity_units", CAPACITY_UNITS, |item| item.one_of(&UNITS));
        let threshold = Exact::fraction(SATURATION_THRESHOLD.0, SATURATION_THRESHOLD.1);
        let threshold = threshold.expect("the constant's denominator is not 0");
        let saturation_threshold = section.or("saturation_threshold", threshold, share);
        let (account, consumer) = (account?, consumer?.unwrap_or(LocalConsumer::Account));
        let (kind, limit, window, reserved, capacity) = (kind?, limit?, window?, reserved?, capacity?);
        let rule = match (kind, limit) {
            (Some(kind), Some(limit)) => Some(Rule { kind, limit, window }),
            (None, Some(_)) => {
                return section
                    .wrong("it has a limit, but its rule is missing", "rule = \"requests\" or another");
            }
            (_, None) => None,
        };
        if rule.is_none() && reserved == Exact::ZERO {
            return section
                .wrong("its rule is missing", "a rule with its limit, or a reserved share, or both");
        }
        if reserved > Exact::ZERO && capacity == 0 {
            return section.wrong("a share is reserved, and the capacity is missing", "capacity above 0");
        }
        if reserved > Exact::ZERO && consumer == LocalConsumer::EachUser {
            return section
                .wrong("a share is reserved for each user", "a share for one user or for the account");
        }
        Some(LocalQuota {
            name: name?.unwrap_or_else(|| account.as_str().to_owned()),
            account,
            consumer,
            rule,
            reserved,
            capacity,
            capacity_units: capacity_units?,
            saturation_threshold: saturation_threshold?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.entry_of("quota");
        to.key("account", self.account.as_str());
        to.key("name", self.name.as_str());
        to.key(
            "user",
            match &self.consumer {
                LocalConsumer::Account => "",
                LocalConsumer::User(user) => user.as_str(),
                LocalConsumer::EachUser => EACH_USER,
            },
        );
        if let Some(rule) = &self.rule {
            to.key("rule", written(&RULES, rule.kind));
            to.number("limit", rule.limit);
            to.key("window", written(&WINDOWS, rule.window));
        }
        to.key("reserved", exact_value(self.reserved));
        to.number("capacity", self.capacity);
        to.key("capacity_units", written(&UNITS, self.capacity_units));
        to.key("saturation_threshold", exact_value(self.saturation_threshold));
    }

    /// The quota as a server would state it.
    fn stated(&self) -> RateQuota {
        let rules: Vec<Rule> = self.rule.into_iter().collect();
        let policy = |kind, id: &str| ConsumerPolicy {
            consumer: Consumer { kind, id: id.to_owned() },
            name: None,
            reserved: Some(self.reserved).filter(|reserved| *reserved > Exact::ZERO),
            rules: rules.clone(),
        };
        let (default_rules, policies) = match &self.consumer {
            LocalConsumer::EachUser => (rules.clone(), Vec::new()),
            LocalConsumer::Account => {
                (Vec::new(), vec![policy(ConsumerKind::Deployment, self.account.as_str())])
            }
            LocalConsumer::User(user) => (Vec::new(), vec![policy(ConsumerKind::User, user.as_str())]),
        };
        RateQuota {
            id: self.name.clone(),
            resource_id: self.account.to_string(),
            default_rules,
            policies,
            capacity: (self.capacity > 0)
                .then_some(RateCapacity { capacity: self.capacity, units: self.capacity_units }),
            saturation_threshold: Some(self.saturation_threshold),
            owner: LOCAL_SOURCE.to_owned(),
        }
    }
}

/// All local quotas as what one source says; `None` when there are none.
pub fn local_quotas(quotas: &[LocalQuota]) -> Option<SourceQuotas> {
    if quotas.is_empty() {
        return None;
    }
    let users = quotas.iter().filter_map(|quota| match &quota.consumer {
        LocalConsumer::User(user) => Some((user.to_string(), user.clone())),
        LocalConsumer::Account | LocalConsumer::EachUser => None,
    });
    let map = RateMap {
        resources: quotas.iter().map(|quota| (quota.account.to_string(), quota.account.clone())).collect(),
        users: users.collect(),
        groups: BTreeMap::new(),
    };
    Some(SourceQuotas::Rate { quotas: quotas.iter().map(LocalQuota::stated).collect(), map })
}

fn account(item: &Item<'_>) -> Option<AccountName> {
    changeable(item, "an account, never root")
}

fn consumer(item: &Item<'_>) -> Option<LocalConsumer> {
    if item.text()? == EACH_USER {
        return Some(LocalConsumer::EachUser);
    }
    item.parsed("a user, or \"*\" for every user by itself", UserName::parse).map(LocalConsumer::User)
}

fn number(item: &Item<'_>) -> Option<u64> {
    item.integer(0..=NUMBER_MAX)
}

fn share(item: &Item<'_>) -> Option<Exact> {
    let share = item.exact()?;
    if share > Exact::ONE {
        return item.wrong("it is a share, not a percentage", "from 0 to 1; 0.3 for 30 %");
    }
    Some(share)
}
