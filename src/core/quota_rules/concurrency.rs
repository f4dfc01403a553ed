//! Nomad's quotas: what may be in use at one time is GrpTRES of the account.

use std::collections::BTreeMap;

use super::{QuotaStanding, Verdict, whole, wish};
use crate::core::evaluate::Level;
use crate::core::exact::Exact;
use crate::core::name::{AccountName, SourceName};
use crate::core::policy::LimitType;
use crate::core::quota::{Bound, Capacity, ConcurrencyQuota, ConcurrencyUsage};
use crate::core::quota_map::ConcurrencyMap;
use crate::core::tres::Tres;

pub(super) fn judge(
    source: &SourceName,
    quotas: &[ConcurrencyQuota],
    usages: &[ConcurrencyUsage],
    map: &ConcurrencyMap,
    verdict: &mut Verdict,
) {
    for quota in quotas {
        let Some(account) = map.accounts.get(&quota.name) else {
            verdict.findings.push(format!(
                "quota {} of source {source} belongs to no account; name it in the source's accounts",
                quota.name
            ));
            continue;
        };
        let Some(region) = quota.regions.get(&map.region) else { continue };
        let used = if map.shared_with_nomad {
            let used = usages.iter().find(|usage| usage.name == quota.name);
            let Some(used) = used else {
                let reason = format!(
                    "quota {} of source {source} is shared with Nomad, and what Nomad uses of it is not known",
                    quota.name
                );
                verdict.undecided.insert(account.clone(), (source.clone(), reason));
                continue;
            };
            used.regions.get(&map.region).map(|region| &region.all)
        } else {
            None
        };
        let mut amounts = Amounts { quota: &quota.name, source, account, limits: BTreeMap::new() };
        if amounts.read(&region.all, used, map, verdict).is_none() {
            let reason = format!("a number of quota {} is too large to be computed exactly", quota.name);
            verdict.undecided.insert(account.clone(), (source.clone(), reason));
            continue;
        }
        amounts.tell(used.is_some(), verdict);
        for (pool, limit) in &region.node_pools {
            let partition = map.node_pools.get(pool).map_or("no partition", String::as_str);
            if is_limited(limit) {
                verdict.findings.push(format!(
                    "account {account}: quota {} of source {source} limits node pool {pool} ({partition}) by itself: Slurm \
                     has no limit of an account in one partition, so nothing holds it there; a QOS of the partition \
                     with GrpTRES would limit all accounts together",
                    quota.name
                ));
            }
        }
    }
}

fn is_limited(capacity: &Capacity) -> bool {
    let bounds = [capacity.cores, capacity.cpu_mhz, capacity.memory_mb];
    bounds.iter().chain(capacity.devices.values()).any(|bound| *bound != Bound::Unlimited)
}

/// What of a quota is a limit on Slurm.
struct Amounts<'a> {
    quota: &'a str,
    source: &'a SourceName,
    account: &'a AccountName,
    limits: BTreeMap<Tres, u64>,
}

impl Amounts<'_> {
    /// `None` when a number has no room.
    fn read(
        &mut self,
        limit: &Capacity,
        used: Option<&Capacity>,
        map: &ConcurrencyMap,
        verdict: &mut Verdict,
    ) -> Option<()> {
        let used_of = |part: fn(&Capacity) -> Bound| match used.map(part) {
            Some(Bound::AtMost(used)) => used,
            Some(Bound::Unlimited) | None => Exact::ZERO,
        };
        self.bound(Tres::cpu(), limit.cores, used_of(|c| c.cores), Exact::ONE)?;
        match (limit.cpu_mhz, map.mhz_per_core) {
            (Bound::Unlimited, _) => {}
            (_, None) => verdict.findings.push(format!(
                "account {}: quota {} of source {} limits CPU in MHz; set mhz_per_core, until then that part limits nothing",
                self.account, self.quota, self.source
            )),
            (bound, Some(per_core)) => self.bound(Tres::cpu(), bound, used_of(|c| c.cpu_mhz), per_core)?,
        }
        self.bound(Tres::mem(), limit.memory_mb, used_of(|c| c.memory_mb), Exact::ONE)?;
        for (device, bound) in &limit.devices {
            let used = match used.and_then(|used| used.devices.get(device)) {
                Some(Bound::AtMost(used)) => *used,
                Some(Bound::Unlimited) | None => Exact::ZERO,
            };
            match gres(device, map) {
                Some(tres) => self.bound(tres, *bound, used, Exact::ONE)?,
                None if *bound == Bound::Unlimited => {}
                None => verdict.findings.push(format!(
                    "account {}: quota {} of source {} limits device {device:?}, which is no TRES here; name it in the source's \
                     devices",
                    self.account, self.quota, self.source
                )),
            }
        }
        Some(())
    }

    fn bound(&mut self, tres: Tres, bound: Bound, used: Exact, per: Exact) -> Option<()> {
        let Bound::AtMost(limit) = bound else { return Some(()) };
        let left = whole(limit.minus(used)?.over(per)?);
        self.limits.entry(tres).and_modify(|now| *now = left.min(*now)).or_insert(left);
        Some(())
    }

    fn tell(self, shared: bool, verdict: &mut Verdict) {
        if self.limits.is_empty() {
            return;
        }
        let list: Vec<String> = self.limits.iter().map(|(tres, value)| format!("{tres}={value}")).collect();
        let left = if shared { "leaves for Slurm" } else { "allows" };
        let text = format!("quota {} {left} {} at one time", self.quota, list.join(","));
        let mut wish = wish(self.account, self.source, text);
        for (tres, limit) in &self.limits {
            verdict.standings.push(QuotaStanding {
                account: self.account.clone(),
                user: None,
                source: self.source.clone(),
                quota: self.quota.to_owned(),
                rule: format!("{tres} in use at one time"),
                used: None,
                limit: Exact::whole(i128::from(*limit)),
                level: Level::Normal,
                back_earliest: None,
                back_running: None,
            });
        }
        wish.limits.insert(LimitType::GrpTRES, self.limits.into_iter().collect());
        verdict.wishes.push(wish);
    }
}

/// The TRES of a device: as configured, else `gres/gpu` for `gpu` and `nvidia/gpu`, with the model as its type where it is a
/// plain word.
fn gres(device: &str, map: &ConcurrencyMap) -> Option<Tres> {
    if let Some(tres) = map.devices.get(device) {
        return Some(tres.clone());
    }
    let parts: Vec<&str> = device.split('/').collect();
    let model = match parts[..] {
        ["gpu"] | ["nvidia", "gpu"] | ["gpu", "nvidia"] => None,
        ["nvidia", "gpu", model] => Some(model),
        _ => return None,
    };
    match model {
        None => Tres::parse("gres/gpu").ok(),
        Some(model) if !model.is_empty() && model.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Tres::parse(&format!("gres/gpu:{}", model.to_ascii_lowercase())).ok()
        }
        Some(_) => None,
    }
}
