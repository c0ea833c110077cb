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

/// Key, data, and what HMAC makes of them: RFC 2202 and 4231, cases 1 and 2, and a key that is
/// longer than a block.
const VECTORS: [(&str, &str, &str, &str); 9] = [
    (
        "hmac-sha1",
        JEFE,
        "what do ya want for nothing?",
        "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
    ),
    (
        "hmac-sha256",
        JEFE,
        "what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        "hmac-sha512",
        JEFE,
        "what do ya want for nothing?",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    ),
    (
        "hmac-sha1",
        VT,
        "Hi There",
        "b617318655057264e28bc0b6fb378c8ef146be00",
    ),
    (
        "hmac-sha256",
        VT,
        "Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        "hmac-sha512",
        VT,
        "Hi There",
        "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
    ),
    (
        "hmac-sha1",
        LONG,
        "data",
        "49d319ddfd05ec776fa4c4a79d861733ad84e032",
    ),
    (
        "hmac-sha256",
        LONG,
        "data",
        "ca89cf7a43024ac60214a12e2ac11100b9f13167e1ce724e1c1155802f8b78ad",
    ),
    (
        "hmac-sha512",
        LONG,
        "data",
        "a18405bdbd6cc2d75c11095ae371630373ea353ec2c0e2ee82fd1e31344f9ea46568cddad95b5f5ff757936da265cb2471574ddc0aee86011121f920898049bf",
    ),
];
const JEFE: &str = "Jefe";
const VT: &str = "\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}";
const LONG: &str = "a-key-that-is-longer-than-one-block-of-the-hash-a-key-that-is-longer-than-one-block-of-the-hash-a-key-that-is-longer-than-one-block-of-the-hash-a-key-that-is-longer-than-one-block-of-the-hash-";

fn with_secret(value: &str, audience: &[&str]) -> cofferdam_host::ConnectionSpec {
    let mut spec = unruly_spec(None);
    spec.secrets = vec![Secret {
        name: "UNRULY_SECRET".to_owned(),
        value: value.to_owned(),
        audience: audience.iter().map(|&host| host.to_owned()).collect(),
    }];
    spec
}

#[tokio::test]
async fn signatures_are_those_of_the_standards_and_the_key_stays_with_the_host() {
    let plugin = common::host().load(common::guest("unruly")).unwrap();
    for (algorithm, key, data, signature) in VECTORS {
        // A secret without an audience can be signed with, and sent to nobody.
        let connection = common::connect(&plugin, with_secret(key, &[]));
        let data = hex::encode(data);
        let input = json!({"name": "UNRULY_SECRET", "algorithm": algorithm, "data": data});
        let outcome = connection.invoke(call("sign", input)).await;
        assert_eq!(
            outcome.result.unwrap()["signature"],
            signature,
            "{algorithm}"
        );
        assert!(!format!("{:?}", outcome.logs).contains(key));
    }
    let input = json!({"name": "OTHER", "algorithm": "hmac-sha256", "data": ""});
    let connection = common::connect(&plugin, with_secret(JEFE, &[]));
    let (failure, _) = fails(&connection, call("sign", input)).await;
    assert_eq!(failure.code, "secret.denied");
}

#[tokio::test]
async fn only_headers_carry_a_secret_and_only_its_audience_gets_it() {
    let web = Web::start("you sent: {echo}").await;
    let plugin = common::host().load(common::guest("unruly")).unwrap();
    let mut spec = with_secret(SECRET, &["127.0.0.1"]);
    spec.grants.http = vec![web.url.clone()];
    let connection = common::connect(&plugin, spec);
    // In a path or a body a stand-in stays what it is: these are logged by servers and proxies.
    let input = json!({"url": format!("{}/{{UNRULY_SECRET}}", web.url), "body": "{UNRULY_SECRET}"});
    connection
        .invoke(call("send-secret", input))
        .await
        .result
        .unwrap();
    let sent = web.requests().remove(0);
    assert!(sent.starts_with("POST /cofferdam-secret-"), "{sent}");
    assert!(!sent.contains(SECRET), "{sent}");
    // In a header, and inside of `Basic` credentials, it becomes the secret.
    let input = json!({
        "url": web.url, "headers": {"x-key": "a {UNRULY_SECRET} b {UNRULY_SECRET}"},
        "basic": ["user", "{UNRULY_SECRET}"],
    });
    let outcome = connection.invoke(call("send-secret", input)).await;
    let sent = web.requests().remove(1);
    let basic = STANDARD.encode(format!("user:{SECRET}"));
    assert!(
        sent.contains(&format!("x-key: a {SECRET} b {SECRET}")),
        "{sent}"
    );
    assert!(
        sent.contains(&format!("authorization: Basic {basic}")),
        "{sent}"
    );
    let seen = format!("{outcome:?}");
    assert!(!seen.contains(SECRET) && !seen.contains(&basic), "{seen}");
}

#[tokio::test]
async fn an_audience_may_name_scheme_and_port_and_is_matched_as_the_allow_list_is() {
    let web = Web::start("fine").await;
    let port = web.url.rsplit(':').next().unwrap().to_owned();
    let plugin = common::host().load(common::guest("unruly")).unwrap();
    for (audience, sent) in [
        (web.url.clone(), true),
        ("127.0.0.1".to_owned(), true),
        ("0x7f.1".to_owned(), true),
        (format!("https://127.0.0.1:{port}"), false),
        ("http://127.0.0.1".to_owned(), false),
        ("*.0.0.1.example".to_owned(), false),
        ("localhost".to_owned(), false),
    ] {
        let mut spec = with_secret(SECRET, &[&audience]);
        spec.grants.http = vec![web.url.clone()];
        let connection = common::connect(&plugin, spec);
        let input = json!({"url": web.url, "headers": {"x-key": "{UNRULY_SECRET}"}});
        let outcome = connection.invoke(call("send-secret", input)).await;
        assert_eq!(outcome.result.is_ok(), sent, "{audience}: {outcome:?}");
    }
    assert_eq!(web.requests().len(), 3);
}

#[tokio::test]
async fn a_header_is_not_made_huge_by_repeating_a_stand_in() {
    let web = Web::start("fine").await;
    let mut spec = with_secret(&"long-".repeat(4_000), &["127.0.0.1"]);
    spec.grants.http = vec![web.url.clone()];
    let input = json!({"url": web.url, "headers": {"x-key": "{UNRULY_SECRET}".repeat(500)}});
    let (failure, outcome) = fails(&unruly(spec), call("send-secret", input)).await;
    assert_eq!(failure.class, Class::Denied, "{failure}");
    let told = |line: &cofferdam_host::LogLine| line.message.contains("its headers have");
    assert!(outcome.logs.iter().any(told), "{:?}", outcome.logs);
    assert!(web.requests().is_empty());
}

#[tokio::test]
async fn what_a_check_says_is_scrubbed() {
    let mut spec = with_secret("as well as it can", &[]);
    spec.config = json!({"health": "healthy"});
    let health = unruly(spec).check().await.unwrap();
    assert!(health.message.starts_with("****"), "{health:?}");
}
