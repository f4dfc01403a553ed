//! The state in a file: replaced as a whole, on disk before the answer that depends on it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::CentralServerError;
use super::state::CentralState;

/// The state in a file; none when there is no file.
pub(super) fn read(path: &Path) -> Result<Option<CentralState>, CentralServerError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CentralServerError::ReadState { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| CentralServerError::ParseState { path: path.to_owned(), source })
}

/// Replaces the file by one with this state: written beside it, synced, renamed, directory synced.
pub(super) fn write(path: &Path, state: &CentralState) -> Result<(), CentralServerError> {
    replace(path, state).map_err(|source| CentralServerError::WriteState { path: path.to_owned(), source })
}

fn replace(path: &Path, state: &CentralState) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = directory.join(name);
    let mut file = File::create(&beside)?;
    let mut text = serde_json::to_vec_pretty(state)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}
