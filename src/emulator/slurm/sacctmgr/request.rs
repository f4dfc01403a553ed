//! Settings of a command: what associations are to get.

use super::super::limits::{Count, PerTres};
use super::super::names::{signed_prefix, unquoted};
use super::super::times::{self, Span};
use super::super::tres::{Amounts, CPU, INFINITE, MEM, NODE, Units};
use super::super::world::SHARES_OF_PARENT;
use super::Session;
use super::word::Word;
use std::collections::BTreeMap;

/// The number that clears a limit: -1 in 32 bits.
pub(super) const CLEAR: u32 = u32::MAX;

/// One entry of what a command says about a list of QOS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QosWord {
    /// `qos=`: the inherited list again.
    Inherited,
    /// `qos=name`: part of the new list.
    Is(String),
    /// `qos+=name` (true) or `qos-=name`.
    Delta(bool, String),
}

/// A change of associations, as it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    /// Raw shares; [`CLEAR`] is 1.
    pub(super) shares: Option<u32>,
    /// Numbers; [`CLEAR`] clears.
    pub(super) counts: BTreeMap<Count, u32>,
    /// Amounts; [`INFINITE`] clears a resource.
    pub(super) tres: BTreeMap<PerTres, Amounts>,
    /// Parent account.
    pub(super) parent: Option<String>,
    /// Default QOS; inner `None` clears.
    pub(super) default_qos: Option<Option<String>>,
    /// List of QOS.
    pub(super) qos: Option<Vec<QosWord>>,
    /// Raw usage.
    pub(super) raw_usage: Option<u32>,
}

/// What a keyword sets.
#[derive(Clone, Copy)]
enum Setting {
    DefaultQos,
    Shares,
    /// Amount of one resource in a limit, under an old name.
    One(PerTres, u32),
    Count(Count),
    Tres(PerTres),
    Minutes(Count, &'static str),
    Parent,
    Qos,
}

/// Keywords in the order in which sacctmgr compares them.
const SETTINGS: &[(&str, usize, Setting)] = &[
    ("DefaultQOS", 8, Setting::DefaultQos),
    ("FairShare", 1, Setting::Shares),
    ("Shares", 1, Setting::Shares),
    ("GrpCPUMins", 7, Setting::One(PerTres::GrpTresMins, CPU)),
    ("GrpCPURunMins", 7, Setting::One(PerTres::GrpTresRunMins, CPU)),
    ("GrpCpus", 7, Setting::One(PerTres::GrpTres, CPU)),
    ("GrpJobs", 4, Setting::Count(Count::GrpJobs)),
    ("GrpJobsAccrue", 8, Setting::Count(Count::GrpJobsAccrue)),
    ("GrpMemory", 4, Setting::One(PerTres::GrpTres, MEM)),
    ("GrpNodes", 4, Setting::One(PerTres::GrpTres, NODE)),
    ("GrpSubmitJobs", 4, Setting::Count(Count::GrpSubmitJobs)),
    ("GrpTRES", 7, Setting::Tres(PerTres::GrpTres)),
    ("GrpTRESMins", 8, Setting::Tres(PerTres::GrpTresMins)),
    ("GrpTRESRunMins", 8, Setting::Tres(PerTres::GrpTresRunMins)),
    ("GrpWall", 4, Setting::Minutes(Count::GrpWall, "GrpWall")),
    ("MaxCPUMinsPerJob", 7, Setting::One(PerTres::MaxTresMins, CPU)),
    ("MaxCPURunMins", 7, Setting::One(PerTres::MaxTresRunMins, CPU)),
    ("MaxCpusPerJob", 7, Setting::One(PerTres::MaxTres, CPU)),
    ("MaxJobs", 4, Setting::Count(Count::MaxJobs)),
    ("MaxJobsAccrue", 8, Setting::Count(Count::MaxJobsAccrue)),
    ("MaxNodesPerJob", 4, Setting::One(PerTres::MaxTres, NODE)),
    ("MinPrioThresh", 4, Setting::Count(Count::MinPrioThresh)),
    ("MaxSubmitJobs", 4, Setting::Count(Count::MaxSubmitJobs)),
    ("MaxTRESPerJob", 7, Setting::Tres(PerTres::MaxTres)),
    ("MaxTRESPerNode", 11, Setting::Tres(PerTres::MaxTresPerNode)),
    ("MaxTRESMinsPerJob", 8, Setting::Tres(PerTres::MaxTresMins)),
    ("MaxTRESRunMins", 8, Setting::Tres(PerTres::MaxTresRunMins)),
    ("MaxWallDurationPerJob", 4, Setting::Minutes(Count::MaxWall, "MaxWall")),
    ("Parent", 2, Setting::Parent),
    ("Priority", 2, Setting::Count(Count::Priority)),
    ("QosLevel", 1, Setting::Qos),
];

impl Session<'_, '_> {
    /// Takes a word as a setting of associations; false when it is none, or its value is refused. `sign` is the sign of
    /// this word or, as sacctmgr forgets to take it back, of an earlier one.
    pub(super) fn association_setting(
        &mut self,
        request: &mut Request,
        word: &Word<'_>,
        sign: Option<char>,
    ) -> bool {
        let Some((full, _, setting)) = SETTINGS.iter().find(|(full, least, _)| word.is(full, *least)) else {
            return false;
        };
        match *setting {
            Setting::DefaultQos => self.default_qos_setting(request, word.value),
            Setting::Shares if word.value.len() >= 6 && word.value[..6].eq_ignore_ascii_case("parent") => {
                request.shares = Some(SHARES_OF_PARENT);
                true
            }
            Setting::Shares => {
                self.number(word.value, "FairShare").map(|n| request.shares = Some(n)).is_some()
            }
            Setting::Count(which) => {
                self.number(word.value, full).map(|number| request.counts.insert(which, number)).is_some()
            }
            Setting::One(which, id) => {
                let Some(number) = self.long_number(word.value, full) else { return false };
                request.tres.entry(which).or_default().insert(id, number);
                true
            }
            Setting::Tres(which) => match self.amounts(word.value) {
                Some(pairs) => {
                    request.tres.entry(which).or_default().extend(pairs);
                    true
                }
                None => false,
            },
            Setting::Minutes(which, name) => match self.minutes(word.value) {
                Some(number) => {
                    request.counts.insert(which, number);
                    true
                }
                None => {
                    self.fail(&format!(" Bad {name} time format: {}\n", word.raw));
                    false
                }
            },
            Setting::Parent => {
                request.parent = Some(unquoted(word.value, false));
                true
            }
            Setting::Qos => self.take_qos(request, word.value, sign),
        }
    }

    fn default_qos_setting(&mut self, request: &mut Request, value: &str) -> bool {
        if signed_prefix(value).0 == -1 {
            request.default_qos = Some(None);
            return true;
        }
        let name = value.strip_prefix(['+', '-']).unwrap_or(value);
        match self.world.qos_named(name) {
            Some(qos) => request.default_qos = Some(Some(qos.name.clone())),
            None => self.fail(&format!(
                "You gave a bad default qos '{value}'.  Use 'list qos' to get complete list.\n"
            )),
        }
        true
    }

    /// A number in 32 bits: negative clears, what does not fit is cut, what begins with no digit is refused.
    pub(super) fn number(&mut self, value: &str, name: &str) -> Option<u32> {
        let text = unquoted(value, false);
        let (number, rest) = signed_prefix(&text);
        if number == 0 && !rest.is_empty() {
            self.error(&format!("Invalid value for {name} ({text})"));
            return None;
        }
        let low = u32::try_from(number.cast_unsigned() & u64::from(u32::MAX)).unwrap_or(0);
        Some(if number < 0 { CLEAR } else { low })
    }

    /// A number in 64 bits.
    pub(super) fn long_number(&mut self, value: &str, name: &str) -> Option<u64> {
        let text = unquoted(value, false);
        let (number, rest) = signed_prefix(&text);
        if number == 0 && !rest.is_empty() {
            self.error(&format!("Invalid value for {name} ({text})"));
            return None;
        }
        Some(u64::try_from(number).unwrap_or(INFINITE))
    }

    /// Amounts per resource; a refusal makes the program fail.
    pub(super) fn amounts(&mut self, value: &str) -> Option<Vec<(u32, u64)>> {
        if value.is_empty() {
            self.failed = true;
            return None;
        }
        let mut complaints = Vec::new();
        let parsed = self.world.tres.parse_request(value, &mut complaints);
        for complaint in &complaints {
            self.error(complaint);
        }
        match parsed {
            Ok(pairs) => Some(pairs),
            Err(refused) => {
                self.error(&refused.0);
                self.failed = true;
                None
            }
        }
    }

    /// A time in minutes, rounded up.
    pub(super) fn minutes(&self, value: &str) -> Option<u32> {
        match times::parse_span(value)? {
            Span::Infinite => Some(CLEAR),
            Span::Seconds(seconds) => u32::try_from(seconds.div_ceil(60)).ok(),
        }
    }

    /// Adds entries to what a request says about the list of QOS; false, with a complaint, when they say nothing new.
    fn take_qos(&mut self, request: &mut Request, value: &str, sign: Option<char>) -> bool {
        let words = request.qos.get_or_insert_default();
        if value.is_empty() {
            words.push(QosWord::Inherited);
            return true;
        }
        let (mut lists, mut differs) = (false, false);
        let before = words.len();
        let text = unquoted(value, true);
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let (own, name) = match entry.chars().next() {
                Some(own @ ('+' | '-')) => (Some(own), &entry[1..]),
                _ => (sign, entry),
            };
            let Some(qos) = self.world.qos_named(name) else {
                self.bad_qos(name);
                return false;
            };
            let word = match own {
                Some(own) => QosWord::Delta(own != '-', qos.name.clone()),
                None => QosWord::Is(qos.name.clone()),
            };
            if own.is_some() {
                differs = true
            } else {
                lists = true
            }
            if lists && differs {
                self.error(
                    "You can't set qos equal to something and then add or subtract from it in the same line",
                );
                return false;
            }
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if words.len() == before {
            self.error("You gave me an empty qos list");
        }
        words.len() > before
    }

    /// What `add` prints of the settings of new associations.
    pub(super) fn print_settings(&mut self, request: &Request) {
        let mut lines: Vec<String> = Vec::new();
        match request.shares {
            Some(CLEAR) => lines.push("Fairshare     = NONE".to_owned()),
            Some(SHARES_OF_PARENT) => lines.push("Fairshare     = parent".to_owned()),
            Some(shares) => lines.push(format!("Fairshare     = {shares}")),
            None => {}
        }
        let tres = &self.world.tres;
        let amounts = |which: PerTres, label: &str, lines: &mut Vec<String>| {
            if let Some(amounts) = request.tres.get(&which) {
                lines.push(format!("{label}= {}", tres.write(amounts, Units::Exact)));
            }
        };
        let count = |which: Count, label: &str, lines: &mut Vec<String>| match request.counts.get(&which) {
            Some(&CLEAR) => lines.push(format!("{label}= NONE")),
            Some(number) if matches!(which, Count::GrpWall | Count::MaxWall) => {
                lines.push(format!("{label}= {}", times::write_minutes(u64::from(*number))));
            }
            Some(number) => lines.push(format!("{label}= {number}")),
            None => {}
        };
        count(Count::GrpJobs, "GrpJobs       ", &mut lines);
        count(Count::GrpJobsAccrue, "GrpJobsAccrue            ", &mut lines);
        count(Count::GrpSubmitJobs, "GrpSubmitJobs ", &mut lines);
        amounts(PerTres::GrpTres, "GrpTRES       ", &mut lines);
        amounts(PerTres::GrpTresMins, "GrpTRESMins   ", &mut lines);
        amounts(PerTres::GrpTresRunMins, "GrpTRESRunMins", &mut lines);
        count(Count::GrpWall, "GrpWall       ", &mut lines);
        count(Count::MaxJobs, "MaxJobs       ", &mut lines);
        count(Count::MaxJobsAccrue, "MaxJobsPrioAcc", &mut lines);
        count(Count::MaxSubmitJobs, "MaxSubmitJobs ", &mut lines);
        amounts(PerTres::MaxTres, "MaxTRES       ", &mut lines);
        amounts(PerTres::MaxTresPerNode, "MaxTRESPerNode", &mut lines);
        amounts(PerTres::MaxTresMins, "MaxTRESMins   ", &mut lines);
        amounts(PerTres::MaxTresRunMins, "MaxTRESRUNMins", &mut lines);
        count(Count::MaxWall, "MaxWall       ", &mut lines);
        count(Count::MinPrioThresh, "MinPrioThresh ", &mut lines);
        if let Some(parent) = &request.parent {
            lines.push(format!("Parent        = {parent}"));
        }
        count(Count::Priority, "Priority      ", &mut lines);
        if let Some(change) = &request.qos {
            lines.push(format!("QOS           = {}", written_qos(change)));
        }
        if let Some(default) = &request.default_qos {
            lines.push(format!("DefQOS        = {}", default.as_deref().unwrap_or("(null)")));
        }
        for line in lines {
            self.out.print(&format!("  {line}\n"));
        }
    }
}

fn written_qos(words: &[QosWord]) -> String {
    let mut names: Vec<String> = words
        .iter()
        .filter_map(|word| match word {
            QosWord::Inherited => None,
            QosWord::Is(name) => Some(name.clone()),
            QosWord::Delta(true, name) => Some(format!("+{name}")),
            QosWord::Delta(false, name) => Some(format!("-{name}")),
        })
        .collect();
    names.sort_unstable();
    names.join(",")
}
