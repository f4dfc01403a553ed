//! The one door to Slurm, and to the programs that a site names itself: runs a program and brings back its standard
//! output, standard error and exit status.
//!
//! It does not read what the programs say. It uses no shell; the program is an absolute path; the environment is
//! a short fixed list. A program that takes too long or says too much is ended with everything it started, and
//! so is one whose caller has gone away. Nothing here is durable: a change that was under way when the door
//! closed may or may not have reached slurmdbd, and only reading back tells.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::argv::Argv;
use super::error::Class;

/// How long a program may take to end by itself after SIGTERM. Slurm's commands do not catch it, so a second
/// is ample; it delays the report of a time-out by at most this.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// How long to wait for the kernel to end a killed program. One stuck in the kernel (a dead file server) stays
/// longer; it is then left to the thread that reaps it.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Most that is kept of standard error. Slurm's complaints are a few lines; `modify` can name one association a line.
const STDERR_BYTES_MAX: u64 = 1 << 20;

/// Most that is read at once: what a pipe holds.
const PIECE_BYTES: usize = 64 << 10;

/// What a program answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// All of standard output; empty where it was read as it came.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
    /// Exit status. Slurm's own mean little: see [`super::accepted`].
    pub status: i32,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program is not where the configuration says.
    #[error("{path} does not exist; set cluster.bin_dir to the directory that holds Slurm's programs")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The program could not be started.
    #[error(
        "could not start {argv}; check that the file can be executed by this user and that the host has room for a process"
    )]
    Spawn {
        /// What was to be run.
        argv: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Reading its output or waiting for its end failed.
    #[error("lost track of {argv} while it ran")]
    Lost {
        /// What was run.
        argv: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It did not end in time, and was ended with all it had started.
    #[error("{argv} did not end within {}; is slurmctld or slurmdbd slow or down? (cluster.timeout)", humantime::format_duration(*.after))]
    TimedOut {
        /// What was run.
        argv: String,
        /// The limit.
        after: Duration,
    },
    /// It said more than the limit, and was ended.
    #[error(
        "{argv} wrote more than {bytes_max} bytes to {stream}; run it by hand and look at what it writes{}",
        .stream.setting()
    )]
    OutputTooLarge {
        /// What was run.
        argv: String,
        /// Where to.
        stream: Stream,
        /// The limit.
        bytes_max: u64,
    },
    /// A signal ended it.
    #[error(
        "{argv} was ended by signal {signal}; look for a crash or an out-of-memory kill in the system log"
    )]
    Killed {
        /// What was run.
        argv: String,
        /// The signal's number.
        signal: i32,
    },
    /// The run was stopped from our side before there was an answer.
    #[error("{argv} was stopped before it had answered; the next cycle looks again")]
    Stopped {
        /// What was run.
        argv: String,
    },
}

/// Where a program wrote too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, kept as a whole: `output_bytes_max`.
    Output,
    /// One row of standard output that is read as it comes: a fixed limit.
    Row,
    /// Standard error: a fixed limit, and never more than `output_bytes_max`.
    Error,
}

impl Stream {
    /// Which setting lets more pass, where there is one.
    fn setting(self) -> &'static str {
        match self {
            Stream::Output => ", or raise output_bytes_max",
            Stream::Row | Stream::Error => "",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Output => "standard output",
            Stream::Row => "one row of standard output",
            Stream::Error => "standard error",
        })
    }
}

impl RunError {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            RunError::NotFound { .. } | RunError::OutputTooLarge { .. } => Class::Misconfigured,
            RunError::Spawn { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Misconfigured
            }
            RunError::Spawn { .. }
            | RunError::Lost { .. }
            | RunError::TimedOut { .. }
            | RunError::Killed { .. }
            | RunError::Stopped { .. } => Class::Transient,
        }
    }
}

/// An emulated Slurm: program name, arguments, environment -> answer.
pub type EmulatedBody =
    Arc<dyn Fn(&str, &[String], &BTreeMap<String, String>) -> Result<Answer, RunError> + Send + Sync>;

/// The door, with its two bodies.
#[derive(Clone)]
pub enum Runner {
    /// Real programs.
    Processes(Processes),
    /// The emulated ones.
    Emulated(EmulatedBody),
}

/// A program that is not Slurm's but the site's own, as its configuration names it: a report of quotas. It is run through the
/// same door, by its path, without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteProgram {
    /// The program, an absolute path.
    pub path: PathBuf,
    /// Its arguments, passed on as they are.
    pub args: Vec<String>,
    /// Longest run.
    pub timeout: Duration,
    /// Most that it may write to standard output.
    pub output_bytes_max: u64,
}

/// Where a site's own program finds what it runs itself; tools for quotas lie in the sbin directories.
const SITE_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

impl SiteProgram {
    /// Runs it to its end, as [`Runner::run`] does with Slurm's.
    ///
    /// # Errors
    /// When there is no complete answer. An answer with a non-zero status is an answer.
    pub async fn run(&self) -> Result<Answer, RunError> {
        let fixed = [("PATH", SITE_PATH), ("LANG", "C"), ("LC_ALL", "C"), ("TZ", "UTC")];
        let shown = std::iter::once(self.path.display().to_string()).chain(self.args.iter().cloned());
        let run = Run {
            path: self.path.clone(),
            args: &self.args,
            environment: fixed.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            shown: shown.collect::<Vec<_>>().join(" "),
            timeout: self.timeout,
            output_bytes_max: self.output_bytes_max,
        };
        run.to_its_end().await
    }
}

/// How real programs are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Directory of Slurm's programs, absolute.
    pub bin_dir: PathBuf,
    /// Which slurm.conf, where it is not the default one.
    pub slurm_conf: Option<PathBuf>,
    /// Longest run of one program.
    pub timeout: Duration,
    /// Most that one program may write to standard output, where the whole of it is kept.
    pub output_bytes_max: u64,
}

impl Runner {
    /// Runs one program to its end.
    ///
    /// # Errors
    /// When there is no complete answer. An answer with a non-zero status is an answer.
    ///
    /// Dropping the future ends the program and everything in its process group.
    pub async fn run(&self, argv: &Argv) -> Result<Answer, RunError> {
        match self {
            Runner::Processes(processes) => processes.run(argv).await,
            Runner::Emulated(body) => body(argv.program().name(), argv.args(), &environment(None)),
        }
    }

    /// Starts one program whose answer is to be read as it comes.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn start(&self, argv: &Argv) -> Result<Running, RunError> {
        match self {
            Runner::Processes(processes) => Ok(Running::Process(processes.prepared(argv)?.start()?)),
            Runner::Emulated(body) => {
                let answer = body(argv.program().name(), argv.args(), &environment(None))?;
                Ok(Running::Emulated { answer, read: 0 })
            }
        }
    }
}

/// The whole environment of a program. Everything else stays outside: SLURM_CLUSTERS or SACCT_FORMAT would change
/// what is answered, NOTIFY_SOCKET and CREDENTIALS_DIRECTORY belong to the agent alone. Times are asked for and
/// printed as seconds since the epoch, because wall-clock times are ambiguous where clocks are set back.
fn environment(slurm_conf: Option<&str>) -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", "/usr/bin:/bin"),
        ("LANG", "C"),
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
        ("SLURM_TIME_FORMAT", "%s"),
    ];
    let conf = slurm_conf.map(|path| ("SLURM_CONF", path));
    fixed.into_iter().chain(conf).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl Processes {
    async fn run(&self, argv: &Argv) -> Result<Answer, RunError> {
        self.prepared(argv)?.to_its_end().await
    }

    fn prepared<'a>(&self, argv: &'a Argv) -> Result<Run<'a>, RunError> {
        let shown = argv.to_string();
        let conf = match self.slurm_conf.as_ref().map(|conf| conf.to_str().ok_or(conf)) {
            Some(Err(_)) => {
                let source = io::Error::from(io::ErrorKind::InvalidInput);
                return Err(RunError::Spawn { argv: shown, source });
            }
            Some(Ok(conf)) => Some(conf),
            None => None,
        };
        Ok(Run {
            path: self.bin_dir.join(argv.program().name()),
            args: argv.args(),
            environment: environment(conf),
            shown,
            timeout: self.timeout,
            output_bytes_max: self.output_bytes_max,
        })
    }
}

/// One run of one program.
struct Run<'a> {
    path: PathBuf,
    args: &'a [String],
    environment: BTreeMap<String, String>,
    /// As a person would type it.
    shown: String,
    timeout: Duration,
    output_bytes_max: u64,
}

impl Run<'_> {
    async fn to_its_end(&self) -> Result<Answer, RunError> {
        let mut running = self.start()?;
        let mut stdout = Vec::new();
        while running.read(&mut stdout).await? > 0 {
            if stdout.len() as u64 > self.output_bytes_max {
                return Err(running.too_large(Stream::Output, self.output_bytes_max));
            }
        }
        running.end().await.map(|answer| Answer { stdout, ..answer })
    }

    fn start(&self) -> Result<Process, RunError> {
        let (stdout, stderr, ended, group) = self.spawn()?;
        Ok(Process {
            argv: self.shown.clone(),
            stdout: Some(stdout),
            stderr: Some(stderr),
            complaint: Vec::new(),
            complaint_bytes_max: STDERR_BYTES_MAX.min(self.output_bytes_max),
            ended,
            group,
            timeout: self.timeout,
            left: self.timeout,
        })
    }

    /// Starts the program in a process group of its own, and a thread that waits for its end.
    fn spawn(&self) -> Result<Spawned, RunError> {
        let failed = |source| RunError::Spawn { argv: self.shown.clone(), source };
        let mut child = Command::new(&self.path)
            .args(self.args)
            .env_clear()
            .envs(&self.environment)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => RunError::NotFound { path: self.path.clone() },
                _ => failed(source),
            })?;
        let leader = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits pid_t"));
        let group = Group { leader: Arc::new(Mutex::new(Some(leader))) };
        let stdout = child.stdout.take().expect("standard output was piped");
        let stderr = child.stderr.take().expect("standard error was piped");
        let (tell, ended) = oneshot::channel();
        let unreaped = Arc::clone(&group.leader);
        std::thread::Builder::new()
            .name(format!("wait-{}", self.path.file_name().unwrap_or_default().display()))
            // The receiver may be gone: then nobody is left who wants to know.
            .spawn(move || drop(tell.send(reap(child, &unreaped))))
            .map_err(failed)?;
        let stdout = ChildStdout::from_std(stdout).map_err(failed)?;
        let stderr = ChildStderr::from_std(stderr).map_err(failed)?;
        Ok((stdout, stderr, ended, group))
    }
}

type Spawned = (ChildStdout, ChildStderr, oneshot::Receiver<io::Result<ExitStatus>>, Group);

/// A program and all it started, as long as the program has not been reaped: until then its id cannot belong
/// to anybody else. Dropping it ends them.
#[derive(Debug)]
struct Group {
    leader: Arc<Mutex<Option<Pid>>>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = *leader {
            // ESRCH is the only possible refusal of a group of ours, and means that it is gone.
            let _ = killpg(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// A program under way, whose standard output is read as it comes. Dropping it ends the program and everything in its process
/// group.
#[derive(Debug)]
pub enum Running {
    /// A real one.
    Process(Process),
    /// An emulated one, which has said everything at once.
    Emulated {
        /// What it said.
        answer: Answer,
        /// How much of its standard output has been read.
        read: usize,
    },
}

impl Running {
    /// Reads more of standard output to the end of `into`; 0 when there is no more.
    ///
    /// # Errors
    /// When the program was lost, took too long or complained too much; it is ended then. Only the time that is spent in here
    /// and in [`Running::end`] counts for how long it takes: a slow reader does not end its program.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> Result<usize, RunError> {
        match self {
            Running::Process(process) => process.read(into).await,
            Running::Emulated { answer, read } => {
                let piece = &answer.stdout[*read..(*read + PIECE_BYTES).min(answer.stdout.len())];
                into.extend_from_slice(piece);
                *read += piece.len();
                Ok(piece.len())
            }
        }
    }

    /// Waits for the end: standard error and exit status. What is left of standard output is thrown away.
    ///
    /// # Errors
    /// When there is no exit status: see [`Running::read`].
    pub async fn end(self) -> Result<Answer, RunError> {
        match self {
            Running::Process(process) => process.end().await,
            Running::Emulated { answer, .. } => Ok(Answer { stdout: Vec::new(), ..answer }),
        }
    }
}

/// A real program under way.
#[derive(Debug)]
pub struct Process {
    argv: String,
    /// `None` once it is at its end.
    stdout: Option<ChildStdout>,
    /// The same.
    stderr: Option<ChildStderr>,
    complaint: Vec<u8>,
    complaint_bytes_max: u64,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    group: Group,
    timeout: Duration,
    /// What is left of it.
    left: Duration,
}

impl Process {
    async fn read(&mut self, into: &mut Vec<u8>) -> Result<usize, RunError> {
        let begun = Instant::now();
        match timeout(self.left, self.read_more(into)).await {
            Ok(read) => {
                self.left = self.left.saturating_sub(begun.elapsed());
                read
            }
            Err(_) => Err(self.end_overdue().await),
        }
    }

    async fn end(mut self) -> Result<Answer, RunError> {
        let status = match timeout(self.left, self.rest()).await {
            Ok(status) => status?,
            Err(_) => return Err(self.end_overdue().await),
        };
        let stderr = std::mem::take(&mut self.complaint);
        match (status.code(), status.signal()) {
            (Some(status), _) => Ok(Answer { stdout: Vec::new(), stderr, status }),
            (None, signal) => {
                Err(RunError::Killed { argv: self.argv.clone(), signal: signal.unwrap_or_default() })
            }
        }
    }

    /// Reads from both streams until there is something of standard output, or its end.
    async fn read_more(&mut self, into: &mut Vec<u8>) -> Result<usize, RunError> {
        while self.stdout.is_some() || self.stderr.is_some() {
            let (speaks, complains) = (self.stdout.is_some(), self.stderr.is_some());
            tokio::select! {
                biased;
                read = read_piece(&mut self.stdout, into), if speaks => {
                    let read = read.map_err(|source| self.lost(source))?;
                    if read == 0 {
                        self.stdout = None;
                    }
                    return Ok(read);
                }
                read = read_piece(&mut self.stderr, &mut self.complaint), if complains => {
                    if read.map_err(|source| self.lost(source))? == 0 {
                        self.stderr = None;
                    }
                    if self.complaint.len() as u64 > self.complaint_bytes_max {
                        return Err(self.too_large(Stream::Error, self.complaint_bytes_max));
                    }
                }
            }
        }
        Ok(0)
    }

    /// Reads both streams to their ends and waits for that of the program.
    async fn rest(&mut self) -> Result<ExitStatus, RunError> {
        let mut ignored = Vec::new();
        while self.stdout.is_some() || self.stderr.is_some() {
            ignored.clear();
            self.read_more(&mut ignored).await?;
        }
        let ended = (&mut self.ended).await.map_err(|_| RunError::Stopped { argv: self.argv.clone() })?;
        ended.map_err(|source| self.lost(source))
    }

    /// Ends the program with all it started. Whatever comes of it, the answer is the time-out; the waiting only lets the end be
    /// complete.
    async fn end_overdue(&mut self) -> RunError {
        self.group.signal(Signal::SIGTERM);
        if timeout(TERM_GRACE, self.rest()).await.is_err() {
            self.group.signal(Signal::SIGKILL);
            drop(timeout(KILL_GRACE, self.rest()).await);
        }
        RunError::TimedOut { argv: self.argv.clone(), after: self.timeout }
    }

    fn lost(&self, source: io::Error) -> RunError {
        RunError::Lost { argv: self.argv.clone(), source }
    }

    fn too_large(&self, stream: Stream, bytes_max: u64) -> RunError {
        RunError::OutputTooLarge { argv: self.argv.clone(), stream, bytes_max }
    }
}

/// Reads what is there, waiting until there is something; 0 at the end.
async fn read_piece(from: &mut Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<usize> {
    into.reserve(PIECE_BYTES);
    match from {
        Some(stream) => stream.read_buf(into).await,
        None => Ok(0),
    }
}

/// Waits for the program's end, ends what it left behind in its group, and only then gives its id back.
fn reap(mut child: Child, leader: &Mutex<Option<Pid>>) -> io::Result<ExitStatus> {
    let known = *leader.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pid) = known {
        while let Err(Errno::EINTR) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {}
    }
    let mut leader = leader.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pid) = leader.take() {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    child.wait()
}

#[cfg(test)]
mod tests;
