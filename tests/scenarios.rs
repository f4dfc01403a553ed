//! Scenarios: what an operator could type, on the emulated Slurm and on a real one, with the same answers.
//!
//! Each `tests/scenarios/NAME.scenario` (language: tests/scenarios/script.rs) has a golden `NAME.transcript`. After a change
//! that is meant, write them anew and review the difference like code:
//!
//! ```text
//! SCENARIOS=write cargo test --test scenarios
//! ```
//!
//! With a lab (SITE_AGENT_LAB) the real Slurm writes them, and the emulated one must agree.

#[path = "scenarios/body.rs"]
mod body;
#[path = "scenarios/normal.rs"]
mod normal;
#[path = "scenarios/play.rs"]
mod play;
#[path = "scenarios/script.rs"]
mod script;
mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use body::Body;
use play::{Played, play};
use script::Script;
use support::Lab;

/// Scenarios that are played at one time: each spends most of its time waiting for jobs to be known to slurmdbd.
const PLAYED_BESIDE_EACH_OTHER: usize = 8;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// All scenarios, or those that SCENARIO names.
fn scripts() -> Vec<Script> {
    let only = std::env::var("SCENARIO").ok();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of the scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "scenario"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(path).expect("a scenario");
        only.as_ref().is_none_or(|only| name.contains(only)).then(|| Script::parse(&name, &text))
    };
    paths.iter().filter_map(read).collect()
}

fn played(script: &Script, body: &Body) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(play(script, body))
}

/// Does `act` for every scenario, several beside each other; the problems of all of them.
fn each(scripts: &[Script], act: impl Fn(&Script) -> Result<(), String> + Sync) -> Vec<String> {
    let queue = Mutex::new(scripts.iter());
    let problems = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PLAYED_BESIDE_EACH_OTHER {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(script) = next else { return };
                    let run = std::panic::AssertUnwindSafe(|| act(script));
                    let result = std::panic::catch_unwind(run)
                        .unwrap_or_else(|_| Err(format!("{} panicked, see above", script.name)));
                    problems.lock().unwrap_or_else(PoisonError::into_inner).extend(result.err());
                }
            });
        }
    });
    problems.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn golden(script: &Script) -> PathBuf {
    folder().join(format!("{}.transcript", script.name))
}

fn is_writing() -> bool {
    std::env::var("SCENARIOS").is_ok_and(|what| what == "write")
}

fn write(script: &Script, transcript: &str, writer: &str) {
    let text = format!(
        "# Written by {writer}; renew with: SCENARIOS=write cargo test --test scenarios\n{transcript}"
    );
    std::fs::write(golden(script), text).expect("a written transcript");
}

fn compare(script: &Script, transcript: &str, who: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(golden(script))
        .map_err(|_| format!("{} has no transcript; see the head of tests/scenarios.rs", script.name))?;
    let (_, expected) = text.split_once('\n').unwrap_or_default();
    differences(expected, transcript)
        .map_or(Ok(()), |shown| Err(format!("{} differs on {who} (- golden, + now):\n{shown}", script.name)))
}

/// The lines that differ, each group with the line before it; `None` when there are none.
fn differences(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    // Length of the longest common part of what begins at each pair of lines.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (i, j) in (0..old.len()).rev().flat_map(|i| (0..new.len()).rev().map(move |j| (i, j))) {
        common[i][j] =
            if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
    }
    let (mut i, mut j, mut text, mut before) = (0, 0, String::new(), None);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            before = Some(old[i]);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        text.extend(before.take().map(|line| format!("  {line}\n")));
        if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            text.push_str(&format!("- {}\n", old[i]));
            i += 1;
        } else {
            text.push_str(&format!("+ {}\n", new[j]));
            j += 1;
        }
    }
    Some(text)
}

#[test]
fn every_scenario_reads_on_the_emulated_slurm_as_it_is_written_down() {
    let writes = is_writing() && std::env::var_os("SITE_AGENT_LAB").is_none();
    if is_writing() && !writes {
        eprintln!("SKIPPED: the real Slurm writes the transcripts now");
        return;
    }
    let scripts = scripts();
    let problems = each(&scripts, |script| {
        let played = played(script, &Body::emulated());
        if writes {
            write(script, &played.transcript, "the emulated Slurm 22.05.8");
            return Ok(());
        }
        compare(script, &played.transcript, "the emulated Slurm")
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_scenario_reads_on_a_real_slurm_as_it_is_written_down_and_every_program_says_the_same_on_both() {
    let Some(lab) = Lab::find() else { return };
    let scripts = scripts();
    let prefixes: Vec<&str> = scripts.iter().map(|script| script.prefix.as_str()).collect();
    lab.forget(&prefixes);
    let (alone, together): (Vec<Script>, Vec<Script>) =
        scripts.into_iter().partition(Script::deletes_accounts);
    let mut problems = each(&together, |script| on_both(script, &lab));
    for script in alone {
        problems.extend(on_both(&script, &lab).err());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn on_both(script: &Script, lab: &Arc<Lab>) -> Result<(), String> {
    let began = std::time::Instant::now();
    let body = Body::real(lab);
    let real = played(script, &body);
    body.end(&script.prefix);
    eprintln!("{}: {} s on the real Slurm", script.name, began.elapsed().as_secs());
    if is_writing() {
        write(script, &real.transcript, "Slurm 22.05.8");
    } else {
        compare(script, &real.transcript, "the real Slurm")?;
    }
    let emulated = played(script, &Body::emulated());
    differences(&real.calls.concat(), &emulated.calls.concat()).map_or(Ok(()), |shown| {
        Err(format!("{}: programs say other things (- real, + emulated):\n{shown}", script.name))
    })
}

#[test]
fn every_scenario_has_years_of_its_own() {
    // sacct shows the agent the jobs of all accounts, so that the numbers of a report would depend on what is played beside it.
    let mut owner = std::collections::BTreeMap::new();
    for script in scripts() {
        let words = script.steps.iter().flat_map(|step| step.text.split([' ', '=', '/', '"']));
        let dates = words.filter(|word| word.len() > 10 && word.as_bytes()[4] == b'-' && word.contains('T'));
        for date in dates {
            let other = owner.entry(date[..4].to_owned()).or_insert_with(|| script.name.clone());
            assert_eq!(*other, script.name, "two scenarios in {}", &date[..4]);
        }
    }
    assert!(!owner.is_empty());
}
