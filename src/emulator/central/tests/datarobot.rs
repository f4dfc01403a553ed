//! DataRobot's quotas: every endpoint of their page, its answers and bodies held against the page's own schemas.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::CentralState;
use super::{Got, Site};

const QUOTAS: &str = "/api/v2/quotas/";
const TEMPLATES: &str = "/api/v2/quotaTemplates/";
const QUOTA: &str = "64a7f0c2e1b3d4a5f6071829";
const TEMPLATE: &str = "64a7f0c2e1b3d4a5f6071830";

fn schema(name: &str) -> Value {
    let page: Value =
        serde_json::from_str(include_str!("../../../../fixtures/central/datarobot/api-page.json")).unwrap();
    page[name].clone()
}

/// What of a value breaks a schema: the part of JSON Schema that the page uses, every word of it.
fn breaches(schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let mut wrong = |what: &str| found.push(format!("{place}: {what}"));
    for word in schema.as_object().unwrap().keys() {
        let known = [
            "properties",
            "required",
            "type",
            "items",
            "maxItems",
            "minimum",
            "maximum",
            "enum",
            "default",
            "format",
        ];
        assert!(known.contains(&word.as_str()), "{word} is not checked");
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        other => panic!("type {other}"),
    };
    if !fits {
        wrong(&format!("{value} is no {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong(&format!("{value} is none of {}", schema["enum"]));
    }
    if let Some(number) = value.as_f64() {
        if schema["minimum"].as_f64().is_some_and(|least| number < least) {
            wrong(&format!("{number} is too small"));
        }
        if schema["maximum"].as_f64().is_some_and(|most| number > most) {
            wrong(&format!("{number} is too large"));
        }
    }
    if let Some(items) = value.as_array() {
        if schema["maxItems"].as_u64().is_some_and(|most| items.len() as u64 > most) {
            wrong("too many items");
        }
        for (at, item) in items.iter().enumerate() {
            breaches(&schema["items"], item, &format!("{place}[{at}]"), found);
        }
    }
    if let Some(members) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().unwrap()) {
                found.push(format!("{place}.{name} is missing"));
            }
        }
        for (name, member) in members {
            match &schema["properties"][name] {
                Value::Null => found.push(format!("{place}.{name} is not in the schema")),
                schema => breaches(schema, member, &format!("{place}.{name}"), found),
            }
        }
    }
}

/// The answer, when it is as its schema on the page says.
fn fitting(name: &str, got: &Got) -> Value {
    assert_eq!(got.status, 200, "{}", got.text);
    let (value, mut found) = (got.json(), Vec::new());
    breaches(&schema(name), &value, "", &mut found);
    assert!(found.is_empty(), "{name}: {found:?} in {value}");
    value
}

/// A quota with everything, one with nothing but what is required, and two templates.
fn state() -> CentralState {
    let seed = json!({
        "clock": {"fixed": super::NOW},
        "datarobot": {
            "tokens": [{"secret": "writer", "may_write": true}, {"secret": "reader"}],
            "quotas": [
                {
                    "id": QUOTA, "resourceId": "bio42", "userId": "64a7f0c2e1b3d4a5f6071800",
                    "capacity": {"capacity": 1000, "units": "token"}, "saturationThreshold": 0.8,
                    "defaultRules": [
                        {"rule": "requests", "limit": 3},
                        {"rule": "token", "limit": 600, "window": "hour"},
                        {"rule": "concurrentRequests", "limit": 10},
                        {"rule": "inputSequenceLength", "limit": 100, "window": "day"}
                    ],
                    "policies": [
                        {"consumerId": "alice", "consumerName": "Alice", "consumerType": "user", "reserved": 0.25,
                         "rules": [{"rule": "requests", "limit": 0, "window": "day"}]},
                        {"consumerId": "chem7", "consumerType": "deployment"}
                    ]
                },
                {"resourceId": "chem7"}
            ],
            "quotaTemplates": [
                {"id": TEMPLATE, "name": "small", "rules": [{"rule": "requests", "limit": 10, "window": "min"}]},
                {"name": "empty"}
            ]
        }
    });
    serde_json::from_value(seed).unwrap()
}

impl Site {
    async fn robot(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Got {
        let request = self.request(method, path, "").bearer_auth(token);
        self.send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    async fn robot_get(&self, path: &str) -> Got {
        self.robot("reader", Method::GET, path, None).await
    }

    async fn robot_patch(&self, body: &Value) -> Got {
        self.robot("writer", Method::PATCH, &format!("{QUOTAS}{QUOTA}/"), Some(body)).await
    }
}

#[tokio::test]
async fn every_answer_is_as_its_schema_on_the_page_says() {
    let site = Site::with(state()).await;
    let list = fitting("GET quotas/", &site.robot_get(&format!("{QUOTAS}?offset=0&limit=10")).await);
    let whole = &list["data"][0];
    assert_eq!((&list["count"], &list["totalCount"]), (&json!(2), &json!(2)));
    assert_eq!((&list["next"], &list["previous"]), (&Value::Null, &Value::Null));
    assert_eq!(
        whole["defaultRules"][0],
        json!({"rule": "requests", "limit": 3, "window": "min"}),
        "the default"
    );
    assert_eq!(whole["policies"][1]["reserved"], Value::Null);
    assert_eq!((&whole["saturationThreshold"], &whole["resourceType"]), (&json!(0.8), &json!("deployment")));
    let bare = &list["data"][1];
    assert!(bare.get("capacity").is_none(), "it cannot be null");
    assert_eq!((&bare["defaultRules"], &bare["policies"]), (&json!([]), &json!([])));
    assert_eq!(bare["id"].as_str().unwrap().len(), 24);
    let one = fitting("GET quotas/{id}/", &site.robot_get(&format!("{QUOTAS}{QUOTA}/")).await);
    assert_eq!(&one, whole);
    let list =
        fitting("GET quotaTemplates/", &site.robot_get(&format!("{TEMPLATES}?offset=0&limit=100")).await);
    let one = fitting("GET quotaTemplates/{id}/", &site.robot_get(&format!("{TEMPLATES}{TEMPLATE}/")).await);
    assert_eq!((&one, &one["name"]), (&list["data"][0], &json!("small")));
    site.stop().await;
}

#[tokio::test]
async fn lists_need_offset_and_limit_and_say_where_the_next_and_the_previous_page_are() {
    let mut seed = state();
    let quotas: Value = (0..5).map(|n| json!({"resourceId": format!("r{n}")})).collect();
    seed.datarobot.quotas = serde_json::from_value(quotas).unwrap();
    let site = Site::with(seed).await;
    let resources = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap();
        data.iter().map(|quota| quota["resourceId"].as_str().unwrap().to_owned()).collect()
    };
    let first = site.robot_get(&format!("{QUOTAS}?offset=0&limit=2&resourceType=deployment")).await.json();
    assert_eq!((resources(&first), &first["totalCount"]), (vec!["r0".into(), "r1".into()], &json!(5)));
    let next = first["next"].as_str().unwrap().strip_prefix(&site.base).unwrap().to_owned();
    let second = fitting("GET quotas/", &site.robot_get(&next).await);
    assert_eq!(resources(&second), ["r2", "r3"]);
    let previous = second["previous"].as_str().unwrap().strip_prefix(&site.base).unwrap();
    assert_eq!(site.robot_get(previous).await.json(), first);
    let last = site.robot_get(&format!("{QUOTAS}?offset=4&limit=2")).await.json();
    assert_eq!(
        (resources(&last), &last["next"], &last["count"]),
        (vec!["r4".into()], &Value::Null, &json!(1))
    );
    assert_eq!(site.robot_get(&format!("{QUOTAS}?offset=9&limit=2")).await.json()["data"], json!([]));
    let of = site.robot_get(&format!("{QUOTAS}?offset=0&limit=2&resourceId=r3")).await.json();
    assert_eq!((resources(&of), &of["totalCount"]), (vec!["r3".into()], &json!(1)));
    for (query, complaints) in [
        ("", json!({"offset": "is required", "limit": "is required"})),
        ("?offset=0", json!({"limit": "is required"})),
        ("?offset=-1&limit=1", json!({"offset": "value is less than 0"})),
        ("?offset=0&limit=0", json!({"limit": "value is less than 1"})),
        ("?offset=x&limit=1", json!({"offset": "value can't be converted to int"})),
        ("?offset=0&limit=1&page=2", json!({"page": "page is not allowed key"})),
    ] {
        for list in [QUOTAS, TEMPLATES] {
            let got = site.robot_get(&format!("{list}{query}")).await;
            assert_eq!((got.status, &got.json()["errors"]), (422, &complaints), "{query}");
        }
    }
    assert_eq!(site.robot_get(&format!("{QUOTAS}?offset=0&limit=1&resourceType=model")).await.status, 422);
    site.stop().await;
}

#[tokio::test]
async fn a_change_takes_what_it_names_and_answers_with_the_whole_quota() {
    let site = Site::with(state()).await;
    let before = site.robot_get(&format!("{QUOTAS}{QUOTA}/")).await.json();
    let rules = json!([{"rule": "token", "limit": 0, "window": "day"}, {"limit": 5, "rule": "requests"}]);
    let body = json!({"defaultRules": rules, "saturationThreshold": null});
    let mut found = Vec::new();
    breaches(&schema("PATCH quotas/{id}/ request"), &body, "", &mut found);
    assert!(found.is_empty(), "{found:?}");
    let after = fitting("PATCH quotas/{id}/", &site.robot_patch(&body).await);
    assert_eq!(after["defaultRules"][0], rules[0]);
    assert_eq!(after["defaultRules"][1], json!({"limit": 5, "rule": "requests", "window": "min"}));
    assert_eq!(after["saturationThreshold"], Value::Null);
    for same in ["capacity", "policies", "resourceId", "userId", "id"] {
        assert_eq!(after[same], before[same], "{same} stays");
    }
    let body = json!({
        "capacity": {"capacity": 7, "units": "requests"}, "saturationThreshold": 1,
        "policies": [{"consumerId": "g", "consumerName": null, "consumerType": "usergroup", "reserved": 0, "rules": []}],
    });
    let after = fitting("PATCH quotas/{id}/", &site.robot_patch(&body).await);
    assert_eq!(after["capacity"], body["capacity"]);
    assert_eq!(after["policies"][0]["reserved"], 0.0);
    assert_eq!(site.robot_get(&format!("{QUOTAS}{QUOTA}/")).await.json(), after);
    assert_eq!(site.robot_patch(&json!({})).await.json(), after, "nothing named, nothing changed");
    let none = site.robot("writer", Method::PATCH, &format!("{QUOTAS}{QUOTA}/"), None).await;
    assert_eq!((none.status, none.json()), (200, after), "the body is not required");
    site.stop().await;
}

#[tokio::test]
async fn what_breaks_the_schema_of_a_change_is_refused_exactly_where_the_schema_says() {
    let site = Site::with(state()).await;
    let before = site.robot_get(&format!("{QUOTAS}{QUOTA}/")).await.text;
    let rule = json!({"rule": "token", "limit": 1});
    let policy = |member: &str, value: Value| {
        let mut policy = json!({"consumerId": "a", "consumerType": "user", "rules": []});
        policy[member] = value;
        json!({"policies": [policy]})
    };
    let cases = [
        (json!({"defaultRules": [{"rule": "tokens", "limit": 1}]}), "/defaultRules/0/rule"),
        (json!({"defaultRules": [rule, {"rule": "token", "limit": -1}]}), "/defaultRules/1/limit"),
        (json!({"defaultRules": [{"rule": "token", "limit": 1.5}]}), "/defaultRules/0/limit"),
        (json!({"defaultRules": [{"rule": "token", "limit": "1"}]}), "/defaultRules/0/limit"),
        (
            json!({"defaultRules": [{"rule": "token", "limit": 1, "window": "week"}]}),
            "/defaultRules/0/window",
        ),
        (json!({"defaultRules": [{"rule": "token"}]}), "/defaultRules/0/limit"),
        (json!({"defaultRules": [{"limit": 1}]}), "/defaultRules/0/rule"),
        (json!({"defaultRules": vec![rule; 101]}), "/defaultRules"),
        (json!({"defaultRules": null}), "/defaultRules"),
        (json!({"capacity": {"capacity": 1}}), "/capacity/units"),
        (json!({"capacity": {"capacity": -1, "units": "token"}}), "/capacity/capacity"),
        (json!({"capacity": {"capacity": 1, "units": "minutes"}}), "/capacity/units"),
        (json!({"capacity": null}), "/capacity"),
        (json!({"saturationThreshold": 1.01}), "/saturationThreshold"),
        (json!({"saturationThreshold": -0.1}), "/saturationThreshold"),
        (json!({"saturationThreshold": "half"}), "/saturationThreshold"),
        (policy("reserved", json!(2)), "/policies/0/reserved"),
        (policy("consumerType", json!("group")), "/policies/0/consumerType"),
        (policy("consumerId", json!(7)), "/policies/0/consumerId"),
        (policy("rules", json!([{"rule": "token", "limit": true}])), "/policies/0/rules/0/limit"),
        (json!({"policies": [{"consumerId": "a", "rules": []}]}), "/policies/0/consumerType"),
        (
            json!({"policies": vec![json!({"consumerId": "a", "consumerType": "user", "rules": []}); 10_001]}),
            "/policies",
        ),
        (json!({"policy": []}), "/policy"),
        (json!({"resourceId": "other"}), "/resourceId"),
        (json!([]), ""),
    ];
    for (body, place) in cases {
        let mut found = Vec::new();
        breaches(&schema("PATCH quotas/{id}/ request"), &body, "", &mut found);
        assert!(!found.is_empty(), "the page allows {body}");
        let got = site.robot_patch(&body).await;
        assert_eq!(got.status, 422, "{place}: {}", got.text);
        let complaint = got.json()["errors"].pointer(place).cloned();
        assert!(complaint.as_ref().is_some_and(Value::is_string), "{place}: {}", got.text);
    }
    assert_eq!(site.robot_get(&format!("{QUOTAS}{QUOTA}/")).await.text, before, "nothing of it was taken");
    let broken =
        site.request(Method::PATCH, &format!("{QUOTAS}{QUOTA}/"), "").bearer_auth("writer").body("{");
    assert_eq!(site.send(broken).await.status, 400);
    site.stop().await;
}

#[tokio::test]
async fn a_deleted_quota_is_gone_and_what_is_not_there_or_not_allowed_says_so() {
    let site = Site::with(state()).await;
    let address = format!("{QUOTAS}{QUOTA}/");
    let ask = async |token: &str, method: Method, path: &str| site.robot(token, method, path, None).await;
    assert_eq!(ask("reader", Method::DELETE, &address).await.status, 403);
    let refused = site.robot("reader", Method::PATCH, &address, Some(&json!({}))).await;
    assert_eq!(refused.status, 403);
    let got = ask("writer", Method::DELETE, &address).await;
    assert_eq!((got.status, got.text.as_str()), (204, ""));
    for (method, path) in [
        (Method::GET, address.as_str()),
        (Method::DELETE, &address),
        (Method::GET, "/api/v2/quotaTemplates/nothing/"),
        (Method::GET, "/api/v2/deployments/"),
    ] {
        let got = ask("writer", method, path).await;
        assert!(got.status == 404 && got.json()["message"].is_string(), "{path}: {}", got.text);
    }
    for (token, status) in [("stranger", 401), ("", 401)] {
        assert_eq!(ask(token, Method::GET, &format!("{QUOTAS}?offset=0&limit=1")).await.status, status);
    }
    let got = ask("writer", Method::POST, QUOTAS).await;
    assert_eq!(
        (got.status, got.header("allow")),
        (405, "GET, HEAD, OPTIONS"),
        "quotas come with deployments"
    );
    assert_eq!(ask("writer", Method::DELETE, &format!("{TEMPLATES}{TEMPLATE}/")).await.status, 405);
    let got = ask("reader", Method::GET, "/api/v2/quotas?offset=0&limit=1").await;
    assert_eq!((got.status, got.header("location")), (308, "/api/v2/quotas/?offset=0&limit=1"));
    site.stop().await;
}
