//! What is changed, and what is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::world::*;
use crate::core::association::{Limit, Observed, ObservedAssociation, ObservedUser, Share, UserRow};
use crate::core::desired::{Desired, Wish, desired};
use crate::core::evaluate::{Decision, Level};
use crate::core::name::{AccountName, SourceName, UserName};
use crate::core::own::OwnValues;
use crate::core::plan::{Change, Owned, Plan, PlanLimits, PlannedChange, halves, plan};
use crate::core::policy::LimitType;
use crate::core::settled::settled;
use crate::core::small_map::SmallMap;

const LIMITS: PlanLimits = PlanLimits {
    changes_max: 100,
    tighten_accounts_max: 20,
    tighten_share_percent: 30,
    names_per_modify_max: 50,
};

fn wish(name: &str, fairshare: u32, minutes: u64, list: &str) -> Wish {
    Wish {
        fairshare: Some(fairshare),
        limits: [(LimitType::GrpTRESMins, [(tres("cpu"), minutes)].into())].into(),
        qos: Some(qos(list)),
        ..Wish::new(account(name), SourceName::parse("waldur").unwrap(), "because")
    }
}

fn wanted(wishes: &[Wish], observed: &Observed) -> BTreeMap<AccountName, Desired> {
    desired(&[], wishes, &[], observed, &OwnValues::new(), &qos_rules())
}

fn planned(wishes: &[Wish], observed: &Observed) -> Plan {
    plan(&wanted(wishes, observed), observed, &Owned::default(), &qos_rules(), &LIMITS, false)
}

/// What Slurm would show after the changes.
fn after(plan: &Plan, observed: &Observed) -> Observed {
    let mut seen = observed.clone();
    plan.changes.iter().for_each(|planned| make(&planned.change, &mut seen));
    seen
}

/// Makes a change as Slurm would.
pub fn make(change: &Change, seen: &mut Observed) {
    let mut rows: Vec<&mut ObservedAssociation> = Vec::new();
    let set = match change {
        Change::Accounts { accounts, set } => {
            let named = |name: &AccountName| accounts.iter().any(|account| account == name);
            rows.extend(
                seen.accounts.values_mut().filter(|a| named(&a.account)).map(|a| Arc::make_mut(&mut a.row)),
            );
            set
        }
        Change::User { user, account, row, set } => {
            let below = seen.accounts.get_mut(account).unwrap().users.iter_mut();
            let bound = |to: Option<&str>| *row == UserRow::Only || to == row.partition();
            let named = below.filter(|u| u.user == *user && bound(u.partition.as_deref()));
            rows.extend(named.map(|u| Arc::make_mut(&mut u.row)));
            set
        }
        Change::Users { users, accounts, set } => {
            let named = |name: &AccountName| accounts.iter().any(|account| account == name);
            let below = seen.accounts.values_mut().filter(|a| named(&a.account));
            let there = below.flat_map(|a| a.users.iter_mut());
            rows.extend(
                there.filter(|u| users.iter().any(|user| *user == u.user)).map(|u| Arc::make_mut(&mut u.row)),
            );
            set
        }
        Change::ResetRawUsage { .. } => return,
    };
    for row in rows {
        if let Some(fairshare) = set.fairshare {
            row.share = Share::Number(fairshare);
        }
        for (kind, values) in &set.limits {
            for (tres, limit) in values {
                let there = row.limits.or_insert(*kind, SmallMap::new());
                match limit {
                    Limit::At(value) => there.insert(tres.clone(), *value),
                    Limit::Cleared => there.remove(tres),
                };
            }
        }
        for (which, limit) in &set.jobs {
            match limit {
                Limit::At(value) => row.jobs.insert(*which, *value),
                Limit::Cleared => row.jobs.remove(which),
            };
        }
        if let Some(list) = &set.qos {
            row.qos = list.clone();
        }
        if let Some(default) = &set.default_qos {
            row.default_qos = Some(default.clone());
        }
    }
}

#[test]
fn an_equal_account_is_not_touched() {
    let mut observed = observed(&[("bio", "root")]);
    let row = row_of(&mut observed, "bio");
    row.share = Share::Number(5);
    row.limits = [(LimitType::GrpTRESMins, [(tres("cpu"), 60)].into())].into();
    assert!(planned(&[wish("bio", 5, 60, "normal")], &observed).is_empty());
}

#[test]
fn accounts_that_need_the_same_values_share_one_modify() {
    let observed = observed(&[("a", "root"), ("b", "root"), ("c", "root")]);
    let plan = planned(
        &[wish("a", 5, 60, "normal"), wish("b", 5, 60, "normal"), wish("c", 6, 60, "normal")],
        &observed,
    );
    assert_eq!(plan.changes.len(), 2);
}

#[test]
fn a_change_of_one_account_of_many_is_one_modify() {
    let mut observed = observed(&[("a", "root"), ("b", "root"), ("c", "root")]);
    let wishes = [wish("a", 5, 60, "normal"), wish("b", 5, 60, "normal"), wish("c", 5, 60, "normal")];
    observed = after(&planned(&wishes, &observed), &observed);
    let plan = planned(&[wishes[0].clone(), wish("b", 5, 90, "normal"), wishes[2].clone()], &observed);
    assert_eq!(plan.changes.len(), 1);
}

#[test]
fn other_qos_of_an_account_stay_in_its_list_and_are_named_when_they_weaken_it() {
    let mut observed = observed(&[("bio", "root")]);
    row_of(&mut observed, "bio").qos = names(&["normal", "long"]);
    let plan = planned(&[wish("bio", 5, 60, "blocked")], &observed);
    let Change::Accounts { set, .. } = &plan.changes[0].change else { panic!("{plan:?}") };
    assert_eq!(set.qos, Some(names(&["blocked", "long"])));
    assert_eq!(set.default_qos, Some(qos("blocked")));
    assert!(plan.findings[0].contains("long"));
}

#[test]
fn a_default_qos_of_others_stays() {
    let mut observed = observed(&[("bio", "root")]);
    let row = row_of(&mut observed, "bio");
    row.qos = names(&["normal", "long"]);
    row.default_qos = Some(qos("long"));
    let plan = planned(&[wish("bio", 5, 60, "slowdown")], &observed);
    let Change::Accounts { set, .. } = &plan.changes[0].change else { panic!("{plan:?}") };
    assert_eq!(set.default_qos, None);
}

#[test]
fn only_limits_the_agent_has_set_are_taken_away() {
    let mut observed = observed(&[("bio", "root")]);
    let row = row_of(&mut observed, "bio");
    row.limits = [(LimitType::GrpTRESMins, [(tres("gres/gpu"), 9), (tres("license/x"), 3)].into())].into();
    let owned = Owned {
        limits: [(account("bio"), [(LimitType::GrpTRESMins, tres("gres/gpu"))].into())].into(),
        ..Owned::default()
    };
    let wishes = [wish("bio", 5, 60, "normal")];
    let plan = plan(&wanted(&wishes, &observed), &observed, &owned, &qos_rules(), &LIMITS, false);
    let Change::Accounts { set, .. } = &plan.changes[0].change else { panic!("{plan:?}") };
    assert_eq!(
        set.limits[&LimitType::GrpTRESMins],
        [(tres("cpu"), Limit::At(60)), (tres("gres/gpu"), Limit::Cleared)].into()
    );
}

#[test]
fn a_user_with_a_qos_list_of_its_own_is_held_too_and_before_the_account() {
    let mut observed = observed(&[("bio", "root")]);
    let user = |name: &str, own| ObservedUser {
        user: UserName::parse(name).unwrap(),
        partition: None,
        row: ObservedAssociation { qos_is_own: own, default_qos_is_own: own, ..row(&["normal"]) }.into(),
    };
    observed.accounts.get_mut(&account("bio")).unwrap().users = vec![user("alice", true), user("bob", false)];
    let plan = planned(&[wish("bio", 5, 60, "blocked")], &observed);
    assert_eq!(plan.changes.len(), 2);
    assert!(
        matches!(&plan.changes[0].change, Change::User { user, .. } if user.as_str() == "alice"),
        "{plan:?}"
    );
}

/// An account with users, of whom those marked have a QOS list of their own.
fn with_users(observed: &mut Observed, name: &str, users: &[(&str, bool)]) {
    let user = |(name, own): &(&str, bool)| ObservedUser {
        user: UserName::parse(name).unwrap(),
        partition: None,
        row: ObservedAssociation { qos_is_own: *own, default_qos_is_own: *own, ..row(&["normal"]) }.into(),
    };
    observed.accounts.get_mut(&account(name)).unwrap().users = users.iter().map(user).collect();
}

/// Users and accounts of every modify of users, in order.
fn user_modifies(plan: &Plan) -> Vec<(String, String)> {
    let list = |names: Vec<&str>| names.join(",");
    let changes = plan.changes.iter().map(|planned| &planned.change);
    changes
        .filter_map(|change| match change {
            Change::User { user, account, .. } => Some((user.to_string(), account.to_string())),
            Change::Users { users, accounts, .. } => Some((
                list(users.iter().map(UserName::as_str).collect()),
                list(accounts.iter().map(AccountName::as_str).collect()),
            )),
            _ => None,
        })
        .collect()
}

#[test]
fn users_that_need_equal_values_are_set_in_one_modify_over_accounts() {
    let mut observed = observed(&[("bio", "root"), ("chem", "root")]);
    with_users(&mut observed, "bio", &[("alice", true), ("bob", true)]);
    with_users(&mut observed, "chem", &[("alice", true), ("carol", true), ("dave", false)]);
    let plan = planned(&[wish("bio", 5, 60, "blocked"), wish("chem", 5, 60, "blocked")], &observed);
    // Bob is not in chem, nor carol in bio: naming them there touches nobody.
    assert_eq!(user_modifies(&plan), [("alice,bob,carol".to_owned(), "bio,chem".to_owned())], "{plan:#?}");
    assert_eq!(plan.changes.len(), 2, "one for the users, one for both accounts: {plan:#?}");
    let seen = after(&plan, &observed);
    assert!(plan.changes.iter().all(|planned| settled(&planned.change, &seen).is_ok()));
    assert!(settled(&plan.changes[0].change, &observed).unwrap_err().contains("user alice of account bio"));
}

#[test]
fn no_user_is_named_in_an_account_where_it_is_to_stay_as_it_is() {
    let mut observed = observed(&[("bio", "root"), ("chem", "root"), ("math", "root")]);
    with_users(&mut observed, "bio", &[("alice", true), ("bob", false)]);
    with_users(&mut observed, "chem", &[("alice", false), ("bob", true)]);
    with_users(&mut observed, "math", &[("alice", true)]);
    let wishes = ["bio", "chem", "math"].map(|name| wish(name, 5, 60, "blocked"));
    let plan = planned(&wishes, &observed);
    let text = |users: &str, accounts: &str| (users.to_owned(), accounts.to_owned());
    assert_eq!(user_modifies(&plan), [text("alice", "bio,math"), text("bob", "chem")], "{plan:#?}");
}

#[test]
fn a_refused_group_is_halved_with_the_reasons_of_each_half() {
    let names = ["a", "b", "c", "d", "e"];
    let observed = observed(&names.map(|name| (name, "root")));
    let plan = planned(&names.map(|name| wish(name, 5, 60, "normal")), &observed);
    let mut groups: Vec<PlannedChange> = plan.changes.clone();
    assert_eq!(groups.len(), 1);
    let mut single = Vec::new();
    while let Some(group) = groups.pop() {
        let Some(parts) = halves(&group) else {
            single.push(group);
            continue;
        };
        let named = |planned: &PlannedChange| planned.change.accounts().count();
        assert_eq!(parts.iter().map(named).sum::<usize>(), named(&group));
        assert!(named(&parts[0]).abs_diff(named(&parts[1])) <= 1);
        groups.extend(parts);
    }
    single.reverse();
    for (planned, name) in single.iter().zip(names) {
        assert_eq!(planned.change.accounts().map(AccountName::as_str).collect::<Vec<_>>(), [name]);
        let reasons: Vec<&str> = planned.because.iter().map(|because| because.account.as_str()).collect();
        assert_eq!(reasons, [name]);
    }
}

#[test]
fn the_strictest_source_wins_each_field_and_all_are_named() {
    let observed = observed(&[("bio", "root")]);
    let mut other = wish("bio", 9, 30, "slowdown");
    other.source = SourceName::parse("other").unwrap();
    let wanted = wanted(&[wish("bio", 5, 60, "normal"), other], &observed);
    let bio = &wanted[&account("bio")];
    assert_eq!(bio.fairshare, Some(5));
    assert_eq!(bio.limits[&LimitType::GrpTRESMins][&tres("cpu")], 30);
    assert_eq!(bio.qos, Some(qos("slowdown")));
    assert_eq!(bio.because.len(), 2);
}

#[test]
fn an_account_below_a_blocked_one_is_blocked() {
    let observed = observed(&[("bio", "root"), ("lab", "bio")]);
    let wanted = wanted(&[wish("bio", 5, 60, "blocked"), wish("lab", 5, 60, "normal")], &observed);
    assert_eq!(wanted[&account("lab")].qos, Some(qos("blocked")));
}

#[test]
fn an_undecided_account_is_left_as_it_is() {
    let observed = observed(&[("bio", "root")]);
    let undecided = Decision::Undecided {
        account: account("bio"),
        source: SourceName::parse("waldur").unwrap(),
        allocation: "r1".into(),
        reason: "stale".into(),
    };
    let wishes = [wish("bio", 5, 60, "blocked")];
    let wanted = desired(&[undecided], &wishes, &[], &observed, &OwnValues::new(), &qos_rules());
    assert!(wanted.is_empty());
}

#[test]
fn a_missing_account_is_named_and_root_is_never_changed() {
    let observed = observed(&[]);
    let plan = planned(&[wish("gone", 5, 60, "normal"), wish("root", 5, 60, "blocked")], &observed);
    assert_eq!(plan.missing, vec![account("gone")]);
    assert!(plan.changes.is_empty());
}

#[test]
fn tightening_too_many_accounts_waits_for_a_word_and_loosening_does_not() {
    let names: Vec<String> = (0..12).map(|n| format!("a{n}")).collect();
    let tree: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "root")).collect();
    let mut observed = observed(&tree);
    row_of(&mut observed, "a0").qos = self::names(&["blocked"]);
    row_of(&mut observed, "a0").default_qos = Some(qos("blocked"));
    let wishes: Vec<Wish> =
        names.iter().map(|name| wish(name, 5, 60, if name == "a0" { "normal" } else { "blocked" })).collect();
    let held = planned(&wishes, &observed);
    assert_eq!((held.changes.len(), held.held.len()), (1, 1), "a0 is loosened, the others wait");
    assert!(held.held_because.is_some());
    let wanted = wanted(&wishes, &observed);
    let confirmed = plan(&wanted, &observed, &Owned::default(), &qos_rules(), &LIMITS, true);
    assert_eq!((confirmed.changes.len(), confirmed.held.len()), (2, 0));
}

#[test]
fn reading_back_names_what_differs() {
    let observed = observed(&[("bio", "root")]);
    let plan = planned(&[wish("bio", 5, 60, "slowdown")], &observed);
    let change = &plan.changes[0].change;
    assert!(settled(change, &observed).unwrap_err().contains("fairshare is 1 and not 5"));
    assert_eq!(settled(change, &after(&plan, &observed)), Ok(()));
}

proptest! {
    #[test]
    fn a_plan_after_its_own_changes_is_empty(
        shares in prop::collection::vec(1u32..100, 6),
        minutes in prop::collection::vec(0u64..1000, 6),
        levels in prop::collection::vec(0usize..5, 6),
        own in prop::collection::vec(any::<bool>(), 6),
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut observed = observed(&[("a", "root"), ("b", "a"), ("c", "b"), ("d", "root"), ("e", "d"), ("f", "root")]);
        for (name, own) in names.iter().zip(&own) {
            let user = ObservedUser {
                user: UserName::parse("u").unwrap(),
                partition: None,
                row: ObservedAssociation { qos_is_own: *own, default_qos_is_own: *own, ..row(&["normal"]) }.into(),
            };
            observed.accounts.get_mut(&account(name)).unwrap().users.push(user);
        }
        let list = ["normal", "low", "lower", "slowdown", "blocked"];
        let wishes: Vec<Wish> =
            (0..6).map(|n| wish(names[n], shares[n], minutes[n], list[levels[n]])).collect();
        let wanted = wanted(&wishes, &observed);
        let first = plan(&wanted, &observed, &Owned::default(), &qos_rules(), &LIMITS, true);
        let then = after(&first, &observed);
        for planned in &first.changes {
            prop_assert_eq!(settled(&planned.change, &then), Ok(()));
        }
        let second = plan(&wanted, &then, &Owned::default(), &qos_rules(), &LIMITS, true);
        prop_assert!(second.is_empty(), "{:?}", second);
    }

    #[test]
    fn nothing_is_tightened_on_missing_facts(level in 0usize..5) {
        let observed = observed(&[("bio", "root")]);
        let list = ["normal", "low", "lower", "slowdown", "blocked"];
        let undecided = Decision::Undecided {
            account: account("bio"), source: SourceName::parse("waldur").unwrap(), allocation: "r".into(), reason: "x".into(),
        };
        let wanted = desired(
            &[undecided], &[wish("bio", 1, 0, list[level])], &[], &observed, &OwnValues::new(), &qos_rules(),
        );
        prop_assert!(plan(&wanted, &observed, &Owned::default(), &qos_rules(), &LIMITS, true).is_empty());
    }
}

#[test]
fn strictness_orders_the_ladder_between_normal_and_blocked() {
    let rules = qos_rules();
    let order: Vec<_> =
        ["normal", "low", "slowdown", "blocked"].iter().map(|q| rules.strictness(&qos(q))).collect();
    assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
    assert_eq!(rules.strictness(&qos("others")), None);
    assert!(Level::Normal < Level::Blocked);
}
