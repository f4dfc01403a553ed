//! The directory the store lies in: its modes, its owner, and whether its file system can be trusted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Mode of the store's files: budgets and usage of other people.
pub(super) const FILE_MODE: u32 = 0o600;
/// Mode of a directory that the agent makes itself.
pub(super) const DIRECTORY_MODE: u32 = 0o700;

/// Magic numbers of file systems that other hosts can change (linux/magic.h, and the file systems' own headers).
/// SQLite's write-ahead log needs memory that all its users share, and flock that all of them see.
const NETWORK_FILE_SYSTEMS: [(i64, &str); 12] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "CephFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7461_636f, "OCFS2"),
];

/// The name of a network file system by its magic number.
pub(super) fn network_file_system(magic: i64) -> Option<&'static str> {
    // Some architectures hand the number out sign-extended.
    let magic = magic & 0xffff_ffff;
    NETWORK_FILE_SYSTEMS.into_iter().find(|(number, _)| *number == magic).map(|(_, name)| name)
}

/// The directory of a path; `.` for a bare file name.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes the directory and an empty store file where they are missing, and refuses network file systems.
pub(super) fn prepare(path: &Path) -> Result<(), StoreError> {
    let directory = directory_of(path);
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Place { doing, path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(&directory)
        .map_err(failed("making the directory", &directory))?;
    refuse_network(&directory)
}

/// Refuses a directory on a network file system.
pub(super) fn refuse_network(directory: &Path) -> Result<(), StoreError> {
    let found = nix::sys::statfs::statfs(directory).map_err(|errno| StoreError::Place {
        doing: "looking at the file system of",
        path: directory.to_owned(),
        source: errno.into(),
    })?;
    match network_file_system(found.filesystem_type().0) {
        Some(file_system) => Err(StoreError::NetworkFileSystem { path: directory.to_owned(), file_system }),
        None => Ok(()),
    }
}

/// Device and inode of the file at `path`; none where there is no file.
pub(super) fn file_at(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Makes the store's file where there is none, readable by its owner alone. Called with the lock held.
pub(super) fn make_file(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Place { doing: "making", path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => {
            give_to_directory_owner(path).map_err(failed)?;
            File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A file that root makes in the service user's directory belongs to that user: else one `--evaluate-now` by
/// root would lock the daemon out.
pub(super) fn give_to_directory_owner(path: &Path) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let directory = directory_of(path).metadata()?;
    std::os::unix::fs::chown(path, Some(directory.uid()), Some(directory.gid()))
}
