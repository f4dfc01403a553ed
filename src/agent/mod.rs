//! The conductor: the only room that sees all edges. [`cycle`] is the straight line that a datum takes; the other files
//! are its steps, the daemon around it, and how the outside is reached.

pub mod agreement;
pub mod amie;
pub mod apply;
pub mod audit;
pub mod backfill;
pub mod clock;
pub mod counters;
pub mod cycle;
pub mod deliver;
pub mod error;
pub mod explain;
pub mod facts;
pub mod hold;
pub mod judge;
pub mod ledger;
pub mod memory;
pub mod notify;
pub mod orders;
pub mod outlook;
pub mod preflight;
pub mod quota_wishes;
pub mod quotas;
pub mod schedule;
pub mod shrink;
pub mod signals;
pub mod step;
pub mod summary;
pub mod tell;
pub mod verify;
pub mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::central::amie::{AmieClient, AmieSettings};
use crate::central::waldur::{WaldurClient, WaldurSettings};
use crate::central::{Sleep, Surroundings};
use crate::config::{Amie, Config, PolicySource, Source};
use crate::core::command::Mode;
use crate::core::evaluate::{PartitionWeights, QosRules, Rules};
use crate::core::name::SourceName;
use crate::core::time::Epoch;
use crate::slurm::{Processes, Runner, Slurm};
use crate::store::{AmieRetention, Retention, Store};
use clock::Clock;
use error::AgentError;
use quotas::QuotaServer;
use watch::Stirred;

/// A central server with policies, and its client.
pub struct Central {
    /// The source's name.
    pub name: SourceName,
    /// Its client.
    pub client: WaldurClient,
}

/// The agent with all its edges open.
pub struct Agent {
    /// Checked configuration.
    pub config: Config,
    /// The way to Slurm.
    pub slurm: Slurm,
    /// The way to the servers of policies.
    pub centrals: Vec<Central>,
    /// The way to the servers of quotas.
    pub quota_servers: Vec<QuotaServer>,
    /// Which of those say that they have changed.
    pub stirred: Stirred,
    /// The way to AMIE, where the site reports there.
    pub amie: Option<AmieClient>,
    /// What must not be forgotten.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Real or emulated Slurm.
    pub mode: Mode,
    /// Number of the last cycle of this process.
    pub cycle: u64,
    /// Findings of the last cycle: each is logged when it comes, not in every cycle that it stays.
    pub told: BTreeSet<String>,
}

/// What of the outside is real.
pub struct Outside {
    /// The door to Slurm.
    pub runner: Runner,
    /// Time.
    pub clock: Clock,
    /// Real or emulated Slurm.
    pub mode: Mode,
}

impl Outside {
    /// Real programs, the machine's clock.
    pub fn real(config: &Config) -> Outside {
        Outside { runner: Runner::Processes(processes(config)), clock: Clock::System, mode: Mode::Production }
    }
}

impl Agent {
    /// Opens the edges: secrets are read, clients prepared; nothing is asked yet.
    pub fn new(config: Config, outside: Outside, store: Store) -> Result<Agent, AgentError> {
        let Clients { centrals, quota_servers, amie } = clients(&config, &outside.clock)?;
        let slurm = Slurm::new(outside.runner, config.cluster.name.clone());
        Ok(Agent {
            slurm,
            centrals,
            quota_servers,
            stirred: Stirred::default(),
            amie,
            store,
            clock: outside.clock,
            mode: outside.mode,
            cycle: 0,
            told: BTreeSet::new(),
            config,
        })
    }

    /// An agent that asks no server and reads no secret: what the sources said last is all it knows of them. For verbs
    /// that only look.
    pub fn offline(config: Config, outside: Outside, store: Store) -> Agent {
        let slurm = Slurm::new(outside.runner, config.cluster.name.clone());
        let (clock, mode) = (outside.clock, outside.mode);
        Agent {
            slurm,
            centrals: Vec::new(),
            quota_servers: Vec::new(),
            stirred: Stirred::default(),
            amie: None,
            store,
            clock,
            mode,
            cycle: 0,
            told: BTreeSet::new(),
            config,
        }
    }

    /// The way to AMIE alone, for verbs that need nothing else.
    pub fn amie_client(config: &Config, clock: &Clock) -> Result<AmieClient, AgentError> {
        let amie = config.amie.as_ref();
        let amie = amie.ok_or_else(|| AgentError::Asked("the configuration has no [amie] section".into()))?;
        amie_client(amie, clock)
    }

    /// Goes on with another configuration: clients are made anew, store and clock stay, and so does a door to Slurm that is not
    /// the configured one. On an error everything stays as it was.
    pub fn reconfigure(&mut self, config: Config) -> Result<(), AgentError> {
        let Clients { centrals, quota_servers, amie } = clients(&config, &self.clock)?;
        let runner = match self.slurm.runner() {
            Runner::Processes(given) if *given == processes(&self.config) => {
                Runner::Processes(processes(&config))
            }
            given => given.clone(),
        };
        self.slurm = Slurm::new(runner, config.cluster.name.clone());
        (self.centrals, self.quota_servers, self.amie, self.config) = (centrals, quota_servers, amie, config);
        Ok(())
    }

    /// Forgets what need not be kept any longer.
    pub fn prune(&mut self) -> Result<(), AgentError> {
        let now = self.clock.now();
        let seconds = |keep: std::time::Duration| i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        // The ledger never loses what a policy in use may still ask for; a total needs everything.
        let covered = format!("ledger_from:{}", self.config.cluster.name);
        let oldest_needed = match self.store.last_success(&covered)? {
            Some(from) if from <= ledger::FIRST_JOB => Epoch(0),
            _ => now,
        };
        let keep = Retention {
            jobs_s: seconds(self.config.store.keep_jobs),
            history_s: seconds(self.config.store.keep_history),
            oldest_needed,
        };
        let pruned = self.store.prune(now, keep)?;
        if pruned.jobs > 0 {
            self.store.put_success(&covered, now.plus(-keep.jobs_s))?;
        }
        let records = match &self.config.amie {
            Some(amie) => {
                let before = now.plus(-seconds(amie.keep_records.max(self.config.store.keep_jobs)));
                self.store.prune_amie(AmieRetention {
                    records_before: before.min(oldest_needed),
                    history_before: now.plus(-keep.history_s),
                    accepted_is_settled: amie::read_back::tells_nothing(&self.store)?,
                })?
            }
            None => 0,
        };
        let free_mb = self.store.free_bytes()? >> 20;
        tracing::info!(?pruned, amie_records = records, free_mb, "retention");
        Ok(())
    }

    /// The site's rules for decisions.
    pub fn rules(&self, partitions: Option<PartitionWeights>) -> Rules {
        let qos = &self.config.qos;
        Rules {
            components: self.config.components.clone(),
            qos: QosRules {
                normal: qos.normal.clone(),
                slowdown: qos.slowdown.clone(),
                blocked: qos.blocked.clone(),
                ladder: qos.ladder.clone(),
                lever: qos.lever,
            },
            partitions,
        }
    }
}

/// How a configuration has real programs run.
fn processes(config: &Config) -> Processes {
    Processes {
        bin_dir: config.cluster.bin_dir.clone(),
        slurm_conf: config.cluster.slurm_conf.clone(),
        timeout: config.cluster.timeout,
        output_bytes_max: config.cluster.output_bytes_max,
    }
}

/// The clients of all servers.
struct Clients {
    centrals: Vec<Central>,
    quota_servers: Vec<QuotaServer>,
    amie: Option<AmieClient>,
}

/// The clients of all servers of a configuration; their secrets are read here.
fn clients(config: &Config, clock: &Clock) -> Result<Clients, AgentError> {
    let mut clients = Clients { centrals: Vec::new(), quota_servers: Vec::new(), amie: None };
    for source in &config.sources {
        match quotas::server(source, clock)? {
            Some(server) => clients.quota_servers.push(server),
            None => clients.centrals.push(central(source, clock)?),
        }
    }
    clients.amie = config.amie.as_ref().map(|amie| amie_client(amie, clock)).transpose()?;
    Ok(clients)
}

/// The client of a server of policies; its token is read here. Nothing is asked yet.
pub fn central(source: &Source, clock: &Clock) -> Result<Central, AgentError> {
    let Some(policies) = source.policies() else {
        let (name, kind) = (&source.name, source.kind.as_str());
        return Err(AgentError::Asked(format!(
            "source {name} is of kind {kind}, which has no policies; see `slurm-site-agent quota`"
        )));
    };
    Ok(Central { name: source.name.clone(), client: waldur_client(source, policies, clock)? })
}

fn surroundings(clock: &Clock) -> Surroundings {
    let (now, waiting) = (clock.clone(), clock.clone());
    let sleep: Sleep = Arc::new(move |span| {
        let waiting = waiting.clone();
        Box::pin(async move { waiting.wait(span).await })
    });
    Surroundings { clock: Arc::new(move || now.now()), jitter_seed: rand::random(), sleep }
}

fn waldur_client(
    source: &Source,
    policies: &PolicySource,
    clock: &Clock,
) -> Result<WaldurClient, AgentError> {
    let settings = WaldurSettings {
        name: source.name.clone(),
        url: source.url.to_string(),
        token: source.token.read()?,
        ca_file: source.ca_file.clone(),
        proxy: source.proxy.clone(),
        offering: policies.offering.clone(),
        timeout: source.timeout,
        response_bytes_max: usize::try_from(source.response_bytes_max).unwrap_or(usize::MAX),
        attempts_max: source.attempts_max,
    };
    Ok(WaldurClient::new(&settings, surroundings(clock))?)
}

fn amie_client(amie: &Amie, clock: &Clock) -> Result<AmieClient, AgentError> {
    let settings = AmieSettings {
        name: SourceName::parse("amie").map_err(|error| AgentError::Asked(error.to_string()))?,
        url: amie.url.to_string(),
        site: amie.site.clone(),
        api_key: amie.key.read()?,
        ca_file: amie.ca_file.clone(),
        proxy: amie.proxy.clone(),
        timeout: amie.timeout,
        response_bytes_max: RESPONSE_BYTES_MAX,
        attempts_max: ATTEMPTS_MAX,
        batch_bytes_max: amie.batch_bytes_max,
        batch_records_max: amie.batch_records_max,
    };
    Ok(AmieClient::new(&settings, surroundings(clock))?)
}

/// Largest answer of the AMIE server: a page of loaded records stays near 1 MiB.
const RESPONSE_BYTES_MAX: usize = 32 << 20;
/// Tries of one request to AMIE in one cycle; the next cycle tries again.
const ATTEMPTS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn written(bin_dir: &str) -> Config {
        let text = format!(
            "[cluster]\nname = \"lab\"\nbin_dir = {bin_dir:?}\n[store]\npath = \"/nowhere/state.db\"\n"
        );
        config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The door after a reload that changes `cluster.bin_dir`.
    fn door_after_reload(given: Runner) -> Runner {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("state.db")).expect("a new store");
        let outside =
            Outside { runner: given, clock: Clock::manual(Epoch(1_795_337_204)), mode: Mode::Production };
        let mut agent = Agent::new(written("/opt/old"), outside, store).expect("an agent");
        agent.reconfigure(written("/opt/new")).expect("a configuration that works");
        agent.slurm.runner().clone()
    }

    #[test]
    fn a_reload_keeps_the_door_to_slurm_that_was_given_and_renews_the_configured_one() {
        let silent = |_: &str, _: &[String], _: &_| Ok(crate::slurm::Answer::default());
        assert!(matches!(door_after_reload(Runner::Emulated(Arc::new(silent))), Runner::Emulated(_)));
        let given = Processes { bin_dir: "/opt/given".into(), ..processes(&written("/opt/old")) };
        let kept = door_after_reload(Runner::Processes(given.clone()));
        assert!(matches!(kept, Runner::Processes(kept) if kept == given));
        let followed = door_after_reload(Outside::real(&written("/opt/old")).runner);
        assert!(matches!(followed, Runner::Processes(now) if now == processes(&written("/opt/new"))));
    }
}
