//! Amounts of component usage as Waldur keeps them: a decimal of at most 20 digits, two of them
//! after the point.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most digits of an amount in all (Waldur's `max_digits`).
const DIGITS_MAX: usize = 20;
/// Most digits after the point (Waldur's `decimal_places`).
const DECIMALS_MAX: usize = 2;

/// An amount in hundredths of the component's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

impl Amount {
    /// An amount of so many hundredths.
    pub fn from_hundredths(hundredths: i128) -> Self {
        Amount(hundredths)
    }

    /// The amount in hundredths.
    pub fn hundredths(self) -> i128 {
        self.0
    }

    /// The amount cut to whole units.
    pub fn whole(self) -> i128 {
        self.0 / 100
    }

    /// The amount as the server's floating formulas see it.
    pub fn to_f64(self) -> f64 {
        // Two exact conversions and one rounding division: what float(Decimal) gives up to 2^53.
        self.0 as f64 / 100.0
    }

    /// Reads a decimal as Waldur's serializer does.
    ///
    /// # Errors
    /// The message Waldur answers with.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err("A valid number is required.".to_owned());
        }
        let whole = whole.trim_start_matches('0');
        if fraction.len() > DECIMALS_MAX {
            return Err(format!("Ensure that there are no more than {DECIMALS_MAX} decimal places."));
        }
        if whole.len() + fraction.len() > DIGITS_MAX {
            return Err(format!("Ensure that there are no more than {DIGITS_MAX} digits in total."));
        }
        if whole.len() > DIGITS_MAX - DECIMALS_MAX {
            return Err(format!(
                "Ensure that there are no more than {} digits before the decimal point.",
                DIGITS_MAX - DECIMALS_MAX
            ));
        }
        let hundredths = format!("{whole}{fraction:0<2}")
            .parse::<i128>()
            .map_err(|_| "A valid number is required.".to_owned())?;
        Ok(Amount(if negative { -hundredths } else { hundredths }))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", size / 100, size % 100)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            other => return Err(de::Error::custom(format!("an amount is a number or text, not {other}"))),
        };
        Amount::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Amount;

    #[test]
    fn an_amount_keeps_two_decimals_exactly_and_refuses_a_third() {
        for (text, hundredths) in [
            ("12.5", 1250),
            ("0.01", 1),
            (".5", 50),
            ("007", 700),
            ("-3.20", -320),
            ("999999999999999999.99", 99_999_999_999_999_999_999),
        ] {
            assert_eq!(Amount::parse(text), Ok(Amount(hundredths)), "{text}");
        }
        assert_eq!(Amount(1250).to_string(), "12.50");
        assert_eq!(Amount(-5).to_string(), "-0.05");
        assert!(Amount::parse("1.234").unwrap_err().contains("2 decimal places"));
        assert!(Amount::parse("1234567890123456789").unwrap_err().contains("before the decimal point"));
        for text in ["", ".", "1e5", "1,5", "NaN", "--1"] {
            assert_eq!(Amount::parse(text), Err("A valid number is required.".to_owned()), "{text}");
        }
    }
}
