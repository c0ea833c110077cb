use cofferdam_sdk::http::{Method, TransportError};
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::Http;

const URL: &str = "https://api.example.com/items";

#[test]
fn content_is_parsed_by_its_type() {
    for (kind, body, expected) in [
        (
            Some("application/json; charset=utf-8"),
            r#"{"a":1}"#,
            json!({"a": 1}),
        ),
        (Some("application/problem+json"), "[1]", json!([1])),
        (Some("text/plain"), "[1]", json!("[1]")),
        (None, "[1]", json!([1])),
        (None, "plain", json!("plain")),
        (Some("application/json"), "", Value::Null),
    ] {
        let mut exchange = Exchange::get(URL).reply_text(200, body);
        if let Some(kind) = kind {
            exchange = exchange.reply_header("Content-Type", kind);
        }
        let host = Recorded::new().exchange(exchange);
        assert_eq!(
            host.invoke::<Http>("get", json!({"url": URL})).unwrap(),
            expected,
            "{body}"
        );
    }
}

#[test]
fn a_whole_response_has_what_open_workflow_names() {
    let host = Recorded::new().exchange(
        Exchange::get(&format!("{URL}?page=2&q=a+b"))
            .with_header("accept", "application/json")
            .reply(200, &json!({"a": 1}))
            .reply_header("X-Seen", "1")
            .reply_header("x-seen", "2"),
    );
    let input = json!({
        "method": "get", "endpoint": {"uri": URL}, "query": {"page": 2, "q": "a b"},
        "headers": {"accept": "application/json"}, "output": "response"
    });
    assert_eq!(
        host.invoke::<Http>("get", input).unwrap(),
        json!({
            "request": {
                "method": "GET",
                "uri": format!("{URL}?page=2&q=a+b"),
                "headers": {"accept": "application/json"}
            },
            "statusCode": 200,
            "headers": {"x-seen": "1, 2"},
            "content": {"a": 1}
        })
    );
}

#[test]
fn raw_content_is_base64() {
    let host = Recorded::new().exchange(Exchange::get(URL).reply_text(200, "ab"));
    let output = host
        .invoke::<Http>("get", json!({"endpoint": URL, "output": "raw"}))
        .unwrap();
    assert_eq!(output, "YWI=");
}

#[test]
fn a_body_goes_out_in_the_form_that_its_type_says() {
    let form = "application/x-www-form-urlencoded";
    for (input, exchange) in [
        (
            json!({"url": URL, "body": {"a": 1}}),
            Exchange::post(URL)
                .with_header("content-type", "application/json")
                .with_json(json!({"a": 1})),
        ),
        (
            json!({"url": URL, "body": {"a": 1, "b": "x y"}, "headers": {"Content-Type": form}}),
            Exchange::post(URL)
                .with_header("content-type", form)
                .with_form(&[("a", "1"), ("b", "x y")]),
        ),
        (
            json!({"url": URL, "body": "hello"}),
            Exchange::post(URL).with_header("content-type", "text/plain; charset=utf-8"),
        ),
        (
            json!({"url": URL, "method": "PATCH", "body": []}),
            Exchange::patch(URL)
                .with_header("idempotency-key", "key-1")
                .with_json(json!([])),
        ),
    ] {
        let host = Recorded::new().exchange(exchange.reply(200, &json!(1)));
        assert_eq!(host.invoke::<Http>("send", input).unwrap(), 1);
    }
}

#[test]
fn an_action_sends_only_its_own_methods() {
    for (action, method) in [
        ("get", "POST"),
        ("put", "PATCH"),
        ("send", "DELETE"),
        ("get", "BREW"),
    ] {
        let input = json!({"url": URL, "method": method});
        let failure = Recorded::new().invoke::<Http>(action, input).unwrap_err();
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (Class::InvalidInput, "http.method")
        );
    }
    for (action, method) in [("get", Method::Head), ("put", Method::Delete)] {
        let host = Recorded::new().exchange(Exchange::new(method, URL).reply_text(204, ""));
        let input = json!({"url": URL, "method": method.as_str()});
        assert_eq!(host.invoke::<Http>(action, input).unwrap(), Value::Null);
    }
}

#[test]
fn a_redirect_is_a_failure_unless_it_is_wanted() {
    let moved = || {
        Exchange::get(URL)
            .reply_text(302, "")
            .reply_header("location", "https://evil.example")
    };
    let failure = Recorded::new()
        .exchange(moved())
        .invoke::<Http>("get", json!({"url": URL}))
        .unwrap_err();
    assert_eq!(failure.code, "http.302");
    let host = Recorded::new().exchange(moved());
    let input = json!({"url": URL, "redirect": true, "output": "response"});
    let output = host.invoke::<Http>("get", input).unwrap();
    assert_eq!(output["headers"]["location"], "https://evil.example");
}

#[test]
fn failures_have_class_and_effect() {
    for (action, exchange, class, effect) in [
        (
            "send",
            Exchange::post(URL).reply_text(503, ""),
            Class::Unavailable,
            EffectState::Unknown,
        ),
        (
            "send",
            Exchange::post(URL).reply_text(404, ""),
            Class::NotFound,
            EffectState::None,
        ),
        (
            "get",
            Exchange::get(URL).reply_text(503, ""),
            Class::Unavailable,
            EffectState::None,
        ),
        (
            "put",
            Exchange::put(URL).fail(TransportError::ResponseTimeout),
            Class::Timeout,
            EffectState::Unknown,
        ),
    ] {
        let host = Recorded::new().exchange(exchange);
        let failure = host
            .invoke::<Http>(action, json!({"url": URL}))
            .unwrap_err();
        assert_eq!((failure.class, failure.effect), (class, effect));
    }
}

#[test]
fn settings_give_base_headers_and_token() {
    let host = Recorded::new()
        .config("base_url", "https://api.example.com/v2/")
        .config("headers", json!({"X-App": "crm", "Accept": "text/plain"}))
        .config("bearer", "API_TOKEN")
        .config("check_url", "/status")
        .secret("API_TOKEN")
        .exchange(
            Exchange::get("https://api.example.com/v2/items")
                .with_header("x-app", "crm")
                .with_header("accept", "application/json")
                .with_header("authorization", "Bearer secret:API_TOKEN")
                .reply(200, &json!([])),
        )
        .exchange(Exchange::get("https://api.example.com/v2/status"));
    let input = json!({"url": "/items", "headers": {"accept": "application/json"}});
    assert!(host.invoke::<Http>("get", input).is_ok());
    assert!(host.check::<Http>().is_ok());
    let failure = Recorded::new()
        .invoke::<Http>("get", json!({"url": "/items"}))
        .unwrap_err();
    assert_eq!(failure.code, "http.url");
}
