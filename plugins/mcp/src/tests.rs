use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::Mcp;

const URL: &str = "https://mcp.example.com/mcp";

fn hello(version: &str) -> Exchange {
    Exchange::post(URL)
        .with_header("accept", "application/json, text/event-stream")
        .with_json(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}))
        .reply(
            200,
            &json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": version}}),
        )
        .reply_header("Mcp-Session-Id", "s-1")
}

fn ready() -> Exchange {
    Exchange::post(URL)
        .with_header("mcp-session-id", "s-1")
        .with_header("mcp-protocol-version", "2025-06-18")
        .with_json(json!({"method": "notifications/initialized"}))
        .reply_text(202, "")
}

fn goodbye() -> Exchange {
    Exchange::delete(URL)
        .with_header("mcp-session-id", "s-1")
        .reply_text(405, "")
}

#[test]
fn a_tool_is_called_in_a_session_of_its_own() {
    let host = Recorded::new()
        .exchange(hello("2025-06-18"))
        .exchange(ready())
        .exchange(
            Exchange::post(URL)
                .with_header("mcp-session-id", "s-1")
                .with_json(json!({
                    "id": 2, "method": "tools/call",
                    "params": {"name": "add", "arguments": {"a": 1}}
                }))
                .reply_text(
                    200,
                    "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n\
                     data: {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"content\":[]}}\n\n",
                )
                .reply_header("content-type", "text/event-stream"),
        )
        .exchange(goodbye());
    let input = json!({
        "method": "tools/call", "endpoint": {"uri": URL},
        "parameters": {"name": "add", "arguments": {"a": 1}}
    });
    let output = host.invoke::<Mcp>("call", input).unwrap();
    assert_eq!(output, json!({"content": []}));
}

#[test]
fn what_a_server_refuses_is_told_with_what_it_left_behind() {
    for (code, effect) in [(-32602, EffectState::None), (-32603, EffectState::Unknown)] {
        let error = json!({"jsonrpc": "2.0", "id": 2, "error": {"code": code, "message": "no"}});
        let host = Recorded::new()
            .exchange(hello("2025-06-18"))
            .exchange(ready())
            .exchange(Exchange::post(URL).reply(200, &error))
            .exchange(goodbye());
        let input = json!({"method": "tools/call", "endpoint": URL, "parameters": {"name": "x"}});
        let failure = host.invoke::<Mcp>("call", input).unwrap_err();
        assert_eq!((failure.class, failure.effect), (Class::Other, effect));
        assert_eq!(failure.code, format!("mcp.{code}"));
    }
}

#[test]
fn a_server_that_is_down_when_said_hello_to_has_done_nothing() {
    let host = Recorded::new().exchange(Exchange::post(URL).reply_text(503, ""));
    let input = json!({"method": "tools/call", "endpoint": URL});
    let failure = host.invoke::<Mcp>("call", input).unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Unavailable, EffectState::None)
    );
}

#[test]
fn a_server_of_another_age_is_refused() {
    let host = Recorded::new().exchange(hello("2024-11-05"));
    let input = json!({"method": "tools/list", "endpoint": URL});
    let failure = host.invoke::<Mcp>("read", input).unwrap_err();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Unsupported, "mcp.version")
    );
}

#[test]
fn an_action_sends_only_its_own_methods_and_no_header_of_the_host() {
    for (action, method) in [("read", "tools/call"), ("call", "tools/list")] {
        let input = json!({"method": method, "endpoint": URL});
        let failure = Recorded::new().invoke::<Mcp>(action, input).unwrap_err();
        assert_eq!(failure.code, "mcp.method");
    }
    let input = json!({
        "method": "tools/list", "endpoint": URL, "headers": {"Cofferdam-Secrets": "body"}
    });
    let failure = Recorded::new().invoke::<Mcp>("read", input).unwrap_err();
    assert_eq!(failure.code, "mcp.header");
}

#[test]
fn settings_and_authentication_are_used() {
    let host = Recorded::new()
        .config("endpoint", URL)
        .config("headers", json!({"x-app": "crm"}))
        .exchange(hello("2025-06-18").with_header("x-app", "crm"))
        .exchange(ready())
        .exchange(Exchange::post(URL).reply(
            200,
            &json!({"jsonrpc": "2.0", "id": 2, "result": {"tools": []}}),
        ))
        .exchange(goodbye());
    let output = host
        .invoke::<Mcp>("read", json!({"method": "tools/list"}))
        .unwrap();
    assert_eq!(output, json!({"tools": []}));
}
