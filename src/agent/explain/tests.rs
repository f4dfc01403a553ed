use std::sync::Arc;

use super::*;
use crate::agent::outlook::Threshold;
use crate::config::default_components;
use crate::core::allocation::Allocation;
use crate::core::association::{JobLimit, JobLimits, ObservedAccount, ObservedUser, TresLimits, UserRow};
use crate::core::evaluate::{Balance, Decided};
use crate::core::name::UserName;
use crate::core::period::{Period, PeriodKind};
use crate::core::policy::{Actions, Policy, QosStrategy};
use crate::core::preview::Projection;
use crate::core::small_map::SmallMap;
use crate::core::time::Epoch;
use crate::slurm::{RunError, Runner};

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

pub(super) fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

pub(super) fn qos(name: &str) -> QosName {
    QosName::parse(name).unwrap()
}

fn source(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

pub(super) fn slurm() -> Slurm {
    let none = |_: &str, _: &[String], _: &_| Err(RunError::NotFound { path: "nowhere".into() });
    Slurm::new(Runner::Emulated(Arc::new(none)), "lab".to_owned().try_into().unwrap())
}

pub(super) fn row() -> ObservedAssociation {
    ObservedAssociation {
        share: Share::Number(7),
        limits: TresLimits::from([(LimitType::GrpTRESMins, [(Tres::billing(), 600)].into())]),
        jobs: Default::default(),
        qos: [qos("normal"), qos("debug")].into(),
        qos_is_own: true,
        default_qos: Some(qos("normal")),
        default_qos_is_own: true,
    }
}

pub(super) fn observed(accounts: &[(&str, Option<&str>, ObservedAssociation)]) -> Observed {
    let one = |(name, parent, row): &(&str, Option<&str>, ObservedAssociation)| {
        let users = vec![ObservedUser {
            user: UserName::parse("alice").unwrap(),
            partition: None,
            row: ObservedAssociation { qos_is_own: false, default_qos_is_own: false, ..row.clone() }.into(),
        }];
        let parent = parent.map(account);
        (account(name), ObservedAccount { account: account(name), parent, row: row.clone().into(), users })
    };
    Observed { accounts: accounts.iter().map(one).collect(), rejected: 0, ..Observed::default() }
}

fn wish(name: &str, of: &str) -> Wish {
    Wish::new(account(name), source(of), format!("rule of {of}"))
}

pub(super) fn desired(name: &str) -> Desired {
    Desired {
        account: account(name),
        fairshare: None,
        limits: TresLimits::new(),
        jobs: JobLimits::new(),
        qos: None,
        returning: BTreeSet::new(),
        governed: true,
        users: BTreeMap::new(),
        resets: Vec::new(),
        because: Vec::new(),
    }
}

#[test]
fn every_field_names_all_who_ask_for_it_and_whose_value_decides() {
    let limit = |value| TresLimits::from([(LimitType::GrpTRESMins, [(Tres::billing(), value)].into())]);
    let first =
        Wish { fairshare: Some(9), limits: limit(500), qos: Some(qos("normal")), ..wish("bio", "waldur") };
    let second =
        Wish { fairshare: Some(4), limits: limit(900), qos: Some(qos("normal")), ..wish("bio", "local") };
    let above = Wish { fairshare: Some(99), qos: Some(qos("slowdown")), ..wish("faculty", "waldur") };
    let elsewhere = Wish { fairshare: Some(1), ..wish("chem", "waldur") };
    let wanted =
        Desired { fairshare: Some(4), limits: limit(500), qos: Some(qos("slowdown")), ..desired("bio") };
    let weighed = Weighed {
        own: OwnValues::new(),
        observed: observed(&[
            ("root", None, row()),
            ("faculty", Some("root"), row()),
            ("bio", Some("faculty"), row()),
        ]),
        wishes: vec![first, second, above, elsewhere],
        wanted: [(account("bio"), wanted)].into(),
    };
    let seen: Vec<(String, String, String, Vec<String>)> = fields(&account("bio"), &weighed)
        .into_iter()
        .map(|field| {
            let asked = field.asked.iter().map(|asked| {
                let mark = if asked.decides { "*" } else { "" };
                format!("{} {}{mark} for {}", asked.source, asked.value, asked.account)
            });
            (field.name, field.now.unwrap(), field.wanted.unwrap(), asked.collect())
        })
        .collect();
    let asked = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        seen,
        [
            ("fairshare".into(), "7".into(), "4".into(), asked(&["waldur 9 for bio", "local 4* for bio"])),
            (
                "GrpTRESMins billing".into(),
                "600".into(),
                "500".into(),
                asked(&["waldur 500* for bio", "local 900 for bio"])
            ),
            (
                "QOS".into(),
                "debug,normal, default normal".into(),
                "slowdown".into(),
                asked(&["waldur normal for bio", "local normal for bio", "waldur slowdown* for faculty"])
            ),
        ]
    );
}

#[test]
fn undoing_a_change_gives_back_what_is_there_now() {
    let set = Assignments {
        fairshare: Some(3),
        limits: [(
            LimitType::GrpTRESMins,
            [(Tres::billing(), Limit::At(1)), (Tres::cpu(), Limit::At(2))].into(),
        )]
        .into(),
        jobs: [(JobLimit::GrpSubmitJobs, Limit::At(0))].into(),
        qos: Some([qos("blocked")].into()),
        default_qos: Some(qos("blocked")),
    };
    let inherited =
        ObservedAssociation { share: Share::Parent, qos_is_own: false, default_qos_is_own: false, ..row() };
    let there = observed(&[("bio", None, row()), ("chem", None, inherited)]);
    let both = Names::of(vec![account("bio"), account("chem")]).unwrap();
    let change = Change::Accounts { accounts: both, set: set.clone() };
    assert_eq!(
        undo(&slurm(), &change, &there),
        [
            "sacctmgr -i modify account where name=bio cluster=lab set fairshare=7 GrpTRESMins=billing=600,cpu=-1 \
             GrpSubmitJobs=-1 qos=debug,normal defaultqos=normal",
            "sacctmgr -i modify account where name=chem cluster=lab set GrpTRESMins=billing=600,cpu=-1 \
             GrpSubmitJobs=-1 qos= fairshare=parent defaultqos=-1",
        ]
    );
    let set = Assignments { qos: set.qos, default_qos: set.default_qos, ..Assignments::default() };
    let user = Change::User {
        user: UserName::parse("alice").unwrap(),
        account: account("bio"),
        row: UserRow::Only,
        set,
    };
    assert_eq!(
        undo(&slurm(), &user, &there),
        ["sacctmgr -i modify user where name=alice account=bio cluster=lab set qos= defaultqos=-1"]
    );
}

#[test]
fn what_is_in_force_is_typed_with_a_stricter_limit_of_the_accounts_own_as_it_is() {
    let wanted = Desired {
        fairshare: Some(7),
        limits: [(LimitType::GrpTRESMins, [(Tres::billing(), 600)].into())].into(),
        jobs: JobLimits::from([(JobLimit::GrpJobs, 10), (JobLimit::GrpSubmitJobs, 50)]),
        qos: Some(qos("normal")),
        ..desired("bio")
    };
    let row = ObservedAssociation {
        jobs: JobLimits::from([(JobLimit::GrpJobs, 5), (JobLimit::GrpSubmitJobs, 50)]),
        ..row()
    };
    assert_eq!(
        typed(&slurm(), &account("bio"), &in_force(&wanted, &row), &[]),
        "sacctmgr -i modify account where name=bio cluster=lab set fairshare=7 GrpTRESMins=billing=600 GrpJobs=5 \
         GrpSubmitJobs=50 qos=debug,normal defaultqos=normal"
    );
    // So FIELDS says as well: nothing would change, since the account's own limit is the strictest.
    let wish = Wish { jobs: wanted.jobs.clone(), ..wish("bio", "local") };
    let weighed = Weighed {
        own: OwnValues::new(),
        observed: observed(&[("bio", None, row)]),
        wishes: vec![wish],
        wanted: [(account("bio"), wanted)].into(),
    };
    let told = fields(&account("bio"), &weighed);
    let jobs = told.iter().find(|field| field.name == "GrpJobs").unwrap();
    assert_eq!((jobs.now.as_deref(), jobs.wanted.as_deref()), (Some("5"), Some("5")));
    let asked: Vec<_> = jobs.asked.iter().map(|a| (a.source.as_str(), a.value.as_str(), a.decides)).collect();
    assert_eq!(asked, [("local", "10", false), ("slurm", "5", true)]);
}

/// cpu 1000 h and ram 400 GB-h granted, at these amounts used, weights 2 and 1/4.
fn outlook(cpu: &str, ram: &str, deciding: Option<&str>, level: Level) -> Outlook {
    let balance = |base: &str, used: &str| Balance {
        base: exact(base),
        carryover: Exact::ZERO,
        total: exact(base),
        used: exact(used),
        previous: Exact::ZERO,
    };
    let components =
        SmallMap::from([("cpu".to_owned(), balance("1000", cpu)), ("ram".to_owned(), balance("400", ram))]);
    let (used, total) = match deciding {
        Some(name) => (components[name].used, components[name].total),
        None => {
            let cpu = exact(cpu).times(exact("2")).unwrap();
            (cpu.plus(exact(ram).times(exact("1/4")).unwrap()).unwrap(), exact("2100"))
        }
    };
    let threshold = |level, percent: &str| Threshold {
        level,
        percent: exact(percent),
        at: total.times(exact(percent)).unwrap().over(exact("100")).unwrap(),
        projection: Projection::Never,
        date: None,
        in_period: false,
    };
    Outlook {
        allocation: Allocation {
            source: source("waldur"),
            id: "r1".into(),
            name: "Bio".into(),
            account: account("bio"),
            limits: SmallMap::new(),
            paused: false,
            downscaled: false,
        },
        policy: Policy {
            source: source("waldur"),
            id: "p1".into(),
            name: "policy".into(),
            period: PeriodKind::Month,
            limit_type: LimitType::GrpTRESMins,
            billing: deciding.is_none(),
            weights: [("cpu".to_owned(), exact("2")), ("RAM".to_owned(), exact("1/4"))].into(),
            carryover_percent: None,
            grace: exact("0.2"),
            raw_usage_reset: true,
            strategy: QosStrategy::Threshold,
            actions: Actions::default(),
            component_limits: SmallMap::new(),
            warnings: Vec::new(),
        },
        decided: Decided {
            account: account("bio"),
            source: source("waldur"),
            policy: "p1".into(),
            allocation: "r1".into(),
            period: Period { kind: PeriodKind::Total, name: "total".into(), start: Epoch(0), end: None },
            components,
            used,
            total,
            percent: None,
            level,
            effect: level,
            qos: qos("normal"),
            fairshare: 1,
            limits: TresLimits::new(),
            raw_usage_reset: false,
            reason: "".into(),
            findings: Vec::new(),
        },
        deciding: deciding.map(str::to_owned),
        daily: None,
        thresholds: vec![
            threshold(Level::Notification, "80"),
            threshold(Level::Slowdown, "100"),
            threshold(Level::Blocked, "120"),
        ],
        users: BTreeMap::new(),
        accounts: vec!["bio".to_owned()],
    }
}

#[test]
fn the_next_level_is_told_in_the_scalar_and_in_each_component_alone() {
    // Weighted: 2 x 850 + 100/4 = 1725 of 2100. 80 % = 1680 is crossed, 100 % is 375 away: 187.5 cpu-hours.
    let seen = ahead(&outlook("850", "100", None, Level::Notification), &default_components()).unwrap();
    let next = seen.next.unwrap();
    assert_eq!((next.level, next.missing), (Level::Slowdown, exact("375")));
    assert_eq!(
        next.by_component,
        [("cpu".to_owned(), exact("187.5")), ("ram".to_owned(), exact("1500"))].into()
    );
    // 1725 is 80 % of 2156.25.
    assert_eq!(seen.relief, Some(exact("56.25")));

    // Closest component: each has its own way to 100 %.
    let seen =
        ahead(&outlook("850", "100", Some("cpu"), Level::Notification), &default_components()).unwrap();
    let next = seen.next.unwrap();
    assert_eq!(next.missing, exact("150"));
    assert_eq!(
        next.by_component,
        [("cpu".to_owned(), exact("150")), ("ram".to_owned(), exact("300"))].into()
    );
}

#[test]
fn a_blocked_account_has_no_next_level_and_a_normal_one_nothing_to_leave() {
    let seen = ahead(&outlook("1300", "100", Some("cpu"), Level::Blocked), &default_components()).unwrap();
    assert_eq!(seen.next, None);
    // 1300 is 120 % of 1083.33.
    assert_eq!(seen.relief, Some(exact("250/3")));
    let seen = ahead(&outlook("100", "100", Some("cpu"), Level::Normal), &default_components()).unwrap();
    assert_eq!((seen.next.unwrap().missing, seen.relief), (exact("700"), None));
}
