//! Plays a scenario on one Slurm and writes down what was typed and what was answered.

use std::collections::BTreeMap;

use slurm_site_agent::agent::audit;
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::cli::evaluate_now::show;
use slurm_site_agent::core::name::AccountName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::core::tres::Tres;
use slurm_site_agent::emulator::central::{CentralState, Clock as CentralClock};

use crate::body::Body;
use crate::normal::{Call, Normal};
use crate::script::{Portal as PortalVerb, Script, Step, Verb};
use crate::support::{Portal, Site, TOKEN, read};

/// Offering of the portal that the agent serves.
const OFFERING: &str = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";

/// What a scenario left behind.
pub struct Played {
    /// What was typed and answered, normalised.
    pub transcript: String,
    /// Every run of a Slurm program, normalised.
    pub calls: Vec<String>,
}

/// A scenario on its way.
struct Play<'a> {
    body: &'a Body,
    script: &'a Script,
    now: Epoch,
    site: Option<Site>,
    portal: Option<Portal>,
    allocations: BTreeMap<String, Vec<String>>,
    sections: BTreeMap<String, Vec<String>>,
    reconfigured: bool,
    last: Option<CycleReport>,
    normal: Normal,
    transcript: String,
}

/// Plays all of it.
pub async fn play(script: &Script, body: &Body) -> Played {
    let mut play = Play {
        body,
        script,
        now: Epoch(0),
        site: None,
        portal: None,
        allocations: BTreeMap::new(),
        sections: BTreeMap::from([(
            "components".to_owned(),
            [
                r#"cpu={tres="cpu",unit="h"}"#,
                r#"mem={tres="mem",unit="GB-h"}"#,
                r#"gpu={tres="gres/gpu",unit="h"}"#,
            ]
            .map(str::to_owned)
            .into(),
        )]),
        reconfigured: false,
        last: None,
        normal: Normal::of(script),
        transcript: String::new(),
    };
    for step in &script.steps {
        for line in step.text.lines() {
            play.transcript.push_str(&format!("> {line}\n"));
        }
        let said = play.step(step).await;
        play.transcript.push_str(&said);
    }
    let mut normal = Normal::of(script);
    let calls = body.calls().iter().map(|call| normal.call(call)).collect();
    Played { transcript: play.transcript, calls }
}

impl Play<'_> {
    async fn step(&mut self, step: &Step) -> String {
        match &step.verb {
            Verb::Clock(at) => {
                self.set_clock(*at);
                String::new()
            }
            Verb::Account { name, parent, users } => {
                let account = [format!("name={name}"), "cluster=lab".into(), format!("parent={parent}")];
                self.sacctmgr(&["-i", "add", "account"], &account);
                let user = [format!("name={users}"), "cluster=lab".into(), format!("account={name}")];
                self.sacctmgr(&["-i", "add", "user"], &user);
                String::new()
            }
            Verb::Slurm { program, args } => {
                let env = [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")];
                let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
                let call = self.body.run(program, args, &BTreeMap::from(env));
                self.normal.answer(&call)
            }
            Verb::Submit { user, account, qos } => {
                let call = self.body.submit(user, account, qos.as_deref());
                self.normal.answer(&call)
            }
            Verb::Jobs(jobs) => {
                self.body.jobs(jobs);
                String::new()
            }
            Verb::Allocation { account, keys } => {
                match keys {
                    Some(keys) => self.allocations.insert(account.clone(), keys.clone()),
                    None => self.allocations.remove(account),
                };
                self.reconfigured = true;
                String::new()
            }
            Verb::Config { section, key } => {
                let keys = self.sections.entry(section.clone()).or_default();
                let name = key.split('=').next().unwrap_or_default();
                keys.retain(|known| known.split('=').next() != Some(name));
                keys.push(key.clone());
                self.reconfigured = true;
                String::new()
            }
            Verb::Portal(verb) => self.portal(verb).await,
            Verb::Cycle { deep, account } => self.cycle(*deep, account.as_deref()).await,
            Verb::ExpectQuiet => {
                let quiet = self.last.as_ref().is_some_and(CycleReport::is_quiet);
                let name = &self.script.name;
                assert!(quiet, "{name}: the last cycle was not quiet\n{}", self.transcript);
                String::new()
            }
            Verb::Ask => self.ask_everything().await,
            Verb::Rollup(from, until) => {
                self.body.rollup(*from, *until);
                String::new()
            }
            Verb::Audit(from, until) => self.audit(Window::new(*from, *until)).await,
        }
    }

    fn sacctmgr(&self, verb: &[&str], rest: &[String]) {
        let args: Vec<String> =
            verb.iter().map(|word| (*word).to_owned()).chain(rest.iter().cloned()).collect();
        let call = self.body.run("sacctmgr", &args, &BTreeMap::new());
        assert_eq!(call.status, 0, "{call:?}");
    }

    fn set_clock(&mut self, at: Epoch) {
        self.now = at;
        self.body.set_clock(at);
        if let Some(site) = &self.site {
            site.clock.set(at);
        }
        if let Some(portal) = &self.portal {
            portal.handle.with_state(|state| state.clock = central_clock(at));
        }
    }

    /// The configuration as it would be written.
    fn config(&self) -> String {
        let mut text =
            "[cluster]\nname = \"lab\"\ntime_zone = \"UTC\"\n[store]\npath = \"FOLDER/state.db\"\n"
                .to_owned();
        if let Some(portal) = &self.portal {
            text.push_str(&format!(
                "[[source]]\nname = \"portal\"\nkind = \"waldur-policy\"\nurl = \"{}api/\"\n\
                 token_file = \"FOLDER/token\"\noffering = \"{OFFERING}\"\n",
                portal.url
            ));
        }
        for (section, keys) in &self.sections {
            text.push_str(&format!("[{section}]\n{}\n", keys.join("\n")));
        }
        for (account, keys) in &self.allocations {
            text.push_str(&format!("[[allocation]]\naccount = \"{account}\"\n{}\n", keys.join("\n")));
        }
        text
    }

    /// The agent with the configuration as it is now.
    fn site(&mut self) -> &mut Site {
        let config = self.config();
        let (now, body) = (self.now, self.body);
        let reconfigured = std::mem::take(&mut self.reconfigured);
        let is_new = self.site.is_none();
        let site = self.site.get_or_insert_with(|| Site::new(&config, now, Some(body.runner())));
        if reconfigured && !is_new {
            let config = read(&config, site.folder.path());
            site.agent.reconfigure(config).expect("a configuration that works");
        }
        site
    }

    async fn cycle(&mut self, deep: bool, account: Option<&str>) -> String {
        let account = account.map(|name| AccountName::parse(name).expect("an account's name"));
        let ask = Ask { deep, account, ..Ask::default() };
        let site = self.site();
        let report = cycle(&mut site.agent, &ask).await.expect("the store works");
        let text = show(&report);
        self.last = Some(report);
        self.normal.report(&text.replace("\n\n", "\n"))
    }

    async fn audit(&mut self, window: Window) -> String {
        let now = self.now;
        let site = self.site();
        let drift = audit::compare(&mut site.agent, window, now).await.expect("sreport answers");
        let ours = drift.differences.iter().filter(|found| found.account.starts_with(&self.script.prefix));
        let mut text: String = ours
            .map(|found| {
                let tres = found.tres.as_str();
                format!(
                    "{} {} {tres}: ledger {}, sreport {}\n",
                    found.account, found.user, found.ledger, found.sreport
                )
            })
            .collect();
        if text.is_empty() {
            text.push_str("no drift\n");
        }
        text
    }

    /// Every question there is; what was run for it comes back normalised.
    async fn ask_everything(&mut self) -> String {
        let before = self.body.calls().len();
        let now = self.now;
        let slurm = self.site().agent.slurm.clone();
        let hour = Window::new(now.plus(-3600), now);
        let tres = [Tres::cpu(), Tres::mem(), Tres::billing(), Tres::parse("gres/gpu").expect("a TRES")];
        let jobs = slurm.collect(Window::new(now.plus(-40 * 86_400), now)).await.expect("sacct answers");
        slurm.suspended_before(&jobs.records, now.plus(-1800), now).await.expect("sacct -T answers");
        slurm.observe().await.expect("show assoc answers");
        slurm.qos().await.expect("show qos answers");
        slurm.tres().await.expect("show tres answers");
        slurm.clusters().await.expect("show cluster answers");
        for user in ["root", "alice", "nobody_here"] {
            slurm.admin_level(user).await.expect("show user answers");
        }
        slurm.versions().await.expect("--version answers");
        slurm.database_configuration().await.expect("show config answers");
        slurm.configuration().await.expect("scontrol show config answers");
        slurm.partitions().await.expect("show partition answers");
        slurm.ping().await.expect("ping answers");
        slurm.raw_usage().await.expect("sshare answers");
        slurm.account_utilization(hour, &tres).await.expect("sreport answers");
        let calls: Vec<Call> = self.body.calls().split_off(before);
        calls.iter().map(|call| self.normal.call(call)).collect()
    }

    async fn portal(&mut self, verb: &PortalVerb) -> String {
        if self.portal.is_none() {
            let state = serde_json::json!({
                "clock": {"fixed": instant(self.now)},
                "settings": {"evaluate_on_usage": false, "qos_commands": false},
                "users": [{"username": "site-agent", "token": TOKEN, "role": "staff"}],
                "offerings": [{"uuid": OFFERING, "name": "cluster"}],
            });
            let state: CentralState = serde_json::from_value(state).expect("a state");
            self.portal = Some(Portal::start(state).await);
            self.reconfigured = true;
        }
        let portal = self.portal.as_ref().expect("it was just started");
        match verb {
            PortalVerb::Tick => portal.handle.tick(),
            PortalVerb::Show => return portal.handle.with_state(|state| shown(state)),
            PortalVerb::Policy(body) => portal.handle.with_state(|state| state.policies = vec![part(body)]),
            PortalVerb::Settings(body) => portal.handle.with_state(|state| state.settings = part(body)),
            PortalVerb::Command(body) => portal.handle.with_state(|state| state.commands.push(part(body))),
            PortalVerb::Resource(body) => portal.handle.with_state(|state| {
                let new: slurm_site_agent::emulator::central::state::Resource = part(body);
                match state.resources.iter_mut().find(|known| known.name == new.name) {
                    Some(known) => {
                        known.limits = new.limits;
                        known.state = new.state;
                        known.paused = new.paused;
                        known.downscaled = new.downscaled;
                    }
                    None => state.resources.push(new),
                }
            }),
        }
        String::new()
    }
}

fn part<T: serde::de::DeserializeOwned>(body: &serde_json::Value) -> T {
    serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn instant(at: Epoch) -> String {
    at.to_string()
}

fn central_clock(at: Epoch) -> CentralClock {
    CentralClock::Fixed(jiff::Timestamp::from_second(at.0).expect("an instant"))
}

/// What the portal knows, without ids.
fn shown(state: &CentralState) -> String {
    let mut text = String::new();
    let account = |uuid| state.resource(uuid).map_or("?", |resource| resource.account());
    for command in &state.commands {
        text.push_str(&format!(
            "command {} of {}: {} {}\n",
            command.command_type,
            account(command.resource),
            if command.success { "success" } else { "failed" },
            command.error_message
        ));
    }
    for result in &state.results {
        text.push_str(&format!(
            "result for {}: {} in mode {}: {}\n",
            account(result.resource),
            if result.success { "success" } else { "failed" },
            result.mode,
            result.error_message
        ));
        for line in &result.commands_executed {
            text.push_str(&format!("  ran {line}\n"));
        }
    }
    for resource in &state.resources {
        text.push_str(&format!(
            "resource {}: paused {}, downscaled {}\n",
            resource.account(),
            resource.paused,
            resource.downscaled
        ));
    }
    for usage in &state.component_usages {
        let month = usage.billing_period.map_or_else(String::new, |day| day.to_string());
        text.push_str(&format!(
            "usage of {} in {month}: {} {}\n",
            account(usage.resource),
            usage.kind,
            usage.usage
        ));
    }
    text
}
