//! Watches the sources that can say at once that they have changed: a task for each Nomad, which follows its list of quotas
//! with a blocking query and wakes the worker loop. What has changed is asked for by the cycle itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::error::{AgentError, chain};
use super::quotas::connection;
use super::schedule::{Bell, Due};
use super::surroundings;
use crate::central::nomad::{Followed, Follower, NomadClient};
use crate::config::{Config, Source, SourceKind};
use crate::core::name::SourceName;

/// Sources that have said that they have changed and were not asked since.
#[derive(Debug, Clone, Default)]
pub struct Stirred(Arc<Mutex<BTreeSet<SourceName>>>);

impl Stirred {
    /// The source has changed.
    pub fn note(&self, source: &SourceName) {
        self.names().insert(source.clone());
    }

    /// Whether the source has changed.
    pub fn contains(&self, source: &SourceName) -> bool {
        self.names().contains(source)
    }

    /// Whether any has.
    pub fn any(&self) -> bool {
        !self.names().is_empty()
    }

    /// Takes the mark off, before the source is asked: a change that comes while it answers marks it again.
    pub fn take(&self, source: &SourceName) -> bool {
        self.names().remove(source)
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeSet<SourceName>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// The running watchers.
pub struct Watchers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Watchers {
    /// Starts one for each source that can be watched.
    pub fn start(
        config: &Config,
        clock: &Clock,
        bell: &Bell,
        stirred: &Stirred,
    ) -> Result<Watchers, AgentError> {
        let mut watchers = Watchers { stop: CancellationToken::new(), tasks: JoinSet::new() };
        for source in &config.sources {
            let Some(mut follower) = follower(source, clock)? else { continue };
            let (name, bell, stirred) = (source.name.clone(), bell.clone(), stirred.clone());
            let stop = watchers.stop.clone();
            watchers.tasks.spawn(async move {
                stop.run_until_cancelled(follow(&mut follower, &name, &bell, &stirred)).await;
            });
        }
        Ok(watchers)
    }

    /// Ends them; a question under way is given up, which the server sees as a closed connection.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a watcher of a source did not end well");
            }
        }
    }
}

fn follower(source: &Source, clock: &Clock) -> Result<Option<Follower>, AgentError> {
    let SourceKind::Nomad(nomad) = &source.kind else { return Ok(None) };
    let around = surroundings(clock);
    let client = NomadClient::new(&connection(source)?, around.clone())?;
    Ok(Some(Follower::new(client, nomad.prefix.clone(), nomad.wait, around)))
}

async fn follow(follower: &mut Follower, name: &SourceName, bell: &Bell, stirred: &Stirred) {
    let mut failing = false;
    loop {
        match follower.next().await {
            Ok(followed) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(source = %name, "the source can be watched again");
                }
                if followed == Followed::Changed {
                    stirred.note(name);
                    bell.ring(Due::Stirred);
                }
            }
            Err(error) if failing => {
                tracing::debug!(source = %name, error = chain(&error), "a source still cannot be watched");
            }
            Err(error) => {
                failing = true;
                tracing::warn!(
                    source = %name,
                    error = chain(&error),
                    "a source cannot be watched; it is asked at every poll until it can be"
                );
            }
        }
    }
}
