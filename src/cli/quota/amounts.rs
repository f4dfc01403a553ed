//! Amounts as an operator writes them. What a server spells with a special number is a word here.

use crate::core::exact::Exact;
use crate::core::quota::{Bound, Consumer, ConsumerKind, Rule, RuleKind, Window};

/// `unlimited`, or how much.
pub fn bound(text: &str) -> Result<Bound, String> {
    if text == "unlimited" {
        return Ok(Bound::Unlimited);
    }
    amount(text).map(Bound::AtMost).map_err(|reason| format!("{reason}, or `unlimited`"))
}

/// A number from 0 on.
pub fn amount(text: &str) -> Result<Exact, String> {
    match Exact::parse(text) {
        Ok(number) if !number.is_negative() => Ok(number),
        Ok(_) => Err("it is below 0; give a number from 0 on".to_owned()),
        Err(_) => Err("it is not a number; give one from 0 on, such as 2000 or 12.5".to_owned()),
    }
}

/// A whole number, `unlimited` or `none`. 0 is refused: it would be read as nothing and means everything to Nomad.
pub fn at_one_time(text: &str) -> Result<Bound, String> {
    match text {
        "unlimited" => return Ok(Bound::Unlimited),
        "none" => return Ok(Bound::AtMost(Exact::ZERO)),
        _ => {}
    }
    match text.parse::<u32>() {
        Ok(0) => Err("0 means as much as there is to Nomad; say `unlimited` or `none`".to_owned()),
        Ok(number) => Ok(Bound::AtMost(Exact::whole(number.into()))),
        Err(_) => Err("give a whole number from 1 on, `unlimited` or `none`".to_owned()),
    }
}

/// A device and how many: `nvidia/gpu=2`, `gpu=unlimited`.
pub fn device(text: &str) -> Result<(String, Option<u64>), String> {
    const FORM: &str = "give NAME=COUNT with a count from 1 on, or NAME=unlimited";
    let (name, count) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(FORM)?;
    let count = match count {
        "unlimited" => None,
        "none" => return Err(format!("Nomad cannot forbid a device with a quota; {FORM}")),
        count => Some(count.parse().ok().filter(|count| *count > 0).ok_or(FORM)?),
    };
    Ok((name.to_owned(), count))
}

/// Rules by their word.
const KINDS: [(&str, RuleKind); 4] = [
    ("requests", RuleKind::Requests),
    ("token", RuleKind::Token),
    ("concurrentRequests", RuleKind::ConcurrentRequests),
    ("inputSequenceLength", RuleKind::InputSequenceLength),
];
const WINDOWS: [(&str, Window); 3] = [("min", Window::Min), ("hour", Window::Hour), ("day", Window::Day)];

/// Which rules: a kind, and a window where that is meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleName {
    /// What is counted.
    pub kind: RuleKind,
    /// In how much time; `None` for all of them.
    pub window: Option<Window>,
}

impl RuleName {
    /// Whether a rule has this name.
    pub fn fits(self, rule: &Rule) -> bool {
        rule.kind == self.kind && self.window.is_none_or(|window| window == rule.window)
    }
}

/// Whether a rule of this kind counts in a window at all.
fn has_window(kind: RuleKind) -> bool {
    matches!(kind, RuleKind::Requests | RuleKind::Token)
}

/// `token/hour`, `requests`, `concurrentRequests`.
pub fn rule_name(text: &str) -> Result<RuleName, String> {
    let (kind, window) = match text.split_once('/') {
        Some((kind, window)) => (kind, Some(window)),
        None => (text, None),
    };
    let found = KINDS.iter().find(|(word, _)| *word == kind);
    let words = KINDS.map(|(word, _)| word).join(", ");
    let (_, kind) = *found.ok_or_else(|| format!("{kind:?} is no rule; give one of {words}"))?;
    let window = match window {
        None => None,
        Some(_) if !has_window(kind) => return Err(format!("{} has no window", rule_word(kind))),
        Some(word) => {
            let found = WINDOWS.iter().find(|(known, _)| *known == word);
            Some(found.ok_or_else(|| format!("{word:?} is no window; give min, hour or day"))?.1)
        }
    };
    Ok(RuleName { kind, window })
}

/// `token=600/hour`, `requests=3` (per minute), `concurrentRequests=10`.
pub fn rule(text: &str) -> Result<Rule, String> {
    const FORM: &str = "give RULE=LIMIT or RULE=LIMIT/WINDOW, such as token=600/hour";
    let (kind, rest) = text.split_once('=').ok_or(FORM)?;
    let (limit, window) = match rest.split_once('/') {
        Some((limit, window)) => (limit, format!("/{window}")),
        None => (rest, String::new()),
    };
    let name = rule_name(&format!("{kind}{window}"))?;
    let limit = limit.parse().map_err(|_| format!("{limit:?} is no whole number from 0 on; {FORM}"))?;
    Ok(Rule { kind: name.kind, limit, window: name.window.unwrap_or_default() })
}

/// The word of a kind of rule.
pub fn rule_word(kind: RuleKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("rule", |(word, _)| *word)
}

/// A rule as it is written.
pub fn rule_text(rule: &Rule) -> String {
    let window = WINDOWS.iter().find(|(_, known)| *known == rule.window && has_window(rule.kind));
    let window = window.map_or_else(String::new, |(word, _)| format!("/{word}"));
    format!("{}={}{window}", rule_word(rule.kind), rule.limit)
}

/// `user:alice`, `deployment:chem7`, `usergroup:phys`.
pub fn consumer(text: &str) -> Result<Consumer, String> {
    const FORM: &str = "give user:ID, deployment:ID or usergroup:ID";
    let (kind, id) = text.split_once(':').filter(|(_, id)| !id.is_empty()).ok_or(FORM)?;
    let kind = match kind {
        "user" => ConsumerKind::User,
        "deployment" => ConsumerKind::Deployment,
        "usergroup" => ConsumerKind::UserGroup,
        _ => return Err(FORM.to_owned()),
    };
    Ok(Consumer { kind, id: id.to_owned() })
}

/// A consumer as it is written.
pub fn consumer_text(consumer: &Consumer) -> String {
    let kind = match consumer.kind {
        ConsumerKind::User => "user",
        ConsumerKind::Deployment => "deployment",
        ConsumerKind::UserGroup => "usergroup",
    };
    format!("{kind}:{}", consumer.id)
}

/// A share from 0 to 1, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub Option<Exact>);

/// A share from 0 to 1, or `none`.
pub fn share(text: &str) -> Result<Share, String> {
    const FORM: &str = "give a share from 0 to 1, such as 0.25, or `none`";
    if text == "none" {
        return Ok(Share(None));
    }
    let share = amount(text).ok().filter(|share| *share <= Exact::ONE);
    share.map(|share| Share(Some(share))).ok_or_else(|| FORM.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back_from_what_is_shown_of_them() {
        for text in [
            "token=600/hour",
            "requests=0/day",
            "requests=3/min",
            "concurrentRequests=10",
            "inputSequenceLength=5",
        ] {
            assert_eq!(rule_text(&rule(text).unwrap()), text);
        }
        assert_eq!(rule("requests=3").unwrap().window, Window::Min, "a minute unless it is said");
        for (text, reason) in [
            ("token", "RULE=LIMIT"),
            ("tokens=5", "give one of requests, token, concurrentRequests, inputSequenceLength"),
            ("token=5/week", "give min, hour or day"),
            ("token=-1", "no whole number"),
            ("concurrentRequests=5/day", "has no window"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_without_window_fits_every_window_of_its_kind() {
        let hourly = rule("token=5/hour").unwrap();
        assert!(rule_name("token").unwrap().fits(&hourly) && rule_name("token/hour").unwrap().fits(&hourly));
        assert!(
            !rule_name("token/day").unwrap().fits(&hourly) && !rule_name("requests").unwrap().fits(&hourly)
        );
    }

    #[test]
    fn numbers_with_a_second_meaning_are_words() {
        assert_eq!(bound("unlimited"), Ok(Bound::Unlimited));
        assert_eq!(bound("12.5"), Ok(Bound::AtMost(Exact::parse("12.5").unwrap())));
        assert!(
            bound("-1").unwrap_err().contains("below 0") && bound("-1").unwrap_err().contains("`unlimited`")
        );
        assert_eq!(at_one_time("none"), Ok(Bound::AtMost(Exact::ZERO)));
        assert!(at_one_time("0").unwrap_err().contains("say `unlimited` or `none`"));
        assert_eq!(device("nvidia/gpu=2"), Ok(("nvidia/gpu".to_owned(), Some(2))));
        assert_eq!(device("gpu=unlimited"), Ok(("gpu".to_owned(), None)));
        assert!(device("gpu=0").is_err() && device("=2").is_err() && device("gpu").is_err());
        assert!(device("gpu=none").unwrap_err().contains("cannot forbid"));
        assert_eq!(share("none"), Ok(Share(None)));
        assert!(share("1.1").is_err() && share("x").is_err() && share("1").is_ok());
    }
}
