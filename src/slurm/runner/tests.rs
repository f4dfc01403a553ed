//! Real processes that misbehave. A process holds the writing end of a fifo as long as it lives, so that a test can
//! wait for its end instead of guessing when it comes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::JoinHandle;

use nix::sys::stat::Mode;
use tempfile::TempDir;

use super::*;
use crate::slurm::argv::Program;

/// Long enough for a shell to start on a busy machine, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(120);

struct Site {
    dir: TempDir,
    processes: Processes,
}

impl Site {
    /// A directory in which `sacct` is a shell.
    fn new(timeout: Duration) -> Site {
        Site::with("/bin/sh", timeout)
    }

    fn with(program: &str, timeout: Duration) -> Site {
        let dir = TempDir::new().unwrap();
        symlink(program, dir.path().join("sacct")).unwrap();
        let processes = Processes {
            bin_dir: dir.path().to_owned(),
            slurm_conf: None,
            timeout,
            output_bytes_max: 4 << 20,
        };
        Site { dir, processes }
    }

    fn runner(&self) -> Runner {
        Runner::Processes(self.processes.clone())
    }

    /// A script whose process group holds the fifo open, and a thread that returns when nobody does any more.
    fn watched(&self, script: &str) -> (Argv, JoinHandle<String>) {
        let fifo = self.dir.path().join("alive");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let argv = shell(&format!("exec 9>{}; echo begun >&9; {script}", fifo.display()));
        (argv, std::thread::spawn(move || read_to_the_end(&fifo)))
    }
}

fn read_to_the_end(fifo: &Path) -> String {
    let mut text = String::new();
    File::open(fifo).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn shell(script: &str) -> Argv {
    Argv::reading(Program::Sacct, ["-c", script])
}

async fn run(script: &str) -> Result<Answer, RunError> {
    Site::new(LONG).runner().run(&shell(script)).await
}

#[tokio::test]
async fn output_complaint_and_status_are_kept_apart() {
    let answer = run("echo rows; echo complaint >&2; exit 3").await.unwrap();
    let expected = Answer { stdout: b"rows\n".to_vec(), stderr: b"complaint\n".to_vec(), status: 3 };
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_program_sees_its_arguments_unchanged_and_nothing_to_read() {
    let args = ["-c", r#"printf '<%s>' "$@"; cat; pwd"#, "sh", "a b", "$HOME", "*", "'", "\x1f", ""];
    let answer = Site::new(LONG).runner().run(&Argv::reading(Program::Sacct, args)).await.unwrap();
    assert_eq!(answer.stdout, b"<a b><$HOME><*><'><\x1f><>/\n");
}

#[tokio::test]
async fn the_environment_is_the_short_list_and_nothing_else() {
    let mut site = Site::with("/usr/bin/env", LONG);
    let argv = Argv::reading(Program::Sacct, [] as [&str; 0]);
    let lines = |answer: Answer| {
        let mut lines: Vec<String> =
            String::from_utf8(answer.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let fixed = ["LANG=C", "LC_ALL=C", "PATH=/usr/bin:/bin", "SLURM_TIME_FORMAT=%s", "TZ=UTC"];
    assert_eq!(lines(site.runner().run(&argv).await.unwrap()), fixed);
    site.processes.slurm_conf = Some("/etc/other/slurm.conf".into());
    let with_conf = lines(site.runner().run(&argv).await.unwrap());
    assert_eq!(with_conf, [&fixed[..3], &["SLURM_CONF=/etc/other/slurm.conf"], &fixed[3..]].concat());
}

#[tokio::test]
async fn the_emulated_body_is_asked_with_the_same_words_and_environment() {
    let body: EmulatedBody = Arc::new(|program, args, environment| {
        let stdout = format!("{program} {args:?} {}", environment["SLURM_TIME_FORMAT"]).into_bytes();
        Ok(Answer { stdout, ..Answer::default() })
    });
    let answer = Runner::Emulated(body).run(&shell("true")).await.unwrap();
    assert_eq!(answer.stdout, br#"sacct ["-c", "true"] %s"#);
}

#[tokio::test]
async fn much_output_on_both_streams_at_once_arrives_whole() {
    let answer = run("head -c 1000000 /dev/zero >&2; head -c 3000000 /dev/zero").await.unwrap();
    assert_eq!((answer.stdout.len(), answer.stderr.len(), answer.status), (3_000_000, 1_000_000, 0));
}

#[tokio::test]
async fn a_missing_program_and_one_that_may_not_be_run_are_told_apart() {
    let site = Site::with("/nonexistent/sacct", LONG);
    let error = site.runner().run(&shell("true")).await.unwrap_err();
    assert!(matches!(&error, RunError::NotFound { path } if path.ends_with("sacct")), "{error}");
    assert_eq!(error.class(), Class::Misconfigured);
    let site = Site::with("/etc/passwd", LONG);
    let error = site.runner().run(&shell("true")).await.unwrap_err();
    assert!(matches!(error, RunError::Spawn { .. }), "{error}");
    assert_eq!(error.class(), Class::Misconfigured);
}

#[tokio::test]
async fn a_program_ended_by_a_signal_gave_no_answer() {
    let error = run("echo half a row; kill -9 $$").await.unwrap_err();
    assert!(matches!(error, RunError::Killed { signal: 9, .. }), "{error}");
}

#[tokio::test]
async fn a_sleeper_that_ignores_term_is_killed_with_its_children() {
    let site = Site::new(SHORT);
    let (argv, gone) = site.watched("trap '' TERM; sleep 1000 & while :; do sleep 1000; done");
    let error = site.runner().run(&argv).await.unwrap_err();
    assert!(matches!(error, RunError::TimedOut { after: SHORT, .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(gone.join().unwrap(), "begun\n");
}

#[tokio::test]
async fn a_program_may_tidy_up_when_its_time_is_over() {
    let site = Site::new(SHORT);
    let (argv, gone) = site.watched("trap 'echo tidied >&9; exit 0' TERM; while :; do sleep 0.05; done");
    let error = site.runner().run(&argv).await.unwrap_err();
    assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
    assert_eq!(gone.join().unwrap(), "begun\ntidied\n");
}

#[tokio::test]
async fn a_program_that_closed_its_streams_and_a_stopped_one_run_out_of_time() {
    for script in ["exec >&- 2>&-; sleep 1000", "kill -STOP $$; echo never"] {
        let site = Site::new(SHORT);
        let (argv, gone) = site.watched(script);
        let error = site.runner().run(&argv).await.unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{script}: {error}");
        assert_eq!(gone.join().unwrap(), "begun\n", "{script}");
    }
}

#[tokio::test]
async fn a_flood_on_either_stream_ends_the_program() {
    for (script, flooded) in [("yes", Stream::Output), ("yes >&2", Stream::Error)] {
        let site = Site::new(LONG);
        let (argv, gone) = site.watched(script);
        let error = site.runner().run(&argv).await.unwrap_err();
        assert!(matches!(&error, RunError::OutputTooLarge { stream, .. } if *stream == flooded), "{error}");
        assert_eq!(
            error.to_string().contains("raise output_bytes_max"),
            flooded == Stream::Output,
            "{error}"
        );
        assert_eq!(error.class(), Class::Misconfigured);
        assert_eq!(gone.join().unwrap(), "begun\n");
    }
}

#[tokio::test]
async fn the_output_limit_itself_is_allowed() {
    let mut site = Site::new(LONG);
    site.processes.output_bytes_max = 10;
    assert_eq!(site.runner().run(&shell("printf 0123456789")).await.unwrap().stdout, b"0123456789");
    assert!(site.runner().run(&shell("printf 0123456789x")).await.is_err());
}

#[tokio::test]
async fn a_grandchild_left_behind_delays_nothing_and_is_ended() {
    let site = Site::new(LONG);
    let (argv, gone) = site.watched("sleep 1000 & echo done");
    let answer = site.runner().run(&argv).await.unwrap();
    assert_eq!((answer.stdout.as_slice(), answer.status), (b"done\n".as_slice(), 0));
    assert_eq!(gone.join().unwrap(), "begun\n");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_program_and_its_children() {
    let site = Site::new(LONG);
    let fifo = site.dir.path().join("alive");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let script = format!("exec 9>{}; trap '' TERM; sleep 1000 & echo begun >&9; wait", fifo.display());
    let runner = site.runner();
    let caller = tokio::spawn(async move { runner.run(&shell(&script)).await });
    let (began, end) = tokio::task::spawn_blocking(move || {
        let mut alive = BufReader::new(File::open(fifo).unwrap());
        let mut line = String::new();
        alive.read_line(&mut line).unwrap();
        (line, alive)
    })
    .await
    .unwrap();
    assert_eq!(began, "begun\n");
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let rest = tokio::task::spawn_blocking(move || std::io::read_to_string(end)).await.unwrap().unwrap();
    assert_eq!(rest, "");
}

#[tokio::test]
async fn a_sites_own_program_gets_its_arguments_unchanged_and_is_ended_with_all_it_started() {
    let program = |args: &[&str], timeout| SiteProgram {
        path: "/bin/sh".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        timeout,
        output_bytes_max: 1 << 20,
    };
    let script = r#"printf '<%s>' "$@"; cat; pwd; env | sort"#;
    let answer = program(&["-c", script, "sh", "$(id)", "a b;c"], LONG).run().await.unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert!(text.starts_with("<$(id)><a b;c>/\nLANG=C\nLC_ALL=C\nPATH=/usr/sbin:"), "{text}");
    let site = Site::new(LONG);
    let fifo = site.dir.path().join("alive");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let hangs = format!("exec 9>{}; echo begun >&9; sleep 1000 & wait", fifo.display());
    let watcher = std::thread::spawn(move || read_to_the_end(&fifo));
    let error = program(&["-c", &hangs], SHORT).run().await.unwrap_err();
    assert!(matches!(error, RunError::TimedOut { after: SHORT, .. }), "{error}");
    assert_eq!(watcher.join().unwrap(), "begun\n", "nobody holds it any more");
    let error = program(&["-c", "yes"], LONG).run().await.unwrap_err();
    assert!(matches!(error, RunError::OutputTooLarge { bytes_max: 1_048_576, .. }), "{error}");
    let absent = SiteProgram { path: "/nowhere/repquota".into(), ..program(&[], LONG) };
    assert!(matches!(absent.run().await.unwrap_err(), RunError::NotFound { .. }));
}
