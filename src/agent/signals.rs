//! TERM and INT drain (a second one ends the process at once), HUP reads the configuration again, USR1 evaluates now.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_tokio::Signals;

/// Exit code of a second TERM or INT: the shell's for a process that TERM ended.
const ABORTED: i32 = 143;

/// What an operator asks by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Finish what is under way and stop.
    Drain,
    /// Read the configuration again.
    Reload,
    /// A cycle now.
    Evaluate,
}

/// Has the first TERM or INT raise the flag and the second one end the process.
pub fn stop_flag(flag: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag down and raises it, the second finds it up.
        signal_hook::flag::register_conditional_shutdown(signal, ABORTED, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Signals as they come in.
pub struct Listener {
    signals: Signals,
}

impl Listener {
    /// Takes the signals over. The second TERM or INT ends the process from inside the handler, whatever the runtime
    /// is doing.
    pub fn new() -> io::Result<Listener> {
        stop_flag(&Arc::new(AtomicBool::new(false)))?;
        Ok(Listener { signals: Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])? })
    }

    /// The next one; pending for ever when the stream has ended.
    pub async fn next(&mut self) -> Asked {
        match self.signals.next().await {
            Some(SIGHUP) => Asked::Reload,
            Some(SIGUSR1) => Asked::Evaluate,
            Some(_) => Asked::Drain,
            None => std::future::pending().await,
        }
    }
}
