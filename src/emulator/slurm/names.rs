//! How Slurm's programs take names and keywords from a command line: comma lists, quotes, abbreviated keywords.

/// True when `given` may stand for `keyword`: a prefix of it, case ignored, of at least `shortest` characters.
pub(super) fn abbreviates(given: &str, keyword: &str, shortest: usize) -> bool {
    given.len() >= shortest
        && given.len() <= keyword.len()
        && keyword.as_bytes()[..given.len()].eq_ignore_ascii_case(given.as_bytes())
}

/// True when `given` begins with the first `length` letters of `keyword`, whatever follows.
pub(super) fn begins_like(given: &str, keyword: &str, length: usize) -> bool {
    given.len() >= length && given.as_bytes()[..length].eq_ignore_ascii_case(&keyword.as_bytes()[..length])
}

/// Names from a comma list, added to those already there, lower-cased unless `keep_case`; an empty list adds the empty
/// name, quotes inside become backticks, a repeated name moves to the end.
pub(super) fn add_names(names: &mut Vec<String>, text: &str, keep_case: bool) {
    let (quote, body) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => (Some(quote), &text[1..]),
        _ => (None, text),
    };
    let body = match quote.and_then(|quote| body.find(quote)) {
        Some(end) => &body[..end],
        None => body,
    };
    let body = body.replace(['"', '\''], "`");
    let before = names.len();
    let mut push = |name: &str| {
        names.retain(|known| known != name);
        names.push(if keep_case { name.to_owned() } else { name.to_lowercase() });
    };
    let mut parts: Vec<&str> = body.split(',').collect();
    if parts.len() > 1 && parts.last() == Some(&"") {
        parts.pop();
    }
    let last = parts.pop().unwrap_or("");
    for part in parts.iter().filter(|part| !part.is_empty()) {
        push(part);
    }
    if !last.is_empty() {
        push(last);
    } else if names.len() == before {
        names.push(String::new());
    }
}

/// One value as sacctmgr stores it: outer quotes off, inner ones as backticks, lower-cased.
pub(super) fn unquoted(text: &str, keep_case: bool) -> String {
    let mut chars = text.chars().peekable();
    let quote = chars.next_if(|first| matches!(first, '"' | '\''));
    let mut value = String::with_capacity(text.len());
    for c in chars {
        if Some(c) == quote {
            break;
        }
        match c {
            '"' | '\'' => value.push('`'),
            c if keep_case => value.push(c),
            c => value.push(c.to_ascii_lowercase()),
        }
    }
    value
}

/// Leading number as C's strtol reads it, and what follows; no digits give 0 and the whole text.
pub(super) fn signed_prefix(text: &str) -> (i64, &str) {
    let trimmed = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return (0, text);
    }
    let value = digits[..end].parse::<i64>().unwrap_or(i64::MAX);
    (if negative { -value } else { value }, &digits[end..])
}

/// `%-10.10s`: cut and padded to a number of bytes, as C does.
pub(super) fn cut_and_pad(text: &str, bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = text.bytes().take(bytes).collect();
    out.resize(out.len().max(bytes), b' ');
    out
}

/// `%-20s`: padded to a number of bytes, never cut.
pub(super) fn pad(text: &str, bytes: usize) -> String {
    let missing = bytes.saturating_sub(text.len());
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let mut list = Vec::new();
        add_names(&mut list, text, false);
        list
    }

    #[test]
    fn names_are_lower_cased_and_empty_ones_dropped() {
        assert_eq!(names("ACC_A1"), ["acc_a1"]);
        assert_eq!(names(",acc_a1,"), ["acc_a1"]);
        assert_eq!(names("a,b,a"), ["b", "a"]);
        assert_eq!(names(""), [""]);
        assert_eq!(names("acc'q"), ["acc`q"]);
        assert_eq!(names("\"a,b\",c"), ["a", "b"]);
    }

    #[test]
    fn keywords_may_be_shortened_to_their_least_length() {
        assert!(abbreviates("fair", "FairShare", 1));
        assert!(abbreviates("GRPTRESMINS", "GrpTRESMins", 8));
        assert!(!abbreviates("GrpTRES", "GrpTRESMins", 8));
        assert!(!abbreviates("fairshares", "FairShare", 1));
    }

    #[test]
    fn numbers_are_read_as_strtol_reads_them() {
        assert_eq!(signed_prefix("12abc"), (12, "abc"));
        assert_eq!(signed_prefix("abc"), (0, "abc"));
        assert_eq!(signed_prefix("-1"), (-1, ""));
    }
}
