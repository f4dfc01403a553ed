//! `lfs quota -u USER /mount` and `lfs quota -p ID /mount` (also `-g`), any number of answers one after the other:
//!
//! ```text
//! Disk quotas for prj 1000 (pid 1000):
//!      Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
//! /mnt/lustre      1024*       0       0       -      17       0       0       -
//! pid 1000 is using default block quota setting
//! ```
//!
//! A long name of a file system stands on a line of its own. `*` marks a limit that is passed; `[]` a number that is
//! inaccurate because a target did not answer, which is no number here. `-h` prints `used` in place of `kbytes`, which is
//! not exact; `-v` adds rows of targets, which are rejected.

use super::{Parsed, blocks, number};
use crate::core::amie::Stored;

/// Filesystem, then kbytes, quota, limit, grace of blocks and files, quota, limit, grace of inodes.
const FIELDS: usize = 9;

/// An answer whose numbers are still to come.
struct Open<'a> {
    head: &'a str,
    line: Stored,
    counts: bool,
    words: Vec<&'a str>,
}

pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>, parsed: &mut Parsed) {
    let mut open: Option<Open<'a>> = None;
    for line in lines {
        if line.starts_with("Disk quotas for ") {
            if let Some(cut) = open.take() {
                parsed.reject(cut.head, "its numbers are missing");
            }
            match head(line) {
                Ok(stored) => {
                    open = Some(Open { head: line, line: stored, counts: false, words: Vec::new() });
                }
                Err(why) => parsed.reject(line, &why),
            }
            continue;
        }
        let Some(answer) = &mut open else {
            if !is_remark(line) {
                parsed.reject(line, "it belongs to no \"Disk quotas for ...\"");
            }
            continue;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"Filesystem") && answer.words.is_empty() {
            answer.counts = words.get(1) == Some(&"kbytes");
            continue;
        }
        answer.words.extend(words);
        if answer.words.len() >= FIELDS {
            let Some(answer) = open.take() else { continue };
            let (head, read) = (answer.head, numbers(answer));
            parsed.add(head, read);
        }
    }
    if let Some(cut) = open {
        parsed.reject(cut.head, "its numbers are missing");
    }
}

/// `Disk quotas for usr alice (uid 1000):`
fn head(line: &str) -> Result<Stored, String> {
    let wrong = || "it is not \"Disk quotas for usr|grp|prj NAME (id N):\"".to_owned();
    let rest = line.trim_end().strip_prefix("Disk quotas for ").and_then(|rest| rest.strip_suffix("):"));
    let (rest, id) = rest.and_then(|rest| rest.rsplit_once(" (")).ok_or_else(wrong)?;
    let (kind, name) = rest.split_once(' ').ok_or_else(wrong)?;
    let numbered = id.split_once(' ').is_some_and(|(_, id)| number("id", id).is_ok());
    let name = Some(name.to_owned()).filter(|name| !name.is_empty() && numbered).ok_or_else(wrong)?;
    match kind {
        "usr" | "user" => Ok(Stored { username: Some(name), ..Stored::default() }),
        "prj" | "grp" | "project" | "group" => Ok(Stored { account: Some(name), ..Stored::default() }),
        _ => Err(wrong()),
    }
}

fn numbers(answer: Open<'_>) -> Result<Stored, String> {
    if !answer.counts {
        return Err("its column is not kbytes; ask without -h".into());
    }
    if answer.words.len() != FIELDS {
        return Err(format!("it has {} fields in place of {FIELDS}", answer.words.len()));
    }
    let count = |at: usize| answer.words[at].strip_suffix('*').unwrap_or(answer.words[at]);
    if [1, 5].into_iter().any(|at| count(at).starts_with('[')) {
        return Err("a target did not answer: the number is inaccurate".into());
    }
    let (bytes_stored, files) = (blocks("kbytes", count(1))?, number("files", count(5))?);
    Ok(Stored { bytes_stored, file_count: Some(files), ..answer.line })
}

/// What lfs says after the numbers.
fn is_remark(line: &str) -> bool {
    line.contains(" is using default ") || line.starts_with("Some errors happened when getting quota info")
}
