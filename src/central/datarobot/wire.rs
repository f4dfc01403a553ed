//! Shapes of DataRobot's wire, and their conversion from and to `core` types. Pure.
//!
//! A rule, window or consumer that is not known is never guessed: the quota is left out and said why.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::client::QuotaChange;
use crate::central::shape::{Fields, Misfit, json_number, whole};
use crate::core::exact::Exact;
use crate::core::quota::{
    CapacityUnits, Consumer, ConsumerKind, ConsumerPolicy, QuotaTemplate, RateCapacity, RateQuota, Rule,
    RuleKind, Window,
};

/// Most rules of a list (the page's maxItems).
pub const RULES_MAX: usize = 100;
/// Most policies of a quota (the page's maxItems).
pub const POLICIES_MAX: usize = 10_000;
/// The only kind of resource that quotas govern.
pub const RESOURCE_TYPE: &str = "deployment";

const RULE_WORDS: [(&str, RuleKind); 4] = [
    ("concurrentRequests", RuleKind::ConcurrentRequests),
    ("inputSequenceLength", RuleKind::InputSequenceLength),
    ("requests", RuleKind::Requests),
    ("token", RuleKind::Token),
];
const WINDOW_WORDS: [(&str, Window); 3] =
    [("day", Window::Day), ("hour", Window::Hour), ("min", Window::Min)];
const CONSUMER_WORDS: [(&str, ConsumerKind); 3] = [
    ("deployment", ConsumerKind::Deployment),
    ("user", ConsumerKind::User),
    ("usergroup", ConsumerKind::UserGroup),
];
const UNIT_WORDS: [(&str, CapacityUnits); 2] =
    [("requests", CapacityUnits::Requests), ("token", CapacityUnits::Token)];

/// The value of a word of the page.
fn word<T: Copy>(fields: Fields<'_>, field: &str, words: &[(&str, T)]) -> Result<T, Misfit> {
    let text = fields.need_text(field)?;
    let found = words.iter().find(|(known, _)| *known == text);
    found.map(|(_, value)| *value).ok_or_else(|| Misfit::new(field, format!("{text:?} is not known")))
}

fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map(|(word, _)| *word).expect("every value has a word")
}

/// A whole number, not below 0, that must be there.
fn count(fields: Fields<'_>, field: &str) -> Result<u64, Misfit> {
    let number = fields.number(field)?.ok_or_else(|| Misfit::new(field, "is missing"))?;
    whole(number)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| Misfit::new(field, format!("{number} is not a whole number from 0 on")))
}

/// A share from 0 to 1.
fn share(fields: Fields<'_>, field: &str) -> Result<Option<Exact>, Misfit> {
    match fields.number(field)? {
        Some(share) if share.is_negative() || share > Exact::ONE => {
            Err(Misfit::new(field, format!("{share} is not a share from 0 to 1")))
        }
        other => Ok(other),
    }
}

fn rules(fields: Fields<'_>, field: &str) -> Result<Vec<Rule>, Misfit> {
    let rows = fields.list(field)?.ok_or_else(|| Misfit::new(field, "is missing"))?;
    if rows.len() > RULES_MAX {
        return Err(Misfit::new(field, format!("{} rules; at most {RULES_MAX} are possible", rows.len())));
    }
    let read = |row| {
        let fields = Fields::of(row)?;
        Ok(Rule {
            kind: word(fields, "rule", &RULE_WORDS)?,
            limit: count(fields, "limit")?,
            window: match fields.value("window") {
                None => Window::default(),
                Some(_) => word(fields, "window", &WINDOW_WORDS)?,
            },
        })
    };
    rows.iter().map(|row| read(row).map_err(|misfit: Misfit| within(field, &misfit))).collect()
}

fn within(field: &str, misfit: &Misfit) -> Misfit {
    Misfit { field: format!("{field}.{}", misfit.field), what: misfit.what.clone() }
}

fn policy(row: &Value) -> Result<ConsumerPolicy, Misfit> {
    let fields = Fields::of(row)?;
    Ok(ConsumerPolicy {
        consumer: Consumer {
            kind: word(fields, "consumerType", &CONSUMER_WORDS)?,
            id: fields.need_text("consumerId")?.to_owned(),
        },
        name: fields.text("consumerName")?.map(str::to_owned),
        reserved: share(fields, "reserved")?,
        rules: rules(fields, "rules")?,
    })
}

fn policies(fields: Fields<'_>) -> Result<Vec<ConsumerPolicy>, Misfit> {
    const FIELD: &str = "policies";
    let rows = fields.list(FIELD)?.ok_or_else(|| Misfit::new(FIELD, "is missing"))?;
    if rows.len() > POLICIES_MAX {
        let what = format!("{} policies; at most {POLICIES_MAX} are possible", rows.len());
        return Err(Misfit::new(FIELD, what));
    }
    let mut seen = BTreeSet::new();
    let mut read = Vec::new();
    for row in rows {
        let policy = policy(row).map_err(|misfit| within(FIELD, &misfit))?;
        if !seen.insert(policy.consumer.clone()) {
            let what = format!("consumer {:?} has two policies", policy.consumer.id);
            return Err(Misfit::new(FIELD, what));
        }
        read.push(policy);
    }
    Ok(read)
}

fn capacity(fields: Fields<'_>) -> Result<Option<RateCapacity>, Misfit> {
    let Some(value) = fields.value("capacity") else { return Ok(None) };
    let read = || {
        let fields = Fields::of(value)?;
        Ok(RateCapacity { capacity: count(fields, "capacity")?, units: word(fields, "units", &UNIT_WORDS)? })
    };
    read().map(Some).map_err(|misfit: Misfit| within("capacity", &misfit))
}

/// A quota.
pub(super) fn quota(row: &Value) -> Result<RateQuota, Misfit> {
    let fields = Fields::of(row)?;
    let resource_type = fields.need_text("resourceType")?;
    if resource_type != RESOURCE_TYPE {
        return Err(Misfit::new("resourceType", format!("{resource_type:?} is not known")));
    }
    Ok(RateQuota {
        id: fields.need_text("id")?.to_owned(),
        resource_id: fields.need_text("resourceId")?.to_owned(),
        default_rules: rules(fields, "defaultRules")?,
        policies: policies(fields)?,
        capacity: capacity(fields)?,
        saturation_threshold: share(fields, "saturationThreshold")?,
        owner: fields.need_text("userId")?.to_owned(),
    })
}

/// A template.
pub(super) fn template(row: &Value) -> Result<QuotaTemplate, Misfit> {
    let fields = Fields::of(row)?;
    Ok(QuotaTemplate {
        id: fields.need_text("id")?.to_owned(),
        name: fields.need_text("name")?.to_owned(),
        rules: rules(fields, "rules")?,
    })
}

/// Rules as they are sent.
pub fn rules_body(rules: &[Rule]) -> Value {
    let rule = |rule: &Rule| {
        json!({
            "rule": word_of(&RULE_WORDS, rule.kind),
            "limit": rule.limit,
            "window": word_of(&WINDOW_WORDS, rule.window),
        })
    };
    rules.iter().map(rule).collect()
}

fn share_body(field: &str, share: Exact) -> Result<Value, Misfit> {
    match json_number(share) {
        Some(number) if !share.is_negative() && share <= Exact::ONE => Ok(number),
        _ => Err(Misfit::new(field, format!("{share} is not a share from 0 to 1 that can be sent exactly"))),
    }
}

fn policy_body(policy: &ConsumerPolicy) -> Result<Value, Misfit> {
    let mut body = json!({
        "consumerId": policy.consumer.id,
        "consumerType": word_of(&CONSUMER_WORDS, policy.consumer.kind),
        "rules": rules_body(&policy.rules),
    });
    if let Some(name) = &policy.name {
        body["consumerName"] = name.as_str().into();
    }
    if let Some(reserved) = policy.reserved {
        body["reserved"] = share_body("reserved", reserved)?;
    }
    Ok(body)
}

/// Body of a change of a quota: what is not changed is left out. What the server would refuse is refused here.
pub(super) fn change_body(change: &QuotaChange) -> Result<Value, Misfit> {
    let mut body = Map::new();
    let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
    if let Some(capacity) = change.capacity {
        let units = word_of(&UNIT_WORDS, capacity.units);
        put("capacity", json!({"capacity": capacity.capacity, "units": units}));
    }
    if let Some(rules) = &change.default_rules {
        put("defaultRules", rules_body(rules));
    }
    if let Some(policies) = &change.policies {
        let bodies: Value = policies.iter().map(policy_body).collect::<Result<_, _>>()?;
        put("policies", bodies);
    }
    match change.saturation_threshold {
        Some(Some(share)) => drop(put("saturationThreshold", share_body("saturationThreshold", share)?)),
        Some(None) => drop(put("saturationThreshold", Value::Null)),
        None => {}
    }
    if body.is_empty() {
        return Err(Misfit::new("quota", "no change is given"));
    }
    let body = Value::Object(body);
    // Read with the eyes of who receives it: bounds, two policies of one consumer.
    let fields = Fields::of(&body)?;
    if fields.value("defaultRules").is_some() {
        rules(fields, "defaultRules")?;
    }
    if fields.value("policies").is_some() {
        policies(fields)?;
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::central::shape::shown;
    use proptest::prelude::*;

    fn good() -> Value {
        json!({
            "id": "q1", "resourceId": "d1", "resourceType": "deployment", "userId": "u1",
            "defaultRules": [{"rule": "requests", "limit": 3}],
            "policies": [{
                "consumerId": "c1", "consumerType": "user", "reserved": 0.25,
                "rules": [{"rule": "token", "limit": 100, "window": "hour"}],
            }],
            "capacity": {"capacity": 60, "units": "token"}, "saturationThreshold": 0.8,
        })
    }

    #[test]
    fn a_rule_without_a_window_is_of_a_minute() {
        let rules = quota(&good()).unwrap().default_rules;
        assert_eq!(rules, [Rule { kind: RuleKind::Requests, limit: 3, window: Window::Min }]);
    }

    #[test]
    fn what_is_not_understood_or_beyond_the_bounds_is_named() {
        let rule = json!({"rule": "token", "limit": 1});
        let policy = json!({"consumerId": "c", "consumerType": "user", "rules": []});
        for (field, odd, words) in [
            ("resourceType", json!("model"), "resourceType: \"model\" is not known"),
            ("userId", Value::Null, "userId: is missing"),
            ("defaultRules", Value::Null, "defaultRules: is missing"),
            (
                "defaultRules",
                json!([{"rule": "bytes", "limit": 1}]),
                "defaultRules.rule: \"bytes\" is not known",
            ),
            ("defaultRules", json!([{"rule": "token"}]), "defaultRules.limit: is missing"),
            ("defaultRules", json!([{"rule": "token", "limit": -1}]), "-1 is not a whole number from 0 on"),
            ("defaultRules", json!([{"rule": "token", "limit": 1.5}]), "1.5 is not a whole number"),
            (
                "defaultRules",
                json!([{"rule": "token", "limit": 1, "window": "week"}]),
                "\"week\" is not known",
            ),
            ("defaultRules", Value::from(vec![rule; RULES_MAX + 1]), "101 rules; at most 100"),
            ("policies", json!([{"consumerId": "c", "consumerType": "robot", "rules": []}]), "\"robot\""),
            ("policies", json!([policy, policy]), "consumer \"c\" has two policies"),
            ("policies", Value::from(vec![json!({}); POLICIES_MAX + 1]), "10001 policies; at most 10000"),
            ("capacity", json!({"capacity": 5}), "capacity.units: is missing"),
            ("capacity", json!({"capacity": -5, "units": "token"}), "capacity.capacity: -5"),
            ("saturationThreshold", json!(1.01), "1.01 is not a share from 0 to 1"),
            ("saturationThreshold", json!(-0.5), "-0.5 is not a share"),
        ] {
            let mut row = good();
            row[field] = odd;
            let text = quota(&row).unwrap_err().to_string();
            assert!(text.contains(words), "{text}\nbut not\n{words}");
        }
    }

    #[test]
    fn a_change_reads_back_as_it_was_meant() {
        let read = quota(&good()).unwrap();
        let change = QuotaChange {
            capacity: read.capacity,
            default_rules: Some(read.default_rules.clone()),
            policies: Some(read.policies.clone()),
            saturation_threshold: Some(read.saturation_threshold),
        };
        let mut row = good();
        for (field, value) in change_body(&change).unwrap().as_object().unwrap() {
            row[field] = value.clone();
        }
        assert_eq!(quota(&row), Ok(read));
        let none = change_body(&QuotaChange { saturation_threshold: Some(None), ..QuotaChange::default() });
        assert_eq!(none, Ok(json!({"saturationThreshold": null})));
        assert!(change_body(&QuotaChange::default()).is_err());
        let third = Exact::fraction(1, 3);
        assert!(
            change_body(&QuotaChange { saturation_threshold: Some(third), ..QuotaChange::default() })
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn one_odd_field_never_makes_the_conversion_panic_nor_another_number(
            field in prop::sample::select(vec![
                "id", "resourceId", "defaultRules", "policies", "capacity", "saturationThreshold", "userId",
            ]),
            odd in prop_oneof![
                Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
                any::<f64>().prop_map(Value::from), "\\PC{0,12}".prop_map(Value::from),
                Just(json!([])), Just(json!({})), Just(json!([null])), Just(json!([{"rule": "token"}])),
            ],
        ) {
            let mut row = good();
            row[field] = odd.clone();
            if let Ok(read) = quota(&row) {
                if field != "defaultRules" {
                    prop_assert_eq!(read.default_rules[0].limit, 3);
                }
                if field == "saturationThreshold" {
                    prop_assert_eq!(read.saturation_threshold, crate::central::shape::exact(&odd), "{}", shown(&odd));
                }
            }
        }
    }
}
