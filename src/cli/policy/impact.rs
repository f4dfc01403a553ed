//! The answer of `preview_impact` with the server's field names, computed here.

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use crate::core::evaluate::Decided;
use crate::core::preview::{NOTIFICATION_RATIO, PreviewInput, Projection, preview};
use crate::core::time::Epoch;

/// What is not computed from the numbers: the period, the commands of an account.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// First and last day of the period, where an account gives one.
    pub period: Option<(Date, Date)>,
    /// Commands as the server writes them.
    pub commands: Vec<Value>,
}

/// The calendar day of an instant in UTC, which is where the server counts days.
pub fn day(at: Epoch) -> Date {
    Timestamp::from_second(at.0).unwrap_or(Timestamp::MIN).to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The whole answer.
pub fn impact(input: &PreviewInput, today: Date, around: Surroundings) -> Value {
    let seen = preview(input);
    let carryover = seen.carried.map(|carried| {
        json!({
            "previous_usage": input.previous_usage,
            "carryover_factor": input.carryover_factor,
            "base_allocation": input.allocation,
            "unused": carried.unused,
            "carryover_cap": carried.cap,
            "carryover": carried.carryover,
            "total_allocation": carried.total,
        })
    });
    let edge = |edge: Option<Date>| edge.map(|day| day.to_string());
    json!({
        "base_allocation": input.allocation,
        "effective_allocation": seen.effective,
        "carryover_enabled": input.carryover_enabled,
        "carryover_factor": input.carryover_factor,
        "carryover": carryover,
        "grace_ratio": input.grace_ratio,
        "thresholds": {
            "allocation": seen.effective,
            "grace_ratio": input.grace_ratio,
            "notification_ratio": NOTIFICATION_RATIO,
            "notification_threshold": seen.notification,
            "slowdown_threshold": seen.slowdown,
            "blocked_threshold": seen.blocked,
        },
        "current_usage": input.current_usage,
        "daily_usage_rate": input.daily_usage_rate,
        "usage_percentage": seen.percent,
        "current_qos_status": seen.level.as_str(),
        "date_projections": {
            "notification": projected(seen.notification_at, today),
            "slowdown": projected(seen.slowdown_at, today),
            "blocked": projected(seen.blocked_at, today),
        },
        "billing_period_start": edge(around.period.map(|(first, _)| first)),
        "billing_period_end": edge(around.period.map(|(_, last)| last)),
        "preview_commands": around.commands,
        "command_history": [],
    })
}

/// A day that the calendar does not have is never reached.
fn projected(projection: Projection, today: Date) -> Value {
    let never = json!({"days": null, "date": null, "status": "never"});
    match projection {
        Projection::Never => never,
        Projection::Exceeded => json!({"days": 0, "date": today.to_string(), "status": "exceeded"}),
        Projection::Projected { days } => {
            let span = i64::try_from(days).ok().and_then(|days| Span::new().try_days(days).ok());
            match span.and_then(|span| today.checked_add(span).ok()) {
                Some(date) => json!({"days": days as i64, "date": date.to_string(), "status": "projected"}),
                None => never,
            }
        }
    }
}

/// What makes a decision true, in the words of the server's commands.
pub fn commands(decided: &Decided) -> Vec<Value> {
    let account = &decided.account;
    let modify = format!("sacctmgr --immediate modify account {account} set");
    let mut commands = vec![json!({
        "type": "fairshare",
        "description": format!("Set fairshare weight to {} for allocation priority", decided.fairshare),
        "command": format!("{modify} fairshare={}", decided.fairshare),
        "parameters": {"account": account, "fairshare": decided.fairshare},
    })];
    for (limit_type, limits) in decided.limits.iter().filter(|(_, limits)| !limits.is_empty()) {
        let limit_type = limit_type.as_str();
        let one = |(tres, limit)| format!("{modify} {limit_type}={tres}={limit}");
        commands.push(json!({
            "type": "limits",
            "description": format!("Set {limit_type} limits"),
            "command": limits.iter().map(one).collect::<Vec<_>>().join("; "),
            "parameters": {"account": account, "limit_type": limit_type, "limits": limits},
        }));
    }
    commands.push(json!({
        "type": "qos",
        "description": format!("Set QoS to '{}': {}", decided.qos, decided.reason),
        "command": format!("{modify} qos={}", decided.qos),
        "parameters": {"account": account, "qos": decided.qos, "reason": decided.reason},
    }));
    commands
}

/// Where an answer of the server differs from the formulas applied to the numbers that it says it used. Days of the
/// calendar are left out: the server's today may be another.
pub fn differences(answer: &Value) -> Vec<String> {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    let carried = answer.get("carryover").and_then(|carryover| carryover.get("previous_usage"));
    let read = || {
        Some(PreviewInput {
            allocation: number(answer.get("base_allocation"))?,
            grace_ratio: number(answer.get("grace_ratio"))?,
            previous_usage: number(carried).unwrap_or(0.0),
            carryover_enabled: answer.get("carryover_enabled")?.as_bool()?,
            carryover_factor: u32::try_from(answer.get("carryover_factor")?.as_u64()?).ok()?,
            current_usage: number(answer.get("current_usage"))?,
            daily_usage_rate: number(answer.get("daily_usage_rate"))?,
        })
    };
    let Some(input) = read() else {
        return vec!["the server's answer does not say what it was computed from".to_owned()];
    };
    let ours = impact(&input, Date::default(), Surroundings::default());
    const COMPARED: [&str; 13] = [
        "/effective_allocation",
        "/carryover/carryover",
        "/carryover/total_allocation",
        "/thresholds/notification_threshold",
        "/thresholds/slowdown_threshold",
        "/thresholds/blocked_threshold",
        "/usage_percentage",
        "/current_qos_status",
        "/date_projections/notification/days",
        "/date_projections/slowdown/days",
        "/date_projections/blocked/days",
        "/date_projections/slowdown/status",
        "/date_projections/blocked/status",
    ];
    let same = |a: Option<&Value>, b: Option<&Value>| match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    let differs = |place: &&str| !same(answer.pointer(place), ours.pointer(place));
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    COMPARED
        .into_iter()
        .filter(differs)
        .map(|place| {
            format!(
                "{}: the server says {}, its formulas give {}",
                place.trim_start_matches('/').replace('/', "."),
                text(answer.pointer(place)),
                text(ours.pointer(place))
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_what_the_formulas_give_is_told_by_field() {
        let input = PreviewInput { current_usage: 900.0, daily_usage_rate: 10.0, ..PreviewInput::default() };
        let mut answer = impact(&input, "2026-11-22".parse().unwrap(), Surroundings::default());
        assert_eq!(differences(&answer), Vec::<String>::new());
        assert_eq!(
            answer["date_projections"]["slowdown"],
            json!({"days": 10, "date": "2026-12-02", "status": "projected"})
        );
        answer["thresholds"]["blocked_threshold"] = json!(1300);
        assert_eq!(
            differences(&answer),
            ["thresholds.blocked_threshold: the server says 1300, its formulas give 1200.0"]
        );
        assert_eq!(differences(&json!({})).len(), 1);
    }
}
