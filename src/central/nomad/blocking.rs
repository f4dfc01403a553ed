//! Follows the list of quotas with blocking queries.
//!
//! The server holds the answer to `index=N` until its index passes N, so a change is known at once and nothing is polled.
//! What it may do besides that: answer unchanged; go back in its index (restored from a backup), which means to start again
//! at 0, which never blocks; lose its leader, restart, break off or hang. After each of these the list is asked for whole and
//! counts as changed, since an index of before says nothing of a server that may be another one. Whatever it does, two
//! questions are at least [`FIRST_PAUSE`] apart, and the distance doubles up to [`LONGEST_PAUSE`] with every answer that
//! came at once and brought nothing, and with every failure: there is no busy loop. An answer that was held, or that brought
//! something, makes it short again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::client::NomadClient;
use crate::central::error::CentralError;
use crate::central::retry::WAITS_MAX;
use crate::central::{Notice, Surroundings};
use crate::core::quota::ConcurrencyQuota;

/// Least time between two questions. A change that comes right behind another is known this much later.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Least time between two questions of a server that does not block or does not work.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What came of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// The quotas are, or may be, others than before.
    Changed,
    /// They are the same.
    Same,
}

/// One list that is followed.
pub struct Follower {
    client: NomadClient,
    prefix: String,
    wait: Duration,
    surroundings: Surroundings,
    rng: StdRng,
    /// Index of the last answer; 0 asks for the list as it is.
    index: u64,
    /// The last answer; `None` before the first one and after a failure.
    known: Option<(Vec<ConcurrencyQuota>, Vec<Notice>)>,
    /// How many answers in a row came at once and brought nothing, or failed.
    idle: u32,
    pause: Duration,
}

impl Follower {
    /// Follows the quotas whose names begin with `prefix`; the server holds an answer for at most `wait`.
    pub fn new(client: NomadClient, prefix: String, wait: Duration, surroundings: Surroundings) -> Follower {
        let rng = StdRng::seed_from_u64(surroundings.jitter_seed);
        let (index, known, idle, pause) = (0, None, 0, Duration::ZERO);
        Follower { client, prefix, wait, surroundings, rng, index, known, idle, pause }
    }

    /// Waits for what the question before asks to wait, asks, and says what came of it. The first answer is a change, and
    /// so is the first one after a failure. Errors are for the log: go on calling.
    pub async fn next(&mut self) -> Result<Followed, CentralError> {
        if self.pause > Duration::ZERO {
            (self.surroundings.sleep)(self.pause).await;
        }
        let asked = Instant::now();
        let answer = match self.client.list_changed(&self.prefix, self.index, self.wait).await {
            Ok(answer) => answer,
            Err(error) => {
                self.after_failure(error.retry_after());
                return Err(error);
            }
        };
        let took = asked.elapsed();
        self.index = match answer.index {
            Some(index) if index >= self.index => index,
            _ => 0,
        };
        let found = (answer.value.value, answer.value.notices);
        let (first, same) = (self.known.is_none(), self.known.as_ref() == Some(&found));
        self.known = Some(found);
        self.after_answer(took, !first && !same);
        Ok(if same { Followed::Same } else { Followed::Changed })
    }

    /// The least distance to the next question.
    fn distance(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(2u32.saturating_pow(self.idle)).min(LONGEST_PAUSE)
    }

    fn after_answer(&mut self, took: Duration, brought: bool) {
        if brought || took >= self.distance() {
            self.idle = 0;
            self.pause = self.distance().saturating_sub(took);
        } else {
            self.pause = self.distance().saturating_sub(took);
            self.idle = self.idle.saturating_add(1);
        }
    }

    fn after_failure(&mut self, retry_after: Option<Duration>) {
        (self.index, self.known) = (0, None);
        let distance = self.distance();
        // Half of it is drawn, so that many agents do not come back at the same moment.
        let drawn = self.rng.random_range(0.5..=1.0);
        self.pause = distance.mul_f64(drawn).max(retry_after.unwrap_or_default().min(WAITS_MAX));
        self.idle = self.idle.saturating_add(1);
    }
}
