//! Transcripts of a real Slurm, replayed byte for byte.
//!
//! A transcript has `$` and the words of a command as JSON (`TZ=...` sets a variable, `@alice` is who runs it), then its
//! lines (`O|` on standard output, `E|` on standard error, `$` where a line ends) and its status.

use super::{Clock, World};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const NEW: &str = include_str!("transcripts/new.json");
const JOBS: &str = include_str!("transcripts/jobs.json");
const SHARES: &str = include_str!("transcripts/shares.json");

fn world(seed: &str) -> World {
    World::from_json(seed).expect("the seed is a world")
}

fn shown(tag: char, bytes: &[u8], text: &mut String) {
    let bytes = String::from_utf8_lossy(bytes);
    for line in bytes.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(whole) => writeln!(text, "{tag}|{whole}$"),
            None => writeln!(text, "{tag}|{line}"),
        }
        .expect("written");
    }
}

/// Runs the words of a transcript's command.
fn answer(world: &mut World, command: &str) -> String {
    let words: Vec<String> = serde_json::from_str(command).expect("a list of words");
    let mut env = BTreeMap::from([("TZ".to_owned(), "UTC".to_owned())]);
    let mut rest = words.as_slice();
    "root".clone_into(&mut world.acting_user);
    while let Some((word, more)) = rest.split_first() {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        if let Some(user) = word.strip_prefix('@') {
            user.clone_into(&mut world.acting_user);
        } else if let Some((name, value)) = word.split_once('=')
            && is_name(name)
        {
            env.insert(name.to_owned(), value.to_owned());
        } else {
            break;
        }
        rest = more;
    }
    let output = world.run(&rest[0], &rest[1..], &env);
    let mut text = String::new();
    shown('O', &output.stdout, &mut text);
    shown('E', &output.stderr, &mut text);
    writeln!(text, "rc={}", output.status).expect("written");
    text
}

/// Replays a transcript on a world; every command must answer as the real one did.
fn replay(mut world: World, transcript: &str) {
    let mut commands = transcript.split("\n$ ");
    let head = commands.next().expect("says where it comes from");
    assert!(head.starts_with("# Slurm 22.05.8"), "{head}");
    let mut wrong = String::new();
    let mut count = 0;
    for command in commands {
        let (words, want) = command.split_once('\n').expect("an answer");
        let got = answer(&mut world, words);
        if got.trim_end() != want.trim_end() {
            writeln!(wrong, "$ {words}\nreal:\n{want}\nemulated:\n{got}").expect("written");
        }
        count += 1;
    }
    assert!(count >= 9, "only {count} commands");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn sacctmgr_answers_as_the_real_one() {
    replay(world(NEW), include_str!("transcripts/sacctmgr.txt"));
}

#[test]
fn everything_the_agent_asks_and_changes_is_answered_as_by_the_real_ones() {
    let mut world = world(JOBS);
    world.clock = Clock::Fixed(1_795_338_442);
    replay(world, include_str!("transcripts/agent.txt"));
}

#[test]
fn changes_drawn_at_random_leave_what_they_leave_in_the_real_one() {
    for transcript in
        [include_str!("transcripts/modifications_1.txt"), include_str!("transcripts/modifications_2.txt")]
    {
        let mut world = world(JOBS);
        world.jobs.clear();
        replay(world, transcript);
    }
}

#[test]
fn sacctmgr_refuses_what_the_real_one_refuses_to_users_and_operators() {
    replay(world(JOBS), include_str!("transcripts/privileges.txt"));
}

#[test]
fn sacct_answers_as_the_real_one() {
    replay(world(JOBS), include_str!("transcripts/sacct.txt"));
}

#[test]
fn sreport_answers_as_the_real_one() {
    replay(world(JOBS), include_str!("transcripts/sreport.txt"));
}

#[test]
fn scontrol_answers_as_the_real_one() {
    replay(world(SHARES), include_str!("transcripts/scontrol.txt"));
}

#[test]
fn sshare_answers_as_the_real_one() {
    replay(world(SHARES), include_str!("transcripts/sshare.txt"));
}

#[test]
fn sbatch_takes_and_refuses_as_the_real_one() {
    replay(world(NEW), include_str!("transcripts/sbatch.txt"));
}

#[test]
fn without_slurmdbd_everything_answers_as_the_real_ones() {
    let mut world = world(SHARES);
    world.jobs.clear();
    world.last_job = 0;
    world.services.slurmdbd = false;
    replay(world, include_str!("transcripts/no_database.txt"));
}

#[test]
fn without_slurmctld_everything_answers_as_the_real_ones() {
    let mut world = world(SHARES);
    world.services.slurmctld = false;
    replay(world, include_str!("transcripts/no_controller.txt"));
}

/// Whatever a transcript leaves behind is the same world after it has been written to JSON and read again.
#[test]
fn a_world_survives_its_file() {
    for (seed, transcript) in [
        (NEW, include_str!("transcripts/sacctmgr.txt")),
        (JOBS, include_str!("transcripts/privileges.txt")),
        (NEW, include_str!("transcripts/sbatch.txt")),
    ] {
        let mut world = world(seed);
        for command in transcript.split("\n$ ").skip(1) {
            let (words, _) = command.split_once('\n').expect("an answer");
            answer(&mut world, words);
        }
        assert!(matches!(world.clock, Clock::Fixed(_)));
        let mut again = World::from_json(&world.to_json()).expect("its own text");
        // Accounts and users are looked up by name; their order means nothing.
        for world in [&mut world, &mut again] {
            world.accounts.sort_by(|a, b| a.name.cmp(&b.name));
            world.users.sort_by(|a, b| a.name.cmp(&b.name));
        }
        assert_eq!(again, world);
    }
}
