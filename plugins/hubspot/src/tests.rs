use cofferdam_sdk::http::TransportError;
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::HubSpot;

const CONTACTS: &str = "https://api.hubapi.com/crm/v3/objects/contacts";

fn host() -> Recorded {
    Recorded::new().secret("HUBSPOT_TOKEN")
}

#[test]
fn a_contact_is_read_by_address_with_the_token() {
    let host = host().exchange(
        Exchange::get(&format!(
            "{CONTACTS}/ada@example.com?idProperty=email&properties=email%2Cphone"
        ))
        .with_header("authorization", "Bearer secret:HUBSPOT_TOKEN")
        .reply(
            200,
            &json!({
                "id": "512",
                "properties": {"email": "ada@example.com", "phone": null},
                "createdAt": "2026-01-01T00:00:00Z",
                "archived": false
            }),
        ),
    );
    let input = json!({"email": "ada@example.com", "properties": ["email", "phone"]});
    let contact = host.invoke::<HubSpot>("get-contact", input).unwrap();
    assert_eq!(contact["id"], "512");
    assert_eq!(contact["properties"]["phone"], Value::Null);
}

#[test]
fn a_contact_needs_exactly_one_key() {
    for input in [json!({}), json!({"id": "1", "email": "a@b.c"})] {
        let failure = host().invoke::<HubSpot>("get-contact", input).unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput);
    }
}

#[test]
fn a_search_tells_where_the_next_page_begins() {
    let host = host().exchange(
        Exchange::post(&format!("{CONTACTS}/search"))
            .with_json(json!({
                "limit": 2,
                "after": "2",
                "filterGroups": [{"filters": [{"propertyName": "city", "operator": "EQ", "value": "Turku"}]}]
            }))
            .reply(200, &json!({
                "total": 5,
                "results": [{"id": "3", "properties": {}}, {"id": "4", "properties": {}}],
                "paging": {"next": {"after": "4"}}
            })),
    );
    let input = json!({
        "filters": [{"propertyName": "city", "operator": "EQ", "value": "Turku"}],
        "limit": 2,
        "after": "2"
    });
    let page = host.invoke::<HubSpot>("search-contacts", input).unwrap();
    assert_eq!(
        (page["total"].as_u64(), page["next"].as_str()),
        (Some(5), Some("4"))
    );
}

#[test]
fn a_failed_search_left_nothing_behind() {
    let host = host().exchange(
        Exchange::post(&format!("{CONTACTS}/search")).fail(TransportError::ResponseTimeout),
    );
    let failure = host
        .invoke::<HubSpot>("search-contacts", json!({"query": "ada"}))
        .unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Timeout, EffectState::None)
    );
}

#[test]
fn an_upsert_sends_every_value_as_text() {
    let host = host().exchange(
        Exchange::post(&format!("{CONTACTS}/batch/upsert"))
            .with_json(json!({"inputs": [{
                "id": "ada@example.com",
                "idProperty": "email",
                "properties": {
                    "email": "ada@example.com", "score": "87", "customer": "true", "fax": ""
                }
            }]}))
            .reply(
                200,
                &json!({"status": "COMPLETE", "results": [
                    {"id": "512", "new": true, "properties": {"email": "ada@example.com"}}
                ]}),
            ),
    );
    let input = json!({
        "email": "ada@example.com",
        "properties": {"score": 87, "customer": true, "fax": null}
    });
    let upserted = host.invoke::<HubSpot>("upsert-contact", input).unwrap();
    assert_eq!(
        (upserted["id"].as_str(), upserted["created"].as_bool()),
        (Some("512"), Some(true))
    );
}

#[test]
fn an_error_inside_a_batch_is_a_failure() {
    let host = host().exchange(Exchange::post(&format!("{CONTACTS}/batch/upsert")).reply(
        207,
        &json!({"results": [], "numErrors": 1, "errors": [
            {"category": "VALIDATION_ERROR", "message": "Property \"scor\" does not exist"}
        ]}),
    ));
    let failure = host
        .invoke::<HubSpot>("upsert-contact", json!({"email": "a@b.c"}))
        .unwrap_err();
    assert_eq!(failure.class, Class::InvalidInput);
    assert_eq!(failure.code, "hubspot.validation_error");
}

#[test]
fn an_upsert_whose_answer_was_lost_has_an_unknown_effect() {
    for (exchange, class) in [
        (
            Exchange::post(&format!("{CONTACTS}/batch/upsert"))
                .fail(TransportError::Broken("reset".into())),
            Class::Unavailable,
        ),
        (
            Exchange::post(&format!("{CONTACTS}/batch/upsert"))
                .reply_text(502, "<html>bad gateway"),
            Class::Unavailable,
        ),
    ] {
        let host = host().exchange(exchange);
        let failure = host
            .invoke::<HubSpot>("upsert-contact", json!({"email": "a@b.c"}))
            .unwrap_err();
        assert_eq!(
            (failure.class, failure.effect),
            (class, EffectState::Unknown)
        );
    }
}

#[test]
fn a_refusal_has_the_class_of_its_status_and_the_vendors_words() {
    for (status, category, class) in [
        (401, "INVALID_AUTHENTICATION", Class::Unauthenticated),
        (403, "MISSING_SCOPES", Class::Denied),
        (409, "CONFLICT", Class::Conflict),
        (429, "RATE_LIMITS", Class::RateLimited),
    ] {
        let host = host().exchange(
            Exchange::post(&format!("{CONTACTS}/batch/upsert"))
                .reply(
                    status,
                    &json!({"category": category, "message": "vendor's words"}),
                )
                .reply_header("retry-after", "10"),
        );
        let failure = host
            .invoke::<HubSpot>("upsert-contact", json!({"email": "a@b.c"}))
            .unwrap_err();
        assert_eq!((failure.class, failure.effect), (class, EffectState::None));
        assert_eq!(failure.code, format!("hubspot.{}", category.to_lowercase()));
        assert_eq!(failure.message, "vendor's words");
        assert_eq!(failure.retry_after_ms, Some(10_000));
    }
}

#[test]
fn archiving_twice_is_fine() {
    for (status, already) in [(204, false), (404, true)] {
        let host =
            host().exchange(Exchange::delete(&format!("{CONTACTS}/512")).reply_text(status, ""));
        let archived = host
            .invoke::<HubSpot>("archive-contact", json!({"id": "512"}))
            .unwrap();
        assert_eq!(archived, json!({"id": "512", "alreadyArchived": already}));
    }
}

#[test]
fn the_base_address_can_be_changed() {
    let host = host()
        .config("base_url", "http://127.0.0.1:9000/hubspot/")
        .exchange(Exchange::get(
            "http://127.0.0.1:9000/hubspot/crm/v3/objects/contacts?limit=1",
        ));
    assert_eq!(
        host.check::<HubSpot>().unwrap().status,
        cofferdam_sdk::call::Status::Healthy
    );
}
