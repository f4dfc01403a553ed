//! Kept totals equal a recount, whatever the ledger goes through.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::core::job::SuspendedBefore;
use crate::core::usage::{AccountUse, Changed};

const EDGE: i64 = 1_000_000;

fn windows(which: &[usize]) -> BTreeSet<Window> {
    let all = [(0, EDGE), (EDGE, 2 * EDGE), (EDGE - 500, EDGE + 500), (0, i64::MAX), (EDGE + 10, EDGE + 20)];
    which.iter().map(|place| Window::new(Epoch(all[*place].0), Epoch(all[*place].1))).collect()
}

/// What happens to the ledger.
#[derive(Debug, Clone)]
enum Event {
    /// A collection of these records, and of the suspension before the edge of those that were suspended.
    Collected(Vec<JobRecord>, u64),
    /// A job is marked, or no longer.
    Runaway(u64, bool),
    /// Totals of these windows are wanted.
    Wanted(Vec<usize>),
    /// Jobs that ended before are removed.
    Pruned(i64),
    /// The process ends and another one begins.
    Reopened,
}

fn record() -> impl Strategy<Value = JobRecord> {
    let times = (-900i64..900, prop::option::weighted(0.8, -10i64..1500), -200i64..200);
    (1u64..12, times, 0u64..3, prop::option::weighted(0.3, 1u64..400), any::<bool>(), any::<bool>()).prop_map(
        |(id, (start, length, made), who, suspended, rekeyed, started)| {
            let start = EDGE + start;
            let end = length.map(|length| start + length);
            let amounts =
                [(Tres::cpu(), who + 1), (Tres::billing(), 3 * who), (Tres::parse("energy").unwrap(), 9)];
            JobRecord {
                key: JobKey { cluster: cluster(), dbindex: if rekeyed { id + 100 } else { id } },
                job_id: id,
                account: format!("a{who}").into(),
                user: format!("u{}", id % 2).into(),
                // Few instants, so that incarnations meet; some after the start, as pieces of resized jobs have it.
                submit: Epoch(start.min(EDGE + made)),
                start: started.then_some(Epoch(start)),
                suspended_s: suspended.unwrap_or(0),
                alloc: TresCounts::from(amounts).into(),
                ..job(id, start, end)
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (prop::collection::vec(record(), 0..50), 0u64..300).prop_map(|(jobs, s)| Event::Collected(jobs, s)),
        2 => (1u64..12, any::<bool>()).prop_map(|(id, runaway)| Event::Runaway(id, runaway)),
        2 => prop::collection::vec(0usize..5, 0..4).prop_map(Event::Wanted),
        1 => (-900i64..900).prop_map(Event::Pruned),
        1 => Just(Event::Reopened),
    ]
}

fn happen(store: &mut Store, place: &Place, event: &Event, now: Epoch) -> Option<Store> {
    let name = cluster();
    match event {
        Event::Collected(records, before) => {
            let suspended: Vec<SuspendedBefore> = records
                .iter()
                .filter(|job| job.suspended_s > 0)
                .map(|job| SuspendedBefore { key: job.key.clone(), edge: Epoch(EDGE), seconds: *before })
                .collect();
            store
                .put_collection(&Collection { suspended: &suspended, ..collection(&name, records) })
                .unwrap();
        }
        Event::Runaway(id, runaway) => {
            store.mark_runaway(&JobKey { cluster: cluster(), dbindex: *id }, *runaway).unwrap();
        }
        Event::Wanted(which) => {
            store.keep_totals(&name, &windows(which), now).unwrap();
        }
        Event::Pruned(before) => {
            let keep = Retention { jobs_s: 0, history_s: 0, oldest_needed: Epoch(EDGE + before) };
            store.prune(now, keep).unwrap();
        }
        Event::Reopened => {
            let other = Place::new();
            let _ = std::mem::replace(store, other.open());
            return Some(place.open());
        }
    }
    None
}

fn assert_equal_to_a_recount(store: &Store) {
    for recount in store.recount(&cluster()).unwrap() {
        assert_eq!(recount.kept.differences(&recount.counted), [], "{:?}", recount.window);
        assert_eq!(recount.kept, recount.counted, "{:?}", recount.window);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn kept_totals_equal_a_recount_after_every_event(events in prop::collection::vec(event(), 1..16)) {
        let place = Place::new();
        let mut store = place.open();
        store.keep_totals(&cluster(), &windows(&[0, 1]), Epoch(0)).unwrap();
        for (turn, event) in events.iter().enumerate() {
            // A week between two events: windows that nobody wants go in between.
            let now = Epoch(3 * EDGE + turn as i64 * 7 * 86_400);
            if let Some(reopened) = happen(&mut store, &place, event, now) {
                store = reopened;
            }
            assert_equal_to_a_recount(&store);
        }
        let all = windows(&[0, 1, 2, 3, 4]);
        store.keep_totals(&cluster(), &all, Epoch(4 * EDGE)).unwrap();
        assert_equal_to_a_recount(&store);
        prop_assert_eq!(
            store.totals(&cluster(), &all).unwrap(),
            store.add_up_plainly(&cluster(), &all).unwrap()
        );
    }
}

#[test]
fn totals_are_kept_for_windows_that_are_wanted_and_forgotten_weeks_after_the_last_wish() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    let (first, second) = (windows(&[0]), windows(&[1]));
    let kept = store.keep_totals(&cluster(), &first, Epoch(0)).unwrap();
    assert_eq!((kept.before.len(), &kept.added), (0, &first));
    assert_eq!(store.keep_totals(&cluster(), &first, Epoch(5)).unwrap().added.len(), 0);
    let total = &store.totals(&cluster(), &first).unwrap()[first.first().unwrap()];
    assert_eq!(total.get("bio42", "alice", &Tres::cpu()), 400);
    assert_eq!(total.jobs, 1);
    assert_eq!(store.keep_totals(&cluster(), &second, Epoch(13 * 86_400)).unwrap().added, second);
    assert_eq!(store.totals(&cluster(), &first).unwrap().len(), 1, "a source may come back");
    store.keep_totals(&cluster(), &second, Epoch(15 * 86_400)).unwrap();
    assert_eq!(store.totals(&cluster(), &first).unwrap().len(), 0);
    let rows: i64 = store.conn.query_row("SELECT count(*) FROM totals", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_quiet_look_at_kept_totals_writes_nothing() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    store.keep_totals(&cluster(), &windows(&[0, 1]), Epoch(0)).unwrap();
    let changes =
        |store: &Store| store.conn.query_row("SELECT total_changes()", [], |row| row.get::<_, i64>(0));
    let before = changes(&store).unwrap();
    store.keep_totals(&cluster(), &windows(&[0, 1]), Epoch(3600)).unwrap();
    put(&mut store, &[]);
    assert_eq!(changes(&store).unwrap() - before, 2, "the counter and the line in the log of collections");
}

#[test]
fn totals_that_were_tampered_with_are_found_and_made_right() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200)), job(2, 100, Some(300))]);
    let wanted = windows(&[0]);
    store.keep_totals(&cluster(), &wanted, Epoch(0)).unwrap();
    let tres = ["billing", "cpu"];
    let Changed::Use(used) = AccountUse::changed(None, &tres, [("alice", [1200, 3].as_slice())].into_iter())
    else {
        panic!("there is use");
    };
    store.conn.execute("UPDATE totals SET used = ?1", [used.bytes()]).unwrap();
    let recount = store.recount(&cluster()).unwrap();
    let differences: Vec<String> =
        recount[0].kept.differences(&recount[0].counted).iter().map(ToString::to_string).collect();
    assert_eq!(
        differences,
        ["bio42 alice cpu: kept 3, counted 1200", "bio42 alice mem: kept 0, counted 1228800"]
    );
    // A correction would take more off than there is: the window is dropped, and added up again when it is wanted.
    put(&mut store, &[job(1, 100, None)]);
    assert_eq!(store.totals(&cluster(), &wanted).unwrap().len(), 0);
    assert_eq!(store.keep_totals(&cluster(), &wanted, Epoch(0)).unwrap().added, wanted);
    assert_equal_to_a_recount(&store);
    let total = &store.totals(&cluster(), &wanted).unwrap()[wanted.first().unwrap()];
    assert_eq!(total.get("bio42", "alice", &Tres::cpu()), 800);
}

#[test]
fn totals_whose_bytes_were_damaged_are_refused_and_never_count_as_nothing() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200))]);
    let wanted = windows(&[0]);
    store.keep_totals(&cluster(), &wanted, Epoch(0)).unwrap();
    store.conn.execute_batch("UPDATE totals SET used = substr(used, 1, length(used) - 1)").unwrap();
    let error = store.totals(&cluster(), &wanted).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains("not the use of an account"), "{error}");
    let collected = store.put_collection(&collection(&cluster(), &[job(2, 100, Some(200))]));
    assert_eq!(collected.unwrap_err().class(), Class::Corrupt, "nothing is added to what cannot be read");
    // Dropped, they are added up again from the jobs.
    store.drop_totals(&cluster(), &wanted).unwrap();
    assert_eq!(store.keep_totals(&cluster(), &wanted, Epoch(0)).unwrap().added, wanted);
    assert_equal_to_a_recount(&store);
}

#[test]
fn jobs_of_one_account_under_many_names_of_users_are_counted_apart() {
    let place = Place::new();
    let mut store = place.open();
    store.keep_totals(&cluster(), &windows(&[0]), Epoch(0)).unwrap();
    let of = |n: u64, user: &str| JobRecord { user: user.into(), ..job(n, 100, Some(200)) };
    let users = ["", "alice", "alice\u{fffd}", "al\u{1f}ice", "ångström", "root"];
    let records: Vec<JobRecord> = users
        .iter()
        .zip(1..)
        .flat_map(|(user, n)| (0..n).map(move |m| (n * 100 + m, *user)))
        .map(|(n, user)| of(n, user))
        .collect();
    put(&mut store, &records);
    let total = &store.totals(&cluster(), &windows(&[0])).unwrap()[windows(&[0]).first().unwrap()];
    for (user, jobs) in users.iter().zip(1u128..) {
        assert_eq!(total.get("bio42", user, &Tres::cpu()), jobs * 400, "{user:?}");
    }
    assert_equal_to_a_recount(&store);
}
