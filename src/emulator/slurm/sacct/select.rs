//! Which records `sacct` shows, in which order, and what `-T` does to their times
//! (as_mysql_jobacct_process.c and slurmdb_defs.c of 22.05.8).

use super::super::job::{Job, JobState};
use super::super::world::World;
use super::fields::Row;
use super::options::{Query, Wanted};
use std::cmp::Reverse;

/// The rows of a query, in the order in which they are printed.
pub(super) fn rows<'a>(world: &'a World, now: i64, query: &Query) -> Vec<Row<'a>> {
    let mut found: Vec<&Job> = world.jobs.iter().filter(|job| matches(world, query, job)).collect();
    if !query.duplicates {
        found.sort_by_key(|job| (job.cluster.as_deref(), job.id, Reverse(job.submit)));
        let mut last = None;
        found.retain(|job| {
            let key = (job.cluster.as_deref(), job.id);
            let repeated = last == Some(key) && job.state != JobState::Resizing;
            last = Some(key);
            !repeated && job.state != JobState::Revoked
        });
    } else {
        found.sort_by_key(|job| (job.id, job.submit));
    }
    let order = |job: &&Job| {
        let array = job.array.as_ref();
        (
            job.submit,
            array.map_or(0, |part| part.job),
            array.and_then(|part| part.task).unwrap_or(u32::MAX),
            job.id,
        )
    };
    found.sort_by_key(order);
    let end = query.end.min(now);
    found
        .into_iter()
        .map(|job| if query.truncate { truncated(job, query.start, end) } else { whole(job, now) })
        .collect()
}

fn matches(world: &World, query: &Query, job: &Job) -> bool {
    let cluster = job.cluster.as_deref().unwrap_or(&world.cluster);
    let is = |list: &[String], text: &str| {
        list.is_empty() || list.iter().any(|name| name.eq_ignore_ascii_case(text))
    };
    query.clusters.as_ref().is_none_or(|clusters| clusters.iter().any(|name| name == cluster))
        && is(&query.accounts, &job.account)
        && is(&query.qos, &job.qos)
        && is(&query.partitions, &job.partition)
        && is(&query.names, &job.name)
        && (query.associations.is_empty() || query.associations.contains(&job.association))
        && query.uids.as_ref().is_none_or(|uids| world.uid(&job.user).is_some_and(|uid| uids.contains(&uid)))
        && (query.jobs.is_empty() || query.jobs.iter().any(|wanted| wanted.is(job)))
        && in_window(query, job)
}

impl Wanted {
    fn is(&self, job: &Job) -> bool {
        let array = job.array.as_ref();
        match (self.task, self.component) {
            (Some(task), _) => array.is_some_and(|part| part.job == self.job && part.task == Some(task)),
            (None, Some(component)) => job.het == Some((self.job, component)),
            (None, None) => {
                job.id == self.job
                    || array.is_some_and(|part| part.job == self.job)
                    || job.het.is_some_and(|(leader, _)| leader == self.job)
            }
        }
    }
}

fn in_window(query: &Query, job: &Job) -> bool {
    let (from, to) = (query.start, query.end);
    if !query.states.is_empty() {
        return query.states.iter().any(|state| was_in_state(state, job, from, to));
    }
    let not_over = job.end >= from || job.end == 0;
    if query.jobs.is_empty() {
        job.eligible != 0 && job.eligible < to && not_over
    } else {
        job.submit < to && not_over
    }
}

fn was_in_state(state: &JobState, job: &Job, from: i64, to: i64) -> bool {
    match state {
        JobState::Pending => {
            job.eligible != 0
                && to > job.eligible
                && if job.start != 0 {
                    from < job.start
                } else if job.end != 0 {
                    from < job.end
                } else {
                    job.state == JobState::Pending
                }
        }
        JobState::Running => {
            job.start != 0
                && to > job.start
                && (from < job.end || (job.end == 0 && job.state == JobState::Running))
        }
        JobState::Suspended => {
            job.suspensions.iter().any(|part| part.from <= to && part.to.is_none_or(|end| end >= from))
        }
        ended => job.state == *ended && job.end != 0 && (from..=to).contains(&job.end),
    }
}

/// Start that is printed: a record whose end lies before its start shows the end.
fn shown_start(job: &Job) -> i64 {
    if job.end != 0 && job.start > job.end { job.end } else { job.start }
}

fn whole(job: &Job, now: i64) -> Row<'_> {
    let start = shown_start(job);
    let suspended = job.suspended_s(now);
    let elapsed = match (start, job.end) {
        (0, _) => 0,
        (start, 0) => now - start,
        (start, end) => end - start,
    };
    let never_started = start == 0 && job.end != 0 && job.flags.iter().any(|flag| flag == "StartRecieved");
    Row {
        job,
        start: if never_started { super::super::times::NONE } else { start },
        end: job.end,
        elapsed: (elapsed - suspended).max(0),
        suspended,
    }
}

/// `-T`: times cut to the window. A suspension that still lasts is not taken off, which is a bug of every release.
fn truncated(job: &Job, from: i64, to: i64) -> Row<'_> {
    let mut start = shown_start(job);
    if start != 0 && start < from {
        start = from;
    }
    let end = if job.end == 0 || job.end > to { to } else { job.end };
    if start == 0 {
        start = end;
    }
    let suspended: i64 = job
        .suspensions
        .iter()
        .filter(|part| part.from < to && part.to.is_none_or(|until| until >= from))
        .filter_map(|part| part.to.map(|until| (until.min(end) - part.from.max(start)).max(0)))
        .sum();
    Row { job, start, end, elapsed: (end - start - suspended).max(0), suspended }
}
