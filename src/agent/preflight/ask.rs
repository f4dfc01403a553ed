//! The questions. Every one only reads, and one that is not answered is an answer too.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use nix::unistd::{Uid, User, geteuid};

use super::{AgentUser, Answer, Facts, SecretFacts, ServerAnswer, ServerFacts, StoreContent, StoreFacts};
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, chain};
use crate::agent::{Outside, amie_client, quotas, waldur_client};
use crate::central::CentralError;
use crate::config::{Amie, Config, LOCAL_SOURCE, PolicySource, SecretError, SecretSource, Source};
use crate::core::command::Mode;
use crate::core::name::SourceName;
use crate::slurm::{Program, Runner, Slurm, SlurmError};
use crate::store::{Snapshot, Store, StoreError};

/// What a client of AMIE asks about: the last hour.
const AMIE_STATUS_S: i64 = 3600;

/// Asks everything.
pub async fn ask(config: &Config, outside: Outside) -> Facts {
    let now = outside.clock.now();
    let user = agent_user(&config.store.path, outside.mode);
    let missing_programs = match &outside.runner {
        Runner::Processes(processes) => missing_programs(&processes.bin_dir),
        Runner::Emulated(_) => Vec::new(),
    };
    let slurm = Slurm::new(outside.runner.clone(), config.cluster.name.clone());
    let level_of = user.name.clone();
    let (versions, controllers, configuration, database, clusters, qos, observed, partitions, usage, level) = tokio::join!(
        slurm.versions(),
        slurm.ping(),
        slurm.configuration(),
        slurm.database_configuration(),
        slurm.clusters(),
        slurm.qos(),
        slurm.observe(),
        slurm.partitions(),
        slurm.raw_usage(),
        slurm.admin_level(&level_of),
    );
    let store = Store::open_reader(&config.store.path);
    let (servers, offers) = servers(config, &outside.clock, store.as_ref().ok()).await;
    Facts {
        now,
        mode: outside.mode,
        missing_programs,
        versions: answer(versions),
        controllers: answer(controllers),
        configuration: answer(configuration),
        database: answer(database),
        clusters: answer(clusters),
        qos: answer(qos),
        observed: answer(observed),
        partitions: answer(partitions),
        raw_usage: answer(usage),
        user,
        admin_level: answer(level),
        servers,
        offers,
        store: store_facts(config, store),
    }
}

fn answer<T>(answer: Result<T, SlurmError>) -> Answer<T> {
    answer.map_err(|error| chain(&error))
}

/// The owner of the store's directory is whom the unit runs as; before there is one, whoever asks.
fn agent_user(store: &Path, mode: Mode) -> AgentUser {
    if mode == Mode::Emulator {
        let because = "the emulated Slurm knows no privileges";
        return AgentUser { name: "root".to_owned(), is_root: true, because };
    }
    let directory = store.parent().and_then(|directory| fs::metadata(directory).ok());
    let (uid, because) = match directory {
        Some(found) => (Uid::from_raw(found.uid()), "owner of the store's directory"),
        None => (geteuid(), "user of this call; the store's directory is not there yet"),
    };
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    AgentUser { name, is_root: uid.is_root(), because }
}

fn missing_programs(bin_dir: &Path) -> Vec<(PathBuf, String)> {
    let problem = |path: &Path| match fs::metadata(path) {
        Err(error) => Some(error.to_string()),
        Ok(found) if !found.is_file() => Some("is not a file".to_owned()),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Some("cannot be executed".to_owned()),
        Ok(_) => None,
    };
    let paths = Program::ALL.iter().map(|program| bin_dir.join(program.name()));
    paths.filter_map(|path| problem(&path).map(|problem| (path, problem))).collect()
}

/// Asks every server, and takes what it said last where it does not answer.
async fn servers(
    config: &Config,
    clock: &Clock,
    store: Option<&Store>,
) -> (Vec<ServerFacts>, Vec<(SourceName, Snapshot)>) {
    let asked = join_all(config.sources.iter().map(|source| ask_source(source, clock))).await;
    let (mut servers, mut offers) = (Vec::new(), Vec::new());
    for (source, (facts, snapshot)) in config.sources.iter().zip(asked) {
        let last = || store.and_then(|store| store.snapshot(&source.name).ok().flatten());
        if let Some(snapshot) = snapshot.or_else(|| last().map(|(snapshot, _)| snapshot)) {
            offers.push((source.name.clone(), snapshot));
        }
        servers.push(facts);
    }
    if let Some(amie) = &config.amie {
        servers.push(ask_amie(amie, clock).await);
    }
    if let Ok(local) = SourceName::parse(LOCAL_SOURCE) {
        for own in &config.allocations {
            let (policy, allocation) = (own.policy.as_ref().clone(), own.allocation.as_ref().clone());
            let snapshot = Snapshot { policies: vec![policy], allocations: vec![allocation] };
            offers.push((local.clone(), snapshot));
        }
    }
    (servers, offers)
}

fn secret_facts(secret: &SecretSource) -> SecretFacts {
    match secret.read() {
        Ok(_) => SecretFacts::Readable,
        Err(SecretError::NoCredentials(credential)) => SecretFacts::OnlyInUnit { credential },
        Err(error) => SecretFacts::Unreadable(chain(&error)),
    }
}

async fn ask_source(source: &Source, clock: &Clock) -> (ServerFacts, Option<Snapshot>) {
    let secret = secret_facts(&source.token);
    let (mut reply, mut snapshot) = (None, None);
    if secret == SecretFacts::Readable {
        match source.policies() {
            Some(policies) => match policies_and_allocations(source, policies, clock).await {
                Ok((answer, said)) => (reply, snapshot) = (Some(Ok(answer)), Some(said)),
                Err(reason) => reply = Some(Err(reason)),
            },
            None => reply = Some(quotas_of(source, clock).await),
        }
    }
    (ServerFacts { name: source.name.to_string(), url: source.url.clone(), secret, answer: reply }, snapshot)
}

async fn quotas_of(source: &Source, clock: &Clock) -> Answer<ServerAnswer> {
    let server = quotas::server(source, clock).map_err(|error| chain(&error))?;
    let server = server.ok_or("it has no quotas")?;
    let (said, notices) = quotas::ask(&server.client, &source.kind).await.map_err(|error| chain(&error))?;
    Ok(ServerAnswer {
        has: format!("{} quotas of accounts on this cluster", said.len()),
        clock_skew_s: server.client.http().clock_skew_s(),
        notices: notices.iter().map(ToString::to_string).collect(),
    })
}

async fn policies_and_allocations(
    source: &Source,
    policies: &PolicySource,
    clock: &Clock,
) -> Result<(ServerAnswer, Snapshot), String> {
    let client = waldur_client(source, policies, clock).map_err(|error: AgentError| chain(&error))?;
    let failed = |error: CentralError| chain(&error);
    let policies = client.fetch_policies().await.map_err(failed)?;
    let allocations = client.fetch_allocations().await.map_err(failed)?;
    let notices = policies.notices.iter().chain(&allocations.notices);
    let answer = ServerAnswer {
        has: format!("{} policies, {} allocations", policies.value.len(), allocations.value.len()),
        clock_skew_s: client.http().clock_skew_s(),
        notices: notices.map(ToString::to_string).collect(),
    };
    Ok((answer, Snapshot { policies: policies.value, allocations: allocations.value }))
}

async fn ask_amie(amie: &Amie, clock: &Clock) -> ServerFacts {
    let secret = secret_facts(&amie.key);
    let mut reply = None;
    if secret == SecretFacts::Readable {
        reply = Some(usage_status(amie, clock).await);
    }
    ServerFacts { name: "amie".to_owned(), url: amie.url.clone(), secret, answer: reply }
}

async fn usage_status(amie: &Amie, clock: &Clock) -> Answer<ServerAnswer> {
    let client = amie_client(amie, clock).map_err(|error: AgentError| chain(&error))?;
    let now = clock.now();
    let rows = client.usage_status(now.plus(-AMIE_STATUS_S), now).await.map_err(|error| chain(&error))?;
    Ok(ServerAnswer {
        has: format!("usage of {} resources in the last hour", rows.len()),
        clock_skew_s: client.http().clock_skew_s(),
        notices: Vec::new(),
    })
}

fn store_facts(config: &Config, store: Result<Store, StoreError>) -> StoreFacts {
    let path = config.store.path.clone();
    let readable = match store {
        Ok(store) => store
            .watermark(&config.cluster.name)
            .map(|collected| Some(StoreContent { collected }))
            .map_err(|error| chain(&error)),
        Err(StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(chain(&error)),
    };
    StoreFacts { readable, unwritable: unwritable(&path), holder: Store::holder(&path), path }
}

/// Files of the store that belong to somebody else than its directory: the agent could not write them.
fn unwritable(store: &Path) -> Option<String> {
    let owner = fs::metadata(store.parent()?).ok()?.uid();
    let beside = |ending: &str| {
        let mut name = store.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let foreign = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.uid() != owner);
    let path = ["", "-wal", "-shm", ".lock"].into_iter().map(beside).find(foreign)?;
    Some(path.display().to_string())
}
