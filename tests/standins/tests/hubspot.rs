//! HubSpot's stand-in answers as HubSpot documents.

mod common;

use cofferdam_standins::{Fault, Standins};
use common::{Call, call, standins};
use serde_json::{Value, json};

fn contacts(standins: &Standins, method: &str, rest: &str) -> Call {
    call(
        method,
        format!("{}/crm/v3/objects/contacts{rest}", standins.hubspot.url()),
    )
    .bearer("test-token-hubspot")
}

async fn create(standins: &Standins, properties: Value) -> common::Answer {
    contacts(standins, "POST", "")
        .json(&json!({ "properties": properties }))
        .send()
        .await
}

fn upsert(standins: &Standins, emails: &[&str]) -> Call {
    let inputs: Vec<Value> = emails
        .iter()
        .map(|email| json!({ "idProperty": "email", "id": email, "properties": { "firstname": "Ada" } }))
        .collect();
    contacts(standins, "POST", "/batch/upsert").json(&json!({ "inputs": inputs }))
}

#[tokio::test]
async fn a_wrong_token_is_answered_with_invalid_authentication() {
    let standins = standins().await;
    for token in ["", "other"] {
        let url = format!("{}/crm/v3/objects/contacts", standins.hubspot.url());
        let answer = call("GET", url).bearer(token).send().await;
        assert_eq!(answer.status, 401);
        let body = answer.json();
        assert_eq!(body["status"], "error");
        assert_eq!(body["category"], "INVALID_AUTHENTICATION");
        assert!(body["correlationId"].is_string() && body["message"].is_string());
    }
}

#[tokio::test]
async fn a_contact_is_created_read_changed_and_archived() {
    let standins = standins().await;
    let created = create(
        &standins,
        json!({ "email": "Ada@Example.com", "lead_score": 7 }),
    )
    .await;
    assert_eq!(created.status, 201);
    let created = created.json();
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["properties"]["email"], "ada@example.com");
    assert_eq!(created["archived"], false);

    let read = contacts(&standins, "GET", &format!("/{id}"))
        .send()
        .await
        .json();
    assert_eq!(
        read["properties"]["lead_score"],
        Value::Null,
        "not a default property"
    );
    let by_email = "/ada%40example.com?idProperty=email&properties=lead_score,phone";
    let read = contacts(&standins, "GET", by_email).send().await.json();
    assert_eq!(read["id"], id);
    assert_eq!(read["properties"]["lead_score"], "7");
    assert!(read["properties"]["phone"].is_null());

    let change = json!({ "properties": { "firstname": "Ada", "lead_score": "" } });
    let changed = contacts(&standins, "PATCH", &format!("/{id}"))
        .json(&change)
        .send()
        .await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["properties"]["firstname"], "Ada");
    assert!(changed.json()["properties"].get("lead_score").is_none());

    for _ in 0..2 {
        let archived = contacts(&standins, "DELETE", &format!("/{id}"))
            .send()
            .await;
        assert_eq!((archived.status, archived.bytes.len()), (204, 0));
    }
    let gone = contacts(&standins, "GET", &format!("/{id}")).send().await;
    assert_eq!(
        (gone.status, &gone.json()["category"]),
        (404, &json!("OBJECT_NOT_FOUND"))
    );
    assert_eq!(standins.hubspot.effects()["archive:ada@example.com"], 1);
}

#[tokio::test]
async fn a_second_contact_with_the_same_address_is_a_conflict() {
    let standins = standins().await;
    let id = create(&standins, json!({ "email": "ada@example.com" }))
        .await
        .json()["id"]
        .clone();
    let again = create(&standins, json!({ "email": "ADA@example.com" })).await;
    assert_eq!(again.status, 409);
    let message = format!(
        "Contact already exists. Existing ID: {}",
        id.as_str().unwrap()
    );
    assert_eq!(again.json()["message"], message);
    assert_eq!(again.json()["category"], "CONFLICT");
    assert_eq!(standins.hubspot.effects()["create:ada@example.com"], 1);
}

#[tokio::test]
async fn invalid_values_are_validation_errors() {
    let standins = standins().await;
    for (properties, named) in [
        (json!({ "email": "not-an-address" }), "INVALID_EMAIL"),
        (json!({ "NoSuch": "x" }), "PROPERTY_DOESNT_EXIST"),
        (json!({ "createdate": "x" }), "READ_ONLY_VALUE"),
    ] {
        let answer = create(&standins, properties).await;
        assert_eq!(
            (answer.status, &answer.json()["category"]),
            (400, &json!("VALIDATION_ERROR"))
        );
        assert!(
            answer.json()["message"].as_str().unwrap().contains(named),
            "{named}"
        );
    }
    let broken = contacts(&standins, "POST", "")
        .raw("application/json", "{")
        .send()
        .await;
    assert_eq!(broken.status, 400);
    let missing = contacts(&standins, "PATCH", "/999999")
        .json(&json!({ "properties": {} }))
        .send()
        .await;
    assert_eq!(missing.status, 404);
    assert!(standins.hubspot.effects().is_empty());
}

#[tokio::test]
async fn an_upsert_creates_once_and_says_which_contacts_are_new() {
    let standins = standins().await;
    let first = upsert(&standins, &["ada@example.com"]).send().await;
    assert_eq!(
        (first.status, &first.json()["status"]),
        (201, &json!("COMPLETE"))
    );
    assert_eq!(first.json()["results"][0]["new"], true);
    let second = upsert(&standins, &["ada@example.com"]).send().await;
    assert_eq!(second.status, 200);
    assert_eq!(second.json()["results"][0]["new"], false);
    assert_eq!(
        second.json()["results"][0]["id"],
        first.json()["results"][0]["id"]
    );
    assert_eq!(standins.hubspot.effects()["create:ada@example.com"], 1);
    assert!(standins.hubspot.duplicates().is_empty());
}

#[tokio::test]
async fn a_batch_with_one_invalid_input_changes_nothing() {
    let standins = standins().await;
    assert_eq!(
        upsert(&standins, &["ada@example.com", "nonsense"])
            .send()
            .await
            .status,
        400
    );
    assert_eq!(
        upsert(&standins, &["a@example.com", "A@example.com"])
            .send()
            .await
            .status,
        400
    );
    let many: Vec<String> = (0..101).map(|n| format!("a{n}@example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(upsert(&standins, &many).send().await.status, 400);
    assert_eq!(standins.hubspot.state()["contacts"], json!([]));
}

#[tokio::test]
async fn the_list_is_paged_until_there_is_no_next() {
    let standins = standins().await;
    upsert(
        &standins,
        &["a@example.com", "b@example.com", "c@example.com"],
    )
    .send()
    .await;
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = contacts(&standins, "GET", &format!("?limit=2{after}"))
            .send()
            .await
            .json();
        seen.extend(
            page["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|found| found["properties"]["email"].clone()),
        );
        match page["paging"]["next"]["after"].as_str() {
            Some(cursor) => after = format!("&after={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["a@example.com", "b@example.com", "c@example.com"]);
    assert_eq!(
        contacts(&standins, "GET", "?limit=101").send().await.status,
        400
    );
}

#[tokio::test]
async fn a_search_filters_and_pages() {
    let standins = standins().await;
    for (email, score) in [
        ("a@example.com", 5),
        ("b@example.com", 50),
        ("c@other.example", 500),
    ] {
        create(&standins, json!({ "email": email, "score": score })).await;
    }
    let search = async |body: Value| {
        contacts(&standins, "POST", "/search")
            .json(&body)
            .send()
            .await
    };
    let one = json!([{ "filters": [{ "propertyName": "email", "operator": "EQ", "value": "B@example.com" }] }]);
    let found = search(json!({ "filterGroups": one, "properties": ["score"] }))
        .await
        .json();
    assert_eq!(
        (&found["total"], &found["results"][0]["properties"]["score"]),
        (&json!(1), &json!("50"))
    );

    let some =
        json!([{ "filters": [{ "propertyName": "score", "operator": "GTE", "value": "50" }] }]);
    let first = search(json!({ "filterGroups": some, "limit": 1, "sorts": ["-score"] }))
        .await
        .json();
    assert_eq!(
        first["results"][0]["properties"]["email"],
        "c@other.example"
    );
    let after = &first["paging"]["next"]["after"];
    let second =
        search(json!({ "filterGroups": some, "limit": 1, "sorts": ["-score"], "after": after }))
            .await
            .json();
    assert_eq!(second["results"][0]["properties"]["email"], "b@example.com");
    assert!(second.get("paging").is_none());

    let bad =
        json!([{ "filters": [{ "propertyName": "score", "operator": "LIKE", "value": "5" }] }]);
    assert_eq!(search(json!({ "filterGroups": bad })).await.status, 400);
    assert_eq!(search(json!({ "limit": 201 })).await.status, 400);
}

#[tokio::test]
async fn a_rate_limit_carries_retry_after_and_its_own_error_type() {
    let standins = standins().await;
    standins
        .hubspot
        .set_faults(vec![Fault::rate_limited(3).times(1)])
        .await
        .unwrap();
    let limited = upsert(&standins, &["ada@example.com"]).send().await;
    assert_eq!(
        (limited.status, limited.header("retry-after")),
        (429, Some("3"))
    );
    assert_eq!(limited.json()["errorType"], "RATE_LIMIT");
    assert!(standins.hubspot.effects().is_empty());
    assert_eq!(
        upsert(&standins, &["ada@example.com"]).send().await.status,
        201
    );
    assert_eq!(standins.hubspot.requests(), 2);
}
