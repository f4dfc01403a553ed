use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::core::allocation::Allocation;
use crate::core::association::{Assignments, JobLimit, Limit};
use crate::core::command::{Command, CommandKind, CommandState, Verdict};
use crate::core::exact::Exact;
use crate::core::job::SuspendedBefore;
use crate::core::name::Names;
use crate::core::period::PeriodKind;
use crate::core::plan::{Change, Outcome, PlannedChange, ResetMarker};
use crate::core::policy::{Actions, LimitType, Policy, QosStrategy, default_weights};
use crate::core::quota::{Bound, Capacity, ConcurrencyQuota, RegionLimit};
use crate::core::quota_map::{ConcurrencyMap, SourceQuotas};
use crate::core::report::{ComponentUsage, Message, MessageKind};

fn snapshot(name: &str) -> Snapshot {
    let policy = Policy {
        source: source(),
        id: "p1".into(),
        name: name.into(),
        period: PeriodKind::Quarter,
        limit_type: LimitType::GrpTRESMins,
        billing: true,
        weights: default_weights(),
        carryover_percent: Some(15),
        grace: Exact::fraction(1, 5).unwrap(),
        raw_usage_reset: true,
        strategy: QosStrategy::Progressive,
        actions: Actions { unknown: vec!["dance".into()], ..Actions::default() },
        component_limits: [("cpu".to_owned(), Exact::fraction(1, 3).unwrap())].into(),
        warnings: Vec::new(),
    };
    let allocation = Allocation {
        source: source(),
        id: "r1".into(),
        name: "Bio".into(),
        account: account("bio42"),
        limits: [("cpu".to_owned(), Exact::whole(1 << 70))].into(),
        paused: false,
        downscaled: true,
    };
    Snapshot { policies: vec![policy], allocations: vec![allocation] }
}

#[test]
fn a_snapshot_is_replaced_as_a_whole_and_the_same_again_moves_only_its_time() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.snapshot(&source()).unwrap(), None);
    assert_eq!(store.snapshot_since(&source()).unwrap(), None);
    store.put_snapshot(&source(), &snapshot("first"), Epoch(10)).unwrap();
    store.put_snapshot(&source(), &snapshot("first"), Epoch(20)).unwrap();
    drop(store);
    let mut store = place.open();
    assert_eq!(store.snapshot(&source()).unwrap(), Some((snapshot("first"), Epoch(20))));
    assert_eq!(store.snapshot_since(&source()).unwrap(), Some(Epoch(10)));
    store.put_snapshot(&source(), &snapshot("second"), Epoch(30)).unwrap();
    assert_eq!(store.snapshot(&source()).unwrap(), Some((snapshot("second"), Epoch(30))));
    assert_eq!(store.snapshot_since(&source()).unwrap(), Some(Epoch(30)));
    let local = SourceName::parse("local").unwrap();
    assert_eq!(store.snapshot(&local).unwrap(), None);
}

#[test]
fn a_decision_is_logged_when_it_differs_from_the_accounts_last_one() {
    let place = Place::new();
    let mut store = place.open();
    let (a, b) = (account("a"), account("b"));
    let normal = json!({"state": "normal", "why": {"rule": 1}});
    let blocked = json!({"state": "blocked"});
    let mut put = |at, cycle, decisions: &[(AccountName, serde_json::Value)]| {
        store.put_decisions(Epoch(at), cycle, decisions, 0).unwrap()
    };
    assert_eq!(put(1, 1, &[(a.clone(), normal.clone()), (b.clone(), normal.clone())]), 2);
    assert_eq!(put(2, 2, &[(a.clone(), normal.clone()), (b.clone(), blocked.clone())]), 1);
    assert_eq!(put(3, 3, &[(a.clone(), normal.clone()), (b.clone(), normal.clone())]), 1);
    drop(store);
    let store = place.open();
    let log = |account, limit| -> Vec<(i64, u64, serde_json::Value)> {
        let found = store.decisions(account, limit).unwrap();
        found.into_iter().map(|row| (row.at.0, row.cycle, row.body)).collect()
    };
    assert_eq!(log(Some(&a), 9), [(1, 1, normal.clone())]);
    assert_eq!(log(Some(&b), 9), [(3, 3, normal.clone()), (2, 2, blocked.clone()), (1, 1, normal.clone())]);
    assert_eq!(log(Some(&b), 1), [(3, 3, normal.clone())]);
    assert_eq!(log(None, 2), [(3, 3, normal), (2, 2, blocked)]);
}

#[test]
fn marks_of_schedules_are_kept_by_name() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.last_success("poll").unwrap(), None);
    store.put_success("poll", Epoch(10)).unwrap();
    store.put_success("audit", Epoch(11)).unwrap();
    store.put_success("poll", Epoch(20)).unwrap();
    drop(store);
    let store = place.open();
    assert_eq!(store.last_success("poll").unwrap(), Some(Epoch(20)));
    assert_eq!(store.last_success("audit").unwrap(), Some(Epoch(11)));
}

#[test]
fn one_plan_is_held_and_says_since_when() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.held().unwrap(), None);
    store.put_held("aaaa", "blocks 90 of 100 accounts", Epoch(1)).unwrap();
    store.put_held("aaaa", "blocks 90 of 100 accounts", Epoch(5)).unwrap();
    drop(store);
    let mut store = place.open();
    let held = store.held().unwrap().unwrap();
    assert_eq!((held.hash.as_str(), held.since, held.at), ("aaaa", Epoch(1), Epoch(5)));
    store.put_held("bbbb", "blocks 91 of 100 accounts", Epoch(9)).unwrap();
    let held = store.held().unwrap().unwrap();
    assert_eq!((held.hash.as_str(), held.since), ("bbbb", Epoch(9)));
    assert_eq!(held.summary, "blocks 91 of 100 accounts");
    store.clear_held().unwrap();
    assert_eq!(store.held().unwrap(), None);
}

const KEEP: Retention = Retention { jobs_s: 1000, history_s: 1000, oldest_needed: Epoch(i64::MAX) };

#[test]
fn jobs_are_kept_for_their_time_and_as_long_as_a_period_needs_them() {
    let place = Place::new();
    let mut store = place.open();
    let name = cluster();
    let suspended = [1, 2, 3].map(|dbindex| SuspendedBefore {
        key: JobKey { cluster: cluster(), dbindex },
        edge: Epoch(150),
        seconds: 1,
    });
    let records = [job(1, 100, Some(999)), job(2, 100, Some(1000)), job(3, 100, None)];
    store.put_collection(&Collection { suspended: &suspended, ..collection(&name, &records) }).unwrap();

    let needed = Retention { oldest_needed: Epoch(900), ..KEEP };
    assert_eq!(store.prune(Epoch(2000), needed).unwrap(), Pruned::default());
    let pruned = store.prune(Epoch(2000), KEEP).unwrap();
    assert_eq!(pruned, Pruned { jobs: 1, suspended: 1, ..Pruned::default() });
    assert_eq!(jobs_in(&store, 0, 5000), records[1..]);
    let window = Window::new(Epoch(0), Epoch(5000));
    assert_eq!(store.suspended_before(&name, window).unwrap(), suspended[1..]);
    store.prune(Epoch(i64::MAX), KEEP).unwrap();
    assert_eq!(store.open_jobs(&name).unwrap(), records[2..], "without an end for ever");
}

#[test]
fn nothing_open_and_nothing_in_force_is_ever_removed() {
    let place = Place::new();
    let mut store = place.open();
    let bio = account("bio42");
    let command = |uuid: &str, issued| Command {
        uuid: uuid.into(),
        source: source(),
        policy: "p1".into(),
        account_text: "bio42".into(),
        issued: Epoch(issued),
        issued_ns: 0,
        description: String::new(),
        kind: CommandKind::Fairshare { fairshare: 3 },
    };
    let verdict = |state| Verdict { state, error: String::new(), commands: Vec::new() };
    store.receive(&[command("pending", 1), command("old", 2), command("stands", 3)], Epoch(4)).unwrap();
    for uuid in ["old", "stands"] {
        store.settle_command(uuid, &verdict(CommandState::Done), None, Epoch(5)).unwrap();
    }
    store.adopt(&[command("adopted", 0)], Epoch(5)).unwrap();
    let change = |change| PlannedChange { change, because: Vec::new() };
    let set =
        Assignments { jobs: [(JobLimit::GrpSubmitJobs, Limit::At(0))].into(), ..Assignments::default() };
    let block = change(Change::Accounts { accounts: Names::one(bio.clone()), set });
    let open = store.put_intent(&block, &[], None, Epoch(5)).unwrap();
    let done = store.put_intent(&block, &[], None, Epoch(5)).unwrap();
    store.settle_intent(done, &Outcome::Applied, &[], &[], Epoch(6)).unwrap();
    let marker =
        ResetMarker { account: bio.clone(), source: source(), policy: "p1".into(), period: "2026-11".into() };
    store.put_resets(std::slice::from_ref(&marker), Epoch(5), ResetHow::Reset).unwrap();
    for at in [5, 6] {
        store.put_decisions(Epoch(at), 1, &[(bio.clone(), json!(at))], 0).unwrap();
    }
    put(&mut store, &[]);
    put(&mut store, &[]);
    let usage = |key: &str| {
        Message::ComponentUsage(ComponentUsage {
            source: source(),
            allocation: key.into(),
            month: "2026-11".into(),
            date: Epoch(1),
            amounts: [].into(),
            users: [].into(),
        })
    };
    for key in ["told", "dead", "restated"] {
        store.enqueue(&usage(key), Epoch(5)).unwrap();
    }
    for delivery in store.acquire(MessageKind::ComponentUsage, Epoch(5), 9).unwrap() {
        match delivery.message == usage("dead") {
            true => store.failed(&delivery, "400", None).unwrap(),
            false => store.delivered(&delivery, Epoch(6)).unwrap(),
        }
    }
    store.enqueue(&usage("waiting"), Epoch(7)).unwrap();
    let Message::ComponentUsage(mut newer) = usage("restated") else { unreachable!() };
    newer.date = Epoch(2);
    store.enqueue(&Message::ComponentUsage(newer), Epoch(7)).unwrap();

    let pruned = store.prune(Epoch(1_000_000), KEEP).unwrap();
    let expected =
        Pruned { collections: 1, decisions: 1, commands: 2, intents: 1, delivered: 1, ..Pruned::default() };
    assert_eq!(pruned, expected);
    assert_eq!(store.prune(Epoch(1_000_000), KEEP).unwrap(), Pruned::default());

    let left: Vec<String> = store.commands(9).unwrap().into_iter().map(|row| row.command.uuid).collect();
    assert_eq!(left, ["stands", "pending"]);
    assert_eq!(store.standing(&source()).unwrap().len(), 1);
    let shown_again = [command("old", 2), command("adopted", 0), command("stands", 3)];
    assert_eq!(store.receive(&shown_again, Epoch(9)).unwrap(), [], "a command is acted on once, for ever");
    assert_eq!(store.unsettled_intents().unwrap()[0].id, open);
    assert_eq!(store.history(9, Some(&bio)).unwrap().len(), 1);
    assert!(store.reset_how(&marker).unwrap().is_some());
    assert_eq!(store.decisions(None, 9).unwrap()[0].body, json!(6));
    assert_eq!(store.last_collections(9).unwrap().len(), 1);
    assert_eq!(store.outbox_counts().unwrap().iter().map(|row| row.count).sum::<usize>(), 3);
    let told = |key: &str| store.last_delivered(&usage(key).key()).unwrap();
    assert_eq!(told("told"), None);
    assert_eq!(told("restated"), Some(usage("restated")), "what waits may have to be compared with it");
    store.integrity().unwrap();
}

#[test]
fn the_quotas_of_a_source_stay_as_they_were_said_until_something_else_is_said() {
    let place = Place::new();
    let said = |modify_index| SourceQuotas::Concurrency {
        quotas: vec![ConcurrencyQuota {
            name: "shared-quota".into(),
            description: String::new(),
            regions: BTreeMap::from([(
                "global".to_owned(),
                RegionLimit {
                    all: Capacity {
                        cores: Bound::AtMost(Exact::whole(2)),
                        cpu_mhz: Bound::Unlimited,
                        memory_mb: Bound::AtMost(Exact::ZERO),
                        devices: BTreeMap::from([("nvidia/gpu".to_owned(), Bound::AtMost(Exact::ONE))]),
                    },
                    node_pools: BTreeMap::new(),
                },
            )]),
            modify_index,
        }],
        usages: Vec::new(),
        map: ConcurrencyMap::default(),
    };
    let mut store = place.open();
    assert_eq!(store.quotas(&source()).unwrap(), None);
    store.put_quotas(&source(), &said(56), Epoch(10)).unwrap();
    store.put_quotas(&source(), &said(56), Epoch(20)).unwrap();
    drop(store);
    let mut store = place.open();
    let same = AcceptedQuotas { said: said(56), at: Epoch(20), since: Epoch(10) };
    assert_eq!(store.quotas(&source()).unwrap(), Some(same));
    store.put_quotas(&source(), &said(57), Epoch(30)).unwrap();
    let other = AcceptedQuotas { said: said(57), at: Epoch(30), since: Epoch(30) };
    assert_eq!(Store::open_reader(&place.path).unwrap().quotas(&source()).unwrap(), Some(other));
}

#[test]
fn the_last_report_of_a_kind_takes_the_place_of_the_one_before() {
    let place = Place::new();
    let mut store = place.open();
    assert_eq!(store.last_report::<Vec<u32>>("cycle").unwrap(), None);
    store.put_report("cycle", &vec![1, 2], Epoch(10)).unwrap();
    store.put_report("audit", &vec![7], Epoch(11)).unwrap();
    store.put_report("cycle", &vec![3], Epoch(20)).unwrap();
    let reader = Store::open_reader(&place.path).unwrap();
    assert_eq!(reader.last_report::<Vec<u32>>("cycle").unwrap(), Some((vec![3], Epoch(20))));
    assert_eq!(reader.last_report::<Vec<u32>>("audit").unwrap(), Some((vec![7], Epoch(11))));
    assert!(matches!(reader.last_report::<String>("cycle"), Err(StoreError::Row { .. })));
}
