//! The emulated DataRobot under `/api/v2/`: quotas of deployments and templates of rules.
//!
//! Written from the schemas of the API page, with the messages of DataRobot's validation. Templates are only read here: a
//! person applies one by writing its rules into a quota. Quotas come with their deployments, so none is created.

mod body;
mod state;

pub use state::{Capacity, DataRobotState, DataRobotToken, Policy, Quota, QuotaTemplate, ResourceType, Rule};

use axum::http::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::http::{Answer, Request};
use super::state::CentralState;
use super::tracked::Tracked;

/// Where the API lives.
const ROOT: &str = "/api/v2/";

/// Most items of a page of quotas and of templates, as the schemas of the lists say.
const QUOTAS_MAX: usize = 10_000;
const TEMPLATES_MAX: usize = 100;

/// DataRobot's `{"message": ...}`.
fn refused(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"message": message}))
}

/// The answer to a request whose fields are wrong.
fn invalid(complaints: &Value) -> Answer {
    Answer::json(422, &json!({"message": "Invalid field data", "errors": complaints}))
}

/// Answers one request under `/api/v2/`.
pub(super) fn answer(state: &mut Tracked<'_>, request: &Request) -> Answer {
    let path = request.path.strip_prefix(ROOT).unwrap_or_default();
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    if !matches!(segments.as_slice(), ["quotas" | "quotaTemplates"] | ["quotas" | "quotaTemplates", _]) {
        return refused(404, "Not Found");
    }
    if !request.path.ends_with('/') {
        let query =
            if request.raw_query.is_empty() { String::new() } else { format!("?{}", request.raw_query) };
        return Answer::empty(308).with_header("location", format!("{}/{query}", request.path));
    }
    let outcome = authorize(state, request).and_then(|may_write| match segments.as_slice() {
        ["quotas"] => quotas(state, request),
        ["quotaTemplates"] => templates(state, request),
        ["quotaTemplates", id] => template(state, request, id),
        [_, id] => quota(state, request, id, may_write),
        _ => Err(refused(404, "Not Found")),
    });
    outcome.unwrap_or_else(|refusal| refusal)
}

/// Whether the request may write; reading needs a known token.
fn authorize(state: &CentralState, request: &Request) -> Result<bool, Answer> {
    let secret = request.header("authorization").and_then(|header| {
        let (scheme, secret) = header.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    let token = state.datarobot.tokens.iter().find(|token| Some(token.secret.as_str()) == secret);
    token
        .map(|token| token.may_write)
        .ok_or_else(|| refused(401, "Invalid API key").with_header("www-authenticate", "Bearer"))
}

fn not_allowed(allowed: &str) -> Answer {
    refused(405, "Method Not Allowed").with_header("allow", allowed)
}

fn only_get(request: &Request) -> Result<(), Answer> {
    if request.method == Method::GET || request.method == Method::HEAD {
        Ok(())
    } else {
        Err(not_allowed("GET, HEAD, OPTIONS"))
    }
}

fn quotas(state: &CentralState, request: &Request) -> Result<Answer, Answer> {
    only_get(request)?;
    let mut complaints = known_parameters(request, &["resourceId", "resourceType", "offset", "limit"]);
    if request.param("resourceType").is_some_and(|kind| kind != "deployment") {
        complaints.insert("resourceType".to_owned(), json!("value doesn't match any variant"));
    }
    let page = Page::read(request, QUOTAS_MAX, complaints)?;
    let wanted = request.param("resourceId");
    let found: Vec<&Quota> = state
        .datarobot
        .quotas
        .iter()
        .filter(|quota| wanted.is_none_or(|resource| quota.resource_id == resource))
        .collect();
    Ok(page.answer(request, &found))
}

fn templates(state: &CentralState, request: &Request) -> Result<Answer, Answer> {
    only_get(request)?;
    let page = Page::read(request, TEMPLATES_MAX, known_parameters(request, &["offset", "limit"]))?;
    let found: Vec<&QuotaTemplate> = state.datarobot.quota_templates.iter().collect();
    Ok(page.answer(request, &found))
}

fn template(state: &CentralState, request: &Request, id: &str) -> Result<Answer, Answer> {
    only_get(request)?;
    let template = state.datarobot.quota_templates.iter().find(|template| template.id == id);
    let template = template.ok_or_else(|| refused(404, "Quota template not found"))?;
    Ok(Answer::json(200, &json!(template)))
}

fn quota(state: &mut Tracked<'_>, request: &Request, id: &str, may_write: bool) -> Result<Answer, Answer> {
    let reading = request.method == Method::GET || request.method == Method::HEAD;
    if !reading && !matches!(request.method, Method::PATCH | Method::DELETE) {
        return Err(not_allowed("GET, PATCH, DELETE, HEAD, OPTIONS"));
    }
    let found = state.datarobot.quotas.iter().position(|quota| quota.id == id);
    let at = found.ok_or_else(|| refused(404, "Quota not found"))?;
    if reading {
        return Ok(Answer::json(200, &json!(state.datarobot.quotas[at])));
    }
    if !may_write {
        return Err(refused(403, "You do not have permission to perform this action."));
    }
    if request.method == Method::DELETE {
        state.edit().datarobot.quotas.remove(at);
        return Ok(Answer::empty(204));
    }
    let changed = body::changed(&state.datarobot.quotas[at], request)?;
    let answer = Answer::json(200, &json!(changed));
    state.edit().datarobot.quotas[at] = changed;
    Ok(answer)
}

/// Complaints about parameters that the list does not have.
fn known_parameters(request: &Request, known: &[&str]) -> Map<String, Value> {
    let unknown = request.query.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    unknown.map(|(name, _)| (name.clone(), json!(format!("{name} is not allowed key")))).collect()
}

/// The part of a list that is asked for.
struct Page {
    offset: usize,
    limit: usize,
    /// Most items of a page, whatever is asked for.
    most: usize,
}

impl Page {
    /// Both parameters are required.
    fn read(request: &Request, most: usize, mut complaints: Map<String, Value>) -> Result<Page, Answer> {
        let mut number = |name: &str, least: i64| {
            let read = match request.param(name) {
                None => Err("is required".to_owned()),
                Some(text) => match text.parse::<i64>() {
                    Ok(number) if number < least => Err(format!("value is less than {least}")),
                    Ok(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
                    Err(_) => Err("value can't be converted to int".to_owned()),
                },
            };
            read.map_err(|complaint| complaints.insert(name.to_owned(), json!(complaint))).ok()
        };
        match (number("offset", 0), number("limit", 1)) {
            (Some(offset), Some(limit)) if complaints.is_empty() => Ok(Page { offset, limit, most }),
            _ => Err(invalid(&Value::Object(complaints))),
        }
    }

    fn answer<T: Serialize>(&self, request: &Request, found: &[T]) -> Answer {
        let size = self.limit.min(self.most);
        let shown: Vec<&T> = found.iter().skip(self.offset).take(size).collect();
        let end = self.offset.saturating_add(shown.len());
        let next = (!shown.is_empty() && end < found.len()).then(|| self.url(request, end));
        let previous = (self.offset > 0).then(|| self.url(request, self.offset.saturating_sub(size)));
        Answer::json(
            200,
            &json!({
                "count": shown.len(),
                "data": shown,
                "next": next,
                "previous": previous,
                "totalCount": found.len(),
            }),
        )
    }

    fn url(&self, request: &Request, offset: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in request.query.iter().filter(|(name, _)| name != "offset") {
            query.append_pair(name, value);
        }
        let query = query.append_pair("offset", &offset.to_string()).finish();
        format!("{}{}?{query}", request.base(), request.path)
    }
}
