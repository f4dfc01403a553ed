//! What is wrong is said completely, in its place, with a reason and a way out.

use proptest::prelude::*;

use super::super::{ConfigErrors, load, parse};
use super::{EXAMPLE, REQUIRED, good, refused};

#[test]
fn every_problem_of_a_file_is_reported_at_once() {
    let text = r#"[cluster]
bin_dir = "bin"
time_zone = "Europe/Berlim"
timeout = "5 parsecs"
output_bytes_max = 1.5
timeuot = "60s"

[[source]]
name = "local"
kind = "waldur"
url = "http://waldur.example.org/api"
offering = "5e1f"
attempts_max = 0

[components]
cpu = { tres = "cpu", unit = "GB-h" }
CPU = { tres = "node", unit = "days", extra = true }

[qos]
slowdown = "normal"
ladder = [{ percent = 100, qos = "slow" }, { percent = 90, qos = "no/good" }]

[schedule]
audit = "61 * * * *"
report = "0 0 1 * 1"

[limitz]
drain = 30
"#;
    insta::assert_snapshot!(refused(text));
}

/// One wrong value or key at a time: `(text put at the end of the required keys, words of the message)`.
#[test]
fn each_wrong_value_has_its_reason() {
    let cases = [
        ("[[source]]\nname = \"waldur\"", "another source has this name"),
        (
            "[[source]]\nkind = \"waldur-policy\"\noffering = \"5e1f0a3c-9b7d-4e2f-8a6c-1d0b3e5f7a90\"",
            "another source has this offering",
        ),
        ("[[source]]\ntoken_file = \"/a\"\ntoken_credential = \"b\"", "the secret is named twice"),
        ("[[source]]\nname = \"b\"", "the secret is missing"),
        ("[[source]]\ntoken_credential = \"../b\"", "cannot be the name of a systemd credential"),
        ("[[source]]\nproxy = \"ftp://proxy:1\"", "not the url of a proxy"),
        ("[[source]]\nkind = \"nomad\"", "source[1].accounts: it is missing and has no default"),
        (
            "[[source]]\nkind = \"nomad\"\noffering = \"x\"",
            "source[1].offering: a source of kind \"nomad\" has no such key\n    allowed: its own keys are accounts, region,",
        ),
        (
            "[[source]]\nkind = \"waldur-policy\"\nwait = \"5m\"",
            "a source of kind \"waldur-policy\" has no such key\n    allowed: its own keys are offering, enforcement",
        ),
        ("[[source]]\nkind = \"waldur-quota\"\nenforcement = \"agent\"", "has no such key"),
        ("[[source]]\nkind = \"waldur-quota\"\ntres = {}", "no quota would mean anything"),
        ("[[source]]\nkind = \"waldur-quota\"\naccounts = { a = \"root\" }", "is never changed"),
        ("[[source]]\nkind = \"waldur-quota\"\nunit = \"days\"", "\"seconds\", \"minutes\", \"hours\""),
        ("[[source]]\nkind = \"nomad\"\naccounts = {}", "no account is named"),
        ("[[source]]\nkind = \"nomad\"\naccounts = { q = \"a b\" }", "source[1].accounts.q = \"a b\""),
        ("[[source]]\nkind = \"nomad\"\nmhz_per_core = 0", "a core has some MHz"),
        ("[[source]]\nkind = \"nomad\"\nprefix = \"a_b\"", "no quota of Nomad begins like this"),
        (
            "[[source]]\nkind = \"nomad\"\naccounts = { q = \"bio\" }\nprefix = \"x\"",
            "quota \"q\" of accounts does not begin with the prefix \"x\"",
        ),
        ("[[source]]\nkind = \"nomad\"\nwait = \"11m\"", "a duration from 1s to 10m"),
        ("[[source]]\nkind = \"nomad\"\ndevices = { fpga = \"a=b\" }", "source[1].devices.fpga"),
        ("[[source]]\nkind = \"datarobot\"", "source[1].resources: it is missing and has no default"),
        (
            "[[source]]\nkind = \"datarobot\"\ngroups = { g = [\"bob\"] }",
            "it does not say whether it is an account or a user\n    allowed: \"account:NAME\" or \"user:NAME\"",
        ),
        ("[[source]]\nkind = \"datarobot\"\nusers = { u = \"a,b\" }", "source[1].users.u = \"a,b\""),
        ("[[source]]\nkind = \"nomd\"\noffering = 5\nwait = 7", "did you mean \"nomad\"?"),
        ("[source2]", "this key is unknown; did you mean source?"),
        ("[amie]\nsite = \"a b\"", "cannot be sent in a header"),
        ("[amie]\nsince = \"2026-02-30\"", "amie.since = \"2026-02-30\""),
        ("[amie]\nbatch_bytes_max = 2000000", "from 4096 to 1024000"),
        ("[amie]\nprojects = { Bio = \"x\", bio = \"y\" }", "this account is there twice"),
        ("[amie]\nprojects = { \"a b\" = \"x\" }", "only letters, digits"),
        ("[accounts]\npatterns = [\"a b\"]", "not a pattern of account names"),
        (
            "[accounts]\nparents = [\"bio\", 7, \"\"]",
            "accounts.parents[2] = \"\": \"\" is not a usable account name",
        ),
        (
            "[accounts]\nparents = [\"bio\", 7, \"\"]",
            "accounts.parents[1] = 7: expected a text in quotes, found an integer",
        ),
        ("[limits]\noverlap = \"2days\"", "a window that only repeats the one before gets nowhere"),
        ("[limits]\nfacts_age_max = \"5m\"", "everything it says would be too old to decide anything"),
        ("[limits]\ndrain = \"1s 1ns\"", "finer than a millisecond"),
        ("[limits]\ntighten_share_percent = -1", "a whole number from 0 to 100"),
        ("[limits]\nrejects_max = 99999999999999999999", "out of range"),
        ("[store]\nkeep_jobs = \"30days\"", "a duration from 190days to 36600days"),
        ("[log]\nlevel = \"loud=very\"", "log.level"),
        ("[log]\nformat = \"jsno\"", "did you mean \"json\"?"),
        ("[reports]\nusers = \"yes\"", "expected true or false, found a string"),
        ("[schedule]\ndeep_scan = \"0 17 3 * * *\"", "it has 6 fields, not five"),
        ("[qos]\nladder = []", "an empty ladder would never slow anyone down"),
        ("[qos]\nblocked = \"Slowdown\"", "two levels have the same QOS"),
        ("[components]\nram = { tres = \"mem\", unit = \"h\" }", "mem cannot be counted in h"),
        (
            "[components]\na = { tres = \"cpu\", unit = \"h\" }\nb = { tres = \"cpu\", unit = \"kh\" }",
            "both would set the same limit",
        ),
        ("[components]", "no component is left"),
        ("[[allocation]]\naccount = \"Root\"\nlimits = { cpu = 1 }", "is never changed"),
        ("[[allocation]]\naccount = \"a\"\nlimits = {}", "nothing is granted"),
        ("[[allocation]]\naccount = \"a\"\nlimits = { tpu = 1 }", "allowed: cpu, gpu, ram"),
        ("[[allocation]]\naccount = \"a\"\nlimits = { cpu = -1 }", "it is negative"),
        ("[[allocation]]\naccount = \"a\"\nlimits = { cpu = 1e3 }", "is not a decimal number"),
        ("[[allocation]]\naccount = \"a\"\nlimits = { cpu = nan }", "is not a decimal number"),
        (
            "[[allocation]]\naccount = \"a\"\nlimits = { cpu = 1 }\ngrace = 20",
            "it is a ratio, not a percentage",
        ),
        (
            "[[allocation]]\naccount = \"a\"\nactions = [\"pause\", \"stop\"]",
            "\"downscale\", \"pause\", \"notify\"",
        ),
        ("[[allocation]]\naccount = \"a\"\nperiod = \"week\"", "\"month\", \"quarter\", \"year\", \"total\""),
        (
            "[[allocation]]\naccount = \"a\"\nlimits = { cpu = 1 }\n[[allocation]]\naccount = \"A\"\nlimits = { cpu = 1 }",
            "this account has another [[allocation]]",
        ),
        ("[allocation]\naccount = \"a\"", "[[allocation]] in place of [allocation]"),
    ];
    for (added, words) in cases {
        let message = refused(&format!("{REQUIRED}\n{added}\n"));
        assert!(message.contains(words), "{added}\nsays\n{message}\nbut not\n{words}");
    }
}

#[test]
fn a_value_in_the_place_of_a_table_is_refused() {
    let message = refused("components = 1\nsource = [2]\namie = true\ncluster = []\n");
    for words in
        ["1:14: components = 1: expected a table", "2:11: source[0] = 2", "amie = true", "cluster = []"]
    {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn an_empty_file_says_what_is_required() {
    assert_eq!(
        refused(""),
        "test.toml:1:1: cluster.name: it is missing and has no default\n    \
         allowed: see config/site-agent.toml, which explains every key"
    );
}

#[test]
fn a_cluster_name_is_all_that_a_site_without_a_server_needs() {
    let config = good("[cluster]\nname = \"linux\"");
    assert!(config.sources.is_empty() && config.amie.is_none() && config.allocations.is_empty());
    assert_eq!(config.poll_interval(), config.schedule.poll);
}

#[test]
fn the_shortest_interval_of_the_sources_is_the_agents() {
    let more = REQUIRED.replace("[cluster]\nname = \"linux\"\n", "").replace("\"waldur\"", "\"second\"");
    let more = more.replace("5e1f", "6e1f") + "poll_interval = \"7s\"\n";
    let config = good(&format!("{REQUIRED}{more}[schedule]\npoll = \"1s\"\n"));
    assert_eq!(config.sources.len(), 2);
    assert_eq!(config.poll_interval(), std::time::Duration::from_secs(7));
}

#[test]
fn what_is_not_toml_is_shown_with_line_and_caret() {
    let message = refused("[cluster]\nname = \"linux\"\ntimeout = 5m\n[log\nformat = \"json\"\n");
    insta::assert_snapshot!(message);
}

#[test]
fn the_column_counts_characters() {
    let ConfigErrors { problems, .. } =
        parse("[cluster]\nname = \"ä\"\n[amie.users]\n\"öö\" = 1\n", "t").unwrap_err();
    let places: Vec<_> = problems.iter().map(|p| (p.key.as_str(), p.line, p.column)).collect();
    assert!(places.contains(&("amie.users.\"öö\"", Some(4), 8)), "{places:?}");
    assert!(places.contains(&("cluster.name", Some(2), 8)), "{places:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    let message = load(&missing).unwrap_err().to_string();
    assert!(message.starts_with(missing.to_str().unwrap()) && message.contains("--config"), "{message}");

    let file = directory.path().join("config.toml");
    std::fs::write(&file, REQUIRED).unwrap();
    set_mode(&file, 0o666);
    let message = load(&file).unwrap_err().to_string();
    assert!(message.contains("0666") && message.contains("chmod o-w"), "{message}");
    set_mode(&file, 0o644);
    assert_eq!(load(&file).unwrap(), good(REQUIRED));

    std::fs::write(&file, b"[cluster]\nname = \"\xff\"\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("UTF-8"));
    std::fs::write(&file, vec![b'#'; 9 << 20]).unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("longer than"));
}

fn set_mode(file: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

proptest! {
    /// A damaged file is read or refused with at least one problem, each in a line that exists; it never panics.
    #[test]
    fn a_damaged_example_is_refused_in_order(
        at in 0usize..EXAMPLE.len(),
        taken in 0usize..40,
        put in "[ -~\n\"\\[\\]{}=#äß]{0,12}",
        uncomment in any::<bool>(),
    ) {
        let text = if uncomment { EXAMPLE.replace("\n#", "\n") } else { EXAMPLE.to_owned() };
        let floor = |mut n: usize| { while !text.is_char_boundary(n) { n -= 1 } n };
        let (from, until) = (floor(at.min(text.len())), floor((at + taken).min(text.len())));
        let damaged = format!("{}{put}{}", &text[..from], &text[until.max(from)..]);
        if let Err(errors) = parse(&damaged, "test.toml") {
            prop_assert!(!errors.problems.is_empty());
            let lines = damaged.split('\n').count();
            let mut last = 0;
            for problem in &errors.problems {
                let line = problem.line.unwrap();
                prop_assert!(last <= line && line <= lines, "{}", errors);
                last = line;
            }
        }
    }
}
