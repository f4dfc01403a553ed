//! What the quotas of all sources and of the configuration ask for now: gathers what the rules are judged by (accounts, the
//! windows of the ledger, Slurm's own count where a budget is warned of) and leaves the judging to
//! [`crate::core::quota_rules`].

use std::collections::BTreeMap;

use super::Agent;
use super::error::{AgentError, chain};
use super::facts::Facts;
use crate::config::{LOCAL_SOURCE, local_quotas};
use crate::core::association::{AccountTree, Observed};
use crate::core::desired::ancestors;
use crate::core::evaluate::Decision;
use crate::core::name::{AccountName, SourceName};
use crate::core::quota_map::SourceQuotas;
use crate::core::quota_rules::{Ground, Lately, Verdict, judge, needed_s, needs_counted, shortest_window_s};
use crate::core::time::{Epoch, Window};
use crate::core::tres::TresCounts;
use crate::core::windows::{Stretch, Submission};

/// What comes of all quotas.
pub async fn verdict(
    agent: &Agent,
    facts: &Facts,
    observed: &Observed,
    incomplete: Option<&str>,
    now: Epoch,
) -> Result<Verdict, AgentError> {
    let local = local_quotas(&agent.config.quotas);
    let local_name = SourceName::parse(LOCAL_SOURCE).map_err(|error| AgentError::Asked(error.to_string()))?;
    let said = facts.quotas.iter().map(|offer| (&offer.source, &offer.quotas, offer.stale.as_deref()));
    let all: Vec<(&SourceName, &SourceQuotas, Option<&str>)> =
        said.chain(local.as_ref().map(|quotas| (&local_name, quotas, None))).collect();
    if all.is_empty() {
        return Ok(Verdict::default());
    }
    let quotas: Vec<&SourceQuotas> = all.iter().map(|(_, quotas, _)| *quotas).collect();
    let lately = lately(agent, needed_s(&quotas), incomplete, now)?;
    let tree = observed.tree();
    let mut verdict = Verdict::default();
    let counted = counted(agent, &quotas, &mut verdict).await;
    let ground = Ground { observed, tree: &tree, lately: &lately, counted: &counted, now };
    for (source, quotas, stale) in all {
        verdict.merge(judge(source, quotas, stale, &ground));
    }
    slow_polls(agent, &quotas, &mut verdict);
    refuse_others_accounts(agent, observed, &tree, &mut verdict);
    Ok(verdict)
}

/// What happened within the longest windows.
fn lately(
    agent: &Agent,
    (submissions_s, use_s): (i64, i64),
    incomplete: Option<&str>,
    now: Epoch,
) -> Result<Lately, AgentError> {
    let cluster = &agent.config.cluster.name;
    let mut lately = Lately { incomplete: incomplete.map(str::to_owned), ..Lately::default() };
    if submissions_s > 0 {
        agent.store.visit_submitted(cluster, now.plus(-submissions_s), &mut |record, before| {
            lately.submissions.extend(Submission::of(&record, before));
        })?;
    }
    if use_s > 0 {
        agent.store.visit_jobs(cluster, Window::new(now.plus(-use_s), now.plus(1)), &mut |record| {
            lately.stretches.extend(Stretch::of(&record));
        })?;
    }
    Ok(lately)
}

/// What slurmctld counts against GrpTRESMins, where a budget needs it.
async fn counted(
    agent: &Agent,
    quotas: &[&SourceQuotas],
    verdict: &mut Verdict,
) -> BTreeMap<AccountName, TresCounts> {
    if !needs_counted(quotas) {
        return BTreeMap::new();
    }
    match agent.slurm.raw_usage().await {
        Ok(usage) => usage.into_iter().map(|(account, usage)| (account, usage.tres_minutes)).collect(),
        Err(error) => {
            verdict.findings.push(format!(
                "what Slurm counts against the budgets could not be read, their warnings rest on the servers' numbers: {}",
                chain(&error)
            ));
            BTreeMap::new()
        }
    }
}

/// A window that is shorter than the time between two looks may be used up and roll away unseen.
fn slow_polls(agent: &Agent, quotas: &[&SourceQuotas], verdict: &mut Verdict) {
    let poll_s = i64::try_from(agent.config.poll_interval().as_secs()).unwrap_or(i64::MAX);
    if let Some(window_s) = shortest_window_s(quotas).filter(|window_s| *window_s < poll_s) {
        verdict.findings.push(format!(
            "a quota has a window of {window_s} s and the cluster is looked at every {poll_s} s: what lies between two looks is \
             not stopped; choose a shorter poll interval"
        ));
    }
}

/// Accounts that the configuration takes out of the agent's hands are not changed for a quota either.
fn refuse_others_accounts(agent: &Agent, observed: &Observed, tree: &AccountTree<'_>, verdict: &mut Verdict) {
    let mut reasons: BTreeMap<AccountName, String> = BTreeMap::new();
    for account in verdict.wishes.iter().map(|wish| &wish.account) {
        if tree.subtree(account).is_empty() || reasons.contains_key(account) {
            continue;
        }
        if let Err(reason) = agent.config.accounts.allows(account, ancestors(account, observed)) {
            reasons.insert(account.clone(), reason);
        }
    }
    verdict.wishes.retain(|wish| !reasons.contains_key(&wish.account));
    verdict.findings.extend(
        reasons
            .iter()
            .map(|(account, reason)| format!("account {account} has a quota and is not changed: {reason}")),
    );
}

/// Accounts on which the quotas leave nothing decided, as decisions: what is in force there stays in force.
pub fn undecided(verdict: &Verdict) -> impl Iterator<Item = Decision> {
    verdict.undecided.iter().map(|(account, (source, reason))| Decision::Undecided {
        account: account.clone(),
        source: source.clone(),
        allocation: "quota".to_owned(),
        reason: reason.clone(),
    })
}
