//! `[amie]`: usage records for ACCESS (AMIE).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Date;
use url::Url;

use super::document::{Item, Section};
use super::print::Printer;
use super::secret::SecretSource;
use super::source::{TIMEOUT, api_url, proxy_url, timeout};
use crate::core::name::AccountName;

/// The production server.
pub const URL: &str = "https://usage.access-ci.org/api/v1/";
/// Most bytes of one message: below the 256 KB of which the server's guide speaks.
pub const BATCH_BYTES_MAX: usize = 192 << 10;
/// Most records of one message, as the server's guide says.
pub const BATCH_RECORDS_MAX: usize = 1000;

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
}

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
        Some(Amie {
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
        to.table("amie.projects");
        for (account, project) in &self.projects {
            to.key(account.as_str(), project.as_str());
        }
        for (name, texts) in [("amie.users", &self.users), ("amie.resources", &self.resources)] {
            to.table(name);
            for (key, value) in texts {
                to.key(key, value.as_str());
            }
        }
    }
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
