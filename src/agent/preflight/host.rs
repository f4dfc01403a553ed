//! What is around the agent: servers, their clocks, secrets, the store.

use humantime::format_duration;

use super::{Facts, Finding, SecretFacts, ServerFacts, StoreFacts};
use crate::config::Config;

/// Everything that is not Slurm.
pub fn judge(facts: &Facts, config: &Config) -> Vec<Finding> {
    let skew_max_s = i64::try_from(config.limits.clock_skew_max.as_secs()).unwrap_or(i64::MAX);
    let mut findings: Vec<Finding> =
        facts.servers.iter().flat_map(|server| self::server(server, skew_max_s)).collect();
    if config.sources.is_empty() && config.allocations.is_empty() {
        findings.push(Finding::warning(
            "server.none",
            "there is neither a [[source]] nor an [[allocation]]",
            "nobody says what is granted",
            "add one of them to the configuration",
        ));
    }
    findings.extend(store(&facts.store));
    findings
}

pub(super) fn server(server: &ServerFacts, skew_max_s: i64) -> Vec<Finding> {
    let mut findings = Vec::from_iter(transport(server));
    match &server.secret {
        SecretFacts::Readable => findings.push(Finding::ok("server.secret", format!("secret of {} is readable", server.name))),
        SecretFacts::OnlyInUnit { credential } => findings.push(Finding::warning(
            "server.secret",
            format!("the secret of {} is the systemd credential {credential}, which only the unit gets", server.name),
            "the server could not be asked from here",
            format!(
                "run: systemd-run --pipe --wait -p LoadCredential={credential}:FILE slurm-site-agent check, with the unit's FILE"
            ),
        )),
        SecretFacts::Unreadable(reason) => findings.push(Finding::error(
            "server.secret",
            reason.clone(),
            format!("the agent does not start: it cannot speak to {}", server.name),
            "correct what the message names",
        )),
    }
    let answer = match &server.answer {
        None => return findings,
        Some(Ok(answer)) => answer,
        Some(Err(reason)) => {
            findings.push(Finding::error(
                "server.answer",
                format!("{}: {reason}", server.name),
                "what the server said last stands, until it is older than limits.facts_age_max",
                "correct what the message names",
            ));
            return findings;
        }
    };
    findings.push(Finding::ok(
        "server.answer",
        format!("{} answers and takes the secret: {}", server.name, answer.has),
    ));
    findings.push(skew(&server.name, answer.clock_skew_s, skew_max_s));
    findings.extend(answer.notices.iter().map(|notice| {
        Finding::warning(
            "server.rows",
            format!("{}: {notice}", server.name),
            "what is left out is not acted on; what is in force for it stays in force",
            "correct it at the portal",
        )
    }));
    findings
}

/// A secret on an unencrypted connection to another host. The configuration refuses that already; a check that relies on
/// another check would not be one.
fn transport(server: &ServerFacts) -> Option<Finding> {
    if server.url.scheme() != "http" {
        return Some(Finding::ok("server.transport", format!("{} is spoken to with TLS", server.name)));
    }
    let is_here = match server.url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    Some(if is_here {
        Finding::note(
            "server.transport",
            format!("{} is spoken to without TLS, on this host", server.name),
            "nothing: it does not leave the host",
            "",
        )
    } else {
        Finding::error(
            "server.transport",
            format!("{} is spoken to without TLS at {}", server.name, server.url.host_str().unwrap_or("?")),
            "the secret crosses the network in the clear",
            "use https:// in its url, and issue a new secret",
        )
    })
}

pub(super) fn skew(name: &str, skew_s: Option<i64>, skew_max_s: i64) -> Finding {
    const CHECK: &str = "server.clock";
    let span =
        |seconds: i64| format_duration(std::time::Duration::from_secs(seconds.unsigned_abs())).to_string();
    let Some(skew_s) = skew_s else {
        return Finding::note(
            CHECK,
            format!("{name} does not tell its time"),
            "its clock was not checked",
            "",
        );
    };
    let way = if skew_s < 0 { "behind" } else { "ahead" };
    if skew_s.abs() > skew_max_s {
        return Finding::warning(
            CHECK,
            format!("the clock of {name} is {} {way}", span(skew_s)),
            "commands seem older or newer than they are and may be refused; periods may begin at the wrong time",
            "run: timedatectl (here), and check the server's clock",
        );
    }
    Finding::ok(CHECK, format!("the clock of {name} is within {}", span(skew_s.abs().max(1))))
}

pub(super) fn store(store: &StoreFacts) -> Vec<Finding> {
    const CHECK: &str = "store";
    let path = store.path.display();
    let mut findings = vec![match &store.readable {
        Err(reason) => Finding::error(
            CHECK,
            reason.clone(),
            "the agent does not start without its store",
            "correct what the message names",
        ),
        Ok(None) => Finding::note(
            CHECK,
            format!("there is no store at {path} yet"),
            "the first cycle makes it, reads the open periods from sacct, and resets no raw usage in them",
            "",
        ),
        Ok(Some(content)) => {
            let collected = content
                .collected
                .map_or("nothing is collected yet".to_owned(), |at| format!("jobs collected until {at}"));
            Finding::ok(CHECK, format!("{path} can be read; {collected}"))
        }
    }];
    if let Some(file) = &store.unwritable {
        findings.push(Finding::error(
            CHECK,
            format!("{file} belongs to another user than its directory"),
            "the agent cannot write it",
            format!("run: chown --reference=$(dirname {file}) {file}"),
        ));
    }
    if let Some(holder) = &store.holder {
        findings.push(Finding::note(
            "store.holder",
            format!("in use by {holder}"),
            "--evaluate-now is refused meanwhile, since only one process writes; --dry-run and the reading verbs work beside it",
            "",
        ));
    }
    findings
}
