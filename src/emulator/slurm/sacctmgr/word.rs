//! One word of a command: `key=value`, `key+=value`, `key-=value`, or a bare name.

use super::super::names::abbreviates;

/// A word, taken apart as sacctmgr does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The whole word.
    pub(super) raw: &'a str,
    /// What stands before the sign; the whole word when there is none.
    pub(super) key: &'a str,
    /// What stands after the sign; the whole word when there is none.
    pub(super) value: &'a str,
    /// Whether there is a sign.
    pub(super) has_value: bool,
    /// `+`, `-`, or `=` for a doubled sign.
    pub(super) sign: Option<char>,
}

impl<'a> Word<'a> {
    /// Takes a word apart.
    pub(super) fn of(raw: &'a str) -> Word<'a> {
        let bytes = raw.as_bytes();
        let at = (0..bytes.len()).find(|at| {
            bytes[*at] == b'=' || (matches!(bytes[*at], b'+' | b'-') && bytes.get(at + 1) == Some(&b'='))
        });
        let Some(at) = at else {
            return Word { raw, key: raw, value: raw, has_value: false, sign: None };
        };
        let doubled = bytes.get(at + 1) == Some(&b'=');
        let sign = doubled.then(|| char::from(bytes[at]));
        let from = if doubled { at + 2 } else { at + 1 };
        Word { raw, key: &raw[..at], value: &raw[from..], has_value: true, sign }
    }

    /// True when the key stands for this keyword.
    pub(super) fn is(&self, keyword: &str, least: usize) -> bool {
        abbreviates(self.key, keyword, least)
    }

    /// True for a bare word that stands for this keyword.
    pub(super) fn is_bare(&self, keyword: &str, least: usize) -> bool {
        !self.has_value && self.is(keyword, least)
    }
}

/// The words of a command in two heaps: conditions and settings, parted by `where` and `set`.
pub(super) struct Parts<'a> {
    /// Words before `set` or after `where`.
    pub(super) conditions: Vec<Word<'a>>,
    /// Words after `set`.
    pub(super) settings: Vec<Word<'a>>,
}

impl<'a> Parts<'a> {
    /// Parts the words of `modify`.
    pub(super) fn of(words: &'a [String]) -> Parts<'a> {
        let mut parts = Parts { conditions: Vec::new(), settings: Vec::new() };
        let mut setting = false;
        for word in words.iter().map(|word| Word::of(word)) {
            if word.is_bare("where", 5) {
                setting = false;
            } else if word.is_bare("set", 3) {
                setting = true;
            } else if setting {
                parts.settings.push(word);
            } else {
                parts.conditions.push(word);
            }
        }
        parts
    }

    /// All words of a command that has conditions only.
    pub(super) fn conditions(words: &'a [String]) -> Vec<Word<'a>> {
        words
            .iter()
            .map(|word| Word::of(word))
            .filter(|word| !word.is_bare("where", 5) && !word.is_bare("set", 3))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_belong_to_neither_key_nor_value() {
        let parts = |raw| {
            let word = Word::of(raw);
            (word.key, word.value, word.sign)
        };
        assert_eq!(parts("qos+=a,b"), ("qos", "a,b", Some('+')));
        assert_eq!(parts("qos-=a"), ("qos", "a", Some('-')));
        assert_eq!(parts("GrpTRES=cpu=4"), ("GrpTRES", "cpu=4", None));
        assert_eq!(parts("acc-x"), ("acc-x", "acc-x", None));
        assert_eq!(parts("qos="), ("qos", "", None));
    }
}
