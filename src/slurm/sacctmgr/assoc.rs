//! `sacctmgr show assoc`: all accounts of a cluster with the users directly below them, in one answer.
//!
//! Values are those in force: an association without a QOS list, default QOS or MaxTRESMins of its own shows what it
//! inherits (22.05.8; `WOPLimits` would show only its own). GrpTRESMins, GrpTRES and GrpSubmitJobs are never inherited.

use std::collections::BTreeMap;

use super::SEPARATOR;
use crate::core::association::{
    Observed, ObservedAccount, ObservedAssociation, ObservedUser, Share, TresLimits,
};
use crate::core::name::{AccountName, ClusterName, QosName, UserName};
use crate::core::policy::LimitType;
use crate::slurm::argv::Argv;
use crate::slurm::rows::{self, ByKey, Rejects};
use crate::slurm::tres_text;

const FIELDS: &str = "cluster,account,parentname,user,partition,fairshare,grptresmins,maxtresmins,grptres,grpsubmitjobs,\
                      qos,defaultqos";

/// The question for every association of the cluster. The QOS are the effective ones, inherited ones included.
pub(in crate::slurm) fn argv(cluster: &ClusterName) -> Argv {
    super::show(&["assoc", "where", &format!("cluster={cluster}")], FIELDS)
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
    for row in rows::complete_rows(answer, &mut rejects) {
        match parse_row(row, cluster) {
            Ok(Row::Account(account)) => accounts.add(account.account.clone(), account, row, &mut rejects),
            Ok(Row::User(account, user)) => {
                let key = (account, user.user.clone(), user.partition.clone());
                users.add(key, user, row, &mut rejects);
            }
            Err(reason) => rejects.add(row, reason),
        }
    }
    let mut accounts: BTreeMap<AccountName, ObservedAccount> = accounts.certain();
    for ((account, name, _), user) in users.certain() {
        match accounts.get_mut(&account) {
            Some(above) => above.users.push(user),
            None => {
                rejects.add(format!("{account} {name}").as_bytes(), "user of an account that is not there")
            }
        }
    }
    (Observed { accounts, rejected: rejects.count }, rejects.samples)
}

enum Row {
    Account(ObservedAccount),
    User(AccountName, ObservedUser),
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
        grp_submit_jobs,
        qos,
        default_qos,
    ] = rows::fields(row, SEPARATOR).ok_or("not 12 fields")?;
    if !cluster.eq_ignore_ascii_case(wanted.as_str().as_bytes()) {
        return Err("another cluster");
    }
    let account = AccountName::parse(utf8(account)?).map_err(|_| "account name is not acted on")?;
    let limits = [
        (LimitType::GrpTRESMins, grp_tres_mins),
        (LimitType::MaxTRESMins, max_tres_mins),
        (LimitType::GrpTRES, grp_tres),
    ];
    let values = ObservedAssociation {
        share: parse_share(share).ok_or("Fairshare is no number")?,
        limits: parse_limits(limits).ok_or("a TRES limit is no list of counts")?,
        grp_submit_jobs: rows::number_if_any(grp_submit_jobs).ok_or("GrpSubmitJobs is no number")?,
        qos: utf8(qos)?
            .split(',')
            .filter(|name| !name.is_empty())
            .map(QosName::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| "a QOS name is not acted on")?,
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
        return Ok(Row::Account(ObservedAccount { account, parent, row: values, users: Vec::new() }));
    }
    let user = UserName::parse(utf8(user)?).map_err(|_| "user name is not acted on")?;
    let partition = Some(utf8(partition)?).filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(Row::User(account, ObservedUser { user, partition, row: values }))
}

fn utf8(field: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(field).map_err(|_| "not UTF-8")
}

fn parse_share(field: &[u8]) -> Option<Share> {
    if field == b"parent" { Some(Share::Parent) } else { rows::number(field).map(Share::Number) }
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
