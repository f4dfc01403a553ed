//! What became of accepted records: accepted is not loaded.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Agent;
use super::super::error::{AgentError, chain};
use crate::central::amie::{FailedRecord, LoadedRecord};
use crate::core::amie::Record;
use crate::core::exact::Exact;
use crate::core::time::Epoch;
use crate::store::{AmieFailure, AmieMark, AmieRow, AmieState, Store, StoreError};

/// When the server was last asked.
const MARK: &str = "amie_read_back";
/// Name of the report of usage/status in the store.
pub(super) const STATUS: &str = "amie_status";
/// The server's clock may be behind ours by so much, in seconds, before a loaded record is missed.
const SKEW_S: i64 = 3600;
/// Digits that servers have been seen to keep of a charge.
const PLACES_KEPT: std::ops::RangeInclusive<u32> = 2..=5;

/// Whether the server was seen not to tell what it has loaded: 1 when so.
const SILENT: &str = "amie_loaded_not_told";

/// Whether the server does not tell what it has loaded, so that `accepted` is as far as a record comes.
pub fn tells_nothing(store: &Store) -> Result<bool, StoreError> {
    Ok(store.get_cursor(SILENT)? == Some(1))
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct ReadBack {
    /// Records seen to be loaded.
    pub loaded: usize,
    /// Records seen to have failed.
    pub failed: usize,
    /// Failures cleared on the server, because the record is loaded now.
    pub cleared: usize,
    /// Whether the server tells what it has loaded.
    pub tells_loaded: bool,
    /// What people should know.
    pub findings: Vec<String>,
}

/// Asks what failed and what was loaded, when that is due (or `force`d) and something is open.
pub async fn read_back(agent: &mut Agent, now: Epoch, force: bool) -> Result<ReadBack, AgentError> {
    let mut found = ReadBack::default();
    let Some(every) = agent.config.amie.as_ref().map(|amie| amie.read_back) else { return Ok(found) };
    let Some(client) = &agent.amie else { return Ok(found) };
    let every_s = i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
    let due = agent.store.last_success(MARK)?.is_none_or(|last| now.since(last) >= every_s);
    let open = agent.store.amie_unsettled_since()?;
    let known: BTreeSet<String> =
        agent.store.amie_failures()?.into_iter().map(|failure| failure.failed_record_id).collect();
    if !(force || due && (open.is_some() || !known.is_empty())) {
        return Ok(found);
    }
    // Failures first: what fails after this question is seen at the next.
    let since = open.unwrap_or(now).plus(-SKEW_S);
    let answers = async {
        let failed = client.failed().await?;
        let loaded = client.loaded(since).await?;
        let status = client.usage_status(since, now.plus(SKEW_S)).await?;
        Ok::<_, crate::central::CentralError>((failed, loaded, status))
    };
    let (failed, loaded, status) = match answers.await {
        Ok(answers) => answers,
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(error = why, "AMIE did not say what became of the records");
            found.findings.push(format!("AMIE did not say what became of the records: {why}"));
            return Ok(found);
        }
    };
    found.tells_loaded = loaded.is_some();
    if tells_nothing(&agent.store)? == found.tells_loaded {
        agent.store.put_cursor(SILENT, u64::from(!found.tells_loaded))?;
    }
    let mut marks = loaded_marks(agent, &loaded.unwrap_or_default())?;
    found.loaded = marks.len();
    let just_loaded: BTreeSet<i64> = marks.keys().copied().collect();
    let mut resolved = Vec::new();
    for failure in &failed {
        for row in rows_of(agent, failure)? {
            if matches!(row.state, AmieState::Loaded | AmieState::Superseded) || just_loaded.contains(&row.id)
            {
                resolved.push(failure.failed_record_id.clone());
            } else if row.state == AmieState::Accepted
                // One that was known before is about an earlier try.
                && !known.contains(&failure.failed_record_id)
                && agrees(&row.record, failure.charge, &failure.local_project_id, &failure.username)
            {
                found.failed += 1;
                marks.insert(row.id, AmieMark::Failed(failure.error.clone()));
            }
        }
    }
    agent.store.mark_amie(&marks.into_iter().collect::<Vec<_>>(), now)?;
    agent.store.put_amie_failures(&failed.iter().map(|failure| stored(failure, now)).collect::<Vec<_>>())?;
    let counts: Vec<(String, u64, u64, String)> = status
        .into_iter()
        .map(|row| (row.resource, row.loaded, row.failed, row.total_charge.to_string()))
        .collect();
    agent.store.put_report(STATUS, &counts, now)?;
    found.cleared = clear(agent, &resolved, &mut found.findings).await;
    agent.store.put_success(MARK, now)?;
    if found.failed > 0 {
        found.findings.push(format!(
            "{} AMIE records failed at the server; see `slurm-site-agent amie failed`",
            found.failed
        ));
    }
    Ok(found)
}

/// What was failed once and is loaded now need not be listed there any more.
async fn clear(agent: &Agent, resolved: &[String], findings: &mut Vec<String>) -> usize {
    let Some(client) = agent.amie.as_ref().filter(|_| !resolved.is_empty()) else { return 0 };
    match client.clear_failed(resolved).await {
        Ok(()) => resolved.len(),
        Err(error) => {
            findings.push(format!("resolved failures could not be cleared at AMIE: {}", chain(&error)));
            0
        }
    }
}

fn loaded_marks(agent: &Agent, loaded: &[LoadedRecord]) -> Result<BTreeMap<i64, AmieMark>, AgentError> {
    let mut marks = BTreeMap::new();
    for shown in loaded {
        for row in agent.store.amie_by_id(&shown.local_record_id)? {
            let is_open = matches!(row.state, AmieState::Sent | AmieState::Accepted | AmieState::Failed);
            if is_open
                && is_of(&row, &shown.usage_type, &shown.resource)
                && agrees(&row.record, shown.charge, &shown.local_project_id, &shown.username)
            {
                let charge = shown.charge.map_or_else(|| row.record.charge.clone(), |c| c.to_string());
                marks.insert(row.id, AmieMark::Loaded(charge));
            }
        }
    }
    Ok(marks)
}

fn rows_of(agent: &Agent, failure: &FailedRecord) -> Result<Vec<AmieRow>, AgentError> {
    let Some(id) = &failure.local_record_id else { return Ok(Vec::new()) };
    let rows = agent.store.amie_by_id(id)?;
    Ok(rows.into_iter().filter(|row| is_of(row, &failure.usage_type, &failure.resource)).collect())
}

/// Whether a row is meant by kind and resource, as far as the server says them.
fn is_of(row: &AmieRow, usage_type: &str, resource: &str) -> bool {
    (usage_type.is_empty() || row.record.kind().as_str().eq_ignore_ascii_case(usage_type))
        && (resource.is_empty() || row.record.resource == resource)
}

/// Whether what the server shows is this very version, as far as it shows it.
fn agrees(
    record: &Record,
    charge: Option<Exact>,
    project: &Option<String>,
    username: &Option<String>,
) -> bool {
    charge.is_none_or(|charge| same_charge(record, charge))
        && project.as_ref().is_none_or(|project| *project == record.local_project_id)
        && username.as_ref().is_none_or(|username| *username == record.username)
}

/// Equal, or equal in the digits that the server keeps.
fn same_charge(record: &Record, shown: Exact) -> bool {
    let Some(ours) = record.amount() else { return false };
    let rounded = |places| ours.to_decimal(places).and_then(|text| Exact::parse(&text).ok());
    ours == shown || PLACES_KEPT.into_iter().any(|places| rounded(places) == Some(shown))
}

fn stored(failure: &FailedRecord, now: Epoch) -> AmieFailure {
    AmieFailure {
        failed_record_id: failure.failed_record_id.clone(),
        kind: failure.usage_type.clone(),
        resource: failure.resource.clone(),
        local_record_id: failure.local_record_id.clone().unwrap_or_default(),
        error: failure.error.clone(),
        seen: now,
        body: failure.raw.to_string(),
    }
}
