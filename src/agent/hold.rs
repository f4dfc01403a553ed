//! A plan that tightens too much waits; an operator's word is a file beside the store that names this very plan.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(word(store))?;
    writeln!(file, "{fingerprint}")?;
    file.sync_all()
}

/// Takes the word back once it has been used.
pub fn used(store: &Path) {
    if let Err(error) = std::fs::remove_file(word(store)) {
        tracing::warn!(%error, "a used confirmation could not be removed");
    }
}
