//! Doors for tests and scripts under `/_emulator/`. They take no token and are hit by no fault.
//!
//! | call | effect |
//! |---|---|
//! | GET, PUT, PATCH state | read, replace, merge (RFC 7396) the whole state |
//! | POST clock | `{"advance_s": N}`, `{"fixed": INSTANT}` or `{"offset_s": N}` |
//! | GET, POST, DELETE faults | list, add one or a list, take all away |
//! | POST tick | background work now |
//! | GET requests | the requests seen |
//! | POST nomad | `{"has_leader": false}`, `{"restart": true}` (held queries are cut), `{"restart": true, "index": N}` \
//!   (from an older snapshot), `{"used": {"quota": NAME, "region": NAME, "amounts": {...}}}` |

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::clock::Clock;
use super::faults::Fault;
use super::http::{Answer, Request};
use super::nomad::RegionLimit;
use super::seen::Seen;
use super::state::CentralState;
use super::tick;
use super::tracked::Tracked;

/// Answers one request.
pub(super) fn answer(state: &mut Tracked<'_>, seen: &Seen, request: &Request) -> Answer {
    let door = request.path.trim_start_matches("/_emulator/").trim_end_matches('/');
    let outcome = match (&request.method, door) {
        (&Method::GET, "state") => shown(&**state),
        (&Method::PUT, "state") => body(request).and_then(|body| put_state(state, body)),
        (&Method::PATCH, "state") => body(request).and_then(|patch| patch_state(state, &patch)),
        (&Method::POST, "clock") => body(request).and_then(|body| move_clock(state, &body)),
        (&Method::GET, "faults") => shown(&state.faults),
        (&Method::POST, "faults") => body(request).and_then(|body| add_faults(state, body)),
        (&Method::DELETE, "faults") => {
            state.edit().faults.clear();
            Ok(Answer::empty(204))
        }
        (&Method::POST, "tick") => {
            tick(state.edit());
            Ok(Answer::empty(204))
        }
        (&Method::GET, "requests") => shown(seen.requests()),
        (&Method::POST, "nomad") => body(request).and_then(|body| move_nomad(state, body)),
        (_, "state" | "clock" | "faults" | "tick" | "requests" | "nomad") => {
            Ok(Answer::method_not_allowed(&request.method))
        }
        _ => Ok(Answer::detail(404, "Not found.")),
    };
    outcome.unwrap_or_else(|reason| Answer::detail(400, &reason))
}

fn shown(value: &impl serde::Serialize) -> Result<Answer, String> {
    serde_json::to_value(value).map(|value| Answer::json(200, &value)).map_err(|error| error.to_string())
}

fn body(request: &Request) -> Result<Value, String> {
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn put_state(state: &mut Tracked<'_>, body: Value) -> Result<Answer, String> {
    let mut wanted: CentralState = serde_json::from_value(body).map_err(|error| error.to_string())?;
    wanted.settle()?;
    *state.edit() = wanted;
    Ok(Answer::empty(204))
}

fn patch_state(state: &mut Tracked<'_>, patch: &Value) -> Result<Answer, String> {
    let mut merged = serde_json::to_value(&**state).map_err(|error| error.to_string())?;
    merge(&mut merged, patch);
    put_state(state, merged)
}

/// JSON Merge Patch: objects merge, null removes, everything else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(slots) = target {
        for (name, change) in members {
            if change.is_null() {
                slots.remove(name);
            } else {
                merge(slots.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

fn move_clock(state: &mut Tracked<'_>, body: &Value) -> Result<Answer, String> {
    if let Some(seconds) = body.get("advance_s").and_then(Value::as_i64) {
        state.edit().clock.advance(seconds);
    } else {
        let clock: Clock = serde_json::from_value(body.clone()).map_err(|error| error.to_string())?;
        state.edit().clock = clock;
    }
    Ok(Answer::json(200, &json!({"now": state.now().to_string()})))
}

/// What happens to the Nomad servers.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NomadMove {
    has_leader: Option<bool>,
    restart: bool,
    index: Option<u64>,
    used: Option<NomadUsed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NomadUsed {
    quota: String,
    region: String,
    amounts: RegionLimit,
}

fn move_nomad(state: &mut Tracked<'_>, body: Value) -> Result<Answer, String> {
    let wanted: NomadMove = serde_json::from_value(body).map_err(|error| error.to_string())?;
    if wanted.index.is_some() && !wanted.restart {
        return Err("the index goes back with a restart only".to_owned());
    }
    let nomad = &mut state.edit().nomad;
    if wanted.restart {
        nomad.restart(wanted.index);
    }
    if let Some(has_leader) = wanted.has_leader {
        nomad.has_leader = has_leader;
    }
    if let Some(used) = wanted.used {
        nomad.set_used(&used.quota, &used.region, used.amounts);
    }
    Ok(Answer::json(200, &json!({"index": nomad.index, "restarts": nomad.restarts})))
}

fn add_faults(state: &mut Tracked<'_>, body: Value) -> Result<Answer, String> {
    let bodies = match body {
        Value::Array(bodies) => bodies,
        one => vec![one],
    };
    let faults: Result<Vec<Fault>, _> = bodies.into_iter().map(serde_json::from_value).collect();
    state.edit().faults.extend(faults.map_err(|error| error.to_string())?);
    Ok(Answer::empty(204))
}
