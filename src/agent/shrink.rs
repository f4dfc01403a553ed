//! Totals that would shrink: a portal has billed what it was told, so less is only told with its reason known.
//!
//! Known reasons: a job record of the allocation was corrected, moved or set aside as runaway since the total was last not
//! smaller than what was told; or everything was read again from Slurm since the smaller total was first seen. Without one an
//! operator may let it be told (`confirm --usage`): the word is a file beside the store with the very totals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Agent;
use super::error::AgentError;
use crate::core::exact::Exact;
use crate::core::job::JobRecord;
use crate::core::name::{AccountName, SourceName};
use crate::core::period::Period;
use crate::core::report::{ComponentUsage, Message};
use crate::core::time::{Epoch, Window};

/// Name of the list of held totals among the reports of the store.
const HELD: &str = "held_usage";
/// Name of the ledger's state at which each total was last not smaller than what was told.
const BASIS: &str = "usage_basis";
/// Mark of the last complete reading of all open periods.
pub const DEEP_READ: &str = "deep_read";
/// Amount of a user who has none any more.
const NOTHING: &str = "0.00";

/// A total that is smaller than what was told, without a known reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUsage {
    /// The account.
    pub account: AccountName,
    /// The server.
    pub source: SourceName,
    /// The resource's uuid.
    pub allocation: String,
    /// The month.
    pub month: String,
    /// The component that shrinks.
    pub component: String,
    /// What was told.
    pub told: String,
    /// What it would be now.
    pub now: String,
    /// Since when.
    pub since: Epoch,
}

impl HeldUsage {
    /// For people.
    pub fn finding(&self) -> String {
        format!(
            "account {} since {}: its {} of {} would shrink at {} from {} to {} and no corrected job record says why; it is not told \
             until one does, a deep scan has read everything again (schedule.deep_scan), or you let it be: \
             slurm-site-agent confirm --usage {}",
            self.account,
            self.since,
            self.component,
            self.month,
            self.source,
            self.told,
            self.now,
            self.name()
        )
    }

    /// What an operator calls it: `ACCOUNT/MONTH`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.account, self.month)
    }

    /// Whether an operator's word for `other` lets this be told: the same total, that has not shrunk further since.
    fn is_let_by(&self, other: &HeldUsage) -> bool {
        let same = |held: &HeldUsage| {
            (
                held.source.clone(),
                held.allocation.clone(),
                held.month.clone(),
                held.component.clone(),
                held.told.clone(),
            )
        };
        let not_less = match (Exact::parse(&self.now), Exact::parse(&other.now)) {
            (Ok(now), Ok(seen)) => now >= seen,
            _ => self.now == other.now,
        };
        same(self) == same(other) && not_less
    }
}

fn words_path(store: &Path) -> PathBuf {
    store.with_extension("confirmed-usage")
}

/// What an operator let be told. A file that is not understood is no word.
fn words(store: &Path) -> Vec<HeldUsage> {
    let text = std::fs::read_to_string(words_path(store)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Writes the operator's word that these totals may be told although they shrink.
pub fn confirm(store: &Path, held: &[HeldUsage]) -> std::io::Result<()> {
    let mut all = words(store);
    all.retain(|known| held.iter().all(|new| new.name() != known.name()));
    all.extend(held.iter().cloned());
    super::hold::write_word(store, &words_path(store), &serde_json::to_string(&all)?)
}

/// Totals held now.
pub fn held(agent: &Agent) -> Result<Vec<HeldUsage>, AgentError> {
    Ok(agent.store.last_report(HELD)?.map(|(held, _)| held).unwrap_or_default())
}

/// Watches the totals of one reporting.
pub struct Watch {
    basis: BTreeMap<String, u64>,
    before: Vec<HeldUsage>,
    held: Vec<HeldUsage>,
    words: Vec<HeldUsage>,
    used: Vec<HeldUsage>,
    seq: u64,
    now: Epoch,
}

impl Watch {
    /// Begins.
    pub fn begin(agent: &Agent, now: Epoch) -> Result<Watch, AgentError> {
        Ok(Watch {
            basis: agent.store.last_report(BASIS)?.map(|(basis, _)| basis).unwrap_or_default(),
            before: held(agent)?,
            held: Vec::new(),
            words: words(&agent.config.store.path),
            used: Vec::new(),
            seq: agent.store.ledger_seq()?,
            now,
        })
    }

    /// Whether a total may be told. Users that were told and have nothing any more are told so. `names` are the accounts it is
    /// of, the allocation's own first.
    pub fn passes(
        &mut self,
        agent: &Agent,
        built: &mut ComponentUsage,
        names: &[String],
        month: &Period,
    ) -> Result<bool, AgentError> {
        let key = built.key();
        let told = match agent.store.last_delivered(&key)? {
            Some(Message::ComponentUsage(told)) => told,
            _ => {
                self.basis.insert(key, self.seq);
                return Ok(true);
            }
        };
        for (component, users) in told.users.iter().filter(|_| agent.config.reports.users) {
            let now = built.users.entry(component.clone()).or_default();
            for user in users.keys() {
                now.entry(user.clone()).or_insert_with(|| NOTHING.to_owned());
            }
        }
        let Some((component, was, is)) = shrunken(&told, built) else {
            self.basis.insert(key, self.seq);
            return Ok(true);
        };
        let since = self.basis.get(&key).copied().unwrap_or(0);
        let records = corrected(agent, since, names, &told, month.window())?;
        let known = self.before.iter().find(|h| h.allocation == told.allocation && h.month == told.month);
        let seen = known.map_or(self.now, |held| held.since);
        let read_again = agent.store.last_success(DEEP_READ)?.is_some_and(|at| at >= seen);
        if records > 0 || read_again {
            tracing::info!(
                resource = told.allocation,
                month = told.month,
                component,
                was,
                is,
                records,
                read_again,
                "a total shrinks with a known reason"
            );
            return Ok(true);
        }
        // The allocation's own account is the first; those below it may have odd names.
        let first = names.first().and_then(|name| AccountName::parse(name).ok());
        let Some(account) = first else { return Ok(false) };
        let held = HeldUsage {
            account,
            source: told.source,
            allocation: told.allocation,
            month: told.month,
            component,
            told: was,
            now: is,
            since: seen,
        };
        if let Some(word) = self.words.iter().find(|word| held.is_let_by(word)) {
            tracing::info!(account = %held.account, month = held.month, was = held.told, is = held.now,
                "a total shrinks by an operator's word");
            self.used.push(word.clone());
            return Ok(true);
        }
        self.held.push(held);
        Ok(false)
    }

    /// Stores what is held. A word is kept as long as it has work: until the server has been told.
    pub fn end(self, agent: &mut Agent) -> Result<(), AgentError> {
        if self.used.is_empty()
            && !self.words.is_empty()
            && let Err(error) = std::fs::remove_file(words_path(&agent.config.store.path))
        {
            tracing::warn!(%error, "a used confirmation could not be removed");
        }
        agent.store.put_report(BASIS, &self.basis, self.now)?;
        if self.held != self.before {
            agent.store.put_report(HELD, &self.held, self.now)?;
        }
        Ok(())
    }
}

/// The first component with less than was told. An amount that cannot be read is less.
fn shrunken(told: &ComponentUsage, built: &ComponentUsage) -> Option<(String, String, String)> {
    let less = |was: &str, is: &str| match (Exact::parse(was), Exact::parse(is)) {
        (Ok(was), Ok(is)) => is < was,
        _ => true,
    };
    told.amounts.iter().find_map(|(component, was)| {
        let is = built.amounts.get(component).map_or("nothing", String::as_str);
        less(was, is).then(|| (component.clone(), was.clone(), is.to_owned()))
    })
}

/// Records that changed since and touch the month: of the accounts, or of a user who had a part in what was told (a record may
/// have moved to another account); and records of the accounts that are set aside as runaway.
fn corrected(
    agent: &Agent,
    since: u64,
    names: &[String],
    told: &ComponentUsage,
    month: Window,
) -> Result<usize, AgentError> {
    let cluster = &agent.config.cluster.name;
    let accounts: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let users: BTreeSet<&str> =
        told.users.values().flat_map(|users| users.keys()).map(String::as_str).collect();
    let touches = |job: &JobRecord| {
        job.start.is_some_and(|start| start < month.until) && job.end.is_none_or(|end| end >= month.from)
    };
    let mut count = agent
        .store
        .runaways(cluster)?
        .iter()
        .filter(|job| accounts.contains(job.account.as_str()) && touches(job))
        .count();
    agent.store.visit_changed(cluster, since, usize::MAX, &mut |_, job| {
        let ours = accounts.contains(job.account.as_str()) || users.contains(job.user.as_str());
        count += usize::from(ours && touches(&job));
    })?;
    Ok(count)
}
