//! `[[source]]`: the central servers that say what is granted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use uuid::Uuid;

use super::document::{Item, Section};
use super::print::Printer;
use super::secret::SecretSource;
use super::source_kind::{PolicySource, SourceKind};
use crate::core::name::SourceName;

/// How often a server is asked; Waldur republishes changed settings every ten minutes.
pub const POLL_INTERVAL: Duration = Duration::from_secs(300);
/// Longest wait for one HTTP answer.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of one HTTP answer: a page of 100 entries has well below 1 MiB.
pub const RESPONSE_BYTES_MAX: u64 = 32 << 20;
/// Tries of one request in one cycle; the next cycle tries again.
pub const ATTEMPTS_MAX: u32 = 4;
/// Name of the source that the `[[allocation]]` entries are; no server may have it.
pub const LOCAL_SOURCE: &str = "local";

const POLL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// One central server.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Name in logs, tables and the store; keep it when the url changes.
    pub name: SourceName,
    /// Its protocol, with what this protocol alone needs to know.
    pub kind: SourceKind,
    /// Base of its API; ends with a slash.
    pub url: Url,
    /// Where the token lies.
    pub token: SecretSource,
    /// Certificates (PEM) trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy for this server only.
    pub proxy: Option<Url>,
    /// How often it is asked.
    pub poll_interval: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Most bytes of one answer.
    pub response_bytes_max: u64,
    /// Tries of one request in one cycle.
    pub attempts_max: u32,
}

impl Source {
    /// What is special of a source of policies; `None` for a source of quotas.
    pub fn policies(&self) -> Option<&PolicySource> {
        match &self.kind {
            SourceKind::WaldurPolicy(source) => Some(source),
            SourceKind::WaldurQuota(_) | SourceKind::Nomad(_) | SourceKind::DataRobot(_) => None,
        }
    }

    /// `facts_age_max`: how old a snapshot may be; `None` when it could not be read.
    pub(super) fn read_all(root: &mut Section<'_>, facts_age_max: Option<Duration>) -> Option<Vec<Source>> {
        let mut names = BTreeSet::new();
        let mut offerings = BTreeSet::new();
        root.sections("source", |section| {
            let source = Source::read(section, &mut names, &mut offerings)?;
            if facts_age_max.is_some_and(|age_max| source.poll_interval >= age_max) {
                return section.wrong(
                    "between two polls everything it says would be too old to decide anything",
                    "a poll_interval below limits.facts_age_max",
                );
            }
            Some(source)
        })
    }

    fn read(
        section: &mut Section<'_>,
        names: &mut BTreeSet<SourceName>,
        offerings: &mut BTreeSet<Uuid>,
    ) -> Option<Source> {
        let name = section.required("name", |item| new_name(item, names));
        let kind = SourceKind::read(section, offerings);
        let url = section.required("url", api_url);
        let token = SecretSource::from_section(section, "token_file", "token_credential");
        let ca_file = section.optional("ca_file", Item::absolute_path);
        let proxy = section.optional("proxy", proxy_url);
        let poll_interval =
            section.or("poll_interval", POLL_INTERVAL, |item| item.duration(POLL_RANGE.0..=POLL_RANGE.1));
        let timeout = section.or("timeout", TIMEOUT, timeout);
        let response_bytes_max = section.or("response_bytes_max", RESPONSE_BYTES_MAX, response_bytes_max);
        let attempts_max = section.or("attempts_max", ATTEMPTS_MAX, |item| item.integer(1..=20));
        Some(Source {
            name: name?,
            kind: kind?,
            url: url?,
            token: token?,
            ca_file: ca_file?,
            proxy: proxy?,
            poll_interval: poll_interval?,
            timeout: timeout?,
            response_bytes_max: response_bytes_max?,
            attempts_max: attempts_max?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.entry_of("source");
        to.key("name", self.name.as_str());
        to.key("kind", self.kind.as_str());
        to.key("url", self.url.as_str());
        to.secret("token", &self.token);
        to.optional_path("ca_file", self.ca_file.as_deref());
        to.key("proxy", self.proxy.as_ref().map_or("", Url::as_str));
        self.kind.print(to);
        to.duration("poll_interval", self.poll_interval);
        to.duration("timeout", self.timeout);
        to.number("response_bytes_max", self.response_bytes_max);
        to.number("attempts_max", self.attempts_max.into());
    }
}

fn new_name(item: &Item<'_>, names: &mut BTreeSet<SourceName>) -> Option<SourceName> {
    const ALLOWED: &str = "a name that no other source has, such as \"waldur\"";
    let name = item.parsed(ALLOWED, SourceName::parse)?;
    if name.as_str() == LOCAL_SOURCE {
        return item.wrong("this name stands for the [[allocation]] entries", ALLOWED);
    }
    if !names.insert(name.clone()) {
        return item.wrong("another source has this name", ALLOWED);
    }
    Some(name)
}

/// Longest wait for an answer of a server.
pub(super) fn timeout(item: &Item<'_>) -> Option<Duration> {
    item.duration(TIMEOUT_RANGE.0..=TIMEOUT_RANGE.1)
}

fn response_bytes_max(item: &Item<'_>) -> Option<u64> {
    item.integer(64 << 10..=1 << 30)
}

/// Base url of an API. It gets a slash at its end, since relative paths are appended to it.
pub(super) fn api_url(item: &Item<'_>) -> Option<Url> {
    const ALLOWED: &str =
        "https://HOST/PATH/ (http:// only for this host itself: localhost, 127.0.0.1, [::1])";
    let mut url = item.parsed(ALLOWED, Url::parse)?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return item.wrong("this is not the url of a web server", ALLOWED);
    }
    if url.scheme() == "http" && !is_this_host(&url) {
        return item.wrong("the token would cross the network in the clear", ALLOWED);
    }
    if has_password(&url) {
        return item.hidden().wrong("it carries a user name or password", ALLOWED);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return item.hidden().wrong("a base url has no ? and no #", ALLOWED);
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Some(url)
}

/// Url of a proxy.
pub(super) fn proxy_url(item: &Item<'_>) -> Option<Url> {
    const ALLOWED: &str =
        "http://HOST:PORT, https://HOST:PORT or socks5h://HOST:PORT, without user and password";
    let url = item.parsed(ALLOWED, Url::parse)?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
        || url.host_str().is_none_or(str::is_empty)
    {
        return item.wrong("this is not the url of a proxy", ALLOWED);
    }
    if has_password(&url) {
        return item.hidden().wrong("it carries a user name or password, which would be shown", ALLOWED);
    }
    Some(url)
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn is_this_host(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
