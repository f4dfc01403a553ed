//! Slurm's own counters against the limits on minutes: an account whose raw usage is older than its budget has jobs that
//! wait without a visible reason. The agent does not reset it on its own (never when it first sees a policy); people are told.

use crate::core::name::{AccountName, ClusterName};
use crate::core::small_map::SmallMap;
use crate::core::tres::Tres;
use crate::slurm::RawUsage;

/// TRES of which an account's raw usage has reached its GrpTRESMins, with the limit, in the order of their names.
pub fn used_up(limits: &SmallMap<Tres, u64>, counter: &RawUsage) -> Vec<(Tres, u64, u64)> {
    let used = |tres: &Tres| counter.tres_minutes.get(tres).copied().unwrap_or(0);
    // slurmctld compares whole minutes: used >= limit blocks (acct_policy.c).
    let reached = limits.iter().filter(|(tres, limit)| used(tres) >= **limit);
    reached.map(|(tres, limit)| (tres.clone(), used(tres), *limit)).collect()
}

/// What is said of one of them.
pub fn finding(account: &AccountName, (tres, used, limit): &(Tres, u64, u64)) -> String {
    format!(
        "account {account} has raw usage of {used} {tres}-minutes, which GrpTRESMins of {limit} leaves no room for"
    )
}

/// What begins the counter anew.
pub fn remedy(account: &AccountName, cluster: &ClusterName) -> String {
    format!("sacctmgr -i modify account where name={account} cluster={cluster} set RawUsage=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_as_slurm_compares_it() {
        let tres = |name: &str| Tres::parse(name).unwrap();
        let limits = SmallMap::from([(tres("billing"), 100), (tres("cpu"), 100), (tres("mem"), 0)]);
        let minutes = [(tres("billing"), 100), (tres("cpu"), 99), (tres("node"), 500)].into();
        let found = used_up(&limits, &RawUsage { raw_usage: 6000, tres_minutes: minutes });
        assert_eq!(found, [(tres("billing"), 100, 100), (tres("mem"), 0, 0)]);
    }
}
