//! One emulated cluster for many callers: threads of one process, or processes that share a file.

use super::file::WorldFileError;
use super::terminal::Output;
use super::world::World;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Why an emulated cluster in a file could not be used.
#[derive(Debug, Error)]
pub enum SharedWorldError {
    /// The file, or the lock beside it, could not be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds no world.
    #[error("read the emulated Slurm in {}", path.display())]
    World {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WorldFileError,
    },
}

/// One world shared by threads and, when it has a file, by separate processes.
///
/// Each run sees what all runs before it did: runs exclude each other (a lock file beside the world's file), and a changed
/// world replaces its file in one step.
#[derive(Debug)]
pub struct EmulatedSlurm {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Mutex<World>),
    File { path: PathBuf, last_seen: Mutex<Option<Seen>> },
}

/// A world and the text of the file that it was read from or written to.
#[derive(Debug)]
struct Seen {
    text: String,
    world: World,
}

impl EmulatedSlurm {
    /// A world for the threads of this process.
    pub fn in_memory(world: World) -> EmulatedSlurm {
        EmulatedSlurm { place: Place::Memory(Mutex::new(world)) }
    }

    /// The world in a file; `seed` makes the first one when there is no file yet.
    pub fn in_file(
        path: impl Into<PathBuf>,
        seed: impl FnOnce() -> World,
    ) -> Result<EmulatedSlurm, SharedWorldError> {
        let path = path.into();
        let lock = lock(&path)?;
        if !path.exists() {
            replace(&path, &seed().to_json())?;
        }
        drop(lock);
        Ok(EmulatedSlurm { place: Place::File { path, last_seen: Mutex::new(None) } })
    }

    /// Runs an emulated program, as [`World::run`].
    pub fn run(
        &self,
        program: &str,
        args: &[String],
        env: &BTreeMap<String, String>,
    ) -> Result<Output, SharedWorldError> {
        self.with_world(|world| world.run(program, args, env))
    }

    /// Looks at the world or changes it, while nobody else does.
    pub fn with_world<R>(&self, action: impl FnOnce(&mut World) -> R) -> Result<R, SharedWorldError> {
        match &self.place {
            Place::Memory(world) => Ok(action(&mut held(world))),
            Place::File { path, last_seen } => {
                let mut last_seen = held(last_seen);
                let lock = lock(path)?;
                let mut seen = read(path, last_seen.take())?;
                let before = seen.world.clone();
                let answer = action(&mut seen.world);
                if seen.world != before {
                    seen.text = seen.world.to_json();
                    replace(path, &seen.text)?;
                }
                drop(lock);
                *last_seen = Some(seen);
                Ok(answer)
            }
        }
    }
}

/// The guarded value. A panic elsewhere leaves nothing half done that matters here: worlds in files are read anew.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The lock of a world's file, until the value is dropped.
fn lock(path: &Path) -> Result<File, SharedWorldError> {
    let path = beside(path, ".lock");
    let failed = |source| SharedWorldError::File { what: "lock", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// The world in the file; it is taken apart only when the text is not the last one seen.
fn read(path: &Path, last_seen: Option<Seen>) -> Result<Seen, SharedWorldError> {
    let text = fs::read_to_string(path).map_err(|source| SharedWorldError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    match last_seen {
        Some(seen) if seen.text == text => Ok(seen),
        _ => {
            let world = World::from_json(&text)
                .map_err(|source| SharedWorldError::World { path: path.to_owned(), source })?;
            Ok(Seen { text, world })
        }
    }
}

/// Puts a new text in the place of the file in one step.
fn replace(path: &Path, text: &str) -> Result<(), SharedWorldError> {
    let new = beside(path, ".new");
    fs::write(&new, text).map_err(|source| SharedWorldError::File {
        what: "write",
        path: new.clone(),
        source,
    })?;
    fs::rename(&new, path).map_err(|source| SharedWorldError::File {
        what: "replace",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::slurm::Clock;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn seed() -> World {
        let mut world = World::new("lab");
        world.clock = Clock::Fixed(1_795_323_600);
        world
    }

    fn accounts(slurm: &EmulatedSlurm) -> String {
        let args = words("-nP show account format=account");
        let output = slurm.run("sacctmgr", &args, &BTreeMap::new()).expect("runs");
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn two_users_of_one_file_see_each_others_changes() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("slurm.json");
        let first = EmulatedSlurm::in_file(&path, seed).expect("made");
        let second = EmulatedSlurm::in_file(&path, || panic!("there is a file")).expect("found");
        assert_eq!(accounts(&second), "root\n");
        first.run("sacctmgr", &words("-i add account a"), &BTreeMap::new()).expect("runs");
        assert_eq!(accounts(&second), "a\nroot\n");
        second.with_world(|world| world.add_account("b", "a")).expect("changed");
        assert_eq!(accounts(&first), "a\nb\nroot\n");
    }

    #[test]
    fn a_run_that_changes_nothing_leaves_the_file_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("slurm.json");
        let slurm = EmulatedSlurm::in_file(&path, seed).expect("made");
        let id = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("there"));
        let before = id(&path);
        // What a replacement would be written to cannot be written to.
        fs::create_dir(beside(&path, ".new")).expect("made");
        assert_eq!(accounts(&slurm), "root\n");
        assert_eq!(id(&path), before);
        let changing = slurm.run("sacctmgr", &words("-i add account a"), &BTreeMap::new());
        assert!(changing.is_err(), "a change that cannot be kept is not passed over");
    }

    #[test]
    fn threads_lose_no_change() {
        let folder = tempfile::tempdir().expect("folder");
        let slurm = EmulatedSlurm::in_file(folder.path().join("slurm.json"), seed).expect("made");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let slurm = &slurm;
                scope.spawn(move || {
                    for round in 0..5 {
                        let args = words(&format!("-i add account t{thread}r{round}"));
                        slurm.run("sacctmgr", &args, &BTreeMap::new()).expect("runs");
                    }
                });
            }
        });
        assert_eq!(accounts(&slurm).lines().count(), 21);
    }

    #[test]
    fn a_file_that_holds_no_world_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("slurm.json");
        fs::write(&path, "{\"cluster\": \"lab\", \"acounts\": []}").expect("written");
        let slurm = EmulatedSlurm::in_file(&path, seed).expect("there is a file");
        let refused = slurm.with_world(|world| world.now()).expect_err("no world");
        assert!(refused.to_string().contains("slurm.json"), "{refused}");
        let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        let root = std::error::Error::source(std::error::Error::source(&refused).expect("cause"));
        let root = root.map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("acounts") || root.contains("acounts"), "{cause} / {root}");
    }
}
