//! `xfs_quota -x -c 'report -p -b -i -N' /mount`: name, then used, soft, hard, warnings and grace of blocks (of 1024 bytes)
//! and of inodes. Both are asked for, so that a column of inodes cannot be taken for one of blocks.
//!
//! A line is read from its end, where the numbers are: what remains in front is the name, whatever it is made of.

use super::{Parsed, ReportError, blocks, number, shown};
use crate::core::amie::Stored;

/// Whose quotas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Users,
    Projects,
}

pub(super) fn read<'a>(
    lines: impl Iterator<Item = &'a str>,
    whose: Whose,
    parsed: &mut Parsed,
) -> Result<(), ReportError> {
    for line in lines {
        // Without -N there are headings; the first says whose quotas follow.
        if let Some(kind) = heading(line) {
            let fits = match whose {
                Whose::Users => kind == "User",
                Whose::Projects => kind == "Project" || kind == "Group",
            };
            if !fits {
                let expected = match whose {
                    Whose::Users => "report -u -b -i",
                    Whose::Projects => "report -p -b -i or report -g -b -i",
                };
                return Err(ReportError::Heading { found: shown(line), expected });
            }
        } else if !is_rest_of_heading(line) {
            parsed.add(line, one(line, whose));
        }
    }
    Ok(())
}

/// `Project quota on /mount (/dev/device)`.
fn heading(line: &str) -> Option<&str> {
    let (kind, rest) = line.split_once(" quota on /")?;
    (rest.ends_with(')') && ["User", "Group", "Project"].contains(&kind)).then_some(kind)
}

fn is_rest_of_heading(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let only_dashes = words.iter().all(|word| word.bytes().all(|byte| byte == b'-'));
    let columns = ["User ID ", "Group ID ", "Project ID "].iter().any(|start| line.starts_with(start))
        && words.ends_with(&["Used", "Soft", "Hard", "Warn/", "Grace"]);
    only_dashes || columns || words == ["Blocks", "Inodes"]
}

fn one(line: &str, whose: Whose) -> Result<Stored, String> {
    let (rest, files) = last_group(line)?;
    let (name, used) =
        last_group(rest).map_err(|_| "it has no blocks and inodes; ask with -b -i".to_owned())?;
    let name = name.trim();
    if name.is_empty() {
        return Err("it has no name".into());
    }
    if name.ends_with(']') {
        return Err("it has more than blocks and inodes; ask with -b -i alone".into());
    }
    let name = Some(name.to_owned());
    let (username, account) = match whose {
        Whose::Users => (name, None),
        Whose::Projects => (None, name),
    };
    Ok(Stored {
        username,
        account,
        bytes_stored: blocks("Used (blocks)", used)?,
        file_count: Some(number("Used (inodes)", files)?),
        ..Stored::default()
    })
}

/// The last `used soft hard warnings [grace]` of a text: what is in front of it, and `used`.
fn last_group(text: &str) -> Result<(&str, &str), String> {
    let wrong = || "it does not end with used, soft, hard, warnings and [grace]".to_owned();
    let inside = text.trim_end().strip_suffix(']').ok_or_else(wrong)?;
    let (mut rest, grace) = inside.rsplit_once('[').ok_or_else(wrong)?;
    if !grace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -:".contains(&byte)) {
        return Err(wrong());
    }
    let mut used = "";
    for _ in 0..4 {
        rest = rest.trim_end();
        let at = rest.rfind(char::is_whitespace).ok_or_else(wrong)?;
        (rest, used) = (&rest[..at], &rest[at + 1..]);
        // All four are counts; a readable one (1.5G) is not exact.
        number("a column", used)?;
    }
    Ok((rest, used))
}
