//! How the things of a quota system map to Slurm's, as the configuration states it, and what one source says.
//!
//! A map never guesses an account: what it does not name is found nowhere (Waldur's scopes are the exception, whose
//! resources carry the account as backend_id; the client resolves those before the quotas come here).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::name::{AccountName, UserName};
use super::quota::{BudgetQuota, ConcurrencyQuota, ConcurrencyUsage, RateQuota};
use super::tres::Tres;

/// What time unit a budget is counted in: a budget of 10 `hours` on `cpu` is 600 CPU-minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetUnit {
    /// TRES-seconds.
    Seconds,
    /// TRES-minutes, which is what Slurm's GrpTRESMins counts.
    #[default]
    Minutes,
    /// TRES-hours.
    Hours,
}

impl BudgetUnit {
    /// TRES-seconds of one.
    pub fn seconds(self) -> i128 {
        match self {
            BudgetUnit::Seconds => 1,
            BudgetUnit::Minutes => 60,
            BudgetUnit::Hours => 3_600,
        }
    }
}

/// Waldur's quotas on Slurm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetMap {
    /// Account by scope: its whole URL, or the uuid that is the last segment of its path. The client adds what the
    /// resources' backend_id says to what the configuration lists.
    pub accounts: BTreeMap<String, AccountName>,
    /// TRES by name of quota.
    pub tres: BTreeMap<String, Tres>,
    /// What limit, usage and threshold are counted in.
    pub unit: BudgetUnit,
}

impl Default for BudgetMap {
    fn default() -> Self {
        let mut tres = BTreeMap::from([
            ("nc_cpu_usage".to_owned(), Tres::cpu()),
            ("cpu".to_owned(), Tres::cpu()),
            ("nc_ram_usage".to_owned(), Tres::mem()),
            ("ram".to_owned(), Tres::mem()),
        ]);
        if let Ok(gpu) = Tres::parse("gres/gpu") {
            tres.extend([("nc_gpu_usage".to_owned(), gpu.clone()), ("gpu".to_owned(), gpu)]);
        }
        Self { accounts: BTreeMap::new(), tres, unit: BudgetUnit::default() }
    }
}

impl BudgetMap {
    /// The account of a scope, by its URL first and by the uuid in it then.
    pub fn account(&self, scope: &str) -> Option<&AccountName> {
        self.accounts.get(scope).or_else(|| self.accounts.get(scope_uuid(scope)?))
    }
}

/// The uuid that ends the path of a scope's URL (`https://.../api/marketplace-resources/UUID/`).
pub fn scope_uuid(scope: &str) -> Option<&str> {
    let path = scope.split(['?', '#']).next().unwrap_or(scope);
    path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty())
}

/// Nomad's quotas on Slurm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcurrencyMap {
    /// Account by name of quota.
    pub accounts: BTreeMap<String, AccountName>,
    /// The region that is this cluster.
    pub region: String,
    /// MHz of one core, for quotas that limit CPU and not cores; without it they limit nothing, and a finding says so.
    pub mhz_per_core: Option<Exact>,
    /// TRES by name of device, besides `gpu` and `nvidia/gpu...`, which are gres/gpu.
    pub devices: BTreeMap<String, Tres>,
    /// Partition by node pool.
    pub node_pools: BTreeMap<String, String>,
    /// Whether Nomad's own jobs use the same quota, so that only what they leave is Slurm's.
    pub shared_with_nomad: bool,
}

/// DataRobot's quotas and local ones on Slurm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateMap {
    /// Account by id of resource or deployment.
    pub resources: BTreeMap<String, AccountName>,
    /// User by id.
    pub users: BTreeMap<String, UserName>,
    /// Members by id of user group.
    pub groups: BTreeMap<String, Vec<Member>>,
}

/// A member of a user group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Member {
    /// An account with everybody in it.
    Account(AccountName),
    /// A user, below the account of the resource.
    User(UserName),
}

/// What one source of quotas says, with how it is to be read on this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SourceQuotas {
    /// Waldur.
    Budget {
        /// What it lists.
        quotas: Vec<BudgetQuota>,
        /// Its map.
        map: BudgetMap,
    },
    /// Nomad.
    Concurrency {
        /// What it lists.
        quotas: Vec<ConcurrencyQuota>,
        /// What is in use there.
        usages: Vec<ConcurrencyUsage>,
        /// Its map.
        map: ConcurrencyMap,
    },
    /// DataRobot, or the configuration itself.
    Rate {
        /// What it lists.
        quotas: Vec<RateQuota>,
        /// Its map.
        map: RateMap,
    },
}

impl SourceQuotas {
    /// How many quotas there are.
    pub fn len(&self) -> usize {
        match self {
            SourceQuotas::Budget { quotas, .. } => quotas.len(),
            SourceQuotas::Concurrency { quotas, .. } => quotas.len(),
            SourceQuotas::Rate { quotas, .. } => quotas.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_finds_its_account_by_url_or_by_the_uuid_in_it() {
        let account = AccountName::parse("bio42").unwrap();
        let url = "https://portal.example/api/marketplace-resources/6d6b2a0d/";
        for key in [url, "6d6b2a0d"] {
            let map =
                BudgetMap { accounts: [(key.to_owned(), account.clone())].into(), ..Default::default() };
            assert_eq!(map.account(url), Some(&account), "{key}");
            assert_eq!(map.account("https://portal.example/api/marketplace-resources/other/"), None);
            assert_eq!(map.account(""), None);
        }
    }

    #[test]
    fn the_known_names_of_waldur_are_tres_without_any_configuration() {
        let tres: Vec<(String, String)> =
            BudgetMap::default().tres.into_iter().map(|(name, tres)| (name, tres.to_string())).collect();
        let expected = [
            ("cpu", "cpu"),
            ("gpu", "gres/gpu"),
            ("nc_cpu_usage", "cpu"),
            ("nc_gpu_usage", "gres/gpu"),
            ("nc_ram_usage", "mem"),
            ("ram", "mem"),
        ];
        assert_eq!(tres, expected.map(|(name, tres)| (name.to_owned(), tres.to_owned())));
    }
}
