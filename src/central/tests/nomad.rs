//! Nomad's quota API: every sample of the page, field by field.

use std::collections::BTreeMap;

use serde_json::{Value, json as value};

use super::*;
use crate::central::nomad::{Indexed, NomadClient};
use crate::central::{CentralError, Class};
use crate::core::exact::Exact;
use crate::core::quota::{Bound, Capacity, ConcurrencyQuota, ConcurrencyUsage, RegionLimit};

const PAGE: &str = "nomad/api-page.json";

fn client(server: &Server) -> NomadClient {
    NomadClient::new(&connection(server), surroundings().0).unwrap()
}

/// A server that answers every request with a part of the page.
async fn showing(part: &str) -> Server {
    let body = page(PAGE, part).to_string();
    Server::start(move |_, _| json(200, "X-Nomad-Index: 56\r\n", &body)).await
}

fn region(cpu_mhz: Bound, memory_mb: Bound, cores: Bound) -> BTreeMap<String, RegionLimit> {
    let all = Capacity { cores, cpu_mhz, memory_mb, devices: BTreeMap::new() };
    BTreeMap::from([("global".to_owned(), RegionLimit { all, node_pools: BTreeMap::new() })])
}

fn most(number: i128) -> Bound {
    Bound::AtMost(Exact::whole(number))
}

fn quota() -> ConcurrencyQuota {
    ConcurrencyQuota {
        name: "shared-quota".into(),
        description: "Limit the shared default namespace".into(),
        regions: region(most(2500), most(2000), Bound::Unlimited),
        modify_index: 56,
    }
}

fn usage() -> ConcurrencyUsage {
    ConcurrencyUsage {
        name: "default".into(),
        regions: region(most(500), most(256), most(0)),
        modify_index: 56,
    }
}

#[tokio::test]
async fn the_list_of_quotas_is_read_field_by_field() {
    let server = showing("GET quotas").await;
    for (prefix, target) in [("", "/v1/quotas"), ("sha", "/v1/quotas?prefix=sha")] {
        let found = client(&server).list(prefix).await.unwrap();
        assert_eq!((found.index, &found.value.value), (Some(56), &vec![quota()]));
        assert_eq!((found.value.notices.len(), found.value.raw.len()), (0, 1));
        let seen = server.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", target));
        assert!(seen.headers.contains(&format!("x-nomad-token: {SECRET}")), "{}", seen.headers);
    }
}

#[tokio::test]
async fn one_quota_is_read_field_by_field() {
    let server = showing("GET quota/shared-quota").await;
    let client = client(&server);
    assert_eq!(client.read("shared-quota").await.unwrap(), Indexed { index: Some(56), value: quota() });
    assert_eq!(client.read_spec("shared-quota").await.unwrap(), page(PAGE, "GET quota/shared-quota"));
    assert!(server.seen().iter().all(|seen| seen.target == "/v1/quota/shared-quota"));
}

#[tokio::test]
async fn a_quota_is_created_and_updated_with_the_payload_of_the_page_at_both_addresses() {
    let server = Server::start(|_, _| json(200, "X-Nomad-Index: 57\r\n", "")).await;
    let (client, spec) = (client(&server), page(PAGE, "POST quota request"));
    for (name, target) in [(Some("shared-quota"), "/v1/quota/shared-quota"), (None, "/v1/quota")] {
        assert_eq!(client.write(name, &spec).await.unwrap(), Some(57));
        let seen = server.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", target));
        assert_eq!(seen.json(), spec, "nothing is lost of what has no meaning on Slurm");
    }
    for (name, spec, words) in [
        (Some("other"), spec.clone(), "the specification is of quota \"shared-quota\", not of \"other\""),
        (None, value!({"Name": "a/b"}), "is not the name of a quota"),
        (
            None,
            value!({"Name": "x", "Limits": [{"Region": "r", "RegionLimit": {"CPU": "5"}}, 7]}),
            "not an object",
        ),
        (None, value!({"Limits": []}), "the specification: Name: is missing"),
    ] {
        let error = client.write(name, &spec).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(server.seen().len(), 2, "what cannot be meant is not sent");
}

#[tokio::test]
async fn a_quota_is_deleted_once_though_the_answer_is_lost() {
    let server = Server::start(|number, _| match number {
        0 => json(200, "X-Nomad-Index: 58\r\n", ""),
        1 => Reply::HangUp,
        _ => raw(404, "content-type: text/plain\r\n", b"Quota not found"),
    })
    .await;
    let client = client(&server);
    assert_eq!(client.delete("shared-quota").await.unwrap(), Some(58));
    assert_eq!(client.delete("shared-quota").await.unwrap(), None, "the first attempt did it");
    let error = client.delete("shared-quota").await.unwrap_err();
    assert!(matches!(error, CentralError::NotThere { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    let all = server.seen();
    assert!(all.iter().all(|seen| (&*seen.method, &*seen.target) == ("DELETE", "/v1/quota/shared-quota")));
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn usages_are_read_field_by_field() {
    let server = showing("GET quota-usages").await;
    for (prefix, target) in [("", "/v1/quota-usages"), ("sha", "/v1/quota-usages?prefix=sha")] {
        let found = client(&server).list_usages(prefix).await.unwrap();
        assert_eq!((found.index, found.value.value), (Some(56), vec![usage()]));
        assert_eq!(server.seen().pop().unwrap().target, target);
    }
    let server = showing("GET quota/usage/default").await;
    assert_eq!(client(&server).read_usage("default").await.unwrap().value, usage());
    assert_eq!(server.seen()[0].target, "/v1/quota/usage/default");
}

#[tokio::test]
async fn what_is_not_there_and_who_may_not_are_told_apart() {
    for (status, text, words) in [
        (404, "Quota not found", "the server has no such quota as \"gone\": Quota not found"),
        (403, "Permission denied", "may not do this (status 403): Permission denied"),
        (501, "Nomad Enterprise only endpoint", "Nomad Enterprise only endpoint"),
    ] {
        let server =
            Server::start(move |_, _| raw(status, "content-type: text/plain\r\n", text.as_bytes())).await;
        let error = client(&server).read("gone").await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_quota_that_is_not_understood_is_left_out_with_its_name() {
    let mut rows = page(PAGE, "GET quotas");
    let mut odd = rows[0].clone();
    odd["Name"] = "odd".into();
    odd["Limits"][0]["RegionLimit"]["MemoryMB"] = value!("2 GB");
    rows.as_array_mut().unwrap().push(odd);
    let body = rows.to_string();
    let server = Server::start(move |_, _| json(200, "", &body)).await;
    let found = client(&server).list("").await.unwrap();
    assert_eq!((found.index, &found.value.value), (None, &vec![quota()]));
    assert_eq!(
        found.value.notices[0].to_string(),
        "quota odd: Limits.global.MemoryMB: \"2 GB\" is not a number (left out)"
    );
    for (body, empty) in [("null", true), ("[]", true), ("{}", false), ("7", false)] {
        let server = Server::start(move |_, _| json(200, "", body)).await;
        let found = client(&server).list("").await;
        assert_eq!(
            found.is_ok_and(|found| found.value.value.is_empty() && found.value.raw == [] as [Value; 0]),
            empty
        );
    }
}
