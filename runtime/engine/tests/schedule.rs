//! Runs that nobody asks for: when they begin, and that each begins once whatever happens.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam::{Clock, CloudEvent, Config, Error, EventOptions, Runtime, ScheduleRow, Status};
use cofferdam_store::{JournalStore, KeyRange, MemoryStore, Table};
use serde_json::{Value, json};

use common::memory;

/// 2026-11-22T10:00:00Z.
const MORNING_MS: u64 = 1_795_341_600_000;
const MINUTE_MS: u64 = 60_000;

/// A folder with a workflow that has a schedule.
struct Plan {
    folder: tempfile::TempDir,
}

impl Plan {
    fn of(schedule: &str, tasks: &str) -> Self {
        let plan = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        plan.change(schedule, tasks);
        plan
    }

    fn change(&self, schedule: &str, tasks: &str) {
        let text = format!(
            "document: {{dsl: \"1.0.3\", namespace: t, name: t, version: \"1.0.0\"}}\n\
             schedule: {schedule}\ndo:\n{tasks}"
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("t.yaml")
    }

    /// A runtime for which it is so late, and that looks after the schedule.
    async fn at(&self, store: &Arc<dyn JournalStore>, now_ms: u64) -> Runtime {
        let runtime = self.idle_at(store, now_ms).await;
        runtime.run_schedules().await.unwrap();
        runtime
    }

    async fn idle_at(&self, store: &Arc<dyn JournalStore>, now_ms: u64) -> Runtime {
        let config = Config::new().with_workflow("tick", self.file(), json!({"from": "config"}));
        Runtime::builder(config)
            .store(Arc::clone(store))
            .clock(Clock::tokio(now_ms))
            .open()
            .await
            .unwrap()
    }
}

const SET: &str = "  - a: {set: {got: \"${ . }\"}}\n";

fn row(runtime: &Runtime) -> ScheduleRow {
    runtime.query().schedules().unwrap().remove(0)
}

fn runs(runtime: &Runtime) -> Vec<String> {
    let mut runs: Vec<String> = runtime
        .query()
        .runs(None, 1_000)
        .unwrap()
        .into_iter()
        .map(|row| row.run)
        .collect();
    runs.sort();
    runs
}

/// Waits until the schedule has been looked at and says what it should.
async fn until(runtime: &Runtime, holds: impl Fn(&ScheduleRow) -> bool) -> ScheduleRow {
    loop {
        let row = row(runtime);
        if holds(&row) {
            return row;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_run_begins_at_its_instant_under_an_id_made_of_it() {
    let (plan, store) = (Plan::of("{cron: \"*/5 * * * *\"}", SET), memory());
    let runtime = plan.at(&store, MORNING_MS).await;
    let expected = MORNING_MS + 5 * MINUTE_MS;
    assert_eq!(row(&runtime).next_ms, Some(expected));
    assert!(runs(&runtime).is_empty(), "not before its time");
    runtime.shutdown().await;
    let runtime = plan.at(&store, expected).await;
    until(&runtime, |row| {
        row.next_ms == Some(expected + 5 * MINUTE_MS)
    })
    .await;
    assert_eq!(runs(&runtime), ["tick.20261122T100500Z"]);
    let view = runtime.wait("tick.20261122T100500Z").await.unwrap();
    assert_eq!(view.status, Status::Completed);
    assert_eq!(view.input, json!({"from": "config"}));
    runtime.shutdown().await;
}

#[tokio::test]
async fn instants_that_were_missed_are_made_up_for_by_one_run_for_the_last() {
    for schedule in ["{cron: \"*/5 * * * *\"}", "{every: {minutes: 5}}"] {
        let (plan, store) = (Plan::of(schedule, SET), memory());
        let runtime = plan.at(&store, MORNING_MS).await;
        let first = until(&runtime, |row| row.next_ms > Some(MORNING_MS + MINUTE_MS)).await;
        let before = runs(&runtime);
        runtime.shutdown().await;
        let next_ms = first.next_ms.unwrap();
        let late = next_ms + 172 * MINUTE_MS;
        let runtime = plan.at(&store, late).await;
        let row = until(&runtime, |row| row.next_ms > Some(late)).await;
        assert_eq!(row.next_ms, Some(next_ms + 175 * MINUTE_MS), "{schedule}");
        assert_eq!(runs(&runtime).len() - before.len(), 1, "{schedule}");
        // 10:05, and 34 times five minutes.
        assert!(
            row.run.unwrap().starts_with("tick.20261122T1255"),
            "{schedule}"
        );
        runtime.shutdown().await;
    }
}

/// The process is killed after each commit in turn.
#[tokio::test]
async fn a_crash_neither_loses_nor_doubles_a_run() {
    let plan = Plan::of("{every: {minutes: 10}}", SET);
    for commits in 0..12 {
        let first = MemoryStore::new();
        let store: Arc<dyn JournalStore> = Arc::new(first.clone());
        let runtime = plan.at(&store, MORNING_MS).await;
        let begun = until(&runtime, |row| row.run.is_some()).await;
        let due_ms = begun.next_ms.unwrap();
        runtime.wait(&begun.run.unwrap()).await.unwrap();
        runtime.shutdown().await;
        first.stop_after(commits);
        let runtime = plan.idle_at(&store, due_ms).await;
        if runtime.run_schedules().await.is_ok() {
            while !first.is_stopped() && row(&runtime).next_ms == Some(due_ms) {
                tokio::task::yield_now().await;
            }
        }
        let store: Arc<dyn JournalStore> = Arc::new(first.snapshot());
        runtime.shutdown().await;
        let runtime = plan.at(&store, due_ms).await;
        let row = until(&runtime, |row| row.next_ms == Some(due_ms + 10 * MINUTE_MS)).await;
        runtime.wait(&row.run.unwrap()).await.unwrap();
        assert_eq!(runs(&runtime).len(), 2, "after {commits} commits");
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn after_counts_from_the_end_of_the_run_before() {
    let tasks = "  - l: {listen: {to: {one: {with: {type: go}}}}}\n";
    let (plan, store) = (Plan::of("{after: {minutes: 10}}", tasks), memory());
    let runtime = plan.at(&store, MORNING_MS).await;
    let first = until(&runtime, |row| row.awaits_end).await.run.unwrap();
    runtime.settle(&first).await.unwrap();
    runtime.shutdown().await;
    let later = MORNING_MS + 60 * MINUTE_MS;
    let runtime = plan.at(&store, later).await;
    assert_eq!(runs(&runtime).len(), 1, "the one before has not ended");
    runtime.publish(event(1, "go")).await.unwrap();
    runtime.wait(&first).await.unwrap();
    let row = until(&runtime, |row| !row.awaits_end).await;
    let next_ms = row.next_ms.unwrap();
    assert!((later + 10 * MINUTE_MS..later + 11 * MINUTE_MS).contains(&next_ms));
    runtime.shutdown().await;
    let runtime = plan.at(&store, next_ms).await;
    until(&runtime, |row| row.awaits_end).await;
    assert_eq!(runs(&runtime).len(), 2);
    runtime.shutdown().await;
}

fn event(id: u64, kind: &str) -> CloudEvent {
    let value = json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/test", "type": kind, "data": {"n": id},
    });
    CloudEvent::new(value).unwrap()
}

async fn inputs(runtime: &Runtime, count: usize) -> Vec<Value> {
    while runs(runtime).len() < count {
        tokio::task::yield_now().await;
    }
    let mut inputs = Vec::new();
    for run in runs(runtime) {
        inputs.push(runtime.wait(&run).await.unwrap().input);
    }
    inputs
}

#[tokio::test]
async fn each_event_begins_a_run_with_the_event_as_input() {
    let on = "{on: {one: {with: {type: go, data: \"${ .n > 1 }\"}}}}";
    let (plan, store) = (Plan::of(on, SET), memory());
    let runtime = plan.at(&store, MORNING_MS).await;
    for id in 1..=3 {
        runtime.publish(event(id, "go")).await.unwrap();
    }
    assert_eq!(
        inputs(&runtime, 2).await,
        [json!([{"n": 2}]), json!([{"n": 3}])]
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn events_are_gathered_across_restarts_until_there_are_enough() {
    let on = "{on: {all: [{with: {type: a}}, {with: {type: b}}]}, read: envelope}";
    let (plan, store) = (Plan::of(on, SET), memory());
    for (id, kind) in [(1, "a"), (2, "a"), (3, "b")] {
        let runtime = plan.at(&store, MORNING_MS).await;
        runtime.publish(event(id, kind)).await.unwrap();
        if id == 3 {
            let inputs = inputs(&runtime, 1).await;
            assert_eq!(
                (&inputs[0][0]["id"], &inputs[0][1]["id"]),
                (&json!("1"), &json!("3"))
            );
        } else {
            until(&runtime, |row| row.heard_seq == id).await;
        }
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_crash_between_an_event_and_its_run_neither_loses_nor_doubles_it() {
    let plan = Plan::of("{on: {one: {with: {type: go}}}}", SET);
    for commits in 0..10 {
        let first = MemoryStore::new();
        let store: Arc<dyn JournalStore> = Arc::new(first.clone());
        let runtime = plan.at(&store, MORNING_MS).await;
        first.stop_after(commits);
        let _ = runtime.publish(event(1, "go")).await;
        while !first.is_stopped() && row(&runtime).heard_seq == 0 {
            tokio::task::yield_now().await;
        }
        let store: Arc<dyn JournalStore> = Arc::new(first.snapshot());
        runtime.shutdown().await;
        let runtime = plan.at(&store, MORNING_MS).await;
        runtime.publish(event(1, "go")).await.unwrap();
        let inputs = inputs(&runtime, 1).await;
        until(&runtime, |row| row.heard_seq == 1).await;
        assert_eq!(
            (inputs.len(), runs(&runtime).len()),
            (1, 1),
            "after {commits} commits"
        );
        runtime.shutdown().await;
    }
}

#[tokio::test]
async fn a_paused_schedule_begins_nothing_and_catches_up_with_one_run() {
    let (plan, store) = (Plan::of("{cron: \"0 * * * *\"}", SET), memory());
    let runtime = plan.at(&store, MORNING_MS).await;
    runtime.pause_schedule("tick").await.unwrap();
    assert!(row(&runtime).paused);
    let unknown = runtime.pause_schedule("nobody").await;
    assert!(matches!(unknown, Err(Error::NoSchedule { .. })));
    runtime.shutdown().await;
    let runtime = plan.at(&store, MORNING_MS + 150 * MINUTE_MS).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(runs(&runtime).is_empty());
    runtime.resume_schedule("tick").await.unwrap();
    until(&runtime, |row| row.run.is_some()).await;
    assert_eq!(runs(&runtime), ["tick.20261122T120000Z"]);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_schedule_that_was_changed_begins_anew_and_one_that_is_gone_is_forgotten() {
    let (plan, store) = (Plan::of("{on: {one: {with: {type: go}}}}", SET), memory());
    let runtime = plan.at(&store, MORNING_MS).await;
    runtime.shutdown().await;
    plan.change("{on: {one: {with: {type: stop}}}}", SET);
    let runtime = plan.at(&store, MORNING_MS).await;
    runtime.publish(event(1, "go")).await.unwrap();
    runtime.publish(event(2, "stop")).await.unwrap();
    assert_eq!(inputs(&runtime, 1).await, [json!([{"n": 2}])]);
    runtime.shutdown().await;
    let runtime = Runtime::builder(Config::new())
        .store(Arc::clone(&store))
        .open()
        .await
        .unwrap();
    assert!(runtime.run_schedules().await.unwrap().is_empty());
    assert!(runtime.query().schedules().unwrap().is_empty());
    runtime.shutdown().await;
}

/// More letters than are read in one go; the first has a value that is stored apart.
#[tokio::test]
async fn a_schedule_that_is_forgotten_takes_its_letters_and_their_values_with_it() {
    const LETTERS: usize = 1_200;
    let (plan, store) = (Plan::of("{on: {one: {with: {type: go}}}}", SET), memory());
    // Events go as soon as they were dispatched, but for the last one.
    let events = EventOptions {
        keep_max: 1,
        ..EventOptions::default()
    };
    let open = async |config: Config| {
        let builder = Runtime::builder(config.with_events(events));
        builder.store(Arc::clone(&store)).open().await.unwrap()
    };
    let rows = |table| store.scan(table, KeyRange::all(), 9_999).unwrap().len();
    let runtime = open(Config::new().with_workflow("tick", plan.file(), json!({}))).await;
    runtime.run_schedules().await.unwrap();
    runtime.pause_schedule("tick").await.unwrap();
    let without = rows(Table::Subscription);
    let large = json!({
        "specversion": "1.0", "id": "large", "source": "/test", "type": "go", "data": "x".repeat(100_000),
    });
    runtime.publish_json(large).await.unwrap();
    for id in 1..LETTERS {
        runtime.publish(event(id as u64, "go")).await.unwrap();
    }
    // The last event: its row and its identity.
    while rows(Table::Event) > 2 || rows(Table::Subscription) < without + LETTERS {
        tokio::task::yield_now().await;
    }
    // A value, and the letter that refers to it.
    assert_eq!(rows(Table::Payload), 2);
    runtime.shutdown().await;
    let runtime = open(Config::new()).await;
    runtime.run_schedules().await.unwrap();
    assert_eq!(rows(Table::Payload), 0);
    // The form of its filter is all that stays, until the store is opened again.
    assert!(rows(Table::Subscription) < without);
    assert!(runtime.query().verify().unwrap().is_clean());
    runtime.shutdown().await;
}

#[test]
fn the_configuration_names_workflows() {
    let parse = |text: &str| Config::parse(text, "cofferdam.toml", Path::new("/etc/cofferdam"));
    let config = parse(
        "[workflows]\ndir = \"flows\"\nnightly = \"nightly.yaml\"\n\
         hourly = {file = \"h.yaml\", input = {n = 1}}\n\
         [events]\nkeep = 10\nkeep-for = \"1h\"\nlifecycle = \"task\"\n",
    );
    let config = config.unwrap();
    let named: Vec<_> = config
        .workflows()
        .iter()
        .map(|w| (w.name.as_str(), w.file.to_str().unwrap(), w.input.clone()))
        .collect();
    let expected = [
        ("nightly", "/etc/cofferdam/nightly.yaml", json!({})),
        ("hourly", "/etc/cofferdam/h.yaml", json!({"n": 1})),
    ];
    assert_eq!(named, expected);
    assert_eq!(config.events().keep_max, 10);
    for (bad, code) in [
        ("[workflows]\n\"a b\" = \"x.yaml\"\n", "CD0205"),
        ("[workflows]\na = 5\n", "CD0204"),
        ("[workflows]\na = {fil = \"x.yaml\"}\n", "CD0202"),
        ("[workflows]\na = {input = {}}\n", "CD0203"),
        ("[events]\nkeeps = 5\n", "CD0202"),
        ("[events]\nkeep = 0\n", "CD0205"),
        ("[events]\nlifecycle = \"all\"\n", "CD0205"),
    ] {
        assert_eq!(parse(bad).unwrap_err().code(), code, "{bad}");
    }
}
