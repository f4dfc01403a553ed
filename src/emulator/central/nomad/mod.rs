//! The emulated Nomad under `/nomad/v1/`: quotas and their usage, with blocking queries.
//!
//! Written from the API page, the public `api` package (read 2026-11) and what the open parts of the server do. A query
//! with an index is held until its own index passes it: that of the table for lists, that of the entry for one quota.
//! Not here: namespaces, jobs that use quotas (usage is set through the test doors), replication.

mod body;
mod state;
mod wire;

pub(super) use state::Pulse;
pub use state::{
    Device, Network, NodePoolLimit, NomadState, NomadToken, QuotaLimit, QuotaSpec, QuotaUsage, RegionLimit,
    Storage,
};

use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use super::http::{Answer, Request};
use super::state::CentralState;
use super::tracked::Tracked;

/// Where the API lives.
const ROOT: &str = "/nomad/v1/";

/// How long a query is held unless it says otherwise, and at most.
const WAIT: Duration = Duration::from_secs(5 * 60);
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// The wait is prolonged by chance, up to this part of it, so that not all clients come back at once.
const JITTER_PART: u32 = 16;

/// An error as Nomad's HTTP server writes it: plain text.
fn refused(status: u16, text: &str) -> Answer {
    Answer {
        content_type: Some("text/plain; charset=utf-8"),
        body: text.as_bytes().to_vec(),
        ..Answer::empty(status)
    }
}

/// What becomes of a request.
pub(super) enum Reply {
    /// It is answered.
    Done(Answer),
    /// It is held for at most so long, jitter not included.
    Held(Duration),
}

/// Answers one request under `/nomad/`, or has it held.
pub(super) fn answer(state: &mut Tracked<'_>, request: &Request) -> Reply {
    match handled(state, request) {
        Ok(reply) => reply,
        Err(refusal) => Reply::Done(refusal),
    }
}

fn handled(state: &mut Tracked<'_>, request: &Request) -> Result<Reply, Answer> {
    let target = Target::of(request)?;
    let may_write = authorize(state, request)?;
    if !target.is_read(&request.method)? {
        if !may_write {
            return Err(refused(403, "Permission denied"));
        }
        if !state.nomad.has_leader {
            return Err(refused(500, "No cluster leader"));
        }
        return write(state, request, &target).map(Reply::Done);
    }
    let wish = Wish::read(request)?;
    Ok(match seen(state, request, &target)? {
        view if view.passes(wish.index) => Reply::Done(view.answer(state)),
        _ => Reply::Held(wish.wait),
    })
}

/// The answer to a held query after a change, if it is one for this query.
pub(super) fn after_change(state: &CentralState, request: &Request) -> Option<Answer> {
    let view = Target::of(request).and_then(|target| seen(state, request, &target));
    match (view, Wish::read(request)) {
        (Ok(view), Ok(wish)) if view.passes(wish.index) => Some(view.answer(state)),
        (Ok(_), Ok(_)) => None,
        (Err(refusal), _) | (_, Err(refusal)) => Some(refusal),
    }
}

/// The answer to a held query whose wait is over: how things are, changed or not.
pub(super) fn after_wait(state: &CentralState, request: &Request) -> Answer {
    let view = Target::of(request).and_then(|target| seen(state, request, &target));
    view.map_or_else(|refusal| refusal, |view| view.answer(state))
}

/// The longest prolongation of a wait.
pub(super) fn jitter_max(wait: Duration) -> Duration {
    wait / JITTER_PART
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq)]
enum Target {
    Quotas,
    Usages,
    /// The address that quotas are written to without a name.
    NewQuota,
    Quota(String),
    Usage(String),
}

impl Target {
    fn of(request: &Request) -> Result<Target, Answer> {
        let missing = || refused(404, "404 page not found\n");
        let path = request.path.strip_prefix(ROOT).ok_or_else(missing)?;
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            ["quotas"] => Ok(Target::Quotas),
            ["quota-usages"] => Ok(Target::Usages),
            ["quota"] => Ok(Target::NewQuota),
            ["quota", ""] | ["quota", "usage", ""] => Err(refused(400, "Missing Quota Name")),
            ["quota", "usage", name] => Ok(Target::Usage((*name).to_owned())),
            ["quota", name] => Ok(Target::Quota((*name).to_owned())),
            _ => Err(missing()),
        }
    }

    /// Whether a method reads; those it does not take are refused.
    fn is_read(&self, method: &Method) -> Result<bool, Answer> {
        match (self, method) {
            (Target::NewQuota, &Method::PUT | &Method::POST)
            | (Target::Quota(_), &Method::PUT | &Method::POST | &Method::DELETE) => Ok(false),
            (Target::NewQuota, _) => Err(refused(405, "Invalid method")),
            (_, &Method::GET) => Ok(true),
            _ => Err(refused(405, "Invalid method")),
        }
    }
}

/// Whether the request may write; reading needs a known token.
fn authorize(state: &CentralState, request: &Request) -> Result<bool, Answer> {
    if state.nomad.tokens.is_empty() {
        return Ok(true);
    }
    let bearer = request.header("authorization").and_then(|header| header.strip_prefix("Bearer "));
    let Some(secret) = request.header("x-nomad-token").filter(|secret| !secret.is_empty()).or(bearer) else {
        return Err(refused(403, "Permission denied"));
    };
    match state.nomad.tokens.iter().find(|token| token.secret == secret) {
        Some(token) => Ok(token.may_write),
        None => Err(refused(403, "ACL token not found")),
    }
}

/// How a query wants to wait.
struct Wish {
    /// 0 never waits.
    index: u64,
    wait: Duration,
}

impl Wish {
    fn read(request: &Request) -> Result<Wish, Answer> {
        let wait = match request.param("wait") {
            None => Duration::ZERO,
            Some(text) => humantime::parse_duration(text).map_err(|_| refused(400, "Invalid wait time"))?,
        };
        let wait = if wait.is_zero() { WAIT } else { wait.min(WAIT_MAX) };
        let index = match request.param("index") {
            None => 0,
            Some(text) => text.parse().map_err(|_| refused(400, "Invalid index"))?,
        };
        Ok(Wish { index, wait })
    }
}

/// What a query sees now.
struct View {
    index: u64,
    /// None when there is no such quota.
    body: Option<Value>,
}

impl View {
    /// Whether its index is beyond the one the query has seen.
    fn passes(&self, index: u64) -> bool {
        index == 0 || self.index > index
    }

    fn answer(self, state: &CentralState) -> Answer {
        let answer = match self.body {
            Some(body) => Answer::json(200, &body),
            None => refused(404, "Quota not found"),
        };
        with_meta(answer, state, self.index)
    }
}

/// Nomad's headers about the answer.
fn with_meta(answer: Answer, state: &CentralState, index: u64) -> Answer {
    answer
        .with_header("x-nomad-index", index.max(1).to_string())
        .with_header("x-nomad-knownleader", state.nomad.has_leader.to_string())
        .with_header("x-nomad-lastcontact", state.nomad.last_contact_ms.to_string())
}

fn seen(state: &CentralState, request: &Request, target: &Target) -> Result<View, Answer> {
    let nomad = &state.nomad;
    let may_be_stale = request.query.iter().any(|(name, _)| name == "stale");
    if !nomad.has_leader && !may_be_stale {
        return Err(refused(500, "No cluster leader"));
    }
    let prefix = request.param("prefix").unwrap_or_default();
    let present = nomad.present_fields;
    Ok(match target {
        Target::Quotas => {
            let found = nomad.quotas.iter().filter(|quota| quota.name.starts_with(prefix));
            View {
                index: nomad.quotas_index,
                body: Some(found.map(|quota| wire::quota(quota, present)).collect()),
            }
        }
        Target::Usages => {
            let found = nomad.usages.iter().filter(|usage| usage.name.starts_with(prefix));
            View {
                index: nomad.usages_index,
                body: Some(found.map(|usage| wire::usage(usage, present)).collect()),
            }
        }
        Target::Quota(name) => {
            let found = nomad.quotas.iter().find(|quota| quota.name == *name);
            View {
                index: found.map_or(nomad.quotas_index, |quota| quota.modify_index),
                body: found.map(|quota| wire::quota(quota, present)),
            }
        }
        Target::Usage(name) => {
            let found = nomad.usages.iter().find(|usage| usage.name == *name);
            View {
                index: found.map_or(nomad.usages_index, |usage| usage.modify_index),
                body: found.map(|usage| wire::usage(usage, present)),
            }
        }
        Target::NewQuota => return Err(refused(405, "Invalid method")),
    })
}

/// Writes and deletes; the answer has no body, only the index of the change.
fn write(state: &mut Tracked<'_>, request: &Request, target: &Target) -> Result<Answer, Answer> {
    let name = match target {
        Target::Quota(name) => Some(name.as_str()),
        _ => None,
    };
    if request.method == Method::DELETE {
        let name = name.unwrap_or_default();
        if !state.nomad.quotas.iter().any(|quota| quota.name == name) {
            return Err(refused(404, "Quota not found"));
        }
        state.edit().nomad.remove(name);
    } else {
        let quota = body::read(request, name)?;
        state.edit().nomad.put(quota);
    }
    Ok(Answer::empty(200).with_header("x-nomad-index", state.nomad.index.to_string()))
}
