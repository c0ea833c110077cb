//! One call after the other: what goes in, what comes out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use cofferdam_host::{Artifact, ConnectionSpec, HealthStatus};
use common::{call, connect, host, wat};
use serde_json::json;

#[tokio::test]
async fn a_call_returns_what_the_guest_returns() {
    let plugin = host().load(wat::connector("", "")).unwrap();
    let connection = connect(&plugin, ConnectionSpec::new("crm"));
    let outcome = connection.invoke(call("go", json!({"a": 1}))).await;
    assert_eq!(outcome.result, Ok(json!(null)));
    assert!(outcome.usage.fuel > 0);
    assert_eq!(outcome.usage.memory_bytes_peak, 128 << 10);
    let health = connection.check().await.unwrap();
    assert_eq!(
        (health.status, health.message.as_str()),
        (HealthStatus::Healthy, "fine")
    );
}

#[tokio::test]
async fn what_describe_returns_is_what_was_stamped() {
    let stamped = host().load(wat::connector("", "")).unwrap();
    let bare = Artifact::new(wat::component("", "", "", ""), None, "bare.wasm").unwrap();
    let bare = host().load(bare).unwrap();
    assert!(bare.descriptor().is_none());
    let described = bare.describe().await.unwrap();
    assert_eq!(Some(&described), stamped.descriptor());
    let connection = connect(&bare.with_descriptor(described), ConnectionSpec::new("crm"));
    assert!(
        connection
            .invoke(call("go", json!({})))
            .await
            .result
            .is_ok()
    );
}
