//! The configuration: TOML as written becomes a checked [`Config`], or a list of everything that is wrong with it.
//!
//! Unknown keys, wrong types, wrong values and contradictions are reported together, each with file, line, key, value,
//! reason and what is allowed. Every default is a named constant beside its section; `config/site-agent.toml` lists
//! all keys. Nothing here asks Slurm or a server anything, and no secret is ever part of a [`Config`]: only the place
//! where it lies ([`SecretSource`]), which is read by whoever needs it, when it is needed.

mod accounts;
mod allocation;
mod amie;
mod cluster;
mod components;
mod document;
mod duration;
mod limits;
mod print;
mod problem;
mod qos;
mod schedule;
mod secret;
mod settings;
mod source;
mod source_kind;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;
use url::Url;

pub use accounts::Accounts;
pub use allocation::LocalAllocation;
pub use amie::{Amie, ReportSource, StorageReport};
pub use cluster::Cluster;
pub use components::default_components;
pub use duration::duration_text;
pub use limits::Limits;
pub use problem::{ConfigErrors, Problem};
pub use qos::Qos;
pub use schedule::{Cron, Schedule};
pub use secret::{CREDENTIALS_DIRECTORY, SECRET_BYTES_MAX, SecretError, SecretSource};
pub use settings::{LOG_LEVEL, Log, LogFormat, Reports, StoreSettings};
pub use source::{LOCAL_SOURCE, Source};
pub use source_kind::{Enforcement, NomadSource, PolicySource, SourceKind};

use crate::core::component::Components;
use document::{Document, Section};
use print::Printer;

/// Where the configuration is when nobody says otherwise.
pub const CONFIG_PATH: &str = "/etc/slurm-site-agent/config.toml";
/// Largest configuration in bytes: ten thousand local allocations have 3 MiB.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// The configuration that `--emulator` runs with.
const EMULATOR: &str = include_str!("../../config/emulator.toml");
/// Name of the token file in the emulator's state directory.
pub const EMULATOR_TOKEN_FILE: &str = "central.token";
/// Name of the AMIE key file in the emulator's state directory.
pub const EMULATOR_AMIE_KEY_FILE: &str = "amie.key";

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which Slurm.
    pub cluster: Cluster,
    /// Central servers.
    pub sources: Vec<Source>,
    /// What the portal's components are on this cluster.
    pub components: Components,
    /// The QOS of the levels.
    pub qos: Qos,
    /// Which accounts may be changed.
    pub accounts: Accounts,
    /// How far effects may go.
    pub limits: Limits,
    /// When what is done.
    pub schedule: Schedule,
    /// The durable store.
    pub store: StoreSettings,
    /// The log.
    pub log: Log,
    /// Usage reports.
    pub reports: Reports,
    /// Usage records for AMIE, where the site sends them.
    pub amie: Option<Amie>,
    /// Budgets of a site without a server.
    pub allocations: Vec<LocalAllocation>,
}

/// Reads and checks a file. Secrets are not read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let origin = path.display().to_string();
    match read_file(path) {
        Ok(text) => parse(&text, &origin),
        Err(problem) => Err(ConfigErrors { origin, problems: vec![problem] }),
    }
}

/// Checks a text; `origin` says in messages where it came from.
pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigErrors> {
    let failed = |problems| ConfigErrors { origin: origin.to_owned(), problems };
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    let document = Document::new(text);
    if !syntax_errors.is_empty() {
        for error in &syntax_errors {
            document.syntax_problem(error);
        }
        return Err(failed(document.into_problems()));
    }
    let mut root = document.root(table.get_ref());
    let config = Config::read(&mut root);
    root.finish();
    let problems = document.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(failed(problems)),
    }
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::of_file(
            format!("the configuration cannot be read: {error}"),
            "a readable TOML file; config/site-agent.toml is an example, --config names another file",
        )
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o002 != 0 {
        let reason = format!("mode {:04o}: anybody could change what the agent runs", mode & 0o7777);
        return Err(Problem::of_file(reason, &format!("run: chmod o-w {}", path.display())));
    }
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        let reason = format!("the configuration is longer than {CONFIG_BYTES_MAX} bytes");
        return Err(Problem::of_file(reason, "a shorter file: is it the right one?"));
    }
    Ok(text)
}

impl Config {
    fn read(root: &mut Section<'_>) -> Option<Config> {
        let cluster = root.section("cluster", Cluster::read);
        let components = components::read(root);
        let qos = root.section("qos", Qos::read);
        let accounts = root.section("accounts", Accounts::read);
        let limits = root.section("limits", Limits::read);
        let sources = Source::read_all(root, limits.as_ref().map(|limits| limits.facts_age_max));
        let schedule = root.section("schedule", Schedule::read);
        let store = root.section("store", StoreSettings::read);
        let log = root.section("log", Log::read);
        let reports = root.section("reports", Reports::read);
        let amie = root.optional("amie", |item| item.section(Amie::read));
        let allocations = LocalAllocation::read_all(root, components.as_ref());
        Some(Config {
            cluster: cluster?,
            sources: sources?,
            components: components?,
            qos: qos?,
            accounts: accounts?,
            limits: limits?,
            schedule: schedule?,
            store: store?,
            log: log?,
            reports: reports?,
            amie: amie?,
            allocations: allocations?,
        })
    }

    /// The whole configuration with every default written out; [`parse`] makes an equal one of it.
    pub fn to_toml(&self) -> String {
        let mut to = Printer::default();
        self.cluster.print(&mut to);
        self.sources.iter().for_each(|source| source.print(&mut to));
        components::print(&self.components, &mut to);
        self.qos.print(&mut to);
        self.accounts.print(&mut to);
        self.limits.print(&mut to);
        self.schedule.print(&mut to);
        self.store.print(&mut to);
        self.log.print(&mut to);
        self.reports.print(&mut to);
        self.amie.iter().for_each(|amie| amie.print(&mut to));
        self.allocations.iter().for_each(|allocation| allocation.print(&mut to));
        to.into_text()
    }

    /// How often a cycle runs: the shortest interval of the sources; without sources, the schedule's own.
    pub fn poll_interval(&self) -> Duration {
        self.sources.iter().map(|source| source.poll_interval).min().unwrap_or(self.schedule.poll)
    }

    /// Every secret with the path of the section that names it, for checks.
    pub fn secrets(&self) -> Vec<(String, &SecretSource)> {
        let tokens =
            self.sources.iter().map(|source| (format!("token of source {}", source.name), &source.token));
        let key = self.amie.iter().map(|amie| ("key of amie".to_owned(), &amie.key));
        tokens.chain(key).collect()
    }
}

/// The shipped configuration of `--emulator`: everything durable in `state_dir`; every url at the host and port of
/// `central_url` with the path it has in the file; token and key in the files [`EMULATOR_TOKEN_FILE`] and
/// [`EMULATOR_AMIE_KEY_FILE`] of `state_dir`.
pub fn emulator_defaults(state_dir: &Path, central_url: &str) -> Result<Config, ConfigErrors> {
    let mut config = parse(EMULATOR, "config/emulator.toml")?;
    let server = Url::parse(central_url).map_err(|error| ConfigErrors {
        origin: "emulated server".to_owned(),
        problems: vec![Problem::of_file(format!("{central_url}: {error}"), "http://127.0.0.1:PORT/")],
    })?;
    let move_to_server = |url: &mut Url| {
        let mut moved = server.clone();
        moved.set_path(url.path());
        *url = moved;
    };
    config.store.path = state_dir.join("state.db");
    for source in &mut config.sources {
        move_to_server(&mut source.url);
        source.token = SecretSource::File(state_dir.join(EMULATOR_TOKEN_FILE));
    }
    if let Some(amie) = &mut config.amie {
        move_to_server(&mut amie.url);
        amie.key = SecretSource::File(state_dir.join(EMULATOR_AMIE_KEY_FILE));
    }
    Ok(config)
}
