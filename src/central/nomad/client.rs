//! One verb per endpoint of Nomad's quota API.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::wire;
use crate::central::error::CentralError;
use crate::central::http::{Answer, Call, Connection, Http, segment};
use crate::central::retry::Repeat;
use crate::central::{Fetched, Surroundings, converted};
use crate::core::quota::{ConcurrencyQuota, ConcurrencyUsage};

const QUOTAS: &str = "quotas";
const USAGES: &str = "quota-usages";
/// Longest name of a quota that Nomad accepts.
const NAME_BYTES_MAX: usize = 128;
/// Longest wait of a blocking query that Nomad grants.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// The server adds up to this share of the wait, so that not all clients come back at once.
const JITTER_SHARE: u32 = 16;

/// An answer and the index of the state that it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Indexed<T> {
    /// `X-Nomad-Index`; `None` where the answer has none, or 0.
    pub index: Option<u64>,
    /// The answer.
    pub value: T,
}

/// One Nomad.
pub struct NomadClient {
    http: Http,
    /// What network and server may take besides the wait of a blocking query.
    answer_time: Duration,
}

impl fmt::Debug for NomadClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NomadClient").field("http", &self.http).finish()
    }
}

/// The index of the state that an answer shows. 0 would never block: it counts as none.
fn index_of(answer: &Answer) -> Option<u64> {
    answer.header("x-nomad-index")?.trim().parse().ok().filter(|index| *index > 0)
}

fn rows(answer: &Answer) -> Result<Vec<Value>, CentralError> {
    match answer.json()? {
        Value::Array(rows) => Ok(rows),
        // Go's empty list.
        Value::Null => Ok(Vec::new()),
        _ => Err(answer.wrong_shape("a list was expected")),
    }
}

/// A name that may stand in a path.
fn named(name: &str) -> Result<&str, CentralError> {
    segment("the name of a quota (1 to 128 letters, digits and dashes)", name, NAME_BYTES_MAX)
        .map_err(|what| CentralError::Unsendable { what })
}

fn not_there(error: CentralError, name: &str) -> CentralError {
    match error {
        CentralError::Refused { place, status: 404, excerpt, .. }
        | CentralError::WrongAddress { place, status: 404, excerpt } => {
            CentralError::NotThere { place, what: format!("quota as {name:?}"), excerpt }
        }
        other => other,
    }
}

impl NomadClient {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(connection: &Connection, surroundings: Surroundings) -> Result<Self, CentralError> {
        let http = connection.open("/v1/", ("x-nomad-token", ""), surroundings)?;
        Ok(Self { http, answer_time: connection.timeout })
    }

    /// The shared part: clock skew, name.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Asks for the list: proves address, certificate and token, and measures the clock skew.
    pub async fn probe(&self) -> Result<(), CentralError> {
        rows(&self.http.send(Call::get(QUOTAS, &[])).await?).map(drop)
    }

    /// The quotas whose names begin with `prefix` (empty: all). Those that are not understood are left out with a notice.
    pub async fn list(&self, prefix: &str) -> Result<Indexed<Fetched<Vec<ConcurrencyQuota>>>, CentralError> {
        let query: Vec<_> = prefixed(prefix).collect();
        let answer = self.http.send(Call::get(QUOTAS, &query)).await?;
        Ok(Indexed { index: index_of(&answer), value: quotas(rows(&answer)?) })
    }

    /// One blocking query for the list: the server holds the answer until its index passes `index` or `wait` (and up to
    /// 1/16 more) is over; with index 0 it answers at once. One attempt: who follows a list waits between attempts itself.
    pub async fn list_changed(
        &self,
        prefix: &str,
        index: u64,
        wait: Duration,
    ) -> Result<Indexed<Fetched<Vec<ConcurrencyQuota>>>, CentralError> {
        let wait = wait.min(WAIT_MAX);
        let mut query: Vec<_> = prefixed(prefix).collect();
        let mut call = Call::get(QUOTAS, &[]);
        call.attempts_max = Some(1);
        if index > 0 {
            query.push(("index", index.to_string()));
            query.push(("wait", duration_text(wait)));
            call.timeout = Some(wait + wait / JITTER_SHARE + self.answer_time);
        }
        call.query = &query;
        let answer = self.http.send(call).await?;
        Ok(Indexed { index: index_of(&answer), value: quotas(rows(&answer)?) })
    }

    /// One quota.
    pub async fn read(&self, name: &str) -> Result<Indexed<ConcurrencyQuota>, CentralError> {
        let (answer, row) = self.one(&format!("quota/{}", named(name)?), name).await?;
        let value = wire::quota(&row).map_err(|misfit| answer.wrong_shape(misfit))?;
        Ok(Indexed { index: index_of(&answer), value })
    }

    /// One quota as the server has it, with all that means nothing on Slurm: what is to be changed and written back.
    pub async fn read_spec(&self, name: &str) -> Result<Value, CentralError> {
        Ok(self.one(&format!("quota/{}", named(name)?), name).await?.1)
    }

    /// Creates the quota of a specification or replaces it as a whole; absolute. At `/v1/quota/:name` where `name` is
    /// given, which must be the specification's own, else at `/v1/quota`. Gives the index of the change.
    pub async fn write(&self, name: Option<&str>, spec: &Value) -> Result<Option<u64>, CentralError> {
        let unsendable = |what: String| CentralError::Unsendable { what };
        let own = wire::name_of(spec).map_err(|misfit| unsendable(format!("the specification: {misfit}")))?;
        let own = named(&own)?;
        let path = match name {
            None => "quota".to_owned(),
            Some(name) if name == own => format!("quota/{name}"),
            Some(name) => {
                return Err(unsendable(format!("the specification is of quota {own:?}, not of {name:?}")));
            }
        };
        let call = Call::send(Method::POST, &path, spec.to_string(), Repeat::Absolute);
        Ok(index_of(&self.http.send(call).await?))
    }

    /// Deletes a quota and gives the index of the change. One that is gone at the second attempt was deleted by the
    /// first, whose answer was lost.
    pub async fn delete(&self, name: &str) -> Result<Option<u64>, CentralError> {
        let path = format!("quota/{}", named(name)?);
        // The first attempt is told apart from the others here, since Nomad says "not found" in plain text.
        let first = Call { attempts_max: Some(1), ..Call::delete(&path) };
        match self.http.send(first).await {
            Ok(answer) => return Ok(index_of(&answer)),
            Err(error) if error.class() != crate::core::class::Class::Transient => {
                return Err(not_there(error, name));
            }
            Err(_) => {}
        }
        match self.http.send(Call::delete(&path)).await.map_err(|error| not_there(error, name)) {
            Ok(answer) => Ok(index_of(&answer)),
            Err(CentralError::NotThere { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is in use of the quotas whose names begin with `prefix` (empty: all).
    pub async fn list_usages(
        &self,
        prefix: &str,
    ) -> Result<Indexed<Fetched<Vec<ConcurrencyUsage>>>, CentralError> {
        let query: Vec<_> = prefixed(prefix).collect();
        let answer = self.http.send(Call::get(USAGES, &query)).await?;
        let value = converted("quota usage", "Name", rows(&answer)?, wire::usage);
        Ok(Indexed { index: index_of(&answer), value })
    }

    /// What is in use of one quota.
    pub async fn read_usage(&self, name: &str) -> Result<Indexed<ConcurrencyUsage>, CentralError> {
        let (answer, row) = self.one(&format!("quota/usage/{}", named(name)?), name).await?;
        let value = wire::usage(&row).map_err(|misfit| answer.wrong_shape(misfit))?;
        Ok(Indexed { index: index_of(&answer), value })
    }

    async fn one(&self, path: &str, name: &str) -> Result<(Answer, Value), CentralError> {
        let answer = self.http.send(Call::get(path, &[])).await.map_err(|error| not_there(error, name))?;
        let row = answer.json()?;
        Ok((answer, row))
    }
}

/// A duration as Go reads it.
fn duration_text(span: Duration) -> String {
    match span.subsec_millis() {
        0 => format!("{}s", span.as_secs()),
        _ => format!("{}ms", span.as_millis()),
    }
}

fn prefixed(prefix: &str) -> impl Iterator<Item = (&'static str, String)> {
    (!prefix.is_empty()).then(|| ("prefix", prefix.to_owned())).into_iter()
}

fn quotas(rows: Vec<Value>) -> Fetched<Vec<ConcurrencyQuota>> {
    converted("quota", "Name", rows, wire::quota)
}
