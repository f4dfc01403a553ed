//! The server's names of usage rows, to which the users' parts of a usage are posted.
//!
//! A row keeps its uuid as long as it exists, so it is asked for once: when the first row of a month is wanted, those of the
//! whole offering are read, a hundred in an answer; a resource that has none there yet is asked for alone later. Nothing here is
//! durable, and a row that the server no longer knows is asked for anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use tokio::sync::Mutex;

use super::list::fetch_list;
use crate::central::error::CentralError;
use crate::central::http::Http;

/// Months whose rows are remembered: the running one and the one before, which is still corrected.
const MONTHS_MAX: usize = 2;

/// uuid of a row by component.
pub(super) type Rows = BTreeMap<String, String>;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct UsageRows {
    months: Mutex<BTreeMap<String, HashMap<String, Rows>>>,
}

/// Where rows are read.
pub(super) struct Source<'a> {
    /// The server.
    pub http: &'a Http,
    /// Path of the list.
    pub path: &'a str,
    /// uuid of the offering.
    pub offering: &'a str,
}

impl UsageRows {
    /// The rows of a resource in a month, and whether they are from memory. Components that the server has no row of are absent.
    pub(super) async fn of(
        &self,
        source: &Source<'_>,
        resource: &str,
        month: &str,
        components: &BTreeSet<&str>,
    ) -> Result<(Rows, bool), CentralError> {
        // Held while asking, so that others who want the same month wait for the one answer.
        let mut months = self.months.lock().await;
        let wanted = |rows: &&Rows| components.iter().all(|component| rows.contains_key(*component));
        if let Some(rows) = months.get(month).and_then(|rows| rows.get(&key(resource))).filter(wanted) {
            return Ok((rows.clone(), true));
        }
        if !months.contains_key(month) {
            let all = read(source, ("offering_uuid", source.offering), month).await?;
            months.insert(month.to_owned(), all);
            while months.len() > MONTHS_MAX {
                months.pop_first();
            }
        }
        let known = months.entry(month.to_owned()).or_default();
        if let Some(rows) = known.get(&key(resource)).filter(wanted) {
            return Ok((rows.clone(), false));
        }
        let own = read(source, ("resource_uuid", resource), month).await?;
        let rows = own.get(&key(resource)).cloned().unwrap_or_default();
        known.insert(key(resource), rows.clone());
        Ok((rows, false))
    }

    /// The server does not know a row of this resource any more.
    pub(super) async fn forget(&self, resource: &str, month: &str) {
        if let Some(rows) = self.months.lock().await.get_mut(month) {
            rows.remove(&key(resource));
        }
    }
}

/// A uuid is written with and without dashes.
fn key(uuid: &str) -> String {
    uuid.replace('-', "").to_ascii_lowercase()
}

async fn read(
    source: &Source<'_>,
    (filter, uuid): (&str, &str),
    month: &str,
) -> Result<HashMap<String, Rows>, CentralError> {
    let mut query = vec![(filter, uuid.to_owned()), ("billing_period", format!("{month}-01"))];
    query
        .extend(["uuid", "type", "resource_uuid", "billing_period"].map(|field| ("field", field.to_owned())));
    let mut found: HashMap<String, Rows> = HashMap::new();
    for row in fetch_list(source.http, source.path, &query).await? {
        let text = |field: &str| row.get(field).and_then(Value::as_str);
        // A row of another month is never taken for one of this month, whatever the filter did.
        let of_month = text("billing_period").is_none_or(|period| period.starts_with(month));
        if let (true, Some(resource), Some(component), Some(uuid)) =
            (of_month, text("resource_uuid"), text("type"), text("uuid"))
        {
            found.entry(key(resource)).or_default().insert(component.to_owned(), uuid.to_owned());
        }
    }
    Ok(found)
}
