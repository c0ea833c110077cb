//! What is told is on the disk.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam::{
    Call, Config, Connection, Connector, Definition, Descriptor, Durability, Effect, Failure,
    Health, Runtime, StartOptions, Status,
};
use cofferdam_store::{Fault, JournalStore, MemoryStore};
use serde_json::{Value, json};

use common::{descriptor, healthy, sources};

/// Answers at once.
struct Prompt;

#[async_trait]
impl Connector for Prompt {
    fn descriptor(&self) -> Descriptor {
        descriptor("prompt", &[("act", Effect::Once)])
    }

    async fn invoke(&self, _: Call) -> Result<Value, Failure> {
        Ok(json!(1))
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

async fn open(store: &MemoryStore) -> Runtime {
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let builder = Runtime::builder(Config::new()).store(shared);
    builder.open().await.unwrap()
}

fn define(runtime: &Runtime, tasks: &str) -> Definition {
    runtime.define(&sources(tasks)).unwrap()
}

/// A read sees what is committed next; nothing says that this survives.
fn lose_the_next_answer(store: &MemoryStore) {
    store.inject(Fault::Unacknowledged);
    store.stop_after(1);
}

#[tokio::test]
async fn a_run_whose_last_commit_failed_is_not_told_to_have_ended() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let tasks = "  - w: {wait: {milliseconds: 200}}\n  - a: {set: {x: 1}}\n";
    let definition = define(&runtime, tasks);
    let run = runtime.start(&definition, json!({})).await.unwrap();
    lose_the_next_answer(&store);
    let told = runtime.wait(&run).await;
    assert!(
        matches!(told, Err(ref error) if error.is_storage()),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_run_whose_only_commit_failed_is_not_told_to_have_ended() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let definition = define(&runtime, "  - a: {set: {x: 1}}\n");
    store.hold();
    let starting = tokio::spawn({
        let runtime = runtime.clone();
        let options = StartOptions {
            id: Some("r".to_owned()),
            ..StartOptions::default()
        };
        async move { runtime.start_with(&definition, json!({}), options).await }
    });
    while runtime.active_runs() == 0 {
        tokio::task::yield_now().await;
    }
    // It hands over its commit.
    tokio::task::yield_now().await;
    lose_the_next_answer(&store);
    store.release();
    // Its row is there, and the run is still held: its end is waited for.
    assert_eq!((store.commits(), runtime.active_runs()), (1, 1));
    let told = runtime.wait("r").await;
    assert!(
        matches!(told, Err(ref error) if error.is_storage()),
        "{told:?}"
    );
    assert!(starting.await.unwrap().is_err());
}

#[tokio::test]
async fn an_end_that_is_on_the_disk_is_told_whatever_has_become_of_the_disk() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let definition = define(&runtime, "  - a: {set: {x: 1}}\n");
    let options = || StartOptions {
        id: Some("r".to_owned()),
        ..StartOptions::default()
    };
    let start = || runtime.start_with(&definition, json!({}), options());
    start().await.unwrap();
    runtime.wait("r").await.unwrap();
    store.stop_after(0);
    let told = runtime.wait("r").await.unwrap();
    assert_eq!(told.status, Status::Completed);
    assert_eq!(start().await.unwrap(), "r");
    // What is not known to be there is not told.
    let other = runtime.start(&definition, json!({})).await;
    assert!(other.unwrap_err().is_storage());
}

/// Calls of one task of a run, all at the same time.
const TOGETHER: u64 = 12;

async fn open_prompt(store: &MemoryStore) -> Runtime {
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let config = Config::new().with_connection(Connection::new("main", "none"));
    let config = config.with_durability(Durability::EveryTask);
    let builder = Runtime::builder(config).store(shared);
    let builder = builder.connector("main", Arc::new(Prompt));
    builder.open().await.unwrap()
}

/// Does these tasks so many times at the same time, to the end.
async fn play_together(runtime: &Runtime, times: u64, tasks: &str) {
    let each = format!(
        "  - each:\n      for: {{each: n, in: \"${{ [range({times})] }}\"}}\n      metadata: {{cofferdam: {{maxConcurrency: \
         {times}}}}}\n      do:\n{tasks}  - all: {{emit: {{event: {{with: {{source: \"https://example.com\", type: all}}}}}}}}\n"
    );
    let definition = define(runtime, &each);
    let run = runtime.start(&definition, json!({})).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Completed, "{:?}", view.error);
}

fn types_of_events(runtime: &Runtime) -> Vec<String> {
    let events = runtime.query().events().unwrap();
    let kind = |event: &Value| event["type"].as_str().unwrap().to_owned();
    events.iter().map(|row| kind(&row.event)).collect()
}

#[tokio::test]
async fn what_ends_together_is_made_durable_together() {
    let store = MemoryStore::new();
    let runtime = open_prompt(&store).await;
    let before = store.commits();
    play_together(
        &runtime,
        TOGETHER,
        "        - act: {call: main.act, with: {}}\n",
    )
    .await;
    // One by one there would be an intent and an outcome of each.
    let commits = store.commits() - before;
    assert!(commits < TOGETHER, "{commits} commits");
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_follows_from_calls_that_end_together_has_its_order_and_fits_into_the_store() {
    let store = MemoryStore::new();
    let runtime = open_prompt(&store).await;
    let tasks = "        - act: {call: main.act, with: {}}\n        - parts: {for: {each: m, in: \"${ [range(700)] }\"}, do: \
                 [{part: {emit: {event: {with: {source: \"https://example.com\", type: part}}}}}]}\n";
    play_together(&runtime, TOGETHER, tasks).await;
    let types = types_of_events(&runtime);
    assert_eq!(types.len(), 700 * TOGETHER as usize + 1);
    assert_eq!(
        types.iter().position(|kind| kind == "all"),
        Some(types.len() - 1)
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_that_waits_at_once_is_written_once() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let definition = define(&runtime, "  - w: {wait: {hours: 1}}\n");
    let before = store.commits();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    runtime.settle(&run).await.unwrap();
    // That it began and waits; and who looks asks the store once.
    assert_eq!(store.commits() - before, 2);
}
