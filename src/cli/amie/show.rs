//! The verbs that only read the store.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::{Common, configuration, render};
use super::{RecordsArgs, SpanArgs};
use crate::agent::amie::backfill::{self, Position};
use crate::agent::amie::storage;
use crate::agent::error::{AgentError, Exit};
use crate::core::amie::{Detail, Record};
use crate::core::exact::Exact;
use crate::core::time::Epoch;
use crate::store::{AmieFailure, AmieFilter, AmieRow, AmieState, AmieWaiting, StorageCollection, Store};

/// The answer of `amie status`. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
struct Status {
    states: Vec<StateCount>,
    waiting: Vec<AmieWaiting>,
    /// The newest collection of every storage report.
    storage: Vec<StorageCollection>,
    /// The last backfill, where it is not finished.
    backfill: Option<Position>,
    failures_at_the_server: usize,
    asked: Option<Epoch>,
    /// Resource, loaded records, failed records and total charge as usage/status said.
    server: Vec<(String, u64, u64, String)>,
}

#[derive(Debug, Serialize)]
struct StateCount {
    kind: &'static str,
    state: &'static str,
    records: usize,
    oldest: Epoch,
}

fn reader(common: &Common) -> Result<Store, AgentError> {
    Ok(Store::open_reader(&configuration(common)?.store.path)?)
}

pub(super) fn status(common: &Common) -> Result<Exit, AgentError> {
    let store = reader(common)?;
    let server = store.last_report::<Vec<(String, u64, u64, String)>>("amie_status")?;
    let states: Vec<StateCount> = store
        .amie_sums()?
        .into_iter()
        .map(|sum| StateCount {
            kind: sum.kind.as_str(),
            state: sum.state.as_str(),
            records: sum.records,
            oldest: sum.oldest,
        })
        .collect();
    let status = Status {
        states,
        waiting: store.amie_waiting()?,
        storage: store.amie_storage_newest()?,
        backfill: backfill::position(&store)?.filter(|position| !position.is_done()),
        failures_at_the_server: store.amie_failures()?.len(),
        asked: server.as_ref().map(|(_, at)| *at),
        server: server.map(|(rows, _)| rows).unwrap_or_default(),
    };
    let failed = status.states.iter().any(|count| count.state == AmieState::Failed.as_str());
    let odd = |report: &StorageCollection| {
        !report.error.is_empty() || report.rejected > 0 || !report.waiting.is_empty()
    };
    let failed = failed || status.storage.iter().any(odd);
    if common.json {
        render::json(&status);
    } else {
        render::text(&show_status(&status));
    }
    Ok(if failed || !status.waiting.is_empty() { Exit::Attention } else { Exit::Done })
}

fn show_status(status: &Status) -> String {
    let states = status.states.iter().map(|count| {
        vec![count.kind.into(), count.state.into(), count.records.to_string(), count.oldest.to_string()]
    });
    let waiting = status.waiting.iter().map(|waiting| {
        let oldest = waiting.oldest.map_or("-".to_owned(), |oldest| oldest.to_string());
        vec![waiting.account.clone(), waiting.jobs.to_string(), oldest, waiting.reason.clone()]
    });
    let server = status.server.iter().map(|(resource, loaded, failed, charge)| {
        vec![resource.clone(), loaded.to_string(), failed.to_string(), charge.clone()]
    });
    let mut text = render::table("RECORDS", &["Kind", "State", "Records", "Oldest made"], states.collect());
    text.push_str(&render::table(
        "ENDED JOBS THAT WAIT",
        &["Account", "Jobs", "First ended", "Why"],
        waiting.collect(),
    ));
    let storage = status.storage.iter().map(storage_row);
    text.push_str(&render::table(
        "STORAGE REPORTS, THE LAST OF EACH",
        &["Report", "Interval of", "Collected", "Lines", "Records", "Left out", "Waiting", "Rejected", "Why"],
        storage.collect(),
    ));
    if let Some(position) = &status.backfill {
        let (all, done) = position.months();
        text.push_str(&format!(
            "a backfill from {} is unfinished: {done} of {all} months are done; `slurm-site-agent amie backfill` goes on\n",
            position.from.strftime("%Y-%m")
        ));
    }
    text.push_str(&render::table(
        "WHAT THE SERVER LAST SAID (usage/status, of the span that was open)",
        &["Resource", "Loaded", "Failed", "Charge"],
        server.collect(),
    ));
    match status.asked {
        Some(asked) => text.push_str(&format!("the server was asked at {asked}\n")),
        None => text.push_str("the server was never asked what became of the records\n"),
    }
    if status.failures_at_the_server > 0 {
        text.push_str(&format!(
            "{} failures are listed there: `slurm-site-agent amie failed`\n",
            status.failures_at_the_server
        ));
    }
    text
}

fn storage_row(report: &StorageCollection) -> Vec<String> {
    let why = if report.error.is_empty() { report.samples.join("; ") } else { report.error.clone() };
    vec![
        report.report.clone(),
        storage::day_text(report.day),
        report.collected.map_or("-".to_owned(), |at| at.to_string()),
        report.lines.to_string(),
        report.records.to_string(),
        report.excluded.to_string(),
        report.waiting.len().to_string(),
        report.rejected.to_string(),
        why,
    ]
}

pub(super) fn records(common: &Common, args: &RecordsArgs) -> Result<Exit, AgentError> {
    let store = reader(common)?;
    let filter = AmieFilter {
        state: args.state,
        username: args.user.clone(),
        kind: args.kind,
        local_record_id: args.id.clone(),
        history: args.history,
        ..args.span.filter()
    };
    let rows = read(&store, &filter, args.limit)?;
    if common.json {
        render::json(&rows);
    } else {
        let shown = rows.iter().map(row).collect();
        render::text(&render::table(
            "",
            &[
                "LocalRecordID",
                "Ver",
                "Kind",
                "State",
                "Charge",
                "Project",
                "User",
                "Resource",
                "Happened",
                "Why",
            ],
            shown,
        ));
    }
    Ok(Exit::Done)
}

pub(super) fn read(store: &Store, filter: &AmieFilter, limit: usize) -> Result<Vec<AmieRow>, AgentError> {
    let mut rows = Vec::new();
    store.visit_amie(filter, limit, &mut |row| rows.push(row))?;
    Ok(rows)
}

fn row(row: &AmieRow) -> Vec<String> {
    let record = &row.record;
    let sign = if record.effect().is_some_and(Exact::is_negative) { "-" } else { "" };
    vec![
        record.local_record_id.clone(),
        row.version.to_string(),
        record.kind().to_string(),
        if row.cleared.is_some() { "given up".into() } else { row.state.as_str().into() },
        format!("{sign}{}", record.charge),
        record.local_project_id.clone(),
        record.username.clone(),
        record.resource.clone(),
        record.happened().to_string(),
        why(record, &row.error),
    ]
}

fn why(record: &Record, error: &str) -> String {
    match &record.detail {
        Detail::Adjustment(adjustment) if error.is_empty() => {
            let comment = adjustment.comment.as_deref().unwrap_or("");
            format!("{}: {comment}", adjustment.adjustment_type.as_str())
        }
        _ => error.to_owned(),
    }
}

/// The answer of `amie failed`.
#[derive(Debug, Serialize)]
struct Failures {
    /// Records that failed here or there.
    ledger: Vec<AmieRow>,
    /// What the server listed when it was last asked.
    server: Vec<AmieFailure>,
}

pub(super) fn failed(common: &Common) -> Result<Exit, AgentError> {
    let store = reader(common)?;
    let filter = AmieFilter { state: Some(AmieState::Failed), ..AmieFilter::default() };
    let failures = Failures { ledger: read(&store, &filter, usize::MAX)?, server: store.amie_failures()? };
    let open = failures.ledger.iter().any(|row| row.cleared.is_none());
    if common.json {
        render::json(&failures);
    } else {
        let ledger = failures.ledger.iter().map(|row| {
            let advice = if row.cleared.is_some() { "given up" } else { advice(&row.error) };
            vec![
                row.record.local_record_id.clone(),
                row.record.local_project_id.clone(),
                row.record.username.clone(),
                row.record.resource.clone(),
                row.record.charge.clone(),
                row.error.clone(),
                advice.to_owned(),
            ]
        });
        let header = ["LocalRecordID", "Project", "User", "Resource", "Charge", "Error", "What to do"];
        let mut text = render::table("FAILED RECORDS", &header, ledger.collect());
        let server = failures.server.iter().map(|failure| {
            vec![
                failure.failed_record_id.clone(),
                failure.local_record_id.clone(),
                failure.error.clone(),
                failure.seen.to_string(),
            ]
        });
        text.push_str(&render::table(
            "LISTED AT THE SERVER",
            &["Failed id", "LocalRecordID", "Error", "First seen"],
            server.collect(),
        ));
        render::text(if text.is_empty() { "nothing failed\n" } else { &text });
    }
    Ok(if open { Exit::Attention } else { Exit::Done })
}

/// The next step for a failure, from the words of its error.
fn advice(error: &str) -> &'static str {
    let folded = error.to_ascii_lowercase();
    if folded.contains("user") {
        "add the user to the project there, or map the name in [amie.users]; then amie resend"
    } else if folded.contains("project") || folded.contains("allocation") {
        "mend [amie.projects], which sends it anew, or have the project allocated; then amie resend"
    } else if folded.contains("resource") {
        "mend amie.resource or [amie.resources], which sends it anew"
    } else {
        "mend what the error names, then amie resend; or give it up with amie clear"
    }
}

/// Sums of one project on one resource.
#[derive(Debug, Default, Serialize)]
struct Sums {
    project: String,
    resource: String,
    records: usize,
    local: String,
    accepted: String,
    loaded: String,
    failed: String,
    /// Local less loaded.
    difference: String,
}

#[derive(Default)]
struct Exacts {
    records: usize,
    by_state: BTreeMap<AmieState, Exact>,
}

pub(super) fn summary(common: &Common, args: &SpanArgs) -> Result<Exit, AgentError> {
    let store = reader(common)?;
    let mut sums: BTreeMap<(String, String), Exacts> = BTreeMap::new();
    let mut no_room = false;
    store.visit_amie(&args.filter(), usize::MAX, &mut |row| {
        let key = (row.record.local_project_id.clone(), row.record.resource.clone());
        let exacts = sums.entry(key).or_default();
        exacts.records += 1;
        let sum = exacts.by_state.entry(row.state).or_insert(Exact::ZERO);
        match row.record.effect().and_then(|effect| sum.plus(effect)) {
            Some(more) => *sum = more,
            None => no_room = true,
        }
    })?;
    if no_room {
        return Err(AgentError::Asked("a sum has no room; ask for a shorter span".into()));
    }
    let rows: Vec<Sums> = sums.into_iter().map(|(key, exacts)| sums_of(key, &exacts)).collect();
    let loaded = rows.iter().all(|row| row.local == row.loaded);
    if common.json {
        render::json(&rows);
    } else {
        let header =
            ["Project", "Resource", "Records", "Local", "Accepted", "Loaded", "Failed", "Not loaded"];
        let shown = rows.iter().map(|row| {
            vec![
                row.project.clone(),
                row.resource.clone(),
                row.records.to_string(),
                row.local.clone(),
                row.accepted.clone(),
                row.loaded.clone(),
                row.failed.clone(),
                row.difference.clone(),
            ]
        });
        render::text(&render::table("", &header, shown.collect()));
    }
    Ok(if loaded { Exit::Done } else { Exit::Attention })
}

fn sums_of((project, resource): (String, String), exacts: &Exacts) -> Sums {
    let of = |state: AmieState| exacts.by_state.get(&state).copied().unwrap_or(Exact::ZERO);
    let total = exacts.by_state.values().try_fold(Exact::ZERO, |sum, more| sum.plus(*more));
    let text = |value: Option<Exact>| value.map_or("-".to_owned(), |value| value.to_string());
    Sums {
        project,
        resource,
        records: exacts.records,
        local: text(total),
        accepted: text(Some(of(AmieState::Accepted))),
        loaded: text(Some(of(AmieState::Loaded))),
        failed: text(Some(of(AmieState::Failed))),
        difference: text(total.and_then(|total| total.minus(of(AmieState::Loaded)))),
    }
}
