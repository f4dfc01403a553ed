//! What an emulated program writes.

/// What an emulated program left behind: both streams and its exit status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Standard error, byte for byte.
    pub stderr: Vec<u8>,
    /// Exit status, or [`Output::HANGS`].
    pub status: i32,
}

impl Output {
    /// The status of a program that never ends by itself: the caller lets it run into its time limit.
    pub const HANGS: i32 = i32::MIN;

    /// True when the program never ends by itself.
    pub fn hangs(&self) -> bool {
        self.status == Output::HANGS
    }
}

/// Both streams while a program runs.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Terminal {
    /// Writes to standard output.
    pub(super) fn print(&mut self, text: &str) {
        self.stdout.extend_from_slice(text.as_bytes());
    }

    /// Writes bytes to standard output.
    pub(super) fn print_bytes(&mut self, bytes: &[u8]) {
        self.stdout.extend_from_slice(bytes);
    }

    /// Writes to standard error.
    pub(super) fn complain(&mut self, text: &str) {
        self.stderr.extend_from_slice(text.as_bytes());
    }

    /// The end of the program.
    pub(super) fn exit(self, status: i32) -> Output {
        Output { stdout: self.stdout, stderr: self.stderr, status }
    }
}
