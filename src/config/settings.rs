//! The small sections: `[store]`, `[log]`, `[reports]`.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::document::{Item, Section};
use super::print::{Printer, written};

const DAY: u64 = 86_400;

/// Where the unit's StateDirectory= lies.
pub const STORE_PATH: &str = "/var/lib/slurm-site-agent/state.db";
/// Job records stay longer than two years, so that a year can be compared with the year before it.
pub const KEEP_JOBS: Duration = Duration::from_secs(800 * DAY);
/// Decisions, changes and deliveries stay for a year and a month.
pub const KEEP_HISTORY: Duration = Duration::from_secs(400 * DAY);
/// What is logged when nobody asks for more; the scheduler's own start-up lines are left out.
pub const LOG_LEVEL: &str = "info,tokio_cron_scheduler=warn";
/// A month is reported this long after its end: late and corrected records still count.
pub const PREVIOUS_PERIOD: Duration = Duration::from_secs(10 * DAY);

/// The durable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The database file; its directory must be on a local file system.
    pub path: PathBuf,
    /// How long job records are kept; longer than the longest period in use.
    pub keep_jobs: Duration,
    /// How long decisions, changes, commands and deliveries are kept.
    pub keep_history: Duration,
}

impl StoreSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<StoreSettings> {
        let days = |item: &Item<'_>, least, most| {
            item.duration(Duration::from_secs(least * DAY)..=Duration::from_secs(most * DAY))
        };
        let path = section.or("path", PathBuf::from(STORE_PATH), Item::absolute_path);
        // A quarter and the one before it: carryover needs the previous period.
        let keep_jobs = section.or("keep_jobs", KEEP_JOBS, |item| days(item, 190, 36_600));
        let keep_history = section.or("keep_history", KEEP_HISTORY, |item| days(item, 31, 36_600));
        Some(StoreSettings { path: path?, keep_jobs: keep_jobs?, keep_history: keep_history? })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("store");
        to.path("path", &self.path);
        to.duration("keep_jobs", self.keep_jobs);
        to.duration("keep_history", self.keep_history);
    }
}

/// For whom the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    const WORDS: [(&'static str, LogFormat); 2] = [("human", LogFormat::Human), ("json", LogFormat::Json)];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        written(&Self::WORDS, self)
    }
}

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Its shape.
    pub format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`, checked.
    pub level: String,
}

impl Log {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Log> {
        const ALLOWED: &str =
            "error, warn, info, debug or trace; or directives such as \"info,slurm_site_agent=debug\"";
        let format = section.or("format", LogFormat::Human, |item| item.one_of(&LogFormat::WORDS));
        let level = section.or("level", LOG_LEVEL.to_owned(), |item| {
            item.parsed(ALLOWED, |text| EnvFilter::builder().parse(text))?;
            item.words()
        });
        Some(Log { format: format?, level: level? })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("log");
        to.key("format", self.format.as_str());
        to.key("level", self.level.as_str());
    }
}

/// Reports of usage to the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports {
    /// How long after a month's end it is still reported.
    pub previous_period: Duration,
    /// Whether usage per user is reported too.
    pub users: bool,
    /// Whether what is in force on an account is written into its resource's backend metadata.
    pub backend_metadata: bool,
}

impl Reports {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Reports> {
        let previous_period = section.or("previous_period", PREVIOUS_PERIOD, |item| {
            item.duration(Duration::ZERO..=Duration::from_secs(366 * DAY))
        });
        let users = section.or("users", true, Item::boolean);
        let backend_metadata = section.or("backend_metadata", false, Item::boolean);
        Some(Reports {
            previous_period: previous_period?,
            users: users?,
            backend_metadata: backend_metadata?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("reports");
        to.duration("previous_period", self.previous_period);
        to.key("users", self.users);
        to.key("backend_metadata", self.backend_metadata);
    }
}
