//! Backfill: past months, one after the other: the month's jobs into the ledger, their records, and what is due to the
//! server. The position is stored after each month. A month that was interrupted is read again, and what has not changed
//! makes no new version: nothing is told twice.

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::super::Agent;
use super::super::error::AgentError;
use super::super::ledger;
use crate::config::duration_text;
use crate::core::time::{Epoch, Window};
use crate::store::{FORGOTTEN, Store, StoreError};

/// Name of the position in the store.
const POSITION: &str = "amie_backfill";

/// How far a backfill has come. Days are first days of months in the cluster's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// First month.
    pub from: Date,
    /// The first month that is not meant any more.
    pub until: Date,
    /// The month to be done next; `until` when all are done.
    pub next: Date,
}

/// What came of a month.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MonthDone {
    /// Its name, `2026-03`.
    pub month: String,
    /// Job records that the ledger did not know.
    pub jobs_new: usize,
    /// Job records that were different there.
    pub jobs_changed: usize,
    /// New versions of records.
    pub made: usize,
    /// Records that the server took.
    pub accepted: usize,
    /// Records that it refused.
    pub refused: usize,
    /// Why the month is not done; the same call goes on with it.
    pub stopped: Option<String>,
    /// What people should know.
    pub findings: Vec<String>,
}

impl Position {
    /// Months from first to last, and how many of them are done.
    pub fn months(&self) -> (usize, usize) {
        let count = |until: Date| {
            let months = i32::from(until.year() - self.from.year()) * 12
                + i32::from(until.month() - self.from.month());
            usize::try_from(months).unwrap_or(0)
        };
        (count(self.until), count(self.next))
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.next >= self.until
    }
}

/// Where the last backfill stands.
pub fn position(store: &Store) -> Result<Option<Position>, StoreError> {
    Ok(store.last_report::<Position>(POSITION)?.map(|(position, _)| position))
}

/// The position to begin or go on at: that of an unfinished backfill of the same months, or the first of those asked for.
///
/// # Errors
/// When nothing is asked for and nothing is unfinished, and when records of these months could not be told or kept.
pub fn begin(agent: &Agent, asked: Option<(Date, Option<Date>)>, now: Epoch) -> Result<Position, AgentError> {
    let known = position(&agent.store)?;
    let Some((from, until)) = asked else {
        return known.filter(|position| !position.is_done()).ok_or_else(|| {
            AgentError::Asked("no backfill is unfinished; name its first month with --from 2026-01".into())
        });
    };
    let this_month = month_of(agent, now);
    let (from, until) = (from.first_of_month(), until.map_or(this_month, Date::first_of_month));
    if until > this_month {
        let text = format!("{until} is not past: the running month is told by the agent itself");
        return Err(AgentError::Asked(text));
    }
    if from >= until {
        return Err(AgentError::Asked(format!("there is no month from {from} until {until}")));
    }
    can_be_told(agent, from, now)?;
    match known {
        Some(known) if (known.from, known.until) == (from, until) && !known.is_done() => Ok(known),
        _ => Ok(Position { from, until, next: from }),
    }
}

fn can_be_told(agent: &Agent, from: Date, now: Epoch) -> Result<(), AgentError> {
    let Some(amie) = &agent.config.amie else {
        return Err(AgentError::Asked("the configuration has no [amie] section".into()));
    };
    if let Some(since) = amie.since.filter(|since| from < *since) {
        return Err(AgentError::Asked(format!(
            "amie.since = {since} leaves out jobs that ended earlier; begin with that month, or take it back"
        )));
    }
    let first = midnight(agent, from)?;
    if let Some(forgotten) = agent.store.last_success(FORGOTTEN)?.filter(|forgotten| first < *forgotten) {
        return Err(AgentError::Asked(format!(
            "what was told of jobs that ended before {forgotten} is forgotten (amie.keep_records): begin later, since they \
             could be charged twice"
        )));
    }
    let kept = amie.keep_records.max(agent.config.store.keep_jobs);
    let kept_s = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
    if now.since(first) > kept_s {
        return Err(AgentError::Asked(format!(
            "records of {from} would be forgotten at once: raise amie.keep_records above {}",
            duration_text(kept)
        )));
    }
    Ok(())
}

fn month_of(agent: &Agent, instant: Epoch) -> Date {
    let zone = agent.config.cluster.time_zone.clone();
    let time = jiff::Timestamp::from_second(instant.0).unwrap_or_default();
    time.to_zoned(zone).date().first_of_month()
}

fn midnight(agent: &Agent, day: Date) -> Result<Epoch, AgentError> {
    let zoned = day.to_zoned(agent.config.cluster.time_zone.clone());
    let zoned = zoned.map_err(|error| AgentError::Asked(format!("{day}: {error}")))?;
    Ok(Epoch(zoned.timestamp().as_second()))
}

/// Does the next month, and moves the position when it is done. With `send` false nothing is sent and all else is done.
pub async fn next_month(
    agent: &mut Agent,
    position: &mut Position,
    send: bool,
    now: Epoch,
) -> Result<MonthDone, AgentError> {
    let after = position.next.checked_add(1.month());
    let after = after.map_err(|error| AgentError::Asked(format!("{}: {error}", position.next)))?;
    let window = Window::new(midnight(agent, position.next)?, midnight(agent, after)?);
    let mut done = MonthDone { month: position.next.strftime("%Y-%m").to_string(), ..MonthDone::default() };
    let collected = ledger::collect_past(agent, window, now).await?;
    (done.jobs_new, done.jobs_changed) = (collected.new, collected.changed);
    if collected.rejected > 0 {
        let sample = collected.samples.first().map_or("", String::as_str);
        done.findings.push(format!("{} lines of sacct were not understood: {sample}", collected.rejected));
    }
    if let Some(why) = collected.incomplete {
        done.stopped = Some(why);
        return Ok(done);
    }
    let made = super::make(agent, now).await?;
    done.made = made.made;
    done.findings.extend(made.findings);
    if send {
        deliver(agent, &mut done, now).await?;
    }
    if done.stopped.is_none() {
        position.next = after;
        agent.store.put_report(POSITION, position, now)?;
    }
    Ok(done)
}

async fn deliver(agent: &mut Agent, done: &mut MonthDone, now: Epoch) -> Result<(), AgentError> {
    for count in super::deliver(agent, now).await?.into_values() {
        done.accepted += count.delivered;
        done.refused += count.dead;
        if count.failed > 0 {
            let why = count.error.unwrap_or_default();
            done.stopped = Some(format!("{} records were not taken: {why}", count.failed));
        }
    }
    Ok(())
}
