//! Workflows of data tasks: output alone on standard output, exit codes, what is kept.

mod common;

use std::io::Read as _;
use std::process::Stdio;

use common::{FAULT, GREET, PAUSE, Sandbox, done};
use serde_json::json;

fn greeted() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("i.json", r#"{"name": "Ada"}"#);
    sandbox
        .run(&["run", "w.yaml", "--input", "i.json", "--id", "first"])
        .exits(0);
    sandbox
}

#[test]
fn the_output_is_alone_on_stdout() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("i.json", r#"{"name": "Ada"}"#);
    let done = sandbox
        .run(&["run", "w.yaml", "--input", "i.json"])
        .exits(0);
    assert_eq!(done.json(), json!({"greeting": "hello Ada"}));
    assert_eq!(done.stderr, "");
}

#[test]
fn the_input_may_come_from_stdin() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    let input = std::fs::File::open(sandbox.file("i.json", r#"{"name": "Bob"}"#)).unwrap();
    let done = done(
        sandbox
            .command(&["run", "w.yaml", "--input", "-"])
            .stdin(input),
    )
    .exits(0);
    assert_eq!(done.json(), json!({"greeting": "hello Bob"}));
}

#[test]
fn details_tell_status_provenance_and_tasks() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("i.json", r#"{"name": "Ada"}"#);
    let done = sandbox
        .run(&["run", "w.yaml", "--input", "i.json", "--details"])
        .exits(0);
    let envelope = done.json();
    assert_eq!(envelope["status"], "completed");
    assert_eq!(envelope["degraded"], false);
    assert_eq!(envelope["output"], json!({"greeting": "hello Ada"}));
    assert!(
        envelope["run"].is_string() && envelope["provenance"].is_object(),
        "{envelope}"
    );
    assert_eq!(envelope["tasks"][0]["task"], "/greet");
}

#[test]
fn a_fault_is_an_error_object_on_stderr_and_exit_1() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", FAULT);
    let done = sandbox.run(&["run", "w.yaml"]).exits(1);
    assert_eq!(done.stdout, "");
    let error: serde_json::Value = serde_json::from_str(&done.stderr).expect("JSON alone");
    assert_eq!(
        (&error["status"], &error["title"]),
        (&json!(418), &json!("Closed"))
    );
    let done = sandbox.run(&["run", "w.yaml", "--details"]).exits(1);
    assert_eq!(done.json()["status"], "faulted");
    assert_eq!(done.json()["error"]["status"], 418);
}

#[test]
fn a_run_is_kept_and_drawn() {
    let sandbox = greeted();
    let listed = sandbox.run(&["runs", "list"]).exits(0).stdout;
    assert!(
        listed.contains("first")
            && listed.contains("completed")
            && listed.contains("test/greet:1.0.0"),
        "{listed}"
    );
    let shown = sandbox.run(&["runs", "show", "first"]).exits(0).stdout;
    assert!(shown.contains("└─ ✓ greet  set"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours in a pipe");
    let missing = sandbox.run(&["runs", "show", "second"]).exits(2);
    assert!(missing.stderr.contains("CD0255"), "{}", missing.stderr);
    let resumed = sandbox.run(&["runs", "resume", "first"]).exits(0);
    assert_eq!(resumed.json(), json!({"greeting": "hello Ada"}));
}

#[test]
fn the_same_id_is_the_same_run() {
    let sandbox = greeted();
    sandbox.file("other.json", r#"{"name": "Bob"}"#);
    let again = sandbox
        .run(&["run", "w.yaml", "--input", "other.json", "--id", "first"])
        .exits(0);
    assert_eq!(again.json(), json!({"greeting": "hello Ada"}));
}

#[test]
fn every_list_is_json_when_asked() {
    let sandbox = greeted();
    for args in [
        &["runs", "list"][..],
        &["runs", "list", "--status", "faulted"],
        &["runs", "show", "first"],
        &["runs", "resume"],
        &["deadletters", "list"],
        &["reviews", "list"],
        &["events", "list"],
        &["connection", "list"],
        &["plugin", "list"],
        &["doctor", "--offline"],
    ] {
        let done = sandbox
            .run(&[args, &["--output", "json"]].concat())
            .exits(0);
        let json = done.json();
        assert!(json.is_array() || json.is_object(), "{args:?}: {json}");
    }
    assert_eq!(
        sandbox.run(&["runs", "list", "--output", "json"]).json()[0]["run"],
        "first"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = greeted();
    for args in [
        &["completions", "bash"][..],
        &["errors"],
        &["runs", "list"],
        &["run", "w.yaml", "--input", "i.json"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = sandbox
            .command(args)
            .stdout(writer)
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn an_interrupted_run_says_how_it_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", PAUSE);
    let mut child = sandbox
        .command(&["run", "w.yaml", "--id", "long", "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = child.stderr.take().expect("piped");
    let mut told = String::new();
    let mut buffer = [0; 256];
    while !told.contains("run long") {
        let count = stderr.read(&mut buffer).expect("readable");
        assert!(count > 0, "it ended: {told}");
        told.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let signal = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.expect("kill").success());
    stderr.read_to_string(&mut told).expect("readable");
    assert_eq!(child.wait().expect("ends").code(), Some(3), "{told}");
    assert!(told.contains("cofferdam runs resume long"), "{told}");
    let shown = sandbox.run(&["runs", "show", "long"]).exits(0).stdout;
    assert!(
        shown.contains("waiting") && shown.contains("Go on with: cofferdam runs resume long"),
        "{shown}"
    );
}

#[test]
fn doctor_finds_a_healthy_folder_healthy() {
    let sandbox = greeted();
    let done = sandbox.run(&["doctor"]).exits(0);
    assert!(
        done.stdout.contains("ok    store .cofferdam: 1 runs"),
        "{}",
        done.stdout
    );
    sandbox.file("cofferdam.toml", "[connections.crm]\nplugin = 'absent'\n");
    let done = sandbox.run(&["doctor", "--output", "json"]).exits(1);
    let findings = done.json();
    let crm = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["what"] == "connection crm")
        .unwrap();
    assert_eq!(crm["verdict"], "fail");
    assert!(crm["remedy"].is_string(), "{crm}");
}
