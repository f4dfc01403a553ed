//! Completing a state written by hand: ids for names, references, times, texts; and the contradictions in it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::clock::day_of;
use super::state::{CentralState, Offering, named};
use super::waldur::{commands, quotas};

impl CentralState {
    /// Fills what a hand-written seed left out and turns names into ids. Repeating it changes nothing.
    ///
    /// # Errors
    /// A sentence naming the object that contradicts another or refers to nothing.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        if self.offerings.is_empty() {
            self.offerings.push(Offering::default());
        }
        self.settle_ids()?;
        self.settle_references()?;
        self.settle_times();
        self.settle_commands()?;
        self.settle_usages()?;
        quotas::settle(self)?;
        self.nomad.settle()?;
        self.datarobot.settle()?;
        commands::mark_seeded_as_issued(self);
        Ok(())
    }

    fn settle_ids(&mut self) -> Result<(), String> {
        for offering in &mut self.offerings {
            name_uuid(&mut offering.uuid, &offering.name);
        }
        for resource in &mut self.resources {
            if resource.name.is_empty() {
                resource.name.clone_from(&resource.backend_id);
            }
            if resource.name.is_empty() {
                return Err("a resource has neither name nor backend_id".to_owned());
            }
            if resource.backend_id.is_empty() {
                resource.backend_id.clone_from(&resource.name);
            }
            name_uuid(&mut resource.uuid, &resource.name);
        }
        let first = self.offerings[0].uuid;
        for offering in self.policies.iter_mut().map(|policy| &mut policy.offering) {
            default_uuid(offering, first);
        }
        for offering in self.resources.iter_mut().map(|resource| &mut resource.offering) {
            default_uuid(offering, first);
        }
        let mut seen = BTreeSet::new();
        for user in &self.users {
            if user.token.is_empty() || !seen.insert(&user.token) {
                return Err(format!("user {:?} needs a token of its own", user.username));
            }
        }
        Ok(())
    }

    fn settle_references(&mut self) -> Result<(), String> {
        let offerings: BTreeMap<Uuid, Uuid> =
            self.offerings.iter().map(|offering| (named(&offering.name), offering.uuid)).collect();
        let resources: BTreeMap<Uuid, Uuid> = self
            .resources
            .iter()
            .flat_map(|r| [(named(&r.name), r.uuid), (named(&r.backend_id), r.uuid)])
            .collect();
        let known_offerings: BTreeSet<Uuid> = self.offerings.iter().map(|offering| offering.uuid).collect();
        let known_resources: BTreeSet<Uuid> = self.resources.iter().map(|resource| resource.uuid).collect();
        for policy in &mut self.policies {
            resolve(&mut policy.offering, &offerings, &known_offerings, "a policy refers to an offering")?;
            if policy.uuid.is_nil() {
                policy.uuid = named(&format!("policy of {}", policy.offering));
            }
        }
        let mut scopes = BTreeSet::new();
        for policy in &self.policies {
            if !scopes.insert(policy.offering) {
                return Err(format!("offering {} has more than one policy", policy.offering));
            }
        }
        for resource in &mut self.resources {
            let what = format!("resource {} refers to an offering", resource.name);
            resolve(&mut resource.offering, &offerings, &known_offerings, &what)?;
        }
        for command in &mut self.commands {
            let what = format!("a {} command refers to a resource", command.command_type);
            resolve(&mut command.resource, &resources, &known_resources, &what)?;
        }
        for usage in &mut self.component_usages {
            let what = format!("a {} usage refers to a resource", usage.kind);
            resolve(&mut usage.resource, &resources, &known_resources, &what)?;
        }
        for log in &mut self.evaluation_logs {
            resolve(
                &mut log.resource,
                &resources,
                &known_resources,
                "an evaluation log refers to a resource",
            )?;
        }
        Ok(())
    }

    fn settle_times(&mut self) {
        let now = self.now();
        for created in self.policies.iter_mut().map(|policy| &mut policy.created) {
            created.get_or_insert(now);
        }
        for created in self.resources.iter_mut().map(|resource| &mut resource.created) {
            created.get_or_insert(now);
        }
        for evaluated_at in self.evaluation_logs.iter_mut().map(|log| &mut log.evaluated_at) {
            evaluated_at.get_or_insert(now);
        }
        self.synced_at.get_or_insert(now);
    }

    fn settle_commands(&mut self) -> Result<(), String> {
        let now = self.now();
        for index in 0..self.commands.len() {
            let resource = self.commands[index].resource;
            let (account, offering) = match self.resource(resource) {
                Some(resource) => (resource.account().to_owned(), resource.offering),
                None => continue,
            };
            if self.commands[index].policy.is_nil() {
                let policy = self.policy_of_offering(offering).map(|policy| policy.uuid);
                self.commands[index].policy =
                    policy.ok_or_else(|| format!("a command for {account} has no policy to belong to"))?;
            }
            if self.commands[index].uuid.is_nil() {
                self.commands[index].uuid = self.next_uuid();
            }
            let policy = self.commands[index].policy;
            let period = self.policy(policy).map(|policy| commands::current_period(self, policy).to_string());
            let command = &mut self.commands[index];
            command.executed_at.get_or_insert(now);
            if command.billing_period.is_empty() {
                command.billing_period = period.unwrap_or_default();
            }
            commands::complete_text(command, &account);
        }
        self.settle_logs()
    }

    fn settle_logs(&mut self) -> Result<(), String> {
        for index in 0..self.evaluation_logs.len() {
            if self.evaluation_logs[index].uuid.is_nil() {
                self.evaluation_logs[index].uuid = self.next_uuid();
            }
            if self.evaluation_logs[index].policy.is_nil() {
                let resource = self.resource(self.evaluation_logs[index].resource);
                let policy = resource.and_then(|resource| self.policy_of_offering(resource.offering));
                let policy = policy.ok_or("an evaluation log has no policy to belong to")?.uuid;
                self.evaluation_logs[index].policy = policy;
            }
        }
        Ok(())
    }

    fn settle_usages(&mut self) -> Result<(), String> {
        let now = self.now();
        for index in 0..self.component_usages.len() {
            if self.component_usages[index].uuid.is_nil() {
                self.component_usages[index].uuid = self.next_uuid();
            }
            let usage = &mut self.component_usages[index];
            let day = usage.date.map_or(day_of(now), day_of);
            usage.billing_period.get_or_insert(day.first_of_month());
            usage.date.get_or_insert(now);
            usage.created.get_or_insert(now);
        }
        let mut seen = BTreeSet::new();
        for usage in &self.component_usages {
            if !seen.insert((usage.resource, &usage.kind, usage.billing_period)) {
                return Err(format!("two {} usages of one resource in one month", usage.kind));
            }
        }
        for index in 0..self.user_usages.len() {
            if self.user_usages[index].uuid.is_nil() {
                self.user_usages[index].uuid = self.next_uuid();
            }
        }
        let this_month = day_of(now).first_of_month();
        for usage in &self.component_usages {
            if usage.billing_period == Some(this_month)
                && let Some(resource) = self.resources.iter_mut().find(|r| r.uuid == usage.resource)
            {
                resource.current_usages.entry(usage.kind.clone()).or_insert(usage.usage);
            }
        }
        Ok(())
    }
}

fn name_uuid(uuid: &mut Uuid, name: &str) {
    if uuid.is_nil() {
        *uuid = named(name);
    }
}

fn default_uuid(uuid: &mut Uuid, default: Uuid) {
    if uuid.is_nil() {
        *uuid = default;
    }
}

fn resolve(
    uuid: &mut Uuid,
    aliases: &BTreeMap<Uuid, Uuid>,
    known: &BTreeSet<Uuid>,
    what: &str,
) -> Result<(), String> {
    if let Some(meant) = aliases.get(uuid) {
        *uuid = *meant;
    }
    if known.contains(uuid) { Ok(()) } else { Err(format!("{what} that is not there ({uuid})")) }
}
