//! Bodies of written quotas. Go reads JSON without regard to the case of names, skips names it does not know, and takes
//! null for nothing said: `Mbits` of the API page is `MBits` in the answer.

use serde_json::{Map, Value};

use super::refused;
use super::state::QuotaSpec;
use crate::emulator::central::http::{Answer, Request};

/// Longest name and description of a quota.
const NAME_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 256;

/// The names of an object's members, and of those of the objects in them.
struct Names(&'static [(&'static str, Option<&'static Names>)]);

static DEVICE: Names = Names(&[("Name", None), ("Count", None)]);
static NETWORK: Names = Names(&[("MBits", None)]);
static STORAGE: Names = Names(&[("VariablesMB", None), ("HostVolumesMB", None)]);
static NODE_POOL: Names = Names(&[
    ("NodePool", None),
    ("CPU", None),
    ("Cores", None),
    ("MemoryMB", None),
    ("MemoryMaxMB", None),
    ("Devices", Some(&DEVICE)),
    ("Storage", Some(&STORAGE)),
]);
static REGION_LIMIT: Names = Names(&[
    ("CPU", None),
    ("Cores", None),
    ("MemoryMB", None),
    ("MemoryMaxMB", None),
    ("DiskMB", None),
    ("Devices", Some(&DEVICE)),
    ("Networks", Some(&NETWORK)),
    ("Storage", Some(&STORAGE)),
    ("NodePools", Some(&NODE_POOL)),
]);
static LIMIT: Names = Names(&[("Region", None), ("RegionLimit", Some(&REGION_LIMIT))]);
static QUOTA: Names = Names(&[("Name", None), ("Description", None), ("Limits", Some(&LIMIT))]);

/// The value with the names as they are written here.
fn folded(value: Value, names: Option<&Names>) -> Value {
    let Some(names) = names else { return value };
    match value {
        Value::Array(items) => {
            let items = items.into_iter().filter(|item| !item.is_null());
            Value::Array(items.map(|item| folded(item, Some(names))).collect())
        }
        Value::Object(members) => {
            let mut kept = Map::new();
            for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                let known = names.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                if let Some((known, inner)) = known {
                    kept.insert((*known).to_owned(), folded(value, *inner));
                }
            }
            Value::Object(kept)
        }
        other => other,
    }
}

/// The quota that a request writes; `named` is the name in its address.
///
/// # Errors
/// 400 with what is wrong with it.
pub(super) fn read(request: &Request, named: Option<&str>) -> Result<QuotaSpec, Answer> {
    let body: Value =
        serde_json::from_slice(&request.body).map_err(|error| refused(400, &format!("json: {error}")))?;
    if !body.is_object() {
        return Err(refused(400, "json: cannot unmarshal into Go value of type structs.QuotaSpec"));
    }
    let quota: QuotaSpec = serde_json::from_value(folded(body, Some(&QUOTA)))
        .map_err(|error| refused(400, &format!("json: cannot unmarshal: {error}")))?;
    if named.is_some_and(|named| named != quota.name) {
        return Err(refused(400, "Quota name does not match request path"));
    }
    check(&quota).map_err(|reason| refused(400, &format!("Invalid quota {:?}: {reason}", quota.name)))?;
    Ok(quota)
}

fn check(quota: &QuotaSpec) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if quota.name.is_empty() || quota.name.len() > NAME_MAX || !quota.name.chars().all(is_name) {
        return Err(format!("invalid name {:?}. Must match regex ^[a-zA-Z0-9-]{{1,128}}$", quota.name));
    }
    if quota.description.len() > DESCRIPTION_MAX {
        return Err(format!("description longer than {DESCRIPTION_MAX}"));
    }
    for (at, limit) in quota.limits.iter().enumerate() {
        if limit.region.is_empty() {
            return Err(format!("limit {at} is missing its region"));
        }
        if quota.limits[..at].iter().any(|other| other.region == limit.region) {
            return Err(format!("region {:?} has more than one limit", limit.region));
        }
    }
    Ok(())
}
