//! A guest has nothing of the process it runs in.

use cofferdam_host::ConnectionSpec;
use cofferdam_hostile::harness;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_guest_has_no_sockets_no_environment_and_no_arguments() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("it has one").to_string();
    let host = harness::host(None).expect("a host");
    let plugin = harness::stamped("unruly").and_then(|artifact| Ok(host.load(artifact)?));
    let mut spec = ConnectionSpec::new("unruly");
    spec.grants.kv = true;
    spec.grants.http = vec![format!("http://{address}")];
    let connection = plugin.expect("it loads").connect(spec, harness::services());
    let call = harness::call(
        "ambient",
        json!({ "address": address }),
        Duration::from_mins(1),
    );
    let outcome = connection.expect("it connects").invoke(call).await;
    assert_eq!(outcome.result, Ok(json!({ "reached": [] })));
}
