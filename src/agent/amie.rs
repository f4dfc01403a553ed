//! AMIE: records from changed jobs, files of quotas and operators' words into the ledger; the ledger to the server; and
//! what the server did with them back into the ledger.
//!
//! Nothing is charged twice: a record is sent again under its LocalRecordID until the server has answered, and replaces
//! itself there. Nothing is dropped: what is refused stays `failed` until its map is mended or an operator speaks.

pub mod projects;
pub mod read_back;
mod storage;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use super::Agent;
use super::deliver::{DeliveryState, KindDelivery, backoff_s};
use super::error::{AgentError, chain};
use super::step::Step;
use crate::core::amie::{
    Compute, Detail, Held, Kind, Record, Reporting, Verdict, readable_name, record_id, settle,
};
use crate::core::exact::Exact;
use crate::core::job::JobRecord;
use crate::core::time::Epoch;
use crate::slurm::JobLabel;
use crate::store::{AmieMark, AmieRow, FORGOTTEN, JobChange};

pub use read_back::{ReadBack, read_back};

/// Job records looked at per transaction.
const JOBS_BATCH: usize = 2000;
/// Rounds of delivery in one cycle; each takes up to ten full messages.
const ROUNDS_MAX: usize = 50;
/// How far the jobs have been looked at.
const CURSOR: &str = "amie";
/// Fingerprint of the rules under which they were.
const RULES_CURSOR: &str = "amie_rules";

/// What was made.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// New versions of records.
    pub made: usize,
    /// What people should know.
    pub findings: Vec<String>,
}

/// Makes the records of all jobs that changed since the last time, of all jobs when the rules did, of quota files that
/// are due, and of operators' words.
pub async fn make(agent: &mut Agent, now: Epoch) -> Result<Made, AgentError> {
    let mut made = Made::default();
    let Some(amie) = agent.config.amie.clone() else { return Ok(made) };
    let mut rules = amie.reporting(&agent.config.cluster.time_zone);
    rules.mapping.granted = projects::known(agent)?;
    let fingerprint = fingerprint(&format!("{rules:?}"));
    if agent.store.get_cursor(RULES_CURSOR)? != Some(fingerprint) {
        // Other rules may mean other jobs: look at all again. The fingerprint comes last, so that a crash repeats this.
        agent.store.put_cursor(CURSOR, 0)?;
        agent.store.put_cursor(RULES_CURSOR, fingerprint)?;
    }
    loop {
        let after = agent.store.get_cursor(CURSOR)?.unwrap_or(0);
        let (mut jobs, mut last) = (Vec::new(), after);
        let cluster = agent.config.cluster.name.clone();
        agent.store.visit_changed(&cluster, after, JOBS_BATCH, &mut |seq, job| {
            last = seq;
            jobs.push(job);
        })?;
        if jobs.is_empty() {
            break;
        }
        match changes(agent, &rules, jobs, &mut made).await? {
            Ok(changes) => {
                let stored = agent.store.put_amie(&changes, Some((CURSOR, last)), now)?;
                made.made += stored.new + stored.restated;
                Step::Enqueued.passed();
            }
            Err(why) => {
                made.findings.push(format!("AMIE records wait: {why}"));
                break;
            }
        }
    }
    let (stored, findings) = storage::make(agent, &amie, &rules, false, now).await?;
    made.made += stored;
    made.findings.extend(findings);
    made.made += words::carry_out(agent, now, &mut made.findings)?;
    let waiting = agent.store.amie_waiting()?;
    if !waiting.is_empty() {
        let jobs: usize = waiting.iter().map(|waiting| waiting.jobs).sum();
        made.findings.push(format!(
            "{jobs} ended jobs wait for AMIE, most of account {:?}: {}; see `slurm-site-agent amie status`",
            waiting[0].account, waiting[0].reason
        ));
    }
    Ok(made)
}

/// New versions that come of these jobs, or why they cannot be made now.
async fn changes(
    agent: &mut Agent,
    rules: &Reporting,
    jobs: Vec<JobRecord>,
    made: &mut Made,
) -> Result<Result<Vec<JobChange>, String>, AgentError> {
    let Some(amie) = agent.config.amie.clone() else { return Ok(Ok(Vec::new())) };
    let forgotten = agent.store.last_success(FORGOTTEN)?;
    let mut too_old = 0;
    let mut looked_at: Vec<(JobRecord, Verdict, Vec<Held>)> = Vec::new();
    for job in jobs {
        let verdict = rules.records(&job);
        let ids: Vec<String> = match &verdict {
            Verdict::Records(records) => {
                records.iter().map(|record| record.local_record_id.clone()).collect()
            }
            _ => Vec::new(),
        };
        let held = agent.store.amie_held(&job.key, &record_id(&job), &ids)?;
        let before = |end: Epoch| forgotten.is_some_and(|forgotten| end < forgotten);
        if held.is_empty() && job.end.is_some_and(before) && !agent.store.amie_waits(&job.key)? {
            // It may have been told, and what was told so long ago is no longer known.
            too_old += usize::from(!matches!(verdict, Verdict::Nothing | Verdict::NotMeant));
            looked_at.push((job, Verdict::NotMeant, held));
            continue;
        }
        looked_at.push((job, verdict, held));
    }
    if let Some(forgotten) = forgotten.filter(|_| too_old > 0) {
        made.findings.push(format!(
            "{too_old} jobs that ended before {forgotten} are new in the ledger and are not told to AMIE: what was told of \
             those days is forgotten (amie.keep_records)"
        ));
    }
    let unlabelled = |(job, verdict, held): &&(JobRecord, Verdict, Vec<Held>)| {
        matches!(verdict, Verdict::Records(_)) && compute_of(held, &record_id(job)).is_none()
    };
    let asked: Vec<JobRecord> = looked_at.iter().filter(unlabelled).map(|(job, _, _)| job.clone()).collect();
    let separator = amie.job_names.then(|| format!("<{:032x}>", rand::random::<u128>()));
    let labels = match agent.slurm.labels(&asked, separator.as_deref()).await {
        Ok(labels) => labels,
        Err(error) => {
            return Ok(Err(format!("sacct did not say what the jobs belong to: {}", chain(&error))));
        }
    };
    let mut changes = Vec::new();
    for (job, verdict, held) in looked_at {
        let mut change = JobChange {
            key: job.key.clone(),
            ended: job.end,
            account: None,
            records: Vec::new(),
            waits: None,
        };
        // Told for another account than the job has now: that one no longer pays, whoever does.
        let moved = held.iter().any(|held| !held.account.is_empty() && job.account != held.account);
        let charged = held.iter().any(|held| held.record.amount() != Some(Exact::ZERO));
        match verdict {
            Verdict::Records(mut desired) => {
                name(agent, &job, &labels, &held, &mut desired)?;
                change.records = settle(&held, desired, amie.corrections);
                change.account = Some(job.account.to_string());
            }
            Verdict::Nothing => change.records = settle(&held, Vec::new(), amie.corrections),
            Verdict::NotMeant | Verdict::Waits(_) if moved => {
                change.records = settle(&held, Vec::new(), amie.corrections);
                change.account = Some(job.account.to_string());
                change.waits = waiting(verdict);
            }
            Verdict::NotMeant => {}
            // What was told and stays is not waiting.
            Verdict::Waits(_) if charged => {}
            Verdict::Waits(_) => change.waits = waiting(verdict),
        }
        changes.push(change);
    }
    Ok(Ok(changes))
}

fn waiting(verdict: Verdict) -> Option<(String, String)> {
    match verdict {
        Verdict::Waits(waits) => Some((waits.reason, waits.what)),
        _ => None,
    }
}

fn compute_of<'a>(held: &'a [Held], id: &str) -> Option<&'a Compute> {
    held.iter().find_map(|held| match &held.record.detail {
        Detail::Compute(compute) if held.record.local_record_id == id => Some(compute),
        _ => None,
    })
}

/// Parent and name are chosen once, when a record is first made, and stay: what slurmdbd purges later changes no record.
fn name(
    agent: &Agent,
    job: &JobRecord,
    labels: &BTreeMap<u64, JobLabel>,
    held: &[Held],
    desired: &mut [Record],
) -> Result<(), AgentError> {
    for record in desired {
        let id = record.local_record_id.clone();
        let Detail::Compute(compute) = &mut record.detail else { continue };
        if let Some(known) = compute_of(held, &id) {
            compute.parent_record_id.clone_from(&known.parent_record_id);
            compute.job_name.clone_from(&known.job_name);
            continue;
        }
        let label = labels.get(&job.key.dbindex);
        let leader = label.map_or(job.job_id, |label| label.leader);
        let first = agent.store.first_submit(&job.key.cluster, job.job_id)?.unwrap_or(job.submit);
        let parent = format!("{}.{leader}.{}", job.key.cluster, first.0);
        compute.parent_record_id = (parent != id).then_some(parent);
        let name = label.and_then(|label| label.name.as_deref()).map(readable_name);
        compute.job_name = name.filter(|name| !name.is_empty());
    }
    Ok(())
}

/// A number that changes when a text does (FNV-1a).
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Sends what is due, one kind after the other.
pub async fn deliver(agent: &mut Agent, now: Epoch) -> Result<DeliveryState, AgentError> {
    let mut state = DeliveryState::new();
    let Some(limit) = agent.config.amie.as_ref().map(|amie| amie.batch_records_max.saturating_mul(10)) else {
        return Ok(state);
    };
    if agent.amie.is_none() {
        return Ok(state);
    }
    for kind in Kind::ALL {
        for _ in 0..ROUNDS_MAX {
            let due = agent.store.acquire_amie(kind, now, limit)?;
            if due.is_empty() {
                break;
            }
            let count = state.entry(key_of(kind)).or_default();
            if !deliver_rows(agent, kind, due, count, now).await? {
                return Ok(state);
            }
        }
    }
    Ok(state)
}

/// As counted beside the other messages.
fn key_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Compute => "amie_compute",
        Kind::Storage => "amie_storage",
        Kind::Adjustment => "amie_adjustment",
    }
}

/// Whether the server goes on answering.
async fn deliver_rows(
    agent: &mut Agent,
    kind: Kind,
    due: Vec<AmieRow>,
    count: &mut KindDelivery,
    now: Epoch,
) -> Result<bool, AgentError> {
    let Some(client) = &agent.amie else { return Ok(false) };
    // An id that is withdrawn on one resource and new on another goes in two rounds: answers name records by id alone.
    let mut ids = BTreeSet::new();
    let rows: Vec<AmieRow> =
        due.into_iter().filter(|row| ids.insert(row.record.local_record_id.clone())).collect();
    let records: Vec<Record> = rows.iter().map(|row| row.record.clone()).collect();
    let reply = client.post(kind, &records).await;
    Step::Told.passed();
    let rejected: BTreeMap<&str, &str> =
        reply.rejected.iter().map(|r| (r.local_record_id.as_str(), r.error.as_str())).collect();
    let accepted: BTreeSet<&str> = reply.accepted.iter().map(String::as_str).collect();
    let stopped = reply.stopped_by.as_ref().map(|error| chain(error));
    let mut marks = Vec::new();
    for row in &rows {
        let id = row.record.local_record_id.as_str();
        if let Some(error) = rejected.get(id) {
            count.dead += 1;
            count.error = Some((*error).to_owned());
            marks.push((row.id, AmieMark::Failed((*error).to_owned())));
        } else if accepted.contains(id) {
            count.delivered += 1;
            marks.push((row.id, AmieMark::Accepted));
        } else {
            let why = stopped.clone().unwrap_or_else(|| "the server did not say".into());
            count.failed += 1;
            count.error = Some(why.clone());
            marks.push((row.id, AmieMark::Retry(why, now.plus(backoff_s(row.attempts)))));
        }
    }
    agent.store.mark_amie(&marks, now)?;
    Step::Delivered.passed();
    if let Some(why) = stopped {
        tracing::warn!(error = why, "AMIE records were not taken; they are sent again");
        return Ok(false);
    }
    Ok(true)
}
