//! What operators do with runs: with nobody else there, and beside a process that has the store
//! open. Both ways give the same.

mod common;

use common::{Done, FAULT, GREET, PAUSE, Sandbox, Serving};
use serde_json::Value;

/// Faults unless `n` is at least zero.
const PICKY: &str = r"
document: { dsl: '1.0.3', namespace: test, name: picky, version: '1.0.0' }
do:
  - first: { set: { n: '${ .n }' } }
  - check: { if: '${ .n < 0 }', raise: { error: { type: 'https://example.com/errors/negative', status: 400 } } }
";

/// Waits for longer than any test.
const LONG: &str = r"
document: { dsl: '1.0.3', namespace: test, name: long, version: '1.0.0' }
do:
  - rest: { wait: { hours: 5 } }
";

struct Stage {
    sandbox: Sandbox,
    serving: Option<Serving>,
}

impl Stage {
    fn new(serves: bool) -> Self {
        let sandbox = Sandbox::new();
        for (name, text) in [
            ("greet.yaml", GREET),
            ("fault.yaml", FAULT),
            ("pause.yaml", PAUSE),
            ("picky.yaml", PICKY),
            ("long.yaml", LONG),
            ("ada.json", r#"{"name": "Ada"}"#),
            ("bob.json", r#"{"name": "Bob"}"#),
            ("minus.json", r#"{"n": -1}"#),
            ("plus.json", r#"{"n": 1}"#),
        ] {
            sandbox.file(name, text);
        }
        let serving = serves.then(|| Serving::start(&sandbox));
        Self { sandbox, serving }
    }

    fn run(&self, line: &str) -> Done {
        self.sandbox.run(&line.split(' ').collect::<Vec<_>>())
    }

    fn status(&self, run: &str) -> String {
        let done = self.run(&format!("runs show {run} --output json")).exits(0);
        done.json()["status"].as_str().expect("a word").to_owned()
    }
}

/// The same with and without a process that has the store open.
fn both_ways(test: impl Fn(&Stage)) {
    for serves in [false, true] {
        let stage = Stage::new(serves);
        test(&stage);
        assert_eq!(stage.serving.is_some(), serves);
    }
}

#[test]
fn a_run_is_started_and_looked_at() {
    both_ways(|stage| {
        let done = stage.run("run greet.yaml --input ada.json --id a").exits(0);
        assert_eq!(done.json()["greeting"], "hello Ada");
        let done = stage.run("runs start greet.yaml --input ada.json").exits(0);
        assert_eq!(done.json()["greeting"], "hello Ada");
        let listed = stage.run("runs list --output json").exits(0).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2));
        assert_eq!(stage.status("a"), "completed");
        stage.run("runs show b").exits(2);
        stage.run("reviews list").exits(0);
        stage.run("events list").exits(0);
        let faulted = stage.run("run fault.yaml").exits(1);
        assert!(faulted.stderr.contains("Come back"), "{}", faulted.stderr);
    });
}

#[test]
fn a_run_is_suspended_resumed_and_cancelled() {
    both_ways(|stage| {
        stage.run("run long.yaml --id l").exits(3);
        stage.run("runs suspend l --reason audit").exits(0);
        assert_eq!(stage.status("l"), "suspended");
        let shown = stage.run("runs show l").exits(0);
        assert!(
            shown.stdout.contains("(audit); goes on when"),
            "{}",
            shown.stdout
        );
        stage.run("runs resume l --wait 0s").exits(3);
        assert_eq!(stage.status("l"), "waiting");
        let done = stage.run("runs cancel l --reason twice --output json");
        let view = done.exits(0).json();
        assert_eq!(view["cancelled"]["reason"], "twice");
        stage.run("runs cancel l").exits(0);
        let refused = stage.run("runs suspend l").exits(2);
        assert!(refused.stderr.contains("CD0220"), "{}", refused.stderr);
        // Asking for the run again says what became of it.
        let again = stage.run("run long.yaml --id l").exits(1);
        assert!(
            again.stderr.contains("cancelled: twice"),
            "{}",
            again.stderr
        );
    });
}

#[test]
fn a_dead_letter_is_shown_edited_and_redriven() {
    both_ways(|stage| {
        stage
            .run("run picky.yaml --input minus.json --id p")
            .exits(1);
        let letter = stage.run("deadletters show p").exits(0).json();
        assert_eq!(letter["task"], "/check");
        assert_eq!(letter["taskInput"]["n"], -1);
        stage.run("deadletters redrive p").exits(1);
        let all = "deadletters redrive --all --workflow test/picky --error negative --output json";
        let all = stage.run(all).exits(0).json();
        assert_eq!(all[0]["run"], "p");
        // Where nobody else has the store open the run goes on with the next that does.
        stage.run("runs resume p --wait 5s").exits(1);
        let done = stage
            .run("deadletters redrive p --input plus.json")
            .exits(0);
        assert_eq!(done.json()["n"], 1);
        stage.run("deadletters redrive").exits(2);
        let none = stage.run("deadletters discard p").exits(2);
        assert!(none.stderr.contains("CD0226"), "{}", none.stderr);
        stage.run("run fault.yaml --id f").exits(1);
        stage.run("deadletters discard f").exits(0);
        let left = stage.run("deadletters list --output json").exits(0).json();
        assert_eq!(left, Value::Array(Vec::new()));
    });
}

#[test]
fn a_run_is_restarted_and_forked() {
    both_ways(|stage| {
        stage
            .run("run picky.yaml --input minus.json --id p")
            .exits(1);
        let again = stage.run("runs restart p --id q").exits(1);
        assert!(again.stderr.contains("run q"), "{}", again.stderr);
        let other = stage.run("runs restart p --workflow greet.yaml --output json");
        assert_eq!(other.exits(0).json()["output"]["greeting"], "hello ");
        stage
            .run("run picky.yaml --input plus.json --id ok")
            .exits(0);
        let fork = stage
            .run("runs fork ok --from /check --output json")
            .exits(0);
        let fork = fork.json();
        assert_eq!(fork["forkedFrom"]["run"], "ok");
        assert_eq!(fork["tasks"][0]["takenFrom"], "ok");
        let nowhere = stage.run("runs fork ok --from /nowhere").exits(2);
        assert!(nowhere.stderr.contains("CD0222"), "{}", nowhere.stderr);
        let fine = stage.run("runs redrive ok").exits(2);
        assert!(fine.stderr.contains("runs restart"), "{}", fine.stderr);
    });
}

#[test]
fn a_start_with_a_key_is_made_once() {
    both_ways(|stage| {
        let start = "runs start greet.yaml --key order-7 --input";
        stage.run(&format!("{start} ada.json")).exits(0);
        stage.run(&format!("{start} ada.json")).exits(0);
        let other = stage.run(&format!("{start} bob.json")).exits(2);
        assert!(other.stderr.contains("CD0223"), "{}", other.stderr);
        let fail = stage.run(&format!("{start} ada.json --on-conflict fail"));
        assert!(fail.exits(2).stderr.contains("CD0224"));
        let again = format!("{start} bob.json --on-conflict restart-if-ended");
        stage.run(&again).exits(0);
        let listed = stage.run("runs list --output json").exits(0).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2));
        stage.run(&format!("{start} ada.json --id x")).exits(2);
        stage
            .run(&format!("{start} ada.json --priority 11"))
            .exits(2);
        let space = "runs start greet.yaml --tenant a/b";
        let refused = stage.run(space).exits(2);
        assert!(refused.stderr.contains("CD0225"), "{}", refused.stderr);
    });
}

#[test]
fn every_error_is_json_with_its_code_where_json_is_asked_for() {
    both_ways(|stage| {
        stage.run("run greet.yaml --input ada.json --id a").exits(0);
        for (line, code, exit) in [
            ("runs show nobody --output json", "CD0255", 2),
            ("runs cancel nobody --output json", "CD0255", 2),
            ("runs suspend a --output json", "CD0220", 2),
            ("run nothing.yaml --output json", "CD0218", 2),
            (
                "run greet.yaml --input nothing.json --output json",
                "CD0218",
                2,
            ),
            ("runs fly --output json", "CD0218", 2),
            ("reviews retry a /t --output json", "CD0257", 2),
            ("runs list --data elsewhere --output json", "CD0217", 4),
        ] {
            let done = stage.run(line).exits(exit);
            let error: Value = serde_json::from_str(&done.stderr)
                .unwrap_or_else(|error| panic!("{line}: {error}: {}", done.stderr));
            assert_eq!(error["error"]["code"], code, "{line}: {error}");
            assert_eq!(error["error"]["exit"], exit, "{line}");
            assert!(error["error"]["message"].is_string(), "{line}");
            let plain = stage
                .run(line.trim_end_matches(" --output json"))
                .exits(exit);
            assert!(
                code == "CD0218" || plain.stderr.contains(code),
                "{line}: {}",
                plain.stderr
            );
            assert_eq!(done.stdout, "", "{line}");
        }
    });
}

#[test]
fn what_a_process_may_reach_is_not_changed_from_outside() {
    let stage = Stage::new(true);
    let refused = stage
        .run("run greet.yaml --allow-http https://example.com")
        .exits(2);
    assert!(refused.stderr.contains("CD0216"), "{}", refused.stderr);
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_acknowledged() {
    let stage = Stage::new(true);
    stage.run("run long.yaml --id l").exits(3);
    stage.run("runs suspend l --reason audit").exits(0);
    stage
        .run("run picky.yaml --input minus.json --id p")
        .exits(1);
    stage.run("runs cancel l").exits(0);
    // Dropping it kills it.
    let stage = Stage {
        serving: None,
        ..stage
    };
    assert_eq!(stage.status("l"), "cancelled");
    assert_eq!(stage.status("p"), "faulted");
    let done = stage.run("runs redrive p --input plus.json").exits(0);
    assert_eq!(done.json()["n"], 1);
}

#[test]
fn ended_runs_are_purged_by_name_and_by_what_they_are() {
    both_ways(|stage| {
        for run in ["a", "b", "c"] {
            let line = format!("run greet.yaml --input ada.json --id {run}");
            stage.run(&line).exits(0);
        }
        stage
            .run("run picky.yaml --input minus.json --id p")
            .exits(1);
        stage.run("run long.yaml --id l").exits(3);
        let left = || {
            let listed = stage.run("runs list --output json").exits(0).json();
            let runs = listed.as_array().expect("a list").iter();
            let mut runs: Vec<_> = runs.map(|run| run["run"].to_string()).collect();
            runs.sort();
            runs.join(" ")
        };
        let refused = stage.run("runs purge a l").exits(2);
        assert!(
            refused.stderr.contains("CD0220") && refused.stderr.contains("runs cancel"),
            "{}",
            refused.stderr
        );
        stage.run("runs purge a nobody").exits(2);
        stage.run("runs purge").exits(2);
        stage.run("runs purge --status completed").exits(2);
        stage
            .run("runs purge --ended-before 0s --status running")
            .exits(2);
        assert_eq!(left(), r#""a" "b" "c" "l" "p""#);
        let dry = stage.run("runs purge --ended-before 0s --dry-run --output json");
        assert_eq!(dry.exits(0).json()["wouldRemove"], 4);
        let none = stage.run("runs purge --ended-before 30d --output json");
        assert_eq!(none.exits(0).json()["removed"], 0);
        assert_eq!(left(), r#""a" "b" "c" "l" "p""#);
        let done = stage.run("runs purge a a").exits(0);
        assert_eq!(done.stdout, "1 runs removed\n");
        let done = stage.run("runs purge --ended-before 0s --status completed --output json");
        assert_eq!(done.exits(0).json()["removed"], 2);
        // One that left a dead letter goes with it.
        stage.run("deadletters show p").exits(0);
        stage.run("runs purge p").exits(0);
        stage.run("deadletters show p").exits(2);
        assert_eq!(left(), r#""l""#);
        stage.run("runs show a").exits(2);
        // Its id is free.
        stage.run("run greet.yaml --input bob.json --id a").exits(0);
    });
}
