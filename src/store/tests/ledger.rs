use proptest::prelude::*;

use super::*;
use crate::core::job::SuspendedBefore;
use crate::core::tres::TresCounts;

#[test]
fn a_job_is_read_back_as_it_was_stored_whatever_its_texts_and_numbers() {
    let place = Place::new();
    let mut store = place.open();
    let odd = JobRecord {
        key: JobKey { cluster: cluster(), dbindex: u64::MAX },
        job_id: 1 << 63,
        account: "a|b\n'\"\u{1f}é\0x".into(),
        user: "".into(),
        state: "CANCELLED by 4294967295".into(),
        submit: Epoch(i64::MIN),
        eligible: None,
        start: Some(Epoch(-1)),
        end: None,
        suspended_s: u64::MAX,
        elapsed_s: 0,
        partition: "p".repeat(10_000).into(),
        qos: "'); DROP TABLE jobs; --".into(),
        assoc_id: None,
        alloc: TresCounts::from([
            (Tres::parse("gres/gpu:a100").unwrap(), u64::MAX),
            (Tres::parse("license/x@y").unwrap(), 0),
        ])
        .into(),
    };
    put(&mut store, std::slice::from_ref(&odd));
    drop(store);
    assert_eq!(place.open().open_jobs(&cluster()).unwrap(), [odd]);
}

#[test]
fn an_equal_record_is_not_written_again() {
    let place = Place::new();
    let mut store = place.open();
    let records = [job(1, 100, Some(200)), job(2, 100, None)];
    assert_eq!(put(&mut store, &records), Collected { new: 2, ..Collected::default() });
    let before = changed_after(&store, 0);
    assert_eq!(put(&mut store, &records), Collected { unchanged: 2, ..Collected::default() });
    assert_eq!(changed_after(&store, 0), before);
}

#[test]
fn a_changed_record_takes_the_place_of_the_stored_one_and_shows_after_every_earlier_change() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, None), job(2, 100, None), job(3, 100, None)]);
    let ended = job(1, 100, Some(900));
    assert_eq!(
        put(&mut store, std::slice::from_ref(&ended)),
        Collected { changed: 1, ..Collected::default() }
    );
    assert_eq!(changed_after(&store, 0), [(2, 2), (3, 3), (4, 1)]);
    assert_eq!(changed_after(&store, 3), [(4, 1)]);
    assert_eq!(jobs_in(&store, 0, 5000)[0], ended);
}

#[test]
fn a_seq_never_comes_back_even_when_its_job_is_gone() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, Some(200)), job(2, 100, Some(200))]);
    let keep = Retention { jobs_s: 0, history_s: 0, oldest_needed: Epoch(i64::MAX) };
    assert_eq!(store.prune(Epoch(1000), keep).unwrap().jobs, 2);
    drop(store);
    let mut store = place.open();
    put(&mut store, &[job(3, 100, Some(200))]);
    assert_eq!(changed_after(&store, 0), [(3, 3)]);
}

#[test]
fn the_same_job_and_submit_time_under_another_dbindex_takes_the_place_of_the_old_row() {
    let place = Place::new();
    let mut store = place.open();
    let before = |dbindex| SuspendedBefore {
        key: JobKey { cluster: cluster(), dbindex },
        edge: Epoch(150),
        seconds: 3,
    };
    let name = cluster();
    let records = [job(1, 100, None), job(2, 100, None)];
    let suspended = [before(1), before(2)];
    store.put_collection(&Collection { suspended: &suspended, ..collection(&name, &records) }).unwrap();
    let moved = JobRecord { key: JobKey { cluster: cluster(), dbindex: 77 }, ..job(1, 100, Some(300)) };
    let collected = put(&mut store, std::slice::from_ref(&moved));
    assert_eq!(collected, Collected { new: 1, rekeyed: 1, ..Collected::default() });
    assert_eq!(jobs_in(&store, 0, 5000), [job(2, 100, None), moved]);
    let window = Window::new(Epoch(0), Epoch(150));
    assert_eq!(store.suspended_before(&cluster(), window).unwrap(), [before(2)]);
}

#[test]
fn a_known_job_whose_submit_time_becomes_that_of_another_row_of_it_leaves_one_row() {
    let place = Place::new();
    let mut store = place.open();
    let requeued = JobRecord { job_id: 1, submit: Epoch(500), ..job(2, 510, None) };
    put(&mut store, &[job(1, 100, None), requeued]);
    let moved = JobRecord { submit: Epoch(500), ..job(1, 600, Some(700)) };
    let collected = put(&mut store, std::slice::from_ref(&moved));
    assert_eq!(collected, Collected { changed: 1, rekeyed: 1, ..Collected::default() });
    assert_eq!(jobs_in(&store, 0, 5000), [moved]);
}

#[test]
fn a_window_shows_the_jobs_that_hold_a_second_of_it() {
    let place = Place::new();
    let mut store = place.open();
    let pending = JobRecord { start: None, alloc: TresCounts::new().into(), ..job(9, 150, None) };
    let cancelled = JobRecord { start: None, ..job(10, 150, Some(160)) };
    put(
        &mut store,
        &[
            job(1, 50, Some(100)),
            job(2, 50, Some(101)),
            job(3, 199, Some(300)),
            job(4, 200, Some(300)),
            job(5, 50, None),
            job(6, 199, None),
            job(7, 200, None),
            job(8, 10, Some(900)),
            pending,
            cancelled,
        ],
    );
    let shown: Vec<u64> = jobs_in(&store, 100, 200).iter().map(|job| job.key.dbindex).collect();
    assert_eq!(shown, [2, 3, 5, 6, 8]);
}

#[test]
fn clusters_do_not_see_each_others_jobs_and_a_foreign_record_stores_nothing() {
    let place = Place::new();
    let mut store = place.open();
    let other = ClusterName::parse("other").unwrap();
    let mut foreign = job(1, 100, Some(300));
    foreign.key.cluster = other.clone();
    put(&mut store, &[job(1, 100, Some(200))]);
    let records = [foreign];
    store.put_collection(&collection(&other, &records)).unwrap();
    assert_eq!(jobs_in(&store, 0, 5000), [job(1, 100, Some(200))]);

    let name = cluster();
    let mixed = [job(5, 100, Some(200)), records[0].clone()];
    let error = store
        .put_collection(&Collection { watermark: Some(Epoch(9)), ..collection(&name, &mixed) })
        .unwrap_err();
    assert!(matches!(error, StoreError::ForeignRecord { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    assert_eq!(jobs_in(&store, 0, 5000).len(), 1);
    assert_eq!(store.watermark(&name).unwrap(), None);
    assert_eq!(store.last_collections(9).unwrap().len(), 2);
}

#[test]
fn a_window_in_parts_is_logged_once_with_all_that_became_of_its_records() {
    let place = Place::new();
    let mut store = place.open();
    let name = cluster();
    let records = [job(1, 100, Some(200)), job(2, 100, Some(200)), job(3, 100, Some(200))];
    let part = Collection { more: true, watermark: Some(Epoch(5000)), ..collection(&name, &records[..2]) };
    let before = store.put_collection(&part).unwrap();
    assert_eq!((before.new, store.watermark(&name).unwrap()), (2, None));
    assert_eq!(store.last_collections(9).unwrap(), []);
    let last = Collection { before, watermark: Some(Epoch(5000)), ..collection(&name, &records[1..]) };
    assert_eq!(store.put_collection(&last).unwrap().new, 1);
    let log = store.last_collections(9).unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].collected, Collected { new: 3, unchanged: 1, ..Collected::default() });
    assert_eq!(store.watermark(&name).unwrap(), Some(Epoch(5000)));
}

#[test]
fn a_collection_moves_the_watermark_only_when_it_says_so_and_is_logged() {
    let place = Place::new();
    let mut store = place.open();
    let name = cluster();
    assert_eq!(store.watermark(&name).unwrap(), None);
    let records = [job(1, 100, Some(200))];
    let first = Collection { watermark: Some(Epoch(5000)), ..collection(&name, &records) };
    store.put_collection(&first).unwrap();
    let second = Collection {
        rejected: 2,
        reject_samples: vec!["1|x\ny".into()],
        complete: false,
        ..collection(&name, &[])
    };
    store.put_collection(&second).unwrap();
    assert_eq!(store.watermark(&name).unwrap(), Some(Epoch(5000)));
    let log = store.last_collections(5).unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].collected, Collected { new: 1, ..Collected::default() });
    assert!(log[1].complete);
    assert_eq!(
        (log[0].rejected, &log[0].reject_samples[..], log[0].complete),
        (2, &["1|x\ny".to_owned()][..], false)
    );
    assert_eq!(store.last_collections(1).unwrap(), log[..1]);
}

#[test]
fn a_runaway_job_is_left_out_until_it_is_none_any_more_or_has_an_end() {
    let place = Place::new();
    let mut store = place.open();
    put(&mut store, &[job(1, 100, None), job(2, 100, None)]);
    let key = |dbindex| JobKey { cluster: cluster(), dbindex };
    assert!(!store.mark_runaway(&key(3), true).unwrap());
    assert!(store.mark_runaway(&key(1), true).unwrap());
    assert_eq!(store.runaways(&cluster()).unwrap(), [job(1, 100, None)]);
    assert_eq!(jobs_in(&store, 0, 5000), [job(2, 100, None)]);
    assert_eq!(changed_after(&store, 0), [(2, 2)]);
    assert_eq!(put(&mut store, &[job(1, 100, None)]).unchanged, 1, "a flag is no part of the record");
    assert_eq!(store.runaways(&cluster()).unwrap().len(), 1);

    put(&mut store, &[job(1, 100, Some(400))]);
    assert_eq!(store.runaways(&cluster()).unwrap(), []);
    assert_eq!(changed_after(&store, 3), [(4, 1)]);
    assert!(store.mark_runaway(&key(2), true).unwrap());
    assert!(store.mark_runaway(&key(2), false).unwrap());
    assert_eq!(changed_after(&store, 4), [(6, 2)]);
    assert!(store.mark_runaway(&key(2), false).unwrap());
    assert_eq!(changed_after(&store, 6), []);
}

#[test]
fn a_sentinel_ran_and_ended_strictly_inside_the_window() {
    let place = Place::new();
    let mut store = place.open();
    let never_started = JobRecord { start: None, ..job(4, 150, Some(160)) };
    put(&mut store, &[job(1, 50, Some(100)), job(2, 50, Some(200)), job(3, 50, None), never_started]);
    let window = Window::new(Epoch(100), Epoch(200));
    assert_eq!(store.sentinel(&cluster(), window).unwrap(), None);
    put(&mut store, &[job(5, 50, Some(101)), job(6, 50, Some(199))]);
    let found = store.sentinel(&cluster(), window).unwrap();
    assert_eq!(found.map(|record| record.key), Some(JobKey { cluster: cluster(), dbindex: 6 }));
}

#[test]
fn changes_are_shown_in_batches_that_leave_none_out() {
    let place = Place::new();
    let mut store = place.open();
    let records: Vec<JobRecord> = (1..=25).map(|n| job(n, 100, Some(200))).collect();
    put(&mut store, &records);
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let before = after;
        store
            .visit_changed(&cluster(), before, 10, &mut |seq, job| {
                after = seq;
                seen.push(job.key.dbindex);
            })
            .unwrap();
        if after == before {
            break;
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<u64>>());
}

/// Versions of few jobs, so that they meet.
fn version() -> impl Strategy<Value = JobRecord> {
    (1u64..6, 100i64..104, proptest::option::of(200i64..203), 1u64..3).prop_map(
        |(dbindex, start, end, cpus)| JobRecord {
            submit: Epoch(90),
            alloc: TresCounts::from([(Tres::cpu(), cpus)]).into(),
            ..job(dbindex, start, end)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_last_version_of_each_job_stays_however_versions_are_spread_and_repeated(
        batches in proptest::collection::vec(proptest::collection::vec(version(), 0..6), 1..6),
        again in any::<bool>(),
    ) {
        let place = Place::new();
        let mut store = place.open();
        let mut expected = std::collections::BTreeMap::new();
        for batch in &batches {
            let changes: Vec<&JobRecord> = batch
                .iter()
                .filter(|job| expected.insert(job.key.dbindex, (*job).clone()).as_ref() != Some(*job))
                .collect();
            let collected = put(&mut store, batch);
            prop_assert_eq!(collected.new + collected.changed, changes.len());
            prop_assert_eq!(collected.new + collected.changed + collected.unchanged, batch.len());
            if again {
                let last: Vec<JobRecord> = expected.values().cloned().collect();
                prop_assert_eq!(put(&mut store, &last).unchanged, last.len());
            }
        }
        let expected: Vec<JobRecord> = expected.into_values().collect();
        prop_assert_eq!(jobs_in(&store, 0, 5000), expected.clone());
        let mut seqs: Vec<u64> = changed_after(&store, 0).into_iter().map(|(seq, _)| seq).collect();
        prop_assert_eq!(seqs.len(), expected.len());
        seqs.dedup();
        prop_assert_eq!(seqs.len(), expected.len());
        store.integrity().unwrap();
    }

    #[test]
    fn distinct_jobs_end_up_the_same_in_any_order(
        (sorted, mixed) in proptest::collection::btree_map(1u64..1000, version(), 1..40).prop_flat_map(|jobs| {
            let jobs: Vec<JobRecord> = jobs
                .into_iter()
                .map(|(id, job)| JobRecord { key: JobKey { cluster: cluster(), dbindex: id }, job_id: id, ..job })
                .collect();
            (Just(jobs.clone()), Just(jobs).prop_shuffle())
        }),
    ) {
        let place = Place::new();
        let mut store = place.open();
        for part in mixed.chunks(7) {
            put(&mut store, part);
        }
        prop_assert_eq!(jobs_in(&store, 0, 5000), sorted);
    }
}

proptest! {
    #[test]
    fn what_was_submitted_since_is_shown_whenever_it_ended(
        jobs in prop::collection::vec((1u64..6, 0i64..40, prop::option::of(0i64..40), any::<bool>()), 0..12), after in 0i64..40,
    ) {
        let place = Place::new();
        let mut store = place.open();
        let mut records: Vec<JobRecord> = Vec::new();
        for (dbindex, (id, submit, end, runaway)) in (1..).zip(jobs) {
            // Ends before the submission are nothing that Slurm should write, and they are shown as well.
            let record = JobRecord { job_id: id, submit: Epoch(submit), ..job(dbindex, 0, end) };
            records.retain(|known| (known.job_id, known.submit) != (id, record.submit));
            put(&mut store, std::slice::from_ref(&record));
            store.mark_runaway(&record.key, runaway).unwrap();
            records.push(record);
        }
        let mut shown = Vec::new();
        store
            .visit_submitted(&cluster(), Epoch(after), &mut |record, before| shown.push((record.key.dbindex, before)))
            .unwrap();
        shown.sort_unstable_by_key(|(dbindex, _)| *dbindex);
        let before = |record: &JobRecord| {
            let earlier = records.iter().filter(|other| other.job_id == record.job_id && other.submit < record.submit);
            earlier.max_by_key(|other| other.submit).map(|other| other.end)
        };
        let expected: Vec<(u64, Option<Option<Epoch>>)> = records
            .iter()
            .filter(|record| record.submit > Epoch(after))
            .map(|record| (record.key.dbindex, before(record)))
            .collect();
        prop_assert_eq!(shown, expected);
    }
}
