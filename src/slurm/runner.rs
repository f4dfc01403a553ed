//! The one door to Slurm, and to the programs that a site names itself: runs a program and brings back its standard
//! output, standard error and exit status.
//!
//! It does not read what the programs say. It uses no shell; the program is an absolute path; the environment is
//! a short fixed list. A program that takes too long or says too much is ended with everything it started, and
//! so is one whose caller has gone away. Nothing here is durable: a change that was under way when the door
//! closed may or may not have reached slurmdbd, and only reading back tells.

use std::collections::BTreeMap;
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
use tokio::time::timeout;

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

/// What a program answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// All of standard output.
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
        "{argv} wrote more than {bytes_max} bytes to {stream}; ask for a shorter window (limits.window) or raise cluster.output_bytes_max"
    )]
    OutputTooLarge {
        /// What was run.
        argv: String,
        /// Standard output or standard error.
        stream: &'static str,
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
    /// Most that one program may write to standard output.
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
        let shown = argv.to_string();
        let conf = match self.slurm_conf.as_ref().map(|conf| conf.to_str().ok_or(conf)) {
            Some(Err(_)) => {
                let source = io::Error::from(io::ErrorKind::InvalidInput);
                return Err(RunError::Spawn { argv: shown, source });
            }
            Some(Ok(conf)) => Some(conf),
            None => None,
        };
        let run = Run {
            path: self.bin_dir.join(argv.program().name()),
            args: argv.args(),
            environment: environment(conf),
            shown,
            timeout: self.timeout,
            output_bytes_max: self.output_bytes_max,
        };
        run.to_its_end().await
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
        let (stdout, stderr, ended, group) = self.spawn()?;
        let streams = async {
            tokio::try_join!(
                self.read("standard output", stdout, self.output_bytes_max),
                self.read("standard error", stderr, STDERR_BYTES_MAX.min(self.output_bytes_max)),
            )
        };
        let argv = || self.shown.clone();
        let whole = async {
            let (stdout, stderr) = streams.await?;
            let status = ended
                .await
                .map_err(|_| RunError::Stopped { argv: argv() })?
                .map_err(|source| RunError::Lost { argv: argv(), source })?;
            self.answer(stdout, stderr, status)
        };
        tokio::pin!(whole);
        if let Ok(finished) = timeout(self.timeout, &mut whole).await {
            return finished;
        }
        group.signal(Signal::SIGTERM);
        if timeout(TERM_GRACE, &mut whole).await.is_err() {
            group.signal(Signal::SIGKILL);
            // Whatever comes of the wait, the answer is the time-out; the wait only lets the end be complete.
            drop(timeout(KILL_GRACE, &mut whole).await);
        }
        Err(RunError::TimedOut { argv: argv(), after: self.timeout })
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

    /// Reads a stream to its end, or says that it is too long.
    async fn read(
        &self,
        stream: &'static str,
        from: impl AsyncRead + Unpin,
        bytes_max: u64,
    ) -> Result<Vec<u8>, RunError> {
        let mut bytes = Vec::new();
        let mut limited = from.take(bytes_max.saturating_add(1));
        limited
            .read_to_end(&mut bytes)
            .await
            .map_err(|source| RunError::Lost { argv: self.shown.clone(), source })?;
        if bytes.len() as u64 > bytes_max {
            return Err(RunError::OutputTooLarge { argv: self.shown.clone(), stream, bytes_max });
        }
        Ok(bytes)
    }

    fn answer(&self, stdout: Vec<u8>, stderr: Vec<u8>, status: ExitStatus) -> Result<Answer, RunError> {
        match (status.code(), status.signal()) {
            (Some(status), _) => Ok(Answer { stdout, stderr, status }),
            (None, signal) => {
                Err(RunError::Killed { argv: self.shown.clone(), signal: signal.unwrap_or_default() })
            }
        }
    }
}

type Spawned = (ChildStdout, ChildStderr, oneshot::Receiver<io::Result<ExitStatus>>, Group);

/// A program and all it started, as long as the program has not been reaped: until then its id cannot belong
/// to anybody else. Dropping it ends them.
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
