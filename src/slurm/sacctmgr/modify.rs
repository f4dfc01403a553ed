//! `sacctmgr modify`: how a change is asked for, and what sacctmgr's answer means.
//!
//! A condition always names its accounts and its cluster: `modify account where set ...` changes EVERY account with
//! rc 0 and no question asked (tried on 20.11, 22.05 and 26.05).
//!
//! rc 0 does not mean that it was applied. `GrpTRESMins=billing=abc` sets the limit to 0 with rc 0 and a complaint on
//! standard error; a name that does not exist is left out of an answer with rc 0; a default QOS out of reach is rc 0 and
//! nothing done on 20.11 and 22.05. A success is rc 0, no complaint and exactly the asked names listed. Even then
//! only reading back proves it.

use std::collections::BTreeSet;
use std::fmt;

use crate::core::association::{Assignments, Limit};
use crate::core::name::{AccountName, ClusterName, Names, UserName};
use crate::core::plan::Change;
use crate::core::policy::LimitType;
use crate::slurm::argv::{Argv, Program};
use crate::slurm::error::{is_outage, words};
use crate::slurm::runner::Answer;

/// Largest values that Slurm takes for what they are. Above lie its marks for "no value", "infinite" and "parent" (slurm.h
/// NO_VAL, NO_VAL64, INFINITE; slurmdb.h SLURMDB_FS_USE_PARENT). 22.05.8 answers rc 0 without a complaint to
/// `GrpSubmitJobs=4294967294` (no limit is set) and `fairshare=4294967295` (1 is set).
const TRES_LIMIT_MAX: u64 = u64::MAX - 2;
const SUBMIT_LIMIT_MAX: u64 = u32::MAX as u64 - 2;
const SHARES_MAX: u32 = 0x7fff_fffe;

/// What came of a change as far as sacctmgr tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What was run, as a person would type it.
    pub argv: String,
    /// The associations that sacctmgr listed as changed.
    pub echoed: Vec<Echoed>,
    /// Why it does not look like a success, in Slurm's words where it had any.
    pub complaint: Option<String>,
    /// Whether that is an outage, and no refusal: the same change may work later.
    pub may_pass: bool,
}

/// An association in the answer of `modify`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Echoed {
    /// Cluster as printed.
    pub cluster: String,
    /// Account as printed.
    pub account: String,
    /// User, for an association of a user.
    pub user: Option<String>,
    /// Partition, where the association is bound to one.
    pub partition: Option<String>,
}

impl fmt::Display for Echoed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.account)?;
        self.user.iter().try_for_each(|user| write!(f, "/{user}"))?;
        self.partition.iter().try_for_each(|partition| write!(f, "@{partition}"))
    }
}

/// The one argument vector of a change. An empty `qos` set restores what the account inherits.
pub(in crate::slurm) fn argv(change: &Change, cluster: &ClusterName) -> Argv {
    let mut args: Vec<String> = ["-i", "modify"].map(String::from).into();
    match change {
        Change::Accounts { accounts, set } => {
            args.extend(["account".into(), "where".into(), format!("name={}", joined(accounts.iter()))]);
            args.extend([format!("cluster={cluster}"), "set".into()]);
            args.extend(assignments(set));
        }
        Change::User { user, account, set } => {
            args.extend(["user".into(), "where".into(), format!("name={user}")]);
            args.extend([format!("account={account}"), format!("cluster={cluster}"), "set".into()]);
            args.extend(assignments(set));
        }
        Change::Users { users, accounts, set } => {
            args.extend(["user".into(), "where".into(), format!("name={}", joined(users.iter()))]);
            args.extend([format!("account={}", joined(accounts.iter())), format!("cluster={cluster}")]);
            args.push("set".into());
            args.extend(assignments(set));
        }
        Change::ResetRawUsage { account, marker: _ } => {
            args.extend(["account".into(), "where".into(), format!("name={account}")]);
            args.extend([format!("cluster={cluster}"), "set".into(), "RawUsage=0".into()]);
        }
    }
    Argv::changing(Program::Sacctmgr, args)
}

fn joined(items: impl Iterator<Item = impl fmt::Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn assignments(set: &Assignments) -> Vec<String> {
    let Assignments { fairshare, limits, grp_submit_jobs, qos, default_qos } = set;
    let mut args = Vec::new();
    args.extend(fairshare.map(|shares| format!("fairshare={shares}")));
    for (limit_type, values) in limits.iter().filter(|(_, values)| !values.is_empty()) {
        let list = joined(values.iter().map(|(tres, limit)| format!("{tres}={limit}")));
        args.push(format!("{limit_type}={list}"));
    }
    args.extend(grp_submit_jobs.map(|limit| format!("GrpSubmitJobs={limit}")));
    args.extend(qos.iter().map(|names| format!("qos={}", joined(names.iter()))));
    args.extend(default_qos.iter().map(|name| format!("defaultqos={name}")));
    args
}

/// Why a change must not be run at all.
pub(in crate::slurm) fn senseless(change: &Change) -> Option<&'static str> {
    let (Change::Accounts { set, .. } | Change::User { set, .. } | Change::Users { set, .. }) = change else {
        return None;
    };
    let above = |limit: &Limit, max: u64| matches!(limit, Limit::At(value) if *value > max);
    if assignments(set).is_empty() {
        return Some("there is nothing to set");
    }
    if set.fairshare.is_some_and(|shares| shares > SHARES_MAX) {
        return Some("fairshare is so large that Slurm would take it for something else");
    }
    if set.limits.values().flat_map(|values| values.values()).any(|limit| above(limit, TRES_LIMIT_MAX)) {
        return Some("a TRES limit is so large that Slurm would take it for no limit");
    }
    if set.grp_submit_jobs.iter().any(|limit| above(limit, SUBMIT_LIMIT_MAX)) {
        return Some("GrpSubmitJobs is so large that Slurm would take it for no limit");
    }
    None
}

/// Reads the associations that an answer of `modify` lists: `C = lab  A = bio of root` or
/// `C = lab  A = bio  U = alice  P = debug`.
pub fn parse_echo(stdout: &[u8]) -> Vec<Echoed> {
    String::from_utf8_lossy(stdout).lines().filter_map(parse_echo_line).collect()
}

fn parse_echo_line(line: &str) -> Option<Echoed> {
    let (cluster, rest) = line.trim_start().strip_prefix("C = ")?.split_once(" A = ")?;
    let text = |text: &str| text.trim().to_owned();
    let (account, user, partition) = match rest.split_once(" U = ") {
        Some((account, rest)) => match rest.split_once(" P = ") {
            Some((user, partition)) => (account, Some(text(user)), Some(text(partition))),
            None => (account, Some(text(rest)), None),
        },
        None => (rest.split_once(" of ").map_or(rest, |(account, _)| account), None, None),
    };
    Some(Echoed { cluster: text(cluster), account: text(account), user, partition })
}

/// What the answer to `change` means.
pub(in crate::slurm) fn judge(
    change: &Change,
    cluster: &ClusterName,
    argv: &Argv,
    answer: &Answer,
) -> Applied {
    let echoed = parse_echo(&answer.stdout);
    let complaint = refusal(answer).or_else(|| match change {
        Change::Accounts { accounts, set } => {
            // What is inherited reaches the users below, and sacctmgr lists them (22.05.8); other releases list
            // sub-accounts too.
            let inherited = set.limits.contains_key(&LimitType::MaxTRESMins);
            let spreads = inherited || set.qos.is_some() || set.default_qos.is_some();
            not_the_accounts(accounts, spreads, cluster, &echoed)
        }
        Change::User { user, account, set: _ } => {
            not_the_users(&Names::one(user.clone()), &Names::one(account.clone()), cluster, &echoed)
        }
        Change::Users { users, accounts, set: _ } => not_the_users(users, accounts, cluster, &echoed),
        // A success says nothing at all.
        Change::ResetRawUsage { .. } => Some(words(&answer.stdout)).filter(|said| !said.is_empty()),
    });
    // Nothing at all is what a failed query inside slurmdbd looks like.
    let silent = answer.status == 0 && answer.stdout.is_empty() && answer.stderr.is_empty();
    let may_pass = complaint.as_deref().is_some_and(|words| silent || is_outage(words));
    Applied { argv: argv.to_string(), echoed, complaint, may_pass }
}

fn refusal(answer: &Answer) -> Option<String> {
    let said = [words(&answer.stderr), words(&answer.stdout)];
    if answer.status == 0 {
        return Some(&said[0]).filter(|said| !said.is_empty()).cloned();
    }
    let said = said.into_iter().find(|said| !said.is_empty());
    Some(said.unwrap_or_else(|| format!("sacctmgr gave no reason, exit status {}", answer.status)))
}

fn not_the_accounts(
    asked: &Names<AccountName>,
    spreads: bool,
    cluster: &ClusterName,
    echoed: &[Echoed],
) -> Option<String> {
    let asked: BTreeSet<&str> = asked.iter().map(AccountName::as_str).collect();
    // slurmdbd of 26.05 can be told to keep the case of names; the agent's are in lower case.
    let name = |row: &Echoed| row.account.to_ascii_lowercase();
    let here = |row: &&Echoed| row.cluster.eq_ignore_ascii_case(cluster.as_str());
    let own = |row: &&Echoed| here(row) && row.user.is_none();
    let listed: BTreeSet<String> = echoed.iter().filter(own).map(name).collect();
    let missing: Vec<&&str> = asked.iter().filter(|name| !listed.contains(**name)).collect();
    if !missing.is_empty() {
        return Some(format!("sacctmgr did not list {} as changed", joined(missing.into_iter())));
    }
    let mine = |row: &&Echoed| (spreads && here(row)) || (own(row) && asked.contains(name(row).as_str()));
    let others: Vec<&Echoed> = echoed.iter().filter(|row| !mine(row)).collect();
    (!others.is_empty()).then(|| format!("sacctmgr also changed {}", joined(others.into_iter())))
}

/// Each user and each account has to be listed, and nobody else; not every user is in every account.
fn not_the_users(
    users: &Names<UserName>,
    accounts: &Names<AccountName>,
    cluster: &ClusterName,
    echoed: &[Echoed],
) -> Option<String> {
    // slurmdbd of 26.05 can be told to keep the case of names; the agent's are in lower case.
    let fold = |text: &str| text.to_ascii_lowercase();
    let users: BTreeSet<&str> = users.iter().map(UserName::as_str).collect();
    let accounts: BTreeSet<&str> = accounts.iter().map(AccountName::as_str).collect();
    let user = |row: &Echoed| row.user.as_deref().map(fold);
    let asked = |row: &&Echoed| {
        row.cluster.eq_ignore_ascii_case(cluster.as_str())
            && accounts.contains(fold(&row.account).as_str())
            && user(row).is_some_and(|user| users.contains(user.as_str()))
    };
    let (rows, others): (Vec<&Echoed>, Vec<&Echoed>) = echoed.iter().partition(asked);
    let users_listed: BTreeSet<String> = rows.iter().filter_map(|row| user(row)).collect();
    let accounts_listed: BTreeSet<String> = rows.iter().map(|row| fold(&row.account)).collect();
    let missing = |asked: &BTreeSet<&str>, listed: &BTreeSet<String>| {
        let missing: Vec<&str> = asked.iter().filter(|name| !listed.contains(**name)).copied().collect();
        missing.join(",")
    };
    let (no_user, no_account) = (missing(&users, &users_listed), missing(&accounts, &accounts_listed));
    if !no_user.is_empty() || !no_account.is_empty() {
        let names: Vec<String> = [("user", no_user), ("account", no_account)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| format!("{kind} {names}"))
            .collect();
        return Some(format!("sacctmgr did not list {} as changed", names.join(" and ")));
    }
    (!others.is_empty()).then(|| format!("sacctmgr also changed {}", joined(others.into_iter())))
}
