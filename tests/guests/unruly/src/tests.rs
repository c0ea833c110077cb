use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::{Raw, Unruly};

#[test]
fn it_returns_what_it_gets() {
    let input = json!({"a": [1, null]});
    assert_eq!(
        Recorded::new().invoke::<Unruly>("echo", &input).unwrap(),
        input
    );
}

#[test]
fn it_breaks_its_own_schema() {
    let output = Recorded::new()
        .invoke::<Unruly>("wrong-shape", json!({}))
        .unwrap();
    assert_eq!(output, json!({"count": "many"}));
}

#[test]
fn it_returns_what_is_not_json() {
    let host = Recorded::new();
    let call = Call {
        action: "not-json".to_owned(),
        input: "{}".to_owned(),
        connection: "test".to_owned(),
        idempotency_key: "key-1".to_owned(),
        attempt: 1,
        deadline_ms: 1_000,
        tenant: String::new(),
        traceparent: String::new(),
        ext: "{}".to_owned(),
    };
    let output = host.run(|| connector::run::<Raw>(&call)).unwrap();
    assert!(serde_json::from_str::<Value>(&output).is_err());
}

#[test]
fn it_fails_as_it_is_told() {
    let input =
        json!({"class": "rate-limited", "code": "slow", "effect": "unknown", "retryAfterMs": 7});
    let failure = Recorded::new().invoke::<Unruly>("fail", input).unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::RateLimited, EffectState::Unknown)
    );
    assert_eq!(
        (failure.code.as_str(), failure.retry_after_ms),
        ("slow", Some(7))
    );
}

#[test]
fn it_counts_its_requests() {
    let url = "http://127.0.0.1:9/x";
    let host = Recorded::new()
        .exchange(Exchange::get(url))
        .exchange(Exchange::get(url));
    let output = host
        .invoke::<Unruly>("count-requests", json!({"url": url, "n": 2}))
        .unwrap();
    assert_eq!(output, json!({"count": 2}));
}

#[test]
fn it_lets_a_placeholder_out_everywhere() {
    let host = Recorded::new().secret("UNRULY_SECRET");
    let output = host
        .invoke::<Unruly>("secret", json!({"name": "UNRULY_SECRET"}))
        .unwrap();
    assert_eq!(output["placeholder"], "secret:UNRULY_SECRET");
    assert!(host.log_lines()[0].contains("secret:UNRULY_SECRET"));
}

#[test]
fn its_health_is_what_its_settings_say() {
    let health = |word: &str| Recorded::new().config("health", word).check::<Unruly>();
    assert!(health("healthy").is_ok());
    assert_eq!(
        health("unhealthy").unwrap().status,
        cofferdam_sdk::call::Status::Unhealthy
    );
    assert_eq!(health("fail").unwrap_err().class, Class::Unavailable);
}
