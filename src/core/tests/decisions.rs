//! What is decided at which usage.

use super::world::*;
use crate::core::evaluate::{Decided, Decision, Level, Lever, evaluate};
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::{LimitType, Policy, QosStrategy};
use crate::core::time::Epoch;
use crate::core::tres::TresSeconds;

fn decide_with(
    policy: &Policy,
    limits: &[(&str, &str)],
    current: TresSeconds,
    previous: TresSeconds,
) -> Decision {
    let period = Period::containing(policy.period, Epoch(1_794_000_000), &jiff::tz::TimeZone::UTC).unwrap();
    evaluate(policy, &allocation(limits), Ok(&facts(current, previous)), &period, &rules())
}

fn decided(policy: &Policy, limits: &[(&str, &str)], current: TresSeconds, previous: TresSeconds) -> Decided {
    match decide_with(policy, limits, current, previous) {
        Decision::Decided(decided) => *decided,
        Decision::Undecided { reason, .. } => panic!("undecided: {reason}"),
    }
}

#[test]
fn reaching_a_threshold_is_crossing_it_and_a_second_less_is_not() {
    // 1000 cpu-h: notification at 800 h, slowdown at 1000 h, blocked at 1200 h; one cpu-second below stays below.
    for (hours, level, below) in [
        (800, Level::Notification, Level::Normal),
        (1000, Level::Slowdown, Level::Notification),
        (1200, Level::Blocked, Level::Slowdown),
    ] {
        let at = decided(&policy(), &[("cpu", "1000")], used(hours, 0, 0), used(0, 0, 0));
        assert_eq!(at.level, level, "{hours}");
        let mut less = used(hours, 0, 0);
        less.0.insert(tres("cpu"), hours * 3600 - 1);
        assert_eq!(decided(&policy(), &[("cpu", "1000")], less, used(0, 0, 0)).level, below, "{hours}");
    }
}

#[test]
fn the_scalar_limits_and_fairshare_are_the_servers() {
    // base: cpu 6400 h, ram 5120 GB-h, gpu 40 h. scalar = 6400/64 + 5120/512 + 40/4 = 100 + 10 + 10 = 120.
    // used: cpu 3200 h, ram 512 GB-h, gpu 36 h -> 50 + 1 + 9 = 60, so 50 %.
    // billing limit: int(120 * 60) = 7200 minutes; with grace int(7200 * 1.2) = 8640.
    // fairshare: floor((6400 + 5120 + 40) / 3) = floor(3853.33) = 3853.
    let limits = [("cpu", "6400"), ("ram", "5120"), ("gpu", "40")];
    let seen = decided(&policy(), &limits, used(3200, 512, 36), used(0, 0, 0));
    assert_eq!((seen.used, seen.total, seen.percent), (exact("60"), exact("120"), Some(exact("50"))));
    assert_eq!(seen.limits[&LimitType::GrpTRESMins], [(tres("billing"), 8640)].into());
    assert_eq!(seen.fairshare, 3853);
    assert_eq!((seen.level, seen.qos), (Level::Normal, qos("normal")));
    assert_eq!(seen.findings, Vec::<String>::new());
}

#[test]
fn limits_without_billing_are_minutes_of_each_tres_cut_off_twice() {
    // cpu 10.5 h: int(630) * 1.3 = 819. ram 3 GB-h: 3 * 1024 * 60 = 184320 MB-minutes, * 1.3 = 239616.
    // gpu 0.11 h: int(6.6) = 6, int(6 * 1.3) = int(7.8) = 7.
    let mut policy = policy();
    policy.billing = false;
    policy.grace = exact("0.3");
    let seen =
        decided(&policy, &[("cpu", "10.5"), ("ram", "3"), ("gpu", "0.11")], used(0, 0, 0), used(0, 0, 0));
    assert_eq!(
        seen.limits[&LimitType::GrpTRESMins],
        [(tres("cpu"), 819), (tres("gres/gpu"), 7), (tres("mem"), 239_616)].into()
    );
}

#[test]
fn without_billing_the_component_closest_to_its_total_decides() {
    // cpu 50 of 100, gpu 9 of 10: 90 % of gpu -> notification.
    let mut policy = policy();
    policy.billing = false;
    let seen = decided(&policy, &[("cpu", "100"), ("gpu", "10")], used(50, 0, 9), used(0, 0, 0));
    assert_eq!((seen.percent, seen.level), (Some(exact("90")), Level::Notification));
    assert!(seen.reason.contains("gpu"), "{}", seen.reason);
}

#[test]
fn unused_base_is_carried_over_up_to_the_factor() {
    // base 1000, 50 %: 700 used before -> 300 stay; nothing used -> at most 500; 1500 used -> 0, never negative.
    let mut policy = policy();
    policy.carryover_percent = Some(50);
    for (previous, total) in [(700, "1300"), (0, "1500"), (1500, "1000"), (1000, "1000"), (500, "1500")] {
        let seen = decided(&policy, &[("cpu", "1000")], used(0, 0, 0), used(previous, 0, 0));
        assert_eq!(seen.components["cpu"].total, exact(total), "{previous} used before");
    }
    policy.period = PeriodKind::Total;
    let seen = decided(&policy, &[("cpu", "1000")], used(0, 0, 0), used(0, 0, 0));
    assert_eq!(seen.components["cpu"].total, exact("1000"));
    assert!(!seen.raw_usage_reset, "a budget for ever is never reset");
}

#[test]
fn a_grace_of_zero_blocks_at_the_total_and_without_slowdown() {
    let mut policy = policy();
    policy.grace = exact("0");
    let seen = decided(&policy, &[("cpu", "100")], used(100, 0, 0), used(0, 0, 0));
    assert_eq!((seen.level, seen.qos), (Level::Blocked, qos("blocked")));
}

#[test]
fn the_actions_say_which_effects_may_happen() {
    let mut only_notify = policy();
    only_notify.actions.downscale = false;
    only_notify.actions.pause = false;
    let seen = decided(&only_notify, &[("cpu", "100")], used(500, 0, 0), used(0, 0, 0));
    assert_eq!((seen.level, seen.effect, seen.qos), (Level::Blocked, Level::Notification, qos("normal")));
    let mut no_pause = policy();
    no_pause.actions.pause = false;
    let seen = decided(&no_pause, &[("cpu", "100")], used(500, 0, 0), used(0, 0, 0));
    assert_eq!((seen.level, seen.effect, seen.qos), (Level::Blocked, Level::Slowdown, qos("slowdown")));
}

#[test]
fn the_progressive_strategy_walks_the_sites_ladder() {
    let mut policy = policy();
    policy.strategy = QosStrategy::Progressive;
    for (hours, name) in
        [(49, "normal"), (50, "low"), (99, "low"), (100, "lower"), (119, "lower"), (120, "blocked")]
    {
        let seen = decided(&policy, &[("cpu", "100")], used(hours, 0, 0), used(0, 0, 0));
        assert_eq!(seen.qos, qos(name), "{hours} %");
    }
}

#[test]
fn with_the_submit_lever_a_blocked_account_keeps_the_slow_qos() {
    let mut rules = rules();
    rules.qos.lever = Lever::Submit;
    let facts = facts(used(200, 0, 0), used(0, 0, 0));
    let decision = evaluate(&policy(), &allocation(&[("cpu", "100")]), Ok(&facts), &november(), &rules);
    let seen = decision.decided().unwrap();
    assert_eq!((seen.effect, &seen.qos), (Level::Blocked, &qos("slowdown")));
}

#[test]
fn a_billing_limit_that_slurm_would_count_in_other_units_is_left_out_and_named() {
    let mut rules = rules();
    let partitions = &mut rules.partitions.as_mut().unwrap().partitions;
    partitions.insert("fat".into(), [(tres("cpu"), exact("2"))].into());
    let facts = facts(used(0, 0, 0), used(0, 0, 0));
    let decision = evaluate(&policy(), &allocation(&[("cpu", "100")]), Ok(&facts), &november(), &rules);
    let seen = decision.decided().unwrap();
    assert!(seen.limits[&LimitType::GrpTRESMins].is_empty());
    assert!(seen.findings[0].contains("debug") || seen.findings[0].contains("fat"), "{:?}", seen.findings);
    rules.partitions = None;
    let decision = evaluate(&policy(), &allocation(&[("cpu", "100")]), Ok(&facts), &november(), &rules);
    assert!(decision.decided().unwrap().findings[0].contains("could not be read"));
}

#[test]
fn missing_facts_leave_an_account_undecided() {
    let undecided = |decision: &Decision| decision.decided().is_none();
    assert!(undecided(&decide_with(&policy(), &[], used(0, 0, 0), used(0, 0, 0))), "nothing granted at all");
    assert!(
        undecided(&decide_with(&policy(), &[("tape", "5")], used(0, 0, 0), used(0, 0, 0))),
        "unknown component"
    );
    assert!(undecided(&decide_with(&policy(), &[("cpu", "-1")], used(0, 0, 0), used(0, 0, 0))), "negative");
    let stale = evaluate(&policy(), &allocation(&[("cpu", "1")]), Err("stale"), &november(), &rules());
    assert!(undecided(&stale));
    let mut too_fine = policy();
    too_fine.weights.insert("CPU".into(), exact("170141183460469231731687303715884105727/3"));
    assert!(
        undecided(&decide_with(&too_fine, &[("cpu", "1000000")], used(7, 0, 0), used(0, 0, 0))),
        "no room"
    );
}

#[test]
fn nothing_granted_of_a_component_is_blocked_at_once_and_says_so() {
    let seen = decided(&policy(), &[("cpu", "0")], used(0, 0, 0), used(0, 0, 0));
    assert_eq!((seen.level, seen.percent), (Level::Blocked, None));
    assert_eq!(seen.fairshare, 1, "fairshare is at least 1");
}

#[test]
fn limits_of_the_resource_go_before_those_of_the_policy() {
    let mut policy = policy();
    policy.component_limits = [("cpu".to_owned(), exact("10")), ("gpu".to_owned(), exact("7"))].into();
    let seen = decided(&policy, &[("CPU", "99")], used(0, 0, 0), used(0, 0, 0));
    assert_eq!(seen.components["cpu"].base, exact("99"));
    assert_eq!(seen.components["gpu"].base, exact("7"));
}
