//! Runs that wait for events: what they get, in which order, and that a crash takes nothing away.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam::{CloudEvent, Config, EventOptions, Lifecycle, Runtime, StartOptions, Status};
use cofferdam_store::{Fault, JournalStore, KeyRange, MemoryStore, Options, SledStore, Table};
use serde_json::{Value, json};

use common::{LONG, Looked, memory, sources};

async fn open(store: &Arc<dyn JournalStore>) -> Runtime {
    Runtime::builder(Config::new())
        .store(Arc::clone(store))
        .open()
        .await
        .expect("the store opens")
}

fn event(id: u64, kind: &str, data: &Value) -> CloudEvent {
    let value = json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/test", "type": kind, "data": data,
    });
    CloudEvent::new(value).unwrap()
}

async fn publish(runtime: &Runtime, id: u64, kind: &str, data: Value) {
    runtime.publish(event(id, kind, &data)).await.unwrap();
}

/// Begins a run and waits until it waits.
async fn begin(runtime: &Runtime, tasks: &str, input: Value, id: &str) -> String {
    let definition = runtime.define(&sources(tasks)).unwrap();
    let options = StartOptions {
        id: Some(id.to_owned()),
        ..StartOptions::default()
    };
    let run = runtime
        .start_with(&definition, input, options)
        .await
        .unwrap();
    assert_eq!(runtime.settle(&run).await.unwrap().status, Status::Waiting);
    run
}

async fn output(runtime: &Runtime, run: &str) -> Value {
    let view = runtime.wait(run).await.unwrap();
    assert_eq!(view.status, Status::Completed, "{:?}", view.error);
    (*view.output.unwrap()).clone()
}

/// Rows of those who wait, and letters; forms of filters aside.
fn left_over(store: &dyn JournalStore) -> usize {
    let rows = store.scan(Table::Subscription, KeyRange::from([2]), 1_000);
    rows.unwrap().len()
}

/// What is left over goes with the next commit of whoever it belongs to.
async fn nothing_is_left_over(store: &dyn JournalStore) {
    while left_over(store) > 0 {
        tokio::task::yield_now().await;
    }
}

const ONE: &str = "  - l: {listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: \"${ .order }\"}}}}}}\n";

#[tokio::test]
async fn a_run_gets_its_event_and_no_other() {
    let store = memory();
    let runtime = open(&store).await;
    let run = begin(&runtime, ONE, json!({"order": 7}), "r").await;
    publish(&runtime, 1, "paid", json!({"order": 8})).await;
    publish(&runtime, 2, "sent", json!({"order": 7})).await;
    publish(&runtime, 3, "paid", json!({"order": 7, "n": 1})).await;
    assert_eq!(output(&runtime, &run).await, json!([{"order": 7, "n": 1}]));
    nothing_is_left_over(&*store).await;
    runtime.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_was_refused_is_written_later() {
    let store = MemoryStore::new();
    let is_armed = Arc::new(AtomicBool::new(false));
    let looked = Looked::new(store.clone(), {
        let is_armed = Arc::clone(&is_armed);
        move |table| {
            // Who wants the event was looked up. The letter is refused, and so is the place to go
            // on from.
            if table == Table::Subscription && is_armed.swap(false, Ordering::SeqCst) {
                store.inject(Fault::Busy);
                store.fail_get(Table::Cursor);
            }
            None
        }
    });
    let shared: Arc<dyn JournalStore> = Arc::new(looked);
    let runtime = open(&shared).await;
    // More than a page of events that nobody waits for: the place to go on from lies behind them.
    for id in 0..40 {
        publish(&runtime, id, "other", json!({})).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let run = begin(&runtime, ONE, json!({"order": 7}), "r").await;
    is_armed.store(true, Ordering::SeqCst);
    publish(&runtime, 40, "paid", json!({"order": 7})).await;
    let output = tokio::time::timeout(LONG, output(&runtime, &run)).await;
    assert_eq!(output.unwrap(), json!([{"order": 7}]));
    assert!(!is_armed.load(Ordering::SeqCst));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_that_waits_holds_no_memory() {
    let runtime = open(&memory()).await;
    begin(&runtime, ONE, json!({"order": 7}), "r").await;
    while runtime.active_runs() > 0 {
        tokio::task::yield_now().await;
    }
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_was_published_before_the_task_began_is_not_for_it() {
    let runtime = open(&memory()).await;
    publish(&runtime, 1, "paid", json!({"order": 7, "n": 1})).await;
    let run = begin(&runtime, ONE, json!({"order": 7}), "r").await;
    publish(&runtime, 2, "paid", json!({"order": 7, "n": 2})).await;
    assert_eq!(output(&runtime, &run).await[0]["n"], 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_event_of_the_run_itself_counts_from_the_task_that_listens() {
    let runtime = open(&memory()).await;
    let tasks = "  - before: {emit: {event: {with: {type: x, data: before}}}}\n  - f:\n      fork:\n        branches:\n          - l: {listen: {to: {one: {with: {type: x}}}}}\n          - e: {emit: {event: {with: {type: x, data: after}}}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    assert_eq!(output(&runtime, &run).await[0], json!(["after"]));
    runtime.shutdown().await;
}

const THREE: &str =
    "  - l: {listen: {to: {any: [{with: {type: x}}], until: \". | length == 3\"}}}\n";

#[tokio::test]
async fn events_come_in_the_order_of_their_numbers_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || -> Arc<dyn JournalStore> {
        Arc::new(SledStore::open(folder.path().join("store"), &Options::default()).unwrap())
    };
    let runtime = open(&disk()).await;
    let run = begin(&runtime, THREE, json!({}), "r").await;
    runtime.shutdown().await;
    for n in 1..=3 {
        let runtime = open(&disk()).await;
        publish(&runtime, n, "x", json!(n)).await;
        if n == 3 {
            assert_eq!(output(&runtime, &run).await, json!([1, 2, 3]));
        }
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn an_event_that_was_published_while_nobody_dispatched_is_not_lost() {
    let store = memory();
    let runtime = open(&store).await;
    let run = begin(&runtime, ONE, json!({"order": 7}), "r").await;
    runtime.shutdown().await;
    let idle = Runtime::builder(Config::new())
        .store(Arc::clone(&store))
        .idle()
        .open()
        .await
        .unwrap();
    publish(&idle, 1, "paid", json!({"order": 7})).await;
    idle.shutdown().await;
    let runtime = open(&store).await;
    assert_eq!(output(&runtime, &run).await, json!([{"order": 7}]));
    runtime.shutdown().await;
}

/// The process is killed after each commit in turn; what is found then always leads to the same end.
#[tokio::test]
async fn a_crash_at_any_commit_neither_loses_nor_doubles_an_event() {
    let mut commits = 0;
    loop {
        let first = MemoryStore::new();
        let store: Arc<dyn JournalStore> = Arc::new(first.clone());
        let runtime = open(&store).await;
        let run = begin(&runtime, THREE, json!({}), "r").await;
        first.stop_after(commits);
        for n in 1..=3 {
            // The publisher does not know whether it arrived, and tries again below.
            let _ = runtime.publish(event(n, "x", &json!(n))).await;
        }
        if !first.is_stopped() {
            let _ = runtime.wait(&run).await;
        }
        let is_whole = !first.is_stopped();
        let store: Arc<dyn JournalStore> = Arc::new(first.snapshot());
        runtime.shutdown().await;
        let runtime = open(&store).await;
        for n in 1..=3 {
            publish(&runtime, n, "x", json!(n)).await;
        }
        assert_eq!(output(&runtime, &run).await, json!([1, 2, 3]), "{commits}");
        nothing_is_left_over(&*store).await;
        runtime.shutdown().await;
        if is_whole {
            break;
        }
        commits += 1;
    }
    assert!(commits > 5, "{commits}");
}

#[tokio::test]
async fn foreach_takes_the_next_event_when_it_is_done_with_the_one_before() {
    let store = memory();
    let runtime = open(&store).await;
    let tasks = "  - l:\n      listen: {to: {any: [{with: {type: x}}], until: {one: {with: {type: stop}}}}}\n      foreach:\n        item: e\n        do:\n          - w: {wait: {milliseconds: 20}}\n          - s: {set: {got: \"${ $e.n }\"}}\n";
    let run = begin(&runtime, tasks, json!({}), "r").await;
    for n in 1..=4 {
        publish(&runtime, n, "x", json!({"n": n})).await;
    }
    publish(&runtime, 5, "stop", json!(null)).await;
    publish(&runtime, 6, "x", json!({"n": 6})).await;
    let expected: Vec<Value> = (1..=4).map(|n| json!({"got": n})).collect();
    assert_eq!(output(&runtime, &run).await, json!(expected));
    nothing_is_left_over(&*store).await;
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_task_whose_time_is_over_gives_up_what_it_asked_for() {
    let store = memory();
    let runtime = open(&store).await;
    let tasks = "  - t:\n      try:\n        - l: {listen: {to: {any: []}}, timeout: {after: {milliseconds: 30}}}\n      catch: {do: [{s: {set: {late: true}}}]}\n";
    let run = begin_any(&runtime, tasks).await;
    assert_eq!(output(&runtime, &run).await, json!({"late": true}));
    nothing_is_left_over(&*store).await;
    runtime.shutdown().await;
}

async fn begin_any(runtime: &Runtime, tasks: &str) -> String {
    let definition = runtime.define(&sources(tasks)).unwrap();
    runtime.start(&definition, json!({})).await.unwrap()
}

#[tokio::test]
async fn a_filter_that_always_fails_takes_nothing_and_breaks_nothing() {
    let runtime = open(&memory()).await;
    let closed = "  - l: {listen: {to: {one: {with: {data: \"${ error }\"}}}}}\n";
    let open_ended = "  - l: {listen: {to: {one: {with: {data: \"${ $input | error }\"}}}}}\n";
    begin(&runtime, closed, json!({}), "closed").await;
    begin(&runtime, open_ended, json!({}), "open").await;
    let good = begin(&runtime, ONE, json!({"order": 1}), "good").await;
    for id in 1..50 {
        publish(&runtime, id, "noise", json!({"order": [[id]]})).await;
    }
    publish(&runtime, 50, "paid", json!({"order": 1})).await;
    output(&runtime, &good).await;
    for run in ["closed", "open"] {
        assert_eq!(runtime.settle(run).await.unwrap().status, Status::Waiting);
    }
    runtime.shutdown().await;
}

/// A hundred runs wait for an order each; an event wakes the one that it is for.
#[tokio::test]
async fn an_event_wakes_only_those_whom_it_may_concern() {
    let counted = MemoryStore::new();
    let store: Arc<dyn JournalStore> = Arc::new(counted.clone());
    let runtime = open(&store).await;
    for order in 0..100 {
        begin(&runtime, ONE, json!({"order": order}), &format!("r{order}")).await;
    }
    while runtime.active_runs() > 0 {
        tokio::task::yield_now().await;
    }
    let before = counted.commits();
    publish(&runtime, 1, "paid", json!({"order": 42})).await;
    output(&runtime, "r42").await;
    // The event, the letter, and what the run itself writes; a run that is woken writes twice.
    let commits = counted.commits() - before;
    assert!(commits <= 8, "{commits} commits for one event");
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_can_wait_for_the_end_of_another() {
    let events = EventOptions {
        lifecycle: Lifecycle::Workflow,
        ..EventOptions::default()
    };
    let store = memory();
    let runtime = Runtime::builder(Config::new().with_events(events))
        .store(store)
        .open()
        .await
        .unwrap();
    let tasks = "  - l: {listen: {to: {one: {with: {type: io.serverlessworkflow.workflow.completed.v1, subject: other}}}}}\n";
    let run = begin(&runtime, tasks, json!({}), "r").await;
    let other = runtime.define(&sources("  - a: {set: {x: 1}}\n")).unwrap();
    let options = StartOptions {
        id: Some("other".into()),
        ..StartOptions::default()
    };
    runtime
        .start_with(&other, json!({}), options)
        .await
        .unwrap();
    assert_eq!(output(&runtime, &run).await[0]["output"], json!({"x": 1}));
    let kinds: Vec<_> = runtime
        .query()
        .events()
        .unwrap()
        .into_iter()
        .filter(|row| row.run.as_deref() == Some("r"))
        .map(|row| {
            row.event["type"]
                .as_str()
                .unwrap()
                .replace("io.serverlessworkflow.workflow.", "")
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "started.v1",
            "correlation-started.v1",
            "correlation-completed.v1",
            "completed.v1"
        ]
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_listener_that_is_withdrawn_within_one_step_was_never_one() {
    let store = memory();
    let runtime = open(&store).await;
    let race = "  - f:\n      fork:\n        compete: true\n        branches:\n          - l: {listen: {to: {one: {with: {type: paid}}}}}\n          - s: {set: {won: true}}\n  - again: {listen: {to: {one: {with: {type: sent}}}}}\n";
    let run = begin(&runtime, race, json!({}), "r").await;
    // One that waits: the second task.
    assert_eq!(left_over(&*store), 1);
    publish(&runtime, 1, "paid", json!({})).await;
    publish(&runtime, 2, "sent", json!({"n": 1})).await;
    assert_eq!(output(&runtime, &run).await, json!([{"n": 1}]));
    nothing_is_left_over(&*store).await;
    runtime.shutdown().await;
}
