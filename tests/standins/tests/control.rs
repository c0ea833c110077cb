//! The control API does what the Rust API does, and names mistakes.

mod common;

use cofferdam_standins::{Fault, Standins};
use common::{Call, call, standins};
use serde_json::{Value, json};

fn control(standins: &Standins, method: &str, path: &str) -> Call {
    call(method, format!("{}{path}", standins.control_url()))
}

async fn post_message(standins: &Standins) -> u16 {
    let call = call(
        "POST",
        format!("{}/api/chat.postMessage", standins.slack.url()),
    )
    .bearer("xoxb-test-token");
    call.json(&json!({ "channel": "#leads", "text": "hi", "client_msg_id": "m-1" }))
        .send()
        .await
        .status
}

#[tokio::test]
async fn the_services_are_listed_with_url_and_counts() {
    let standins = standins().await;
    post_message(&standins).await;
    let body = control(&standins, "GET", "/").send().await.json();
    let services = body["services"].as_array().unwrap();
    let names: Vec<&Value> = services.iter().map(|service| &service["name"]).collect();
    assert_eq!(names, ["hubspot", "slack", "stripe", "smtp", "generic"]);
    let slack = &services[1];
    assert_eq!(slack["url"], standins.slack.url());
    assert_eq!(
        (&slack["requests"], &slack["effects"], &slack["faults"]),
        (&json!(1), &json!(1), &json!([]))
    );
    assert!(
        services[3]["url"]
            .as_str()
            .unwrap()
            .starts_with("smtp://127.0.0.1:")
    );
    assert_eq!(
        control(&standins, "GET", "/services/slack")
            .send()
            .await
            .json(),
        *slack
    );
}

#[tokio::test]
async fn faults_are_replaced_shown_and_cleared() {
    let standins = standins().await;
    let faults = json!([
        { "kind": "latency", "ms": 1, "times": 5 },
        { "kind": "status", "code": 503, "retry_after_s": 2, "path": "/api/", "body": "m-1" },
    ]);
    let put = control(&standins, "PUT", "/services/slack/faults")
        .json(&faults)
        .send()
        .await;
    assert_eq!((put.status, put.json()), (200, faults));
    assert_eq!(post_message(&standins).await, 503);
    let left = control(&standins, "GET", "/services/slack/faults")
        .send()
        .await
        .json();
    assert_eq!(
        (left.as_array().unwrap().len(), &left[0]["times"]),
        (2, &json!(4))
    );
    assert_eq!(standins.slack.faults()[0], Fault::latency(1).times(4));
    assert_eq!(
        control(&standins, "DELETE", "/services/slack/faults")
            .send()
            .await
            .status,
        200
    );
    assert_eq!(post_message(&standins).await, 200);
}

#[tokio::test]
async fn a_refusing_service_comes_back_through_the_control_api() {
    let standins = standins().await;
    let refuse = json!([{ "kind": "refuse" }]);
    control(&standins, "PUT", "/services/hubspot/faults")
        .json(&refuse)
        .send()
        .await;
    assert!(call("GET", standins.hubspot.url()).attempt().await.is_err());
    control(&standins, "POST", "/reset").send().await;
    assert_eq!(call("GET", standins.hubspot.url()).send().await.status, 401);
}

#[tokio::test]
async fn effects_state_and_duplicates_are_told_and_reset() {
    let standins = standins().await;
    post_message(&standins).await;
    post_message(&standins).await;
    let effects = control(&standins, "GET", "/services/slack/effects")
        .send()
        .await
        .json();
    assert_eq!(
        effects,
        json!({ "requests": 2, "effects": { "m-1": 2 }, "duplicates": { "m-1": 2 }, "business": {} })
    );
    let state = control(&standins, "GET", "/services/slack/state")
        .send()
        .await
        .json();
    assert_eq!(
        state["messages"]["C0000000004"].as_array().unwrap().len(),
        2
    );
    let business = control(&standins, "GET", "/services/stripe/effects")
        .send()
        .await
        .json();
    assert_eq!(
        business["business"],
        json!({ "charged_by_lead": {}, "charged_by_email": {} })
    );
    assert_eq!(
        control(&standins, "POST", "/reset").send().await.status,
        200
    );
    assert_eq!(
        (standins.slack.requests(), standins.slack.effects().len()),
        (0, 0)
    );
    assert_eq!(standins.slack.state()["messages"], json!({}));
}

#[tokio::test]
async fn an_unknown_service_is_404_and_the_known_ones_are_named() {
    let standins = standins().await;
    for (method, path) in [
        ("GET", "/services/sap/effects"),
        ("PUT", "/services/sap/faults"),
        ("GET", "/services/sap"),
    ] {
        let answer = control(&standins, method, path)
            .json(&json!([]))
            .send()
            .await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (404, &json!("unknown-service"))
        );
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("`sap`") && message.contains("hubspot, slack, stripe, smtp, generic"),
            "{message}"
        );
    }
    let route = control(&standins, "POST", "/services/slack/effects")
        .send()
        .await;
    assert_eq!(
        (route.status, &route.json()["error"]["code"]),
        (404, &json!("unknown-route"))
    );
}

#[tokio::test]
async fn a_malformed_fault_is_400_names_the_field_and_changes_nothing() {
    let standins = standins().await;
    standins
        .slack
        .set_faults(vec![Fault::latency(1)])
        .await
        .unwrap();
    for (sent, field) in [
        (json!([{ "kind": "latency" }]), "faults[0].ms"),
        (
            json!([{ "kind": "reset" }, { "kind": "latency", "ms": "fast" }]),
            "faults[1].ms",
        ),
        (json!([{ "kind": "explode" }]), "faults[0].kind"),
        (json!([{ "ms": 5 }]), "faults[0].kind"),
        (json!([{ "kind": "reset", "tmes": 5 }]), "faults[0].tmes"),
        (
            json!([{ "kind": "status", "code": 1000 }]),
            "faults[0].code",
        ),
        (
            json!([{ "kind": "status", "code": 70_000 }]),
            "faults[0].code",
        ),
        (json!([{ "kind": "refuse", "times": 2 }]), "faults[0].times"),
        (
            json!([{ "kind": "slow-drip", "bytes": 0, "every_ms": 1 }]),
            "faults[0].bytes",
        ),
        (json!({ "kind": "reset" }), "faults"),
    ] {
        let answer = control(&standins, "PUT", "/services/slack/faults")
            .json(&sent)
            .send()
            .await;
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.status, &error["code"], &error["field"]),
            (400, &json!("malformed-fault"), &json!(field))
        );
        assert!(error["message"].as_str().unwrap().starts_with(field));
    }
    let broken = control(&standins, "PUT", "/services/slack/faults")
        .raw("application/json", "[")
        .send()
        .await;
    assert_eq!(
        (broken.status, &broken.json()["error"]["code"]),
        (400, &json!("malformed-json"))
    );
    assert_eq!(standins.slack.faults(), [Fault::latency(1)]);
}
