//! Runs go when they ended long enough ago, and nothing of them stays; all others stay.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam::{Clock, Config, PURGE_MAX, PurgeFilter, Runtime, StartOptions, Status};
use cofferdam_store::{JournalStore, KeyRange, MemoryStore, Table};
use serde_json::json;

use common::{Looked, sources};

const HOUR: Duration = Duration::from_hours(1);

/// More records than are removed in one batch.
const LONG: &str = "  - each:\n      for: {each: n, in: \"${ [range(300)] }\"}\n      \
    do:\n        - a: {wait: {milliseconds: 1}}\n";

async fn runtime(store: &MemoryStore, hours: u64) -> Runtime {
    let builder = Runtime::builder(Config::new()).store(Arc::new(store.clone()));
    let clock = Clock::tokio(hours * HOUR.as_millis() as u64);
    builder.clock(clock).open().await.unwrap()
}

async fn start(runtime: &Runtime, id: &str, tasks: &str) {
    let definition = runtime.define(&sources(tasks)).unwrap();
    let options = StartOptions {
        id: Some(id.to_owned()),
        ..StartOptions::default()
    };
    let run = runtime.start_with(&definition, json!({}), options);
    runtime.settle(&run.await.unwrap()).await.unwrap();
}

fn kept(runtime: &Runtime) -> Vec<String> {
    let rows = runtime.query().runs(None, usize::MAX).unwrap();
    let mut names: Vec<_> = rows.into_iter().map(|row| row.run).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_run_goes_when_it_ended_long_enough_ago_with_all_that_belongs_to_it() {
    const DONE: &str = "  - a: {set: {n: 1}}\n";
    let store = MemoryStore::new();
    let first = runtime(&store, 1_000).await;
    start(&first, "done", DONE).await;
    start(&first, "long", LONG).await;
    start(&first, "waits", "  - a: {wait: {days: 900}}\n").await;
    let error = "{raise: {error: {type: \"https://example.com/e\", status: 500, title: t}}}";
    start(&first, "letter", &format!("  - a: {error}\n")).await;
    assert!(
        store.head("long").unwrap().next_seq > 250,
        "it is to take several batches"
    );
    first.shutdown().await;
    let second = runtime(&store, 1_010).await;
    start(&second, "later", DONE).await;
    assert_eq!(second.remove_ended(11 * HOUR).await.unwrap(), 0);
    assert_eq!(kept(&second).len(), 5);
    assert_eq!(second.remove_ended(9 * HOUR).await.unwrap(), 2);
    assert_eq!(kept(&second), ["later", "letter", "waits"]);
    second.shutdown().await;
    let third = runtime(&store, 1_020).await;
    assert_eq!(third.remove_ended(9 * HOUR).await.unwrap(), 1);
    assert_eq!(kept(&third), ["letter", "waits"]);
    assert_eq!(third.run("waits").unwrap().status, Status::Waiting);
    third.shutdown().await;
    assert!(store.verify().unwrap().is_clean());
    for gone in ["done", "long", "later"] {
        assert_eq!(store.head(gone).unwrap(), cofferdam_store::Head::default());
        assert!(store.journal(gone, 0, 1).unwrap().is_empty());
    }
    let index = store.scan(Table::RunByStatus, KeyRange::all(), 10).unwrap();
    assert_eq!(index.len(), 2);
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_done_by_the_next() {
    let store = MemoryStore::new();
    let first = runtime(&store, 1_000).await;
    start(&first, "long", LONG).await;
    first.shutdown().await;
    let commits = store.commits();
    let whole = store.snapshot();
    let second = runtime(&store, 1_010).await;
    second.remove_ended(HOUR).await.unwrap();
    assert!(kept(&second).is_empty());
    for after in 0..store.commits() - commits {
        let cut = whole.snapshot();
        cut.stop_after(after);
        let stopped = runtime(&cut, 1_010).await;
        let _ = stopped.remove_ended(HOUR).await;
        let left = cut.snapshot();
        let next = runtime(&left, 1_010).await;
        assert_eq!(next.remove_ended(HOUR).await.unwrap(), 1);
        assert!(left.journal("long", 0, 1).unwrap().is_empty());
        assert!(left.verify().unwrap().is_clean());
    }
}

#[tokio::test]
async fn runs_that_are_named_go_together_or_not_at_all_however_many_they_are() {
    let count = PURGE_MAX + 100;
    let store = MemoryStore::new();
    let first = runtime(&store, 1_000).await;
    let mut names = Vec::new();
    for n in 0..count {
        let id = format!("done-{n}");
        start(&first, &id, "  - a: {set: {n: 1}}\n").await;
        names.push(id);
    }
    start(&first, "waits", "  - a: {wait: {days: 900}}\n").await;
    first.shutdown().await;
    let rows_read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rows_read);
    let looked = Looked::new(store.clone(), move |table| {
        counted.fetch_add(usize::from(table == Table::Run), Ordering::SeqCst);
        None
    });
    let builder = Runtime::builder(Config::new()).store(Arc::new(looked));
    let second = builder.idle().open().await.unwrap();
    let mut filter = PurgeFilter {
        runs: [names.as_slice(), &["waits".to_owned()]].concat(),
        ..PurgeFilter::default()
    };
    let refused = second.purge(&filter, None).await.unwrap_err().to_string();
    assert!(refused.contains("CD0220"), "{refused}");
    assert_eq!(kept(&second).len(), count + 1);
    filter.runs = names.clone();
    filter.dry_run = true;
    assert_eq!(second.purge(&filter, None).await.unwrap().runs, names);
    filter.dry_run = false;
    rows_read.store(0, Ordering::SeqCst);
    let purged = second.purge(&filter, None).await.unwrap();
    assert_eq!((purged.runs, purged.next), (names, None));
    assert_eq!(
        rows_read.load(Ordering::SeqCst),
        count,
        "each is looked at once"
    );
    assert_eq!(kept(&second), ["waits"]);
    assert!(store.verify().unwrap().is_clean());
    second.shutdown().await;
}
