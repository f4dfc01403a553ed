//! The fast parser and the slow one agree: on real answers, on generated ones, and on answers spoilt in every way.
//!
//! The fuzzing is an own seeded mutator rather than a coverage-guided fuzzer: it runs on a stable toolchain inside the test
//! command, in bounded time, and knows the grammar (fields, numbers at their edges, units, repeated and contradicting rows), which
//! random bytes would hardly reach. Each run takes one fixed seed and one of its own, and a failure names its seed and case:
//! SITE_AGENT_FUZZ_SEED=N SITE_AGENT_FUZZ_CASES=N cargo nextest run --test parsers agree

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::Arc;

use slurm_site_agent::core::job::JobRecord;
use slurm_site_agent::core::time::{Epoch, Window};
use slurm_site_agent::slurm::totals::{TotalsError, UserOfPeriod, totals};
use slurm_site_agent::slurm::{Answer, Class, Runner, Slurm, SlurmError, sacct};

use super::reference::{self, Reading};
use super::sacct_text::{self, Asker, END, MONTHS, Random};
use super::{JOBS, lab};

/// Cases for each of the two seeds: some seconds of a debug build.
const CASES: u64 = 3000;

const NOW: Epoch = Epoch(END);

fn months() -> Vec<Window> {
    MONTHS.windows(2).map(|edges| Window::new(Epoch(edges[0]), Epoch(edges[1]))).collect()
}

/// Hands out its text in pieces of all sizes.
struct Pieces<'a>(&'a [u8], Random);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = if self.1.one_in(3) { 7 } else { 3000 };
        let size = (1 + self.1.below(most) as usize).min(self.0.len()).min(into.len());
        let (now, later) = self.0.split_at(size);
        into[..size].copy_from_slice(now);
        self.0 = later;
        Ok(size)
    }
}

/// Both parsers, and both ways to totals, on one answer.
fn check(answer: &[u8], seed: u64) {
    let cluster = lab();
    let slow = reference::read(answer, &cluster);
    let fast = sacct::parse_jobs(answer, &cluster);
    assert_eq!(fast.records, slow.records);
    assert_eq!(fast.rejected, slow.reasons.len());
    let rejected: Vec<&str> = fast.samples.iter().map(|sample| sample.split(": ").next().unwrap()).collect();
    // The row that first contradicts another is shown once and counts for both.
    if !slow.reasons.contains(&"contradicts another row") {
        assert_eq!(rejected, slow.reasons[..slow.reasons.len().min(5)]);
    }
    check_totals(answer, &slow, seed);
}

fn check_totals(answer: &[u8], slow: &Reading, seed: u64) {
    let found = totals(Pieces(answer, Random(seed)), &lab(), &months(), NOW);
    let keys: BTreeSet<u64> = slow.rows.iter().map(|record| record.key.dbindex).collect();
    if keys.len() < slow.rows.len() {
        assert!(matches!(found, Err(TotalsError::Repeated(key)) if keys.contains(&key)), "{found:?}");
        return;
    }
    let found = found.unwrap();
    let (used, inexact) = reference::totals(&slow.rows, &months(), NOW);
    let owned =
        |(of, used): (&UserOfPeriod, _)| ((of.account.to_string(), of.user.to_string(), of.period), used);
    assert_eq!(found.used().map(owned).collect::<BTreeMap<_, _>>(), used);
    assert_eq!(found.users.len(), used.len());
    assert_eq!((found.inexact, found.records), (inexact, slow.rows.len() as u64));
    assert_eq!(found.rejected, slow.reasons.len());
}

#[test]
fn on_real_answers() {
    check(JOBS, 0);
    check(&JOBS.repeat(2), 0);
    for cut in 0..JOBS.len() {
        let (slow, fast) = (reference::read(&JOBS[..cut], &lab()), sacct::parse_jobs(&JOBS[..cut], &lab()));
        assert_eq!((fast.records, fast.rejected), (slow.records, slow.reasons.len()), "{cut}");
    }
}

#[test]
fn on_generated_answers_of_realistic_shape() {
    let text = sacct_text::text(20_000, 1, Asker::Agent);
    check(&text, 1);
    let slow = reference::read(&text, &lab());
    assert_eq!((slow.rows.len(), slow.reasons.len()), (20_000, 0));
    // The Python agent is timed on the same jobs: see benches/peer.py.
    let peer = String::from_utf8(sacct_text::text(20_000, 1, Asker::Peer)).unwrap();
    for (row, job) in peer.lines().zip(&slow.rows) {
        assert!(
            row.starts_with(&format!("{}|", job.account)) && row.ends_with(&format!("|{}", job.user)),
            "{row}"
        );
    }
    let shape = |count: &dyn Fn(&JobRecord) -> bool| slow.rows.iter().filter(|job| count(job)).count();
    assert!(shape(&|job| job.suspended_s > 0) > 50 && shape(&|job| job.start.is_none()) > 300);
    assert!(shape(&|job| job.end.is_none()) > 5 && shape(&|job| job.state == "REQUEUED") > 1000);
}

#[test]
fn on_an_answer_with_more_tres_than_the_sums_have_places_for_at_first() {
    let text = String::from_utf8(sacct_text::text(200, 7, Asker::Agent)).unwrap();
    let mut answer = String::new();
    for (number, row) in text.lines().enumerate() {
        let (start, _) = row.rsplit_once('\x1f').unwrap();
        answer += &format!("{start}\x1fcpu=2,license/l{}=3,mem=1G\n", number / 3);
    }
    check(answer.as_bytes(), 7);
    assert!(totals(answer.as_bytes(), &lab(), &months(), NOW).unwrap().tres.len() > 60);
}

#[test]
fn a_text_that_breaks_off_or_never_ends_a_row_has_no_totals() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let text = sacct_text::text(20, 8, Asker::Agent);
    let found = totals(text.chain(Broken), &lab(), &months(), NOW);
    assert!(matches!(found, Err(TotalsError::Read(_))), "{found:?}");
    let found = totals(std::io::repeat(b'x'), &lab(), &months(), NOW);
    assert!(matches!(found, Err(TotalsError::LongRow)), "{found:?}");
}

/// Texts at the edges of what fields may hold.
const EDGES: &[&str] = &[
    "",
    "0",
    "1",
    "9",
    "00000001",
    "12345678",
    "123456789",
    "9999999999",
    "10000000000",
    "253402300799",
    "253402300800",
    "1795323600",
    "18446744073709551615",
    "18446744073709551616",
    "000000000000000000000000000007",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1.0",
    "1e3",
    "Unknown",
    "None",
    "NONE",
    "unknown",
    "2026-11-22T05:00:00",
    "00:00:00",
    "00:00:01",
    "1-00:00:00",
    "27-22:05:00",
    "05:03",
    "00:01.250",
    "1-24:00:00",
    "00:60:00",
    "400-00:00:01",
    "99999999999999999999-00:00:00",
    "213503982334601-07:00:15",
    "213503982334601-07:00:16",
    "INVALID",
    "lab",
    "LAB",
    "Lab",
    "other",
    "CANCELLED by 1000",
    "cpu=1",
    "cpu=1,cpu=1",
    "mem=0",
    "mem=1500M",
    "mem=1.50G",
    "mem=1.46G",
    "mem=2048K",
    "mem=512K",
    "bb/cray=1P",
    "mem=1E",
    "mem=.5G",
    "mem=1.G",
    "billing=NONE",
    "billing=9,cpu=1,gres/gpu:a100=1,gres/gpu=1,mem=700M,node=1",
    "energy=500",
    "energy=5,cpu=2",
    "cpu=1,",
    ",cpu=1",
    "=1",
    "cpu",
    "cpu=",
    "cpu=1=2",
    "license/matlab@srv=3",
    "cpu=1K",
    "é=1",
    "cpu=é",
    "billing=18446744073709551615",
    "cpu=18446744073709551616",
    "mem=1g",
    "fs/disk=7",
    "-x=1",
];

/// One answer, spoilt: rows of real and of generated answers with odd fields, odd bytes, repetitions and cuts.
fn spoilt(random: &mut Random, real: &[&[u8]], generated: &[&[u8]]) -> Vec<u8> {
    let mut answer = Vec::new();
    for _ in 0..random.below(12) {
        let from = if random.one_in(3) { real } else { generated };
        let row = from[random.below(from.len() as u64) as usize];
        let mut fields: Vec<Vec<u8>> = row.split(|byte| *byte == 0x1f).map(<[u8]>::to_vec).collect();
        while random.one_in(2) {
            let field = random.below(fields.len() as u64) as usize;
            spoil_field(random, &mut fields, field);
        }
        let row = fields.join(&0x1f);
        let times = if random.one_in(6) { 2 } else { 1 };
        for _ in 0..times {
            answer.extend_from_slice(&row);
            answer.push(b'\n');
        }
    }
    while random.one_in(3) && !answer.is_empty() {
        let at = random.below(answer.len() as u64) as usize;
        match random.below(4) {
            0 => answer.truncate(at),
            1 => answer[at] = random.next() as u8,
            2 => answer.insert(at, b"\n\x1f|,=-:.KMGTP0\xff"[random.below(15) as usize]),
            _ => drop(answer.remove(at)),
        }
    }
    answer
}

fn spoil_field(random: &mut Random, fields: &mut Vec<Vec<u8>>, field: usize) {
    match random.below(8) {
        0..=3 => fields[field] = EDGES[random.below(EDGES.len() as u64) as usize].into(),
        4 => fields[field].extend_from_slice(EDGES[random.below(EDGES.len() as u64) as usize].as_bytes()),
        5 => drop(fields.remove(field).pop()),
        6 => fields.insert(field, b"odd".to_vec()),
        _ => {
            for _ in 0..1 + random.below(3) {
                let at = random.below(fields[field].len() as u64 + 1) as usize;
                let byte = random.next() as u8;
                fields[field].insert(at, if byte == b'\n' { b'x' } else { byte });
            }
        }
    }
    if fields.is_empty() {
        fields.push(Vec::new());
    }
}

#[test]
fn on_answers_spoilt_in_every_way() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let cases = number("SITE_AGENT_FUZZ_CASES").unwrap_or(CASES);
    let seeds = match number("SITE_AGENT_FUZZ_SEED") {
        Some(seed) => vec![seed],
        None => vec![6, RandomState::new().hash_one(0)],
    };
    let generated = sacct_text::text(500, 2, Asker::Agent);
    let rows = |text: &'static [u8]| -> Vec<&[u8]> { text.split(|byte| *byte == b'\n').collect() };
    let (real, generated) = (rows(JOBS), rows(generated.leak()));
    let mut understood = 0;
    for seed in seeds {
        for case in 0..cases {
            // Each case has a seed of its own, so that one can be repeated alone.
            let own = Random(seed).next() ^ case;
            let answer = spoilt(&mut Random(own), &real, &generated);
            let done = std::panic::catch_unwind(|| check(&answer, own));
            assert!(
                done.is_ok(),
                "the parsers differ; SITE_AGENT_FUZZ_SEED={seed}, case {case}: {:?}",
                String::from_utf8_lossy(&answer)
            );
            understood += reference::read(&answer, &lab()).rows.len();
        }
    }
    assert!(understood as u64 > cases, "most cases have rows that are understood");
}

// ---------------------------------------------------------------- batches

fn slurm(stdout: Vec<u8>, status: i32) -> Slurm {
    let answer = Answer { stdout, stderr: Vec::new(), status };
    Slurm::new(Runner::Emulated(Arc::new(move |_, _, _| Ok(answer.clone()))), lab())
}

async fn batches(slurm: &Slurm) -> (Vec<Vec<JobRecord>>, Option<SlurmError>) {
    let mut stream = slurm.jobs(Window::new(Epoch(MONTHS[0]), NOW)).unwrap();
    let mut batches = Vec::new();
    loop {
        match stream.next_batch().await {
            Ok(Some(batch)) => batches.push(batch),
            Ok(None) => return (batches, None),
            Err(error) => return (batches, Some(error)),
        }
    }
}

#[tokio::test]
async fn an_answer_of_many_records_comes_in_several_batches_that_are_the_whole_of_it() {
    let text = sacct_text::text(150_000, 3, Asker::Agent);
    let (batches, error) = batches(&slurm(text.clone(), 0)).await;
    assert!(error.is_none() && batches.len() > 3, "{error:?}");
    assert!(batches.iter().all(|batch| batch.len() < 40_000));
    let mut records = batches.concat();
    records.sort_by_key(|record| record.key.dbindex);
    assert_eq!(records, sacct::parse_jobs(&text, &lab()).records);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_whole_answer_whatever_came_before() {
    let text = sacct_text::text(80_000, 4, Asker::Agent);
    for (text, status) in [(text.clone(), 1), (text[..text.len() - 1].to_vec(), 0)] {
        let (batches, error) = batches(&slurm(text, status)).await;
        assert!(!batches.is_empty(), "batches came before the end was seen");
        assert!(error.is_some(), "status {status}");
    }
}

#[tokio::test]
async fn a_record_that_a_batch_before_had_spoils_the_answer() {
    let mut text = sacct_text::text(80_000, 5, Asker::Agent);
    let first = text.split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
    text.extend_from_slice(&first);
    let (batches, error) = batches(&slurm(text, 0)).await;
    assert!(!batches.is_empty(), "batches came before the one that repeats");
    let error = error.unwrap();
    assert!(matches!(error, SlurmError::Repeated { .. }) && error.class() == Class::Corrupt, "{error}");
}

#[tokio::test]
async fn a_row_without_end_ends_sacct() {
    let (batches, error) = batches(&slurm(vec![b'x'; 3 << 20], 0)).await;
    assert!(batches.is_empty());
    assert!(matches!(&error, Some(SlurmError::Run { .. })), "{error:?}");
}
