//! What needs real plugins: `cargo xtask guests` builds them.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Sandbox;
use serde_json::json;

/// A server that answers every request with the same JSON; returns its address.
fn server(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // A client that has gone away is its own business.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

/// Nobody is asked there.
const URL: &str = "https://example.com";

const FETCH: &str = r"
document: { dsl: '1.0.3', namespace: test, name: fetch, version: '1.0.0' }
do:
  - fetch:
      call: http
      with: { method: get, endpoint: '${ .url }' }
";

#[test]
fn a_request_goes_only_where_it_is_allowed() {
    let sandbox = Sandbox::new();
    let url = server(r#"{"open": true}"#);
    let input = json!({"url": format!("{url}/hours")}).to_string();
    let allowed = sandbox
        .run_with_plugins(&[
            "call",
            "http",
            "get",
            "--input",
            &input,
            "--allow-http",
            &url,
        ])
        .exits(0);
    assert_eq!(allowed.json(), json!({"open": true}));
    let forgotten = sandbox
        .run_with_plugins(&["call", "http", "get", "--input", &input])
        .exits(2);
    assert!(
        forgotten.stderr.contains("CD0314") && forgotten.stderr.contains("--allow-http URL"),
        "{}",
        forgotten.stderr
    );
    let denied = sandbox
        .run_with_plugins(&[
            "call",
            "http",
            "get",
            "--input",
            &input,
            "--allow-http",
            "https://example.com",
        ])
        .exits(1);
    assert_eq!(denied.stdout, "");
    let failure: serde_json::Value =
        serde_json::from_str(&denied.stderr[denied.stderr.find('{').unwrap()..]).unwrap();
    assert_eq!(failure["class"], "denied");
    assert_eq!(failure["effect"], "none");
    let denied = sandbox.run_with_plugins(&[
        "call",
        "http",
        "get",
        "--input",
        &input,
        "--allow-http",
        "https://example.com",
        "--output",
        "json",
    ]);
    assert_eq!(denied.exits(1).json()["class"], "denied");
}

#[test]
fn a_workflow_may_call_what_is_allowed_on_the_command_line() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", FETCH);
    let url = server(r#"{"open": true}"#);
    let input = sandbox.file("i.json", json!({"url": format!("{url}/hours")}).to_string());
    let input = input.to_str().expect("text");
    let done = sandbox
        .run_with_plugins(&["run", "w.yaml", "--input", input, "--allow-http", &url])
        .exits(0);
    assert_eq!(done.json(), json!({"open": true}));
    let without = sandbox
        .run_with_plugins(&["run", "w.yaml", "--input", input])
        .exits(2);
    assert!(
        without.stderr.contains("CD0250") && without.stderr.contains("--allow-http URL"),
        "{}",
        without.stderr
    );
}

#[test]
fn a_parked_run_waits_with_3_and_goes_on_when_resumed() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", FETCH);
    // Hangs up until it is well. The port stays its own: a free one may be another's a moment later.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let is_well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_well);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if !answers.load(Ordering::Relaxed) {
                continue;
            }
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        }
    });
    let url = format!("http://{address}");
    sandbox.file(
        "cofferdam.toml",
        format!(
            "plugins.allow-unsigned = true\n[connections.http]\nplugin = 'http'\ngrants.http = ['{url}']\nretry.attempts = 1\n\
         breaker.wait-duration-in-open-state = '100ms'\n"
        ),
    );
    sandbox.file("i.json", json!({"url": format!("{url}/hours")}).to_string());
    let parked = sandbox
        .run_with_plugins(&["run", "w.yaml", "--input", "i.json", "--id", "late"])
        .exits(3);
    assert_eq!(parked.stdout, "");
    assert!(
        parked.stderr.contains("waits for connection `http`"),
        "{}",
        parked.stderr
    );
    assert!(
        parked.stderr.contains("cofferdam runs resume late"),
        "{}",
        parked.stderr
    );
    let shown = sandbox.run(&["runs", "show", "late"]).exits(0).stdout;
    assert!(
        shown.contains("⧖ fetch  http.get") && shown.contains("and then fails, and the run faults"),
        "{shown}"
    );
    is_well.store(true, Ordering::Relaxed);
    let resumed = sandbox
        .run_with_plugins(&["runs", "resume", "late", "--wait", "60s"])
        .exits(0);
    assert_eq!(resumed.json(), json!({}));
}

#[test]
fn plugins_are_listed_and_inspected() {
    let sandbox = Sandbox::new();
    let listed = sandbox.run_with_plugins(&["plugin", "list"]).exits(0);
    assert!(
        listed.stdout.contains("hubspot") && listed.stdout.contains("http"),
        "{}",
        listed.stdout
    );
    let inspected = sandbox
        .run_with_plugins(&["plugin", "inspect", "http", "--output", "json"])
        .exits(0)
        .json();
    assert_eq!(inspected["descriptor"]["actions"]["get"]["effect"], "read");
    assert_eq!(inspected["manifest"]["name"], "http");
    let text = sandbox
        .run_with_plugins(&["plugin", "inspect", "hubspot"])
        .exits(0)
        .stdout;
    assert!(
        text.contains("asks for  http https://api.hubapi.com")
            && text.contains("secrets HUBSPOT_TOKEN"),
        "{text}"
    );
}

#[test]
fn stamping_again_changes_nothing_and_a_wrong_manifest_is_not_stamped() {
    let sandbox = Sandbox::new();
    let from = common::plugins().join("http");
    let component = sandbox.file("x.wasm", std::fs::read(from.join("plugin.wasm")).unwrap());
    let manifest = std::fs::read_to_string(from.join("plugin.toml")).unwrap();
    sandbox.file("m.toml", &manifest);
    sandbox
        .run(&[
            "plugin",
            "stamp",
            "x.wasm",
            "--manifest",
            "m.toml",
            "--out",
            "once.wasm",
        ])
        .exits(0);
    let done = sandbox
        .run(&["plugin", "stamp", "once.wasm", "--manifest", "m.toml"])
        .exits(0);
    assert_eq!(done.stdout, "");
    let (x, once) = (
        std::fs::read(component).unwrap(),
        std::fs::read(sandbox.path("once.wasm")).unwrap(),
    );
    assert!(
        x == once,
        "plugins are laid out stamped, and stamping again gives the same bytes"
    );
    sandbox.file(
        "other.toml",
        manifest.replace("name = \"http\"", "name = \"other\""),
    );
    let done = sandbox
        .run(&[
            "plugin",
            "stamp",
            "x.wasm",
            "--manifest",
            "other.toml",
            "--out",
            "never.wasm",
        ])
        .exits(2);
    assert!(done.stderr.contains("CD0310"), "{}", done.stderr);
    assert!(!sandbox.path("never.wasm").exists());
}

#[test]
fn limits_of_the_command_line_are_enforced_and_named() {
    let sandbox = Sandbox::new();
    let spin = [
        "call",
        "unruly",
        "spin",
        "--output",
        "json",
        "--allow-http",
        URL,
    ];
    let fuel = sandbox
        .run_with_plugins(&[&spin[..], &["--fuel", "1000000"]].concat())
        .exits(1)
        .json();
    assert!(
        fuel["code"].as_str().unwrap().starts_with("limit."),
        "{fuel}"
    );
    let unknown = sandbox
        .run_with_plugins(&["call", "unruly", "dance"])
        .exits(2);
    assert!(
        unknown.stderr.contains("offers no action `dance`") && unknown.stderr.contains("echo"),
        "{}",
        unknown.stderr
    );
    let echoed = sandbox
        .run_with_plugins(&[
            "call",
            "unruly",
            "--allow-http",
            URL,
            "echo",
            "--input",
            "{\"a\": 1}",
            "--details",
        ])
        .exits(0)
        .json();
    assert_eq!(echoed["output"], json!({"a": 1}));
    assert!(echoed["usage"]["fuel"].as_u64().unwrap() > 0, "{echoed}");
    let trapped = sandbox
        .run_with_plugins(&[
            "call",
            "unruly",
            "trap",
            "--output",
            "json",
            "--allow-http",
            URL,
        ])
        .exits(1)
        .json();
    assert_eq!(trapped["class"], "internal");
}

#[test]
fn a_connections_settings_and_grants_apply_to_a_call() {
    let sandbox = Sandbox::new();
    let url = server(r#"{"open": true}"#);
    sandbox.file(
        "cofferdam.toml",
        format!("plugins.allow-unsigned = true\n[connections.web]\nplugin = 'http'\ngrants.http = ['{url}']\n"),
    );
    let input = json!({"url": format!("{url}/")}).to_string();
    let done = sandbox
        .run_with_plugins(&[
            "call",
            "http",
            "get",
            "--input",
            &input,
            "--connection",
            "web",
        ])
        .exits(0);
    assert_eq!(done.json(), json!({"open": true}));
    let missing = sandbox
        .run_with_plugins(&["call", "http", "get", "--connection", "wep"])
        .exits(2);
    assert!(
        missing.stderr.contains("the configuration has web"),
        "{}",
        missing.stderr
    );
}
