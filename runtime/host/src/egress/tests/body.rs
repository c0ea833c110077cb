//! Secrets in bodies: only where a request asks for it, only in forms and JSON, only toward the
//! audience.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde_json::json;

use super::network::{Fake, send, told};
use super::pipeline::{PLAIN, Server, toward};
use crate::call::Call;
use crate::capabilities::secrets;
use crate::connection::Settings;
use crate::egress::Egress;
use crate::egress::dial::Network;
use crate::limits::Limits;
use crate::scope::Scope;
use crate::scrub::Scrubber;
use crate::spec::{Grants, Secret};

const SECRET: &str = "a \"b\"&c=d\u{e4}%+\\";
const TOKEN: &str = "cofferdam-secret-00112233445566778899aabbccddeeff";

fn scope(grants: &Grants, network: &Arc<Fake>, audience: &str) -> Arc<Scope> {
    let mut settings = Settings::nothing("test").unwrap();
    settings.egress = Egress::new("test", grants, None).unwrap();
    settings.egress.network = Arc::clone(network) as Arc<dyn Network>;
    let secret = Secret {
        name: "S".to_owned(),
        value: SECRET.to_owned(),
        audience: vec![audience.to_owned()],
    };
    settings.limits = Limits::default();
    settings.secrets = secrets::hold("test", vec![secret]).unwrap();
    settings.scrubber = Arc::new(Scrubber::new([SECRET].into_iter()));
    let scope = Scope::new(Arc::new(settings), String::new(), Duration::from_secs(20));
    *scope.placeholders.lock() = secrets::brought(&scope.settings.secrets, &call(&json!({})));
    Arc::new(scope)
}

/// A call that brings a stand-in along.
fn call(input: &serde_json::Value) -> Call {
    Call {
        action: "a".to_owned(),
        input: input.clone(),
        idempotency_key: "k".to_owned(),
        attempt: 1,
        timeout: Duration::from_secs(1),
        tenant: String::new(),
        traceparent: String::new(),
        secrets: BTreeMap::from([(TOKEN.to_owned(), "S".to_owned())]),
    }
}

/// Sends a body and returns what the server got, or what the log says of the denial.
async fn post(
    kind: &str,
    word: Option<&str>,
    body: String,
    audience: &str,
) -> Result<String, String> {
    let server = Server::start(PLAIN).await;
    let (grants, network) = toward(&server);
    let scope = scope(&grants, &network, audience);
    let mut request = Request::post("http://api.example.com/").header("content-type", kind);
    if let Some(word) = word {
        request = request.header("cofferdam-secrets", word);
    }
    let body: &'static str = Box::leak(body.into_boxed_str());
    match send(&scope, request.body(body).unwrap()).await {
        Ok(_) => Ok(server.received().remove(0)),
        Err(_) => {
            assert!(server.received().is_empty());
            Err(told(&scope))
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const HOST: &str = "api.example.com";

#[tokio::test]
async fn a_secret_is_written_as_the_body_is() {
    let form = post(FORM, Some("body"), format!("x=1&s={TOKEN}"), HOST)
        .await
        .unwrap();
    assert!(
        form.ends_with("\r\n\r\nx=1&s=a+%22b%22%26c%3Dd%C3%A4%25%2B%5C"),
        "{form}"
    );
    assert!(!form.contains("cofferdam-secrets"), "{form}");
    let kind = "application/json; charset=utf-8";
    let json = post(kind, Some("body"), format!("{{\"s\":\"{TOKEN}\"}}"), HOST)
        .await
        .unwrap();
    let (_, body) = json.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, json!({"s": SECRET}));
}

#[tokio::test]
async fn without_the_word_a_placeholder_stays_what_it_is() {
    let plain = post(FORM, None, format!("s={TOKEN}"), HOST).await.unwrap();
    assert!(plain.ends_with(&format!("s={TOKEN}")), "{plain}");
}

#[tokio::test]
async fn what_cannot_be_done_is_not_sent() {
    let long = "x".repeat(70 << 10);
    for (kind, word, body, audience, said) in [
        (
            FORM,
            "body",
            format!("s={TOKEN}"),
            "far.example",
            "may not be sent to",
        ),
        (
            FORM,
            "all",
            format!("s={TOKEN}"),
            HOST,
            "says `body` and nothing else",
        ),
        (
            "text/plain",
            "body",
            TOKEN.to_owned(),
            HOST,
            "only into a body that is",
        ),
        (FORM, "body", long, HOST, "at most 65536 bytes"),
    ] {
        let denied = post(kind, Some(word), body, audience).await.unwrap_err();
        assert!(denied.contains(said), "{denied}");
        assert!(!denied.contains(SECRET), "{denied:.200}");
    }
}

#[test]
fn a_call_that_names_a_secret_which_is_not_there_is_refused() {
    let held = secrets::hold("test", Vec::new()).unwrap();
    for (input, refused) in [
        (json!({"a": [{"b": format!("x {TOKEN}")}]}), true),
        (json!({ TOKEN: 1 }), true),
        (json!({"a": "cofferdam-secret-"}), false),
    ] {
        let failure = secrets::missing_in(&held, "crm", &call(&input));
        assert_eq!(failure.is_some(), refused, "{input}");
        if let Some(failure) = failure {
            assert_eq!(failure.code, "secret.denied");
        }
    }
}
