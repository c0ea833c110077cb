//! The drills of `cofferdam chaos`, short: what they hold the runtime to is kept, and they can see
//! a promise broken. What depends on the machine's speed is left to those who drill.

mod stage;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Promises that do not depend on how busy the machine is.
const TIMELESS: [&str; 9] = [
    "nothing-lost",
    "nothing-twice",
    "nothing-half-done",
    "breaker-opens",
    "drains",
    "within-limits",
    "memory-bounded",
    "refused",
    "understood",
];

const CONFIG: &str = include_str!("../../../examples/lead-intake/cofferdam.toml");

struct Drilled {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn drill(dir: &Path, arguments: &[&str]) -> Drilled {
    let standins = std::env::var_os("COFFERDAM_STANDINS");
    let mut command = Command::new(stage::cofferdam());
    command
        .arg("chaos")
        .args(arguments)
        .args(["--output", "json"])
        .current_dir(dir)
        .env("COFFERDAM_PLUGINS", stage::plugins())
        .envs(standins.map(|program| ("COFFERDAM_STANDINS", program)));
    let output = command.output().expect("the program starts");
    Drilled {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drilled {
    fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("not JSON: {error}\n{}\n{}", self.stdout, self.stderr);
        })
    }

    /// One promise, if it is one of this drill's.
    fn promise(&self, name: &str) -> Option<Value> {
        let report = self.report();
        let promises = report["promises"].as_array().expect("promises");
        promises.iter().find(|p| p["name"] == name).cloned()
    }

    /// The promises that were broken, of those that do not depend on the machine's speed.
    fn broken(&self) -> Vec<String> {
        let report = self.report();
        let promises = report["promises"].as_array().expect("promises");
        assert!(promises.len() > 3, "{report:#}");
        promises
            .iter()
            .filter(|promise| TIMELESS.contains(&promise["name"].as_str().unwrap_or_default()))
            .filter(|promise| promise["kept"] != true)
            .map(ToString::to_string)
            .collect()
    }
}

fn keeps(arguments: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let drilled = drill(dir.path(), arguments);
    assert_eq!(drilled.broken(), [""; 0], "{}", drilled.stderr);
}

#[test]
fn an_outage_loses_nothing() {
    keeps(&["outage", "--lasts", "2s", "--leads", "20"]);
}

#[test]
fn a_load_ten_times_the_usual_loses_nothing() {
    keeps(&["saturation", "--leads", "150"]);
}

#[test]
fn what_a_connection_has_no_room_for_is_turned_away_and_not_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    // So little that two leads at once are too many, however slow the machine is.
    let narrow = "limits = { concurrency = 1 }\nbulkhead = { queue = 0 }";
    let config = CONFIG.replace("limits = { concurrency = 8 }", narrow);
    assert_ne!(config, CONFIG);
    std::fs::write(dir.path().join("narrow.toml"), config).expect("written");
    let arguments = ["saturation", "--leads", "100", "--config", "narrow.toml"];
    let drilled = drill(dir.path(), &arguments);
    assert_eq!(drilled.broken(), [""; 0], "{}", drilled.stderr);
    let sheds = drilled.promise("sheds").expect("there is little room");
    assert_eq!(sheds["kept"], true, "{sheds}");
}

#[test]
fn corrupt_data_does_no_harm() {
    keeps(&["corruption", "--lasts", "2s", "--leads", "40"]);
}

#[test]
fn a_connector_that_is_late_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    // Calls and probes end sooner, so that the drill does.
    let config = CONFIG.replace("start-to-close = \"5s\"", "start-to-close = \"500ms\"");
    assert_ne!(config, CONFIG);
    let config = config.replace(
        "limits = { concurrency = 8 }",
        "limits = { concurrency = 8, timeout = \"1s\" }",
    );
    std::fs::write(dir.path().join("mine.toml"), config).expect("written");
    let arguments = [
        "timeout",
        "--lasts",
        "2s",
        "--leads",
        "20",
        "--config",
        "mine.toml",
    ];
    let drilled = drill(dir.path(), &arguments);
    assert_eq!(drilled.broken(), [""; 0], "{}", drilled.stderr);
}

#[test]
fn a_promise_that_the_policies_do_not_keep_is_seen_broken() {
    let dir = tempfile::tempdir().expect("a folder");
    let brittle = include_str!("../../../examples/lead-intake/brittle.toml");
    std::fs::write(dir.path().join("brittle.toml"), brittle).expect("written");
    let arguments = [
        "outage",
        "--lasts",
        "2s",
        "--leads",
        "20",
        "--config",
        "brittle.toml",
    ];
    let drilled = drill(dir.path(), &arguments);
    let broken = drilled.broken().join(" ");
    assert!(broken.contains("breaker-opens"), "{broken}");
    assert_eq!(drilled.code, Some(1));
}

#[test]
fn a_configuration_without_the_examples_connections_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("other.toml"),
        "[plugins]\nallow-unsigned = true\n",
    )
    .expect("written");
    let drilled = drill(dir.path(), &["outage", "--config", "other.toml"]);
    assert_eq!(drilled.code, Some(2), "{}", drilled.stderr);
    assert!(
        drilled.stderr.contains("no connection normalize, score")
            && drilled.stderr.contains("examples/lead-intake"),
        "{}",
        drilled.stderr
    );
}
