//! Nomad's quotas.

use serde_json::{Map, Value, json};

use super::view::{self, Listed};
use super::{AgentError, Consent, SetArgs, Source, explained, moved, only, unchanged};
use crate::central::nomad::NomadClient;
use crate::central::{CentralError, Notice};
use crate::cli::render;
use crate::config::NomadSource;
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::quota::{Bound, Capacity, ConcurrencyQuota, ConcurrencyUsage};

/// What Nomad writes for "as much as there is" and for "nothing at all".
const UNLIMITED: i64 = 0;
const NOTHING: i64 = -1;

/// The quotas of a source of kind nomad.
pub struct Concurrencies<'a> {
    /// The source.
    pub source: &'a Source,
    /// Its client.
    pub client: &'a NomadClient,
    /// What its words mean.
    pub nomad: &'a NomadSource,
}

impl Concurrencies<'_> {
    fn account(&self, name: &str) -> Option<&AccountName> {
        self.nomad.map.accounts.get(name)
    }

    /// Quotas of accounts of this cluster, or all.
    pub async fn list(&self, all: bool) -> Result<Listed, AgentError> {
        let prefix = if all { "" } else { self.nomad.prefix.as_str() };
        let listed = self.client.list(prefix).await.map_err(explained)?.value;
        let mut quotas = listed.value;
        quotas.retain(|quota| all || self.account(&quota.name).is_some());
        let usages = self.client.list_usages(prefix).await.map_err(explained)?.value;
        let notices: Vec<Notice> = listed.notices.into_iter().chain(usages.notices).collect();
        Ok(self.shown(&quotas, &usages.value, &notices))
    }

    /// The quotas that are meant.
    pub async fn show(&self, what: &str) -> Result<Listed, AgentError> {
        let found = self.find(what).await?;
        if found.is_empty() {
            return Err(super::nothing(self.source.name.as_str(), what));
        }
        let mut usages = Vec::new();
        for quota in &found {
            match self.client.read_usage(&quota.name).await {
                Ok(usage) => usages.push(usage.value),
                Err(CentralError::NotThere { .. }) => {}
                Err(error) => return Err(explained(error)),
            }
        }
        let shown = self.shown(&found, &usages, &[]);
        let about = found.iter().filter(|quota| !quota.description.is_empty());
        let about: String = about
            .map(|quota| format!("{}: {}\n", quota.name, render::printable(&quota.description)))
            .collect();
        Ok(Listed { text: shown.text + &about, ..shown })
    }

    /// Changes what is given of one region and leaves everything else of the specification as it is.
    pub async fn set(&self, args: &SetArgs) -> Result<Listed, AgentError> {
        args.check(self.source)?;
        let before = self.present(args).await?;
        let region = args.region.as_ref().unwrap_or(&self.nomad.map.region);
        let (after, rows) = edited(&before, args, region);
        let name = before["Name"].as_str().unwrap_or_default();
        let title = format!("quota {name}");
        let mut changes = view::changes(rows);
        if args.create {
            let made = || render::table("", &["Field", "Value"], vec![vec!["Name".into(), name.into()]]);
            changes = Some(changes.unwrap_or_else(made));
        }
        let Some(changes) = changes else {
            let quota = self.client.read(name).await.map_err(explained)?.value;
            return Ok(unchanged(&title, view::json_of(&quota, self.account(name))));
        };
        let account = view::account(self.account(name));
        let verb = if args.create { " is made" } else { "" };
        if args.consent.is_open()? {
            let place = format!("region {region}, account {account}, source {}", self.source.name);
            args.consent.ask(&format!("{title}{verb} ({place}):\n{changes}"))?;
            if self.present(args).await?["ModifyIndex"] != before["ModifyIndex"] {
                return Err(moved(&title));
            }
        }
        self.client.write(Some(name), &after).await.map_err(explained)?;
        let quota = self.client.read(name).await.map_err(explained)?.value;
        let shown = self.show(name).await?;
        Ok(Listed { json: view::json_of(&quota, self.account(name)), ..shown })
    }

    /// The specification that is changed: the server's, or an empty one to be made.
    async fn present(&self, args: &SetArgs) -> Result<Value, AgentError> {
        if !args.create {
            let name = match self.client.read_spec(&args.what).await {
                Ok(spec) => return Ok(spec),
                Err(CentralError::NotThere { .. } | CentralError::Unsendable { .. }) => {
                    self.one(&args.what).await?.name
                }
                Err(error) => return Err(explained(error)),
            };
            return self.client.read_spec(&name).await.map_err(explained);
        }
        match self.client.read_spec(&args.what).await {
            Ok(_) => Err(AgentError::Asked(format!(
                "quota {} is there already; set it without --create",
                args.what
            ))),
            Err(CentralError::NotThere { .. }) => {
                Ok(json!({"Name": args.what, "Description": "", "Limits": []}))
            }
            Err(error) => Err(explained(error)),
        }
    }

    /// Deletes a quota.
    pub async fn delete(&self, what: &str, consent: &Consent) -> Result<Listed, AgentError> {
        let quota = self.one(what).await?;
        if consent.is_open()? {
            let shown = self.shown(std::slice::from_ref(&quota), &[], &[]);
            consent.ask(&format!("Quota {} is deleted:\n{}", quota.name, shown.text))?;
        }
        self.client.delete(&quota.name).await.map_err(explained)?;
        Ok(Listed {
            text: format!("quota {} is deleted\n", quota.name),
            json: json!({"name": quota.name, "deleted": true}),
            notices: Vec::new(),
        })
    }

    /// A quota of this name, or those of an account of this name.
    async fn find(&self, what: &str) -> Result<Vec<ConcurrencyQuota>, AgentError> {
        match self.client.read(what).await {
            Ok(quota) => return Ok(vec![quota.value]),
            Err(CentralError::NotThere { .. } | CentralError::Unsendable { .. }) => {}
            Err(error) => return Err(explained(error)),
        }
        let mut quotas = self.client.list(&self.nomad.prefix).await.map_err(explained)?.value.value;
        quotas.retain(|quota| self.account(&quota.name).is_some_and(|account| account.as_str() == what));
        Ok(quotas)
    }

    async fn one(&self, what: &str) -> Result<ConcurrencyQuota, AgentError> {
        only(self.source, what, self.find(what).await?, |quota| quota.name.clone())
    }

    fn shown(&self, quotas: &[ConcurrencyQuota], usages: &[ConcurrencyUsage], notices: &[Notice]) -> Listed {
        let usage_of = |name: &str| usages.iter().find(|usage| usage.name == name);
        let mut rows = Vec::new();
        for quota in quotas {
            for (region, limit) in &quota.regions {
                let used = usage_of(&quota.name).and_then(|usage| usage.regions.get(region));
                let is_here = *region == self.nomad.map.region;
                let account = view::account(self.account(&quota.name).filter(|_| is_here));
                let place =
                    |pool: &str| vec![quota.name.clone(), region.clone(), pool.to_owned(), account.clone()];
                rows.push([place("-"), cells(&limit.all, used.map(|used| &used.all))].concat());
                for (pool, limit) in &limit.node_pools {
                    let used = used.and_then(|used| used.node_pools.get(pool));
                    rows.push([place(pool), cells(limit, used)].concat());
                }
            }
        }
        let header = ["Name", "Region", "Pool", "Account", "Cores", "CPU", "Memory", "Devices"];
        let json = quotas.iter().map(|quota| {
            let mut shown = view::json_of(quota, self.account(&quota.name));
            let used = usage_of(&quota.name).map(|usage| view::json_of(usage, None));
            shown["used"] = used.map_or(Value::Null, |used| used["regions"].clone());
            shown
        });
        let unit = ", in use / limit at one time, CPU in MHz, memory in MiB";
        Listed::of(self.source, unit, &render::table("", &header, rows), json.collect(), notices)
    }
}

/// Cores, CPU, memory and devices: in use / limit.
fn cells(limit: &Capacity, used: Option<&Capacity>) -> Vec<String> {
    let cell = |used: Option<Bound>, limit: Bound| {
        let used = used.map_or_else(|| "-".to_owned(), view::bound);
        format!("{used}/{}", view::bound(limit))
    };
    let devices: Vec<String> = limit
        .devices
        .iter()
        .map(|(name, count)| {
            let used = used.map(|used| used.devices.get(name).copied().unwrap_or(Bound::AtMost(Exact::ZERO)));
            format!("{name} {}", cell(used, *count))
        })
        .collect();
    vec![
        cell(used.map(|used| used.cores), limit.cores),
        cell(used.map(|used| used.cpu_mhz), limit.cpu_mhz),
        cell(used.map(|used| used.memory_mb), limit.memory_mb),
        if devices.is_empty() { "-".to_owned() } else { devices.join(", ") },
    ]
}

/// The specification with what is given, and each field as it was and will be.
fn edited(before: &Value, args: &SetArgs, region: &str) -> (Value, Vec<(String, String, String)>) {
    let mut after = before.clone();
    let mut rows = Vec::new();
    if let Some(text) = &args.description {
        rows.push((
            "Description".to_owned(),
            before["Description"].as_str().unwrap_or_default().to_owned(),
            text.clone(),
        ));
        after["Description"] = json!(text);
    }
    let amounts = [("Cores", args.cores), ("CPU", args.cpu), ("MemoryMB", args.memory)];
    if amounts.iter().all(|(_, amount)| amount.is_none()) && args.device.is_empty() {
        return (after, rows);
    }
    let limit = region_limit(&mut after, region);
    for (field, amount) in amounts {
        let Some(amount) = amount else { continue };
        let now = limit.get(field).and_then(Value::as_i64).unwrap_or(UNLIMITED);
        let then = written(amount);
        rows.push((field.to_owned(), spoken(now), spoken(then)));
        limit.insert(field.to_owned(), json!(then));
    }
    for (name, count) in &args.device {
        let mut devices = limit.get("Devices").and_then(Value::as_array).cloned().unwrap_or_default();
        let present = devices.iter().position(|device| device["Name"] == json!(name));
        let now = present.and_then(|at| devices[at]["Count"].as_i64()).unwrap_or(UNLIMITED);
        match (present, count) {
            (Some(at), Some(count)) => devices[at]["Count"] = json!(count),
            (Some(at), None) => drop(devices.remove(at)),
            (None, Some(count)) => devices.push(json!({"Name": name, "Count": count})),
            (None, None) => {}
        }
        let then = count.map_or_else(|| spoken(UNLIMITED), |count| count.to_string());
        rows.push((format!("device {name}"), spoken(now), then));
        limit.insert("Devices".to_owned(), Value::Array(devices));
    }
    (after, rows)
}

/// The amounts of a region in a specification, made where there are none.
fn region_limit<'a>(spec: &'a mut Value, region: &str) -> &'a mut Map<String, Value> {
    if !spec["Limits"].is_array() {
        spec["Limits"] = json!([]);
    }
    let limits = spec["Limits"].as_array_mut().expect("it was made a list");
    let at = limits.iter().position(|limit| limit["Region"] == json!(region)).unwrap_or_else(|| {
        limits.push(json!({"Region": region}));
        limits.len() - 1
    });
    let limit = &mut limits[at]["RegionLimit"];
    if !limit.is_object() {
        *limit = json!({});
    }
    limit.as_object_mut().expect("it was made an object")
}

fn written(amount: Bound) -> i64 {
    match amount {
        Bound::Unlimited => UNLIMITED,
        Bound::AtMost(most) if most == Exact::ZERO => NOTHING,
        Bound::AtMost(most) => i64::try_from(most.floor()).unwrap_or(i64::MAX),
    }
}

fn spoken(number: i64) -> String {
    match number {
        UNLIMITED => "unlimited".to_owned(),
        ..=NOTHING => "none".to_owned(),
        number => number.to_string(),
    }
}
