//! sacct's rows.

use std::collections::{BTreeMap, BTreeSet};

use slurm_site_agent::core::job::{JobKey, JobRecord};
use slurm_site_agent::core::time::Epoch;
use slurm_site_agent::slurm::{JobLines, sacct};

use super::{JOBS, fixture, lab, tres};

fn job(lines: &JobLines, dbindex: u64) -> &JobRecord {
    lines.records.iter().find(|record| record.key.dbindex == dbindex).unwrap()
}

/// The row of a record as sacct prints it for the agent's question.
fn printed(record: &JobRecord) -> Vec<u8> {
    let time = |time: Option<Epoch>, none: &str| time.map_or(none.to_owned(), |time| time.0.to_string());
    let (days, rest) = (record.suspended_s / 86_400, record.suspended_s % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    let never = if record.state.starts_with("CANCELLED") { "None" } else { "Unknown" };
    let unit = |tres: &str| if tres == "mem" { "M" } else { "" };
    let alloc: Vec<String> =
        record.alloc.iter().map(|(tres, count)| format!("{tres}={count}{}", unit(tres.as_str()))).collect();
    let fields = [
        record.key.cluster.to_string(),
        record.key.dbindex.to_string(),
        record.job_id.to_string(),
        record.account.to_string(),
        record.user.to_string(),
        record.state.to_string(),
        record.submit.0.to_string(),
        time(record.eligible, "Unknown"),
        time(record.start, never),
        time(record.end, "Unknown"),
        if days > 0 { format!("{days}-{clock}") } else { clock },
        record.elapsed_s.to_string(),
        record.partition.to_string(),
        record.qos.to_string(),
        record.assoc_id.map_or(String::new(), |id| id.to_string()),
        alloc.join(","),
    ];
    fields.join("\x1f").into_bytes()
}

#[test]
fn every_record_of_a_real_answer_is_read_and_prints_as_it_was() {
    let lines = sacct::parse_jobs(JOBS, &lab());
    assert_eq!((lines.records.len(), lines.rejected, lines.samples.as_slice()), (28, 0, [].as_slice()));
    let again: BTreeSet<Vec<u8>> = lines.records.iter().map(printed).collect();
    let rows = JOBS.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
    assert_eq!(again, rows.map(<[u8]>::to_vec).collect());
}

#[test]
fn a_record_has_the_values_that_sacct_printed() {
    let lines = sacct::parse_jobs(JOBS, &lab());
    let expected = JobRecord {
        key: JobKey { cluster: lab(), dbindex: 42 },
        job_id: 24,
        account: "acc_other".into(),
        user: "alice".into(),
        state: "FAILED".into(),
        submit: Epoch(1_795_329_799),
        eligible: Some(Epoch(1_795_329_799)),
        start: Some(Epoch(1_795_329_800)),
        end: Some(Epoch(1_795_330_300)),
        suspended_s: 0,
        elapsed_s: 500,
        partition: "debug".into(),
        qos: "normal".into(),
        assoc_id: Some(9),
        alloc: tres(&[("billing", 19), ("cpu", 3), ("gres/gpu", 2), ("mem", 2048), ("node", 1)]).into(),
    };
    assert_eq!(job(&lines, 42), &expected);
}

#[test]
fn records_that_wait_run_or_never_started_have_no_start_or_end() {
    let lines = sacct::parse_jobs(JOBS, &lab());
    let shape = |dbindex| {
        let record = job(&lines, dbindex);
        let known = [record.start, record.end].map(|time| time.is_some());
        (record.state.as_str(), known, record.alloc.is_empty(), record.suspended_s)
    };
    assert_eq!(shape(14), ("PENDING", [false, false], true, 0));
    assert_eq!(shape(15), ("CANCELLED by 1001", [false, true], true, 0));
    assert_eq!(shape(45), ("RUNNING", [true, false], false, 0));
    assert_eq!(shape(44), ("SUSPENDED", [true, false], false, 10));
    assert_eq!(shape(29), ("COMPLETED", [true, true], false, 27 * 86_400 + 22 * 3600 + 300));
}

#[test]
fn both_incarnations_of_a_requeued_job_are_records_of_their_own() {
    let lines = sacct::parse_jobs(JOBS, &lab());
    let of_job = lines.records.iter().filter(|record| record.job_id == 12);
    let states: Vec<_> = of_job.map(|record| (record.key.dbindex, record.state.as_str())).collect();
    assert_eq!(states, [(22, "REQUEUED"), (24, "COMPLETED")]);
}

#[test]
fn an_account_with_a_separator_in_its_name_harms_no_record() {
    let lines = sacct::parse_jobs(JOBS, &lab());
    let accounts = [32, 34].map(|dbindex| job(&lines, dbindex).account.as_str());
    assert_eq!(accounts, ["edge|pipe", "edge space"]);
}

#[test]
fn a_row_that_is_not_understood_is_rejected_and_shown_and_never_becomes_zero() {
    let good =
        "lab|7|5|bio|alice|COMPLETED|100|100|100|200|00:00:00|100|debug|normal|3|billing=9,cpu=1,mem=700M";
    let replaced = |index: usize, text: &str| {
        let mut fields: Vec<&str> = good.split('|').collect();
        fields[index] = text;
        fields.join("|")
    };
    let cases = [
        (replaced(0, "other"), "another cluster"),
        (replaced(1, ""), "DBIndex is no number"),
        (replaced(1, "0"), "DBIndex is no number"),
        (replaced(1, "18446744073709551616"), "DBIndex is no number"),
        (replaced(2, "5.batch"), "JobIDRaw is no number"),
        (replaced(6, "Unknown"), "Submit is no time"),
        (replaced(7, "x"), "Eligible is no time"),
        (replaced(8, "2026-11-22T05:00:00"), "Start is no time"),
        (replaced(9, "-5"), "End is no time"),
        (replaced(9, "0"), "End is no time"),
        (replaced(10, "INVALID"), "Suspended is no duration"),
        (replaced(11, ""), "ElapsedRaw is no number"),
        (replaced(14, "x"), "AssocID is no number"),
        (replaced(15, "billing=9,cpu"), "AllocTRES is no list of counts"),
        (replaced(15, "billing=NONE"), "AllocTRES is no list of counts"),
        (replaced(15, "mem=1.46G"), "AllocTRES is no list of counts"),
        (replaced(3, "a|b"), "not 16 fields"),
        (replaced(3, "a\nb"), "not 16 fields"),
        (String::new(), "not 16 fields"),
        (good.rsplit_once('|').unwrap().0.to_owned(), "not 16 fields"),
    ];
    for (row, reason) in cases {
        let answer = format!("{row}\n").replace('|', "\x1f");
        let lines = sacct::parse_jobs(answer.as_bytes(), &lab());
        let rows = row.split('\n').count();
        assert_eq!((lines.records.len(), lines.rejected, lines.samples.len()), (0, rows, rows), "{row}");
        assert!(lines.samples[0].starts_with(reason), "{row}: {:?}", lines.samples);
        assert!(!lines.samples[0].contains(char::is_control), "{row}");
    }
    let answer = format!("{good}\n").replace('|', "\x1f");
    assert_eq!(sacct::parse_jobs(answer.as_bytes(), &lab()).records.len(), 1);
}

#[test]
fn keys_have_64_bits_as_since_24_11() {
    let answer =
        String::from_utf8(JOBS.to_vec()).unwrap().replace("lab\x1f42\x1f", "lab\x1f5662863144248540160\x1f");
    let lines = sacct::parse_jobs(answer.as_bytes(), &lab());
    assert_eq!(job(&lines, 5_662_863_144_248_540_160).job_id, 24);
}

#[test]
fn a_last_row_without_its_newline_was_cut_off_and_is_rejected() {
    let lines = sacct::parse_jobs(&JOBS[..JOBS.len() - 1], &lab());
    assert_eq!((lines.records.len(), lines.rejected), (27, 1));
    assert!(lines.samples[0].starts_with("cut off: lab\\u{1f}45\\u{1f}"), "{:?}", lines.samples);
}

#[test]
fn only_a_few_rejected_rows_are_kept_to_be_shown() {
    let lines = sacct::parse_jobs("rubbish\n".repeat(1000).as_bytes(), &lab());
    assert_eq!((lines.records.len(), lines.rejected, lines.samples.len()), (0, 1000, 5));
    let lines = sacct::parse_jobs(&[b'x'; 1 << 20], &lab());
    assert!(lines.samples[0].len() < 300);
}

#[test]
fn a_record_told_in_two_ways_is_not_known() {
    let twice = [JOBS, JOBS].concat();
    assert_eq!(sacct::parse_jobs(&twice, &lab()), sacct::parse_jobs(JOBS, &lab()));
    let other = String::from_utf8(JOBS.to_vec()).unwrap().replace("billing=19,", "billing=20,");
    let lines = sacct::parse_jobs(&[JOBS, other.as_bytes()].concat(), &lab());
    assert_eq!((lines.records.len(), lines.rejected), (27, 2));
    assert!(lines.records.iter().all(|record| record.key.dbindex != 42));
}

#[test]
fn seconds_of_suspension_before_an_edge_are_read_by_record() {
    let found = sacct::parse_suspended(fixture!("sacct-suspended.out"), &lab());
    assert_eq!(found, BTreeMap::from([(20, 56 * 60 + 40), (29, 27 * 86_400 + 22 * 3600 + 300)]));
}
