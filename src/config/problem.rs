//! What is wrong with a configuration: all of it at once, each with place, key, value, reason and what is allowed.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` when the file itself is the problem.
    pub line: Option<usize>,
    /// Column in characters, from 1; 0 when there is no line.
    pub column: usize,
    /// Path of the key, such as `source[0].timeout`; empty for the whole file.
    pub key: String,
    /// The value as written, shortened; `None` when there is none or when it may be a secret.
    pub value: Option<String>,
    /// Why it cannot be accepted.
    pub reason: String,
    /// What could stand there instead, or what to do.
    pub allowed: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole.
    pub(super) fn of_file(reason: String, allowed: &str) -> Self {
        Self {
            line: None,
            column: 0,
            key: String::new(),
            value: None,
            reason,
            allowed: Some(allowed.to_owned()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)?;
        match &self.allowed {
            Some(allowed) => write!(f, "\n    allowed: {allowed}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, or a word for where the text came from.
    pub origin: String,
    /// The problems.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    /// One paragraph per problem, each beginning with `file:line:column:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            match problem.line {
                Some(line) => write!(f, "{}:{line}:{}: {problem}", self.origin, problem.column)?,
                None => write!(f, "{}: {problem}", self.origin)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
