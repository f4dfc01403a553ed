//! Charges, maps, refunds and corrections.

use std::collections::BTreeMap;

use super::*;
use crate::core::job::JobKey;
use crate::core::name::{AccountName, ClusterName};
use crate::core::tres::TresCounts;

fn job() -> JobRecord {
    JobRecord {
        key: JobKey { cluster: ClusterName::parse("hpc").unwrap(), dbindex: 7 },
        job_id: 100,
        account: "bio42".into(),
        user: "alice".into(),
        state: "COMPLETED".into(),
        submit: Epoch(1000),
        eligible: Some(Epoch(1000)),
        start: Some(Epoch(2000)),
        end: Some(Epoch(5601)),
        suspended_s: 1,
        elapsed_s: 3600,
        partition: "gpu".into(),
        qos: "high".into(),
        assoc_id: None,
        alloc: TresCounts::from(
            [("billing", 7), ("cpu", 4), ("mem", 2048), ("node", 2)]
                .map(|(name, count)| (Tres::parse(name).unwrap(), count)),
        )
        .into(),
    }
}

fn rules() -> Reporting {
    Reporting {
        mapping: Mapping {
            projects: [(AccountName::parse("bio42").unwrap(), "TG-BIO".to_owned())].into(),
            granted: [("tg-known", "TG-0007"), ("bio42", "not this one")]
                .map(|(account, project)| (AccountName::parse(account).unwrap(), project.to_owned()))
                .into(),
            patterns: [("tg-*", "TG-{REST}"), ("tg-old-*", "OLD-{rest}")]
                .map(|(pattern, template)| (pattern.to_owned(), template.to_owned()))
                .into(),
            exclude: vec!["staff*".into()],
            users: BTreeMap::new(),
            resource: "r1".into(),
            resources: BTreeMap::new(),
        },
        charges: Vec::new(),
        refunds: Vec::new(),
        since: Epoch(0),
    }
}

fn records(rules: &Reporting, job: &JobRecord) -> Vec<Record> {
    match rules.records(job) {
        Verdict::Records(records) => records,
        other => panic!("{other:?}"),
    }
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

#[test]
fn the_charge_is_the_rules_formula_exactly_and_rounded_once() {
    let mut rules = rules();
    // 7 x 3601 / 3600 = 7.0019444...
    assert_eq!(records(&rules, &job())[0].charge, "7.001944");
    let tres = [("cpu", "1"), ("mem", "0.5")];
    let weights = tres.map(|(name, weight)| (Tres::parse(name).unwrap(), exact(weight))).into();
    rules.charges = vec![
        ChargeRule { basis: Basis::Nodes, ..ChargeRule::default() },
        ChargeRule {
            basis: Basis::Tres(weights),
            factor: exact("1/3"),
            partitions: [("gpu".to_owned(), exact("2"))].into(),
            qos: [("high".to_owned(), exact("1.5"))].into(),
            since: Epoch(5601),
            ..ChargeRule::default()
        },
        ChargeRule { resource: Some("r2".into()), ..ChargeRule::default() },
        ChargeRule { since: Epoch(5602), ..ChargeRule::default() },
    ];
    // cpu: 4 x 3600 s, mem: 2 GB x 3601 s x 0.5; times 1/3 x 2 x 1.5 = 1.
    assert_eq!(records(&rules, &job())[0].charge, "5.000278");
    let earlier = JobRecord { end: Some(Epoch(5600)), ..job() };
    assert_eq!(records(&rules, &earlier)[0].charge, "2.000000", "an earlier price holds for earlier jobs");
}

#[test]
fn a_job_without_project_or_billing_waits_and_one_that_is_left_out_does_not() {
    let rules = rules();
    let of = |account: &str| rules.records(&JobRecord { account: account.into(), ..job() });
    assert!(matches!(of("chem"), Verdict::Waits(waits) if waits.what == "chem"));
    assert!(matches!(of("evil\nname"), Verdict::Waits(_)));
    assert_eq!(of("staff7"), Verdict::NotMeant);
    let project = |account: &str| rules.mapping.project(account).unwrap().unwrap();
    assert_eq!(project("TG-abc1"), "TG-ABC1");
    assert_eq!(project("tg-known"), "TG-0007", "the resource's metadata go before patterns");
    assert_eq!(project("bio42"), "TG-BIO", "the map goes before both");
    assert_eq!(project("tg-old-x"), "OLD-x", "the longest pattern counts");
    let unbilled = JobRecord { alloc: TresCounts::from([(Tres::parse("node").unwrap(), 1)]).into(), ..job() };
    assert!(matches!(rules.records(&unbilled), Verdict::Waits(waits) if waits.reason.contains("billing")));
    assert_eq!(rules.records(&JobRecord { start: None, ..job() }), Verdict::Nothing);
    assert_eq!(rules.records(&JobRecord { end: None, ..job() }), Verdict::Nothing);
}

#[test]
fn every_state_that_used_time_is_charged() {
    for state in ["FAILED", "TIMEOUT", "OUT_OF_MEMORY", "PREEMPTED", "REQUEUED", "CANCELLED by 0", "NEWSTATE"]
    {
        let ended = JobRecord { state: state.into(), ..job() };
        assert_eq!(records(&rules(), &ended)[0].charge, "7.001944", "{state}");
    }
}

#[test]
fn a_refund_follows_its_job_and_is_never_made_twice() {
    let mut rules = rules();
    rules.refunds = vec![
        RefundRule { states: vec!["NODE_FAIL".into()], window: None, comment: "node".into() },
        RefundRule {
            states: vec!["CANCELLED".into()],
            window: Some(Window::new(Epoch(5601), Epoch(6000))),
            comment: "maintenance".into(),
        },
    ];
    assert_eq!(records(&rules, &job()).len(), 1);
    let before = JobRecord { state: "CANCELLED by 0".into(), end: Some(Epoch(5600)), ..job() };
    assert_eq!(records(&rules, &before).len(), 1);
    for state in ["NODE_FAIL", "CANCELLED by 1000"] {
        let ended = JobRecord { state: state.into(), ..job() };
        let made = records(&rules, &ended);
        assert_eq!(
            (made[1].local_record_id.as_str(), made[1].charge.as_str()),
            ("hpc.100.1000.refund", "7.001944")
        );
        assert_eq!(made[1].happened(), Epoch(1000), "for the time of the submission");
        assert_eq!(made[0].effect().unwrap().plus(made[1].effect().unwrap()), Some(Exact::ZERO));
        let held = hold(&made);
        assert_eq!(settle(&held, made.clone(), Corrections::Restate), []);
        // The node did not fail after all: the refund is withdrawn.
        let [withdrawn] = &settle(&held, records(&rules, &job()), Corrections::Restate)[..] else { panic!() };
        assert_eq!(
            (withdrawn.local_record_id.as_str(), withdrawn.charge.as_str()),
            ("hpc.100.1000.refund", "0.000000")
        );
    }
}

fn hold(records: &[Record]) -> Vec<Held> {
    records
        .iter()
        .map(|record| Held { record: record.clone(), taken: true, account: String::new() })
        .collect()
}

#[test]
fn a_record_that_used_nothing_after_all_or_moved_is_withdrawn_where_it_was() {
    let told = records(&rules(), &job());
    let withdrawn = settle(&hold(&told), Vec::new(), Corrections::Restate);
    assert_eq!(withdrawn, [told[0].withdrawn()]);
    assert_eq!(settle(&hold(&withdrawn), Vec::new(), Corrections::Restate), [], "once");
    let mut moved = rules();
    moved.mapping.resource = "r2".into();
    let made = settle(&hold(&told), records(&moved, &job()), Corrections::Restate);
    let shown: Vec<_> = made.iter().map(|r| (r.resource.as_str(), r.charge.as_str())).collect();
    assert_eq!(shown, [("r1", "0.000000"), ("r2", "7.001944")]);
    let other = JobRecord { submit: Epoch(1500), ..job() };
    let made = settle(&hold(&told), records(&rules(), &other), Corrections::Restate);
    let shown: Vec<_> = made.iter().map(|r| (r.local_record_id.as_str(), r.charge.as_str())).collect();
    assert_eq!(shown, [("hpc.100.1000", "0.000000"), ("hpc.100.1500", "7.001944")]);
}

#[test]
fn a_correction_is_the_difference_and_made_once() {
    let mut held = hold(&records(&rules(), &job()));
    let mut sum = held[0].record.amount().unwrap();
    for (end, text) in [
        (2000 + 1800, "credit"),
        (2000 + 7200, "debit"),
        (2000 + 7200, ""),
        (5601, "credit"),
        (2001, "credit"),
    ] {
        let desired = records(&rules(), &JobRecord { end: Some(Epoch(end)), ..job() });
        let made = settle(&held, desired.clone(), Corrections::Adjust);
        assert_eq!(made.len(), usize::from(!text.is_empty()), "{made:?}");
        for record in made {
            let Detail::Adjustment(adjustment) = &record.detail else { panic!("{record:?}") };
            assert_eq!(adjustment.adjustment_type.as_str(), text);
            sum = sum.plus(record.effect().unwrap()).unwrap();
            held.push(Held { record, taken: true, account: String::new() });
        }
        assert_eq!(Some(sum), desired[0].amount());
        assert_eq!(settle(&held, desired, Corrections::Adjust), [], "not twice for one cause");
    }
    // Given back altogether: nothing is left of record and corrections.
    let withdrawn = settle(&held, Vec::new(), Corrections::Adjust);
    assert_eq!(withdrawn.len(), held.len());
    assert!(withdrawn.iter().all(|record| record.amount() == Some(Exact::ZERO)));
    // One that the server never took is simply sent as it is now.
    held.truncate(1);
    held[0].taken = false;
    let desired = records(&rules(), &JobRecord { end: Some(Epoch(2001)), ..job() });
    assert_eq!(settle(&held, desired.clone(), Corrections::Adjust), desired);
}

#[test]
fn what_a_server_would_refuse_is_found_before_it_is_sent() {
    let good = records(&rules(), &job()).remove(0);
    assert_eq!(good.fault(), None);
    let Detail::Compute(compute) = good.detail.clone() else { panic!() };
    let backwards = Detail::Compute(Compute { start: Epoch(1), ..compute });
    for (bad, word) in [
        (Record { username: " ".into(), ..good.clone() }, "Username is empty"),
        (Record { local_project_id: "x".repeat(256), ..good.clone() }, "longer than 255"),
        (Record { resource: "a\nb".into(), ..good.clone() }, "control"),
        (Record { charge: "1e3".into(), ..good.clone() }, "decimal"),
        (Record { charge: "1/3".into(), ..good.clone() }, "decimal"),
        (Record { charge: "-1".into(), ..good.clone() }, "negative"),
        (Record { detail: backwards, ..good.clone() }, "out of order"),
    ] {
        let fault = bad.fault().unwrap_or_default();
        assert!(fault.contains(word), "{fault}");
    }
}

#[test]
fn a_name_that_users_write_becomes_one_harmless_line() {
    assert_eq!(readable_name("a\nb\u{202e}c\t\u{0}d  "), "a b c d");
    assert_eq!(readable_name(&"ø".repeat(100)).chars().count(), 64);
    assert_eq!(readable_name("\u{200b}"), "");
}
