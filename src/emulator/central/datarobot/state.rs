//! What the emulated DataRobot knows: quotas of resources, and templates of rules. Field names are DataRobot's own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::state::named;

/// Digits of an id: those of a MongoDB ObjectId.
const ID_DIGITS: usize = 24;

/// State of the DataRobot server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRobotState {
    /// Who may do what; without any nobody may do anything.
    pub tokens: Vec<DataRobotToken>,
    pub quotas: Vec<Quota>,
    #[serde(rename = "quotaTemplates")]
    pub quota_templates: Vec<QuotaTemplate>,
}

/// A bearer token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRobotToken {
    pub secret: String,
    /// Change and delete besides read.
    pub may_write: bool,
}

/// Rules on the consumers of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Quota {
    pub id: String,
    pub resource_id: String,
    pub resource_type: ResourceType,
    pub user_id: String,
    pub default_rules: Vec<Rule>,
    pub policies: Vec<Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    pub saturation_threshold: Option<f64>,
}

/// What a quota can be on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResourceType {
    #[default]
    Deployment,
}

/// How much a resource can do in a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    pub capacity: u64,
    /// `requests` or `token`.
    pub units: String,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `requests`, `token`, `concurrentRequests` or `inputSequenceLength`.
    pub rule: String,
    pub limit: u64,
    /// `min`, `hour` or `day`.
    #[serde(default = "minute")]
    pub window: String,
}

fn minute() -> String {
    "min".to_owned()
}

/// What replaces the default rules for one consumer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    pub consumer_id: String,
    pub consumer_name: Option<String>,
    /// `deployment`, `user` or `usergroup`.
    pub consumer_type: String,
    pub reserved: Option<f64>,
    pub rules: Vec<Rule>,
}

/// Rules under a name, for a person to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaTemplate {
    pub id: String,
    pub name: String,
    pub rules: Vec<Rule>,
}

impl DataRobotState {
    /// Completes ids that were left out. Repeating it changes nothing.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for quota in &mut self.quotas {
            if quota.resource_id.is_empty() {
                return Err("a DataRobot quota has no resourceId".to_owned());
            }
            complete(&mut quota.id, &format!("quota of {}", quota.resource_id));
            complete(&mut quota.user_id, "the user of quotas");
        }
        for template in &mut self.quota_templates {
            complete(&mut template.id, &format!("template {}", template.name));
        }
        let quotas = self.quotas.iter().map(|quota| &quota.id);
        let mut seen = BTreeSet::new();
        match quotas
            .chain(self.quota_templates.iter().map(|template| &template.id))
            .find(|id| !seen.insert(*id))
        {
            Some(twice) => Err(format!("two DataRobot quotas or templates with the id {twice}")),
            None => Ok(()),
        }
    }
}

fn complete(id: &mut String, of: &str) {
    if id.is_empty() {
        *id = named(of).simple().to_string()[..ID_DIGITS].to_owned();
    }
}
