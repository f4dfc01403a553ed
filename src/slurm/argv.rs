//! What is run: a Slurm program and its arguments, as a value.
//!
//! Only this room can make an [`Argv`], so every argument vector that reaches Slurm is built beside the parser
//! of its answer, from checked names. Nothing here runs anything.

use std::fmt;

/// The Slurm programs the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Job records.
    Sacct,
    /// Associations, QOS, limits.
    Sacctmgr,
    /// Rolled-up usage.
    Sreport,
    /// Raw usage in slurmctld.
    Sshare,
    /// Configuration, partitions, ping.
    Scontrol,
}

impl Program {
    /// Every program, for checks of an installation.
    pub const ALL: [Program; 5] =
        [Program::Sacct, Program::Sacctmgr, Program::Sreport, Program::Sshare, Program::Scontrol];

    /// The file name of its executable.
    pub fn name(self) -> &'static str {
        match self {
            Program::Sacct => "sacct",
            Program::Sacctmgr => "sacctmgr",
            Program::Sreport => "sreport",
            Program::Sshare => "sshare",
            Program::Scontrol => "scontrol",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A program and its arguments. `Display` prints it as a person would type it into a shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Argv {
    program: Program,
    args: Vec<String>,
    read_only: bool,
}

impl Argv {
    /// One that changes nothing.
    pub(super) fn reading<S: Into<String>>(program: Program, args: impl IntoIterator<Item = S>) -> Argv {
        Argv { program, args: args.into_iter().map(Into::into).collect(), read_only: true }
    }

    /// One that changes something in Slurm.
    pub(super) fn changing<S: Into<String>>(program: Program, args: impl IntoIterator<Item = S>) -> Argv {
        Argv { program, args: args.into_iter().map(Into::into).collect(), read_only: false }
    }

    /// Which program.
    pub fn program(&self) -> Program {
        self.program
    }

    /// Its arguments, without the program's name.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Whether running it leaves Slurm as it is.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program.name())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", shell_quoted(arg)))
    }
}

/// `arg` so that bash and zsh read it back: plain where it can be, `'...'` where it must be, `$'...'` where it
/// holds control characters.
fn shell_quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    if !arg.chars().any(char::is_control) {
        return format!("'{}'", arg.replace('\'', r"'\''"));
    }
    let escaped: String = arg
        .chars()
        .map(|c| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_control() && (c as u32) < 0x80 => format!("\\x{:02x}", c as u32),
            c if c.is_control() => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        })
        .collect();
    format!("$'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argv_prints_as_a_person_would_type_it() {
        let check = |arg: &str, typed: &str| {
            assert_eq!(Argv::reading(Program::Sacct, [arg]).to_string(), format!("sacct {typed}"));
        };
        check("-M", "-M");
        check("GrpTRESMins=billing=5,gres/gpu:a100=-1", "GrpTRESMins=billing=5,gres/gpu:a100=-1");
        check("", "''");
        check("two words", "'two words'");
        check("it's", r"'it'\''s'");
        check("$HOME", "'$HOME'");
        check("--delimiter=\x1f", r"$'--delimiter=\x1f'");
        check("a\n'b\\", r"$'a\x0a\'b\\'");
    }
}
