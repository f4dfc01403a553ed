//! What a cycle costs as accounts and jobs grow: first load, a quiet cycle, a cycle with a thousand new jobs, on an
//! emulated Slurm in memory. Run: cargo bench --bench cycle [-- ACCOUNTS JOBS]
//!
//! The emulated programs' own time is measured apart and taken off, so that what is shown is the agent's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slurm_site_agent::agent::clock::Clock;
use slurm_site_agent::agent::cycle::{Ask, cycle};
use slurm_site_agent::agent::{Agent, Outside};
use slurm_site_agent::config;
use slurm_site_agent::core::command::Mode;
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::emulator::slurm::{EmulatedSlurm, World};
use slurm_site_agent::slurm::{Answer, Runner};
use slurm_site_agent::store::Store;

const NOW: i64 = 1_794_312_000;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = match numbers[..] {
        [accounts, jobs] => vec![(accounts, jobs)],
        _ => vec![(100, 10_000), (1000, 100_000), (10_000, 100_000)],
    };
    println!("| accounts | jobs | first load | quiet cycle | 1000 new jobs | peak memory |");
    println!("|---|---|---|---|---|---|");
    for (accounts, jobs) in sizes {
        measure(accounts, jobs);
    }
}

fn world(accounts: usize, jobs: usize) -> World {
    let mut text = String::from("{\"cluster\":\"bench\",\"clock\":{\"fixed\":");
    let _ = write!(
        text,
        "{NOW}}},\"qos\":[{{\"name\":\"normal\"}},{{\"name\":\"slowdown\"}},{{\"name\":\"blocked\"}}],\"accounts\":["
    );
    for account in 0..accounts {
        let comma = if account == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"name\":\"a{account}\",\"qos\":[\"normal\"],\"default_qos\":\"normal\"}}"
        );
    }
    text.push_str("],\"users\":[");
    for account in 0..accounts {
        let comma = if account == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{\"name\":\"u{account}\",\"accounts\":[\"a{account}\"]}}");
    }
    text.push_str("],\"jobs\":[");
    for job in 0..jobs {
        let comma = if job == 0 { "" } else { "," };
        text.push_str(comma);
        text.push_str(&job_text(job, accounts, NOW - 800_000 + (job as i64 * 700_000) / jobs as i64));
    }
    text.push_str("]}");
    World::from_json(&text).expect("a world")
}

fn job_text(job: usize, accounts: usize, start: i64) -> String {
    let account = job % accounts;
    format!(
        "{{\"account\":\"a{account}\",\"user\":\"u{account}\",\"state\":\"COMPLETED\",\"start\":{start},\"end\":{},\
         \"allocated\":\"cpu=4,mem=8G,node=1,billing=4\"}}",
        start + 600
    )
}

fn measure(accounts: usize, jobs: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let slurm = Arc::new(EmulatedSlurm::in_memory(world(accounts, jobs)));
    let spent = Arc::new(AtomicU64::new(0));
    let runner = {
        let (slurm, spent) = (Arc::clone(&slurm), Arc::clone(&spent));
        Runner::Emulated(Arc::new(move |program, args, env| {
            let begun = Instant::now();
            let output = slurm.run(program, args, env).expect("the emulated Slurm");
            spent.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: output.status })
        }))
    };
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n[store]\npath = {:?}\n[limits]\nchanges_max = 100000\ntighten_accounts_max = 100000\n\
         tighten_share_percent = 100\nnames_per_modify_max = 500\n",
        folder.path().join("state.db").display().to_string()
    );
    for account in 0..accounts {
        let _ = write!(
            text,
            "[[allocation]]\naccount = \"a{account}\"\nlimits = {{ cpu = 1000 }}\nperiod = \"month\"\nbilling = false\n"
        );
    }
    let config = config::parse(&text, "bench").expect("a configuration");
    let store = Store::open(&config.store.path).expect("a store");
    let clock = Clock::manual(Epoch(NOW));
    let outside = Outside { runner, clock: clock.clone(), mode: Mode::Emulator };
    let mut agent = Agent::new(config, outside, store).expect("an agent");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut timed = || {
        spent.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        runtime.block_on(cycle(&mut agent, &Ask::default())).expect("a cycle");
        begun.elapsed().saturating_sub(Duration::from_micros(spent.load(Ordering::Relaxed)))
    };
    let first = timed();
    timed();
    let quiet = timed();
    slurm
        .with_world(|world| {
            let mut more = String::from("{\"cluster\":\"more\",\"accounts\":[{\"name\":\"a0\"}],\"users\":[{\"name\":\"u0\",\"accounts\":[\"a0\"]}],\"jobs\":[");
            for job in 0..1000 {
                more.push_str(if job == 0 { "" } else { "," });
                more.push_str(&job_text(job * accounts.max(1), accounts.max(1), NOW - 3000 + job as i64));
            }
            more.push_str("]}");
            for mut job in World::from_json(&more).expect("jobs").jobs {
                job.id = 0;
                job.db_index = 0;
                world.add_job(job);
            }
        })
        .expect("the world");
    let busy = timed();
    println!("| {accounts} | {jobs} | {first:.0?} | {quiet:.0?} | {busy:.0?} | {} MB |", peak_mb());
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
