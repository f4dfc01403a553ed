//! Quotas and usages as Nomad sends them.

use serde_json::{Map, Value, json};

use super::state::{Device, NodePoolLimit, QuotaLimit, QuotaSpec, QuotaUsage, RegionLimit};

/// What a quota looks like; `present` as [`super::NomadState::present_fields`].
pub(super) fn quota(quota: &QuotaSpec, present: bool) -> Value {
    let limits: Vec<Value> = quota.limits.iter().map(|entry| limit(entry, present)).collect();
    json!({
        "CreateIndex": quota.create_index,
        "Description": quota.description,
        "Hash": quota.hash,
        "Limits": or_null(limits),
        "ModifyIndex": quota.modify_index,
        "Name": quota.name,
    })
}

/// What a usage looks like: by the hash of the limit.
pub(super) fn usage(usage: &QuotaUsage, present: bool) -> Value {
    let used: Map<String, Value> =
        usage.used.iter().map(|used| (used.hash.clone(), limit(used, present))).collect();
    json!({
        "Used": used,
        "Name": usage.name,
        "CreateIndex": usage.create_index,
        "ModifyIndex": usage.modify_index,
    })
}

fn limit(limit: &QuotaLimit, present: bool) -> Value {
    let amounts = if present { present_amounts(&limit.region_limit) } else { amounts(&limit.region_limit) };
    json!({"Hash": limit.hash, "Region": limit.region, "RegionLimit": amounts})
}

/// An empty list is null in Go.
fn or_null(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn devices(devices: &[Device]) -> Value {
    or_null(devices.iter().map(|device| json!({"Name": device.name, "Count": device.count})).collect())
}

/// As on the API page, with the newer fields where they say something.
fn amounts(limit: &RegionLimit) -> Value {
    let networks = limit.networks.iter().map(|network| {
        json!({
            "CIDR": "",
            "Device": "",
            "DynamicPorts": null,
            "IP": "",
            "MBits": network.mbits,
            "Mode": "",
            "ReservedPorts": null,
        })
    });
    let mut wire = json!({
        "CPU": limit.cpu,
        "DiskMB": limit.disk_mb,
        "MemoryMB": limit.memory_mb,
        "Networks": or_null(networks.collect()),
    });
    for (name, amount) in [("Cores", limit.cores), ("MemoryMaxMB", limit.memory_max_mb)] {
        if amount != 0 {
            wire[name] = json!(amount);
        }
    }
    if !limit.devices.is_empty() {
        wire["Devices"] = devices(&limit.devices);
    }
    if let Some(storage) = &limit.storage {
        wire["Storage"] = json!(storage);
    }
    if !limit.node_pools.is_empty() {
        wire["NodePools"] = node_pools(&limit.node_pools);
    }
    wire
}

/// As servers of today: every field, set or not.
fn present_amounts(limit: &RegionLimit) -> Value {
    json!({
        "CPU": limit.cpu,
        "Cores": limit.cores,
        "MemoryMB": limit.memory_mb,
        "MemoryMaxMB": limit.memory_max_mb,
        "Devices": devices(&limit.devices),
        "NUMA": null,
        "SecretsMB": 0,
        "Storage": limit.storage,
        "NodePools": node_pools(&limit.node_pools),
    })
}

fn node_pools(pools: &[NodePoolLimit]) -> Value {
    let pools = pools.iter().map(|pool| {
        json!({
            "NodePool": pool.node_pool,
            "CPU": pool.cpu,
            "Cores": pool.cores,
            "MemoryMB": pool.memory_mb,
            "MemoryMaxMB": pool.memory_max_mb,
            "Devices": devices(&pool.devices),
            "Storage": pool.storage,
        })
    });
    or_null(pools.collect())
}
