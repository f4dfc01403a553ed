//! How many programs it takes to make changes, and what one refused change means for the others.

mod support;
#[path = "support/town.rs"]
mod town;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slurm_site_agent::core::plan::Outcome;
use town::{Plan, Town, job};

const NOW: &str = "2026-11-10T12:00:00Z";

/// A month's policy on accounts `a0`, `a1`, ... of 100 cpu-hours each.
async fn town(accounts: usize) -> Town {
    let names: Vec<String> = (0..accounts).map(|n| format!("a{n}")).collect();
    let resources: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "limits": {"cpu": 100}})).collect();
    Town::new(Plan {
        now: NOW,
        accounts: &names,
        jobs: json!([job("a0", 10, "2026-11-05T10:00:00Z", "2026-11-05T11:00:00Z")]),
        central: json!({
            "settings": {"evaluate_on_usage": false},
            "policies": [{"period": 2, "tres_billing_enabled": false, "carryover_enabled": false}],
            "resources": resources,
        }),
        source: "",
        config: "[limits]\ntighten_accounts_max = 10000\ntighten_share_percent = 100\n[reports]\nbackend_metadata = false\n",
    })
    .await
}

/// Gives resources new allocations of cpu-hours.
fn grant(town: &Town, hours: &BTreeMap<usize, f64>) {
    town.portal.handle.with_state(|state| {
        for resource in &mut state.resources {
            let number: usize = resource.name.trim_start_matches('a').parse().expect("a number");
            if let Some(hours) = hours.get(&number) {
                resource.limits.insert("cpu".into(), *hours);
            }
        }
    });
}

/// sacctmgr processes of one cycle.
async fn processes(town: &mut Town) -> Vec<String> {
    town.take_runs();
    let report = town.cycle().await;
    let bad = |state: &&slurm_site_agent::agent::apply::ChangeState| state.outcome != Some(Outcome::Applied);
    assert!(report.changes.iter().find(bad).is_none(), "{report:#?}");
    town.take_runs().into_iter().filter(|run| run.starts_with("sacctmgr ")).collect()
}

#[tokio::test]
async fn a_thousand_accounts_take_one_process_at_rest_and_few_for_ten_changes() {
    let mut town = town(1000).await;
    let first = processes(&mut town).await;
    assert!(first.len() <= 6, "equal values go into one modify: {}", first.len());
    let quiet = processes(&mut town).await;
    assert_eq!(quiet.len(), 1, "nothing changed: {quiet:#?}");
    grant(&town, &(0..10).map(|account| (account, 300.0)).collect());
    let equal = processes(&mut town).await;
    assert_eq!(equal.len(), 3, "observe, one modify for ten accounts, read back: {equal:#?}");
    // Ten accounts, nine different values: each is a modify of its own.
    grant(&town, &(0..10).map(|account| (account, 400.0 + (account.min(8) * 3) as f64)).collect());
    let different = processes(&mut town).await;
    assert_eq!(different.len(), 11, "observe, nine modifies, read back: {different:#?}");
    assert_eq!(processes(&mut town).await.len(), 1);
}

/// A user with an odd name, which the agent leaves alone, and with a QOS list of its own: Slurm refuses to take a default QOS
/// away from under it.
fn stubborn(town: &Town, account: &str) {
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let output = town.slurm.run("sacctmgr", &args, &BTreeMap::new()).expect("in memory");
        assert_eq!(output.status, 0, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let account = format!("account={account}");
    run(&["-i", "add", "user", "name=odd one", &account, "cluster=town"]);
    run(&["-i", "modify", "user", "where", "name=odd one", &account, "cluster=town", "set", "qos=slowdown"]);
}

#[tokio::test]
async fn a_refused_account_does_not_keep_its_group_from_being_changed() {
    let mut town = town(40).await;
    stubborn(&town, "a17");
    town.take_runs();
    let report = town.cycle().await;
    let of = |name: &str| {
        let touches = |state: &&slurm_site_agent::agent::apply::ChangeState| {
            state.change.accounts().any(|account| account.as_str() == name)
        };
        report.changes.iter().find(touches).unwrap_or_else(|| panic!("{name}: {:#?}", report.changes))
    };
    assert!(matches!(&of("a17").outcome, Some(Outcome::Refused { reason }) if reason.contains("odd one")));
    assert_eq!(of("a17").change.accounts().count(), 1, "it stands alone: {:#?}", of("a17"));
    for account in (0..40).filter(|account| *account != 17) {
        assert_eq!(of(&format!("a{account}")).outcome, Some(Outcome::Applied), "a{account}");
    }
    let modifies = town.take_runs().into_iter().filter(|run| run.starts_with("sacctmgr -i")).count();
    assert!(modifies <= 14, "{modifies}");
}
