//! Reserved shares: while the cluster's use is at or above the saturation threshold, the fairshare of the consumers follows
//! the share of the capacity that is reserved for them; below it, what was there before comes back.
//!
//! Use is that of the whole cluster within the last minute, in the units of the capacity, which is what the resource can do in a
//! minute. A consumer's fairshare is chosen so that its part of the shares of all siblings is at least what is reserved, with the
//! siblings that have no reservation as they are.

use std::collections::BTreeMap;

use super::rate::{Target, targets};
use super::{Ground, QuotaStanding, Verdict, wish};
use crate::core::association::Share;
use crate::core::evaluate::Level;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName, UserName};
use crate::core::quota::{CapacityUnits, RateQuota};
use crate::core::quota_map::RateMap;
use crate::core::windows::{submitted, used};

/// The stretch of time that capacity is stated for, in seconds.
pub(super) const SPAN_S: i64 = 60;

/// Parts of the shares that siblings keep when all is reserved: one in a hundred.
const LEAST_PART: i128 = 100;

/// Largest fairshare that Slurm takes for what it is.
const SHARES_MAX: i128 = 0x7fff_fffe;

/// A row below one account: an account, or a user's associations.
type Node = (AccountName, Option<UserName>);

pub(super) fn judge(
    source: &SourceName,
    quota: &RateQuota,
    map: &RateMap,
    ground: &Ground<'_>,
    verdict: &mut Verdict,
) {
    let Some(account) = map.resources.get(&quota.resource_id) else { return };
    let reserved = reserved(quota, account, map, ground);
    if reserved.is_empty() {
        return;
    }
    if let Some(reason) = &ground.lately.incomplete {
        let accounts = reserved.values().flatten().map(|((account, _), _)| account.clone());
        verdict.undecided.extend(accounts.map(|account| (account, (source.clone(), reason.clone()))));
        return;
    }
    let (Some(capacity), Some(threshold)) = (quota.capacity, quota.saturation_threshold) else {
        verdict.findings.push(format!(
            "account {account}: quota {} of source {source} reserves shares, but has no capacity or no saturation threshold: \
             they never count",
            quota.id
        ));
        return;
    };
    let (in_use, unit) = match capacity.units {
        CapacityUnits::Requests => {
            let count = submitted(ground.lately.submissions.iter(), SPAN_S, ground.now);
            (Exact::whole(i128::from(count)), "submissions")
        }
        CapacityUnits::Token => {
            let seconds = i128::try_from(used(ground.lately.stretches.iter(), SPAN_S, ground.now));
            let minutes = seconds.ok().and_then(|seconds| Exact::fraction(seconds, 60));
            (minutes.unwrap_or(Exact::ZERO), "billing-minutes")
        }
    };
    let Some(from) = threshold.times(Exact::whole(i128::from(capacity.capacity))) else { return };
    let saturated = in_use >= from;
    verdict.standings.push(QuotaStanding {
        account: account.clone(),
        user: None,
        source: source.clone(),
        quota: quota.id.clone(),
        rule: format!("{unit} of the cluster in {SPAN_S} s, from where on reserved shares count"),
        used: Some(in_use),
        limit: from,
        level: if saturated { Level::Notification } else { Level::Normal },
        back_earliest: None,
        back_running: None,
    });
    if !saturated {
        return;
    }
    for (parent, nodes) in reserved {
        for (node, share, number) in numbers(&parent, nodes, ground) {
            let text = format!(
                "quota {}: {share} of the capacity is reserved, and the cluster is saturated (from {from} {unit} a minute on)",
                quota.id
            );
            let mut wish = wish(&node.0, source, text);
            (wish.user, wish.fairshare) = (node.1, Some(number));
            verdict.wishes.push(wish);
        }
    }
}

/// Rows with their reserved shares, by the account that they are directly below.
fn reserved(
    quota: &RateQuota,
    account: &AccountName,
    map: &RateMap,
    ground: &Ground<'_>,
) -> BTreeMap<AccountName, BTreeMap<Node, Exact>> {
    let mut found: BTreeMap<AccountName, BTreeMap<Node, Exact>> = BTreeMap::new();
    for policy in &quota.policies {
        let Some(share) = policy.reserved else { continue };
        // Consumers that are nobody here are told of where their rules are judged.
        let Ok(targets) = targets(&policy.consumer, account, map) else { continue };
        let Some(each) = share.over(Exact::whole(targets.len() as i128)) else { continue };
        for target in targets {
            let (parent, node) = match target {
                Target::User(user, account) => (Some(account.clone()), (account, Some(user))),
                Target::Account(name) => {
                    let parent = ground.observed.accounts.get(&name).and_then(|known| known.parent.clone());
                    (parent, (name, None))
                }
            };
            if let Some(parent) = parent {
                found.entry(parent).or_default().insert(node, each);
            }
        }
    }
    found
}

/// The fairshare of each row.
fn numbers(
    parent: &AccountName,
    nodes: BTreeMap<Node, Exact>,
    ground: &Ground<'_>,
) -> Vec<(Node, Exact, u32)> {
    let is_reserved = |account: &AccountName, user: Option<&UserName>| {
        nodes.contains_key(&(account.clone(), user.cloned()))
    };
    let number = |share: Share| match share {
        Share::Number(number) => i128::from(number),
        Share::Parent => 0,
    };
    let users =
        ground.observed.accounts.get(parent).map(|account| account.users.as_slice()).unwrap_or_default();
    let of_users = users.iter().filter(|user| !is_reserved(parent, Some(&user.user)));
    let accounts =
        ground.observed.accounts.values().filter(|account| account.parent.as_ref() == Some(parent));
    let of_accounts = accounts.filter(|account| !is_reserved(&account.account, None));
    let others: i128 = of_users.map(|user| number(user.row.share)).sum::<i128>()
        + of_accounts.map(|account| number(account.row.share)).sum::<i128>();
    let all = nodes.values().try_fold(Exact::ZERO, |sum, share| sum.plus(*share));
    let rest = all.and_then(|all| Exact::ONE.minus(all)).unwrap_or(Exact::ZERO);
    let least = Exact::fraction(1, LEAST_PART).unwrap_or(Exact::ONE);
    let rest = if others == 0 { Exact::ONE } else { rest.max(least) };
    // Without others only the proportion counts.
    let whole = Exact::whole(if others == 0 { LEAST_PART } else { others });
    let shares = |share: Exact| {
        let exact = share.times(whole)?.over(rest)?;
        let up = exact.floor() + i128::from(exact != Exact::whole(exact.floor()));
        u32::try_from(up.clamp(1, SHARES_MAX)).ok()
    };
    nodes.into_iter().filter_map(|(node, share)| Some((node, share, shares(share)?))).collect()
}
