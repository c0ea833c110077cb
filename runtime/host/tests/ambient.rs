//! Nothing lies about in a chamber: no environment, no arguments, no input, no sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{call, unruly, unruly_spec};
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};

#[tokio::test]
async fn a_guest_finds_nothing_that_it_was_not_given() {
    // The test's own process has variables and arguments; cargo sees to that.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(std::env::args().count() > 0);
    let connection = unruly(unruly_spec(None));
    let outcome = connection.invoke(call("look-around", json!({}))).await;
    let nothing = json!({
        "environment": [], "arguments": [], "directories": [], "working_directory": null,
        "input": "",
    });
    assert_eq!(outcome.result.unwrap(), nothing);
}

#[tokio::test]
async fn no_socket_leads_past_the_hosts_own_way_out() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut spec = unruly_spec(None);
    // What HTTP may reach, sockets may not.
    let port = tcp.local_addr().unwrap().port();
    spec.grants.http = vec![format!("http://127.0.0.1:{port}"), "https://*".to_owned()];
    spec.grants.allow_private = true;
    let connection = unruly(spec);
    for input in [
        json!({"what": "tcp-connect", "port": port}),
        json!({"what": "tcp-listen"}),
        json!({"what": "udp-send", "port": udp.local_addr().unwrap().port()}),
        json!({"what": "resolve", "name": "localhost"}),
        json!({"what": "resolve", "name": "127.0.0.1"}),
    ] {
        let outcome = connection.invoke(call("use-socket", input.clone())).await;
        let result = outcome.result.unwrap()["result"].clone();
        assert!(
            result == "access-denied" || result == "permanent-resolver-failure",
            "{input}: {result}"
        );
    }
    assert!(udp.try_recv(&mut [0; 1]).is_err());
    // Nobody is waiting to be let in: the next one is the test's own.
    let own = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let (_, peer) = tcp.accept().await.unwrap();
    assert_eq!(peer, own.local_addr().unwrap());
}

#[tokio::test]
async fn standard_output_and_errors_are_lines_of_the_calls_log() {
    let connection = unruly(unruly_spec(None));
    let flood = json!({"lines": 2, "bytes": 8});
    let outcome = connection.invoke(call("flood-log", flood)).await;
    let printed = outcome.logs.iter().filter(|line| line.fields.is_null());
    assert_eq!(printed.count(), 2, "{:?}", outcome.logs);
    let outcome = connection.invoke(call("panic", json!({}))).await;
    let told = |line: &cofferdam_host::LogLine| line.message.contains("on purpose");
    assert!(outcome.logs.iter().any(told), "{:?}", outcome.logs);
}
