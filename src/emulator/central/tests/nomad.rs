//! Nomad's quotas: each request and answer of their page, blocking queries, and what a server of it goes through.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::super::nomad::RegionLimit;
use super::super::{CentralServer, CentralState, Fault, FaultKind};
use super::{Got, Site};

const API: &str = "/nomad/v1";

fn page(name: &str) -> Value {
    let page: Value =
        serde_json::from_str(include_str!("../../../../fixtures/central/nomad/api-page.json")).unwrap();
    page[name].clone()
}

fn state(nomad: Value) -> CentralState {
    serde_json::from_value(json!({"clock": {"fixed": super::NOW}, "nomad": nomad})).unwrap()
}

/// The servers of the page: its quota, and the usage that it shows under the name of another.
fn of_the_page() -> CentralState {
    let limit = &page("GET quotas")[0]["Limits"][0];
    let quota = |name: &str, modified: u64| {
        json!({
            "Name": name, "Description": "Limit the shared default namespace", "CreateIndex": 8, "ModifyIndex": modified,
            "Hash": page("GET quotas")[0]["Hash"],
            "Limits": [{"Region": "global", "Hash": limit["Hash"],
                        "RegionLimit": {"CPU": 2500, "MemoryMB": 2000, "Networks": [{"MBits": 50}]}}],
        })
    };
    state(json!({
        "index": 60,
        "quotas": [quota("shared-quota", 56)],
        "usages": [{"Name": "default", "CreateIndex": 8, "ModifyIndex": 56, "Used": [
            {"Region": "global", "Hash": limit["Hash"], "RegionLimit": {"CPU": 500, "MemoryMB": 256}}
        ]}]
    }))
}

/// Two quotas of one region.
fn plain() -> CentralState {
    state(json!({
        "quotas": [
            {"Name": "bio", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 4}}]},
            {"Name": "chem", "Limits": [{"Region": "global", "RegionLimit": {"Cores": 2}}]}
        ]
    }))
}

impl Site {
    async fn nomad(&self, path: &str) -> Got {
        self.send(self.request(Method::GET, &format!("{API}{path}"), "")).await
    }

    async fn nomad_write(&self, method: Method, path: &str, body: &Value) -> Got {
        // As curl sends `--data`: without a word that it is JSON.
        self.send(self.request(method, &format!("{API}{path}"), "").body(body.to_string())).await
    }

    /// Asks, and comes back when the server holds the query.
    async fn held(&self, path: &str) -> JoinHandle<reqwest::Result<reqwest::Response>> {
        let before = self.handle.queries_held();
        let asked = tokio::spawn(self.request(Method::GET, &format!("{API}{path}"), "").send());
        while self.handle.queries_held() == before {
            assert!(!asked.is_finished(), "{path} was not held");
            tokio::task::yield_now().await;
        }
        asked
    }
}

fn index(got: &Got) -> u64 {
    got.header("x-nomad-index").parse().unwrap_or_else(|_| panic!("no index: {} {}", got.status, got.text))
}

async fn answered(asked: JoinHandle<reqwest::Result<reqwest::Response>>) -> Got {
    let response = asked.await.unwrap().unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Got { status, headers, text: response.text().await.unwrap() }
}

fn cores(cores: i64) -> Value {
    json!({"Name": "bio", "Limits": [{"Region": "global", "RegionLimit": {"Cores": cores}}]})
}

#[tokio::test]
async fn every_answer_of_the_page_is_given_field_by_field() {
    let site = Site::with(of_the_page()).await;
    for path in ["/quotas", "/quotas?prefix=sha"] {
        let got = site.nomad(path).await;
        assert_eq!((got.status, got.header("content-type")), (200, "application/json"));
        assert_eq!(got.json(), page("GET quotas"), "{path}");
        assert_eq!((index(&got), got.header("x-nomad-knownleader")), (56, "true"));
        assert_eq!(got.header("x-nomad-lastcontact"), "0");
    }
    assert_eq!(site.nomad("/quotas?prefix=other").await.json(), json!([]));
    assert_eq!(site.nomad("/quota/shared-quota").await.json(), page("GET quota/shared-quota"));
    // The page has its usages under another name than the quota, and reads one at the address of quotas.
    assert_eq!(site.nomad("/quota-usages?prefix=def").await.json(), page("GET quota-usages"));
    site.handle.with_state(|state| {
        state.nomad.usages[0].used[0].region_limit.networks =
            vec![super::super::nomad::Network { mbits: 50 }];
    });
    assert_eq!(site.nomad("/quota/usage/default").await.json(), page("GET quota/usage/default"));
    let all = site.nomad("/quota-usages").await.json();
    assert_eq!((&all[0]["Name"], &all[1]["Name"]), (&json!("default"), &json!("shared-quota")));
    site.stop().await;
}

#[tokio::test]
async fn the_payload_of_the_page_creates_and_updates_at_both_addresses_and_delete_deletes() {
    let site = Site::with(state(json!({"index": 41}))).await;
    let payload = page("POST quota request");
    for (method, path, at) in [
        (Method::POST, "/quota/shared-quota", 42),
        (Method::POST, "/quota", 43),
        (Method::PUT, "/quota/shared-quota", 44),
    ] {
        let got = site.nomad_write(method, path, &payload).await;
        assert_eq!((got.status, got.text.as_str(), index(&got)), (200, "", at), "{path}");
    }
    let quota = site.nomad("/quota/shared-quota").await.json();
    let limit = &quota["Limits"][0];
    assert_eq!((&quota["CreateIndex"], &quota["ModifyIndex"]), (&json!(42), &json!(44)));
    assert_eq!(quota["Description"], payload["Description"]);
    let network = &page("GET quotas")[0]["Limits"][0]["RegionLimit"]["Networks"][0];
    let expected = json!({"CPU": 2500, "MemoryMB": 1000, "DiskMB": 0, "Networks": [network]});
    assert_eq!(limit["RegionLimit"], expected, "Mbits of the payload is MBits");
    assert_eq!((limit["Hash"].as_str().unwrap().len(), quota["Hash"].as_str().unwrap().len()), (44, 44));
    let used = site.nomad("/quota/usage/shared-quota").await.json();
    let hash = limit["Hash"].as_str().unwrap();
    assert_eq!(used["Used"][hash]["Region"], "global", "what is used stands under the hash of its limit");
    let got = site.nomad_write(Method::DELETE, "/quota/shared-quota", &json!(null)).await;
    assert_eq!((got.status, got.text.as_str(), index(&got)), (200, "", 45));
    for path in ["/quota/shared-quota", "/quota/usage/shared-quota"] {
        let got = site.nomad(path).await;
        assert_eq!((got.status, got.text.as_str(), index(&got)), (404, "Quota not found", 45));
    }
    assert_eq!(site.nomad_write(Method::DELETE, "/quota/shared-quota", &json!(null)).await.status, 404);
    site.stop().await;
}

#[tokio::test]
async fn newer_fields_are_read_and_shown_without_regard_to_the_case_of_names() {
    let site = Site::with(CentralState::default()).await;
    let body = json!({"name": "gpu", "UNKNOWN": 1, "limits": [null, {"region": "eu", "regionlimit": {
        "cores": 16, "cpu": null, "memoryMaxMb": 9, "storage": {"hostvolumesmb": 7},
        "devices": [{"name": "nvidia/gpu", "count": 2}],
        "nodePools": [{"nodepool": "batch", "cores": -1, "devices": null}]
    }}]});
    let got = site.nomad_write(Method::PUT, "/quota", &body).await;
    assert_eq!(got.status, 200, "{}", got.text);
    let limit = &site.nomad("/quota/gpu").await.json()["Limits"][0]["RegionLimit"];
    let pool = json!({"NodePool": "batch", "CPU": 0, "Cores": -1, "MemoryMB": 0, "MemoryMaxMB": 0,
                      "Devices": null, "Storage": null});
    let expected = json!({
        "CPU": 0, "DiskMB": 0, "MemoryMB": 0, "Networks": null, "Cores": 16, "MemoryMaxMB": 9,
        "Devices": [{"Name": "nvidia/gpu", "Count": 2}], "Storage": {"VariablesMB": 0, "HostVolumesMB": 7},
        "NodePools": [pool],
    });
    assert_eq!(limit, &expected);
    site.handle.with_state(|state| state.nomad.present_fields = true);
    let limit = &site.nomad("/quota/gpu").await.json()["Limits"][0]["RegionLimit"];
    let expected = json!({
        "CPU": 0, "Cores": 16, "MemoryMB": 0, "MemoryMaxMB": 9, "NUMA": null, "SecretsMB": 0,
        "Devices": [{"Name": "nvidia/gpu", "Count": 2}], "Storage": {"VariablesMB": 0, "HostVolumesMB": 7},
        "NodePools": [pool],
    });
    assert_eq!(limit, &expected);
    site.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_quota_or_a_query_is_said_in_plain_text() {
    let site = Site::with(plain()).await;
    let before = site.nomad("/quotas").await.text;
    let limits = |limits: Value| json!({"Name": "bio", "Limits": limits});
    for (path, body, reason) in [
        ("/quota/other", cores(1), "does not match request path"),
        ("/quota", json!({"Limits": []}), "invalid name"),
        ("/quota", json!({"Name": "a/b"}), "invalid name"),
        ("/quota", json!({"Name": "a", "Description": "x".repeat(257)}), "description longer than 256"),
        ("/quota", limits(json!([{"RegionLimit": {}}])), "missing its region"),
        ("/quota", limits(json!([{"Region": "a"}, {"Region": "a"}])), "more than one limit"),
        ("/quota", limits(json!([{"Region": "a", "RegionLimit": {"Cores": "2"}}])), "cannot unmarshal"),
        ("/quota", limits(json!([{"Region": "a", "RegionLimit": {"Cores": 1.5}}])), "cannot unmarshal"),
        ("/quota", json!([]), "cannot unmarshal"),
    ] {
        let got = site.nomad_write(Method::POST, path, &body).await;
        assert_eq!((got.status, got.header("content-type")), (400, "text/plain; charset=utf-8"), "{body}");
        assert!(got.text.contains(reason), "{body}: {}", got.text);
    }
    for (path, status, reason) in [
        ("/quotas?index=x", 400, "Invalid index"),
        ("/quotas?wait=soon", 400, "Invalid wait time"),
        ("/quota/", 400, "Missing Quota Name"),
        ("/quota", 405, "Invalid method"),
        ("/namespaces", 404, "404 page not found"),
    ] {
        let got = site.nomad(path).await;
        assert_eq!((got.status, got.text.trim()), (status, reason), "{path}");
    }
    assert_eq!(site.nomad_write(Method::PUT, "/quotas", &json!({})).await.status, 405);
    assert_eq!(site.nomad("/quotas").await.text, before);
    site.stop().await;
}

#[tokio::test]
async fn tokens_open_reading_or_writing_and_without_them_everything_is_open() {
    let mut state = plain();
    state.nomad.tokens =
        serde_json::from_value(json!([{"secret": "reader"}, {"secret": "writer", "may_write": true}]))
            .unwrap();
    let site = Site::with(state).await;
    let ask = async |method: Method, token: &str| {
        let request = site.request(method, &format!("{API}/quota/bio"), "");
        site.send(request.header("x-nomad-token", token).body(cores(9).to_string())).await
    };
    let refusal = |got: Got| (got.status, got.text);
    assert_eq!(refusal(site.nomad("/quotas").await), (403, "Permission denied".to_owned()));
    assert_eq!(refusal(ask(Method::GET, "stranger").await), (403, "ACL token not found".to_owned()));
    assert_eq!(ask(Method::GET, "reader").await.status, 200);
    assert_eq!(refusal(ask(Method::POST, "reader").await), (403, "Permission denied".to_owned()));
    assert_eq!(ask(Method::POST, "writer").await.status, 200);
    let bearer = site.request(Method::GET, &format!("{API}/quotas"), "").bearer_auth("reader");
    assert_eq!(site.send(bearer).await.status, 200);
    let remembered = format!("{:?}", site.handle.requests());
    assert!(!remembered.contains("reader") && !remembered.contains("writer"), "{remembered}");
    site.stop().await;
}

#[tokio::test]
async fn a_query_is_held_until_its_index_passes_and_index_0_never_is() {
    let site = Site::with(plain()).await;
    let first = site.nomad("/quotas").await;
    let at = index(&first);
    assert_eq!(index(&site.nomad("/quotas?index=0&wait=10m").await), at);
    assert_eq!(site.nomad(&format!("/quotas?index={}", at - 1)).await.json(), first.json());
    let list = site.held(&format!("/quotas?index={at}")).await;
    let other = site.nomad("/quota/chem").await;
    let chem = site.held(&format!("/quota/chem?index={}", index(&other))).await;
    let usages =
        site.held(&format!("/quota-usages?index={}", index(&site.nomad("/quota-usages").await))).await;
    let statuses: Vec<u16> = site.handle.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [200, 200, 200, 0, 200, 0, 200, 0], "what is held has no status yet");
    site.handle.with_state(|state| {
        let used = RegionLimit { cores: 1, ..RegionLimit::default() };
        state.nomad.set_used("chem", "global", used);
    });
    let got = answered(usages).await;
    assert_eq!((got.status, index(&got)), (200, at + 1));
    assert!(!list.is_finished() && !chem.is_finished(), "the usage is no change of a quota");
    assert_eq!(site.nomad_write(Method::POST, "/quota/bio", &cores(8)).await.status, 200);
    let got = answered(list).await;
    assert_eq!(got.json()[0]["Limits"][0]["RegionLimit"]["Cores"], 8);
    assert_eq!((index(&got), got.json()[0]["ModifyIndex"].as_u64()), (at + 2, Some(at + 2)));
    assert!(!chem.is_finished() && site.handle.queries_held() == 1, "another quota is no change of this one");
    assert!(site.nomad_write(Method::DELETE, "/quota/chem", &json!(null)).await.status == 200);
    assert_eq!(answered(chem).await.status, 404);
    assert!(site.handle.requests().iter().all(|request| request.status != 0), "all were answered");
    site.stop().await;
}

#[tokio::test]
async fn a_query_whose_wait_is_over_is_answered_with_how_things_are() {
    let site = Site::with(plain()).await;
    let before = site.nomad("/quotas").await;
    let at = index(&before);
    let got = site.nomad(&format!("/quotas?index={at}&wait=10ms")).await;
    assert_eq!((got.status, index(&got), got.text == before.text), (200, at, true));
    let got = site.nomad(&format!("/quotas?index={}&wait=10ms", at + 1000)).await;
    assert_eq!((got.status, index(&got)), (200, at), "an index of the future waits in vain");
    assert_eq!(site.handle.queries_held(), 0);
    // A write that writes the same is a change; with a prefix the answer does not show what changed.
    let held = site.held(&format!("/quotas?prefix=ch&index={at}")).await;
    site.nomad_write(Method::POST, "/quota/bio", &cores(4)).await;
    let got = answered(held).await;
    assert_eq!((index(&got), &got.json()[0]), (at + 1, &before.json()[1]));
    site.stop().await;
}

#[tokio::test]
async fn a_restart_cuts_held_queries_and_may_bring_an_older_index() {
    let site = Site::with(plain()).await;
    for _ in 0..5 {
        site.nomad_write(Method::POST, "/quota/bio", &cores(8)).await;
    }
    let at = index(&site.nomad("/quotas").await);
    let held = site.held(&format!("/quotas?index={at}")).await;
    let door = site.request(Method::POST, "/_emulator/nomad", "").json(&json!({"restart": true, "index": 3}));
    let got = site.send(door).await;
    assert_eq!((got.status, got.json()), (200, json!({"index": 3, "restarts": 1})));
    assert!(held.await.unwrap().is_err(), "the connection ends without an answer");
    let got = site.nomad("/quotas").await;
    assert_eq!((index(&got), got.json()[0]["ModifyIndex"].as_u64()), (3, Some(3)));
    let held = site.held(&format!("/quotas?index={at}")).await;
    site.nomad_write(Method::POST, "/quota/bio", &cores(9)).await;
    assert!(!held.is_finished(), "who still asks with the old index misses changes until its wait is over");
    held.abort();
    site.stop().await;
}

#[tokio::test]
async fn without_a_leader_only_stale_reads_are_answered() {
    let site = Site::with(plain()).await;
    let held = site.held("/quotas?index=99").await;
    let leader = async |has: bool| {
        let door = site.request(Method::POST, "/_emulator/nomad", "").json(&json!({"has_leader": has}));
        assert_eq!(site.send(door).await.status, 200);
    };
    leader(false).await;
    let got = answered(held).await;
    assert_eq!((got.status, got.text.as_str()), (500, "No cluster leader"));
    for got in [site.nomad("/quotas").await, site.nomad_write(Method::POST, "/quota", &cores(1)).await] {
        assert_eq!((got.status, got.text.as_str()), (500, "No cluster leader"));
    }
    let got = site.nomad("/quotas?stale").await;
    assert_eq!((got.status, got.header("x-nomad-knownleader")), (200, "false"));
    leader(true).await;
    assert_eq!(site.nomad("/quotas").await.status, 200);
    let door = site.request(Method::POST, "/_emulator/nomad", "").json(&json!({"index": 1}));
    assert_eq!(site.send(door).await.status, 400, "an index goes back with a restart only");
    site.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_says_nothing_until_it_stops_and_serves_others_meanwhile() {
    let site = Site::with(plain()).await;
    site.handle.push_fault(Fault::once(FaultKind::Hang).on("GET", "/nomad/v1/quotas"));
    let request = site.request(Method::GET, &format!("{API}/quotas"), "").send();
    let hung = tokio::spawn(request);
    while site.handle.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.handle.requests()[0].status, 0);
    assert_eq!(site.nomad("/quotas").await.status, 200);
    let impatient =
        site.request(Method::GET, &format!("{API}/quotas"), "").timeout(Duration::from_millis(20));
    site.handle.push_fault(Fault::once(FaultKind::Hang));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    assert!(!hung.is_finished());
    site.stop().await;
    assert!(hung.await.unwrap().is_err());
}

#[tokio::test]
async fn faults_hit_held_queries_when_they_are_answered() {
    let site = Site::with(plain()).await;
    site.handle.push_fault(Fault::once(FaultKind::BrokenJson));
    let broken = site.held("/quotas?index=99&wait=10ms").await;
    let got = answered(broken).await;
    assert!(got.status == 200 && serde_json::from_str::<Value>(&got.text).is_err(), "{}", got.text);
    site.handle.push_fault(Fault::once(FaultKind::AnswerLost));
    assert!(site.held("/quotas?index=99&wait=10ms").await.await.unwrap().is_err());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_held_queries_block_nobody_and_are_all_told_of_one_change() {
    let site = Site::with(plain()).await;
    let at = index(&site.nomad("/quotas").await);
    let path = format!("{API}/quotas?index={at}");
    let held: Vec<_> = (0..2000).map(|_| tokio::spawn(site.request(Method::GET, &path, "").send())).collect();
    while site.handle.queries_held() < 2000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.nomad("/quota/bio").await.status, 200);
    assert_eq!(site.nomad_write(Method::POST, "/quota/bio", &cores(5)).await.status, 200);
    for query in held {
        let got = answered(query).await;
        assert_eq!((got.status, index(&got)), (200, at + 1));
    }
    assert_eq!(site.handle.queries_held(), 0);
    let held: Vec<_> =
        (0..200).map(|_| tokio::spawn(site.request(Method::GET, &format!("{path}9"), "").send())).collect();
    while site.handle.queries_held() < 200 {
        tokio::task::yield_now().await;
    }
    site.stop().await;
    for query in held {
        assert!(query.await.unwrap().is_err(), "a server that stops does not wait for waits");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_no_longer_held() {
    let site = Site::with(plain()).await;
    let impatient = site.request(Method::GET, &format!("{API}/quotas?index=99"), "");
    assert!(impatient.timeout(Duration::from_millis(20)).send().await.unwrap_err().is_timeout());
    while site.handle.queries_held() > 0 {
        tokio::task::yield_now().await;
    }
    site.stop().await;
}

#[tokio::test]
async fn indexes_go_on_where_they_were_when_the_state_is_kept_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("central.json");
    let site = Site::start(CentralServer::in_file(&path, plain).unwrap()).await;
    site.nomad_write(Method::POST, "/quota/bio", &cores(5)).await;
    let before = site.nomad("/quotas").await;
    site.stop().await;
    let site = Site::start(CentralServer::in_file(&path, || panic!("there is a state")).unwrap()).await;
    let after = site.nomad("/quotas").await;
    assert_eq!((index(&after), after.json()), (index(&before), before.json()));
    site.nomad_write(Method::POST, "/quota/bio", &cores(5)).await;
    assert_eq!(index(&site.nomad("/quotas").await), index(&before) + 1);
    site.stop().await;
}
