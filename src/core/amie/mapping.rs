//! Account to project, user to person, partition to resource.

use std::collections::BTreeMap;

use crate::core::name::AccountName;

/// Longest cleaned name that is sent, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Whose project, which person, which resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// LocalProjectID of accounts.
    pub projects: BTreeMap<AccountName, String>,
    /// LocalProjectID of accounts as the metadata of their resources say it; the map goes before them, patterns after.
    pub granted: BTreeMap<AccountName, String>,
    /// LocalProjectID of accounts that fit a pattern, with `{account}`, `{ACCOUNT}`, and `{rest}`, `{REST}` for what the
    /// first `*` stands for. The longest pattern that fits counts.
    pub patterns: BTreeMap<String, String>,
    /// Patterns of accounts that are never reported.
    pub exclude: Vec<String>,
    /// Username of users whose name is another one there.
    pub users: BTreeMap<String, String>,
    /// Resource of partitions that are not in `resources`.
    pub resource: String,
    /// Resource by partition.
    pub resources: BTreeMap<String, String>,
}

/// Why a job cannot be told yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// What is missing.
    pub reason: String,
    /// Of which account.
    pub what: String,
}

impl Mapping {
    /// The project of an account as printed; `None` when it is never reported.
    pub fn project(&self, account: &str) -> Result<Option<String>, Waits> {
        let folded = account.to_ascii_lowercase();
        if self.exclude.iter().any(|pattern| fits(pattern, &folded).is_some()) {
            return Ok(None);
        }
        let unmapped = || Waits { reason: "no project for the account".into(), what: account.to_owned() };
        let name = AccountName::parse(&folded).map_err(|_| unmapped())?;
        if let Some(project) = self.projects.get(&name).or_else(|| self.granted.get(&name)) {
            return Ok(Some(project.clone()));
        }
        let mut fitting: Vec<(&String, &String, &str)> = self
            .patterns
            .iter()
            .filter_map(|(pattern, template)| Some((pattern, template, fits(pattern, &folded)?)))
            .collect();
        fitting.sort_by_key(|(pattern, _, _)| std::cmp::Reverse(pattern.len()));
        let (_, template, rest) = fitting.first().ok_or_else(unmapped)?;
        Ok(Some(
            template
                .replace("{account}", &folded)
                .replace("{ACCOUNT}", &folded.to_ascii_uppercase())
                .replace("{rest}", rest)
                .replace("{REST}", &rest.to_ascii_uppercase()),
        ))
    }

    /// The name of a user there.
    pub fn username<'a>(&'a self, user: &'a str) -> &'a str {
        self.users.get(user).map_or(user, String::as_str)
    }

    /// The resource of a partition.
    pub fn resource(&self, partition: &str) -> &str {
        self.resources.get(partition).unwrap_or(&self.resource)
    }
}

/// Whether a name fits a pattern with at most one `*`; what the `*` stands for (nothing without one).
pub fn fits<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    match pattern.split_once('*') {
        None => (pattern == name).then_some(""),
        Some((before, after)) => name.strip_prefix(before)?.strip_suffix(after),
    }
}

/// A text that users write, made harmless: one line of at most 64 characters without control characters and without
/// characters that only change how others are shown.
pub fn readable_name(text: &str) -> String {
    let hides = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let clean: String = text.chars().map(|c| if c.is_control() || hides(c) { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(NAME_CHARS_MAX).collect()
}
