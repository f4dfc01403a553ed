//! Wakes the daemon by the clock: poll, deep scan, audit and report. [`Bell`] is also what signals and watchers ring.
//!
//! A firing only raises a flag and wakes the one worker loop, so that overlapping, late and doubled firings
//! collapse into one. The scheduler crate keeps a zone only for the first firing of a job (0.15.1: off by an hour after the clocks
//! change, seen), so every zone-bound job is put in again after each firing. Chrono's types stay inside this file.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::core::time::Epoch;

/// What a wake-up asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A cycle.
    Poll,
    /// A cycle that reads the open periods again.
    DeepScan,
    /// A comparison with sreport.
    Audit,
    /// Usage reports and deliveries.
    Report,
    /// A cycle that asks only the sources that said that they have changed.
    Stirred,
}

impl Due {
    const ALL: [Due; 5] = [Due::Poll, Due::DeepScan, Due::Audit, Due::Report, Due::Stirred];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The name of its mark in the store and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Due::Poll => "poll",
            Due::DeepScan => "deep_scan",
            Due::Audit => "audit",
            Due::Report => "report",
            Due::Stirred => "stirred",
        }
    }
}

/// The bell that timers and signals ring and the worker loop waits for.
#[derive(Debug, Clone, Default)]
pub struct Bell {
    due: Arc<AtomicU8>,
    rung: Arc<Notify>,
}

impl Bell {
    /// Asks for something; asking twice is asking once.
    pub fn ring(&self, due: Due) {
        self.due.fetch_or(due.bit(), Ordering::SeqCst);
        self.rung.notify_one();
    }

    /// Waits until something is due and takes all of it.
    pub async fn wait(&self) -> Vec<Due> {
        loop {
            let bits = self.due.swap(0, Ordering::SeqCst);
            if bits != 0 {
                return Due::ALL.into_iter().filter(|due| bits & due.bit() != 0).collect();
            }
            self.rung.notified().await;
        }
    }
}

/// Why a timer could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The pattern has no meaning for the scheduler.
    #[error("the schedule {name} = {pattern:?} could not be set")]
    Set {
        /// Which.
        name: &'static str,
        /// As written.
        pattern: String,
        /// The scheduler's words.
        source: JobSchedulerError,
    },
    /// A zone without a table.
    #[error("the time zone {0:?} is not known to the scheduler; give an IANA name such as Europe/Berlin")]
    Zone(String),
    /// The scheduler itself does not run.
    #[error("the scheduler could not be started")]
    Start(#[source] JobSchedulerError),
}

/// Running timers; dropped timers stop with the runtime.
pub struct Timers {
    scheduler: JobScheduler,
}

impl Timers {
    /// Starts a poll every `poll` and the zone-bound `cron` jobs (five fields, in the zone `zone`).
    pub async fn start(
        bell: &Bell,
        poll: Duration,
        cron: &[(Due, String)],
        zone: &str,
    ) -> Result<Timers, ScheduleError> {
        let zone = chrono_tz::Tz::from_str(zone).map_err(|_| ScheduleError::Zone(zone.to_owned()))?;
        let scheduler = JobScheduler::new().await.map_err(ScheduleError::Start)?;
        let pattern = poll_pattern(poll);
        let rung = bell.clone();
        let job = Job::new_async(pattern.as_str(), move |_, _| {
            let bell = rung.clone();
            Box::pin(async move { bell.ring(Due::Poll) })
        });
        let set = |source| ScheduleError::Set { name: Due::Poll.as_str(), pattern: pattern.clone(), source };
        scheduler.add(job.map_err(set)?).await.map_err(set)?;
        for (due, pattern) in cron {
            arm(&scheduler, bell.clone(), *due, format!("0 {pattern}"), zone).await.map_err(|source| {
                ScheduleError::Set { name: due.as_str(), pattern: pattern.clone(), source }
            })?;
        }
        scheduler.start().await.map_err(ScheduleError::Start)?;
        Ok(Timers { scheduler })
    }

    /// No firing begins after this; the crate's own flag takes up to one tick to be seen, a late ring is harmless.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "the scheduler did not stop cleanly");
        }
    }
}

/// Puts a zone-bound job in, which puts itself in again after each firing.
fn arm(
    scheduler: &JobScheduler,
    bell: Bell,
    due: Due,
    pattern: String,
    zone: chrono_tz::Tz,
) -> std::pin::Pin<Box<dyn Future<Output = Result<(), JobSchedulerError>> + Send>> {
    let scheduler = scheduler.clone();
    Box::pin(async move {
        let (again, text) = (scheduler.clone(), pattern.clone());
        let job = Job::new_async_tz(pattern.as_str(), zone, move |id, _| {
            let (scheduler, bell, text) = (again.clone(), bell.clone(), text.clone());
            Box::pin(async move {
                bell.ring(due);
                let rearmed = match scheduler.remove(&id).await {
                    Ok(()) => arm(&scheduler, bell, due, text, zone).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = rearmed {
                    tracing::error!(schedule = due.as_str(), %error, "a schedule was lost; restart the service");
                }
            })
        })?;
        scheduler.add(job).await.map(|_| ())
    })
}

/// Whether a pattern (five fields, in the zone) was due between `last` and `now`. One that has no meaning never was; the
/// configuration refuses those.
pub fn missed(pattern: &str, zone: &str, last: Epoch, now: Epoch) -> bool {
    let next = || {
        let zone = chrono_tz::Tz::from_str(zone).ok()?;
        let last = chrono::DateTime::from_timestamp(last.0, 0)?.with_timezone(&zone);
        croner::Cron::from_str(pattern).ok()?.find_next_occurrence(&last, false).ok()
    };
    next().is_some_and(|next| next.timestamp() <= now.0)
}

/// The cron pattern, with seconds, that fires every `interval` from the full minute, hour or day on. Where the interval does
/// not divide the next larger unit it fires at the end of that unit too: never later than asked.
fn poll_pattern(interval: Duration) -> String {
    let seconds = interval.as_secs().max(1);
    if seconds < 60 {
        format!("*/{seconds} * * * * *")
    } else if seconds < 3600 {
        format!("0 */{} * * * *", seconds / 60)
    } else {
        format!("0 0 */{} * * *", (seconds / 3600).min(24))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rings_that_come_while_nobody_waits_collapse_into_one() {
        let bell = Bell::default();
        bell.ring(Due::Poll);
        bell.ring(Due::Audit);
        bell.ring(Due::Poll);
        assert_eq!(bell.wait().await, vec![Due::Poll, Due::Audit]);
        assert!(tokio::time::timeout(Duration::from_millis(1), bell.wait()).await.is_err());
    }

    #[test]
    fn what_was_due_while_nobody_ran_is_known() {
        let at = |text: &str| Epoch(text.parse::<jiff::Timestamp>().unwrap().as_second());
        let missed = |last, now| missed("17 3 * * *", "Europe/Berlin", at(last), at(now));
        // 03:17 in Berlin is 01:17 UTC in summer and 02:17 UTC in winter.
        assert!(!missed("2026-07-01T01:17:00Z", "2026-07-02T01:16:59Z"));
        assert!(missed("2026-07-01T01:17:00Z", "2026-07-02T01:17:00Z"));
        assert!(!missed("2026-12-01T02:17:00Z", "2026-12-02T02:16:59Z"));
        assert!(missed("2026-12-01T02:17:00Z", "2026-12-09T00:00:00Z"));
    }

    #[test]
    fn every_poll_interval_has_a_pattern_the_scheduler_accepts() {
        for seconds in [1, 5, 7, 30, 60, 300, 3599, 3600, 7200, 86_400] {
            Job::new_async(poll_pattern(Duration::from_secs(seconds)).as_str(), |_, _| Box::pin(async {}))
                .unwrap();
        }
    }
}
