//! What Slurm's programs may say.

use serde_json::{Value, json};
use slurm_site_agent::slurm::Answer;

use crate::bench::{Bench, shipped};

/// A cycle in the shipped world changes these four accounts.
const CHANGES: usize = 4;

/// What becomes of one answer.
type Twist = fn(Vec<u8>) -> Vec<u8>;

fn rows(answer: &[u8]) -> Vec<&[u8]> {
    answer.split_inclusive(|byte| *byte == b'\n').collect()
}

fn each_row(answer: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    rows(answer).into_iter().flat_map(|row| change(row.strip_suffix(b"\n").unwrap_or(row))).collect()
}

/// Answers that say the same as before.
const SAME: [(&str, Twist); 3] = [
    ("every row twice", |answer| [answer.clone(), answer].concat()),
    ("rows in the other order", |answer| rows(&answer).into_iter().rev().flatten().copied().collect()),
    ("rows of another cluster among them", |answer| {
        let text = String::from_utf8(answer).expect("UTF-8");
        (text
            .replace("emulated", "elsewhere")
            .lines()
            .take(3)
            .map(|row| format!("{row}\n"))
            .collect::<String>()
            + &text)
            .into_bytes()
    }),
];

/// Answers that say nothing that can be used.
const NOTHING: [(&str, Twist); 10] = [
    ("nothing at all", |_| Vec::new()),
    ("only line breaks", |_| vec![b'\n'; 40]),
    ("another release's columns", |answer| each_row(&answer, |row| [row, b"\x1fnew\n"].concat())),
    ("a column less", |answer| {
        each_row(&answer, |row| {
            let cut = row.iter().rposition(|byte| matches!(byte, b'\x1f' | b'|')).unwrap_or(row.len());
            [&row[..cut], b"\n"].concat()
        })
    }),
    ("another cluster's rows", |answer| {
        String::from_utf8(answer).expect("UTF-8").replace("emulated", "elsewhere").into_bytes()
    }),
    ("a NUL in every field", |answer| {
        each_row(&answer, |row| {
            let fields = row.split_inclusive(|byte| matches!(byte, b'\x1f' | b'|'));
            fields.flat_map(|field| [b"\0", field].concat()).chain([b'\n']).collect()
        })
    }),
    ("a megabyte in front of every row", |answer| {
        let long = "9".repeat(1 << 20);
        each_row(&answer, |row| [long.as_bytes(), row, b"\n"].concat())
    }),
    ("a page of HTML", |_| b"<html><body>\n<h1>502 Bad Gateway</h1>\n</body></html>\n".to_vec()),
    ("noise", |answer| {
        (0..answer.len())
            .map(|at| u8::try_from((at * 7919 + at / 3) % 256).unwrap_or(0))
            .chain([b'\n'])
            .collect()
    }),
    ("text that is not UTF-8", |answer| each_row(&answer, |row| [b"\xff\xfe", row, b"\n"].concat())),
];

fn twisted(bench: &Bench, program: &'static str, word: &'static str, twist: Twist) {
    bench.spoil(move |name, args, answer| {
        if name == program && args.iter().any(|arg| arg == word) {
            return Ok(Answer { stdout: twist(answer.stdout), ..answer });
        }
        Ok(answer)
    });
}

/// The programs that a cycle's decisions rest on, with a word that tells their questions apart.
const QUESTIONS: [(&str, &str); 2] = [("sacct", "-D"), ("sacctmgr", "assoc")];

#[tokio::test]
async fn doubled_reordered_and_foreign_rows_change_no_decision() {
    let mut reference = Bench::shipped().await;
    reference.settle(3).await;
    for (program, word) in QUESTIONS {
        for (what, twist) in SAME {
            let mut bench = Bench::shipped().await;
            twisted(&bench, program, word, twist);
            bench.settle(3).await;
            assert_eq!(bench.associations(), reference.associations(), "{program}: {what}");
            let used =
                |bench: &Bench| bench.portal.handle.with_state(|state| format!("{:?}", state.user_usages));
            assert_eq!(used(&bench), used(&reference), "{program}: {what}");
        }
    }
}

#[tokio::test]
async fn an_unusable_answer_at_first_sight_changes_nothing_and_is_made_up_for() {
    for (program, word) in QUESTIONS {
        // What sacct shows at first sight of a site without any job cannot be told from nothing.
        for (what, twist) in NOTHING.into_iter().skip(usize::from(program == "sacct")) {
            let mut bench = Bench::shipped().await;
            twisted(&bench, program, word, twist);
            let report = bench.cycle().await;
            assert_eq!(bench.modifies(), Vec::<String>::new(), "{program}: {what}");
            assert!(report.decisions.iter().all(|d| d.decided().is_none()), "{program}: {what}: {report:#?}");
            assert!(report.needs_attention(), "{program}: {what}: {report:#?}");
            assert!(!report.findings.is_empty(), "{program}: {what}: said");
            bench.unspoil();
            bench.settle(4).await;
            let mut reference = Bench::shipped().await;
            reference.settle(3).await;
            assert_eq!(bench.associations(), reference.associations(), "{program}: {what}");
        }
    }
}

#[tokio::test]
async fn an_unusable_answer_later_leaves_everything_in_force() {
    for (program, word) in QUESTIONS {
        for (what, twist) in NOTHING {
            let mut bench = Bench::shipped().await;
            bench.settle(3).await;
            let in_force = bench.associations();
            bench.runs();
            // A quiet night: no job has ended within the overlap of two windows.
            bench.advance(5 * 3600);
            twisted(&bench, program, word, twist);
            let report = bench.cycle().await;
            assert_eq!(bench.modifies(), Vec::<String>::new(), "{program}: {what}");
            assert!(report.decisions.iter().all(|d| d.decided().is_none()), "{program}: {what}: {report:#?}");
            assert_eq!(report.collection.runaway, 0, "{program}: {what}: the running job is not set aside");
            assert_eq!(bench.associations(), in_force, "{program}: {what}");
            bench.unspoil();
            let report = bench.cycle().await;
            assert_eq!(report.collection.incomplete, None, "{program}: {what}");
        }
    }
}

#[tokio::test]
async fn an_answer_cut_off_anywhere_inside_a_row_changes_nothing() {
    for (program, word) in QUESTIONS {
        let mut bench = Bench::shipped().await;
        let whole = {
            let (tell, told) = std::sync::mpsc::channel();
            bench.spoil(move |name, args, answer| {
                if name == program && args.iter().any(|arg| arg == word) {
                    tell.send(answer.stdout.len()).expect("the test listens");
                }
                Ok(answer)
            });
            bench.cycle().await;
            told.try_iter().max().expect("it was asked")
        };
        for cut in (1..whole).step_by(whole / 23) {
            let mut bench = Bench::shipped().await;
            bench.spoil(move |name, args, mut answer| {
                if name == program && args.iter().any(|arg| arg == word) {
                    answer.stdout.truncate(cut);
                    if answer.stdout.last() == Some(&b'\n') {
                        answer.stdout.pop();
                    }
                }
                Ok(answer)
            });
            let report = bench.cycle().await;
            assert_eq!(bench.modifies(), Vec::<String>::new(), "{program} cut at {cut}: {report:#?}");
            assert!(report.decisions.iter().all(|d| d.decided().is_none()), "{program} cut at {cut}");
        }
    }
}

#[tokio::test]
async fn two_rows_that_contradict_each_other_count_neither_way() {
    let mut bench = Bench::shipped().await;
    bench.spoil(|name, args, mut answer| {
        if name == "sacct" {
            let text = String::from_utf8(answer.stdout).expect("UTF-8");
            let other: String = text
                .lines()
                .filter(|row| row.contains("dave"))
                .map(|row| format!("{}\n", row.replace("cpu=40", "cpu=4000")))
                .collect();
            answer.stdout = (text + &other).into_bytes();
        }
        if name == "sacctmgr" && args.iter().any(|arg| arg == "assoc") {
            let text = String::from_utf8(answer.stdout).expect("UTF-8");
            let other: String = text
                .lines()
                .filter(|row| row.contains("|chemistry|science||"))
                .map(|row| format!("{}\n", row.replace("||1|", "||77|")))
                .collect();
            assert!(!other.is_empty(), "{text}");
            answer.stdout = (text + &other).into_bytes();
        }
        Ok(answer)
    });
    let report = bench.cycle().await;
    assert_eq!(report.collection.rejected, 4, "both rows of both jobs: {:?}", report.collection.samples);
    let modifies = bench.modifies();
    assert!(!modifies.iter().any(|argv| argv.contains("chemistry")), "{modifies:?}");
    assert_eq!(modifies.len(), CHANGES - 1, "{modifies:?}");
}

/// Names as somebody may have typed them into sacctmgr or sbatch.
fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a\u{1f}b",
        "a|b",
        "a\nb",
        "a\r\nb",
        "'; rm -rf /",
        "\"quoted\"",
        "\u{1b}[31mred",
        "\u{7}",
        "$(reboot)",
        "-i",
        "a,b",
        "a=b",
        "..",
        "root\nroot",
        "é",
        "\u{202e}gnp",
        "a b",
        "%s%n",
        "*",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(10_000));
    names
}

/// A job of a mapped account by a user of that name, one of an account of that name, and one whose name is that.
fn with_hostile_jobs(name: &str) -> Value {
    let mut slurm = shipped("slurm.json");
    let job = |more: Value| {
        let mut job = json!({
            "account": "physics", "user": "alice", "state": "COMPLETED",
            "allocated": "cpu=4,mem=16G,node=1,billing=8",
            "start": "2026-11-09T08:00:00Z", "end": "2026-11-09T09:00:00Z",
        });
        job.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        job
    };
    slurm["jobs"].as_array_mut().expect("jobs").extend([
        job(json!({"name": name, "comment": name, "work_dir": name, "submit_line": name})),
        job(json!({"user": name})),
        job(json!({"account": name})),
    ]);
    slurm
}

#[tokio::test]
async fn hostile_names_of_jobs_users_and_accounts_cost_no_more_than_their_own_rows() {
    let mut reference = Bench::new(&with_hostile_jobs("plain"), &shipped("central.json")).await;
    reference.settle(3).await;
    for name in hostile_names() {
        let mut bench = Bench::new(&with_hostile_jobs(&name), &shipped("central.json")).await;
        let report = bench.cycle().await;
        assert_eq!(report.collection.incomplete, None, "{name:?}");
        // A separator or a line break in a name breaks the row it stands in, into as many as there are lines.
        let broken = name.chars().any(|c| matches!(c, '\u{1f}' | '\n'));
        let lines = name.matches('\n').count() + 1;
        assert_eq!(report.collection.rejected, if broken { 2 * lines } else { 0 }, "{name:?}");
        for sample in &report.collection.samples {
            assert!(!sample.chars().any(char::is_control), "{sample:?}");
        }
        for argv in bench.modifies() {
            assert!(!argv.contains(&name) || name == "-i" || name == "*" || name == "..", "{name:?}: {argv}");
        }
        let other = |bench: &Bench| {
            let mut all = bench.associations();
            all.remove("accounts physics");
            all
        };
        bench.settle(3).await;
        assert_eq!(other(&bench), other(&reference), "{name:?}");
    }
}

#[tokio::test]
async fn what_is_used_below_an_account_counts_there_whatever_the_name() {
    // A coordinator may make accounts below the own one, with nearly any name, and run jobs there.
    let with = |name: &str| {
        let mut slurm = shipped("slurm.json");
        let account = json!({"name": name, "parent": "chemistry"});
        slurm["accounts"].as_array_mut().expect("accounts").push(account);
        slurm["users"].as_array_mut().expect("users").push(json!({"name": "eve", "accounts": [name]}));
        slurm["jobs"].as_array_mut().expect("jobs").push(json!({
            "account": name, "user": "eve", "state": "COMPLETED",
            "allocated": "cpu=40,mem=160G,node=1,gres/gpu=4,billing=112",
            "start": "2026-11-08T08:00:00Z", "end": "2026-11-08T12:00:00Z",
        }));
        slurm
    };
    let used = |report: &slurm_site_agent::agent::cycle::CycleReport| {
        let decided = report.decisions.iter().filter_map(|d| d.decided());
        decided.map(|d| (d.account.to_string(), d.used)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut reference = Bench::new(&with("lab"), &shipped("central.json")).await;
    let wanted = reference.cycle().await;
    for name in ["my lab", "-lab", "l*b", "läb", "lab'", "$(lab)", "l=b", "la\u{7}b"] {
        let mut bench = Bench::new(&with(name), &shipped("central.json")).await;
        let report = bench.cycle().await;
        assert_eq!(used(&report), used(&wanted), "{name:?}");
        assert!(!bench.modifies().iter().any(|argv| argv.contains(name)), "{name:?} itself is not touched");
        let told =
            bench.portal.handle.with_state(|state| state.user_usages.iter().any(|row| row.username == "eve"));
        assert!(told, "{name:?}: the portal has it");
    }
    // A separator of sacctmgr hides where the account is: then a person must look.
    let mut bench = Bench::new(&with("la|b"), &shipped("central.json")).await;
    let report = bench.cycle().await;
    let found = report.findings.iter().find(|finding| finding.contains("\"la|b\""));
    assert!(found.is_some_and(|text| text.contains("count for no allocation")), "{:?}", report.findings);
}

#[tokio::test]
async fn odd_names_of_tres_are_kept_or_rejected_and_never_become_others() {
    for tres in
        ["gres/gpu:a100", "license/matlab@srv", "gres/fpga_1.2", "bb/cray", "gres/\u{3b2}", "gres/gpu;x"]
    {
        let mut slurm = shipped("slurm.json");
        slurm["tres"] = json!({"1001": "gres/gpu", "2000": tres});
        for job in
            slurm["jobs"].as_array_mut().expect("jobs").iter_mut().filter(|job| job["allocated"].is_string())
        {
            let more = format!("{},{tres}=1", job["allocated"].as_str().expect("a text"));
            job["allocated"] = json!(more);
        }
        let mut bench = Bench::new(&slurm, &shipped("central.json")).await;
        let report = bench.cycle().await;
        let mut reference = Bench::shipped().await;
        reference.cycle().await;
        if report.collection.incomplete.is_none() {
            assert_eq!(report.collection.rejected, 0, "{tres:?}");
            assert_eq!(bench.modifies(), reference.modifies(), "{tres:?}");
        } else {
            // A name that cannot be written into a limit: no row of it is read as something else.
            assert!(report.collection.rejected > 0, "{tres:?}");
            assert_eq!(bench.modifies(), Vec::<String>::new(), "{tres:?}");
        }
    }
}
