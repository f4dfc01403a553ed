//! Waldur: rows from fixtures, rows that do not fit, and every verb over a socket.

use std::collections::BTreeMap;

use serde_json::{Value, json as value};

use super::*;
use crate::central::waldur::{WaldurClient, WaldurSettings, wire};
use crate::central::{CentralError, Class, Fetched};
use crate::core::command::{CommandKind, Mode};
use crate::core::exact::Exact;
use crate::core::period::PeriodKind;
use crate::core::policy::{LimitType, QosStrategy, default_weights};
use crate::core::report::{CommandResult, ComponentUsage};
use crate::core::small_map::SmallMap;

const OFFERING: &str = "aaaabbbb-cccc-dddd-eeee-ffff00001111";
const POLICY: &str = "0f6c1f0be1a34b0f9a7a0f5d2d8e0001";
const RESOURCE: &str = "11111111111111111111111111110001";

fn client_at(url: &str) -> Result<WaldurClient, CentralError> {
    let settings = WaldurSettings {
        name: source(),
        url: url.to_owned(),
        token: secret(),
        ca_file: None,
        proxy: None,
        offering: OFFERING.to_owned(),
        timeout: Duration::from_secs(30),
        response_bytes_max: 1_000_000,
        attempts_max: 3,
    };
    WaldurClient::new(&settings, surroundings().0)
}

fn client(server: &Server) -> WaldurClient {
    client_at(&server.url).unwrap()
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

/// A server that answers every request with one list.
async fn listing(rows: &Value) -> Server {
    let body = rows.to_string();
    Server::start(move |_, _| json(200, "", &body)).await
}

fn policies_with(changes: Value) -> Value {
    let mut rows: Value = serde_json::from_str(&fixture("waldur/policies.json")).unwrap();
    for (field, change) in changes.as_object().unwrap() {
        rows[0][field] = change.clone();
    }
    rows
}

#[tokio::test]
async fn policies_become_core_types_with_the_servers_defaults_for_what_is_absent() {
    let server = listing(&policies_with(value!({}))).await;
    let Fetched { value: policies, notices, raw } = client(&server).fetch_policies().await.unwrap();
    assert_eq!(notices, []);
    assert_eq!(raw[0]["a_field_of_a_newer_server"]["kept"], "in raw");
    let full = &policies[0];
    assert_eq!((full.id.as_str(), full.name.as_str()), (POLICY, "Cluster time"));
    assert_eq!((full.period, full.limit_type), (PeriodKind::Quarter, LimitType::GrpTRESMins));
    assert_eq!((full.carryover_percent, full.grace), (Some(30), exact("0.3")));
    assert_eq!((full.billing, full.raw_usage_reset, full.strategy), (true, false, QosStrategy::Progressive));
    assert_eq!(full.weights, default_weights());
    assert_eq!(
        full.component_limits,
        SmallMap::from([("cpu".into(), exact("1000")), ("gpu".into(), exact("20"))])
    );
    assert!(
        full.actions.notify && full.actions.downscale && full.actions.pause && !full.actions.block_creation
    );
    assert_eq!(full.warnings, ["No site agent queue is registered for this offering."]);
    let sparse = &policies[1];
    assert_eq!((sparse.period, sparse.limit_type), (PeriodKind::Total, LimitType::GrpTRESMins));
    assert_eq!((sparse.carryover_percent, sparse.grace), (Some(50), exact("0.2")));
    assert_eq!(
        (sparse.billing, sparse.raw_usage_reset, sparse.strategy),
        (true, true, QosStrategy::Threshold)
    );
    assert_eq!(sparse.weights, default_weights());
    assert!(sparse.component_limits.is_empty() && !sparse.actions.pause);
}

#[tokio::test]
async fn a_policy_that_is_not_understood_is_left_out_with_the_offending_text_and_the_others_stay() {
    for (changes, expected) in [
        (value!({"period": 7}), "period: 7 is none of"),
        (value!({"period": null}), "period: is missing"),
        (value!({"period": "monthly"}), "period: \"monthly\" is not a number"),
        (value!({"period": 2.5}), "period: 2.5 is none of"),
        (value!({"limit_type": "MaxJobs"}), "limit_type: \"MaxJobs\" is not known"),
        (value!({"qos_strategy": "magic"}), "qos_strategy: \"magic\" is not known"),
        (value!({"carryover_factor": 101}), "carryover_factor: 101"),
        (value!({"carryover_factor": 12.5}), "carryover_factor: 12.5"),
        (value!({"grace_ratio": -0.1}), "grace_ratio: -0.1"),
        (value!({"grace_ratio": "much"}), "grace_ratio: \"much\""),
        (value!({"tres_billing_enabled": "yes"}), "tres_billing_enabled: \"yes\""),
        (value!({"tres_billing_weights": {"CPU": "heavy"}}), "tres_billing_weights.CPU: \"heavy\""),
        (value!({"tres_billing_weights": {"CPU": -1}}), "tres_billing_weights.CPU: -1 is below 0"),
        (value!({"tres_billing_weights": {"CPU": 1, "cpu": 2}}), "the same component"),
        (value!({"component_limits_set": [{"type": "cpu", "limit": {}}]}), "component_limits_set.cpu"),
        (value!({"component_limits_set": [{"limit": 5}]}), "type: is missing"),
        (
            value!({"component_limits_set": [{"type": "cpu", "limit": 5}, {"type": "cpu", "limit": 6}]}),
            "cpu has two limits",
        ),
        (value!({"uuid": null}), "uuid: is missing"),
        (value!({"scope_uuid": "99990000999900009999000099990000"}), "another offering"),
    ] {
        let server = listing(&policies_with(changes.clone())).await;
        let fetched = client(&server).fetch_policies().await.unwrap();
        assert_eq!((fetched.value.len(), fetched.notices.len(), fetched.raw.len()), (1, 1, 2), "{changes}");
        assert!(fetched.notices[0].rejected && !fetched.is_complete());
        let text = fetched.notices[0].to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn an_unknown_action_is_kept_and_told_and_does_not_cost_the_policy() {
    let actions =
        " request_downscaling , request_pausing,notify_external_user,block_creation_of_new_resources,sing ";
    let server = listing(&policies_with(value!({"actions": actions}))).await;
    let fetched = client(&server).fetch_policies().await.unwrap();
    let known = &fetched.value[0].actions;
    assert!(known.downscale && known.pause && known.notify && known.block_creation);
    assert_eq!(known.unknown, ["sing"]);
    assert_eq!(fetched.notices.len(), 1);
    assert!(fetched.is_complete() && fetched.notices[0].what.contains("\"sing\""));
}

#[tokio::test]
async fn resources_become_allocations_and_unusable_ones_are_left_out() {
    let mut rows: Value = serde_json::from_str(&fixture("waldur/provider-resources.json")).unwrap();
    let odd = [
        value!({"uuid": "a1", "backend_id": ""}),
        value!({"uuid": "a2", "backend_id": "a b; rm"}),
        value!({"uuid": "a3", "backend_id": "root"}),
        value!({"uuid": "a4", "backend_id": "bio", "limits": {"cpu": null}}),
        value!({"uuid": "a5", "backend_id": "bio", "limits": {"cpu": -5}}),
        value!({"uuid": "a6", "backend_id": "bio", "offering_uuid": "0"}),
        value!({"backend_id": "bio"}),
        value!("text"),
    ];
    rows.as_array_mut().unwrap().extend(odd);
    let server = listing(&rows).await;
    let fetched = client(&server).fetch_allocations().await.unwrap();
    let accounts: Vec<_> =
        fetched.value.iter().map(|a| (a.account.as_str(), a.paused, a.downscaled)).collect();
    assert_eq!(accounts, [("bio42", false, true), ("chem", true, false)]);
    assert_eq!(
        fetched.value[0].limits,
        SmallMap::from([
            ("cpu".into(), exact("1000")),
            ("gpu".into(), exact("12.5")),
            ("ram".into(), exact("0.1"))
        ])
    );
    let ids: Vec<_> = fetched.notices.iter().map(|n| (n.id.as_str(), n.rejected)).collect();
    let expected = ["a1", "a2", "a3", "a4", "a5", "a6", "row 9", "row 10"];
    assert_eq!(ids, expected.map(|id| (id, true)));
    let seen = &server.seen()[0];
    assert!(seen.target.starts_with("/api/marketplace-provider-resources/?"), "{}", seen.target);
    for pair in [
        &format!("offering_uuid={OFFERING}"),
        "state=OK",
        "state=Updating",
        "field=backend_id",
        "page_size=100",
    ] {
        assert!(seen.target.contains(pair), "{pair}: {}", seen.target);
    }
}

#[tokio::test]
async fn metadata_of_resources_are_read_by_account_and_odd_ones_are_told() {
    let rows = value!([
        {"uuid": "a1", "backend_id": "Bio", "backend_metadata": {"pid": " TG-1 "}, "attributes": {"pid": "no"}},
        {"uuid": "a2", "backend_id": "chem", "backend_metadata": {"pid": null}, "attributes": {"pid": "TG-2"}},
        {"uuid": "a3", "backend_id": "phys", "attributes": {"pid": 7}},
        {"uuid": "a4", "backend_id": "geo", "backend_metadata": {"pid": "TG-4"}},
        {"uuid": "a5", "backend_id": "geo", "backend_metadata": {"pid": "TG-5"}},
        {"uuid": "a6", "backend_id": "math", "backend_metadata": {"pid": "a\nb"}},
        {"uuid": "a7", "backend_id": "none", "backend_metadata": {"other": "x"}},
        {"uuid": "a8", "backend_id": "root", "backend_metadata": {"pid": "TG-8"}},
    ]);
    let server = listing(&rows).await;
    let fetched = client(&server).fetch_allocations().await.unwrap();
    let seen = &server.seen()[0].target;
    assert!(seen.contains("field=backend_metadata") && seen.contains("field=attributes"), "{seen}");
    let (texts, notices) = crate::central::waldur::wire::resource_texts(&fetched.raw, &fetched.value, "pid");
    let shown: Vec<_> = texts.iter().map(|(account, text)| (account.as_str(), text.as_str())).collect();
    assert_eq!(shown, [("bio", "TG-1"), ("chem", "TG-2")]);
    let odd: Vec<_> = notices.iter().map(|notice| (notice.id.as_str(), notice.rejected)).collect();
    assert_eq!(odd, [("a3", false), ("a5", false), ("a6", false)], "{notices:?}");
}

#[tokio::test]
async fn commands_are_read_oldest_first_each_once_and_never_from_the_shell_text() {
    let mut rows: Value = serde_json::from_str(&fixture("waldur/command-history.json")).unwrap();
    let again = rows[2].clone();
    rows.as_array_mut().unwrap().insert(0, again);
    let server = listing(&rows).await;
    let fetched = client(&server).fetch_commands(POLICY, Some(RESOURCE)).await.unwrap();
    let told: Vec<_> = fetched.value.iter().map(|c| (&c.uuid[31..], c.issued.0 - 1_795_323_600)).collect();
    assert_eq!(told, [("2", 1), ("3", 2), ("4", 3), ("5", 4)]);
    assert_eq!(fetched.value[0].account().unwrap().as_str(), "bio42");
    assert_eq!(fetched.value[0].account_text, "Bio42");
    let limits =
        BTreeMap::from([("billing".to_owned(), exact("72000")), ("cpu".to_owned(), exact("60000.5"))]);
    let kinds: Vec<_> = fetched.value.into_iter().map(|c| c.kind).collect();
    assert_eq!(
        kinds,
        [
            CommandKind::Fairshare { fairshare: 333 },
            CommandKind::Limits { limit_type: LimitType::GrpTRESMins, limits },
            CommandKind::Qos { qos: "slowdown".into(), reason: "usage 104.2 %".into() },
            CommandKind::ResetUsage,
        ]
    );
    assert_eq!(
        server.seen()[0].target,
        format!(
            "/api/marketplace-slurm-periodic-usage-policies/{POLICY}/command-history/?resource_uuid={RESOURCE}"
        )
    );
}

#[tokio::test]
async fn malformed_commands_are_not_understood_with_the_reason_and_never_an_error() {
    let when = "2026-11-22T05:00:00Z";
    let cases = [
        (value!({"command_type": "fairshare", "parameters": {"account": "a"}}), "fairshare: is missing"),
        (
            value!({"command_type": "fairshare", "parameters": {"account": "a", "fairshare": -1}}),
            "-1 is not a number of",
        ),
        (
            value!({"command_type": "fairshare", "parameters": {"account": "a", "fairshare": 1.5}}),
            "1.5 is not a number of",
        ),
        (
            value!({"command_type": "fairshare", "parameters": {"account": "a", "fairshare": 4294967296u64}}),
            "4294967296",
        ),
        (value!({"command_type": "fairshare", "parameters": {"fairshare": 5}}), "account: is missing"),
        (
            value!({"command_type": "fairshare", "parameters": {"account": 5, "fairshare": 5}}),
            "account: 5 is not a text",
        ),
        (value!({"command_type": "fairshare", "parameters": "fairshare=5"}), "parameters: \"fairshare=5\""),
        (value!({"command_type": "fairshare"}), "parameters: is missing"),
        (
            value!({"command_type": "limits", "parameters": {"account": "a", "limits": {}}}),
            "limit_type: is missing",
        ),
        (
            value!({"command_type": "limits", "parameters": {"account": "a", "limit_type": "GrpJobs", "limits": {}}}),
            "\"GrpJobs\" is not known",
        ),
        (
            value!({"command_type": "limits",
                    "parameters": {"account": "a", "limit_type": "GrpTRES", "limits": {"cpu": "all"}}}),
            "limits.cpu: \"all\" is not a number",
        ),
        (value!({"command_type": "qos", "parameters": {"account": "a"}}), "qos: is missing"),
        (value!({"command_type": "shutdown", "parameters": {"account": "a"}}), "\"shutdown\" is not known"),
        (value!({"command_type": null, "parameters": {"account": "a"}}), "is not known"),
    ];
    for (mut row, expected) in cases {
        row["uuid"] = "c1".into();
        row["executed_at"] = when.into();
        let command = one_command(row).await;
        let CommandKind::NotUnderstood { reason, .. } = &command.kind else { panic!("{command:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(command.issued.to_string(), when);
    }
    for executed_at in [Value::Null, value!("yesterday"), value!(5)] {
        let row = value!({"uuid": "c1", "command_type": "reset_usage", "parameters": {"account": "a"},
                          "executed_at": executed_at});
        let CommandKind::NotUnderstood { reason, .. } = one_command(row).await.kind else {
            panic!("{executed_at}")
        };
        assert!(reason.contains("executed_at"), "{reason}");
    }
}

#[tokio::test]
async fn commands_of_one_second_are_in_the_order_of_their_instants_however_they_are_listed() {
    let row = |uuid: &str, executed_at: &str| value!({"uuid": uuid, "command_type": "reset_usage", "parameters": {"account": "a"}, "executed_at": executed_at});
    let (first, second) = ("2026-11-22T05:00:00.200001Z", "2026-11-22T05:00:00.200002Z");
    for rows in [value!([row("c2", second), row("c1", first)]), value!([row("c1", first), row("c2", second)])]
    {
        let server = listing(&rows).await;
        let fetched = client(&server).fetch_commands(POLICY, None).await.unwrap();
        let order: Vec<_> = fetched.value.iter().map(|c| (c.uuid.as_str(), c.issued_ns)).collect();
        assert_eq!(order, [("c1", 200_001_000), ("c2", 200_002_000)], "{rows}");
    }
}

async fn one_command(row: Value) -> crate::core::command::Command {
    let server = listing(&value!([row])).await;
    client(&server).fetch_commands(POLICY, None).await.unwrap().value.remove(0)
}

#[tokio::test]
async fn a_command_without_uuid_is_told_and_left_out() {
    let server = listing(&value!([{"command_type": "reset_usage"}])).await;
    let fetched = client(&server).fetch_commands(POLICY, None).await.unwrap();
    assert!(fetched.value.is_empty());
    assert_eq!(fetched.notices[0].to_string(), "command row 1: uuid: is missing (left out)");
}

#[tokio::test]
async fn an_answer_that_is_no_list_is_corrupt() {
    for body in [r#"{"results": []}"#, "null", "5"] {
        let server = Server::start(move |_, _| json(200, "", body)).await;
        let error = client(&server).fetch_policies().await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{error}");
        assert!(error.to_string().contains("a list was expected"), "{error}");
    }
}

#[tokio::test]
async fn the_address_may_end_with_api_or_not() {
    let server = listing(&value!([])).await;
    for end in ["", "/", "/api", "/api/", "/api//"] {
        client_at(&format!("{}{end}", server.url)).unwrap().probe().await.unwrap();
    }
    client_at(&format!("{}/portal/", server.url)).unwrap().probe().await.unwrap();
    client_at(&format!("{}/fapi", server.url)).unwrap().probe().await.unwrap();
    let paths: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.target.split("/marketplace").next().unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["/api", "/api", "/api", "/api", "/api", "/portal/api", "/fapi/api"]);
    let debug = format!("{:?}", client_at("https://waldur.example.ai").unwrap());
    assert!(debug.contains("https://waldur.example.ai/api/"), "{debug}");
}

// Paging.

/// Pages of resources `r0`, `r1`, ... with Waldur's headers.
fn pages(total: usize, seen: &Seen) -> Reply {
    let page: usize = seen.query("page").unwrap().parse().unwrap();
    let size: usize = seen.query("page_size").unwrap().parse().unwrap();
    let names = (0..total).map(|n| format!("r{n}")).skip((page - 1) * size).take(size);
    // The link points to another host: it must not be followed.
    let link =
        if page * size < total { "<http://192.0.2.1/?page=9>; rel=\"next\"" } else { "<x>; rel=\"last\"" };
    rows(&names.collect::<Vec<_>>(), &format!("link: {link}\r\nx-result-count: {total}\r\n"))
}

fn rows(uuids: &[String], headers: &str) -> Reply {
    let rows: Vec<_> =
        uuids.iter().map(|uuid| value!({"uuid": uuid, "backend_id": format!("acc-{uuid}")})).collect();
    json(200, headers, &Value::from(rows).to_string())
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("r{n}")).collect()
}

#[tokio::test]
async fn all_pages_are_read_and_links_to_elsewhere_are_not_followed() {
    for (total, requests) in [(0, 1), (1, 1), (100, 1), (101, 2), (250, 3)] {
        let server = Server::start(move |_, seen| pages(total, seen)).await;
        let fetched = client(&server).fetch_allocations().await.unwrap();
        assert_eq!((fetched.value.len(), server.seen().len()), (total, requests));
    }
}

#[tokio::test]
async fn a_list_without_paging_headers_is_read_to_its_last_page() {
    let server = Server::start(|_, seen| match seen.query("page").unwrap() {
        "1" => rows(&names(0..100), ""),
        _ => rows(&names(100..130), ""),
    })
    .await;
    assert_eq!(client(&server).fetch_allocations().await.unwrap().value.len(), 130);
    // A server that ignores the page number is not read for ever, nor are its rows counted twice.
    let server = Server::start(|_, _| rows(&names(0..100), "")).await;
    assert_eq!(client(&server).fetch_allocations().await.unwrap().value.len(), 100);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_row_that_moves_while_we_read_leads_to_a_second_reading() {
    // Between the pages a row is inserted in front: r99 comes twice, and the new one not at all.
    let server = Server::start(|number, seen| match number {
        1 => rows(&names(99..101), "x-result-count: 102\r\nlink: <x>; rel=\"prev\"\r\n"),
        0 => pages(101, seen),
        _ => pages(102, seen),
    })
    .await;
    let fetched = client(&server).fetch_allocations().await.unwrap();
    assert_eq!((fetched.value.len(), server.seen().len()), (102, 4));
    // The count stays, but a row is repeated and another one missed.
    let server = Server::start(|number, seen| match number {
        1 => rows(&names(99..100), "x-result-count: 101\r\n"),
        _ => pages(101, seen),
    })
    .await;
    let fetched = client(&server).fetch_allocations().await.unwrap();
    assert_eq!((fetched.value.len(), server.seen().len()), (101, 4));
    // The last page has vanished.
    let server = Server::start(|number, seen| match number {
        0 => pages(101, seen),
        1 => json(404, "", r#"{"detail": "Invalid page."}"#),
        _ => pages(100, seen),
    })
    .await;
    let fetched = client(&server).fetch_allocations().await.unwrap();
    assert_eq!((fetched.value.len(), server.seen().len()), (100, 3));
}

#[tokio::test]
async fn a_list_that_never_adds_up_is_an_error_and_not_a_shorter_list() {
    let server = Server::start(|_, _| rows(&names(0..3), "x-result-count: 5\r\n")).await;
    let error = client(&server).fetch_allocations().await.unwrap_err();
    assert!(matches!(error, CentralError::ListChanged { .. }), "{error}");
    assert_eq!((error.class(), server.seen().len()), (Class::Transient, 3));
    assert!(error.to_string().contains("3 different rows came where the server counts 5"), "{error}");
}

#[tokio::test]
async fn one_failed_page_fails_the_list() {
    let server = Server::start(|_, seen| match seen.query("page").unwrap() {
        "1" => pages(150, seen),
        _ => raw(502, "", b""),
    })
    .await;
    let error = client(&server).fetch_allocations().await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
}

// Sending.

fn result() -> CommandResult {
    CommandResult {
        command: "22222222222222222222222222220002".into(),
        source: source(),
        policy: POLICY.into(),
        allocation: Some(RESOURCE.into()),
        success: false,
        error: "sacctmgr: account bio42 does not exist".into(),
        mode: Mode::Emulator,
        commands: vec!["sacctmgr --immediate modify account bio42 set fairshare=333".into()],
    }
}

#[tokio::test]
async fn a_verdict_is_told_with_its_true_mode_and_again_when_the_answer_is_lost() {
    let server = Server::start(|number, _| match number {
        0 => Reply::HangUp,
        _ => json(200, "", ""),
    })
    .await;
    client(&server).post_command_result(&result()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (seen[1].method.as_str(), seen[1].target.as_str()),
        (
            "POST",
            format!("/api/marketplace-slurm-periodic-usage-policies/{POLICY}/report-command-result/")
                .as_str()
        )
    );
    assert!(seen[1].headers.contains("content-type: application/json"));
    assert_eq!(
        seen[1].json(),
        value!({
            "resource_uuid": RESOURCE,
            "success": false,
            "error_message": "sacctmgr: account bio42 does not exist",
            "mode": "emulator",
            "commands_executed": ["sacctmgr --immediate modify account bio42 set fairshare=333"],
        })
    );
}

#[tokio::test]
async fn a_verdict_that_belongs_nowhere_or_an_id_that_leads_elsewhere_is_never_sent() {
    let server = listing(&value!([])).await;
    let client = client(&server);
    for (policy, resource) in [
        (POLICY, None),
        ("../../../admin", Some(RESOURCE)),
        ("", Some(RESOURCE)),
        ("a/b", Some(RESOURCE)),
        ("a?b", Some(RESOURCE)),
        ("%2e%2e", Some(RESOURCE)),
        (POLICY, Some("..")),
    ] {
        let message =
            CommandResult { policy: policy.into(), allocation: resource.map(str::to_owned), ..result() };
        let error = client.post_command_result(&message).await.unwrap_err();
        assert_eq!(error.class(), Class::Refused, "{error}");
    }
    assert_eq!(server.seen().len(), 0);
}

fn usage() -> ComponentUsage {
    let part = |amounts: &[(&str, &str)]| -> BTreeMap<String, String> {
        amounts.iter().map(|(user, amount)| ((*user).into(), (*amount).into())).collect()
    };
    ComponentUsage {
        source: source(),
        allocation: RESOURCE.into(),
        month: "2026-11".into(),
        date: NOW,
        amounts: part(&[("cpu", "412.25"), ("gpu", "4.00")]),
        users: BTreeMap::from([
            ("cpu".to_owned(), part(&[("ada", "400.00"), ("bob", "12.25")])),
            ("gpu".to_owned(), part(&[("ada", "4.00")])),
            ("ram".to_owned(), part(&[])),
        ]),
    }
}

#[tokio::test]
async fn usage_is_told_in_total_and_then_per_user_to_the_rows_of_that_month() {
    let listed = fixture("waldur/component-usages.json");
    let server = Server::start(move |_, seen| match seen.method.as_str() {
        "GET" => json(200, "x-result-count: 3\r\n", &listed),
        _ => json(201, "", ""),
    })
    .await;
    client(&server).post_component_usage(&usage()).await.unwrap();
    let seen = server.seen();
    let base = "/api/marketplace-component-usages/";
    let targets: Vec<_> = seen.iter().map(|s| s.target.strip_prefix(base).unwrap()).collect();
    assert_eq!(
        targets,
        [
            "set_usage/",
            &format!(
                "?offering_uuid={OFFERING}&billing_period=2026-11-01&field=uuid&field=type&field=resource_uuid\
                 &field=billing_period&page=1&page_size=100"
            ),
            "33333333333333333333333333330001/set_user_usages/",
            "33333333333333333333333333330002/set_user_usages/",
        ]
    );
    assert_eq!(
        seen[0].json(),
        value!({
            "resource": RESOURCE,
            "date": "2026-11-22T06:00:00Z",
            "usages": [{"type": "cpu", "amount": "412.25"}, {"type": "gpu", "amount": "4.00"}],
        })
    );
    assert_eq!(
        seen[2].json(),
        value!({"usages": [
            {"username": "ada", "usage": "400.00", "date": "2026-11-22T06:00:00Z"},
            {"username": "bob", "usage": "12.25", "date": "2026-11-22T06:00:00Z"},
        ]})
    );
}

#[tokio::test]
async fn usage_without_users_is_one_request_and_many_users_are_sent_in_parts() {
    let server = Server::start(|_, _| json(201, "", "")).await;
    client(&server)
        .post_component_usage(&ComponentUsage { users: BTreeMap::new(), ..usage() })
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 1);
    let listed = fixture("waldur/component-usages.json");
    let server = Server::start(move |_, seen| match seen.method.as_str() {
        "GET" => json(200, "", &listed),
        _ => json(201, "", ""),
    })
    .await;
    let crowd: BTreeMap<_, _> = (0..1201).map(|n| (format!("u{n}"), "0.10".to_owned())).collect();
    let message = ComponentUsage { users: BTreeMap::from([("cpu".to_owned(), crowd)]), ..usage() };
    client(&server).post_component_usage(&message).await.unwrap();
    let parts: Vec<_> =
        server.seen()[2..].iter().map(|s| s.json()["usages"].as_array().unwrap().len()).collect();
    assert_eq!(parts, [500, 500, 201]);
}

#[tokio::test]
async fn users_of_a_component_that_the_server_does_not_know_are_an_error_that_names_it() {
    let server = Server::start(|_, seen| match seen.method.as_str() {
        "GET" => json(200, "", "[]"),
        _ => json(201, "", ""),
    })
    .await;
    let error = client(&server).post_component_usage(&usage()).await.unwrap_err();
    assert!(error.to_string().contains("component cpu"), "{error}");
}

#[tokio::test]
async fn every_verb_of_the_policy_api_asks_its_address_with_its_method_and_body() {
    let server = Server::start(|_, seen| match seen.method.as_str() {
        "GET" if !seen.target.contains(POLICY) && !seen.target.contains(RESOURCE) => json(200, "", "[]"),
        "GET" if seen.target.contains("logs") => json(200, "", r#"[{"uuid": "l"}]"#),
        "DELETE" => json(204, "", ""),
        _ => json(200, "", r#"{"uuid": "u"}"#),
    })
    .await;
    let client = client(&server);
    let body = value!({"grace_ratio": 0.1});
    client.list_policies(&[("scope_uuid", "x".into())]).await.unwrap();
    client.retrieve_policy(POLICY).await.unwrap();
    client.create_policy(&body).await.unwrap();
    client.update_policy(POLICY, &body).await.unwrap();
    client.partial_update_policy(POLICY, &body).await.unwrap();
    client.delete_policy(POLICY).await.unwrap();
    client.available_actions().await.unwrap();
    client.dry_run(POLICY, None).await.unwrap();
    client.evaluate(POLICY, Some(RESOURCE)).await.unwrap();
    client.force_period_reset(POLICY, Some(RESOURCE)).await.unwrap();
    client.preview_impact(&body).await.unwrap();
    client.evaluation_logs(POLICY, Some(RESOURCE), Some("2026-Q4")).await.unwrap();
    client.retrieve_resource(RESOURCE).await.unwrap();
    client.set_backend_metadata(RESOURCE, &value!({"qos": "normal"})).await.unwrap();
    let policies = "/api/marketplace-slurm-periodic-usage-policies/";
    let resources = "/api/marketplace-provider-resources/";
    let one = format!("{policies}{POLICY}/");
    let grace = r#"{"grace_ratio":0.1}"#.to_owned();
    let resource = format!("{{\"resource_uuid\":\"{RESOURCE}\"}}");
    let expected = [
        ("GET", format!("{policies}?scope_uuid=x&page=1&page_size=100"), String::new()),
        ("GET", one.clone(), String::new()),
        ("POST", policies.into(), grace.clone()),
        ("PUT", one.clone(), grace.clone()),
        ("PATCH", one.clone(), grace.clone()),
        ("DELETE", one.clone(), String::new()),
        ("GET", format!("{policies}actions/"), String::new()),
        ("POST", format!("{one}dry-run/"), "{}".into()),
        ("POST", format!("{one}evaluate/"), resource.clone()),
        ("POST", format!("{one}force-period-reset/"), resource),
        ("POST", format!("{policies}preview_impact/"), grace),
        (
            "GET",
            format!("{one}evaluation-logs/?resource_uuid={RESOURCE}&billing_period=2026-Q4"),
            String::new(),
        ),
        ("GET", format!("{resources}{RESOURCE}/"), String::new()),
        (
            "POST",
            format!("{resources}{RESOURCE}/set_backend_metadata/"),
            r#"{"backend_metadata":{"qos":"normal"}}"#.into(),
        ),
    ];
    for (seen, (method, target, body)) in server.seen().iter().zip(&expected) {
        assert_eq!((&*seen.method, &seen.target, &seen.body), (*method, target, body));
    }
    assert_eq!(server.seen().len(), expected.len());
}

#[tokio::test]
async fn making_a_policy_is_never_repeated_and_deleting_one_twice_is_deleting_it() {
    let server = Server::start(|_, _| raw(502, "", b"")).await;
    assert!(client(&server).create_policy(&value!({})).await.is_err());
    assert_eq!(server.seen().len(), 1);
    let gone = r#"{"detail": "No SlurmPeriodicUsagePolicy matches the given query."}"#;
    let server = Server::start(move |number, _| match number {
        0 => Reply::HangUp,
        _ => json(404, "", gone),
    })
    .await;
    client(&server).delete_policy(POLICY).await.unwrap();
    let server = Server::start(move |_, _| json(404, "", gone)).await;
    assert_eq!(client(&server).delete_policy(POLICY).await.unwrap_err().class(), Class::Refused);
}

#[test]
fn a_very_long_error_text_is_shortened_before_it_is_told() {
    let message = CommandResult { error: "é".repeat(10_000), ..result() };
    let body = wire::command_result_body(&message, RESOURCE);
    assert_eq!(body["error_message"].as_str().unwrap().chars().count(), 2000);
}
