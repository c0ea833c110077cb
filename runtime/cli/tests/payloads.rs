//! A run with a large input, through everything that an operator does with runs and stores.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use cofferdam::Archive;
use common::{Sandbox, Serving};
use serde_json::json;

/// Waits for an event, faults if `n` is below zero, and gives back what it was given.
const HOLD: &str = r"
document: { dsl: '1.0.3', namespace: test, name: hold, version: '1.0.0' }
do:
  - rest: { listen: { to: { one: { with: { type: go } } } }, output: { as: '${ $workflow.input }' } }
  - check: { if: '${ .n < 0 }', raise: { error: { type: 'https://example.com/errors/negative', status: 400 } } }
";

fn is_in_order(sandbox: &Sandbox, data: &str) {
    let archive = Archive::open(&sandbox.path(data)).unwrap().unwrap();
    let report = archive.verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    drop(archive);
    sandbox
        .run(&["doctor", "--offline", "--data", data])
        .exits(0);
}

#[test]
fn a_run_with_a_mebibyte_of_input_is_resumed_after_a_kill_shown_restarted_and_redriven() {
    let sandbox = Sandbox::new();
    let text = "0123456789abcdef".repeat(1 << 16);
    let input = |n: i32| json!({"n": n, "text": text});
    sandbox.file("hold.yaml", HOLD);
    sandbox.file("minus.json", input(-1).to_string());
    sandbox.file("plus.json", input(1).to_string());
    let go = |id: &str| {
        let event = json!({"specversion": "1.0", "id": id, "source": "/test", "type": "go"});
        sandbox.file("go.json", event.to_string());
        sandbox.run(&["events", "publish", "go.json"]).exits(0);
    };
    let run = |line: &str| sandbox.run(&line.split(' ').collect::<Vec<_>>());
    let serving = Serving::start(&sandbox);
    run("run hold.yaml --input minus.json --id b").exits(3);
    // Dropping it kills it.
    drop(serving);
    is_in_order(&sandbox, ".cofferdam");
    go("1");
    run("runs resume b --wait 10m").exits(1);
    let shown = run("runs show b --output json").exits(0).json();
    assert_eq!(shown["status"], "faulted");
    let letter = run("deadletters show b --output json").exits(0).json();
    assert_eq!(letter["input"], input(-1));
    run("runs restart b --id c").exits(3);
    go("2");
    run("runs resume c --wait 10m").exits(1);
    let redriven = run("runs redrive b --input plus.json --wait 10m").exits(0);
    assert_eq!(redriven.json(), input(1));
    is_in_order(&sandbox, ".cofferdam");
    // What moves a store moves it with all that belongs to it.
    run("backup --to a.backup").exits(0);
    run("restore a.backup --data other").exits(0);
    is_in_order(&sandbox, "other");
    let letter = run("deadletters show c --output json --data other");
    assert_eq!(letter.exits(0).json()["input"], input(-1));
    let shown = run("runs show b --output json --data other").exits(0);
    assert_eq!(shown.json()["output"], input(1));
    let doctor = run("doctor --offline --data other").exits(0);
    assert!(doctor.stdout.contains("all in order"), "{}", doctor.stdout);
    run("runs purge b c --data other").exits(0);
    is_in_order(&sandbox, "other");
    let archive = Archive::open(&sandbox.path("other")).unwrap().unwrap();
    let report = archive.verify().unwrap();
    assert!(report.bytes < text.len() as u64, "{}", report.bytes);
}
