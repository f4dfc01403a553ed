//! The emulated Waldur: policies, provider resources, component usages and quotas under `/api/`.
//!
//! Behaviour follows the public server (Mastermind, read 2026-11), wire names follow the public client 8.1.3.
//! Not here: orders, plans, mail, STOMP. Formulas and shapes are written anew and share nothing with the agent.

pub(super) mod commands;
mod evaluate;
mod fields;
mod formulas;
mod page;
pub(super) mod period;
mod policies;
mod policy_body;
mod preview;
pub(super) mod quotas;
mod resources;
mod usages;
mod wire;

use axum::http::Method;
use uuid::Uuid;

use super::http::{Answer, Request};
use super::state::{CentralState, Offering, Role, User};
use super::tracked::Tracked;

const POLICIES: &str = "marketplace-slurm-periodic-usage-policies";
const RESOURCES: &str = "marketplace-provider-resources";
const USAGES: &str = "marketplace-component-usages";
const USER_USAGES: &str = "marketplace-component-user-usages";
const OFFERINGS: &str = "marketplace-provider-offerings";
const QUOTAS: &str = "quotas";

/// Answers one request under `/api/`.
pub(super) fn answer(state: &mut Tracked<'_>, request: &Request) -> Answer {
    let path = request.path.trim_start_matches("/api/").trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    if !is_known(&segments) {
        return Answer::html(404, "Not Found");
    }
    if !request.path.ends_with('/') {
        let query =
            if request.raw_query.is_empty() { String::new() } else { format!("?{}", request.raw_query) };
        return Answer::empty(301).with_header("location", format!("{}/{query}", request.path));
    }
    run_beat(state);
    let user = match authenticate(state, request) {
        Ok(user) => user,
        Err(refusal) => return refusal,
    };
    dispatch(state, &user, request, &segments).unwrap_or_else(|refusal| refusal)
}

/// Whether an address exists at all, whatever the method.
fn is_known(segments: &[&str]) -> bool {
    match segments {
        [POLICIES | RESOURCES | USAGES | USER_USAGES | OFFERINGS | QUOTAS]
        | [POLICIES, "actions" | "preview_impact"] => true,
        ["users", "me"] | [USAGES, "set_usage"] => true,
        [POLICIES | RESOURCES | USAGES | USER_USAGES | OFFERINGS | QUOTAS, uuid] => {
            Uuid::try_parse(uuid).is_ok()
        }
        [POLICIES, uuid, action] => Uuid::try_parse(uuid).is_ok() && policies::ACTIONS.contains(action),
        [RESOURCES, uuid, action] => Uuid::try_parse(uuid).is_ok() && resources::ACTIONS.contains(action),
        [QUOTAS, uuid, "history"] => Uuid::try_parse(uuid).is_ok(),
        [USAGES, uuid, "set_user_usages" | "set_user_usage"] => Uuid::try_parse(uuid).is_ok(),
        _ => false,
    }
}

fn dispatch(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    segments: &[&str],
) -> Result<Answer, Answer> {
    let uuid_of = |text: &str| Uuid::try_parse(text).map_err(|_| Answer::html(404, "Not Found"));
    let reading = request.method == Method::GET || request.method == Method::HEAD;
    match segments {
        [POLICIES] => policies::collection(state, user, request),
        [POLICIES, "actions"] if reading => Ok(policies::actions()),
        [POLICIES, "preview_impact"] if request.method == Method::POST => {
            preview::answer(state, user, request)
        }
        [POLICIES, "actions" | "preview_impact"] => Err(Answer::method_not_allowed(&request.method)),
        [POLICIES, uuid] => policies::one(state, user, request, uuid_of(uuid)?),
        [POLICIES, uuid, action] => policies::action(state, user, request, uuid_of(uuid)?, action),
        [RESOURCES] if reading => resources::list(state, user, request),
        [RESOURCES, uuid] if reading => resources::retrieve(state, user, request, uuid_of(uuid)?),
        [RESOURCES, uuid, action] if request.method == Method::POST => {
            resources::action(state, user, request, uuid_of(uuid)?, action)
        }
        [USAGES] if reading => usages::list(state, user, request),
        [USAGES, "set_usage"] if request.method == Method::POST => usages::set_usage(state, user, request),
        [USAGES, uuid] if reading => usages::retrieve(state, user, request, uuid_of(uuid)?),
        [USAGES, uuid, action] if request.method == Method::POST => {
            usages::set_user_usages(state, user, request, uuid_of(uuid)?, *action == "set_user_usages")
        }
        [USER_USAGES] if reading => usages::list_users(state, user, request),
        [OFFERINGS] if reading => resources::offerings(state, user, request),
        [OFFERINGS, uuid] if reading => resources::offering(state, user, request, uuid_of(uuid)?),
        [QUOTAS] => quotas::list(state, user, request),
        [QUOTAS, uuid] => quotas::one(state, user, request, uuid_of(uuid)?),
        [QUOTAS, uuid, "history"] => quotas::history(state, user, request, uuid_of(uuid)?),
        ["users", "me"] if reading => Ok(Answer::json(200, &wire::user(user, &request.base()))),
        _ => Err(Answer::method_not_allowed(&request.method)),
    }
}

/// What Waldur's beat does in the background: issue changed settings, release at a new day.
fn run_beat(state: &mut Tracked<'_>) {
    let now = state.now();
    if commands::sync_is_due(state, now) {
        tick(state.edit());
    }
}

/// One round of the background work.
pub(super) fn tick(state: &mut CentralState) {
    let now = state.now();
    let new_day = commands::day_changed(state, now);
    commands::sync(state);
    if new_day {
        evaluate::release_stale(state);
    }
}

fn authenticate(state: &CentralState, request: &Request) -> Result<User, Answer> {
    let unauthorized = |text: &str| Err(Answer::detail(401, text).with_header("www-authenticate", "Token"));
    let Some(header) = request.header("authorization") else {
        return unauthorized("Authentication credentials were not provided.");
    };
    let mut words = header.split_whitespace();
    let scheme = words.next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("token") {
        return unauthorized("Authentication credentials were not provided.");
    }
    let (Some(token), None) = (words.next(), words.next()) else {
        return unauthorized("Invalid token header. No credentials provided.");
    };
    match state.users.iter().find(|user| user.token == token) {
        Some(user) => Ok(user.clone()),
        None => unauthorized("Invalid token."),
    }
}

/// Whether a user may act for an offering.
fn owns(user: &User, offering: Option<&Offering>) -> bool {
    match user.role {
        Role::Staff => true,
        Role::Owner => {
            offering.is_some_and(|o| user.customers.is_empty() || user.customers.contains(&o.customer))
        }
        Role::User => false,
    }
}

fn forbidden() -> Answer {
    Answer::detail(403, "You do not have permission to perform this action.")
}

fn require_staff(user: &User) -> Result<(), Answer> {
    if user.role == Role::Staff { Ok(()) } else { Err(forbidden()) }
}

fn missing(model: &str) -> Answer {
    Answer::detail(404, &format!("No {model} matches the given query."))
}
