//! Every fault, as a client meets it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{Fault, FaultKind, HistoryFault, RetryAfter};
use super::{POLICIES, RESOURCES, Site, USAGES, seed};

/// A site with one command for each of two accounts.
async fn site() -> Site {
    let mut state = seed();
    state.commands = serde_json::from_value(json!([
        {"resource": "bio42", "command_type": "fairshare", "parameters": {"fairshare": 1},
         "executed_at": "2026-11-22T09:00:00Z"},
        {"resource": "bio42", "command_type": "reset_usage", "executed_at": "2026-11-22T09:01:00Z"},
        {"resource": "chem7", "command_type": "reset_usage", "executed_at": "2026-11-22T09:02:00Z"}
    ]))
    .unwrap();
    Site::with(state).await
}

#[tokio::test]
async fn refusals_come_with_their_retry_after_and_then_pass() {
    let site = site().await;
    let throttled = |retry_after| FaultKind::TooManyRequests { retry_after };
    for fault in [
        Fault::once(throttled(Some(RetryAfter::Seconds(7)))),
        Fault::once(throttled(Some(RetryAfter::DateInS(90)))),
        Fault::once(throttled(None)),
        Fault::once(FaultKind::Status { code: 503, retry_after: None }).times(2),
        Fault::once(FaultKind::HtmlPage { code: 502 }),
    ] {
        site.handle.push_fault(fault);
    }
    let got = site.get(POLICIES).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "7"));
    let got = site.get(POLICIES).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "Sun, 22 Nov 2026 10:01:30 GMT"));
    let got = site.get(POLICIES).await;
    assert_eq!((got.status, got.headers.get("retry-after")), (429, None));
    assert_eq!((site.get(POLICIES).await.status, site.get(POLICIES).await.status), (503, 503));
    let got = site.get(POLICIES).await;
    assert_eq!((got.status, got.text.starts_with("<!DOCTYPE html>")), (502, true));
    assert_eq!(site.get(POLICIES).await.status, 200);
    assert_eq!(site.handle.with_state(|state| state.faults.len()), 0);
    site.stop().await;
}

#[tokio::test]
async fn a_cut_connection_gives_no_byte_and_handles_nothing_while_a_lost_answer_was_handled() {
    let site = site().await;
    let body = |amount: &str| json!({"resource": site.resource("bio42"), "usages": [{"type": "cpu", "amount": amount}]});
    let path = format!("{USAGES}set_usage/");
    let (first, second) = (body("1"), body("2"));
    site.handle.push_fault(Fault::once(FaultKind::Cut).on("POST", "set_usage"));
    assert_eq!(site.get(POLICIES).await.status, 200, "other requests pass");
    let failed = site.request(Method::POST, &path, "staff-token").json(&first).send().await;
    assert!(failed.is_err());
    assert!(site.handle.with_state(|state| state.component_usages.is_empty()));
    site.handle.push_fault(Fault::once(FaultKind::AnswerLost).on("POST", "set_usage"));
    let failed = site.request(Method::POST, &path, "staff-token").json(&second).send().await;
    assert!(failed.is_err());
    assert_eq!(site.handle.with_state(|state| state.component_usages[0].usage.to_string()), "2.00");
    assert_eq!(site.post(&path, second).await.status, 201);
    site.stop().await;
}

#[tokio::test]
async fn a_truncated_body_ends_early_and_broken_json_ends_on_time() {
    let site = site().await;
    let whole = site.get(RESOURCES).await.text;
    site.handle.push_fault(Fault::once(FaultKind::Truncated));
    // Not compressed, since the client hides the length of what it unpacks.
    let plain = site.request(Method::GET, RESOURCES, "staff-token").header("accept-encoding", "identity");
    let response = plain.send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.content_length()), (200, Some(whole.len() as u64)));
    assert!(response.bytes().await.is_err(), "the body ends before its announced length");
    site.handle.push_fault(Fault::once(FaultKind::BrokenJson));
    let got = site.get(RESOURCES).await;
    assert_eq!((got.status, got.text.as_str()), (200, &whole[..whole.len() / 2]));
    assert!(serde_json::from_str::<Value>(&got.text).is_err());
    assert_eq!(site.get(RESOURCES).await.text, whole);
    site.stop().await;
}

#[tokio::test]
async fn an_oversized_body_is_as_large_as_asked_for() {
    let site = site().await;
    site.handle.push_fault(Fault::once(FaultKind::Oversized { bytes: 3_000_000 }));
    let got = site.get(RESOURCES).await;
    assert_eq!(got.text.len(), 3_000_000);
    assert_eq!(got.json().as_array().unwrap().len(), 3, "still JSON");
    site.stop().await;
}

#[tokio::test]
async fn a_history_comes_doubled_shuffled_empty_or_from_a_wrong_clock() {
    let site = site().await;
    let path = site.policy_path("command-history/");
    let types = |got: &Value| -> Vec<String> {
        got.as_array().unwrap().iter().map(|row| row["uuid"].as_str().unwrap().to_owned()).collect()
    };
    let right = site.get(&path).await.json();
    let [a, b, c] = <[String; 3]>::try_from(types(&right)).unwrap();
    for (fault, expected) in [
        (HistoryFault::Duplicated, vec![a.clone(), a.clone(), b.clone(), b.clone(), c.clone(), c.clone()]),
        (HistoryFault::Reordered, vec![b, a, c]),
        (HistoryFault::Forgotten, vec![]),
    ] {
        site.handle.push_fault(Fault::once(FaultKind::History(fault)));
        site.get(POLICIES).await;
        assert_eq!(types(&site.get(&path).await.json()), expected, "{fault:?}");
        assert_eq!(site.get(&path).await.json(), right);
    }
    site.handle.push_fault(Fault::once(FaultKind::ClockSkew { seconds: -3600 }));
    let got = site.get(&path).await;
    assert_eq!(got.json()[0]["executed_at"], "2026-11-22T08:02:00Z");
    assert_eq!(got.header("date"), "Sun, 22 Nov 2026 09:00:00 GMT");
    assert_eq!(site.get(&path).await.header("date"), "Sun, 22 Nov 2026 10:00:00 GMT");
    site.stop().await;
}

#[tokio::test]
async fn a_late_answer_is_given_up_when_the_server_stops() {
    let site = site().await;
    site.handle.push_fault(Fault::once(FaultKind::Latency { ms: 3_600_000 }));
    site.handle.push_fault(Fault::once(FaultKind::Status { code: 500, retry_after: None }));
    let slow = site.request(Method::GET, POLICIES, "staff-token").timeout(Duration::from_secs(60)).send();
    let slow = tokio::spawn(slow);
    // The request is remembered as soon as it was handled; only its answer is late.
    while site.handle.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    site.stop().await;
    assert_eq!(slow.await.unwrap().unwrap().status(), 500, "late and broken at once");
}

#[tokio::test]
async fn faults_by_chance_repeat_with_their_seed() {
    let run = async |seed_number: u64| {
        let mut state = seed();
        state.seed = seed_number;
        state.faults.push(Fault::once(FaultKind::Status { code: 500, retry_after: None }).with_chance(30));
        let site = Site::with(state).await;
        let mut statuses = Vec::new();
        for _ in 0..200 {
            statuses.push(site.get(POLICIES).await.status);
        }
        site.stop().await;
        statuses
    };
    let first = run(11).await;
    let failures = first.iter().filter(|status| **status == 500).count();
    assert!((30..=90).contains(&failures), "30 % of 200, not {failures}");
    assert_eq!(run(11).await, first);
    assert_ne!(run(12).await, first);
}

#[tokio::test]
async fn a_fault_can_let_requests_pass_first() {
    let mut state = seed();
    let fault = json!({"kind": {"status": {"code": 500}}, "after": 2, "path": "usage-policies"});
    state.faults.push(serde_json::from_value(fault).unwrap());
    let site = Site::with(state).await;
    let mut statuses = Vec::new();
    for path in [POLICIES, RESOURCES, POLICIES, POLICIES, POLICIES] {
        statuses.push(site.get(path).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 500, 200]);
    site.stop().await;
}
