//! The verbs that change something: words for the ledger, and calls to the server.

use std::io::BufRead;

use super::super::world::{self, World};
use super::super::{Common, log, render};
use super::show::read;
use super::{AdjustArgs, NamedArgs, ResendArgs, SendArgs};
use crate::agent::amie::{self, words};
use crate::agent::error::{AgentError, Exit};
use crate::agent::{Agent, clock::Clock};
use crate::central::amie::messages;
use crate::config::{Amie, Config};
use crate::core::amie::{Adjustment, AdjustmentType, Detail, Record, charge_text, refund_id};
use crate::core::exact::Exact;
use crate::core::time::Epoch;
use crate::store::{AmieFilter, AmieRow, AmieState, Store, StoreError};

fn section(config: &Config) -> Result<&Amie, AgentError> {
    config.amie.as_ref().ok_or_else(|| AgentError::Asked("the configuration has no [amie] section".into()))
}

/// Whether an operator agrees.
fn agrees(yes: bool) -> bool {
    if yes {
        return true;
    }
    render::text("type yes to do it: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

fn show_messages(amie: &Amie, records: &[Record]) {
    for message in messages(records, amie.batch_bytes_max, amie.batch_records_max) {
        render::text(&format!("{message}\n"));
    }
}

/// Leaves the word, and carries it out where no agent runs that would.
fn speak(config: &Config, clock: &Clock, asked: &words::Asked) -> Result<Exit, AgentError> {
    let id = format!("{}-{}", clock.now().0, uuid::Uuid::new_v4().simple());
    words::say(&config.store.path, &id, asked)?;
    match Store::open(&config.store.path) {
        Ok(mut store) => {
            let mut findings = Vec::new();
            words::carry_out_on(&mut store, clock.now(), &mut findings)?;
            findings.iter().for_each(|finding| render::text(&format!("! {finding}\n")));
            render::text("done; the agent sends it in its next cycle, or `amie send` now\n");
            Ok(Exit::Done)
        }
        Err(StoreError::Held { .. }) => {
            render::text("the running agent does it in its next cycle\n");
            Ok(Exit::Done)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn resend(common: &Common, args: &ResendArgs) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        let store = Store::open_reader(&world.config.store.path)?;
        let mut rows = Vec::new();
        for id in &args.ids {
            let found = store.amie_by_id(id)?;
            if found.is_empty() {
                return Err(AgentError::Asked(format!("the ledger has no record {id}")));
            }
            rows.extend(found);
        }
        if args.failed {
            let filter = AmieFilter { state: Some(AmieState::Failed), ..AmieFilter::default() };
            rows.extend(read(&store, &filter, usize::MAX)?.into_iter().filter(|row| row.cleared.is_none()));
        }
        let records: Vec<Record> = rows.iter().map(|row| row.record.clone()).collect();
        if args.dry_run {
            show_messages(section(&world.config)?, &records);
            return Ok(Exit::Done);
        }
        render::text(&format!("{} records go out again\n", records.len()));
        if records.is_empty() || !agrees(args.yes) {
            return Ok(Exit::Done);
        }
        let ids = records.into_iter().map(|record| record.local_record_id).collect();
        let clock = world.outside()?.clock;
        speak(&world.config, &clock, &words::Asked::Resend(ids))
    })
}

pub(super) fn adjust(common: &Common, args: &AdjustArgs) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        let clock = world.outside()?.clock;
        let store = match Store::open_reader(&world.config.store.path) {
            Ok(store) => Some(store),
            Err(StoreError::Absent { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let about = match (&args.about, &store) {
            (Some(id), Some(store)) => store.amie_by_id(id)?.into_iter().next(),
            _ => None,
        };
        if let (Some(id), None) = (&args.about, &about) {
            return Err(AgentError::Asked(format!("the ledger has no record {id}")));
        }
        let record = adjustment(&world.config, args, about.as_ref(), clock.now())?;
        if let Some(fault) = record.fault() {
            return Err(AgentError::Asked(fault));
        }
        if let Some(store) = &store
            && !store.amie_by_id(&record.local_record_id)?.is_empty()
        {
            let id = &record.local_record_id;
            return Err(AgentError::Asked(format!(
                "{id} was made already: nothing is adjusted twice for one cause; see amie records --id {id}"
            )));
        }
        show_messages(section(&world.config)?, std::slice::from_ref(&record));
        if args.dry_run || !agrees(args.yes) {
            return Ok(Exit::Done);
        }
        speak(&world.config, &clock, &words::Asked::Adjust(vec![record]))
    })
}

fn adjustment(
    config: &Config,
    args: &AdjustArgs,
    about: Option<&AmieRow>,
    now: Epoch,
) -> Result<Record, AgentError> {
    let adjustment_type = args.kind.meaning();
    let of = |given: &Option<String>, known: fn(&Record) -> &String| {
        given.clone().or_else(|| about.map(|row| known(&row.record).clone())).unwrap_or_default()
    };
    let charge = of(&args.charge, |record| &record.charge);
    let exact = Exact::parse(&charge).map_err(|error| AgentError::Asked(error.to_string()))?;
    let submitted = about.and_then(|row| match &row.record.detail {
        Detail::Compute(compute) => Some(compute.submit),
        _ => None,
    });
    let local_record_id = match (&args.about, adjustment_type) {
        (Some(id), AdjustmentType::Refund) => refund_id(id),
        (Some(id), other) => format!("{id}.{}", other.as_str()),
        (None, _) => format!("{}.adjust.{}", config.cluster.name, uuid::Uuid::new_v4().simple()),
    };
    let resource = args.resource.clone().or_else(|| about.map(|row| row.record.resource.clone()));
    Ok(Record {
        local_record_id,
        username: of(&args.user, |record| &record.username),
        local_project_id: of(&args.project, |record| &record.local_project_id),
        resource: resource.map_or_else(|| section(config).map(|amie| amie.resource.clone()), Ok)?,
        charge: charge_text(exact).ok_or_else(|| AgentError::Asked("the charge has no room".into()))?,
        local_reference: about.map(|row| row.record.local_record_id.clone()).unwrap_or_default(),
        detail: Detail::Adjustment(Adjustment {
            adjustment_type,
            start: args.at.or(submitted).unwrap_or(now),
            comment: Some(args.comment.clone()),
        }),
    })
}

pub(super) fn clear(common: &Common, args: &NamedArgs) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        let store = Store::open_reader(&world.config.store.path)?;
        let named = |id: &String| args.ids.contains(id);
        let failures: Vec<_> = store
            .amie_failures()?
            .into_iter()
            .filter(|failure| named(&failure.failed_record_id) || named(&failure.local_record_id))
            .collect();
        let mut ids: Vec<String> =
            failures.iter().map(|failure| failure.local_record_id.clone()).chain(args.ids.clone()).collect();
        ids.sort();
        ids.dedup();
        let mut rows = Vec::new();
        for id in &ids {
            rows.extend(store.amie_by_id(id)?.into_iter().filter(|row| row.state == AmieState::Failed));
        }
        for failure in &failures {
            render::text(&format!(
                "clear {} at the server: {} ({})\n",
                failure.failed_record_id,
                failure.local_record_id,
                render::printable(&failure.error)
            ));
        }
        for row in &rows {
            render::text(&format!(
                "give up {}: {}\n",
                row.record.local_record_id,
                render::printable(&row.error)
            ));
        }
        if failures.is_empty() && rows.is_empty() {
            return Err(AgentError::Asked("none of these failed; see amie failed".into()));
        }
        if args.dry_run || !agrees(args.yes) {
            return Ok(Exit::Done);
        }
        drop(store);
        let config = world.config.clone();
        let outside = world.outside()?;
        let clock = outside.clock.clone();
        if !failures.is_empty() {
            let client = Agent::amie_client(&config, &clock)?;
            let ids: Vec<String> = failures.into_iter().map(|failure| failure.failed_record_id).collect();
            client.clear_failed(&ids).await?;
        }
        if rows.is_empty() {
            return Ok(Exit::Done);
        }
        let ids = rows.into_iter().map(|row| row.record.local_record_id).collect();
        speak(&config, &clock, &words::Asked::GiveUp(ids))
    })
}

pub(super) fn send(common: &Common, args: &SendArgs) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        section(&world.config)?;
        let mut agent = if args.dry_run { world.agent_on_a_copy()? } else { world.agent()? };
        let now = agent.clock.now();
        let mut made = amie::Made::default();
        if args.storage {
            made = amie::collect_storage_again(&mut agent, now).await?;
        }
        let more = amie::make(&mut agent, now).await?;
        made = amie::Made { made: made.made + more.made, findings: more.findings };
        // Standard output is for the messages.
        made.findings.iter().for_each(|finding| tracing::warn!(finding, "finding"));
        if args.dry_run {
            return show_pending(&agent);
        }
        let rows = pending(&agent)?;
        render::text(&format!("{} new versions, {} records to send\n", made.made, rows.len()));
        let delivered = amie::deliver(&mut agent, now).await?;
        let mut trouble = false;
        for (kind, count) in &delivered {
            trouble |= count.failed + count.dead > 0;
            let error = count.error.as_deref().map(render::printable).unwrap_or_default();
            let line = format!(
                "{kind}: {} accepted, {} refused, {} to be tried again {error}",
                count.delivered, count.dead, count.failed
            );
            render::text(&format!("{}\n", line.trim_end()));
        }
        Ok(if trouble { Exit::Attention } else { Exit::Done })
    })
}

/// What is not sent or was not answered.
fn pending(agent: &Agent) -> Result<Vec<AmieRow>, AgentError> {
    let mut rows = Vec::new();
    for state in [AmieState::Sent, AmieState::Pending] {
        let filter = AmieFilter { state: Some(state), ..AmieFilter::default() };
        rows.extend(read(&agent.store, &filter, usize::MAX)?);
    }
    Ok(rows)
}

/// The exact messages that would be sent now.
pub(super) fn show_pending(agent: &Agent) -> Result<Exit, AgentError> {
    let records: Vec<Record> = pending(agent)?.into_iter().map(|row| row.record).collect();
    show_messages(section(&agent.config)?, &records);
    Ok(Exit::Done)
}

pub(super) fn reconcile(common: &Common) -> Result<Exit, AgentError> {
    in_world(common, async |world| {
        section(&world.config)?;
        let mut agent = match world.agent_or_copy()? {
            (agent, true) => agent,
            (agent, false) => {
                render::text("the agent is running and keeps its own ledger: this only shows\n");
                agent
            }
        };
        let now = agent.clock.now();
        let found = amie::read_back(&mut agent, now, true).await?;
        if !found.tells_loaded && found.findings.is_empty() {
            render::text("the server does not tell what it has loaded: records stay accepted\n");
        }
        found
            .findings
            .iter()
            .for_each(|finding| render::text(&format!("! {}\n", render::printable(finding))));
        render::text(&format!(
            "newly loaded {}, newly failed {}, failures cleared {}\n",
            found.loaded, found.failed, found.cleared
        ));
        let filter = AmieFilter { state: Some(AmieState::Accepted), ..AmieFilter::default() };
        let open = read(&agent.store, &filter, usize::MAX)?;
        for row in open.iter().take(20) {
            let accepted = row.accepted.map_or("-".to_owned(), |at| at.to_string());
            let id = &row.record.local_record_id;
            render::text(&format!("{id} was accepted at {accepted} and is not loaded as it was sent\n"));
        }
        let quiet = open.is_empty() && found.findings.is_empty() && found.failed == 0;
        Ok(if quiet { Exit::Done } else { Exit::Attention })
    })
}

pub(super) fn in_world(
    common: &Common,
    act: impl AsyncFnOnce(&mut World) -> Result<Exit, AgentError>,
) -> Result<Exit, AgentError> {
    world::runtime()?.block_on(async {
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let done = act(&mut world).await;
        world.close().await;
        done
    })
}
