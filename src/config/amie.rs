//! `[amie]`: usage records for ACCESS (AMIE).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use url::Url;

use super::document::{Item, Section};
use super::print::{Printer, exact_table, exact_value, written};
use super::secret::SecretSource;
use super::source::{TIMEOUT, api_url, proxy_url, timeout};
use crate::core::amie::{Basis, ChargeRule, Corrections, Mapping, RefundRule, Reporting};
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::time::{Epoch, Window};
use crate::core::tres::Tres;

mod storage;

pub use storage::{ReportSource, StorageReport};

/// The production server.
pub const URL: &str = "https://usage.access-ci.org/api/v1/";
/// Most bytes of one message: below the 256 KB of which the server's guide speaks.
pub const BATCH_BYTES_MAX: usize = 192 << 10;
/// Most records of one message, as the server's guide says.
pub const BATCH_RECORDS_MAX: usize = 1000;
/// Records are processed within minutes; nobody waits for the answer.
pub const READ_BACK: Duration = Duration::from_secs(15 * 60);
/// Three years, so that a year and the one before it can still be compared with what ACCESS has.
pub const KEEP_RECORDS: Duration = Duration::from_secs(1100 * 86_400);
/// How jobs end that a maintenance ends.
pub const MAINTENANCE_STATES: [&str; 4] = ["CANCELLED", "FAILED", "NODE_FAIL", "TIMEOUT"];
/// What a refund for them says.
pub const MAINTENANCE_COMMENT: &str = "the job was ended by a maintenance";

/// The usage API of AMIE.
#[derive(Debug, Clone, PartialEq)]
pub struct Amie {
    /// Base of the API; ends with a slash.
    pub url: Url,
    /// Header XA-SITE.
    pub site: String,
    /// Where the key for XA-API-KEY lies.
    pub key: SecretSource,
    /// Certificates (PEM) trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy for this server only.
    pub proxy: Option<Url>,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// LocalProjectID of each account whose jobs are reported.
    pub projects: BTreeMap<AccountName, String>,
    /// Username of users whose name is another one there; all others keep theirs.
    pub users: BTreeMap<String, String>,
    /// Resource of partitions that are not in `resources`.
    pub resource: String,
    /// Resource by partition.
    pub resources: BTreeMap<String, String>,
    /// Most bytes of one message.
    pub batch_bytes_max: usize,
    /// Most records of one message.
    pub batch_records_max: usize,
    /// Jobs that ended earlier (midnight in the cluster's time zone) are not reported; `None`: all in the ledger.
    pub since: Option<Date>,
    /// Template of the LocalProjectID by pattern of accounts.
    pub patterns: BTreeMap<String, String>,
    /// Under which key of their metadata the server's resources carry the LocalProjectID; `None`: they do not.
    pub project_metadata: Option<String>,
    /// How long settled records are kept; never shorter than jobs are.
    pub keep_records: Duration,
    /// Patterns of accounts that are never reported.
    pub exclude: Vec<String>,
    /// Whether the (cleaned) names of jobs are reported.
    pub job_names: bool,
    /// What becomes of records whose job changed after they had been sent.
    pub corrections: Corrections,
    /// How often the server is asked what became of the records.
    pub read_back: Duration,
    /// Jobs that ended in one of these states get their charge back.
    pub refund_states: Vec<String>,
    /// Windows in which ended jobs get their charge back.
    pub maintenance: Vec<Maintenance>,
    /// What jobs cost, the later entries first; without any, billing-hours.
    pub charges: Vec<Charge>,
    /// Reports of what users and projects store.
    pub storage: Vec<StorageReport>,
}

/// One window of maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// Its first second and the first after it.
    pub window: Window,
    /// States of the jobs that are meant.
    pub states: Vec<String>,
    /// What the refund says.
    pub comment: String,
}

/// One price and the day from which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Jobs that end on this day or later; `None`: all.
    pub since: Option<Date>,
    /// The price; its own `since` is not used here.
    pub rule: ChargeRule,
}

const CORRECTIONS: [(&str, Corrections); 2] =
    [("restate", Corrections::Restate), ("adjust", Corrections::Adjust)];

/// The word for a basis; `tres` has its weights beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BasisWord {
    Billing,
    Nodes,
    Tres,
}

const BASES: [(&str, BasisWord); 3] =
    [("billing", BasisWord::Billing), ("nodes", BasisWord::Nodes), ("tres", BasisWord::Tres)];

impl Amie {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Amie> {
        let default_url = Url::parse(URL).expect("the default is a url");
        let url = section.or("url", default_url, api_url);
        let site = section.required("site", header_text);
        let key = SecretSource::from_section(section, "key_file", "key_credential");
        let ca_file = section.optional("ca_file", Item::absolute_path);
        let proxy = section.optional("proxy", proxy_url);
        let timeout = section.or("timeout", TIMEOUT, timeout);
        let resource = section.required("resource", Item::words);
        let since = section.optional("since", date);
        // The documented 768 KiB of the public client must be settable, and nothing near the server's 1024 KiB.
        let batch_bytes_max =
            section.or("batch_bytes_max", BATCH_BYTES_MAX, |item| item.integer(4 << 10..=1000 << 10));
        let batch_records_max =
            section.or("batch_records_max", BATCH_RECORDS_MAX, |item| item.integer(1..=100_000));
        let projects = section.or("projects", BTreeMap::new(), read_projects);
        let users = section.or("users", BTreeMap::new(), texts);
        let resources = section.or("resources", BTreeMap::new(), texts);
        let patterns = section.or("patterns", BTreeMap::new(), read_patterns);
        let project_metadata = section.optional("project_metadata", Item::words);
        let keep_records = section.or("keep_records", KEEP_RECORDS, |item| {
            item.duration(Duration::from_secs(190 * 86_400)..=Duration::from_secs(36_600 * 86_400))
        });
        let exclude = section.or("exclude", Vec::new(), |item| item.list(pattern));
        let job_names = section.or("job_names", false, Item::boolean);
        let corrections = section.or("corrections", Corrections::Restate, |item| item.one_of(&CORRECTIONS));
        let read_back = section.or("read_back", READ_BACK, |item| {
            item.duration(Duration::ZERO..=Duration::from_secs(7 * 86_400))
        });
        let refund_states = section.or("refund_states", Vec::new(), |item| item.list(state));
        let maintenance = section.sections("maintenance", Maintenance::read);
        let charges = section.sections("charge", Charge::read);
        let storage = section.sections("storage", StorageReport::read);
        let storage = storage.and_then(|storage| storage::distinct(section, storage));
        Some(Amie {
            patterns: patterns?,
            project_metadata: project_metadata?,
            keep_records: keep_records?,
            exclude: exclude?,
            job_names: job_names?,
            corrections: corrections?,
            read_back: read_back?,
            refund_states: refund_states?,
            maintenance: maintenance?,
            charges: charges?,
            storage: storage?,
            url: url?,
            site: site?,
            key: key?,
            ca_file: ca_file?,
            proxy: proxy?,
            timeout: timeout?,
            projects: projects?,
            users: users?,
            resource: resource?,
            resources: resources?,
            batch_bytes_max: batch_bytes_max?,
            batch_records_max: batch_records_max?,
            since: since?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("amie");
        to.key("url", self.url.as_str());
        to.key("site", self.site.as_str());
        to.secret("key", &self.key);
        to.optional_path("ca_file", self.ca_file.as_deref());
        to.key("proxy", self.proxy.as_ref().map_or("", Url::as_str));
        to.duration("timeout", self.timeout);
        to.key("resource", self.resource.as_str());
        to.key("since", self.since.map_or(String::new(), |date| date.to_string()));
        to.number("batch_bytes_max", self.batch_bytes_max as u64);
        to.number("batch_records_max", self.batch_records_max as u64);
        to.key("project_metadata", self.project_metadata.as_deref().unwrap_or(""));
        to.duration("keep_records", self.keep_records);
        to.key("exclude", text_list(&self.exclude));
        to.key("job_names", self.job_names);
        to.key("corrections", written(&CORRECTIONS, self.corrections));
        to.duration("read_back", self.read_back);
        to.key("refund_states", text_list(&self.refund_states));
        to.table("amie.projects");
        for (account, project) in &self.projects {
            to.key(account.as_str(), project.as_str());
        }
        for (name, texts) in [
            ("amie.patterns", &self.patterns),
            ("amie.users", &self.users),
            ("amie.resources", &self.resources),
        ] {
            to.table(name);
            for (key, value) in texts {
                to.key(key, value.as_str());
            }
        }
        self.charges.iter().for_each(|charge| charge.print(to));
        self.maintenance.iter().for_each(|window| window.print(to));
        self.storage.iter().for_each(|report| report.print(to));
    }

    /// The rules of reports, with days turned into midnights of a time zone.
    pub fn reporting(&self, zone: &TimeZone) -> Reporting {
        let midnight = |date: Option<Date>, otherwise: Epoch| {
            let zoned = date.and_then(|date| date.to_zoned(zone.clone()).ok());
            zoned.map_or(otherwise, |zoned| Epoch(zoned.timestamp().as_second()))
        };
        let failures = (!self.refund_states.is_empty()).then(|| RefundRule {
            states: self.refund_states.clone(),
            window: None,
            comment: "the job was ended by a failure of the system".to_owned(),
        });
        let windows = self.maintenance.iter().map(|maintenance| RefundRule {
            states: maintenance.states.clone(),
            window: Some(maintenance.window),
            comment: maintenance.comment.clone(),
        });
        Reporting {
            mapping: Mapping {
                projects: self.projects.clone(),
                granted: BTreeMap::new(),
                patterns: self.patterns.clone(),
                exclude: self.exclude.clone(),
                users: self.users.clone(),
                resource: self.resource.clone(),
                resources: self.resources.clone(),
            },
            charges: self
                .charges
                .iter()
                .map(|charge| ChargeRule {
                    since: midnight(charge.since, Epoch(i64::MIN)),
                    ..charge.rule.clone()
                })
                .collect(),
            refunds: failures.into_iter().chain(windows).collect(),
            since: midnight(self.since, Epoch(i64::MIN)),
        }
    }
}

impl Maintenance {
    fn read(section: &mut Section<'_>) -> Option<Maintenance> {
        let from = section.required("from", instant);
        let until = section.required("until", instant);
        let standard = MAINTENANCE_STATES.map(str::to_owned).to_vec();
        let states = section.or("states", standard, |item| item.list(state));
        let comment = section.or("comment", MAINTENANCE_COMMENT.to_owned(), Item::words);
        let window = Window::new(from?, until?);
        if window.seconds() == 0 {
            return section.wrong("until is not after from", "a window with at least one second");
        }
        Some(Maintenance { window, states: states?, comment: comment? })
    }

    fn print(&self, to: &mut Printer) {
        to.entry_of("amie.maintenance");
        to.key("from", self.window.from.to_string());
        to.key("until", self.window.until.to_string());
        to.key("states", text_list(&self.states));
        to.key("comment", self.comment.as_str());
    }
}

impl Charge {
    fn read(section: &mut Section<'_>) -> Option<Charge> {
        let since = section.optional("since", date);
        let resource = section.optional("resource", Item::words);
        let basis = section.or("basis", BasisWord::Billing, |item| item.one_of(&BASES));
        let weights = section.or("weights", BTreeMap::new(), exacts);
        let factor = section.or("factor", Exact::ONE, Item::exact);
        let partitions = section.or("partitions", BTreeMap::new(), exacts);
        let qos = section.or("qos", BTreeMap::new(), exacts);
        let weights = weights?;
        let basis = match basis? {
            BasisWord::Billing => Basis::Billing,
            BasisWord::Nodes => Basis::Nodes,
            BasisWord::Tres => {
                let parsed = weights.iter().map(|(name, weight)| Some((Tres::parse(name).ok()?, *weight)));
                match parsed.collect::<Option<BTreeMap<Tres, Exact>>>() {
                    Some(parsed) if !parsed.is_empty() => Basis::Tres(parsed),
                    _ => {
                        return section.wrong(
                            "basis = \"tres\" needs weights by TRES",
                            "weights = { cpu = 1, mem = 0.25, \"gres/gpu\" = 10 }",
                        );
                    }
                }
            }
        };
        if !matches!(basis, Basis::Tres(_)) && !weights.is_empty() {
            return section.wrong("weights are only used with basis = \"tres\"", "no weights");
        }
        let rule = ChargeRule {
            resource: resource?,
            since: Epoch(i64::MIN),
            basis,
            factor: factor?,
            partitions: partitions?,
            qos: qos?,
        };
        Some(Charge { since: since?, rule })
    }

    fn print(&self, to: &mut Printer) {
        to.entry_of("amie.charge");
        to.key("since", self.since.map_or(String::new(), |date| date.to_string()));
        to.key("resource", self.rule.resource.as_deref().unwrap_or(""));
        let (word, weights) = match &self.rule.basis {
            Basis::Billing => (BasisWord::Billing, BTreeMap::new()),
            Basis::Nodes => (BasisWord::Nodes, BTreeMap::new()),
            Basis::Tres(weights) => {
                let named = weights.iter().map(|(tres, weight)| (tres.to_string(), *weight));
                (BasisWord::Tres, named.collect())
            }
        };
        to.key("basis", written(&BASES, word));
        to.key("weights", exact_table(&weights));
        to.key("factor", exact_value(self.rule.factor));
        to.key("partitions", exact_table(&self.rule.partitions));
        to.key("qos", exact_table(&self.rule.qos));
    }
}

fn text_list(texts: &[String]) -> toml::Value {
    toml::Value::Array(texts.iter().map(|text| toml::Value::from(text.as_str())).collect())
}

fn instant(item: &Item<'_>) -> Option<Epoch> {
    let time = item.parsed("an instant such as \"2026-11-01T08:00:00Z\"", str::parse::<jiff::Timestamp>)?;
    Some(Epoch(time.as_second()))
}

/// A state as sacct prints it.
fn state(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
        return item.wrong("this is no state of a job", "a state as sacct prints it, such as \"NODE_FAIL\"");
    }
    Some(text.to_owned())
}

fn pattern(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-+@:*".contains(&b);
    if text.is_empty() || !text.bytes().all(fits) || text.matches('*').count() > 1 {
        return item.wrong("this is not a pattern of account names", "a name with at most one *");
    }
    Some(text.to_ascii_lowercase())
}

fn read_patterns(item: &Item<'_>) -> Option<BTreeMap<String, String>> {
    let entries = item.entries(|name, entry| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-+@:*".contains(&b);
        if name.is_empty() || !name.bytes().all(fits) || name.matches('*').count() > 1 {
            return entry.wrong("this is not a pattern of account names", "a name with at most one *");
        }
        Some((name.to_ascii_lowercase(), entry.words()?))
    })?;
    Some(entries.into_iter().collect())
}

fn exacts(item: &Item<'_>) -> Option<BTreeMap<String, Exact>> {
    let entries = item.entries(|name, entry| Some((name.to_owned(), entry.exact()?)))?;
    Some(entries.into_iter().collect())
}

fn header_text(item: &Item<'_>) -> Option<String> {
    let text = item.words()?;
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return item.wrong("it cannot be sent in a header", "visible ASCII characters without blanks");
    }
    Some(text)
}

fn date(item: &Item<'_>) -> Option<Date> {
    item.parsed("a day such as \"2026-11-01\"", str::parse::<Date>)
}

fn read_projects(item: &Item<'_>) -> Option<BTreeMap<AccountName, String>> {
    const ALLOWED: &str = "one entry per account: account = \"LocalProjectID\"";
    let mut projects = BTreeMap::new();
    item.entries(|name, entry| {
        let project = entry.words();
        match AccountName::parse(name) {
            Err(error) => entry.wrong(error.to_string(), ALLOWED),
            Ok(account) if projects.contains_key(&account) => {
                entry.wrong("this account is there twice; letter case does not count", ALLOWED)
            }
            Ok(account) => projects.insert(account, project?).map_or(Some(()), |_| None),
        }
    })?;
    Some(projects)
}

fn texts(item: &Item<'_>) -> Option<BTreeMap<String, String>> {
    let entries = item.entries(|name, entry| {
        if name.is_empty() || name.chars().any(char::is_control) {
            return entry.wrong("the name is empty or contains a control character", "a name");
        }
        Some((name.to_owned(), entry.words()?))
    })?;
    Some(entries.into_iter().collect())
}
