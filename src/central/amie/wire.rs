//! Shapes of the usage API, and their conversion from and to our types. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::central::shape::{Fields, Misfit, shown};
use crate::core::amie::{Detail, Record};
use crate::core::exact::Exact;

use crate::core::time::Epoch;

/// One record of any kind as on the wire; absent parts are left out, never sent as null.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    username: &'a str,
    #[serde(rename = "LocalProjectID")]
    local_project_id: &'a str,
    #[serde(rename = "LocalRecordID")]
    local_record_id: &'a str,
    resource: &'a str,
    charge: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_reference: Option<&'a str>,
    #[serde(flatten)]
    detail: WireDetail<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "PascalCase")]
enum WireDetail<'a> {
    Compute {
        submit_time: String,
        start_time: String,
        end_time: String,
        attributes: ComputeAttributes<'a>,
        #[serde(rename = "ParentRecordID", skip_serializing_if = "Option::is_none")]
        parent_record_id: Option<&'a str>,
    },
    Storage {
        collection_time: String,
        attributes: StorageAttributes<'a>,
    },
    Adjustment {
        adjustment_type: &'a str,
        start_time: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        comment: Option<&'a str>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ComputeAttributes<'a> {
    node_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_core_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StorageAttributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_stored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collection_interval: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_copies: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_copies: Option<u64>,
}

/// ISO 8601 in UTC with the offset written out, `2026-11-22T06:00:00+00:00`: readers older than Python 3.11 do not
/// take `Z`.
fn iso(instant: Epoch) -> String {
    match Timestamp::from_second(instant.0) {
        Ok(time) => time.display_with_offset(jiff::tz::Offset::UTC).to_string(),
        Err(_) => instant.to_string(),
    }
}

/// The exact JSON of one record.
pub fn record_json(record: &Record) -> String {
    let detail = match &record.detail {
        Detail::Compute(compute) => WireDetail::Compute {
            submit_time: iso(compute.submit),
            start_time: iso(compute.start),
            end_time: iso(compute.end),
            attributes: ComputeAttributes {
                node_count: compute.nodes,
                cpu_core_count: compute.cpus,
                job_name: compute.job_name.as_deref(),
                memory: compute.mem_mb.map(|mb| format!("{mb}MB")),
                queue: Some(compute.queue.as_str()).filter(|queue| !queue.is_empty()),
            },
            parent_record_id: compute.parent_record_id.as_deref(),
        },
        Detail::Storage(storage) => WireDetail::Storage {
            collection_time: iso(storage.collected),
            attributes: StorageAttributes {
                bytes_read: storage.bytes_read,
                bytes_stored: storage.bytes_stored,
                bytes_written: storage.bytes_written,
                collection_interval: storage.interval_days,
                file_count: storage.file_count,
                files_read: storage.files_read,
                files_written: storage.files_written,
                media_type: storage.media_type.as_deref(),
                system_copies: storage.system_copies,
                user_copies: storage.user_copies,
            },
        },
        Detail::Adjustment(adjustment) => WireDetail::Adjustment {
            adjustment_type: adjustment.adjustment_type.as_str(),
            start_time: iso(adjustment.start),
            comment: adjustment.comment.as_deref(),
        },
    };
    let wire = Wire {
        username: &record.username,
        local_project_id: &record.local_project_id,
        local_record_id: &record.local_record_id,
        resource: &record.resource,
        charge: &record.charge,
        local_reference: Some(record.local_reference.as_str()).filter(|text| !text.is_empty()),
        detail,
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
    /// `Compute`, `Storage`, `Adjustment`; empty where the server does not say.
    pub usage_type: String,
    /// AMIE resource; empty where the server does not repeat it.
    pub resource: String,
    /// Charge as sent, where the server repeats it.
    pub charge: Option<Exact>,
    /// Project as sent, where the server repeats it.
    pub local_project_id: Option<String>,
    /// Person as sent, where the server repeats it.
    pub username: Option<String>,
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
            resource: fields.text("Resource")?.unwrap_or_default().to_owned(),
            charge: fields.number("Charge")?,
            local_project_id: fields.text("LocalProjectID")?.map(str::to_owned),
            username: fields.text("Username")?.map(str::to_owned),
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
    /// `Compute`, `Storage`, `Adjustment`; empty where the server does not say.
    pub usage_type: String,
    /// AMIE resource; empty where the server does not say.
    pub resource: String,
    /// Project, where the server says.
    pub local_project_id: Option<String>,
    /// Person, where the server says.
    pub username: Option<String>,
    /// Charge as loaded; the server may keep fewer digits than were sent.
    pub charge: Option<Exact>,
    /// When it was loaded.
    pub loaded: Option<Epoch>,
    /// The whole row.
    pub raw: Value,
}

/// One page of usage/loaded.
#[derive(Debug)]
pub(super) struct LoadedPage {
    /// Its records.
    pub(super) records: Vec<LoadedRecord>,
    /// Number of the next page, where the server pages by number; `Some(None)`: this was the last.
    pub(super) next_page: Option<Option<usize>>,
    /// How many there are on all pages, where the server says.
    pub(super) total: Option<usize>,
}

/// A page of usage/loaded: a plain list, or a list under `LoadedRecords` or `Records` with or without `NextPage` and
/// `TotalRecords`.
pub(super) fn loaded_page(answer: &Value) -> Result<LoadedPage, Misfit> {
    let mut page = LoadedPage { records: Vec::new(), next_page: None, total: None };
    let rows = match answer {
        Value::Array(rows) => rows,
        other => {
            let fields = Fields::of(other)?;
            let whole = |name: &str| {
                let number = fields.value(name).and_then(Value::as_u64);
                number.and_then(|number| usize::try_from(number).ok())
            };
            page.next_page = fields.value("NextPage").map(|_| whole("NextPage"));
            if other.get("NextPage").is_some_and(Value::is_null) {
                page.next_page = Some(None);
            }
            page.total = whole("TotalRecords");
            match (fields.list("LoadedRecords")?, fields.list("Records")?) {
                (Some(rows), _) | (None, Some(rows)) => rows,
                (None, None) => return Err(Misfit::new("LoadedRecords", "is missing")),
            }
        }
    };
    page.records = rows
        .iter()
        .map(|row| {
            let fields = Fields::of(row)?;
            Ok(LoadedRecord {
                local_record_id: fields
                    .id("LocalRecordID")?
                    .ok_or_else(|| Misfit::new("LocalRecordID", "is missing"))?,
                usage_type: fields.text("UsageType")?.unwrap_or_default().to_owned(),
                resource: fields.text("Resource")?.unwrap_or_default().to_owned(),
                local_project_id: fields.text("LocalProjectID")?.map(str::to_owned),
                username: fields.text("Username")?.map(str::to_owned),
                charge: fields.number("Charge")?,
                loaded: fields.instant("LoadedTime")?,
                raw: row.clone(),
            })
        })
        .collect::<Result<_, Misfit>>()?;
    Ok(page)
}
