//! `repquota -O csv` (quota-tools): a heading, then one line per user, group or project. Blocks have 1024 bytes.
//!
//! The heading says `Block...` for counts of blocks and `Space...` where `-s` made them readable for people; only counts are
//! exact. Names are printed as they are: one with a comma shifts the fields and is rejected by their number.

use super::{Parsed, ReportError, blocks, number, shown};
use crate::core::amie::Stored;

/// Whose quotas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Users,
    Projects,
}

const COLUMNS: &str = "BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed,FileSoftLimit,\
                       FileHardLimit,FileGrace";
const FIELDS: usize = 11;

fn is_heading(line: &str, whose: Whose) -> bool {
    let words: &[&str] = match whose {
        Whose::Users => &["User"],
        Whose::Projects => &["Project", "Group"],
    };
    line.split_once(',').is_some_and(|(word, rest)| words.contains(&word) && rest == COLUMNS)
}

pub(super) fn read<'a>(
    mut lines: impl Iterator<Item = &'a str>,
    whose: Whose,
    parsed: &mut Parsed,
) -> Result<(), ReportError> {
    let first = lines.next().unwrap_or("");
    if !is_heading(first, whose) {
        let expected = match whose {
            Whose::Users => "repquota -O csv -u (without -s)",
            Whose::Projects => "repquota -O csv -P or -g (without -s)",
        };
        return Err(ReportError::Heading { found: shown(first), expected });
    }
    // Each further file system begins with the heading again.
    for line in lines.filter(|line| !is_heading(line, whose)) {
        parsed.add(line, one(line, whose));
    }
    Ok(())
}

fn one(line: &str, whose: Whose) -> Result<Stored, String> {
    let fields: Vec<&str> = line.split(',').collect();
    if fields.len() != FIELDS {
        return Err(format!("it has {} fields in place of {FIELDS}", fields.len()));
    }
    let name = Some(fields[0].to_owned());
    let (username, account) = match whose {
        Whose::Users => (name, None),
        Whose::Projects => (None, name),
    };
    Ok(Stored {
        username,
        account,
        bytes_stored: blocks("BlockUsed", fields[3])?,
        file_count: Some(number("FileUsed", fields[7])?),
        ..Stored::default()
    })
}
