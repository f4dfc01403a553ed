//! The commands that make an account one that the agent never touched.
//!
//! What is given back (limits on jobs, what quotas ask for) goes back to what the row had of its own; what policies set for good
//! goes to what a new account has.

use std::collections::BTreeSet;

use super::{typed, with};
use crate::agent::cycle::Weighed;
use crate::core::association::{Assignments, Limit, ObservedAssociation, Share};
use crate::core::desired::Desired;
use crate::core::name::AccountName;
use crate::core::own::{self, OwnField, OwnValue, OwnValues, Row, own_value};
use crate::core::plan::Change;
use crate::slurm::Slurm;

/// What a new account has.
const FAIRSHARE_NEW: &str = "fairshare=1";
const QOS_INHERITED: &str = "defaultqos=-1";
const SHARE_INHERITED: &str = "fairshare=parent";

/// One command for the account's row and one for each row of a user of it; none where nobody asks for anything.
pub(super) fn commands(slurm: &Slurm, account: &AccountName, weighed: &Weighed) -> Vec<String> {
    let (Some(wanted), Some(observed)) =
        (weighed.wanted.get(account), weighed.observed.accounts.get(account))
    else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    let (set, more) = of_account(wanted, &observed.row, &weighed.own);
    if !set.is_empty() || !more.is_empty() {
        commands.push(typed(slurm, account, &set, &more));
    }
    let bound = observed.bound_users();
    for user in &observed.users {
        let asked = wanted.users.get(&user.user);
        let mut fields = BTreeSet::new();
        if let Some(asked) = asked {
            fields.extend(asked.jobs.keys().map(|which| OwnField::Jobs(*which)));
            fields.extend(
                asked
                    .limits
                    .iter()
                    .flat_map(|(kind, values)| values.keys().map(|tres| OwnField::Tres(*kind, tres.clone()))),
            );
            fields.extend(asked.fairshare.map(|_| OwnField::Fairshare));
        }
        let row =
            Row { account, user: Some(&user.user), partition: user.partition.as_deref(), row: &user.row };
        fields.extend(remembered(&row, &weighed.own));
        let (set, more) = given_back(&row, &fields, &weighed.own);
        if !set.is_empty() || !more.is_empty() {
            let (name, account, row) = (user.user.clone(), account.clone(), user.addressed(&bound));
            let change = Change::User { user: name, account, row, set };
            commands.push(with(slurm.argv(&change).to_string(), &more));
        }
    }
    commands
}

/// The account's own row, with the words that assignments have no value for.
fn of_account(
    wanted: &Desired,
    observed: &ObservedAssociation,
    own: &OwnValues,
) -> (Assignments, Vec<&'static str>) {
    let row = Row { account: &wanted.account, user: None, partition: None, row: observed };
    let mut returning: BTreeSet<OwnField> = wanted.jobs.keys().map(|which| OwnField::Jobs(*which)).collect();
    returning.extend(wanted.returning.iter().cloned());
    returning.extend(remembered(&row, own));
    let (mut set, mut more) = given_back(&row, &returning, own);
    for (kind, values) in &wanted.limits {
        let fields = values.keys().map(|tres| OwnField::Tres(*kind, tres.clone()));
        for field in fields.filter(|field| !returning.contains(field)) {
            field.assign(OwnValue::Limit(Limit::Cleared), &mut set);
        }
    }
    if wanted.fairshare.is_some() && !returning.contains(&OwnField::Fairshare) {
        more.push(FAIRSHARE_NEW);
    }
    if wanted.qos.is_some() {
        set.qos = Some(BTreeSet::new());
        more.push(QOS_INHERITED);
    }
    (set, more)
}

/// Fields of the row where the agent's value stands for a while.
fn remembered(row: &Row<'_>, own: &OwnValues) -> Vec<OwnField> {
    let of_row = own::of_account(row.account, own).filter(|key| **key == row.key(key.field.clone()));
    of_row.map(|key| key.field.clone()).collect()
}

/// The row's own values of these fields.
fn given_back(
    row: &Row<'_>,
    fields: &BTreeSet<OwnField>,
    own: &OwnValues,
) -> (Assignments, Vec<&'static str>) {
    let (mut set, mut more) = (Assignments::default(), Vec::new());
    for field in fields {
        let value = own_value(own, &row.key(field.clone()), field.value_in(row.row));
        field.assign(value, &mut set);
        if value == OwnValue::Share(Share::Parent) {
            more.push(SHARE_INHERITED);
        }
    }
    (set, more)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, desired, observed, qos, row, slurm};
    use super::*;
    use crate::core::association::{JobLimit, JobLimits};
    use crate::core::desired::DesiredUser;
    use crate::core::name::UserName;
    use crate::core::own::{Own, OwnKey};
    use crate::core::policy::LimitType;
    use crate::core::tres::Tres;

    fn weighed(wanted: Desired, there: ObservedAssociation, own: OwnValues) -> Weighed {
        Weighed {
            observed: observed(&[("bio", None, there)]),
            wishes: Vec::new(),
            own,
            wanted: [(account("bio"), wanted)].into(),
        }
    }

    fn at(value: u64) -> OwnValue {
        OwnValue::Limit(Limit::At(value))
    }

    fn key(user: Option<&str>, field: OwnField) -> OwnKey {
        let user = user.map(|name| UserName::parse(name).unwrap());
        OwnKey { account: account("bio"), user, partition: None, field }
    }

    #[test]
    fn what_policies_set_goes_to_what_a_new_account_has() {
        let wanted = Desired {
            fairshare: Some(7),
            limits: [(LimitType::GrpTRESMins, [(Tres::billing(), 600)].into())].into(),
            qos: Some(qos("normal")),
            ..desired("bio")
        };
        assert_eq!(
            commands(&slurm(), &account("bio"), &weighed(wanted, row(), OwnValues::new())),
            [
                "sacctmgr -i modify account where name=bio cluster=lab set GrpTRESMins=billing=-1 qos= fairshare=1 \
              defaultqos=-1"
            ]
        );
        let nothing = weighed(desired("bio"), row(), OwnValues::new());
        assert_eq!(commands(&slurm(), &account("bio"), &nothing), Vec::<String>::new(), "nobody asks");
    }

    #[test]
    fn what_is_given_back_goes_to_what_the_row_had_of_its_own() {
        let submit = JobLimit::GrpSubmitJobs;
        let budget = OwnField::Tres(LimitType::GrpTRESMins, Tres::billing());
        let asked = DesiredUser { jobs: JobLimits::from([(JobLimit::MaxJobs, 1)]), ..DesiredUser::default() };
        let wanted = Desired {
            fairshare: Some(60),
            limits: [(LimitType::GrpTRESMins, [(Tres::billing(), 600)].into())].into(),
            jobs: JobLimits::from([(submit, 0), (JobLimit::GrpJobs, 8)]),
            returning: [OwnField::Fairshare, budget.clone()].into(),
            users: [(UserName::parse("alice").unwrap(), asked)].into(),
            ..desired("bio")
        };
        // Submissions are stopped where 40 were allowed, 8 jobs are allowed where nothing was said; the budget of 600 is its own.
        let there = ObservedAssociation {
            share: Share::Number(60),
            jobs: JobLimits::from([(submit, 0), (JobLimit::GrpJobs, 8), (JobLimit::MaxJobs, 1)]),
            ..row()
        };
        let remember = |before, set| Own { before, set, earlier: None };
        let own = OwnValues::from([
            (key(None, OwnField::Jobs(submit)), remember(at(40), at(0))),
            (key(None, OwnField::Jobs(JobLimit::GrpJobs)), remember(OwnValue::Limit(Limit::Cleared), at(8))),
            (
                key(None, OwnField::Fairshare),
                remember(OwnValue::Share(Share::Parent), OwnValue::Share(Share::Number(60))),
            ),
            (key(Some("alice"), OwnField::Jobs(JobLimit::MaxJobs)), remember(at(5), at(1))),
        ]);
        assert_eq!(
            commands(&slurm(), &account("bio"), &weighed(wanted.clone(), there.clone(), own.clone())),
            [
                "sacctmgr -i modify account where name=bio cluster=lab set GrpTRESMins=billing=600 GrpJobs=-1 \
                 GrpSubmitJobs=40 fairshare=parent",
                "sacctmgr -i modify user where name=alice account=bio cluster=lab set MaxJobs=5",
            ]
        );
        // Somebody else has set 3 submissions meanwhile: those are its own now.
        let by_hand = ObservedAssociation { jobs: JobLimits::from([(submit, 3)]), ..there };
        let told = commands(&slurm(), &account("bio"), &weighed(wanted, by_hand, own));
        assert!(told[0].contains("GrpSubmitJobs=3"), "{told:?}");
    }
}
