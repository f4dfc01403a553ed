//! Quotas as tables for people and as JSON for scripts.

use serde::Serialize;
use serde_json::{Value, json};

use crate::central::Notice;
use crate::cli::render;
use crate::config::Source;
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::quota::Bound;

/// An answer of a verb.
pub struct Listed {
    /// For people.
    pub text: String,
    /// For scripts.
    pub json: Value,
    /// What was not understood.
    pub notices: Vec<String>,
}

impl Listed {
    /// The quotas of a source of the configuration under a heading.
    pub fn of(source: &Source, unit: &str, table: &str, quotas: Vec<Value>, notices: &[Notice]) -> Listed {
        Listed::from((source.name.as_str(), source.kind.as_str()), unit, table, quotas, notices)
    }

    /// Quotas under a heading that says where they are from: name and kind.
    pub fn from(
        (source, kind): (&str, &str),
        unit: &str,
        table: &str,
        quotas: Vec<Value>,
        notices: &[Notice],
    ) -> Listed {
        let table = if table.is_empty() { "none\n\n" } else { table };
        let notices: Vec<String> = notices.iter().map(ToString::to_string).collect();
        Listed {
            text: format!("{source} ({kind}{unit})\n{table}"),
            json: json!({"source": source, "kind": kind, "quotas": quotas, "notices": notices}),
            notices,
        }
    }
}

/// A bound for people.
pub fn bound(bound: Bound) -> String {
    match bound {
        Bound::Unlimited => "unlimited".to_owned(),
        Bound::AtMost(most) => most.to_string(),
    }
}

/// An account for people.
pub fn account(account: Option<&AccountName>) -> String {
    account.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A quota for scripts: numbers as numbers, and the account it is for.
pub fn json_of<T: Serialize>(quota: &T, account: Option<&AccountName>) -> Value {
    let mut value = readable(serde_json::to_value(quota).unwrap_or_default());
    value["account"] = json!(account);
    value
}

/// Amounts that the domain keeps as text become numbers.
fn readable(value: Value) -> Value {
    const AMOUNTS: [&str; 4] = ["usage", "threshold", "reserved", "saturation_threshold"];
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(readable).collect()),
        Value::Object(members) => {
            if let (1, Some(Value::String(most))) = (members.len(), members.get("at_most")) {
                return number(most);
            }
            let one = |(name, value): (String, Value)| {
                let value = match value {
                    Value::String(text) if AMOUNTS.contains(&name.as_str()) => number(&text),
                    other => readable(other),
                };
                (name, value)
            };
            Value::Object(members.into_iter().map(one).collect())
        }
        other => other,
    }
}

/// The number of a text; a text that no number says exactly stays one.
fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    let float = text.parse::<f64>().ok().filter(|float| {
        Exact::from_f64(*float).is_ok_and(|exact| Exact::parse(text).is_ok_and(|asked| asked == exact))
    });
    float.map_or_else(|| Value::from(text), Value::from)
}

/// What a change means, field by field; those that stay are left out. None when nothing changes.
pub fn changes(rows: Vec<(String, String, String)>) -> Option<String> {
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(field, now, then)| vec![field, now, then])
        .collect();
    (!rows.is_empty()).then(|| render::table("", &["Field", "Now", "Then"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::quota::BudgetQuota;

    #[test]
    fn scripts_get_numbers_where_numbers_are_and_words_where_there_is_none() {
        let quota = BudgetQuota {
            id: "6".into(),
            name: "cpu".into(),
            scope: "http://x/".into(),
            limit: Bound::AtMost(Exact::parse("1.5").unwrap()),
            usage: Exact::whole(7),
            threshold: None,
        };
        let account = AccountName::parse("bio42").unwrap();
        let expected = json!({"id": "6", "name": "cpu", "scope": "http://x/", "limit": 1.5, "usage": 7,
                              "threshold": null, "account": "bio42"});
        assert_eq!(json_of(&quota, Some(&account)), expected);
        let quota = BudgetQuota { limit: Bound::Unlimited, usage: Exact::parse("1/3").unwrap(), ..quota };
        let got = json_of(&quota, None);
        assert_eq!(
            (&got["limit"], &got["usage"], &got["account"]),
            (&json!("unlimited"), &json!("1/3"), &Value::Null)
        );
    }
}
