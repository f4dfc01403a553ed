//! Components: what the portal sells (`cpu` in hours), tied to what Slurm counts (TRES-seconds).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::exact::Exact;
use super::tres::{Tres, TresSeconds};

/// A component's name at the portal, such as `cpu`, `gpu`, `ram`; compared without regard to case.
pub type ComponentName = String;

/// In what a component is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// TRES-minutes
    #[serde(rename = "min")]
    Min,
    /// TRES-hours
    #[serde(rename = "h")]
    H,
    /// Thousands of TRES-hours
    #[serde(rename = "kh")]
    Kh,
    /// Slurm's MB for an hour
    #[serde(rename = "MB-h")]
    MbH,
    /// 1024 MB for an hour
    #[serde(rename = "GB-h")]
    GbH,
    /// 1024 * 1024 MB for an hour
    #[serde(rename = "TB-h")]
    TbH,
}

impl Unit {
    /// Every unit, in the order of documentation.
    pub const ALL: [Unit; 6] = [Unit::H, Unit::Kh, Unit::Min, Unit::GbH, Unit::MbH, Unit::TbH];

    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Min => "min",
            Unit::H => "h",
            Unit::Kh => "kh",
            Unit::MbH => "MB-h",
            Unit::GbH => "GB-h",
            Unit::TbH => "TB-h",
        }
    }

    /// Reads what [`Unit::as_str`] writes.
    pub fn parse(text: &str) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.as_str() == text)
    }

    /// Whether it only makes sense for memory.
    pub fn is_mem(self) -> bool {
        matches!(self, Unit::MbH | Unit::GbH | Unit::TbH)
    }

    /// TRES-seconds (for memory MB-seconds) in one of it.
    pub fn tres_seconds(self) -> i128 {
        match self {
            Unit::Min => 60,
            Unit::H | Unit::MbH => 3600,
            Unit::Kh => 3_600_000,
            Unit::GbH => 1024 * 3600,
            Unit::TbH => 1024 * 1024 * 3600,
        }
    }

    /// TRES that one unit-hour stands for: how many of Slurm's counts (MB for memory) one of the unit is when
    /// it is held, used for limits on what is in use at one time.
    pub fn tres_count(self) -> i128 {
        match self {
            Unit::Min | Unit::H | Unit::Kh | Unit::MbH => 1,
            Unit::GbH => 1024,
            Unit::TbH => 1024 * 1024,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one component is on this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The TRES that is counted.
    pub tres: Tres,
    /// In what the portal's amounts are.
    pub unit: Unit,
}

/// All components of a site, by lower-case name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Components(pub BTreeMap<ComponentName, Component>);

impl Components {
    /// The component of a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&Component> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.0.get(&name.to_ascii_lowercase());
        }
        self.0.get(name)
    }

    /// Used amount of one component in its own unit.
    pub fn amount(&self, name: &str, usage: &TresSeconds) -> Option<Exact> {
        let component = self.get(name)?;
        Exact::fraction(i128::try_from(usage.get(&component.tres)).ok()?, component.unit.tres_seconds())
    }
}
