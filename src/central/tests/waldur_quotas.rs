//! Waldur's quotas: the samples of the page, field by field, and what the server does beyond them.

use std::collections::BTreeSet;

use serde_json::{Value, json as value};

use super::*;
use crate::central::waldur::{
    HISTORY_POINTS_MAX, HistoryPoints, QuotaFilter, QuotaWrite, WaldurQuotaClient, Written,
};
use crate::central::{CentralError, Class};
use crate::core::exact::Exact;
use crate::core::quota::{Bound, BudgetQuota};

const PAGE: &str = "waldur/quotas-api-page.json";
const UUID: &str = "6ad5f49d6d6c49648573b2b71f44a42b";
const SCOPE: &str = "https://example.com/api/marketplace-resources/c84d653b9ec92c6cbac41c706593e66f/";

fn client(server: &Server) -> WaldurQuotaClient {
    WaldurQuotaClient::new(&connection(server), surroundings().0).unwrap()
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

fn limited() -> BudgetQuota {
    BudgetQuota {
        id: UUID.into(),
        name: "nc_cpu_usage".into(),
        scope: SCOPE.into(),
        limit: Bound::AtMost(exact("2000")),
        usage: exact("1250.5"),
        threshold: Some(exact("1600")),
    }
}

fn unlimited() -> BudgetQuota {
    BudgetQuota {
        id: "7bd5f49d6d6c49648573b2b71f44a42c".into(),
        name: "nc_gpu_usage".into(),
        scope: SCOPE.into(),
        limit: Bound::Unlimited,
        usage: Exact::ZERO,
        threshold: None,
    }
}

async fn answering(status: u16, body: &Value) -> Server {
    let body = body.to_string();
    Server::start(move |_, _| json(status, "", &body)).await
}

#[tokio::test]
async fn the_list_is_read_field_by_field_with_its_filters_and_its_token() {
    let server = answering(200, &page(PAGE, "GET quotas/")).await;
    let found = client(&server).list(&QuotaFilter::default()).await.unwrap();
    assert_eq!(found.value, [limited(), unlimited()]);
    assert_eq!((found.notices.len(), &found.raw), (0, page(PAGE, "GET quotas/").as_array().unwrap()));
    let filter = QuotaFilter { name: Some("nc_cpu_usage".into()), scope: Some(SCOPE.into()) };
    let found = client(&server).list(&filter).await.unwrap();
    assert_eq!(
        found.value,
        [limited()],
        "what the filter does not fit is not taken, whatever the server sends"
    );
    let seen = server.seen();
    assert_eq!(seen[0].target, "/api/quotas/?page=1&page_size=100");
    assert!(seen[0].headers.contains(&format!("authorization: Token {SECRET}")));
    let scope =
        "https%3A%2F%2Fexample.com%2Fapi%2Fmarketplace-resources%2Fc84d653b9ec92c6cbac41c706593e66f%2F";
    assert_eq!((seen[1].query("name"), seen[1].query("scope")), (Some("nc_cpu_usage"), Some(scope)));
}

#[tokio::test]
async fn all_pages_are_read_and_several_names_are_asked_for_one_by_one() {
    let server = Server::start(|_, seen| {
        let page: usize = seen.query("page").unwrap().parse().unwrap();
        let name = seen.query("name").unwrap();
        let rows: Vec<Value> = (0..if page == 1 { 100 } else { 20 })
            .map(|n| value!({"uuid": format!("{name}{page}{n}"), "name": name, "scope": "s", "limit": 1, "usage": 0}))
            .collect();
        json(200, "x-result-count: 120\r\n", &Value::from(rows).to_string())
    })
    .await;
    let found = client(&server).list_named(&BTreeSet::from(["cpu", "ram"])).await.unwrap();
    assert_eq!(found.value.len(), 240);
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.query("name").unwrap().to_owned()).collect();
    assert_eq!(asked, ["cpu", "cpu", "ram", "ram"]);
}

#[tokio::test]
async fn a_quota_that_is_not_understood_is_left_out_and_the_others_stay() {
    for (field, odd, words) in [
        ("uuid", Value::Null, "uuid: is missing"),
        ("scope", Value::Null, "scope: is missing"),
        ("limit", Value::Null, "limit: is missing"),
        ("limit", value!(-2), "limit: -2 is below 0 and not -1, which is unlimited"),
        ("limit", value!("much"), "limit: \"much\" is not a number"),
        ("usage", Value::Null, "usage: is missing"),
        ("threshold", value!(-1), "threshold: -1 is below 0"),
    ] {
        let mut rows = page(PAGE, "GET quotas/");
        rows[0][field] = odd;
        let found = client(&answering(200, &rows).await).list(&QuotaFilter::default()).await.unwrap();
        assert_eq!(found.value, [unlimited()]);
        assert!(
            found.notices[0].rejected && found.notices[0].to_string().contains(words),
            "{:?}",
            found.notices
        );
    }
}

#[tokio::test]
async fn limit_and_threshold_are_written_as_the_page_shows_and_the_quota_comes_back() {
    let server = answering(200, &page(PAGE, "GET quotas/")[0]).await;
    let client = client(&server);
    let limit = QuotaWrite { limit: Some(Bound::AtMost(exact("2000"))), threshold: None };
    let threshold = QuotaWrite { limit: None, threshold: Some(exact("100")) };
    let both = QuotaWrite { limit: Some(Bound::Unlimited), threshold: Some(Exact::ZERO) };
    for (change, method, body) in [
        (limit, Written::Put, page(PAGE, "limit request")),
        (threshold, Written::Put, page(PAGE, "threshold request")),
        (both, Written::Patch, value!({"limit": -1.0, "threshold": 0.0})),
    ] {
        assert_eq!(client.write(UUID, &change, method).await.unwrap(), limited());
        let seen = server.seen().pop().unwrap();
        let expected = if method == Written::Put { "PUT" } else { "PATCH" };
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (expected, "/api/quotas/6ad5f49d6d6c49648573b2b71f44a42b/")
        );
        assert_eq!(seen.json(), body);
    }
    let third = QuotaWrite { limit: Some(Bound::AtMost(exact("1/3"))), threshold: None };
    let negative = QuotaWrite { limit: Some(Bound::AtMost(exact("-1"))), threshold: None };
    for change in [QuotaWrite::default(), third, negative] {
        let error = client.write(UUID, &change, Written::Put).await.unwrap_err();
        assert!(matches!(error, CentralError::Unsendable { .. }), "{error}");
    }
    assert!(client.write("../users", &limit, Written::Put).await.is_err());
    assert_eq!(server.seen().len(), 3, "what cannot be meant is not sent");
}

#[tokio::test]
async fn an_answer_without_the_quota_is_followed_by_reading_it() {
    let row = page(PAGE, "GET quotas/")[0].to_string();
    let server = Server::start(move |_, seen| match seen.method.as_str() {
        "PUT" => json(200, "", r#"{"detail": "Quota has been updated."}"#),
        _ => json(200, "", &row),
    })
    .await;
    let change = QuotaWrite { limit: Some(Bound::AtMost(exact("2000"))), threshold: None };
    assert_eq!(client(&server).write(UUID, &change, Written::Put).await.unwrap(), limited());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_refusal_says_why_and_what_to_do() {
    let change = QuotaWrite { limit: Some(Bound::AtMost(exact("1"))), threshold: None };
    for (status, body, words) in [
        (409, value!({"detail": "Backend quotas are not editable."}), "change it at the backend"),
        (400, value!({"limit": ["Current usage is 1250.5."]}), "Current usage is 1250.5."),
        (404, value!({"detail": "Not found."}), "the server has no such quota as 6ad5f49d"),
        (403, value!({"detail": "You do not have permission."}), "may not do this (status 403)"),
    ] {
        let server = answering(status, &body).await;
        let error = client(&server).write(UUID, &change, Written::Patch).await.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.class() == Class::Refused, status != 403, "{error}");
        assert_eq!(server.seen().len(), 1, "a refusal is not asked again");
    }
}

#[tokio::test]
async fn a_history_has_the_points_that_were_asked_for_in_their_order_and_knows_what_it_does_not_know() {
    let server = answering(200, &page(PAGE, "GET quotas/{uuid}/history/")).await;
    let client = client(&server);
    let at = [Epoch(1_795_327_200), Epoch(1_795_240_800)];
    let points = HistoryPoints::At(at.to_vec());
    let history = client.history(UUID, &points).await.unwrap();
    assert_eq!(history.iter().map(|point| point.at).collect::<Vec<_>>(), at);
    assert_eq!((&history[0].quota, &history[1].quota), (&Some(limited()), &None));
    let between = HistoryPoints::Between { start: at[1], end: at[0], count: 2 };
    assert_eq!(client.history(UUID, &between).await.unwrap().len(), 2);
    let targets: Vec<String> = server.seen().iter().map(|seen| seen.target.clone()).collect();
    let path = format!("/api/quotas/{UUID}/history/");
    assert_eq!(
        targets,
        [
            format!("{path}?point=1795327200&point=1795240800"),
            format!("{path}?start=1795240800&end=1795327200&points_count=2"),
        ]
    );
}

#[tokio::test]
async fn a_history_of_other_points_than_asked_for_is_refused_and_so_is_an_endless_one() {
    let server = answering(200, &page(PAGE, "GET quotas/{uuid}/history/")).await;
    let client = client(&server);
    for at in [vec![1_795_240_800, 1_795_327_200], vec![1_795_327_200]] {
        let points = HistoryPoints::At(at.into_iter().map(Epoch).collect());
        let error = client.history(UUID, &points).await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{error}");
    }
    let asked = server.seen().len();
    for points in [
        HistoryPoints::At(Vec::new()),
        HistoryPoints::At(vec![Epoch(0); HISTORY_POINTS_MAX + 1]),
        HistoryPoints::Between { start: Epoch(5), end: Epoch(5), count: 2 },
        HistoryPoints::Between { start: Epoch(5), end: Epoch(6), count: 0 },
    ] {
        let error = client.history(UUID, &points).await.unwrap_err();
        assert!(matches!(error, CentralError::Unsendable { .. }), "{error}");
    }
    assert_eq!(server.seen().len(), asked);
    for odd in [value!([{"point": "now"}]), value!([{"point": 1.5}]), value!([{"object": {}}]), value!({})] {
        let server = answering(200, &odd).await;
        let points = HistoryPoints::At(vec![Epoch(1)]);
        let error = self::client(&server).history(UUID, &points).await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{odd}: {error}");
    }
}

#[tokio::test]
async fn accounts_of_resources_come_from_their_backend_id() {
    let rows = value!([
        {"uuid": "a1", "backend_id": "Bio42"}, {"uuid": "a2", "backend_id": ""},
        {"uuid": "a3", "backend_id": "no good"}, {"uuid": "a4", "backend_id": "root"},
    ]);
    let server = answering(200, &rows).await;
    let found = client(&server).accounts().await.unwrap();
    let found_accounts: Vec<_> =
        found.value.iter().map(|(uuid, name)| (uuid.as_str(), name.as_str())).collect();
    assert_eq!(found_accounts, [("a1", "bio42")]);
    assert_eq!(found.notices.iter().map(|notice| notice.id.as_str()).collect::<Vec<_>>(), ["a3", "a4"]);
    assert!(server.seen()[0].target.starts_with("/api/marketplace-provider-resources/?o=created&state=OK"));
}
