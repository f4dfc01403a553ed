//! What the emulated AMIE service knows, and how records get from the queue to the accounting database.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::clock::saturating_add;
use super::records::{Charge, UsageType, text};

/// State of the AMIE service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmieState {
    pub settings: AmieSettings,
    pub sites: Vec<AmieSite>,
    pub projects: Vec<AmieProject>,
    /// Accepted and not yet processed, oldest first.
    pub queue: Vec<QueuedRecord>,
    pub loaded: Vec<LoadedRecord>,
    pub failed: Vec<FailedRecord>,
    /// Ids given to loaded and failed records so far.
    pub ids_issued: u64,
    /// Where each loaded record is, so that long histories stay quick; none when `loaded` may have been changed by
    /// anything but loading.
    #[serde(skip)]
    index: Option<HashMap<Key, usize>>,
}

/// How the service behaves where deployments differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmieSettings {
    /// When accepted records are loaded.
    pub processing: Processing,
    /// Largest message in bytes. Documented are 1024 KiB; the newer guide speaks of 256 KB.
    pub body_bytes_max: usize,
    /// Most records of a message.
    pub records_max: usize,
    /// Status of an accepted message: 200, at some deployments 202.
    pub accepted_status: u16,
    /// Under which name failed records are listed.
    pub failed_list: FailedList,
    /// Records are the same only when their SubmitTime is the same too.
    pub submit_time_in_key: bool,
}

impl Default for AmieSettings {
    fn default() -> Self {
        Self {
            processing: Processing::Immediately,
            body_bytes_max: 1024 * 1024,
            records_max: usize::MAX,
            accepted_status: 200,
            failed_list: FailedList::FailedRecords,
            submit_time_in_key: false,
        }
    }
}

/// When accepted records are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processing {
    /// Before the answer goes out.
    #[default]
    Immediately,
    /// So many seconds of the emulated clock later.
    AfterS(i64),
    /// At the start of the n-th following request of any kind.
    AfterRequests(u32),
    /// Never, until the setting is changed.
    Held,
}

/// The two spellings of the list of failed records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedList {
    #[default]
    FailedRecords,
    ValidationFailedRecords,
}

impl FailedList {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailedRecords => "FailedRecords",
            Self::ValidationFailedRecords => "ValidationFailedRecords",
        }
    }
}

/// A site with its key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmieSite {
    pub name: String,
    pub api_key: String,
    /// Resources of the site; empty means any name.
    pub resources: Vec<String>,
}

/// A project the site got from AMIE.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmieProject {
    pub local_project_id: String,
    /// Users of the project; empty means any name.
    pub users: Vec<String>,
    /// Resources with an allocation of the project; empty means any.
    pub resources: Vec<String>,
}

/// A record that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuedRecord {
    pub site: String,
    pub usage_type: UsageType,
    pub record: Map<String, Value>,
    pub received_at: Timestamp,
    /// Requests since it was received.
    pub requests: u32,
}

/// A record in the accounting database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedRecord {
    pub id: u64,
    pub site: String,
    pub usage_type: UsageType,
    pub record: Map<String, Value>,
    pub loaded_at: Timestamp,
    /// How often it was loaded; more than once means it was replaced.
    pub loads: u32,
}

impl LoadedRecord {
    /// The site's own id of the record.
    pub fn local_record_id(&self) -> &str {
        text(&self.record, "LocalRecordID")
    }

    /// The resource it is charged on.
    pub fn resource(&self) -> &str {
        text(&self.record, "Resource")
    }

    /// The project it is charged to.
    pub fn local_project_id(&self) -> &str {
        text(&self.record, "LocalProjectID")
    }

    /// The charge as it was sent, decimal text.
    pub fn charge(&self) -> &str {
        text(&self.record, "Charge")
    }
}

/// A record that could not be loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedRecord {
    pub id: u64,
    pub site: String,
    pub usage_type: UsageType,
    pub record: Map<String, Value>,
    pub error: String,
    pub failed_at: Timestamp,
}

impl AmieState {
    pub(super) fn enqueue(
        &mut self,
        site: &str,
        usage_type: UsageType,
        record: Map<String, Value>,
        now: Timestamp,
    ) {
        let site = site.to_owned();
        self.queue.push(QueuedRecord { site, usage_type, record, received_at: now, requests: 0 });
    }

    /// Counts one request and loads what is due.
    pub(super) fn process(&mut self, now: Timestamp) {
        for waiting in &mut self.queue {
            waiting.requests = waiting.requests.saturating_add(1);
        }
        self.load_due(now);
    }

    /// Loads what is due without counting a request.
    pub(in super::super) fn load_due(&mut self, now: Timestamp) {
        let processing = self.settings.processing;
        let due = |waiting: &QueuedRecord| match processing {
            Processing::Immediately => true,
            Processing::AfterS(seconds) => saturating_add(waiting.received_at, seconds) <= now,
            Processing::AfterRequests(requests) => waiting.requests >= requests,
            Processing::Held => false,
        };
        let (ready, waiting) = std::mem::take(&mut self.queue).into_iter().partition(due);
        self.queue = waiting;
        let ready: Vec<QueuedRecord> = ready;
        if ready.is_empty() {
            return;
        }
        let mut index = self.index.take().unwrap_or_else(|| self.index_of_loaded());
        for record in ready {
            self.load(record, now, &mut index);
        }
        self.index = Some(index);
    }

    /// Lets the next load look at every loaded record again.
    pub(in super::super) fn forget_index(&mut self) {
        self.index = None;
    }

    fn index_of_loaded(&self) -> HashMap<Key, usize> {
        let key = |row: &LoadedRecord| self.key(&row.site, row.usage_type, &row.record);
        self.loaded.iter().enumerate().map(|(at, row)| (key(row), at)).collect()
    }

    fn load(&mut self, queued: QueuedRecord, now: Timestamp, index: &mut HashMap<Key, usize>) {
        self.ids_issued += 1;
        let id = self.ids_issued;
        let QueuedRecord { site, usage_type, record, .. } = queued;
        if let Err(error) = self.check(&site, &record) {
            self.failed.push(FailedRecord { id, site, usage_type, record, error, failed_at: now });
            return;
        }
        let key = self.key(&site, usage_type, &record);
        if let Some(at) = index.get(&key).copied() {
            let row = &mut self.loaded[at];
            row.record = record;
            row.loaded_at = now;
            row.loads += 1;
            return;
        }
        index.insert(key, self.loaded.len());
        self.loaded.push(LoadedRecord { id, site, usage_type, record, loaded_at: now, loads: 1 });
    }

    /// What the accounting database knows of resources, projects and users.
    fn check(&self, site: &str, record: &Map<String, Value>) -> Result<(), String> {
        let resource = text(record, "Resource");
        let project_id = text(record, "LocalProjectID");
        let username = text(record, "Username");
        let allowed =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
        let resources = self
            .sites
            .iter()
            .find(|known| known.name == site)
            .map(|s| s.resources.as_slice())
            .unwrap_or_default();
        if !allowed(resources, resource) {
            return Err(format!("Unknown resource {resource}"));
        }
        let Some(project) = self.projects.iter().find(|project| project.local_project_id == project_id)
        else {
            return Err(format!("Unknown project {project_id} on resource {resource}"));
        };
        if !allowed(&project.resources, resource) {
            return Err(format!("No allocation for project {project_id} on resource {resource}"));
        }
        if !allowed(&project.users, username) {
            return Err(format!("Unknown user {username} on project {project_id}"));
        }
        Ok(())
    }

    fn key(&self, site: &str, usage_type: UsageType, record: &Map<String, Value>) -> Key {
        let submitted = if self.settings.submit_time_in_key {
            text(record, "SubmitTime").to_owned()
        } else {
            String::new()
        };
        let resource = text(record, "Resource").to_owned();
        let id = text(record, "LocalRecordID").to_owned();
        (site.to_owned(), resource, usage_type.name(), id, submitted)
    }

    /// Counts per resource of what was loaded or failed within a span.
    pub(super) fn status(&self, site: &str, inside: impl Fn(Timestamp) -> bool) -> Value {
        let mut resources: BTreeMap<&str, ResourceStatus<'_>> = BTreeMap::new();
        for row in self.loaded.iter().filter(|row| row.site == site && inside(row.loaded_at)) {
            let status = resources.entry(row.resource()).or_default();
            status.loaded += 1;
            status.charge = status.charge.plus(&Charge::parse(row.charge()).unwrap_or_default());
        }
        for row in self.failed.iter().filter(|row| row.site == site && inside(row.failed_at)) {
            resources.entry(text(&row.record, "Resource")).or_default().failed.push(row);
        }
        resources.into_iter().map(|(resource, status)| status.wire(resource)).collect()
    }
}

/// What makes a record the same as another: site, resource, kind, own id, and SubmitTime where asked.
type Key = (String, String, &'static str, String, String);

#[derive(Default)]
struct ResourceStatus<'a> {
    loaded: u64,
    charge: Charge,
    failed: Vec<&'a FailedRecord>,
}

impl ResourceStatus<'_> {
    fn wire(&self, resource: &str) -> Value {
        let mut errors: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
        for row in &self.failed {
            let mut record = Value::Object(row.record.clone());
            // The public client reads the kind from the records themselves.
            record["UsageType"] = json!(row.usage_type.name());
            errors.entry((&row.error, row.usage_type.name())).or_default().push(record);
        }
        let errors: Vec<Value> = errors
            .into_iter()
            .map(|((error, kind), records)| json!({"Error": error, "UsageType": kind, "Records": records}))
            .collect();
        json!({
            "Resource": resource,
            "LoadedRecordCount": self.loaded,
            "FailedJobCount": self.failed.len(),
            "TotalCharge": self.charge.to_string(),
            "Errors": errors,
        })
    }
}
