//! A TOML text as written: every key and value with its place. Reading a key names it, so that what nobody asked
//! for is an unknown key; a reader that cannot accept a value says so and the others go on.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration::duration_text;
use super::problem::Problem;
use crate::core::exact::Exact;

/// Longest piece of a value that is shown in a message, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// What to do about a key that is missing.
const EXAMPLE: &str = "see config/site-agent.toml, which explains every key";

/// Stands where a value may be or contain a secret.
const HIDDEN: &str = "(not shown)";

/// The text that is being read and what was found wrong so far.
pub(super) struct Document<'d> {
    text: &'d str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, problems: RefCell::new(Vec::new()) }
    }

    /// The whole file as a section.
    pub(super) fn root(&'d self, table: &'d DeTable<'d>) -> Section<'d> {
        Section {
            document: self,
            path: String::new(),
            at: 0,
            table: Some(table),
            known: Vec::new(),
            left: Vec::new(),
        }
    }

    /// What was found wrong, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    /// What the parser could not read, each with its line and a caret.
    pub(super) fn syntax_problem(&self, error: &toml::de::Error) {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = self.place(at);
        let written = self.text.lines().nth(line - 1).unwrap_or("");
        let gutter = line.to_string().len();
        let reason = format!(
            "not TOML: {}\n {:gutter$} |\n {line} | {}\n {:gutter$} | {:>column$}",
            error.message(),
            "",
            hide_secret(written),
            "",
            "^",
        );
        self.report(at, String::new(), None, reason, None);
    }

    /// Line and column, both from 1, of a byte of the text.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn report(&self, at: usize, key: String, value: Option<String>, reason: String, allowed: Option<String>) {
        let (line, column) = self.place(at);
        let problem = Problem { line: Some(line), column, key, value, reason, allowed };
        self.problems.borrow_mut().push((at, problem));
    }
}

/// The line without the value of a key that sounds like a secret: a forgotten quote must not put a token into a log.
fn hide_secret(line: &str) -> String {
    let Some((key, _)) = line.split_once('=') else {
        return if line.contains('#') || line.trim_start().starts_with('[') {
            line.to_owned()
        } else {
            HIDDEN.into()
        };
    };
    let name = key.trim().to_ascii_lowercase();
    let secret = ["token", "secret", "passw", "key", "credential"].iter().any(|word| name.contains(word));
    if secret && !name.ends_with("_file") { format!("{key}= {HIDDEN}") } else { line.to_owned() }
}

/// One table of the file, or the place where it could stand.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    at: usize,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
    /// Not asked for, and no more to be said of them.
    left: Vec<&'static str>,
}

impl<'d> Section<'d> {
    fn item(&mut self, key: &'static str) -> Option<Item<'d>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some(Item { document: self.document, path: join(&self.path, key), value, secret: false })
    }

    /// A key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Item<'d>) -> Option<T>,
    ) -> Option<T> {
        let Some(item) = self.item(key) else {
            let path = join(&self.path, key);
            let reason = "it is missing and has no default".to_owned();
            self.document.report(self.at, path, None, reason, Some(EXAMPLE.to_owned()));
            return None;
        };
        read(&item)
    }

    /// A key with a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Item<'d>) -> Option<T>,
    ) -> Option<T> {
        match self.item(key) {
            Some(item) => read(&item),
            None => Some(default),
        }
    }

    /// A key that may be absent; an empty text means the same.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Item<'d>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.item(key) {
            Some(item) if item.value.get_ref().as_str() != Some("") => read(&item).map(Some),
            _ => Some(None),
        }
    }

    /// A `[table]`; when it is absent, all its keys have their defaults.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'d>) -> Option<T>,
    ) -> Option<T> {
        match self.item(key) {
            Some(item) => item.section(read),
            None => {
                let path = join(&self.path, key);
                read(&mut Section {
                    document: self.document,
                    path,
                    at: 0,
                    table: None,
                    known: Vec::new(),
                    left: Vec::new(),
                })
            }
        }
    }

    /// Zero or more `[[tables]]`.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'d>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match self.item(key) {
            Some(item) if item.value.get_ref().is_table() => {
                item.wrong("there can be several of these", format!("[[{key}]] in place of [{key}]"))
            }
            Some(item) => item.list(|entry| entry.section(&mut read)),
            None => Some(Vec::new()),
        }
    }

    /// A problem of the section as a whole.
    pub(super) fn wrong<T>(&self, reason: impl Into<String>, allowed: impl Into<String>) -> Option<T> {
        self.document.report(self.at, self.path.clone(), None, reason.into(), Some(allowed.into()));
        None
    }

    /// A key that has no place here, though another section like this one has it. `why` is asked when it is there: the
    /// reason, and what is allowed.
    pub(super) fn misplaced(&mut self, key: &'static str, why: impl FnOnce() -> (String, String)) {
        let Some((written, _)) = self.table.and_then(|table| table.get_key_value(key)) else { return };
        let (reason, allowed) = why();
        let at = written.span().start;
        self.document.report(at, join(&self.path, key), None, reason, Some(allowed));
        self.left.push(key);
    }

    /// A key that is not looked at, since it cannot be told whether it has a place here.
    pub(super) fn not_read(&mut self, key: &'static str) {
        self.left.push(key);
    }

    /// Reports the keys nobody asked for. Their values are not shown: a misplaced secret may be among them.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) || self.left.contains(&name) {
                continue;
            }
            let reason = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("this key is unknown; did you mean {near}?"),
                None => "this key is unknown".to_owned(),
            };
            let allowed = Some(self.known.join(", "));
            self.document.report(key.span().start, join(&self.path, name), None, reason, allowed);
        }
    }
}

/// One value with its path and place.
#[derive(Clone)]
pub(super) struct Item<'d> {
    document: &'d Document<'d>,
    path: String,
    value: &'d Spanned<DeValue<'d>>,
    secret: bool,
}

impl<'d> Item<'d> {
    /// The same item, whose value is never shown.
    pub(super) fn hidden(&self) -> Item<'d> {
        Item { secret: true, ..self.clone() }
    }

    /// Reports that the value cannot be accepted.
    pub(super) fn wrong<T>(&self, reason: impl Into<String>, allowed: impl Into<String>) -> Option<T> {
        let at = self.value.span().start;
        self.document.report(at, self.path.clone(), Some(self.shown()), reason.into(), Some(allowed.into()));
        None
    }

    fn shown(&self) -> String {
        let written = self.document.text.get(self.value.span()).unwrap_or("");
        if self.secret || (written.contains("//") && written.contains('@')) {
            return HIDDEN.to_owned();
        }
        let line: String = written.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line,
        }
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        self.wrong_type_but(expected, expected)
    }

    fn wrong_type_but<T>(&self, expected: &str, allowed: &str) -> Option<T> {
        let found = with_article(self.value.get_ref().type_str());
        self.wrong(format!("expected {expected}, found {found}"), allowed)
    }

    /// A text without control characters.
    pub(super) fn text(&self) -> Option<&'d str> {
        let Some(text) = self.value.get_ref().as_str() else {
            return self.wrong_type("a text in quotes");
        };
        if text.chars().any(char::is_control) {
            return self.wrong("it contains a control character", "one line of text");
        }
        Some(text)
    }

    /// A text that says something.
    pub(super) fn words(&self) -> Option<String> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return self.wrong("it is empty", "a text");
        }
        Some(text.to_owned())
    }

    /// A text that `parse` accepts.
    pub(super) fn parsed<T, E: Display>(
        &self,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(error) => self.wrong(error.to_string(), allowed),
        }
    }

    /// One of several words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
        let reason = match nearest(text, known.iter().copied()) {
            Some(near) => format!("this word is unknown; did you mean {near:?}?"),
            None => "this word is unknown".to_owned(),
        };
        self.wrong(reason, known.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false"),
        }
    }

    /// A whole number in a range.
    pub(super) fn integer<N: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<N> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(written) = self.value.get_ref() else {
            return self.wrong_type_but("a whole number", &allowed);
        };
        let number = u64::from_str_radix(written.as_str(), written.radix()).ok();
        match number.filter(|number| range.contains(number)).and_then(|number| N::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.wrong("it is out of range", allowed),
        }
    }

    /// An exact number: as written, not as a binary fraction; a text such as "1/3" as well.
    pub(super) fn exact(&self) -> Option<Exact> {
        const ALLOWED: &str =
            "a number such as 1000 or 0.25, not negative, at most 18 digits after the point";
        let parsed = match self.value.get_ref() {
            DeValue::Integer(written) if written.radix() == 10 => Exact::parse(written.as_str()),
            DeValue::Float(written) => Exact::parse(written.as_str()),
            DeValue::String(text) => Exact::parse(text),
            _ => return self.wrong_type_but("a number", ALLOWED),
        };
        match parsed {
            Ok(number) if !number.is_negative() => Some(number),
            Ok(_) => self.wrong("it is negative", ALLOWED),
            Err(error) => self.wrong(error.to_string(), ALLOWED),
        }
    }

    /// A duration such as `90s`, `5m`, `2h` or `10days`, in whole milliseconds.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let allowed = format!(
            "a duration from {} to {}, such as \"90s\", \"5m\", \"2h\" or \"10days\"",
            duration_text(*range.start()),
            duration_text(*range.end()),
        );
        let duration = self.parsed(&allowed, humantime::parse_duration)?;
        if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            return self.wrong("it is finer than a millisecond", allowed);
        }
        if !range.contains(&duration) {
            return self.wrong("it is out of range", allowed);
        }
        Some(duration)
    }

    /// A path from the root directory.
    pub(super) fn absolute_path(&self) -> Option<PathBuf> {
        let path = PathBuf::from(self.text()?);
        if !path.is_absolute() {
            return self.wrong("the path is not absolute", "a path that begins with /");
        }
        Some(path)
    }

    /// Every entry of a list; all are read even when one is refused.
    pub(super) fn list<T>(&self, mut read: impl FnMut(&Item<'d>) -> Option<T>) -> Option<Vec<T>> {
        let Some(array) = self.value.get_ref().as_array() else {
            return self.wrong_type("a list");
        };
        let entries: Vec<Option<T>> = array
            .iter()
            .enumerate()
            .map(|(n, value)| read(&Item { path: format!("{}[{n}]", self.path), value, ..self.clone() }))
            .collect();
        entries.into_iter().collect()
    }

    /// Every entry of a table whose keys are the site's own, in the order of the keys.
    pub(super) fn entries<T>(&self, mut read: impl FnMut(&str, &Item<'d>) -> Option<T>) -> Option<Vec<T>> {
        let Some(table) = self.value.get_ref().as_table() else {
            return self.wrong_type("a table");
        };
        let entries: Vec<Option<T>> = table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                read(name, &Item { path: join(&self.path, name), value, ..self.clone() })
            })
            .collect();
        entries.into_iter().collect()
    }

    /// A table with known keys.
    pub(super) fn section<T>(&self, read: impl FnOnce(&mut Section<'d>) -> Option<T>) -> Option<T> {
        let Some(table) = self.value.get_ref().as_table() else {
            return self.wrong_type("a table");
        };
        let at = self.value.span().start;
        let mut section = Section {
            document: self.document,
            path: self.path.clone(),
            at,
            table: Some(table),
            known: Vec::new(),
            left: Vec::new(),
        };
        let value = read(&mut section);
        section.finish();
        value
    }
}

fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// The known word that is meant: it begins with what was written, or differs little enough.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let folded = word.to_ascii_lowercase();
    let distance = |candidate: &str| match candidate.starts_with(&folded) && folded.len() > 2 {
        true => 0,
        false => edits(&folded, &candidate.to_ascii_lowercase()),
    };
    let (edits, near) = known.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (edits <= 1 + near.len() / 4).then_some(near)
}

/// How many letters must be put in, taken out or replaced to make one word the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != *other);
            current.push(replaced.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[to.len()]
}
