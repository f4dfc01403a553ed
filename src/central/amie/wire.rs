//! Shapes of the usage API, and their conversion from and to our types. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::central::shape::{Fields, Misfit, shown};
use crate::core::exact::Exact;
use crate::core::report::ComputeRecord;
use crate::core::time::Epoch;

/// The kind of our messages. A message holds records of one kind only.
pub(super) const COMPUTE: &str = "Compute";

/// One Compute record as on the wire; absent parts are left out, never sent as null.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Compute<'a> {
    username: &'a str,
    #[serde(rename = "LocalProjectID")]
    local_project_id: &'a str,
    #[serde(rename = "LocalRecordID")]
    local_record_id: &'a str,
    resource: &'a str,
    submit_time: String,
    start_time: String,
    end_time: String,
    charge: &'a str,
    attributes: Attributes<'a>,
    #[serde(rename = "ParentRecordID", skip_serializing_if = "Option::is_none")]
    parent_record_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_reference: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    node_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_core_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
}

/// ISO 8601 in UTC with the offset written out, `2026-11-22T06:00:00+00:00`: readers older than Python 3.11 do not
/// take `Z`.
fn iso(instant: Epoch) -> String {
    match Timestamp::from_second(instant.0) {
        Ok(time) => time.display_with_offset(jiff::tz::Offset::UTC).to_string(),
        Err(_) => instant.to_string(),
    }
}

/// The exact JSON of one Compute record.
pub fn compute_json(record: &ComputeRecord) -> String {
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let local_reference = some(&record.local_reference);
    let queue = some(&record.queue);
    let wire = Compute {
        username: &record.username,
        local_project_id: &record.local_project_id,
        local_record_id: &record.local_record_id,
        resource: &record.resource,
        submit_time: iso(record.submit),
        start_time: iso(record.start),
        end_time: iso(record.end),
        charge: &record.charge,
        attributes: Attributes {
            node_count: record.nodes,
            cpu_core_count: record.cpus,
            memory: record.mem_mb.map(|mb| format!("{mb}MB")),
            queue: queue.as_deref(),
        },
        parent_record_id: record.parent_record_id.as_deref(),
        local_reference: local_reference.as_deref(),
    };
    serde_json::to_string(&wire).expect("texts and numbers always serialize")
}

/// A record that the server refused when it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValidationFailure {
    /// The record, where the server names it.
    pub(super) local_record_id: Option<String>,
    /// Why.
    pub(super) error: String,
}

/// The records refused in an answer to a message. No list at all means none.
pub(super) fn validation_failures(answer: &Value) -> Result<Vec<ValidationFailure>, Misfit> {
    let fields = Fields::of(answer)?;
    let rows = fields.list("ValidationFailedRecords")?.into_iter().flatten();
    rows.map(|row| {
        let fields = Fields::of(row)?;
        Ok(ValidationFailure { local_record_id: fields.id("LocalRecordID")?, error: error_text(fields) })
    })
    .collect()
}

fn error_text(fields: Fields<'_>) -> String {
    match fields.value("Error") {
        Some(Value::String(text)) => text.clone(),
        Some(other) => shown(other),
        None => "the server gave no reason".to_owned(),
    }
}

/// A record that failed after it had been accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedRecord {
    /// The server's id, by which it is cleared.
    pub failed_record_id: String,
    /// Our id, where the server repeats it.
    pub local_record_id: Option<String>,
    /// `Compute`, `Storage`, `Adjustment`.
    pub usage_type: String,
    /// Why.
    pub error: String,
    /// The whole row.
    pub raw: Value,
}

/// The failed records of an answer, under either of its two names.
pub(super) fn failed_records(answer: &Value) -> Result<Vec<FailedRecord>, Misfit> {
    let fields = Fields::of(answer)?;
    let named = [fields.list("FailedRecords")?, fields.list("ValidationFailedRecords")?];
    if named.iter().all(Option::is_none) {
        return Err(Misfit::new("FailedRecords", "is missing, and ValidationFailedRecords too"));
    }
    let rows = named.into_iter().flatten().flatten();
    rows.map(|row| {
        let fields = Fields::of(row)?;
        Ok(FailedRecord {
            failed_record_id: fields
                .id("FailedRecordID")?
                .ok_or_else(|| Misfit::new("FailedRecordID", "is missing"))?,
            local_record_id: fields.id("LocalRecordID")?,
            usage_type: fields.text("UsageType")?.unwrap_or_default().to_owned(),
            error: error_text(fields),
            raw: row.clone(),
        })
    })
    .collect()
}

/// What was processed of one resource in a span.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusRow {
    /// AMIE resource.
    pub resource: String,
    /// Records loaded.
    pub loaded: u64,
    /// Records failed.
    pub failed: u64,
    /// Sum of loaded charges.
    pub total_charge: Exact,
    /// Failures, grouped by their text.
    pub errors: Vec<StatusError>,
}

/// Records that failed for one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusError {
    /// Why.
    pub error: String,
    /// Our ids of the records.
    pub local_record_ids: Vec<String>,
    /// The records as sent.
    pub records: Vec<Value>,
}

/// The rows of usage/status.
pub(super) fn status_rows(answer: &Value) -> Result<Vec<StatusRow>, Misfit> {
    let rows = answer.as_array().ok_or_else(|| Misfit::new("answer", "is not a list"))?;
    rows.iter().map(status_row).collect()
}

fn status_row(row: &Value) -> Result<StatusRow, Misfit> {
    let fields = Fields::of(row)?;
    let count = |field: &str| -> Result<u64, Misfit> {
        let number = fields.number(field)?.ok_or_else(|| Misfit::new(field, "is missing"))?;
        let whole = number.floor();
        u64::try_from(whole)
            .ok()
            .filter(|_| Exact::whole(whole) == number)
            .ok_or_else(|| Misfit::new(field, format!("{number} is not a count")))
    };
    let mut errors = Vec::new();
    for row in fields.list("Errors")?.into_iter().flatten() {
        let fields = Fields::of(row)?;
        let records = fields.list("Records")?.cloned().unwrap_or_default();
        let ids: Result<Vec<_>, Misfit> =
            records.iter().map(|r| Fields::of(r)?.id("LocalRecordID")).collect();
        errors.push(StatusError {
            error: error_text(fields),
            local_record_ids: ids?.into_iter().flatten().collect(),
            records,
        });
    }
    Ok(StatusRow {
        resource: fields.need_text("Resource")?.to_owned(),
        loaded: count("LoadedRecordCount")?,
        failed: count("FailedJobCount")?,
        total_charge: fields
            .number("TotalCharge")?
            .ok_or_else(|| Misfit::new("TotalCharge", "is missing"))?,
        errors,
    })
}

/// A record as it was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedRecord {
    /// Our id.
    pub local_record_id: String,
    /// AMIE resource.
    pub resource: String,
    /// Charge as loaded; the server may keep fewer digits than were sent.
    pub charge: Option<Exact>,
    /// When it was loaded.
    pub loaded: Option<Epoch>,
    /// The whole row.
    pub raw: Value,
}

/// The records of one page of usage/loaded: a plain list, or a list under `LoadedRecords` or `Records`.
pub(super) fn loaded_records(answer: &Value) -> Result<Vec<LoadedRecord>, Misfit> {
    let rows = match answer {
        Value::Array(rows) => rows,
        other => {
            let fields = Fields::of(other)?;
            match (fields.list("LoadedRecords")?, fields.list("Records")?) {
                (Some(rows), _) | (None, Some(rows)) => rows,
                (None, None) => return Err(Misfit::new("LoadedRecords", "is missing")),
            }
        }
    };
    rows.iter()
        .map(|row| {
            let fields = Fields::of(row)?;
            Ok(LoadedRecord {
                local_record_id: fields
                    .id("LocalRecordID")?
                    .ok_or_else(|| Misfit::new("LocalRecordID", "is missing"))?,
                resource: fields.text("Resource")?.unwrap_or_default().to_owned(),
                charge: fields.number("Charge")?,
                loaded: fields.instant("LoadedTime")?,
                raw: row.clone(),
            })
        })
        .collect()
}
