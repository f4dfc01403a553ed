//! Tables of what the server answers. Values that are not known are shown as they came.

use serde_json::{Map, Value};

use crate::cli::render::{self, printable};

/// A value as a person reads it: texts plain, lists with commas, nothing as `-`.
pub fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(truth)) => if *truth { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(", ")
        }
        Some(Value::Object(members)) if members.is_empty() => "-".to_owned(),
        Some(Value::Object(members)) => {
            let one = |(name, value): (&String, &Value)| format!("{name}={}", plain(Some(value)));
            members.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        // A whole number without a fraction, others in the shortest text that reads back to them.
        Some(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => float.to_string(),
            None => number.to_string(),
        },
    }
}

/// A percentage with two digits after the point, never a negative 0; anything but a number as it came.
fn percent(row: &Value) -> String {
    let value = row.get("usage_percentage");
    value.and_then(Value::as_f64).map_or_else(|| plain(value), |percent| format!("{:.2}", percent + 0.0))
}

fn field(row: &Value, name: &str) -> String {
    plain(row.get(name))
}

fn table(header: &[&str], rows: &[Value], cells: impl Fn(&Value) -> Vec<String>) -> String {
    if rows.is_empty() {
        return "none\n".to_owned();
    }
    render::table("", header, rows.iter().map(cells).collect())
}

/// Policies, one line each.
pub fn policies(rows: &[Value]) -> String {
    table(
        &["UUID", "Offering", "Period", "Actions", "Grace", "Carryover", "Fired", "Warnings"],
        rows,
        |row| {
            let carried = row.get("carryover_enabled").and_then(Value::as_bool).unwrap_or(true);
            vec![
                field(row, "uuid"),
                field(row, "scope_name"),
                period(row),
                field(row, "actions"),
                field(row, "grace_ratio"),
                if carried { format!("{} %", field(row, "carryover_factor")) } else { "off".to_owned() },
                field(row, "has_fired"),
                row.get("warnings").and_then(Value::as_array).map_or(0, Vec::len).to_string(),
            ]
        },
    )
}

fn period(row: &Value) -> String {
    let word = match row.get("period").and_then(Value::as_i64) {
        Some(1) => "total",
        Some(2) => "month",
        Some(3) => "quarter",
        Some(4) => "year",
        _ => return field(row, "period"),
    };
    word.to_owned()
}

/// One policy: every field the server sent, warnings last.
pub fn policy(row: &Value) -> String {
    let mut text = match row {
        Value::Object(fields) => fields_table(fields),
        other => format!("{}\n", printable(&plain(Some(other)))),
    };
    for warning in row.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("! {}\n", printable(&plain(Some(warning)))));
    }
    text
}

fn fields_table(fields: &Map<String, Value>) -> String {
    let shown = fields.iter().filter(|(name, _)| *name != "warnings");
    let limits = |value: &Value| -> Option<String> {
        let one = |limit: &Value| Some(format!("{}={}", limit.get("type")?.as_str()?, limit.get("limit")?));
        let all: Option<Vec<String>> = value.as_array()?.iter().map(one).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.join(" "))
    };
    let row = |(name, value): (&String, &Value)| {
        let value = if name == "component_limits_set" { limits(value) } else { None }
            .unwrap_or_else(|| plain(Some(value)));
        vec![name.clone(), value]
    };
    render::table("", &["Field", "Value"], shown.map(row).collect())
}

/// A body that will be sent.
pub fn body(body: &Value) -> String {
    body.as_object().map(fields_table).unwrap_or_default()
}

/// What a change means: each field as it is and as it will be.
pub fn changes(present: &Value, wanted: &Map<String, Value>) -> String {
    let row = |(name, value): (&String, &Value)| vec![name.clone(), field(present, name), plain(Some(value))];
    render::table("", &["Field", "Now", "Then"], wanted.iter().map(row).collect())
}

/// Each value on its line.
pub fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{}\n", printable(&plain(Some(row))))).collect()
}

fn resources(answer: &Value) -> &[Value] {
    answer.get("resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What an evaluation would do.
pub fn dry_run(answer: &Value) -> String {
    let head = format!(
        "period {}, blocked at {} %\n\n",
        printable(&field(answer, "billing_period")),
        printable(&field(answer, "grace_limit_percentage"))
    );
    let rows = table(&["Resource", "%", "Paused", "Downscaled", "Would trigger"], resources(answer), |row| {
        vec![
            field(row, "resource_name"),
            percent(row),
            field(row, "paused"),
            field(row, "downscaled"),
            field(row, "would_trigger"),
        ]
    });
    head + &rows
}

/// What an evaluation did.
pub fn evaluated(answer: &Value) -> String {
    let head = format!("period {}\n\n", printable(&field(answer, "billing_period")));
    let header = ["Resource", "%", "Actions taken", "Before", "After"];
    let rows = table(&header, resources(answer), |row| {
        vec![
            field(row, "resource_name"),
            percent(row),
            field(row, "actions_taken"),
            restrictions(row.get("previous_state")),
            restrictions(row.get("new_state")),
        ]
    });
    head + &rows
}

/// `paused`, `downscaled`, both or `free`.
fn restrictions(state: Option<&Value>) -> String {
    let Some(Value::Object(state)) = state else { return plain(state) };
    let set = |(name, value): (&String, &Value)| match value {
        Value::Bool(true) => Some(name.clone()),
        Value::Bool(false) => None,
        other => Some(format!("{name}={}", plain(Some(other)))),
    };
    let all: Vec<String> = state.iter().filter_map(set).collect();
    if all.is_empty() { "free".to_owned() } else { all.join("+") }
}

/// Evaluation logs.
pub fn logs(rows: &[Value]) -> String {
    let header = [
        "Evaluated",
        "Resource",
        "Period",
        "%",
        "Limit",
        "Actions taken",
        "Before",
        "After",
        "Sent",
        "Agent",
    ];
    table(&header, rows, |row| {
        vec![
            field(row, "evaluated_at"),
            field(row, "resource_name"),
            field(row, "billing_period"),
            percent(row),
            field(row, "grace_limit_percentage"),
            field(row, "actions_taken"),
            restrictions(row.get("previous_state")),
            restrictions(row.get("new_state")),
            field(row, "stomp_message_sent"),
            verdict(row),
        ]
    })
}

fn verdict(row: &Value) -> String {
    match row.get("site_agent_confirmed") {
        Some(Value::Bool(true)) => "done".to_owned(),
        Some(Value::Bool(false)) => {
            let why = row.get("site_agent_response").and_then(|answer| answer.get("error_message"));
            format!("failed: {}", plain(why))
        }
        _ => "-".to_owned(),
    }
}

/// Commands that the server issued.
pub fn commands(rows: &[Value]) -> String {
    table(&["Issued", "Type", "Account", "Mode", "Success", "What", "Error", "UUID"], rows, |row| {
        vec![
            field(row, "executed_at"),
            field(row, "command_type"),
            plain(row.get("parameters").and_then(|parameters| parameters.get("account"))),
            field(row, "execution_mode"),
            field(row, "success"),
            field(row, "description"),
            field(row, "error_message"),
            field(row, "uuid"),
        ]
    })
}
