//! One verb per endpoint of DataRobot's quota API.

use std::fmt;

use reqwest::Method;

use super::list::fetch_list;
use super::wire;
use crate::central::error::CentralError;
use crate::central::http::{Call, Connection, Http, segment};
use crate::central::retry::Repeat;
use crate::central::shape::Misfit;
use crate::central::{Fetched, Surroundings, converted};
use crate::core::exact::Exact;
use crate::core::quota::{ConsumerPolicy, QuotaTemplate, RateCapacity, RateQuota, Rule};

const QUOTAS: &str = "quotas/";
const TEMPLATES: &str = "quotaTemplates/";
/// Longest id; they have 24 digits.
const ID_BYTES_MAX: usize = 64;

/// Which quotas are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotasOf<'a> {
    /// All that the token's owner may see.
    Everything,
    /// Those of one deployment.
    Deployment(&'a str),
}

/// What of a quota is changed; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// What the resource can do.
    pub capacity: Option<RateCapacity>,
    /// The rules of everybody without a policy.
    pub default_rules: Option<Vec<Rule>>,
    /// All policies: those that are not in it are gone.
    pub policies: Option<Vec<ConsumerPolicy>>,
    /// From where on reserved shares count; `Some(None)` takes it away.
    pub saturation_threshold: Option<Option<Exact>>,
}

/// One DataRobot.
pub struct DataRobotClient {
    http: Http,
}

impl fmt::Debug for DataRobotClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataRobotClient").field("http", &self.http).finish()
    }
}

fn address(list: &str, what: &str, id: &str) -> Result<String, CentralError> {
    match segment(&format!("the id of a {what}"), id, ID_BYTES_MAX) {
        Ok(id) => Ok(format!("{list}{id}/")),
        Err(what) => Err(CentralError::Unsendable { what }),
    }
}

fn not_there(error: CentralError, what: &str, id: &str) -> CentralError {
    match error {
        CentralError::Refused { place, status: 404, excerpt, .. } => {
            CentralError::NotThere { place, what: format!("{what} as {id}"), excerpt }
        }
        other => other,
    }
}

impl DataRobotClient {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(connection: &Connection, surroundings: Surroundings) -> Result<Self, CentralError> {
        Ok(Self { http: connection.open("/api/v2/", ("authorization", "Bearer "), surroundings)? })
    }

    /// The shared part: clock skew, name.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Asks for one row: proves address, certificate and token, and measures the clock skew.
    pub async fn probe(&self) -> Result<(), CentralError> {
        let query = [("offset", "0".to_owned()), ("limit", "1".to_owned())];
        let answer = self.http.send(Call::get(QUOTAS, &query)).await?;
        match answer.json()?.get("data") {
            Some(data) if data.is_array() => Ok(()),
            _ => Err(answer.wrong_shape("an object with data was expected")),
        }
    }

    /// Quotas. Those that are not understood are left out with a notice.
    pub async fn list(&self, of: QuotasOf<'_>) -> Result<Fetched<Vec<RateQuota>>, CentralError> {
        let mut query = Vec::new();
        if let QuotasOf::Deployment(id) = of {
            query.push(("resourceId", id.to_owned()));
            query.push(("resourceType", wire::RESOURCE_TYPE.to_owned()));
        }
        let rows = fetch_list(&self.http, QUOTAS, &query).await?;
        let mut fetched = converted("quota", "id", rows, wire::quota);
        // A server or proxy that ignores the filter must not make us take one resource for another.
        if let QuotasOf::Deployment(id) = of {
            fetched.value.retain(|quota| quota.resource_id == id);
        }
        Ok(fetched)
    }

    /// One quota.
    pub async fn read(&self, id: &str) -> Result<RateQuota, CentralError> {
        let call = address(QUOTAS, "quota", id)?;
        let answer = self.http.send(Call::get(&call, &[])).await;
        let answer = answer.map_err(|error| not_there(error, "quota", id))?;
        wire::quota(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// Changes a quota and gives it as it is afterwards. Absolute.
    pub async fn change(&self, id: &str, change: &QuotaChange) -> Result<RateQuota, CentralError> {
        let path = address(QUOTAS, "quota", id)?;
        let body = wire::change_body(change).map_err(|misfit| unsendable(&misfit))?.to_string();
        let answer = self.http.send(Call::send(Method::PATCH, &path, body, Repeat::Absolute)).await;
        let answer = answer.map_err(|error| not_there(error, "quota", id))?;
        wire::quota(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// Deletes a quota. One that is gone at the second attempt was deleted by the first, whose answer was lost.
    pub async fn delete(&self, id: &str) -> Result<(), CentralError> {
        let path = address(QUOTAS, "quota", id)?;
        match self.http.send(Call::delete(&path)).await {
            Ok(_) => Ok(()),
            Err(CentralError::Refused { status: 404, attempts, .. }) if attempts > 1 => Ok(()),
            Err(error) => Err(not_there(error, "quota", id)),
        }
    }

    /// The templates of the site. Those that are not understood are left out with a notice.
    pub async fn list_templates(&self) -> Result<Fetched<Vec<QuotaTemplate>>, CentralError> {
        let rows = fetch_list(&self.http, TEMPLATES, &[]).await?;
        Ok(converted("quota template", "id", rows, wire::template))
    }

    /// One template.
    pub async fn read_template(&self, id: &str) -> Result<QuotaTemplate, CentralError> {
        let path = address(TEMPLATES, "quota template", id)?;
        let answer = self.http.send(Call::get(&path, &[])).await;
        let answer = answer.map_err(|error| not_there(error, "quota template", id))?;
        wire::template(&answer.json()?).map_err(|misfit| answer.wrong_shape(misfit))
    }

    /// Makes the rules of a template the default rules of a deployment's quota, which must exist: the API has no way to
    /// make one. Its policies stay as they are.
    pub async fn apply_template(&self, template: &str, deployment: &str) -> Result<RateQuota, CentralError> {
        let template = self.read_template(template).await?;
        let quotas = self.list(QuotasOf::Deployment(deployment)).await?;
        if let Some(notice) = quotas.notices.iter().find(|notice| notice.rejected) {
            return Err(CentralError::Unsendable {
                what: format!("the quota of deployment {deployment} is not understood: {notice}"),
            });
        }
        match quotas.value.as_slice() {
            [quota] => {
                let change = QuotaChange { default_rules: Some(template.rules), ..QuotaChange::default() };
                self.change(&quota.id, &change).await
            }
            several => Err(CentralError::Unsendable {
                what: format!(
                    "deployment {deployment} has {} quotas where one is needed; make it at the server first",
                    several.len()
                ),
            }),
        }
    }
}

fn unsendable(misfit: &Misfit) -> CentralError {
    CentralError::Unsendable { what: misfit.to_string() }
}
