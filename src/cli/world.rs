//! What a verb works on: the real Slurm and servers, or the emulated ones with the shipped data.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Common;
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, chain};
use crate::agent::{Agent, Outside};
use crate::config::{self, Config, EMULATOR_AMIE_KEY_FILE, EMULATOR_TOKEN_FILE};
use crate::core::command::Mode;
use crate::core::time::Epoch;
use crate::emulator::central::{CentralServer, CentralState};
use crate::emulator::slurm::{EmulatedSlurm, World as SlurmWorld};
use crate::slurm::{Answer, RunError, Runner};
use crate::store::{Store, StoreError};

/// Shipped data of the emulated Slurm.
const SLURM_SEED: &str = include_str!("../../fixtures/demo/slurm.json");
/// Shipped data of the emulated server.
pub const CENTRAL_SEED: &str = include_str!("../../fixtures/demo/central.json");
/// Token of the agent in the shipped data; the emulated server knows it, nobody else does.
const CENTRAL_TOKEN: &str = "emulated-agent-token";
/// Key of the site in the shipped data.
const AMIE_KEY: &str = "emulated-amie-key";

/// A configuration and the outside that it stands for.
pub struct World {
    /// Checked configuration.
    pub config: Config,
    outside: Option<Outside>,
    server: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    copy: Option<PathBuf>,
}

impl World {
    /// Opens what the command line asks for; the emulated server is started.
    pub async fn open(common: &Common) -> Result<World, AgentError> {
        if !common.emulator {
            let config = config::load(&common.config)?;
            let outside = Outside::real(&config);
            return Ok(World { config, outside: Some(outside), server: None, copy: None });
        }
        let dir = state_dir(common)?;
        prepare(&dir)?;
        let central = central(&dir)?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.map_err(|source| {
            AgentError::System { doing: "opening a port for the emulated server", source }
        })?;
        let address = listener.local_addr().map_err(|source| AgentError::System {
            doing: "opening a port for the emulated server",
            source,
        })?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = central.serve(listener, stopped).await {
                tracing::error!(error = chain(&error), "the emulated server stopped");
            }
        });
        let config = super::emulated_configuration(common, &dir, &format!("http://{address}/"))?;
        let slurm = Arc::new(slurm(&dir)?);
        let outside = Outside { runner: runner(&slurm), clock: clock(&slurm), mode: Mode::Emulator };
        Ok(World { config, outside: Some(outside), server: Some((stop, task)), copy: None })
    }

    /// The agent on the store of the configuration. Once.
    pub fn agent(&mut self) -> Result<Agent, AgentError> {
        let store = Store::open(&self.config.store.path)?;
        self.agent_on(store)
    }

    /// The agent on a private copy of the store: a dry run leaves the real one alone and works beside a running daemon.
    pub fn agent_on_a_copy(&mut self) -> Result<Agent, AgentError> {
        let store = self.store_copy()?;
        self.agent_on(store)
    }

    /// The agent on the store, or (`false`) on a private copy where a running agent has it.
    pub fn agent_or_copy(&mut self) -> Result<(Agent, bool), AgentError> {
        match Store::open(&self.config.store.path) {
            Ok(store) => Ok((self.agent_on(store)?, true)),
            Err(StoreError::Held { .. }) => Ok((self.agent_on_a_copy()?, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// A private copy of the store, which goes when the world is closed.
    pub fn store_copy(&mut self) -> Result<Store, AgentError> {
        let dir = std::env::temp_dir().join(format!("slurm-site-agent-dry-run.{}", std::process::id()));
        let system = |source| AgentError::System { doing: "making a directory for the dry run", source };
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(system)?;
        self.copy = Some(dir.clone());
        Ok(Store::open_copy(&self.config.store.path, &dir.join("state.db"))?)
    }

    /// The outside alone, for verbs that need no secret and no store of their own. Once.
    pub fn outside(&mut self) -> Result<Outside, AgentError> {
        let outside = self.outside.take();
        outside.ok_or_else(|| AgentError::Asked("the world has one agent".into()))
    }

    fn agent_on(&mut self, store: Store) -> Result<Agent, AgentError> {
        let outside = self.outside()?;
        Agent::new(self.config.clone(), outside, store)
    }

    /// Stops the emulated server and removes the copy.
    pub async fn close(mut self) {
        if let Some((stop, task)) = self.server.take() {
            stop.cancel();
            let _ = task.await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(dir) = &self.copy
            && let Err(error) = fs::remove_dir_all(dir)
        {
            tracing::warn!(%error, dir = %dir.display(), "the copy of a dry run could not be removed");
        }
    }
}

/// The runtime of a verb.
pub fn runtime() -> Result<tokio::runtime::Runtime, AgentError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { doing: "starting the runtime", source })
}

/// Where the emulated world lies.
pub fn state_dir(common: &Common) -> Result<PathBuf, AgentError> {
    if let Some(dir) = &common.emulator_state {
        return std::path::absolute(dir).map_err(|source| AgentError::System {
            doing: "finding the emulator's state directory",
            source,
        });
    }
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    base.or_else(home).map(|base| base.join("slurm-site-agent/emulator")).ok_or_else(|| {
        AgentError::Asked("neither XDG_STATE_HOME nor HOME is set; give --emulator-state DIR".into())
    })
}

/// The directory, and the secrets that the emulated server knows.
pub fn prepare(dir: &Path) -> Result<(), AgentError> {
    let system = |source| AgentError::System { doing: "making the emulator's state directory", source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(system)?;
    for (name, secret) in [(EMULATOR_TOKEN_FILE, CENTRAL_TOKEN), (EMULATOR_AMIE_KEY_FILE, AMIE_KEY)] {
        let path = dir.join(name);
        if !path.exists() {
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(system)?;
            file.write_all(secret.as_bytes()).map_err(system)?;
        }
    }
    Ok(())
}

/// The emulated Slurm of a directory, with the shipped data when it is new.
pub fn slurm(dir: &Path) -> Result<EmulatedSlurm, AgentError> {
    let seed = SlurmWorld::from_json(SLURM_SEED).map_err(|error| AgentError::Emulator(chain(&error)))?;
    EmulatedSlurm::in_file(dir.join("slurm.json"), || seed)
        .map_err(|error| AgentError::Emulator(chain(&error)))
}

/// The emulated server of a directory, with the shipped data when it is new.
pub fn central(dir: &Path) -> Result<CentralServer, AgentError> {
    let seed: CentralState = serde_json::from_str(CENTRAL_SEED)
        .map_err(|error| AgentError::Emulator(format!("the shipped data of the server: {error}")))?;
    CentralServer::in_file(&dir.join("central.json"), || seed)
        .map_err(|error| AgentError::Emulator(chain(&error)))
}

fn runner(slurm: &Arc<EmulatedSlurm>) -> Runner {
    let slurm = Arc::clone(slurm);
    Runner::Emulated(Arc::new(move |program, args, env| {
        let output = slurm.run(program, args, env).map_err(|error| RunError::Lost {
            argv: program.to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Answer { stdout: output.stdout, stderr: output.stderr, status: output.status })
    }))
}

fn clock(slurm: &Arc<EmulatedSlurm>) -> Clock {
    let slurm = Arc::clone(slurm);
    Clock::Emulated(Arc::new(move || {
        slurm.with_world(|world| Epoch(world.now())).unwrap_or_else(|error| {
            tracing::error!(error = chain(&error), "the emulated clock could not be read");
            Epoch(0)
        })
    }))
}
