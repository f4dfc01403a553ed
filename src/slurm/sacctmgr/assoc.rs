//! `sacctmgr show assoc`: all accounts of a cluster with the users directly below them, in one answer.
//!
//! What an association has of its own is asked for, and what it inherits (QOS list, default QOS) is worked out here.
//! GrpTRESMins, GrpTRES, GrpJobs and GrpSubmitJobs are never inherited; an inherited MaxTRESMins, MaxJobs or MaxSubmitJobs is
//! not shown.

use std::collections::{BTreeMap, BTreeSet};

use super::SEPARATOR;
use crate::core::association::{
    JobLimit, JobLimits, Observed, ObservedAccount, ObservedAssociation, ObservedUser, Share, TresLimits,
};
use crate::core::name::{AccountName, ClusterName, QosName, UserName};
use crate::core::policy::LimitType;
use crate::slurm::argv::Argv;
use crate::slurm::rows::{self, ByKey, Rejects};
use crate::slurm::tres_text;

const FIELDS: &str = "cluster,account,parentname,user,partition,fairshare,grptresmins,maxtresmins,grptres,grpjobs,\
                      grpsubmitjobs,maxjobs,maxsubmitjobs,qos,defaultqos";

/// The question for every association of the cluster, with the values of its own only (`wopl`) and the QOS as stored
/// (`withrawqoslevel`: a list, or additions and removals): only so can a row that inherits be told from one that does not.
/// What is inherited is worked out here, as slurmdbd does it (seen on 22.05.8).
pub(in crate::slurm) fn argv(cluster: &ClusterName) -> Argv {
    super::show(&["assoc", "wopl", "withrawqoslevel", "where", &format!("cluster={cluster}")], FIELDS)
}

/// Reads the answer. Rows of names the agent does not act on, or with values it does not understand, are counted
/// and left out together with the users below such an account.
pub fn parse(answer: &[u8], cluster: &ClusterName) -> Observed {
    read(answer, cluster).0
}

/// As [`parse`], with what was rejected.
pub(in crate::slurm) fn read(answer: &[u8], cluster: &ClusterName) -> (Observed, Vec<String>) {
    let mut rejects = Rejects::default();
    let mut accounts = ByKey::new();
    let mut users = ByKey::new();
    let mut odd = BTreeMap::new();
    for row in rows::complete_rows(answer, &mut rejects) {
        match parse_row(row, cluster) {
            Ok(Row::Account(account, qos)) => {
                accounts.add(account.account.clone(), (account, qos), row, &mut rejects);
            }
            Ok(Row::User(account, user, qos)) => {
                let key = (account, user.user.clone(), user.partition.clone());
                users.add(key, (user, qos), row, &mut rejects);
            }
            Err(reason) => {
                odd.extend(odd_account(row, cluster));
                rejects.add(row, reason);
            }
        }
    }
    let mut accounts: BTreeMap<AccountName, ObservedAccount> =
        inherited(accounts.certain(), &mut odd, &mut rejects);
    for ((account, name, _), (mut user, qos)) in users.certain() {
        match accounts.get_mut(&account) {
            Some(above) => {
                inherit(&mut user.row, &qos, Some(&above.row));
                above.users.push(user);
            }
            None => {
                rejects.add(format!("{account} {name}").as_bytes(), "user of an account that is not there")
            }
        }
    }
    (Observed { accounts, rejected: rejects.count, odd }, rejects.samples)
}

/// QOS as an association stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StoredQos {
    /// None of its own.
    Inherited,
    /// A list of its own.
    Own(BTreeSet<QosName>),
    /// What it adds to (true) or takes from (false) the list above.
    Changed(Vec<(bool, QosName)>),
}

/// Works out what every account inherits, from root down. Accounts below one that is not there (of an odd name, for
/// example) are rejected, and `odd` is told where they are.
fn inherited(
    stored: BTreeMap<AccountName, (ObservedAccount, StoredQos)>,
    odd: &mut BTreeMap<String, String>,
    rejects: &mut Rejects,
) -> BTreeMap<AccountName, ObservedAccount> {
    let mut below: BTreeMap<Option<AccountName>, Vec<(ObservedAccount, StoredQos)>> = BTreeMap::new();
    for (_, row) in stored {
        below.entry(row.0.parent.clone()).or_default().push(row);
    }
    let mut found: BTreeMap<AccountName, ObservedAccount> = BTreeMap::new();
    let mut parents = vec![None];
    while let Some(parent) = parents.pop() {
        let above = parent.as_ref().and_then(|name| found.get(name)).map(|account| account.row.clone());
        for (mut account, qos) in below.remove(&parent).unwrap_or_default() {
            inherit(&mut account.row, &qos, above.as_ref());
            parents.push(Some(account.account.clone()));
            found.insert(account.account.clone(), account);
        }
    }
    for (account, _) in below.into_values().flatten() {
        odd.extend(account.parent.map(|above| (account.account.to_string(), above.to_string())));
        rejects.add(account.account.as_str().as_bytes(), "account below one that is not there");
    }
    found
}

fn inherit(row: &mut ObservedAssociation, qos: &StoredQos, above: Option<&ObservedAssociation>) {
    let mut list = above.map(|above| above.qos.clone()).unwrap_or_default();
    match qos {
        StoredQos::Inherited => {}
        StoredQos::Own(own) => list.clone_from(own),
        StoredQos::Changed(changes) => {
            for (added, name) in changes {
                if *added {
                    list.insert(name.clone());
                } else {
                    list.remove(name);
                }
            }
        }
    }
    row.qos = list;
    row.qos_is_own = *qos != StoredQos::Inherited;
    row.default_qos_is_own = row.default_qos.is_some();
    if row.default_qos.is_none() {
        row.default_qos = above.and_then(|above| above.default_qos.clone());
    }
}

fn parse_stored_qos(field: &[u8]) -> Result<StoredQos, &'static str> {
    const ODD: &str = "a QOS name is not acted on";
    let names: Vec<&str> = utf8(field)?.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(StoredQos::Inherited);
    }
    if names.iter().all(|name| name.starts_with(['+', '-'])) {
        let change = |name: &&str| -> Result<(bool, QosName), &'static str> {
            Ok((name.starts_with('+'), QosName::parse(&name[1..]).map_err(|_| ODD)?))
        };
        return Ok(StoredQos::Changed(names.iter().map(change).collect::<Result<_, _>>()?));
    }
    Ok(StoredQos::Own(names.into_iter().map(QosName::parse).collect::<Result<_, _>>().map_err(|_| ODD)?))
}

enum Row {
    Account(ObservedAccount, StoredQos),
    User(AccountName, ObservedUser, StoredQos),
}

fn parse_row(row: &[u8], wanted: &ClusterName) -> Result<Row, &'static str> {
    let [
        cluster,
        account,
        parent,
        user,
        partition,
        share,
        grp_tres_mins,
        max_tres_mins,
        grp_tres,
        grp_jobs,
        grp_submit_jobs,
        max_jobs,
        max_submit_jobs,
        qos,
        default_qos,
    ] = rows::fields(row, SEPARATOR).ok_or("not 15 fields")?;
    if !cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) {
        return Err("another cluster");
    }
    let stored_qos = parse_stored_qos(qos)?;
    let account = AccountName::parse(utf8(account)?).map_err(|_| "account name is not acted on")?;
    let limits = [
        (LimitType::GrpTRESMins, grp_tres_mins),
        (LimitType::MaxTRESMins, max_tres_mins),
        (LimitType::GrpTRES, grp_tres),
    ];
    let values = ObservedAssociation {
        share: parse_share(share).ok_or("Fairshare is no number")?,
        limits: parse_limits(limits).ok_or("a TRES limit is no list of counts")?,
        jobs: parse_jobs([
            (JobLimit::GrpJobs, grp_jobs),
            (JobLimit::GrpSubmitJobs, grp_submit_jobs),
            (JobLimit::MaxJobs, max_jobs),
            (JobLimit::MaxSubmitJobs, max_submit_jobs),
        ])
        .ok_or("a limit on jobs is no number")?,
        qos: BTreeSet::new(),
        qos_is_own: false,
        default_qos_is_own: false,
        default_qos: match utf8(default_qos)? {
            "" => None,
            name => Some(QosName::parse(name).map_err(|_| "the default QOS is not acted on")?),
        },
    };
    if user.is_empty() {
        let parent = match utf8(parent)? {
            "" if account.is_root() => None,
            "" => return Err("account without a parent"),
            name => Some(AccountName::parse(name).map_err(|_| "parent account name is not acted on")?),
        };
        let account = ObservedAccount { account, parent, row: values, users: Vec::new() };
        return Ok(Row::Account(account, stored_qos));
    }
    let user = UserName::parse(utf8(user)?).map_err(|_| "user name is not acted on")?;
    let partition = Some(utf8(partition)?).filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(Row::User(account, ObservedUser { user, partition, row: values }, stored_qos))
}

/// The names of an account that is not acted on because of them, where the row is whole: its own and the one above it.
fn odd_account(row: &[u8], wanted: &ClusterName) -> Option<(String, String)> {
    let fields: [&[u8]; 15] = rows::fields(row, SEPARATOR)?;
    let [cluster, account, parent, user, ..] = fields;
    let ours =
        cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) && user.is_empty() && !parent.is_empty();
    let names = [account, parent].map(rows::text);
    let is_odd = names.iter().any(|name| AccountName::parse(name).is_err());
    let [account, parent] = names;
    (ours && is_odd).then_some((account, parent))
}

fn utf8(field: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(field).map_err(|_| "not UTF-8")
}

fn parse_share(field: &[u8]) -> Option<Share> {
    if field == b"parent" { Some(Share::Parent) } else { rows::number(field).map(Share::Number) }
}

fn parse_jobs(fields: [(JobLimit, &[u8]); 4]) -> Option<JobLimits> {
    let mut limits = JobLimits::new();
    for (limit, field) in fields {
        limits.extend(rows::number_if_any(field)?.map(|value| (limit, value)));
    }
    Some(limits)
}

fn parse_limits(fields: [(LimitType, &[u8]); 3]) -> Option<TresLimits> {
    let mut limits = TresLimits::new();
    for (limit_type, field) in fields {
        let values = tres_text::limits(field)?;
        if !values.is_empty() {
            limits.insert(limit_type, values);
        }
    }
    Some(limits)
}
