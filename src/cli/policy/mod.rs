//! `policy`: every endpoint of Waldur's policy API, for operators.
//!
//! Reads, and writes at the server only: what is changed there reaches Slurm through the daemon's next cycle. It needs
//! no store and works beside the daemon. Unknown values of the server are shown as it sent them.

mod body;
mod chart;
mod confirm;
mod impact;
mod preview;
mod refusal;
mod show;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::world::World;
use super::{Common, log, render, world};
use crate::agent::clock::Clock;
use crate::agent::error::{AgentError, Exit};
use crate::agent::{Central, central};
use crate::central::waldur::WaldurClient;
use crate::core::name::SourceName;
use confirm::Consent;
use refusal::explained;

/// The periodic usage policies at a central server: look at them, change them, try them out.
///
/// What is changed here is changed at the server; accounts in Slurm follow with the daemon's next cycle.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
pub struct PolicyArgs {
    /// Which `[[source]]` of the configuration [default: the only one].
    #[arg(long, global = true, value_name = "NAME", value_parser = source)]
    source: Option<SourceName>,
    #[command(subcommand)]
    verb: PolicyVerb,
}

const AFTER: &str = "\
--json prints what the server answered, unchanged.

create, update, delete, evaluate and force-period-reset change what accounts of other people may do: they ask on the
terminal first. Scripts say --yes; without a terminal and without --yes nothing is done and the exit code is 2. dry-run,
evaluate, force-period-reset and preview --server need the token of a staff user.

Examples:
  slurm-site-agent policy list
  slurm-site-agent policy create --period month --actions request_slurm_resource_downscaling --grace-ratio 0.2
  slurm-site-agent policy update b7d1f0aa2c5e4d7b9e135a0c8f2e6d41 --grace-ratio 0.3
  slurm-site-agent policy preview --allocation 1000 --current-usage 640 --daily-usage-rate 25
  slurm-site-agent policy preview --account bio42
  slurm-site-agent policy logs b7d1f0aa2c5e4d7b9e135a0c8f2e6d41 --resource bio42 --json";

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// The policies of the source's offering.
    ///
    /// Columns: UUID; Offering, whose accounts it is for; Period; Actions (what may happen to accounts); Grace, the tolerated
    /// share above the allocation; Carryover, the most that goes over, `off` without; Fired, whether an account is
    /// restricted by it now; Warnings, which `show` prints.
    List {
        /// Those of every offering that the token may see.
        #[arg(long)]
        all: bool,
    },
    /// One policy with everything the server says of it.
    Show {
        /// Policy.
        uuid: String,
    },
    /// The actions that a policy can have.
    Actions,
    /// Make a policy for the source's offering. Changes what accounts may do.
    ///
    /// Of what is not given the server's defaults hold: no carryover above 50 %, grace 0.2, GrpTRESMins, strategy
    /// threshold, raw usage reset and TRES billing on. It is for all customers unless --organization-group is given. An
    /// offering has one policy at most.
    Create {
        #[command(flatten)]
        body: body::BodyArgs,
        #[command(flatten)]
        consent: Consent,
    },
    /// Change a policy: only what is given, with --replace the whole. Changes what accounts may do.
    Update {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        body: body::BodyArgs,
        /// Replace the policy: what is not given becomes the server's default.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Delete a policy with its history. Changes what accounts may do.
    ///
    /// The agent then leaves the accounts as they are: without a policy there is nothing to decide.
    Delete {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        consent: Consent,
    },
    Preview(preview::PreviewArgs),
    /// What an evaluation would do now. Nothing is changed. Staff only.
    ///
    /// Columns: Resource; %, of the total used; Paused, Downscaled as they are; Would trigger.
    DryRun {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        of: OfResource,
    },
    /// Evaluate at the server now: restricts and releases resources, writes logs. Changes what accounts may do. Staff only.
    Evaluate {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        of: OfResource,
        #[command(flatten)]
        consent: Consent,
    },
    /// Release restricted resources that have room in the current period. Changes what accounts may do. Staff only.
    ForcePeriodReset {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        of: OfResource,
        #[command(flatten)]
        consent: Consent,
    },
    /// Evaluations of a policy, newest first (the server keeps the newest 100 in sight).
    ///
    /// Columns: Evaluated; Resource; Period; %, used; Limit, percentage that blocks; Actions taken; Before and After, the
    /// restrictions; Sent, whether commands were issued; Agent, the agent's verdict.
    Logs {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        of: OfResource,
        /// Only of this billing period, as the server names it: 2026-11, 2026-Q4, 2026, total.
        #[arg(long, value_name = "NAME")]
        billing_period: Option<String>,
    },
    /// Commands that the server issued for a policy, newest first (the server keeps the newest 100 in sight).
    ///
    /// Columns: Issued; Type; Account; Mode and Success, as the agent reported (the server counts a command as done until
    /// a failure is reported); What, for people; Error; UUID.
    Commands {
        /// Policy.
        uuid: String,
        #[command(flatten)]
        of: OfResource,
    },
}

/// One resource of the policy.
#[derive(Debug, Clone, Args)]
struct OfResource {
    /// Only this resource: its uuid, or its account in Slurm.
    #[arg(long, value_name = "UUID|ACCOUNT")]
    resource: Option<String>,
}

impl OfResource {
    /// The resource's uuid; an account is looked up at the server.
    async fn uuid(&self, client: &WaldurClient) -> Result<Option<String>, AgentError> {
        match &self.resource {
            Some(text) if uuid::Uuid::try_parse(text).is_err() => {
                let found = client.fetch_allocations().await.map_err(explained)?.value;
                let found = found.into_iter().find(|allocation| allocation.account.as_str() == text);
                let none = || AgentError::Asked(format!("the server has no resource with account {text:?}"));
                found.map(|allocation| Some(allocation.id)).ok_or_else(none)
            }
            other => Ok(other.clone()),
        }
    }
}

fn source(text: &str) -> Result<SourceName, String> {
    SourceName::parse(text).map_err(|error| error.to_string())
}

/// Does what is asked.
pub fn run(common: &Common, args: &PolicyArgs) -> Result<Exit, AgentError> {
    let runtime = world::runtime()?;
    runtime.block_on(async {
        if let PolicyVerb::Preview(asked) = &args.verb
            && asked.is_from_flags()
            && !common.emulator
        {
            return Ok(preview::from_flags(common, asked, &Clock::System));
        }
        let mut world = World::open(common).await?;
        log::start(&world.config.log);
        let done = on_world(common, args, &mut world).await;
        world.close().await;
        done
    })
}

async fn on_world(common: &Common, args: &PolicyArgs, world: &mut World) -> Result<Exit, AgentError> {
    match &args.verb {
        PolicyVerb::Preview(asked) if asked.is_from_flags() => {
            Ok(preview::from_flags(common, asked, &world.outside()?.clock))
        }
        PolicyVerb::Preview(asked) if !asked.server => {
            preview::from_ledger(common, asked, world, args.source.as_ref()).await
        }
        PolicyVerb::Preview(asked) => {
            let (central, clock) = chosen(args, world)?;
            preview::from_server(common, asked, &central.client, clock.now()).await
        }
        verb => {
            let (central, _) = chosen(args, world)?;
            let client = &central.client;
            let answer = match verb {
                PolicyVerb::Create { .. } | PolicyVerb::Update { .. } | PolicyVerb::Delete { .. } => {
                    write(client, verb).await?
                }
                PolicyVerb::Evaluate { .. } | PolicyVerb::ForcePeriodReset { .. } => {
                    act(client, verb).await?
                }
                reading => read(client, reading).await?,
            };
            print(common, verb, &answer);
            Ok(Exit::Done)
        }
    }
}

/// The source that is meant, and the clock beside it.
fn chosen(args: &PolicyArgs, world: &mut World) -> Result<(Central, Clock), AgentError> {
    let sources: Vec<_> =
        world.config.sources.iter().filter(|source| source.policies().is_some()).cloned().collect();
    let names = || sources.iter().map(|source| source.name.to_string()).collect::<Vec<_>>().join(", ");
    let source = match (&args.source, sources.as_slice()) {
        (_, []) => Err(AgentError::Asked(
            "the configuration has no [[source]] of kind waldur-policy, so there is no server to ask".into(),
        )),
        (None, [only]) => Ok(only),
        (None, _) => Err(AgentError::Asked(format!("say which source: --source with one of {}", names()))),
        (Some(name), all) => all.iter().find(|source| source.name == *name).ok_or_else(|| {
            AgentError::Asked(format!("there is no source {name} in the configuration; it has {}", names()))
        }),
    }?
    .clone();
    let clock = world.outside()?.clock;
    Ok((central(&source, &clock)?, clock))
}

async fn read(client: &WaldurClient, verb: &PolicyVerb) -> Result<Value, AgentError> {
    let answer = match verb {
        PolicyVerb::List { all } => {
            let scope = ("scope_uuid", client.offering().to_owned());
            let filters = if *all { Vec::new() } else { vec![scope] };
            client.list_policies(&filters).await.map(Value::Array)
        }
        PolicyVerb::Show { uuid } => client.retrieve_policy(uuid).await,
        PolicyVerb::DryRun { uuid, of } => client.dry_run(uuid, of.uuid(client).await?.as_deref()).await,
        PolicyVerb::Logs { uuid, of, billing_period } => {
            let resource = of.uuid(client).await?;
            let logs = client.evaluation_logs(uuid, resource.as_deref(), billing_period.as_deref());
            logs.await.map(Value::Array)
        }
        PolicyVerb::Commands { uuid, of } => {
            let resource = of.uuid(client).await?;
            let found = client.fetch_commands(uuid, resource.as_deref()).await;
            found.map(|found| Value::Array(found.raw))
        }
        _ => client.available_actions().await,
    };
    answer.map_err(explained)
}

async fn write(client: &WaldurClient, verb: &PolicyVerb) -> Result<Value, AgentError> {
    match verb {
        PolicyVerb::Create { body, consent } => {
            consent.is_open()?;
            let body = body.new_policy(client)?;
            consent.ask(&format!(
                "A new policy for offering {}:\n{}",
                client.offering(),
                show::body(&Value::Object(body.clone()))
            ))?;
            client.create_policy(&Value::Object(body)).await.map_err(explained)
        }
        PolicyVerb::Update { uuid, body, replace, consent } => {
            let body = if *replace { body.new_policy(client)? } else { body.changes()? };
            if consent.is_open()? {
                let present = client.retrieve_policy(uuid).await.map_err(explained)?;
                consent.ask(&format!("Policy {uuid} changes:\n{}", show::changes(&present, &body)))?;
            }
            let body = Value::Object(body);
            let saved = match replace {
                true => client.update_policy(uuid, &body).await,
                false => client.partial_update_policy(uuid, &body).await,
            };
            saved.map_err(explained)
        }
        PolicyVerb::Delete { uuid, consent } => {
            if consent.is_open()? {
                let present = client.retrieve_policy(uuid).await.map_err(explained)?;
                consent.ask(&format!(
                    "Policy {uuid} is deleted with its history:\n{}",
                    show::policies(std::slice::from_ref(&present))
                ))?;
            }
            client.delete_policy(uuid).await.map_err(explained)?;
            Ok(json!({"uuid": uuid, "deleted": true}))
        }
        _ => Ok(Value::Null),
    }
}

/// Evaluation and reset; a person sees the dry run before.
async fn act(client: &WaldurClient, verb: &PolicyVerb) -> Result<Value, AgentError> {
    let (PolicyVerb::Evaluate { uuid, of, consent } | PolicyVerb::ForcePeriodReset { uuid, of, consent }) =
        verb
    else {
        return Ok(Value::Null);
    };
    let resource = of.uuid(client).await?;
    let resource = resource.as_deref();
    if consent.is_open()? {
        let foreseen = client.dry_run(uuid, resource).await.map_err(explained)?;
        consent.ask(&format!("Now:\n{}", show::dry_run(&foreseen)))?;
    }
    let done = match verb {
        PolicyVerb::ForcePeriodReset { .. } => client.force_period_reset(uuid, resource).await,
        _ => client.evaluate(uuid, resource).await,
    };
    done.map_err(explained)
}

fn print(common: &Common, verb: &PolicyVerb, answer: &Value) {
    if common.json {
        return render::json(answer);
    }
    let rows = || answer.as_array().map(Vec::as_slice).unwrap_or_default();
    render::text(&match verb {
        PolicyVerb::List { .. } => show::policies(rows()),
        PolicyVerb::Actions => show::lines(rows()),
        PolicyVerb::DryRun { .. } => show::dry_run(answer),
        PolicyVerb::Evaluate { .. } | PolicyVerb::ForcePeriodReset { .. } => show::evaluated(answer),
        PolicyVerb::Logs { .. } => show::logs(rows()),
        PolicyVerb::Commands { .. } => show::commands(rows()),
        PolicyVerb::Delete { uuid, .. } => format!("policy {uuid} is deleted\n"),
        PolicyVerb::Show { .. }
        | PolicyVerb::Create { .. }
        | PolicyVerb::Update { .. }
        | PolicyVerb::Preview(_) => show::policy(answer),
    });
}
