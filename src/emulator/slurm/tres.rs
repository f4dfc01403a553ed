//! Trackable resources: the cluster's numbered list, amounts keyed by number, and Slurm's two ways of writing them.

use std::collections::BTreeMap;

/// Number of `cpu`, as in every slurmdbd.
pub(super) const CPU: u32 = 1;
/// Number of `mem`, counted in MB.
pub(super) const MEM: u32 = 2;
/// Number of `energy`.
pub(super) const ENERGY: u32 = 3;
/// Number of `node`.
pub(super) const NODE: u32 = 4;
/// Number of `billing`.
pub(super) const BILLING: u32 = 5;
/// First number of a resource that a site adds.
const FIRST_SITE_NUMBER: u32 = 1001;
/// The value that means "no limit" in a request, and clears one.
pub(super) const INFINITE: u64 = u64::MAX;
/// The value that means "not set".
pub(super) const NO_VALUE: u64 = u64::MAX - 1;

/// One trackable resource: number, type, and a name where the type has several (`gres/gpu`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tres {
    /// Number in the database.
    pub id: u32,
    /// `cpu`, `mem`, `gres`, ...
    pub kind: String,
    /// `gpu` in `gres/gpu`.
    pub name: Option<String>,
}

impl Tres {
    /// `gres/gpu`, or the type alone.
    pub fn full_name(&self) -> String {
        match &self.name {
            Some(name) => format!("{}/{}", self.kind, name),
            None => self.kind.clone(),
        }
    }

    /// True for the resources that Slurm counts in MB and writes with a unit.
    fn is_in_megabytes(&self) -> bool {
        self.kind.eq_ignore_ascii_case("mem") || self.kind.eq_ignore_ascii_case("bb")
    }
}

/// Amounts of resources, by number.
pub type Amounts = BTreeMap<u32, u64>;

/// Why a text like `billing=5,cpu=6` is not accepted: Slurm's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TresRefused(pub(super) String);

/// How amounts of memory are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Units {
    /// The largest unit that keeps the value exact (halves count as exact): sacctmgr, and sacct by default.
    Exact,
    /// Never converted: `--noconvert`.
    Unconverted,
    /// This unit: 0 none, 1 K, 2 M, 3 G, 4 T, 5 P: `--units`.
    Forced(u32),
}

/// The cluster's list of trackable resources, in order of number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TresTable {
    list: Vec<Tres>,
}

impl Default for TresTable {
    /// The eight that every slurmdbd has, and `gres/gpu`.
    fn default() -> Self {
        let mut table = TresTable { list: Vec::new() };
        for (id, full) in [
            (1, "cpu"),
            (2, "mem"),
            (3, "energy"),
            (4, "node"),
            (5, "billing"),
            (6, "fs/disk"),
            (7, "vmem"),
            (8, "pages"),
        ] {
            table.list.push(named(id, full));
        }
        table.add("gres/gpu");
        table
    }
}

fn named(id: u32, full: &str) -> Tres {
    let (kind, name) = match full.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), Some(name.to_owned())),
        None => (full.to_owned(), None),
    };
    Tres { id, kind, name }
}

impl TresTable {
    /// A list with these numbers.
    pub(super) fn numbered(list: &BTreeMap<u32, String>) -> TresTable {
        TresTable { list: list.iter().map(|(id, full)| named(*id, full)).collect() }
    }

    /// Every resource, in order of number.
    pub fn iter(&self) -> impl Iterator<Item = &Tres> {
        self.list.iter()
    }

    /// The resource of this number.
    pub fn by_id(&self, id: u32) -> Option<&Tres> {
        self.list.binary_search_by_key(&id, |tres| tres.id).ok().map(|at| &self.list[at])
    }

    /// The resource called `full` (`cpu`, `gres/gpu`); the case of letters does not count.
    pub fn by_name(&self, full: &str) -> Option<&Tres> {
        let (kind, name) = match full.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (full, None),
        };
        self.list.iter().find(|tres| {
            tres.kind.eq_ignore_ascii_case(kind)
                && match (&tres.name, name) {
                    (None, None) => true,
                    (Some(have), Some(want)) => have.eq_ignore_ascii_case(want),
                    _ => false,
                }
        })
    }

    /// Number of the resource called `full`, which is added at the end when it is not there.
    pub fn add(&mut self, full: &str) -> u32 {
        if let Some(tres) = self.by_name(full) {
            return tres.id;
        }
        let last = self.list.last().map_or(0, |tres| tres.id);
        let id = (last + 1).max(FIRST_SITE_NUMBER);
        self.list.push(named(id, full));
        id
    }

    /// Amounts from `cpu=4,mem=10G,gres/gpu=1` as in a seed file: unknown names become new resources.
    pub(super) fn parse_seed(&mut self, text: &str) -> Result<Amounts, TresRefused> {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            if let Some((name, _)) = part.split_once('=')
                && !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
            {
                self.add(name);
            }
        }
        if text.is_empty() {
            return Ok(Amounts::new());
        }
        let mut complaints = Vec::new();
        let amounts = self.parse_request(text, &mut complaints)?;
        match complaints.into_iter().next() {
            Some(complaint) => Err(TresRefused(complaint)),
            None => Ok(first_of_each(&amounts)),
        }
    }

    /// A request as sacctmgr reads it: pairs in order, -1 as [`INFINITE`]; what it complains about without refusing
    /// (`billing=abc` becomes 0, seen on 22.05.8) goes to `complaints`.
    pub(super) fn parse_request(
        &self,
        text: &str,
        complaints: &mut Vec<String>,
    ) -> Result<Vec<(u32, u64)>, TresRefused> {
        let mut pairs = Vec::new();
        let mut rest = text.strip_prefix(',').unwrap_or(text);
        loop {
            let tres = self.requested(rest)?;
            let Some((_, after)) = rest.split_once('=') else {
                return Err(TresRefused(
                    "slurmdb_format_tres_str: no value given as TRES type/id.".to_owned(),
                ));
            };
            let (mut count, tail) = unsigned_prefix(after);
            if let Some(unit) = tail.chars().next()
                && unit != ','
            {
                match unit_number(unit) {
                    Ok(wanted) => count = count.wrapping_mul(multiplier(tres, wanted)),
                    Err(complaint) => complaints.push(complaint),
                }
            }
            pairs.push((tres.id, count));
            match after.split_once(',') {
                Some((_, next)) => rest = next,
                None => return Ok(pairs),
            }
        }
    }

    fn requested(&self, rest: &str) -> Result<&Tres, TresRefused> {
        const WHO: &str = "slurmdb_format_tres_str";
        if rest.starts_with(|first: char| first.is_ascii_digit()) {
            let (id, _) = unsigned_prefix(rest);
            if id == 0 {
                return Err(TresRefused(format!("{WHO}: cannot convert {rest} to ID.")));
            }
            let number = u32::try_from(id).unwrap_or(u32::MAX);
            return self.by_id(number).ok_or_else(|| TresRefused(format!("{WHO}: no TRES known by id {id}")));
        }
        let Some((name, _)) = rest.split_once('=') else {
            return Err(TresRefused(format!("{WHO}: no TRES id found for {rest}")));
        };
        self.by_name(name).ok_or_else(|| TresRefused(format!("{WHO}: no TRES known by type {name}")))
    }

    /// `billing=9,cpu=1,mem=700M`: sorted by its text, as every Slurm program that reads the database prints it.
    pub(super) fn write(&self, amounts: &Amounts, units: Units) -> String {
        let mut parts: Vec<String> = Vec::with_capacity(amounts.len());
        for (id, count) in amounts {
            let Some(tres) = self.by_id(*id) else { continue };
            if *count == NO_VALUE {
                continue;
            }
            let value = if *count == INFINITE {
                "NONE".to_owned()
            } else if tres.is_in_megabytes() {
                write_unit(*count as f64, 2, units)
            } else {
                count.to_string()
            };
            parts.push(format!("{}={}", tres.full_name(), value));
        }
        parts.sort_unstable();
        parts.join(",")
    }
}

/// The first amount of each resource, without those that are to be cleared.
pub(super) fn first_of_each(pairs: &[(u32, u64)]) -> Amounts {
    let mut amounts = Amounts::new();
    for (id, count) in pairs {
        amounts.entry(*id).or_insert(*count);
    }
    amounts.retain(|_, count| *count != INFINITE);
    amounts
}

/// Leading decimal number as C's strtoull reads it (a minus wraps, overflow saturates), and what follows.
pub(super) fn unsigned_prefix(text: &str) -> (u64, &str) {
    let trimmed = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return (0, text);
    }
    match digits[..end].parse::<u64>() {
        Ok(value) if negative => (value.wrapping_neg(), &digits[end..]),
        Ok(value) => (value, &digits[end..]),
        Err(_) => (u64::MAX, &digits[end..]),
    }
}

/// Number of a unit letter, or Slurm's complaint about it.
pub(super) fn unit_number(letter: char) -> Result<u32, String> {
    let at = "KMGTP".find(letter.to_ascii_uppercase());
    match at.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(at + 1),
        None => Err(format!("Invalid unit type '{letter}'. Possible options are 'KMGTP'")),
    }
}

/// What a value with this unit is multiplied by; memory is counted in M already, and K or M change nothing there.
fn multiplier(tres: &Tres, unit: u32) -> u64 {
    let base = if tres.is_in_megabytes() { 2 } else { 0 };
    if unit > base { 1024_u64.pow(unit - base) } else { 1 }
}

/// A number with its unit letter; `base` is the unit that the number is in.
pub(super) fn write_unit(number: f64, base: u32, units: Units) -> String {
    const LETTERS: [&str; 7] = ["", "K", "M", "G", "T", "P", "?"];
    if number as i64 == 0 {
        return "0".to_owned();
    }
    let mut number = number;
    let mut unit = base;
    match units {
        Units::Unconverted => {}
        Units::Forced(wanted) => {
            while wanted < unit {
                number *= 1024.0;
                unit -= 1;
            }
            while wanted > unit {
                number /= 1024.0;
                unit += 1;
            }
        }
        Units::Exact => {
            while number >= 1024.0 && (number as u64).is_multiple_of(512) {
                number /= 1024.0;
                unit += 1;
            }
        }
    }
    let letter = LETTERS[usize::try_from(unit.min(6)).unwrap_or(6)];
    let whole = number as u64;
    if whole as f64 == number { format!("{whole}{letter}") } else { format!("{number:.2}{letter}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let table = TresTable::default();
        let pairs = table.parse_request(text, &mut Vec::new()).expect("accepted");
        table.write(&first_of_each(&pairs), Units::Exact)
    }

    // Each value as sacctmgr 22.05.8 showed it after `set GrpTRESMins=` (2026-11-22).
    #[test]
    fn limits_are_shown_with_the_units_that_sacctmgr_shows() {
        for (given, want) in [
            ("billing=5,cpu=6,gres/gpu=7,mem=8G", "billing=5,cpu=6,gres/gpu=7,mem=8G"),
            ("mem=3000", "mem=3000M"),
            ("mem=1536", "mem=1.50G"),
            ("mem=60000M", "mem=60000M"),
            ("billing=1K,mem=2T,cpu=5k", "billing=1024,cpu=5120,mem=2T"),
            ("billing=99999999999999", "billing=99999999999999"),
            ("5=12", "billing=12"),
            ("billing=0", "billing=0"),
            ("cpu=-1,billing=3", "billing=3"),
        ] {
            assert_eq!(shown(given), want, "{given}");
        }
    }

    #[test]
    fn an_amount_that_is_no_number_becomes_zero_with_a_complaint() {
        let table = TresTable::default();
        for (given, count, letter) in [("billing=abc", 0, 'a'), ("billing=1.5", 1, '.')] {
            let mut complaints = Vec::new();
            assert_eq!(
                table.parse_request(given, &mut complaints).expect("accepted"),
                vec![(BILLING, count)]
            );
            assert_eq!(
                complaints,
                vec![format!("Invalid unit type '{letter}'. Possible options are 'KMGTP'")]
            );
        }
    }

    #[test]
    fn unknown_resources_are_refused_in_slurms_words() {
        let table = TresTable::default();
        for (given, want) in [
            ("bogus=100", "slurmdb_format_tres_str: no TRES known by type bogus"),
            ("-1", "slurmdb_format_tres_str: no TRES id found for -1"),
            ("77=12", "slurmdb_format_tres_str: no TRES known by id 77"),
        ] {
            assert_eq!(table.parse_request(given, &mut Vec::new()), Err(TresRefused(want.to_owned())));
        }
    }

    // sacct --units=G and --units=K, capture sacct1.22.05 of 2026-11-22.
    #[test]
    fn forced_units_round_to_two_decimals() {
        assert_eq!(write_unit(100.0, 2, Units::Forced(3)), "0.10G");
        assert_eq!(write_unit(1500.0, 2, Units::Forced(3)), "1.46G");
        assert_eq!(write_unit(1500.0, 2, Units::Forced(1)), "1536000K");
        assert_eq!(write_unit(10.0, 2, Units::Unconverted), "10M");
    }

    #[test]
    fn typed_resources_come_before_the_untyped_one() {
        let mut table = TresTable::default();
        let amounts = table.parse_seed("node=1,gres/gpu=1,cpu=1,gres/gpu:a100=1").expect("accepted");
        assert_eq!(table.write(&amounts, Units::Exact), "cpu=1,gres/gpu:a100=1,gres/gpu=1,node=1");
    }
}
