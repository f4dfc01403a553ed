//! Whether what was asked for is what Slurm shows: reading back decides, whatever a program said.

use std::collections::BTreeSet;

use super::association::{Assignments, Limit, Observed, ObservedAssociation, Share};
use super::desired::Wish;
use super::evaluate::QosRules;
use super::name::QosName;
use super::plan::Change;

/// Whether what a change asked for is what `observed` now shows; else what differs.
pub fn settled(change: &Change, observed: &Observed) -> Result<(), String> {
    match change {
        Change::Accounts { accounts, set } => accounts.iter().try_for_each(|name| {
            let account =
                observed.accounts.get(name).ok_or_else(|| format!("account {name} is not there"))?;
            shows(set, &account.row).map_err(|differs| format!("account {name}: {differs}"))
        }),
        Change::User { user, account, row, set } => {
            let whose = match row.partition() {
                Some(partition) => format!("user {user} of account {account} in partition {partition}"),
                None => format!("user {user} of account {account}"),
            };
            let found = observed.accounts.get(account).and_then(|a| a.user(user, row));
            let found = found.ok_or_else(|| format!("{whose} is not there"))?;
            shows(set, &found.row).map_err(|differs| format!("{whose}: {differs}"))
        }
        Change::Users { users, accounts, set } => {
            let mut there = accounts
                .iter()
                .filter_map(|name| observed.accounts.get(name))
                .flat_map(|account| account.users.iter().map(|row| (&account.account, row)))
                .filter(|(_, row)| users.iter().any(|user| *user == row.user))
                .peekable();
            if there.peek().is_none() {
                return Err("none of these users is there in any of these accounts".to_owned());
            }
            there.try_for_each(|(account, row)| {
                shows(set, &row.row)
                    .map_err(|differs| format!("user {} of account {account}: {differs}", row.user))
            })
        }
        Change::ResetRawUsage { .. } => Ok(()),
    }
}

/// Whether what a wish asks for is in force; a stricter value of another source is named as what stands in its way.
pub fn fulfilled(wish: &Wish, observed: &Observed, rules: &QosRules) -> Result<(), String> {
    let account = observed
        .accounts
        .get(&wish.account)
        .ok_or_else(|| format!("account {} is not there", wish.account))?;
    let limits = wish.limits.iter().map(|(kind, values)| {
        (*kind, values.iter().map(|(tres, value)| (tres.clone(), Limit::At(*value))).collect())
    });
    let set = Assignments {
        fairshare: wish.fairshare,
        limits: limits.collect(),
        jobs: wish.jobs.iter().map(|(which, value)| (*which, Limit::At(*value))).collect(),
        qos: None,
        default_qos: None,
    };
    if let Some(qos) = &wish.qos {
        let owned = rules.owned();
        let in_force: Vec<&str> =
            account.row.qos.iter().filter(|name| owned.contains(name)).map(QosName::as_str).collect();
        if in_force != [qos.as_str()] {
            return Err(format!("the QOS in force is {} and not {qos}", in_force.join(",")));
        }
    }
    shows(&set, &account.row)
}

fn shows(set: &Assignments, row: &ObservedAssociation) -> Result<(), String> {
    if let Some(fairshare) = set.fairshare
        && row.share != Share::Number(fairshare)
    {
        return Err(format!("fairshare is {} and not {fairshare}", row.share));
    }
    for (kind, values) in &set.limits {
        for (tres, wanted) in values {
            let now =
                row.limits.get(kind).and_then(|l| l.get(tres)).map_or(Limit::Cleared, |v| Limit::At(*v));
            if now != *wanted {
                return Err(format!("{kind} {tres} is {now} and not {wanted}"));
            }
        }
    }
    for (which, wanted) in &set.jobs {
        let now = row.jobs.get(which).map_or(Limit::Cleared, |value| Limit::At(*value));
        if now != *wanted {
            return Err(format!("{which} is {now} and not {wanted}"));
        }
    }
    let list = |names: &BTreeSet<QosName>| names.iter().map(QosName::as_str).collect::<Vec<_>>().join(",");
    if let Some(wanted) = &set.qos
        && row.qos != *wanted
    {
        return Err(format!("the QOS list is {} and not {}", list(&row.qos), list(wanted)));
    }
    if let Some(wanted) = &set.default_qos
        && row.default_qos.as_ref() != Some(wanted)
    {
        let now = row.default_qos.as_ref().map_or("none", QosName::as_str);
        return Err(format!("the default QOS is {now} and not {wanted}"));
    }
    Ok(())
}
