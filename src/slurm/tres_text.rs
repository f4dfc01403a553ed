//! `name=value,...` texts: what a job holds, what a limit allows, what a partition charges.
//!
//! Memory counts in Slurm's MB (1,048,576 bytes). sacct with `--noconvert` prints `mem=1500M`, sshare `mem=1500`,
//! sacctmgr the largest unit that divides it (`mem=8G`, `mem=3000M`); only memory and burst buffers carry a unit.
//! A value that is not a whole number of MB (`--units=G` rounds to `1.46G`) is not understood rather than rounded.

use std::collections::BTreeMap;

use crate::core::exact::Exact;
use crate::core::tres::{Tres, TresCounts};

/// Slurm's unit letters; each is 1024 times the one before.
const UNITS: &[u8] = b"KMGTP";

/// Reads a list of counts. `None`: something in it is not understood. `NONE` (Slurm's word for an infinite value)
/// is no number; [`limits`] takes it for "no limit".
pub fn counts(text: &[u8]) -> Option<TresCounts> {
    read(text, |tres, value| count(tres, value).map(Some))
}

/// Reads a list of limits, where `NONE` is as good as absent.
pub fn limits(text: &[u8]) -> Option<TresCounts> {
    read(text, |tres, value| if value == "NONE" { Some(None) } else { count(tres, value).map(Some) })
}

fn read(text: &[u8], value_of: impl Fn(&Tres, &str) -> Option<Option<u64>>) -> Option<TresCounts> {
    let text = std::str::from_utf8(text).ok()?;
    let mut found = TresCounts::new();
    if text.is_empty() {
        return Some(found);
    }
    for item in text.split(',') {
        let (name, value) = item.split_once('=')?;
        let tres = Tres::parse(name).ok()?;
        if let Some(value) = value_of(&tres, value)?
            && found.insert(tres, value).is_some()
        {
            return None;
        }
    }
    Some(found)
}

/// Whether Slurm counts it in MB and prints it with a unit.
fn carries_unit(name: &str) -> bool {
    name == "mem" || name.starts_with("bb/")
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn decimal(text: &str) -> Option<Exact> {
    let fits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    fits.then(|| Exact::parse(text).ok())?
}

fn count(tres: &Tres, value: &str) -> Option<u64> {
    if digits(value) {
        return value.parse().ok();
    }
    if !carries_unit(tres.as_str()) {
        return None;
    }
    let unit = UNITS.iter().position(|unit| value.as_bytes().last() == Some(unit))?;
    let amount = decimal(&value[..value.len() - 1])?;
    let mb = amount.times(Exact::fraction(1i128 << (10 * unit), 1024)?)?;
    (Exact::whole(mb.floor()) == mb).then(|| u64::try_from(mb.floor()).ok())?
}

/// Reads a partition's TRESBillingWeights: what one count of each TRES (one MB of memory) is charged. Names are
/// lower-cased, as Slurm compares them without regard to case. A unit divides the weight, except that `K` of memory
/// means per MB like no unit at all (tried on 26.05: `Mem=1K` charged 1500 for 1500M).
pub fn billing_weights(text: &str) -> Option<BTreeMap<Tres, Exact>> {
    let mut weights = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=')?;
        let name = name.to_ascii_lowercase();
        let weight = weight(value, carries_unit(&name))?;
        if weights.insert(Tres::parse(&name).ok()?, weight).is_some() {
            return None;
        }
    }
    Some(weights)
}

fn weight(value: &str, in_mb: bool) -> Option<Exact> {
    let unit =
        UNITS.iter().position(|unit| value.bytes().last().map(|b| b.to_ascii_uppercase()) == Some(*unit));
    let number = if unit.is_some() { &value[..value.len() - 1] } else { value };
    // slurmctld reads it with strtod, to which `.5` and `1.` are numbers.
    let number = format!("{}{number}", if number.starts_with('.') { "0" } else { "" });
    let amount = decimal(number.strip_suffix('.').unwrap_or(&number))?;
    let steps = match (unit, in_mb) {
        (None, _) => 0,
        (Some(unit), true) => unit.saturating_sub(1),
        (Some(unit), false) => unit + 1,
    };
    amount.over(Exact::whole(1i128 << (10 * steps)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<Vec<(String, u64)>> {
        Some(counts(text.as_bytes())?.into_iter().map(|(tres, n)| (tres.to_string(), n)).collect())
    }

    #[test]
    fn counts_are_read_with_memory_in_mb() {
        let check = |text: &str, expected: &[(&str, u64)]| {
            let expected = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            assert_eq!(named(text), Some(expected), "{text}");
        };
        check("", &[]);
        check(
            "billing=9,cpu=1,gres/gpu:a100=1,gres/gpu=1,mem=700M,node=1",
            &[("billing", 9), ("cpu", 1), ("gres/gpu", 1), ("gres/gpu:a100", 1), ("mem", 700), ("node", 1)],
        );
        check("mem=0", &[("mem", 0)]);
        check("mem=3000", &[("mem", 3000)]);
        check("mem=8G", &[("mem", 8192)]);
        check("mem=1.50G", &[("mem", 1536)]);
        check("mem=2048K", &[("mem", 2)]);
        check("mem=2T,bb/cray=1P", &[("bb/cray", 1 << 30), ("mem", 2 << 20)]);
        check("license/matlab@srv=3", &[("license/matlab@srv", 3)]);
        check("billing=18446744073709551615", &[("billing", u64::MAX)]);
    }

    #[test]
    fn what_is_not_a_count_is_not_understood() {
        for text in [
            "cpu",
            "cpu=",
            "=1",
            "cpu=1,",
            ",cpu=1",
            "cpu=1;mem=2",
            "cpu=-1",
            "cpu=1.5",
            "cpu=1K",
            "cpu=1 ",
            "cpu=1,cpu=2",
            "cpu=1,cpu=1",
            "mem=1.46G",
            "mem=1/2G",
            "mem=1.5",
            "mem=G",
            "mem=1GB",
            "mem=-1G",
            "mem=1g",
            "mem=512K",
            "mem=.5G",
            "cpu=18446744073709551616",
            "mem=99999999999999999999P",
            "cpu=NONE",
            "cpu=1=2",
        ] {
            assert_eq!(named(text), None, "{text:?}");
        }
        assert_eq!(limits(b"cpu=NONE,node=2").unwrap().len(), 1);
    }

    #[test]
    fn billing_weights_are_per_count_and_memory_per_mb() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let found = billing_weights(text).unwrap();
            let found: Vec<_> = found.iter().map(|(t, w)| (t.to_string(), w.to_string())).collect();
            let expected: Vec<_> = expected.iter().map(|(t, w)| ((*t).to_owned(), (*w).to_owned())).collect();
            assert_eq!(found, expected, "{text}");
        };
        check(
            "CPU=1.0,Mem=0.25G,GRES/gpu=8.0",
            &[("cpu", "1"), ("gres/gpu", "8"), ("mem", "0.000244140625")],
        );
        check("Mem=0.25", &[("mem", "0.25")]);
        check("Mem=1K", &[("mem", "1")]);
        check("Mem=1M", &[("mem", "1")]);
        check("Mem=1T", &[("mem", "1/1048576")]);
        check("CPU=.5", &[("cpu", "0.5")]);
        for text in ["CPU", "CPU=x", "CPU=1,cpu=2", "CPU=1e3", "CPU="] {
            assert_eq!(billing_weights(text), None, "{text}");
        }
    }
}
