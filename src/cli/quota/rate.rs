//! DataRobot's quotas and templates.

use serde_json::json;

use super::amounts::{consumer_text, rule_text, rule_word};
use super::view::{self, Listed};
use super::{AgentError, Consent, SetArgs, Source, explained, moved, only, unchanged};
use crate::central::Notice;
use crate::central::datarobot::{DataRobotClient, QuotaChange, QuotasOf};
use crate::cli::render;
use crate::core::exact::Exact;
use crate::core::name::AccountName;
use crate::core::quota::{CapacityUnits, Consumer, ConsumerPolicy, QuotaTemplate, RateQuota, Rule, RuleKind};
use crate::core::quota_map::RateMap;

/// The quotas of a source of kind datarobot.
pub struct Rates<'a> {
    /// The source.
    pub source: &'a Source,
    /// Its client.
    pub client: &'a DataRobotClient,
    /// What its words mean.
    pub map: &'a RateMap,
}

impl Rates<'_> {
    fn account(&self, quota: &RateQuota) -> Option<&AccountName> {
        self.map.resources.get(&quota.resource_id)
    }

    /// Quotas of accounts of this cluster, or all.
    pub async fn list(&self, all: bool) -> Result<Listed, AgentError> {
        let listed = self.client.list(QuotasOf::Everything).await.map_err(explained)?;
        let mut quotas = listed.value;
        quotas.retain(|quota| all || self.account(quota).is_some());
        Ok(self.shown(&quotas, &listed.notices))
    }

    /// The quotas that are meant.
    pub async fn show(&self, what: &str) -> Result<Listed, AgentError> {
        let found = self.find(what).await?;
        if found.is_empty() {
            return Err(super::nothing(self.source.name.as_str(), what));
        }
        Ok(self.shown(&found, &[]))
    }

    /// Changes rules, policies and saturation.
    pub async fn set(&self, args: &SetArgs) -> Result<Listed, AgentError> {
        args.check(self.source)?;
        let quota = self.one(&args.what).await?;
        let change = edited(&quota, args)?;
        let then = RateQuota {
            default_rules: change.default_rules.clone().unwrap_or_else(|| quota.default_rules.clone()),
            policies: change.policies.clone().unwrap_or_else(|| quota.policies.clone()),
            saturation_threshold: change.saturation_threshold.unwrap_or(quota.saturation_threshold),
            ..quota.clone()
        };
        self.make(&quota, &then, &args.consent, async |id| self.client.change(id, &change).await).await
    }

    /// Gives the default rules of a template to a quota.
    pub async fn apply(&self, template: &str, what: &str, consent: &Consent) -> Result<Listed, AgentError> {
        let template = self.template(template).await?;
        let quota = self.one(what).await?;
        let then = RateQuota { default_rules: template.rules.clone(), ..quota.clone() };
        let resource = quota.resource_id.clone();
        self.make(&quota, &then, consent, async |_| self.client.apply_template(&template.id, &resource).await)
            .await
    }

    /// Shows the change, asks, makes it, shows what came of it.
    async fn make(
        &self,
        quota: &RateQuota,
        then: &RateQuota,
        consent: &Consent,
        write: impl AsyncFnOnce(&str) -> Result<RateQuota, crate::central::CentralError>,
    ) -> Result<Listed, AgentError> {
        let account = self.account(quota);
        let title = format!(
            "quota {} (resource {}, account {})",
            quota.id,
            quota.resource_id,
            view::account(account)
        );
        let Some(changes) = view::changes(differences(quota, then)) else {
            return Ok(unchanged(&title, view::json_of(quota, account)));
        };
        if consent.is_open()? {
            consent.ask(&format!("{title} at source {}:\n{changes}", self.source.name))?;
            if self.client.read(&quota.id).await.map_err(explained)? != *quota {
                return Err(moved(&title));
            }
        }
        let written = write(&quota.id).await.map_err(explained)?;
        let shown = self.shown(std::slice::from_ref(&written), &[]);
        Ok(Listed { json: view::json_of(&written, account), ..shown })
    }

    /// Deletes a quota.
    pub async fn delete(&self, what: &str, consent: &Consent) -> Result<Listed, AgentError> {
        let quota = self.one(what).await?;
        if consent.is_open()? {
            let shown = self.shown(std::slice::from_ref(&quota), &[]);
            consent.ask(&format!("Quota {} is deleted:\n{}", quota.id, shown.text))?;
        }
        self.client.delete(&quota.id).await.map_err(explained)?;
        Ok(Listed {
            text: format!("quota {} is deleted\n", quota.id),
            json: json!({"id": quota.id, "deleted": true}),
            notices: Vec::new(),
        })
    }

    /// The templates, or one.
    pub async fn templates(&self, template: Option<&str>) -> Result<Listed, AgentError> {
        let (templates, notices) = match template {
            Some(template) => (vec![self.template(template).await?], Vec::new()),
            None => {
                let listed = self.client.list_templates().await.map_err(explained)?;
                (listed.value, listed.notices)
            }
        };
        let row = |template: &QuotaTemplate| {
            vec![template.id.clone(), template.name.clone(), rules_text(&template.rules)]
        };
        let table = render::table("", &["ID", "Name", "Rules"], templates.iter().map(row).collect());
        let mut listed = Listed::of(self.source, ", templates", &table, Vec::new(), &notices);
        listed.json = json!({"source": self.source.name, "templates": templates, "notices": listed.notices});
        Ok(listed)
    }

    /// The template of an id or a name.
    async fn template(&self, wanted: &str) -> Result<QuotaTemplate, AgentError> {
        let listed = self.client.list_templates().await.map_err(explained)?.value;
        let names: Vec<String> = listed.iter().map(|template| template.name.clone()).collect();
        let mut found: Vec<QuotaTemplate> =
            listed.into_iter().filter(|template| template.id == wanted || template.name == wanted).collect();
        match (found.pop(), found.is_empty()) {
            (Some(template), true) => Ok(template),
            (Some(_), false) => {
                Err(AgentError::Asked(format!("several templates are named {wanted}; give the id")))
            }
            (None, _) => Err(AgentError::Asked(format!(
                "source {} has no template {wanted:?}; it has {}",
                self.source.name,
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ))),
        }
    }

    /// A quota of this id, or those of a resource or an account of this name.
    async fn find(&self, what: &str) -> Result<Vec<RateQuota>, AgentError> {
        let mut quotas = self.client.list(QuotasOf::Everything).await.map_err(explained)?.value;
        quotas.retain(|quota| {
            quota.id == what
                || quota.resource_id == what
                || self.account(quota).is_some_and(|account| account.as_str() == what)
        });
        Ok(quotas)
    }

    async fn one(&self, what: &str) -> Result<RateQuota, AgentError> {
        only(self.source, what, self.find(what).await?, |quota| quota.id.clone())
    }

    fn shown(&self, quotas: &[RateQuota], notices: &[Notice]) -> Listed {
        let mut rows = Vec::new();
        for quota in quotas {
            let place =
                || vec![quota.id.clone(), quota.resource_id.clone(), view::account(self.account(quota))];
            let capacity = quota.capacity.map_or_else(
                || "-".to_owned(),
                |capacity| format!("{} {}", capacity.capacity, units_word(capacity.units)),
            );
            rows.push(
                [
                    place(),
                    vec!["default".to_owned(), "-".to_owned(), rules_text(&quota.default_rules)],
                    vec![capacity, share_text(quota.saturation_threshold)],
                ]
                .concat(),
            );
            for policy in &quota.policies {
                let consumer = consumer_text(&policy.consumer);
                let own = vec![consumer, share_text(policy.reserved), rules_text(&policy.rules)];
                rows.push([place(), own, vec!["-".to_owned(), "-".to_owned()]].concat());
            }
        }
        let header = ["ID", "Resource", "Account", "Consumer", "Reserved", "Rules", "Capacity", "Saturation"];
        let json = quotas.iter().map(|quota| view::json_of(quota, self.account(quota))).collect();
        Listed::of(self.source, "", &render::table("", &header, rows), json, notices)
    }
}

/// The word of what a capacity is counted in.
pub fn units_word(units: CapacityUnits) -> &'static str {
    match units {
        CapacityUnits::Requests => "requests",
        CapacityUnits::Token => "token",
    }
}

fn rules_text(rules: &[Rule]) -> String {
    if rules.is_empty() {
        return "-".to_owned();
    }
    rules.iter().map(rule_text).collect::<Vec<_>>().join(", ")
}

fn share_text(share: Option<Exact>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| share.to_string())
}

/// Each part of a quota as it is and as it will be.
fn differences(now: &RateQuota, then: &RateQuota) -> Vec<(String, String, String)> {
    let mut rows = vec![
        ("default rules".to_owned(), rules_text(&now.default_rules), rules_text(&then.default_rules)),
        (
            "saturation".to_owned(),
            share_text(now.saturation_threshold),
            share_text(then.saturation_threshold),
        ),
    ];
    let all = now.policies.iter().chain(&then.policies).map(|policy| &policy.consumer);
    let mut consumers: Vec<&Consumer> = all.collect();
    consumers.sort_unstable();
    consumers.dedup();
    for consumer in consumers {
        let policy =
            |quota: &RateQuota| quota.policies.iter().find(|policy| policy.consumer == *consumer).cloned();
        let (now, then) = (policy(now), policy(then));
        let rules = |policy: &Option<ConsumerPolicy>| {
            policy.as_ref().map_or_else(|| "the default ones".to_owned(), |policy| rules_text(&policy.rules))
        };
        let reserved = |policy: &Option<ConsumerPolicy>| share_text(policy.as_ref().and_then(|p| p.reserved));
        let name = consumer_text(consumer);
        rows.push((format!("rules of {name}"), rules(&now), rules(&then)));
        rows.push((format!("reserved for {name}"), reserved(&now), reserved(&then)));
    }
    rows
}

/// What is to be sent for what was asked.
fn edited(quota: &RateQuota, args: &SetArgs) -> Result<QuotaChange, AgentError> {
    let mut change =
        QuotaChange { saturation_threshold: args.saturation.map(|share| share.0), ..QuotaChange::default() };
    let Some(consumer) = &args.consumer else {
        if !args.rule.is_empty() || !args.no_rule.is_empty() {
            change.default_rules = Some(with_rules(&quota.default_rules, args)?);
        }
        return Ok(change);
    };
    let mut policies = quota.policies.clone();
    let present = policies.iter().position(|policy| policy.consumer == *consumer);
    if args.no_policy {
        let none = || AgentError::Asked(format!("{} has no rules of its own", consumer_text(consumer)));
        policies.remove(present.ok_or_else(none)?);
    } else {
        let at = present.unwrap_or_else(|| {
            policies.push(ConsumerPolicy {
                consumer: consumer.clone(),
                name: None,
                reserved: None,
                rules: quota.default_rules.clone(),
            });
            policies.len() - 1
        });
        policies[at].rules = with_rules(&policies[at].rules, args)?;
        policies[at].reserved = args.reserved.map_or(policies[at].reserved, |share| share.0);
    }
    change.policies = Some(policies);
    Ok(change)
}

/// Rules without those that go and with those that are set, each in its old place.
fn with_rules(rules: &[Rule], args: &SetArgs) -> Result<Vec<Rule>, AgentError> {
    let mut rules = rules.to_vec();
    for name in &args.no_rule {
        let before = rules.len();
        rules.retain(|rule| !name.fits(rule));
        if rules.len() == before {
            return Err(AgentError::Asked(format!("there is no rule {} to take away", rule_word(name.kind))));
        }
    }
    for rule in &args.rule {
        // Rules without a window are told apart by their kind alone, whatever window the server shows for them.
        let windowless = matches!(rule.kind, RuleKind::ConcurrentRequests | RuleKind::InputSequenceLength);
        let same = |other: &Rule| other.kind == rule.kind && (windowless || other.window == rule.window);
        match rules.iter_mut().find(|other| same(other)) {
            Some(present) => present.limit = rule.limit,
            None => rules.push(*rule),
        }
    }
    Ok(rules)
}
