//! `ledger backfill`: killed, stopped, lied to and asked for too much, it ends with the ledger that an undisturbed one has.

#[path = "support/bench.rs"]
mod bench;
#[path = "support/emulation.rs"]
mod emulation;
mod support;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::Bench;
use emulation::{Emulation, shipped};
use serde_json::{Value, json};
use slurm_site_agent::agent::backfill::{Backfilled, Ending, Extent, Progress, backfill};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::slurm::{Answer, RunError};
use slurm_site_agent::store::Store;
use support::at;

/// The shipped Slurm with a job on every second day since the beginning of the year.
fn year() -> Value {
    let mut slurm = shipped("slurm.json");
    let jobs = slurm["jobs"].as_array_mut().expect("jobs");
    let first = at("2026-01-01T06:00:00Z").0;
    for day in (0..300).step_by(2) {
        let start = first + day * 86_400;
        jobs.push(json!({
            "account": "physics", "user": "alice", "state": "COMPLETED", "allocated": "cpu=4,mem=8G,node=1,billing=4",
            "submit": start - 60, "start": start, "end": start + 7200 + day,
        }));
    }
    slurm
}

/// How many of them lie before October.
const BEFORE_OCTOBER: usize = 137;

/// Jobs in the store that began before October.
fn old(store: &Store) -> usize {
    let (mut count, cluster) = (0, ClusterName::parse("emulated").expect("a name"));
    let year = Window::new(at("2025-12-01T00:00:00Z"), at("2026-10-01T00:00:00Z"));
    store.visit_jobs(&cluster, year, &mut |_| count += 1).expect("the store");
    count
}

/// Job ids in the store.
fn jobs(store: &Store) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let cluster = ClusterName::parse("emulated").expect("a name");
    let all = Window::new(Epoch(1_000_000_000), Epoch(2_000_000_000));
    store.visit_jobs(&cluster, all, &mut |job| found.extend([job.job_id])).expect("the store");
    found
}

/// The verb, killed after a step where one is given; its JSON where it ended by itself.
fn run(world: &Emulation, args: &[&str], kill: Option<&str>) -> Option<Value> {
    let mut command = world.command(&[&["ledger", "backfill", "--json"], args].concat());
    if let Some(step) = kill {
        command.env("SITE_AGENT_KILL_AFTER", step);
    }
    let output = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.signal() == Some(9) {
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{args:?}: {text}");
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn a_backfill_killed_at_any_step_goes_on_and_ends_with_the_same_ledger() {
    let calm = Emulation::new(&year(), &shipped("central.json"));
    assert!(!calm.evaluate(None).killed);
    let dry = run(&calm, &["--from", "2026-01", "--dry-run"], None).expect("not killed");
    assert_eq!(dry["extent"]["from"], at("2026-01-01T00:00:00Z").0);
    let before = jobs(&calm.store()).len();
    let done = run(&calm, &["--from", "2026-01"], None).expect("not killed");
    assert_eq!((&done["ending"], &done["rejected"]), (&json!("done"), &json!(0)), "{done:#}");
    let whole = jobs(&calm.store());
    assert!(whole.len() > before, "{before} and then {}: {done:#}", whole.len());
    assert_eq!(old(&calm.store()), BEFORE_OCTOBER);

    let world = Emulation::new(&year(), &shipped("central.json"));
    assert!(!world.evaluate(None).killed);
    let mut reached = Vec::new();
    for step in ["Collected", "Stored", "Collected", "Stored", "Stored"] {
        assert!(run(&world, &["--from", "2026-01"], Some(step)).is_none(), "it is killed after {step}");
        let covered = world.store().last_success("ledger_from:emulated").expect("the store");
        reached.push(covered.expect("the cycle has set it"));
    }
    assert!(reached.is_sorted_by(|a, b| a >= b) && reached[0] > reached[4], "it goes back: {reached:?}");
    let done = run(&world, &["--from", "2026-01"], None).expect("not killed");
    assert_eq!(done["ending"], "done", "{done:#}");
    assert_eq!(jobs(&world.store()), whole);
    let again = run(&world, &["--from", "2026-01"], None).expect("not killed");
    assert_eq!((&again["ending"], &again["windows"]), (&json!("done"), &json!(0)), "{again:#}");
    let verified = world.command(&["ledger", "verify"]).output().expect("the program starts");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    assert!(world.evaluate(None).report.is_some(), "the daemon's cycle goes on from it");
}

#[test]
fn progress_is_a_line_for_each_month_and_nothing_older_than_what_is_kept_is_read() {
    let world = Emulation::new(&year(), &shipped("central.json"));
    let output = world.command(&["ledger", "backfill", "--from", "2015-01", "--to", "2026-11"]).output();
    let output = output.expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("jobs that ended before 2024-09-01T12:00:00Z are not kept"), "{text}");
    let progress = String::from_utf8_lossy(&output.stderr);
    let months: Vec<&str> =
        progress.lines().filter(|line| line.contains(" jobs/s")).map(|line| &line[..7]).collect();
    assert_eq!((months.first(), months.last()), (Some(&"2026-10"), Some(&"2024-09")), "{progress}");
    assert_eq!(months.len(), 26, "{progress}");
    assert!(!progress.contains('\r'), "no terminal is there");
}

async fn bench() -> Bench {
    let mut bench = Bench::new(&year(), &shipped("central.json")).await;
    bench.cycle().await;
    bench
}

async fn fill(bench: &mut Bench, stop_after: usize) -> (Backfilled, Vec<Progress>) {
    let agent = &mut bench.site.agent;
    let extent = Extent::of(agent, at("2026-01-01T00:00:00Z"), None, false).expect("the store");
    let (windows, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let stop = || windows.load(Ordering::SeqCst) >= stop_after;
    let mut tell = |progress: &Progress| {
        windows.fetch_add(1, Ordering::SeqCst);
        seen.lock().expect("no panic holds it").push(progress.clone());
    };
    let done = backfill(agent, extent, &stop, &mut tell).await.expect("the store works");
    (done, seen.into_inner().expect("no panic holds it"))
}

#[tokio::test]
async fn a_backfill_asked_to_stop_ends_after_a_window_and_goes_on_from_there() {
    let mut bench = bench().await;
    let (done, seen) = fill(&mut bench, 2).await;
    assert_eq!((done.ending, done.windows, seen.len()), (Ending::Stopped, 2, 2));
    assert_eq!(done.reached, seen[1].window.from);
    let (rest, more) = fill(&mut bench, usize::MAX).await;
    assert_eq!(rest.ending, Ending::Done);
    assert_eq!(more[0].window.until, done.reached, "no window is read twice and none is left out");
    for pair in more.windows(2) {
        assert_eq!(pair[0].window.from, pair[1].window.until);
    }
    assert_eq!(more.last().map(|progress| progress.share), Some(1.0));
    assert_eq!(old(&bench.site.agent.store), BEFORE_OCTOBER);
}

#[tokio::test]
async fn an_empty_answer_is_not_taken_for_a_month_without_jobs() {
    let mut bench = bench().await;
    // What slurmdbd answers when its database fails: status 0 and nothing.
    bench.spoil(|program, _, answer| Ok(if program == "sacct" { Answer::default() } else { answer }));
    let before = jobs(&bench.site.agent.store);
    let (done, seen) = fill(&mut bench, usize::MAX).await;
    assert!(matches!(&done.ending, Ending::Failed { reason } if reason.contains("did not show")), "{done:?}");
    assert!(seen.is_empty(), "{seen:#?}");
    bench.unspoil();
    let (done, _) = fill(&mut bench, usize::MAX).await;
    assert_eq!(done.ending, Ending::Done);
    assert!(jobs(&bench.site.agent.store).len() > before.len());
}

#[tokio::test]
async fn a_window_that_is_not_answered_is_tried_again_half_as_long() {
    let mut bench = bench().await;
    let mut slow = 3;
    bench.spoil(move |program, args, answer| {
        if program == "sacct" && slow > 0 {
            slow -= 1;
            return Err(RunError::TimedOut { argv: args.join(" "), after: Duration::from_secs(60) });
        }
        Ok(answer)
    });
    let (done, seen) = fill(&mut bench, usize::MAX).await;
    assert_eq!(done.ending, Ending::Done);
    assert_eq!(seen[0].window.seconds(), 3 * 3600, "a day, halved three times");
    bench.spoil(|program, args, answer| match program {
        "sacct" => Err(RunError::TimedOut { argv: args.join(" "), after: Duration::from_secs(60) }),
        _ => Ok(answer),
    });
    let agent = &mut bench.site.agent;
    let extent = Extent::of(agent, at("2025-12-01T00:00:00Z"), None, false).expect("the store");
    let done = backfill(agent, extent, &|| false, &mut |_| ()).await.expect("the store works");
    assert!(
        matches!(&done.ending, Ending::Failed { reason } if reason.contains("did not answer")),
        "{done:?}"
    );
    assert_eq!(done.windows, 7, "six tries more");
}
