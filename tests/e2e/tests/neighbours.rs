//! A connector that misbehaves in every way it can, hammered beside one that works.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cofferdam::config::Connection;
use cofferdam::{Config, Runtime, Source, Sources, Status};
use serde_json::json;
use stage::{ended, with_plugins};

/// Runs of the one that works, and of each misdeed.
const RUNS: usize = 40;
const EACH: usize = 6;
/// A misdeed and the code that it is to fail with.
const MISDEEDS: [(&str, &str); 5] = [
    ("trap", "plugin.trap"),
    ("panic", "plugin.trap"),
    ("overflow", "plugin.trap"),
    ("spin", "limit.cpu"),
    ("bomb", "limit.memory"),
];

/// Breaker and quarantine are kept from stepping in: every call is to reach the plugin.
const BAD: &str = r#"
[connections.bad]
plugin = "unruly"
on-outage = "fail"
grants = { http = ["https://example.com"], kv = true }
limits = { cpu = "100ms", memory = "16MiB", concurrency = 4 }
retry = { attempts = 1 }
breaker = { sliding-window-size = 10000, minimum-number-of-calls = 10000 }
quarantine = { strikes = 10000 }
"#;

fn config() -> Config {
    let config = Config::parse(BAD, "test", Path::new("")).unwrap();
    with_plugins(config).with_connection(Connection::new("good", "normalize"))
}

fn workflow(runtime: &Runtime, call: &str, with: &serde_json::Value) -> cofferdam::Definition {
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "tests", "name": call.replace('.', "-"), "version": "1.0.0"},
        "do": [{"act": {"call": call, "with": with}}],
    });
    let main = Source {
        origin: format!("{call}.json"),
        text: document.to_string(),
    };
    runtime
        .define(&Sources {
            main,
            others: BTreeMap::default(),
        })
        .unwrap()
}

#[tokio::test]
async fn a_plugin_that_misbehaves_costs_its_neighbour_no_call() {
    let runtime = Runtime::open(config()).await.unwrap();
    let healthy = workflow(
        &runtime,
        "good.normalize-phone",
        &json!({"phone": "030 901820", "country": "DE"}),
    );
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for round in 0..RUNS.max(EACH) {
        if round < EACH {
            for (action, code) in MISDEEDS {
                let misdeed = workflow(&runtime, &format!("bad.{action}"), &json!({}));
                bad.push((runtime.start(&misdeed, json!({})).await.unwrap(), code));
            }
        }
        good.push(runtime.start(&healthy, json!({})).await.unwrap());
    }
    for run in &good {
        let view = ended(&runtime, run).await;
        assert_eq!(view.status, Status::Completed, "{view:#?}");
        assert_eq!(view.output.unwrap()["e164"], "+4930901820");
    }
    for (run, code) in &bad {
        let view = ended(&runtime, run).await;
        let details = view.error.unwrap().cofferdam.unwrap();
        assert_eq!(details.code, *code, "{run}");
    }
    let states = runtime.connections();
    let state = |name: &str| states.iter().find(|state| state.name == name).unwrap();
    assert_eq!(
        (
            state("good").calls,
            state("good").failures,
            state("good").breaker.as_str()
        ),
        (RUNS as u64, 0, "Closed")
    );
    assert_eq!(state("bad").failures, (EACH * MISDEEDS.len()) as u64);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_call_that_never_ends_is_ended_and_the_next_one_is_served() {
    let runtime = Runtime::open(config()).await.unwrap();
    let spin = workflow(&runtime, "bad.spin", &json!({}));
    let echo = workflow(&runtime, "bad.echo", &json!({"still": "here"}));
    for _ in 0..3 {
        let run = runtime.start(&spin, json!({})).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_mins(2), runtime.wait(&run)).await;
        assert_eq!(
            ended.expect("ended by the host").unwrap().status,
            Status::Faulted
        );
        let run = runtime.start(&echo, json!({})).await.unwrap();
        assert_eq!(
            *runtime.wait(&run).await.unwrap().output.unwrap(),
            json!({"still": "here"})
        );
    }
    runtime.shutdown().await;
}
