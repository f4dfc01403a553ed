//! Where a secret lies, and the only place that reads one.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Uid, geteuid};
use secrecy::SecretString;

use super::document::{Item, Section};

/// Largest secret in bytes: tokens have tens of bytes, keys hundreds; more is the wrong file.
pub const SECRET_BYTES_MAX: u64 = 4096;

/// The variable by which systemd names the directory of a unit's credentials.
pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a secret lies. The secret itself is never part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only the agent's user (or root) can read.
    File(PathBuf),
    /// A credential that systemd passes to the unit (`LoadCredential=NAME:...`).
    Credential(String),
}

/// Why a secret could not be read. No variant carries any part of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened.
    #[error("the secret {path} cannot be opened; check that it exists and that user {user} may read it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Effective user id.
        user: Uid,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A symbolic link: who may change the link could point it at another file.
    #[error("the secret {0} is a symbolic link; name the file itself")]
    SymbolicLink(PathBuf),
    /// A directory, pipe or device.
    #[error("the secret {0} is not a regular file")]
    NotAFile(PathBuf),
    /// Others could read or change it.
    #[error(
        "the secret {path} has mode {mode:04o}: {who} could read or change it; \
         run: chmod 600 {path} (and issue a new secret if others were on this host)"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Who has access.
        who: &'static str,
    },
    /// It belongs to someone else, who could change it.
    #[error("the secret {path} belongs to user {owner}; run: chown {user} {path}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: Uid,
        /// Who should own it (or root).
        user: Uid,
    },
    /// It cannot be read to the end.
    #[error("the secret {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is empty.
    #[error("the secret {0} is empty")]
    Empty(PathBuf),
    /// It is too long.
    #[error("the secret {0} is longer than {SECRET_BYTES_MAX} bytes: is it the right file?")]
    TooLong(PathBuf),
    /// It cannot be sent in an HTTP header.
    #[error("the secret {0} contains something other than visible ASCII characters: is it the right file?")]
    NotVisibleAscii(PathBuf),
    /// There is no directory of credentials.
    #[error(
        "the credential {0:?} is only there when systemd starts the agent (CREDENTIALS_DIRECTORY is not set); \
         start the unit, or try with: systemd-run -p LoadCredential={0}:FILE"
    )]
    NoCredentials(String),
}

impl SecretSource {
    /// Reads the secret; a newline at its end is taken off.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        self.read_as(geteuid(), std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from).as_deref())
    }

    /// Reads the secret for a user and a directory of credentials.
    pub(super) fn read_as(&self, user: Uid, credentials: Option<&Path>) -> Result<SecretString, SecretError> {
        match self {
            SecretSource::File(path) => {
                let file = open_regular(path)?;
                check_access(path, file.as_fd(), user, 0o077, "group or others")?;
                read_secret(path, file)
            }
            SecretSource::Credential(name) => {
                let path = credentials.ok_or_else(|| SecretError::NoCredentials(name.clone()))?.join(name);
                let file = open_regular(&path)?;
                // systemd lets the unit's user in by an access control list, whose mask shows as the group's
                // bits (mode 0440); the directory is private to the unit.
                check_access(&path, file.as_fd(), user, 0o007, "others")?;
                read_secret(&path, file)
            }
        }
    }

    /// Reads `{name}_file` or `{name}_credential`: exactly one of them.
    pub(super) fn from_section(
        section: &mut Section<'_>,
        file_key: &'static str,
        credential_key: &'static str,
    ) -> Option<SecretSource> {
        // The values are not shown: somebody may have put the secret itself there.
        let file = section.optional(file_key, |item| item.hidden().absolute_path())?;
        let credential = section.optional(credential_key, |item| credential_name(&item.hidden()))?;
        let allowed = format!("exactly one of {file_key} and {credential_key}");
        match (file, credential) {
            (Some(path), None) => Some(SecretSource::File(path)),
            (None, Some(name)) => Some(SecretSource::Credential(name)),
            (Some(_), Some(_)) => section.wrong("the secret is named twice", allowed),
            (None, None) => section.wrong("the secret is missing", allowed),
        }
    }
}

fn credential_name(item: &Item<'_>) -> Option<String> {
    let name = item.text()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.starts_with('.') || name.len() > 255 || !name.bytes().all(fits) {
        return item.wrong("this cannot be the name of a systemd credential", "letters, digits and _ . -");
    }
    Some(name.to_owned())
}

/// Opens without following a link and without waiting for the other end of a pipe.
fn open_regular(path: &Path) -> Result<OwnedFd, SecretError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ELOOP => SecretError::SymbolicLink(path.to_owned()),
        errno => SecretError::Open { path: path.to_owned(), user: geteuid(), source: errno.into() },
    })
}

/// Asks the opened file, not its name, so that nothing can be exchanged in between.
fn check_access(
    path: &Path,
    file: impl AsFd,
    user: Uid,
    forbidden: u32,
    who: &'static str,
) -> Result<(), SecretError> {
    let found =
        fstat(file).map_err(|errno| SecretError::Read { path: path.to_owned(), source: errno.into() })?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    let mode = found.st_mode & 0o7777;
    if mode & forbidden != 0 {
        return Err(SecretError::Mode { path: path.to_owned(), mode, who });
    }
    let owner = Uid::from_raw(found.st_uid);
    if owner != user && !owner.is_root() {
        return Err(SecretError::Owner { path: path.to_owned(), owner, user });
    }
    Ok(())
}

fn read_secret(path: &Path, file: OwnedFd) -> Result<SecretString, SecretError> {
    let mut text = String::new();
    File::from(file).take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|source| {
        match source.kind() {
            std::io::ErrorKind::InvalidData => SecretError::NotVisibleAscii(path.to_owned()),
            _ => SecretError::Read { path: path.to_owned(), source },
        }
    })?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    if text.is_empty() {
        return Err(SecretError::Empty(path.to_owned()));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(SecretError::NotVisibleAscii(path.to_owned()));
    }
    Ok(SecretString::from(text))
}
