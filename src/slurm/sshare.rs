//! sshare: the raw usage that slurmctld enforces limits with. It lives in slurmctld alone and decays there.

use std::collections::{BTreeMap, BTreeSet};

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
    let (mut found, mut beside_the_tree) = (ByKey::new(), Vec::new());
    let (mut in_the_tree, mut names_are_whole) = (BTreeSet::new(), true);
    for row in rows::complete_rows(answer, &mut rejects) {
        let Some(fields) = rows::fields(row, b'|') else {
            names_are_whole = false;
            rejects.add(row, "not 4 fields");
            continue;
        };
        match parse_row(fields) {
            Ok(Some((account, usage, Place::InTheTree))) => {
                in_the_tree.insert(account.clone());
                found.add(account, usage, row, &mut rejects);
            }
            Ok(Some((account, usage, Place::BesideIt))) => beside_the_tree.push((account, usage, row)),
            Ok(None) => {}
            Err(reason) => rejects.add(row, reason),
        }
    }
    for (account, usage, row) in beside_the_tree {
        if names_are_whole && !in_the_tree.contains(&account) {
            found.add(account, usage, row, &mut rejects);
        } else {
            rejects.add(row, "not at its place in the tree");
        }
    }
    (found.certain().collect(), rejects)
}

/// Where sshare shows an account: in the tree, its name indented by one space for each level, root by none; or beside it.
/// After `sacctmgr delete account` sshare 22.05.8 lists what is below some of the remaining accounts before root and
/// un-indented, with the same figures, until accounts near them are added (fixtures/slurm/22.05/sshare_after_delete.txt).
/// But what follows a newline inside an account's name looks like such a row as well. So one is believed only where every
/// row of the answer has its fields, and never against a row in the tree.
enum Place {
    InTheTree,
    BesideIt,
}

fn parse_row(
    [account, user, raw_usage, minutes]: [&[u8]; 4],
) -> Result<Option<(AccountName, RawUsage, Place)>, &'static str> {
    if !user.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(account).map_err(|_| "not UTF-8")?;
    let account =
        AccountName::parse(text.trim_start_matches(' ')).map_err(|_| "account name is not acted on")?;
    let place = match (text.starts_with(' '), account.is_root()) {
        (true, false) | (false, true) => Place::InTheTree,
        (false, false) => Place::BesideIt,
        (true, true) => return Err("not at its place in the tree"),
    };
    let raw_usage = rows::number(raw_usage).ok_or("RawUsage is no number")?;
    let tres_minutes = tres_text::counts(minutes).ok_or("GrpTRESRaw is no list of counts")?;
    Ok(Some((account, RawUsage { raw_usage, tres_minutes }, place)))
}
