//! The daemon: one worker loop that timers and signals wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::world::World;
use super::{Common, log, world};
use crate::agent::Agent;
use crate::agent::audit;
use crate::agent::cycle::{Ask, CycleReport, cycle};
use crate::agent::error::{AgentError, Exit, chain};
use crate::agent::memory;
use crate::agent::notify::Notify;
use crate::agent::schedule::{self, Bell, Due, Timers};
use crate::agent::signals::{Asked, Listener};
use crate::agent::watch::Watchers;
use crate::config::{self, Config};
use crate::core::time::Epoch;

/// A cycle that takes longer than this many poll intervals is stuck: the watchdog is no longer fed.
const CYCLE_INTERVALS_MAX: u32 = 6;
/// A cycle is never called stuck before this time.
const CYCLE_TIME_MIN: Duration = Duration::from_secs(600);

/// How often the service manager is asked for more time while the store is opened.
const OPENING_STEP: Duration = Duration::from_secs(30);
/// And how many times: an opening that takes half an hour is stuck.
const OPENING_STEPS_MAX: usize = 60;

/// Runs until it is told to stop.
pub fn run(common: &Common) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    let drained = runtime.block_on(serve(common));
    // Whatever is still under way after the drain time goes with the process; the next start converges.
    runtime.shutdown_background();
    drained
}

/// Keeps the service manager waiting while the store is opened: bringing ten million jobs to a newer schema takes longer than the
/// unit allows for a start.
fn extend_start(notify: &Notify) -> AbortOnDropHandle<()> {
    let notify = notify.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        for _ in 0..OPENING_STEPS_MAX {
            notify.extend_start(OPENING_STEP * 2);
            tokio::time::sleep(OPENING_STEP).await;
        }
    }))
}

async fn serve(common: &Common) -> Result<Exit, AgentError> {
    let notify = Notify::from_environment();
    let mut listener =
        Listener::new().map_err(|source| AgentError::System { doing: "taking over the signals", source })?;
    let mut world = World::open(common).await?;
    log::start(&world.config.log);
    let extending = extend_start(&notify);
    let mut agent = world.agent()?;
    drop(extending);
    let bell = Bell::default();
    let mut wakers = Wakers::start(&agent, &bell).await?;
    let pulse = Pulse::start(&notify, &agent);
    bell.ring(Due::Poll);
    bell.ring(Due::Report);
    for (due, pattern) in crons(&agent.config) {
        // What was due while the daemon did not run is done once, now.
        let last = agent.store.last_success(due.as_str())?;
        if last.is_some_and(|last| {
            schedule::missed(&pattern, &agent.config.cluster.time_zone_name, last, agent.clock.now())
        }) {
            bell.ring(due);
        }
    }
    tracing::info!(cluster = %agent.config.cluster.name, version = env!("CARGO_PKG_VERSION"), "started");
    notify.ready();
    let mut wake = None;
    loop {
        let due = tokio::select! {
            biased;
            asked = listener.next() => match asked {
                Asked::Drain => break,
                Asked::Evaluate => { bell.ring(Due::Poll); continue }
                Asked::Reload => {
                    wakers = reload(common, &mut agent, wakers, &bell, &notify).await?;
                    continue
                }
            },
            due = bell.wait() => due,
            () = schedule::reach(&agent.clock, wake) => vec![Due::Rolled],
        };
        // A cycle in between may have asked already.
        if due == [Due::Stirred] && !agent.stirred.any() {
            continue;
        }
        let Some(worked) = work(&mut agent, &due, &mut listener, &bell, &pulse).await? else { break };
        memory::give_back();
        wake = worked.wake;
        notify.status(&worked.line);
        if worked.reload {
            wakers = reload(common, &mut agent, wakers, &bell, &notify).await?;
        }
    }
    notify.stopping();
    tracing::info!("stopping");
    wakers.stop().await;
    pulse.stop();
    drop(agent);
    world.close().await;
    Ok(Exit::Done)
}

/// What a turn left behind.
struct Worked {
    /// For the service manager.
    line: String,
    /// When the next window of a quota has rolled away.
    wake: Option<Epoch>,
    /// The configuration is to be read again: it was asked for meanwhile.
    reload: bool,
}

/// Does what is due. A signal to drain lets the running step end for at most `limits.drain`; `None` then.
async fn work(
    agent: &mut Agent,
    due: &[Due],
    listener: &mut Listener,
    bell: &Bell,
    pulse: &Pulse,
) -> Result<Option<Worked>, AgentError> {
    let drain = agent.config.limits.drain;
    let mut reload = false;
    let mut working = std::pin::pin!(turn(agent, due));
    let report = loop {
        tokio::select! {
            report = &mut working => break report?,
            asked = listener.next() => match asked {
                Asked::Evaluate => bell.ring(Due::Poll),
                Asked::Reload => reload = true,
                Asked::Drain => {
                    tracing::info!(?drain, "draining: the running cycle may end");
                    if let Ok(ended) = tokio::time::timeout(drain, working).await {
                        ended?;
                    }
                    return Ok(None);
                }
            },
        }
    };
    pulse.beat();
    Ok(Some(Worked { line: summary(&report), wake: report.wake, reload }))
}

/// One turn: a cycle, and the audit when it is due.
async fn turn(agent: &mut Agent, due: &[Due]) -> Result<CycleReport, AgentError> {
    let ask = Ask {
        deep: due.contains(&Due::DeepScan),
        no_reports: !due.contains(&Due::Report),
        stirred: due.iter().all(|due| matches!(due, Due::Stirred | Due::Rolled)),
        ..Ask::default()
    };
    let mut report = cycle(agent, &ask).await?;
    if due.contains(&Due::Audit) {
        match audit::audit(agent).await {
            Ok(drift) => report.findings.extend(drift.findings()),
            Err(error) => tracing::warn!(error = chain(&error), "the audit could not be made"),
        }
    }
    if due.contains(&Due::DeepScan) {
        agent.prune()?;
    }
    for finding in report.findings.iter().filter(|finding| !agent.told.contains(*finding)) {
        tracing::warn!(finding, "finding");
    }
    agent.told = report.findings.iter().cloned().collect();
    for due in due {
        agent.store.put_success(due.as_str(), report.at)?;
    }
    tracing::info!(
        changes = report.changes.len(),
        held = report.held.len(),
        commands = report.commands.len(),
        enqueued = report.enqueued,
        new_jobs = report.collection.new,
        "cycle"
    );
    Ok(report)
}

fn summary(report: &CycleReport) -> String {
    let undecided = report.decisions.iter().filter(|decision| decision.decided().is_none()).count();
    format!(
        "last cycle {}: {} accounts, {undecided} undecided, {} changes, {} waiting",
        report.at,
        report.decisions.len(),
        report.changes.len(),
        report.held.len()
    )
}

fn crons(config: &Config) -> [(Due, String); 3] {
    let schedule = &config.schedule;
    [
        (Due::DeepScan, schedule.deep_scan.as_str().to_owned()),
        (Due::Audit, schedule.audit.as_str().to_owned()),
        (Due::Report, schedule.report.as_str().to_owned()),
    ]
}

async fn timers(config: &Config, bell: &Bell) -> Result<Timers, AgentError> {
    let zone = &config.cluster.time_zone_name;
    Ok(Timers::start(bell, config.poll_interval(), &crons(config), zone).await?)
}

/// What wakes the loop, besides signals.
struct Wakers {
    timers: Timers,
    watchers: Watchers,
}

impl Wakers {
    async fn start(agent: &Agent, bell: &Bell) -> Result<Wakers, AgentError> {
        let watchers = Watchers::start(&agent.config, &agent.clock, bell, &agent.stirred)?;
        Ok(Wakers { timers: timers(&agent.config, bell).await?, watchers })
    }

    async fn stop(self) {
        self.timers.stop().await;
        self.watchers.stop().await;
    }
}

/// Goes on with the configuration as it is now; what cannot be used is refused as a whole and the running one stays.
async fn reload(
    common: &Common,
    agent: &mut Agent,
    wakers: Wakers,
    bell: &Bell,
    notify: &Notify,
) -> Result<Wakers, AgentError> {
    notify.reloading();
    let mut wakers = wakers;
    if let Some(config) = read_again(common, agent) {
        match agent.reconfigure(config) {
            Ok(()) => {
                wakers.stop().await;
                wakers = Wakers::start(agent, bell).await?;
                bell.ring(Due::Poll);
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "the new configuration is refused; the running one stays"
                );
            }
        }
    }
    notify.ready();
    Ok(wakers)
}

/// The configuration read again; none that cannot be used.
fn read_again(common: &Common, agent: &Agent) -> Option<Config> {
    if common.emulator {
        tracing::info!("the emulated world has no configuration to read again");
        return None;
    }
    match config::load(&common.config) {
        Ok(config)
            if config.store.path != agent.config.store.path
                || config.cluster.name != agent.config.cluster.name =>
        {
            tracing::error!(
                "the store or the cluster has changed, which needs a restart; the running configuration stays"
            );
            None
        }
        Ok(config) => {
            tracing::info!("the configuration was read again");
            Some(config)
        }
        Err(errors) => {
            tracing::error!(%errors, "the new configuration is refused; the running one stays");
            None
        }
    }
}

/// Feeds systemd's watchdog while cycles end: a timer alone would call a stuck daemon healthy.
struct Pulse {
    last: Arc<AtomicI64>,
    task: Option<JoinHandle<()>>,
    clock: tokio::time::Instant,
}

impl Pulse {
    fn start(notify: &Notify, agent: &Agent) -> Pulse {
        let clock = tokio::time::Instant::now();
        let last = Arc::new(AtomicI64::new(0));
        let longest = (agent.config.poll_interval() * CYCLE_INTERVALS_MAX).max(CYCLE_TIME_MIN);
        let task = notify.watchdog().map(|every| {
            let (notify, last) = (notify.clone(), Arc::clone(&last));
            tokio::spawn(async move {
                let mut tick = tokio::time::interval(every / 3);
                loop {
                    tick.tick().await;
                    let since = clock.elapsed().as_secs() as i64 - last.load(Ordering::Relaxed);
                    if since < longest.as_secs() as i64 {
                        notify.alive();
                    } else {
                        tracing::error!(
                            since_s = since,
                            "no cycle has ended for too long; the watchdog will restart the service"
                        );
                    }
                }
            })
        });
        Pulse { last, task, clock }
    }

    fn beat(&self) {
        self.last.store(self.clock.elapsed().as_secs() as i64, Ordering::Relaxed);
    }

    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
