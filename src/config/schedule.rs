//! `[schedule]`: when what is done besides the regular cycle.

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};

use super::document::{Item, Section};
use super::print::Printer;
use super::source::POLL_INTERVAL;

/// Re-reads the open periods at a quiet hour of the night, off the full hour at which slurmdbd rolls up.
pub const DEEP_SCAN: &str = "17 3 * * *";
/// Compares the ledger with sreport after the hour's roll-up has ended.
pub const AUDIT: &str = "41 * * * *";
/// Reports usage to the portal once an hour, which is as often as portals show it.
pub const REPORT: &str = "23 * * * *";

const POLL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// A cron expression of five fields, read in the cluster's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron(String);

impl Cron {
    /// Checks five fields (minute, hour, day of month, month, day of week). Days of month and of week at once are
    /// refused: programs disagree whether both or either must fit.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != 5 {
            return Err(format!("it has {} fields, not five", fields.len()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        parser.parse(text).map_err(|error| error.to_string())?;
        if fields[2] != "*" && fields[4] != "*" {
            return Err("it names both days of the month and days of the week".to_owned());
        }
        Ok(Cron(fields.join(" ")))
    }

    /// The five fields, one blank between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// How often a cycle runs when there is no source (sources have their own interval).
    pub poll: Duration,
    /// Re-reading of the open periods.
    pub deep_scan: Cron,
    /// Comparison with sreport.
    pub audit: Cron,
    /// Reports of usage.
    pub report: Cron,
}

impl Schedule {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Schedule> {
        let poll = section.or("poll", POLL_INTERVAL, |item| item.duration(POLL_RANGE.0..=POLL_RANGE.1));
        let deep_scan = section.or("deep_scan", constant(DEEP_SCAN), cron);
        let audit = section.or("audit", constant(AUDIT), cron);
        let report = section.or("report", constant(REPORT), cron);
        Some(Schedule { poll: poll?, deep_scan: deep_scan?, audit: audit?, report: report? })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("schedule");
        to.duration("poll", self.poll);
        to.key("deep_scan", self.deep_scan.as_str());
        to.key("audit", self.audit.as_str());
        to.key("report", self.report.as_str());
    }
}

fn constant(text: &str) -> Cron {
    Cron::parse(text).expect("the defaults are cron expressions")
}

fn cron(item: &Item<'_>) -> Option<Cron> {
    const ALLOWED: &str = "five fields: minute hour day-of-month month day-of-week, such as \"17 3 * * *\"";
    item.parsed(ALLOWED, Cron::parse)
}
