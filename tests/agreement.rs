//! The agent's decision and the server's word: whose counts, where they differ, what is told, and what it costs to look.

mod support;
#[path = "support/town.rs"]
mod town;

use serde_json::{Value, json};
use slurm_site_agent::agent::cycle::{Ask, CycleReport, cycle};
use slurm_site_agent::agent::shrink::{self, HeldUsage};
use slurm_site_agent::core::command::CommandState;
use slurm_site_agent::core::component::Unit;
use slurm_site_agent::emulator::central::{Fault, FaultKind};
use slurm_site_agent::emulator::slurm::World;
use town::{Plan, Town, job};

const NOW: &str = "2026-11-10T12:00:00Z";

/// Accounts of 100 cpu-hours a month that have used so many.
async fn town(used_h: &[u32], source: &str, config: &str) -> Town {
    let names: Vec<String> = (0..used_h.len()).map(|n| format!("a{n}")).collect();
    let resources: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "limits": {"cpu": 100}})).collect();
    let jobs: Vec<Value> = names
        .iter()
        .zip(used_h)
        .filter(|(_, hours)| **hours > 0)
        .map(|(name, hours)| job(name, *hours, "2026-11-05T10:00:00Z", "2026-11-05T11:00:00Z"))
        .collect();
    let mut all = String::from("[limits]\ntighten_accounts_max = 1000\ntighten_share_percent = 100\n");
    all.push_str(config);
    Town::new(Plan {
        now: NOW,
        accounts: &names,
        jobs: json!(jobs),
        central: json!({
            "settings": {"evaluate_on_usage": false, "qos_commands": false},
            "policies": [{"period": 2, "tres_billing_enabled": false, "carryover_enabled": false, "raw_usage_reset": false}],
            "resources": resources,
        }),
        source,
        config: &all,
    })
    .await
}

fn flag(town: &Town, account: &str, paused: bool, downscaled: bool) {
    town.portal.handle.with_state(|state| {
        let resource = state.resources.iter_mut().find(|resource| resource.name == account);
        let resource = resource.expect("a resource");
        (resource.paused, resource.downscaled) = (paused, downscaled);
    });
}

fn issue(town: &Town, resource: &str, kind: &str, parameters: Value) {
    let command = json!({"resource": resource, "command_type": kind, "parameters": parameters,
        "executed_at": "2026-11-10T11:59:00Z"});
    town.portal.handle.with_state(|state| state.commands.push(serde_json::from_value(command).unwrap()));
}

#[tokio::test]
async fn enforcement_says_whose_word_counts() {
    // a0 has used nothing and is paused at the server; a1 has used 110 of 100 hours and is not flagged there. The server
    // commands a fairshare of 5 for a0 where the agent has floor(100 / 3) = 33.
    for (enforcement, a0, a1, fairshare, verdict) in [
        ("strictest", "blocked", "slowdown", "5", CommandState::Done),
        ("agent", "normal", "slowdown", "33", CommandState::Refused),
        ("server", "blocked", "normal", "5", CommandState::Done),
    ] {
        let mut town = town(&[0, 110], &format!("enforcement = \"{enforcement}\"\n"), "").await;
        flag(&town, "a0", true, false);
        issue(&town, "a0", "fairshare", json!({"fairshare": 5}));
        let report = town.cycle().await;
        let seen = (town.shows("a0", "qos"), town.shows("a1", "qos"), town.shows("a0", "fairshare"));
        assert_eq!(seen, (a0.into(), a1.into(), fairshare.into()), "{enforcement}");
        assert_eq!(report.commands[0].verdict.state, verdict, "{enforcement}");
        let about: Vec<_> = report
            .disagreements
            .iter()
            .map(|d| format!("{} {} {} {}", d.account, d.about, d.agent, d.server))
            .collect();
        let differences =
            ["a0 the level normal blocked", "a1 the level slowdown normal", "a0 fairshare 33 5"];
        assert_eq!(about, differences, "{enforcement}: shown whoever decides");
        let limits = town.shows("a0", "grptresmins");
        // 100 h x 60 x 1.2; where the server alone counts, no command of it asked for a limit.
        assert_eq!(limits, if enforcement == "server" { "" } else { "cpu=7200" }, "{enforcement}");
        // What was decided stays decided, and the server's release is followed where it counts.
        flag(&town, "a0", false, false);
        town.advance(10);
        town.cycle().await;
        assert_eq!(town.shows("a0", "qos"), "normal", "{enforcement}");
        assert!(town.cycle().await.changes.is_empty(), "{enforcement}");
    }
}

#[tokio::test]
async fn a_difference_is_shown_since_when_it_is_there_counted_once_and_gone_when_it_is_over() {
    let mut town = town(&[110], "", "").await;
    let first = town.cycle().await;
    assert_eq!((first.disagreements.len(), first.disagreements_total), (1, 1));
    let text = "account a0 since 2026-11-10T12:00:00Z: the level is slowdown here and normal at portal";
    assert!(first.findings.iter().any(|finding| finding.starts_with(text)), "{:?}", first.findings);
    town.advance(60);
    let second = town.cycle().await;
    assert_eq!(second.disagreements, first.disagreements, "the same one, with its time");
    assert_eq!(second.disagreements_total, 1);
    flag(&town, "a0", false, true);
    town.advance(60);
    let third = town.cycle().await;
    assert_eq!((third.disagreements.len(), third.disagreements_total), (0, 1));
    flag(&town, "a0", false, false);
    town.advance(60);
    assert_eq!(town.cycle().await.disagreements_total, 2);
}

#[tokio::test]
async fn the_servers_evaluations_are_compared_and_only_read_when_something_changed_or_usage_is_reported() {
    let mut town = town(&[50], "", "").await;
    let resource = town.portal.handle.with_state(|state| state.resources[0].uuid);
    let log = json!({"resource": resource, "billing_period": "2026-11", "usage_percentage": 72.5,
        "evaluated_at": "2026-11-10T11:00:00Z"});
    town.portal.handle.with_state(|state| {
        let policy = state.policies[0].uuid;
        let mut log: slurm_site_agent::emulator::central::state::EvaluationLog =
            serde_json::from_value(log).unwrap();
        log.policy = policy;
        state.evaluation_logs.push(log);
    });
    let report = town.cycle().await;
    let found = report.disagreements.iter().find(|one| one.about == "usage").expect("the percentages differ");
    assert_eq!(found.agent, "50.00 %");
    assert!(found.server.starts_with("72.50 % (evaluated 2026-11-10T11:00:00"), "{found:?}");
    let logs = |town: &Town| {
        let seen = town.portal.handle.requests();
        town.portal.handle.forget_requests();
        seen.iter().filter(|request| request.target.contains("evaluation-logs")).count()
    };
    assert_eq!(logs(&town), 1);
    let look = Ask { no_reports: true, ..Ask::default() };
    town.advance(1);
    let report = cycle(&mut town.site.agent, &look).await.unwrap();
    assert_eq!((logs(&town), report.disagreements.len()), (0, 1), "not read, still known");
    flag(&town, "a0", false, true);
    town.advance(1);
    cycle(&mut town.site.agent, &look).await.unwrap();
    assert_eq!(logs(&town), 1, "the flag changed");
}

#[tokio::test]
async fn a_change_at_the_portal_is_in_force_after_the_next_poll() {
    let mut town = town(&[50], "poll_interval = \"1s\"\n", "").await;
    town.cycle().await;
    assert_eq!(
        (town.shows("a0", "qos"), town.shows("a0", "grptresmins")),
        ("normal".into(), "cpu=7200".into())
    );
    // The grant is cut to 40 hours: 50 are 125 %, past the grace of 20 %.
    town.portal.handle.with_state(|state| {
        state.resources[0].limits.insert("cpu".into(), 40.0);
    });
    town.advance(1);
    let look = Ask { no_reports: true, ..Ask::default() };
    cycle(&mut town.site.agent, &look).await.unwrap();
    assert_eq!(
        (town.shows("a0", "qos"), town.shows("a0", "grptresmins")),
        ("blocked".into(), "cpu=2880".into())
    );
}

#[tokio::test]
async fn a_poll_costs_the_same_few_requests_whatever_the_number_of_resources() {
    let mut counts = Vec::new();
    for resources in [5, 300] {
        let mut town = town(&vec![0; resources], "", "[reports]\nusers = false\n").await;
        town.cycle().await;
        town.advance(1);
        town.portal.handle.forget_requests();
        let report = cycle(&mut town.site.agent, &Ask { no_reports: true, ..Ask::default() }).await.unwrap();
        assert!(report.is_quiet());
        let seen = town.portal.handle.requests();
        let pages = seen.iter().filter(|request| request.target.contains("provider-resources")).count();
        assert_eq!(pages, resources.div_ceil(100), "{seen:#?}");
        assert!(seen.iter().all(|request| request.method == "GET"), "nothing is told when nothing changed");
        counts.push(seen.len() - pages);
    }
    // One for the policies and one for the commands of the policy.
    assert_eq!(counts, [2, 2]);
}

/// What the server has of a month, by account, and the requests that told it since the last question.
fn usage(town: &Town, month: &str) -> (Vec<String>, usize) {
    let rows = town.portal.handle.with_state(|state| {
        let of = |row: &&slurm_site_agent::emulator::central::state::ComponentUsage| {
            row.billing_period.is_some_and(|period| period.to_string().starts_with(month))
        };
        state.component_usages.iter().filter(of).map(|row| row.usage.to_string()).collect()
    });
    let posts = town.portal.handle.requests().iter().filter(|request| request.method == "POST").count();
    town.portal.handle.forget_requests();
    (rows, posts)
}

fn add_job(town: &Town, job: Value) {
    town.slurm
        .with_world(|world| {
            let mut whole: Value = serde_json::from_str(&world.to_json()).unwrap();
            whole["jobs"].as_array_mut().unwrap().push(job);
            *world = World::from_json(&whole.to_string()).unwrap();
        })
        .unwrap();
}

#[tokio::test]
async fn usage_is_told_when_it_changed_and_of_the_previous_month_until_its_time_is_over() {
    let mut town = town(&[50, 7], "", "[reports]\nusers = false\nprevious_period = \"10days\"\n").await;
    town.cycle().await;
    assert_eq!(usage(&town, "2026-11"), (vec!["50.00".into(), "7.00".into()], 2));
    town.advance(3600);
    town.cycle().await;
    assert_eq!(usage(&town, "2026-11").1, 0, "nothing is told again");
    // A record of November comes on 5 December: November is told again.
    town.advance(25 * 86_400);
    add_job(&town, job("a1", 3, "2026-11-30T10:00:00Z", "2026-11-30T11:00:00Z"));
    cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
    assert_eq!(usage(&town, "2026-11"), (vec!["50.00".into(), "10.00".into()], 1));
    // Another on 12 December, more than ten days after its end: it stays as it was told.
    town.advance(7 * 86_400);
    add_job(&town, job("a1", 5, "2026-11-30T12:00:00Z", "2026-11-30T13:00:00Z"));
    cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
    assert_eq!(usage(&town, "2026-11"), (vec!["50.00".into(), "10.00".into()], 0));
}

#[tokio::test]
async fn a_total_that_shrinks_is_told_when_a_record_was_corrected() {
    let mut town = town(&[50, 7], "", "").await;
    town.cycle().await;
    town.advance(3600);
    // The job really ended half an hour earlier: 25 hours.
    town.slurm.with_world(|world| assert!(world.change_job(1, |job| job.end -= 1800))).unwrap();
    usage(&town, "2026-11");
    let report = cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
    assert_eq!(report.held_usage, []);
    assert_eq!(usage(&town, "2026-11").0, ["25.00", "7.00"]);
}

#[tokio::test]
async fn a_total_that_shrinks_without_a_reason_is_held_shown_and_told_after_a_deep_scan_or_when_it_has_grown()
{
    for deep in [true, false] {
        let mut town = town(&[50, 7], "", "").await;
        town.cycle().await;
        town.advance(3600);
        // Somebody changes the unit: the same hours are 0.05 thousands of hours now.
        let unit = |town: &mut Town, unit| {
            town.site.agent.config.components.0.get_mut("cpu").unwrap().unit = unit;
        };
        unit(&mut town, Unit::Kh);
        usage(&town, "2026-11");
        for _ in 0..2 {
            let report = town.cycle().await;
            let held = &report.held_usage[0];
            assert_eq!(report.held_usage.len(), 2);
            assert_eq!(
                (held.account.as_str(), held.told.as_str(), held.now.as_str()),
                ("a0", "50.00", "0.05")
            );
            assert_eq!(held.since, support::at("2026-11-10T13:00:00Z"));
            assert!(report.needs_attention());
            assert!(report.findings.iter().any(|finding| finding.contains("would shrink")), "{report:#?}");
            town.advance(3600);
        }
        assert_eq!(usage(&town, "2026-11"), (vec!["50.00".into(), "7.00".into()], 0), "nothing was told");
        if deep {
            cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
            assert_eq!(usage(&town, "2026-11").0, ["0.05", "0.01"]);
        } else {
            unit(&mut town, Unit::H);
            add_job(&town, job("a0", 1, "2026-11-10T10:00:00Z", "2026-11-10T11:00:00Z"));
            cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
            assert_eq!(usage(&town, "2026-11").0, ["51.00", "7.00"], "told as soon as it is not less");
        }
        assert_eq!(town.cycle().await.held_usage, []);
    }
}

#[tokio::test]
async fn a_total_that_shrinks_is_told_by_an_operators_word_for_this_very_total() {
    let mut town = town(&[50, 7], "", "").await;
    town.cycle().await;
    town.advance(3600);
    town.site.agent.config.components.0.get_mut("cpu").unwrap().unit = Unit::Kh;
    let held = town.cycle().await.held_usage;
    let store = town.site.agent.config.store.path.clone();
    let word = store.with_extension("confirmed-usage");
    let finding = held[0].finding();
    assert!(finding.ends_with("slurm-site-agent confirm --usage a0/2026-11"), "{finding}");
    // A word for a total that was larger is no word for this one.
    let larger = HeldUsage { now: "0.06".into(), ..held[0].clone() };
    shrink::confirm(&store, &[larger]).unwrap();
    town.advance(60);
    assert_eq!(town.cycle().await.held_usage, held);
    assert!(!word.exists(), "a word without work is taken back");
    shrink::confirm(&store, &held[..1]).unwrap();
    town.advance(60);
    assert_eq!(town.cycle().await.held_usage, held[1..], "the other still waits");
    assert_eq!(usage(&town, "2026-11").0, ["0.05", "7.00"]);
    town.advance(60);
    town.cycle().await;
    assert!(!word.exists(), "used");
}

#[tokio::test]
async fn a_billing_limit_of_a_server_that_finds_no_weight_for_a_component_is_told_with_the_reason() {
    let mut town =
        town(&[1], "enforcement = \"strictest\"\n", "[components.gpu]\ntres = \"gres/gpu\"\nunit = \"h\"\n")
            .await;
    town.slurm
        .with_world(|world| "CPU=1,GRES/gpu=8".clone_into(&mut world.partitions[0].billing_weights))
        .unwrap();
    let weights = |town: &Town, gpu: &str| {
        town.portal.handle.with_state(|state| {
            state.resources[0].limits.insert("gpu".into(), 10.0);
            state.policies[0].tres_billing_enabled = true;
            state.policies[0].tres_billing_weights = [("CPU".into(), 1.0), (gpu.to_owned(), 8.0)].into();
        });
    };
    weights(&town, "GRES/gpu");
    // The server's sum: 100 cpu-hours and nothing for gpu, x 60 x 1.2.
    let limits = json!({"limit_type": "GrpTRESMins", "limits": {"billing": 7200}});
    issue(&town, "a0", "limits", limits);
    let report = town.cycle().await;
    let about = |report: &CycleReport| {
        let of_billing = report.disagreements.iter().filter(|one| one.about.contains("billing"));
        of_billing.map(|one| (one.agent.clone(), one.server.clone(), one.because.clone())).collect::<Vec<_>>()
    };
    // The agent's: 100 + 8 x 10.
    let [(agent, server, because)] = &about(&report)[..] else { panic!("{:#?}", report.disagreements) };
    assert_eq!((agent.as_str(), server.as_str()), ("12960", "7200"));
    assert!(because.as_ref().is_some_and(|why| why.contains("no weight for gpu")), "{because:?}");
    assert!(report.findings.iter().any(|finding| finding.contains("have the policy's weights call it gpu")));
    assert!(town.shows("a0", "grptresmins").contains("billing=7200"), "the strictest counts");
    weights(&town, "gpu");
    town.advance(60);
    let [(_, _, because)] = &about(&town.cycle().await)[..] else { panic!("the number still differs") };
    assert_eq!(*because, None, "the weights are found now");
}

#[tokio::test]
async fn a_user_whose_record_moved_to_another_is_told_to_have_nothing_any_more() {
    let mut town = town(&[50], "", "").await;
    town.cycle().await;
    town.slurm
        .with_world(|world| {
            world.add_user("bob", "a0");
            let association = world.user_association("bob", "a0").unwrap().id;
            assert!(world.change_job(1, |job| {
                job.user = "bob".into();
                job.association = association;
            }));
        })
        .unwrap();
    town.advance(60);
    cycle(&mut town.site.agent, &Ask { deep: true, ..Ask::default() }).await.unwrap();
    let users = town.portal.handle.with_state(|state| {
        let rows = state.user_usages.iter().map(|row| format!("{} {}", row.username, row.usage));
        rows.collect::<std::collections::BTreeSet<String>>()
    });
    assert_eq!(users, ["alice 0.00".to_owned(), "bob 50.00".to_owned()].into());
}

#[tokio::test]
async fn what_is_in_force_is_written_into_the_backend_metadata_when_it_changes_and_beside_what_others_keep_there()
 {
    let mut town = town(&[50], "", "[reports]\nusers = false\nbackend_metadata = true\n").await;
    town.portal.handle.with_state(|state| {
        state.resources[0].backend_metadata.insert("state".into(), json!("of others"));
    });
    let ours = |town: &Town| {
        town.portal.handle.with_state(|state| Value::Object(state.resources[0].backend_metadata.clone()))
    };
    town.cycle().await;
    let first = json!({"level": "normal", "qos": ["normal"], "fairshare": "33", "submit_blocked": false,
        "limits": {"GrpTRESMins": {"cpu": 7200}}, "since": "2026-11-10T12:00:00Z"});
    assert_eq!(ours(&town), json!({"state": "of others", "slurm_site_agent": first}));
    usage(&town, "2026-11");
    town.advance(60);
    assert!(town.cycle().await.is_quiet());
    // A server that does not take it: it is told later, with the time at which it began.
    flag(&town, "a0", true, true);
    town.portal.handle.push_fault(
        Fault::once(FaultKind::Status { code: 503, retry_after: None })
            .on("POST", "set_backend_metadata")
            .times(4),
    );
    town.cycle().await;
    assert_eq!(ours(&town)["slurm_site_agent"], first);
    for _ in 0..3 {
        town.advance(3600);
        town.cycle().await;
    }
    let second = &ours(&town)["slurm_site_agent"];
    assert_eq!((&second["qos"], &second["since"]), (&json!(["blocked"]), &json!("2026-11-10T12:01:00Z")));
    assert!(town.cycle().await.is_quiet());
}
