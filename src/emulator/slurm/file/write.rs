//! From a world to a file: everything, with numbers, so that reading it gives the same world.

use super::super::clock::Clock;
use super::super::job::{Job, TimeLimit};
use super::super::limits::Limits;
use super::super::tres::Amounts;
use super::super::world::{Account, AdminLevel, Association, Partition, Qos, SHARES_OF_PARENT, World};
use super::{
    AccountFile, ArrayFile, ClockFile, JobFile, PartitionFile, QosFile, UserAssociationFile, UserFile,
    WorldFile,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The file of a world.
pub(super) fn file(world: &World) -> WorldFile {
    let clock = match world.clock {
        Clock::Fixed(at) => ClockFile::Fixed(Value::from(at)),
        Clock::Offset(seconds) => ClockFile::Offset(seconds),
    };
    let (accounts, users) = written_accounts(world);
    WorldFile {
        cluster: world.cluster.clone(),
        version: world.version.clone(),
        clock,
        time_zone: world.time_zone.clone(),
        acting_user: world.acting_user.clone(),
        slurmctld_up: world.services.slurmctld,
        slurmdbd_up: world.services.slurmdbd,
        other_clusters: world.other_clusters.clone(),
        config: world.config.clone(),
        tres: world.tres.iter().map(|tres| (tres.id, tres.full_name())).collect(),
        partitions: Some(
            world.partitions.iter().map(|partition| written_partition(world, partition)).collect(),
        ),
        qos: world.qos.iter().map(|qos| written_qos(world, qos)).collect(),
        accounts,
        users,
        uids: world.uids.clone(),
        jobs: world.jobs.iter().map(|job| written_job(world, job)).collect(),
        rolled_until: world.rolled_until,
        lived_until: world.lived_until,
        last_job: world.last_job,
        next_association: world.next_association,
        next_qos: world.next_qos,
        faults: world.faults.clone(),
    }
}

fn written_partition(world: &World, partition: &Partition) -> PartitionFile {
    PartitionFile {
        name: partition.name.clone(),
        default: partition.is_default,
        up: partition.up,
        billing_weights: partition.billing_weights.clone(),
        nodes: partition.nodes.clone(),
        tres: plain(world, &partition.tres),
    }
}

/// Amounts that parse back to the same numbers.
fn plain(world: &World, amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts
        .iter()
        .filter_map(|(id, count)| Some(format!("{}={count}", world.tres.by_id(*id)?.full_name())))
        .collect();
    parts.join(",")
}

fn written_limits(world: &World, limits: &Limits) -> BTreeMap<String, Value> {
    let counts = limits.counts.iter().map(|(which, number)| (which.name().to_owned(), Value::from(*number)));
    let tres = limits
        .tres
        .iter()
        .map(|(which, amounts)| (which.name().to_owned(), Value::from(plain(world, amounts))));
    counts.chain(tres).collect()
}

fn written_qos(world: &World, qos: &Qos) -> QosFile {
    QosFile {
        name: qos.name.clone(),
        id: qos.id,
        description: Some(qos.description.clone()),
        priority: None,
        flags: qos.flags.clone(),
        usage_factor: qos.usage_factor,
        limits: written_limits(world, &qos.limits),
        usage_reset_at: qos.usage_reset_at,
    }
}

fn written_shares(association: &Association) -> Option<Value> {
    match association.shares {
        1 => None,
        SHARES_OF_PARENT => Some(Value::from("parent")),
        shares => Some(Value::from(shares)),
    }
}

fn written_qos_list(association: &Association) -> Vec<String> {
    let deltas =
        association.delta_qos.iter().map(|(added, name)| format!("{}{name}", if *added { '+' } else { '-' }));
    association.qos.iter().cloned().chain(deltas).collect()
}

fn written_accounts(world: &World) -> (Vec<AccountFile>, Vec<UserFile>) {
    let mut accounts = Vec::new();
    let mut users: Vec<UserFile> = Vec::new();
    let mut at_name: BTreeMap<String, usize> = BTreeMap::new();
    let described: BTreeMap<&str, &Account> = world.accounts.iter().map(|a| (a.name.as_str(), a)).collect();
    for user in &world.users {
        at_name.insert(user.name.clone(), users.len());
        users.push(written_user(world, &user.name, user.admin_level, false));
    }
    for (at, association) in world.associations.iter().enumerate() {
        let order = u32::try_from(at + 1).unwrap_or(u32::MAX);
        match &association.user {
            None => accounts.push(AccountFile {
                name: association.account.clone(),
                parent: association.parent.clone(),
                description: described.get(association.account.as_str()).map(|a| a.description.clone()),
                organization: described.get(association.account.as_str()).map(|a| a.organization.clone()),
                id: association.id,
                order,
                fairshare: written_shares(association),
                qos: written_qos_list(association),
                default_qos: association.default_qos.clone(),
                limits: written_limits(world, &association.limits),
                usage_reset_at: association.usage_reset_at,
                usage_left_at: association.usage_left_at,
                deleted: association.deleted,
            }),
            Some(name) => {
                let at = *at_name.entry(name.clone()).or_insert_with(|| {
                    users.push(written_user(world, name, AdminLevel::None, true));
                    users.len() - 1
                });
                users[at].associations.push(written_user_association(world, association, order));
            }
        }
    }
    (accounts, users)
}

fn written_user(world: &World, name: &str, level: AdminLevel, deleted: bool) -> UserFile {
    UserFile {
        name: name.to_owned(),
        uid: world.uids.get(name).copied(),
        admin_level: Some(level.name().to_owned()),
        accounts: Vec::new(),
        default_account: None,
        associations: Vec::new(),
        deleted,
    }
}

fn written_user_association(world: &World, association: &Association, order: u32) -> UserAssociationFile {
    UserAssociationFile {
        account: association.account.clone(),
        partition: association.partition.clone(),
        id: association.id,
        order,
        fairshare: written_shares(association),
        qos: written_qos_list(association),
        default_qos: association.default_qos.clone(),
        limits: written_limits(world, &association.limits),
        usage_reset_at: association.usage_reset_at,
        usage_left_at: association.usage_left_at,
        default: association.is_default,
        deleted: association.deleted,
    }
}

fn written_job(world: &World, job: &Job) -> JobFile {
    let at = |at: i64| (at != 0).then(|| Value::from(at));
    JobFile {
        id: job.id,
        db_index: job.db_index,
        association: job.association,
        cluster: job.cluster.clone(),
        account: job.account.clone(),
        user: job.user.clone(),
        name: job.name.clone(),
        partition: job.partition.clone(),
        qos: job.qos.clone(),
        state: Some(job.state.to_string()),
        submit: Some(Value::from(job.submit)),
        eligible: Some(Value::from(job.eligible)),
        start: at(job.start),
        end: at(job.end),
        suspended: job
            .suspensions
            .iter()
            .map(|part| (Value::from(part.from), part.to.map(Value::from)))
            .collect(),
        time_limit: match job.time_limit {
            TimeLimit::Partition => None,
            TimeLimit::Unlimited => Some(Value::from("UNLIMITED")),
            TimeLimit::Minutes(minutes) => Some(Value::from(minutes)),
        },
        allocated: plain(world, &job.allocated),
        requested: plain(world, &job.requested),
        nodes: Some(job.nodes.clone()),
        exit_code: Some(format!("{}:{}", job.exit_code.0, job.exit_code.1)),
        cancelled_by: job.cancelled_by,
        array: job.array.as_ref().map(|part| ArrayFile {
            job: part.job,
            task: part.task,
            waiting: part.waiting.clone(),
        }),
        het: job.het,
        flags: Some(job.flags.clone()),
        priority: Some(job.priority),
        reason: job.reason.clone(),
        submit_line: job.submit_line.clone(),
        work_dir: job.work_dir.clone(),
        comment: job.comment.clone(),
        admin_comment: job.admin_comment.clone(),
        wckey: job.wckey.clone(),
        runaway: job.runaway,
        runs_for_s: job.runs_for_s,
        held: job.held,
    }
}
