//! `[accounts]`: which accounts the agent may change at all.

use super::document::{Item, Section};
use super::print::Printer;
use crate::core::name::AccountName;

/// Which accounts may be changed. An account must also belong to a resource or a local allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Only accounts below one of these; empty: any.
    pub parents: Vec<AccountName>,
    /// Only accounts that fit one of these (`*` any text, `?` one character); empty: any.
    pub patterns: Vec<String>,
    /// Never accounts that fit one of these.
    pub exclude: Vec<String>,
}

/// Why the agent never acts on root.
const ROOT_NEVER: &str = "root is the top of every account tree and is never changed";

/// The name of an account that may be changed: never root.
pub(super) fn changeable(item: &Item<'_>, allowed: &str) -> Option<AccountName> {
    let account = item.parsed(allowed, AccountName::parse)?;
    if account.is_root() { item.wrong(ROOT_NEVER, allowed) } else { Some(account) }
}

impl Accounts {
    /// Whether the account may be changed, else why not. `ancestors` are its parent, the parent's parent and so on.
    /// `root` never may.
    pub fn allows<'a>(
        &self,
        account: &AccountName,
        ancestors: impl IntoIterator<Item = &'a AccountName>,
    ) -> Result<(), String> {
        if account.is_root() {
            return Err(ROOT_NEVER.to_owned());
        }
        if let Some(pattern) = self.exclude.iter().find(|pattern| fits(pattern, account.as_str())) {
            return Err(format!("{account} fits {pattern:?} in accounts.exclude"));
        }
        if !self.patterns.is_empty() && !self.patterns.iter().any(|pattern| fits(pattern, account.as_str())) {
            return Err(format!("{account} fits none of accounts.patterns"));
        }
        if !self.parents.is_empty() && !ancestors.into_iter().any(|ancestor| self.parents.contains(ancestor))
        {
            return Err(format!("{account} is not below any of accounts.parents"));
        }
        Ok(())
    }

    pub(super) fn read(section: &mut Section<'_>) -> Option<Accounts> {
        const ACCOUNT: &str = "the name of an account";
        let parents = section
            .or("parents", Vec::new(), |item| item.list(|entry| entry.parsed(ACCOUNT, AccountName::parse)));
        let patterns = section.or("patterns", Vec::new(), |item| item.list(read_pattern));
        let exclude = section.or("exclude", Vec::new(), |item| item.list(read_pattern));
        Some(Accounts { parents: parents?, patterns: patterns?, exclude: exclude? })
    }

    pub(super) fn print(&self, to: &mut Printer) {
        to.table("accounts");
        to.key(
            "parents",
            self.parents.iter().map(|name| toml::Value::from(name.as_str())).collect::<Vec<_>>(),
        );
        to.key("patterns", self.patterns.clone());
        to.key("exclude", self.exclude.clone());
    }
}

/// A pattern in lower case, as Slurm keeps account names.
fn read_pattern(item: &Item<'_>) -> Option<String> {
    const ALLOWED: &str = "letters, digits and _ . - + @ : with * for any text and ? for one character";
    let text = item.text()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-+@:*?".contains(&b);
    if text.is_empty() || !text.bytes().all(fits) {
        return item.wrong("this is not a pattern of account names", ALLOWED);
    }
    Some(text.to_ascii_lowercase())
}

/// Whether the whole name fits the pattern. Goes back to the last `*` only, so its time is at most the product of
/// the two lengths.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_p, star_n)) = star else {
                    return false;
                };
                star = Some((star_p, star_n + 1));
                p = star_p + 1;
                n = star_n + 1;
            }
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountName {
        AccountName::parse(name).unwrap()
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, expected) in [
            ("bio*", "bio42", true),
            ("bio*", "bio", true),
            ("bio*", "abio", false),
            ("*bio", "abio", true),
            ("b?o", "bio", true),
            ("b?o", "bo", false),
            ("*a*b*c*", "xxaxxbxxc", true),
            ("*a*b*c*", "xxaxxcxxb", false),
            ("*ab", "aab", true),
            ("*", "", true),
            ("?", "", false),
            ("bio", "bio4", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn root_is_never_changed_even_when_a_pattern_fits_it() {
        let accounts = Accounts { patterns: vec!["*".into()], ..Accounts::default() };
        assert!(accounts.allows(&account("root"), &[]).is_err());
        assert_eq!(accounts.allows(&account("bio"), &[account("root")]), Ok(()));
    }

    #[test]
    fn an_account_must_pass_exclusion_pattern_and_parent() {
        let accounts = Accounts {
            parents: vec![account("grants")],
            patterns: vec!["p-*".into()],
            exclude: vec!["p-old*".into()],
        };
        let below = [account("faculty"), account("grants"), account("root")];
        assert_eq!(accounts.allows(&account("p-1"), &below), Ok(()));
        for (name, ancestors, word) in [
            ("p-old7", &below[..], "accounts.exclude"),
            ("q-1", &below[..], "accounts.patterns"),
            ("p-1", &below[2..], "accounts.parents"),
        ] {
            let reason = accounts.allows(&account(name), ancestors).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
