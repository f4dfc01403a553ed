//! Bodies of changed quotas, checked as the schemas of the API page say: every complaint with the place of its field.

use serde_json::{Map, Value, json};

use super::invalid;
use super::state::{Capacity, Policy, Quota, Rule};
use crate::emulator::central::http::{Answer, Request};

/// Most rules of a list and most policies of a quota.
const RULES_MAX: usize = 100;
const POLICIES_MAX: usize = 10_000;

/// Complaints so far, by field; those of nested fields have the fields around them.
#[derive(Default)]
struct Complaints(Map<String, Value>);

impl Complaints {
    fn add(&mut self, field: &str, complaint: impl Into<Value>) {
        self.0.insert(field.to_owned(), complaint.into());
    }

    /// Takes a value, or the complaint about it.
    fn take<T>(&mut self, field: &str, read: Result<T, Value>) -> Option<T> {
        read.map_err(|complaint| self.add(field, complaint)).ok()
    }

    fn end<T>(self, value: Option<T>) -> Result<T, Value> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Value::Object(self.0)),
        }
    }
}

/// The members of an object, all of them known.
struct Members<'a> {
    members: &'a Map<String, Value>,
    complaints: Complaints,
}

impl<'a> Members<'a> {
    fn of(value: &'a Value, known: &[&str]) -> Result<Self, Value> {
        let members = value.as_object().ok_or_else(|| json!("value is not a dict"))?;
        let mut complaints = Complaints::default();
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            complaints.add(name, format!("{name} is not allowed key"));
        }
        Ok(Self { members, complaints })
    }

    fn required<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Value>) -> Option<T> {
        match self.members.get(name) {
            Some(value) => self.complaints.take(name, read(value)),
            None => {
                self.complaints.add(name, "is required");
                None
            }
        }
    }

    fn optional<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Value>) -> Option<T> {
        self.members.get(name).and_then(|value| self.complaints.take(name, read(value)))
    }
}

/// The quota with what the request changes.
///
/// # Errors
/// 422 with every complaint.
pub(super) fn changed(quota: &Quota, request: &Request) -> Result<Quota, Answer> {
    if request.body.is_empty() {
        return Ok(quota.clone());
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Answer::json(400, &json!({"message": format!("Invalid JSON: {error}")})))?;
    read(quota, &body).map_err(|complaints| invalid(&complaints))
}

fn read(quota: &Quota, body: &Value) -> Result<Quota, Value> {
    let mut members = Members::of(body, &["capacity", "defaultRules", "policies", "saturationThreshold"])?;
    let mut changed = quota.clone();
    if let Some(capacity) = members.optional("capacity", capacity) {
        changed.capacity = Some(capacity);
    }
    if let Some(rules) = members.optional("defaultRules", |value| list(value, RULES_MAX, rule)) {
        changed.default_rules = rules;
    }
    if let Some(policies) = members.optional("policies", |value| list(value, POLICIES_MAX, policy)) {
        changed.policies = policies;
    }
    if let Some(threshold) = members.optional("saturationThreshold", share) {
        changed.saturation_threshold = threshold;
    }
    members.complaints.end(Some(changed))
}

fn capacity(value: &Value) -> Result<Capacity, Value> {
    let mut members = Members::of(value, &["capacity", "units"])?;
    let capacity = members.required("capacity", whole);
    let units = members.required("units", |value| word(value, &["requests", "token"]));
    members.complaints.end(capacity.zip(units).map(|(capacity, units)| Capacity { capacity, units }))
}

fn rule(value: &Value) -> Result<Rule, Value> {
    let mut members = Members::of(value, &["limit", "rule", "window"])?;
    let limit = members.required("limit", whole);
    let kinds = ["concurrentRequests", "inputSequenceLength", "requests", "token"];
    let kind = members.required("rule", |value| word(value, &kinds));
    let window = members.optional("window", |value| word(value, &["day", "hour", "min"]));
    let window = window.unwrap_or_else(|| "min".to_owned());
    members.complaints.end(limit.zip(kind).map(|(limit, rule)| Rule { rule, limit, window }))
}

fn policy(value: &Value) -> Result<Policy, Value> {
    let known = ["consumerId", "consumerName", "consumerType", "reserved", "rules"];
    let mut members = Members::of(value, &known)?;
    let consumer_id = members.required("consumerId", text);
    let kinds = ["deployment", "user", "usergroup"];
    let consumer_type = members.required("consumerType", |value| word(value, &kinds));
    let rules = members.required("rules", |value| list(value, RULES_MAX, rule));
    let name = |value: &Value| if value.is_null() { Ok(None) } else { text(value).map(Some) };
    let consumer_name = members.optional("consumerName", name).flatten();
    let reserved = members.optional("reserved", share).flatten();
    let read = consumer_id.zip(consumer_type).zip(rules);
    members.complaints.end(read.map(|((consumer_id, consumer_type), rules)| Policy {
        consumer_id,
        consumer_name,
        consumer_type,
        reserved,
        rules,
    }))
}

/// A list of at most so many items; complaints have the place of their item.
fn list<T>(value: &Value, most: usize, read: fn(&Value) -> Result<T, Value>) -> Result<Vec<T>, Value> {
    let items = value.as_array().ok_or_else(|| json!("value is not a list"))?;
    if items.len() > most {
        return Err(json!(format!("list length is greater than {most}")));
    }
    let mut complaints = Complaints::default();
    let read = items
        .iter()
        .enumerate()
        .filter_map(|(at, item)| complaints.take(&at.to_string(), read(item)))
        .collect();
    complaints.end(Some(read))
}

fn text(value: &Value) -> Result<String, Value> {
    value.as_str().map(str::to_owned).ok_or_else(|| json!("value is not a string"))
}

fn word(value: &Value, words: &[&str]) -> Result<String, Value> {
    let text = text(value)?;
    if words.contains(&text.as_str()) { Ok(text) } else { Err(json!("value doesn't match any variant")) }
}

/// A whole number from 0 on.
fn whole(value: &Value) -> Result<u64, Value> {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(number), _) => Ok(number),
            (None, Some(number)) if number.fract() == 0.0 && number < 0.0 => {
                Err(json!("value is less than 0"))
            }
            _ => Err(json!("value is not int")),
        },
        _ => Err(json!("value is not int")),
    }
}

/// A share from 0 to 1, or null.
fn share(value: &Value) -> Result<Option<f64>, Value> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => match number.as_f64() {
            Some(share) if share < 0.0 => Err(json!("value is less than 0")),
            Some(share) if share > 1.0 => Err(json!("value is greater than 1")),
            share => Ok(share),
        },
        _ => Err(json!("value is not float")),
    }
}
