//! What `quota set` can be told, and which kind of source takes it.

use clap::Args;

use super::amounts::{self, RuleName, Share};
use super::{AgentError, Consent, Source};
use crate::config::SourceKind;
use crate::core::exact::Exact;
use crate::core::quota::{Bound, Consumer, Rule};

/// Change a quota: only what is given. Changes what accounts may do.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
pub struct SetArgs {
    /// Quota or account.
    pub what: String,
    /// Waldur: the budget, in the unit that `list` shows, or `unlimited`.
    #[arg(long, value_name = "N|unlimited", value_parser = amounts::bound)]
    pub limit: Option<Bound>,
    /// Waldur: from where on people are told; 0 when nobody is to be.
    #[arg(long, value_name = "N", value_parser = amounts::amount)]
    pub threshold: Option<Exact>,
    /// Nomad: the region that the amounts are for [default: the source's].
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Nomad: cores at one time; a number, `unlimited` or `none`.
    #[arg(long, value_name = "N", value_parser = amounts::at_one_time)]
    pub cores: Option<Bound>,
    /// Nomad: CPU at one time, in MHz.
    #[arg(long, value_name = "MHZ", value_parser = amounts::at_one_time)]
    pub cpu: Option<Bound>,
    /// Nomad: memory at one time, in MiB.
    #[arg(long, value_name = "MIB", value_parser = amounts::at_one_time)]
    pub memory: Option<Bound>,
    /// Nomad: devices at one time, such as nvidia/gpu=2; `=unlimited` takes the limit away. Repeatable.
    #[arg(long, value_name = "NAME=COUNT", value_parser = amounts::device)]
    pub device: Vec<(String, Option<u64>)>,
    /// Nomad: what people read.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Nomad: make the quota; it must not be there yet.
    #[arg(long)]
    pub create: bool,
    /// DataRobot: a rule, such as token=600/hour or concurrentRequests=10; others stay. Repeatable.
    #[arg(long, value_name = "RULE=LIMIT[/WINDOW]", value_parser = amounts::rule)]
    pub rule: Vec<Rule>,
    /// DataRobot: a rule that goes. Repeatable.
    #[arg(long, value_name = "RULE[/WINDOW]", value_parser = amounts::rule_name)]
    pub no_rule: Vec<RuleName>,
    /// DataRobot: whose rules, instead of the default ones. One without rules of its own begins with the default ones.
    #[arg(long, value_name = "KIND:ID", value_parser = amounts::consumer)]
    pub consumer: Option<Consumer>,
    /// DataRobot: the consumer has no rules of its own any more; the default ones hold.
    #[arg(long, requires = "consumer", conflicts_with_all = ["rule", "no_rule", "reserved"])]
    pub no_policy: bool,
    /// DataRobot: the consumer's share of the capacity under saturation, or `none`.
    #[arg(long, value_name = "SHARE|none", value_parser = amounts::share, requires = "consumer")]
    pub reserved: Option<Share>,
    /// DataRobot: share of the capacity from where on reserved shares count, or `none`.
    #[arg(long, value_name = "SHARE|none", value_parser = amounts::share)]
    pub saturation: Option<Share>,
    #[command(flatten)]
    pub consent: Consent,
}

const AFTER: &str = "\
The change is shown as Field, Now, Then before it is made.

Examples:
  slurm-site-agent quota set bio42 --source waldur --limit 120000 --threshold 100000
  slurm-site-agent quota set research --source nomad --cores 64 --memory unlimited --device nvidia/gpu=4
  slurm-site-agent quota set bio42 --source datarobot --rule requests=3/min --no-rule token
  slurm-site-agent quota set bio42 --source datarobot --consumer user:alice --reserved 0.25";

/// What the kinds of sources take.
const BUDGET: &str = "--limit and --threshold";
const CONCURRENCY: &str = "--region, --cores, --cpu, --memory, --device, --description and --create";
const RATE: &str = "--rule, --no-rule, --consumer, --no-policy, --reserved and --saturation";

impl SetArgs {
    /// What is given, by the kinds that take it.
    fn given(&self) -> [(bool, &'static str); 3] {
        let budget = self.limit.is_some() || self.threshold.is_some();
        let amounts = self.cores.is_some() || self.cpu.is_some() || self.memory.is_some();
        let concurrency = amounts
            || !self.device.is_empty()
            || self.region.is_some()
            || self.description.is_some()
            || self.create;
        let rate = !self.rule.is_empty()
            || !self.no_rule.is_empty()
            || self.consumer.is_some()
            || self.saturation.is_some();
        [(budget, BUDGET), (concurrency, CONCURRENCY), (rate, RATE)]
    }

    /// Refuses what is not for this kind of source, and a change of nothing.
    pub fn check(&self, source: &Source) -> Result<(), AgentError> {
        let own = match &source.kind {
            SourceKind::WaldurQuota(_) => BUDGET,
            SourceKind::Nomad(_) => CONCURRENCY,
            _ => RATE,
        };
        let (name, kind) = (&source.name, source.kind.as_str());
        let foreign = self.given().into_iter().find(|(given, words)| *given && *words != own);
        if let Some((_, words)) = foreign {
            return Err(AgentError::Asked(format!(
                "{words} are not for source {name}, which is of kind {kind} and takes {own}"
            )));
        }
        if self.given().iter().all(|(given, _)| !given) {
            return Err(AgentError::Asked(format!(
                "say what to set: source {name} is of kind {kind} and takes {own}"
            )));
        }
        Ok(())
    }
}
