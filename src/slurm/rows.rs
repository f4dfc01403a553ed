//! Rows of Slurm's parsable output: one pass over the bytes, strict numbers, and a count of what was not understood.
//!
//! Slurm escapes nothing: a separator or newline inside a name breaks a row (seen on 20.11, 22.05 and 26.05). A
//! row whose number of fields is not the one asked for is therefore never read, only counted and shown.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;

use crate::core::time::Epoch;

/// How many rejected rows are kept to be shown.
const SAMPLES_MAX: usize = 5;

/// Most of one rejected row that is kept.
const SAMPLE_BYTES_MAX: usize = 200;

/// Last second that is taken for a time: 9999-12-31T23:59:59Z, the last one that can be printed.
const INSTANT_MAX: i64 = 253_402_300_799;

/// Rows that were not understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rejects {
    /// How many.
    pub count: usize,
    /// The first of them, with the reason, safe to print.
    pub samples: Vec<String>,
}

impl Rejects {
    pub fn add(&mut self, row: &[u8], reason: &str) {
        self.count += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(format!("{reason}: {}", escaped(row, SAMPLE_BYTES_MAX)));
        }
    }
}

/// Printable form of bytes from outside: control characters and bytes that are not UTF-8 escaped, cut at a limit.
pub(super) fn escaped(bytes: &[u8], bytes_max: usize) -> String {
    let mut text = String::new();
    for chunk in bytes[..bytes.len().min(bytes_max)].utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    if bytes.len() > bytes_max {
        text.push_str(" ...");
    }
    text
}

/// The whole rows of an answer, newlines included. One without its newline was cut off, possibly in the middle of a number,
/// and is rejected.
pub(super) fn whole_rows<'a>(answer: &'a [u8], rejects: &mut Rejects) -> &'a [u8] {
    let end = memchr::memrchr(b'\n', answer).map_or(0, |at| at + 1);
    let (whole, cut_off) = answer.split_at(end);
    if !cut_off.is_empty() {
        rejects.add(cut_off, "cut off");
    }
    whole
}

/// The rows of an answer, each without its newline.
pub(super) fn complete_rows<'a>(
    answer: &'a [u8],
    rejects: &mut Rejects,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let whole = whole_rows(answer, rejects);
    whole.split_inclusive(|byte| *byte == b'\n').map(|row| &row[..row.len() - 1])
}

/// Exactly `N` fields, or nothing.
pub(super) fn fields<const N: usize>(row: &[u8], separator: u8) -> Option<[&[u8]; N]> {
    let mut found = [&row[..0]; N];
    let mut parts = row.split(|byte| *byte == separator);
    for field in &mut found {
        *field = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}

/// A field as text; bytes that are not UTF-8 become U+FFFD, which no name that is acted on can hold.
pub(super) fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Digits only.
pub(super) fn number<N: std::str::FromStr>(field: &[u8]) -> Option<N> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Digits only, or nothing for "no limit", "not set".
pub(super) fn number_if_any<N: std::str::FromStr>(field: &[u8]) -> Option<Option<N>> {
    if field.is_empty() { Some(None) } else { number(field).map(Some) }
}

/// An instant printed with `%s`; `Unknown`, `None` and nothing mean that it is not known.
pub(super) fn instant(field: &[u8]) -> Option<Option<Epoch>> {
    if matches!(field, b"" | b"Unknown" | b"None") {
        return Some(None);
    }
    let seconds: i64 = number(field)?;
    (1..=INSTANT_MAX).contains(&seconds).then_some(Some(Epoch(seconds)))
}

/// A length of time as Slurm prints it, in seconds: `[d-]hh:mm:ss`, also `mm:ss`, each with optional decimals
/// of a second, which are dropped.
pub(super) fn duration_s(field: &[u8]) -> Option<u64> {
    let (days, clock) = match field.iter().position(|byte| *byte == b'-') {
        Some(at) => (number::<u64>(&field[..at])?, &field[at + 1..]),
        None => (0, field),
    };
    let (clock, decimals) = match clock.iter().position(|byte| *byte == b'.') {
        Some(at) => (&clock[..at], Some(&clock[at + 1..])),
        None => (clock, None),
    };
    if decimals.is_some_and(|decimals| number::<u64>(decimals).is_none()) {
        return None;
    }
    let parts = clock.split(|byte| *byte == b':').map(number::<u64>).collect::<Option<Vec<u64>>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes, seconds] => (hours, minutes, seconds),
        [minutes, seconds] if days == 0 => (0, minutes, seconds),
        _ => return None,
    };
    if minutes > 59 || seconds > 59 || (days > 0 && hours > 23) {
        return None;
    }
    days.checked_mul(86_400)?.checked_add(hours.checked_mul(3600)?)?.checked_add(minutes * 60 + seconds)
}

/// Values by key, where an answer that contradicts itself about a key tells nothing about it: the same row twice
/// is one row, two different ones are none, in whatever order they come.
#[derive(Debug)]
pub(super) struct ByKey<K, V> {
    /// Those that came in the order of their keys, as nearly all do.
    in_order: Vec<(K, Option<V>)>,
    /// Those that came after a larger key.
    late: BTreeMap<K, Option<V>>,
}

impl<K: Ord, V: PartialEq> ByKey<K, V> {
    pub fn new() -> Self {
        Self { in_order: Vec::new(), late: BTreeMap::new() }
    }

    /// Adds what `row` says.
    pub fn add(&mut self, key: K, value: V, row: &[u8], rejects: &mut Rejects) {
        if self.in_order.last().is_none_or(|(last, _)| *last < key) {
            self.in_order.push((key, Some(value)));
            return;
        }
        let known = match self.in_order.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => &mut self.in_order[at].1,
            Err(_) => match self.late.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    entry.insert(Some(value));
                    return;
                }
            },
        };
        match known {
            Some(known) if *known == value => {}
            Some(_) => {
                *known = None;
                rejects.add(row, "contradicts another row");
                rejects.count += 1;
            }
            None => rejects.add(row, "contradicts another row"),
        }
    }

    /// What is known for certain, in the order of the keys.
    pub fn certain(self) -> impl Iterator<Item = (K, V)> {
        let mut found = self.in_order;
        if !self.late.is_empty() {
            found.extend(self.late);
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        found.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_slurm_prints_them_and_nothing_else_is() {
        let check = |text: &str, seconds| assert_eq!(duration_s(text.as_bytes()), seconds, "{text}");
        check("00:00:00", Some(0));
        check("01:01:40", Some(3700));
        check("27-22:05:00", Some(27 * 86_400 + 22 * 3600 + 300));
        check("400-00:00:01", Some(400 * 86_400 + 1));
        check("05:03", Some(303));
        check("00:01.250", Some(1));
        for text in [
            "",
            "INVALID",
            "5",
            "1-00",
            "00:60:00",
            "00:00:60",
            "-00:00:01",
            "1-24:00:00",
            "00:00:0x",
            "00:00:01.",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn numbers_are_digits_and_fit_their_type() {
        assert_eq!(number::<u64>(b"5662863144248540160"), Some(5_662_863_144_248_540_160));
        for text in ["", "-1", "+1", " 1", "1 ", "1.0", "0x1", "1e3", "18446744073709551616"] {
            assert_eq!(number::<u64>(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn unknown_times_are_none_and_zero_is_not_a_time() {
        assert_eq!(instant(b"1795323600"), Some(Some(Epoch(1_795_323_600))));
        for unknown in ["", "Unknown", "None"] {
            assert_eq!(instant(unknown.as_bytes()), Some(None));
        }
        for text in ["0", "-1", "2026-11-22T05:00:00", "253402300800", "unknown"] {
            assert_eq!(instant(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_key_with_two_different_rows_is_unknown_whatever_their_order() {
        let total = |values: &[u8]| {
            let (mut rows, mut rejects) = (ByKey::new(), Rejects::default());
            values.iter().for_each(|value| rows.add("job", *value, b"row", &mut rejects));
            (rows.certain().next().map(|(_, value)| value), rejects.count)
        };
        assert_eq!(total(&[1]), (Some(1), 0));
        assert_eq!(total(&[1, 1]), (Some(1), 0));
        assert_eq!(total(&[1, 2]), (None, 2));
        assert_eq!(total(&[1, 1, 2]), (None, 2));
        assert_eq!(total(&[1, 2, 1]), (None, 3));
    }

    #[test]
    fn keys_come_out_in_order_and_once_in_whatever_order_they_came() {
        let check = |keys: &[u8], expected: &[u8]| {
            let (mut rows, mut rejects) = (ByKey::new(), Rejects::default());
            keys.iter().for_each(|key| rows.add(*key, key % 10, b"row", &mut rejects));
            let found: Vec<(u8, u8)> = rows.certain().collect();
            assert_eq!(found, expected.iter().map(|key| (*key, key % 10)).collect::<Vec<_>>());
            assert_eq!(rejects.count, 0);
        };
        check(&[1, 2, 3], &[1, 2, 3]);
        check(&[3, 1, 2, 4, 1, 2, 3, 4], &[1, 2, 3, 4]);
        check(&[2, 4, 3, 9, 8, 3, 5], &[2, 3, 4, 5, 8, 9]);
        let (mut rows, mut rejects) = (ByKey::new(), Rejects::default());
        for (key, value) in [(5, 1), (2, 1), (7, 1), (2, 2), (5, 2)] {
            rows.add(key, value, b"row", &mut rejects);
        }
        assert_eq!(rows.certain().collect::<Vec<_>>(), [(7, 1)]);
        assert_eq!(rejects.count, 4);
    }

    #[test]
    fn samples_are_short_and_printable() {
        assert_eq!(escaped(b"a\x1fb\n\xff\x1b[31m", 100), "a\\u{1f}b\\n\\xff\\u{1b}[31m");
        assert_eq!(escaped(b"abcdef", 3), "abc ...");
    }
}
