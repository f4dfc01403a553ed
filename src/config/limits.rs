//! `[limits]`: how far each effect may go in one cycle, and how old a fact may be.

use std::time::Duration;

use super::document::{Item, Section};
use super::print::Printer;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// Windows of sacct overlap by this much: slurmdbd writes a job minutes after its end, an hour after an outage.
pub const OVERLAP: Duration = Duration::from_secs(2 * HOUR);
/// Window of one sacct call where jobs are many: a day of 100,000 jobs takes 5 s and 600 MB in sacct (26.05).
pub const WINDOW: Duration = Duration::from_secs(24 * HOUR);
/// Lines that may be rejected before a collection counts as incomplete: a few oddly named jobs must not stop a site.
pub const REJECTS_MAX: usize = 10;
/// Most changes of one cycle: 500 one after the other take 140 s on Slurm 22.05.
pub const CHANGES_MAX: usize = 500;
/// A plan that tightens more accounts than this waits for an operator.
pub const TIGHTEN_ACCOUNTS_MAX: usize = 20;
/// A plan that tightens a larger share than this waits as well, from ten managed accounts on.
pub const TIGHTEN_SHARE_PERCENT: u8 = 30;
/// Older commands are refused: a server that comes back after days must not replay them.
pub const COMMAND_AGE_MAX: Duration = Duration::from_secs(DAY);
/// Largest difference to the server's clock before commands are no longer judged by their age.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * MINUTE);
/// Policies older than this decide nothing new; what is in force stays.
pub const FACTS_AGE_MAX: Duration = Duration::from_secs(6 * HOUR);
/// Tries of one message before it becomes a dead letter.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 50;
/// Messages of one kind in one cycle: a backlog drains without starving the cycle. Eight are on their way at one time, so that
/// a server that needs 0.2 s for each has a thousand in half a minute.
pub const DELIVERY_BATCH_MAX: usize = 1000;
/// Time that the running step has to end after SIGTERM; systemd's TimeoutStopSec must be longer.
pub const DRAIN: Duration = Duration::from_secs(30);
/// A job that runs longer without an end is reported as runaway.
pub const RUNAWAY_AFTER: Duration = Duration::from_secs(60 * DAY);
/// sacctmgr processes at one time. 64 different modifies on 22.05.8 (an idle host of 2 cores): 18.0 s one after the other, 4.7 s with 4
/// at once, 2.8 s with 8, 1.7 s with 16. 26.05 hardly gains (200: 11.5 s, with 8 9.0 s). 8 takes most of it and spares slurmdbd.
pub const APPLY_PARALLEL_MAX: usize = 8;
/// Accounts (or users) named in one `sacctmgr modify`: on 22.05.8 one of 100 names took 0.39 s, of 500 0.54 s, of 1,000 0.71 s, and
/// each further process 0.28 s. 500 names of 128 bytes are half of the longest argument.
pub const NAMES_PER_MODIFY_MAX: usize = 500;
/// Entries of a policy's command history that are read; the server keeps the newest 100.
pub const HISTORY_ROWS_MAX: usize = 100;

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// By how much sacct windows overlap.
    pub overlap: Duration,
    /// sacct window of one call; where there is little to find, calls ask for more.
    pub window: Duration,
    /// More rejected lines than this make a collection incomplete.
    pub rejects_max: usize,
    /// Changes of one cycle.
    pub changes_max: usize,
    /// Accounts that one plan may tighten without an operator.
    pub tighten_accounts_max: usize,
    /// Share of the managed accounts that one plan may tighten, percent; applies from 10 accounts on.
    pub tighten_share_percent: u8,
    /// Oldest command that is acted on.
    pub command_age_max: Duration,
    /// Largest difference to a server's clock.
    pub clock_skew_max: Duration,
    /// Oldest accepted snapshot that decides.
    pub facts_age_max: Duration,
    /// Tries of one message before it is a dead letter.
    pub delivery_attempts_max: u32,
    /// Messages per cycle and kind.
    pub delivery_batch_max: usize,
    /// Time to end after SIGTERM.
    pub drain: Duration,
    /// From when a running job is runaway.
    pub runaway_after: Duration,
    /// sacctmgr processes at one time.
    pub apply_parallel_max: usize,
    /// Accounts (or users) named in one sacctmgr modify.
    pub names_per_modify_max: usize,
    /// Entries of a command history that are read.
    pub history_rows_max: usize,
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Limits> {
        let overlap = section.or("overlap", OVERLAP, |item| seconds(item, MINUTE, 7 * DAY));
        let window = section.or("window", WINDOW, |item| seconds(item, MINUTE, 31 * DAY));
        let rejects_max = section.or("rejects_max", REJECTS_MAX, |item| item.integer(0..=100_000));
        let changes_max = section.or("changes_max", CHANGES_MAX, |item| item.integer(1..=100_000));
        let tighten_accounts_max =
            section.or("tighten_accounts_max", TIGHTEN_ACCOUNTS_MAX, |item| item.integer(0..=1_000_000));
        let tighten_share_percent =
            section.or("tighten_share_percent", TIGHTEN_SHARE_PERCENT, |item| item.integer(0..=100));
        let command_age_max =
            section.or("command_age_max", COMMAND_AGE_MAX, |item| seconds(item, MINUTE, 366 * DAY));
        let clock_skew_max = section.or("clock_skew_max", CLOCK_SKEW_MAX, |item| seconds(item, 1, DAY));
        let facts_age_max =
            section.or("facts_age_max", FACTS_AGE_MAX, |item| seconds(item, MINUTE, 31 * DAY));
        let delivery_attempts_max =
            section.or("delivery_attempts_max", DELIVERY_ATTEMPTS_MAX, |item| item.integer(1..=100_000));
        let delivery_batch_max =
            section.or("delivery_batch_max", DELIVERY_BATCH_MAX, |item| item.integer(1..=100_000));
        let drain = section.or("drain", DRAIN, |item| seconds(item, 1, HOUR));
        let runaway_after =
            section.or("runaway_after", RUNAWAY_AFTER, |item| seconds(item, HOUR, 3660 * DAY));
        let apply_parallel_max =
            section.or("apply_parallel_max", APPLY_PARALLEL_MAX, |item| item.integer(1..=32));
        let names_per_modify_max =
            section.or("names_per_modify_max", NAMES_PER_MODIFY_MAX, |item| item.integer(1..=500));
        let history_rows_max =
            section.or("history_rows_max", HISTORY_ROWS_MAX, |item| item.integer(1..=10_000));
        if let (Some(overlap), Some(window)) = (overlap, window)
            && overlap >= window
        {
            return section
                .wrong("a window that only repeats the one before gets nowhere", "overlap below window");
        }
        Some(Limits {
            overlap: overlap?,
            window: window?,
            rejects_max: rejects_max?,
            changes_max: changes_max?,
            tighten_accounts_max: tighten_accounts_max?,
            tighten_share_percent: tighten_share_percent?,
            command_age_max: command_age_max?,
            clock_skew_max: clock_skew_max?,
            facts_age_max: facts_age_max?,
            delivery_attempts_max: delivery_attempts_max?,
            delivery_batch_max: delivery_batch_max?,
            drain: drain?,
            runaway_after: runaway_after?,
            apply_parallel_max: apply_parallel_max?,
            names_per_modify_max: names_per_modify_max?,
            history_rows_max: history_rows_max?,
        })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("limits");
        to.duration("overlap", self.overlap);
        to.duration("window", self.window);
        to.number("rejects_max", self.rejects_max as u64);
        to.number("changes_max", self.changes_max as u64);
        to.number("tighten_accounts_max", self.tighten_accounts_max as u64);
        to.number("tighten_share_percent", self.tighten_share_percent.into());
        to.duration("command_age_max", self.command_age_max);
        to.duration("clock_skew_max", self.clock_skew_max);
        to.duration("facts_age_max", self.facts_age_max);
        to.number("delivery_attempts_max", self.delivery_attempts_max.into());
        to.number("delivery_batch_max", self.delivery_batch_max as u64);
        to.duration("drain", self.drain);
        to.duration("runaway_after", self.runaway_after);
        to.number("apply_parallel_max", self.apply_parallel_max as u64);
        to.number("names_per_modify_max", self.names_per_modify_max as u64);
        to.number("history_rows_max", self.history_rows_max as u64);
    }
}

fn seconds(item: &Item<'_>, least: u64, most: u64) -> Option<Duration> {
    item.duration(Duration::from_secs(least)..=Duration::from_secs(most))
}
