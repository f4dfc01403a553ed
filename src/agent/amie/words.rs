//! Operators' words: an adjustment, a record to be sent again, a failed record to be given up. A verb writes a word beside
//! the store, where the running agent (or the verb itself, when none runs) finds it; the ledger carries out each once.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::Agent;
use super::super::error::AgentError;
use crate::core::amie::Record;
use crate::core::time::Epoch;
use crate::store::{AmieMark, AmieRow, AmieState, Store, StoreError, Word};

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// These adjustments.
    Adjust(Vec<Record>),
    /// The newest versions with these ids again, from their first try.
    Resend(Vec<String>),
    /// The failed records with these ids are given up.
    GiveUp(Vec<String>),
}

fn folder(store: &Path) -> PathBuf {
    store.with_extension("words")
}

/// Writes a word; durable when this returns.
pub fn say(store: &Path, id: &str, asked: &Asked) -> Result<(), AgentError> {
    let system = |source| AgentError::System { doing: "writing the word beside the store", source };
    let dir = folder(store);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(system)?;
    let body = serde_json::to_vec(asked).map_err(|error| AgentError::Asked(error.to_string()))?;
    let (unfinished, path) = (dir.join(format!("{id}.new")), dir.join(format!("{id}.json")));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(system)?;
    file.write_all(&body).and_then(|()| file.sync_all()).map_err(system)?;
    fs::rename(unfinished, path).map_err(system)?;
    fs::File::open(&dir).and_then(|dir| dir.sync_all()).map_err(system)
}

/// Carries out the words that wait; how many new versions came of them.
pub fn carry_out(agent: &mut Agent, now: Epoch, findings: &mut Vec<String>) -> Result<usize, AgentError> {
    carry_out_on(&mut agent.store, now, findings)
}

/// As [`carry_out`], for a verb that has the store itself.
pub fn carry_out_on(store: &mut Store, now: Epoch, findings: &mut Vec<String>) -> Result<usize, AgentError> {
    let Ok(entries) = fs::read_dir(folder(store.path())) else { return Ok(0) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    let mut made = 0;
    for path in paths {
        let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let read = fs::read(&path).map_err(|error| error.to_string());
        let word = read.and_then(|body| {
            let asked: Asked = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            Ok((asked, String::from_utf8_lossy(&body).into_owned()))
        });
        let (asked, body) = match word {
            Ok(word) => word,
            Err(why) => {
                findings.push(format!("{} is not understood and was left there: {why}", path.display()));
                continue;
            }
        };
        made += carry_out_one(store, &id, &asked, body, now)?;
        if let Err(error) = fs::remove_file(&path) {
            // It stays without effect: the ledger knows its id.
            findings.push(format!("{} could not be removed: {error}", path.display()));
        }
    }
    Ok(made)
}

fn carry_out_one(
    store: &mut Store,
    id: &str,
    asked: &Asked,
    body: String,
    now: Epoch,
) -> Result<usize, AgentError> {
    let (records, marks): (&[Record], Vec<(i64, AmieMark)>) = match asked {
        Asked::Adjust(records) => (records, Vec::new()),
        Asked::Resend(ids) => {
            let rows = newest(store, ids)?.into_iter().filter(|row| row.state != AmieState::Pending);
            (&[], rows.map(|row| (row.id, AmieMark::Again)).collect())
        }
        Asked::GiveUp(ids) => {
            (&[], newest(store, ids)?.into_iter().map(|row| (row.id, AmieMark::Cleared)).collect())
        }
    };
    let outcome = format!("{} records, {} marks", records.len(), marks.len());
    let word = Word { id: id.to_owned(), at: now, body, outcome };
    let made = store.put_amie_word(&word, records, &marks)?;
    Ok(made.map_or(0, |made| made.new + made.restated))
}

fn newest(store: &Store, ids: &[String]) -> Result<Vec<AmieRow>, StoreError> {
    let mut rows = Vec::new();
    for id in ids {
        rows.extend(store.amie_by_id(id)?);
    }
    Ok(rows)
}
