//! Waldur's quotas: each request and answer of their page, and what the server does beyond it.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{CentralServer, CentralState};
use super::{NOW, Site, USAGES, seed};

const QUOTAS: &str = "/api/quotas/";
const UUID: &str = "6ad5f49d6d6c49648573b2b71f44a42b";

/// Four quotas: the page's own, one that follows reported usage, a mirrored one, one of a project.
async fn site() -> Site {
    let mut state = seed();
    state.quotas = serde_json::from_value(json!([
        {"uuid": UUID, "scope": "bio42", "name": "nc_cpu_usage", "limit": 1000, "usage": 600, "history": [
            {"at": "2026-11-20T00:00:00Z", "limit": 500, "usage": 100},
            {"at": "2026-11-21T00:00:00Z", "limit": 1000, "usage": 300, "threshold": 800}
        ]},
        {"scope": "chem7", "name": "nc_cpu_usage", "limit": 60000, "follows": {"component": "cpu", "factor": 60}},
        {"scope": "chem7", "name": "storage", "limit": 5, "usage": 2.5, "is_backend": true},
        {"scope": "/api/projects/00000000000040008000000000000001/", "name": "nc_resource_count"}
    ]))
    .unwrap();
    Site::with(state).await
}

fn one(uuid: &str) -> String {
    format!("{QUOTAS}{uuid}/")
}

#[tokio::test]
async fn a_quota_is_shown_with_its_address_and_the_address_of_its_object() {
    let site = site().await;
    let got = site.get(QUOTAS).await;
    assert_eq!((got.status, got.header("x-result-count")), (200, "4"));
    let expected = json!({
        "url": format!("{}/api/quotas/{UUID}/", site.base),
        "uuid": UUID,
        "name": "nc_cpu_usage",
        "limit": 1000.0,
        "usage": 600.0,
        "threshold": 0.0,
        "scope": format!("{}/api/marketplace-provider-resources/{}/", site.base, site.resource("bio42")),
    });
    assert_eq!(got.json()[0], expected);
    assert_eq!(site.get(&one(UUID)).await.json(), expected);
    let project = &got.json()[3];
    assert_eq!(project["limit"], -1.0, "unlimited unless it says otherwise");
    let address = format!("{}/api/projects/00000000000040008000000000000001/", site.base);
    assert_eq!(project["scope"], address);
    assert_eq!(site.get(&one("00000000000040008000000000000009")).await.status, 404);
    site.stop().await;
}

#[tokio::test]
async fn quotas_are_filtered_by_name_and_object_paged_in_headers_and_seen_by_who_may() {
    let site = site().await;
    let names = |got: &Value| -> Vec<String> {
        got.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let got = site.get(&format!("{QUOTAS}?name=nc_cpu_usage")).await;
    assert_eq!(names(&got.json()), ["nc_cpu_usage", "nc_cpu_usage"]);
    let scope = site.get(&one(UUID)).await.json()["scope"].as_str().unwrap().to_owned();
    let got = site.get(&format!("{QUOTAS}?scope={scope}")).await.json();
    assert_eq!((got.as_array().unwrap().len(), &got[0]["uuid"]), (1, &json!(UUID)));
    assert_eq!(site.get(&format!("{QUOTAS}?scope={scope}&name=storage")).await.json(), json!([]));
    let got = site.get(&format!("{QUOTAS}?page_size=3&page=2&field=name&field=usage")).await;
    assert_eq!(got.json(), json!([{"name": "nc_resource_count", "usage": 0.0}]));
    assert_eq!(got.header("x-result-count"), "4");
    assert!(got.header("link").contains("rel=\"prev\"") && !got.header("link").contains("rel=\"next\""));
    assert_eq!(site.get(&format!("{QUOTAS}?page=9")).await.status, 404);
    assert_eq!(site.get_as("owner-token", QUOTAS).await.json().as_array().unwrap().len(), 3, "no project's");
    assert_eq!(site.get_as("user-token", QUOTAS).await.json(), json!([]));
    assert_eq!(site.get_as("user-token", &one(UUID)).await.status, 404);
    assert_eq!(site.get_as("", QUOTAS).await.status, 401);
    site.stop().await;
}

#[tokio::test]
async fn the_samples_of_the_page_work_with_the_method_that_its_table_names() {
    let site = site().await;
    // The page shows POST for a limit; the table above it says GET, PUT, PATCH, and so does the server.
    let got = site.post(&one(UUID), json!({"limit": 2000.0})).await;
    assert_eq!((got.status, got.header("allow")), (405, "GET, PUT, PATCH, HEAD, OPTIONS"));
    assert_eq!(got.json(), json!({"detail": "Method \"POST\" not allowed."}));
    assert_eq!(site.post(QUOTAS, json!({})).await.header("allow"), "GET, HEAD, OPTIONS");
    let got = site.send_as("staff-token", Method::PUT, &one(UUID), json!({"limit": 2000.0})).await;
    assert_eq!(
        (got.status, &got.json()["limit"], &got.json()["threshold"]),
        (200, &json!(2000.0), &json!(0.0))
    );
    let got = site.send_as("staff-token", Method::PUT, &one(UUID), json!({"threshold": 100.0})).await;
    assert_eq!((got.status, &got.json()["limit"]), (200, &json!(2000.0)), "what is not named stays");
    assert_eq!(got.json()["threshold"], 100.0);
    let both = json!({"limit": -1, "threshold": 0, "usage": 7, "name": "other"});
    let got = site.send_as("staff-token", Method::PATCH, &one(UUID), both).await;
    assert_eq!(got.status, 200);
    assert_eq!(
        (&got.json()["limit"], &got.json()["usage"]),
        (&json!(-1.0), &json!(600.0)),
        "usage is read only"
    );
    assert_eq!(got.json(), site.get(&one(UUID)).await.json());
    site.stop().await;
}

#[tokio::test]
async fn what_may_not_be_written_is_refused_with_its_reason_and_changes_nothing() {
    let site = site().await;
    let before = site.get(QUOTAS).await.text;
    let storage =
        site.get(&format!("{QUOTAS}?name=storage")).await.json()[0]["uuid"].as_str().unwrap().to_owned();
    for (token, uuid, body, status, reason) in [
        ("staff-token", UUID, json!({"limit": 599.5}), 400, "Current quota usage exceeds the new limit."),
        ("staff-token", UUID, json!({"limit": -2}), 400, "exceeds the new limit"),
        ("staff-token", UUID, json!({"limit": "many"}), 400, "A valid number is required."),
        ("staff-token", UUID, json!({"threshold": null}), 400, "This field may not be null."),
        ("staff-token", &storage, json!({"limit": 9}), 409, "cache of a backend quota"),
        ("owner-token", UUID, json!({"limit": 2000}), 403, "do not have permission"),
        ("user-token", UUID, json!({"limit": 2000}), 404, "No Quota matches"),
    ] {
        let got = site.send_as(token, Method::PUT, &one(uuid), body.clone()).await;
        assert_eq!(got.status, status, "{body}: {}", got.text);
        assert!(got.text.contains(reason), "{body}: {}", got.text);
    }
    assert_eq!(site.send_as("staff-token", Method::DELETE, &one(UUID), json!(null)).await.status, 405);
    assert_eq!(site.get(QUOTAS).await.text, before);
    let got = site.send_as("staff-token", Method::PUT, &one(UUID), json!({"limit": 600})).await;
    assert_eq!(got.status, 200, "exactly what is used may be the limit");
    site.stop().await;
}

#[tokio::test]
async fn a_history_has_the_points_asked_for_in_their_order_and_no_object_before_the_first() {
    let site = site().await;
    let second = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let (before, first, between, now) = (
        second("2026-11-19T23:59:59Z"),
        second("2026-11-20T00:00:00Z"),
        second("2026-11-21T12:00:00Z"),
        second(NOW),
    );
    let history = async |query: &str| site.get(&format!("{}history/?{query}", one(UUID))).await;
    let got = history(&format!("point={now}&point={before}&point={between}&point={first}")).await.json();
    let whole = |limit: f64, usage: f64, threshold: f64| {
        json!({
            "url": format!("{}/api/quotas/{UUID}/", site.base), "uuid": UUID, "name": "nc_cpu_usage",
            "limit": limit, "usage": usage, "threshold": threshold,
            "scope": format!("{}/api/marketplace-provider-resources/{}/", site.base, site.resource("bio42")),
        })
    };
    let expected = json!([
        {"point": now, "object": whole(1000.0, 600.0, 0.0)},
        {"point": before},
        {"point": between, "object": whole(1000.0, 300.0, 800.0)},
        {"point": first, "object": whole(500.0, 100.0, 0.0)},
    ]);
    assert_eq!(got, expected);
    let got = history(&format!("start={before}&end={}&points_count=3", before + 7)).await.json();
    let points: Vec<i64> = got.as_array().unwrap().iter().map(|row| row["point"].as_i64().unwrap()).collect();
    assert_eq!(points, [before, before + 3, before + 7], "both ends, the rest between them");
    assert_eq!(history(&format!("start={now}&end={before}&points_count=1")).await.json()[0]["point"], now);
    for query in [
        "",
        "start=1&end=2",
        "point=yesterday",
        "start=1&end=2&points_count=0",
        "start=x&end=2&points_count=2",
    ] {
        assert_eq!(history(query).await.status, 400, "{query}");
    }
    assert_eq!(site.post(&format!("{}history/", one(UUID)), json!({})).await.status, 405);
    site.stop().await;
}

#[tokio::test]
async fn writes_and_reported_usage_become_history() {
    let site = site().await;
    let follower = format!("{QUOTAS}?name=nc_cpu_usage&field=uuid&field=usage");
    let uuid = site.get(&follower).await.json()[1]["uuid"].as_str().unwrap().to_owned();
    let report = |amount: &str| json!({"resource": site.resource("chem7"), "usages": [{"type": "cpu", "amount": amount}]});
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), report("1.5")).await.status, 201);
    assert_eq!(site.get(&follower).await.json()[1]["usage"], 90.0, "90 minutes of 1.5 hours");
    site.handle.advance(3600);
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), report("2")).await.status, 201);
    site.handle.advance(3600);
    let body = json!({"limit": 70000});
    assert_eq!(site.send_as("staff-token", Method::PUT, &one(&uuid), body).await.status, 200);
    let start: i64 = NOW.parse::<jiff::Timestamp>().unwrap().as_second();
    let path = format!("{}history/?start={start}&end={}&points_count=3", one(&uuid), start + 7200);
    let seen: Vec<(Value, Value)> = site
        .get(&path)
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["object"]["limit"].clone(), row["object"]["usage"].clone()))
        .collect();
    let expected = [(60000.0, 90.0), (60000.0, 120.0), (70000.0, 120.0)];
    assert_eq!(seen, expected.map(|(limit, usage)| (json!(limit), json!(usage))));
    site.stop().await;
}

#[test]
fn quotas_of_nothing_twins_and_histories_that_run_backwards_are_refused() {
    for (quotas, reason) in [
        (json!([{"name": "cpu", "scope": "nobody"}]), "neither a resource nor an address"),
        (json!([{"scope": "bio42"}]), "has no name"),
        (json!([{"name": "cpu", "scope": "bio42"}, {"name": "cpu", "scope": "bio42"}]), "two quotas cpu"),
        (
            json!([{"name": "cpu", "scope": "bio42", "history": [
                {"at": "2026-11-21T00:00:00Z", "limit": 1, "usage": 0},
                {"at": "2026-11-20T00:00:00Z", "limit": 1, "usage": 0}
            ]}]),
            "runs backwards",
        ),
    ] {
        let mut state = seed();
        state.quotas = serde_json::from_value(quotas.clone()).unwrap();
        let error = state.settle().unwrap_err();
        assert!(error.contains(reason), "{quotas}: {error}");
    }
}

#[tokio::test]
async fn a_state_file_from_before_quotas_still_loads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("central.json");
    let mut old = serde_json::to_value(seed()).unwrap();
    for new in ["quotas", "nomad", "datarobot"] {
        old.as_object_mut().unwrap().remove(new).unwrap_or_else(|| panic!("{new} is a part of the state"));
    }
    std::fs::write(&path, old.to_string()).unwrap();
    let site = Site::start(CentralServer::in_file(&path, CentralState::default).unwrap()).await;
    assert_eq!(site.get(QUOTAS).await.json(), json!([]));
    site.stop().await;
}
