//! `plugin swap` and its like, with and without a process that has the store open.

mod common;

use std::path::PathBuf;

use common::{Sandbox, Serving, plugins};

/// A sandbox with a connection to the `normalize` plugin, and a second version of it.
struct Stage {
    sandbox: Sandbox,
    next: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let plugin = plugins().join("normalize");
        let config = format!(
            "[plugins]\nallow-unsigned = true\n[connections.phones]\nplugin = {:?}\n",
            plugin.display().to_string()
        );
        sandbox.file("cofferdam.toml", config);
        let component = std::fs::read(plugin.join("plugin.wasm")).expect("built");
        let next = sandbox.file("next.wasm", another(&component));
        Self { sandbox, next }
    }

    fn swap(&self, more: &[&str]) -> common::Done {
        let next = self.next.display().to_string();
        let args = ["plugin", "swap", "phones", next.as_str()];
        self.sandbox.run(&[&args[..], more].concat())
    }

    fn history(&self) -> serde_json::Value {
        let args = ["plugin", "history", "phones", "--output", "json"];
        let done = self.sandbox.run(&args).exits(0);
        serde_json::from_str(&done.stdout).expect("JSON")
    }

    fn happened(&self) -> Vec<String> {
        let history = self.history();
        let rows = history["history"].as_array().expect("a list");
        let what = rows.iter().rev().map(|row| row["what"].as_str());
        what.map(|what| what.expect("a text").to_owned()).collect()
    }
}

/// The same component with one more section, so that it is another one.
fn another(component: &[u8]) -> Vec<u8> {
    [component, &[0, 5, 4, b'm', b'o', b'r', b'e']].concat()
}

#[test]
fn a_plugin_is_swapped_and_brought_back_without_a_process() {
    let stage = Stage::new();
    let done = stage.swap(&[]).exits(0);
    assert!(done.stdout.contains("serves"), "{}", done.stdout);
    assert_eq!(stage.history()["generations"]["active"]["number"], 2);
    stage
        .sandbox
        .run(&["plugin", "rollback", "phones"])
        .exits(0);
    assert_eq!(stage.history()["generations"]["active"]["number"], 1);
    assert_eq!(stage.happened(), ["activated", "rolled-back"]);
}

#[test]
fn a_process_that_serves_is_asked_and_a_restart_goes_on_with_what_it_did() {
    let stage = Stage::new();
    let serving = Serving::start(&stage.sandbox);
    let doctor = stage.sandbox.run(&["doctor", "--offline"]);
    assert!(
        doctor.stdout.contains("in use by a process that answers"),
        "{}",
        doctor.stdout
    );
    stage.swap(&["--canary", "10%", "--for", "1h"]).exits(0);
    let status = stage.sandbox.run(&["connection", "status"]).exits(0);
    assert!(status.stdout.contains("1 (trial: 2)"), "{}", status.stdout);
    let second = stage.swap(&[]).exits(2);
    assert!(second.stderr.contains("CD0266"), "{}", second.stderr);
    stage.sandbox.run(&["plugin", "promote", "phones"]).exits(0);
    drop(serving);
    let history = stage.history();
    assert_eq!(history["generations"]["active"]["number"], 2);
    assert_eq!(stage.happened(), ["tried", "refused", "promoted"]);
    let _serving = Serving::start(&stage.sandbox);
    assert_eq!(stage.history()["generations"]["active"]["number"], 2);
}

#[test]
fn what_cannot_be_done_is_told_with_its_code_and_changes_nothing() {
    let stage = Stage::new();
    let run = |args: &[&str]| stage.sandbox.run(args);
    let nothing = run(&["plugin", "history", "phones"]).exits(2);
    assert!(nothing.stderr.contains("no store"), "{}", nothing.stderr);
    stage.swap(&["--canary", "0%"]).exits(2);
    stage.swap(&["--canary", "half"]).exits(2);
    stage.swap(&["--canary", "10%", "--for", "0s"]).exits(2);
    stage.swap(&["--for", "5m"]).exits(2);
    assert!(!stage.sandbox.path(".cofferdam").exists());
    stage.sandbox.file("junk.wasm", "junk");
    let junk = run(&["plugin", "swap", "phones", "junk.wasm"]).exits(2);
    assert!(junk.stderr.contains("CD03"), "{}", junk.stderr);
    let absent = run(&["plugin", "swap", "phones", "absent.wasm"]).exits(2);
    assert!(absent.stderr.contains("absent"), "{}", absent.stderr);
    let next = stage.next.display().to_string();
    let nobody = run(&["plugin", "swap", "mail", &next]).exits(2);
    assert!(nobody.stderr.contains("CD0263"), "{}", nobody.stderr);
    let none = run(&["plugin", "rollback", "phones"]).exits(2);
    assert!(none.stderr.contains("CD0268"), "{}", none.stderr);
    let none = run(&["plugin", "promote", "phones"]).exits(2);
    assert!(none.stderr.contains("CD0267"), "{}", none.stderr);
    let status = run(&["connection", "status"]).exits(3);
    assert!(
        status.stderr.contains("cofferdam serve"),
        "{}",
        status.stderr
    );
    assert_eq!(stage.history()["generations"]["active"]["number"], 1);
}

#[test]
fn a_socket_that_speaks_nonsense_is_answered_and_goes_on() {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    let stage = Stage::new();
    let _serving = Serving::start(&stage.sandbox);
    let socket = stage.sandbox.path(".cofferdam/control.sock");
    for line in [
        "",
        "{}",
        "[1, 2",
        "{\"verb\": \"dance\"}",
        &"x".repeat(100_000),
    ] {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        // The other side may have heard enough before it has read all of it.
        let _ = stream.write_all(line.as_bytes());
        let _ = stream.write_all(b"\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("CD0274"), "{answer}");
    }
    assert_eq!(stage.history()["generations"]["active"]["number"], 1);
}

#[test]
fn a_path_too_long_for_a_socket_stops_nothing_but_the_verbs_that_need_it() {
    let stage = Stage::new();
    let long = "x".repeat(120);
    let data = ["--data", long.as_str()];
    let run = |args: &[&str]| stage.sandbox.run(&[args, &data].concat());
    let next = stage.next.display().to_string();
    run(&["plugin", "swap", "phones", &next]).exits(0);
    run(&["plugin", "history", "phones"]).exits(0);
    run(&["runs", "resume"]).exits(0);
}
