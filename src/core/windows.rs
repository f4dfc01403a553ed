//! Rolling windows: how much was submitted and used in the last minute, hour or day, and when enough of it will have
//! rolled away.
//!
//! Nothing is kept between two looks: a window is computed from the job records that lie in it, so that a restart, a late
//! record or a corrected one changes nothing but the records. Times are whole seconds, windows half-open.
//!
//! - A **submission** at second `s` counts at every instant `t` with `s <= t < s + length`. One that lies after `t` (a clock
//!   was put back) counts as well: it is known to have been made. A requeued job or a piece of a resized one is no new
//!   submission, although slurmdbd gives its record a new submit time. Each task of an array counts as one, as it does in
//!   Slurm's own GrpSubmitJobs and MaxSubmitJobs: an array would else be a way around. The tasks that have not started yet
//!   have one record in common and count as one; each counts for itself, at the time of the array's submission, once it
//!   starts. A job that is held, or waits for another or for its begin time, is known once it becomes eligible, since sacct does
//!   not show it before; it then counts at the time of its submission.
//! - **Use** at `t` is billing x seconds of `[t - length, t)`, of the seconds in which a job held its allocation.

use std::collections::BTreeMap;

use super::job::JobRecord;
use super::time::{Epoch, Window as Span};
use super::tres::Tres;

/// How long after the end of a record another one of the same job id goes on with it: slurmctld forgets an ended job after
/// MinJobAge (300 s by default) and can requeue it until then; an id comes back after MaxJobId (67 million) jobs only.
pub const REQUEUE_GAP_S: i64 = 86_400;

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// When.
    pub at: Epoch,
    /// Account as Slurm printed it.
    pub account: String,
    /// User as Slurm printed it.
    pub user: String,
}

impl Submission {
    /// The submission a record stands for. `before`: when the record of the same job id before it ended, `Some(None)` when
    /// that one has not.
    pub fn of(record: &JobRecord, before: Option<Option<Epoch>>) -> Option<Submission> {
        let goes_on =
            before.is_some_and(|ended| ended.is_none_or(|ended| record.submit.since(ended) < REQUEUE_GAP_S));
        (!goes_on).then(|| Submission {
            at: record.submit,
            account: record.account.to_string(),
            user: record.user.to_string(),
        })
    }
}

/// A stretch of time in which something is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// First second.
    pub from: Epoch,
    /// First second after; `None` while it goes on.
    pub until: Option<Epoch>,
    /// Billing units per second.
    pub billing: u64,
    /// Account as Slurm printed it.
    pub account: String,
    /// User as Slurm printed it.
    pub user: String,
}

impl Stretch {
    /// What a record bills; `None` when it never started or bills nothing. The pieces of a resized job count every second
    /// once.
    pub fn of(record: &JobRecord) -> Option<Stretch> {
        let from = record.start?.max(record.submit);
        let billing = record.alloc.get(&Tres::billing()).copied().filter(|billing| *billing > 0)?;
        Some(Stretch {
            from,
            until: record.end,
            billing,
            account: record.account.to_string(),
            user: record.user.to_string(),
        })
    }

    /// Seconds of it in a span; one that goes on does so until the end of the span.
    fn seconds(&self, span: Span) -> u64 {
        Span::new(self.from, self.until.unwrap_or(span.until)).overlap(span).seconds()
    }
}

/// How many submissions count at `now`.
pub fn submitted<'a>(submissions: impl Iterator<Item = &'a Submission>, length_s: i64, now: Epoch) -> u64 {
    submissions.filter(|submission| counts(submission, length_s, now)).count() as u64
}

fn counts(submission: &Submission, length_s: i64, now: Epoch) -> bool {
    now < submission.at.plus(length_s)
}

/// The first instant, not before `now`, at which fewer than `limit` submissions count, if none is added; `None` when that
/// never is (a limit of 0).
pub fn submissions_again<'a>(
    submissions: impl Iterator<Item = &'a Submission>,
    length_s: i64,
    limit: u64,
    now: Epoch,
) -> Option<Epoch> {
    let mut leave: Vec<Epoch> = submissions
        .filter(|submission| counts(submission, length_s, now))
        .map(|submission| submission.at.plus(length_s))
        .collect();
    leave.sort_unstable();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return None;
    }
    // So many have to leave that one below the limit is left.
    match (leave.len() + 1).checked_sub(limit) {
        None | Some(0) => Some(now),
        Some(many) => Some(leave[many - 1]),
    }
}

/// Billing-seconds used in the window that ends at `now`.
pub fn used<'a>(stretches: impl Iterator<Item = &'a Stretch>, length_s: i64, now: Epoch) -> u128 {
    let span = Span::new(now.plus(-length_s), now);
    stretches.map(|stretch| u128::from(stretch.billing) * u128::from(stretch.seconds(span))).sum()
}

/// Whether what runs is taken to go on or to end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// It ends now: then enough has rolled away at the earliest.
    Ends,
    /// It goes on as it is.
    GoesOn,
}

/// The first instant, not before `now`, at which less than `limit` billing-seconds lie in the window, if nothing new starts;
/// `None` when that never is.
pub fn use_again<'a>(
    stretches: impl Iterator<Item = &'a Stretch>,
    length_s: i64,
    limit: u128,
    now: Epoch,
    running: Running,
) -> Option<Epoch> {
    if limit == 0 {
        return None;
    }
    // Use changes by a constant per second between instants at which a stretch begins or ends to enter or to leave.
    let mut slopes: BTreeMap<Epoch, i128> = BTreeMap::new();
    let mut level = 0i128;
    let mut turn = |at: Epoch, by: i128| *slopes.entry(at.max(now)).or_default() += by;
    for stretch in stretches {
        let billing = i128::from(stretch.billing);
        let until = match (stretch.until, running) {
            (Some(until), _) => Some(until),
            (None, Running::Ends) => Some(now.max(stretch.from)),
            (None, Running::GoesOn) => None,
        };
        let span = Span::new(now.plus(-length_s), now);
        let inside = Span::new(stretch.from, until.unwrap_or(now)).overlap(span).seconds();
        level += billing * i128::from(inside);
        if until.is_some_and(|until| until <= stretch.from) {
            continue;
        }
        // Enters from its beginning to its end, leaves a window's length later.
        turn(stretch.from, billing);
        turn(stretch.from.plus(length_s), -billing);
        if let Some(until) = until {
            turn(until, -billing);
            turn(until.plus(length_s), billing);
        }
    }
    let limit = i128::try_from(limit).unwrap_or(i128::MAX);
    let (mut at, mut slope) = (now, 0i128);
    for (next, by) in slopes {
        if let Some(found) = below(at, level, slope, limit).filter(|found| *found < next) {
            return Some(found);
        }
        level += slope * i128::from(next.since(at));
        (at, slope) = (next, slope + by);
    }
    below(at, level, slope, limit)
}

/// The first instant from `at` on at which a line is below the limit.
fn below(at: Epoch, level: i128, slope: i128, limit: i128) -> Option<Epoch> {
    if level < limit {
        return Some(at);
    }
    if slope >= 0 {
        return None;
    }
    let seconds = (level - limit) / -slope + 1;
    Some(at.plus(i64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests;
