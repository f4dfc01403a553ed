//! `[cluster]`: which Slurm, and how its programs are run.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::document::{Item, Section, nearest};
use super::print::Printer;
use crate::core::name::ClusterName;

/// Where packages of Slurm put its programs.
pub const BIN_DIR: &str = "/usr/bin";
/// Periods begin at midnight there; UTC has no doubled or missing hours and is what portals use.
pub const TIME_ZONE: &str = "UTC";
/// Time for one Slurm program: a controller that is down answers after 10 s, a day of 100,000 jobs takes 5 s.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Most output of one Slurm program that is kept as a whole; slurmdbd itself sends at most 1 GiB.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;

const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
const NAME_ALLOWED: &str = "the name that `sacctmgr show cluster` shows, such as \"linux\"";

/// The cluster that the agent works for.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name at slurmdbd.
    pub name: ClusterName,
    /// Directory of sacct, sacctmgr, sreport, sshare, scontrol; absolute.
    pub bin_dir: PathBuf,
    /// `SLURM_CONF` of the programs; `None`: where they look by themselves.
    pub slurm_conf: Option<PathBuf>,
    /// Calendar of periods and schedules.
    pub time_zone: TimeZone,
    /// Its IANA name.
    pub time_zone_name: String,
    /// Longest run of one Slurm program.
    pub timeout: Duration,
    /// Most bytes one Slurm program may print where its output is kept as a whole; job records are read as they come.
    pub output_bytes_max: u64,
}

impl Cluster {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Cluster> {
        let name = section.required("name", |item| item.parsed(NAME_ALLOWED, ClusterName::parse));
        let bin_dir = section.or("bin_dir", PathBuf::from(BIN_DIR), Item::absolute_path);
        let slurm_conf = section.optional("slurm_conf", Item::absolute_path);
        let zone = section.or("time_zone", (TimeZone::UTC, TIME_ZONE.to_owned()), zone);
        let timeout = section.or("timeout", TIMEOUT, |item| item.duration(TIMEOUT_RANGE.0..=TIMEOUT_RANGE.1));
        let output_bytes_max =
            section.or("output_bytes_max", OUTPUT_BYTES_MAX, |item| item.integer(1 << 20..=1 << 40));
        let (time_zone, time_zone_name) = zone?;
        Some(Cluster {
            name: name?,
            bin_dir: bin_dir?,
            slurm_conf: slurm_conf?,
            time_zone,
            time_zone_name,
            timeout: timeout?,
            output_bytes_max: output_bytes_max?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("cluster");
        to.key("name", self.name.as_str());
        to.path("bin_dir", &self.bin_dir);
        to.optional_path("slurm_conf", self.slurm_conf.as_deref());
        to.key("time_zone", self.time_zone_name.as_str());
        to.duration("timeout", self.timeout);
        to.number("output_bytes_max", self.output_bytes_max);
    }
}

/// A zone that both the calendar (jiff) and the scheduler (chrono-tz) know, by the name that both write alike.
fn zone(item: &Item<'_>) -> Option<(TimeZone, String)> {
    const ALLOWED: &str = "an IANA name such as \"UTC\" or \"Europe/Berlin\"";
    let name = item.text()?;
    if name == TIME_ZONE {
        return Some((TimeZone::UTC, TIME_ZONE.to_owned()));
    }
    match TimeZone::get(name) {
        Ok(zone) if name.parse::<chrono_tz::Tz>().is_ok() => Some((zone, name.to_owned())),
        Ok(_) => item.wrong("the scheduler does not know this time zone (letter case counts)", ALLOWED),
        Err(_) => {
            let known: Vec<String> =
                jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
            let near = nearest(name, known.iter().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            item.wrong(format!("this time zone is unknown{hint}"), ALLOWED)
        }
    }
}
