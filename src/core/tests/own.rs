//! What is set for a while is given back.

use proptest::prelude::*;

use super::world::*;
use crate::core::association::{JobLimit, Limit, Observed, ObservedUser, Share, UserRow};
use crate::core::desired::{Wish, desired};
use crate::core::name::{SourceName, UserName};
use crate::core::own::{OwnField, OwnValue, OwnValues};
use crate::core::plan::{Change, Owned, Plan, PlanLimits, plan};
use crate::core::policy::LimitType;
use crate::core::settled::settled;

const LIMITS: PlanLimits = PlanLimits {
    changes_max: 100,
    tighten_accounts_max: 20,
    tighten_share_percent: 100,
    names_per_modify_max: 50,
};

fn quota(source: &str) -> Wish {
    Wish { returns: true, ..Wish::new(account("bio"), SourceName::parse(source).unwrap(), "a quota") }
}

fn user_quota(source: &str) -> Wish {
    Wish { user: Some(UserName::parse("alice").unwrap()), ..quota(source) }
}

/// The account `bio` with alice, whose row is bound to no partition or to one.
fn world(partition: Option<&str>) -> Observed {
    let mut observed = observed(&[("bio", "root")]);
    let alice = ObservedUser {
        user: UserName::parse("alice").unwrap(),
        partition: partition.map(Box::from),
        row: row(&["normal"]).into(),
    };
    observed.accounts.get_mut(&account("bio")).unwrap().users.push(alice);
    observed
}

/// One cycle: the plan, what it remembers, and Slurm afterwards. Everything asked for must then be there.
fn cycle(wishes: &[Wish], observed: &mut Observed, own: &mut OwnValues) -> Plan {
    let rules = qos_rules();
    let wanted = desired(&[], wishes, &[], observed, own, &rules);
    let owned = Owned { own: own.clone(), ..Owned::default() };
    let made = plan(&wanted, observed, &owned, &rules, &LIMITS, false);
    own.retain(|key, _| !made.forget.contains(key));
    own.extend(made.remember.clone());
    for change in made.changes.iter().map(|planned| &planned.change) {
        super::plans::make(change, observed);
        assert_eq!(settled(change, observed), Ok(()));
    }
    made
}

fn jobs(observed: &Observed, which: JobLimit) -> Option<u64> {
    observed.accounts[&account("bio")].row.jobs.get(&which).copied()
}

#[test]
fn submissions_that_were_stopped_come_back_with_the_limit_that_was_there() {
    let mut observed = world(None);
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpSubmitJobs, 50);
    let mut own = OwnValues::new();
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(0));
    assert!(cycle(&[quota("local").refusing()], &mut observed, &mut own).is_empty());
    cycle(&[], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(50));
    assert!(cycle(&[], &mut observed, &mut own).is_empty());
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn a_value_that_somebody_else_sets_meanwhile_is_the_one_that_stays() {
    let mut observed = world(None);
    let mut own = OwnValues::new();
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpSubmitJobs, 7);
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(0));
    cycle(&[], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(7));

    row_of(&mut observed, "bio").jobs.remove(&JobLimit::GrpSubmitJobs);
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpSubmitJobs, 9);
    cycle(&[], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(9), "it is nobody's but who set it");
}

#[test]
fn a_limit_set_by_hand_that_is_stricter_than_a_quota_stays() {
    let mut observed = world(None);
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpJobs, 3);
    let mut own = OwnValues::new();
    let mut wish = quota("local");
    wish.jobs.insert(JobLimit::GrpJobs, 10);
    assert!(cycle(std::slice::from_ref(&wish), &mut observed, &mut own).is_empty());
    wish.jobs.insert(JobLimit::GrpJobs, 2);
    cycle(std::slice::from_ref(&wish), &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpJobs), Some(2));
    wish.jobs.insert(JobLimit::GrpJobs, 10);
    cycle(&[wish], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpJobs), Some(3));
}

#[test]
fn a_crash_before_the_change_was_run_remembers_nothing_wrong() {
    let mut observed = world(None);
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpSubmitJobs, 50);
    let mut own = OwnValues::new();
    let untouched = observed.clone();
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    // Remembered, and nothing was run; then an operator sets 60.
    observed = untouched;
    row_of(&mut observed, "bio").jobs.insert(JobLimit::GrpSubmitJobs, 60);
    cycle(&[quota("local").refusing()], &mut observed, &mut own);
    cycle(&[], &mut observed, &mut own);
    assert_eq!(jobs(&observed, JobLimit::GrpSubmitJobs), Some(60));
}

#[test]
fn a_reserved_share_takes_the_place_of_a_policys_and_goes_again() {
    let mut observed = world(None);
    let mut own = OwnValues::new();
    let policy = Wish { fairshare: Some(5), returns: false, ..quota("waldur") };
    let reserved = Wish { fairshare: Some(40), ..quota("local") };
    let share = |observed: &Observed| observed.accounts[&account("bio")].row.share;
    cycle(std::slice::from_ref(&policy), &mut observed, &mut own);
    assert_eq!(share(&observed), Share::Number(5));
    for order in [[policy.clone(), reserved.clone()], [reserved.clone(), policy.clone()]] {
        cycle(&order, &mut observed, &mut own);
        assert_eq!(share(&observed), Share::Number(40));
    }
    cycle(&[policy], &mut observed, &mut own);
    assert_eq!(share(&observed), Share::Number(5));
    cycle(&[reserved], &mut observed, &mut own);
    cycle(&[], &mut observed, &mut own);
    assert_eq!(share(&observed), Share::Number(5));
}

#[test]
fn rows_of_users_are_set_and_given_back_each_in_its_partition() {
    for partition in [None, Some("small")] {
        let mut observed = world(partition);
        let mut own = OwnValues::new();
        let mut wish = user_quota("local");
        wish.jobs.insert(JobLimit::MaxSubmitJobs, 0);
        wish.limits = [(LimitType::MaxTRESMins, [(tres("billing"), 9)].into())].into();
        let made = cycle(&[wish], &mut observed, &mut own);
        let [planned] = &made.changes[..] else { panic!("{made:?}") };
        let expected = partition.map_or(UserRow::Only, |name| UserRow::Partition(name.to_owned()));
        assert!(matches!(&planned.change, Change::User { row, .. } if *row == expected), "{planned:?}");
        cycle(&[], &mut observed, &mut own);
        let bio = &observed.accounts[&account("bio")];
        assert!(bio.users[0].row.jobs.is_empty());
        assert!(bio.users[0].row.limits.values().all(|values| values.is_empty()), "{bio:?}");
    }
}

#[test]
fn the_names_of_fields_read_back() {
    for text in ["fairshare", "GrpJobs", "GrpSubmitJobs", "MaxJobs", "MaxSubmitJobs", "GrpTRES gres/gpu:a100"]
    {
        assert_eq!(OwnField::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "grpjobs", "GrpTRES", "GrpTRES ", "GrpNodes cpu"] {
        assert_eq!(OwnField::parse(text), None, "{text:?}");
    }
}

proptest! {
    /// Whatever quotas and operators do, in the end there is what the operator set last, and it takes one cycle.
    #[test]
    fn what_an_operator_set_last_is_what_stays_when_no_quota_is_left(
        steps in prop::collection::vec((prop::option::of(0u64..5), prop::option::of(prop::option::of(0u64..5))), 1..20),
        crash in prop::collection::vec(any::<bool>(), 20),
    ) {
        let mut observed = world(None);
        let mut own = OwnValues::new();
        let mut operators: Option<u64> = None;
        for (n, (asked, by_hand)) in steps.into_iter().enumerate() {
            if let Some(value) = by_hand {
                operators = value;
                let row = row_of(&mut observed, "bio");
                match value {
                    Some(value) => row.jobs.insert(JobLimit::GrpJobs, value),
                    None => row.jobs.remove(&JobLimit::GrpJobs),
                };
                // Setting just what the agent has set, or was about to set, cannot be told from the agent's doing.
                let is = OwnValue::Limit(value.map_or(Limit::Cleared, Limit::At));
                if let Some(known) = own.values().find(|known| known.is_agents(is))
                    && let OwnValue::Limit(before) = known.before
                {
                    operators = match before {
                        Limit::At(value) => Some(value),
                        Limit::Cleared => None,
                    };
                }
            }
            let wishes: Vec<Wish> = asked
                .map(|value| Wish { jobs: [(JobLimit::GrpJobs, value)].into(), ..quota("local") })
                .into_iter()
                .collect();
            let before = observed.clone();
            cycle(&wishes, &mut observed, &mut own);
            let strictest = match (asked, operators) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            prop_assert_eq!(jobs(&observed, JobLimit::GrpJobs), strictest);
            if crash[n] {
                // The change was remembered and never made; the next cycle comes to the same.
                observed = before;
                cycle(&wishes, &mut observed, &mut own);
                prop_assert_eq!(jobs(&observed, JobLimit::GrpJobs), strictest);
            }
        }
        cycle(&[], &mut observed, &mut own);
        prop_assert_eq!(jobs(&observed, JobLimit::GrpJobs), operators);
        cycle(&[], &mut observed, &mut own);
        prop_assert!(own.is_empty());
    }
}
