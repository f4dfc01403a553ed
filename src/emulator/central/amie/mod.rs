//! The emulated AMIE Usage API under `/amie/api/v1/`.
//!
//! Records are validated when they arrive, queued, and loaded later: accepted is not loaded. The delay follows the
//! clock or the number of requests, so that tests decide when it passes. Written from the client's
//! documentation, the public client 0.4.0 and what public reporters expect of the service.

mod records;
mod state;

pub use records::UsageType;
pub use state::{
    AmieProject, AmieSettings, AmieSite, AmieState, FailedList, FailedRecord, LoadedRecord, Processing,
    QueuedRecord,
};

use axum::http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::clock::wire_instant;
use super::http::{Answer, Request};
use super::tracked::Tracked;

/// Where the service lives.
const ROOT: &str = "/amie/api/v1/";
/// Rows of a page of loaded records unless asked otherwise, and at most.
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

/// AMIE's `{"error": ...}`.
fn error(status: u16, text: &str) -> Answer {
    Answer::json(status, &json!({"error": text}))
}

/// Answers one request under `/amie/`.
pub(super) fn answer(state: &mut Tracked<'_>, request: &Request) -> Answer {
    let Some(path) = request.path.strip_prefix(ROOT) else { return error(404, "Not Found") };
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    if !matches!(
        segments.as_slice(),
        ["usage"] | ["usage", "failed" | "status" | "loaded"] | ["usage", "failed", _]
    ) {
        return error(404, "Not Found");
    }
    let site = match site_of(state, request) {
        Ok(site) => site,
        Err(refusal) => return refusal,
    };
    process(state);
    let outcome = match (&request.method, segments.as_slice()) {
        (&Method::POST, ["usage"]) => post(state, &site, request),
        (&Method::GET, ["usage", "failed"]) => Ok(failed(state, &site)),
        (&Method::DELETE, ["usage", "failed", ids]) => clear(state, &site, ids),
        (&Method::GET, ["usage", "status"]) => status(state, &site, request),
        (&Method::GET, ["usage", "loaded"]) => loaded(state, &site, request),
        _ => Err(error(405, "Method Not Allowed")),
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

fn site_of(state: &Tracked<'_>, request: &Request) -> Result<String, Answer> {
    let (Some(key), Some(name)) = (request.header("xa-api-key"), request.header("xa-site")) else {
        return Err(error(401, "XA-API-KEY and XA-SITE are required"));
    };
    match state.amie.sites.iter().find(|site| site.name == name) {
        Some(site) if site.api_key == key => Ok(site.name.clone()),
        _ => Err(error(401, "Unauthorized")),
    }
}

/// Counts the request and loads what is due.
fn process(state: &mut Tracked<'_>) {
    let now = state.now();
    if state.amie.queue.is_empty() {
        return;
    }
    state.edit().amie.process(now);
}

fn post(state: &mut Tracked<'_>, site: &str, request: &Request) -> Result<Answer, Answer> {
    let limit = state.amie.settings.body_bytes_max;
    if request.body.len() > limit {
        return Err(error(413, &format!("Request Entity Too Large: more than {limit} bytes")));
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|reason| error(400, &format!("Malformed JSON: {reason}")))?;
    let usage_type = body
        .get("UsageType")
        .and_then(Value::as_str)
        .and_then(UsageType::parse)
        .ok_or_else(|| error(400, "UsageType must be Compute, Storage or Adjustment"))?;
    let records = match body.get("Records") {
        Some(Value::Array(records)) if !records.is_empty() => records,
        Some(Value::Array(_)) => return Err(error(400, "Records is empty")),
        _ => return Err(error(400, "Records must be a list")),
    };
    if records.len() > state.amie.settings.records_max {
        return Err(error(413, &format!("more than {} records", state.amie.settings.records_max)));
    }
    let mut refused = Vec::new();
    let mut accepted = Vec::new();
    for record in records {
        match records::validate(usage_type, record) {
            Ok(record) => accepted.push(record),
            Err(reason) => refused.push(with_error(record.clone(), usage_type, &reason)),
        }
    }
    let now = state.now();
    let message =
        format!("{} record(s) accepted, {} record(s) failed validation", accepted.len(), refused.len());
    let amie = &mut state.edit().amie;
    for record in accepted {
        amie.enqueue(site, usage_type, record, now);
    }
    // Without a delay the records are there before the answer is.
    amie.load_due(now);
    let status = amie.settings.accepted_status;
    Ok(Answer::json(status, &json!({"Message": message, "ValidationFailedRecords": refused})))
}

fn with_error(record: Value, usage_type: UsageType, reason: &str) -> Value {
    let mut members = match record {
        Value::Object(members) => members,
        other => Map::from_iter([("Record".to_owned(), other)]),
    };
    members.insert("UsageType".to_owned(), json!(usage_type.name()));
    members.insert("Error".to_owned(), json!(reason));
    Value::Object(members)
}

fn failed(state: &Tracked<'_>, site: &str) -> Answer {
    let rows: Vec<Value> = state
        .amie
        .failed
        .iter()
        .filter(|row| row.site == site)
        .map(|row| {
            let mut wire = with_error(Value::Object(row.record.clone()), row.usage_type, &row.error);
            wire["FailedRecordID"] = json!(row.id);
            wire
        })
        .collect();
    Answer::json(200, &json!({state.amie.settings.failed_list.name(): rows}))
}

fn clear(state: &mut Tracked<'_>, site: &str, ids: &str) -> Result<Answer, Answer> {
    let wanted: Result<Vec<u64>, _> = ids.split(',').map(str::parse).collect();
    let Ok(wanted) = wanted else { return Err(error(400, "FailedRecordIDs must be numbers")) };
    let known = |id: &u64| state.amie.failed.iter().any(|row| row.site == site && row.id == *id);
    let unknown: Vec<String> = wanted.iter().filter(|id| !known(id)).map(u64::to_string).collect();
    if unknown.len() == wanted.len() {
        return Err(error(404, &format!("No failed records {}", unknown.join(","))));
    }
    state.edit().amie.failed.retain(|row| row.site != site || !wanted.contains(&row.id));
    Ok(Answer::json(200, &json!({"Message": format!("{} record(s) cleared", wanted.len() - unknown.len())})))
}

/// A bound of a span; a time without an offset is taken as UTC.
fn bound(request: &Request, name: &str) -> Result<Option<Timestamp>, Answer> {
    let Some(text) = request.param(name) else { return Ok(None) };
    // A plus sign that was not escaped arrives as a space.
    let text = text.replace(' ', "+");
    match records::parse_time(&text) {
        Some(instant) => Ok(Some(instant)),
        None => Err(error(400, &format!("{name} is not an ISO 8601 time"))),
    }
}

fn status(state: &Tracked<'_>, site: &str, request: &Request) -> Result<Answer, Answer> {
    let from = bound(request, "FromTime")?;
    let to = bound(request, "ToTime")?;
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(error(400, "FromTime is after ToTime"));
    }
    let inside = |at: Timestamp| from.is_none_or(|from| from <= at) && to.is_none_or(|to| at <= to);
    Ok(Answer::json(200, &state.amie.status(site, inside)))
}

fn loaded(state: &Tracked<'_>, site: &str, request: &Request) -> Result<Answer, Answer> {
    let from = match bound(request, "MinLoadedTime")? {
        None => bound(request, "FromTime")?,
        bound => bound,
    };
    let number = |name: &str, default: usize| match request.param(name) {
        None => Ok(default),
        Some(text) => match text.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(error(400, &format!("{name} must be a positive number"))),
        },
    };
    let (page, size) = (number("Page", 1)?, number("PageSize", PAGE_SIZE)?.min(PAGE_SIZE_MAX));
    let mut rows: Vec<&LoadedRecord> = state
        .amie
        .loaded
        .iter()
        .filter(|row| row.site == site && from.is_none_or(|from| from <= row.loaded_at))
        .filter(|row| request.param("LocalRecordID").is_none_or(|id| row.local_record_id() == id))
        .filter(|row| request.param("Resource").is_none_or(|resource| row.resource() == resource))
        .collect();
    rows.sort_by_key(|row| (row.loaded_at, row.id));
    let total = rows.len();
    let shown: Vec<Value> = rows.into_iter().skip((page - 1) * size).take(size).map(loaded_row).collect();
    let next = (page * size < total).then_some(page + 1);
    Ok(Answer::json(
        200,
        &json!({"LoadedRecords": shown, "TotalRecords": total, "Page": page, "PageSize": size, "NextPage": next}),
    ))
}

fn loaded_row(row: &LoadedRecord) -> Value {
    let mut wire = Value::Object(row.record.clone());
    wire["UsageType"] = json!(row.usage_type.name());
    wire["AccountingDbRecordID"] = json!(row.id);
    wire["LoadedTime"] = json!(wire_instant(row.loaded_at));
    wire
}
