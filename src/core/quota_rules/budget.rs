//! Waldur's quotas: a budget is GrpTRESMins of its TRES, its threshold a level of warning.

use super::{Ground, QuotaStanding, Verdict, whole, wish};
use crate::core::evaluate::Level;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::policy::LimitType;
use crate::core::quota::{Bound, BudgetQuota};
use crate::core::quota_map::BudgetMap;
use crate::core::tres::Tres;

pub(super) fn judge(
    source: &SourceName,
    quotas: &[BudgetQuota],
    map: &BudgetMap,
    ground: &Ground<'_>,
    verdict: &mut Verdict,
) {
    for quota in quotas {
        let Some(account) = map.account(&quota.scope) else {
            verdict.findings.push(format!(
                "quota {} of source {source}: its scope {} belongs to no account; name it in the source's accounts",
                quota.name, quota.scope
            ));
            continue;
        };
        let Some(tres) = map.tres.get(&quota.name) else {
            verdict.findings.push(format!(
                "account {account}: quota {} of source {source} is no TRES; name it in the source's tres",
                quota.name
            ));
            continue;
        };
        if one(source, quota, account, tres, map, ground, verdict).is_none() {
            let reason = format!("a number of quota {} is too large to be computed exactly", quota.name);
            verdict.undecided.insert(account.clone(), (source.clone(), reason));
        }
    }
}

fn one(
    source: &SourceName,
    quota: &BudgetQuota,
    account: &AccountName,
    tres: &Tres,
    map: &BudgetMap,
    ground: &Ground<'_>,
    verdict: &mut Verdict,
) -> Option<()> {
    let unit = Exact::fraction(map.unit.seconds(), 60)?;
    let minutes = |amount: Exact| amount.times(unit);
    let counted = ground.counted.get(account).and_then(|counted| counted.get(tres)).copied();
    let counted = Exact::whole(i128::from(counted.unwrap_or(0)));
    // The server knows what it was told, Slurm what it enforces by: whichever is further warns.
    let used = minutes(quota.usage)?.max(counted);
    let limit = match quota.limit {
        Bound::Unlimited => None,
        Bound::AtMost(limit) => Some(minutes(limit)?),
    };
    if let Some(limit) = limit {
        let text = format!("quota {} allows {} {tres}-minutes", quota.name, whole(limit));
        let mut wish = wish(account, source, text);
        wish.limits.insert(LimitType::GrpTRESMins, [(tres.clone(), whole(limit))].into());
        verdict.wishes.push(wish);
    }
    let threshold = match quota.threshold {
        Some(threshold) => Some(minutes(threshold)?),
        None => None,
    };
    let level = match (limit, threshold) {
        (Some(limit), _) if used >= limit => Level::Blocked,
        (_, Some(threshold)) if used >= threshold => Level::Notification,
        _ => Level::Normal,
    };
    if level > Level::Normal {
        let most = limit.map_or("no limit".to_owned(), |limit| whole(limit).to_string());
        let from = threshold.map_or(String::new(), |from| format!(", warned from {}", whole(from)));
        verdict.findings.push(format!(
            "account {account}: {level}: quota {} of source {source} has used {} of {most} {tres}-minutes{from}",
            quota.name,
            whole(used)
        ));
    }
    if let Some(limit) = limit.or(threshold) {
        verdict.standings.push(QuotaStanding {
            account: account.clone(),
            user: None,
            source: source.clone(),
            quota: quota.name.clone(),
            rule: match threshold {
                Some(from) => format!("{tres}-minutes, warned from {}", whole(from)),
                None => format!("{tres}-minutes"),
            },
            used: Some(used),
            limit,
            level,
            back_earliest: None,
            back_running: None,
        });
    }
    Some(())
}
