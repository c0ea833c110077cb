//! Slack's stand-in answers as Slack documents.

mod common;

use cofferdam_standins::{Fault, Standins};
use common::{Call, call, standins};
use serde_json::{Value, json};

fn method(standins: &Standins, name: &str) -> Call {
    call("POST", format!("{}/api/{name}", standins.slack.url()))
}

async fn post(standins: &Standins, body: Value) -> Value {
    let answer = method(standins, "chat.postMessage")
        .bearer("xoxb-test-token")
        .json(&body)
        .send()
        .await;
    assert_eq!(answer.status, 200, "Slack says no with 200");
    answer.json()
}

#[tokio::test]
async fn refusals_are_named_in_the_body() {
    let standins = standins().await;
    for (body, error) in [
        (json!({ "channel": "#leads" }), "no_text"),
        (
            json!({ "channel": "#nowhere", "text": "hi" }),
            "channel_not_found",
        ),
        (json!({ "text": "hi" }), "channel_not_found"),
        (
            json!({ "channel": "#leads", "text": "x".repeat(40_001) }),
            "msg_too_long",
        ),
    ] {
        assert_eq!(
            post(&standins, body).await,
            json!({ "ok": false, "error": error })
        );
    }
    let body = json!({ "channel": "#leads", "text": "hi" });
    let without = method(&standins, "chat.postMessage")
        .json(&body)
        .send()
        .await;
    assert_eq!(
        (without.status, &without.json()["error"]),
        (200, &json!("not_authed"))
    );
    let wrong = method(&standins, "chat.postMessage")
        .bearer("xoxb-other")
        .json(&body)
        .send()
        .await;
    assert_eq!(wrong.json()["error"], "invalid_auth");
    let unknown = method(&standins, "chat.shout")
        .bearer("xoxb-test-token")
        .json(&body)
        .send()
        .await;
    assert_eq!(unknown.json()["error"], "unknown_method");
    let broken = method(&standins, "chat.postMessage")
        .bearer("xoxb-test-token")
        .raw("application/json", "{");
    assert_eq!(broken.send().await.json()["error"], "invalid_json");
    assert!(standins.slack.effects().is_empty());
}

#[tokio::test]
async fn a_message_is_posted_from_json_and_from_a_form() {
    let standins = standins().await;
    let posted = post(&standins, json!({ "channel": "#leads", "text": "hi" })).await;
    assert_eq!(
        (&posted["ok"], &posted["message"]["text"]),
        (&json!(true), &json!("hi"))
    );
    let channel = posted["channel"].as_str().unwrap();
    assert!(channel.starts_with('C'));
    let form = format!("channel={channel}&text=and+again");
    let second = method(&standins, "chat.postMessage")
        .bearer("xoxb-test-token")
        .form(&form)
        .send()
        .await
        .json();
    assert_ne!(second["ts"], posted["ts"]);

    let history = format!("channel={channel}&limit=1");
    let history = method(&standins, "conversations.history")
        .bearer("xoxb-test-token")
        .form(&history)
        .send()
        .await;
    let page = history.json();
    assert_eq!(
        (&page["messages"][0]["text"], &page["has_more"]),
        (&json!("and again"), &json!(true))
    );
    let next = format!(
        "channel={channel}&cursor={}",
        page["response_metadata"]["next_cursor"].as_str().unwrap()
    );
    let history = method(&standins, "conversations.history")
        .bearer("xoxb-test-token")
        .form(&next)
        .send()
        .await;
    assert_eq!(history.json()["messages"][0]["text"], "hi");
    assert_eq!(history.json()["has_more"], false);
}

#[tokio::test]
async fn every_post_is_an_effect_under_the_best_key_there_is() {
    let standins = standins().await;
    post(&standins, json!({ "channel": "C0000000004", "text": "hi" })).await;
    let body = json!({ "channel": "#leads", "text": "hi", "client_msg_id": "m-1" });
    post(&standins, body).await;
    let metadata = json!({ "event_type": "lead", "event_payload": { "idempotency_key": "k-1" } });
    let body =
        json!({ "channel": "#leads", "text": "hi", "client_msg_id": "m-2", "metadata": metadata });
    post(&standins, body.clone()).await;
    post(&standins, body).await;
    let effects = serde_json::to_value(standins.slack.effects()).unwrap();
    assert_eq!(effects, json!({ "C0000000004:hi": 1, "k-1": 2, "m-1": 1 }));
    assert_eq!(
        standins.slack.duplicates().into_keys().collect::<Vec<_>>(),
        ["k-1"]
    );
}

#[tokio::test]
async fn auth_test_tells_who_the_token_is() {
    let standins = standins().await;
    let answer = method(&standins, "auth.test")
        .bearer("xoxb-test-token")
        .send()
        .await
        .json();
    assert_eq!(
        (&answer["ok"], &answer["team_id"]),
        (&json!(true), &json!("T0000000001"))
    );
}

#[tokio::test]
async fn a_rate_limit_is_429_with_retry_after() {
    let standins = standins().await;
    standins
        .slack
        .set_faults(vec![Fault::rate_limited(30)])
        .await
        .unwrap();
    let body = json!({ "channel": "#leads", "text": "hi" });
    let limited = method(&standins, "chat.postMessage")
        .bearer("xoxb-test-token")
        .json(&body)
        .send()
        .await;
    assert_eq!(
        (limited.status, limited.header("retry-after")),
        (429, Some("30"))
    );
    assert_eq!(
        limited.json(),
        json!({ "ok": false, "error": "ratelimited" })
    );
    assert!(standins.slack.effects().is_empty());
}
