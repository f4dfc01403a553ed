//! Windows against a model that counts second by second.

use proptest::prelude::*;

use super::*;
use crate::core::job::JobKey;
use crate::core::name::ClusterName;
use crate::core::tres::TresCounts;

fn record(
    dbindex: u64,
    job_id: u64,
    submit: i64,
    start: Option<i64>,
    end: Option<i64>,
    billing: u64,
) -> JobRecord {
    JobRecord {
        key: JobKey { cluster: ClusterName::parse("lab").unwrap(), dbindex },
        job_id,
        account: "bio".into(),
        user: "alice".into(),
        state: "COMPLETED".into(),
        submit: Epoch(submit),
        eligible: Some(Epoch(submit)),
        start: start.map(Epoch),
        end: end.map(Epoch),
        suspended_s: 0,
        elapsed_s: 0,
        partition: "debug".into(),
        qos: "normal".into(),
        assoc_id: None,
        alloc: TresCounts::from([(Tres::billing(), billing), (Tres::cpu(), 1)]).into(),
    }
}

fn submissions(at: &[i64]) -> Vec<Submission> {
    at.iter().map(|at| Submission { at: Epoch(*at), account: "bio".into(), user: "alice".into() }).collect()
}

fn stretch(from: i64, until: Option<i64>, billing: u64) -> Stretch {
    let (account, user) = ("bio".into(), "alice".into());
    Stretch { from: Epoch(from), until: until.map(Epoch), billing, account, user }
}

#[test]
fn a_submission_counts_from_its_second_on_for_the_length_of_the_window() {
    let one = submissions(&[100]);
    let at = |now| submitted(one.iter(), 60, Epoch(now));
    assert_eq!((at(100), at(159), at(160)), (1, 1, 0));
    assert_eq!(at(99), 1, "it is known to have been made");
    let three = submissions(&[100, 130, 150]);
    let again = |limit, now| submissions_again(three.iter(), 60, limit, Epoch(now));
    assert_eq!(again(3, 155), Some(Epoch(160)));
    assert_eq!(again(2, 155), Some(Epoch(190)));
    assert_eq!(again(4, 155), Some(Epoch(155)));
    assert_eq!(again(0, 155), None);
}

#[test]
fn use_counts_by_the_second_at_both_edges() {
    // 2 a second from 100 to 130: 60 in all.
    let one = [stretch(100, Some(130), 2)];
    let at = |now| used(one.iter(), 60, Epoch(now));
    assert_eq!((at(100), at(101), at(130), at(160), at(161), at(189), at(190)), (0, 2, 60, 60, 58, 2, 0));
    let again = |limit, now| use_again(one.iter(), 60, limit, Epoch(now), Running::Ends);
    assert_eq!(again(60, 140), Some(Epoch(161)));
    assert_eq!(again(59, 140), Some(Epoch(161)));
    assert_eq!(again(58, 140), Some(Epoch(162)));
    assert_eq!(again(61, 140), Some(Epoch(140)));
    assert_eq!(again(1, 140), Some(Epoch(190)));
    assert_eq!(again(0, 140), None);
}

#[test]
fn what_goes_on_may_never_leave_enough() {
    let running = [stretch(100, None, 2)];
    let again = |running_is, limit| use_again(running.iter(), 60, limit, Epoch(200), running_is);
    assert_eq!(used(running.iter(), 60, Epoch(200)), 120);
    assert_eq!(again(Running::GoesOn, 120), None);
    assert_eq!(again(Running::GoesOn, 121), Some(Epoch(200)));
    assert_eq!(again(Running::Ends, 120), Some(Epoch(201)));
}

#[test]
fn a_requeued_job_is_one_submission_and_a_job_of_the_same_id_much_later_is_another() {
    let again = record(2, 7, 500, Some(510), None, 1);
    assert_eq!(Submission::of(&again, Some(Some(Epoch(500)))), None);
    assert_eq!(Submission::of(&again, Some(None)), None);
    assert!(Submission::of(&again, None).is_some());
    assert!(Submission::of(&again, Some(Some(Epoch(500 - REQUEUE_GAP_S)))).is_some());
    assert_eq!(Stretch::of(&record(3, 8, 500, None, None, 1)), None, "it waits");
    let piece = Stretch::of(&record(4, 9, 500, Some(100), Some(600), 3)).unwrap();
    assert_eq!(piece.from, Epoch(500), "a piece of a resized job begins when it was made");
}

/// What happened, and when the ledger came to know it.
#[derive(Debug, Clone)]
struct Happened {
    record: JobRecord,
    known: i64,
}

fn happened() -> impl Strategy<Value = Vec<Happened>> {
    let one = (0i64..400, 0i64..60, prop::option::weighted(0.8, 0i64..150), 0u64..4, 0i64..200);
    prop::collection::vec(one, 0..25).prop_map(|rows| {
        let numbered = rows.into_iter().enumerate();
        numbered
            .map(|(n, (submit, wait, ran, billing, late))| {
                let start = submit + wait;
                let end = ran.map(|ran| start + ran);
                Happened {
                    record: record(n as u64 + 1, n as u64 + 1, submit, Some(start), end, billing),
                    known: submit + late,
                }
            })
            .collect()
    })
}

/// The model: every second of the window is looked at by itself.
fn model(known: &[JobRecord], length_s: i64, now: i64) -> (u64, u128) {
    let submitted = known.iter().filter(|job| !(job.submit.0 + length_s..).contains(&now)).count() as u64;
    let mut used = 0;
    for second in now - length_s..now {
        for job in known {
            let (from, until) = (job.start.unwrap().0, job.end.map_or(now, |end| end.0));
            if from <= second && second < until {
                used += u128::from(job.alloc[&Tres::billing()]);
            }
        }
    }
    (submitted, used)
}

fn parts(known: &[JobRecord]) -> (Vec<Submission>, Vec<Stretch>) {
    (
        known.iter().filter_map(|job| Submission::of(job, None)).collect(),
        known.iter().filter_map(Stretch::of).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Late records come when they come; a restart changes nothing, since nothing is kept; the clock goes back and on.
    #[test]
    fn windows_are_what_the_model_counts(
        all in happened(),
        looks in prop::collection::vec((0i64..700, 0i64..700), 1..6),
        length_s in prop::sample::select(vec![1i64, 60, 200]),
    ) {
        for (now, collected) in looks {
            let known: Vec<JobRecord> =
                all.iter().filter(|h| h.known <= collected).map(|h| h.record.clone()).collect();
            let (submissions, stretches) = parts(&known);
            let (submitted_model, used_model) = model(&known, length_s, now);
            prop_assert_eq!(submitted(submissions.iter(), length_s, Epoch(now)), submitted_model);
            prop_assert_eq!(used(stretches.iter(), length_s, Epoch(now)), used_model);
        }
    }

    /// The instant that is told is the first at which the model has enough rolled away.
    #[test]
    fn the_way_back_is_told_to_the_second(
        all in happened(),
        now in 0i64..500,
        limit in 1u64..40,
        length_s in prop::sample::select(vec![1i64, 60, 200]),
    ) {
        // What has not happened yet is not known: jobs that start after now wait.
        let known: Vec<JobRecord> = all
            .iter()
            .map(|h| h.record.clone())
            .filter(|job| job.start.unwrap().0 <= now)
            .map(|mut job| { job.end = job.end.filter(|end| end.0 <= now); job })
            .collect();
        let (submissions, stretches) = parts(&known);
        let back = submissions_again(submissions.iter(), length_s, limit, Epoch(now)).unwrap().0;
        let first = (now..).find(|at| model(&known, length_s, *at).0 < limit).unwrap();
        prop_assert_eq!(back, first);

        let limit = u128::from(limit) * 20;
        let ended: Vec<JobRecord> =
            known.iter().cloned().map(|mut job| { job.end = job.end.or(Some(Epoch(now))); job }).collect();
        let first = (now..).find(|at| model(&ended, length_s, *at).1 < limit).unwrap();
        let back = use_again(stretches.iter(), length_s, limit, Epoch(now), Running::Ends);
        prop_assert_eq!(back, Some(Epoch(first)));

        let first = (now..=now + length_s + 1).find(|at| model(&known, length_s, *at).1 < limit);
        let back = use_again(stretches.iter(), length_s, limit, Epoch(now), Running::GoesOn);
        prop_assert_eq!(back, first.map(Epoch), "after a window's length nothing changes any more");
    }
}
