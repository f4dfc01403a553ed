//! scontrol: slurmctld's configuration, its partitions, and whether it is up.

use std::collections::{BTreeMap, BTreeSet};

use super::argv::{Argv, Program};
use super::rows;
use super::tres_text;
use crate::core::exact::Exact;
use crate::core::tres::Tres;

/// `Name = value` lines, by lower-case name. A value that Slurm prints as `(null)` is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    pub(super) fn parse(text: &str) -> Settings {
        let of_line = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        };
        Settings(text.lines().filter_map(of_line).collect())
    }

    /// The value, whatever the case of the name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(&name.to_ascii_lowercase())?;
        (value != "(null)").then_some(value.as_str())
    }

    /// Items of a comma-separated value in lower case, empty when it is not set or `none`.
    pub fn items(&self, name: &str) -> BTreeSet<String> {
        let value = self.get(name).unwrap_or_default().to_ascii_lowercase();
        value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty() && *item != "none")
            .map(str::to_owned)
            .collect()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, by lower-case name, as printed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// slurmctld's configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmConfiguration(pub Settings);

impl SlurmConfiguration {
    /// SLURM_VERSION of slurmctld.
    pub fn version(&self) -> Option<&str> {
        self.0.get("SLURM_VERSION")
    }

    /// ClusterName.
    pub fn cluster_name(&self) -> Option<&str> {
        self.0.get("ClusterName")
    }

    /// AccountingStorageType, such as `accounting_storage/slurmdbd`.
    pub fn accounting_storage_type(&self) -> Option<&str> {
        self.0.get("AccountingStorageType")
    }

    /// AccountingStorageEnforce: `associations`, `limits`, `qos`, `safe`, ... in lower case.
    pub fn enforce(&self) -> BTreeSet<String> {
        self.0.items("AccountingStorageEnforce")
    }

    /// AccountingStorageTRES.
    pub fn accounting_storage_tres(&self) -> BTreeSet<Tres> {
        let value = self.0.get("AccountingStorageTRES").unwrap_or_default();
        value.split(',').filter_map(|name| Tres::parse(name.trim()).ok()).collect()
    }

    /// PriorityType, such as `priority/multifactor`.
    pub fn priority_type(&self) -> Option<&str> {
        self.0.get("PriorityType")
    }

    /// PriorityFlags in lower case.
    pub fn priority_flags(&self) -> BTreeSet<String> {
        self.0.items("PriorityFlags")
    }

    /// PriorityDecayHalfLife in seconds; 0: raw usage does not decay.
    pub fn decay_half_life_s(&self) -> Option<u64> {
        rows::duration_s(self.0.get("PriorityDecayHalfLife")?.as_bytes())
    }

    /// PriorityUsageResetPeriod: `NONE`, `MONTHLY`, ...
    pub fn usage_reset_period(&self) -> Option<&str> {
        self.0.get("PriorityUsageResetPeriod")
    }

    /// PriorityCalcPeriod in seconds: how often raw usage of running jobs is brought up to date.
    pub fn calc_period_s(&self) -> Option<u64> {
        rows::duration_s(self.0.get("PriorityCalcPeriod")?.as_bytes())
    }

    /// PrivateData in lower case, empty for `none`.
    pub fn private_data(&self) -> BTreeSet<String> {
        self.0.items("PrivateData")
    }
}

/// A partition and what it charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name as printed.
    pub name: String,
    /// State as printed: `UP`, `DOWN`, `DRAIN`, `INACTIVE`.
    pub state: String,
    /// TRESBillingWeights as printed; `None`: a job is charged its CPUs.
    pub weights_text: Option<String>,
    /// What one count of a TRES (one MB of memory) is charged, by lower-case name; `None` when the text is not understood.
    pub weights: Option<BTreeMap<Tres, Exact>>,
}

/// A slurmctld and whether it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// `primary`, `backup`, `backup1`, ...
    pub role: String,
    /// Its host.
    pub host: String,
    /// Whether it answered.
    pub is_up: bool,
}

/// The question for slurmctld's configuration.
pub(super) fn configuration_argv() -> Argv {
    Argv::reading(Program::Scontrol, ["show", "config"])
}

/// Reads the answer; `None` when it is not a configuration of slurmctld.
pub fn parse_configuration(answer: &[u8]) -> Option<SlurmConfiguration> {
    let configuration = SlurmConfiguration(Settings::parse(&rows::text(answer)));
    let whole = configuration.version().is_some() && configuration.cluster_name().is_some();
    whole.then_some(configuration)
}

/// The question for all partitions, hidden ones too.
pub(super) fn partitions_argv() -> Argv {
    Argv::reading(Program::Scontrol, ["-a", "-o", "show", "partition"])
}

/// Reads the answer; `None` when a line is no partition.
pub fn parse_partitions(answer: &[u8]) -> Option<Vec<Partition>> {
    let text = rows::text(answer);
    let lines = text.lines().filter(|line| !line.trim().is_empty() && *line != "No partitions in the system");
    lines.map(parse_partition).collect()
}

fn parse_partition(line: &str) -> Option<Partition> {
    let value = |key: &str| line.split(' ').find_map(|item| item.strip_prefix(key)?.strip_prefix('='));
    let name = line.split(' ').next()?.strip_prefix("PartitionName=")?.to_owned();
    let state = value("State")?.to_owned();
    let weights_text = value("TRESBillingWeights").filter(|text| *text != "(null)").map(str::to_owned);
    let weights = tres_text::billing_weights(weights_text.as_deref().unwrap_or_default());
    Some(Partition { name, state, weights_text, weights })
}

/// The question for whether slurmctld is up.
pub(super) fn ping_argv() -> Argv {
    Argv::reading(Program::Scontrol, ["ping"])
}

/// Reads `Slurmctld(primary) at host is UP` lines. The exit status tells nothing that holds on all releases.
pub fn parse_ping(answer: &[u8]) -> Vec<Controller> {
    let of_line = |line: &str| {
        let (role, rest) = line.strip_prefix("Slurmctld(")?.split_once(") at ")?;
        let (host, state) = rest.split_once(" is ")?;
        let is_up = match state.trim_end() {
            "UP" => true,
            "DOWN" => false,
            _ => return None,
        };
        Some(Controller { role: role.to_owned(), host: host.to_owned(), is_up })
    };
    rows::text(answer).lines().filter_map(of_line).collect()
}
