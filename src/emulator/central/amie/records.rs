//! Records as they arrive: their kinds, required members and formats.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The three kinds of records; one kind per message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UsageType {
    Compute,
    Storage,
    Adjustment,
}

impl UsageType {
    /// From its name, whose case does not matter.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Compute, Self::Storage, Self::Adjustment]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "Compute",
            Self::Storage => "Storage",
            Self::Adjustment => "Adjustment",
        }
    }

    fn times(self) -> &'static [&'static str] {
        match self {
            Self::Compute => &["SubmitTime", "StartTime", "EndTime"],
            Self::Storage => &["CollectionTime"],
            Self::Adjustment => &["StartTime"],
        }
    }
}

/// Members every record has.
const REQUIRED: [&str; 5] = ["Username", "LocalProjectID", "LocalRecordID", "Resource", "Charge"];

/// Longest text of an identifying member, in characters.
const TEXT_MAX: usize = 255;

const ADJUSTMENT_TYPES: [&str; 6] =
    ["credit", "refund", "storage-credit", "debit", "reservation", "storage-debit"];

/// The text of a member; nothing when it is absent or no text.
pub(super) fn text<'a>(record: &'a Map<String, Value>, name: &str) -> &'a str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Checks a record and gives it without members that only describe the message.
///
/// # Errors
/// What is wrong first, in a sentence.
pub(super) fn validate(usage_type: UsageType, record: &Value) -> Result<Map<String, Value>, String> {
    let Value::Object(record) = record else { return Err("record is not an object".to_owned()) };
    for name in REQUIRED {
        match record.get(name) {
            Some(Value::String(value)) if value.trim().is_empty() => return Err(format!("{name} is empty")),
            Some(Value::String(value)) if value.chars().count() > TEXT_MAX => {
                return Err(format!("{name} is longer than {TEXT_MAX} characters"));
            }
            Some(Value::String(_)) => {}
            Some(Value::Number(_)) if name == "Charge" => {}
            Some(_) => return Err(format!("{name} must be text")),
            None => return Err(format!("{name} is required")),
        }
    }
    let charge = match &record["Charge"] {
        Value::String(charge) => charge.clone(),
        other => other.to_string(),
    };
    let charge =
        Charge::parse(&charge).ok_or_else(|| format!("Charge {charge:?} is not a decimal number"))?;
    if charge.is_negative() {
        return Err("Charge is negative".to_owned());
    }
    let times = times(usage_type, record)?;
    if let [submitted, started, ended] = times.as_slice()
        && !(submitted <= started && started <= ended)
    {
        return Err("SubmitTime, StartTime and EndTime are out of order".to_owned());
    }
    attributes(usage_type, record)?;
    let mut accepted = record.clone();
    if record["Charge"].is_number() {
        accepted.insert("Charge".to_owned(), Value::String(charge.to_string()));
    }
    accepted.remove("UsageType");
    Ok(accepted)
}

fn times(usage_type: UsageType, record: &Map<String, Value>) -> Result<Vec<Timestamp>, String> {
    usage_type
        .times()
        .iter()
        .map(|name| match record.get(*name) {
            Some(Value::String(value)) => {
                parse_time(value).ok_or_else(|| format!("{name} {value:?} is not an ISO 8601 time"))
            }
            Some(_) => Err(format!("{name} must be text")),
            None => Err(format!("{name} is required")),
        })
        .collect()
}

fn attributes(usage_type: UsageType, record: &Map<String, Value>) -> Result<(), String> {
    match (usage_type, record.get("Attributes")) {
        (_, Some(other)) if !other.is_object() => Err("Attributes must be an object".to_owned()),
        (UsageType::Compute, attributes) => {
            let nodes = attributes.and_then(|attributes| attributes.get("NodeCount"));
            let count = match nodes {
                Some(Value::String(count)) => count.parse().ok(),
                Some(Value::Number(count)) => count.as_u64(),
                _ => return Err("NodeCount is required".to_owned()),
            };
            if count.is_none() {
                return Err("NodeCount must be a whole number".to_owned());
            }
            match record.get("ParentRecordID") {
                None | Some(Value::Null | Value::String(_) | Value::Array(_)) => Ok(()),
                Some(_) => Err("ParentRecordID must be text".to_owned()),
            }
        }
        (UsageType::Adjustment, _) => {
            let kind = text(record, "AdjustmentType").to_ascii_lowercase();
            if ADJUSTMENT_TYPES.contains(&kind.as_str()) {
                Ok(())
            } else {
                Err(format!("AdjustmentType must be one of {}", ADJUSTMENT_TYPES.join(", ")))
            }
        }
        (UsageType::Storage, _) => Ok(()),
    }
}

/// A time with an offset, or a bare one taken as UTC.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant);
    }
    let bare: DateTime = text.parse().ok()?;
    bare.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// An exact decimal of any size a record carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// In units of ten to the minus [`Charge::SCALE`].
    units: i128,
}

impl Charge {
    /// Digits after the point that are kept.
    const SCALE: usize = 12;

    /// Reads a decimal with at most twelve digits after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        if fraction.len() > Self::SCALE {
            return None;
        }
        let units: i128 = format!("{whole}{fraction:0<width$}", width = Self::SCALE).parse().ok()?;
        Some(Self { units: if negative { -units } else { units } })
    }

    pub fn is_negative(&self) -> bool {
        self.units < 0
    }

    /// The sum, which stays at the end of the range rather than wrap.
    pub fn plus(&self, other: &Self) -> Self {
        Self { units: self.units.saturating_add(other.units) }
    }
}

impl fmt::Display for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_u128.pow(u32::try_from(Self::SCALE).unwrap_or_default());
        let size = self.units.unsigned_abs();
        let sign = if self.units < 0 { "-" } else { "" };
        let fraction = format!("{:0width$}", size % scale, width = Self::SCALE);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{sign}{}", size / scale),
            digits => write!(f, "{sign}{}.{digits}", size / scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_exactly() {
        let sum = |charges: &[&str]| {
            charges
                .iter()
                .fold(Charge::default(), |sum, text| sum.plus(&Charge::parse(text).unwrap()))
                .to_string()
        };
        assert_eq!(sum(&["0.1", "0.2"]), "0.3");
        assert_eq!(sum(&["12.50", "7.5"]), "20");
        assert_eq!(sum(&["1", "-0.000000000001"]), "0.999999999999");
        assert_eq!(sum(&[]), "0");
        for text in ["", ".", "1e3", "1,0", "0.0000000000001", "x"] {
            assert_eq!(Charge::parse(text), None, "{text}");
        }
    }
}
