//! What quotas mean on Slurm; the expected numbers are computed by hand beside them.

use super::*;
use crate::core::association::ObservedUser;
use crate::core::quota::{
    Bound, BudgetQuota, Capacity, CapacityUnits, ConcurrencyQuota, ConcurrencyUsage, Consumer, ConsumerKind,
    ConsumerPolicy, RateCapacity, RegionLimit, Rule, Window,
};
use crate::core::quota_map::{BudgetMap, BudgetUnit, ConcurrencyMap, Member, RateMap};
use crate::core::tests::world::{account, observed, row, tres};

const NOW: Epoch = Epoch(1_000_000);

fn source() -> SourceName {
    SourceName::parse("portal").unwrap()
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

/// root > bio (alice, bob) > bio_sub (alice); root > chem
fn world() -> Observed {
    let mut observed = observed(&[("bio", "root"), ("bio_sub", "bio"), ("chem", "root")]);
    for (name, users) in [("bio", &["alice", "bob"][..]), ("bio_sub", &["alice"])] {
        let rows = users.iter().map(|name| ObservedUser {
            user: user(name),
            partition: None,
            row: row(&["normal"]).into(),
        });
        observed.accounts.get_mut(&account(name)).unwrap().users = rows.collect();
    }
    observed
}

fn judged(
    quotas: &SourceQuotas,
    lately: &Lately,
    counted: &[(&str, &str, u64)],
    stale: Option<&str>,
) -> Verdict {
    let observed = world();
    let tree = observed.tree();
    let mut known: BTreeMap<AccountName, TresCounts> = BTreeMap::new();
    for (name, of, minutes) in counted {
        known.entry(account(name)).or_default().insert(tres(of), *minutes);
    }
    let ground = Ground { observed: &observed, tree: &tree, lately, counted: &known, now: NOW };
    judge(&source(), quotas, stale, &ground)
}

fn limits(verdict: &Verdict) -> Vec<String> {
    let mut found = Vec::new();
    for wish in &verdict.wishes {
        assert!(wish.returns, "a quota gives back");
        let whose = wish.user.as_ref().map_or(String::new(), |user| format!("/{user}"));
        for (kind, values) in &wish.limits {
            found.extend(
                values.iter().map(|(tres, value)| format!("{}{whose} {kind} {tres}={value}", wish.account)),
            );
        }
        found.extend(
            wish.jobs.iter().map(|(which, value)| format!("{}{whose} {which}={value}", wish.account)),
        );
        found.extend(wish.fairshare.map(|shares| format!("{}{whose} fairshare={shares}", wish.account)));
    }
    found
}

fn budget(name: &str, limit: Bound, usage: &str, threshold: Option<&str>) -> SourceQuotas {
    let quota = BudgetQuota {
        id: "u".into(),
        name: name.into(),
        scope: "https://portal.example/api/marketplace-resources/abc/".into(),
        limit,
        usage: exact(usage),
        threshold: threshold.map(exact),
    };
    let map = BudgetMap {
        accounts: [("abc".to_owned(), account("bio"))].into(),
        unit: BudgetUnit::Hours,
        ..BudgetMap::default()
    };
    SourceQuotas::Budget { quotas: vec![quota], map }
}

#[test]
fn a_budget_is_grptresmins_and_its_threshold_a_warning() {
    let nothing = Lately::default();
    let quota = budget("nc_cpu_usage", Bound::AtMost(exact("10.5")), "8", Some("9"));
    let verdict = judged(&quota, &nothing, &[], None);
    assert_eq!(limits(&verdict), ["bio GrpTRESMins cpu=630"]);
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    // Slurm has counted 540 minutes, which are the 9 hours of the threshold, though the server knows of 8.
    let verdict = judged(&quota, &nothing, &[("bio", "cpu", 540)], None);
    assert_eq!(verdict.standings[0].level, Level::Notification);
    assert!(
        verdict.findings[0].contains("used 540 of 630 cpu-minutes, warned from 540"),
        "{:?}",
        verdict.findings
    );
    let verdict = judged(&quota, &nothing, &[("bio", "cpu", 630)], None);
    assert_eq!(verdict.standings[0].level, Level::Blocked);
    // 0 is nothing at all, and unlimited no limit.
    assert_eq!(
        limits(&judged(&budget("ram", Bound::AtMost(Exact::ZERO), "0", None), &nothing, &[], None)),
        ["bio GrpTRESMins mem=0"]
    );
    assert!(judged(&budget("gpu", Bound::Unlimited, "5", None), &nothing, &[], None).wishes.is_empty());
    let odd = judged(&budget("nc_volume_count", Bound::AtMost(Exact::ONE), "0", None), &nothing, &[], None);
    assert!(odd.wishes.is_empty() && odd.findings[0].contains("is no TRES"), "{odd:?}");
}

#[test]
fn a_source_that_is_stale_leaves_its_accounts_undecided_and_asks_for_nothing() {
    let quota = budget("nc_cpu_usage", Bound::AtMost(exact("10")), "8", None);
    let verdict = judged(&quota, &Lately::default(), &[], Some("too old"));
    assert!(verdict.wishes.is_empty());
    assert_eq!(verdict.undecided[&account("bio")], (source(), "too old".to_owned()));
    let rate = rate(vec![], vec![rule(RuleKind::Requests, 3)]);
    let verdict = judged(&rate, &Lately::default(), &[], Some("too old"));
    let names: Vec<&str> = verdict.undecided.keys().map(AccountName::as_str).collect();
    assert_eq!(names, ["bio", "bio_sub", "chem"]);
}

fn capacity(cores: Bound, cpu_mhz: Bound, memory_mb: Bound, devices: &[(&str, Bound)]) -> Capacity {
    let devices = devices.iter().map(|(name, bound)| ((*name).to_owned(), *bound)).collect();
    Capacity { cores, cpu_mhz, memory_mb, devices }
}

fn at_most(value: i128) -> Bound {
    Bound::AtMost(Exact::whole(value))
}

fn nomad(all: Capacity, pools: &[(&str, Capacity)], used: Option<Capacity>) -> SourceQuotas {
    let region = |all, node_pools| BTreeMap::from([("global".to_owned(), RegionLimit { all, node_pools })]);
    let pools = pools.iter().map(|(name, capacity)| ((*name).to_owned(), capacity.clone())).collect();
    let quota = ConcurrencyQuota {
        name: "science".into(),
        description: String::new(),
        regions: region(all, pools),
        modify_index: 7,
    };
    let shared = used.is_some();
    let usages = used.map(|used| ConcurrencyUsage {
        name: "science".into(),
        regions: region(used, BTreeMap::new()),
        modify_index: 7,
    });
    let map = ConcurrencyMap {
        accounts: [("science".to_owned(), account("bio"))].into(),
        region: "global".into(),
        mhz_per_core: Some(exact("2500")),
        devices: [("amd/gpu".to_owned(), tres("gres/gpu:mi300"))].into(),
        shared_with_nomad: shared,
        ..ConcurrencyMap::default()
    };
    SourceQuotas::Concurrency { quotas: vec![quota], usages: usages.into_iter().collect(), map }
}

#[test]
fn what_nomad_lets_be_in_use_is_grptres() {
    use Bound::Unlimited;
    let devices = [
        ("nvidia/gpu", at_most(4)),
        ("nvidia/gpu/A100", at_most(2)),
        ("amd/gpu", at_most(1)),
        ("gpu", Unlimited),
    ];
    // 7600 MHz are 3 whole cores of 2500, fewer than the 8 that are named.
    let all = capacity(at_most(8), at_most(7600), at_most(4096), &devices);
    let verdict = judged(&nomad(all, &[], None), &Lately::default(), &[], None);
    assert_eq!(
        limits(&verdict),
        [
            "bio GrpTRES cpu=3",
            "bio GrpTRES gres/gpu=4",
            "bio GrpTRES gres/gpu:a100=2",
            "bio GrpTRES gres/gpu:mi300=1",
            "bio GrpTRES mem=4096",
        ]
    );
    let none = capacity(at_most(0), Unlimited, Unlimited, &[]);
    assert_eq!(
        limits(&judged(&nomad(none, &[], None), &Lately::default(), &[], None)),
        ["bio GrpTRES cpu=0"]
    );
    let free = capacity(Unlimited, Unlimited, Unlimited, &[]);
    assert!(judged(&nomad(free, &[], None), &Lately::default(), &[], None).wishes.is_empty());
}

#[test]
fn a_shared_quota_leaves_to_slurm_what_nomad_does_not_use() {
    use Bound::Unlimited;
    let limit = capacity(at_most(8), Unlimited, at_most(1000), &[("gpu", at_most(2))]);
    let used = capacity(at_most(3), at_most(0), at_most(1500), &[("gpu", at_most(1))]);
    let verdict = judged(&nomad(limit.clone(), &[], Some(used)), &Lately::default(), &[], None);
    assert_eq!(limits(&verdict), ["bio GrpTRES cpu=5", "bio GrpTRES gres/gpu=1", "bio GrpTRES mem=0"]);
    let SourceQuotas::Concurrency { quotas, mut map, .. } = nomad(limit, &[], None) else { unreachable!() };
    map.shared_with_nomad = true;
    let unknown = SourceQuotas::Concurrency { quotas, usages: Vec::new(), map };
    let verdict = judged(&unknown, &Lately::default(), &[], None);
    assert!(verdict.wishes.is_empty() && verdict.undecided.contains_key(&account("bio")), "{verdict:?}");
}

#[test]
fn what_slurm_cannot_mean_of_a_nomad_quota_is_said() {
    use Bound::Unlimited;
    let free = || capacity(Unlimited, Unlimited, Unlimited, &[]);
    let pool = capacity(at_most(2), Unlimited, Unlimited, &[]);
    let verdict = judged(&nomad(free(), &[("fast", pool)], None), &Lately::default(), &[], None);
    assert!(verdict.wishes.is_empty() && verdict.findings[0].contains("node pool fast"), "{verdict:?}");
    let odd = capacity(Unlimited, Unlimited, Unlimited, &[("intel/fpga", at_most(1))]);
    let verdict = judged(&nomad(odd, &[], None), &Lately::default(), &[], None);
    assert!(verdict.wishes.is_empty() && verdict.findings[0].contains("intel/fpga"), "{verdict:?}");
}

fn rule(kind: RuleKind, limit: u64) -> Rule {
    Rule { kind, limit, window: Window::Min }
}

fn policy(kind: ConsumerKind, id: &str, reserved: Option<&str>, rules: Vec<Rule>) -> ConsumerPolicy {
    let consumer = Consumer { kind, id: id.to_owned() };
    ConsumerPolicy { consumer, name: None, reserved: reserved.map(exact), rules }
}

fn rate(policies: Vec<ConsumerPolicy>, default_rules: Vec<Rule>) -> SourceQuotas {
    let quota = RateQuota {
        id: "q1".into(),
        resource_id: "dep".into(),
        default_rules,
        policies,
        capacity: Some(RateCapacity { capacity: 10, units: CapacityUnits::Token }),
        saturation_threshold: Some(exact("0.8")),
        owner: "o".into(),
    };
    let map = RateMap {
        resources: [("dep".to_owned(), account("bio")), ("other".to_owned(), account("chem"))].into(),
        users: [("a".to_owned(), user("alice")), ("b".to_owned(), user("bob"))].into(),
        groups: [("g".to_owned(), vec![Member::User(user("bob")), Member::Account(account("chem"))])].into(),
    };
    SourceQuotas::Rate { quotas: vec![quota], map }
}

fn submission(at: i64, of: &str, by: &str) -> Submission {
    Submission { at: NOW.plus(at), account: of.into(), user: by.into() }
}

fn lately(submissions: Vec<Submission>, stretches: Vec<(i64, Option<i64>, u64)>) -> Lately {
    let stretch = |(from, until, billing): (i64, Option<i64>, u64)| Stretch {
        from: NOW.plus(from),
        until: until.map(|until| NOW.plus(until)),
        billing,
        account: "bio_sub".into(),
        user: "alice".into(),
    };
    Lately { submissions, stretches: stretches.into_iter().map(stretch).collect(), incomplete: None }
}

#[test]
fn default_rules_hold_for_every_user_without_a_policy_each_by_itself() {
    let made = vec![
        submission(-50, "bio", "alice"),
        submission(-40, "bio_sub", "alice"),
        submission(-30, "bio", "bob"),
        submission(-20, "chem", "alice"),
    ];
    let quotas = rate(vec![], vec![rule(RuleKind::Requests, 2)]);
    let verdict = judged(&quotas, &lately(made.clone(), vec![]), &[], None);
    // Alice's two count in both accounts of the resource; what she did elsewhere does not.
    assert_eq!(limits(&verdict), ["bio/alice MaxSubmitJobs=0", "bio_sub/alice MaxSubmitJobs=0"]);
    assert_eq!(verdict.wake(), Some(NOW.plus(10)));
    assert!(verdict.wishes[0].text.contains("submissions come back at"), "{}", verdict.wishes[0].text);
    // A policy of her own takes the place of the default.
    let own = policy(ConsumerKind::User, "a", None, vec![rule(RuleKind::Requests, 3)]);
    let verdict =
        judged(&rate(vec![own], vec![rule(RuleKind::Requests, 2)]), &lately(made, vec![]), &[], None);
    assert!(verdict.wishes.is_empty(), "{verdict:?}");
    assert_eq!(verdict.wake(), None);
}

#[test]
fn each_kind_of_rule_has_its_limit_on_accounts_and_on_users() {
    let rules = vec![rule(RuleKind::ConcurrentRequests, 4), rule(RuleKind::InputSequenceLength, 90)];
    let on = |kind, id| {
        limits(&judged(
            &rate(vec![policy(kind, id, None, rules.clone())], vec![]),
            &lately(vec![], vec![]),
            &[],
            None,
        ))
    };
    assert_eq!(on(ConsumerKind::Deployment, "other"), ["chem GrpJobs=4", "chem MaxTRESMins billing=90"]);
    assert_eq!(on(ConsumerKind::User, "b"), ["bio/bob MaxJobs=4", "bio/bob MaxTRESMins billing=90"]);
    assert_eq!(
        on(ConsumerKind::UserGroup, "g"),
        [
            "chem GrpJobs=4",
            "bio/bob MaxJobs=4",
            "chem MaxTRESMins billing=90",
            "bio/bob MaxTRESMins billing=90",
        ]
    );
    let unknown = judged(
        &rate(vec![policy(ConsumerKind::User, "z", None, rules)], vec![]),
        &lately(vec![], vec![]),
        &[],
        None,
    );
    assert!(
        unknown.wishes.is_empty() && unknown.findings[0].contains("consumer z is no user"),
        "{unknown:?}"
    );
}

#[test]
fn a_token_window_stops_the_account_until_enough_has_rolled_away() {
    // 3 billing a second from -50 to -10: 120 billing-seconds are 2 minutes.
    let quotas = |limit| {
        rate(vec![policy(ConsumerKind::Deployment, "dep", None, vec![rule(RuleKind::Token, limit)])], vec![])
    };
    let used = lately(vec![], vec![(-50, Some(-10), 3)]);
    let verdict = judged(&quotas(2), &used, &[], None);
    assert_eq!(limits(&verdict), ["bio GrpSubmitJobs=0"]);
    // Less than 2 minutes once one second has left the window, which begins at -60: at 11.
    assert_eq!(verdict.wake(), Some(NOW.plus(11)));
    assert_eq!(verdict.standings[0].used, Some(exact("2")));
    assert!(judged(&quotas(3), &used, &[], None).wishes.is_empty());
    let never = judged(&quotas(0), &lately(vec![], vec![]), &[], None);
    assert_eq!((limits(&never), never.wake()), (vec!["bio GrpSubmitJobs=0".to_owned()], None));
    // What runs on: at the earliest once it ends, else not before its beginning rolls away faster than it goes on.
    let running = judged(&quotas(1), &lately(vec![], vec![(-50, None, 2)]), &[], None);
    assert_eq!(
        (running.standings[0].back_earliest, running.standings[0].back_running),
        (Some(NOW.plus(31)), None)
    );
    let unknown = Lately { incomplete: Some("sacct did not answer".into()), ..used };
    let verdict = judged(&quotas(2), &unknown, &[], None);
    assert!(verdict.wishes.is_empty() && verdict.undecided.contains_key(&account("bio")), "{verdict:?}");
}

#[test]
fn reserved_shares_are_parts_of_the_siblings_shares_while_the_cluster_is_saturated() {
    let reserved = |kind, id, share| policy(kind, id, Some(share), vec![]);
    let quotas = rate(
        vec![reserved(ConsumerKind::User, "a", "0.5"), reserved(ConsumerKind::Deployment, "other", "0.75")],
        vec![],
    );
    // 480 billing-seconds in the minute are the 8 of 10 a minute.
    let busy = lately(vec![], vec![(-60, None, 8)]);
    let verdict = judged(&quotas, &busy, &[], None);
    // Below bio are alice, bob (1) and bio_sub (1): 2 of 4 shares are half. Below root are chem and bio (1): 3 of 4.
    assert_eq!(limits(&verdict), ["bio/alice fairshare=2", "chem fairshare=3"]);
    let idle = lately(vec![], vec![(-59, None, 8)]);
    assert!(judged(&quotas, &idle, &[], None).wishes.is_empty(), "a second less is below");
    // All reserved: the others keep a hundredth part.
    let all = rate(vec![reserved(ConsumerKind::User, "a", "1")], vec![]);
    assert_eq!(limits(&judged(&all, &busy, &[], None)), ["bio/alice fairshare=200"]);
}

#[test]
fn how_far_back_the_rules_look_is_their_longest_window() {
    let hour = Rule { window: Window::Hour, ..rule(RuleKind::Requests, 1) };
    let day = Rule { window: Window::Day, ..rule(RuleKind::Token, 1) };
    let quotas = rate(vec![policy(ConsumerKind::User, "a", None, vec![day])], vec![hour]);
    assert_eq!(needed_s(&[&quotas]), (3_600, 86_400));
    assert_eq!(shortest_window_s(&[&quotas]), Some(3_600));
    let held = rate(vec![], vec![Rule { window: Window::Day, ..rule(RuleKind::ConcurrentRequests, 1) }]);
    assert_eq!((needed_s(&[&held]), shortest_window_s(&[&held])), ((0, 0), None));
    let reserved = rate(vec![policy(ConsumerKind::User, "a", Some("0.5"), vec![])], vec![]);
    assert_eq!(needed_s(&[&reserved]), (60, 60));
}
