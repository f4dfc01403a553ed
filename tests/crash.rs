//! The real binary is killed as `kill -9` does at every boundary between two steps of the cycle and started again: Slurm,
//! the portal, AMIE and the store end as they do without a crash, each change and each report in effect once.

#[path = "support/emulation.rs"]
mod emulation;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use emulation::{Emulation, shipped};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use slurm_site_agent::agent::step::Step;

/// Cycles that a world may take until nothing is to do: a few more than the two that the shipped data need.
const CYCLES_MAX: usize = 5;
/// Pairs of steps that are tried in one go. All 169 take a minute; these are other ones for each seed and keep the
/// suite short.
const PAIRS: usize = 12;
/// Seed of the pairs; any number.
const SEED: u64 = 20_261_122;

/// The shipped data with a command of each kind that the server can send, good ones and bad ones.
fn fresh() -> Emulation {
    let mut central = shipped("central.json");
    let command = |resource: &str, kind: &str, minute: u32, parameters: Value| {
        json!({
            "resource": resource, "command_type": kind, "parameters": parameters,
            "description": format!("{kind} of {resource}"),
            "executed_at": format!("2026-11-10T11:{minute:02}:00Z"),
        })
    };
    let more = [
        command(
            "chemistry",
            "limits",
            51,
            json!({"limit_type": "GrpTRESMins", "limits": {"cpu": 7200, "gpu": 600}}),
        ),
        command("chemistry", "qos", 52, json!({"qos": "slowdown", "reason": "by hand"})),
        command("biology", "fairshare", 53, json!({"fairshare": 40})),
        command("biology", "fairshare", 54, json!({"fairshare": 41})),
        command("geology", "selfdestruct", 55, json!({})),
        command("geology", "qos", 56, json!({"qos": "no such level"})),
        command("physics", "fairshare", 57, json!({"account": "root", "fairshare": 1})),
    ];
    central["commands"].as_array_mut().expect("a list").extend(more);
    Emulation::new(&shipped("slurm.json"), &central)
}

/// A world in which all is done.
static SETTLED: LazyLock<Emulation> = LazyLock::new(|| {
    let world = fresh();
    world.settle(CYCLES_MAX);
    world
});

/// The same a month later.
fn next_month() -> Emulation {
    let world = SETTLED.fork();
    world.clock("+30days");
    world
}

/// And what becomes of it.
static NEXT_MONTH: LazyLock<Emulation> = LazyLock::new(|| {
    let world = next_month();
    world.settle(CYCLES_MAX);
    world
});

#[track_caller]
fn assert_same(world: &Emulation, reference: &Emulation, what: &str) {
    let (ours, theirs) = (world.outcome(), reference.outcome());
    for part in ["slurm", "portal", "store"] {
        for (name, wanted) in theirs[part].as_object().expect("an object") {
            assert_eq!(ours[part][name], *wanted, "{part} {name} after {what}");
        }
    }
}

/// Kills the world's cycle after each of the steps and lets it come to its end, until one more cycle has nothing to do;
/// whether every kill happened.
fn killed_after(world: &Emulation, steps: &[Step]) -> bool {
    let mut all = true;
    for step in steps {
        all &= world.evaluate(Some(*step)).killed;
    }
    world.settle(CYCLES_MAX);
    all
}

#[test]
fn a_cycle_killed_after_any_step_ends_as_if_it_had_not_been() {
    for step in Step::ALL {
        let world = fresh();
        assert!(killed_after(&world, &[step]), "{step:?} is reached in the first cycle");
        assert_same(&world, &SETTLED, &format!("a crash after {step:?}"));
    }
}

#[test]
fn the_reference_itself_has_work_of_every_kind() {
    let outcome = SETTLED.outcome();
    let verdict = |state: &str| {
        let commands = outcome["store"]["commands"].as_object().expect("commands");
        commands.values().filter(|command| command[0] == state).count()
    };
    assert_eq!((verdict("Done"), verdict("Refused"), verdict("Superseded")), (4, 3, 1), "{outcome:#}");
    // Two of them, done for the same account by the same modify, read the same: verdicts do not name their command.
    assert_eq!(outcome["portal"]["results"].as_array().map(Vec::len), Some(7), "{outcome:#}");
    assert!(!SETTLED.made().is_empty());
    assert!(SETTLED.resets().is_empty(), "nothing is reset when the agent first looks");
    let reset: BTreeSet<String> = NEXT_MONTH.resets().into_keys().collect();
    assert_eq!(reset, ["biology", "chemistry", "geology", "physics"].map(String::from).into());
}

#[test]
fn a_new_period_resets_each_account_once_whatever_step_is_killed() {
    let mut reached = BTreeSet::new();
    for step in Step::ALL {
        let world = next_month();
        if killed_after(&world, &[step]) {
            reached.insert(format!("{step:?}"));
        }
        assert!(world.resets().values().all(|times| *times == 1), "{step:?}: {:?}", world.resets());
        assert_same(&world, &NEXT_MONTH, &format!("a crash after {step:?} in a new period"));
    }
    for step in [Step::Intended, Step::Ran, Step::Settled, Step::Judged] {
        assert!(reached.contains(&format!("{step:?}")), "{step:?} is reached: {reached:?}");
    }
}

#[test]
fn a_reset_that_was_run_is_not_run_again_although_jobs_have_counted_on_since() {
    // A job of geology is running: its counter is above 0 again when the next start looks at it.
    let marks = |world: &Emulation| -> Vec<(String, i64)> {
        let slurm = world.file("slurm.json");
        let accounts = slurm["accounts"].as_array().expect("accounts").iter();
        accounts
            .filter_map(|a| Some((a["name"].as_str()?.to_owned(), a["usage_reset_at"].as_i64()?)))
            .filter(|(_, at)| *at > 0)
            .collect()
    };
    for (step, first_hour) in
        [(Step::Intended, false), (Step::Ran, true), (Step::ReadBack, true), (Step::Settled, true)]
    {
        let world = next_month();
        assert!(world.evaluate(Some(step)).killed, "{step:?}");
        let after_crash = marks(&world);
        assert_eq!(!after_crash.is_empty(), first_hour, "{step:?}: {after_crash:?}");
        world.clock("+1h");
        world.settle(CYCLES_MAX);
        let in_the_end = marks(&world);
        for mark in &after_crash {
            assert!(in_the_end.contains(mark), "{mark:?} was reset again after {step:?}: {in_the_end:?}");
        }
        let resets = world.resets();
        assert_eq!(resets.len(), 4, "{step:?}: {resets:?}");
        assert!(resets.values().all(|times| *times == 1), "{step:?}: {resets:?}");
    }
}

#[test]
fn two_crashes_in_a_row_end_as_if_there_had_been_none() {
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..PAIRS {
        let pair = [(); 2].map(|()| *Step::ALL.choose(&mut rng).expect("there are steps"));
        let (world, reference, when) = if rng.random() {
            (fresh(), &*SETTLED, "at first")
        } else {
            (next_month(), &*NEXT_MONTH, "in a new period")
        };
        killed_after(&world, &pair);
        assert_same(&world, reference, &format!("crashes after {pair:?} {when} (seed {SEED})"));
    }
}
