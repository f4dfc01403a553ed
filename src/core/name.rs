//! Names of Slurm's things, checked once so that no unchecked text can reach an argument vector.
//!
//! Slurm itself accepts far more (spaces, `|`, even newlines: seen on 20.11 and 26.05); such names are shown
//! and counted by the agent but never acted on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name the agent acts on, in bytes. Slurm has no limit of its own; this one keeps an argument vector
/// of several hundred names far below the kernel's limit.
pub const NAME_BYTES_MAX: usize = 128;

/// Why a text is not a name the agent will act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a usable {kind} name: {reason}")]
pub struct NameError {
    /// What the name was meant for: account, user, QOS, cluster.
    pub kind: &'static str,
    /// The refused text, shortened.
    pub text: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

fn check(kind: &'static str, text: &str) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { kind, text: text.chars().take(60).collect(), reason });
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > NAME_BYTES_MAX {
        return refuse("it is longer than 128 bytes");
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_alphanumeric() || first == b'_') {
        return refuse("it must begin with a letter, a digit or _");
    }
    if !text.bytes().all(|byte| USABLE[usize::from(byte)]) {
        return refuse("only letters, digits and _ . - + @ : are allowed");
    }
    Ok(())
}

/// Which bytes a name may have.
const USABLE: [bool; 256] = {
    let (mut usable, mut byte) = ([false; 256], 0);
    while byte < 256 {
        usable[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'+' | b'@' | b':'
        );
        byte += 1;
    }
    usable
};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, lower_case: $lower:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`; folds it to lower case where Slurm does so itself.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check($kind, text)?;
                let folds = $lower && text.bytes().any(|byte| byte.is_ascii_uppercase());
                Ok(Self(if folds { text.to_ascii_lowercase().into() } else { text.into() }))
            }

            /// The name as it is written in an argument vector.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_type!(
    /// A Slurm account. Slurm lower-cases account names on input and on lookup.
    AccountName, "account", lower_case: true
);
name_type!(
    /// A user of an association. Slurm lower-cases these as well.
    UserName, "user", lower_case: true
);
name_type!(
    /// A quality of service.
    QosName, "QOS", lower_case: true
);
name_type!(
    /// A cluster as `sacctmgr show cluster` names it.
    ClusterName, "cluster", lower_case: true
);
name_type!(
    /// A `[[source]]` of the configuration: a central server or the local allocations.
    SourceName, "source", lower_case: false
);

impl AccountName {
    /// The root of every account tree. The agent reads it and never changes it.
    pub fn is_root(&self) -> bool {
        self.as_str() == "root"
    }
}

/// Several names of one kind, at least one: a condition built from it can never be empty. (`sacctmgr modify
/// account where set ...` without a name changes EVERY account, rc 0: tried on 20.11, 22.05 and 26.05.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Names<T> {
    first: T,
    rest: Vec<T>,
}

impl<T> Names<T> {
    /// One name.
    pub fn one(name: T) -> Self {
        Self { first: name, rest: Vec::new() }
    }

    /// `None` for an empty list.
    pub fn of(names: Vec<T>) -> Option<Self> {
        let mut names = names.into_iter();
        Some(Self { first: names.next()?, rest: names.collect() })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// How many: never 0.
    pub fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// The name, where it is one.
    pub fn only(&self) -> Option<&T> {
        self.rest.is_empty().then_some(&self.first)
    }
}

impl<T: Clone> Names<T> {
    /// The first and the second half of several names; `None` for one.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.count() / 2;
        let first = Self::of(self.iter().take(middle).cloned().collect())?;
        let second = Self::of(self.iter().skip(middle).cloned().collect())?;
        Some([first, second])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names_are_folded_to_lower_case_as_slurm_does() {
        assert_eq!(AccountName::parse("Bio42").unwrap().as_str(), "bio42");
    }

    #[test]
    fn names_that_could_change_a_command_are_refused() {
        for text in ["", "-i", "a,b", "a=b", "a b", "a|b", "a\nb", "a'b", "a\"b", "é", "*", &"x".repeat(129)]
        {
            assert!(AccountName::parse(text).is_err(), "{text:?}");
        }
    }
}
