//! Objects as Waldur sends them. Field names and types follow the models of the public client 8.1.3.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::amount::Amount;
use super::super::clock::wire_instant;
use super::super::state::{
    BillingType, CentralState, Command, ComponentUsage, EvaluationLog, Offering, Policy, Resource, User,
    UserUsage,
};
use super::commands::raw_limits;

/// Space of uuids of things that only have a name here: projects, customers.
const NAMED: Uuid = Uuid::from_u128(0x5c1a_7e0f_8f3b_4a0e_9b55_0d2f_6f1e_a002);

/// Sentences of a policy nobody listens to.
const NO_QUEUE_WARNINGS: [&str; 2] = [
    "No site agent has registered a queue for periodic limits of this offering, so the policy cannot be enforced.",
    "Check that an agent processes events for this offering with periodic limits enabled, and restart it after \
     changing its configuration.",
];

/// A uuid as Waldur prints it: 32 digits without dashes.
pub(crate) fn hex(uuid: Uuid) -> String {
    uuid.simple().to_string()
}

fn instant(at: Option<jiff::Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(wire_instant(at)))
}

fn named(name: &str) -> String {
    hex(Uuid::new_v5(&NAMED, name.as_bytes()))
}

/// The address of an offering, which is what policies call their scope.
pub(crate) fn offering_url(base: &str, offering: Uuid) -> String {
    format!("{base}/api/marketplace-provider-offerings/{}/", hex(offering))
}

/// A policy.
pub(crate) fn policy(state: &CentralState, policy: &Policy, base: &str) -> Value {
    let offering = state.offering(policy.offering);
    let author = state.users.iter().find(|user| user.username == policy.created_by);
    let fired = match policy.fired_datetime {
        None if state.settings.schema_conform => policy.created,
        fired => fired,
    };
    let mut wire = json!({
        "uuid": hex(policy.uuid),
        "url": format!("{base}/api/marketplace-slurm-periodic-usage-policies/{}/", hex(policy.uuid)),
        "scope": offering_url(base, policy.offering),
        "scope_name": offering.map_or("", |offering| &offering.name),
        "scope_uuid": hex(policy.offering),
        "actions": policy.actions,
        "created": instant(policy.created),
        "created_by_full_name": author.map_or("", |user| &user.full_name),
        "created_by_username": policy.created_by,
        "has_fired": policy.has_fired,
        "fired_datetime": instant(fired),
        "options": policy.options,
        "affected_resources_count": affected(state, policy),
        "organization_groups": policy.organization_groups,
        "apply_to_all": policy.apply_to_all,
        "component_limits_set": policy.component_limits_set,
        "period": policy.period,
        "period_name": policy.period.label(),
        "limit_type": policy.limit_type,
        "tres_billing_enabled": policy.tres_billing_enabled,
        "tres_billing_weights": policy.tres_billing_weights,
        "carryover_factor": policy.carryover_factor,
        "grace_ratio": policy.grace_ratio,
        "carryover_enabled": policy.carryover_enabled,
        "raw_usage_reset": policy.raw_usage_reset,
        "qos_strategy": policy.qos_strategy,
    });
    if !offering.is_some_and(|offering| offering.site_agent_queue) {
        wire["warnings"] = json!(NO_QUEUE_WARNINGS);
    } else if state.settings.schema_conform {
        wire["warnings"] = json!([]);
    }
    wire
}

/// Resources a fired policy restricts.
fn affected(state: &CentralState, policy: &Policy) -> usize {
    if !policy.has_fired {
        return 0;
    }
    state
        .resources
        .iter()
        .filter(|resource| resource.offering == policy.offering && resource.is_active())
        .filter(|resource| resource.paused || resource.downscaled)
        .count()
}

/// A resource of a provider.
pub(crate) fn resource(state: &CentralState, resource: &Resource, base: &str) -> Value {
    let offering = state.offering(resource.offering);
    let usages: Map<String, Value> =
        resource.current_usages.iter().map(|(kind, amount)| (kind.clone(), json!(amount.to_f64()))).collect();
    let components: Vec<Value> = offering.map(offering_components).unwrap_or_default();
    json!({
        "url": format!("{base}/api/marketplace-provider-resources/{}/", hex(resource.uuid)),
        "uuid": hex(resource.uuid),
        "name": resource.name,
        "slug": resource.name.to_lowercase(),
        "description": "",
        "state": resource.state,
        "backend_id": resource.backend_id,
        "effective_id": "",
        "backend_metadata": resource.backend_metadata,
        "limits": raw_limits(resource),
        "current_usages": usages,
        "limit_usage": usages,
        "paused": resource.paused,
        "downscaled": resource.downscaled,
        "restrict_member_access": resource.restrict_member_access,
        "offering": offering_url(base, resource.offering),
        "offering_uuid": hex(resource.offering),
        "offering_name": offering.map_or("", |offering| &offering.name),
        "offering_type": "Marketplace.Slurm",
        "offering_components": components,
        "provider_name": offering.map_or("", |offering| &offering.customer),
        "project_uuid": named(&resource.project),
        "project_name": resource.project,
        "project_slug": resource.project.to_lowercase(),
        "customer_uuid": named(&resource.customer),
        "customer_name": resource.customer,
        "customer_slug": resource.customer.to_lowercase(),
        "attributes": resource.attributes,
        "options": {},
        "endpoints": [],
        "error_message": "",
        "is_usage_based": true,
        "is_limit_based": !resource.limits.is_empty(),
        "end_date": Value::Null,
        "created": instant(resource.created),
        "modified": instant(resource.last_sync.or(resource.created)),
        "last_sync": instant(resource.last_sync.or(resource.created)),
    })
}

fn offering_components(offering: &Offering) -> Vec<Value> {
    let component = |c: &super::super::state::OfferingComponent| {
        json!({
            "uuid": named(&format!("{} {}", offering.uuid, c.kind)),
            "type": c.kind,
            "name": c.name,
            "measured_unit": c.measured_unit,
            "billing_type": billing(c.billing_type),
            "limit_period": c.limit_period,
            "unit_factor": 1,
        })
    };
    offering.components.iter().map(component).collect()
}

fn billing(kind: BillingType) -> &'static str {
    match kind {
        BillingType::Fixed => "fixed",
        BillingType::Usage => "usage",
        BillingType::Limit => "limit",
    }
}

/// An offering, as far as the agent's ecosystem reads it.
pub(crate) fn offering(offering: &Offering, base: &str) -> Value {
    json!({
        "url": offering_url(base, offering.uuid),
        "uuid": hex(offering.uuid),
        "name": offering.name,
        "customer_name": offering.customer,
        "customer_uuid": named(&offering.customer),
        "type": "Marketplace.Slurm",
        "state": "Active",
        "components": offering_components(offering),
    })
}

/// The user a token belongs to.
pub(crate) fn user(user: &User, base: &str) -> Value {
    let uuid = named(&user.username);
    json!({
        "url": format!("{base}/api/users/{uuid}/"),
        "uuid": uuid,
        "username": user.username,
        "full_name": user.full_name,
        "is_staff": user.role == super::super::state::Role::Staff,
    })
}

/// A row of the command history. It names neither resource nor policy, as in Waldur.
pub(crate) fn command(command: &Command) -> Value {
    json!({
        "uuid": hex(command.uuid),
        "command_type": command.command_type,
        "description": command.description,
        "shell_command": command.shell_command,
        "parameters": command.parameters,
        "executed_at": instant(command.executed_at),
        "execution_mode": command.execution_mode,
        "success": command.success,
        "error_message": command.error_message,
    })
}

/// An evaluation log.
pub(crate) fn evaluation_log(state: &CentralState, log: &EvaluationLog) -> Value {
    json!({
        "uuid": hex(log.uuid),
        "resource_uuid": hex(log.resource),
        "resource_name": state.resource(log.resource).map_or("", |resource| &resource.name),
        "billing_period": log.billing_period,
        "usage_percentage": log.usage_percentage,
        "grace_limit_percentage": log.grace_limit_percentage,
        "actions_taken": log.actions_taken,
        "previous_state": log.previous_state,
        "new_state": log.new_state,
        "stomp_message_sent": log.stomp_message_sent,
        "site_agent_confirmed": log.site_agent_confirmed,
        "site_agent_response": log.site_agent_response,
        "evaluated_at": instant(log.evaluated_at),
    })
}

fn usage_amount(state: &CentralState, amount: Amount) -> Value {
    if !state.settings.whole_usages {
        return Value::String(amount.to_string());
    }
    i64::try_from(amount.whole()).map_or_else(|_| Value::String(amount.whole().to_string()), Value::from)
}

/// A component usage.
pub(crate) fn component_usage(state: &CentralState, usage: &ComponentUsage) -> Value {
    let resource = state.resource(usage.resource);
    let offering = resource.and_then(|resource| state.offering(resource.offering));
    let component = offering.and_then(|o| o.components.iter().find(|component| component.kind == usage.kind));
    json!({
        "uuid": hex(usage.uuid),
        "created": instant(usage.created),
        "description": usage.description,
        "type": usage.kind,
        "name": component.map_or("", |component| &component.name),
        "measured_unit": component.map_or("", |component| &component.measured_unit),
        "usage": usage_amount(state, usage.usage),
        "date": instant(usage.date),
        "missing_usage_policy": if usage.recurring { "reuse" } else { "none" },
        "recurring": usage.recurring,
        "resource_name": resource.map_or("", |resource| &resource.name),
        "resource_uuid": hex(usage.resource),
        "offering_name": offering.map_or("", |offering| &offering.name),
        "offering_uuid": offering.map(|offering| hex(offering.uuid)),
        "project_name": resource.map_or("", |resource| &resource.project),
        "project_uuid": resource.map(|resource| named(&resource.project)),
        "customer_name": resource.map_or("", |resource| &resource.customer),
        "customer_uuid": resource.map(|resource| named(&resource.customer)),
        "billing_period": usage.billing_period.map(|month| month.to_string()),
        "modified_by": usage.modified_by,
    })
}

/// The usage of one user.
pub(crate) fn user_usage(state: &CentralState, row: &UserUsage, base: &str) -> Value {
    let parent = state.component_usages.iter().find(|usage| usage.uuid == row.component_usage);
    let mut wire = parent.map_or_else(|| json!({}), |parent| component_usage(state, parent));
    for own in ["type", "name", "missing_usage_policy", "recurring", "modified_by"] {
        if let Some(members) = wire.as_object_mut() {
            members.remove(own);
        }
    }
    wire["uuid"] = json!(hex(row.uuid));
    wire["username"] = json!(row.username);
    wire["component_usage"] =
        json!(format!("{base}/api/marketplace-component-usages/{}/", hex(row.component_usage)));
    wire["component_type"] = json!(parent.map_or("", |parent| &parent.kind));
    wire["usage"] = usage_amount(state, row.usage);
    wire["created"] = instant(row.created);
    wire["modified"] = instant(row.modified);
    wire["date"] = instant(row.date);
    wire["description"] = json!("");
    wire["backend_id"] = json!("");
    if let Some(user) = &row.user {
        wire["user"] = json!(user);
    }
    wire
}
