//! sshare: the raw usage that slurmctld enforces limits with. It lives in slurmctld alone and decays there.

use std::collections::BTreeMap;

use super::argv::{Argv, Program};
use super::rows::{self, ByKey, Rejects};
use super::tres_text;
use crate::core::name::AccountName;
use crate::core::tres::Tres;

/// What slurmctld has counted for an account and everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawUsage {
    /// RawUsage: seconds times billing, weighted with the QOS's UsageFactor, from untruncated billing.
    pub raw_usage: u64,
    /// GrpTRESRaw: TRES-minutes (memory MB-minutes), rounded down.
    pub tres_minutes: BTreeMap<Tres, u64>,
}

/// The question for all associations of the local cluster.
pub(super) fn argv() -> Argv {
    Argv::reading(Program::Sshare, ["-nP", "-a", "-o", "Account,User,RawUsage,GrpTRESRaw"])
}

/// Reads the rows of accounts; those of users are skipped. An account whose row is not understood is absent.
pub fn parse(answer: &[u8]) -> BTreeMap<AccountName, RawUsage> {
    read(answer).0
}

/// As [`parse`], with what was rejected.
pub(super) fn read(answer: &[u8]) -> (BTreeMap<AccountName, RawUsage>, Rejects) {
    let mut rejects = Rejects::default();
    let mut found = ByKey::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        match parse_row(row) {
            Ok(Some((account, usage))) => found.add(account, usage, row, &mut rejects),
            Ok(None) => {}
            Err(reason) => rejects.add(row, reason),
        }
    }
    (found.certain(), rejects)
}

fn parse_row(row: &[u8]) -> Result<Option<(AccountName, RawUsage)>, &'static str> {
    let [account, user, raw_usage, minutes] = rows::fields(row, b'|').ok_or("not 4 fields")?;
    if !user.is_empty() {
        return Ok(None);
    }
    // Indented by one space for each level of the tree. What follows a newline inside an account's name looks like a
    // row of its own (22.05.8), but is not indented as everything but root is.
    let text = std::str::from_utf8(account).map_err(|_| "not UTF-8")?;
    let account =
        AccountName::parse(text.trim_start_matches(' ')).map_err(|_| "account name is not acted on")?;
    if text.starts_with(' ') == account.is_root() {
        return Err("not at its place in the tree");
    }
    let raw_usage = rows::number(raw_usage).ok_or("RawUsage is no number")?;
    let tres_minutes = tres_text::counts(minutes).ok_or("GrpTRESRaw is no list of counts")?;
    Ok(Some((account, RawUsage { raw_usage, tres_minutes })))
}
