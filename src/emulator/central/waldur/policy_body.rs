//! Reading and checking the body of a create, replace or change of a policy.

use axum::http::Method;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::super::http::{Answer, Request, python_type};
use super::super::state::{CentralState, ComponentLimit, Policy, User};
use super::fields::Fields;
use super::period::PolicyPeriod;
use super::policies::AVAILABLE_ACTIONS;
use super::{commands, owns};

/// The policy a request asks for: `present` with the request's changes, or a new one.
///
/// # Errors
/// The 400 that names every field that is wrong.
pub(super) fn read(
    state: &CentralState,
    user: &User,
    request: &Request,
    present: Option<&Policy>,
) -> Result<Policy, Answer> {
    let mut fields = Fields::new(request.json_object()?);
    let partial = request.method == Method::PATCH;
    if !partial {
        for name in ["scope", "actions", "component_limits_set"] {
            fields.require(name);
        }
    }
    let mut policy = present.cloned().unwrap_or_else(|| Policy { apply_to_all: false, ..Policy::default() });
    if !partial {
        policy.apply_to_all = false;
    }
    if let Some(offering) = scope(state, user, &mut fields) {
        policy.offering = offering;
    }
    if let Some(actions) = actions(&mut fields) {
        policy.actions = actions;
    }
    if let Some(limits) = component_limits(&mut fields) {
        policy.component_limits_set = limits;
    }
    plain_fields(&mut fields, &mut policy);
    fields.check()?;
    check_audience(&policy)?;
    check_period(state, &fields, &mut policy, present.is_none())?;
    check_components(state, &policy)?;
    let twin =
        state.policies.iter().any(|other| other.offering == policy.offering && other.uuid != policy.uuid);
    if twin {
        return Err(non_field("A SLURM Periodic Usage Policy already exists for this offering."));
    }
    Ok(policy)
}

fn non_field(message: &str) -> Answer {
    Answer::json(400, &json!({"non_field_errors": [message]}))
}

/// The offering an address of one names.
pub(super) fn offering_of_url(text: &str) -> Option<Uuid> {
    let path = match Url::parse(text) {
        Ok(url) => url.path().to_owned(),
        Err(_) => text.to_owned(),
    };
    let mut segments = path.trim_end_matches('/').rsplit('/');
    let uuid = Uuid::try_parse(segments.next()?).ok()?;
    (segments.next() == Some("marketplace-provider-offerings")).then_some(uuid)
}

fn scope(state: &CentralState, user: &User, fields: &mut Fields) -> Option<Uuid> {
    let text = fields.text("scope", false)?;
    let Some(uuid) = offering_of_url(&text) else {
        fields.reject("scope", "Invalid hyperlink - No URL match.");
        return None;
    };
    match state.offering(uuid) {
        None => fields.reject("scope", "Invalid hyperlink - Object does not exist."),
        Some(offering) if !owns(user, Some(offering)) => {
            fields.reject("scope", "User is not allowed to configure policies.");
        }
        Some(_) => return Some(uuid),
    }
    None
}

fn actions(fields: &mut Fields) -> Option<String> {
    let text = fields.text("actions", false)?;
    if text.split(',').all(|action| AVAILABLE_ACTIONS.contains(&action)) {
        return Some(text);
    }
    fields.reject("actions", format!("{text} includes unavailable actions."));
    None
}

fn component_limits(fields: &mut Fields) -> Option<Vec<ComponentLimit>> {
    let items = match fields.raw("component_limits_set")? {
        Value::Array(items) => items.clone(),
        other => {
            let got = python_type(other);
            let message = format!("Expected a list of items but got type \"{got}\".");
            fields.reject_with("component_limits_set", json!({"non_field_errors": [message]}));
            return None;
        }
    };
    let mut limits = Vec::new();
    let mut complaints = Vec::new();
    for item in items {
        let mut nested = Fields::new(item.as_object().cloned().unwrap_or_default());
        nested.require("type");
        nested.require("limit");
        let kind = nested.text("type", false);
        let limit = nested.integer("limit", (f64::from(i32::MIN), f64::from(i32::MAX)));
        complaints.push(nested.check().err().map_or_else(|| json!({}), |refusal| body_of(&refusal)));
        if let (Some(kind), Some(limit)) = (kind, limit) {
            limits.push(ComponentLimit { kind, limit });
        }
    }
    if complaints.len() == limits.len() {
        return Some(limits);
    }
    fields.reject_with("component_limits_set", Value::Array(complaints));
    None
}

fn body_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn plain_fields(fields: &mut Fields, policy: &mut Policy) {
    let any = (f64::MIN, f64::MAX);
    set(&mut policy.apply_to_all, fields.boolean("apply_to_all"));
    set(&mut policy.options, fields.object("options"));
    set(&mut policy.organization_groups, fields.texts("organization_groups"));
    if fields.raw("period").is_some() {
        match fields.integer("period", any).and_then(PolicyPeriod::from_number) {
            Some(period) => policy.period = period,
            None => {
                let shown = fields.raw("period").cloned().unwrap_or_default();
                fields.reject_with("period", json!([format!("\"{shown}\" is not a valid choice.")]));
            }
        }
    }
    set(&mut policy.limit_type, fields.choice("limit_type", &["GrpTRESMins", "MaxTRESMins", "GrpTRES"]));
    set(&mut policy.tres_billing_enabled, fields.boolean("tres_billing_enabled"));
    if let Some(weights) = fields.object("tres_billing_weights") {
        let numbers: Option<_> = weights
            .iter()
            .map(|(tres, weight)| weight.as_f64().map(|weight| (tres.clone(), weight)))
            .collect();
        match numbers {
            Some(numbers) => policy.tres_billing_weights = numbers,
            None => fields.reject("tres_billing_weights", "Value must be valid JSON."),
        }
    }
    let factor = fields.integer("carryover_factor", (0.0, 2_147_483_647.0));
    set(&mut policy.carryover_factor, factor.and_then(|factor| u32::try_from(factor).ok()));
    set(&mut policy.grace_ratio, fields.float("grace_ratio", any));
    set(&mut policy.carryover_enabled, fields.boolean("carryover_enabled"));
    set(&mut policy.raw_usage_reset, fields.boolean("raw_usage_reset"));
    set(&mut policy.qos_strategy, fields.choice("qos_strategy", &["threshold", "progressive"]));
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn check_audience(policy: &Policy) -> Result<(), Answer> {
    match (policy.apply_to_all, policy.organization_groups.is_empty()) {
        (true, false) => Err(non_field(
            "Cannot set apply_to_all=True when organization_groups are specified. Choose one approach: either \
             apply_to_all or specific organization_groups.",
        )),
        (false, true) => Err(non_field("Must either set apply_to_all=True or specify organization_groups.")),
        _ => Ok(()),
    }
}

/// The period must be that of the offering's limit-based components; a new policy takes it from them.
fn check_period(state: &CentralState, fields: &Fields, policy: &mut Policy, new: bool) -> Result<(), Answer> {
    let periods = commands::limit_periods(state, policy.offering);
    let refuse = |message: String| Err(Answer::json(400, &json!({"period": [message]})));
    let [only] = periods.as_slice() else {
        if periods.is_empty() {
            return Ok(());
        }
        return refuse(format!(
            "Offering has multiple limit-based components with different limit_period values: {}. All must use \
             the same limit_period.",
            periods.join(", ")
        ));
    };
    let Some(expected) = PolicyPeriod::from_limit_period(only) else { return Ok(()) };
    let given = fields.raw("period").is_some();
    if new && !given {
        policy.period = expected;
    }
    if given && policy.period != expected {
        return refuse(format!(
            "Period must match the offering component's limit_period ({only}). Expected {}, got {}.",
            expected.label(),
            policy.period.label()
        ));
    }
    Ok(())
}

fn check_components(state: &CentralState, policy: &Policy) -> Result<(), Answer> {
    let mut kinds: Vec<&str> = policy.component_limits_set.iter().map(|limit| limit.kind.as_str()).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Answer::json(400, &json!(["Duplicate component limits for the same component."])));
    }
    let known = state.offering(policy.offering).map(|offering| &offering.components);
    let known = |kind: &str| known.is_some_and(|components| components.iter().any(|c| c.kind == kind));
    match kinds.into_iter().find(|kind| !known(kind)) {
        Some(kind) => Err(non_field(&format!("Offering has not component with type {kind}."))),
        None => Ok(()),
    }
}
