//! `[[amie.storage]]`: reports of what users and projects store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::text_list;
use crate::config::document::{Item, Section};
use crate::config::print::{Printer, exact_value, written};
use crate::core::amie::{ReportFormat, StorageRule};
use crate::core::exact::Exact;
use crate::core::name::AccountName;

/// A quota report of a large file system takes minutes when its metadata servers are busy.
pub const TIMEOUT: Duration = Duration::from_secs(300);
/// Half a million lines.
pub const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// Names that stand in every report of quotas and belong to nobody.
pub const EXCLUDE: [&str; 2] = ["root", "#0"];

const FORMATS: [(&str, ReportFormat); 7] = [
    ("repquota-users", ReportFormat::RepquotaUsers),
    ("repquota-projects", ReportFormat::RepquotaProjects),
    ("xfs-users", ReportFormat::XfsUsers),
    ("xfs-projects", ReportFormat::XfsProjects),
    ("lustre", ReportFormat::Lustre),
    ("csv", ReportFormat::Csv),
    ("json", ReportFormat::Json),
];

/// Where a report comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportSource {
    /// A file that another program renews; its time of modification is the time of collection.
    File(PathBuf),
    /// A program that prints it: absolute path and arguments.
    Command {
        /// The program.
        path: PathBuf,
        /// Its arguments.
        args: Vec<String>,
    },
}

/// A report of what users or projects store, collected once in every interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageReport {
    /// Where it comes from.
    pub source: ReportSource,
    /// What is in it.
    pub format: ReportFormat,
    /// Longest run of a command.
    pub timeout: Duration,
    /// Largest report in bytes.
    pub output_bytes_max: u64,
    /// How its lines become records.
    pub rule: StorageRule,
}

impl StorageReport {
    pub(super) fn read(section: &mut Section<'_>) -> Option<StorageReport> {
        let name = section.optional("name", report_name);
        let command = section.or("command", Vec::new(), |item| item.list(argument));
        let file = match &command {
            Some(words) if words.is_empty() => section.required("file", Item::absolute_path).map(Some),
            _ => section.optional("file", Item::absolute_path),
        };
        let format = section.required("format", |item| item.one_of(&FORMATS));
        let timeout = section
            .or("timeout", TIMEOUT, |item| item.duration(Duration::from_secs(1)..=Duration::from_secs(3600)));
        let output_bytes_max =
            section.or("output_bytes_max", OUTPUT_BYTES_MAX, |item| item.integer(1 << 10..=1 << 30));
        let resource = section.required("resource", Item::words);
        let media_type = section.or("media_type", "Disk".to_owned(), Item::words);
        let interval_days = section.or("interval_days", 1, |item| item.integer(1..=366));
        let gb_charge = section.or("gb_charge", Exact::ONE, Item::exact);
        let million_files_charge = section.or("million_files_charge", Exact::ZERO, Item::exact);
        let account = section.optional("account", |item| item.parsed("an account", AccountName::parse));
        let names = section.or("names", BTreeMap::new(), super::texts);
        let exclude = EXCLUDE.map(str::to_owned).to_vec();
        let exclude = section.or("exclude", exclude, |item| item.list(name_pattern));
        let (source, called) = source(section, command?, file?)?;
        let name = match (name?, called) {
            (Some(name), _) => name,
            (None, Some(called)) if is_report_name(&called) => called,
            _ => {
                return section.wrong(
                    "a report needs a name: it is a part of every LocalRecordID",
                    "name = \"home\", which never changes afterwards",
                );
            }
        };
        Some(StorageReport {
            source,
            format: format?,
            timeout: timeout?,
            output_bytes_max: output_bytes_max?,
            rule: StorageRule {
                name,
                resource: resource?,
                media_type: media_type?,
                interval_days: interval_days?,
                gb_charge: gb_charge?,
                million_files_charge: million_files_charge?,
                account: account?,
                names: names?,
                exclude: exclude?,
            },
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.entry_of("amie.storage");
        to.key("name", self.rule.name.as_str());
        match &self.source {
            ReportSource::File(file) => to.path("file", file),
            ReportSource::Command { path, args } => {
                let words: Vec<String> = std::iter::once(path.to_string_lossy().into_owned())
                    .chain(args.iter().cloned())
                    .collect();
                to.key("command", text_list(&words));
            }
        }
        to.key("format", written(&FORMATS, self.format));
        to.duration("timeout", self.timeout);
        to.number("output_bytes_max", self.output_bytes_max);
        to.key("resource", self.rule.resource.as_str());
        to.key("media_type", self.rule.media_type.as_str());
        to.number("interval_days", self.rule.interval_days);
        to.key("gb_charge", exact_value(self.rule.gb_charge));
        to.key("million_files_charge", exact_value(self.rule.million_files_charge));
        to.key("account", self.rule.account.as_ref().map_or("", AccountName::as_str));
        let names = self.rule.names.iter().map(|(name, meant)| (name.clone(), meant.as_str().into()));
        to.key("names", toml::Value::Table(names.collect()));
        to.key("exclude", text_list(&self.rule.exclude));
    }
}

/// Where it comes from, and what it is called where nobody says.
fn source(
    section: &Section<'_>,
    command: Vec<String>,
    file: Option<PathBuf>,
) -> Option<(ReportSource, Option<String>)> {
    let Some((program, args)) = command.split_first() else {
        let file = file?;
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        return Some((ReportSource::File(file), stem));
    };
    if file.is_some() {
        return section.wrong("file and command are both set", "one of them");
    }
    let path = PathBuf::from(program);
    if !path.is_absolute() {
        return section.wrong(
            format!("the program {program:?} of command is not an absolute path"),
            "command = [\"/usr/sbin/repquota\", \"-O\", \"csv\", \"-u\", \"/home\"]; no shell reads it",
        );
    }
    Some((ReportSource::Command { path, args: args.to_vec() }, None))
}

/// Two reports of one name would replace each other's records.
pub(super) fn distinct(section: &Section<'_>, reports: Vec<StorageReport>) -> Option<Vec<StorageReport>> {
    let mut names = BTreeSet::new();
    match reports.iter().find(|report| !names.insert(&report.rule.name)) {
        Some(twin) => section
            .wrong(format!("two entries of [[amie.storage]] are named {:?}", twin.rule.name), "a name each"),
        None => Some(reports),
    }
}

fn is_report_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=40).contains(&text.len()) && text.bytes().all(fits)
}

fn report_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !is_report_name(text) {
        return item.wrong("this is no name of a report", "up to 40 letters, digits, _ . and -");
    }
    Some(text.to_owned())
}

fn argument(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.contains('\0') {
        return item.wrong("no argument can contain a zero byte", "a text");
    }
    Some(text.to_owned())
}

fn name_pattern(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if text.is_empty() || text.matches('*').count() > 1 {
        return item.wrong("this is not a pattern of names", "a name with at most one *");
    }
    Some(text.to_ascii_lowercase())
}
