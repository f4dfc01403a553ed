//! State in a file, and the doors for scripts.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{CentralServer, CentralServerError, CentralState};
use super::{POLICIES, Site, USAGES, seed};

#[tokio::test]
async fn what_was_answered_is_on_disk_before_the_answer_arrives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("central.json");
    let site = Site::start(CentralServer::in_file(&path, seed).unwrap()).await;
    let on_disk = || serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(on_disk()["resources"][0]["name"], "bio42", "the seed is kept at once");
    let body = json!({"resource": site.resource("bio42"), "usages": [{"type": "cpu", "amount": "12.34"}]});
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), body).await.status, 201);
    assert_eq!(on_disk()["component_usages"][0]["usage"], "12.34");
    let uuid = site.resource("bio42");
    site.stop().await;

    // A second run sees the first one's state and not the seed again.
    let site = Site::start(CentralServer::in_file(&path, || panic!("there is a state")).unwrap()).await;
    assert_eq!(site.resource("bio42"), uuid);
    assert_eq!(site.get(USAGES).await.json()[0]["usage"], 12);
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["central.json"], "no half-written file stays");
    site.stop().await;
}

#[test]
fn a_change_that_no_request_follows_is_kept_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("central.json");
    let on_disk = || serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap();
    let server = CentralServer::in_file(&path, seed).unwrap();
    let handle = server.handle();
    let before = on_disk();
    handle.advance(86_400);
    assert_eq!(on_disk(), before);
    handle.keep().unwrap();
    assert_ne!(on_disk()["clock"], before["clock"]);
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_an_error_answer_and_not_half_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state").join("central.json");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let site = Site::start(CentralServer::in_file(&path, seed).unwrap()).await;
    let bio42 = site.resource("bio42");
    site.get(POLICIES).await;
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let body = json!({"resource": bio42, "usages": [{"type": "cpu", "amount": "1"}]});
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), body.clone()).await.status, 500);
    assert!(site.handle.with_state(|state| state.component_usages.is_empty()));
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(site.post(&format!("{USAGES}set_usage/"), body).await.status, 201);
    site.stop().await;
}

#[test]
fn a_state_file_that_is_wrong_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("central.json");
    std::fs::write(&path, "{\"ressources\": []}").unwrap();
    let error = CentralServer::in_file(&path, CentralState::default).err().unwrap();
    assert!(
        matches!(&error, CentralServerError::ParseState { path: named, .. } if *named == path),
        "{error}"
    );
    for (seed, reason) in [
        (json!({"commands": [{"resource": "nobody"}]}), "refers to a resource that is not there"),
        (json!({"policies": [{}, {}]}), "more than one policy"),
        (json!({"users": [{"username": "a"}]}), "needs a token of its own"),
        (json!({"resources": [{}]}), "neither name nor backend_id"),
        (json!({"resources": [{"name": "a"}], "commands": [{"resource": "a"}]}), "no policy to belong to"),
    ] {
        std::fs::write(&path, seed.to_string()).unwrap();
        let error = CentralServer::in_file(&path, CentralState::default).err().unwrap().to_string();
        assert!(error.contains(reason), "{seed}: {error}");
    }
}

#[test]
fn a_settled_state_settles_to_itself() {
    let mut state = seed();
    state.commands =
        serde_json::from_value(json!([{"resource": "bio42", "command_type": "reset_usage"}])).unwrap();
    state.settle().unwrap();
    let once = serde_json::to_value(&state).unwrap();
    let mut again: CentralState = serde_json::from_value(once.clone()).unwrap();
    again.settle().unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), once);
}

#[tokio::test]
async fn scripts_read_and_change_state_clock_and_faults_without_a_token() {
    let site = Site::with(seed()).await;
    let send = async |method: Method, door: &str, body: Value| {
        site.send(site.request(method, &format!("/_emulator/{door}"), "").json(&body)).await
    };
    let state = send(Method::GET, "state", json!(null)).await.json();
    assert_eq!(state["users"][0]["token"], "staff-token");
    let got = send(Method::PATCH, "state", json!({"settings": {"schema_conform": true}})).await;
    assert_eq!(got.status, 204, "{}", got.text);
    assert!(site.handle.with_state(|state| state.settings.schema_conform && state.resources.len() == 3));
    let got = send(Method::POST, "clock", json!({"advance_s": 86_400})).await;
    assert_eq!(got.json(), json!({"now": "2026-11-23T10:00:00Z"}));
    assert_eq!(site.get(POLICIES).await.header("date"), "Mon, 23 Nov 2026 10:00:00 GMT");
    let got = send(Method::POST, "clock", json!({"fixed": "2027-01-01T00:00:00Z"})).await;
    assert_eq!(got.status, 200);
    assert_eq!(send(Method::POST, "clock", json!({"sideways": 1})).await.status, 400);
    assert_eq!(send(Method::POST, "tick", json!(null)).await.status, 204);
    assert_eq!(site.handle.with_state(|state| state.commands.len()), 6, "a new quarter for two resources");
    let fault = json!({"kind": {"status": {"code": 503}}, "path": "marketplace"});
    assert_eq!(send(Method::POST, "faults", fault).await.status, 204);
    assert_eq!(send(Method::GET, "faults", json!(null)).await.json().as_array().unwrap().len(), 1);
    assert_eq!(send(Method::POST, "faults", json!({"kind": "meteor"})).await.status, 400);
    assert_eq!(send(Method::DELETE, "faults", json!(null)).await.status, 204);
    assert_eq!(site.get(POLICIES).await.status, 200);
    let seen = send(Method::GET, "requests", json!(null)).await.json();
    assert!(seen.as_array().unwrap().iter().all(|request| request["target"] == POLICIES), "{seen}");
    assert_eq!(send(Method::PUT, "state", json!({"policies": [{}, {}]})).await.status, 400);
    assert_eq!(send(Method::GET, "nothing", json!(null)).await.status, 404);
    site.stop().await;
}

#[test]
fn the_documented_seed_is_one() {
    let source = include_str!("../state.rs");
    let example: String = source
        .split("//! ```")
        .nth(1)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let mut state: CentralState = serde_json::from_str(&example).unwrap();
    state.settle().unwrap();
    assert_eq!(state.commands[0].parameters["account"], "bio42");
    assert_eq!(state.resources[0].current_usages["cpu"].to_string(), "512.25");
    assert_eq!((state.offerings.len(), state.policies[0].offering), (1, state.offerings[0].uuid));
}
