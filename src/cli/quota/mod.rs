//! `quota`: the quotas of Waldur, Nomad and DataRobot, for operators.
//!
//! Reads, and writes at the server only: what is changed there reaches Slurm through the daemon. It needs no store and
//! works beside the daemon. One file per kind of source; each says what it cannot do and what can.

mod amounts;
mod budget;
mod change;
mod chart;
mod concurrency;
mod local;
mod rate;
mod view;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::consent::Consent;
use super::refusal::explained;
use super::world::World;
use super::{Common, log, render, world};
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, Exit, chain};
use crate::agent::quotas::{QuotaClient, server};
use crate::config::{Config, LOCAL_SOURCE, LocalQuota, Source, SourceKind};
use crate::core::name::SourceName;
use budget::Budgets;
use change::SetArgs;
use chart::HistoryArgs;
use concurrency::Concurrencies;
use local::on_local;
use rate::Rates;
use view::Listed;

/// The quotas of Waldur, Nomad and DataRobot: look at them, change them, see how they were.
///
/// What is changed here is changed at the server; accounts in Slurm follow through the daemon.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
pub struct QuotaArgs {
    /// Which `[[source]]` of the configuration, or `local` for its `[[quota]]` [default: the only one with quotas; `list` takes all
    /// of them].
    #[arg(long, global = true, value_name = "NAME", value_parser = source_name)]
    source: Option<SourceName>,
    #[command(subcommand)]
    verb: QuotaVerb,
}

const AFTER: &str = "\
WHAT is a quota as its server names it (a uuid at Waldur, a name at Nomad, an id or a deployment at DataRobot), or the
account in Slurm that it is for.

set, delete and apply-template change what accounts of other people may do: they show the change and ask on the terminal
first. Scripts say --yes; without a terminal and without --yes nothing is done and the exit code is 2.

Examples:
  slurm-site-agent quota list
  slurm-site-agent quota set bio42 --source waldur --limit 120000 --threshold 100000
  slurm-site-agent quota history bio42 --source waldur --last 30days
  slurm-site-agent quota set research --source nomad --cores 64 --device nvidia/gpu=4
  slurm-site-agent quota set bio42 --source datarobot --rule token=600/hour --consumer user:alice
  slurm-site-agent quota apply-template small bio42 --source datarobot
  slurm-site-agent quota list --json | jq '.sources[].quotas[].account'";

#[derive(Debug, Subcommand)]
enum QuotaVerb {
    /// The quotas of accounts on this cluster, source by source.
    ///
    /// Columns, Waldur: UUID; Name; Account; TRES; Limit, Usage, Threshold in the unit of the heading; %, of the limit used.
    /// Nomad: Name; Region; Pool, a node pool of it; Account; Cores, CPU, Memory, Devices: in use / limit.
    /// DataRobot: ID; Resource; Account; Consumer, `default` for those without rules of their own; Reserved, its share under
    /// saturation; Rules; Capacity per minute; Saturation, the share of it from where on reserved shares count.
    /// Local, `[[quota]]` of the configuration: User, `*` for every user by itself; the others as DataRobot's.
    List {
        /// Also those that mean nothing on this cluster.
        #[arg(long)]
        all: bool,
    },
    /// Quotas with everything that is known of them.
    Show {
        /// Quota or account.
        what: String,
    },
    Set(Box<SetArgs>),
    History(HistoryArgs),
    /// Delete a quota. Changes what accounts may do. Nomad and DataRobot.
    ///
    /// The agent then takes its limits off the account where no other source has one.
    Delete {
        /// Quota or account.
        what: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// The templates of rules, or one of them. DataRobot.
    Templates {
        /// Id or name of one.
        template: Option<String>,
    },
    /// Make the rules of a template the default rules of a quota. Changes what accounts may do. DataRobot.
    ///
    /// Rules of single consumers stay as they are.
    ApplyTemplate {
        /// Id or name of the template.
        template: String,
        /// Quota or account.
        what: String,
        #[command(flatten)]
        consent: Consent,
    },
}

fn source_name(text: &str) -> Result<SourceName, String> {
    SourceName::parse(text).map_err(|error| error.to_string())
}

/// Does what is asked.
pub fn run(common: &Common, args: &QuotaArgs) -> Result<Exit, AgentError> {
    world::runtime()?.block_on(async {
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let done = on_world(common, args, &mut world).await;
        world.close().await;
        done
    })
}

async fn on_world(common: &Common, args: &QuotaArgs, world: &mut World) -> Result<Exit, AgentError> {
    let clock = world.outside()?.clock;
    let origins = Origin::all(&world.config);
    if let QuotaVerb::List { .. } = args.verb {
        let chosen = match &args.source {
            None if !origins.is_empty() => origins,
            asked => vec![one_of(&origins, asked.as_ref())?],
        };
        return list(common, &chosen, &args.verb, &clock).await;
    }
    let answer = one_of(&origins, args.source.as_ref())?.answer(&args.verb, &clock, common).await?;
    if common.json {
        render::json(&answer.json);
    } else {
        render::text(&answer.text);
        complain(&answer.notices);
    }
    Ok(Exit::Done)
}

/// Where quotas are.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// At the server of a `[[source]]`.
    Server(&'a Source),
    /// In the configuration itself: `[[quota]]`.
    Local(&'a [LocalQuota]),
}

impl<'a> Origin<'a> {
    /// Those of a configuration, its own ones last.
    fn all(config: &'a Config) -> Vec<Origin<'a>> {
        let servers = config.sources.iter().filter(|source| source.policies().is_none()).map(Origin::Server);
        let local = (!config.quotas.is_empty()).then_some(Origin::Local(&config.quotas));
        servers.chain(local).collect()
    }

    fn name(self) -> &'a str {
        match self {
            Origin::Server(source) => source.name.as_str(),
            Origin::Local(_) => LOCAL_SOURCE,
        }
    }

    async fn answer(self, verb: &QuotaVerb, clock: &Clock, common: &Common) -> Result<Listed, AgentError> {
        match self {
            Origin::Server(source) => on_source(source, verb, clock, common).await,
            Origin::Local(quotas) => on_local(quotas, verb),
        }
    }
}

/// The one that is meant: where none is named, the only server, or the configuration where there is no server.
fn one_of<'a>(origins: &[Origin<'a>], asked: Option<&SourceName>) -> Result<Origin<'a>, AgentError> {
    let names = || origins.iter().map(|origin| origin.name()).collect::<Vec<_>>().join(", ");
    let servers: Vec<Origin<'a>> =
        origins.iter().filter(|origin| matches!(origin, Origin::Server(_))).copied().collect();
    match (asked, origins, servers.as_slice()) {
        (_, [], _) => Err(AgentError::Asked(
            "the configuration has no [[source]] of kind waldur-quota, nomad or datarobot and no [[quota]], so there is no quota \
             to ask for"
                .into(),
        )),
        (None, [only], _) | (None, _, [only]) => Ok(*only),
        (None, ..) => Err(AgentError::Asked(format!("say which source: --source with one of {}", names()))),
        (Some(name), all, _) => {
            all.iter().find(|origin| origin.name() == name.as_str()).copied().ok_or_else(|| {
                AgentError::Asked(format!(
                    "there is no source of quotas {name} in the configuration; it has {}",
                    names()
                ))
            })
        }
    }
}

/// Every source that can be asked is shown, whatever the others do.
async fn list(
    common: &Common,
    origins: &[Origin<'_>],
    verb: &QuotaVerb,
    clock: &Clock,
) -> Result<Exit, AgentError> {
    let (mut shown, mut failed) = (Vec::new(), None);
    for origin in origins {
        match origin.answer(verb, clock, common).await {
            Ok(listed) => {
                if !common.json {
                    render::text(&listed.text);
                    complain(&listed.notices);
                }
                shown.push(listed.json);
            }
            Err(error) => {
                let Origin::Server(source) = origin else { return Err(error) };
                shown.push(
                    json!({"source": source.name, "kind": source.kind.as_str(), "error": chain(&error)}),
                );
                match failed.replace(error) {
                    Some(earlier) if !common.json => render::remark(&chain(&earlier)),
                    _ => {}
                }
            }
        }
    }
    if common.json {
        render::json(&json!({"sources": shown}));
    }
    failed.map_or(Ok(Exit::Done), Err)
}

/// What was not understood, on standard error.
fn complain(notices: &[String]) {
    notices.iter().for_each(|notice| render::remark(notice));
}

async fn on_source(
    source: &Source,
    verb: &QuotaVerb,
    clock: &Clock,
    common: &Common,
) -> Result<Listed, AgentError> {
    let unable = || AgentError::Asked(format!("source {} has policies and no quotas", source.name));
    let server = server(source, clock)?.ok_or_else(unable)?;
    match (&server.client, &source.kind) {
        (QuotaClient::Budget(client), SourceKind::WaldurQuota(map)) => {
            let budgets = Budgets { source, client, map };
            match verb {
                QuotaVerb::List { all } => budgets.list(*all).await,
                QuotaVerb::Show { what } => budgets.show(what).await,
                QuotaVerb::Set(args) => budgets.set(args).await,
                QuotaVerb::History(args) => budgets.history(args, clock.now(), common.json).await,
                _ => Err(not_here(source, verb)),
            }
        }
        (QuotaClient::Concurrency(client), SourceKind::Nomad(nomad)) => {
            let concurrencies = Concurrencies { source, client, nomad };
            match verb {
                QuotaVerb::List { all } => concurrencies.list(*all).await,
                QuotaVerb::Show { what } => concurrencies.show(what).await,
                QuotaVerb::Set(args) => concurrencies.set(args).await,
                QuotaVerb::Delete { what, consent } => concurrencies.delete(what, consent).await,
                _ => Err(not_here(source, verb)),
            }
        }
        (QuotaClient::Rate(client), SourceKind::DataRobot(map)) => {
            let rates = Rates { source, client, map };
            match verb {
                QuotaVerb::List { all } => rates.list(*all).await,
                QuotaVerb::Show { what } => rates.show(what).await,
                QuotaVerb::Set(args) => rates.set(args).await,
                QuotaVerb::Delete { what, consent } => rates.delete(what, consent).await,
                QuotaVerb::Templates { template } => rates.templates(template.as_deref()).await,
                QuotaVerb::ApplyTemplate { template, what, consent } => {
                    rates.apply(template, what, consent).await
                }
                QuotaVerb::History(_) => Err(not_here(source, verb)),
            }
        }
        _ => Err(unable()),
    }
}

/// What is said where quotas have no past.
const NO_HISTORY: &str = "only Waldur keeps how quotas were; `usage` shows what the agent itself has counted";

/// What a kind of server does not have, and who has it.
fn not_here(source: &Source, verb: &QuotaVerb) -> AgentError {
    let reason = match verb {
        QuotaVerb::History(_) => NO_HISTORY,
        QuotaVerb::Delete { .. } => {
            "its quotas go with the objects they are of; `quota set` can make one unlimited"
        }
        _ => "only DataRobot has templates",
    };
    AgentError::Asked(format!("source {} is of kind {}: {reason}", source.name, source.kind.as_str()))
}

/// Nothing fits what was asked for.
fn nothing(source: &str, what: &str) -> AgentError {
    AgentError::Asked(format!(
        "source {source} has no quota {what:?} and none for an account of this name; look with `quota list --all --source {source}`"
    ))
}

/// The only one of what fits.
fn only<T>(
    source: &Source,
    what: &str,
    mut found: Vec<T>,
    id: impl Fn(&T) -> String,
) -> Result<T, AgentError> {
    match (found.pop(), found.len()) {
        (None, _) => Err(nothing(source.name.as_str(), what)),
        (Some(one), 0) => Ok(one),
        (Some(last), _) => {
            let ids: Vec<String> = found.iter().chain([&last]).map(id).collect();
            Err(AgentError::Asked(format!(
                "{what} has {} quotas at source {}; say which: {}",
                ids.len(),
                source.name,
                ids.join(", ")
            )))
        }
    }
}

/// What a changing verb says when nothing changes.
fn unchanged(what: &str, json: Value) -> Listed {
    Listed { text: format!("{what} is like this already; nothing was sent\n"), json, notices: Vec::new() }
}

/// The server has another quota than the one that was shown.
fn moved(what: &str) -> AgentError {
    AgentError::Asked(format!(
        "{what} was changed by somebody else meanwhile: nothing was done; look at it again"
    ))
}
