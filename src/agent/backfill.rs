//! Years of job records from slurmdbd into the ledger, from the newest month back to the oldest, window by window.
//!
//! What is durable: after each window its records and, in a mark of the store, how far back the work has come. Stopped or killed
//! anywhere it goes on there. Going backwards keeps what the ledger covers in one piece: where the work begins at the oldest that
//! was covered, each window moves that further back, and policies of long periods can use it at once.
//!
//! Windows overlap, so that a record of the one before must show again; an empty one is believed when a record known from
//! elsewhere still shows. Windows grow and shrink with the time and the rows of the answers, and between two of them the work rests
//! for as long as the answer took: slurmdbd has half of its time for others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::Agent;
use super::clock::Stopwatch;
use super::error::AgentError;
use super::ledger::{self, CollectionState};
use super::step::Step;
use crate::core::period::{Period, PeriodKind};
use crate::core::time::{Epoch, Window};

/// What one answer should take: long enough that its fixed cost is nothing, short enough that nobody waits for it.
const ANSWER: Duration = Duration::from_secs(5);
/// Most rows of one answer: sacct of 26.05 needs 6 KB for each.
const ROWS_MAX: usize = 50_000;
/// Shortest window; an hour of the busiest cluster is still one answer.
const WINDOW_MIN_S: i64 = 3600;
/// Longest window: a month is the unit of the work.
const WINDOW_MAX_S: i64 = 31 * 86_400;
/// Longest rest between two windows.
const REST_MAX: Duration = Duration::from_secs(30);
/// A rest is looked out of this often, for who wants to stop.
const REST_LOOK: Duration = Duration::from_millis(100);
/// How often a window that was not answered is tried again, each time half as long.
const RETRIES_MAX: u32 = 6;

/// What is asked for, within what may be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// From the first instant up to where the work begins.
    pub from: Epoch,
    /// Where the work begins, going backwards.
    pub until: Epoch,
    /// How far back it has come before.
    pub reached: Epoch,
    /// Set where more was asked for than is kept: the oldest instant that is.
    pub kept_from: Option<Epoch>,
}

impl Extent {
    /// Whether all of it has been read before.
    pub fn is_done(&self) -> bool {
        self.reached <= self.from
    }

    /// What `from` and `until` come to: nothing older than `store.keep_jobs`, up to the oldest that the ledger covers (now, for
    /// a new one) unless told otherwise, and on from where an interrupted work has come. `again`: from the beginning.
    pub fn of(agent: &Agent, from: Epoch, until: Option<Epoch>, again: bool) -> Result<Extent, AgentError> {
        let now = agent.clock.now();
        let keep_s = i64::try_from(agent.config.store.keep_jobs.as_secs()).unwrap_or(i64::MAX);
        let oldest = now.plus(-keep_s).max(ledger::FIRST_JOB);
        // Beyond the watermark lies what the next cycle reads; a window there would let it begin too late.
        let newest = agent.store.watermark(&agent.config.cluster.name)?.unwrap_or(now).min(now);
        let until = match until {
            Some(until) => until.min(newest),
            None => agent.store.last_success(&covered(agent))?.unwrap_or(newest).min(newest),
        };
        let kept_from = (from < oldest).then_some(oldest);
        let from = from.max(oldest).min(until);
        let mark = agent.store.last_success(&mark(agent, until))?;
        let reached = mark.filter(|_| !again).unwrap_or(until).clamp(from, until);
        Ok(Extent { from, until, reached, kept_from })
    }
}

fn covered(agent: &Agent) -> String {
    format!("ledger_from:{}", agent.config.cluster.name)
}

fn mark(agent: &Agent, until: Epoch) -> String {
    format!("backfill:{}:{}", agent.config.cluster.name, until.0)
}

/// One window, for who watches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The month it lies in, as 2023-01.
    pub month: String,
    /// Whether it was the last one of that month.
    pub month_done: bool,
    /// The window without its overlap.
    pub window: Window,
    /// Records that sacct showed, of this month.
    pub rows: usize,
    /// All records so far.
    pub rows_total: usize,
    /// Records a second, rests included.
    pub rows_per_s: f64,
    /// Share of the whole extent that is done, 0 to 1.
    pub share: f64,
    /// What the rest will take at the pace so far.
    pub left: Option<Duration>,
}

/// How the work ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "ending")]
pub enum Ending {
    /// All of it is in the ledger.
    Done,
    /// Somebody wanted it to stop; the same call goes on.
    Stopped,
    /// It cannot go on; what was read is in the ledger, and the same call goes on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backfilled {
    /// How far back the ledger was filled.
    pub reached: Epoch,
    /// sacct windows of this call.
    pub windows: usize,
    /// Records that were shown, overlaps counted twice.
    pub rows: usize,
    /// New ones among them.
    pub new: usize,
    /// Lines that were not understood.
    pub rejected: usize,
    /// How it ended.
    #[serde(flatten)]
    pub ending: Ending,
}

/// The work under way.
struct Work<'a> {
    agent: &'a mut Agent,
    extent: Extent,
    length_s: i64,
    tries: u32,
    month_rows: usize,
    clock: Stopwatch,
    done: Backfilled,
}

/// Reads what the extent lacks. `stop` is asked between windows; `tell` hears of each.
pub async fn backfill(
    agent: &mut Agent,
    extent: Extent,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Backfilled, AgentError> {
    let length_s = i64::try_from(agent.config.limits.window.as_secs()).unwrap_or(WINDOW_MAX_S);
    let done = Backfilled {
        reached: extent.reached,
        windows: 0,
        rows: 0,
        new: 0,
        rejected: 0,
        ending: Ending::Done,
    };
    let clock = Stopwatch::start();
    let mut work = Work { agent, extent, length_s, tries: 0, month_rows: 0, clock, done };
    while !work.extent.is_done() {
        let took = match work.window(tell).await? {
            Ok(took) => took,
            Err(reason) => {
                work.done.ending = Ending::Failed { reason };
                break;
            }
        };
        if !work.extent.is_done() && !rest(work.agent, took, stop).await {
            work.done.ending = Ending::Stopped;
            break;
        }
    }
    Ok(work.done)
}

/// Waits for as long as the last answer took; `false` when it is time to stop.
async fn rest(agent: &Agent, took: Duration, stop: &(dyn Fn() -> bool + Sync)) -> bool {
    let mut left = took.min(REST_MAX);
    while !stop() && !left.is_zero() {
        let look = left.min(REST_LOOK);
        agent.clock.wait(look).await;
        left -= look;
    }
    !stop()
}

impl Work<'_> {
    /// Reads the next window; how long the answer took, or why there is no going on.
    async fn window(
        &mut self,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Result<Duration, String>, AgentError> {
        let now = self.agent.clock.now();
        let zone = self.agent.config.cluster.time_zone.clone();
        let until = self.extent.reached;
        let month = Period::containing(PeriodKind::Month, until.plus(-1), &zone)?;
        let from = self.extent.from.max(month.start).max(until.plus(-self.length_s));
        let overlap_s = i64::try_from(self.agent.config.limits.overlap.as_secs()).unwrap_or(WINDOW_MIN_S);
        let asked = Window::new(from, until.plus(overlap_s).min(now.plus(1)));
        let edges = BTreeSet::from([month.start, month.window().until]);
        let answer = Stopwatch::start();
        let mut state = CollectionState::default();
        let rows = ledger::collect_past_window(self.agent, asked, &edges, now, &mut state).await?;
        let took = answer.elapsed();
        self.done.windows += 1;
        let Some(rows) = rows else {
            let reason = state.incomplete.unwrap_or_else(|| "sacct gave no answer".to_owned());
            return Ok(self.shorter().then_some(took).ok_or(reason));
        };
        if rows == 0 && state.incomplete.is_none() {
            state.incomplete = ledger::empty_unproven(self.agent, now).await?;
        }
        if let Some(reason) = state.incomplete {
            return Ok(Err(reason));
        }
        self.tries = 0;
        self.done.rows += rows;
        self.done.new += state.new;
        self.done.rejected += state.rejected;
        self.reach(from)?;
        self.month_rows += rows;
        let month_done = from <= month.start.max(self.extent.from);
        tell(&self.progress(month.name, month_done, Window::new(from, until)));
        if month_done {
            self.month_rows = 0;
        }
        self.length_s = next_length(self.length_s, took, rows);
        Ok(Ok(took))
    }

    /// Half the window for another try, as long as there is one.
    fn shorter(&mut self) -> bool {
        self.tries += 1;
        self.length_s = (self.length_s / 2).max(WINDOW_MIN_S);
        self.tries <= RETRIES_MAX
    }

    /// Notes how far back the work has come, and the ledger with it where the two meet.
    fn reach(&mut self, from: Epoch) -> Result<(), AgentError> {
        let covered = covered(self.agent);
        let meets = self
            .agent
            .store
            .last_success(&covered)?
            .is_none_or(|oldest| self.extent.until >= oldest && from < oldest);
        let mark = mark(self.agent, self.extent.until);
        self.agent.store.put_success(&mark, from)?;
        if meets {
            self.agent.store.put_success(&covered, from)?;
        }
        Step::Stored.passed();
        (self.extent.reached, self.done.reached) = (from, from);
        Ok(())
    }

    fn progress(&self, month: String, month_done: bool, window: Window) -> Progress {
        let whole_s = Window::new(self.extent.from, self.extent.until).seconds() as f64;
        let done_s = Window::new(window.from, self.extent.until).seconds() as f64;
        let spent_s = self.clock.elapsed().as_secs_f64();
        let share = if whole_s > 0.0 { done_s / whole_s } else { 1.0 };
        let left_s = if done_s > 0.0 { spent_s / done_s * (whole_s - done_s) } else { f64::NAN };
        Progress {
            month,
            month_done,
            window,
            rows: self.month_rows,
            rows_total: self.done.rows,
            rows_per_s: if spent_s > 0.0 { self.done.rows as f64 / spent_s } else { 0.0 },
            share,
            left: Duration::try_from_secs_f64(left_s).ok(),
        }
    }
}

/// The next window's length: such that its answer takes [`ANSWER`] and has at most [`ROWS_MAX`] rows, not more than doubled and not
/// less than a quarter.
fn next_length(length_s: i64, took: Duration, rows: usize) -> i64 {
    let by_time = ANSWER.as_secs_f64() / took.as_secs_f64().max(0.001);
    let by_rows = ROWS_MAX as f64 / rows.max(1) as f64;
    let factor = by_time.min(by_rows).clamp(0.25, 2.0);
    ((length_s as f64 * factor) as i64).clamp(WINDOW_MIN_S, WINDOW_MAX_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_while_answers_are_quick_and_shrinks_when_they_are_slow_or_large() {
        let day = 86_400;
        let check = |took_ms: u64, rows: usize, next: i64| {
            assert_eq!(
                next_length(day, Duration::from_millis(took_ms), rows),
                next,
                "{took_ms} ms, {rows} rows"
            );
        };
        check(10, 100, 2 * day);
        check(5000, 1000, day);
        check(10_000, 1000, day / 2);
        check(600_000, 1000, day / 4);
        check(10, 100_000, day / 2);
        assert_eq!(next_length(WINDOW_MAX_S, Duration::ZERO, 0), WINDOW_MAX_S);
        assert_eq!(next_length(WINDOW_MIN_S, Duration::from_secs(60), 0), WINDOW_MIN_S);
    }
}
