//! preview_impact: thresholds, carryover, dates and commands, nothing saved.

use jiff::civil::Date;
use jiff::{Span, Unit};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::http::{Answer, Request};
use super::super::state::{CentralState, Resource, User};
use super::fields::Fields;
use super::formulas::{self, round, sum};
use super::{commands, require_staff, wire};

/// Share of the allocation at which people are notified.
const NOTIFICATION_RATIO: f64 = 0.8;
/// The fairshare the server shows in previews, whatever the policy.
const PREVIEW_FAIRSHARE: i64 = 500;
/// Rows of history in a preview.
const HISTORY_ROWS: usize = 50;

/// What a preview is computed from.
struct Input {
    allocation: f64,
    grace_ratio: f64,
    previous_usage: f64,
    carryover_factor: u32,
    carryover_enabled: bool,
    current_usage: f64,
    daily_usage_rate: f64,
}

/// Answers the endpoint; staff only.
pub(super) fn answer(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    require_staff(user)?;
    let mut fields = Fields::new(request.json_object()?);
    let any = (f64::MIN, f64::MAX);
    let mut input = Input {
        allocation: fields.float("allocation", any).unwrap_or(1000.0),
        grace_ratio: fields.float("grace_ratio", (0.0, 1.0)).unwrap_or(0.2),
        previous_usage: fields.float("previous_usage", any).unwrap_or(0.0),
        carryover_factor: fields
            .integer("carryover_factor", (0.0, 100.0))
            .and_then(|factor| u32::try_from(factor).ok())
            .unwrap_or(50),
        carryover_enabled: fields.boolean("carryover_enabled").unwrap_or(true),
        current_usage: fields.float("current_usage", any).unwrap_or(0.0),
        daily_usage_rate: fields.float("daily_usage_rate", any).unwrap_or(0.0),
    };
    let resource = fields.uuid("resource_uuid", true);
    fields.check()?;
    let resource = resource.and_then(|uuid| state.resource(uuid));
    if let Some(resource) = resource {
        take_from_resource(state, resource, &mut input);
    }
    let today = state.clock.today();
    let mut body = impact(&input, today);
    add_commands(state, resource, today, &mut body);
    Ok(Answer::json(200, &body))
}

/// The numbers of a preview.
fn impact(input: &Input, today: Date) -> Value {
    let carryover = (input.carryover_enabled && input.previous_usage > 0.0)
        .then(|| formulas::carryover(input.allocation, input.previous_usage, input.carryover_factor));
    let effective = carryover.map_or(input.allocation, |carryover| round(carryover.total, 2));
    let notification = round(effective * NOTIFICATION_RATIO, 2);
    let slowdown = round(effective, 2);
    let blocked = round(effective * (1.0 + input.grace_ratio), 2);
    let status = match input.current_usage {
        usage if usage >= blocked => "blocked",
        usage if usage >= slowdown => "slowdown",
        usage if usage >= notification => "notification",
        _ => "normal",
    };
    let percentage = if effective > 0.0 { round(input.current_usage / effective * 100.0, 1) } else { 0.0 };
    let date_of = |threshold: f64| projection(input, threshold, today);
    json!({
        "base_allocation": input.allocation,
        "effective_allocation": effective,
        "carryover_enabled": input.carryover_enabled,
        "carryover": carryover.map(|carryover| json!({
            "previous_usage": input.previous_usage,
            "carryover_factor": input.carryover_factor,
            "base_allocation": input.allocation,
            "unused": round(carryover.unused, 2),
            "carryover_cap": round(carryover.cap, 2),
            "carryover": round(carryover.carried, 2),
            "total_allocation": round(carryover.total, 2),
        })),
        "thresholds": {
            "allocation": effective,
            "grace_ratio": input.grace_ratio,
            "notification_ratio": NOTIFICATION_RATIO,
            "notification_threshold": notification,
            "slowdown_threshold": slowdown,
            "blocked_threshold": blocked,
        },
        "grace_ratio": input.grace_ratio,
        "carryover_factor": input.carryover_factor,
        "current_usage": input.current_usage,
        "daily_usage_rate": input.daily_usage_rate,
        "usage_percentage": percentage,
        "current_qos_status": status,
        "date_projections": {
            "notification": date_of(notification),
            "slowdown": date_of(slowdown),
            "blocked": date_of(blocked),
        },
    })
}

/// When a threshold will be crossed. Less than a day away counts as exceeded, as in the server.
fn projection(input: &Input, threshold: f64, today: Date) -> Value {
    let never = json!({"days": null, "date": null, "status": "never"});
    let days = if input.current_usage >= threshold {
        0
    } else if input.daily_usage_rate <= 0.0 {
        return never;
    } else {
        ((threshold - input.current_usage) / input.daily_usage_rate).trunc() as i64
    };
    if days == 0 {
        return json!({"days": 0, "date": today.to_string(), "status": "exceeded"});
    }
    // A date outside the calendar has no name; the server would fail there.
    match Span::new().try_days(days).ok().and_then(|span| today.checked_add(span).ok()) {
        Some(date) => json!({"days": days, "date": date.to_string(), "status": "projected"}),
        None => never,
    }
}

/// Replaces the request's amounts by those of a resource: plain sums over its components.
fn take_from_resource(state: &CentralState, resource: &Resource, input: &mut Input) {
    let allocation = sum(resource.limits.values().copied().filter(|limit| *limit > 0.0));
    if allocation > 0.0 {
        input.allocation = allocation;
    }
    let today = state.clock.today();
    let period =
        state.policy_of_offering(resource.offering).map(|policy| commands::current_period(state, policy));
    let rows = state.component_usages.iter().filter(|row| row.resource == resource.uuid);
    let mut start = period.and_then(|period| period.days()).map(|(first, _)| first);
    input.current_usage = match period {
        Some(period) => sum(commands::usage_in(state, resource.uuid, period).values().copied()),
        None => sum(rows.clone().map(|row| row.usage.to_f64())),
    };
    if input.current_usage == 0.0
        && let Some(newest) = rows.clone().max_by_key(|row| row.billing_period)
    {
        input.current_usage = newest.usage.to_f64();
        start = newest.billing_period;
    }
    let start = start.or_else(|| rows.filter_map(|row| row.billing_period).min());
    let days = start.map_or(1, |start| days_between(start, today) + 1).max(1);
    if input.current_usage > 0.0 {
        input.daily_usage_rate = input.current_usage / f64::from(days);
    }
    if let Some(previous) = period.and_then(|period| period.previous()) {
        let used = sum(commands::usage_in(state, resource.uuid, previous).values().copied());
        if used > 0.0 {
            input.previous_usage = used;
        }
    }
}

fn days_between(first: Date, last: Date) -> i32 {
    first.until((Unit::Day, last)).map_or(0, |span| span.get_days())
}

fn add_commands(state: &CentralState, resource: Option<&Resource>, today: Date, body: &mut Value) {
    let (first, last) = (today.first_of_month(), today.last_of_month());
    let shown = resource.is_some() || state.settings.schema_conform;
    body["billing_period_start"] = if shown { json!(first.to_string()) } else { Value::Null };
    body["billing_period_end"] = if shown { json!(last.to_string()) } else { Value::Null };
    let (preview, history) = match resource {
        Some(resource) => (preview_commands(resource), history(state, resource.uuid, first)),
        None => (Vec::new(), Vec::new()),
    };
    body["preview_commands"] = Value::Array(preview);
    body["command_history"] = Value::Array(history);
}

fn preview_commands(resource: &Resource) -> Vec<Value> {
    let account = resource.account();
    let mut parameters = vec![("fairshare", json!({"account": account, "fairshare": PREVIEW_FAIRSHARE}))];
    if !resource.limits.is_empty() {
        let limits = commands::raw_limits(resource);
        parameters
            .push(("limits", json!({"account": account, "limit_type": "GrpTRESMins", "limits": limits})));
    }
    parameters
        .into_iter()
        .map(|(kind, parameters)| {
            let parameters = commands::object(parameters);
            let (description, command) = commands::texts(kind, &parameters);
            json!({"type": kind, "description": description, "command": command, "parameters": parameters})
        })
        .collect()
}

/// The newest rows of the resource. The server compares names of periods with a date as text; so do we.
fn history(state: &CentralState, resource: Uuid, first: Date) -> Vec<Value> {
    let first = first.to_string();
    let mut rows: Vec<_> = state
        .commands
        .iter()
        .enumerate()
        .filter(|(_, command)| command.resource == resource && command.billing_period >= first)
        .collect();
    rows.sort_by_key(|(index, command)| std::cmp::Reverse((command.executed_at, *index)));
    rows.into_iter().take(HISTORY_ROWS).map(|(_, command)| wire::command(command)).collect()
}
