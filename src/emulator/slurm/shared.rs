//! One world shared by the threads of a process and, when it lies in a file, by separate processes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Output, World, WorldFileError};

/// Why a shared world could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SharedWorldError {
    /// The file system refused.
    #[error("the file of the emulated Slurm {path}: {doing}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// The file is not a world.
    #[error("the file of the emulated Slurm {path} is no world; remove it to begin anew")]
    World {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: WorldFileError,
    },
}

/// An emulated Slurm that many may use.
#[derive(Debug)]
pub struct EmulatedSlurm {
    world: Mutex<World>,
    file: Option<PathBuf>,
}

impl EmulatedSlurm {
    /// A world of this process only.
    pub fn in_memory(world: World) -> Self {
        Self { world: Mutex::new(world), file: None }
    }

    /// The world in a file; made from `seed` when there is none. Every use takes the file's lock, reads it, and replaces it
    /// as a whole when it has changed.
    pub fn in_file(path: &Path, seed: impl FnOnce() -> World) -> Result<Self, SharedWorldError> {
        let _lock = lock(path)?;
        let world = match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let world = seed();
                replace(path, &world.to_json())?;
                world
            }
            Err(source) => return Err(io(path, "read it", source)),
        };
        Ok(Self { world: Mutex::new(world), file: Some(path.to_owned()) })
    }

    /// Runs a program, as [`World::run`].
    pub fn run(
        &self,
        program: &str,
        args: &[String],
        env: &BTreeMap<String, String>,
    ) -> Result<Output, SharedWorldError> {
        self.with_world(|world| world.run(program, args, env))
    }

    /// Looks at or changes the world.
    pub fn with_world<R>(&self, act: impl FnOnce(&mut World) -> R) -> Result<R, SharedWorldError> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.file else { return Ok(act(&mut world)) };
        let _lock = lock(path)?;
        let before = std::fs::read_to_string(path).map_err(|source| io(path, "read it", source))?;
        *world = parse(path, &before)?;
        let result = act(&mut world);
        let after = world.to_json();
        if after != before {
            replace(path, &after)?;
        }
        Ok(result)
    }
}

fn io(path: &Path, doing: &'static str, source: std::io::Error) -> SharedWorldError {
    SharedWorldError::Io { path: path.to_owned(), doing, source }
}

fn parse(path: &Path, text: &str) -> Result<World, SharedWorldError> {
    World::from_json(text).map_err(|source| SharedWorldError::World { path: path.to_owned(), source })
}

/// Held until dropped.
fn lock(path: &Path) -> Result<File, SharedWorldError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path.with_extension("lock"))
        .map_err(|source| io(path, "open its lock", source))?;
    file.lock().map_err(|source| io(path, "lock it", source))?;
    Ok(file)
}

fn replace(path: &Path, text: &str) -> Result<(), SharedWorldError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|source| io(path, "replace it", source))
}
