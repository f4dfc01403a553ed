//! Reading of request bodies field by field, with Django REST framework's messages.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::http::Answer;

/// A request body and the complaints about it so far.
pub(crate) struct Fields {
    body: Map<String, Value>,
    errors: Map<String, Value>,
}

impl Fields {
    pub fn new(body: Map<String, Value>) -> Self {
        Self { body, errors: Map::new() }
    }

    /// Records a complaint.
    pub fn reject(&mut self, name: &str, message: impl Into<String>) {
        let message = Value::String(message.into());
        match self.errors.get_mut(name) {
            Some(Value::Array(messages)) => messages.push(message),
            _ => {
                self.errors.insert(name.to_owned(), Value::Array(vec![message]));
            }
        }
    }

    /// Records complaints in a shape of their own, for nested fields.
    pub fn reject_with(&mut self, name: &str, complaint: Value) {
        self.errors.insert(name.to_owned(), complaint);
    }

    /// The 400 with all complaints, if there are any.
    pub fn check(&self) -> Result<(), Answer> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Answer::json(400, &Value::Object(self.errors.clone())))
        }
    }

    /// The value as it came, if it came.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.body.get(name)
    }

    /// Complains when a field is absent.
    pub fn require(&mut self, name: &str) {
        if !self.body.contains_key(name) {
            self.reject(name, "This field is required.");
        }
    }

    fn present(&mut self, name: &str) -> Option<Value> {
        let value = self.body.get(name)?.clone();
        if value.is_null() {
            self.reject(name, "This field may not be null.");
            return None;
        }
        Some(value)
    }

    /// A truth value; Django takes several spellings.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.present(name)?;
        let parsed = match &value {
            Value::Bool(truth) => Some(*truth),
            Value::Number(number) if number.as_i64() == Some(1) => Some(true),
            Value::Number(number) if number.as_i64() == Some(0) => Some(false),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if parsed.is_none() {
            self.reject(name, "Must be a valid boolean.");
        }
        parsed
    }

    /// A number within bounds.
    pub fn float(&mut self, name: &str, bounds: (f64, f64)) -> Option<f64> {
        let value = self.present(name)?;
        let parsed = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        let Some(number) = parsed else {
            self.reject(name, "A valid number is required.");
            return None;
        };
        self.within(name, number, bounds).then_some(number)
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, name: &str, bounds: (f64, f64)) -> Option<i64> {
        let value = self.present(name)?;
        let parsed = match &value {
            Value::Number(number) => {
                number.as_i64().or_else(|| number.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64))
            }
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = parsed else {
            self.reject(name, "A valid integer is required.");
            return None;
        };
        self.within(name, number as f64, bounds).then_some(number)
    }

    fn within(&mut self, name: &str, number: f64, (least, most): (f64, f64)) -> bool {
        if number < least {
            self.reject(name, format!("Ensure this value is greater than or equal to {least}."));
        } else if number > most {
            self.reject(name, format!("Ensure this value is less than or equal to {most}."));
        }
        (least..=most).contains(&number)
    }

    /// Text; blank only where allowed.
    pub fn text(&mut self, name: &str, blank_allowed: bool) -> Option<String> {
        let value = self.present(name)?;
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            _ => {
                self.reject(name, "Not a valid string.");
                return None;
            }
        };
        if text.is_empty() && !blank_allowed {
            self.reject(name, "This field may not be blank.");
            return None;
        }
        Some(text)
    }

    /// One of a few words.
    pub fn choice(&mut self, name: &str, choices: &[&str]) -> Option<String> {
        let value = self.present(name)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if choices.contains(&text.as_str()) {
            return Some(text);
        }
        self.reject(name, format!("\"{text}\" is not a valid choice."));
        None
    }

    /// A uuid with or without dashes; null only where allowed.
    pub fn uuid(&mut self, name: &str, null_allowed: bool) -> Option<Uuid> {
        if null_allowed && self.body.get(name).is_some_and(Value::is_null) {
            return None;
        }
        let value = self.present(name)?;
        let parsed = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
        if parsed.is_none() {
            self.reject(name, "Must be a valid UUID.");
        }
        parsed
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let value = self.present(name)?;
        let Value::Array(items) = value else {
            let got = super::super::http::python_type(&value);
            self.reject(name, format!("Expected a list of items but got type \"{got}\"."));
            return None;
        };
        let texts: Vec<String> = items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.len() != items.len() {
            let at = items.iter().position(|item| !item.is_string()).unwrap_or_default().to_string();
            self.reject_with(name, json!({at: ["Not a valid string."]}));
            return None;
        }
        Some(texts)
    }

    /// A JSON object.
    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.present(name)? {
            Value::Object(members) => Some(members),
            _ => {
                self.reject(name, "Value must be a JSON object.");
                None
            }
        }
    }
}
