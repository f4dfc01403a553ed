//! Exact fractions: weights, shares, amounts in hours. No floating point takes part in a decision.

use std::cmp::Ordering;
use std::fmt;

use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, CheckedSub};
use serde::{Deserialize, Serialize};

/// Most digits after the point that a number from outside may have; more cannot be told apart from noise of
/// a binary fraction.
pub const FRACTION_DIGITS_MAX: usize = 18;

/// An exact fraction of two 128-bit integers. Arithmetic is checked: `None` means the result has no room,
/// which a caller turns into "undecided", never into a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Exact(Ratio<i128>);

/// A text that is not a decimal number or fraction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a decimal number with at most 18 digits after the point")]
pub struct ExactError(pub String);

impl Exact {
    /// 0.
    pub const ZERO: Exact = Exact(Ratio::new_raw(0, 1));
    /// 1.
    pub const ONE: Exact = Exact(Ratio::new_raw(1, 1));

    /// A whole number.
    pub fn whole(n: i128) -> Exact {
        Exact(Ratio::from_integer(n))
    }

    /// `numerator / denominator`; `None` when the denominator is 0 or a value has no room.
    pub fn fraction(numerator: i128, denominator: i128) -> Option<Exact> {
        if denominator == 0 || denominator == i128::MIN || numerator == i128::MIN {
            return None;
        }
        Some(Exact(Ratio::new(numerator, denominator)))
    }

    /// Reads `-12`, `0.015625` or `1/3`.
    pub fn parse(text: &str) -> Result<Exact, ExactError> {
        Self::read(text).ok_or_else(|| ExactError(text.chars().take(60).collect()))
    }

    fn read(text: &str) -> Option<Exact> {
        if let Some((over, under)) = text.split_once('/') {
            return Exact::fraction(over.parse().ok()?, under.parse().ok()?);
        }
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
            return None;
        }
        let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
        let value = whole.parse::<i128>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
        Exact::fraction(if negative { -value } else { value }, scale)
    }

    /// The decimal number that a JSON or TOML float was written as: the shortest text that reads back to it.
    pub fn from_f64(value: f64) -> Result<Exact, ExactError> {
        Exact::parse(&format!("{value}"))
    }

    /// Sum.
    pub fn plus(self, other: Exact) -> Option<Exact> {
        self.0.checked_add(&other.0).map(Exact)
    }

    /// Difference.
    pub fn minus(self, other: Exact) -> Option<Exact> {
        self.0.checked_sub(&other.0).map(Exact)
    }

    /// Product.
    pub fn times(self, other: Exact) -> Option<Exact> {
        self.0.checked_mul(&other.0).map(Exact)
    }

    /// Quotient; `None` also for a divisor of 0.
    pub fn over(self, other: Exact) -> Option<Exact> {
        if other == Exact::ZERO {
            return None;
        }
        self.0.checked_div(&other.0).map(Exact)
    }

    /// Largest whole number not above it.
    pub fn floor(self) -> i128 {
        self.0.numer().div_euclid(*self.0.denom())
    }

    /// Whether it is below 0.
    pub fn is_negative(self) -> bool {
        *self.0.numer() < 0
    }

    /// Decimal text with exactly `places` digits after the point, halves rounded to the even digit; `None`
    /// when there is no room.
    pub fn to_decimal(self, places: u32) -> Option<String> {
        let scaled = self.times(Exact::whole(10i128.checked_pow(places)?))?;
        let below = scaled.floor();
        let twice_rest = scaled.minus(Exact::whole(below))?.times(Exact::whole(2))?;
        let up = match twice_rest.cmp(&Exact::ONE) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => below.rem_euclid(2) == 1,
        };
        let rounded = below + i128::from(up);
        let sign = if rounded < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", rounded.unsigned_abs(), width = places as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places as usize);
        Some(if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
    }

    /// Nearest binary fraction, for charts and JSON numbers that only people read.
    pub fn to_f64(self) -> f64 {
        *self.0.numer() as f64 / *self.0.denom() as f64
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl fmt::Display for Exact {
    /// As short as it can be said: `2`, `0.015625`, else `1/3`; [`Exact::parse`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let denominator = *self.0.denom();
        for places in 0..=FRACTION_DIGITS_MAX as u32 {
            if 10i128.pow(places) % denominator == 0
                && let Some(text) = self.to_decimal(places)
            {
                return f.pad(&text);
            }
        }
        f.pad(&format!("{}/{}", self.0.numer(), denominator))
    }
}

impl TryFrom<String> for Exact {
    type Error = ExactError;
    fn try_from(text: String) -> Result<Self, ExactError> {
        Exact::parse(&text)
    }
}

impl From<Exact> for String {
    fn from(value: Exact) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_read_exactly() {
        assert_eq!(Exact::parse("0.015625").unwrap(), Exact::fraction(1, 64).unwrap());
        assert_eq!(Exact::from_f64(0.1).unwrap(), Exact::fraction(1, 10).unwrap());
        for bad in ["", ".5", "5.", "1e3", "abc", "1/0", "--1", "+1", "NaN", "inf", "1.2.3", "0x1"] {
            assert!(Exact::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Exact::from_f64(f64::NAN).is_err());
    }

    #[test]
    fn halves_round_to_the_even_digit() {
        for (value, places, text) in [
            ("0.125", 2, "0.12"),
            ("0.375", 2, "0.38"),
            ("-0.5", 0, "0"),
            ("2.5", 0, "2"),
            ("1/3", 3, "0.333"),
        ] {
            assert_eq!(Exact::parse(value).unwrap().to_decimal(places).unwrap(), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn display_reads_back(n in -1_000_000_000i128..1_000_000_000, d in 1i128..1_000_000) {
            let value = Exact::fraction(n, d).unwrap();
            prop_assert_eq!(Exact::parse(&value.to_string()).unwrap(), value);
        }
    }
}
