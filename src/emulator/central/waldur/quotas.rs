//! `/api/quotas/`: limits of single things of single objects, how much of them is used, and how both were in the past.
//!
//! Read, filtered and paged as the server's other lists. Limit and threshold can be written by staff; a quota that only
//! mirrors a backend's cannot. Nothing is created here: quotas come with the objects they are of.

use std::collections::BTreeMap;

use axum::http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::super::http::{Answer, Request};
use super::super::state::{CentralState, Role, User, named};
use super::super::tracked::Tracked;
use super::fields::Fields;
use super::{forbidden, missing, owns, page, wire};

/// What stands for "as much as there is".
const UNLIMITED: f64 = -1.0;

/// Most points of an evenly spaced history.
const POINTS_MAX: f64 = 10_000.0;

/// Most remembered changes of one quota; older ones are forgotten.
const VERSIONS_KEPT: usize = 10_000;

/// A quota: how much of one thing one object may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    pub uuid: Uuid,
    /// What is limited, as `nc_cpu_usage`.
    pub name: String,
    /// The object: a resource's name, or an address or path of anything else.
    pub scope: String,
    /// -1 is unlimited.
    pub limit: f64,
    pub usage: f64,
    /// From where on people are told; 0 when nobody is.
    pub threshold: f64,
    /// It mirrors a quota of a backend and cannot be written here.
    pub is_backend: bool,
    /// Where its usage comes from when nobody sets it.
    pub follows: Option<Follows>,
    /// How it was, oldest first; its present state is completed.
    pub history: Vec<QuotaVersion>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            name: String::new(),
            scope: String::new(),
            limit: UNLIMITED,
            usage: 0.0,
            threshold: 0.0,
            is_backend: false,
            follows: None,
            history: Vec::new(),
        }
    }
}

/// The usage of a quota is the reported usage of a component of its resource, all months together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follows {
    pub component: String,
    /// Units of the quota in a unit of the component: 60 for minutes of hours.
    #[serde(default = "same_unit")]
    pub factor: f64,
}

fn same_unit() -> f64 {
    1.0
}

/// A quota as it was from an instant on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaVersion {
    pub at: Timestamp,
    pub limit: f64,
    pub usage: f64,
    #[serde(default)]
    pub threshold: f64,
}

impl Quota {
    fn version(&self, at: Timestamp) -> QuotaVersion {
        QuotaVersion { at, limit: self.limit, usage: self.usage, threshold: self.threshold }
    }

    /// The newest version that is not newer than an instant.
    fn version_at(&self, at: Timestamp) -> Option<&QuotaVersion> {
        self.history.iter().rev().find(|version| version.at <= at)
    }

    /// Remembers the present state when it is a new one.
    fn remember(&mut self, now: Timestamp) {
        let present = self.version(now);
        if self.history.last().is_some_and(|last| QuotaVersion { at: now, ..*last } == present) {
            return;
        }
        self.history.push(present);
        let spare = self.history.len().saturating_sub(VERSIONS_KEPT);
        self.history.drain(..spare);
    }

    /// Its object's address on a server.
    fn scope_url(&self, base: &str) -> String {
        if self.scope.starts_with('/') { format!("{base}{}", self.scope) } else { self.scope.clone() }
    }

    /// The resource it is of, if it is of one.
    fn resource(&self) -> Option<Uuid> {
        let path = path_of(&self.scope);
        let mut segments = path.trim_end_matches('/').rsplit('/');
        let uuid = Uuid::try_parse(segments.next()?).ok()?;
        (segments.next() == Some(super::RESOURCES)).then_some(uuid)
    }
}

/// The path of an address; a path stays what it is.
fn path_of(text: &str) -> String {
    Url::parse(text).map_or_else(|_| text.to_owned(), |url| url.path().to_owned())
}

/// Completes quotas written by hand: addresses for names, ids, usage, the present state in their history.
///
/// # Errors
/// A sentence naming the quota that refers to nothing, or contradicts another.
pub(crate) fn settle(state: &mut CentralState) -> Result<(), String> {
    let resources: BTreeMap<String, Uuid> = state
        .resources
        .iter()
        .flat_map(|resource| {
            [(resource.name.clone(), resource.uuid), (resource.backend_id.clone(), resource.uuid)]
        })
        .collect();
    let mut seen = BTreeMap::new();
    for quota in &mut state.quotas {
        if quota.name.is_empty() {
            return Err(format!("a quota of {:?} has no name", quota.scope));
        }
        let is_address = quota.scope.starts_with('/') || Url::parse(&quota.scope).is_ok();
        if !is_address {
            let of = resources.get(&quota.scope);
            let uuid = of.ok_or_else(|| {
                format!(
                    "quota {} is of {:?}, which is neither a resource nor an address",
                    quota.name, quota.scope
                )
            })?;
            quota.scope = format!("/api/{}/{}/", super::RESOURCES, wire::hex(*uuid));
        }
        if quota.uuid.is_nil() {
            quota.uuid = named(&format!("quota {} of {}", quota.name, quota.scope));
        }
        if seen.insert(quota.uuid, ()).is_some() {
            return Err(format!("two quotas {} of {}", quota.name, quota.scope));
        }
        if quota.history.windows(2).any(|pair| pair[0].at > pair[1].at) {
            return Err(format!("the history of quota {} of {} runs backwards", quota.name, quota.scope));
        }
    }
    follow_usages(state);
    let now = state.now();
    for quota in &mut state.quotas {
        quota.remember(now);
    }
    Ok(())
}

/// Takes the usage of quotas that follow a component from what was reported.
pub(super) fn follow_usages(state: &mut CentralState) {
    let now = state.now();
    for quota in &mut state.quotas {
        let (Some(follows), Some(resource)) = (&quota.follows, quota.resource()) else { continue };
        let hundredths: i128 = state
            .component_usages
            .iter()
            .filter(|usage| usage.resource == resource && usage.kind == follows.component)
            .map(|usage| usage.usage.hundredths())
            .sum();
        quota.usage = hundredths as f64 * follows.factor / 100.0;
        quota.remember(now);
    }
}

fn is_visible(state: &CentralState, user: &User, quota: &Quota) -> bool {
    let resource = quota.resource().and_then(|uuid| state.resource(uuid));
    user.role == Role::Staff || resource.is_some_and(|resource| owns(user, state.offering(resource.offering)))
}

fn shown(quota: &Quota, base: &str) -> Value {
    json!({
        "url": format!("{base}/api/quotas/{}/", wire::hex(quota.uuid)),
        "uuid": wire::hex(quota.uuid),
        "name": quota.name,
        "limit": quota.limit,
        "usage": quota.usage,
        "threshold": quota.threshold,
        "scope": quota.scope_url(base),
    })
}

fn not_allowed(method: &Method, allowed: &str) -> Answer {
    Answer::method_not_allowed(method).with_header("allow", allowed)
}

/// The quotas of the user that pass the filters `name` and `scope`.
pub(super) fn list(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(not_allowed(&request.method, "GET, HEAD, OPTIONS"));
    }
    let base = request.base();
    let scope = request.param("scope").map(path_of);
    let quotas: Vec<_> = state
        .quotas
        .iter()
        .filter(|quota| is_visible(state, user, quota))
        .filter(|quota| request.param("name").is_none_or(|name| quota.name == name))
        .filter(|quota| scope.as_ref().is_none_or(|scope| path_of(&quota.scope) == *scope))
        .collect();
    page::paged(request, &quotas, |quota| shown(quota, &base))
}

fn visible(state: &CentralState, user: &User, uuid: Uuid) -> Result<Quota, Answer> {
    let quota = state.quotas.iter().find(|quota| quota.uuid == uuid);
    quota.filter(|quota| is_visible(state, user, quota)).cloned().ok_or_else(|| missing("Quota"))
}

/// Reads one quota, or writes its limit and threshold.
pub(super) fn one(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    match request.method {
        Method::GET | Method::HEAD => {
            let row = shown(&visible(state, user, uuid)?, &request.base());
            Ok(Answer::json(200, &page::sparse(row, page::sparse_fields(request).as_ref())))
        }
        Method::PUT | Method::PATCH => write(state, user, request, uuid),
        _ => Err(not_allowed(&request.method, "GET, PUT, PATCH, HEAD, OPTIONS")),
    }
}

/// PUT and PATCH mean the same: both fields have a value already, and everything else can only be read.
fn write(state: &mut Tracked<'_>, user: &User, request: &Request, uuid: Uuid) -> Result<Answer, Answer> {
    let mut quota = visible(state, user, uuid)?;
    if user.role != Role::Staff {
        return Err(forbidden());
    }
    if quota.is_backend {
        return Err(Answer::detail(409, "Quota is a cache of a backend quota and cannot be modified."));
    }
    let mut fields = Fields::new(request.json_object()?);
    let limit = fields.float("limit", (f64::MIN, f64::MAX));
    let threshold = fields.float("threshold", (f64::MIN, f64::MAX));
    if limit.is_some_and(|limit| limit != UNLIMITED && limit < quota.usage) {
        fields.reject("limit", "Current quota usage exceeds the new limit.");
    }
    fields.check()?;
    quota.limit = limit.unwrap_or(quota.limit);
    quota.threshold = threshold.unwrap_or(quota.threshold);
    quota.remember(state.now());
    let row = shown(&quota, &request.base());
    for slot in state.edit().quotas.iter_mut().filter(|slot| slot.uuid == uuid) {
        slot.clone_from(&quota);
    }
    Ok(Answer::json(200, &row))
}

/// How a quota was at the points asked for, in the order asked for; without `object` where nothing is known.
pub(super) fn history(
    state: &CentralState,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(not_allowed(&request.method, "GET, HEAD, OPTIONS"));
    }
    let quota = visible(state, user, uuid)?;
    let base = request.base();
    let rows: Vec<Value> = points(request)?
        .into_iter()
        .map(|point| {
            let mut row = json!({"point": point});
            let at = Timestamp::from_second(point).ok();
            if let Some(version) = at.and_then(|at| quota.version_at(at)) {
                let QuotaVersion { limit, usage, threshold, .. } = *version;
                row["object"] = shown(&Quota { limit, usage, threshold, ..quota.clone() }, &base);
            }
            row
        })
        .collect();
    Ok(Answer::json(200, &Value::Array(rows)))
}

/// The instants that a history is asked for, in seconds since 1970.
fn points(request: &Request) -> Result<Vec<i64>, Answer> {
    let given = request.query.iter().filter(|(name, value)| {
        matches!(name.as_str(), "start" | "end" | "points_count") && !value.is_empty()
    });
    let mut fields = Fields::new(given.map(|(name, value)| (name.clone(), json!(value))).collect());
    let instants = (-1e11, 1e11);
    let start = fields.integer("start", instants);
    let end = fields.integer("end", instants);
    let count = fields.integer("points_count", (1.0, POINTS_MAX));
    let single: Result<Vec<i64>, _> = request.params("point").map(str::parse::<i64>).collect();
    let Ok(single) = single else {
        fields.reject("point", "A valid integer is required.");
        return fields.check().map(|()| Vec::new());
    };
    fields.check()?;
    match (single.is_empty(), start, end, count) {
        (false, ..) => Ok(single),
        (true, Some(start), Some(end), Some(count)) => Ok(spaced(start, end, count)),
        _ => Err(Answer::json(
            400,
            &json!({"non_field_errors": ["Not enough parameters for historical data. (Either \"point\" or \
                    \"start\" + \"end\" + \"points_count\" parameters have to be provided).",
            ]}),
        )),
    }
}

/// So many evenly spaced points from the first to the last, both included; one alone is the first.
fn spaced(start: i64, end: i64, count: i64) -> Vec<i64> {
    let gaps = i128::from((count - 1).max(1));
    let span = i128::from(end) - i128::from(start);
    let at = |index: i64| i128::from(start) + span * i128::from(index) / gaps;
    (0..count).filter_map(|index| i64::try_from(at(index)).ok()).collect()
}
