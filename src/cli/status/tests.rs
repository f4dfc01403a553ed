use super::*;
use crate::agent::facts::SourceState;
use crate::agent::ledger::CollectionState;
use crate::agent::summary::Unsettled;
use crate::core::command::Mode;
use crate::core::name::AccountName;

const NOW: i64 = 1_795_332_000;

fn healthy() -> Status {
    let source = || SourceName::parse("waldur").unwrap();
    let cycle = CycleSummary {
        at: Epoch(NOW - 60),
        mode: Mode::Production,
        sources: vec![SourceState {
            name: source(),
            policies: 1,
            allocations: 2,
            quotas: 0,
            answered: Some(Epoch(NOW - 60)),
            error: None,
            notices: Vec::new(),
            warnings: Vec::new(),
        }],
        collection: CollectionState::default(),
        levels: BTreeMap::from([(Level::Normal, 2)]),
        undecided: Vec::new(),
        changes: 1,
        unsettled: Vec::new(),
        held: 0,
        held_because: None,
        disagreements: Vec::new(),
        disagreements_total: 0,
        held_usage: Vec::new(),
        findings: Vec::new(),
    };
    Status {
        cluster: "lab".into(),
        store: "/nowhere/state.db".into(),
        now: Epoch(NOW),
        writer: None,
        collected_until: Some(Epoch(NOW - 60)),
        schedules: BTreeMap::new(),
        sources: vec![SourceStatus {
            name: source(),
            policies: 1,
            allocations: 2,
            quotas: 0,
            answered: Some(Epoch(NOW - 60)),
            age_s: Some(60),
            unchanged_since: None,
            error: None,
            notices: Vec::new(),
        }],
        levels: cycle.levels.clone(),
        undecided: Vec::new(),
        held: None,
        open_changes: Vec::new(),
        pending_commands: Vec::new(),
        outbox: Vec::new(),
        failed_deliveries: Vec::new(),
        runaways: Vec::new(),
        rejected: Rejected::default(),
        attention: Vec::new(),
        cycle: Some(cycle),
    }
}

fn held(confirmed: bool) -> Held {
    Held {
        plan: "abc".into(),
        because: None,
        since: Epoch(NOW),
        commands: vec!["sacctmgr -i modify ...".into()],
        confirmed,
        confirm: "slurm-site-agent confirm abc".into(),
    }
}

fn outbox(state: &'static str) -> OutboxRow {
    OutboxRow { kind: "component_usage", state, count: 3, oldest: Epoch(NOW) }
}

#[test]
fn what_needs_a_look_is_named_and_nothing_else() {
    type Case = (&'static str, fn(&mut Status), &'static [&'static str]);
    let cycle = |status: &mut Status, change: fn(&mut CycleSummary)| {
        change(status.cycle.as_mut().unwrap());
    };
    let cases: [Case; 13] = [
        ("healthy", |_| {}, &[]),
        ("no cycle", |s| s.cycle = None, &["no cycle has ended yet"]),
        ("late", |s| s.now = Epoch(NOW + 900), &["the last cycle is 16m old"]),
        ("late by less", |s| s.now = Epoch(NOW + 840), &[]),
        ("outage", |s| s.sources[0].error = Some("status 502".into()), &["source waldur: status 502"]),
        ("held", |s| s.held = Some(held(false)), &["slurm-site-agent confirm abc"]),
        ("confirmed", |s| s.held = Some(held(true)), &[]),
        (
            "open from before",
            |s| s.open_changes = vec![OpenChange { since: Epoch(NOW - 61), argv: "x".into() }],
            &["1 changes are still open"],
        ),
        (
            "open in a running cycle",
            |s| s.open_changes = vec![OpenChange { since: Epoch(NOW - 1), argv: "x".into() }],
            &[],
        ),
        ("dead", |s| s.outbox = vec![outbox("dead"), outbox("waiting")], &["3 messages were given up"]),
        ("waiting", |s| s.outbox = vec![outbox("waiting")], &[]),
        (
            "undecided",
            |s| {
                let account = AccountName::parse("bio").unwrap();
                let source = SourceName::parse("waldur").unwrap();
                s.undecided = vec![Undecided { account, source, reason: "gone".into() }];
            },
            &["1 policies could not be decided on"],
        ),
        ("pending", |s| s.rejected.lines = 7, &[]),
    ];
    for (name, change, expected) in cases {
        let mut status = healthy();
        change(&mut status);
        let lines = attention(&status, Some(900));
        assert_eq!(lines.len(), expected.len(), "{name}: {lines:?}");
        for (line, words) in lines.iter().zip(expected) {
            assert!(line.contains(words), "{name}: {line}");
        }
    }
    let mut status = healthy();
    cycle(&mut status, |cycle| {
        cycle.collection.incomplete = Some("sacct did not answer".into());
        cycle.unsettled = vec![Unsettled { argv: "sacctmgr x".into(), reason: "Permission denied".into() }];
    });
    assert_eq!(
        attention(&status, Some(900)),
        ["sacct did not answer", "not in effect: sacctmgr x: Permission denied"]
    );
    status = healthy();
    status.now = Epoch(NOW + 1_000_000);
    assert_eq!(attention(&status, None), [] as [String; 0], "nothing runs by itself in the emulated world");
}

#[test]
fn the_command_to_confirm_has_the_options_of_the_call() {
    let mut common =
        Common { config: CONFIG_PATH.into(), emulator: false, emulator_state: None, json: false };
    assert_eq!(confirm_command(&common, "abc"), "slurm-site-agent confirm abc");
    common.config = "/tmp/c.toml".into();
    assert_eq!(confirm_command(&common, "abc"), "slurm-site-agent --config /tmp/c.toml confirm abc");
    common.emulator = true;
    common.emulator_state = Some("/tmp/e".into());
    assert_eq!(
        confirm_command(&common, "abc"),
        "slurm-site-agent --emulator --emulator-state /tmp/e confirm abc"
    );
}

#[test]
fn a_status_of_texts_from_outside_cannot_move_the_cursor() {
    let mut status = healthy();
    status.sources[0].error = Some("bad\x1b[2J".into());
    status.cycle.as_mut().unwrap().findings = vec!["odd\x07".into()];
    status.attention = attention(&status, None);
    let text = show(&status);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.contains("bad\\u{1b}[2J"));
}
