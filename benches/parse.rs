//! How fast sacct's text is read. Prints one JSON object a line.
//!
//! Run: `cargo bench --bench parse [-- JOBS...]` (default 10000 1000000; each with text of its own in a temporary folder), and
//! for the long pipe `cargo bench --bench parse -- 10000000`. `-- text JOBS` and `-- peer-text JOBS` print the text itself, for
//! the Python parser of benches/peer.py; `-- totals` adds up standard input and `-- batches FILE` reads a file as
//! sacct's answer, each in a process of its own.
//!
//! | figure | what is timed |
//! |---|---|
//! | `totals_from_memory` | text in memory to totals per account, user, TRES and month; best of several |
//! | `totals_from_a_pipe` | a process of its own that reads `cat FILE` through a pipe: from its start to its end |
//! | `totals_from_a_file` | the same, reading the file itself |
//! | `wc_l_of_a_file`, `wc_l_from_a_pipe` | `wc -l` in the same two ways |
//! | `batches_of_records` | a process that takes `cat FILE` for sacct and reads it through the runner in batches of records |
//!
//! `cpu_seconds` is what the reading process kept a core busy, without other users of the machine; `peak_mb` is the peak resident
//! memory of the process that reads, where it is one of its own. Where valgrind is installed, `instructions_per_row` counts without
//! regard to the load of the machine.

#[path = "../tests/support/sacct_text.rs"]
mod sacct_text;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sacct_text::{Asker, END, Jobs, MONTHS};
use serde_json::{Value, json};
use slurm_site_agent::core::name::ClusterName;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::slurm::totals::{TextTotals, totals};
use slurm_site_agent::slurm::{Processes, Runner, Slurm};

const SEED: u64 = 6;

/// Runs of which the best counts; what else the machine does only ever adds.
const RUNS: usize = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["text", jobs] => write_text(jobs.parse().expect("a number"), Asker::Agent, std::io::stdout().lock()),
        ["peer-text", jobs] => {
            write_text(jobs.parse().expect("a number"), Asker::Peer, std::io::stdout().lock())
        }
        ["totals"] => report_child(read_totals(std::io::stdin().lock()).records),
        ["batches", file] => report_child(batches(Path::new(file))),
        [] => [10_000, 1_000_000].into_iter().for_each(measure),
        _ => words.iter().for_each(|jobs| measure(jobs.parse().expect("a number of jobs"))),
    }
}

fn write_text(jobs: u64, asker: Asker, to: impl Write) {
    let (mut to, mut rows, mut row) =
        (BufWriter::with_capacity(1 << 20, to), Jobs::new(jobs, SEED), Vec::new());
    while rows.print(asker, &mut row) {
        to.write_all(&row).expect("room for the text");
        row.clear();
    }
    to.flush().expect("room for the text");
}

fn read_totals(from: impl Read) -> TextTotals {
    let cluster = ClusterName::parse("lab").expect("a name");
    let months: Vec<Window> =
        MONTHS.windows(2).map(|edges| Window::new(Epoch(edges[0]), Epoch(edges[1]))).collect();
    let found = totals(from, &cluster, &months, Epoch(END)).expect("totals");
    assert_eq!(found.rejected, 0, "{:?}", found.samples);
    found
}

/// What a child tells its parent: records and its peak memory.
fn report_child(records: u64) {
    println!(
        "{}",
        json!({"records": records, "peak_mb": peak_mb(), "cpu_seconds": cpu_time().as_secs_f64()})
    );
}

/// Reads a file as what sacct answers, with a `sacct` that prints it.
fn batches(file: &Path) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("sacct");
    std::fs::write(&program, format!("#!/bin/sh\nexec cat '{}'\n", file.display())).expect("a script");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("a script");
    let processes = Processes {
        bin_dir: folder.path().to_owned(),
        slurm_conf: None,
        timeout: Duration::from_secs(3600),
        output_bytes_max: 1 << 30,
    };
    let slurm = Slurm::new(Runner::Processes(processes), ClusterName::parse("lab").expect("a name"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut stream = slurm.jobs(Window::new(Epoch(MONTHS[0]), Epoch(END))).expect("sacct starts");
        let mut records = 0;
        while let Some(batch) = stream.next_batch().await.expect("an answer") {
            records += batch.len() as u64;
        }
        assert_eq!(stream.rejected(), 0, "{:?}", stream.samples());
        records
    })
}

fn measure(jobs: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jobs");
    write_text(jobs, Asker::Agent, File::create(&file).expect("a file"));
    let bytes = std::fs::metadata(&file).expect("the text").len();
    let tell = |figure: &str, took: Duration, more: Value| {
        let seconds = took.as_secs_f64();
        let mut told = json!({
            "bench": "parse", "figure": figure, "jobs": jobs, "bytes": bytes, "seconds": seconds,
            "mb_per_s": bytes as f64 / 1e6 / seconds, "jobs_per_s": jobs as f64 / seconds,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            told[key] = value.clone();
        }
        println!("{told}");
    };
    // The whole of a long text stays out of memory: the peaks of the children are what counts there.
    if bytes < 1 << 30 {
        let text = sacct_text::text(jobs, SEED, Asker::Agent);
        let (took, (sums, cpu)) = best(|| {
            let begun = cpu_time();
            (read_totals(text.as_slice()).users.len(), cpu_time() - begun)
        });
        tell("totals_from_memory", took, json!({"sums": sums, "cpu_seconds": cpu.as_secs_f64()}));
    }
    for (figure, source) in [("wc_l_of_a_file", Source::File), ("wc_l_from_a_pipe", Source::Pipe)] {
        let (took, _) = best(|| run(Command::new("wc").arg("-l"), &file, source));
        tell(figure, took, json!({}));
    }
    for (figure, source) in [("totals_from_a_file", Source::File), ("totals_from_a_pipe", Source::Pipe)] {
        let (took, told) = best(|| run(Command::new(itself()).arg("totals"), &file, source));
        tell(figure, took, child(&told, jobs));
    }
    let (took, told) = best(|| run(Command::new(itself()).arg("batches").arg(&file), &file, Source::None));
    tell("batches_of_records", took, child(&told, jobs));
    if let Some(instructions) = (jobs <= 100_000).then(|| instructions(&file)).flatten() {
        let per_row = instructions / jobs;
        println!(
            "{}",
            json!({"bench": "parse", "figure": "instructions", "jobs": jobs, "instructions_per_row": per_row})
        );
    }
}

fn itself() -> PathBuf {
    std::env::current_exe().expect("this program")
}

fn best<T>(mut act: impl FnMut() -> T) -> (Duration, T) {
    let timed = (0..RUNS).map(|_| {
        let begun = Instant::now();
        let done = act();
        (begun.elapsed(), done)
    });
    timed.min_by_key(|(took, _)| *took).expect("there are runs")
}

#[derive(Debug, Clone, Copy)]
enum Source {
    File,
    Pipe,
    None,
}

/// Runs a program on the text and gives what it printed.
fn run(program: &mut Command, file: &Path, source: Source) -> String {
    let mut cat = None;
    program.stdin(match source {
        Source::None => Stdio::null(),
        Source::File => File::open(file).expect("the text").into(),
        Source::Pipe => {
            let started = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().expect("cat");
            cat.insert(started).stdout.take().expect("a pipe").into()
        }
    });
    let output = program.stderr(Stdio::inherit()).output().expect("a program");
    assert!(output.status.success(), "{program:?}: {}", output.status);
    if let Some(mut cat) = cat {
        cat.wait().expect("cat ends");
    }
    String::from_utf8(output.stdout).expect("text")
}

fn child(told: &str, jobs: u64) -> Value {
    let told: Value = serde_json::from_str(told).expect("JSON");
    assert_eq!(told["records"], jobs, "every record was read");
    json!({"peak_mb": told["peak_mb"], "cpu_seconds": told["cpu_seconds"]})
}

/// Instructions of a whole run, by valgrind; the same whatever else the machine does.
fn instructions(file: &Path) -> Option<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(itself()).arg("totals");
    let output = valgrind.stdin(File::open(file).ok()?).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

/// Time that this process has kept a core busy: what counts where others use the machine as well.
fn cpu_time() -> Duration {
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock");
    used.into()
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
