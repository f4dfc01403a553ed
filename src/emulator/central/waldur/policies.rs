//! Endpoints of the SLURM periodic usage policies.

use axum::http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::faults::{self, HistoryFault};
use super::super::http::{Answer, Request};
use super::super::state::{CentralState, CommandResult, Policy, User};
use super::super::tracked::Tracked;
use super::fields::Fields;
use super::{commands, evaluate, missing, owns, page, policy_body, require_staff, wire};

/// Actions of one policy, as they stand in its address.
pub(super) const ACTIONS: [&str; 6] = [
    "command-history",
    "evaluation-logs",
    "report-command-result",
    "dry-run",
    "evaluate",
    "force-period-reset",
];

/// Newest rows that history and logs show.
const ROWS_MAX: usize = 100;

/// Newest rows of the history that a reported result marks.
const RESULT_ROWS: usize = 20;

/// The names a policy's `actions` may hold.
pub(super) const AVAILABLE_ACTIONS: [&str; 7] = [
    "block_creation_of_new_resources",
    "notify_external_user",
    "notify_organization_owners",
    "request_downscaling",
    "request_pausing",
    "request_slurm_resource_downscaling",
    "request_slurm_resource_pausing",
];

/// The list of available actions.
pub(super) fn actions() -> Answer {
    Answer::json(200, &json!(AVAILABLE_ACTIONS))
        .with_header("x-result-count", AVAILABLE_ACTIONS.len().to_string())
}

/// List and create.
pub(super) fn collection(state: &mut Tracked<'_>, user: &User, request: &Request) -> Result<Answer, Answer> {
    match request.method {
        Method::GET | Method::HEAD => list(state, user, request),
        Method::POST => {
            let policy = policy_body::read(state, user, request, None)?;
            let uuid = state.edit().next_uuid();
            let policy =
                Policy { uuid, created: Some(state.now()), created_by: user.username.clone(), ..policy };
            state.edit().policies.push(policy);
            Ok(saved(state, uuid, request, 201))
        }
        _ => Err(Answer::method_not_allowed(&request.method)),
    }
}

fn list(state: &CentralState, user: &User, request: &Request) -> Result<Answer, Answer> {
    let scope_uuid = match request.param("scope_uuid") {
        None => None,
        Some(text) => match Uuid::try_parse(text) {
            Ok(uuid) => Some(uuid),
            Err(_) => return Err(Answer::json(400, &json!({"scope_uuid": ["Enter a valid UUID."]}))),
        },
    };
    let base = request.base();
    let mut policies: Vec<&Policy> = state
        .policies
        .iter()
        .filter(|policy| owns(user, state.offering(policy.offering)))
        .filter(|policy| scope_uuid.is_none_or(|uuid| policy.offering == uuid))
        .filter(|policy| {
            request
                .param("scope")
                .is_none_or(|url| policy_body::offering_of_url(url) == Some(policy.offering))
        })
        .collect();
    policies.sort_by_key(|policy| std::cmp::Reverse(policy.created));
    page::paged(request, &policies, |policy| wire::policy(state, policy, &base))
}

fn visible(state: &CentralState, user: &User, uuid: Uuid) -> Result<Policy, Answer> {
    state
        .policy(uuid)
        .filter(|policy| owns(user, state.offering(policy.offering)))
        .cloned()
        .ok_or_else(|| missing("SlurmPeriodicUsagePolicy"))
}

/// Read, replace, change and delete one policy.
pub(super) fn one(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    uuid: Uuid,
) -> Result<Answer, Answer> {
    let policy = visible(state, user, uuid)?;
    match request.method {
        Method::GET | Method::HEAD => Ok(Answer::json(200, &wire::policy(state, &policy, &request.base()))),
        Method::PUT | Method::PATCH => {
            let changed = policy_body::read(state, user, request, Some(&policy))?;
            for slot in state.edit().policies.iter_mut().filter(|slot| slot.uuid == uuid) {
                slot.clone_from(&changed);
            }
            Ok(saved(state, uuid, request, 200))
        }
        Method::DELETE => {
            delete(state.edit(), &policy);
            Ok(Answer::empty(204))
        }
        _ => Err(Answer::method_not_allowed(&request.method)),
    }
}

fn delete(state: &mut CentralState, policy: &Policy) {
    state.policies.retain(|kept| kept.uuid != policy.uuid);
    state.commands.retain(|command| command.policy != policy.uuid);
    state.evaluation_logs.retain(|log| log.policy != policy.uuid);
    // What was issued is remembered per policy and resource.
    for resource in state.resources.iter_mut().filter(|resource| resource.offering == policy.offering) {
        resource.issued_settings = None;
        resource.issued_period = None;
    }
}

/// Follow-ups of a saved policy: its mark of having fired, and the commands of changed settings.
fn saved(state: &mut Tracked<'_>, uuid: Uuid, request: &Request, status: u16) -> Answer {
    evaluate::mark_saved(state.edit(), uuid);
    commands::sync(state.edit());
    let body = state.policy(uuid).map(|policy| wire::policy(state, policy, &request.base()));
    Answer::json(status, &body.unwrap_or_default())
}

/// The actions of one policy.
pub(super) fn action(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    uuid: Uuid,
    action: &str,
) -> Result<Answer, Answer> {
    let reading = matches!(action, "command-history" | "evaluation-logs");
    let fits = if reading {
        request.method == Method::GET || request.method == Method::HEAD
    } else {
        request.method == Method::POST
    };
    if !fits {
        return Err(Answer::method_not_allowed(&request.method));
    }
    let policy = visible(state, user, uuid)?;
    match action {
        "command-history" => command_history(state, request, &policy),
        "evaluation-logs" => evaluation_logs(state, request, &policy),
        "report-command-result" => report_result(state, user, request, &policy),
        _ => {
            require_staff(user)?;
            let mut fields = Fields::new(request.json_object()?);
            let only = fields.uuid("resource_uuid", true);
            fields.check()?;
            Ok(Answer::json(200, &run(state, &policy, only, action)))
        }
    }
}

/// Dry run, evaluation and forced period reset.
fn run(state: &mut Tracked<'_>, policy: &Policy, only: Option<Uuid>, action: &str) -> Value {
    if action == "dry-run" {
        return evaluate::dry_run(state, policy, only);
    }
    let forced = action == "force-period-reset";
    let mut logs = Vec::new();
    for resource in evaluate::resources_of(state, policy, only) {
        let taken = state
            .resource(resource)
            .is_some_and(|resource| !forced || evaluate::resettable(state, policy, resource));
        if taken {
            logs.extend(evaluate::evaluate(state.edit(), policy.uuid, resource));
        }
    }
    evaluate::response(state, policy, &logs)
}

fn resource_filter(request: &Request) -> Result<Option<Uuid>, Answer> {
    match request.param("resource_uuid") {
        None => Ok(None),
        // The real server fails on a value that is no uuid; so do we, visibly.
        Some(text) => Uuid::try_parse(text).map(Some).map_err(|_| {
            Answer::json(400, &json!({"non_field_errors": [format!("“{text}” is not a valid UUID.")]}))
        }),
    }
}

fn command_history(state: &mut Tracked<'_>, request: &Request, policy: &Policy) -> Result<Answer, Answer> {
    let resource = resource_filter(request)?;
    let mut rows: Vec<_> = state
        .commands
        .iter()
        .enumerate()
        .filter(|(_, command)| command.policy == policy.uuid)
        .filter(|(_, command)| resource.is_none_or(|uuid| command.resource == uuid))
        .collect();
    rows.sort_by_key(|(index, command)| std::cmp::Reverse((command.executed_at, *index)));
    let mut rows: Vec<Value> =
        rows.into_iter().take(ROWS_MAX).map(|(_, command)| wire::command(command)).collect();
    if let Some(fault) = faults::take_history_fault(state, request) {
        disturb(&mut rows, fault);
    }
    Ok(Answer::json(200, &Value::Array(rows)))
}

fn disturb(rows: &mut Vec<Value>, fault: HistoryFault) {
    match fault {
        HistoryFault::Duplicated => *rows = rows.iter().flat_map(|row| [row.clone(), row.clone()]).collect(),
        HistoryFault::Reordered => {
            rows.reverse();
            let half = rows.len() / 2;
            rows.rotate_left(half);
        }
        HistoryFault::Forgotten => rows.clear(),
    }
}

fn evaluation_logs(state: &CentralState, request: &Request, policy: &Policy) -> Result<Answer, Answer> {
    let resource = resource_filter(request)?;
    let mut logs: Vec<_> = state
        .evaluation_logs
        .iter()
        .enumerate()
        .filter(|(_, log)| log.policy == policy.uuid)
        .filter(|(_, log)| resource.is_none_or(|uuid| log.resource == uuid))
        .filter(|(_, log)| request.param("billing_period").is_none_or(|period| log.billing_period == period))
        .collect();
    logs.sort_by_key(|(index, log)| std::cmp::Reverse((log.evaluated_at, *index)));
    let rows: Vec<Value> =
        logs.into_iter().take(ROWS_MAX).map(|(_, log)| wire::evaluation_log(state, log)).collect();
    Ok(Answer::json(200, &Value::Array(rows)))
}

fn report_result(
    state: &mut Tracked<'_>,
    user: &User,
    request: &Request,
    policy: &Policy,
) -> Result<Answer, Answer> {
    if !state.settings.owners_report_results {
        require_staff(user)?;
    }
    let mut fields = Fields::new(request.json_object()?);
    fields.require("resource_uuid");
    fields.require("success");
    let resource = fields.uuid("resource_uuid", false);
    let success = fields.boolean("success");
    let error_message = fields.text("error_message", true).unwrap_or_default();
    let mode = fields.choice("mode", &["production", "emulator"]).unwrap_or_else(|| "production".to_owned());
    let commands_executed = fields.texts("commands_executed").unwrap_or_default();
    fields.check()?;
    let (Some(resource), Some(success)) = (resource, success) else {
        return Err(Answer::detail(400, "Malformed request."));
    };
    if state.resource(resource).is_none() {
        return Err(Answer::json(400, &json!({"resource_uuid": "Resource not found."})));
    }
    let reported_at = state.now();
    let result = CommandResult {
        policy: policy.uuid,
        resource,
        success,
        error_message,
        mode,
        commands_executed,
        reported_at,
    };
    record(state.edit(), result);
    Ok(Answer::detail(200, "Command result recorded."))
}

/// Marks the newest rows of the resource and its newest evaluation log.
fn record(state: &mut CentralState, result: CommandResult) {
    let mut rows: Vec<usize> = (0..state.commands.len())
        .filter(|index| {
            let command = &state.commands[*index];
            command.policy == result.policy && command.resource == result.resource
        })
        .collect();
    rows.sort_by_key(|index| std::cmp::Reverse((state.commands[*index].executed_at, *index)));
    for index in rows.into_iter().take(RESULT_ROWS) {
        let command = &mut state.commands[index];
        command.execution_mode.clone_from(&result.mode);
        if !result.success {
            command.success = false;
            command.error_message.clone_from(&result.error_message);
        }
    }
    let newest = state
        .evaluation_logs
        .iter_mut()
        .filter(|log| log.policy == result.policy && log.resource == result.resource)
        .max_by_key(|log| log.evaluated_at);
    if let Some(log) = newest {
        log.site_agent_confirmed = Some(result.success);
        log.site_agent_response = Some(json!({
            "success": result.success,
            "error_message": result.error_message,
            "mode": result.mode,
            "commands_executed": result.commands_executed,
        }));
    }
    state.results.push(result);
}
