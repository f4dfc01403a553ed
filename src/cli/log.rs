//! Where the log goes: standard error, for people or as JSON.

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::render;
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
    let coloured = log.format == LogFormat::Human && std::io::stderr().is_terminal();
    let format = log.format;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || Escaping { format, coloured });
    let started = match log.format {
        LogFormat::Human => builder.with_target(false).with_ansi(coloured).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before; it stays");
    }
}

/// Standard error, on which one event is one line of harmless text whatever servers and Slurm have put into it.
struct Escaping {
    format: LogFormat,
    coloured: bool,
}

impl Write for Escaping {
    /// One event is one call.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Json => render::json_printable(line),
            // The subscriber has escaped what is not its own colour.
            LogFormat::Human if self.coloured => {
                line.split('\u{1b}').map(render::printable).collect::<Vec<_>>().join("\u{1b}")
            }
            LogFormat::Human => render::printable(line),
        };
        std::io::stderr().lock().write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
