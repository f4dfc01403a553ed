//! One writer at a time: an flock on a file beside the store, which says who holds it.
//!
//! The file stays when the lock is given back; only the lock on it means anything. Children do not inherit it
//! (the descriptor is closed on exec).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::StoreError;
use super::place;
use crate::core::time::Epoch;

/// Who holds the store, as far as its lock file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id, in the holder's own namespace.
    pub pid: Option<u32>,
    /// Name of its executable.
    pub program: String,
    /// Since when: the lock file's time of change.
    pub since: Option<Epoch>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.since) {
            (Some(pid), Some(since)) => write!(f, "{} (pid {pid}) since {since}", self.program),
            (Some(pid), None) => write!(f, "{} (pid {pid})", self.program),
            (None, _) => f.write_str("a process that has not yet written its name"),
        }
    }
}

/// The right to write. Given back when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct WriterLock {
    _held: Flock<File>,
}

/// `PATH.lock`
pub(super) fn lock_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

impl WriterLock {
    /// Takes the lock of `store` without waiting, or says who has it.
    pub(super) fn acquire(store: &Path) -> Result<WriterLock, StoreError> {
        let path = lock_path(store);
        let failed = |source| StoreError::Place { doing: "locking", path: path.clone(), source };
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(place::FILE_MODE)
            .open(&path)
            .map_err(failed)?;
        if is_new {
            place::give_to_directory_owner(&path).map_err(failed)?;
        }
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                return Err(StoreError::Held { path: store.to_owned(), holder: read_holder(&mut file) });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        write_holder(&mut held).map_err(failed)?;
        Ok(WriterLock { _held: held })
    }
}

/// Who holds the lock of `store`. Asks the kernel's list instead of trying the lock, so that a daemon which starts at
/// this very moment still gets it.
pub(super) fn holder(store: &Path) -> Option<Holder> {
    let mut file = File::open(lock_path(store)).ok()?;
    let inode = file.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().any(|line| is_flock_of(line, inode)).then(|| read_holder(&mut file))
}

/// Whether a line such as `1: FLOCK  ADVISORY  WRITE 4017 fe:01:1056 0 EOF` is an flock on that inode. The device is left
/// out: btrfs shows another one there than stat does.
fn is_flock_of(line: &str, inode: u64) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (kind, mode) = (words.next(), words.nth(1));
    let place = words.nth(1).and_then(|place| place.rsplit(':').next());
    kind == Some("FLOCK") && mode == Some("WRITE") && place == Some(inode.to_string().as_str())
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let program = std::env::current_exe().ok();
    let program =
        program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let text = format!("{} {}\n", std::process::id(), program.as_deref().unwrap_or("unknown"));
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.take(4096).read_to_string(&mut text);
    let (pid, program) = text.trim().split_once(' ').unwrap_or_default();
    let changed = file.metadata().and_then(|meta| meta.modified()).ok();
    let since = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Holder {
        pid: read.ok().and_then(|_| pid.parse().ok()),
        program: program.to_owned(),
        since: since.and_then(|age| i64::try_from(age.as_secs()).ok()).map(Epoch),
    }
}
