use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::core::association::{Assignments, JobLimit, Limit, UserRow};
use crate::core::command::{Command, CommandKind, CommandState, Mode, Verdict};
use crate::core::exact::Exact;
use crate::core::name::{Names, QosName, UserName};
use crate::core::plan::{Because, Change, Outcome, PlannedChange, ResetMarker};
use crate::core::policy::LimitType;
use crate::core::report::{CommandResult, Message, MessageKind};

fn command(uuid: &str, account: &str, issued: i64, kind: CommandKind) -> Command {
    Command {
        uuid: uuid.into(),
        source: source(),
        policy: "p1".into(),
        account_text: account.into(),
        issued: Epoch(issued),
        issued_ns: 0,
        description: "sacctmgr ...; for people".into(),
        kind,
    }
}

fn fairshare(uuid: &str, issued: i64) -> Command {
    command(uuid, "bio42", issued, CommandKind::Fairshare { fairshare: 333 })
}

fn verdict(state: CommandState) -> Verdict {
    Verdict { state, error: String::new(), commands: vec!["/usr/bin/sacctmgr -i modify".into()] }
}

fn told(uuid: &str) -> Message {
    Message::CommandResult(CommandResult {
        command: uuid.into(),
        source: source(),
        policy: "p1".into(),
        allocation: Some("r1".into()),
        success: true,
        error: String::new(),
        mode: Mode::Production,
        commands: Vec::new(),
    })
}

fn waiting(store: &Store) -> usize {
    store.outbox_counts().unwrap().iter().map(|row| row.count).sum()
}

fn change(change: Change) -> PlannedChange {
    let because =
        Because { account: account("bio42"), source: source(), text: "usage 103 % of 500 h".into() };
    PlannedChange { change, because: vec![because] }
}

fn limits(accounts: &[&str], limit: Limit) -> PlannedChange {
    let set = Assignments {
        limits: [(LimitType::GrpTRESMins, [(Tres::cpu(), limit), (Tres::billing(), limit)].into())].into(),
        jobs: [(JobLimit::GrpSubmitJobs, limit)].into(),
        ..Assignments::default()
    };
    let accounts = Names::of(accounts.iter().map(|name| account(name)).collect()).unwrap();
    change(Change::Accounts { accounts, set })
}

fn marker(period: &str) -> ResetMarker {
    ResetMarker { account: account("bio42"), source: source(), policy: "p1".into(), period: period.into() }
}

fn reset(period: &str) -> PlannedChange {
    change(Change::ResetRawUsage { account: account("bio42"), marker: marker(period) })
}

fn argv() -> Vec<String> {
    ["/usr/bin/sacctmgr", "-i", "modify", "account"].map(str::to_owned).to_vec()
}

#[test]
fn a_command_is_new_once_and_stays_pending_until_its_verdict() {
    let place = Place::new();
    let mut store = place.open();
    let (newer, older) = (fairshare("u2", 20), fairshare("u1", 10));
    let received = store.receive(&[newer.clone(), older.clone(), newer.clone()], Epoch(30)).unwrap();
    assert_eq!(received, [newer.clone(), older.clone()]);
    let altered = command("u1", "other", 99, CommandKind::ResetUsage);
    assert_eq!(store.receive(&[altered], Epoch(31)).unwrap(), []);
    drop(store);
    let mut store = place.open();
    assert_eq!(store.pending().unwrap(), [older.clone(), newer.clone()], "the oldest first");
    store.settle_command("u1", &verdict(CommandState::Done), Some(&told("u1")), Epoch(40)).unwrap();
    assert_eq!(store.pending().unwrap(), std::slice::from_ref(&newer));
    assert_eq!(store.receive(std::slice::from_ref(&older), Epoch(41)).unwrap(), []);
    let history = store.commands(10).unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(
        history[0],
        InboxCommand {
            command: older,
            state: CommandState::Done,
            received: Epoch(30),
            settled: Some(Epoch(40)),
            verdict: Some(verdict(CommandState::Done)),
        }
    );
    assert_eq!((history[1].state, history[1].settled), (CommandState::Pending, None));
}

#[test]
fn a_command_has_one_verdict_and_tells_it_once() {
    let place = Place::new();
    let mut store = place.open();
    store.receive(&[fairshare("u1", 10)], Epoch(20)).unwrap();
    for state in [CommandState::Pending, CommandState::Adopted] {
        let error = store.settle_command("u1", &verdict(state), None, Epoch(21)).unwrap_err();
        assert!(matches!(error, StoreError::NoVerdict { .. }), "{error}");
    }
    let error = store.settle_command("u9", &verdict(CommandState::Done), None, Epoch(21)).unwrap_err();
    assert!(matches!(error, StoreError::UnknownCommand { .. }), "{error}");

    store.settle_command("u1", &verdict(CommandState::Failed), Some(&told("u1")), Epoch(22)).unwrap();
    let delivery = store.acquire(MessageKind::CommandResult, Epoch(22), 1).unwrap().remove(0);
    store.delivered(&delivery, Epoch(23)).unwrap();
    store.settle_command("u1", &verdict(CommandState::Failed), Some(&told("u1")), Epoch(24)).unwrap();
    assert_eq!(waiting(&store), 0);
    let error =
        store.settle_command("u1", &verdict(CommandState::Done), Some(&told("u1")), Epoch(25)).unwrap_err();
    assert!(matches!(error, StoreError::CommandSettled { state: CommandState::Failed, .. }), "{error}");
    assert_eq!(waiting(&store), 0);
}

#[test]
fn the_history_found_at_first_sight_is_never_pending() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.adopt(&[fairshare("u1", 10), fairshare("u2", 20)], Epoch(30)).unwrap(), 2);
    assert_eq!(store.adopt(&[fairshare("u1", 10)], Epoch(31)).unwrap(), 0);
    assert_eq!(store.receive(&[fairshare("u1", 10), fairshare("u3", 5)], Epoch(32)).unwrap().len(), 1);
    assert_eq!(store.pending().unwrap(), [fairshare("u3", 5)]);
    let error = store.settle_command("u1", &verdict(CommandState::Done), None, Epoch(33)).unwrap_err();
    assert!(matches!(error, StoreError::CommandSettled { state: CommandState::Adopted, .. }), "{error}");
    assert_eq!(store.standing(&source()).unwrap(), [], "what was adopted was not done by the agent");
}

#[test]
fn of_two_commands_of_one_second_the_later_instant_is_the_newer_whichever_came_first() {
    let place = Place::new();
    let mut store = place.open();
    let newer = Command { issued_ns: 900_000_000, ..fairshare("newer", 10) };
    let older = Command { issued_ns: 1_000, ..fairshare("older", 10) };
    store.receive(std::slice::from_ref(&newer), Epoch(20)).unwrap();
    store.receive(std::slice::from_ref(&older), Epoch(21)).unwrap();
    assert_eq!(store.pending().unwrap(), [older, newer.clone()]);
    for uuid in ["newer", "older"] {
        store.settle_command(uuid, &verdict(CommandState::Done), None, Epoch(22)).unwrap();
    }
    assert_eq!(store.standing(&source()).unwrap(), [(newer, Epoch(22))]);
}

#[test]
fn of_each_account_and_type_the_last_issued_command_in_effect_stands() {
    let place = Place::new();
    let mut store = place.open();
    let limits = command(
        "limits",
        "bio42",
        15,
        CommandKind::Limits {
            limit_type: LimitType::GrpTRESMins,
            limits: [("billing".to_owned(), Exact::fraction(1, 3).unwrap())].into(),
        },
    );
    let other = command("other", "Chem7", 1, CommandKind::Fairshare { fairshare: 1 });
    let unusable = command("unusable", "a b", 99, CommandKind::Fairshare { fairshare: 1 });
    let mut foreign = fairshare("foreign", 99);
    foreign.source = SourceName::parse("elsewhere").unwrap();
    let all = [
        fairshare("late", 20),
        fairshare("early", 10),
        fairshare("failed", 30),
        fairshare("pending", 40),
        limits.clone(),
        other.clone(),
        unusable,
        foreign,
    ];
    store.receive(&all, Epoch(50)).unwrap();
    for (n, uuid) in ["late", "early", "limits", "other", "unusable", "foreign"].into_iter().enumerate() {
        let at = Epoch(60 + i64::try_from(n).unwrap());
        store.settle_command(uuid, &verdict(CommandState::Done), None, at).unwrap();
    }
    store.settle_command("failed", &verdict(CommandState::Failed), None, Epoch(70)).unwrap();
    assert_eq!(
        store.standing(&source()).unwrap(),
        [(fairshare("late", 20), Epoch(60)), (limits, Epoch(62)), (other, Epoch(63))]
    );
}

#[test]
fn every_kind_of_command_is_read_back_as_it_was_received() {
    let place = Place::new();
    let mut store = place.open();
    let kinds = [
        CommandKind::Fairshare { fairshare: u32::MAX },
        CommandKind::Limits {
            limit_type: LimitType::MaxTRESMins,
            limits: [("GPU".to_owned(), Exact::whole(i128::from(u64::MAX)))].into(),
        },
        CommandKind::Qos { qos: "slowdown".into(), reason: "a\n\"b\"\0é".into() },
        CommandKind::ResetUsage,
        CommandKind::NotUnderstood { command_type: "dance".into(), reason: "not known".into() },
    ];
    let commands: Vec<Command> =
        kinds.into_iter().zip(1..).map(|(kind, n)| command(&format!("u{n}"), "a b", n, kind)).collect();
    store.receive(&commands, Epoch(1)).unwrap();
    assert_eq!(store.pending().unwrap(), commands);
}

#[test]
fn an_intent_is_unsettled_until_its_outcome_is_seen() {
    let place = Place::new();
    let mut store = place.open();
    let before = json!({"raw_usage": 12345});
    let first = store.put_intent(&reset("2026-11"), &argv(), Some(&before), Epoch(10)).unwrap();
    let second = store.put_intent(&limits(&["bio42"], Limit::At(60)), &argv(), None, Epoch(11)).unwrap();
    drop(store);
    let mut store = place.open();
    let open = store.unsettled_intents().unwrap();
    assert_eq!(open.iter().map(|intent| intent.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!(
        open[0],
        Intent {
            id: first,
            at: Epoch(10),
            change: reset("2026-11"),
            argv: argv(),
            before: Some(before),
            outcome: None,
            settled: None,
        }
    );
    let unknown = Outcome::Unknown { reason: "sshare timed out".into() };
    store.settle_intent(first, &unknown, &[], &[], Epoch(12)).unwrap();
    let open = store.unsettled_intents().unwrap();
    assert_eq!((open.len(), &open[0].outcome, open[0].settled), (2, &Some(unknown), None));
    assert!(store.reset_how(&marker("2026-11")).unwrap().is_none());

    store.settle_intent(first, &Outcome::Applied, &[], &[], Epoch(13)).unwrap();
    assert_eq!(store.unsettled_intents().unwrap().len(), 1);
    assert!(store.reset_how(&marker("2026-11")).unwrap().is_some());
}

#[test]
fn an_outcome_is_final_and_the_same_again_changes_nothing() {
    let place = Place::new();
    let mut store = place.open();
    store.receive(&[fairshare("u1", 1)], Epoch(1)).unwrap();
    let id = store.put_intent(&limits(&["bio42"], Limit::At(60)), &argv(), None, Epoch(10)).unwrap();
    let verdicts = [("u1".to_owned(), verdict(CommandState::Done))];
    store.settle_intent(id, &Outcome::Applied, &verdicts, &[told("u1")], Epoch(11)).unwrap();
    assert_eq!(store.commands(1).unwrap()[0].state, CommandState::Done);
    assert_eq!(waiting(&store), 1);
    let history = store.history(10, None).unwrap();

    store.settle_intent(id, &Outcome::Applied, &verdicts, &[told("u2")], Epoch(12)).unwrap();
    assert_eq!((store.history(10, None).unwrap(), waiting(&store)), (history.clone(), 1));
    let error =
        store.settle_intent(id, &Outcome::Refused { reason: "no".into() }, &[], &[], Epoch(13)).unwrap_err();
    assert!(matches!(error, StoreError::IntentSettled { .. }), "{error}");
    assert_eq!(store.history(10, None).unwrap(), history);
}

#[test]
fn an_outcome_whose_verdict_breaks_a_rule_stores_nothing() {
    let place = Place::new();
    let mut store = place.open();
    let id = store.put_intent(&limits(&["bio42"], Limit::At(60)), &argv(), None, Epoch(10)).unwrap();
    let verdicts = [("nobody".to_owned(), verdict(CommandState::Done))];
    let error =
        store.settle_intent(id, &Outcome::Applied, &verdicts, &[told("nobody")], Epoch(11)).unwrap_err();
    assert!(matches!(error, StoreError::UnknownCommand { .. }), "{error}");
    assert_eq!(store.unsettled_intents().unwrap().len(), 1);
    assert_eq!(waiting(&store), 0);
    assert!(store.owned().unwrap().is_empty());
}

#[test]
fn the_agent_owns_what_it_has_set_until_it_is_seen_to_be_cleared() {
    let place = Place::new();
    let mut store = place.open();
    let mut settle = |planned: &PlannedChange, outcome: Outcome| {
        let id = store.put_intent(planned, &argv(), None, Epoch(1)).unwrap();
        store.settle_intent(id, &outcome, &[], &[], Epoch(2)).unwrap();
        let owned: BTreeMap<String, usize> =
            store.owned().unwrap().into_iter().map(|(name, set)| (name.to_string(), set.len())).collect();
        owned
    };
    let owned = |pairs: &[(&str, usize)]| -> BTreeMap<String, usize> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let refused = || Outcome::Refused { reason: "no".into() };
    let unknown = || Outcome::Unknown { reason: "?".into() };
    let (set, clear) = (limits(&["a", "b"], Limit::At(0)), limits(&["a"], Limit::Cleared));
    assert_eq!(settle(&set, refused()), owned(&[]));
    assert_eq!(settle(&set, unknown()), owned(&[("a", 2), ("b", 2)]), "it may be in effect");
    assert_eq!(settle(&set, Outcome::Applied), owned(&[("a", 2), ("b", 2)]));
    assert_eq!(settle(&clear, refused()), owned(&[("a", 2), ("b", 2)]));
    assert_eq!(settle(&clear, unknown()), owned(&[("a", 2), ("b", 2)]), "it may be there still");
    assert_eq!(settle(&clear, Outcome::Applied), owned(&[("b", 2)]));
    assert_eq!(settle(&set, Outcome::AlreadyInEffect), owned(&[("a", 2), ("b", 2)]));
    drop(store);
    let found = place.open().owned().unwrap();
    let expected = [(LimitType::GrpTRESMins, Tres::billing()), (LimitType::GrpTRESMins, Tres::cpu())];
    assert_eq!(found[&account("b")], expected.into());
}

#[test]
fn changes_of_fairshare_qos_and_users_make_nothing_the_agents_own() {
    let place = Place::new();
    let mut store = place.open();
    let set = Assignments {
        fairshare: Some(3),
        qos: Some([QosName::parse("normal").unwrap()].into()),
        default_qos: Some(QosName::parse("normal").unwrap()),
        ..Assignments::default()
    };
    let user = Change::User {
        user: UserName::parse("alice").unwrap(),
        account: account("bio42"),
        row: UserRow::Only,
        set: Assignments { jobs: [(JobLimit::GrpSubmitJobs, Limit::At(1))].into(), ..set.clone() },
    };
    let accounts = Change::Accounts { accounts: Names::one(account("bio42")), set };
    for planned in [change(user), change(accounts)] {
        let id = store.put_intent(&planned, &argv(), None, Epoch(1)).unwrap();
        store.settle_intent(id, &Outcome::Applied, &[], &[], Epoch(2)).unwrap();
        assert_eq!(store.history(1, None).unwrap()[0].change, planned);
    }
    assert!(store.owned().unwrap().is_empty());
    assert!(store.own_values().unwrap().is_empty());
}

#[test]
fn a_period_has_one_marker_and_a_reset_outweighs_an_adoption() {
    let place = Place::new();
    let mut store = place.open();
    let (bio, waldur) = (account("bio42"), source());
    assert_eq!(store.adopted(&bio, &waldur, "p1").unwrap(), None);
    store.put_resets(&[marker("2026-10")], Epoch(1), ResetHow::Adopted).unwrap();
    store.put_resets(&[marker("2026-10")], Epoch(2), ResetHow::Reset).unwrap();
    for (outcome, period) in [
        (Outcome::Applied, "2026-11"),
        (Outcome::AlreadyInEffect, "2026-12"),
        (Outcome::Refused { reason: "no".into() }, "2027-01"),
    ] {
        let id = store.put_intent(&reset(period), &argv(), None, Epoch(3)).unwrap();
        store.settle_intent(id, &outcome, &[], &[], Epoch(4)).unwrap();
    }
    drop(store);
    let store = place.open();
    let done = |period| store.reset_how(&marker(period)).unwrap().is_some();
    let periods = ["2026-09", "2026-10", "2026-11", "2026-12", "2027-01"];
    assert_eq!(periods.map(done), [false, true, true, true, false]);
    assert_eq!(store.adopted(&bio, &waldur, "p1").unwrap(), Some("2026-10".into()));
    assert_eq!(store.adopted(&bio, &waldur, "p2").unwrap(), None);
    assert!(store.reset_how(&ResetMarker { policy: "p2".into(), ..marker("2026-10") }).unwrap().is_none());
    drop(store);
    let mut store = place.open();
    let done = ResetMarker { policy: "p3".into(), ..marker("2026-10") };
    store.put_resets(std::slice::from_ref(&done), Epoch(1), ResetHow::Reset).unwrap();
    assert_eq!(
        store.adopted(&bio, &waldur, "p3").unwrap(),
        Some("2026-10".into()),
        "a period that was reset has been seen as well"
    );
    store.put_resets(&[marker("2026-10")], Epoch(9), ResetHow::Adopted).unwrap();
    assert_eq!(store.reset_how(&marker("2026-10")).unwrap(), Some(ResetHow::Reset), "a reset stays one");
}

#[test]
fn the_history_of_an_account_has_the_changes_that_touch_it() {
    let place = Place::new();
    let mut store = place.open();
    let ids: Vec<IntentId> =
        [limits(&["a", "b"], Limit::At(1)), limits(&["b"], Limit::At(2)), reset("2026-11")]
            .iter()
            .map(|planned| store.put_intent(planned, &argv(), None, Epoch(1)).unwrap())
            .collect();
    let of = |name: Option<&str>, limit| -> Vec<IntentId> {
        let found = store.history(limit, name.map(account).as_ref()).unwrap();
        found.into_iter().map(|intent| intent.id).collect()
    };
    assert_eq!(of(Some("a"), 9), [ids[0]]);
    assert_eq!(of(Some("b"), 9), [ids[1], ids[0]]);
    assert_eq!(of(Some("b"), 1), [ids[1]]);
    assert_eq!(of(Some("bio42"), 9), [ids[2]]);
    assert_eq!(of(None, 9), [ids[2], ids[1], ids[0]]);
}
