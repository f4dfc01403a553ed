//! AMIE: validation, delayed loading, failures, replacement, counts.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::amie::{FailedList, Processing};
use super::super::{Fault, FaultKind};
use super::{CentralState, Got, Site, seed};

const USAGE: &str = "/amie/api/v1/usage";

fn amie_seed() -> CentralState {
    let mut state = seed();
    state.amie = serde_json::from_value(json!({
        "sites": [
            {"name": "SITE", "api_key": "key", "resources": ["cluster.site.org"]},
            {"name": "OTHER", "api_key": "other-key"}
        ],
        "projects": [
            {"local_project_id": "bio42", "users": ["ann"]},
            {"local_project_id": "chem7", "resources": ["other.site.org"]}
        ]
    }))
    .unwrap();
    state
}

fn compute(id: &str, charge: &str) -> Value {
    json!({
        "Username": "ann", "LocalProjectID": "bio42", "LocalRecordID": id, "Resource": "cluster.site.org",
        "Charge": charge, "SubmitTime": "2026-11-22T08:00:00+00:00", "StartTime": "2026-11-22T08:05:00Z",
        "EndTime": "2026-11-22T09:05:00Z", "Attributes": {"NodeCount": "1", "CpuCoreCount": "4"}
    })
}

impl Site {
    async fn amie(&self, method: Method, path: &str, body: Option<Value>) -> Got {
        let request = self.client.request(method, format!("{}{USAGE}{path}", self.base));
        let request = request.header("XA-API-KEY", "key").header("XA-SITE", "SITE");
        self.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn send_records(&self, kind: &str, records: Value) -> Got {
        self.amie(Method::POST, "/", Some(json!({"UsageType": kind, "Records": records}))).await
    }
}

#[tokio::test]
async fn a_site_needs_its_own_key() {
    let site = Site::with(amie_seed()).await;
    for (key, name) in [("key", "OTHER"), ("wrong", "SITE"), ("key", "NOBODY")] {
        let request = site.client.get(format!("{}{USAGE}/failed", site.base));
        let got = site.send(request.header("xa-api-key", key).header("xa-site", name)).await;
        assert_eq!((got.status, got.json()), (401, json!({"error": "Unauthorized"})));
    }
    let got = site.send(site.client.get(format!("{}{USAGE}/failed", site.base))).await;
    assert_eq!(got.status, 401);
    assert!(!format!("{:?}", site.handle.requests()).contains("wrong"));
    assert_eq!(site.amie(Method::GET, "/summary", None).await.status, 404);
    assert_eq!(site.amie(Method::PUT, "/failed", None).await.status, 405);
    site.stop().await;
}

#[tokio::test]
async fn a_message_is_refused_whole_when_it_is_malformed_and_record_by_record_otherwise() {
    let site = Site::with(amie_seed()).await;
    for (body, error) in [
        (json!({"UsageType": "Power", "Records": []}), "UsageType must be Compute, Storage or Adjustment"),
        (json!({"UsageType": "Compute", "Records": []}), "Records is empty"),
        (json!({"UsageType": "Compute"}), "Records must be a list"),
    ] {
        let got = site.amie(Method::POST, "/", Some(body)).await;
        assert_eq!((got.status, got.json()), (400, json!({"error": error})));
    }
    let mut cases = Vec::new();
    for (name, value, error) in [
        ("Username", json!(""), "Username is empty"),
        ("Resource", Value::Null, "Resource must be text"),
        ("LocalRecordID", json!("x".repeat(256)), "LocalRecordID is longer than 255 characters"),
        ("Charge", json!("1e3"), "Charge \"1e3\" is not a decimal number"),
        ("Charge", json!("-1"), "Charge is negative"),
        ("EndTime", json!("yesterday"), "EndTime \"yesterday\" is not an ISO 8601 time"),
        ("EndTime", json!("2026-11-22T08:01:00Z"), "SubmitTime, StartTime and EndTime are out of order"),
        ("Attributes", json!({}), "NodeCount is required"),
        ("Attributes", json!({"NodeCount": "two"}), "NodeCount must be a whole number"),
        ("ParentRecordID", json!(7), "ParentRecordID must be text"),
    ] {
        let mut record = compute("bad", "1");
        record[name] = value;
        cases.push((record, error));
    }
    let mut records: Vec<Value> = cases.iter().map(|(record, _)| record.clone()).collect();
    records.push(compute("good", "1.5"));
    records.push(json!("no record"));
    let got = site.send_records("Compute", json!(records)).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json()["Message"], "1 record(s) accepted, 11 record(s) failed validation");
    let refused = got.json()["ValidationFailedRecords"].as_array().unwrap().clone();
    for ((record, error), got) in cases.iter().zip(&refused) {
        assert_eq!(got["Error"], *error);
        assert_eq!((&got["UsageType"], &got["LocalRecordID"]), (&json!("Compute"), &record["LocalRecordID"]));
    }
    let bad = json!([{"Username": "ann", "LocalProjectID": "bio42", "LocalRecordID": "1", "Charge": "1",
                      "Resource": "cluster.site.org", "StartTime": "2026-11-22T08:00:00Z", "AdjustmentType": "gift"}]);
    let got = site.send_records("Adjustment", bad).await.json();
    assert!(
        got["ValidationFailedRecords"][0]["Error"].as_str().unwrap().starts_with("AdjustmentType must be")
    );
    assert_eq!(site.handle.with_state(|state| state.amie.loaded.len()), 1);
    site.stop().await;
}

#[tokio::test]
async fn accepted_is_not_loaded_until_the_delay_is_over() {
    let site = Site::with(amie_seed()).await;
    site.handle.with_state(|state| state.amie.settings.processing = Processing::AfterS(600));
    assert_eq!(site.send_records("Compute", json!([compute("1", "2")])).await.status, 200);
    let count = async || {
        let got = site.amie(Method::GET, "/status", None).await.json();
        got.as_array().unwrap().iter().map(|row| row["LoadedRecordCount"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(count().await, 0);
    site.handle.advance(599);
    assert_eq!(count().await, 0);
    site.handle.advance(1);
    assert_eq!(count().await, 1);

    site.handle.with_state(|state| state.amie.settings.processing = Processing::AfterRequests(2));
    site.send_records("Compute", json!([compute("2", "2")])).await;
    assert_eq!((count().await, count().await), (1, 2), "at the second request after it");
    site.handle.with_state(|state| state.amie.settings.processing = Processing::Held);
    site.send_records("Compute", json!([compute("3", "2")])).await;
    site.handle.advance(1_000_000);
    assert_eq!(count().await, 2);
    site.handle.with_state(|state| state.amie.settings.processing = Processing::Immediately);
    site.handle.tick();
    assert_eq!(count().await, 3);
    site.stop().await;
}

#[tokio::test]
async fn a_record_sent_again_replaces_the_earlier_one() {
    let site = Site::with(amie_seed()).await;
    site.send_records("Compute", json!([compute("1", "2"), compute("2", "3"), compute("1", "2.5")])).await;
    site.send_records("Compute", json!([compute("2", "0.1")])).await;
    let status = site.amie(Method::GET, "/status", None).await.json();
    assert_eq!((&status[0]["LoadedRecordCount"], &status[0]["TotalCharge"]), (&json!(2), &json!("2.6")));
    let loads =
        site.handle.with_state(|state| state.amie.loaded.iter().map(|row| row.loads).collect::<Vec<_>>());
    assert_eq!(loads, [2, 2]);
    // What a test takes away is gone, and comes back as new.
    site.handle.with_state(|state| state.amie.loaded.remove(0));
    site.send_records("Compute", json!([compute("2", "0.2"), compute("1", "2")])).await;
    let loads =
        site.handle.with_state(|state| state.amie.loaded.iter().map(|row| row.loads).collect::<Vec<_>>());
    assert_eq!(loads, [3, 1]);
    // The same id of another kind is another record, and another SubmitTime too where the service says so.
    let adjustment = json!({"Username": "ann", "LocalProjectID": "bio42", "LocalRecordID": "1", "Charge": "1",
        "Resource": "cluster.site.org", "StartTime": "2026-11-22T08:00:00Z", "AdjustmentType": "Refund"});
    site.send_records("Adjustment", json!([adjustment])).await;
    assert_eq!(site.handle.with_state(|state| state.amie.loaded.len()), 3);
    site.handle.with_state(|state| state.amie.settings.submit_time_in_key = true);
    let mut moved = compute("1", "9");
    moved["SubmitTime"] = json!("2026-11-22T07:59:00Z");
    site.send_records("Compute", json!([moved])).await;
    assert_eq!(site.handle.with_state(|state| state.amie.loaded.len()), 4);
    site.stop().await;
}

#[tokio::test]
async fn what_cannot_be_loaded_fails_with_its_reason_until_it_is_cleared() {
    let site = Site::with(amie_seed()).await;
    let other = |name: &str, value: &str| {
        let mut record = compute(&format!("{name}-{value}"), "1");
        record[name] = json!(value);
        record
    };
    let records = [
        other("LocalProjectID", "none"),
        other("Username", "bob"),
        other("Resource", "laptop"),
        other("LocalProjectID", "chem7"),
        compute("fine", "1"),
    ];
    site.handle.with_state(|state| state.amie.settings.accepted_status = 202);
    assert_eq!(site.send_records("Compute", json!(records)).await.status, 202);
    let failed = site.amie(Method::GET, "/failed", None).await.json();
    let rows = failed["FailedRecords"].as_array().unwrap().clone();
    let shown: Vec<(u64, &str)> = rows
        .iter()
        .map(|row| (row["FailedRecordID"].as_u64().unwrap(), row["Error"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            (1, "Unknown project none on resource cluster.site.org"),
            (2, "Unknown user bob on project bio42"),
            (3, "Unknown resource laptop"),
            (4, "No allocation for project chem7 on resource cluster.site.org"),
        ]
    );
    assert_eq!((&rows[1]["UsageType"], &rows[1]["Username"]), (&json!("Compute"), &json!("bob")));
    let status = site.amie(Method::GET, "/status", None).await.json();
    let laptop = status.as_array().unwrap().iter().find(|row| row["Resource"] == "laptop").unwrap();
    assert_eq!((&laptop["FailedJobCount"], &laptop["TotalCharge"]), (&json!(1), &json!("0")));
    assert_eq!(laptop["Errors"][0]["Records"][0]["LocalRecordID"], "Resource-laptop");
    // The other spelling of the list.
    site.handle.with_state(|state| state.amie.settings.failed_list = FailedList::ValidationFailedRecords);
    let failed = site.amie(Method::GET, "/failed", None).await.json();
    assert_eq!(failed["ValidationFailedRecords"].as_array().unwrap().len(), 4);
    assert_eq!(site.amie(Method::DELETE, "/failed/1,3,99", None).await.status, 200);
    assert_eq!(
        site.handle.with_state(|state| state.amie.failed.iter().map(|row| row.id).collect::<Vec<_>>()),
        [2, 4]
    );
    assert_eq!(site.amie(Method::DELETE, "/failed/99", None).await.status, 404);
    assert_eq!(site.amie(Method::DELETE, "/failed/two", None).await.status, 400);
    site.stop().await;
}

#[tokio::test]
async fn a_message_beyond_the_size_limit_is_refused_whole() {
    let site = Site::with(amie_seed()).await;
    let message = json!({"UsageType": "Compute", "Records": [compute("1", "1"), compute("2", "1")]});
    let size = message.to_string().len();
    site.handle.with_state(|state| state.amie.settings.body_bytes_max = size - 1);
    let got = site.amie(Method::POST, "/", Some(message.clone())).await;
    assert_eq!((got.status, got.json()["error"].is_string()), (413, true));
    assert!(site.handle.with_state(|state| state.amie.loaded.is_empty()));
    site.handle.with_state(|state| state.amie.settings.body_bytes_max = size);
    assert_eq!(site.amie(Method::POST, "/", Some(message.clone())).await.status, 200);
    site.handle.with_state(|state| state.amie.settings.records_max = 1);
    assert_eq!(site.amie(Method::POST, "/", Some(message)).await.status, 413);
    site.stop().await;
}

#[tokio::test]
async fn status_counts_a_span_and_loaded_records_come_page_by_page() {
    let site = Site::with(amie_seed()).await;
    for number in 0..5 {
        site.send_records("Compute", json!([compute(&format!("job{number}"), "1")])).await;
        site.handle.advance(3600);
    }
    let status = async |query: &str| {
        let got = site.amie(Method::GET, &format!("/status?{query}"), None).await;
        (got.status, got.json().pointer("/0/LoadedRecordCount").and_then(Value::as_u64))
    };
    assert_eq!(
        status("FromTime=2026-11-22T11:00:00Z&ToTime=2026-11-22T13:00:00%2B00:00").await,
        (200, Some(3))
    );
    assert_eq!(status("FromTime=2026-11-22T14:00:00").await, (200, Some(1)), "bare times are UTC");
    assert_eq!(status("FromTime=noon").await.0, 400);
    assert_eq!(status("FromTime=2026-11-23T00:00:00Z&ToTime=2026-11-22T00:00:00Z").await.0, 400);
    let mut ids = Vec::new();
    let mut page = json!(1);
    while let Some(number) = page.as_u64() {
        let path = format!("/loaded?MinLoadedTime=2026-11-22T11:00:00Z&PageSize=3&Page={number}");
        let got = site.amie(Method::GET, &path, None).await.json();
        assert_eq!(got["TotalRecords"], 4);
        ids.extend(got["LoadedRecords"].as_array().unwrap().iter().map(|row| row["LocalRecordID"].clone()));
        page = got["NextPage"].clone();
    }
    assert_eq!(ids, ["job1", "job2", "job3", "job4"]);
    let got = site.amie(Method::GET, "/loaded?LocalRecordID=job2", None).await.json();
    assert_eq!(got["LoadedRecords"][0]["LoadedTime"], "2026-11-22T12:00:00Z");
    assert_eq!(got["LoadedRecords"][0]["AccountingDbRecordID"], 3);
    assert_eq!(site.amie(Method::GET, "/loaded?Page=0", None).await.status, 400);
    site.stop().await;
}

#[tokio::test]
async fn faults_meet_the_usage_api_as_every_other_and_an_answer_that_is_lost_has_worked() {
    let site = Site::with(amie_seed()).await;
    let sent = |id: &str| json!({"UsageType": "Compute", "Records": [compute(id, "1")]});
    let once = |kind: FaultKind| site.handle.push_fault(Fault::once(kind).on("POST", "/amie/"));
    let count = || site.handle.with_state(|state| state.amie.loaded.len());
    for (kind, status) in [
        (FaultKind::Status { code: 503, retry_after: None }, 503),
        (FaultKind::TooManyRequests { retry_after: None }, 429),
        (FaultKind::HtmlPage { code: 502 }, 502),
    ] {
        once(kind);
        let got = site.amie(Method::POST, "/", Some(sent("1"))).await;
        assert_eq!((got.status, count()), (status, 0), "not taken");
    }
    let post = |id: &str| {
        let request = site.client.request(Method::POST, format!("{}{USAGE}/", site.base));
        request.header("XA-API-KEY", "key").header("XA-SITE", "SITE").json(&sent(id)).send()
    };
    once(FaultKind::Cut);
    assert!(post("1").await.is_err());
    assert_eq!(count(), 0, "cut before it was read");
    once(FaultKind::AnswerLost);
    assert!(post("2").await.is_err());
    assert_eq!(count(), 1, "it worked, and nobody was told");
    assert_eq!(site.amie(Method::POST, "/", Some(sent("2"))).await.status, 200);
    assert_eq!(site.handle.with_state(|state| state.amie.loaded[0].loads), 2, "sent again, replaced");
    site.stop().await;
}
