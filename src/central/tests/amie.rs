//! The usage API: packing, verdicts per record, and the questions about what became of records.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::central::amie::{AmieClient, AmieSettings, BatchReply, messages};
use crate::central::{CentralError, Class};
use crate::core::amie::{Compute, Detail, Kind, Record};

const BIG: usize = 192 * 1024;

fn client_with(server: &Server, batch_bytes_max: usize, batch_records_max: usize) -> AmieClient {
    let settings = AmieSettings {
        name: source(),
        url: format!("{}/api/v1", server.url),
        site: "SITE".to_owned(),
        api_key: secret(),
        ca_file: None,
        proxy: None,
        timeout: Duration::from_secs(30),
        response_bytes_max: 10_000_000,
        attempts_max: 3,
        batch_bytes_max,
        batch_records_max,
    };
    AmieClient::new(&settings, surroundings().0).unwrap()
}

fn client(server: &Server) -> AmieClient {
    client_with(server, BIG, 1000)
}

fn record(number: usize) -> Record {
    Record {
        local_record_id: format!("alpha-{number}"),
        username: "ada".into(),
        local_project_id: "TG-BIO42".into(),
        resource: "alpha.example.org".into(),
        charge: "12.50".into(),
        local_reference: format!("alpha/{number}"),
        detail: Detail::Compute(compute()),
    }
}

fn compute() -> Compute {
    Compute {
        parent_record_id: None,
        submit: Epoch(1_795_323_600),
        start: Epoch(1_795_324_200),
        end: Epoch(1_795_326_000),
        nodes: 2,
        cpus: Some(64),
        mem_mb: Some(131_072),
        queue: "gpu".into(),
        job_name: None,
    }
}

fn records(count: usize) -> Vec<Record> {
    (0..count).map(record).collect()
}

fn ids(message: &Seen) -> Vec<String> {
    let rows = message.json()["Records"].as_array().unwrap().clone();
    rows.iter().map(|row| row["LocalRecordID"].as_str().unwrap().to_owned()).collect()
}

fn rejected(reply: &BatchReply) -> BTreeMap<&str, &str> {
    reply.rejected.iter().map(|r| (r.local_record_id.as_str(), r.error.as_str())).collect()
}

fn taken() -> Reply {
    json(200, "", r#"{"Message": "queued", "ValidationFailedRecords": []}"#)
}

/// Every record is in exactly one list.
fn conserved(reply: &BatchReply, count: usize) {
    let mut all: Vec<_> = reply.accepted.iter().chain(&reply.undecided).cloned().collect();
    all.extend(reply.rejected.iter().map(|r| r.local_record_id.clone()));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "{reply:?}");
    assert_eq!(reply.accepted.len() + reply.undecided.len() + reply.rejected.len(), count, "{reply:?}");
    assert_eq!(reply.undecided.is_empty(), reply.stopped_by.is_none(), "{reply:?}");
}

#[test]
fn the_message_is_exactly_the_documented_one() {
    let full = Compute { parent_record_id: Some("alpha-16".into()), ..compute() };
    let full = Record { detail: Detail::Compute(full), ..record(17) };
    let bare = Compute { nodes: 1, cpus: None, mem_mb: None, queue: String::new(), ..compute() };
    let bare = Record {
        username: "ödön \"x\"".into(),
        charge: "0.01".into(),
        local_reference: String::new(),
        detail: Detail::Compute(bare),
        ..record(18)
    };
    assert_eq!(messages(&[full, bare], BIG, 1000), [fixture("amie/message.json").trim_end()]);
    assert!(messages(&[], BIG, 1000).is_empty());
}

proptest! {
    #[test]
    fn messages_keep_both_limits_are_well_filled_and_hold_every_record_once_in_order(
        names in prop::collection::vec("\\PC{1,60}", 1..120),
        bytes_max in 2_000usize..20_000,
        records_max in 1usize..200,
    ) {
        let records: Vec<_> = names.iter().enumerate()
            .map(|(n, name)| Record { username: name.clone(), ..record(n) })
            .collect();
        let messages = messages(&records, bytes_max, records_max);
        let mut sent = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let parsed: Value = serde_json::from_str(message).unwrap();
            let rows = parsed["Records"].as_array().unwrap();
            prop_assert!(message.len() <= bytes_max && rows.len() <= records_max);
            let last = place + 1 == messages.len();
            // No record here is longer than 800 bytes.
            prop_assert!(last || rows.len() == records_max || message.len() > bytes_max - 800);
            sent.extend(rows.iter().map(|row| row["Username"].as_str().unwrap().to_owned()));
        }
        prop_assert_eq!(sent, names);
    }
}

#[test]
fn the_documented_cap_and_the_current_one_are_held_at_ninety_percent_filling() {
    let records: Vec<_> = (0..100_000)
        .map(|n| Record { username: format!("Æthelþryð-{}", "ø".repeat(n % 90)), ..record(n) })
        .collect();
    for cap in [768 * 1024, 256_000, BIG] {
        let messages = messages(&records, cap, 1_000_000);
        assert!(messages.iter().all(|message| message.len() <= cap));
        let (_, full) = messages.split_last().unwrap();
        assert!(full.len() > 5 && full.iter().all(|message| message.len() * 10 >= cap * 9));
    }
}

#[tokio::test]
async fn records_go_out_in_one_message_and_the_refused_ones_are_told_by_id() {
    let answer = fixture("amie/send-reply.json");
    let server = Server::start(move |_, _| json(200, "", &answer)).await;
    let reply = client(&server).post(Kind::Compute, &[record(17), record(18)]).await;
    conserved(&reply, 2);
    assert_eq!(reply.accepted, ["alpha-17"]);
    assert_eq!(rejected(&reply), BTreeMap::from([("alpha-18", "Username is required")]));
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].target.as_str()), (1, "/api/v1/usage/"));
    assert!(
        seen[0].headers.contains(&format!("xa-api-key: {SECRET}"))
            && seen[0].headers.contains("xa-site: SITE")
    );
    assert_eq!(seen[0].body, messages(&[record(17), record(18)], BIG, 1000)[0]);
}

#[tokio::test]
async fn an_answer_of_202_without_a_body_accepts_all() {
    let server = Server::start(|_, _| raw(202, "", b"")).await;
    let reply = client(&server).post(Kind::Compute, &records(3)).await;
    conserved(&reply, 3);
    assert_eq!(reply.accepted.len(), 3);
}

#[tokio::test]
async fn nothing_to_send_sends_nothing() {
    let server = Server::start(|_, _| taken()).await;
    let reply = client(&server).post(Kind::Compute, &[]).await;
    conserved(&reply, 0);
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_halved_and_so_are_the_later_ones() {
    let size = |count| messages(&records(count), usize::MAX, 1000)[0].len();
    let limit = size(30);
    let server =
        Server::start(move |_, seen| if seen.body.len() > limit { raw(413, "", b"") } else { taken() }).await;
    let reply = client_with(&server, size(100), 1000).post(Kind::Compute, &records(200)).await;
    conserved(&reply, 200);
    assert_eq!(reply.accepted.len(), 200);
    let refused = server.seen().iter().filter(|seen| seen.body.len() > limit).count();
    assert_eq!(refused, 2, "100 -> 50 -> 25, learned once");
    // A record that is too large alone is refused and the others go on.
    let server =
        Server::start(|_, seen| if seen.body.contains("huge") { raw(413, "", b"") } else { taken() }).await;
    let mut some = records(8);
    some[3].username = "huge".into();
    let reply = client(&server).post(Kind::Compute, &some).await;
    conserved(&reply, 8);
    assert_eq!(rejected(&reply).keys().collect::<Vec<_>>(), [&"alpha-3"]);
}

#[tokio::test]
async fn a_message_refused_as_a_whole_is_taken_apart_until_the_bad_record_stands_alone() {
    let server = Server::start(|_, seen| match seen.body.contains("bad") {
        true => json(400, "", r#"{"error": "Charge is not a number"}"#),
        false => taken(),
    })
    .await;
    let mut some = records(64);
    some[20].charge = "bad".into();
    some[21].charge = "bad".into();
    let reply = client(&server).post(Kind::Compute, &some).await;
    conserved(&reply, 64);
    assert_eq!(rejected(&reply).keys().collect::<Vec<_>>(), [&"alpha-20", &"alpha-21"]);
    assert!(reply.rejected[0].error.contains("Charge is not a number"));
}

#[tokio::test]
async fn a_server_that_refuses_everything_for_one_reason_costs_no_record() {
    for count in [2, 1000] {
        let server = Server::start(|_, _| json(400, "", r#"{"error": "unknown site"}"#)).await;
        let reply = client(&server).post(Kind::Compute, &records(count)).await;
        conserved(&reply, count);
        assert_eq!(reply.undecided.len(), count);
        assert!(reply.stopped_by.unwrap().to_string().contains("unknown site"));
        assert!(server.seen().len() < 200);
    }
    // One record alone: there is nothing to compare it with, so the server is believed.
    let server = Server::start(|_, _| json(400, "", r#"{"error": "no"}"#)).await;
    let reply = client(&server).post(Kind::Compute, &records(1)).await;
    conserved(&reply, 1);
    assert_eq!(reply.rejected.len(), 1);
}

#[tokio::test]
async fn refused_records_that_are_not_in_the_message_are_found_by_taking_it_apart() {
    // The server names the record by another id.
    let server = Server::start(|_, seen| match seen.body.contains("\"alpha-5\"") {
        true => json(
            200,
            "",
            r#"{"Message": "m", "ValidationFailedRecords": [{"LocalRecordID": 5, "Error": "odd"}]}"#,
        ),
        false => taken(),
    })
    .await;
    let reply = client(&server).post(Kind::Compute, &records(8)).await;
    conserved(&reply, 8);
    assert_eq!(rejected(&reply), BTreeMap::from([("alpha-5", "odd")]));
}

#[tokio::test]
async fn an_outage_in_the_middle_leaves_the_rest_undecided() {
    let server = Server::start(|_, seen| match ids(seen).contains(&"alpha-25".to_owned()) {
        true => raw(503, "", b"<html>down</html>"),
        false => taken(),
    })
    .await;
    let reply = client_with(&server, BIG, 10).post(Kind::Compute, &records(50)).await;
    conserved(&reply, 50);
    assert_eq!(reply.accepted.len(), 20);
    assert_eq!(reply.stopped_by.unwrap().class(), Class::Transient);
}

#[tokio::test]
async fn an_answer_that_is_not_understood_decides_nothing() {
    for body in ["<html>queued</html>", "[]", "5", r#"{"ValidationFailedRecords": "none"}"#] {
        let server = Server::start(move |_, _| json(200, "", body)).await;
        let reply = client(&server).post(Kind::Compute, &records(3)).await;
        conserved(&reply, 3);
        assert_eq!(reply.undecided.len(), 3);
        assert_eq!(reply.stopped_by.unwrap().class(), Class::Corrupt, "{body}");
    }
    for status in [401, 403] {
        let server = Server::start(move |_, _| json(status, "", r#"{"error": "key"}"#)).await;
        let reply = client(&server).post(Kind::Compute, &records(3)).await;
        conserved(&reply, 3);
        assert_eq!(reply.stopped_by.unwrap().class(), Class::Misconfigured);
    }
}

#[tokio::test]
async fn a_hostile_text_changes_no_other_field() {
    let server = Server::start(|_, _| taken()).await;
    let hostile = "x\",\"Charge\":\"0\",\"LocalProjectID\":\"other\n\u{0}\\";
    let detail = Compute { queue: hostile.into(), job_name: Some(hostile.into()), ..compute() };
    let odd = Record { username: hostile.into(), detail: Detail::Compute(detail), ..record(1) };
    client(&server).post(Kind::Compute, &[odd]).await;
    let row = server.seen()[0].json()["Records"][0].clone();
    assert_eq!(
        (&row["Username"], &row["Charge"], &row["LocalProjectID"]),
        (&hostile.into(), &"12.50".into(), &"TG-BIO42".into())
    );
    assert_eq!(row["Attributes"]["Queue"], hostile);
}

#[tokio::test]
async fn failed_records_are_read_under_both_names_and_a_missing_list_is_not_an_empty_one() {
    let text = fixture("amie/failed.json");
    for name in ["FailedRecords", "ValidationFailedRecords"] {
        let body = text.replace("FailedRecords", name);
        let server = Server::start(move |_, _| json(200, "", &body)).await;
        let failed = client(&server).failed().await.unwrap();
        assert_eq!(server.seen()[0].target, "/api/v1/usage/failed");
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].failed_record_id, "4711");
        assert_eq!(failed[0].local_record_id.as_deref(), Some("alpha-19"));
        assert!(failed[0].error.contains("TG-BIO43") && failed[0].usage_type == "Compute");
    }
    let server = Server::start(|_, _| json(200, "", r#"{"Message": "none"}"#)).await;
    assert_eq!(client(&server).failed().await.unwrap_err().class(), Class::Corrupt);
}

#[tokio::test]
async fn failed_records_are_cleared_by_the_servers_ids_in_parts_and_odd_ids_are_never_sent() {
    let server = Server::start(|number, _| match number {
        0 => raw(204, "", b""),
        1 => Reply::HangUp,
        _ => json(404, "", r#"{"error": "no such record"}"#),
    })
    .await;
    let client = client(&server);
    let many: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    client.clear_failed(&many).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].method.as_str()), (3, "DELETE"));
    assert!(seen[0].target.starts_with("/api/v1/usage/failed/0,1,2,"), "{}", seen[0].target);
    assert_eq!(seen[2].target, format!("/api/v1/usage/failed/{}", many[100..].join(",")));
    assert!(client.clear_failed(&["1/../../x".to_owned()]).await.is_err());
    assert!(client.clear_failed(&[String::new()]).await.is_err());
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn the_status_of_a_span_has_counts_charges_and_the_ids_of_failures() {
    let body = fixture("amie/status.json");
    let server = Server::start(move |_, _| json(200, "", &body)).await;
    let rows = client(&server).usage_status(Epoch(1_795_323_600), NOW).await.unwrap();
    assert_eq!(
        server.seen()[0].target,
        "/api/v1/usage/status?FromTime=2026-11-22T05%3A00%3A00Z&ToTime=2026-11-22T06%3A00%3A00Z"
    );
    assert_eq!((rows[0].loaded, rows[0].failed, rows[0].total_charge.to_string().as_str()), (12, 1, "99.25"));
    assert_eq!(rows[0].errors[0].local_record_ids, ["alpha-19"]);
    assert_eq!((rows[1].loaded, rows[1].errors.len()), (0, 0));
    for broken in
        [r#"[{"Resource": "r"}]"#, "{}", r#"[{"Resource":"r","LoadedRecordCount":"x","FailedJobCount":0}]"#]
    {
        let server = Server::start(move |_, _| json(200, "", broken)).await;
        let error = client(&server).usage_status(Epoch(0), NOW).await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{broken}");
    }
}

#[tokio::test]
async fn loaded_records_are_read_page_by_page_and_an_old_server_is_told_apart_from_none() {
    let body = fixture("amie/loaded.json");
    let server = Server::start(move |_, _| json(200, "", &body)).await;
    let loaded = client(&server).loaded(NOW).await.unwrap().unwrap();
    assert_eq!(
        (loaded[0].local_record_id.as_str(), loaded[0].charge.unwrap().to_string().as_str()),
        ("alpha-17", "12.5")
    );
    assert_eq!(loaded[0].loaded.unwrap().to_string(), "2026-11-22T05:55:00Z");

    let page = |from: usize, count: usize| -> String {
        let rows: Vec<_> = (from..from + count).map(|n| format!("{{\"LocalRecordID\":\"{n}\"}}")).collect();
        format!("[{}]", rows.join(","))
    };
    let server = Server::start(move |_, seen| {
        let offset: usize = seen.query("Offset").unwrap().parse().unwrap();
        json(200, "", &page(offset, 7000usize.saturating_sub(offset).min(5000)))
    })
    .await;
    assert_eq!(client(&server).loaded(NOW).await.unwrap().unwrap().len(), 7000);
    // A server that ignores the offset is noticed.
    let server = Server::start(move |_, _| json(200, "", &page(0, 5000))).await;
    let error = client(&server).loaded(NOW).await.unwrap_err();
    assert!(matches!(error, CentralError::ListChanged { .. }), "{error}");
    for body in ["<html>no</html>", r#"{"error": "no"}"#] {
        let server = Server::start(move |_, _| raw(404, "", body.as_bytes())).await;
        assert_eq!(client(&server).loaded(NOW).await.unwrap(), None);
    }
}
