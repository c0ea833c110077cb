//! A secret goes to its audience and nowhere else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cofferdam_core::failure::Class;
use cofferdam_host::Secret;
use common::web::Web;
use common::{SECRET, call, fails, unruly, unruly_spec};
use serde_json::json;

#[tokio::test]
async fn the_secret_reaches_its_audience_and_the_guest_never_sees_it() {
    let web = Web::start("you sent: {echo}").await;
    let connection = unruly(unruly_spec(Some(&web.url)));
    let use_it = call("secret", json!({"name": "UNRULY_SECRET", "url": web.url}));
    let outcome = connection.invoke(use_it).await;
    let output = outcome.result.clone().unwrap();
    assert!(
        web.requests()[0].contains(&format!("Bearer {SECRET}")),
        "{:?}",
        web.requests()
    );
    let seen = format!("{output} {:?}", outcome.logs);
    assert!(!seen.contains(SECRET), "{seen}");
    let placeholder = output["placeholder"].as_str().unwrap();
    assert!(placeholder.starts_with("cofferdam-secret-"));
    let body = output["answer"]["body"].as_str().unwrap();
    assert!(
        body.contains(&format!("Bearer {}", "*".repeat(SECRET.len()))),
        "{body}"
    );
}

#[tokio::test]
async fn a_placeholder_of_another_call_is_worthless() {
    let web = Web::start("fine").await;
    let connection = unruly(unruly_spec(Some(&web.url)));
    let get = || call("secret", json!({"name": "UNRULY_SECRET"}));
    let first = connection.invoke(get()).await.result.unwrap()["placeholder"].clone();
    let second = connection.invoke(get()).await.result.unwrap()["placeholder"].clone();
    assert_ne!(first, second);
    let headers = json!({"authorization": format!("Bearer {}", first.as_str().unwrap())});
    let fetch = call("fetch", json!({"url": web.url, "headers": headers}));
    connection.invoke(fetch).await.result.unwrap();
    assert!(!web.requests()[0].contains(SECRET));
}

#[tokio::test]
async fn a_request_outside_of_the_audience_is_not_sent() {
    for audience in [vec![], vec!["api.example.com".to_owned()]] {
        let web = Web::start("fine").await;
        let mut spec = unruly_spec(Some(&web.url));
        spec.secrets[0].audience = audience;
        let use_it = call("secret", json!({"name": "UNRULY_SECRET", "url": web.url}));
        let (failure, outcome) = fails(&unruly(spec), use_it).await;
        assert_eq!(failure.class, Class::Denied, "{failure}");
        assert!(web.requests().is_empty());
        let told = outcome.logs.iter().any(|line| {
            line.message.contains("UNRULY_SECRET")
                && line.message.contains("audience = [\"127.0.0.1\"]")
        });
        assert!(told, "{:?}", outcome.logs);
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_denied() {
    let (failure, _) = fails(
        &unruly(unruly_spec(None)),
        call("secret", json!({"name": "OTHER"})),
    )
    .await;
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Denied, "secret.denied")
    );
}

#[tokio::test]
async fn outputs_failures_and_logs_are_scrubbed_in_every_encoding() {
    let connection = unruly(unruly_spec(None));
    let leak = format!("{SECRET} {}", STANDARD.encode(SECRET));
    let outcome = connection
        .invoke(call("echo", json!({"leak": [leak], SECRET: 1})))
        .await;
    let text = outcome.result.unwrap().to_string();
    assert!(
        !text.contains(SECRET) && !text.contains(&STANDARD.encode(SECRET)),
        "{text}"
    );
    let input = json!({
        "class": "unavailable", "code": "down", "message": leak, "details": {"leak": leak}
    });
    let (failure, outcome) = fails(&connection, call("fail", input)).await;
    let text = format!("{failure:?} {:?}", outcome.logs);
    assert!(
        !text.contains(SECRET) && !text.contains(&STANDARD.encode(SECRET)),
        "{text}"
    );
}

#[tokio::test]
async fn requests_go_only_where_they_are_granted() {
    let web = Web::start("fine").await;
    let connection = unruly(unruly_spec(Some("https://nowhere.example")));
    let (failure, outcome) = fails(&connection, call("fetch", json!({"url": web.url}))).await;
    assert_eq!(failure.class, Class::Denied, "{failure}");
    assert!(web.requests().is_empty());
    let remedy = format!("http = [\"{}\"]", web.url);
    assert!(
        outcome
            .logs
            .iter()
            .any(|line| line.message.contains(&remedy)),
        "{:?}",
        outcome.logs
    );

    // A star never reaches this machine.
    let port = web.url.rsplit(':').next().unwrap();
    let connection = unruly(unruly_spec(Some(&format!("http://*:{port}"))));
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}");
        let (failure, _) = fails(&connection, call("fetch", json!({"url": url}))).await;
        assert_eq!(failure.class, Class::Denied, "{url}: {failure}");
    }
    assert!(web.requests().is_empty());
}

#[test]
fn a_secret_is_not_shown_when_it_is_debugged() {
    let secret = Secret {
        name: "A".to_owned(),
        value: SECRET.to_owned(),
        audience: Vec::new(),
    };
    assert!(!format!("{secret:?}").contains(SECRET));
}
