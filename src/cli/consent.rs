//! A word of consent before accounts of other people change.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;

use crate::agent::error::AgentError;
use crate::cli::render;

/// Whether the operator agrees.
#[derive(Debug, Clone, Args)]
pub struct Consent {
    /// Do it without asking.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Consent {
    /// Whether somebody has to be asked.
    ///
    /// # Errors
    /// When nobody can be: no terminal, no --yes.
    pub fn is_open(&self) -> Result<bool, AgentError> {
        if self.yes {
            return Ok(false);
        }
        if std::io::stdin().is_terminal() {
            return Ok(true);
        }
        Err(AgentError::Asked(
            "this changes what accounts may do, and there is no terminal to ask on: nothing was done; say --yes if it is meant"
                .into(),
        ))
    }

    /// Shows what will happen and asks, where somebody has to be asked. Question and text go to standard error, so that
    /// standard output holds the answer alone.
    ///
    /// # Errors
    /// Without consent.
    pub fn ask(&self, what: &str) -> Result<(), AgentError> {
        if !self.is_open()? {
            return Ok(());
        }
        let refused = || AgentError::Asked("not confirmed: nothing was done".into());
        let mut screen = std::io::stderr().lock();
        let shown: Vec<String> = what.lines().map(render::printable).collect();
        write!(screen, "{}\n\nDo it? [y/N] ", shown.join("\n"))
            .and_then(|()| screen.flush())
            .map_err(|_| refused())?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|_| refused())?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(refused()),
        }
    }
}
