//! DataRobot's quota API. Its page has schemas where others have samples: answers are made from them, with every field and
//! every word of every enumeration, and bodies that are sent are held against them.

use serde_json::{Map, Value, json as value};

use super::*;
use crate::central::datarobot::{DataRobotClient, QuotaChange, QuotasOf};
use crate::central::{CentralError, Class};
use crate::core::exact::Exact;
use crate::core::quota::{ConsumerPolicy, QuotaTemplate, RateCapacity, RateQuota, Rule, Window};

const PAGE: &str = "datarobot/api-page.json";
/// As many as the longest enumeration has words.
const VARIANTS: usize = 4;

fn client(server: &Server) -> DataRobotClient {
    DataRobotClient::new(&connection(server), surroundings().0).unwrap()
}

/// A value that fits a schema, with every property; the n-th has the n-th word of every enumeration.
fn sample(schema: &Value, name: &str, n: usize) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words[n % words.len()].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str().unwrap(),
        kind => kind.as_str().unwrap(),
    };
    match kind {
        "object" => schema["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, part)| (name.clone(), sample(part, name, n)))
            .collect::<Map<_, _>>()
            .into(),
        "array" => (0..2).map(|more| sample(&schema["items"], &format!("{name}{more}"), n + more)).collect(),
        "integer" => (17 * n + 3).into(),
        "number" => (0.25 * n as f64).into(),
        "string" => format!("{name}-{n}").into(),
        other => panic!("{name}: {other} is not known"),
    }
}

/// What of a value does not fit a schema.
fn misfits(schema: &Value, at: &str, value: &Value) -> Vec<String> {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut found = Vec::new();
    if !kinds.contains(&kind) {
        found.push(format!("{at} is {kind}, not {kinds:?}"));
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        found.push(format!("{at}: {value} is not one of {words:?}"));
    }
    let beyond = |bound: &str, is: fn(f64, f64) -> bool| match (value.as_f64(), schema[bound].as_f64()) {
        (Some(number), Some(bound)) => is(number, bound),
        _ => false,
    };
    if beyond("minimum", |number, bound| number < bound) || beyond("maximum", |number, bound| number > bound)
    {
        found.push(format!("{at}: {value} is out of range"));
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(misfits(&schema["items"], &format!("{at}[{n}]"), item));
    }
    if let Value::Object(fields) = value {
        let required = schema["required"].as_array().into_iter().flatten();
        let missing = required.filter(|name| !fields.contains_key(name.as_str().unwrap()));
        found.extend(missing.map(|name| format!("{at}.{name} is missing")));
        for (name, field) in fields {
            match schema["properties"].get(name) {
                Some(part) => found.extend(misfits(part, &format!("{at}.{name}"), field)),
                None => found.push(format!("{at}.{name} is not on the page")),
            }
        }
    }
    found
}

fn share(value: Option<Exact>) -> Value {
    value.map_or(Value::Null, |share| share.to_f64().into())
}

/// Rules as the page writes them; the words are those that the types have for themselves.
fn rules(rules: &[Rule]) -> Value {
    rules.iter().map(|rule| value!({"rule": rule.kind, "limit": rule.limit, "window": rule.window})).collect()
}

fn policy(policy: &ConsumerPolicy) -> Value {
    value!({
        "consumerId": policy.consumer.id, "consumerType": policy.consumer.kind, "consumerName": policy.name,
        "reserved": share(policy.reserved), "rules": rules(&policy.rules),
    })
}

/// Everything that was read of a quota, as the page writes it.
fn quota(quota: &RateQuota) -> Value {
    value!({
        "id": quota.id, "resourceId": quota.resource_id, "resourceType": "deployment", "userId": quota.owner,
        "defaultRules": rules(&quota.default_rules),
        "policies": quota.policies.iter().map(policy).collect::<Vec<_>>(),
        "capacity": quota.capacity.map(|c| value!({"capacity": c.capacity, "units": c.units})),
        "saturationThreshold": share(quota.saturation_threshold),
    })
}

fn template(template: &QuotaTemplate) -> Value {
    value!({"id": template.id, "name": template.name, "rules": rules(&template.rules)})
}

/// A whole list with these rows.
fn listed(rows: &[Value]) -> Value {
    value!({"count": rows.len(), "data": rows, "next": null, "previous": null, "totalCount": rows.len()})
}

/// The address after the API, with the query.
fn target(seen: &Seen) -> &str {
    seen.target.strip_prefix("/api/v2/").unwrap()
}

async fn answering(body: &Value) -> Server {
    let body = body.to_string();
    Server::start(move |_, _| json(200, "", &body)).await
}

#[tokio::test]
async fn every_field_of_a_quota_is_read_from_the_list_and_from_one() {
    for n in 0..VARIANTS {
        let row = sample(&page(PAGE, "GET quotas/{id}/"), "quota", n);
        assert_eq!(
            misfits(&page(PAGE, "GET quotas/{id}/"), "", &row),
            [] as [String; 0],
            "the sample is one"
        );
        let server = answering(&row).await;
        let read = client(&server).read("65f0c2").await.unwrap();
        assert_eq!(quota(&read), row);
        assert_eq!(target(&server.seen()[0]), "quotas/65f0c2/");
        assert!(server.seen()[0].headers.contains(&format!("authorization: Bearer {SECRET}")));
        let list = listed(&[row]);
        assert_eq!(misfits(&page(PAGE, "GET quotas/"), "", &list), [] as [String; 0]);
        let found = client(&answering(&list).await).list(QuotasOf::Everything).await.unwrap();
        assert_eq!((found.value, found.notices.len()), (vec![read], 0));
    }
}

#[tokio::test]
async fn what_the_page_does_not_require_may_be_absent() {
    let schema = page(PAGE, "GET quotas/{id}/");
    let mut row = sample(&schema, "quota", 1);
    for field in ["capacity", "saturationThreshold"] {
        row.as_object_mut().unwrap().remove(field);
    }
    for field in ["consumerName", "reserved"] {
        row["policies"][0].as_object_mut().unwrap().remove(field);
    }
    row["defaultRules"][0].as_object_mut().unwrap().remove("window");
    assert_eq!(misfits(&schema, "", &row), [] as [String; 0], "nothing of it is required");
    let read = client(&answering(&row).await).read("q").await.unwrap();
    assert_eq!((read.capacity, read.saturation_threshold), (None, None));
    assert_eq!((&read.policies[0].name, read.policies[0].reserved), (&None, None));
    assert_eq!(read.default_rules[0].window, Window::Min, "the page's default");
}

#[tokio::test]
async fn every_field_of_a_template_is_read_from_the_list_and_from_one() {
    for n in 0..VARIANTS {
        let row = sample(&page(PAGE, "GET quotaTemplates/{id}/"), "template", n);
        let server = answering(&row).await;
        let read = client(&server).read_template("t1").await.unwrap();
        assert_eq!(template(&read), row);
        assert_eq!(target(&server.seen()[0]), "quotaTemplates/t1/");
        let list = listed(&[row]);
        assert_eq!(misfits(&page(PAGE, "GET quotaTemplates/"), "", &list), [] as [String; 0]);
        let server = answering(&list).await;
        assert_eq!(client(&server).list_templates().await.unwrap().value, [read]);
        assert_eq!(target(&server.seen()[0]), "quotaTemplates/?offset=0&limit=100");
    }
}

#[tokio::test]
async fn a_change_is_a_body_of_the_page_with_every_field_and_gives_the_quota_as_it_is() {
    let schema = page(PAGE, "PATCH quotas/{id}/ request");
    for n in 0..VARIANTS {
        let row = sample(&page(PAGE, "PATCH quotas/{id}/"), "quota", n);
        let server = answering(&row).await;
        let client = client(&server);
        let meant = client.read("q").await.unwrap();
        let change = QuotaChange {
            capacity: meant.capacity,
            default_rules: Some(meant.default_rules.clone()),
            policies: Some(meant.policies.clone()),
            saturation_threshold: Some(meant.saturation_threshold),
        };
        assert_eq!(client.change("q", &change).await.unwrap(), meant);
        let seen = server.seen().pop().unwrap();
        assert_eq!((seen.method.as_str(), target(&seen)), ("PATCH", "quotas/q/"));
        let mut expected = row.clone();
        expected.as_object_mut().unwrap().retain(|name, _| schema["properties"].get(name).is_some());
        assert_eq!(seen.json(), expected, "the request has every property of its schema and no other");
        assert_eq!(misfits(&schema, "", &seen.json()), [] as [String; 0]);
    }
}

#[tokio::test]
async fn one_changed_field_is_sent_alone() {
    let server = answering(&sample(&page(PAGE, "PATCH quotas/{id}/"), "quota", 0)).await;
    let client = client(&server);
    let units = crate::core::quota::CapacityUnits::Token;
    for (change, body) in [
        (
            QuotaChange { saturation_threshold: Some(None), ..QuotaChange::default() },
            value!({"saturationThreshold": null}),
        ),
        (QuotaChange { policies: Some(Vec::new()), ..QuotaChange::default() }, value!({"policies": []})),
        (
            QuotaChange { capacity: Some(RateCapacity { capacity: 5, units }), ..QuotaChange::default() },
            value!({"capacity": {"capacity": 5, "units": "token"}}),
        ),
    ] {
        client.change("q", &change).await.unwrap();
        let sent = server.seen().pop().unwrap().json();
        assert_eq!(misfits(&page(PAGE, "PATCH quotas/{id}/ request"), "", &sent), [] as [String; 0]);
        assert_eq!(sent, body);
    }
    let many = vec![Rule { kind: crate::core::quota::RuleKind::Token, limit: 1, window: Window::Day }; 101];
    let change = QuotaChange { default_rules: Some(many), ..QuotaChange::default() };
    for (id, change) in [("q", &QuotaChange::default()), ("q", &change), ("a/b", &change), ("", &change)] {
        assert!(matches!(client.change(id, change).await, Err(CentralError::Unsendable { .. })));
    }
    assert_eq!(server.seen().len(), 3, "what the server would refuse is not sent");
}

fn row(n: usize) -> Value {
    let mut row = sample(&page(PAGE, "GET quotas/{id}/"), "quota", 0);
    row["id"] = format!("q{n}").into();
    row
}

/// A page of a list of `total` quotas, that says the next one is at another host.
fn paged(seen: &Seen, total: usize) -> Reply {
    let number = |name| seen.query(name).unwrap().parse::<usize>().unwrap();
    let (offset, limit) = (number("offset"), number("limit"));
    let data: Vec<Value> = (offset..total.min(offset + limit)).map(row).collect();
    let elsewhere = |there: bool| there.then_some("http://192.0.2.1/api/v2/quotas/?offset=7");
    let body = value!({
        "count": data.len(), "next": elsewhere(offset + data.len() < total), "previous": elsewhere(offset > 0),
        "totalCount": total, "data": data,
    });
    json(200, "", &body.to_string())
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_whole_and_its_next_is_never_followed() {
    let server = Server::start(|_, seen| paged(seen, 250)).await;
    let found = client(&server).list(QuotasOf::Everything).await.unwrap();
    let ids: Vec<_> = found.value.iter().map(|quota| quota.id.clone()).collect();
    assert_eq!(ids, (0..250).map(|n| format!("q{n}")).collect::<Vec<_>>());
    let targets: Vec<_> = server.seen().iter().map(|seen| target(seen).to_owned()).collect();
    assert_eq!(targets, [0, 100, 200].map(|offset| format!("quotas/?offset={offset}&limit=100")));
}

#[tokio::test]
async fn the_quotas_of_one_deployment_are_asked_for_and_no_others_are_taken() {
    let mut other = row(2);
    other["resourceId"] = "another".into();
    let server = answering(&listed(&[row(1), other])).await;
    let found = client(&server).list(QuotasOf::Deployment("resourceId-0")).await.unwrap();
    assert_eq!(found.value.iter().map(|quota| quota.id.as_str()).collect::<Vec<_>>(), ["q1"]);
    let expected = "quotas/?resourceId=resourceId-0&resourceType=deployment&offset=0&limit=100";
    assert_eq!(target(&server.seen()[0]), expected);
}

#[tokio::test]
async fn a_list_that_does_not_add_up_is_read_again_and_never_taken_in_part() {
    // A row moved between the pages of the first reading.
    let server =
        Server::start(|number, seen| if number == 0 { paged(seen, 100) } else { paged(seen, 130) }).await;
    assert_eq!(client(&server).list(QuotasOf::Everything).await.unwrap().value.len(), 100);
    let short = Server::start(|_, _| {
        let body = value!({"data": [row(1)], "next": null, "previous": null, "totalCount": 2});
        json(200, "", &body.to_string())
    })
    .await;
    let error = client(&short).list(QuotasOf::Everything).await.unwrap_err();
    assert!(matches!(error, CentralError::ListChanged { .. }), "{error}");
    assert_eq!(short.seen().len(), 3);
    let endless = Server::start(|_, _| {
        let body = value!({"data": [], "next": "x", "previous": null, "totalCount": 5});
        json(200, "", &body.to_string())
    })
    .await;
    assert_eq!(client(&endless).list(QuotasOf::Everything).await.unwrap_err().class(), Class::Transient);
    assert_eq!(endless.seen().len(), 3);
}

#[tokio::test]
async fn a_list_beyond_the_bounds_of_the_page_or_of_another_shape_is_refused() {
    for (body, words) in [
        (
            value!({"data": [], "next": null, "previous": null, "totalCount": 10_001}),
            "at most 10000 are possible",
        ),
        (value!({"data": [], "next": null, "totalCount": "5"}), "totalCount: is missing or no number"),
        (value!({"next": null, "totalCount": 0}), "data: is missing"),
        (value!({"data": [], "next": 5, "totalCount": 0}), "next: 5 is not a text"),
        (value!({"data": [], "count": 3, "next": null, "totalCount": 0}), "count is 3, and 0 rows came"),
        (value!([]), "an object with data was expected"),
    ] {
        let error = client(&answering(&body).await).list(QuotasOf::Everything).await.unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut crowded = row(1);
    crowded["policies"] = vec![row(1)["policies"][0].clone(); 10_001].into();
    let found =
        client(&answering(&listed(&[crowded, row(2)])).await).list(QuotasOf::Everything).await.unwrap();
    assert_eq!(found.value.len(), 1);
    assert!(found.notices[0].to_string().contains("quota q1: policies: 10001 policies; at most 10000"));
}

#[tokio::test]
async fn deleting_twice_is_deleting_and_deleting_nothing_is_an_error() {
    let gone = r#"{"message": "Not found"}"#;
    let server = Server::start(move |number, _| match number {
        0 => json(204, "", ""),
        1 => Reply::HangUp,
        _ => json(404, "", gone),
    })
    .await;
    let client = client(&server);
    client.delete("q1").await.unwrap();
    client.delete("q1").await.unwrap();
    let error = client.delete("q1").await.unwrap_err();
    assert!(error.to_string().contains("the server has no such quota as q1"), "{error}");
    assert!(
        server.seen().iter().all(|seen| (seen.method.as_str(), target(seen)) == ("DELETE", "quotas/q1/"))
    );
    for result in [client.read("q1").await.map(drop), client.read_template("q1").await.map(drop)] {
        assert!(matches!(result, Err(CentralError::NotThere { .. })));
    }
}

#[tokio::test]
async fn a_template_is_applied_by_making_its_rules_the_default_ones_of_the_resource() {
    let rules = value!([{"rule": "token", "limit": 500, "window": "hour"}]);
    let template = value!({"id": "t1", "name": "Small", "rules": rules});
    let server = Server::start(move |_, seen| match (seen.method.as_str(), target(seen)) {
        ("GET", "quotaTemplates/t1/") => json(200, "", &template.to_string()),
        ("GET", _) => json(200, "", &listed(&[row(1)]).to_string()),
        _ => {
            let mut changed = row(1);
            changed["defaultRules"] = seen.json()["defaultRules"].clone();
            json(200, "", &changed.to_string())
        }
    })
    .await;
    let applied = client(&server).apply_template("t1", "resourceId-0").await.unwrap();
    assert_eq!((self::rules(&applied.default_rules), applied.policies.len()), (rules.clone(), 2));
    let last = server.seen().pop().unwrap();
    assert_eq!(
        (last.method.as_str(), target(&last), last.json()),
        ("PATCH", "quotas/q1/", value!({"defaultRules": rules}))
    );
    let error = client(&server).apply_template("t1", "elsewhere").await.unwrap_err();
    assert!(error.to_string().contains("deployment elsewhere has 0 quotas where one is needed"), "{error}");
}
