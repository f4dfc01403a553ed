//! Steps 2 and 3: job records from sacct into the ledger, and the watermark with them.
//!
//! rc 0 without rows proves nothing (slurmdbd answers so when its database fails), so every window overlaps the one
//! before, and a record known to lie in it must show again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Agent;
use super::error::{AgentError, chain};
use super::step::Step;
use crate::core::job::{JobRecord, SuspendedBefore};
use crate::core::time::{Epoch, Window};
use crate::core::usage::needs_suspension_split;
use crate::slurm::{JobStream, SlurmError};
use crate::store::{Collected, Collection};

/// How much of the past one call may ask for while there is little in it: quiet stretches cost a few calls.
const QUIET_WINDOW_MAX_S: i64 = 366 * 86_400;
/// Fewer records than this make the next window twice as long: sacct needs half a second and 100 MB for them.
const ROWS_FEW: usize = 20_000;

/// Oldest end of a job that must still be there: slurmdbd's shortest usual PurgeJobAfter is a month.
const PROBE_AGE_MAX_S: i64 = 28 * 86_400;

/// Slurm has no older jobs (2001-09-09), and sacct 22.05 does not take the time 0.
pub(super) const FIRST_JOB: Epoch = Epoch(1_000_000_000);

/// What a collection found, for people and for the decision whether its totals may be trusted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CollectionState {
    /// sacct calls.
    pub windows: usize,
    /// New job records.
    pub new: usize,
    /// Changed job records.
    pub changed: usize,
    /// Lines that were not understood.
    pub rejected: usize,
    /// Some of them, made printable.
    pub samples: Vec<String>,
    /// Records without an end that Slurm no longer shows, or that have run for longer than jobs do.
    pub runaway: usize,
    /// Why the ledger cannot be trusted now, when that is so.
    pub incomplete: Option<String>,
}

/// Brings the ledger up to now. It reaches back to `needed_from` at least; `deep` reads everything from there again.
pub async fn collect(
    agent: &mut Agent,
    needed_from: Epoch,
    edges: &BTreeSet<Epoch>,
    deep: bool,
    now: Epoch,
) -> Result<CollectionState, AgentError> {
    let mut state = CollectionState::default();
    let needed_from = needed_from.max(FIRST_JOB);
    let cluster = agent.config.cluster.name.clone();
    let covered = format!("ledger_from:{cluster}");
    let overlap_s = i64::try_from(agent.config.limits.overlap.as_secs()).unwrap_or(i64::MAX);
    let from = match (agent.store.watermark(&cluster)?, agent.store.last_success(&covered)?) {
        (Some(watermark), Some(reaches)) if reaches <= needed_from && !deep => watermark.plus(-overlap_s),
        _ => needed_from,
    };
    let mut seen_open = BTreeSet::new();
    let mut next = from.min(now);
    let busy_s = i64::try_from(agent.config.limits.window.as_secs()).unwrap_or(86_400).max(1);
    let mut length_s = busy_s;
    // Rows with eligible < until are shown, so the last window reaches one second past now.
    while next < now.plus(1) && state.incomplete.is_none() {
        let window = Window::new(next, now.plus(1).min(next.plus(length_s)));
        let rows = collect_window(agent, window, edges, now, Some(&mut seen_open), &mut state).await?;
        length_s = next_length(length_s, rows, busy_s);
        next = window.until;
    }
    if state.incomplete.is_none() {
        if agent.store.last_success(&covered)?.is_none_or(|reaches| needed_from < reaches) {
            agent.store.put_success(&covered, needed_from)?;
        }
        flag_runaways(agent, &seen_open, now)?;
        state.runaway = agent.store.runaways(&cluster)?.len();
    }
    Step::Stored.passed();
    Ok(state)
}

fn next_length(length_s: i64, rows: Option<usize>, busy_s: i64) -> i64 {
    match rows {
        Some(rows) if rows < ROWS_FEW => (length_s * 2).min(QUIET_WINDOW_MAX_S),
        _ => busy_s,
    }
}

/// Reads a span of the past, window by window, into the ledger, whose watermark and reach stay as they are: for who needs the jobs
/// themselves, not totals over periods. An answer without rows is believed only when slurmdbd shows a job of the last weeks
/// that the ledger knows.
pub(super) async fn collect_span(
    agent: &mut Agent,
    past: Window,
    now: Epoch,
) -> Result<CollectionState, AgentError> {
    let mut state = CollectionState::default();
    let busy_s = i64::try_from(agent.config.limits.window.as_secs()).unwrap_or(86_400).max(1);
    let (mut next, mut length_s, mut empty) = (past.from.max(FIRST_JOB), busy_s, false);
    while next < past.until && state.incomplete.is_none() {
        let window = Window::new(next, past.until.min(next.plus(length_s)));
        let rows = collect_past_window(agent, window, &BTreeSet::new(), now, &mut state).await?;
        empty |= rows == Some(0);
        length_s = next_length(length_s, rows, busy_s);
        next = window.until;
    }
    if empty && state.incomplete.is_none() {
        state.incomplete = empty_unproven(agent, now).await?;
    }
    Step::Stored.passed();
    Ok(state)
}

/// What is looked for in the rows of a window while they are read, besides storing them.
#[derive(Debug, Default)]
struct Looked {
    /// A record known to lie in the window.
    sentinel: Option<JobRecord>,
    sentinel_shown: bool,
    /// Whether any other record was shown that the ledger has with an end.
    known_shown: bool,
    rows: usize,
    collected: Collected,
}

/// Records of a window that wait to be stored, with the suspensions that belong to them.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<JobRecord>,
    suspended: Vec<SuspendedBefore>,
}

/// Reads and stores one window; the number of rows, `None` when it failed. Batches are stored as they come, but for the last
/// one, which is stored together with the watermark when the whole window was read and its overlap has held. `seen_open`
/// collects what was shown without an end; without it the window is one of the past, and the watermark stays.
async fn collect_window(
    agent: &mut Agent,
    window: Window,
    edges: &BTreeSet<Epoch>,
    now: Epoch,
    seen_open: Option<&mut BTreeSet<u64>>,
    state: &mut CollectionState,
) -> Result<Option<usize>, AgentError> {
    state.windows += 1;
    let cluster = agent.config.cluster.name.clone();
    let mut looked = Looked { sentinel: agent.store.sentinel(&cluster, window)?, ..Looked::default() };
    let moves = seen_open.is_some();
    let mut unheeded = BTreeSet::new();
    let seen_open = seen_open.unwrap_or(&mut unheeded);
    let read = read_window(agent, window, edges, now, &mut looked, seen_open).await?;
    state.new += looked.collected.new;
    state.changed += looked.collected.changed;
    let (last, stream) = match read {
        Ok(read) => read,
        Err(reason) => {
            state.incomplete = Some(reason);
            return Ok(None);
        }
    };
    Step::Collected.passed();
    state.rejected += stream.rejected();
    state.samples.extend(stream.samples().iter().take(5).cloned());
    state.incomplete = overlap_broken(agent, window, &looked, stream.rejected()).await?;
    if state.rejected > agent.config.limits.rejects_max {
        state.incomplete = Some(format!(
            "{} lines of sacct were not understood, more than limits.rejects_max = {}; the first: {}",
            state.rejected,
            agent.config.limits.rejects_max,
            state.samples.first().map_or("", String::as_str)
        ));
    }
    let complete = state.incomplete.is_none();
    let collected = agent.store.put_collection(&Collection {
        cluster: &cluster,
        window,
        now,
        watermark: (complete && moves).then(|| window.until.min(now)),
        records: &last.records,
        before: looked.collected,
        more: false,
        suspended: &last.suspended,
        rejected: stream.rejected(),
        reject_samples: stream.samples().to_vec(),
        complete,
    })?;
    state.new += collected.new;
    state.changed += collected.changed;
    Ok(Some(looked.rows))
}

/// Reads a window to its end and stores all but its last batch; or says why the answer is not whole.
async fn read_window(
    agent: &mut Agent,
    window: Window,
    edges: &BTreeSet<Epoch>,
    now: Epoch,
    looked: &mut Looked,
    seen_open: &mut BTreeSet<u64>,
) -> Result<Result<(Batch, JobStream), String>, AgentError> {
    let failed = |error: SlurmError| {
        tracing::warn!(error = chain(&error), "sacct did not answer; the ledger stays where it is");
        Ok(Err(format!("sacct did not answer: {}", chain(&error))))
    };
    let mut ahead = match agent.slurm.jobs(window) {
        Ok(stream) => Ahead::begin(stream),
        Err(error) => return failed(error),
    };
    let mut last = Batch::default();
    loop {
        let records = match ahead.batches.recv().await {
            Some(Ok(records)) => records,
            Some(Err(error)) => return failed(error),
            None => return Ok(Ok((last, ahead.end().await?))),
        };
        if !last.records.is_empty() {
            store_batch(agent, window, now, &last, looked)?;
        }
        look(agent, &records, looked)?;
        seen_open
            .extend(records.iter().filter(|record| !record.has_ended()).map(|record| record.key.dbindex));
        let suspended = match splits(agent, &records, edges, now).await {
            Ok(suspended) => suspended,
            Err(reason) => return Ok(Err(reason)),
        };
        last = Batch { records, suspended };
    }
}

/// An answer of sacct that is read while what came before is stored: a first load takes as long as the slower of the two. Ended
/// with sacct itself when it is dropped.
struct Ahead {
    /// One batch waits here, and one more in the task.
    batches: mpsc::Receiver<Result<Vec<JobRecord>, SlurmError>>,
    reading: AbortOnDropHandle<JobStream>,
}

impl Ahead {
    fn begin(mut stream: JobStream) -> Ahead {
        let (sender, batches) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            while let Some(read) = stream.next_batch().await.transpose() {
                let failed = read.is_err();
                if sender.send(read).await.is_err() || failed {
                    break;
                }
            }
            stream
        });
        Ahead { batches, reading: AbortOnDropHandle::new(reading) }
    }

    /// What is known at the end of an answer all of whose batches were taken. Fails where the task did not come to the end.
    async fn end(self) -> Result<JobStream, AgentError> {
        let failed =
            |error| AgentError::System { doing: "reading job records", source: std::io::Error::other(error) };
        self.reading.await.map_err(failed)
    }
}

/// Stores a batch that others of its window follow: facts, whatever becomes of the rest.
fn store_batch(
    agent: &mut Agent,
    window: Window,
    now: Epoch,
    batch: &Batch,
    looked: &mut Looked,
) -> Result<(), AgentError> {
    let collected = agent.store.put_collection(&Collection {
        cluster: &agent.config.cluster.name,
        window,
        now,
        watermark: None,
        records: &batch.records,
        before: Collected::default(),
        more: true,
        suspended: &batch.suspended,
        rejected: 0,
        reject_samples: Vec::new(),
        complete: false,
    })?;
    looked.collected = looked.collected.and(collected);
    Ok(())
}

/// Looks for known records among those of a batch that is not stored yet.
fn look(agent: &Agent, records: &[JobRecord], looked: &mut Looked) -> Result<(), AgentError> {
    looked.rows += records.len();
    let Some(sentinel) = &looked.sentinel else { return Ok(()) };
    looked.sentinel_shown |= records.iter().any(|record| record.key == sentinel.key);
    if !looked.sentinel_shown && !looked.known_shown {
        let shown = records.iter().map(|record| record.key.dbindex).collect();
        looked.known_shown = agent.store.knows_ended(&agent.config.cluster.name, &shown)?;
    }
    Ok(())
}

/// Why an answer that is whole in itself does not prove what was in the window.
async fn overlap_broken(
    agent: &mut Agent,
    window: Window,
    looked: &Looked,
    rejected: usize,
) -> Result<Option<String>, AgentError> {
    match &looked.sentinel {
        Some(_) if looked.sentinel_shown => Ok(None),
        Some(known) if looked.known_shown && is_gone(agent, known).await => {
            tracing::warn!(
                dbindex = known.key.dbindex,
                "a job record is no longer at slurmdbd; what it used still counts"
            );
            Ok(None)
        }
        Some(known) => Ok(Some(not_shown_again(known))),
        None if looked.rows == 0 => nothing_shown(agent, window, rejected).await,
        None => Ok(None),
    }
}

fn not_shown_again(known: &JobRecord) -> String {
    format!(
        "sacct did not show job record {} again, which ended at {}: slurmdbd may have failed, or its records were purged; \
         the ledger stays where it is",
        known.key.dbindex,
        known.end.map_or_else(String::new, |end| end.to_string())
    )
}

/// Why no understood row may not mean that there was no job, in a window of which the ledger knows nothing: a record known
/// from elsewhere must show where it lies, else slurmdbd has failed or speaks in another way.
async fn nothing_shown(
    agent: &mut Agent,
    window: Window,
    rejected: usize,
) -> Result<Option<String>, AgentError> {
    let Some(known) = known_of_late(agent, window.until)? else {
        // A job that has not ended is shown by every window that it began before.
        let began = |job: &JobRecord| job.start.is_some_and(|start| start < window.until);
        let open = agent.store.open_jobs(&agent.config.cluster.name)?.iter().filter(|job| began(job)).count();
        return Ok(match (rejected, open) {
            (0, 0) => None,
            (0, _) => Some(format!("sacct showed nothing, although {open} jobs have not ended")),
            _ => Some(format!("none of the {rejected} lines of sacct was understood")),
        });
    };
    Ok(shows_again(agent, &known).await)
}

/// Why past windows without rows are not believed: a failed query inside slurmdbd is empty as well. A record that the ledger
/// knows from the last weeks must show when it is asked for; where it knows none, nothing speaks against them.
pub(super) async fn empty_unproven(agent: &Agent, now: Epoch) -> Result<Option<String>, AgentError> {
    match known_of_late(agent, now)? {
        Some(known) => Ok(shows_again(agent, &known).await),
        None => Ok(None),
    }
}

/// A record that ended in the weeks before `until`.
fn known_of_late(agent: &Agent, until: Epoch) -> Result<Option<JobRecord>, AgentError> {
    let lately = Window::new(until.plus(-PROBE_AGE_MAX_S), until);
    Ok(agent.store.sentinel(&agent.config.cluster.name, lately)?)
}

/// Why slurmdbd cannot be believed now: it does not show a record that ended and that the ledger knows.
async fn shows_again(agent: &Agent, known: &JobRecord) -> Option<String> {
    let end = known.end?;
    match agent.slurm.collect(Window::new(end.plus(-1), end.plus(1))).await {
        Ok(lines) if lines.records.iter().any(|record| record.key == known.key) => None,
        Ok(_) => Some(not_shown_again(known)),
        Err(error) => Some(format!("sacct did not answer: {}", chain(&error))),
    }
}

/// Suspension of jobs that were suspended and cross an edge of a period, asked for with `sacct -T`.
async fn splits(
    agent: &Agent,
    records: &[JobRecord],
    edges: &BTreeSet<Epoch>,
    now: Epoch,
) -> Result<Vec<SuspendedBefore>, String> {
    let mut by_edge: BTreeMap<Epoch, Vec<JobRecord>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.suspended_s > 0) {
        for edge in edges.iter().filter(|edge| needs_suspension_split(record, **edge, now)) {
            by_edge.entry(*edge).or_default().push(record.clone());
        }
    }
    let mut found = Vec::new();
    for (edge, jobs) in by_edge {
        let split = agent.slurm.suspended_before(&jobs, edge, now).await;
        found.extend(split.map_err(|error| format!("sacct -T did not answer: {}", chain(&error)))?);
    }
    Ok(found)
}

/// Whether a record that should have shown again was taken away from slurmdbd, which answers well otherwise (others that the
/// ledger knows did show): it is not there when it is asked for alone. A cut answer would show it then.
async fn is_gone(agent: &Agent, known: &JobRecord) -> bool {
    let Some(end) = known.end else { return false };
    let alone = agent.slurm.collect(Window::new(end.plus(-1), end.plus(1))).await;
    alone
        .is_ok_and(|lines| lines.rejected == 0 && !lines.records.iter().any(|record| record.key == known.key))
}

/// Sets aside open records that a complete look at now did not show (deleted or re-keyed), and those that have run longer
/// than jobs do: neither may be billed for ever.
fn flag_runaways(agent: &mut Agent, seen_open: &BTreeSet<u64>, now: Epoch) -> Result<(), AgentError> {
    let cluster = agent.config.cluster.name.clone();
    let longest_s = i64::try_from(agent.config.limits.runaway_after.as_secs()).unwrap_or(i64::MAX);
    let flagged: BTreeSet<u64> =
        agent.store.runaways(&cluster)?.iter().map(|record| record.key.dbindex).collect();
    for record in agent.store.open_jobs(&cluster)? {
        let dbindex = record.key.dbindex;
        let too_long = record.start.is_some_and(|start| now.since(start) > longest_s);
        let runaway = !seen_open.contains(&dbindex) || too_long;
        if runaway != flagged.contains(&dbindex) {
            if runaway {
                tracing::warn!(
                    dbindex,
                    job = record.job_id,
                    account = record.account.as_str(),
                    "a job record without an end is set aside as runaway; see `sacctmgr show runaway`"
                );
            }
            agent.store.mark_runaway(&record.key, runaway)?;
        }
    }
    Ok(())
}

/// Reads one window of the past into the ledger, with everything that proves an answer; the number of rows, `None` when it
/// failed. The watermark and the reach stay as they are.
pub(super) async fn collect_past_window(
    agent: &mut Agent,
    window: Window,
    edges: &BTreeSet<Epoch>,
    now: Epoch,
    state: &mut CollectionState,
) -> Result<Option<usize>, AgentError> {
    collect_window(agent, window, edges, now, None, state).await
}
