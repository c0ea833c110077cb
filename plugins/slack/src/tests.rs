use cofferdam_sdk::http::TransportError;
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::Slack;

const POST: &str = "https://slack.com/api/chat.postMessage";

fn host() -> Recorded {
    Recorded::new().secret("SLACK_TOKEN")
}

fn post(host: &Recorded) -> Result<Value, Failure> {
    host.invoke::<Slack>(
        "post-message",
        json!({"channel": "#leads", "text": "hello"}),
    )
}

#[test]
fn a_message_carries_the_calls_key() {
    let host = host()
        .call(|call| call.idempotency_key = "run-1/notify".into())
        .exchange(
            Exchange::post(POST)
                .with_header("authorization", "Bearer secret:SLACK_TOKEN")
                .with_json(json!({
                    "channel": "#leads",
                    "text": "hello",
                    "metadata": {"event_payload": {"idempotency_key": "run-1/notify"}}
                }))
                .reply(200, &json!({"ok": true, "channel": "C1", "ts": "1.2"})),
        );
    assert_eq!(post(&host).unwrap(), json!({"channel": "C1", "ts": "1.2"}));
}

#[test]
fn a_message_without_channel_goes_to_the_connections() {
    let host = host().config("channel", "C9").exchange(
        Exchange::post(POST)
            .with_json(
                json!({"channel": "C9", "thread_ts": "1.1", "blocks": [{"type": "divider"}]}),
            )
            .reply(200, &json!({"ok": true, "channel": "C9", "ts": "1.2"})),
    );
    let input = json!({"blocks": [{"type": "divider"}], "thread_ts": "1.1"});
    assert!(host.invoke::<Slack>("post-message", input).is_ok());
}

#[test]
fn a_message_needs_a_place_and_something_to_say() {
    for (input, code) in [
        (json!({"text": "hello"}), "slack.no_channel"),
        (json!({"channel": "C1", "text": ""}), "slack.no_text"),
    ] {
        assert_eq!(
            host()
                .invoke::<Slack>("post-message", input)
                .unwrap_err()
                .code,
            code
        );
    }
}

#[test]
fn a_refusal_in_a_200_has_the_class_of_its_word() {
    for (error, class, effect) in [
        ("invalid_auth", Class::Unauthenticated, EffectState::None),
        ("token_expired", Class::Unauthenticated, EffectState::None),
        ("channel_not_found", Class::NotFound, EffectState::None),
        ("not_in_channel", Class::Denied, EffectState::None),
        ("is_archived", Class::Denied, EffectState::None),
        ("ratelimited", Class::RateLimited, EffectState::None),
        ("msg_too_long", Class::InvalidInput, EffectState::None),
        ("fatal_error", Class::Unavailable, EffectState::Unknown),
        ("something_new", Class::Other, EffectState::Unknown),
    ] {
        let host =
            host().exchange(Exchange::post(POST).reply(200, &json!({"ok": false, "error": error})));
        let failure = post(&host).unwrap_err();
        assert_eq!((failure.class, failure.effect), (class, effect), "{error}");
        assert_eq!(failure.code, format!("slack.{error}"));
    }
}

#[test]
fn a_word_that_nobody_knows_has_the_class_of_its_status() {
    for (status, class, effect) in [
        (400, Class::InvalidInput, EffectState::None),
        (409, Class::Conflict, EffectState::None),
        (500, Class::Unavailable, EffectState::Unknown),
    ] {
        let refused = json!({"ok": false, "error": "something_new"});
        let host = host().exchange(Exchange::post(POST).reply(status, &refused));
        let failure = post(&host).unwrap_err();
        assert_eq!((failure.class, failure.effect), (class, effect), "{status}");
        assert_eq!(failure.code, "slack.something_new");
    }
}

#[test]
fn a_rate_limit_tells_the_wait() {
    let host = host().exchange(
        Exchange::post(POST)
            .reply(429, &json!({"ok": false, "error": "ratelimited"}))
            .reply_header("Retry-After", "30"),
    );
    let failure = post(&host).unwrap_err();
    assert_eq!(
        (failure.class, failure.retry_after_ms),
        (Class::RateLimited, Some(30_000))
    );
}

#[test]
fn an_answer_that_is_lost_or_not_slacks_leaves_the_effect_open() {
    for exchange in [
        Exchange::post(POST).fail(TransportError::ResponseTimeout),
        Exchange::post(POST).reply_text(502, "<html>"),
    ] {
        let failure = post(&host().exchange(exchange)).unwrap_err();
        assert_eq!(failure.effect, EffectState::Unknown);
    }
    let host = host().exchange(Exchange::post(POST).fail(TransportError::Unreachable));
    assert_eq!(post(&host).unwrap_err().effect, EffectState::None);
}

#[test]
fn the_check_says_who_it_is() {
    let host = host().exchange(
        Exchange::get("https://slack.com/api/auth.test")
            .reply(200, &json!({"ok": true, "team": "Acme", "user": "bot"})),
    );
    assert_eq!(
        host.check::<Slack>().unwrap().message,
        "authenticated as bot in Acme"
    );
}
