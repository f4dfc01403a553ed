//! sacctmgr: associations, changes, QOS, and the smaller tables.
//!
//! sacctmgr has no separator option: rows are cut at `|`, which account names can hold as well. Such rows have
//! too many fields and are rejected. Every table is asked for with an explicit format and without a header, since headers
//! differ between releases.

pub mod assoc;
pub mod modify;
pub mod qos;
pub mod tables;

use super::argv::{Argv, Program};

/// sacctmgr's only separator.
const SEPARATOR: u8 = b'|';

/// `sacctmgr -nP show WHAT ... format=FIELDS`
fn show(what: &[&str], fields: &str) -> Argv {
    let format = format!("format={fields}");
    let args = ["-nP", "show"].into_iter().chain(what.iter().copied()).chain([format.as_str()]);
    Argv::reading(Program::Sacctmgr, args)
}
