//! How many sacctmgr processes a cycle over a thousand accounts takes, as figures for machines: one line of JSON each.
//! Run: cargo bench --bench apply
//!
//! The Slurm is the emulated one; that a real one takes the same is a test of its own (tests/cluster_scale.rs).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::config::{self, Config};
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::slurm::{EmulatedSlurm, World};
use slurm_site_agent::slurm::{Answer, Runner};
use slurm_site_agent::store::Store;

const NOW: i64 = 1_794_312_000;
const ACCOUNTS: usize = 1000;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let slurm = EmulatedSlurm::in_memory(world());
    let runs: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let runner = {
        let runs = Arc::clone(&runs);
        Runner::Emulated(Arc::new(move |program, args, env| {
            if program == "sacctmgr" {
                runs.lock().expect("no panic").push(if args[0] == "-i" { "modify" } else { "show" });
            }
            let output = slurm.run(program, args, env).expect("the emulated Slurm");
            Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: output.status })
        }))
    };
    let configuration = |hours: &dyn Fn(usize) -> usize| parsed(folder.path(), hours);
    let store = Store::open(&folder.path().join("state.db")).expect("a store");
    let outside = Outside { runner, clock: Clock::manual(Epoch(NOW)), mode: Mode::Emulator };
    let mut agent = Agent::new(configuration(&|_| 100), outside, store).expect("an agent");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut processes = |name: &str, hours: &dyn Fn(usize) -> usize| {
        agent.reconfigure(configuration(hours)).expect("a configuration");
        runs.lock().expect("no panic").clear();
        let report = runtime.block_on(cycle(&mut agent, &Ask::default())).expect("a cycle");
        assert!(!report.needs_attention(), "{:#?}", report.findings);
        let runs = runs.lock().expect("no panic");
        let modifies = runs.iter().filter(|run| **run == "modify").count();
        let figure = serde_json::json!({
            "bench": "apply", "figure": name, "accounts": ACCOUNTS, "value": runs.len(), "modifies": modifies,
            "unit": "processes",
        });
        println!("{figure}");
    };
    let ten = |account: usize| account % 100 == 7;
    processes("sacctmgr_first", &|_| 100);
    processes("sacctmgr_nothing_changed", &|_| 100);
    processes("sacctmgr_10_changed_equally", &|account| if ten(account) { 300 } else { 100 });
    let of_nine = |account: usize| if ten(account) { 400 + 3 * (account / 100).min(8) } else { 100 };
    processes("sacctmgr_10_changed_9_values", &of_nine);
    processes("sacctmgr_10_changed_10_values", &|account| {
        if ten(account) { 700 + 3 * (account / 100) } else { 100 }
    });
}

fn world() -> World {
    let accounts: Vec<_> =
        (0..ACCOUNTS).map(|account| serde_json::json!({"name": format!("a{account}")})).collect();
    let world = serde_json::json!({
        "cluster": "bench", "clock": {"fixed": NOW},
        "qos": [{"name": "normal"}, {"name": "slowdown"}, {"name": "blocked"}],
        "accounts": accounts, "users": [], "jobs": [],
    });
    World::from_json(&world.to_string()).expect("a world")
}

fn parsed(folder: &std::path::Path, hours: &dyn Fn(usize) -> usize) -> Config {
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n[store]\npath = {:?}\n[limits]\ntighten_accounts_max = 100000\n\
         tighten_share_percent = 100\n[components.cpu]\ntres = \"cpu\"\nunit = \"h\"\n",
        folder.join("state.db")
    );
    for account in 0..ACCOUNTS {
        let hours = hours(account);
        let _ = write!(
            text,
            "[[allocation]]\naccount = \"a{account}\"\nlimits = {{ cpu = {hours} }}\nperiod = \"month\"\nbilling = false\n"
        );
    }
    config::parse(&text, "bench").expect("a configuration")
}
