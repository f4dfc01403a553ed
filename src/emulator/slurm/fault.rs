//! Faults that a test or a person plants in the emulated Slurm; they are part of the world and are used up in order.

use super::terminal::Output;
use serde::{Deserialize, Serialize};

/// One fault: which runs it meets and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Program that it meets; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Only runs one of whose arguments contains this text; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// Runs that still pass before it begins.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: u32,
    /// Runs that it still meets.
    #[serde(default = "one")]
    pub times: u32,
    /// What happens.
    pub effect: Effect,
}

fn one() -> u32 {
    1
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a fault does to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing is done; this status and this text on standard error.
    Fails {
        /// Exit status.
        status: i32,
        /// Text on standard error.
        stderr: String,
    },
    /// Nothing is done and the program never ends.
    Hangs,
    /// Status 0, nothing printed, nothing done: what sacct shows after an SQL error inside slurmdbd (22.05.8).
    Empty,
    /// Done, but the output ends after so many bytes.
    Truncated {
        /// Bytes of standard output that arrive.
        bytes: usize,
    },
    /// Done, and every line of the output comes twice.
    Duplicated,
    /// Done, and the lines come in an order that depends on the seed alone.
    Reordered {
        /// Seed of the order.
        seed: u64,
    },
    /// Done, with this text on standard error and status 0.
    Warns {
        /// Text on standard error.
        stderr: String,
    },
    /// Done, but this status and this text are reported.
    DoneThenFails {
        /// Exit status.
        status: i32,
        /// Text on standard error.
        stderr: String,
    },
    /// Done, and these lines stand before the output.
    Garbage {
        /// Lines, without their ends.
        lines: Vec<String>,
    },
    /// Done, and the output of another release with other columns: each line gets this field appended.
    ForeignColumns {
        /// Text appended to each line.
        field: String,
    },
}

impl Fault {
    /// A fault that meets the next run of `program`.
    pub fn next(program: &str, effect: Effect) -> Fault {
        Fault { program: Some(program.to_owned()), argument: None, after: 0, times: 1, effect }
    }

    fn meets(&self, program: &str, args: &[String]) -> bool {
        self.program.as_deref().is_none_or(|wanted| wanted == program)
            && self.argument.as_deref().is_none_or(|text| args.iter().any(|arg| arg.contains(text)))
    }
}

/// The effect on this run, if any; counts the run down in the list and drops what is used up.
pub(super) fn take(faults: &mut Vec<Fault>, program: &str, args: &[String]) -> Option<Effect> {
    let at = faults.iter().position(|fault| fault.meets(program, args))?;
    let fault = &mut faults[at];
    if fault.after > 0 {
        fault.after -= 1;
        return None;
    }
    let effect = fault.effect.clone();
    fault.times = fault.times.saturating_sub(1);
    if fault.times == 0 {
        faults.remove(at);
    }
    Some(effect)
}

/// The whole answer, when the fault keeps the program from doing anything.
pub(super) fn before(effect: &Effect) -> Option<Output> {
    match effect {
        Effect::Fails { status, stderr } => {
            Some(Output { stdout: Vec::new(), stderr: stderr.clone().into_bytes(), status: *status })
        }
        Effect::Hangs => Some(Output { status: Output::HANGS, ..Output::default() }),
        Effect::Empty => Some(Output::default()),
        _ => None,
    }
}

/// What becomes of the answer of a program that did its work.
pub(super) fn after(effect: &Effect, mut output: Output) -> Output {
    match effect {
        Effect::Fails { .. } | Effect::Hangs | Effect::Empty => {}
        Effect::Truncated { bytes } => output.stdout.truncate(*bytes),
        Effect::Duplicated => {
            output.stdout = lines(&output.stdout).flat_map(|line| [line, line].concat()).collect();
        }
        Effect::Reordered { seed } => output.stdout = shuffled(&output.stdout, *seed),
        Effect::Warns { stderr } => {
            output.stderr.extend_from_slice(stderr.as_bytes());
            output.status = 0;
        }
        Effect::DoneThenFails { status, stderr } => {
            output = Output { stdout: Vec::new(), stderr: stderr.clone().into_bytes(), status: *status };
        }
        Effect::Garbage { lines } => {
            let mut stdout: Vec<u8> =
                lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            stdout.append(&mut output.stdout);
            output.stdout = stdout;
        }
        Effect::ForeignColumns { field } => {
            let appended = |line: &[u8]| {
                let body = line.strip_suffix(b"\n").unwrap_or(line);
                [body, field.as_bytes(), &line[body.len()..]].concat()
            };
            output.stdout = lines(&output.stdout).flat_map(appended).collect();
        }
    }
    output
}

/// Lines with their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

/// The lines in an order that a small generator (SplitMix64) draws from the seed.
fn shuffled(text: &[u8], seed: u64) -> Vec<u8> {
    let mut order: Vec<&[u8]> = lines(text).collect();
    let mut state = seed;
    for at in (1..order.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut draw = state;
        draw = (draw ^ (draw >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        draw = (draw ^ (draw >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        draw ^= draw >> 31;
        let bound = u64::try_from(at + 1).unwrap_or(u64::MAX);
        order.swap(at, usize::try_from(draw % bound).unwrap_or(0));
    }
    order.concat()
}
