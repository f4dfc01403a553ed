//! Reads fields of JSON objects and says exactly what does not fit. Fields nobody asks for are ignored; null is the
//! same as absent.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::core::exact::Exact;
use crate::core::time::Epoch;

/// A field that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub(super) struct Misfit {
    /// The field's name on the wire.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) what: String,
}

impl Misfit {
    pub(super) fn new(field: &str, what: impl Into<String>) -> Self {
        Self { field: field.to_owned(), what: what.into() }
    }
}

/// Longest value shown in a message, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// A value as text for a message.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    format!("{}…", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
}

/// The fields of one object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The fields of a value that must be an object.
    pub(super) fn of(value: &'a Value) -> Result<Self, Misfit> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(Misfit::new("row", format!("{} is not an object", shown(other)))),
        }
    }

    /// The value of a field that is there and not null.
    pub(super) fn value(self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        self,
        field: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Misfit> {
        let Some(value) = self.value(field) else { return Ok(None) };
        match read(value) {
            Some(found) => Ok(Some(found)),
            None => Err(Misfit::new(field, format!("{} is not {wanted}", shown(value)))),
        }
    }

    /// A text.
    pub(super) fn text(self, field: &str) -> Result<Option<&'a str>, Misfit> {
        self.read(field, "a text", Value::as_str)
    }

    /// A text that must be there.
    pub(super) fn need_text(self, field: &str) -> Result<&'a str, Misfit> {
        self.text(field)?.ok_or_else(|| Misfit::new(field, "is missing"))
    }

    /// A text, or a number taken as one (ids).
    pub(super) fn id(self, field: &str) -> Result<Option<String>, Misfit> {
        self.read(field, "an id", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// true or false.
    pub(super) fn truth(self, field: &str) -> Result<Option<bool>, Misfit> {
        self.read(field, "true or false", Value::as_bool)
    }

    /// An exact number: integer, float or decimal text.
    pub(super) fn number(self, field: &str) -> Result<Option<Exact>, Misfit> {
        self.read(field, "a number", exact)
    }

    /// A list.
    pub(super) fn list(self, field: &str) -> Result<Option<&'a Vec<Value>>, Misfit> {
        self.read(field, "a list", Value::as_array)
    }

    /// An object.
    pub(super) fn object(self, field: &str) -> Result<Option<&'a Map<String, Value>>, Misfit> {
        self.read(field, "an object", Value::as_object)
    }

    /// An instant, cut to the second.
    pub(super) fn instant(self, field: &str) -> Result<Option<Epoch>, Misfit> {
        Ok(self.exact_instant(field)?.map(|(second, _)| second))
    }

    /// The second, and the nanoseconds past it.
    pub(super) fn exact_instant(self, field: &str) -> Result<Option<(Epoch, u32)>, Misfit> {
        self.read(field, "an instant such as 2026-11-22T06:00:00Z", |value| {
            let instant: Timestamp = value.as_str()?.parse().ok()?;
            let nanoseconds = instant.as_nanosecond();
            let second = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
            Some((Epoch(second), u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?))
        })
    }
}

/// A number from JSON, exactly as it was written. A float with more than 18 digits after the point is noise of a binary
/// fraction and rounded there, unless nothing of it would be left.
pub(super) fn exact(value: &Value) -> Option<Exact> {
    match value {
        Value::String(text) => Exact::parse(text.trim()).ok(),
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                return Some(Exact::whole(whole.into()));
            }
            if let Some(whole) = number.as_u64() {
                return Some(Exact::whole(whole.into()));
            }
            let float = number.as_f64()?;
            if let Ok(exact) = Exact::from_f64(float) {
                return Some(exact);
            }
            let rounded = Exact::parse(&format!("{float:.18}")).ok()?;
            (rounded != Exact::ZERO).then_some(rounded)
        }
        _ => None,
    }
}

/// A whole number.
pub(super) fn whole(number: Exact) -> Option<i128> {
    (number == Exact::whole(number.floor())).then(|| number.floor())
}

/// A number as JSON has it, with a point as the servers write it; `None` when no JSON number says exactly the same.
pub(super) fn json_number(number: Exact) -> Option<Value> {
    let text = number.to_string();
    match text.parse::<f64>().ok().filter(|float| Exact::from_f64(*float) == Ok(number)) {
        Some(float) => Some(float.into()),
        None => text.parse::<i64>().ok().map(Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        let fits = |value: Value, text: &str| assert_eq!(exact(&value).unwrap().to_string(), text);
        fits(json!(5), "5");
        fits(json!(-5), "-5");
        fits(json!(u64::MAX), "18446744073709551615");
        fits(json!(0.015625), "0.015625");
        fits(json!(0.1), "0.1");
        fits(json!(1e3), "1000");
        fits(json!("12.50"), "12.5");
        fits(json!(" 7 "), "7");
        fits(json!(0.000_333_333_333_333_333_3), "0.000333333333333333");
        for bad in [
            json!(null),
            json!(true),
            json!([]),
            json!(""),
            json!("abc"),
            json!("1e3"),
            json!("1,5"),
            json!(1e-30),
            json!(1e300),
        ] {
            assert_eq!(exact(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_number_is_sent_as_it_is_or_not_at_all() {
        let sent = |text: &str| json_number(Exact::parse(text).unwrap()).map(|value| value.to_string());
        for (text, as_json) in [
            ("2000", "2000.0"),
            ("-1", "-1.0"),
            ("0.015625", "0.015625"),
            ("12.5", "12.5"),
            ("9007199254740993", "9007199254740993"),
        ] {
            assert_eq!(sent(text).as_deref(), Some(as_json));
        }
        for text in ["1/3", "0.123456789012345678", "99999999999999999999.5"] {
            assert_eq!(sent(text), None, "{text}");
        }
    }

    #[test]
    fn null_is_absent_and_a_wrong_type_is_named() {
        let row = json!({"a": null, "b": 5, "t": "2026-11-22T07:00:00.9+01:00"});
        let fields = Fields::of(&row).unwrap();
        assert_eq!(fields.text("a"), Ok(None));
        assert_eq!(fields.text("c"), Ok(None));
        assert_eq!(fields.text("b").unwrap_err().to_string(), "b: 5 is not a text");
        assert_eq!(fields.need_text("a").unwrap_err().to_string(), "a: is missing");
        assert_eq!(fields.instant("t").unwrap().unwrap().to_string(), "2026-11-22T06:00:00Z");
        assert!(Fields::of(&json!([])).is_err());
    }
}
