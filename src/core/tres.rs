//! Trackable resources (TRES) and amounts of them, always as integers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::small_map::SmallMap;

/// A trackable resource as Slurm prints it: `cpu`, `mem`, `node`, `billing`, `gres/gpu`, `gres/gpu:a100`,
/// `license/matlab@srv`. Memory counts in MB (Slurm's MB: 1,048,576 bytes).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tres(Arc<str>);

/// A text that cannot be the name of a TRES.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a TRES name such as cpu, mem, gres/gpu or billing")]
pub struct TresError(pub String);

impl Tres {
    /// Checks that `text` can stand in `name=value,...` lists.
    pub fn parse(text: &str) -> Result<Tres, TresError> {
        let fits = |b: u8| b.is_ascii_graphic() && !b",='\"`|".contains(&b);
        if text.is_empty() || text.len() > 128 || text.starts_with('-') || !text.bytes().all(fits) {
            return Err(TresError(text.chars().take(60).collect()));
        }
        Ok(Tres(text.into()))
    }

    /// `cpu`
    pub fn cpu() -> Tres {
        Tres("cpu".into())
    }

    /// `mem`, in MB
    pub fn mem() -> Tres {
        Tres("mem".into())
    }

    /// `billing`
    pub fn billing() -> Tres {
        Tres("billing".into())
    }

    /// The name as Slurm writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is memory, whose amounts carry unit suffixes in Slurm's texts.
    pub fn is_mem(&self) -> bool {
        &*self.0 == "mem"
    }
}

impl fmt::Display for Tres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Tres {
    type Error = TresError;
    fn try_from(text: String) -> Result<Self, TresError> {
        Tres::parse(&text)
    }
}

impl From<Tres> for String {
    fn from(tres: Tres) -> String {
        tres.0.as_ref().to_owned()
    }
}

/// How much of each TRES one job holds (AllocTRES): counts, memory in MB.
pub type TresCounts = BTreeMap<Tres, u64>;

/// Amount of each TRES times seconds: cpu-seconds, MB-seconds, billing-seconds. Sums never wrap: ten million
/// jobs of a year with a terabyte each stay below 2^101.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TresSeconds(pub BTreeMap<Tres, u128>);

impl TresSeconds {
    /// Adds `count` held for `seconds`.
    pub fn add(&mut self, tres: &Tres, count: u64, seconds: u64) {
        self.add_amount(tres, u128::from(count) * u128::from(seconds));
    }

    /// Adds TRES-seconds; none leave no trace.
    pub fn add_amount(&mut self, tres: &Tres, amount: u128) {
        if amount == 0 {
            return;
        }
        match self.0.get_mut(tres) {
            Some(sum) => *sum += amount,
            None => {
                self.0.insert(tres.clone(), amount);
            }
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &TresSeconds) {
        for (tres, amount) in &other.0 {
            *self.0.entry(tres.clone()).or_default() += amount;
        }
    }

    /// TRES-seconds of one TRES, 0 when none was used.
    pub fn get(&self, tres: &Tres) -> u128 {
        self.0.get(tres).copied().unwrap_or(0)
    }

    /// Whether nothing at all was used.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|amount| *amount == 0)
    }
}

/// Weight of each component of an allocation in the billing scalar; keys as the server or site wrote them.
pub type BillingWeights = SmallMap<String, Exact>;
