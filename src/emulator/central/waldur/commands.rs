//! Settings of resources and the commands that bring them to the site: computed from policy, limits and
//! usage; issued when they change and when a period begins.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::clock::{day_of, saturating_add};
use super::super::state::{CentralState, Command, Policy, Resource};
use super::formulas::{self, Amounts, number};
use super::period::{BillingPeriod, PolicyPeriod};

/// What a policy means for a resource right now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub fairshare: i64,
    pub limit_type: String,
    pub limits: BTreeMap<String, i64>,
    pub reset_raw_usage: bool,
}

impl Settings {
    /// What is compared with the settings issued before. The reset takes no part: it follows the period.
    fn fingerprint(&self) -> String {
        json!({"fairshare": self.fairshare, "limit_type": self.limit_type, "limits": self.limits}).to_string()
    }
}

/// The current period of a policy: that of the offering's limit-based component when it has one.
pub(crate) fn current_period(state: &CentralState, policy: &Policy) -> BillingPeriod {
    effective_period(state, policy).containing(state.clock.today())
}

fn effective_period(state: &CentralState, policy: &Policy) -> PolicyPeriod {
    let mut kinds = limit_periods(state, policy.offering).into_iter();
    match (kinds.next(), kinds.next()) {
        (Some(only), None) => PolicyPeriod::from_limit_period(&only).unwrap_or(policy.period),
        _ => policy.period,
    }
}

/// The distinct limit periods of an offering's limit-based components, sorted.
pub(crate) fn limit_periods(state: &CentralState, offering: Uuid) -> Vec<String> {
    let mut periods: Vec<String> = state
        .offering(offering)
        .into_iter()
        .flat_map(|offering| &offering.components)
        .filter(|component| component.billing_type == super::super::state::BillingType::Limit)
        .filter_map(|component| component.limit_period.clone().filter(|period| !period.is_empty()))
        .collect();
    periods.sort();
    periods.dedup();
    periods
}

/// Usage of a resource per component within a period.
pub(crate) fn usage_in(state: &CentralState, resource: Uuid, period: BillingPeriod) -> Amounts {
    let mut usage = Amounts::new();
    for row in state.component_usages.iter().filter(|row| row.resource == resource) {
        let inside = match (period.days(), row.billing_period) {
            (None, _) => true,
            (Some((first, last)), Some(month)) => first <= month && month <= last,
            (Some(_), None) => false,
        };
        if inside {
            *usage.entry(row.kind.clone()).or_insert(0.0) += row.usage.to_f64();
        }
    }
    usage
}

/// The limits of a resource that are not zero: its base allocation.
pub(crate) fn base_allocation(resource: &Resource) -> Amounts {
    resource
        .limits
        .iter()
        .filter(|(_, limit)| **limit != 0.0)
        .map(|(kind, limit)| (kind.clone(), *limit))
        .collect()
}

/// Base allocation plus what the previous period left over.
pub(crate) fn total_allocation(state: &CentralState, policy: &Policy, resource: &Resource) -> Amounts {
    let base = base_allocation(resource);
    let previous = current_period(state, policy).previous();
    let (true, Some(previous)) = (policy.carryover_enabled, previous) else { return base };
    let used = usage_in(state, resource.uuid, previous);
    base.into_iter()
        .map(|(kind, amount)| {
            let used = used.get(&kind).copied().unwrap_or(0.0);
            let total = formulas::carryover(amount, used, policy.carryover_factor).total;
            (kind, total)
        })
        .collect()
}

/// The weights a policy computes with.
pub(crate) fn weights(policy: &Policy) -> Amounts {
    if policy.tres_billing_weights.is_empty() {
        formulas::default_weights()
    } else {
        policy.tres_billing_weights.clone()
    }
}

/// Usage of the current period in percent of the total allocation.
pub(crate) fn usage_percentage(state: &CentralState, policy: &Policy, resource: &Resource) -> f64 {
    let total = total_allocation(state, policy, resource);
    let usage = usage_in(state, resource.uuid, current_period(state, policy));
    formulas::usage_percentage(&usage, &total, &weights(policy))
}

/// The settings of a resource under a policy.
pub(crate) fn settings(state: &CentralState, policy: &Policy, resource: &Resource) -> Settings {
    let total = total_allocation(state, policy, resource);
    let period = current_period(state, policy).to_string();
    Settings {
        fairshare: formulas::fairshare(&total),
        limit_type: policy.limit_type.clone(),
        limits: formulas::tres_minutes(
            &total,
            &weights(policy),
            policy.tres_billing_enabled,
            policy.grace_ratio,
        ),
        reset_raw_usage: policy.raw_usage_reset && resource.issued_period.as_deref() != Some(&period),
    }
}

/// The commands that make settings true, in the order the server writes them.
pub(crate) fn commands_for(account: &str, settings: &Settings) -> Vec<(String, Map<String, Value>)> {
    let mut commands =
        vec![("fairshare".to_owned(), object(json!({"account": account, "fairshare": settings.fairshare})))];
    if !settings.limits.is_empty() {
        let parameters =
            json!({"account": account, "limit_type": settings.limit_type, "limits": settings.limits});
        commands.push(("limits".to_owned(), object(parameters)));
    }
    if settings.reset_raw_usage {
        commands.push(("reset_usage".to_owned(), object(json!({"account": account}))));
    }
    commands
}

/// A JSON object's members; anything else has none.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Issues the settings of a resource, and the QOS its restrictions ask for when they changed.
pub(crate) fn issue(
    state: &mut CentralState,
    policy: Uuid,
    resource: Uuid,
    qos_reason: Option<&str>,
) -> bool {
    let (Some(policy), Some(resource)) = (state.policy(policy).cloned(), state.resource(resource).cloned())
    else {
        return false;
    };
    if !state.offering(policy.offering).is_some_and(|offering| offering.site_agent_queue) {
        return false;
    }
    let settings = settings(state, &policy, &resource);
    let period = current_period(state, &policy).to_string();
    let mut commands = commands_for(resource.account(), &settings);
    if let Some(reason) = qos_reason.filter(|_| state.settings.qos_commands) {
        let qos = qos_of(&resource);
        commands.push((
            "qos".to_owned(),
            object(json!({"account": resource.account(), "qos": qos, "reason": reason})),
        ));
    }
    let now = state.now();
    for (command_type, parameters) in commands {
        let mut command = Command {
            uuid: state.next_uuid(),
            policy: policy.uuid,
            resource: resource.uuid,
            billing_period: period.clone(),
            command_type,
            parameters,
            executed_at: Some(now),
            ..Command::default()
        };
        complete_text(&mut command, resource.account());
        state.commands.push(command);
    }
    if let Some(resource) = state.resources.iter_mut().find(|r| r.uuid == resource.uuid) {
        resource.issued_settings = Some(settings.fingerprint());
        resource.issued_period = Some(period);
    }
    true
}

fn qos_of(resource: &Resource) -> &'static str {
    match (resource.paused, resource.downscaled) {
        (true, _) => "blocked",
        (false, true) => "slowdown",
        (false, false) => "normal",
    }
}

/// Counts seeded resources as having their settings already, so that a fresh seed issues nothing.
pub(crate) fn mark_seeded_as_issued(state: &mut CentralState) {
    for index in 0..state.resources.len() {
        let resource = &state.resources[index];
        if !resource.settings_issued || resource.issued_settings.is_some() {
            continue;
        }
        let Some(policy) = state.policy_of_offering(resource.offering) else { continue };
        let period = current_period(state, policy).to_string();
        let fingerprint = settings(state, policy, resource).fingerprint();
        let resource = &mut state.resources[index];
        resource.issued_settings = Some(fingerprint);
        resource.issued_period = Some(period);
    }
}

/// The resources whose settings differ from what was issued for them.
fn outdated(state: &CentralState) -> Vec<(Uuid, Uuid)> {
    state
        .resources
        .iter()
        .filter(|resource| resource.state == "OK")
        .filter_map(|resource| {
            let policy = state.policy_of_offering(resource.offering)?;
            let settings = settings(state, policy, resource);
            let changed = resource.issued_settings != Some(settings.fingerprint());
            (changed || settings.reset_raw_usage).then_some((policy.uuid, resource.uuid))
        })
        .collect()
}

/// Compares all settings with what was issued and issues what changed; what Waldur does every ten minutes.
/// Gives the number of resources that got commands.
pub(crate) fn sync(state: &mut CentralState) -> usize {
    state.synced_at = Some(state.now());
    outdated(state).into_iter().filter(|(policy, resource)| issue(state, *policy, *resource, None)).count()
}

/// Whether the next comparison is due: the interval is over, or the clock went back.
pub(crate) fn sync_is_due(state: &CentralState, now: Timestamp) -> bool {
    state.synced_at.is_none_or(|last| now < last || saturating_add(last, state.settings.sync_every_s) <= now)
}

/// Whether the day has changed since the last comparison, which is when a period can have changed.
pub(crate) fn day_changed(state: &CentralState, now: Timestamp) -> bool {
    state.synced_at.is_some_and(|last| day_of(last) != day_of(now))
}

/// Fills account, description and shell text of a command from its type and parameters.
pub(crate) fn complete_text(command: &mut Command, account: &str) {
    command.parameters.entry("account").or_insert_with(|| json!(account));
    let (description, shell) = texts(&command.command_type, &command.parameters);
    if command.description.is_empty() {
        command.description = description;
    }
    if command.shell_command.is_empty() {
        command.shell_command = shell;
    }
}

/// What a command says to people.
pub(crate) fn texts(command_type: &str, parameters: &Map<String, Value>) -> (String, String) {
    let text = |name: &str| match parameters.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let modify = format!("sacctmgr --immediate modify account {}", text("account"));
    match command_type {
        "fairshare" => {
            let fairshare = text("fairshare");
            let description = format!("Set fairshare weight to {fairshare} for allocation priority");
            (description, format!("{modify} set fairshare={fairshare}"))
        }
        "limits" => {
            let limit_type = text("limit_type");
            let limits = parameters.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
            let shown: Vec<String> =
                limits.iter().map(|(tres, value)| format!("'{tres}': {value}")).collect();
            let shell: Vec<String> = limits
                .iter()
                .map(|(tres, value)| format!("{modify} set {limit_type}={tres}={value}"))
                .collect();
            (format!("Set {limit_type} limits: {{{}}}", shown.join(", ")), shell.join("; "))
        }
        "qos" => {
            let qos = text("qos");
            (format!("Set QoS to '{qos}': {}", text("reason")), format!("{modify} set qos={qos}"))
        }
        "reset_usage" => {
            ("Reset raw usage counter for new billing period".to_owned(), format!("{modify} set RawUsage=0"))
        }
        other => (format!("Unknown command {other}"), String::new()),
    }
}

/// A resource's limits as commands of the preview show them.
pub(crate) fn raw_limits(resource: &Resource) -> Value {
    Value::Object(resource.limits.iter().map(|(kind, limit)| (kind.clone(), number(*limit))).collect())
}
