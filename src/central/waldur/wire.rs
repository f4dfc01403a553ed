//! Shapes of Waldur's wire, and their conversion from and to `core` types. Pure.
//!
//! Unknown fields are ignored, null is absent, absent optional fields have the server's defaults. What is there but not
//! understood is never guessed: the row is left out and said why.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::quotas::{HistoryPoint, QuotaWrite};
use crate::central::Notice;
use crate::central::shape::{Fields, Misfit, exact, json_number, shown, whole};
use crate::core::allocation::Allocation;
use crate::core::command::{Command, CommandKind, Mode};
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::period::PeriodKind;
use crate::core::policy::{Actions, LimitType, Policy, QosStrategy, default_weights};
use crate::core::quota::{Bound, BudgetQuota};
use crate::core::report::{BackendMetadata, CommandResult, ComponentUsage};
use crate::core::small_map::SmallMap;
use crate::core::time::Epoch;

/// The server's default share of the base that may be carried over, percent.
const CARRYOVER_FACTOR: u8 = 50;
/// Longest error text of a verdict, in characters; the text is for people.
const ERROR_CHARS_MAX: usize = 2000;
/// Name under which the agent keeps its part of a resource's backend metadata.
pub const METADATA_NAME: &str = "slurm_site_agent";
/// States of resources whose account is in use. `Creating` has no account yet, `Terminating` and `Terminated` are on
/// their way out; `Erred` is a failed order of a resource that goes on running.
pub const RESOURCE_STATES: [&str; 3] = ["OK", "Updating", "Erred"];
/// Fields asked of a resource; a whole row is some 10 KiB.
pub const RESOURCE_FIELDS: [&str; 10] = [
    "uuid",
    "name",
    "backend_id",
    "limits",
    "state",
    "paused",
    "downscaled",
    "offering_uuid",
    "backend_metadata",
    "attributes",
];
/// Longest text of a resource's metadata that is used, in characters: the longest identifier of AMIE.
const METADATA_CHARS_MAX: usize = 255;

/// Whether two uuids are the same: the server writes them with and without dashes.
pub(super) fn same_uuid(a: &str, b: &str) -> bool {
    let digits =
        |text: &str| -> String { text.chars().filter(|c| *c != '-').flat_map(char::to_lowercase).collect() };
    digits(a) == digits(b)
}

/// A policy, and remarks that do not keep it from being used.
pub(super) fn policy(row: &Value, source: &SourceName) -> Result<(Policy, Vec<String>), Misfit> {
    let fields = Fields::of(row)?;
    let (actions, remarks) = actions(fields.text("actions")?.unwrap_or_default());
    let carryover_factor = match fields.number("carryover_factor")? {
        None => CARRYOVER_FACTOR,
        Some(percent) => {
            whole(percent).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 100).ok_or_else(|| {
                Misfit::new("carryover_factor", format!("{percent} is not a whole number from 0 to 100"))
            })?
        }
    };
    let grace = match fields.number("grace_ratio")? {
        None => Exact::fraction(1, 5).expect("5 is not 0"),
        Some(grace) if grace.is_negative() => {
            return Err(Misfit::new("grace_ratio", format!("{grace} is below 0")));
        }
        Some(grace) => grace,
    };
    let policy = Policy {
        source: source.clone(),
        id: fields.need_text("uuid")?.to_owned(),
        name: fields.text("scope_name")?.unwrap_or_default().to_owned(),
        period: period(fields)?,
        limit_type: limit_type(fields, "limit_type")?.unwrap_or(LimitType::GrpTRESMins),
        billing: fields.truth("tres_billing_enabled")?.unwrap_or(true),
        weights: match fields.object("tres_billing_weights")? {
            Some(weights) if !weights.is_empty() => {
                amounts("tres_billing_weights", weights)?.into_iter().collect()
            }
            _ => default_weights(),
        },
        carryover_percent: fields.truth("carryover_enabled")?.unwrap_or(true).then_some(carryover_factor),
        grace,
        raw_usage_reset: fields.truth("raw_usage_reset")?.unwrap_or(true),
        strategy: match fields.text("qos_strategy")? {
            None | Some("threshold") => QosStrategy::Threshold,
            Some("progressive") => QosStrategy::Progressive,
            Some(other) => return Err(Misfit::new("qos_strategy", format!("{other:?} is not known"))),
        },
        actions,
        component_limits: component_limits(fields)?.into_iter().collect(),
        warnings: texts(fields, "warnings")?,
    };
    Ok((policy, remarks))
}

fn period(fields: Fields<'_>) -> Result<PeriodKind, Misfit> {
    let number = fields.number("period")?.ok_or_else(|| Misfit::new("period", "is missing"))?;
    match whole(number) {
        Some(1) => Ok(PeriodKind::Total),
        Some(2) => Ok(PeriodKind::Month),
        Some(3) => Ok(PeriodKind::Quarter),
        Some(4) => Ok(PeriodKind::Year),
        _ => Err(Misfit::new("period", format!("{number} is none of 1 total, 2 month, 3 quarter, 4 year"))),
    }
}

fn limit_type(fields: Fields<'_>, field: &str) -> Result<Option<LimitType>, Misfit> {
    let Some(text) = fields.text(field)? else { return Ok(None) };
    LimitType::parse(text).map(Some).ok_or_else(|| Misfit::new(field, format!("{text:?} is not known")))
}

/// Amounts by name, none below 0.
fn amounts(field: &str, map: &Map<String, Value>) -> Result<BTreeMap<String, Exact>, Misfit> {
    let mut read = BTreeMap::new();
    for (name, value) in map {
        read.insert(name.clone(), amount(&format!("{field}.{name}"), value)?);
    }
    no_twins(field, read.keys())?;
    Ok(read)
}

fn amount(field: &str, value: &Value) -> Result<Exact, Misfit> {
    match exact(value) {
        Some(amount) if amount.is_negative() => Err(Misfit::new(field, format!("{amount} is below 0"))),
        Some(amount) => Ok(amount),
        None => Err(Misfit::new(field, format!("{} is not a number", shown(value)))),
    }
}

/// Components are compared without regard to case: two names that differ only there would hide each other.
fn no_twins<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Misfit> {
    let mut seen = BTreeMap::new();
    for name in names {
        if let Some(twin) = seen.insert(name.to_ascii_lowercase(), name) {
            return Err(Misfit::new(field, format!("{twin:?} and {name:?} are the same component")));
        }
    }
    Ok(())
}

fn component_limits(fields: Fields<'_>) -> Result<BTreeMap<String, Exact>, Misfit> {
    const FIELD: &str = "component_limits_set";
    let mut limits = BTreeMap::new();
    for row in fields.list(FIELD)?.into_iter().flatten() {
        let part = Fields::of(row)?;
        let name = part.need_text("type")?;
        let value = part.value("limit").ok_or_else(|| Misfit::new(FIELD, format!("{name} has no limit")))?;
        let limit = amount(&format!("{FIELD}.{name}"), value)?;
        if limits.insert(name.to_owned(), limit).is_some_and(|before| before != limit) {
            return Err(Misfit::new(FIELD, format!("{name} has two limits")));
        }
    }
    no_twins(FIELD, limits.keys())?;
    Ok(limits)
}

fn texts(fields: Fields<'_>, field: &str) -> Result<Vec<String>, Misfit> {
    let texts = fields.list(field)?.into_iter().flatten();
    Ok(texts.map(|text| text.as_str().map_or_else(|| shown(text), str::to_owned)).collect())
}

/// The comma-separated actions of a policy; remarks name those that are not known.
pub(super) fn actions(text: &str) -> (Actions, Vec<String>) {
    let mut actions = Actions::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "request_slurm_resource_downscaling" | "request_downscaling" => actions.downscale = true,
            "request_slurm_resource_pausing" | "request_pausing" => actions.pause = true,
            "notify_organization_owners" | "notify_external_user" => actions.notify = true,
            "block_creation_of_new_resources" => actions.block_creation = true,
            unknown => actions.unknown.push(unknown.to_owned()),
        }
    }
    let remarks =
        actions.unknown.iter().map(|name| format!("actions: {name:?} is not known and does nothing"));
    (actions.clone(), remarks.collect())
}

/// What a resource grants to an account.
pub(super) fn allocation(row: &Value, source: &SourceName) -> Result<Allocation, Misfit> {
    let fields = Fields::of(row)?;
    let backend_id = fields.text("backend_id")?.unwrap_or_default();
    if backend_id.is_empty() {
        return Err(Misfit::new("backend_id", "is empty: the resource has no Slurm account yet"));
    }
    let account = AccountName::parse(backend_id).map_err(|e| Misfit::new("backend_id", e.to_string()))?;
    if account.is_root() {
        return Err(Misfit::new("backend_id", "names root, the account of everybody"));
    }
    Ok(Allocation {
        source: source.clone(),
        id: fields.need_text("uuid")?.to_owned(),
        name: fields.text("name")?.unwrap_or_default().to_owned(),
        account,
        limits: match fields.object("limits")? {
            Some(limits) => amounts("limits", limits)?.into_iter().collect(),
            None => SmallMap::new(),
        },
        paused: fields.truth("paused")?.unwrap_or(false),
        downscaled: fields.truth("downscaled")?.unwrap_or(false),
    })
}

/// The texts that resources carry under a key of their backend metadata, else of their attributes, by account. Other values
/// than texts, and accounts of which two resources say different things, are left out with a notice.
pub fn resource_texts(
    rows: &[Value],
    accepted: &[Allocation],
    key: &str,
) -> (BTreeMap<AccountName, String>, Vec<Notice>) {
    let (mut texts, mut notices) = (BTreeMap::<AccountName, Option<String>>::new(), Vec::new());
    let uuid = |row: &'_ Value| row.get("uuid").and_then(Value::as_str).map(str::to_owned);
    let by_id: BTreeMap<String, &Value> = rows.iter().filter_map(|row| Some((uuid(row)?, row))).collect();
    for allocation in accepted {
        let mut odd = |what: String| {
            let (subject, id) = ("resource", allocation.id.clone());
            notices.push(Notice { subject, id, what, rejected: false });
        };
        let row = by_id.get(&allocation.id);
        let places = ["backend_metadata", "attributes"].map(|place| row?.get(place)?.get(key));
        let Some(value) = places.into_iter().flatten().find(|value| !value.is_null()) else { continue };
        let text = value.as_str().map(str::trim).filter(|text| {
            !text.is_empty()
                && text.chars().count() <= METADATA_CHARS_MAX
                && !text.chars().any(char::is_control)
        });
        let Some(text) = text else {
            odd(format!("{key}: {} is not a text that could be an identifier", shown(value)));
            continue;
        };
        match texts.get(&allocation.account) {
            Some(Some(known)) if known != text => {
                odd(format!("{key}: {text:?}, and another resource of the account says {known:?}"));
                texts.insert(allocation.account.clone(), None);
            }
            Some(_) => {}
            None => drop(texts.insert(allocation.account.clone(), Some(text.to_owned()))),
        }
    }
    (texts.into_iter().filter_map(|(account, text)| Some((account, text?))).collect(), notices)
}

/// A command of a policy's history. Only a row without a uuid is an error: it could not be acted on once. All else that
/// is wrong makes it [`CommandKind::NotUnderstood`], to be refused with the reason.
pub(super) fn command(row: &Value, source: &SourceName, policy: &str) -> Result<Command, Misfit> {
    let fields = Fields::of(row)?;
    let uuid = fields.need_text("uuid")?.to_owned();
    let command_type = fields.text("command_type").ok().flatten().unwrap_or_default().to_owned();
    let parameters = fields.object("parameters").ok().flatten();
    let account_text =
        parameters.and_then(|map| map.get("account")).and_then(Value::as_str).unwrap_or_default();
    let issued = match fields.exact_instant("executed_at") {
        Ok(Some(issued)) => Ok(issued),
        Ok(None) => Err(Misfit::new("executed_at", "is missing")),
        Err(misfit) => Err(misfit),
    };
    let understood = issued.clone().and_then(|_| command_kind(&command_type, fields));
    let kind = understood.unwrap_or_else(|misfit| CommandKind::NotUnderstood {
        command_type: command_type.clone(),
        reason: misfit.to_string(),
    });
    Ok(Command {
        uuid,
        source: source.clone(),
        policy: policy.to_owned(),
        account_text: account_text.to_owned(),
        issued: issued.clone().map_or(Epoch(0), |(second, _)| second),
        issued_ns: issued.map_or(0, |(_, nanoseconds)| nanoseconds),
        description: fields.text("description").ok().flatten().unwrap_or_default().to_owned(),
        kind,
    })
}

fn command_kind(command_type: &str, fields: Fields<'_>) -> Result<CommandKind, Misfit> {
    let parameters = fields.value("parameters").ok_or_else(|| Misfit::new("parameters", "is missing"))?;
    let parameters = Fields::of(parameters).map_err(|e| Misfit::new("parameters", e.what))?;
    parameters.need_text("account")?;
    let missing = |field: &str| Misfit::new(field, "is missing");
    match command_type {
        "fairshare" => {
            let shares = parameters.number("fairshare")?.ok_or_else(|| missing("fairshare"))?;
            let fairshare = whole(shares)
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| Misfit::new("fairshare", format!("{shares} is not a number of shares")))?;
            Ok(CommandKind::Fairshare { fairshare })
        }
        "limits" => Ok(CommandKind::Limits {
            limit_type: limit_type(parameters, "limit_type")?.ok_or_else(|| missing("limit_type"))?,
            limits: amounts("limits", parameters.object("limits")?.ok_or_else(|| missing("limits"))?)?,
        }),
        "qos" => Ok(CommandKind::Qos {
            qos: parameters.need_text("qos")?.to_owned(),
            reason: parameters.text("reason")?.unwrap_or_default().to_owned(),
        }),
        "reset_usage" => Ok(CommandKind::ResetUsage),
        other => Err(Misfit::new("command_type", format!("{other:?} is not known"))),
    }
}

/// Body of report-command-result.
pub fn command_result_body(result: &CommandResult, resource: &str) -> Value {
    json!({
        "resource_uuid": resource,
        "success": result.success,
        "error_message": result.error.chars().take(ERROR_CHARS_MAX).collect::<String>(),
        "mode": match result.mode {
            Mode::Production => "production",
            Mode::Emulator => "emulator",
        },
        "commands_executed": result.commands,
    })
}

/// What is in force, as it stands in the backend metadata.
pub fn backend_metadata(state: &BackendMetadata) -> Value {
    json!({
        "level": state.level.as_str(),
        "qos": state.qos,
        "fairshare": state.fairshare,
        "limits": state.limits,
        "submit_blocked": state.submit_blocked,
        "since": state.since.to_string(),
    })
}

/// Body of set_usage.
pub fn component_usage_body(usage: &ComponentUsage) -> Value {
    let usages: Vec<Value> = usage
        .amounts
        .iter()
        .map(|(component, amount)| json!({"type": component, "amount": amount}))
        .collect();
    json!({"resource": usage.allocation, "date": usage.date.to_string(), "usages": usages})
}

/// Body of set_user_usages for some users of one component.
pub fn user_usages_body(users: &[(&String, &String)], date: Epoch) -> Value {
    let usages: Vec<Value> = users
        .iter()
        .map(|(user, amount)| json!({"username": user, "usage": amount, "date": date.to_string()}))
        .collect();
    json!({"usages": usages})
}

/// Uuid and account of a resource that has one.
pub(super) fn account(row: &Value) -> Result<(String, AccountName), Misfit> {
    let fields = Fields::of(row)?;
    let account = AccountName::parse(fields.need_text("backend_id")?)
        .map_err(|error| Misfit::new("backend_id", error.to_string()))?;
    if account.is_root() {
        return Err(Misfit::new("backend_id", "names root, the account of everybody"));
    }
    Ok((fields.need_text("uuid")?.to_owned(), account))
}

/// What Waldur writes for "unlimited".
const UNLIMITED: i128 = -1;

/// A quota of `/api/quotas/`.
pub(super) fn quota(row: &Value) -> Result<BudgetQuota, Misfit> {
    let fields = Fields::of(row)?;
    let need = |field: &str| fields.number(field)?.ok_or_else(|| Misfit::new(field, "is missing"));
    let limit = match need("limit")? {
        limit if limit == Exact::whole(UNLIMITED) => Bound::Unlimited,
        limit if limit.is_negative() => {
            return Err(Misfit::new("limit", format!("{limit} is below 0 and not -1, which is unlimited")));
        }
        limit => Bound::AtMost(limit),
    };
    // 0 is the server's default, with which nobody is warned.
    let threshold = fields.number("threshold")?.filter(|threshold| *threshold != Exact::ZERO);
    if let Some(threshold) = threshold.filter(|threshold| threshold.is_negative()) {
        return Err(Misfit::new("threshold", format!("{threshold} is below 0")));
    }
    Ok(BudgetQuota {
        id: fields.need_text("uuid")?.to_owned(),
        name: fields.need_text("name")?.to_owned(),
        scope: fields.need_text("scope")?.to_owned(),
        limit,
        usage: need("usage")?,
        threshold,
    })
}

/// A point of a quota's history. One without data has no `object`, or null in its place.
pub(super) fn history_point(row: &Value) -> Result<HistoryPoint, Misfit> {
    let fields = Fields::of(row)?;
    let point = fields.number("point")?.ok_or_else(|| Misfit::new("point", "is missing"))?;
    let seconds = whole(point).and_then(|seconds| i64::try_from(seconds).ok());
    Ok(HistoryPoint {
        at: seconds.map(Epoch).ok_or_else(|| Misfit::new("point", format!("{point} is not an instant")))?,
        quota: fields.value("object").map(quota).transpose()?,
    })
}

/// Body of a change of a quota: what is not changed is left out.
pub(super) fn quota_body(change: &QuotaWrite) -> Result<Value, Misfit> {
    let mut body = Map::new();
    let mut put = |field: &str, number: Exact| {
        let sent = json_number(number).ok_or_else(|| {
            Misfit::new(field, format!("{number} cannot be sent exactly; give it with fewer digits"))
        })?;
        body.insert(field.to_owned(), sent);
        Ok(())
    };
    match change.limit {
        Some(Bound::AtMost(limit)) if limit.is_negative() => {
            return Err(Misfit::new("limit", format!("{limit} is below 0")));
        }
        Some(Bound::AtMost(limit)) => put("limit", limit)?,
        Some(Bound::Unlimited) => put("limit", Exact::whole(UNLIMITED))?,
        None => {}
    }
    match change.threshold {
        Some(threshold) if threshold.is_negative() => {
            return Err(Misfit::new("threshold", format!("{threshold} is below 0")));
        }
        Some(threshold) => put("threshold", threshold)?,
        None => {}
    }
    if body.is_empty() {
        return Err(Misfit::new("limit", "neither a limit nor a threshold is given"));
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    const FIELDS: [&str; 22] = [
        "uuid",
        "actions",
        "period",
        "limit_type",
        "tres_billing_enabled",
        "tres_billing_weights",
        "carryover_factor",
        "grace_ratio",
        "qos_strategy",
        "component_limits_set",
        "warnings",
        "backend_id",
        "limits",
        "paused",
        "command_type",
        "parameters",
        "executed_at",
        "account",
        "fairshare",
        "qos",
        "scope_name",
        "name",
    ];

    fn good() -> Value {
        json!({
            "uuid": "u", "actions": "request_pausing", "period": 2, "backend_id": "bio", "limits": {"cpu": 5},
            "command_type": "fairshare", "parameters": {"account": "bio", "fairshare": 7},
            "executed_at": "2026-11-22T05:00:00Z",
        })
    }

    proptest! {
        #[test]
        fn no_row_makes_the_conversion_panic(row in any_json()) {
            let source = SourceName::parse("portal").unwrap();
            let _ = policy(&row, &source);
            let _ = allocation(&row, &source);
            let _ = command(&row, &source, "p");
            let _ = quota(&row);
            let _ = history_point(&row);
        }

        #[test]
        fn one_odd_field_is_refused_or_taken_and_never_becomes_another_number(
            field in prop::sample::select(FIELDS.to_vec()),
            odd in any_json(),
        ) {
            let source = SourceName::parse("portal").unwrap();
            let mut row = good();
            row[field] = odd.clone();
            if let Ok((policy, _)) = policy(&row, &source) {
                prop_assert!(!policy.grace.is_negative());
                prop_assert_eq!(policy.carryover_percent, Some(match field {
                    "carryover_factor" if !odd.is_null() => u8::try_from(exact(&odd).unwrap().floor()).unwrap(),
                    _ => CARRYOVER_FACTOR,
                }));
            }
            if let Ok(allocation) = allocation(&row, &source) && field != "limits" {
                prop_assert_eq!(allocation.limits, [("cpu".to_owned(), Exact::whole(5))].into());
            }
            if let Ok(command) = command(&row, &source, "p") && !["parameters", "command_type"].contains(&field) {
                let told = command.kind.type_name() == "fairshare";
                let safe = !matches!(command.kind, CommandKind::Fairshare { fairshare } if fairshare != 7);
                prop_assert!(told && safe, "{:?}", command.kind);
            }
        }
    }
}
