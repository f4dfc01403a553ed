//! A plan that tightens too much waits, and so do totals that would shrink; an operator's word is a file beside the store
//! that names this very plan, or these very totals.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::core::plan::PlannedChange;

/// A short name of a list of changes: another list has another one (FNV-1a of its JSON).
pub fn fingerprint(changes: &[PlannedChange]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for planned in changes {
        for byte in format!("{:?}", planned.change).bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

fn word(store: &Path) -> PathBuf {
    store.with_extension("confirmed")
}

/// Whether an operator has allowed the plan of that name.
pub fn is_confirmed(store: &Path, fingerprint: &str) -> bool {
    std::fs::read_to_string(word(store)).is_ok_and(|text| text.trim() == fingerprint)
}

/// Writes the operator's word.
pub fn confirm(store: &Path, fingerprint: &str) -> std::io::Result<()> {
    write_word(store, &word(store), &format!("{fingerprint}\n"))
}

/// Writes a word for the agent to read: the file has the owner of the store, since an operator is root and the agent is not.
pub(super) fn write_word(store: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let (owner, ours) = (std::fs::metadata(store)?, file.metadata()?);
    if (owner.uid(), owner.gid()) != (ours.uid(), ours.gid()) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Takes the word back once it has been used.
pub fn used(store: &Path) {
    if let Err(error) = std::fs::remove_file(word(store)) {
        tracing::warn!(%error, "a used confirmation could not be removed");
    }
}
