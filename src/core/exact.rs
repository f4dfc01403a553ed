//! Exact fractions: weights, shares, amounts in hours. No floating point takes part in a decision.

use std::cmp::Ordering;
use std::fmt;

use num_rational::Ratio;
use num_traits::CheckedDiv;
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
        let (common, sign) = (common_divisor(numerator, denominator), denominator.signum());
        Some(Exact(Ratio::new_raw(numerator / common * sign, denominator / common * sign)))
    }

    /// The two numbers, where both are whole.
    fn both_whole(self, other: Exact) -> Option<(i128, i128)> {
        (*self.0.denom() == 1 && *other.0.denom() == 1).then(|| (*self.0.numer(), *other.0.numer()))
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
        self.joined(other, i128::checked_add)
    }

    /// Difference.
    pub fn minus(self, other: Exact) -> Option<Exact> {
        self.joined(other, i128::checked_sub)
    }

    /// Product.
    pub fn times(self, other: Exact) -> Option<Exact> {
        if let Some((a, b)) = self.both_whole(other) {
            return a.checked_mul(b).map(Exact::whole);
        }
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        // What both are reduced by leaves nothing to reduce the product by.
        let (over, under) = (common_divisor(a, d), common_divisor(c, b));
        let numerator = (a / over).checked_mul(c / under)?;
        let denominator = (b / under).checked_mul(d / over)?;
        Some(Exact(Ratio::new_raw(numerator, denominator)))
    }

    /// Quotient; `None` also for a divisor of 0.
    pub fn over(self, other: Exact) -> Option<Exact> {
        if other == Exact::ZERO {
            return None;
        }
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        if a == i128::MIN {
            return self.0.checked_div(&other.0).map(Exact);
        }
        let (over, under) = (common_divisor(a, c), common_divisor(b, d));
        let numerator = (a / over).checked_mul(d / under)?;
        let denominator = (b / under).checked_mul(c / over)?;
        let sign = denominator.signum();
        Some(Exact(Ratio::new_raw(numerator.checked_mul(sign)?, denominator.checked_mul(sign)?)))
    }

    /// Sum or difference over the least common denominator.
    fn joined(self, other: Exact, join: fn(i128, i128) -> Option<i128>) -> Option<Exact> {
        let ((a, b), (c, d)) = (self.parts(), other.parts());
        let (left, right, under) = if b == d {
            (a, c, b)
        } else {
            let under = (b / common_divisor(b, d)).checked_mul(d)?;
            ((under / b).checked_mul(a)?, (under / d).checked_mul(c)?, under)
        };
        let over = join(left, right)?;
        let common = common_divisor(over, under);
        Some(Exact(Ratio::new_raw(over / common, under / common)))
    }

    /// Numerator and denominator.
    fn parts(self) -> (i128, i128) {
        (*self.0.numer(), *self.0.denom())
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
        let (scale, (numerator, denominator)) = (10i128.checked_pow(places)?, self.parts());
        let (scaled, denominator) = match numerator.checked_mul(scale) {
            Some(scaled) => (scaled, denominator),
            None => self.times(Exact::whole(scale))?.parts(),
        };
        let (below, rest) = (scaled.div_euclid(denominator), scaled.rem_euclid(denominator));
        let up = match rest.cmp(&(denominator - rest)) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => below.rem_euclid(2) == 1,
        };
        let rounded = below + i128::from(up);
        let sign = if rounded < 0 { "-" } else { "" };
        let size = rounded.unsigned_abs();
        // Numbers of 64 bits are printed several times as fast.
        let digits = u64::try_from(size).map_or_else(|_| size.to_string(), |small| small.to_string());
        let missing = (places as usize + 1).saturating_sub(digits.len());
        let mut text = String::with_capacity(sign.len() + missing + digits.len() + 1);
        text.push_str(sign);
        text.extend(std::iter::repeat_n('0', missing));
        text.push_str(&digits);
        if places > 0 {
            text.insert(text.len() - places as usize, '.');
        }
        Some(text)
    }

    /// Nearest binary fraction, for charts and JSON numbers that only people read.
    pub fn to_f64(self) -> f64 {
        *self.0.numer() as f64 / *self.0.denom() as f64
    }
}

/// The largest number that divides both, at least 1; not both are `i128::MIN`. Nearly all have room in 64 bits, where it is found
/// several times as fast.
fn common_divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        if let (Ok(small_a), Ok(small_b)) = (u64::try_from(a), u64::try_from(b)) {
            return i128::from(small_common_divisor(small_a, small_b));
        }
        (a, b) = (b, a % b);
    }
    a.max(1).cast_signed()
}

fn small_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
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
    use num_traits::{CheckedAdd, CheckedMul, CheckedSub};
    use proptest::prelude::*;

    use super::*;

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

    /// Numbers of every size, small ones and common divisors among them.
    fn part() -> impl Strategy<Value = i128> {
        let sizes = prop_oneof![Just(3u32), Just(12), Just(40), Just(63), Just(64), Just(90), Just(126)];
        (any::<i128>(), sizes, 1i128..100).prop_map(|(number, bits, factor)| {
            let number = number >> (127 - bits);
            number.checked_mul(factor).unwrap_or(number)
        })
    }

    fn under() -> impl Strategy<Value = i128> {
        prop_oneof![Just(1), Just(3600), Just(-60), part().prop_filter("a denominator", |d| *d != 0)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arithmetic_is_that_of_ratios(a in part(), b in under(), c in part(), d in under()) {
            let (left, right) = (Exact::fraction(a, b).unwrap(), Exact::fraction(c, d).unwrap());
            prop_assert_eq!((left.0, right.0), (Ratio::new(a, b), Ratio::new(c, d)));
            prop_assert_eq!(left.plus(right).map(|sum| sum.0), left.0.checked_add(&right.0));
            prop_assert_eq!(left.minus(right).map(|rest| rest.0), left.0.checked_sub(&right.0));
            prop_assert_eq!(left.times(right).map(|product| product.0), left.0.checked_mul(&right.0));
            let quotient = Some(right.0).filter(|right| *right.numer() != 0).and_then(|right| left.0.checked_div(&right));
            prop_assert_eq!(left.over(right).map(|quotient| quotient.0), quotient);
        }

        #[test]
        fn decimals_are_rounded_as_the_fraction_says(a in part(), b in under(), places in 0u32..4) {
            let value = Exact::fraction(a, b).unwrap();
            // A text of more digits than can be read has no room for more digits either.
            let read = value.to_decimal(places).and_then(|text| Exact::parse(&text).ok());
            if let Some(apart) = read.and_then(|read| read.minus(value)) {
                let half = Exact::fraction(1, 2 * 10i128.pow(places)).unwrap();
                prop_assert!(apart <= half && Exact::ZERO.minus(apart).unwrap() <= half, "{value} {apart}");
            }
        }

        #[test]
        fn display_reads_back(n in -1_000_000_000i128..1_000_000_000, d in 1i128..1_000_000) {
            let value = Exact::fraction(n, d).unwrap();
            prop_assert_eq!(Exact::parse(&value.to_string()).unwrap(), value);
        }
    }
}
