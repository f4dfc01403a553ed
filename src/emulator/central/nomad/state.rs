//! What the emulated Nomad knows: quotas, their usage, and the Raft indexes that blocking queries wait for.

use serde::{Deserialize, Serialize};

use super::super::state::named;

/// State of the Nomad servers of a site. Field names of quotas are Nomad's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NomadState {
    /// Who may do what; without any token the access control is off and everybody may do everything.
    pub tokens: Vec<NomadToken>,
    pub quotas: Vec<QuotaSpec>,
    pub usages: Vec<QuotaUsage>,
    /// Raft index of the last change of anything.
    pub index: u64,
    /// Index of the last change of any quota.
    pub quotas_index: u64,
    /// Index of the last change of any usage.
    pub usages_index: u64,
    /// Without a leader nothing is answered but what may be stale.
    pub has_leader: bool,
    /// Milliseconds since the leader was heard of.
    pub last_contact_ms: u64,
    /// Times the servers were started again; held queries are cut then.
    pub restarts: u64,
    /// Answer with every field of the present `QuotaResources`, zeros and nulls too, and without the networks and disk of
    /// older servers.
    pub present_fields: bool,
}

impl Default for NomadState {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            quotas: Vec::new(),
            usages: Vec::new(),
            index: 1,
            quotas_index: 1,
            usages_index: 1,
            has_leader: true,
            last_contact_ms: 0,
            restarts: 0,
            present_fields: false,
        }
    }
}

/// A secret and what its policy allows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NomadToken {
    pub secret: String,
    /// `quota:write` besides `quota:read`.
    pub may_write: bool,
}

/// A quota.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct QuotaSpec {
    pub name: String,
    pub description: String,
    pub limits: Vec<QuotaLimit>,
    pub hash: String,
    pub create_index: u64,
    pub modify_index: u64,
}

/// What is limited, or used, in one region.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct QuotaLimit {
    pub region: String,
    pub region_limit: RegionLimit,
    pub hash: String,
}

/// Amounts; 0 is unlimited, below 0 is nothing at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct RegionLimit {
    #[serde(rename = "CPU")]
    pub cpu: i64,
    pub cores: i64,
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: i64,
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
    pub devices: Vec<Device>,
    pub networks: Vec<Network>,
    pub storage: Option<Storage>,
    pub node_pools: Vec<NodePoolLimit>,
}

/// Amounts in one node pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct NodePoolLimit {
    pub node_pool: String,
    #[serde(rename = "CPU")]
    pub cpu: i64,
    pub cores: i64,
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: i64,
    pub devices: Vec<Device>,
    pub storage: Option<Storage>,
}

/// So many devices of a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub count: u64,
}

/// Bandwidth.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    #[serde(rename = "MBits")]
    pub mbits: i64,
}

/// Space of variables and host volumes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    #[serde(rename = "VariablesMB")]
    pub variables_mb: i64,
    #[serde(rename = "HostVolumesMB")]
    pub host_volumes_mb: i64,
}

/// What is used of a quota.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct QuotaUsage {
    pub name: String,
    /// By region; answers have it by the hash of the limit.
    pub used: Vec<QuotaLimit>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// What held queries wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pulse {
    quotas_index: u64,
    usages_index: u64,
    has_leader: bool,
    /// Times the servers were started again.
    pub restarts: u64,
}

impl NomadState {
    /// What held queries wait for, as it is now.
    pub(crate) fn pulse(&self) -> Pulse {
        let Self { quotas_index, usages_index, has_leader, restarts, .. } = *self;
        Pulse { quotas_index, usages_index, has_leader, restarts }
    }

    /// Creates or replaces a quota; every write is a change, whatever it holds.
    pub fn put(&mut self, mut quota: QuotaSpec) {
        self.index += 1;
        let index = self.index;
        self.quotas_index = index;
        hash(&mut quota);
        quota.modify_index = index;
        match self.quotas.iter_mut().find(|slot| slot.name == quota.name) {
            Some(slot) => {
                quota.create_index = slot.create_index;
                *slot = quota;
            }
            None => {
                quota.create_index = index;
                self.quotas.push(quota);
                self.quotas.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        self.settle_usages();
    }

    /// Deletes a quota with its usage; `false` when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.quotas.len();
        self.quotas.retain(|quota| quota.name != name);
        if self.quotas.len() == before {
            return false;
        }
        self.index += 1;
        self.quotas_index = self.index;
        self.usages_index = self.index;
        self.usages.retain(|usage| usage.name != name);
        true
    }

    /// Says what is in use of a quota in a region.
    pub fn set_used(&mut self, name: &str, region: &str, used: RegionLimit) {
        self.index += 1;
        self.usages_index = self.index;
        let index = self.index;
        if !self.usages.iter().any(|usage| usage.name == name) {
            let name = name.to_owned();
            self.usages.push(QuotaUsage { name, create_index: index, ..QuotaUsage::default() });
        }
        for usage in self.usages.iter_mut().filter(|usage| usage.name == name) {
            usage.modify_index = index;
            usage.used.retain(|limit| limit.region != region);
            usage.used.push(QuotaLimit {
                region: region.to_owned(),
                region_limit: used.clone(),
                ..QuotaLimit::default()
            });
        }
        self.settle_usages();
    }

    /// The servers were started again; with an index, from an older snapshot that ends there.
    pub fn restart(&mut self, index: Option<u64>) {
        self.restarts += 1;
        if let Some(index) = index {
            self.index = index;
            self.quotas_index = self.quotas_index.min(index);
            self.usages_index = self.usages_index.min(index);
            for quota in &mut self.quotas {
                quota.create_index = quota.create_index.min(index);
                quota.modify_index = quota.modify_index.min(index);
            }
            for usage in &mut self.usages {
                usage.create_index = usage.create_index.min(index);
                usage.modify_index = usage.modify_index.min(index);
            }
        }
    }

    /// Completes what was written by hand: hashes, indexes, a usage for every quota. Repeating it changes nothing.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.quotas.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twins) = self.quotas.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("two Nomad quotas {}", twins[0].name));
        }
        let known = self.quotas.iter().map(|quota| quota.modify_index);
        let known = known.chain(self.usages.iter().map(|usage| usage.modify_index)).max().unwrap_or(0);
        self.index = self.index.max(self.quotas_index).max(self.usages_index).max(known).max(1);
        for quota in &mut self.quotas {
            hash(quota);
            if quota.modify_index == 0 {
                self.index += 1;
                quota.modify_index = self.index;
            }
            if quota.create_index == 0 {
                quota.create_index = quota.modify_index;
            }
            self.quotas_index = self.quotas_index.max(quota.modify_index);
        }
        self.settle_usages();
        Ok(())
    }

    /// A usage for every quota, an index and an entry per limited region for every usage.
    fn settle_usages(&mut self) {
        for quota in &self.quotas {
            let named = |usage: &QuotaUsage| usage.name == quota.name;
            if !self.usages.iter().any(named) {
                self.usages.push(QuotaUsage { name: quota.name.clone(), ..QuotaUsage::default() });
            }
            for usage in self.usages.iter_mut().filter(|usage| named(usage)) {
                let before = usage.used.clone();
                for limit in &quota.limits {
                    match usage.used.iter_mut().find(|used| used.region == limit.region) {
                        Some(used) => used.hash.clone_from(&limit.hash),
                        None => usage
                            .used
                            .push(QuotaLimit { region_limit: RegionLimit::default(), ..limit.clone() }),
                    }
                }
                if usage.used != before && usage.modify_index != 0 {
                    usage.modify_index = self.index;
                    self.usages_index = self.index;
                }
            }
        }
        self.usages.sort_by(|a, b| a.name.cmp(&b.name));
        for usage in &mut self.usages {
            if usage.modify_index == 0 {
                usage.modify_index = self.index;
                self.usages_index = self.index;
            }
            if usage.create_index == 0 {
                usage.create_index = usage.modify_index;
            }
            self.usages_index = self.usages_index.max(usage.modify_index);
            for used in usage.used.iter_mut().filter(|used| used.hash.is_empty()) {
                used.hash = opaque(&format!("used {} {}", usage.name, used.region));
            }
        }
    }
}

/// Fills in hashes that are not there.
fn hash(quota: &mut QuotaSpec) {
    for limit in quota.limits.iter_mut().filter(|limit| limit.hash.is_empty()) {
        limit.hash = opaque(&format!("{} {:?}", limit.region, limit.region_limit));
    }
    if quota.hash.is_empty() {
        quota.hash = opaque(&format!("{} {} {:?}", quota.name, quota.description, quota.limits));
    }
}

/// 32 bytes in base64 that follow from a text. Nomad's are of another kind, and nothing but equality is made of them.
fn opaque(text: &str) -> String {
    let halves = [named(&format!("first {text}")), named(&format!("second {text}"))];
    let bytes: Vec<u8> = halves.iter().flat_map(|half| *half.as_bytes()).collect();
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let shown = if digit > three.len() { b'=' } else { DIGITS[value as usize] };
            text.push(char::from(shown));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_its_standard() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(opaque("x").len(), 44);
        assert_ne!(opaque("x"), opaque("y"));
    }
}
