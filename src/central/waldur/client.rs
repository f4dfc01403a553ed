//! One verb per endpoint of Waldur.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use url::Url;

use super::list::{fetch_list, page_rows};
use super::usage_rows::{Rows, Source, UsageRows};
use super::wire;
use crate::central::error::CentralError;
use crate::central::http::{self, Call, Http, HttpSettings};
use crate::central::retry::Repeat;
use crate::central::shape::Misfit;
use crate::central::{Fetched, Notice, Surroundings};
use crate::core::allocation::Allocation;
use crate::core::command::Command;
use crate::core::name::SourceName;
use crate::core::policy::Policy;
use crate::core::report::{BackendMetadata, CommandResult, ComponentUsage};

const POLICIES: &str = "marketplace-slurm-periodic-usage-policies/";
const RESOURCES: &str = "marketplace-provider-resources/";
const USAGES: &str = "marketplace-component-usages/";
const OFFERINGS: &str = "marketplace-provider-offerings/";
/// Path of the API below the address of the server.
pub(super) const API: &str = "/api/";
/// Longest uuid in an address; they have 32 digits and perhaps dashes.
pub(super) const UUID_BYTES_MAX: usize = 64;
/// Most users in one set_user_usages; keeps a body near 50 KiB.
const USERS_MAX: usize = 500;

/// What a client of Waldur needs.
pub struct WaldurSettings {
    /// The source's name in the configuration.
    pub name: SourceName,
    /// Address of the server, with or without `/api`, with or without a slash at the end.
    pub url: String,
    /// API token.
    pub token: SecretString,
    /// CA certificates accepted beside the host's.
    pub ca_file: Option<PathBuf>,
    /// Proxy, else the environment's.
    pub proxy: Option<Url>,
    /// The offering's uuid: only its policies and resources are looked at.
    pub offering: String,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Largest answer.
    pub response_bytes_max: usize,
    /// Most attempts per request.
    pub attempts_max: u32,
}

/// One Waldur.
pub struct WaldurClient {
    http: Http,
    base: Url,
    source: SourceName,
    offering: String,
    usage_rows: UsageRows,
}

impl fmt::Debug for WaldurClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaldurClient").field("http", &self.http).field("offering", &self.offering).finish()
    }
}

/// A uuid that may stand in a path.
fn segment<'a>(what: &str, id: &'a str) -> Result<&'a str, CentralError> {
    http::segment(&format!("the uuid of a {what}"), id, UUID_BYTES_MAX)
        .map_err(|what| CentralError::Unaddressed { what })
}

impl WaldurClient {
    /// Prepares a client; no connection is made. Errors are of class misconfigured.
    pub fn new(settings: &WaldurSettings, surroundings: Surroundings) -> Result<Self, CentralError> {
        if segment("offering", &settings.offering).is_err() {
            return Err(CentralError::Settings {
                server: settings.name.to_string(),
                what: "offering is not a uuid (the server shows it in the offering's address)".to_owned(),
            });
        }
        let base = http::api_base(&settings.name, &settings.url, API)?;
        let http = Http::new(
            HttpSettings {
                server: settings.name.clone(),
                base: base.clone(),
                secret_headers: vec![("authorization", "Token ", settings.token.clone())],
                headers: Vec::new(),
                ca_file: settings.ca_file.clone(),
                proxy: settings.proxy.clone(),
                timeout: settings.timeout,
                response_bytes_max: settings.response_bytes_max,
                attempts_max: settings.attempts_max,
            },
            surroundings,
        )?;
        Ok(Self {
            http,
            base,
            source: settings.name.clone(),
            offering: settings.offering.clone(),
            usage_rows: UsageRows::default(),
        })
    }

    /// The shared part: clock skew, name.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Uuid of the offering.
    pub fn offering(&self) -> &str {
        &self.offering
    }

    /// The address of the offering, which is what a policy calls its scope.
    pub fn scope(&self) -> String {
        format!("{}{OFFERINGS}{}/", self.base, self.offering)
    }

    /// Asks for one row: proves address, certificate and token, and measures the clock skew.
    pub async fn probe(&self) -> Result<(), CentralError> {
        let query = [("scope_uuid", self.offering.clone()), ("page_size", "1".to_owned())];
        let answer = self.http.send(Call::get(POLICIES, &query)).await?;
        page_rows(&answer).map(drop)
    }

    // What the daemon uses.

    /// The policies of the offering. Those that cannot be used as they are meant are left out with a notice.
    pub async fn fetch_policies(&self) -> Result<Fetched<Vec<Policy>>, CentralError> {
        let query = [("scope_uuid", self.offering.clone())];
        let raw = fetch_list(&self.http, POLICIES, &query).await?;
        let mut notices = Vec::new();
        let mut policies = Vec::new();
        for (place, row) in raw.iter().enumerate() {
            let checked = self.of_offering(row, "scope_uuid").and_then(|()| wire::policy(row, &self.source));
            match checked {
                Ok((policy, remarks)) => {
                    notices.extend(remarks.into_iter().map(|what| Notice {
                        subject: "policy",
                        id: policy.id.clone(),
                        what,
                        rejected: false,
                    }));
                    policies.push(policy);
                }
                Err(misfit) => notices.push(rejected("policy", row, place, &misfit)),
            }
        }
        Ok(Fetched { value: policies, notices, raw })
    }

    /// The resources of the offering that map to a Slurm account; others are left out with a notice.
    pub async fn fetch_allocations(&self) -> Result<Fetched<Vec<Allocation>>, CentralError> {
        let mut query = vec![("offering_uuid", self.offering.clone()), ("o", "created".to_owned())];
        query.extend(wire::RESOURCE_STATES.map(|state| ("state", state.to_owned())));
        query.extend(wire::RESOURCE_FIELDS.map(|field| ("field", field.to_owned())));
        let raw = fetch_list(&self.http, RESOURCES, &query).await?;
        let mut notices = Vec::new();
        let mut allocations = Vec::new();
        for (place, row) in raw.iter().enumerate() {
            let checked =
                self.of_offering(row, "offering_uuid").and_then(|()| wire::allocation(row, &self.source));
            match checked {
                Ok(allocation) => allocations.push(allocation),
                Err(misfit) => notices.push(rejected("resource", row, place, &misfit)),
            }
        }
        Ok(Fetched { value: allocations, notices, raw })
    }

    /// A server or proxy that ignores the filter must not make us act on another offering's rows.
    fn of_offering(&self, row: &Value, field: &str) -> Result<(), Misfit> {
        match row.get(field).and_then(Value::as_str) {
            Some(uuid) if !wire::same_uuid(uuid, &self.offering) => {
                Err(Misfit::new(field, format!("{uuid:?} is another offering than {:?}", self.offering)))
            }
            _ => Ok(()),
        }
    }

    /// The commands of a policy (of one resource where given) that the server still shows (newest 100), oldest first,
    /// each once. Rows without a uuid are left out with a notice; others that are not understood are
    /// [`crate::core::command::CommandKind::NotUnderstood`].
    pub async fn fetch_commands(
        &self,
        policy: &str,
        resource: Option<&str>,
    ) -> Result<Fetched<Vec<Command>>, CentralError> {
        let path = format!("{POLICIES}{}/command-history/", segment("policy", policy)?);
        let query: Vec<_> = resource.map(|uuid| ("resource_uuid", uuid.to_owned())).into_iter().collect();
        let raw = page_rows(&self.http.send(Call::get(&path, &query)).await?)?;
        let mut notices = Vec::new();
        let mut commands: Vec<Command> = Vec::new();
        // The server sends the newest first, though not always; sorting is stable, so rows of the same instant keep their order.
        for (place, row) in raw.iter().enumerate().rev() {
            match wire::command(row, &self.source, policy) {
                Ok(command) if commands.iter().any(|known| known.uuid == command.uuid) => {}
                Ok(command) => commands.push(command),
                Err(misfit) => notices.push(rejected("command", row, place, &misfit)),
            }
        }
        commands.sort_by_key(Command::issue);
        Ok(Fetched { value: commands, notices, raw })
    }

    /// Tells the verdict on a command. Absolute: the server marks the newest rows of the resource.
    pub async fn post_command_result(&self, result: &CommandResult) -> Result<(), CentralError> {
        let path = format!("{POLICIES}{}/report-command-result/", segment("policy", &result.policy)?);
        let Some(resource) = &result.allocation else {
            return Err(CentralError::Unaddressed {
                what: format!(
                    "the verdict on command {} belongs to no resource that is known",
                    result.command
                ),
            });
        };
        let body = wire::command_result_body(result, segment("resource", resource)?);
        self.post(&path, &body, Repeat::Absolute).await.map(drop)
    }

    /// Reports usage of one resource in one month: the totals, then the users' parts of each component. Absolute.
    pub async fn post_component_usage(&self, usage: &ComponentUsage) -> Result<(), CentralError> {
        segment("resource", &usage.allocation)?;
        if !usage.amounts.is_empty() {
            let body = wire::component_usage_body(usage);
            self.post(&format!("{USAGES}set_usage/"), &body, Repeat::Absolute).await?;
        }
        let of_users = usage.users.iter().filter(|(_, users)| !users.is_empty());
        let components: BTreeSet<&str> = of_users.map(|(component, _)| component.as_str()).collect();
        if components.is_empty() {
            return Ok(());
        }
        let source = Source { http: &self.http, path: USAGES, offering: &self.offering };
        let (resource, month) = (usage.allocation.as_str(), usage.month.as_str());
        let (rows, remembered) = self.usage_rows.of(&source, resource, month, &components).await?;
        match self.post_user_usages(usage, &rows).await {
            Err(CentralError::Refused { status: 404, .. }) if remembered => {
                self.usage_rows.forget(resource, month).await;
                let (rows, _) = self.usage_rows.of(&source, resource, month, &components).await?;
                self.post_user_usages(usage, &rows).await
            }
            posted => posted,
        }
    }

    async fn post_user_usages(&self, usage: &ComponentUsage, rows: &Rows) -> Result<(), CentralError> {
        for (component, users) in usage.users.iter().filter(|(_, users)| !users.is_empty()) {
            let uuid = rows.get(component).ok_or_else(|| CentralError::Unaddressed {
                what: format!(
                    "the server has no usage of component {component} of resource {} in {}",
                    usage.allocation, usage.month
                ),
            })?;
            let path = format!("{USAGES}{}/set_user_usages/", segment("component usage", uuid)?);
            let users: Vec<_> = users.iter().collect();
            for part in users.chunks(USERS_MAX) {
                self.post(&path, &wire::user_usages_body(part, usage.date), Repeat::Absolute).await?;
            }
        }
        Ok(())
    }

    /// Writes what is in force into the backend metadata of its resource, under one name of ours: what others keep there stays.
    pub async fn post_backend_metadata(&self, state: &BackendMetadata) -> Result<(), CentralError> {
        let resource = self.retrieve_resource(&state.allocation).await?;
        let mut metadata =
            resource.get("backend_metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.insert(wire::METADATA_NAME.to_owned(), wire::backend_metadata(state));
        self.set_backend_metadata(&state.allocation, &Value::Object(metadata)).await
    }

    // The rest of the policy API, as JSON for verbs.

    /// Policies as the server shows them, with filters of the caller (`scope_uuid`, ...).
    pub async fn list_policies(&self, filters: &[(&str, String)]) -> Result<Vec<Value>, CentralError> {
        fetch_list(&self.http, POLICIES, filters).await
    }

    /// One policy.
    pub async fn retrieve_policy(&self, policy: &str) -> Result<Value, CentralError> {
        let path = format!("{POLICIES}{}/", segment("policy", policy)?);
        self.http.send(Call::get(&path, &[])).await?.json()
    }

    /// Makes a policy. Not repeated when the answer is lost: it could be made twice.
    pub async fn create_policy(&self, body: &Value) -> Result<Value, CentralError> {
        self.post(POLICIES, body, Repeat::Once).await
    }

    /// Replaces a policy as a whole.
    pub async fn update_policy(&self, policy: &str, body: &Value) -> Result<Value, CentralError> {
        let path = format!("{POLICIES}{}/", segment("policy", policy)?);
        self.send(Method::PUT, &path, body, Repeat::Absolute).await
    }

    /// Changes some fields of a policy.
    pub async fn partial_update_policy(&self, policy: &str, body: &Value) -> Result<Value, CentralError> {
        let path = format!("{POLICIES}{}/", segment("policy", policy)?);
        self.send(Method::PATCH, &path, body, Repeat::Absolute).await
    }

    /// Deletes a policy. One that is gone at the second attempt was deleted by the first, whose answer was lost.
    pub async fn delete_policy(&self, policy: &str) -> Result<(), CentralError> {
        let path = format!("{POLICIES}{}/", segment("policy", policy)?);
        match self.http.send(Call::delete(&path)).await {
            Ok(_) => Ok(()),
            Err(CentralError::Refused { status: 404, attempts, .. }) if attempts > 1 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The actions a policy can have.
    pub async fn available_actions(&self) -> Result<Value, CentralError> {
        self.http.send(Call::get(&format!("{POLICIES}actions/"), &[])).await?.json()
    }

    /// What an evaluation would do. Staff only.
    pub async fn dry_run(&self, policy: &str, resource: Option<&str>) -> Result<Value, CentralError> {
        self.policy_action(policy, "dry-run", resource, Repeat::Absolute).await
    }

    /// Evaluates at the server. Staff only. Not repeated when the answer is lost: each run writes a log.
    pub async fn evaluate(&self, policy: &str, resource: Option<&str>) -> Result<Value, CentralError> {
        self.policy_action(policy, "evaluate", resource, Repeat::Once).await
    }

    /// Lifts the server's flags of resources below their thresholds. Staff only. Not repeated when the answer is lost.
    pub async fn force_period_reset(
        &self,
        policy: &str,
        resource: Option<&str>,
    ) -> Result<Value, CentralError> {
        self.policy_action(policy, "force-period-reset", resource, Repeat::Once).await
    }

    /// Thresholds, carryover and projections for numbers that are not saved.
    pub async fn preview_impact(&self, body: &Value) -> Result<Value, CentralError> {
        self.post(&format!("{POLICIES}preview_impact/"), body, Repeat::Absolute).await
    }

    /// Evaluations of a policy, newest first (newest 100).
    pub async fn evaluation_logs(
        &self,
        policy: &str,
        resource: Option<&str>,
        billing_period: Option<&str>,
    ) -> Result<Vec<Value>, CentralError> {
        let path = format!("{POLICIES}{}/evaluation-logs/", segment("policy", policy)?);
        let mut query = Vec::new();
        query.extend(resource.map(|uuid| ("resource_uuid", uuid.to_owned())));
        query.extend(billing_period.map(|period| ("billing_period", period.to_owned())));
        page_rows(&self.http.send(Call::get(&path, &query)).await?)
    }

    /// Usage rows of a resource, of one month (`2026-11`) where given.
    pub async fn component_usages(
        &self,
        resource: &str,
        month: Option<&str>,
    ) -> Result<Vec<Value>, CentralError> {
        let mut query = vec![("resource_uuid", segment("resource", resource)?.to_owned())];
        query.extend(month.map(|month| ("billing_period", format!("{month}-01"))));
        let rows = fetch_list(&self.http, USAGES, &query).await?;
        // A row of another month is never taken for one of this month, whatever the filter did.
        let of_month = |row: &Value| match (month, row.get("billing_period").and_then(Value::as_str)) {
            (Some(month), Some(period)) => period.starts_with(month),
            _ => true,
        };
        Ok(rows.into_iter().filter(of_month).collect())
    }

    /// One resource, whole.
    pub async fn retrieve_resource(&self, resource: &str) -> Result<Value, CentralError> {
        let path = format!("{RESOURCES}{}/", segment("resource", resource)?);
        self.http.send(Call::get(&path, &[])).await?.json()
    }

    /// Stores what is in force in the resource's backend metadata.
    pub async fn set_backend_metadata(&self, resource: &str, metadata: &Value) -> Result<(), CentralError> {
        let path = format!("{RESOURCES}{}/set_backend_metadata/", segment("resource", resource)?);
        self.post(&path, &json!({ "backend_metadata": metadata }), Repeat::Absolute).await.map(drop)
    }

    async fn policy_action(
        &self,
        policy: &str,
        action: &str,
        resource: Option<&str>,
        repeat: Repeat,
    ) -> Result<Value, CentralError> {
        let path = format!("{POLICIES}{}/{action}/", segment("policy", policy)?);
        let body = match resource {
            Some(uuid) => json!({"resource_uuid": segment("resource", uuid)?}),
            None => json!({}),
        };
        self.post(&path, &body, repeat).await
    }

    async fn post(&self, path: &str, body: &Value, repeat: Repeat) -> Result<Value, CentralError> {
        self.send(Method::POST, path, body, repeat).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        repeat: Repeat,
    ) -> Result<Value, CentralError> {
        self.http.send(Call::send(method, path, body.to_string(), repeat)).await?.json_or_null()
    }
}

fn rejected(subject: &'static str, row: &Value, place: usize, misfit: &Misfit) -> Notice {
    let id =
        row.get("uuid").and_then(Value::as_str).map_or_else(|| format!("row {}", place + 1), str::to_owned);
    Notice { subject, id, what: misfit.to_string(), rejected: true }
}
