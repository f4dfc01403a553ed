//! Command-line options as GNU getopt_long takes them, with its complaints word for word.

/// One option: its letter, its long names, and whether it takes a value.
pub(super) struct Opt {
    /// What the program calls the option; for options with a short form also that letter.
    pub(super) id: char,
    /// False for options that only have long names.
    pub(super) short: bool,
    /// Long names.
    pub(super) long: &'static [&'static str],
    /// Whether a value follows.
    pub(super) value: Value,
}

/// Whether an option takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Never.
    None,
    /// Always.
    Required,
    /// Only as `--name=value`.
    Optional,
}

/// An option without a value.
pub(super) const fn flag(id: char, long: &'static [&'static str]) -> Opt {
    Opt { id, short: true, long, value: Value::None }
}

/// An option with a value.
pub(super) const fn with_value(id: char, long: &'static [&'static str]) -> Opt {
    Opt { id, short: true, long, value: Value::Required }
}

/// An option that has long names only.
pub(super) const fn long_only(id: char, long: &'static [&'static str], value: Value) -> Opt {
    Opt { id, short: false, long, value }
}

/// What was found on a command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Options in order, with their values.
    pub(super) options: Vec<(char, String)>,
    /// The words that are no options, in order.
    pub(super) words: Vec<String>,
}

/// Reads a command line. `Err` is what getopt prints, to be followed by the program's own ending.
pub(super) fn parse(program: &str, args: &[String], known: &[Opt]) -> Result<Parsed, (Parsed, String)> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while at < args.len() {
        let word = &args[at];
        at += 1;
        if word == "--" {
            parsed.words.extend_from_slice(&args[at..]);
            break;
        }
        let taken = if let Some(long) = word.strip_prefix("--") {
            take_long(program, long, args.get(at), known, &mut parsed)
        } else if word.len() > 1 && word.starts_with('-') {
            take_short(program, &word[1..], args.get(at), known, &mut parsed)
        } else {
            parsed.words.push(word.clone());
            Ok(false)
        };
        match taken {
            Ok(true) => at += 1,
            Ok(false) => {}
            Err(complaint) => return Err((parsed, complaint)),
        }
    }
    Ok(parsed)
}

/// Takes a long option; true when the next word was its value.
fn take_long(
    program: &str,
    text: &str,
    next: Option<&String>,
    known: &[Opt],
    parsed: &mut Parsed,
) -> Result<bool, String> {
    let (name, given) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let (option, full) = find_long(program, name, known)?;
    match (option.value, given) {
        (Value::None, Some(_)) => Err(format!("{program}: option '--{full}' doesn't allow an argument\n")),
        (Value::Required, None) => match next {
            Some(value) => {
                parsed.options.push((option.id, value.clone()));
                Ok(true)
            }
            None => Err(format!("{program}: option '--{full}' requires an argument\n")),
        },
        (_, given) => {
            parsed.options.push((option.id, given.unwrap_or_default().to_owned()));
            Ok(false)
        }
    }
}

fn find_long<'a>(program: &str, name: &str, known: &'a [Opt]) -> Result<(&'a Opt, &'static str), String> {
    let mut found: Vec<(&Opt, &'static str)> = Vec::new();
    for option in known {
        for long in option.long {
            if *long == name {
                return Ok((option, long));
            }
            if long.starts_with(name) {
                found.push((option, long));
            }
        }
    }
    match found.as_slice() {
        [] => Err(format!("{program}: unrecognized option '--{name}'\n")),
        [(first, full), rest @ ..] => {
            if rest.iter().all(|(other, _)| other.id == first.id) {
                return Ok((*first, full));
            }
            let list: String = found.iter().map(|(_, long)| format!(" '--{long}'")).collect();
            Err(format!("{program}: option '--{name}' is ambiguous; possibilities:{list}\n"))
        }
    }
}

/// Takes a cluster of short options; true when the next word was the value of the last.
fn take_short(
    program: &str,
    letters: &str,
    next: Option<&String>,
    known: &[Opt],
    parsed: &mut Parsed,
) -> Result<bool, String> {
    for (at, letter) in letters.char_indices() {
        let Some(option) = known.iter().find(|option| option.short && option.id == letter) else {
            return Err(format!("{program}: invalid option -- '{letter}'\n"));
        };
        if option.value != Value::Required {
            parsed.options.push((option.id, String::new()));
            continue;
        }
        let rest = &letters[at + letter.len_utf8()..];
        if !rest.is_empty() {
            parsed.options.push((option.id, rest.to_owned()));
            return Ok(false);
        }
        return match next {
            Some(value) => {
                parsed.options.push((option.id, value.clone()));
                Ok(true)
            }
            None => Err(format!("{program}: option requires an argument -- '{letter}'\n")),
        };
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Opt] = &[
        flag('n', &["noheader"]),
        long_only('1', &["noconvert"], Value::None),
        with_value('S', &["starttime"]),
        flag('P', &["parsable2"]),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_may_follow_words_and_be_joined_or_shortened() {
        let parsed = parse("x", &words("show assoc -nP --start=5 -S6 -S 7 --noh a=b"), KNOWN).expect("known");
        let ids: Vec<(char, &str)> = parsed.options.iter().map(|(id, value)| (*id, value.as_str())).collect();
        assert_eq!(ids, [('n', ""), ('P', ""), ('S', "5"), ('S', "6"), ('S', "7"), ('n', "")]);
        assert_eq!(parsed.words, ["show", "assoc", "a=b"]);
    }

    #[test]
    fn complaints_are_those_of_glibc() {
        for (given, want) in [
            ("-Z", "sacct: invalid option -- 'Z'\n"),
            ("--array", "sacct: unrecognized option '--array'\n"),
            ("-S", "sacct: option requires an argument -- 'S'\n"),
            ("--starttime", "sacct: option '--starttime' requires an argument\n"),
            ("--noheader=1", "sacct: option '--noheader' doesn't allow an argument\n"),
            ("--no", "sacct: option '--no' is ambiguous; possibilities: '--noheader' '--noconvert'\n"),
        ] {
            assert_eq!(parse("sacct", &words(given), KNOWN).expect_err("refused").1, want);
        }
    }
}
