//! Shapes of Nomad's wire, and their conversion to `core` types. Pure.
//!
//! In a limit 0 (or nothing) is unlimited and a negative number is nothing at all; in a usage a number is what it says.
//! What quotas limit besides (networks, disks, storage, variables) has no meaning on Slurm and is left alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::central::shape::{Fields, Misfit, whole};
use crate::core::exact::Exact;
use crate::core::quota::{Bound, Capacity, ConcurrencyQuota, ConcurrencyUsage, RegionLimit};

/// What the numbers of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// 0 is unlimited, negative nothing at all.
    Limits,
    /// How much is in use.
    Used,
}

/// A quota specification.
pub(super) fn quota(row: &Value) -> Result<ConcurrencyQuota, Misfit> {
    let fields = Fields::of(row)?;
    let limits = fields.list("Limits")?.into_iter().flatten();
    Ok(ConcurrencyQuota {
        name: fields.need_text("Name")?.to_owned(),
        description: fields.text("Description")?.unwrap_or_default().to_owned(),
        regions: regions("Limits", limits, Numbers::Limits)?,
        modify_index: index(fields, "ModifyIndex")?,
    })
}

/// What is in use of a quota.
pub(super) fn usage(row: &Value) -> Result<ConcurrencyUsage, Misfit> {
    let fields = Fields::of(row)?;
    let used = fields.object("Used")?.into_iter().flat_map(|by_hash| by_hash.values());
    Ok(ConcurrencyUsage {
        name: fields.need_text("Name")?.to_owned(),
        regions: regions("Used", used, Numbers::Used)?,
        modify_index: index(fields, "ModifyIndex")?,
    })
}

/// The name in a specification that is to be written; the rest of it must be understood as well.
pub(super) fn name_of(spec: &Value) -> Result<String, Misfit> {
    quota(spec).map(|quota| quota.name)
}

/// An index of Nomad's log. A specification that is not written yet has none.
fn index(fields: Fields<'_>, field: &str) -> Result<u64, Misfit> {
    let Some(number) = fields.number(field)? else { return Ok(0) };
    whole(number)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| Misfit::new(field, format!("{number} is not an index")))
}

fn regions<'a>(
    field: &str,
    rows: impl Iterator<Item = &'a Value>,
    numbers: Numbers,
) -> Result<BTreeMap<String, RegionLimit>, Misfit> {
    let mut regions = BTreeMap::new();
    for row in rows {
        let fields = Fields::of(row)?;
        let region = fields.need_text("Region")?.to_owned();
        let limit = match fields.value("RegionLimit") {
            Some(limit) => region_limit(limit, numbers),
            None => region_limit(&Value::Object(serde_json::Map::new()), numbers),
        };
        let limit = limit.map_err(|misfit| within(field, &region, misfit))?;
        if regions.insert(region.clone(), limit).is_some() {
            return Err(Misfit::new(field, format!("region {region:?} is there twice")));
        }
    }
    Ok(regions)
}

fn within(field: &str, name: &str, misfit: Misfit) -> Misfit {
    Misfit { field: format!("{field}.{name}.{}", misfit.field), what: misfit.what }
}

fn region_limit(row: &Value, numbers: Numbers) -> Result<RegionLimit, Misfit> {
    const POOLS: &str = "NodePools";
    let fields = Fields::of(row)?;
    let mut node_pools = BTreeMap::new();
    for pool in fields.list(POOLS)?.into_iter().flatten() {
        let part = Fields::of(pool)?;
        let name = part.need_text("NodePool")?.to_owned();
        let limit = capacity(part, numbers).map_err(|misfit| within(POOLS, &name, misfit))?;
        if node_pools.insert(name.clone(), limit).is_some() {
            return Err(Misfit::new(POOLS, format!("node pool {name:?} is there twice")));
        }
    }
    Ok(RegionLimit { all: capacity(fields, numbers)?, node_pools })
}

fn capacity(fields: Fields<'_>, numbers: Numbers) -> Result<Capacity, Misfit> {
    const DEVICES: &str = "Devices";
    let mut devices = BTreeMap::new();
    for device in fields.list(DEVICES)?.into_iter().flatten() {
        let part = Fields::of(device)?;
        let name = part.need_text("Name")?.to_owned();
        // Without a count Nomad would take 1 for a job; what it means in a quota is not said, so it is not guessed.
        let count = part.number("Count")?.ok_or_else(|| Misfit::new("Count", "is missing"));
        let count = count.and_then(|count| bound("Count", count, numbers));
        let count = count.map_err(|misfit| within(DEVICES, &name, misfit))?;
        if devices.insert(name.clone(), count).is_some() {
            return Err(Misfit::new(DEVICES, format!("device {name:?} is there twice")));
        }
    }
    let amount = |field: &str| bound(field, fields.number(field)?.unwrap_or(Exact::ZERO), numbers);
    Ok(Capacity { cores: amount("Cores")?, cpu_mhz: amount("CPU")?, memory_mb: amount("MemoryMB")?, devices })
}

fn bound(field: &str, number: Exact, numbers: Numbers) -> Result<Bound, Misfit> {
    if whole(number).is_none() {
        return Err(Misfit::new(field, format!("{number} is not a whole number")));
    }
    match numbers {
        Numbers::Limits if number == Exact::ZERO => Ok(Bound::Unlimited),
        Numbers::Limits if number.is_negative() => Ok(Bound::AtMost(Exact::ZERO)),
        Numbers::Used if number.is_negative() => Err(Misfit::new(field, format!("{number} is below 0"))),
        _ => Ok(Bound::AtMost(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn most(number: i128) -> Bound {
        Bound::AtMost(Exact::whole(number))
    }

    fn limited(limit: Value) -> Value {
        json!({"Name": "q", "Limits": [{"Region": "global", "RegionLimit": limit}]})
    }

    #[test]
    fn zero_and_nothing_are_unlimited_and_below_zero_is_nothing_at_all() {
        for (written, read) in [
            (json!(0), Bound::Unlimited),
            (Value::Null, Bound::Unlimited),
            (json!(-1), most(0)),
            (json!(-500), most(0)),
            (json!(7), most(7)),
        ] {
            let row = limited(json!({"Cores": written, "CPU": written, "MemoryMB": written}));
            let all = &quota(&row).unwrap().regions["global"].all;
            assert_eq!((all.cores, all.cpu_mhz, all.memory_mb), (read, read, read), "{written}");
        }
        let absent = quota(&limited(Value::Null)).unwrap();
        assert_eq!(absent.regions["global"].all.cores, Bound::Unlimited);
    }

    #[test]
    fn devices_and_node_pools_are_read_with_their_own_numbers() {
        let row = limited(json!({
            "Cores": 8, "Devices": [{"Name": "nvidia/gpu/1080ti", "Count": 2}, {"Name": "fpga", "Count": -1}],
            "NodePools": [
                {"NodePool": "batch", "Cores": 4, "MemoryMB": 0, "Devices": [{"Name": "nvidia/gpu", "Count": 1}]},
                {"NodePool": "dev", "CPU": -1},
            ],
            "Storage": {"VariablesMB": 1000, "HostVolumesMB": 0}, "MemoryMaxMB": 5,
        }));
        let region = quota(&row).unwrap().regions.remove("global").unwrap();
        assert_eq!((region.all.cores, region.all.memory_mb), (most(8), Bound::Unlimited));
        let expected =
            BTreeMap::from([("nvidia/gpu/1080ti".to_owned(), most(2)), ("fpga".to_owned(), most(0))]);
        assert_eq!(region.all.devices, expected);
        let batch = &region.node_pools["batch"];
        assert_eq!((batch.cores, batch.memory_mb), (most(4), Bound::Unlimited));
        assert_eq!(batch.devices["nvidia/gpu"], most(1));
        assert_eq!(region.node_pools["dev"].cpu_mhz, most(0));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_place() {
        for (row, words) in [
            (json!([]), "row"),
            (json!({"Limits": []}), "Name: is missing"),
            (limited(json!({"Cores": 1.5})), "Limits.global.Cores: 1.5 is not a whole number"),
            (limited(json!({"CPU": "2500 MHz"})), "Limits.global.CPU"),
            (limited(json!({"Devices": [{"Name": "gpu"}]})), "Limits.global.Devices.gpu.Count: is missing"),
            (limited(json!({"Devices": [{"Name": "g", "Count": 1}, {"Name": "g", "Count": 2}]})), "twice"),
            (limited(json!({"NodePools": [{"Cores": 1}]})), "Limits.global.NodePool: is missing"),
            (json!({"Name": "q", "Limits": [{"RegionLimit": {}}]}), "Region: is missing"),
            (
                json!({"Name": "q", "Limits": [{"Region": "r"}, {"Region": "r"}]}),
                "region \"r\" is there twice",
            ),
            (json!({"Name": "q", "ModifyIndex": -4}), "ModifyIndex: -4 is not an index"),
        ] {
            let text = quota(&row).unwrap_err().to_string();
            assert!(text.contains(words), "{row}: {text}");
        }
        let negative = json!({"Name": "q", "Used": {"h": {"Region": "r", "RegionLimit": {"CPU": -5}}}});
        assert_eq!(usage(&negative).unwrap_err().to_string(), "Used.r.CPU: -5 is below 0");
    }

    proptest! {
        #[test]
        fn one_odd_number_is_refused_or_read_as_it_is(odd in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), "\\PC{0,12}".prop_map(Value::from),
        ]) {
            let row = limited(json!({"Cores": odd}));
            if let Ok(quota) = quota(&row) && let Bound::AtMost(cores) = quota.regions["global"].all.cores {
                let number = crate::central::shape::exact(&odd).unwrap();
                prop_assert_eq!(cores, if number.is_negative() { Exact::ZERO } else { number });
            }
            let used = json!({"Name": "q", "Used": {"h": {"Region": "global", "RegionLimit": row}}});
            let _ = usage(&used);
        }
    }
}
