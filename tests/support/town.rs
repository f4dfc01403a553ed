//! A site in this process: the agent, the emulated Slurm and the embedded server, with three clocks that move together.

#![allow(
    dead_code,
    reason = "each test crate compiles all of this and uses a part; expect would fail where all is used"
)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use slurm_site_agent::agent::cycle::CycleReport;
use slurm_site_agent::core::plan::{Change, Outcome};
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::slurm::{EmulatedSlurm, World};
use slurm_site_agent::slurm::{Answer, RunError, Runner};

use super::support::{Portal, Site, TOKEN};

/// The offering of every town.
pub const OFFERING: &str = "5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90";

/// A site in this process.
pub struct Town {
    pub slurm: Arc<EmulatedSlurm>,
    pub portal: Portal,
    pub site: Site,
    runs: Arc<Mutex<Vec<String>>>,
}

/// What a town begins with.
pub struct Plan<'a> {
    /// RFC 3339.
    pub now: &'a str,
    /// Slurm accounts, all below root, each with the user `alice`.
    pub accounts: &'a [String],
    /// Jobs as in the seed files of the emulated Slurm.
    pub jobs: Value,
    /// Fields of the server's state besides clock, users and offerings.
    pub central: Value,
    /// Lines of `[[source]]`.
    pub source: &'a str,
    /// Further sections.
    pub config: &'a str,
}

impl Town {
    pub async fn new(plan: Plan<'_>) -> Town {
        let mut state = json!({
            "clock": {"fixed": plan.now},
            "users": [{"username": "agent", "token": TOKEN, "role": "staff"}],
            "offerings": [{"uuid": OFFERING}],
        });
        let fields = state.as_object_mut().expect("an object");
        fields.extend(plan.central.as_object().expect("an object").clone());
        let portal = Portal::start(serde_json::from_value(state).expect("a state of the server")).await;
        let accounts: Vec<Value> = plan.accounts.iter().map(|name| json!({"name": name})).collect();
        let world = json!({
            "cluster": "town",
            "clock": {"fixed": plan.now},
            "partitions": [{"name": "batch", "default": true, "tres": "cpu=4000,mem=2000G,node=10"}],
            "qos": [
                {"name": "normal", "priority": 100},
                {"name": "slowdown", "priority": 10},
                {"name": "blocked", "limits": {"MaxSubmitJobsPerUser": 0}}
            ],
            "accounts": accounts,
            "users": [{"name": "alice", "accounts": plan.accounts}],
            "jobs": plan.jobs,
        });
        let world = World::from_json(&world.to_string()).expect("a world");
        let slurm = Arc::new(EmulatedSlurm::in_memory(world));
        let config = format!(
            "[cluster]\nname = \"town\"\n[store]\npath = \"FOLDER/state.db\"\n[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n\
             [[source]]\nname = \"portal\"\nkind = \"waldur-policy\"\nurl = \"{}\"\ntoken_file = \"FOLDER/token\"\n\
             offering = \"{OFFERING}\"\n{}{}",
            portal.url, plan.source, plan.config
        );
        let now = plan.now.parse::<jiff::Timestamp>().expect("an instant").as_second();
        let runs = Arc::default();
        let site = Site::new(&config, Epoch(now), Some(written_down(&slurm, &runs)));
        Town { slurm, portal, site, runs }
    }

    /// The programs that were run since the last time this was asked.
    pub fn take_runs(&self) -> Vec<String> {
        std::mem::take(&mut self.runs.lock().expect("no panic holds it"))
    }

    /// Moves all clocks.
    pub fn advance(&mut self, seconds: i64) {
        self.site.clock.set(self.site.clock.now().plus(seconds));
        self.slurm.with_world(|world| world.advance(seconds)).expect("in memory");
        self.portal.handle.advance(seconds);
    }

    pub async fn cycle(&mut self) -> CycleReport {
        self.site.cycle().await
    }

    /// One field of an account's association, as sacctmgr prints it.
    pub fn shows(&self, account: &str, field: &str) -> String {
        let account = format!("account={account}");
        let format = format!("format={field}");
        let args = ["-nP", "show", "assoc", "where", &account, "user=", &format].map(str::to_owned);
        let output = self.slurm.run("sacctmgr", &args, &Default::default()).expect("in memory");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// Resets of raw usage that were really made.
    pub fn resets(&self) -> usize {
        let history = self.site.agent.store.history(10_000, None).expect("the history");
        let is_reset = |change: &Change| matches!(change, Change::ResetRawUsage { .. });
        history
            .iter()
            .filter(|intent| is_reset(&intent.change.change) && intent.outcome == Some(Outcome::Applied))
            .count()
    }

    /// Verdicts that the server has: whether it was a success, and the text.
    pub fn verdicts(&self) -> Vec<(bool, String)> {
        self.portal.handle.with_state(|state| {
            state.results.iter().map(|result| (result.success, result.error_message.clone())).collect()
        })
    }
}

/// The door to the emulated Slurm.
pub fn runner(slurm: &Arc<EmulatedSlurm>) -> Runner {
    let slurm = Arc::clone(slurm);
    Runner::Emulated(Arc::new(move |program, args, env| {
        let output = slurm.run(program, args, env).map_err(|error| RunError::Lost {
            argv: program.to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: output.status })
    }))
}

/// The same, with every program written down.
fn written_down(slurm: &Arc<EmulatedSlurm>, runs: &Arc<Mutex<Vec<String>>>) -> Runner {
    let Runner::Emulated(body) = runner(slurm) else { unreachable!("it is the emulated one") };
    let runs = Arc::clone(runs);
    Runner::Emulated(Arc::new(move |program, args, env| {
        runs.lock().expect("no panic holds it").push(format!("{program} {}", args.join(" ")));
        body(program, args, env)
    }))
}

/// A job of `cpus` that ran in account `account` from `start` to `end`.
pub fn job(account: &str, cpus: u32, start: &str, end: &str) -> Value {
    json!({"account": account, "user": "alice", "allocated": format!("cpu={cpus},mem=1G,node=1,billing={cpus}"),
        "start": start, "submit": start, "end": end, "state": "COMPLETED"})
}
