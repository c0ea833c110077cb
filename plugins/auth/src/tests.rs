use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cofferdam_sdk::http::Request;
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::{Authentication, Authorized, Policy};

const API: &str = "https://api.example.com/";
const TOKENS: &str = "https://id.example.com/realm/oauth2/token";

fn authorize(authentication: Value, policies: Value) -> Result<Authorized, Failure> {
    let authentication: Authentication = serde_json::from_value(authentication).unwrap();
    let policies: BTreeMap<String, Policy> = serde_json::from_value(policies).unwrap();
    authentication.authorize(&policies)
}

/// Sends a request with this authentication; panics unless it is what was recorded.
fn send(host: &Recorded, authentication: Value, policies: Value) -> Result<(), Failure> {
    host.run(|| {
        let authorized = authorize(authentication, policies)?;
        authorized.apply(Request::get(API)).send()?;
        Ok(())
    })
}

fn api(header: &str) -> Exchange {
    Exchange::get(API).with_header("authorization", header)
}

fn granted() -> Value {
    json!({"access_token": "at-1", "token_type": "Bearer", "expires_in": 60})
}

#[test]
fn basic_and_bearer_are_headers() {
    let basic = format!("Basic {}", STANDARD.encode("ada:sesame"));
    for (authentication, header) in [
        (
            json!({"basic": {"username": "ada", "password": "sesame"}}),
            basic.as_str(),
        ),
        (json!({"basic": {"credentials": "ada:sesame"}}), &basic),
        (json!({"bearer": {"token": "t-1"}}), "Bearer t-1"),
        (
            json!({"bearer": {"token": {"secret": "T"}}}),
            "Bearer secret:T",
        ),
    ] {
        let host = Recorded::new().secret("T").exchange(api(header));
        send(&host, authentication, json!({})).unwrap();
    }
}

#[test]
fn each_grant_is_asked_for_as_its_standard_says() {
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    let kind = "urn:ietf:params:oauth:token-type:access_token";
    for (extra, form) in [
        (
            json!({"grant": "client_credentials", "scopes": ["a", "b"], "audiences": ["x"]}),
            vec![
                ("grant_type", "client_credentials"),
                ("scope", "a b"),
                ("audience", "x"),
            ],
        ),
        (
            json!({"grant": "password", "username": "ada", "password": "sesame"}),
            vec![
                ("grant_type", "password"),
                ("username", "ada"),
                ("password", "sesame"),
            ],
        ),
        (
            json!({"grant": "refresh_token", "subject": {"token": "r-1"}}),
            vec![("grant_type", "refresh_token"), ("refresh_token", "r-1")],
        ),
        (
            json!({"grant": exchange, "subject": {"token": "s-1"}, "actor": {"token": "a-1", "type": "k"}}),
            vec![
                ("grant_type", exchange),
                ("subject_token", "s-1"),
                ("subject_token_type", kind),
                ("actor_token", "a-1"),
                ("actor_token_type", "k"),
            ],
        ),
    ] {
        let mut policy = extra;
        policy["authority"] = json!("https://id.example.com/realm");
        policy["client"] = json!({"id": "me", "secret": "secret:S"});
        let mut form = form;
        form.extend([("client_id", "me"), ("client_secret", "secret:S")]);
        let host = Recorded::new()
            .exchange(
                Exchange::post(TOKENS)
                    .with_header("cofferdam-secrets", "body")
                    .with_form(&form)
                    .reply(200, &granted()),
            )
            .exchange(api("Bearer at-1"));
        send(&host, json!({"oauth2": policy}), json!({})).unwrap();
    }
}

#[test]
fn a_client_says_who_it_is_in_its_own_way() {
    let basic = format!("Basic {}", STANDARD.encode("me:s"));
    let policy = |client: Value| {
        json!({"oauth2": {
            "authority": "https://id.example.com/realm", "grant": "client_credentials",
            "client": client,
        }})
    };
    let host = Recorded::new()
        .exchange(
            Exchange::post(TOKENS)
                .with_header("authorization", &basic)
                .with_form(&[("grant_type", "client_credentials")])
                .reply(200, &granted()),
        )
        .exchange(api("Bearer at-1"));
    let client = json!({"id": "me", "secret": "s", "authentication": "client_secret_basic"});
    send(&host, policy(client), json!({})).unwrap();

    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let host = Recorded::new()
        .exchange(
            Exchange::post(TOKENS)
                .with_form(&[
                    ("grant_type", "client_credentials"),
                    ("client_id", "me"),
                    ("client_assertion_type", kind),
                    ("client_assertion", "a.b.c"),
                ])
                .reply(200, &granted()),
        )
        .exchange(api("Bearer at-1"));
    let client = json!({"id": "me", "assertion": "a.b.c", "authentication": "private_key_jwt"});
    send(&host, policy(client), json!({})).unwrap();
}

#[test]
fn oidc_asks_the_authority_where_and_a_policy_of_the_config_is_used_by_name() {
    let policies = json!({"crm": {
        "authority": "https://id.example.com/realm", "grant": "client_credentials",
        "client": {"id": "me", "secret": {"secret": "S"}},
        "request": {"encoding": "application/json"},
    }});
    let host = Recorded::new()
        .secret("S")
        .exchange(
            Exchange::get("https://id.example.com/realm/.well-known/openid-configuration")
                .reply(200, &json!({"token_endpoint": "https://id.example.com/t"})),
        )
        .exchange(
            Exchange::post("https://id.example.com/t")
                .with_json(json!({"client_id": "me", "client_secret": "secret:S"}))
                .reply(200, &granted()),
        )
        .exchange(api("Bearer at-1"));
    send(&host, json!({"oidc": {"use": "crm"}}), policies).unwrap();
    let failure = Recorded::new()
        .run(|| authorize(json!({"oidc": {"use": "nope"}}), json!({})))
        .unwrap_err();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Denied, "auth.policy")
    );
}

#[test]
fn an_authority_that_refuses_is_quoted_in_one_word() {
    let policy = json!({"oauth2": {
        "authority": "https://id.example.com/realm", "grant": "client_credentials",
        "client": {"id": "me", "secret": "sesame"},
    }});
    let answer = json!({"error": "invalid_client", "error_description": "sesame is wrong"});
    for (status, answer, class, code) in [
        (401, answer, Class::Unauthenticated, "oauth2.invalid_client"),
        (
            400,
            json!({"error": "it is sesame"}),
            Class::Unauthenticated,
            "oauth2.refused",
        ),
        (503, json!({}), Class::Unavailable, "http.503"),
    ] {
        let host = Recorded::new().exchange(Exchange::post(TOKENS).reply(status, &answer));
        let failure = send(&host, policy.clone(), json!({})).unwrap_err();
        assert_eq!((failure.class, failure.code.as_str()), (class, code));
        assert_eq!(failure.effect, EffectState::None);
        assert!(!format!("{failure:?}").contains("sesame"));
    }
}

#[test]
fn a_token_of_a_stranger_is_not_used() {
    let token = |issuer: &str| {
        let payload = URL_SAFE_NO_PAD.encode(json!({"iss": issuer}).to_string());
        json!({"access_token": format!("e30.{payload}.x")})
    };
    let policy = json!({"oauth2": {
        "authority": "https://id.example.com/realm", "grant": "client_credentials",
        "issuers": ["https://id.example.com"],
    }});
    for (answer, fine) in [
        (token("https://id.example.com"), true),
        (token("https://evil.example"), false),
        (granted(), false),
    ] {
        let host = Recorded::new().exchange(Exchange::post(TOKENS).reply(200, &answer));
        let done = host.run(|| authorize(policy.clone(), json!({})));
        assert_eq!(done.is_ok(), fine, "{answer}");
        if let Err(failure) = done {
            assert_eq!(failure.code, "oauth2.issuer");
        }
    }
}

#[test]
fn a_token_that_is_said_back_is_overwritten() {
    let policy = json!({"oauth2": {
        "authority": "https://id.example.com/realm", "grant": "client_credentials",
    }});
    let host = Recorded::new().exchange(Exchange::post(TOKENS).reply(200, &granted()));
    let authorized = host.run(|| authorize(policy, json!({}))).unwrap();
    let answer = json!({"seen": ["Bearer at-1"], "at-1": 1});
    assert_eq!(
        authorized.clean(answer),
        json!({"seen": ["Bearer ****"], "****": 1})
    );
}
