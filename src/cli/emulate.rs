//! `emulate`: the emulated Slurm programs and the emulated central server, each by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use super::{Common, render, world};
use crate::agent::error::{AgentError, Exit, chain};
use crate::agent::signals::{Asked, Listener};
use crate::emulator::central::{CentralServer, CentralState};

#[derive(Debug, Subcommand)]
pub enum Emulate {
    /// Serve the emulated central server until told to stop; prints `listening on http://ADDRESS` when it is ready.
    Server {
        /// Address to listen on; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Its state; made with the shipped data when it is not there.
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Data to begin with in place of the shipped ones.
        #[arg(long, value_name = "FILE")]
        seed: Option<PathBuf>,
    },
    /// Move the clock of the emulated world, Slurm and server together: `+2h`, `-1day` or an instant.
    Clock {
        /// By how much, or to when (RFC 3339).
        #[arg(allow_hyphen_values = true)]
        to: String,
    },
    /// Forget the emulated world; the next run begins with the shipped data.
    Reset,
    /// sacct, sacctmgr, sreport, sshare, scontrol or sbatch on the emulated world, as the real one would answer.
    #[command(external_subcommand)]
    Program(Vec<String>),
}

/// Does what is asked.
pub fn run(common: &Common, what: Emulate) -> Result<Exit, AgentError> {
    match what {
        Emulate::Server { listen, state, seed } => server(common, listen, state, seed),
        Emulate::Clock { to } => clock(common, &to),
        Emulate::Reset => reset(common),
        Emulate::Program(words) => match words.split_first() {
            Some((program, args)) => slurm(common, program, args),
            None => Err(AgentError::Asked("name a program, such as sacct".into())),
        },
    }
}

fn slurm(common: &Common, program: &str, args: &[String]) -> Result<Exit, AgentError> {
    let dir = world::state_dir(common)?;
    world::prepare(&dir)?;
    let env: BTreeMap<String, String> = ["TZ", "SLURM_TIME_FORMAT"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    let output =
        world::slurm(&dir)?.run(program, args, &env).map_err(|error| AgentError::Emulator(chain(&error)))?;
    render::bytes(&output.stdout, &output.stderr);
    // The status is the program's own, beside this program's table of exit codes.
    std::process::exit(output.status);
}

fn server(
    common: &Common,
    listen: SocketAddr,
    state: Option<PathBuf>,
    seed: Option<PathBuf>,
) -> Result<Exit, AgentError> {
    let state = match state {
        Some(path) => path,
        None => {
            let dir = world::state_dir(common)?;
            world::prepare(&dir)?;
            dir.join("central.json")
        }
    };
    let seed = match seed {
        Some(path) => std::fs::read_to_string(&path).map_err(|source| AgentError::System {
            doing: "reading the seed of the emulated server",
            source,
        })?,
        None => world::CENTRAL_SEED.to_owned(),
    };
    let seed: CentralState = serde_json::from_str(&seed)
        .map_err(|error| AgentError::Asked(format!("the seed of the emulated server: {error}")))?;
    let central =
        CentralServer::in_file(&state, || seed).map_err(|error| AgentError::Emulator(chain(&error)))?;
    world::runtime()?.block_on(async {
        let system = |source| AgentError::System { doing: "opening the port of the emulated server", source };
        let mut signals = Listener::new().map_err(system)?;
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(system)?;
        let address = listener.local_addr().map_err(system)?;
        let stop = CancellationToken::new();
        let served = tokio::spawn(central.serve(listener, stop.clone()));
        render::text(&format!("listening on http://{address}\n"));
        while signals.next().await != Asked::Drain {}
        stop.cancel();
        match served.await {
            Ok(Ok(())) => Ok(Exit::Done),
            Ok(Err(error)) => Err(AgentError::Emulator(chain(&error))),
            Err(error) => Err(AgentError::Emulator(error.to_string())),
        }
    })
}

fn clock(common: &Common, to: &str) -> Result<Exit, AgentError> {
    let dir = world::state_dir(common)?;
    world::prepare(&dir)?;
    let slurm = world::slurm(&dir)?;
    let now = slurm.with_world(|world| world.now()).map_err(|error| AgentError::Emulator(chain(&error)))?;
    let by = move_of(to, now)?;
    slurm.with_world(|world| world.advance(by)).map_err(|error| AgentError::Emulator(chain(&error)))?;
    let central = world::central(&dir)?.handle();
    central.advance(by);
    central.keep().map_err(|error| AgentError::Emulator(chain(&error)))?;
    render::text(&format!("the emulated clock shows {}\n", crate::core::time::Epoch(now + by)));
    Ok(Exit::Done)
}

/// Seconds to move by.
fn move_of(to: &str, now: i64) -> Result<i64, AgentError> {
    let asked = |reason: String| {
        AgentError::Asked(format!(
            "{to:?} is no move of a clock ({reason}); give +2h, -1day or 2026-11-22T12:00:00Z"
        ))
    };
    let span = |text: &str| {
        humantime::parse_duration(text)
            .map_err(|error| asked(error.to_string()))
            .and_then(|span| i64::try_from(span.as_secs()).map_err(|_| asked("too long".into())))
    };
    if let Some(text) = to.strip_prefix('+') {
        return span(text);
    }
    if let Some(text) = to.strip_prefix('-') {
        return Ok(-span(text)?);
    }
    let instant: jiff::Timestamp = to.parse().map_err(|error: jiff::Error| asked(error.to_string()))?;
    Ok(instant.as_second() - now)
}

fn reset(common: &Common) -> Result<Exit, AgentError> {
    let dir = world::state_dir(common)?;
    let ours = ["slurm.json", "central.json", "central.token", "amie.key", "state.db"];
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            render::text("there is no emulated world\n");
            return Ok(Exit::Done);
        }
        Err(source) => {
            return Err(AgentError::System { doing: "reading the emulator's state directory", source });
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if ours.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            std::fs::remove_file(entry.path())
                .map_err(|source| AgentError::System { doing: "removing the emulated world", source })?;
        }
    }
    render::text(&format!("the emulated world in {} is forgotten\n", dir.display()));
    Ok(Exit::Done)
}
