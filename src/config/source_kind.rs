//! What a `[[source]]` says: its protocol with the keys that this protocol alone has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::accounts::changeable;
use super::document::{Item, Section};
use super::print::{Printer, exact_value, written};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, UserName};
use crate::core::quota_map::{BudgetMap, BudgetUnit, ConcurrencyMap, Member, RateMap};
use crate::core::tres::Tres;

/// Longest time that Nomad may hold an answer; its own default.
pub const WAIT: Duration = Duration::from_secs(300);
/// The region that a Nomad has when nobody gives it another name.
pub const REGION: &str = "global";

/// Nomad grants at most ten minutes; less than a second would be polling.
const WAIT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
const UNITS: [(&str, BudgetUnit); 3] =
    [("seconds", BudgetUnit::Seconds), ("minutes", BudgetUnit::Minutes), ("hours", BudgetUnit::Hours)];

/// Protocol of a source as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    WaldurPolicy,
    WaldurQuota,
    Nomad,
    DataRobot,
}

impl Protocol {
    const WORDS: [(&'static str, Protocol); 4] = [
        ("waldur-policy", Protocol::WaldurPolicy),
        ("waldur-quota", Protocol::WaldurQuota),
        ("nomad", Protocol::Nomad),
        ("datarobot", Protocol::DataRobot),
    ];

    /// The keys that only some protocols have.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Protocol::WaldurPolicy => &["offering", "enforcement"],
            Protocol::WaldurQuota => &["accounts", "tres", "unit"],
            Protocol::Nomad => {
                &["accounts", "region", "mhz_per_core", "devices", "node_pools", "shared", "prefix", "wait"]
            }
            Protocol::DataRobot => &["resources", "users", "groups"],
        }
    }
}

/// Protocol of a source, and what it needs to know for it.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// Waldur's SLURM periodic usage policies.
    WaldurPolicy(PolicySource),
    /// Waldur's quotas: budgets.
    WaldurQuota(BudgetMap),
    /// Nomad's quotas: what may be in use at one time.
    Nomad(NomadSource),
    /// DataRobot's quotas: rules over rolling windows.
    DataRobot(RateMap),
}

/// Where the policies are, and whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Uuid of the offering whose resources live on this cluster, as written.
    pub offering: String,
    /// Whose word counts.
    pub enforcement: Enforcement,
}

/// What of a Nomad is followed, and what it means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NomadSource {
    /// What its words mean on this cluster.
    pub map: ConcurrencyMap,
    /// Only quotas whose names begin with it; empty: all.
    pub prefix: String,
    /// Longest time that the server may hold an answer.
    pub wait: Duration,
}

/// Whose word counts where the agent's decision and the server's differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// The agent's own decision alone.
    Agent,
    /// The server's flags and commands alone.
    Server,
    /// Both: the stricter wins in every field.
    #[default]
    Strictest,
}

impl Enforcement {
    /// Every choice as it is written.
    pub const WORDS: [(&'static str, Enforcement); 3] = [
        ("agent", Enforcement::Agent),
        ("server", Enforcement::Server),
        ("strictest", Enforcement::Strictest),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        written(&Self::WORDS, self)
    }
}

impl SourceKind {
    /// As it is written.
    pub fn as_str(&self) -> &'static str {
        written(&Protocol::WORDS, self.protocol())
    }

    fn protocol(&self) -> Protocol {
        match self {
            SourceKind::WaldurPolicy(_) => Protocol::WaldurPolicy,
            SourceKind::WaldurQuota(_) => Protocol::WaldurQuota,
            SourceKind::Nomad(_) => Protocol::Nomad,
            SourceKind::DataRobot(_) => Protocol::DataRobot,
        }
    }

    /// Reads `kind` and its own keys; those of other kinds are refused by name.
    pub(super) fn read(section: &mut Section<'_>, offerings: &mut BTreeSet<Uuid>) -> Option<SourceKind> {
        let protocol = section.required("kind", |item| item.one_of(&Protocol::WORDS));
        let mine = protocol.map_or(&[][..], Protocol::keys);
        for (_, other) in Protocol::WORDS {
            for key in other.keys().iter().filter(|key| !mine.contains(key)) {
                match protocol {
                    Some(protocol) => section.misplaced(key, || {
                        let kind = written(&Protocol::WORDS, protocol);
                        let reason = format!("a source of kind {kind:?} has no such key");
                        (reason, format!("its own keys are {}", mine.join(", ")))
                    }),
                    None => section.not_read(key),
                }
            }
        }
        match protocol? {
            Protocol::WaldurPolicy => PolicySource::read(section, offerings).map(SourceKind::WaldurPolicy),
            Protocol::WaldurQuota => read_budget(section).map(SourceKind::WaldurQuota),
            Protocol::Nomad => NomadSource::read(section).map(SourceKind::Nomad),
            Protocol::DataRobot => read_rate(section).map(SourceKind::DataRobot),
        }
    }

    /// The keys that this kind alone has.
    pub(super) fn print(&self, to: &mut Printer) {
        match self {
            SourceKind::WaldurPolicy(source) => {
                to.key("offering", source.offering.as_str());
                to.key("enforcement", source.enforcement.as_str());
            }
            SourceKind::WaldurQuota(map) => {
                to.key("accounts", texts(&map.accounts, AccountName::as_str));
                to.key("tres", texts(&map.tres, Tres::as_str));
                to.key("unit", written(&UNITS, map.unit));
            }
            SourceKind::Nomad(source) => source.print(to),
            SourceKind::DataRobot(map) => {
                to.key("resources", texts(&map.resources, AccountName::as_str));
                to.key("users", texts(&map.users, UserName::as_str));
                let members = |members: &Vec<Member>| members.iter().map(member_text).collect::<Vec<_>>();
                let groups = map.groups.iter().map(|(name, all)| (name.clone(), members(all).into()));
                to.key("groups", toml::Value::Table(groups.collect()));
            }
        }
    }
}

impl PolicySource {
    fn read(section: &mut Section<'_>, offerings: &mut BTreeSet<Uuid>) -> Option<PolicySource> {
        let offering = section.required("offering", |item| new_offering(item, offerings));
        let enforcement =
            section.or("enforcement", Enforcement::default(), |item| item.one_of(&Enforcement::WORDS));
        Some(PolicySource { offering: offering?, enforcement: enforcement? })
    }
}

impl NomadSource {
    fn read(section: &mut Section<'_>) -> Option<NomadSource> {
        let accounts = section.required("accounts", |item| {
            accounts(item, "names of quotas with their accounts, such as { research = \"bio42\" }")
        });
        let region = section.or("region", REGION.to_owned(), Item::words);
        let mhz_per_core = section.optional("mhz_per_core", mhz_per_core);
        let devices = section.or("devices", BTreeMap::new(), |item| by_name(item, tres));
        let node_pools =
            section.or("node_pools", BTreeMap::new(), |item| by_name(item, |entry| entry.words()));
        let shared = section.or("shared", false, Item::boolean);
        let prefix = section.or("prefix", String::new(), quota_prefix);
        let wait = section.or("wait", WAIT, |item| item.duration(WAIT_RANGE.0..=WAIT_RANGE.1));
        let map = ConcurrencyMap {
            accounts: accounts?,
            region: region?,
            mhz_per_core: mhz_per_core?,
            devices: devices?,
            node_pools: node_pools?,
            shared_with_nomad: shared?,
        };
        let (prefix, wait) = (prefix?, wait?);
        if let Some(name) = map.accounts.keys().find(|name| !name.starts_with(&prefix)) {
            return section.wrong(
                format!(
                    "quota {name:?} of accounts does not begin with the prefix {prefix:?}: it is never seen"
                ),
                "a prefix that all quotas of accounts begin with, or none",
            );
        }
        Some(NomadSource { map, prefix, wait })
    }

    fn print(&self, to: &mut Printer) {
        let map = &self.map;
        to.key("accounts", texts(&map.accounts, AccountName::as_str));
        to.key("region", map.region.as_str());
        match map.mhz_per_core {
            Some(mhz) => to.key("mhz_per_core", exact_value(mhz)),
            None => to.key("mhz_per_core", ""),
        }
        to.key("devices", texts(&map.devices, Tres::as_str));
        to.key("node_pools", texts(&map.node_pools, |partition| partition.as_str()));
        to.key("shared", map.shared_with_nomad);
        to.key("prefix", self.prefix.as_str());
        to.duration("wait", self.wait);
    }
}

fn read_budget(section: &mut Section<'_>) -> Option<BudgetMap> {
    let defaults = BudgetMap::default();
    let accounts = section.or("accounts", defaults.accounts, |item| by_name(item, account));
    let tres = section.or("tres", defaults.tres, |item| {
        let read = by_name(item, tres)?;
        if read.is_empty() {
            return item.wrong("no quota would mean anything", "names of quotas with their TRES");
        }
        Some(read)
    });
    let unit = section.or("unit", defaults.unit, |item| item.one_of(&UNITS));
    Some(BudgetMap { accounts: accounts?, tres: tres?, unit: unit? })
}

fn read_rate(section: &mut Section<'_>) -> Option<RateMap> {
    let resources = section.required("resources", |item| {
        accounts(item, "ids of deployments with their accounts, such as { \"65f0c2\" = \"bio42\" }")
    });
    let users = section.or("users", BTreeMap::new(), |item| {
        by_name(item, |entry| entry.parsed("the name of a user", UserName::parse))
    });
    let groups = section.or("groups", BTreeMap::new(), |item| by_name(item, |entry| entry.list(member)));
    Some(RateMap { resources: resources?, users: users?, groups: groups? })
}

/// Values by the server's own names.
fn by_name<T>(item: &Item<'_>, mut read: impl FnMut(&Item<'_>) -> Option<T>) -> Option<BTreeMap<String, T>> {
    let entries = item.entries(|name, entry| {
        if name.is_empty() || name.chars().any(char::is_control) {
            return entry.wrong("the name is empty or contains a control character", "a name");
        }
        Some((name.to_owned(), read(entry)?))
    })?;
    Some(entries.into_iter().collect())
}

/// Accounts by name, at least one: a source that governs no account has no use.
fn accounts(item: &Item<'_>, allowed: &str) -> Option<BTreeMap<String, AccountName>> {
    let read = by_name(item, account)?;
    if read.is_empty() {
        return item.wrong("no account is named: nothing would ever come of this source", allowed);
    }
    Some(read)
}

fn account(item: &Item<'_>) -> Option<AccountName> {
    changeable(item, "the name of an account that may be changed")
}

fn tres(item: &Item<'_>) -> Option<Tres> {
    item.parsed("a TRES that `sacctmgr show tres` shows, such as \"gres/gpu\"", Tres::parse)
}

fn mhz_per_core(item: &Item<'_>) -> Option<Exact> {
    let mhz = item.exact()?;
    if mhz == Exact::ZERO {
        return item.wrong("a core has some MHz", "the MHz of one core, such as 2500");
    }
    Some(mhz)
}

/// The beginning of a quota's name.
fn quota_prefix(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return item.wrong("no quota of Nomad begins like this", "letters, digits and dashes");
    }
    Some(text.to_owned())
}

fn member(item: &Item<'_>) -> Option<Member> {
    const ALLOWED: &str = "\"account:NAME\" or \"user:NAME\"";
    match item.text()?.split_once(':') {
        Some(("account", _)) => item
            .parsed(ALLOWED, |text| AccountName::parse(text.trim_start_matches("account:")))
            .map(Member::Account),
        Some(("user", _)) => {
            item.parsed(ALLOWED, |text| UserName::parse(text.trim_start_matches("user:"))).map(Member::User)
        }
        _ => item.wrong("it does not say whether it is an account or a user", ALLOWED),
    }
}

fn member_text(member: &Member) -> String {
    match member {
        Member::Account(account) => format!("account:{account}"),
        Member::User(user) => format!("user:{user}"),
    }
}

/// Texts by name as an inline table.
fn texts<T>(values: &BTreeMap<String, T>, text: impl Fn(&T) -> &str) -> toml::Value {
    toml::Value::Table(values.iter().map(|(name, value)| (name.clone(), text(value).into())).collect())
}

fn new_offering(item: &Item<'_>, offerings: &mut BTreeSet<Uuid>) -> Option<String> {
    const ALLOWED: &str = "the offering's uuid, 32 hexadecimal digits with or without dashes";
    let uuid = item.parsed(ALLOWED, |text| match text.len() {
        32 | 36 => Uuid::try_parse(text).map_err(|_| "this is not a uuid"),
        _ => Err("this is not a uuid"),
    })?;
    if !offerings.insert(uuid) {
        return item.wrong("another source has this offering: its commands would be acted on twice", ALLOWED);
    }
    item.text().map(str::to_owned)
}
