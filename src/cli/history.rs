//! `history`: what was decided, changed, commanded and not delivered, in one order of time.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{Common, account, configuration, render};
use crate::agent::error::{AgentError, Exit};
use crate::config::Config;
use crate::core::name::AccountName;
use crate::core::plan::{Because, Change, Outcome};
use crate::core::report::{BackendMetadata, ComponentUsage, Message};
use crate::core::time::Epoch;
use crate::store::{FailedDelivery, InboxCommand, Intent, LoggedDecision, MessageState, Snapshot, Store};

/// Show what was decided, changed, commanded and not delivered, newest first.
///
/// Reads the store only: it works beside the daemon, without Slurm and without a server. Entries are kept for
/// store.keep_history.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = AFTER)]
pub struct HistoryArgs {
    /// Only what concerns this account.
    #[arg(long, value_name = "NAME", value_parser = account)]
    account: Option<AccountName>,
    /// Most entries.
    #[arg(long, value_name = "N", default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

const AFTER: &str = "\
Columns:
  Time      of a decision: when it became another one; of a change: when it was about to be run; of a command: of its
            verdict, while it has none: when it was received; of a delivery: its last try
  Kind      decision, change (a sacctmgr process), command (of a server), delivery (a failed one)
  Account   whom it concerns
  Outcome   decision: the level, or undecided; change: applied, already in effect, refused, unknown, open;
            command: done, failed, refused, superseded, pending, adopted (older than this agent); delivery: waiting, dead
  What      the decision, the program as typed, what was asked, which message
  Why       the rule, Slurm's or the server's words

Examples:
  slurm-site-agent history --limit 20
  slurm-site-agent history --account bio42
  slurm-site-agent history --json | jq '.entries[] | select(.kind == \"change\" and .outcome == \"refused\")'";

/// Entries when nobody says otherwise.
const LIMIT: u32 = 50;
/// Commands and failed deliveries that are searched for those of one account.
const SEARCHED_MAX: usize = 100_000;

/// What kind of thing happened, in the order of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A decision became another one.
    Decision,
    /// A sacctmgr process.
    Change,
    /// A command of a server.
    Command,
    /// A delivery that failed.
    Delivery,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Decision => "decision",
            Kind::Change => "change",
            Kind::Command => "command",
            Kind::Delivery => "delivery",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub at: Epoch,
    /// What kind.
    pub kind: Kind,
    /// Whom it concerns.
    pub accounts: Vec<String>,
    /// How it ended, in one word.
    pub outcome: String,
    /// What it was.
    pub what: String,
    /// Why, or whose words.
    pub why: String,
}

/// The verb's answer. Its JSON is the verb's `--json`.
#[derive(Debug, Serialize)]
pub struct History {
    /// Newest first.
    pub entries: Vec<Entry>,
}

/// Prints the history.
pub fn run(common: &Common, args: &HistoryArgs) -> Result<Exit, AgentError> {
    let config = configuration(common)?;
    let store = Store::open_reader(&config.store.path)?;
    let history = gather(&config, &store, args.account.as_ref(), args.limit as usize)?;
    if common.json {
        render::json(&history);
    } else {
        render::text(&show(&history));
    }
    Ok(Exit::Done)
}

/// The newest entries of all kinds together.
pub fn gather(
    config: &Config,
    store: &Store,
    only: Option<&AccountName>,
    limit: usize,
) -> Result<History, AgentError> {
    let failed = store.failed_deliveries(if only.is_some() { SEARCHED_MAX } else { limit })?;
    let search = only.is_some() || failed.iter().any(|f| matches!(f.message, Message::CommandResult(_)));
    let commands = store.commands(if search { SEARCHED_MAX } else { limit })?;
    let places = Places::read(config, store, &commands)?;
    let is_wanted =
        |entry: &Entry| only.is_none_or(|only| entry.accounts.iter().any(|name| name == only.as_str()));
    let mut entries: Vec<Entry> = store.decisions(only, limit)?.iter().flat_map(decisions).collect();
    entries.extend(store.history(limit, only)?.iter().map(change));
    entries.extend(commands.iter().map(command).filter(is_wanted));
    entries.extend(failed.iter().map(|failed| delivery(failed, &places)).filter(is_wanted));
    // Of the same second, what comes later in a cycle stands above: the verdict above the change above the decision.
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.at, entry.kind)));
    entries.truncate(limit);
    Ok(History { entries })
}

/// Which account a message speaks of.
struct Places<'a> {
    snapshots: Vec<Snapshot>,
    commands: &'a [InboxCommand],
}

impl<'a> Places<'a> {
    fn read(
        config: &'a Config,
        store: &Store,
        commands: &'a [InboxCommand],
    ) -> Result<Places<'a>, AgentError> {
        let mut snapshots = Vec::new();
        for source in &config.sources {
            snapshots.extend(store.snapshot(&source.name)?.map(|(snapshot, _)| snapshot));
        }
        Ok(Places { snapshots, commands })
    }

    fn accounts(&self, message: &Message) -> Vec<String> {
        match message {
            Message::CommandResult(result) => {
                let command = self.commands.iter().find(|known| known.command.uuid == result.command);
                command.map(|known| known.command.account_text.to_ascii_lowercase()).into_iter().collect()
            }
            Message::ComponentUsage(ComponentUsage { allocation: id, .. })
            | Message::BackendMetadata(BackendMetadata { allocation: id, .. }) => {
                let all = self.snapshots.iter().flat_map(|snapshot| &snapshot.allocations);
                let own = all.filter(|allocation| allocation.id == *id);
                own.map(|allocation| allocation.account.to_string()).take(1).collect()
            }
        }
    }
}

/// One entry for each policy of the account.
fn decisions(logged: &LoggedDecision) -> Vec<Entry> {
    let bodies = logged.body.as_array().into_iter().flatten();
    bodies.map(|body| decision(logged, body)).collect()
}

fn decision(logged: &LoggedDecision, body: &Value) -> Entry {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let undecided = body.get("undecided").is_some();
    let what = if undecided {
        format!("{}: what is in force stays in force", text("source"))
    } else {
        let fairshare = body.get("fairshare").map(Value::to_string).unwrap_or_default();
        format!(
            "{} {}: effect {}, QOS {}, fairshare {fairshare}, total {}{}",
            text("source"),
            text("period"),
            text("effect"),
            text("qos"),
            text("total"),
            limits(body)
        )
    };
    Entry {
        at: logged.at,
        kind: Kind::Decision,
        accounts: vec![logged.account.to_string()],
        outcome: if undecided { "undecided".to_owned() } else { text("level") },
        what,
        why: text("undecided"),
    }
}

/// The limits of a logged decision as sacctmgr writes them.
fn limits(body: &Value) -> String {
    let kinds = body.get("limits").and_then(Value::as_object).into_iter().flatten();
    let one = |(kind, values): (&String, &Value)| {
        let values = values.as_object().into_iter().flatten();
        let list: Vec<String> = values.map(|(tres, value)| format!("{tres}={value}")).collect();
        if list.is_empty() { String::new() } else { format!(", {kind} {}", list.join(",")) }
    };
    kinds.map(one).collect()
}

fn change(intent: &Intent) -> Entry {
    let accounts = match &intent.change.change {
        Change::Accounts { accounts, .. } | Change::Users { accounts, .. } => {
            accounts.iter().map(ToString::to_string).collect()
        }
        Change::User { account, .. } | Change::ResetRawUsage { account, .. } => vec![account.to_string()],
    };
    let (outcome, words) = match &intent.outcome {
        None => ("open", ""),
        Some(Outcome::Applied) => ("applied", ""),
        Some(Outcome::AlreadyInEffect) => ("already in effect", ""),
        Some(Outcome::Refused { reason }) => ("refused", reason.as_str()),
        Some(Outcome::Unknown { reason }) => ("unknown", reason.as_str()),
    };
    let because = |because: &Because| format!("{}: {}", because.account, because.text);
    let mut why: Vec<String> = std::iter::once(words.to_owned()).filter(|words| !words.is_empty()).collect();
    for line in intent.change.because.iter().map(because) {
        if !why.contains(&line) {
            why.push(line);
        }
    }
    Entry {
        at: intent.at,
        kind: Kind::Change,
        accounts,
        outcome: outcome.to_owned(),
        what: intent.argv.join(" "),
        why: why.join("; "),
    }
}

fn command(known: &InboxCommand) -> Entry {
    let command = &known.command;
    Entry {
        at: known.settled.unwrap_or(known.received),
        kind: Kind::Command,
        accounts: vec![command.account_text.to_ascii_lowercase()],
        outcome: format!("{:?}", known.state).to_lowercase(),
        what: format!(
            "{} of {} issued {}: {}",
            command.kind.type_name(),
            command.source,
            command.issued,
            command.description
        ),
        why: known.verdict.as_ref().map(|verdict| verdict.error.clone()).unwrap_or_default(),
    }
}

fn delivery(failed: &FailedDelivery, places: &Places<'_>) -> Entry {
    let state = if failed.state == MessageState::Dead { "dead" } else { "waiting" };
    Entry {
        at: failed.tried.unwrap_or(Epoch(0)),
        kind: Kind::Delivery,
        accounts: places.accounts(&failed.message),
        outcome: state.to_owned(),
        what: format!("{}, {} tries", failed.message.key(), failed.attempts),
        why: failed.error.clone(),
    }
}

/// The history for people.
pub fn show(history: &History) -> String {
    if history.entries.is_empty() {
        return "nothing has happened yet\n".to_owned();
    }
    let row = |entry: &Entry| {
        vec![
            entry.at.to_string(),
            entry.kind.as_str().to_owned(),
            entry.accounts.join(","),
            entry.outcome.clone(),
            entry.what.clone(),
            entry.why.clone(),
        ]
    };
    render::table(
        "",
        &["Time", "Kind", "Account", "Outcome", "What", "Why"],
        history.entries.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::association::Assignments;
    use crate::core::command::{Command, CommandKind, CommandState, Verdict};
    use crate::core::name::{Names, SourceName};
    use crate::core::plan::PlannedChange;
    use crate::core::report::{CommandResult, MessageKind};

    fn account(name: &str) -> AccountName {
        AccountName::parse(name).unwrap()
    }

    /// A cycle at second 100 for bio and one at second 200 for chem: decision, change, command; one verdict was not told.
    fn filled(store: &mut Store) {
        for (at, name) in [(100, "bio"), (200, "chem")] {
            let body = json!([{"source": "waldur", "policy": "p", "period": "2026-11", "level": "slowdown",
                "effect": "slowdown", "qos": "slow", "fairshare": 7, "total": "1/3",
                "limits": {"GrpTRESMins": {"cpu": 60, "mem": 5}}}]);
            store.put_decisions(Epoch(at), 1, &[(account(name), body)], 0).unwrap();
            let set = Assignments { fairshare: Some(7), ..Assignments::default() };
            let change = PlannedChange {
                change: Change::Accounts { accounts: Names::one(account(name)), set },
                because: vec![Because {
                    account: account(name),
                    source: SourceName::parse("waldur").unwrap(),
                    text: "the rule".into(),
                }],
            };
            let argv = ["sacctmgr".to_owned(), format!("name={name}")];
            let id = store.put_intent(&change, &argv, None, Epoch(at)).unwrap();
            let refused = Outcome::Refused { reason: "Permission denied".into() };
            store.settle_intent(id, &refused, &[], &[], Epoch(at)).unwrap();
            let command = Command {
                uuid: format!("uuid-{name}"),
                source: SourceName::parse("waldur").unwrap(),
                policy: "p".into(),
                account_text: name.to_ascii_uppercase(),
                issued: Epoch(at - 10),
                issued_ns: 0,
                description: "Set fairshare".into(),
                kind: CommandKind::Fairshare { fairshare: 7 },
            };
            store.receive(std::slice::from_ref(&command), Epoch(at)).unwrap();
            let verdict =
                Verdict { state: CommandState::Failed, error: "not in effect".into(), commands: vec![] };
            let message = Message::CommandResult(CommandResult {
                command: command.uuid.clone(),
                source: command.source.clone(),
                policy: "p".into(),
                allocation: Some("r".into()),
                success: false,
                error: "not in effect".into(),
                mode: crate::core::command::Mode::Production,
                commands: Vec::new(),
            });
            store.settle_command(&command.uuid, &verdict, Some(&message), Epoch(at)).unwrap();
        }
        let delivery = store.acquire(MessageKind::CommandResult, Epoch(300), 1).unwrap().remove(0);
        store.failed(&delivery, "status 400", None).unwrap();
    }

    #[test]
    fn all_that_happened_stands_in_one_order_of_time_and_can_be_cut_to_an_account() {
        let place = tempfile::tempdir().unwrap();
        let mut store = Store::open(&place.path().join("state.db")).unwrap();
        filled(&mut store);
        let config = crate::config::parse("[cluster]\nname = \"lab\"\n", "test.toml").unwrap();
        let lines = |only: Option<&str>, limit| -> Vec<String> {
            let only = only.map(account);
            let history = gather(&config, &store, only.as_ref(), limit).unwrap();
            let line = |e: &Entry| format!("{} {:?} {} {}", e.at.0, e.kind, e.accounts.join(","), e.outcome);
            history.entries.iter().map(line).collect()
        };
        assert_eq!(
            lines(None, 50),
            [
                "300 Delivery bio dead",
                "200 Command chem failed",
                "200 Change chem refused",
                "200 Decision chem slowdown",
                "100 Command bio failed",
                "100 Change bio refused",
                "100 Decision bio slowdown",
            ]
        );
        assert_eq!(lines(None, 2), ["300 Delivery bio dead", "200 Command chem failed"]);
        assert_eq!(
            lines(Some("bio"), 3),
            ["300 Delivery bio dead", "100 Command bio failed", "100 Change bio refused"]
        );
        assert_eq!(lines(Some("nobody"), 50), [] as [String; 0]);
    }

    #[test]
    fn an_entry_tells_what_it_was_and_why() {
        let place = tempfile::tempdir().unwrap();
        let mut store = Store::open(&place.path().join("state.db")).unwrap();
        filled(&mut store);
        let config = crate::config::parse("[cluster]\nname = \"lab\"\n", "test.toml").unwrap();
        let history = gather(&config, &store, Some(&account("bio")), 50).unwrap();
        let told: Vec<(&str, &str)> =
            history.entries.iter().map(|e| (e.what.as_str(), e.why.as_str())).collect();
        assert_eq!(
            told,
            [
                ("result:uuid-bio, 1 tries", "status 400"),
                ("fairshare of waldur issued 1970-01-01T00:01:30Z: Set fairshare", "not in effect"),
                ("sacctmgr name=bio", "Permission denied; bio: the rule"),
                (
                    "waldur 2026-11: effect slowdown, QOS slow, fairshare 7, total 1/3, GrpTRESMins cpu=60,mem=5",
                    ""
                ),
            ]
        );
    }
}
