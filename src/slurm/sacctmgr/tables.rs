//! The smaller questions to sacctmgr: clusters, TRES, the AdminLevel of a user, slurmdbd's configuration, versions, and
//! the roll-up of hours.

use std::fmt;

use super::SEPARATOR;
use crate::core::name::UserName;
use crate::core::time::Window;
use crate::core::tres::Tres;
use crate::slurm::argv::{Argv, Program};
use crate::slurm::rows::{self, Rejects};
use crate::slurm::scontrol::Settings;

/// A cluster known to slurmdbd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCluster {
    /// Name as printed.
    pub name: String,
    /// Where its slurmctld last registered from; empty when it never did.
    pub control_host: String,
    /// The port it listens on; 0 while it is not registered.
    pub control_port: u64,
}

/// What a user may do in accounting. root and SlurmUser may do everything whatever is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminLevel {
    /// Nothing beyond what coordinators may.
    None,
    /// Accounts, limits, QOS lists.
    Operator,
    /// Also QOS themselves and resets of raw usage.
    Administrator,
}

impl fmt::Display for AdminLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AdminLevel::None => "None",
            AdminLevel::Operator => "Operator",
            AdminLevel::Administrator => "Administrator",
        })
    }
}

/// The question for all clusters of slurmdbd.
pub(in crate::slurm) fn clusters_argv() -> Argv {
    super::show(&["cluster"], "cluster,controlhost,controlport")
}

/// Reads the answer.
pub fn parse_clusters(answer: &[u8]) -> Vec<KnownCluster> {
    let of_row = |row| {
        let [name, host, port] = rows::fields(row, SEPARATOR)?;
        let control_port = rows::number(port)?;
        Some(KnownCluster { name: rows::text(name), control_host: rows::text(host), control_port })
    };
    rows::complete_rows(answer, &mut Rejects::default()).filter_map(of_row).collect()
}

/// The question for all TRES.
pub(in crate::slurm) fn tres_argv() -> Argv {
    super::show(&["tres"], "type,name,id")
}

/// Reads the answer: `gres|gpu|1001` is `gres/gpu`.
pub fn parse_tres(answer: &[u8]) -> Vec<Tres> {
    let of_row = |row| {
        let [kind, name, _id] = rows::fields(row, SEPARATOR)?;
        let (kind, name) = (rows::text(kind), rows::text(name));
        Tres::parse(&if name.is_empty() { kind } else { format!("{kind}/{name}") }).ok()
    };
    rows::complete_rows(answer, &mut Rejects::default()).filter_map(of_row).collect()
}

/// The question for the AdminLevel of one user.
pub(in crate::slurm) fn admin_level_argv(user: &UserName) -> Argv {
    super::show(&["user", "where", &format!("name={user}")], "user,adminlevel")
}

/// Reads the answer. The outer `None`: not understood; the inner one: slurmdbd does not know the user.
pub fn parse_admin_level(answer: &[u8], user: &UserName) -> Option<Option<AdminLevel>> {
    let mut rejects = Rejects::default();
    let found: Vec<&[u8]> = rows::complete_rows(answer, &mut rejects).collect();
    match found[..] {
        [] if rejects.count == 0 => Some(None),
        [row] if rejects.count == 0 => {
            let [name, level] = rows::fields(row, SEPARATOR)?;
            let level = match level {
                b"None" => AdminLevel::None,
                b"Operator" => AdminLevel::Operator,
                b"Administrator" => AdminLevel::Administrator,
                _ => return None,
            };
            (name == user.as_str().as_bytes()).then_some(Some(level))
        }
        _ => None,
    }
}

/// The question for the configuration of the client and of slurmdbd.
pub(in crate::slurm) fn configuration_argv() -> Argv {
    Argv::reading(Program::Sacctmgr, ["-nP", "show", "config"])
}

/// Reads slurmdbd's part of the answer; empty when slurmdbd did not answer (the program's status is 0 then as well).
pub fn parse_database_configuration(answer: &[u8]) -> Settings {
    let text = rows::text(answer);
    text.split_once("SlurmDBD configuration:").map(|(_, part)| Settings::parse(part)).unwrap_or_default()
}

/// The question for the version of the programs.
pub(in crate::slurm) fn version_argv() -> Argv {
    Argv::reading(Program::Sacctmgr, ["--version"])
}

/// Reads `slurm 26.05.3` or Debian's `slurm-wlm 22.05.8`.
pub fn parse_version(answer: &[u8]) -> Option<String> {
    let text = rows::text(answer);
    let (program, version) = text.trim_end().split_once(' ')?;
    let fits = program.starts_with("slurm") && version.starts_with(|c: char| c.is_ascii_digit());
    fits.then(|| version.to_owned())
}

/// The undocumented verb that rolls up the hours of a window. It stands beside `shutdown`, which stops slurmdbd.
pub(in crate::slurm) fn roll_up_argv(window: Window) -> Argv {
    let edges = [format!("uts{}", window.from.0), format!("uts{}", window.until.0)];
    Argv::changing(Program::Sacctmgr, ["-i", "rollup", &edges[0], &edges[1]])
}
