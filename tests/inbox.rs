//! The inbox: commands of the server are acted on once, in order, whatever the server remembers.

mod support;
#[path = "support/town.rs"]
mod town;

use serde_json::{Value, json};
use slurm_site_agent::core::command::CommandState;
use slurm_site_agent::emulator::central::{Fault, FaultKind, HistoryFault};
use town::{Plan, Town, job};

const NOW: &str = "2026-11-10T12:00:00Z";

/// A month's policy on accounts `a0`, `a1`, ... of 100 cpu-hours; each has used 10 in this month.
async fn town(accounts: usize, commands: Value) -> Town {
    let names: Vec<String> = (0..accounts).map(|n| format!("a{n}")).collect();
    let resources: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "limits": {"cpu": 100}})).collect();
    let jobs: Vec<Value> =
        names.iter().map(|name| job(name, 10, "2026-11-05T10:00:00Z", "2026-11-05T11:00:00Z")).collect();
    Town::new(Plan {
        now: NOW,
        accounts: &names,
        jobs: json!(jobs),
        central: json!({
            "settings": {"evaluate_on_usage": false},
            "policies": [{"period": 2, "tres_billing_enabled": false, "carryover_enabled": false}],
            "resources": resources,
            "commands": commands,
        }),
        source: "",
        config: "[limits]\ntighten_accounts_max = 1000\ntighten_share_percent = 100\n",
    })
    .await
}

fn command(resource: &str, kind: &str, parameters: Value, executed_at: &str) -> Value {
    json!({"resource": resource, "command_type": kind, "parameters": parameters, "executed_at": executed_at})
}

fn issue(town: &Town, command: Value) {
    town.portal
        .handle
        .with_state(|state| state.commands.push(serde_json::from_value(command).expect("a command")));
}

/// Settles and says how the commands of the inbox ended, oldest first.
fn inbox(town: &Town) -> Vec<(String, CommandState)> {
    let mut rows = town.site.agent.store.commands(1000).unwrap();
    rows.sort_by_key(|row| row.command.issued);
    rows.into_iter().map(|row| (row.command.kind.type_name().to_owned(), row.state)).collect()
}

#[tokio::test]
async fn a_reset_issued_again_by_a_server_that_lost_its_memory_is_told_as_in_effect_and_not_run() {
    let mut town = town(1, json!([])).await;
    town.cycle().await;
    assert_eq!(town.resets(), 0, "never on first adoption");
    town.advance(600);
    issue(&town, command("a0", "reset_usage", json!({}), "2026-11-10T12:05:00Z"));
    town.cycle().await;
    assert_eq!(town.resets(), 1);
    // The cache is evicted: all settings of the period come again, under new uuids.
    for minute in ["12:15", "12:25"] {
        town.advance(600);
        let at = format!("2026-11-10T{minute}:00Z");
        issue(&town, command("a0", "fairshare", json!({"fairshare": 33}), &at));
        issue(&town, command("a0", "reset_usage", json!({}), &at));
        town.cycle().await;
    }
    assert_eq!(town.resets(), 1, "once per period");
    let verdicts = town.verdicts();
    assert_eq!(verdicts.len(), 5, "{verdicts:?}");
    assert!(verdicts.iter().all(|(success, _)| *success), "{verdicts:?}");
    assert_eq!(
        verdicts.iter().filter(|(_, text)| text.contains("already reset in period 2026-11")).count(),
        2,
        "{verdicts:?}"
    );
    let failed = town.portal.handle.with_state(|state| state.commands.iter().filter(|c| !c.success).count());
    assert_eq!(failed, 0, "nothing that is in effect stands as failed at the server");
    assert!(town.cycle().await.is_quiet());
}

#[tokio::test]
async fn a_reset_of_the_period_from_before_the_agent_came_is_never_run_again() {
    let old = command("a0", "reset_usage", json!({}), "2026-11-01T00:10:00Z");
    let mut town = town(1, json!([old])).await;
    town.cycle().await;
    town.advance(600);
    issue(&town, command("a0", "reset_usage", json!({}), "2026-11-10T12:05:00Z"));
    town.cycle().await;
    assert_eq!(town.resets(), 0);
    assert_eq!(town.verdicts().len(), 1, "the adopted one is not told, the new one is");
}

#[tokio::test]
async fn a_history_that_comes_empty_at_first_brings_no_reset_later() {
    let old = command("a0", "reset_usage", json!({}), "2026-11-10T02:00:00Z");
    let fairshare = command("a0", "fairshare", json!({"fairshare": 5}), "2026-11-10T11:00:00Z");
    let mut town = town(1, json!([old, fairshare])).await;
    town.portal.handle.push_fault(Fault::once(FaultKind::History(HistoryFault::Forgotten)));
    town.cycle().await;
    assert_eq!(inbox(&town), []);
    town.advance(60);
    town.cycle().await;
    assert_eq!(
        inbox(&town),
        [("reset_usage".into(), CommandState::Adopted), ("fairshare".into(), CommandState::Done)]
    );
    assert_eq!((town.resets(), town.shows("a0", "fairshare").as_str()), (0, "5"));
}

#[tokio::test]
async fn newer_commands_supersede_older_ones_and_a_late_older_one_changes_nothing() {
    let at = |minute: u32| format!("2026-11-10T11:{minute:02}:00Z");
    let mut town = town(
        2,
        json!([
            command("a0", "fairshare", json!({"fairshare": 4}), &at(30)),
            command("a1", "fairshare", json!({"fairshare": 7}), &at(31)),
            command("a0", "fairshare", json!({"fairshare": 9}), &at(32)),
        ]),
    )
    .await;
    for fault in [HistoryFault::Duplicated, HistoryFault::Reordered] {
        town.portal.handle.push_fault(Fault::once(FaultKind::History(fault)));
    }
    town.cycle().await;
    assert_eq!((town.shows("a0", "fairshare"), town.shows("a1", "fairshare")), ("9".into(), "7".into()));
    // One that the server had not shown before, older than what was carried out.
    issue(&town, command("a0", "fairshare", json!({"fairshare": 2}), &at(20)));
    let report = town.cycle().await;
    assert!(report.changes.is_empty(), "{:?}", report.changes);
    assert_eq!(town.shows("a0", "fairshare"), "9");
    let ends = inbox(&town).into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    use CommandState::{Done, Superseded};
    assert_eq!(ends, [Superseded, Superseded, Done, Done]);
    let verdicts = town.verdicts();
    assert_eq!(verdicts.iter().filter(|(_, text)| text.contains("superseded by the newer")).count(), 2);
    let failed = town.portal.handle.with_state(|state| state.commands.iter().filter(|c| !c.success).count());
    assert_eq!(failed, 0, "a superseded command does not make its successor a failure: {verdicts:?}");
    assert!(town.cycle().await.is_quiet());
}

#[tokio::test]
async fn stale_and_future_commands_are_refused_and_an_older_good_one_still_counts() {
    let mut town = town(1, json!([])).await;
    town.cycle().await;
    town.advance(60);
    issue(&town, command("a0", "fairshare", json!({"fairshare": 3}), "2026-11-08T12:00:00Z"));
    issue(&town, command("a0", "qos", json!({"qos": "slowdown"}), "2026-11-10T12:00:30Z"));
    issue(&town, command("a0", "qos", json!({"qos": "blocked"}), "2026-11-10T14:00:00Z"));
    town.cycle().await;
    assert_eq!(town.shows("a0", "qos"), "slowdown");
    let verdicts = town.verdicts();
    assert!(verdicts.iter().any(|(ok, text)| !ok && text.contains("stale")), "{verdicts:?}");
    assert!(
        verdicts.iter().any(|(ok, text)| !ok && text.contains("command qos") && text.contains("clock")),
        "{verdicts:?}"
    );
}

#[tokio::test]
async fn a_history_that_was_cut_off_is_read_of_every_resource_even_when_that_fails_at_first() {
    // 60 accounts x 2 commands are more than the 100 rows that the server shows.
    let mut town = town(60, json!([])).await;
    town.cycle().await;
    town.advance(600);
    for n in 0..60 {
        let at = format!("2026-11-10T12:05:{n:02}Z");
        issue(&town, command(&format!("a{n}"), "fairshare", json!({"fairshare": 5}), &at));
        issue(&town, command(&format!("a{n}"), "qos", json!({"qos": "slowdown"}), &at));
    }
    // The first look at the resources fails half way.
    town.portal.handle.push_fault(Fault {
        after: 30,
        ..Fault::once(FaultKind::Status { code: 400, retry_after: None })
            .on("GET", "command-history")
            .times(10)
    });
    town.cycle().await;
    let first = town.site.agent.store.commands(1000).unwrap().len();
    assert!(first < 120, "{first}");
    town.advance(60);
    town.cycle().await;
    town.advance(60);
    town.cycle().await;
    let done = inbox(&town);
    assert_eq!(done.len(), 120);
    assert!(done.iter().all(|(_, state)| *state == CommandState::Done), "{done:?}");
    assert_eq!((town.shows("a0", "fairshare"), town.shows("a59", "qos")), ("5".into(), "slowdown".into()));
    // From then on one request is enough again.
    town.portal.handle.forget_requests();
    town.advance(60);
    town.cycle().await;
    let histories = town.portal.handle.requests();
    let histories = histories.iter().filter(|request| request.target.contains("command-history")).count();
    assert_eq!(histories, 1);
}

#[tokio::test]
async fn verdicts_of_a_resource_are_told_in_order_and_others_do_not_wait_for_them() {
    let at = |minute: u32| format!("2026-11-10T11:{minute:02}:00Z");
    let mut town = town(2, json!([command("a0", "fairshare", json!({"fairshare": 4}), &at(30))])).await;
    // The server is down for results at first: the verdict waits for its next try.
    town.portal.handle.push_fault(
        Fault::once(FaultKind::Status { code: 503, retry_after: None })
            .on("POST", "report-command-result")
            .times(10),
    );
    town.cycle().await;
    town.portal.handle.with_state(|state| state.faults.clear());
    issue(&town, command("a0", "explode", json!({}), &at(40)));
    issue(&town, command("a1", "fairshare", json!({"fairshare": 6}), &at(41)));
    town.advance(10);
    town.cycle().await;
    assert_eq!(town.verdicts(), [(true, String::new())], "only the other resource's");
    for _ in 0..3 {
        town.advance(3600);
        town.cycle().await;
    }
    let verdicts = town.verdicts();
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    assert!(verdicts[1].0, "the older verdict first: {verdicts:?}");
    assert!(!verdicts[2].0 && verdicts[2].1.contains("command explode"), "{verdicts:?}");
}
