//! Which runs are in memory, and whose turn is next.

#![allow(clippy::unwrap_used, reason = "a test whose stage cannot be set fails")]

mod common;

use std::path::Path;
use std::sync::Arc;

use cofferdam::config::Admission;
use cofferdam::{Config, Definition, Runtime, StartOptions, Status};
use cofferdam_store::{JournalStore, KeyRange, Table};
use serde_json::json;

use common::{memory, sources};

/// Publishes who it is when its turn comes, and is in memory until it is told to end.
const HOLD: &str = "  - tell: {emit: {event: {with: {source: \"https://example.com/t\", type: com.example.turn, data: {who: \"${ .who }\"}}}}}\n  - w: {wait: {hours: 1}}\n";
/// The same, and in memory until it is cancelled: its next instant is always near.
const BUSY: &str = "  - tell: {emit: {event: {with: {source: \"https://example.com/t\", type: com.example.turn, data: {who: \"${ .who }\"}}}}}\n  - loop: {for: {in: \"${ [range(100000)] }\"}, do: [{w: {wait: {milliseconds: 900}}}]}\n";

fn config(text: &str) -> Config {
    Config::parse(text, "test.toml", Path::new("")).unwrap()
}

async fn open(store: &Arc<dyn JournalStore>, text: &str) -> Runtime {
    Runtime::builder(config(text))
        .store(Arc::clone(store))
        .open()
        .await
        .unwrap()
}

fn define(runtime: &Runtime, tasks: &str) -> Definition {
    runtime.define(&sources(tasks)).unwrap()
}

async fn start(runtime: &Runtime, tasks: &str, id: &str, options: StartOptions) {
    let definition = define(runtime, tasks);
    let options = StartOptions {
        id: Some(id.to_owned()),
        ..options
    };
    let input = json!({"who": id});
    runtime
        .start_with(&definition, input, options)
        .await
        .unwrap();
}

fn of(tenant: &str) -> StartOptions {
    StartOptions {
        tenant: tenant.to_owned(),
        ..StartOptions::default()
    }
}

fn keyed(key: &str) -> StartOptions {
    StartOptions {
        concurrency_key: Some(key.to_owned()),
        ..StartOptions::default()
    }
}

fn status(runtime: &Runtime, run: &str) -> Status {
    let runs = runtime.query().runs(None, usize::MAX).unwrap();
    runs.into_iter().find(|row| row.run == run).unwrap().status
}

/// Who had a turn, in order.
fn turns(runtime: &Runtime) -> Vec<String> {
    let events = runtime.query().events().unwrap();
    events.iter().filter_map(|row| row.run.clone()).collect()
}

/// Until so many have had a turn.
async fn turned(runtime: &Runtime, count: usize) -> Vec<String> {
    loop {
        let turns = turns(runtime);
        if turns.len() >= count {
            return turns;
        }
        tokio::task::yield_now().await;
    }
}

async fn cancel(runtime: &Runtime, run: &str) {
    runtime.cancel(run, None, false).await.unwrap();
    runtime.wait(run).await.unwrap();
}

fn queue_rows(store: &Arc<dyn JournalStore>) -> usize {
    store.scan(Table::Queue, KeyRange::all(), 99).unwrap().len()
}

#[tokio::test]
async fn no_more_runs_are_in_memory_than_the_configuration_allows() {
    let store = memory();
    let text = "[limits]\nruns-active-max = 2\n";
    let runtime = open(&store, text).await;
    for n in 0..6 {
        start(&runtime, BUSY, &format!("r{n}"), StartOptions::default()).await;
    }
    assert_eq!(turned(&runtime, 2).await, ["r0", "r1"]);
    assert_eq!(status(&runtime, "r5"), Status::Queued);
    cancel(&runtime, "r0").await;
    assert_eq!(turned(&runtime, 3).await.last().unwrap(), "r2");
    runtime.shutdown().await;
    // Those that had their turn are taken up again; the others still wait.
    let runtime = open(&store, text).await;
    assert!(runtime.active_runs() <= 2);
    assert_eq!(turns(&runtime).len(), 3);
    assert_eq!(status(&runtime, "r3"), Status::Queued);
    cancel(&runtime, "r1").await;
    assert_eq!(turned(&runtime, 4).await.last().unwrap(), "r3");
    for run in ["r2", "r3", "r4", "r5"] {
        cancel(&runtime, run).await;
    }
    assert_eq!(queue_rows(&store), 0);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_that_waits_leaves_its_place_to_the_next() {
    let runtime = open(&memory(), "[limits]\nruns-active-max = 1\n").await;
    for n in 0..4 {
        start(&runtime, HOLD, &format!("r{n}"), StartOptions::default()).await;
    }
    assert_eq!(turned(&runtime, 4).await, ["r0", "r1", "r2", "r3"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn within_a_tenant_the_higher_priority_goes_first_and_then_who_came_first() {
    let runtime = open(&memory(), "[limits]\nruns-active-max = 1\n").await;
    start(&runtime, BUSY, "first", StartOptions::default()).await;
    turned(&runtime, 1).await;
    for (run, priority) in [("low", 1), ("usual", 5), ("high", 9), ("later", 5)] {
        let options = StartOptions {
            priority: Some(priority),
            ..StartOptions::default()
        };
        start(&runtime, HOLD, run, options).await;
    }
    cancel(&runtime, "first").await;
    let turns = turned(&runtime, 5).await;
    assert_eq!(turns[1..3], ["high", "usual"]);
    assert_eq!(turns[4], "low");
    runtime.shutdown().await;
}

#[tokio::test]
async fn tenants_have_turns_by_their_weight_however_many_runs_one_has_waiting() {
    let text = "[limits]\nruns-active-max = 1\n[tenants.large]\nweight = 2\n";
    let runtime = open(&memory(), text).await;
    start(&runtime, BUSY, "first", StartOptions::default()).await;
    turned(&runtime, 1).await;
    for n in 0..9 {
        start(&runtime, HOLD, &format!("large-{n}"), of("large")).await;
    }
    for n in 0..3 {
        start(&runtime, HOLD, &format!("small-{n}"), of("small")).await;
    }
    cancel(&runtime, "first").await;
    let turns = turned(&runtime, 13).await;
    // Two to one while both wait.
    let small = turns[1..10].iter().filter(|run| run.starts_with("small"));
    assert_eq!(small.count(), 3, "{turns:?}");
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_tenant_has_no_more_runs_in_memory_than_it_may() {
    let runtime = open(&memory(), "[tenants.acme]\nruns-max = 1\n").await;
    for run in ["a1", "a2"] {
        start(&runtime, BUSY, run, of("acme")).await;
    }
    start(&runtime, BUSY, "other", of("other")).await;
    let mut turns = turned(&runtime, 2).await;
    turns.sort();
    assert_eq!(turns, ["a1", "other"]);
    assert_eq!(status(&runtime, "a2"), Status::Queued);
    cancel(&runtime, "a1").await;
    assert_eq!(turned(&runtime, 3).await[2], "a2");
    runtime.shutdown().await;
}

#[tokio::test]
async fn runs_with_one_concurrency_key_go_one_after_another_also_over_a_restart() {
    let store = memory();
    let text = "[workflows.concurrency]\npairs = 2\n";
    let runtime = open(&store, text).await;
    for run in ["k1", "k2", "k3"] {
        start(&runtime, HOLD, run, keyed("account-7")).await;
    }
    for run in ["p1", "p2", "p3"] {
        start(&runtime, HOLD, run, keyed("pairs")).await;
    }
    let mut turns = turned(&runtime, 3).await;
    turns.sort();
    assert_eq!(turns, ["k1", "p1", "p2"]);
    runtime.shutdown().await;
    let runtime = open(&store, text).await;
    assert_eq!(status(&runtime, "k2"), Status::Queued);
    // Who waits for the key can be cancelled; who holds it keeps it while it waits itself.
    cancel(&runtime, "k2").await;
    cancel(&runtime, "k1").await;
    assert_eq!(turned(&runtime, 4).await[3], "k3");
    for run in ["k3", "p1", "p2", "p3"] {
        cancel(&runtime, run).await;
    }
    assert_eq!(queue_rows(&store), 0);
    runtime.shutdown().await;
}

#[test]
fn what_cannot_be_a_limit_is_refused_with_its_place() {
    for (text, says) in [
        ("[limits]\nruns-active-max = 0\n", "limits.runs-active-max"),
        (
            "[limits]\nruns-active-max = \"many\"\n",
            "limits.runs-active-max",
        ),
        ("[tenants.acme]\nwieght = 2\n", "weight"),
        ("[tenants.acme]\nweight = 0\n", "tenants.acme.weight"),
        ("[tenants.acme]\nruns-max = 0\n", "tenants.acme.runs-max"),
        ("[tenants.\"a b\"]\nweight = 1\n", "a b"),
        ("[tenants]\nacme = 2\n", "tenants.acme"),
        (
            "[workflows.concurrency]\nx = 0\n",
            "workflows.concurrency.x",
        ),
        (
            "[connections.c]\nplugin = \"p\"\nlimits.runs-active-max = 2\n",
            "runs-active-max",
        ),
    ] {
        let error = Config::parse(text, "test.toml", Path::new("")).unwrap_err();
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    let limits = config("[workflows.concurrency]\ndefault = 3\n");
    let expected = Admission {
        key_default: 3,
        ..Admission::default()
    };
    assert_eq!(*limits.admission(), expected);
}
