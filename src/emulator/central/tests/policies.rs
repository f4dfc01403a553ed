//! Waldur: writing policies, evaluating, previewing, issuing commands.

use reqwest::Method;
use serde_json::{Value, json};

use super::{CentralState, POLICIES, Site, USAGES, seed};

/// A seed without a policy, and the body that creates one.
async fn blank() -> (Site, Value) {
    let site = Site::with(CentralState { policies: Vec::new(), ..seed() }).await;
    let offering = site.handle.with_state(|state| state.offerings[0].uuid.simple().to_string());
    let body = json!({
        "scope": format!("{}/api/marketplace-provider-offerings/{offering}/", site.base),
        "actions": "request_slurm_resource_pausing,notify_organization_owners",
        "apply_to_all": true,
        "component_limits_set": [{"type": "cpu", "limit": 1000}]
    });
    (site, body)
}

/// `body` with one member replaced.
fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[name] = value;
    body
}

#[tokio::test]
async fn a_policy_is_created_with_defaults_and_its_settings_are_issued_at_once() {
    let (site, body) = blank().await;
    let got = site.post(POLICIES, body.clone()).await;
    assert_eq!(got.status, 201, "{}", got.text);
    let created = got.json();
    for (name, value) in [
        ("period", json!(3)),
        ("carryover_factor", json!(50)),
        ("grace_ratio", json!(0.2)),
        ("limit_type", json!("GrpTRESMins")),
        ("tres_billing_enabled", json!(true)),
        ("raw_usage_reset", json!(true)),
        ("component_limits_set", json!([{"type": "cpu", "limit": 1000}])),
        ("created_by_username", json!("agent")),
    ] {
        assert_eq!(created[name], value, "{name}");
    }
    // chem7: cpu 300; nothing was used in 2026-Q3, so half of it carries over: 450 h.
    // fairshare 450 / 3 = 150; cpu 450 x 60 = 27000 min; billing 450 / 64 x 60 = 421.875 -> 421; both x 1.2.
    let path = site.policy_path(&format!("command-history/?resource_uuid={}", site.resource("chem7")));
    let history = site.get(&path).await.json();
    let shown: Vec<(&Value, &Value)> =
        history.as_array().unwrap().iter().map(|row| (&row["command_type"], &row["parameters"])).collect();
    let limits =
        json!({"account": "chem7", "limit_type": "GrpTRESMins", "limits": {"billing": 505, "cpu": 32400}});
    assert_eq!(
        shown,
        [
            (&json!("reset_usage"), &json!({"account": "chem7"})),
            (&json!("limits"), &limits),
            (&json!("fairshare"), &json!({"account": "chem7", "fairshare": 150})),
        ]
    );
    // Issued is issued: nothing more until something changes.
    site.handle.tick();
    assert_eq!(site.handle.with_state(|state| state.commands.len()), 6, "two active resources");
    // One policy per offering.
    let got = site.post(POLICIES, body).await;
    let message = "A SLURM Periodic Usage Policy already exists for this offering.";
    assert_eq!((got.status, got.json()), (400, json!({"non_field_errors": [message]})));
    site.stop().await;
}

#[tokio::test]
async fn a_wrong_policy_is_refused_with_every_wrong_field_named() {
    let (site, good) = blank().await;
    let required = json!(["This field is required."]);
    let missing = json!({"scope": required, "actions": required, "component_limits_set": required});
    let unknown = format!("{}/api/marketplace-provider-offerings/{}/", site.base, uuid::Uuid::nil());
    for (body, expected) in [
        (json!({}), missing),
        (with(&good, "scope", json!("nowhere")), json!({"scope": ["Invalid hyperlink - No URL match."]})),
        (
            with(&good, "scope", json!(unknown)),
            json!({"scope": ["Invalid hyperlink - Object does not exist."]}),
        ),
        (
            with(&good, "actions", json!("explode")),
            json!({"actions": ["explode includes unavailable actions."]}),
        ),
        (with(&good, "period", json!(7)), json!({"period": ["\"7\" is not a valid choice."]})),
        (with(&good, "limit_type", json!("Max")), json!({"limit_type": ["\"Max\" is not a valid choice."]})),
        (with(&good, "grace_ratio", json!("much")), json!({"grace_ratio": ["A valid number is required."]})),
        (
            with(&good, "carryover_factor", json!(-1)),
            json!({"carryover_factor": ["Ensure this value is greater than or equal to 0."]}),
        ),
        (
            with(&good, "component_limits_set", json!([{"type": "cpu", "limit": 1}, {"limit": "x"}])),
            json!({"component_limits_set":
                [{}, {"type": ["This field is required."], "limit": ["A valid integer is required."]}]}),
        ),
        (
            with(
                &good,
                "component_limits_set",
                json!([{"type": "cpu", "limit": 1}, {"type": "cpu", "limit": 2}]),
            ),
            json!(["Duplicate component limits for the same component."]),
        ),
        (
            with(&good, "component_limits_set", json!([{"type": "disk", "limit": 1}])),
            json!({"non_field_errors": ["Offering has not component with type disk."]}),
        ),
        (
            with(&good, "apply_to_all", json!(false)),
            json!({"non_field_errors": ["Must either set apply_to_all=True or specify organization_groups."]}),
        ),
    ] {
        let got = site.post(POLICIES, body.clone()).await;
        assert_eq!((got.status, got.json()), (400, expected), "{body}");
    }
    assert!(site.handle.with_state(|state| state.policies.is_empty() && state.commands.is_empty()));
    site.stop().await;
}

#[tokio::test]
async fn owners_write_policies_of_their_offerings_and_others_do_not_see_them() {
    let (site, body) = blank().await;
    site.handle.with_state(|state| state.users[1].customers = vec!["site".to_owned()]);
    let got = site.send_as("user-token", Method::POST, POLICIES, body.clone()).await;
    assert_eq!(
        (got.status, got.json()),
        (400, json!({"scope": ["User is not allowed to configure policies."]}))
    );
    assert_eq!(site.send_as("owner-token", Method::POST, POLICIES, body).await.status, 201);
    let one = site.policy_path("");
    assert_eq!(site.get_as("user-token", POLICIES).await.json(), json!([]));
    assert_eq!(site.get_as("user-token", &one).await.status, 404);
    let change = json!({"grace_ratio": 0.3});
    assert_eq!(site.send_as("user-token", Method::PATCH, &one, change.clone()).await.status, 404);
    let got = site.send_as("owner-token", Method::PATCH, &one, change).await;
    assert_eq!((got.status, &got.json()["grace_ratio"]), (200, &json!(0.3)));
    for action in ["dry-run/", "evaluate/", "force-period-reset/"] {
        let got = site.send_as("owner-token", Method::POST, &site.policy_path(action), json!({})).await;
        assert_eq!(got.status, 403, "{action} is for staff");
    }
    assert_eq!(site.get_as("owner-token", &site.policy_path("command-history/")).await.status, 200);
    // An owner of something else.
    site.handle.with_state(|state| state.users[1].customers = vec!["elsewhere".to_owned()]);
    assert_eq!(site.get_as("owner-token", &one).await.status, 404);
    let got = site.send(site.request(Method::DELETE, &one, "staff-token")).await;
    assert_eq!((got.status, got.text.as_str()), (204, ""));
    assert!(site.handle.with_state(|state| state.policies.is_empty() && state.commands.is_empty()));
    site.stop().await;
}

#[tokio::test]
async fn replacing_keeps_what_is_left_out_and_a_change_issues_only_what_it_alters() {
    let site = Site::with(seed()).await;
    let one = site.policy_path("");
    let before = site.get(&one).await.json();
    site.handle.with_state(|state| state.policies[0].carryover_factor = 15);
    let body = json!({
        "scope": before["scope"], "actions": "notify_organization_owners", "apply_to_all": true,
        "component_limits_set": [], "raw_usage_reset": false
    });
    let got = site.send_as("staff-token", Method::PUT, &one, body.clone()).await;
    assert_eq!(got.status, 200, "{}", got.text);
    assert_eq!(
        (&got.json()["carryover_factor"], &got.json()["raw_usage_reset"]),
        (&json!(15), &json!(false))
    );
    let got = site.send_as("staff-token", Method::PUT, &one, with(&body, "apply_to_all", Value::Null)).await;
    assert_eq!((got.status, got.json()), (400, json!({"apply_to_all": ["This field may not be null."]})));
    site.handle.with_state(|state| state.commands.clear());

    // A change of the limit type alters limits of both resources, and no reset: the period is the same.
    let got = site.send_as("staff-token", Method::PATCH, &one, json!({"limit_type": "MaxTRESMins"})).await;
    assert_eq!(got.status, 200);
    let kinds = |site: &Site| {
        site.handle.with_state(|state| {
            let mut kinds: Vec<String> =
                state.commands.iter().map(|command| command.command_type.clone()).collect();
            kinds.sort();
            kinds
        })
    };
    assert_eq!(kinds(&site), ["fairshare", "fairshare", "limits", "limits"]);
    // A change that alters no setting issues nothing.
    site.handle.with_state(|state| state.commands.clear());
    site.send_as("staff-token", Method::PATCH, &one, json!({"qos_strategy": "progressive"})).await;
    assert_eq!(kinds(&site), Vec::<String>::new());
    // New limits of one resource reach it at the next round.
    site.handle.with_state(|state| {
        let slot = state.resources.iter_mut().find(|resource| resource.name == "chem7").unwrap();
        slot.limits.insert("cpu".to_owned(), 600.0);
    });
    site.handle.tick();
    assert_eq!(kinds(&site), ["fairshare", "limits"]);
    site.stop().await;
}

#[tokio::test]
async fn the_period_of_a_policy_is_that_of_the_limit_based_component() {
    let (site, body) = blank().await;
    site.handle.with_state(|state| {
        let component = &mut state.offerings[0].components[0];
        component.billing_type = crate::emulator::central::state::BillingType::Limit;
        component.limit_period = Some("month".to_owned());
    });
    let got = site.post(POLICIES, with(&body, "period", json!(4))).await;
    let message =
        "Period must match the offering component's limit_period (month). Expected 1 month, got 12 month.";
    assert_eq!((got.status, got.json()), (400, json!({"period": [message]})));
    let got = site.post(POLICIES, body).await;
    assert_eq!((got.status, &got.json()["period_name"]), (201, &json!("1 month")));
    site.stop().await;
}

/// Reports usage of bio42 for this month.
async fn use_cpu(site: &Site, amount: &str) {
    let body = json!({"resource": site.resource("bio42"), "usages": [{"type": "cpu", "amount": amount}]});
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), body).await.status, 201);
}

/// A policy without carryover and with weights that make percentages easy: cpu counts 1, mem nothing on top.
fn simple_seed() -> CentralState {
    let mut state = seed();
    state.policies[0].carryover_enabled = false;
    state.resources[0].limits = [("cpu".to_owned(), 1000.0)].into();
    state.settings.evaluate_on_usage = false;
    state
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let site = Site::with(simple_seed()).await;
    use_cpu(&site, "1200").await;
    let got =
        site.post(&site.policy_path("dry-run/"), json!({"resource_uuid": site.resource("bio42")})).await;
    let expected = json!({
        "policy_uuid": site.policy(), "billing_period": "2026-Q4", "grace_limit_percentage": 120.0,
        "resources": [{
            "resource_uuid": site.resource("bio42"), "resource_name": "bio42", "usage_percentage": 120.0,
            "paused": false, "downscaled": false, "would_trigger": ["pause", "downscale", "notify"]
        }]
    });
    assert_eq!((got.status, got.json()), (200, expected));
    let all = site.post(&site.policy_path("dry-run/"), json!({})).await.json();
    assert_eq!(all["resources"].as_array().unwrap().len(), 2, "terminated ones are left out");
    let touched = site.handle.with_state(|state| {
        state.evaluation_logs.len() + state.commands.len() + usize::from(state.resources[0].paused)
    });
    assert_eq!(touched, 0);
    site.stop().await;
}

#[tokio::test]
async fn evaluation_walks_through_notification_slowdown_blocked_and_back() {
    let site = Site::with(simple_seed()).await;
    let flags = |paused: bool, downscaled: bool| json!({"paused": paused, "downscaled": downscaled});
    let evaluate = site.policy_path("evaluate/");
    let mut previous = flags(false, false);
    for (amount, percentage, actions, paused, downscaled) in [
        ("799.99", 79.999, json!([]), false, false),
        ("800", 80.0, json!(["notify"]), false, false),
        ("1000", 100.0, json!(["downscale"]), false, true),
        ("1200", 120.0, json!(["pause", "downscale"]), true, true),
        ("1100", 110.0, json!(["downscale"]), false, true),
        ("999.99", 99.999, json!([]), false, false),
    ] {
        use_cpu(&site, amount).await;
        let got = site.post(&evaluate, json!({"resource_uuid": site.resource("bio42")})).await;
        let result = got.json()["resources"][0].clone();
        let shown = result["usage_percentage"].as_f64().unwrap();
        assert!((shown - percentage).abs() < 1e-9, "{amount}: {shown}");
        assert_eq!(result["actions_taken"], actions, "{amount}");
        let now = flags(paused, downscaled);
        assert_eq!((&result["previous_state"], &result["new_state"]), (&previous, &now), "{amount}");
        previous = now;
    }
    let logs = site.get(&site.policy_path("evaluation-logs/?billing_period=2026-Q4")).await.json();
    assert_eq!(logs.as_array().unwrap().len(), 6);
    assert_eq!(
        (&logs[0]["usage_percentage"], &logs[0]["site_agent_confirmed"]),
        (&json!(99.999), &Value::Null)
    );
    assert_eq!(
        (&logs[5]["stomp_message_sent"], &logs[2]["stomp_message_sent"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        site.get(&site.policy_path("evaluation-logs/?billing_period=2026-Q3")).await.json(),
        json!([])
    );
    // Each change of the restrictions issued the QOS that goes with it.
    let qos: Vec<String> = site.handle.with_state(|state| {
        let qos = state.commands.iter().filter(|command| command.command_type == "qos");
        qos.map(|command| command.parameters["qos"].as_str().unwrap().to_owned()).collect()
    });
    assert_eq!(qos, ["slowdown", "blocked", "slowdown", "normal"]);
    site.stop().await;
}

#[tokio::test]
async fn reported_usage_evaluates_at_once_and_the_policy_remembers_that_it_fired() {
    let mut state = simple_seed();
    state.settings.evaluate_on_usage = true;
    let site = Site::with(state).await;
    use_cpu(&site, "1200").await;
    let policy = site.get(&site.policy_path("")).await.json();
    assert_eq!((&policy["has_fired"], &policy["affected_resources_count"]), (&json!(true), &json!(1)));
    assert_eq!(policy["fired_datetime"], "2026-11-22T10:00:00Z");
    assert!(site.handle.with_state(|state| state.resources[0].paused && state.resources[0].downscaled));
    use_cpu(&site, "1").await;
    let policy = site.get(&site.policy_path("")).await.json();
    assert_eq!(policy["has_fired"], false);
    assert!(site.handle.with_state(|state| !state.resources[0].paused && !state.resources[0].downscaled));
    site.stop().await;
}

#[tokio::test]
async fn a_new_period_issues_new_limits_with_one_reset_and_releases_who_was_blocked() {
    let mut state = simple_seed();
    state.policies[0].carryover_enabled = true;
    let site = Site::with(state).await;
    use_cpu(&site, "1900").await;
    site.post(&site.policy_path("evaluate/"), json!({})).await;
    assert!(site.handle.with_state(|state| state.resources[0].paused), "1900 of 1500 with carryover");
    site.handle.with_state(|state| state.commands.clear());
    // Moving the clock is enough: the next request of anyone finds the round overdue.
    site.set_clock("2027-01-01T00:00:05Z");
    site.get(POLICIES).await;
    let path = site.policy_path(&format!("command-history/?resource_uuid={}", site.resource("bio42")));
    let history = site.get(&path).await.json();
    let kinds: Vec<&str> =
        history.as_array().unwrap().iter().map(|row| row["command_type"].as_str().unwrap()).collect();
    // The period's own commands, then those of the release.
    assert_eq!(kinds, ["qos", "limits", "fairshare", "reset_usage", "limits", "fairshare"]);
    // Nothing carries over from an overused period: 1000 x 60 x 1.2.
    assert_eq!(history[4]["parameters"]["limits"]["cpu"], 72_000);
    assert_eq!(history[0]["parameters"]["qos"], "normal");
    assert!(site.handle.with_state(|state| !state.resources[0].paused));
    let before = site.handle.with_state(|state| state.commands.len());
    site.handle.advance(86_400);
    site.get(POLICIES).await;
    assert_eq!(site.handle.with_state(|state| state.commands.len()), before, "once per period");
    site.stop().await;
}

#[tokio::test]
async fn a_forced_reset_takes_only_restricted_resources_that_have_room() {
    let mut state = simple_seed();
    state.resources[0].paused = true;
    state.resources[1].downscaled = true;
    let site = Site::with(state).await;
    use_cpu(&site, "1100").await;
    let got = site.post(&site.policy_path("force-period-reset/"), json!({})).await;
    let names: Vec<Value> =
        got.json()["resources"].as_array().unwrap().iter().map(|row| row["resource_name"].clone()).collect();
    assert_eq!((got.status, names), (200, vec![json!("chem7")]));
    assert!(site.handle.with_state(|state| state.resources[0].paused && !state.resources[1].downscaled));
    let got = site.post(&site.policy_path("force-period-reset/"), json!({"resource_uuid": "x"})).await;
    assert_eq!((got.status, got.json()), (400, json!({"resource_uuid": ["Must be a valid UUID."]})));
    site.stop().await;
}

#[tokio::test]
async fn a_preview_computes_thresholds_carryover_and_dates() {
    let site = Site::with(seed()).await;
    let path = format!("{POLICIES}preview_impact/");
    let got = site.post(&path, json!({})).await.json();
    assert_eq!((&got["base_allocation"], &got["carryover"]), (&json!(1000.0), &Value::Null));
    assert_eq!((&got["current_qos_status"], &got["billing_period_start"]), (&json!("normal"), &Value::Null));
    let body = json!({
        "allocation": 1000, "grace_ratio": 0.3, "previous_usage": 900, "carryover_factor": 15,
        "current_usage": 900, "daily_usage_rate": 37.5
    });
    let got = site.post(&path, body).await.json();
    // 100 unused of 1000, cap 150: 100 carries over. Thresholds 880, 1100, 1430 of 1100.
    assert_eq!(
        got["carryover"],
        json!({"previous_usage": 900.0, "carryover_factor": 15, "base_allocation": 1000.0, "unused": 100.0,
               "carryover_cap": 150.0, "carryover": 100.0, "total_allocation": 1100.0})
    );
    let thresholds = &got["thresholds"];
    assert_eq!(
        (
            &thresholds["notification_threshold"],
            &thresholds["slowdown_threshold"],
            &thresholds["blocked_threshold"]
        ),
        (&json!(880.0), &json!(1100.0), &json!(1430.0))
    );
    // 900 of 1100 is 81.8 %. (1100 - 900) / 37.5 = 5.33 days; (1430 - 900) / 37.5 = 14.13 days.
    assert_eq!(
        (&got["usage_percentage"], &got["current_qos_status"]),
        (&json!(81.8), &json!("notification"))
    );
    let dates = &got["date_projections"];
    assert_eq!(dates["notification"], json!({"days": 0, "date": "2026-11-22", "status": "exceeded"}));
    assert_eq!(dates["slowdown"], json!({"days": 5, "date": "2026-11-27", "status": "projected"}));
    assert_eq!(dates["blocked"], json!({"days": 14, "date": "2026-12-06", "status": "projected"}));
    let got = site.post(&path, json!({"current_usage": 1})).await.json();
    assert_eq!(got["date_projections"]["slowdown"], json!({"days": null, "date": null, "status": "never"}));
    let got = site.post(&path, json!({"grace_ratio": 1.5, "carryover_factor": 101, "allocation": "x"})).await;
    let expected = json!({
        "allocation": ["A valid number is required."],
        "grace_ratio": ["Ensure this value is less than or equal to 1."],
        "carryover_factor": ["Ensure this value is less than or equal to 100."]
    });
    assert_eq!((got.status, got.json()), (400, expected));
    assert_eq!(site.send_as("owner-token", Method::POST, &path, json!({})).await.status, 403);
    site.stop().await;
}

#[tokio::test]
async fn a_preview_of_a_resource_takes_its_usage_and_shows_commands_and_history() {
    let mut state = seed();
    state.component_usages = serde_json::from_value(json!([
        {"resource": "bio42", "type": "cpu", "usage": "500", "billing_period": "2026-10"},
        {"resource": "bio42", "type": "mem", "usage": "30", "billing_period": "2026-11"},
        {"resource": "bio42", "type": "cpu", "usage": "1400", "billing_period": "2026-09"}
    ]))
    .unwrap();
    state.commands = serde_json::from_value(json!([
        {"resource": "bio42", "command_type": "fairshare", "parameters": {"fairshare": 5}}
    ]))
    .unwrap();
    let site = Site::with(state).await;
    let got = site
        .post(&format!("{POLICIES}preview_impact/"), json!({"resource_uuid": site.resource("bio42")}))
        .await;
    let got = got.json();
    // 1000 + 500 allocated; 530 used since October 1st, 53 days with today: 10 a day. Last quarter 1400: 100 left.
    assert_eq!((&got["base_allocation"], &got["effective_allocation"]), (&json!(1500.0), &json!(1600.0)));
    assert_eq!((&got["current_usage"], &got["daily_usage_rate"]), (&json!(530.0), &json!(10.0)));
    assert_eq!(
        got["date_projections"]["notification"],
        json!({"days": 75, "date": "2027-02-05", "status": "projected"})
    );
    assert_eq!(
        (&got["billing_period_start"], &got["billing_period_end"]),
        (&json!("2026-11-01"), &json!("2026-11-30"))
    );
    let kinds: Vec<&Value> =
        got["preview_commands"].as_array().unwrap().iter().map(|row| &row["type"]).collect();
    assert_eq!(kinds, [&json!("fairshare"), &json!("limits")]);
    // A quarter's name sorts behind a date of its year, so the server shows its commands.
    assert_eq!(got["command_history"].as_array().unwrap().len(), 1);
    site.stop().await;
}

#[tokio::test]
async fn available_actions_are_listed_and_backend_metadata_is_kept() {
    let site = Site::with(seed()).await;
    let got = site.get(&format!("{POLICIES}actions/")).await;
    assert!(got.json().as_array().unwrap().contains(&json!("request_slurm_resource_pausing")));
    let path = format!("/api/marketplace-provider-resources/{}/", site.resource("bio42"));
    let metadata = json!({"qos": "slowdown", "applied": {"cpu": 72_000}});
    let got = site.post(&format!("{path}set_backend_metadata/"), json!({"backend_metadata": metadata})).await;
    assert_eq!(got.status, 200);
    assert_eq!(site.get(&path).await.json()["backend_metadata"], metadata);
    let got = site.post(&format!("{path}set_backend_metadata/"), json!({})).await;
    assert_eq!((got.status, got.json()), (400, json!({"backend_metadata": ["This field is required."]})));
    let got =
        site.send_as("user-token", Method::POST, &format!("{path}set_backend_metadata/"), json!({})).await;
    assert_eq!(got.status, 404);
    site.stop().await;
}
