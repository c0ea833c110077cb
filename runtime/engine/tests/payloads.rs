//! Large values are stored once, for as long as somebody refers to them.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cofferdam::{
    CloudEvent, Config, Error, EventOptions, PAYLOAD_BYTES_MAX, PurgeFilter, Query, Runtime,
    Source, StartOptions, Status,
};
use cofferdam_store::{Batch, JournalStore, KeyRange, MemoryStore, Options, SledStore, Table};
use proptest::prelude::*;
use serde_json::{Value, json};

use common::sources;

const LISTENS: &str = "  - l: {listen: {to: {one: {with: {type: t}}}}}\n";
const DONE: &str = "  - a: {set: {n: 1}}\n";
const WAITS: &str = "  - a: {wait: {days: 9}}\n";
const FAULTS: &str =
    "  - a: {raise: {error: {type: \"https://example.com/e\", status: 500, title: t}}}\n";

async fn open(store: &MemoryStore) -> Runtime {
    let builder = Runtime::builder(Config::new()).store(Arc::new(store.clone()));
    builder.open().await.unwrap()
}

/// A value of about so many bytes, different for each seed.
fn large(seed: u64, len: usize) -> Value {
    json!({"seed": seed, "text": format!("large-{seed}-").repeat(len / 9 + 1)})
}

fn options(id: &str) -> StartOptions {
    StartOptions {
        id: Some(id.to_owned()),
        ..StartOptions::default()
    }
}

async fn start(runtime: &Runtime, id: &str, tasks: &str, input: Value) {
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start_with(&definition, input, options(id)).await;
    runtime.settle(&run.unwrap()).await.unwrap();
}

async fn purge(runtime: &Runtime, runs: &[&str]) -> usize {
    let filter = PurgeFilter {
        runs: runs.iter().map(|run| (*run).to_owned()).collect(),
        ..PurgeFilter::default()
    };
    runtime.purge(&filter, None).await.unwrap().runs.len()
}

fn rows(store: &dyn JournalStore, prefix: &str) -> usize {
    let range = KeyRange::prefix(prefix);
    store.scan(Table::Payload, range, usize::MAX).unwrap().len()
}

fn payloads(store: &dyn JournalStore) -> usize {
    rows(store, "p")
}

/// Whether every payload and every reference is in order.
#[track_caller]
fn is_in_order(store: &dyn JournalStore) {
    let report = Query::new(store).verify().unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
}

/// How often a text is in the store.
fn occurrences(store: &MemoryStore, text: &str) -> (usize, usize) {
    let (mut rows, mut bytes) = (0, 0);
    let mut visit = |entry: cofferdam_store::Entry<'_>| {
        if let cofferdam_store::Entry::Row { value, .. } = entry {
            bytes += value.len();
            rows += usize::from(String::from_utf8_lossy(value).contains(text));
        }
        Ok(())
    };
    store.read_all(&mut visit).unwrap();
    (rows, bytes)
}

#[tokio::test]
async fn an_event_that_fifty_listeners_hear_is_stored_once_and_until_the_last_of_them_goes() {
    const LISTENERS: usize = 50;
    let store = MemoryStore::new();
    // The event itself is let go of as soon as the next one is there.
    let events = EventOptions {
        keep_max: 1,
        ..EventOptions::default()
    };
    let config = Config::new().with_events(events);
    let builder = Runtime::builder(config).store(Arc::new(store.clone()));
    let runtime = builder.open().await.unwrap();
    let names: Vec<_> = (0..LISTENERS).map(|n| format!("run-{n}")).collect();
    for name in &names {
        start(&runtime, name, LISTENS, json!({})).await;
    }
    let text = "wide".repeat(25_000);
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": text});
    runtime.publish_json(event).await.unwrap();
    for name in &names {
        let view = runtime.wait(name).await.unwrap();
        assert_eq!(view.status, Status::Completed);
        assert_eq!(view.output.unwrap()[0], json!(text));
    }
    let (rows, bytes) = occurrences(&store, &text);
    println!(
        "{LISTENERS} listeners of one event of 100 kB: {rows} row(s) with it, {bytes} bytes in the store"
    );
    assert_eq!((rows, payloads(&store)), (1, 1));
    assert!(bytes < 2 * text.len(), "{bytes}");
    is_in_order(&store);
    runtime.shutdown().await;
    // It is read back by a process that has only the store.
    let later = open(&store).await;
    assert_eq!(later.run("run-7").unwrap().output.unwrap()[0], json!(text));
    let (last, others) = names.split_last().unwrap();
    for name in others {
        assert_eq!(purge(&later, &[name]).await, 1);
        assert_eq!(payloads(&store), 1);
    }
    is_in_order(&store);
    assert_eq!(later.run(last).unwrap().output.unwrap()[0], json!(text));
    purge(&later, &[last]).await;
    // The event's own row is the last that refers to it.
    assert_eq!(self::rows(&store, "r"), 1);
    later.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_let_go_of_leaves_no_payload() {
    let store = MemoryStore::new();
    let events = EventOptions {
        keep_max: 1,
        ..EventOptions::default()
    };
    let builder = Runtime::builder(Config::new().with_events(events));
    let runtime = builder.store(Arc::new(store.clone())).open().await.unwrap();
    let publish = async |id: u64, data: Value| {
        let event = json!({"specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "t", "data": data});
        let event = CloudEvent::new(event).unwrap();
        runtime.publish(event).await.unwrap();
    };
    publish(1, large(1, 100_000)).await;
    assert_eq!(payloads(&store), 1);
    let events = runtime.query().events().unwrap();
    assert_eq!(events[0].event["data"], large(1, 100_000));
    for id in 2..4 {
        publish(id, json!(id)).await;
    }
    while payloads(&store) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&store, ""), 0);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_large_input_is_shared_by_all_that_came_of_it() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let input = large(1, 1 << 20);
    start(&runtime, "first", FAULTS, input.clone()).await;
    start(&runtime, "same", DONE, input.clone()).await;
    let again = runtime.restart("first", None, Some("again".into())).await;
    runtime.settle(&again.unwrap()).await.unwrap();
    let forked = runtime.fork("first", "/a", Some("forked".into())).await;
    runtime.settle(&forked.unwrap()).await.unwrap();
    runtime.redrive("first", None).await.unwrap();
    runtime.settle("first").await.unwrap();
    // Journals of four runs, and three dead letters.
    let letter = runtime.query().dead_letter("first").unwrap();
    assert_eq!(letter.input, input);
    let (rows, bytes) = occurrences(&store, "large-1-large-1-");
    assert_eq!((rows, payloads(&store)), (1, 1));
    assert!(bytes < 2 << 20, "{bytes}");
    is_in_order(&store);
    assert_eq!(purge(&runtime, &["first", "same", "forked"]).await, 3);
    is_in_order(&store);
    assert_eq!(runtime.query().dead_letter("again").unwrap().input, input);
    assert_eq!(purge(&runtime, &["again"]).await, 1);
    assert_eq!(self::rows(&store, ""), 0);
    assert!(runtime.query().dead_letters().unwrap().is_empty());
    runtime.shutdown().await;
    assert!(
        store
            .scan(Table::Run, KeyRange::all(), 9)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn what_another_run_is_asked_for_waits_apart_from_its_row() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let child = "document: {dsl: \"1.0.3\", namespace: t, name: child, version: \"1.0.0\"}\ndo:\n  - a: {set: \"${ {seed} }\"}\n";
    let mut sources = sources(
        "  - b: {run: {workflow: {namespace: t, name: child, version: \"1.0.0\", input: \"${ . }\"}, await: false}}\n",
    );
    let child = Source {
        origin: "child.yaml".into(),
        text: child.into(),
    };
    sources.others.insert("t/child:1.0.0".into(), child);
    let definition = runtime.define(&sources).unwrap();
    // The child's row is there, and nobody has begun it.
    let cut = {
        let input = large(3, 200_000);
        let run = runtime.start_with(&definition, input, options("p")).await;
        runtime.wait(&run.unwrap()).await.unwrap();
        let rows = runtime.query().runs(None, 9).unwrap();
        let child = rows.iter().find(|row| row.run != "p").unwrap().run.clone();
        let done = runtime.wait(&child).await.unwrap();
        assert_eq!(*done.output.unwrap(), json!({"seed": 3}));
        child
    };
    assert_eq!(payloads(&store), 1);
    is_in_order(&store);
    assert_eq!(purge(&runtime, &["p"]).await, 1);
    assert_eq!(payloads(&store), 1);
    assert_eq!(purge(&runtime, &[&cut]).await, 1);
    assert_eq!(rows(&store, ""), 0);
    runtime.shutdown().await;
}

#[tokio::test]
async fn at_every_crash_payloads_and_references_are_in_order() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    start(&runtime, "a", FAULTS, large(1, 60_000)).await;
    start(&runtime, "b", DONE, large(1, 60_000)).await;
    runtime.shutdown().await;
    let whole = store.snapshot();
    let mut after = 0;
    loop {
        let cut = whole.snapshot();
        cut.stop_after(after);
        let runtime = open(&cut).await;
        let definition = runtime.define(&sources(WAITS)).unwrap();
        let _ = runtime
            .start_with(&definition, large(2, 60_000), options("c"))
            .await;
        let filter = PurgeFilter::default();
        let _ = runtime.purge(&filter, None).await;
        let _ = runtime.purge(&filter, Some("completed b")).await;
        let was_cut = cut.is_stopped();
        let left = cut.snapshot();
        is_in_order(&left);
        let next = open(&left).await;
        let ended = |status| PurgeFilter {
            status: Some(status),
            ..PurgeFilter::default()
        };
        for status in [Status::Faulted, Status::Completed] {
            next.purge(&ended(status), None).await.unwrap();
        }
        is_in_order(&left);
        let begun = next.run("c").map(|view| view.status);
        let expected = usize::from(begun.is_ok());
        assert_eq!(payloads(&left), expected, "after {after} commits");
        if !was_cut {
            break;
        }
        after += 1;
    }
    assert!(after > 3, "{after}");
}

#[tokio::test]
async fn a_journal_from_before_there_were_payloads_is_read() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let input = large(1, 100_000);
    start(&runtime, "r", DONE, input.clone()).await;
    runtime.shutdown().await;
    // What the record would have been: everything in it.
    let old = MemoryStore::new();
    for table in [Table::Run, Table::Definition, Table::RunByStatus] {
        for (key, value) in store.scan(table, KeyRange::all(), 9).unwrap() {
            old.commit(Batch::new().put(table, key, value))
                .wait()
                .unwrap();
        }
    }
    let mut batch = Batch::new().claim("r", 1);
    for (seq, record) in store.journal("r", 0, 99).unwrap() {
        let mut record: Value = serde_json::from_slice(&record).unwrap();
        if record["payloads"].is_object() {
            record = record["row"].take();
            record["event"]["input"] = input.clone();
        }
        batch = batch.append("r", seq, record.to_string());
    }
    old.commit(batch).wait().unwrap();
    assert_eq!(payloads(&old), 0);
    let runtime = open(&old).await;
    assert_eq!(*runtime.run("r").unwrap().output.unwrap(), json!({"n": 1}));
    let again = runtime.restart("r", None, Some("s".into())).await.unwrap();
    runtime.settle(&again).await.unwrap();
    assert_eq!(payloads(&old), 1);
    assert_eq!(purge(&runtime, &["r", "s"]).await, 2);
    assert_eq!(rows(&old, ""), 0);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_payload_that_is_missing_or_damaged_is_named_with_run_and_record() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    start(&runtime, "r", DONE, large(1, 100_000)).await;
    start(&runtime, "fine", DONE, large(2, 1_000)).await;
    let (key, _) = store
        .scan(Table::Payload, KeyRange::prefix("p"), 1)
        .unwrap()
        .remove(0);
    let named = String::from_utf8(key[1..].to_vec()).unwrap();
    for (damage, says) in [
        (
            Batch::new().put(Table::Payload, key.clone(), "1"),
            "whose content has hash",
        ),
        (
            Batch::new().delete(Table::Payload, key.clone()),
            "which is not in the store",
        ),
    ] {
        store.commit(damage).wait().unwrap();
        let error = runtime.run("r").unwrap_err();
        assert!(matches!(error, Error::Payload { .. }) && error.is_storage());
        let error = error.to_string();
        for part in ["CD0240", "r, record 0", &named, says] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!runtime.query().verify().unwrap().is_clean());
    }
    assert_eq!(runtime.run("fine").unwrap().status, Status::Completed);
    runtime.shutdown().await;
}

#[tokio::test]
async fn verify_reports_each_thing_that_is_not_in_order() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    start(&runtime, "r", DONE, large(1, 100_000)).await;
    runtime.shutdown().await;
    is_in_order(&store);
    let key = |prefix: &str| {
        let rows = store.scan(Table::Payload, KeyRange::prefix(prefix), 1);
        rows.unwrap().remove(0).0
    };
    for (damage, says) in [
        (
            Batch::new().put(Table::Payload, key("p"), "1"),
            "whose content has hash",
        ),
        (
            Batch::new().delete(Table::Payload, key("p")),
            "refers to a payload that is not there",
        ),
        (
            Batch::new().delete(Table::Payload, key("r")),
            "nothing refers to",
        ),
        (
            Batch::new().delete(Table::Payload, key("o")),
            "of what is not there",
        ),
        (Batch::new().delete(Table::Run, "r"), "of what is not there"),
        (
            Batch::new().put(Table::Payload, "x", ""),
            "neither a payload nor a reference",
        ),
    ] {
        let damaged = store.snapshot();
        damaged.commit(damage).wait().unwrap();
        let problems = Query::new(&damaged).verify().unwrap().problems;
        assert!(
            problems.iter().any(|p| p.what.contains(says)),
            "{says}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn values_up_to_the_bound_stay_where_they_are() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    // Quotes and all.
    let text = |len: usize| json!("x".repeat(len - 2));
    start(&runtime, "at", DONE, text(PAYLOAD_BYTES_MAX)).await;
    assert_eq!(rows(&store, ""), 0);
    start(&runtime, "over", DONE, text(PAYLOAD_BYTES_MAX + 1)).await;
    assert_eq!(payloads(&store), 1);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_purge_that_breaks_off_names_what_is_gone_and_what_is_still_there() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    for name in &names {
        start(&runtime, name, DONE, json!({})).await;
    }
    store.stop_after(2);
    let filter = PurgeFilter {
        runs: names.clone(),
        ..PurgeFilter::default()
    };
    let error = runtime.purge(&filter, None).await.unwrap_err();
    assert!(error.is_storage(), "{error}");
    assert!(
        error.to_string().contains("2 of 4 runs were removed"),
        "{error}"
    );
    let told = json!({"removed": ["a", "b"], "kept": ["c", "d"]});
    assert_eq!(error.details(), Some(told));
    let there = runtime.query().runs(None, 9).unwrap();
    let there: HashSet<&str> = there.iter().map(|row| row.run.as_str()).collect();
    assert_eq!(there, HashSet::from(["c", "d"]));
}

#[tokio::test]
async fn a_run_that_has_not_ended_is_not_purged_and_neither_are_its_neighbours() {
    let store = MemoryStore::new();
    let runtime = open(&store).await;
    start(&runtime, "done", DONE, json!({})).await;
    start(&runtime, "waits", WAITS, json!({})).await;
    for (names, code) in [
        (["done", "waits"], "CD0220"),
        (["done", "nobody"], "CD0255"),
    ] {
        let filter = PurgeFilter {
            runs: names.map(str::to_owned).to_vec(),
            ..PurgeFilter::default()
        };
        let error = runtime.purge(&filter, None).await.unwrap_err().to_string();
        assert!(error.contains(code), "{error}");
    }
    let dry = PurgeFilter {
        dry_run: true,
        ..PurgeFilter::default()
    };
    assert_eq!(runtime.purge(&dry, None).await.unwrap().runs, ["done"]);
    assert_eq!(runtime.query().runs(None, 9).unwrap().len(), 2);
    let young = PurgeFilter {
        ended_before_ms: Some(3_600_000),
        ..PurgeFilter::default()
    };
    assert!(runtime.purge(&young, None).await.unwrap().runs.is_empty());
    let other = PurgeFilter {
        tenant: Some("acme".into()),
        ..PurgeFilter::default()
    };
    assert!(runtime.purge(&other, None).await.unwrap().runs.is_empty());
    runtime.cancel("waits", None, false).await.unwrap();
    runtime.wait("waits").await.unwrap();
    let (mut after, mut gone) = (None, Vec::new());
    loop {
        let page = runtime
            .purge(&PurgeFilter::default(), after.as_deref())
            .await
            .unwrap();
        gone.extend(page.runs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    gone.sort();
    assert_eq!(gone, ["done", "waits"]);
    runtime.shutdown().await;
    for table in Table::ALL
        .into_iter()
        .filter(|table| *table != Table::Definition)
    {
        assert!(
            store.scan(table, KeyRange::all(), 1).unwrap().is_empty(),
            "{table}"
        );
    }
    assert!(store.verify().unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_that_begin_while_others_are_purged_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn JournalStore> =
        Arc::new(SledStore::open(dir.path(), &Options::default()).unwrap());
    let builder = Runtime::builder(Config::new()).store(Arc::clone(&store));
    let runtime = builder.open().await.unwrap();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let runtime = runtime.clone();
        workers.spawn(async move {
            for n in 0..12 {
                // All use the same few values, and purge what they use at once.
                let (id, input) = (format!("run-{worker}-{n}"), large(n % 2, 40_000));
                start(&runtime, &id, FAULTS, input.clone()).await;
                assert_eq!(runtime.query().dead_letter(&id).unwrap().input, input);
                runtime.run(&id).unwrap();
                assert_eq!(purge(&runtime, &[&id]).await, 1);
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    runtime.shutdown().await;
    is_in_order(&*store);
    assert_eq!(rows(&*store, ""), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Start { run: usize, seed: u64, tasks: usize },
    Purge { run: usize },
    Restart { run: usize, to: usize },
    Redrive { run: usize },
    Crash { after: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let run = 0..6_usize;
    prop_oneof![
        6 => (run.clone(), 0..3_u64, 0..3_usize).prop_map(|(run, seed, tasks)| Step::Start { run, seed, tasks }),
        4 => run.clone().prop_map(|run| Step::Purge { run }),
        2 => (run.clone(), run.clone()).prop_map(|(run, to)| Step::Restart { run, to }),
        1 => run.prop_map(|run| Step::Redrive { run }),
        2 => (0..4_u64).prop_map(|after| Step::Crash { after }),
    ]
}

/// Plays the steps; the model is which runs there are and which value each has.
async fn play(steps: Vec<Step>) {
    let mut store = MemoryStore::new();
    let mut runtime = open(&store).await;
    let mut cut_at = None;
    for step in steps {
        let name = |run: usize| format!("run-{run}");
        match step {
            Step::Start { run, seed, tasks } => {
                let definition = runtime
                    .define(&sources([DONE, FAULTS, WAITS][tasks]))
                    .unwrap();
                let input = large(seed, 40_000);
                let _ = runtime
                    .start_with(&definition, input, options(&name(run)))
                    .await;
            }
            Step::Purge { run } => {
                let filter = PurgeFilter {
                    runs: vec![name(run)],
                    ..PurgeFilter::default()
                };
                let _ = runtime.purge(&filter, None).await;
            }
            Step::Restart { run, to } => {
                let _ = runtime.restart(&name(run), None, Some(name(to))).await;
            }
            Step::Redrive { run } => {
                let _ = runtime.redrive(&name(run), None).await;
            }
            Step::Crash { after } => cut_at = Some(after),
        }
        if let Some(after) = cut_at.take() {
            store.stop_after(after);
        }
        if store.is_stopped() {
            store = store.snapshot();
            is_in_order(&store);
            runtime = open(&store).await;
        }
    }
    // As a restart would find it: what is under way is begun again, and settles.
    let store = store.snapshot();
    is_in_order(&store);
    let runtime = open(&store).await;
    let mut used = std::collections::BTreeSet::new();
    for row in runtime.query().runs(None, usize::MAX).unwrap() {
        // Whatever is there can be read whole.
        let view = runtime.settle(&row.run).await.unwrap();
        for (_, record) in store.journal(&row.run, 0, 1).unwrap() {
            let stub: Value = serde_json::from_slice(&record).unwrap();
            used.insert(
                stub["payloads"]["/event/input"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        assert!(view.status.is_final() || view.status == Status::Waiting);
    }
    assert_eq!(payloads(&store), used.len());
    is_in_order(&store);
    runtime.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_begins_restarts_and_goes_nothing_dangles_and_nothing_is_lost(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_mins(2), play(steps)).await }).unwrap();
    }
}
