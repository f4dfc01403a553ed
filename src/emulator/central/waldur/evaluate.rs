//! Evaluation of policies: percentages, pausing, downscaling, logs.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::state::{CentralState, EvaluationLog, Policy, Resource, Restrictions};
use super::commands;
use super::formulas::round;
use super::wire;

/// Percent of the allocation at which people are notified.
const NOTIFICATION: f64 = 80.0;
/// Percent at which a resource is downscaled.
const SLOWDOWN: f64 = 100.0;

/// The end of the grace zone in percent.
pub(crate) fn grace_limit(policy: &Policy) -> f64 {
    (1.0 + policy.grace_ratio) * 100.0
}

/// What a policy would do at a percentage, ignoring what was done before.
fn triggered(policy: &Policy, percentage: f64) -> Vec<&'static str> {
    // The server looks for the action's name anywhere in the text of the actions.
    let acts = |action: &str| policy.actions.contains(action);
    let mut actions = Vec::new();
    if percentage >= grace_limit(policy) && acts("request_slurm_resource_pausing") {
        actions.push("pause");
    }
    if percentage >= SLOWDOWN && acts("request_slurm_resource_downscaling") {
        actions.push("downscale");
    }
    if percentage >= NOTIFICATION && acts("notify_organization_owners") {
        actions.push("notify");
    }
    actions
}

/// The resources of a policy that still exist, or the one that is asked for.
pub(crate) fn resources_of(state: &CentralState, policy: &Policy, only: Option<Uuid>) -> Vec<Uuid> {
    state
        .resources
        .iter()
        .filter(|resource| resource.offering == policy.offering && resource.is_active())
        .filter(|resource| only.is_none_or(|uuid| resource.uuid == uuid))
        .map(|resource| resource.uuid)
        .collect()
}

/// The body of a dry run: nothing is changed.
pub(crate) fn dry_run(state: &CentralState, policy: &Policy, only: Option<Uuid>) -> Value {
    let results: Vec<Value> = resources_of(state, policy, only)
        .into_iter()
        .filter_map(|uuid| state.resource(uuid))
        .map(|resource| {
            let percentage = commands::usage_percentage(state, policy, resource);
            json!({
                "resource_uuid": wire::hex(resource.uuid),
                "resource_name": resource.name,
                "usage_percentage": round(percentage, 2),
                "paused": resource.paused,
                "downscaled": resource.downscaled,
                "would_trigger": triggered(policy, percentage),
            })
        })
        .collect();
    json!({
        "policy_uuid": wire::hex(policy.uuid),
        "billing_period": commands::current_period(state, policy).to_string(),
        "grace_limit_percentage": grace_limit(policy),
        "resources": results,
    })
}

/// Evaluates one resource: sets and lifts restrictions, issues commands when they changed, writes a log.
/// Gives the log, none when policy or resource are gone.
pub(crate) fn evaluate(state: &mut CentralState, policy: Uuid, resource: Uuid) -> Option<EvaluationLog> {
    let policy = state.policy(policy)?.clone();
    let before = state.resource(resource)?.clone();
    let period = commands::current_period(state, &policy).to_string();
    let percentage = commands::usage_percentage(state, &policy, &before);
    let mut actions = triggered(&policy, percentage);
    let notified = state.evaluation_logs.iter().any(|log| {
        log.policy == policy.uuid
            && log.resource == resource
            && log.billing_period == period
            && log.actions_taken.iter().any(|action| action == "notify")
    });
    actions.retain(|action| *action != "notify" || !notified);

    let previous_state = Restrictions { paused: before.paused, downscaled: before.downscaled };
    let mut new_state = previous_state;
    if actions.contains(&"pause") {
        new_state.paused = true;
    } else if percentage < grace_limit(&policy) {
        new_state.paused = false;
    }
    if actions.contains(&"downscale") {
        new_state.downscaled = true;
    } else if percentage < SLOWDOWN {
        new_state.downscaled = false;
    }
    if let Some(resource) = state.resources.iter_mut().find(|candidate| candidate.uuid == resource) {
        resource.paused = new_state.paused;
        resource.downscaled = new_state.downscaled;
    }
    let reason = format!("usage at {percentage:.1}% of the allocation");
    let sent = previous_state != new_state && commands::issue(state, policy.uuid, resource, Some(&reason));
    let log = EvaluationLog {
        uuid: state.next_uuid(),
        policy: policy.uuid,
        resource,
        billing_period: period,
        usage_percentage: percentage,
        grace_limit_percentage: grace_limit(&policy),
        actions_taken: actions.iter().map(|action| (*action).to_owned()).collect(),
        previous_state,
        new_state,
        stomp_message_sent: sent,
        site_agent_confirmed: None,
        site_agent_response: None,
        evaluated_at: Some(state.now()),
    };
    state.evaluation_logs.push(log.clone());
    mark_fired(state, &policy, resource, !actions.is_empty());
    Some(log)
}

/// Sets or lifts the policy's own mark of having fired.
fn mark_fired(state: &mut CentralState, policy: &Policy, resource: Uuid, acted: bool) {
    let now = state.now();
    let others_over = || {
        let over = |other: &Resource| commands::usage_percentage(state, policy, other) >= NOTIFICATION;
        state.resources.iter().any(|other| {
            other.offering == policy.offering && other.uuid != resource && other.is_active() && over(other)
        })
    };
    let fired = match (acted, policy.has_fired) {
        (true, false) => true,
        (false, true) if !others_over() => false,
        _ => return,
    };
    if let Some(policy) = state.policies.iter_mut().find(|candidate| candidate.uuid == policy.uuid) {
        policy.has_fired = fired;
        policy.fired_datetime = Some(now);
    }
}

/// Sets or lifts the mark when a policy is saved: any resource over a threshold of its actions fires it.
pub(crate) fn mark_saved(state: &mut CentralState, policy: Uuid) {
    let Some(policy) = state.policy(policy).cloned() else { return };
    let acts = |names: [&str; 2]| names.iter().any(|name| policy.actions.contains(name));
    let over = |resource: &Resource| {
        let percentage = commands::usage_percentage(state, &policy, resource);
        (percentage >= grace_limit(&policy) && acts(["request_slurm_resource_pausing", "request_pausing"]))
            || (percentage >= SLOWDOWN && acts(["request_slurm_resource_downscaling", "request_downscaling"]))
            || (percentage >= NOTIFICATION && acts(["notify_organization_owners", "notify_external_user"]))
    };
    let fired = state.resources.iter().any(|r| r.offering == policy.offering && r.is_active() && over(r));
    let now = state.now();
    if let Some(policy) = state.policies.iter_mut().find(|candidate| candidate.uuid == policy.uuid) {
        if fired && !policy.has_fired {
            policy.fired_datetime = Some(now);
        }
        policy.has_fired = fired;
    }
}

/// The daily look at resources that are still restricted although their period has room again.
pub(crate) fn release_stale(state: &mut CentralState) {
    let stale: Vec<(Uuid, Uuid)> = state
        .resources
        .iter()
        .filter(|resource| resource.is_active() && (resource.paused || resource.downscaled))
        .filter_map(|resource| {
            let policy = state.policy_of_offering(resource.offering)?;
            let counted = commands::current_period(state, policy).days().is_some();
            (counted && commands::usage_percentage(state, policy, resource) < SLOWDOWN)
                .then_some((policy.uuid, resource.uuid))
        })
        .collect();
    for (policy, resource) in stale {
        evaluate(state, policy, resource);
    }
}

/// The body that answers evaluate and force-period-reset.
pub(crate) fn response(state: &CentralState, policy: &Policy, logs: &[EvaluationLog]) -> Value {
    let resources: Vec<Value> = logs
        .iter()
        .map(|log| {
            json!({
                "resource_uuid": wire::hex(log.resource),
                "resource_name": state.resource(log.resource).map_or("", |resource| &resource.name),
                "usage_percentage": log.usage_percentage,
                "actions_taken": log.actions_taken,
                "previous_state": log.previous_state,
                "new_state": log.new_state,
            })
        })
        .collect();
    json!({
        "policy_uuid": wire::hex(policy.uuid),
        "billing_period": commands::current_period(state, policy).to_string(),
        "resources": resources,
    })
}

/// Whether force-period-reset takes a resource: restricted, with room in the current period.
pub(crate) fn resettable(state: &CentralState, policy: &Policy, resource: &Resource) -> bool {
    (resource.paused || resource.downscaled) && commands::usage_percentage(state, policy, resource) < SLOWDOWN
}
