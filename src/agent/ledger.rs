//! Steps 2 and 3: job records from sacct into the ledger, and the watermark with them.
//!
//! rc 0 without rows proves nothing (slurmdbd answers so when its database fails), so every window overlaps the one
//! before, and a record known to lie in it must show again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Agent;
use super::error::{AgentError, chain};
use super::step::Step;
use crate::core::job::{JobRecord, SuspendedBefore};
use crate::core::time::{Epoch, Window};
use crate::core::usage::needs_suspension_split;
use crate::store::Collection;

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
    let mut seen = BTreeSet::new();
    let mut next = from.min(now);
    let busy_s = i64::try_from(agent.config.limits.window.as_secs()).unwrap_or(86_400).max(1);
    let mut length_s = busy_s;
    // Rows with eligible < until are shown, so the last window reaches one second past now.
    while next < now.plus(1) && state.incomplete.is_none() {
        let window = Window::new(next, now.plus(1).min(next.plus(length_s)));
        let rows = collect_window(agent, window, edges, now, &mut seen, &mut state).await?;
        length_s = match rows {
            Some(rows) if rows < ROWS_FEW => (length_s * 2).min(QUIET_WINDOW_MAX_S),
            _ => busy_s,
        };
        next = window.until;
    }
    if state.incomplete.is_none() {
        if agent.store.last_success(&covered)?.is_none_or(|reaches| needed_from < reaches) {
            agent.store.put_success(&covered, needed_from)?;
        }
        flag_runaways(agent, &seen, now)?;
        state.runaway = agent.store.runaways(&cluster)?.len();
    }
    Step::Stored.passed();
    Ok(state)
}

/// Reads and stores one window; the number of rows, `None` when it failed.
async fn collect_window(
    agent: &mut Agent,
    window: Window,
    edges: &BTreeSet<Epoch>,
    now: Epoch,
    seen: &mut BTreeSet<u64>,
    state: &mut CollectionState,
) -> Result<Option<usize>, AgentError> {
    state.windows += 1;
    let cluster = agent.config.cluster.name.clone();
    let lines = match agent.slurm.collect(window).await {
        Ok(lines) => lines,
        Err(error) => {
            tracing::warn!(error = chain(&error), "sacct did not answer; the ledger stays where it is");
            state.incomplete = Some(format!("sacct did not answer: {}", chain(&error)));
            return Ok(None);
        }
    };
    let suspended = match splits(agent, &lines.records, edges, now).await {
        Ok(suspended) => suspended,
        Err(reason) => {
            state.incomplete = Some(reason);
            return Ok(None);
        }
    };
    Step::Collected.passed();
    state.rejected += lines.rejected;
    state.samples.extend(lines.samples.iter().take(5).cloned());
    let shown: BTreeSet<u64> = lines.records.iter().map(|record| record.key.dbindex).collect();
    state.incomplete = match agent.store.sentinel(&cluster, window)? {
        Some(known) if shown.contains(&known.key.dbindex) => None,
        Some(known) if is_gone(agent, &known, &shown).await? => {
            tracing::warn!(
                dbindex = known.key.dbindex,
                "a job record is no longer at slurmdbd; what it used still counts"
            );
            None
        }
        Some(known) => Some(not_shown_again(&known)),
        None if shown.is_empty() => nothing_shown(agent, window, lines.rejected).await?,
        None => None,
    };
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
        watermark: complete.then(|| window.until.min(now)),
        records: &lines.records,
        suspended: &suspended,
        rejected: lines.rejected,
        reject_samples: lines.samples.clone(),
        complete,
    })?;
    state.new += collected.new;
    state.changed += collected.changed;
    seen.extend(shown);
    Ok(Some(lines.records.len()))
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
    let cluster = agent.config.cluster.name.clone();
    let lately = Window::new(window.until.plus(-PROBE_AGE_MAX_S), window.until);
    let Some(known) = agent.store.sentinel(&cluster, lately)? else {
        let open = agent.store.open_jobs(&cluster)?.len();
        return Ok(match (rejected, open) {
            (0, 0) => None,
            (0, _) => Some(format!("sacct showed nothing, although {open} jobs have not ended")),
            _ => Some(format!("none of the {rejected} lines of sacct was understood")),
        });
    };
    let Some(end) = known.end else { return Ok(None) };
    Ok(match agent.slurm.collect(Window::new(end.plus(-1), end.plus(1))).await {
        Ok(lines) if lines.records.iter().any(|record| record.key == known.key) => None,
        Ok(_) => Some(not_shown_again(&known)),
        Err(error) => Some(format!("sacct did not answer: {}", chain(&error))),
    })
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
        let split = agent.slurm.suspended_before(&jobs, edge).await;
        found.extend(split.map_err(|error| format!("sacct -T did not answer: {}", chain(&error)))?);
    }
    Ok(found)
}

/// Whether a record that should have shown again was taken away from slurmdbd, which answers well otherwise: others that the
/// ledger knows did show, and this one is not there when it is asked for alone. A cut answer would show it then.
async fn is_gone(agent: &Agent, known: &JobRecord, shown: &BTreeSet<u64>) -> Result<bool, AgentError> {
    let Some(end) = known.end else { return Ok(false) };
    if !agent.store.knows_ended(&known.key.cluster, shown)? {
        return Ok(false);
    }
    let alone = agent.slurm.collect(Window::new(end.plus(-1), end.plus(1))).await;
    Ok(alone.is_ok_and(|lines| {
        lines.rejected == 0 && !lines.records.iter().any(|record| record.key == known.key)
    }))
}

/// Sets aside open records that a complete look at now did not show (deleted or re-keyed), and those that have run longer
/// than jobs do: neither may be billed for ever.
fn flag_runaways(agent: &mut Agent, seen: &BTreeSet<u64>, now: Epoch) -> Result<(), AgentError> {
    let cluster = agent.config.cluster.name.clone();
    let longest_s = i64::try_from(agent.config.limits.runaway_after.as_secs()).unwrap_or(i64::MAX);
    let flagged: BTreeSet<u64> =
        agent.store.runaways(&cluster)?.iter().map(|record| record.key.dbindex).collect();
    for record in agent.store.open_jobs(&cluster)? {
        let dbindex = record.key.dbindex;
        let too_long = record.start.is_some_and(|start| now.since(start) > longest_s);
        let runaway = !seen.contains(&dbindex) || too_long;
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
