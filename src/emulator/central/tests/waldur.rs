//! Waldur: authentication, addresses, lists, results, usages.

use reqwest::Method;
use serde_json::{Value, json};

use super::{POLICIES, RESOURCES, Site, USAGES, seed};

#[tokio::test]
async fn requests_without_a_valid_token_are_refused_as_waldur_refuses_them() {
    let site = Site::with(seed()).await;
    for (token, detail) in
        [("", "Authentication credentials were not provided."), ("wrong", "Invalid token.")]
    {
        let got = site.get_as(token, POLICIES).await;
        assert_eq!((got.status, got.json()), (401, json!({"detail": detail})));
        assert_eq!(got.header("www-authenticate"), "Token");
    }
    let bearer =
        site.client.get(format!("{}{POLICIES}", site.base)).header("authorization", "Bearer staff-token");
    assert_eq!(site.send(bearer).await.status, 401);
    // Nothing of a credential is remembered.
    let seen = format!("{:?}", site.handle.requests());
    assert!(seen.contains(POLICIES) && !seen.contains("staff-token") && !seen.contains("wrong"));
    site.stop().await;
}

#[tokio::test]
async fn addresses_without_their_slash_redirect_and_unknown_ones_are_pages() {
    let site = Site::with(seed()).await;
    let got = site.get(&format!("{}?page=1", POLICIES.trim_end_matches('/'))).await;
    assert_eq!((got.status, got.header("location")), (301, format!("{POLICIES}?page=1").as_str()));
    let got = site.post(&format!("{USAGES}set_usage"), json!({})).await;
    assert_eq!(got.status, 301);
    let got = site.get("/api/nothing-here/").await;
    assert_eq!(got.status, 404);
    assert!(got.header("content-type").starts_with("text/html") && got.text.starts_with("<!DOCTYPE html>"));
    let got = site.get(&format!("{POLICIES}00000000000000000000000000000000/")).await;
    let detail = "No SlurmPeriodicUsagePolicy matches the given query.";
    assert_eq!((got.status, got.json()), (404, json!({"detail": detail})));
    let got = site.send_as("staff-token", Method::PUT, RESOURCES, json!({})).await;
    assert_eq!((got.status, got.json()), (405, json!({"detail": "Method \"PUT\" not allowed."})));
    site.stop().await;
}

#[tokio::test]
async fn policies_come_with_the_fields_of_the_published_model() {
    let site = Site::with(seed()).await;
    let got = site.get(POLICIES).await;
    assert_eq!((got.status, got.header("x-result-count")), (200, "1"));
    let listed = got.json()[0].clone();
    let one = site.get(&site.policy_path("")).await.json();
    assert_eq!(listed, one);
    for (name, value) in [
        ("period", json!(3)),
        ("period_name", json!("3 month")),
        ("limit_type", json!("GrpTRESMins")),
        ("qos_strategy", json!("threshold")),
        ("carryover_factor", json!(50)),
        ("grace_ratio", json!(0.2)),
        ("tres_billing_weights", json!({})),
        ("fired_datetime", Value::Null),
        ("has_fired", json!(false)),
        ("created", json!("2026-11-22T10:00:00Z")),
        ("created_by_full_name", json!("Site Agent")),
        ("affected_resources_count", json!(0)),
    ] {
        assert_eq!(one[name], value, "{name}");
    }
    assert_eq!(one.get("warnings"), None, "Waldur omits warnings when there are none");
    assert!(one["scope"].as_str().unwrap().ends_with(&format!("/{}/", one["scope_uuid"].as_str().unwrap())));

    // The schema's own idea of mandatory fields, on request.
    site.handle.with_state(|state| state.settings.schema_conform = true);
    let one = site.get(&site.policy_path("")).await.json();
    assert_eq!((&one["fired_datetime"], &one["warnings"]), (&one["created"], &json!([])));
    // An offering nobody listens to warns.
    site.handle.with_state(|state| state.offerings[0].site_agent_queue = false);
    let one = site.get(&site.policy_path("")).await.json();
    assert_eq!(one["warnings"].as_array().unwrap().len(), 2);
    site.stop().await;
}

#[tokio::test]
async fn resources_are_filtered_paged_and_reduced_to_fields() {
    let mut state = seed();
    for number in 0..25 {
        let resource = json!({"name": format!("p{number:02}"), "limits": {"cpu": 10.5}});
        state.resources.push(serde_json::from_value(resource).unwrap());
    }
    let site = Site::with(state).await;
    let offering = site.handle.with_state(|state| state.offerings[0].uuid.simple().to_string());
    let filters =
        format!("offering_uuid={offering}&state=OK&page_size=10&field=uuid&field=name&field=limits");
    let mut names = Vec::new();
    let mut path = format!("{RESOURCES}?{filters}");
    loop {
        let got = site.get(&path).await;
        assert_eq!((got.status, got.header("x-result-count")), (200, "27"));
        for row in got.json().as_array().unwrap() {
            assert_eq!(row.as_object().unwrap().len(), 3, "{row}");
            names.push(row["name"].as_str().unwrap().to_owned());
        }
        let next =
            got.header("link").split(", ").find(|link| link.ends_with("rel=\"next\"")).map(str::to_owned);
        let Some(next) = next else { break };
        let url = next.trim_start_matches('<').split('>').next().unwrap().to_owned();
        path = url.strip_prefix(&site.base).expect("links lead to the address the client used").to_owned();
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 27, "every active resource once: {names:?}");

    let one = site.get(&format!("{RESOURCES}{}/", site.resource("bio42"))).await.json();
    assert_eq!(one["limits"], json!({"cpu": 1000, "mem": 500}));
    assert_eq!(
        (&one["backend_id"], &one["state"], &one["paused"]),
        (&json!("bio42"), &json!("OK"), &json!(false))
    );
    let got = site.get(&format!("{RESOURCES}?page=9")).await;
    assert_eq!((got.status, got.json()), (404, json!({"detail": "Invalid page."})));
    let got = site.get(&format!("{RESOURCES}?state=Fine")).await;
    assert_eq!(got.status, 400);
    let got = site.get(&format!("{RESOURCES}?backend_id=chem7&field=name")).await;
    assert_eq!(got.json(), json!([{"name": "chem7"}]));
    let got = site.send(site.request(Method::HEAD, &format!("{RESOURCES}?state=OK"), "staff-token")).await;
    assert_eq!((got.status, got.header("x-result-count"), got.text.as_str()), (200, "27", ""));
    site.stop().await;
}

#[tokio::test]
async fn a_seeded_command_is_complete_and_a_reported_result_marks_the_newest_rows_of_its_resource() {
    let mut state = seed();
    state.commands = serde_json::from_value(json!([
        {"resource": "bio42", "command_type": "fairshare", "parameters": {"fairshare": 333}},
        {"resource": "bio42", "command_type": "limits", "executed_at": "2026-11-22T10:05:00Z",
         "parameters": {"limit_type": "GrpTRESMins", "limits": {"billing": 1440, "cpu": 100}}},
        {"resource": "chem7", "command_type": "reset_usage"}
    ]))
    .unwrap();
    state.evaluation_logs = serde_json::from_value(json!([{"resource": "bio42"}])).unwrap();
    let site = Site::with(state).await;
    let history = site.get(&site.policy_path("command-history/")).await.json();
    let kinds: Vec<&str> =
        history.as_array().unwrap().iter().map(|row| row["command_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["limits", "reset_usage", "fairshare"], "newest first");
    assert_eq!(history[2]["parameters"], json!({"account": "bio42", "fairshare": 333}));
    assert_eq!(history[2]["shell_command"], "sacctmgr --immediate modify account bio42 set fairshare=333");
    assert_eq!(
        history[0]["shell_command"],
        "sacctmgr --immediate modify account bio42 set GrpTRESMins=billing=1440; \
         sacctmgr --immediate modify account bio42 set GrpTRESMins=cpu=100"
    );
    assert_eq!((&history[0]["success"], &history[0]["error_message"]), (&json!(true), &json!("")));

    let report = json!({
        "resource_uuid": site.resource("bio42"), "success": false, "error_message": "no such account",
        "mode": "emulator", "commands_executed": ["sacctmgr -i modify account where account=bio42 set fairshare=333"]
    });
    let got = site.post(&site.policy_path("report-command-result/"), report.clone()).await;
    assert_eq!((got.status, got.json()), (200, json!({"detail": "Command result recorded."})));
    let path = site.policy_path(&format!("command-history/?resource_uuid={}", site.resource("bio42")));
    let marked = site.get(&path).await.json();
    assert_eq!(marked.as_array().unwrap().len(), 2);
    for row in marked.as_array().unwrap() {
        assert_eq!(
            (&row["success"], &row["error_message"], &row["execution_mode"]),
            (&json!(false), &json!("no such account"), &json!("emulator"))
        );
    }
    let path = site.policy_path(&format!("command-history/?resource_uuid={}", site.resource("chem7")));
    assert_eq!(site.get(&path).await.json()[0]["success"], true);
    let log = site.get(&site.policy_path("evaluation-logs/")).await.json()[0].clone();
    assert_eq!((&log["site_agent_confirmed"], &log["resource_name"]), (&json!(false), &json!("bio42")));
    assert_eq!(log["site_agent_response"]["commands_executed"], report["commands_executed"]);
    assert_eq!(site.handle.with_state(|state| state.results.len()), 1);
    site.stop().await;
}

#[tokio::test]
async fn a_result_that_is_malformed_or_not_allowed_is_refused_and_not_recorded() {
    let site = Site::with(seed()).await;
    let path = site.policy_path("report-command-result/");
    let bio42 = site.resource("bio42");
    let required = json!(["This field is required."]);
    for (body, expected) in [
        (json!({}), json!({"resource_uuid": required, "success": required})),
        (json!({"resource_uuid": "x", "success": true}), json!({"resource_uuid": ["Must be a valid UUID."]})),
        (
            json!({"resource_uuid": bio42, "success": "perhaps"}),
            json!({"success": ["Must be a valid boolean."]}),
        ),
        (
            json!({"resource_uuid": bio42, "success": true, "mode": "test"}),
            json!({"mode": ["\"test\" is not a valid choice."]}),
        ),
        (
            json!({"resource_uuid": uuid::Uuid::nil(), "success": true}),
            json!({"resource_uuid": "Resource not found."}),
        ),
    ] {
        let got = site.post(&path, body).await;
        assert_eq!((got.status, got.json()), (400, expected));
    }
    let body = json!({"resource_uuid": bio42, "success": true});
    let got = site.send_as("owner-token", Method::POST, &path, body.clone()).await;
    let detail = "You do not have permission to perform this action.";
    assert_eq!((got.status, got.json()), (403, json!({"detail": detail})));
    assert_eq!(site.send_as("user-token", Method::POST, &path, body.clone()).await.status, 404);
    let broken = site.request(Method::POST, &path, "staff-token").header("content-type", "application/json");
    let got = site.send(broken.body("{\"success\": tr")).await;
    assert_eq!(got.status, 400);
    assert!(got.json()["detail"].as_str().unwrap().starts_with("JSON parse error - "));
    let plain =
        site.request(Method::POST, &path, "staff-token").header("content-type", "text/plain").body("x");
    assert_eq!(site.send(plain).await.status, 415);
    assert_eq!(site.handle.with_state(|state| state.results.len()), 0);
    site.handle.with_state(|state| state.settings.owners_report_results = true);
    assert_eq!(site.send_as("owner-token", Method::POST, &path, body).await.status, 200);
    site.stop().await;
}

#[tokio::test]
async fn reported_usage_is_absolute_per_resource_component_and_month() {
    let site = Site::with(seed()).await;
    site.handle.with_state(|state| state.settings.whole_usages = false);
    let bio42 = site.resource("bio42");
    let set = async |date: Option<&str>, amount: &str| {
        let mut body = json!({"resource": bio42, "usages": [
            {"type": "cpu", "amount": amount, "description": "from the ledger"}, {"type": "mem", "amount": 7}
        ]});
        if let Some(date) = date {
            body["date"] = json!(date);
        }
        let got = site.post(&format!("{USAGES}set_usage/"), body).await;
        assert_eq!((got.status, got.text.as_str()), (201, ""));
    };
    set(None, "12.5").await;
    set(None, "12.50").await;
    set(None, "80.25").await;
    set(Some("2026-10-31T23:59:59Z"), "300").await;
    let rows = site.get(&format!("{USAGES}?resource_uuid={bio42}&type=cpu")).await.json();
    let shown: Vec<(&Value, &Value)> =
        rows.as_array().unwrap().iter().map(|row| (&row["billing_period"], &row["usage"])).collect();
    assert_eq!(
        shown,
        [(&json!("2026-11-01"), &json!("80.25")), (&json!("2026-10-01"), &json!("300.00"))],
        "one row a month, the newest amount"
    );
    let after = site.get(&format!("{USAGES}?resource_uuid={bio42}&date_after=2026-11-01")).await.json();
    assert_eq!(after.as_array().unwrap().len(), 2);
    let resource = site.get(&format!("{RESOURCES}{bio42}/")).await.json();
    assert_eq!(resource["current_usages"], json!({"cpu": 80.25, "mem": 7.0}), "the current month's");
    // As the published schema has it: whole numbers.
    site.handle.with_state(|state| state.settings.whole_usages = true);
    let one = site.get(&format!("{USAGES}{}/", rows[0]["uuid"].as_str().unwrap())).await.json();
    assert_eq!(one["usage"], json!(80));
    site.stop().await;
}

#[tokio::test]
async fn usage_of_users_replaces_that_of_the_same_user_and_refuses_nonsense_whole() {
    let site = Site::with(seed()).await;
    let body = json!({"resource": site.resource("bio42"), "usages": [{"type": "cpu", "amount": "10"}]});
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), body).await.status, 201);
    let uuid = site.get(USAGES).await.json()[0]["uuid"].as_str().unwrap().to_owned();
    let path = format!("{USAGES}{uuid}/set_user_usages/");
    let usages = |amount: &str| json!({"usages": [{"username": "ann", "usage": amount}, {"username": "bob", "usage": "2"}]});
    assert_eq!(site.post(&path, usages("3.75")).await.status, 201);
    assert_eq!(site.post(&path, usages("4.75")).await.status, 201);
    let one = json!({"username": "cy", "usage": "1", "date": "2026-11-20"});
    assert_eq!(site.post(&format!("{USAGES}{uuid}/set_user_usage/"), one).await.status, 201);
    let got =
        site.post(&path, json!({"usages": [{"username": "dan", "usage": "1"}, {"usage": "1.234"}]})).await;
    assert_eq!(got.status, 400);
    let expected = json!({"usages": [{}, {
        "username": ["This field is required."],
        "usage": ["Ensure that there are no more than 2 decimal places."]
    }]});
    assert_eq!(got.json(), expected);
    let kept: Vec<(String, String)> = site.handle.with_state(|state| {
        state.user_usages.iter().map(|u| (u.username.clone(), u.usage.to_string())).collect()
    });
    let expected = [("ann", "4.75"), ("bob", "2.00"), ("cy", "1.00")];
    assert_eq!(kept, expected.map(|(name, amount)| (name.to_owned(), amount.to_owned())));
    let listed = site.get("/api/marketplace-component-user-usages/?username=ann").await.json();
    assert_eq!((&listed[0]["usage"], &listed[0]["component_type"]), (&json!(4), &json!("cpu")));
    site.stop().await;
}

#[tokio::test]
async fn usage_of_unknown_things_or_wrong_amounts_is_refused_and_nothing_is_kept() {
    let site = Site::with(seed()).await;
    let path = format!("{USAGES}set_usage/");
    let bio42 = site.resource("bio42");
    let item = |kind: &str, amount: Value| json!([{"type": kind, "amount": amount}]);
    let number = json!({"usages": [{"amount": ["A valid number is required."]}]});
    for (body, expected) in [
        (json!({"resource": bio42}), json!({"usages": ["This field is required."]})),
        (
            json!({"resource": bio42, "usages": item("disk", json!(1))}),
            json!({"non_field_errors": ["These components are invalid: disk."]}),
        ),
        (json!({"resource": bio42, "usages": item("cpu", json!("much"))}), number),
        (
            json!({"resource": bio42, "usages": item("cpu", json!("0.001"))}),
            json!({"usages": [{"amount": ["Ensure that there are no more than 2 decimal places."]}]}),
        ),
        (
            json!({"resource": site.resource("gone"), "usages": item("cpu", json!(1))}),
            json!({"resource": ["Resource is not in valid state."]}),
        ),
        (
            json!({"usages": item("cpu", json!(1))}),
            json!({"non_field_errors": ["Either plan_period or resource must be provided."]}),
        ),
    ] {
        let got = site.post(&path, body).await;
        assert_eq!((got.status, got.json()), (400, expected));
    }
    let body = json!({"resource": bio42, "usages": item("cpu", json!(1))});
    assert_eq!(site.send_as("user-token", Method::POST, &path, body.clone()).await.status, 403);
    let mut past = body.clone();
    past["date"] = json!("2026-10-05T00:00:00Z");
    let got = site.send_as("owner-token", Method::POST, &path, past).await;
    assert_eq!(
        (got.status, got.json().get("date").is_some()),
        (400, true),
        "owners report the current month"
    );
    assert!(site.handle.with_state(|state| state.component_usages.is_empty()));
    assert_eq!(site.send_as("owner-token", Method::POST, &path, body).await.status, 201);
    site.stop().await;
}

#[tokio::test]
async fn what_a_test_adds_is_completed_as_in_a_seed() {
    let site = Site::with(seed()).await;
    let bio42 = site.handle.with_state(|state| {
        let resource = state.resource_of_account("bio42").unwrap().uuid;
        let command_type = "reset_usage".to_owned();
        state.commands.push(super::super::state::Command { resource, command_type, ..Default::default() });
        resource
    });
    let history = site.get(&site.policy_path("command-history/")).await.json();
    let row = &history[0];
    assert_ne!(row["uuid"], json!(uuid::Uuid::nil().simple().to_string()));
    assert_eq!(
        (&row["parameters"], &row["executed_at"]),
        (&json!({"account": "bio42"}), &json!("2026-11-22T10:00:00Z"))
    );
    let path = site.policy_path(&format!("command-history/?resource_uuid={bio42}"));
    assert_eq!(site.get(&path).await.json(), history);
    site.stop().await;
}
