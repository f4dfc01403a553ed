//! Where the log goes: standard error, for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{self, Log, LogFormat};

/// Starts the log of a verb that prints its own report: only what the report does not say, unless the configuration asks
/// for more than its default.
pub fn start_one_shot(log: &Log) {
    let quiet = log.level == config::LOG_LEVEL;
    start(&Log { format: log.format, level: if quiet { "warn".to_owned() } else { log.level.clone() } });
}

/// Starts the log; a second call changes nothing.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Human => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before; it stays");
    }
}
