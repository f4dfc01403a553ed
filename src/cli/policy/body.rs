//! The body of a policy from a file and from flags.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde_json::{Map, Number, Value, json};

use crate::agent::error::AgentError;
use crate::central::waldur::WaldurClient;

/// Largest body that is read from a file; a policy has below 10 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a policy says. Words that the server does not know are sent as they are: it judges them.
#[derive(Debug, Clone, Args)]
pub struct BodyArgs {
    /// The body as JSON or TOML (`-`: standard input); flags go above it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Comma-separated; `policy actions` names them.
    #[arg(long, value_name = "NAMES")]
    actions: Option<String>,
    /// total, month, quarter or year.
    #[arg(long, value_name = "WORD")]
    period: Option<String>,
    /// GrpTRESMins, MaxTRESMins or GrpTRES.
    #[arg(long, value_name = "WORD")]
    limit_type: Option<String>,
    /// threshold or progressive.
    #[arg(long, value_name = "WORD")]
    qos_strategy: Option<String>,
    /// Tolerated share above the allocation: 0.2 blocks at 120 %.
    #[arg(long, value_name = "SHARE", value_parser = number)]
    grace_ratio: Option<Number>,
    /// Whether what a period left over goes to the next.
    #[arg(long, value_name = "BOOL")]
    carryover_enabled: Option<bool>,
    /// Most that goes over, percent of the allocation.
    #[arg(long, value_name = "PERCENT", value_parser = number)]
    carryover_factor: Option<Number>,
    /// Whether raw usage is zeroed when a period begins.
    #[arg(long, value_name = "BOOL")]
    raw_usage_reset: Option<bool>,
    /// Whether the weighted sum decides; without, the component that is closest to its total.
    #[arg(long, value_name = "BOOL")]
    tres_billing_enabled: Option<bool>,
    /// Weight of a component, repeated: CPU=0.015625.
    #[arg(long = "weight", value_name = "NAME=WEIGHT", value_parser = pair)]
    weights: Vec<(String, Number)>,
    /// Limit of a component, repeated: cpu=1000.
    #[arg(long = "component-limit", value_name = "TYPE=LIMIT", value_parser = pair)]
    component_limits: Vec<(String, Number)>,
    /// For every customer.
    #[arg(long, value_name = "BOOL")]
    apply_to_all: Option<bool>,
    /// Address of an organization group that it is for, repeated.
    #[arg(long = "organization-group", value_name = "URL")]
    organization_groups: Vec<String>,
}

/// A number as it is written: no digit is lost on the way.
pub fn number(text: &str) -> Result<Number, String> {
    Number::from_str(text).map_err(|_| format!("{text:?} is not a number"))
}

fn pair(text: &str) -> Result<(String, Number), String> {
    match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), number(value)?)),
        _ => Err(format!("{text:?} is not NAME=NUMBER")),
    }
}

impl BodyArgs {
    /// What is given, and nothing else.
    ///
    /// # Errors
    /// When nothing is given, or the file cannot be used.
    pub fn changes(&self) -> Result<Map<String, Value>, AgentError> {
        let given = self.given()?;
        if given.is_empty() {
            return Err(AgentError::Asked(
                "say what the policy is to be: --file or one of the flags (see --help)".into(),
            ));
        }
        Ok(given)
    }

    /// What is given, with the fields that the server demands and that have only one sensible value here.
    ///
    /// # Errors
    /// When nothing is given, or the file cannot be used.
    pub fn new_policy(&self, client: &WaldurClient) -> Result<Map<String, Value>, AgentError> {
        let mut body = self.changes()?;
        body.entry("scope").or_insert_with(|| json!(client.scope()));
        body.entry("component_limits_set").or_insert_with(|| json!([]));
        let groups = body.get("organization_groups").and_then(Value::as_array);
        if groups.is_none_or(Vec::is_empty) {
            body.entry("apply_to_all").or_insert(json!(true));
        }
        Ok(body)
    }

    fn given(&self) -> Result<Map<String, Value>, AgentError> {
        let mut body = self.file.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let digits = |number: &Option<Number>| number.clone().map(Value::Number);
        put("actions", text(&self.actions));
        put("period", self.period.as_deref().map(period));
        put("limit_type", text(&self.limit_type));
        put("qos_strategy", text(&self.qos_strategy));
        put("grace_ratio", digits(&self.grace_ratio));
        put("carryover_enabled", self.carryover_enabled.map(Value::from));
        put("carryover_factor", digits(&self.carryover_factor));
        put("raw_usage_reset", self.raw_usage_reset.map(Value::from));
        put("tres_billing_enabled", self.tres_billing_enabled.map(Value::from));
        put("apply_to_all", self.apply_to_all.map(Value::from));
        let weights: Map<String, Value> = self.weights.iter().map(|(n, w)| (n.clone(), json!(w))).collect();
        put("tres_billing_weights", (!weights.is_empty()).then_some(Value::Object(weights)));
        let limit = |(name, limit): &(String, Number)| json!({"type": name, "limit": limit});
        let limits: Vec<Value> = self.component_limits.iter().map(limit).collect();
        put("component_limits_set", (!limits.is_empty()).then_some(Value::Array(limits)));
        let groups = &self.organization_groups;
        put("organization_groups", (!groups.is_empty()).then(|| json!(groups)));
        Ok(body)
    }
}

/// The server's number for a word; anything else goes as it is.
fn period(word: &str) -> Value {
    match word.to_ascii_lowercase().as_str() {
        "total" => json!(1),
        "month" => json!(2),
        "quarter" => json!(3),
        "year" => json!(4),
        _ => word.parse::<i64>().map_or_else(|_| json!(word), |number| json!(number)),
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, AgentError> {
    let unusable = |why: String| AgentError::Asked(format!("the file {}: {why}", path.display()));
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?)
    };
    let mut text = String::new();
    let size = source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if size.map_err(|error| unusable(error.to_string()))? as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    parse(&text).map_err(unusable)
}

/// JSON begins with a brace; TOML cannot.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| format!("is not a JSON object: {error}"))
    } else {
        toml::from_str(text).map_err(|error| format!("is neither a JSON object nor TOML: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_from_json_and_toml_alike() {
        let toml =
            parse("period = 2\ngrace_ratio = 0.3\n[[component_limits_set]]\ntype = \"cpu\"\nlimit = 5\n");
        let json = parse(
            r#" {"period": 2, "grace_ratio": 0.3, "component_limits_set": [{"type": "cpu", "limit": 5}]}"#,
        );
        assert_eq!(toml.unwrap(), json.unwrap());
        assert!(parse("[1, 2").unwrap_err().contains("neither"));
        assert!(parse("{\"period\": ").unwrap_err().contains("JSON"));
    }

    #[test]
    fn a_word_becomes_the_servers_number_and_an_unknown_one_is_left_to_the_server() {
        assert_eq!(["Month", "4", "fortnight"].map(period), [json!(2), json!(4), json!("fortnight")]);
    }

    #[test]
    fn a_weight_keeps_its_digits_and_its_name_may_hold_a_slash() {
        assert_eq!(pair("GRES/gpu=0.25").unwrap(), ("GRES/gpu".to_owned(), number("0.25").unwrap()));
        assert!(pair("cpu").is_err() && pair("=1").is_err() && pair("cpu=NaN").is_err());
    }
}
