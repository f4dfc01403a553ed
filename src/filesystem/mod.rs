//! EDGE: what file systems say is stored. Parsers of the reports that sites have, one file per program; pure.
//!
//! It runs nothing and reads no file: the agent brings the text. Names in a report are written by whoever may name a project
//! or a user; a line that is not understood as a whole is rejected, counted and shown, and never becomes a zero. Whether a
//! name is one that may be charged is decided in [`crate::core::amie`].

mod lines;
mod lustre;
mod repquota;
#[cfg(test)]
mod tests;
mod xfs;

use crate::core::amie::{ReportFormat, Stored};

/// Rejected lines that are shown.
const SAMPLES_MAX: usize = 5;
/// Characters of a rejected line that are shown.
const SAMPLE_CHARS_MAX: usize = 120;

/// The lines of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What was understood.
    pub lines: Vec<Stored>,
    /// How many lines were not.
    pub rejected: usize,
    /// The first of those with the reason, safe to print.
    pub samples: Vec<String>,
}

/// Why nothing of a report can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It has no line.
    #[error("it is empty; is the quota of this file system switched on?")]
    Empty,
    /// The heading is not the one of this format.
    #[error("its heading is {found:?} and not that of {expected}")]
    Heading {
        /// What it begins with, shortened.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No line was understood.
    #[error("none of its {lines} lines was understood; the first: {sample}")]
    Nothing {
        /// How many there are.
        lines: usize,
        /// The first.
        sample: String,
    },
}

/// Reads a report.
///
/// # Errors
/// When nothing of it can be used. Single lines that are not understood are counted in [`Parsed::rejected`].
pub fn parse(format: ReportFormat, report: &[u8]) -> Result<Parsed, ReportError> {
    // Bytes that are not UTF-8 become U+FFFD, which no usable name has.
    let text = String::from_utf8_lossy(report);
    if text.trim().is_empty() {
        return Err(ReportError::Empty);
    }
    let mut parsed = Parsed::default();
    let whole = match text.rfind('\n') {
        Some(end) => {
            if end + 1 < text.len() {
                parsed.reject(&text[end + 1..], "the line is cut off");
            }
            &text[..end]
        }
        None => {
            parsed.reject(&text, "the line is cut off");
            ""
        }
    };
    let lines = whole.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let lines = lines.filter(|line| !line.trim().is_empty());
    match format {
        ReportFormat::RepquotaUsers => repquota::read(lines, repquota::Whose::Users, &mut parsed)?,
        ReportFormat::RepquotaProjects => repquota::read(lines, repquota::Whose::Projects, &mut parsed)?,
        ReportFormat::XfsUsers => xfs::read(lines, xfs::Whose::Users, &mut parsed)?,
        ReportFormat::XfsProjects => xfs::read(lines, xfs::Whose::Projects, &mut parsed)?,
        ReportFormat::Lustre => lustre::read(lines, &mut parsed),
        ReportFormat::Csv => lines::csv(lines, &mut parsed)?,
        ReportFormat::Json => lines::json(lines, &mut parsed),
    }
    parsed.drop_twins();
    match parsed.samples.first() {
        Some(sample) if parsed.lines.is_empty() => {
            Err(ReportError::Nothing { lines: parsed.rejected, sample: sample.clone() })
        }
        _ => Ok(parsed),
    }
}

impl Parsed {
    fn reject(&mut self, line: &str, why: &str) {
        self.rejected += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(format!("{}: {why}", shown(line)));
        }
    }

    fn add(&mut self, line: &str, read: Result<Stored, String>) {
        match read {
            Ok(stored) => self.lines.push(stored),
            Err(why) => self.reject(line, &why),
        }
    }

    /// A name that stands on two lines is rejected with both: which of them holds cannot be known, and a sum would be a guess.
    fn drop_twins(&mut self) {
        let key = |line: &Stored| (line.account.clone(), line.username.clone());
        let mut count = std::collections::BTreeMap::new();
        for line in &self.lines {
            *count.entry(key(line)).or_insert(0_usize) += 1;
        }
        let lines = std::mem::take(&mut self.lines);
        let (single, twins): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| count[&key(line)] == 1);
        self.lines = single;
        for line in twins {
            let name = [line.account, line.username].into_iter().flatten().collect::<Vec<_>>().join(" ");
            self.reject(&name, "this name is there twice; report each file system by itself");
        }
    }
}

/// A line as it may be printed.
fn shown(line: &str) -> String {
    let mut text: String = line.chars().take(SAMPLE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if line.chars().count() > SAMPLE_CHARS_MAX {
        text.push_str(" ...");
    }
    text
}

/// Digits only.
fn number(name: &str, text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| format!("{name} is {} and no whole number", shown(text)))
}

/// A number of blocks of 1024 bytes.
fn blocks(name: &str, text: &str) -> Result<u64, String> {
    number(name, text)?.checked_mul(1024).ok_or_else(|| format!("{name} has no room"))
}
