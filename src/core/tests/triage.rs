//! Which commands are acted on.

use std::collections::BTreeMap;

use super::world::*;
use crate::core::command::{Command, CommandKind, Issue, Subject, Triage, TriageFacts, triage, wish};
use crate::core::name::SourceName;
use crate::core::policy::LimitType;
use crate::core::time::{Epoch, Window};

const NOW: i64 = 1_000_000;

fn command(uuid: &str, of: &str, kind: CommandKind, age_s: i64) -> Command {
    Command {
        uuid: uuid.into(),
        source: SourceName::parse("waldur").unwrap(),
        policy: "p1".into(),
        account_text: of.into(),
        issued: Epoch(NOW - age_s),
        issued_ns: 0,
        description: "text".into(),
        kind,
    }
}

fn sorted(commands: &[Command]) -> Vec<Triage> {
    sorted_after(commands, &BTreeMap::new())
}

fn sorted_after(commands: &[Command], in_effect: &BTreeMap<Subject, (Issue, String)>) -> Vec<Triage> {
    let periods = BTreeMap::from([(account("bio"), Window::new(Epoch(NOW - 500), Epoch(NOW + 500)))]);
    let facts =
        TriageFacts { now: Epoch(NOW), age_max_s: 1000, skew_max_s: 60, periods: &periods, in_effect };
    triage(commands, &facts)
}

#[test]
fn the_newest_of_a_type_stands_and_the_older_are_superseded() {
    let fairshare = |n| CommandKind::Fairshare { fairshare: n };
    let seen = sorted(&[
        command("a", "bio", fairshare(1), 30),
        command("b", "BIO", fairshare(2), 10),
        command("c", "bio", CommandKind::ResetUsage, 20),
    ]);
    assert_eq!(seen, vec![Triage::Superseded("b".into()), Triage::Act, Triage::Act]);
}

#[test]
fn of_two_of_the_same_second_the_one_shown_later_stands() {
    let fairshare = |n| CommandKind::Fairshare { fairshare: n };
    let seen = sorted(&[command("z", "bio", fairshare(1), 5), command("a", "bio", fairshare(2), 5)]);
    assert_eq!(seen, vec![Triage::Superseded("a".into()), Triage::Act]);
}

#[test]
fn of_two_of_the_same_second_the_later_instant_stands_whatever_the_order_of_the_list() {
    let fairshare = |n| CommandKind::Fairshare { fairshare: n };
    let newer = Command { issued_ns: 900_000_000, ..command("newer", "bio", fairshare(2), 5) };
    let older = Command { issued_ns: 200_000_000, ..command("older", "bio", fairshare(1), 5) };
    assert_eq!(
        sorted(&[newer.clone(), older.clone()]),
        vec![Triage::Act, Triage::Superseded("newer".into())]
    );
    let subject = ("bio".to_owned(), "fairshare".to_owned());
    let in_effect = BTreeMap::from([(subject, (newer.issue(), "newer".to_owned()))]);
    assert_eq!(sorted_after(&[older], &in_effect), vec![Triage::Superseded("newer".into())]);
}

#[test]
fn a_command_that_is_refused_takes_nobodys_place() {
    let fairshare = |n| CommandKind::Fairshare { fairshare: n };
    // The second is from the future: a clock is wrong there, and the first stays what is to be done.
    let seen = sorted(&[command("a", "bio", fairshare(1), 30), command("b", "bio", fairshare(2), -3600)]);
    assert_eq!(seen[0], Triage::Act);
    assert!(matches!(&seen[1], Triage::Refuse(reason) if reason.contains("clock")), "{:?}", seen[1]);
}

#[test]
fn an_older_command_that_shows_up_after_a_newer_one_was_carried_out_is_superseded() {
    let fairshare = |n| CommandKind::Fairshare { fairshare: n };
    let in_effect = BTreeMap::from([(
        ("bio".to_owned(), "fairshare".to_owned()),
        ((Epoch(NOW - 10), 0), "done".to_owned()),
    )]);
    let late = command("late", "bio", fairshare(1), 30);
    let newer = command("newer", "bio", fairshare(2), 5);
    assert_eq!(
        sorted_after(std::slice::from_ref(&late), &in_effect),
        vec![Triage::Superseded("done".into())]
    );
    let seen = sorted_after(&[late, newer], &in_effect);
    assert_eq!(seen, vec![Triage::Superseded("newer".into()), Triage::Act]);
}

#[test]
fn stale_foreign_future_and_unknown_commands_are_refused_with_the_reason() {
    let fairshare = CommandKind::Fairshare { fairshare: 1 };
    let unknown =
        CommandKind::NotUnderstood { command_type: "explode".into(), reason: "no such type".into() };
    for (case, why) in [
        (command("a", "bio", fairshare.clone(), 1001), "stale"),
        (command("b", "bio", CommandKind::ResetUsage, 501), "before the current period"),
        (command("c", "chem", fairshare.clone(), 1), "no allocation"),
        (command("d", "a b", fairshare.clone(), 1), "not a usable account"),
        (command("e", "bio", fairshare, -61), "clock"),
        (command("f", "bio", unknown, 1), "explode"),
    ] {
        let Triage::Refuse(reason) = &sorted(std::slice::from_ref(&case))[0] else { panic!("{case:?}") };
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn the_servers_limits_become_slurms_units() {
    // The server counts 60 x hours: 600 cpu-minutes stay 600; 600 GB-minutes are 600 * 1024 MB-minutes.
    let kind = CommandKind::Limits {
        limit_type: LimitType::GrpTRESMins,
        limits: [("cpu".to_owned(), exact("600")), ("RAM".to_owned(), exact("600"))].into(),
    };
    let wished = wish(&command("a", "bio", kind, 0), &account("bio"), &rules(), true).unwrap();
    assert_eq!(wished.limits[&LimitType::GrpTRESMins], [(tres("cpu"), 600), (tres("mem"), 614_400)].into());
}

#[test]
fn a_command_that_cannot_be_meant_is_refused() {
    let limits = |name: &str, amount: &str| CommandKind::Limits {
        limit_type: LimitType::GrpTRESMins,
        limits: [(name.to_owned(), exact(amount))].into(),
    };
    let wished = |kind| wish(&command("a", "bio", kind, 0), &account("bio"), &rules(), false);
    assert!(wished(limits("tape", "1")).unwrap_err().contains("tape"));
    assert!(wished(limits("cpu", "-5")).is_err());
    assert!(wished(limits("billing", "5")).unwrap_err().contains("other units"));
    let qos = CommandKind::Qos { qos: "vip".into(), reason: String::new() };
    assert!(wished(qos).unwrap_err().contains("vip"));
}
