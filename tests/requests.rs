//! How many requests a cycle makes, over how many connections, and how many bytes come back.

mod support;
#[path = "support/town.rs"]
mod town;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use slurm_site_agent::emulator::central::SeenRequest;
use town::{Plan, Town, job};

/// A month's policy on so many accounts; the first `busy` of them have used something in this month and will do so tomorrow, and
/// `a7` the day after.
async fn town(accounts: usize, busy: usize) -> Town {
    let names: Vec<String> = (0..accounts).map(|n| format!("a{n}")).collect();
    let resources: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "limits": {"cpu": 100}})).collect();
    let mut jobs = Vec::new();
    for name in names.iter().take(busy) {
        jobs.push(job(name, 10, "2026-11-05T10:00:00Z", "2026-11-05T11:00:00Z"));
        jobs.push(job(name, 10, "2026-11-10T13:00:00Z", "2026-11-10T14:00:00Z"));
        if name == "a7" {
            jobs.push(job(name, 10, "2026-11-11T13:00:00Z", "2026-11-11T14:00:00Z"));
        }
    }
    Town::new(Plan {
        now: "2026-11-10T12:00:00Z",
        accounts: &names,
        jobs: json!(jobs),
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

/// The requests of one cycle.
async fn cycle(town: &mut Town) -> Vec<SeenRequest> {
    town.portal.handle.forget_requests();
    let report = town.cycle().await;
    assert!(report.delivered.values().all(|kind| kind.failed + kind.dead == 0), "{:#?}", report.delivered);
    town.portal.handle.requests()
}

/// How many requests there are of each kind: method and path without uuids and query.
fn kinds(requests: &[SeenRequest]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in requests {
        let path = request.target.split('?').next().unwrap_or_default();
        let is_uuid =
            |part: &&str| part.len() >= 32 && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let parts: Vec<&str> = path.split('/').map(|part| if is_uuid(&part) { "ID" } else { part }).collect();
        *kinds.entry(format!("{} {}", request.method, parts.join("/"))).or_default() += 1;
    }
    kinds
}

fn connections(requests: &[SeenRequest]) -> usize {
    requests.iter().map(|request| request.connection).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn requests_of_a_quiet_cycle_do_not_follow_the_number_of_resources_but_their_pages() {
    let mut quiet = Vec::new();
    for accounts in [100, 1000] {
        let mut town = town(accounts, 0).await;
        cycle(&mut town).await;
        let requests = cycle(&mut town).await;
        assert_eq!(connections(&requests), 1, "{:#?}", kinds(&requests));
        let takes = |request: &SeenRequest| request.headers.iter().any(|header| header.1 == "gzip");
        assert!(requests.iter().all(takes), "compressed answers are asked for");
        quiet.push(kinds(&requests));
    }
    let resources = "GET /api/marketplace-provider-resources/";
    assert_eq!(
        (quiet[0].remove(resources), quiet[1].remove(resources)),
        (Some(1), Some(10)),
        "a hundred a page"
    );
    assert_eq!(quiet[0], quiet[1]);
    assert_eq!(
        quiet[0].values().sum::<usize>(),
        3,
        "policies, their commands, their evaluations: {quiet:#?}"
    );
}

#[tokio::test]
async fn usage_of_a_thousand_resources_is_told_over_few_connections_with_one_reading_of_the_rows() {
    let mut town = town(1000, 1000).await;
    let first = cycle(&mut town).await;
    let count = kinds(&first);
    let of = |path: &str| count.get(path).copied().unwrap_or_default();
    assert_eq!(of("POST /api/marketplace-component-usages/set_usage/"), 1000, "{count:#?}");
    assert_eq!(of("POST /api/marketplace-component-usages/ID/set_user_usages/"), 1000, "{count:#?}");
    assert!(connections(&first) <= 8, "{}", connections(&first));
    // The rows are new: those made after the one reading of all are asked for one by one.
    assert!(of("GET /api/marketplace-component-usages/") <= 1000, "{count:#?}");
    // A day later they are known.
    town.advance(86_400);
    let second = kinds(&cycle(&mut town).await);
    assert_eq!(second["POST /api/marketplace-component-usages/ID/set_user_usages/"], 1000, "{second:#?}");
    assert_eq!(second.get("GET /api/marketplace-component-usages/"), None, "{second:#?}");
    // A row that the server has made anew in between is asked for again.
    town.portal.handle.with_state(|state| {
        state.component_usages.clear();
        state.user_usages.clear();
    });
    town.advance(86_400);
    let third = kinds(&cycle(&mut town).await);
    assert_eq!(third["POST /api/marketplace-component-usages/ID/set_user_usages/"], 2, "{third:#?}");
    assert_eq!(third["GET /api/marketplace-component-usages/"], 1, "{third:#?}");
    let users = town.portal.handle.with_state(|state| state.user_usages.len());
    assert_eq!(users, 1);
}
