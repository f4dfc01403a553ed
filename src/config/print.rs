//! Writes a checked configuration as TOML that reads back to an equal one.

use std::path::Path;
use std::time::Duration;

use super::duration::duration_text;
use super::secret::SecretSource;
use crate::core::exact::Exact;

/// TOML text in the making: tables and keys in the order of the calls.
#[derive(Default)]
pub(super) struct Printer(String);

impl Printer {
    /// `[name]`
    pub(super) fn table(&mut self, name: &str) {
        self.header(&format!("[{name}]"));
    }

    /// `[[name]]`
    pub(super) fn entry_of(&mut self, name: &str) {
        self.header(&format!("[[{name}]]"));
    }

    fn header(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }

    /// `key = value`; the key is quoted where TOML wants it.
    pub(super) fn key(&mut self, key: &str, value: impl Into<toml::Value>) {
        let bare =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if bare {
            self.0.push_str(key);
        } else {
            self.0.push_str(&quoted_key(key));
        }
        self.0.push_str(" = ");
        self.0.push_str(&value.into().to_string());
        self.0.push('\n');
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key, i64::try_from(value).expect("every range of the configuration ends below 2^63"));
    }

    pub(super) fn duration(&mut self, key: &str, value: Duration) {
        self.key(key, duration_text(value));
    }

    /// A path; it came from TOML and is therefore UTF-8.
    pub(super) fn path(&mut self, key: &str, path: &Path) {
        self.key(key, path.to_string_lossy().into_owned());
    }

    /// A path that may be absent: then an empty text.
    pub(super) fn optional_path(&mut self, key: &str, path: Option<&Path>) {
        self.path(key, path.unwrap_or(Path::new("")));
    }

    /// Where a secret lies, as `{name}_file` or `{name}_credential`; never the secret.
    pub(super) fn secret(&mut self, name: &str, source: &SecretSource) {
        match source {
            SecretSource::File(path) => self.path(&format!("{name}_file"), path),
            SecretSource::Credential(credential) => {
                self.key(&format!("{name}_credential"), credential.as_str())
            }
        }
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A key in double quotes. (The library's text of a string may have three, which a key may not.)
fn quoted_key(key: &str) -> String {
    let mut quoted = String::from('"');
    for c in key.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Numbers by name as an inline table; exact, so as texts where no decimal number says the same.
pub(super) fn exact_table<'a>(numbers: impl IntoIterator<Item = (&'a String, &'a Exact)>) -> toml::Value {
    toml::Value::Table(
        numbers.into_iter().map(|(name, number)| (name.clone(), exact_value(*number))).collect(),
    )
}

/// A number as TOML's own where it reads back to the same, else as text.
pub(super) fn exact_value(number: Exact) -> toml::Value {
    let text = number.to_string();
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    match text.parse::<f64>().map(toml::Value::Float) {
        Ok(float) if float.to_string() == text => float,
        _ => text.into(),
    }
}

/// The word that stands for a value.
pub(super) fn written<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, candidate)| *candidate == value);
    found.map(|(word, _)| *word).expect("every value has a word")
}
