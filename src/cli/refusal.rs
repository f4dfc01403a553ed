//! What the server refuses, told field by field.

use serde_json::Value;

use crate::agent::error::AgentError;
use crate::central::{CentralError, Class};
use crate::cli::render::printable;

/// A refusal becomes the operator's to mend (exit code 2); everything else stays what it is.
pub fn explained(error: CentralError) -> AgentError {
    match error {
        CentralError::Refused { status, complaints: Some(complaints), .. } => {
            let mut lines = vec![format!("the server refused this (status {status}):")];
            tell(&complaints, "", &mut lines);
            AgentError::Asked(lines.join("\n"))
        }
        other if other.class() == Class::Refused => AgentError::Asked(other.to_string()),
        other => AgentError::Central(other),
    }
}

/// One line per message, with the place of the field: `component_limits_set[1].limit: A valid integer is required.`
fn tell(complaint: &Value, place: &str, lines: &mut Vec<String>) {
    match complaint {
        Value::Object(fields) => {
            for (name, complaint) in fields {
                let unnamed = name == "non_field_errors" || name == "detail";
                let inner = match (place.is_empty(), unnamed) {
                    (_, true) => place.to_owned(),
                    (true, false) => name.clone(),
                    (false, false) => format!("{place}.{name}"),
                };
                tell(complaint, &inner, lines);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let inner = if item.is_object() { format!("{place}[{index}]") } else { place.to_owned() };
                tell(item, &inner, lines);
            }
        }
        message => {
            let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
            let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
            lines.push(format!("  {}", printable(&format!("{place}{message}"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_message_is_told_with_the_place_of_its_field() {
        let mut lines = Vec::new();
        let complaints = json!({
            "actions": ["This field is required."],
            "component_limits_set": [{}, {"limit": ["A valid integer is required."]}],
            "non_field_errors": ["Duplicate.", 7],
        });
        tell(&complaints, "", &mut lines);
        assert_eq!(
            lines,
            [
                "  actions: This field is required.",
                "  component_limits_set[1].limit: A valid integer is required.",
                "  Duplicate.",
                "  7"
            ]
        );
    }
}
