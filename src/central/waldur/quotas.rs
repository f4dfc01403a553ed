//! One verb per endpoint of Waldur's `/api/quotas/`.

use std::collections::BTreeSet;
use std::fmt;

use reqwest::Method;
use serde_json::Value;

use super::client::{API, UUID_BYTES_MAX};
use super::list::{fetch_list, page_rows};
use super::wire;
use crate::central::error::CentralError;
use crate::central::http::{self, Call, Connection, Http};
use crate::central::retry::Repeat;
use crate::central::shape::Misfit;
use crate::central::{Fetched, Surroundings, converted};
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::quota::{Bound, BudgetQuota};
use crate::core::time::Epoch;

const QUOTAS: &str = "quotas/";
const RESOURCES: &str = "marketplace-provider-resources/";
/// Fields asked of a resource whose account is looked up.
const ACCOUNT_FIELDS: [&str; 2] = ["uuid", "backend_id"];
/// Most points of one history: a chart of a terminal has some hundred columns.
pub const HISTORY_POINTS_MAX: usize = 1000;
/// Instants in one request: each has some 17 bytes, and addresses are safe up to 2 KiB.
const POINTS_AT_ONCE: usize = 100;

/// Which quotas are listed; an empty filter is all that the token's owner may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaFilter {
    /// Only those with this name.
    pub name: Option<String>,
    /// Only those of the object with this address.
    pub scope: Option<String>,
}

/// What of a quota is changed; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaWrite {
    /// The new limit.
    pub limit: Option<Bound>,
    /// The new threshold; 0 takes it away.
    pub threshold: Option<Exact>,
}

/// How a change is written. The server's page has both methods take limit, threshold or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// Which instants of a history are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryPoints {
    /// These, in this order.
    At(Vec<Epoch>),
    /// So many from start to end, both included, evenly spaced.
    Between {
        /// The first.
        start: Epoch,
        /// The last.
        end: Epoch,
        /// How many.
        count: usize,
    },
}

/// A quota as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPoint {
    /// When.
    pub at: Epoch,
    /// How it was; `None` when the server knows nothing of that instant.
    pub quota: Option<BudgetQuota>,
}

/// The quotas of one Waldur.
pub struct WaldurQuotaClient {
    http: Http,
}

impl fmt::Debug for WaldurQuotaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaldurQuotaClient").field("http", &self.http).finish()
    }
}

fn address(uuid: &str) -> Result<String, CentralError> {
    match http::segment("the uuid of a quota", uuid, UUID_BYTES_MAX) {
        Ok(uuid) => Ok(format!("{QUOTAS}{uuid}/")),
        Err(what) => Err(CentralError::Unsendable { what }),
    }
}

fn unsendable(misfit: &Misfit) -> CentralError {
    CentralError::Unsendable { what: misfit.to_string() }
}

impl WaldurQuotaClient {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(connection: &Connection, surroundings: Surroundings) -> Result<Self, CentralError> {
        Ok(Self { http: connection.open(API, ("authorization", "Token "), surroundings)? })
    }

    /// The shared part: clock skew, name.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Asks for one row: proves address, certificate and token, and measures the clock skew.
    pub async fn probe(&self) -> Result<(), CentralError> {
        let answer = self.http.send(Call::get(QUOTAS, &[("page_size", "1".to_owned())])).await?;
        page_rows(&answer).map(drop)
    }

    /// The quotas that fit the filter. Rows that are not understood are left out with a notice.
    pub async fn list(&self, filter: &QuotaFilter) -> Result<Fetched<Vec<BudgetQuota>>, CentralError> {
        let mut query = Vec::new();
        query.extend(filter.name.iter().map(|name| ("name", name.clone())));
        query.extend(filter.scope.iter().map(|scope| ("scope", scope.clone())));
        let mut rows = fetch_list(&self.http, QUOTAS, &query).await?;
        // A server or proxy that ignores the filter must not make us take one thing for another.
        if let Some(name) = &filter.name {
            rows.retain(|row| row.get("name").and_then(Value::as_str).is_none_or(|other| other == name));
        }
        Ok(converted("quota", "uuid", rows, wire::quota))
    }

    /// The quotas with any of these names, each once: a whole Waldur has some for everything it knows.
    pub async fn list_named(
        &self,
        names: &BTreeSet<&str>,
    ) -> Result<Fetched<Vec<BudgetQuota>>, CentralError> {
        let mut all = Fetched { value: Vec::new(), notices: Vec::new(), raw: Vec::new() };
        for name in names {
            let filter = QuotaFilter { name: Some((*name).to_owned()), scope: None };
            let part = self.list(&filter).await?;
            all.value.extend(part.value);
            all.notices.extend(part.notices);
            all.raw.extend(part.raw);
        }
        Ok(all)
    }

    /// The Slurm account (backend_id) of every resource that the token's owner may see, by the resource's uuid. Those
    /// that have none yet are not in it; one that cannot be an account is left out with a notice.
    pub async fn accounts(&self) -> Result<Fetched<Vec<(String, AccountName)>>, CentralError> {
        let mut query: Vec<_> = vec![("o", "created".to_owned())];
        query.extend(wire::RESOURCE_STATES.map(|state| ("state", state.to_owned())));
        query.extend(ACCOUNT_FIELDS.map(|field| ("field", field.to_owned())));
        let mut rows = fetch_list(&self.http, RESOURCES, &query).await?;
        rows.retain(|row| row.get("backend_id").is_some_and(|id| !id.is_null() && id != ""));
        Ok(converted("resource", "uuid", rows, wire::account))
    }

    /// One quota.
    pub async fn retrieve(&self, uuid: &str) -> Result<BudgetQuota, CentralError> {
        let answer = self.http.send(Call::get(&address(uuid)?, &[])).await.map_err(|e| not_there(e, uuid))?;
        wire::quota(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// Changes limit, threshold or both and gives the quota as the server has it afterwards. Absolute.
    pub async fn write(
        &self,
        uuid: &str,
        change: &QuotaWrite,
        method: Written,
    ) -> Result<BudgetQuota, CentralError> {
        let path = address(uuid)?;
        let body = wire::quota_body(change).map_err(|misfit| unsendable(&misfit))?.to_string();
        let method = match method {
            Written::Put => Method::PUT,
            Written::Patch => Method::PATCH,
        };
        let sent = self.http.send(Call::send(method, &path, body, Repeat::Absolute)).await;
        let answer = sent.map_err(|error| refused(error, uuid))?;
        match answer.json_or_null().map(|row| wire::quota(&row)) {
            Ok(Ok(quota)) => Ok(quota),
            // Some versions answer with the written fields alone, or with nothing.
            _ => self.retrieve(uuid).await,
        }
    }

    /// How a quota was at some instants, in the order in which they were asked for.
    pub async fn history(
        &self,
        uuid: &str,
        points: &HistoryPoints,
    ) -> Result<Vec<HistoryPoint>, CentralError> {
        let path = format!("{}history/", address(uuid)?);
        let wanted = match points {
            HistoryPoints::At(points) => points.len(),
            HistoryPoints::Between { count, .. } => *count,
        };
        if wanted == 0 || wanted > HISTORY_POINTS_MAX {
            let what = format!("{wanted} points: a history has 1 to {HISTORY_POINTS_MAX}");
            return Err(CentralError::Unsendable { what });
        }
        match points {
            HistoryPoints::At(points) => {
                let mut history = Vec::new();
                for part in points.chunks(POINTS_AT_ONCE) {
                    let query: Vec<_> = part.iter().map(|at| ("point", at.0.to_string())).collect();
                    let found = self.points(&path, &query, part.len()).await?;
                    history.extend(found);
                }
                Ok(history)
            }
            HistoryPoints::Between { start, end, .. } if start >= end => {
                let what = format!("the history from {start} to {end} has no length");
                Err(CentralError::Unsendable { what })
            }
            HistoryPoints::Between { start, end, count } => {
                let query = [
                    ("start", start.0.to_string()),
                    ("end", end.0.to_string()),
                    ("points_count", count.to_string()),
                ];
                self.points(&path, &query, *count).await
            }
        }
    }

    /// One answer of a history. Points that are not those asked for would be drawn at the wrong time: refused as a whole.
    async fn points(
        &self,
        path: &str,
        query: &[(&str, String)],
        count: usize,
    ) -> Result<Vec<HistoryPoint>, CentralError> {
        let answer = self.http.send(Call::get(path, query)).await.map_err(|e| not_there(e, path))?;
        let rows = page_rows(&answer)?;
        if rows.len() != count {
            return Err(answer.wrong_shape(format!("{} points came, {count} were asked for", rows.len())));
        }
        let history: Vec<HistoryPoint> = rows
            .iter()
            .map(wire::history_point)
            .collect::<Result<_, _>>()
            .map_err(|misfit| answer.wrong_shape(misfit))?;
        let asked = query.iter().filter(|(name, _)| *name == "point");
        for (found, (_, wanted)) in history.iter().zip(asked) {
            if found.at.0.to_string() != *wanted {
                return Err(answer.wrong_shape(format!("point {} in the place of {wanted}", found.at.0)));
            }
        }
        Ok(history)
    }
}

fn not_there(error: CentralError, asked: &str) -> CentralError {
    match error {
        CentralError::Refused { place, status: 404, excerpt, .. } => {
            CentralError::NotThere { place, what: format!("quota as {asked}"), excerpt }
        }
        other => other,
    }
}

fn refused(error: CentralError, uuid: &str) -> CentralError {
    match error {
        CentralError::Refused { place, status: 409, excerpt, .. } => {
            CentralError::BackendQuota { place, excerpt }
        }
        CentralError::Refused { place, status: 400, excerpt, .. } => {
            CentralError::QuotaValue { place, excerpt }
        }
        other => not_there(other, uuid),
    }
}
