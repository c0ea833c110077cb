//! What is told is on the disk.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;

use cofferdam::{Config, Definition, Runtime, StartOptions};
use cofferdam_store::{Fault, JournalStore, MemoryStore};
use serde_json::json;

use common::sources;

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
