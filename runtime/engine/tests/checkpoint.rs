//! Long runs go on from their checkpoints, at a cost that does not grow with what was before.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use cofferdam::{
    Call, Class, Clock, Config, Connection, Connector, Decision, Definition, Descriptor, Effect,
    EffectState, Error, Failure, Health, Query, Runtime, RuntimeBuilder, StartOptions, Status,
};
use cofferdam_store::{
    Batch, Commit, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows, Table, Write,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use common::{Looked, descriptor, healthy, named};

/// Counts what it was asked for, by task, and fails as it is told to.
#[derive(Default)]
struct Service {
    asked: Mutex<BTreeMap<String, usize>>,
}

#[async_trait]
impl Connector for Service {
    fn descriptor(&self) -> Descriptor {
        descriptor(
            "svc",
            &[("keep", Effect::Idempotent), ("pay", Effect::Once)],
        )
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        let what = call.input["what"].to_string();
        *self.asked.lock().entry(what).or_default() += 1;
        match call.input["fail"].as_str() {
            Some("unknown") => {
                Err(Failure::new(Class::Timeout, "lost", "no answer")
                    .with_effect(EffectState::Unknown))
            }
            Some(_) => Err(Failure::new(Class::Refused, "no", "not that")),
            None => Ok(json!({"was": call.input["what"]})),
        }
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

/// A store that remembers what was written to it and read from it.
#[derive(Default)]
struct Watched {
    store: MemoryStore,
    record_bytes: AtomicUsize,
    checkpoint_bytes: AtomicUsize,
    checkpoints: AtomicUsize,
    records_read: AtomicUsize,
    /// The first record that was read.
    read_from: AtomicU64,
    /// Whether checkpoints are not written as they were given.
    damages: AtomicBool,
}

impl Watched {
    fn of(store: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            store,
            read_from: AtomicU64::new(u64::MAX),
            ..Self::default()
        })
    }

    fn row(&self, run: &str) -> Option<Vec<u8>> {
        self.store.get(Table::Checkpoint, run.as_bytes()).unwrap()
    }
}

type Read<T> = Result<T, cofferdam_store::Error>;

impl JournalStore for Watched {
    fn commit(&self, mut batch: Batch) -> Commit {
        for write in &mut batch.writes {
            match write {
                Write::Append { record, .. } => {
                    self.record_bytes.fetch_add(record.len(), Ordering::SeqCst);
                }
                Write::Put { table, value, .. } if *table == Table::Checkpoint => {
                    self.checkpoints.fetch_add(1, Ordering::SeqCst);
                    self.checkpoint_bytes
                        .fetch_add(value.len(), Ordering::SeqCst);
                    if self.damages.load(Ordering::SeqCst) {
                        // It can be read, and lacks something.
                        let at = value.windows(6).position(|at| at == b"\"slim\"").unwrap();
                        value.splice(at..at + 6, *b"\"skim\"");
                    }
                }
                _ => {}
            }
        }
        self.store.commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Read<Option<Vec<u8>>> {
        self.store.get(table, key)
    }

    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Read<Rows> {
        self.store.scan(table, range, limit)
    }

    fn head(&self, run: &str) -> Read<Head> {
        self.store.head(run)
    }

    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Read<Records> {
        let records = self.store.journal(run, from_seq, limit)?;
        self.records_read.fetch_add(records.len(), Ordering::SeqCst);
        self.read_from.fetch_min(from_seq, Ordering::SeqCst);
        Ok(records)
    }

    fn verify(&self) -> Read<Report> {
        self.store.verify()
    }

    fn size_on_disk(&self) -> Read<u64> {
        self.store.size_on_disk()
    }
}

fn builder(store: &Arc<Watched>, service: &Arc<Service>) -> RuntimeBuilder {
    let connection = Connection::new("svc", "none").with_on_outage(cofferdam::OnOutage::Fail);
    let config = Config::new().with_connection(connection);
    Runtime::builder(config)
        .store(Arc::clone(store) as Arc<dyn JournalStore>)
        .connector("svc", Arc::clone(service) as Arc<dyn Connector>)
        .clock(Clock::tokio(1_000))
}

fn define(runtime: &Runtime, name: &str, tasks: &str) -> Definition {
    runtime.define(&named(name, tasks)).unwrap()
}

async fn begin(runtime: &Runtime, tasks: &str) {
    let definition = define(runtime, "t", tasks);
    let options = StartOptions {
        id: Some("r".to_owned()),
        ..StartOptions::default()
    };
    let started = runtime.start_with(&definition, json!({}), options);
    started.await.unwrap();
}

/// So many calls, and then it waits to be resumed.
fn calls_and_a_wait(calls: usize) -> String {
    format!(
        "  - each: {{for: {{each: n, in: '${{ [range({calls})] }}'}}, do: [{{a: {{call: svc.keep, with: {{what: '${{ $n }}'}}}}}}]}}\n  \
         - nap: {{wait: {{hours: 1}}}}\n  - last: {{call: svc.keep, with: {{what: last}}}}\n"
    )
}

/// A run that has made its calls, in the store that a kill leaves.
async fn after(calls: usize, every: Option<u64>) -> MemoryStore {
    let store = Watched::of(MemoryStore::new());
    let mut builder = builder(&store, &Arc::default());
    if let Some(every) = every {
        builder = builder.checkpoint_every(every);
    }
    let runtime = builder.open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(calls)).await;
    assert_eq!(runtime.settle("r").await.unwrap().status, Status::Waiting);
    store.store.snapshot()
}

#[tokio::test(start_paused = true)]
async fn what_a_run_costs_to_take_up_does_not_grow_with_its_history() {
    let mut read = Vec::new();
    for calls in [2_000, 6_000] {
        let store = Watched::of(after(calls, None).await);
        let runtime = builder(&store, &Arc::default()).open().await.unwrap();
        runtime.suspend("r", None).await.unwrap();
        read.push(store.records_read.load(Ordering::SeqCst));
        assert!(store.read_from.load(Ordering::SeqCst) > calls as u64);
        // People are told everything all the same.
        let view = runtime.run("r").unwrap();
        assert_eq!(
            (view.tasks.len(), view.provenance.len()),
            (calls + 2, calls)
        );
        runtime.resume("r").await.unwrap();
        assert_eq!(runtime.wait("r").await.unwrap().status, Status::Completed);
    }
    assert!(read.iter().all(|records| *records <= 600), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_fewer_bytes_than_the_records_that_they_stand_for() {
    let store = Watched::of(MemoryStore::new());
    let runtime = builder(&store, &Arc::default()).open().await.unwrap();
    // What it holds is more than the records between two checkpoints would be.
    let large = "  - large: {set: {n: '${ [range(40000)] }'}}\n";
    begin(&runtime, &format!("{large}{}", calls_and_a_wait(5_000))).await;
    runtime.settle("r").await.unwrap();
    let written = store.checkpoints.load(Ordering::SeqCst);
    let [checkpoints, records] =
        [&store.checkpoint_bytes, &store.record_bytes].map(|b| b.load(Ordering::SeqCst));
    assert!(written >= 2, "{written}");
    // The last one has still to be earned.
    let earned = checkpoints - store.row("r").unwrap().len();
    assert!(earned < records, "{earned} of {records}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_not_what_it_should_be_is_passed_over() {
    let left = after(30, Some(7)).await;
    let row = Watched::of(left.clone()).row("r").unwrap();
    let changed = |change: fn(&mut Value)| {
        let mut row: Value = serde_json::from_slice(&row).unwrap();
        change(&mut row);
        row.to_string().into_bytes()
    };
    let rows = [
        b"{".to_vec(),
        changed(|row| row["run"]["format"] = json!(2)),
        changed(|row| row["definition"] = json!("another")),
        changed(|row| row["run"]["frames"]["/nap"]["task"] = json!("/do/0/each")),
        changed(|row| row["run"]["values"] = json!([])),
        // It does not fit the records after it.
        changed(|row| row["seq"] = json!(20)),
        changed(|row| row["seq"] = json!(2_000)),
    ];
    for row in rows {
        let store = Watched::of(left.snapshot());
        let service = Arc::<Service>::default();
        let put = Batch::new().put(Table::Checkpoint, "r", row);
        store.store.commit(put).wait().unwrap();
        let runtime = builder(&store, &service).open().await.unwrap();
        runtime.suspend("r", None).await.unwrap();
        assert_eq!(store.read_from.load(Ordering::SeqCst), 0);
        runtime.resume("r").await.unwrap();
        let view = runtime.wait("r").await.unwrap();
        assert_eq!(view.output.as_deref(), Some(&json!({"was": "last"})));
        assert_eq!(service.asked.lock().len(), 1);
    }
}

/// Payments of which nobody knows whether they were made are passed over; then the run faults.
const PASSED_OVER: &str = "  - each: {for: {each: n, in: '${ [range(5)] }'}, do: [{a: {call: svc.pay, with: {what: '${ $n }', fail: unknown}, metadata: {cofferdam: {critical: false}}}}]}\n  \
    - over: {call: svc.keep, with: {what: end, fail: refused}}\n";

/// Rejects what a person is asked about, until the run has ended.
async fn reject_all(runtime: &Runtime) {
    loop {
        let view = runtime.settle("r").await.unwrap();
        if view.status.is_final() {
            return;
        }
        for review in runtime.query().reviews().unwrap() {
            let reason = "nobody knows".to_owned();
            let decision = Decision::Reject { reason };
            runtime.decide("r", &review.task, decision).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_redriven_remembers_what_it_has_forgotten() {
    let store = Watched::of(MemoryStore::new());
    let service = Arc::<Service>::default();
    let first = builder(&store, &service).checkpoint_every(2);
    let runtime = first.open().await.unwrap();
    begin(&runtime, PASSED_OVER).await;
    reject_all(&runtime).await;
    assert_eq!(runtime.run("r").unwrap().status, Status::Faulted);
    runtime.shutdown().await;
    assert!(store.row("r").is_some());
    let second = builder(&store, &service).checkpoint_every(2);
    let runtime = second.open().await.unwrap();
    runtime.redrive("r", None).await.unwrap();
    // A kill between, so that what was known is in a checkpoint and in the journal.
    let left = Watched::of(store.store.snapshot());
    drop(runtime);
    let third = builder(&left, &service).checkpoint_every(2);
    let runtime = third.open().await.unwrap();
    reject_all(&runtime).await;
    assert_eq!(runtime.run("r").unwrap().redriven, 1);
    let mut asked = service.asked.lock().clone();
    asked.remove("\"end\"");
    let once: BTreeMap<_, _> = (0..5).map(|n| (n.to_string(), 1)).collect();
    assert_eq!(asked, once, "no payment is made again");
}

#[tokio::test(start_paused = true)]
async fn a_redriven_run_without_its_checkpoint_is_read_whole() {
    let store = Watched::of(MemoryStore::new());
    let service = Arc::<Service>::default();
    let runtime = builder(&store, &service).open().await.unwrap();
    begin(&runtime, PASSED_OVER).await;
    reject_all(&runtime).await;
    runtime.redrive("r", None).await.unwrap();
    let left = Watched::of(store.store.snapshot());
    assert!(left.row("r").is_none());
    runtime.shutdown().await;
    let runtime = builder(&left, &service).open().await.unwrap();
    reject_all(&runtime).await;
    assert_eq!(runtime.run("r").unwrap().redriven, 1);
    assert_eq!(service.asked.lock()["3"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_takes_its_checkpoint_with_it() {
    let store = Watched::of(MemoryStore::new());
    let runtime = builder(&store, &Arc::default()).checkpoint_every(3);
    let runtime = runtime.open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(9)).await;
    runtime.wait("r").await.unwrap();
    assert!(store.row("r").is_some());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let removed = runtime.remove_ended(std::time::Duration::ZERO).await;
    assert_eq!(removed.unwrap(), 1);
    assert!(store.row("r").is_none());
}

/// A runtime that keeps few records of a run.
fn forgetful(store: &Arc<Watched>, service: &Arc<Service>) -> RuntimeBuilder {
    keeping(store, service, 20)
}

fn keeping(store: &Arc<Watched>, service: &Arc<Service>, records: u64) -> RuntimeBuilder {
    let config = Config::new()
        .with_connection(Connection::new("svc", "none"))
        .with_records_max(records);
    Runtime::builder(config)
        .store(Arc::clone(store) as Arc<dyn JournalStore>)
        .connector("svc", Arc::clone(service) as Arc<dyn Connector>)
        .clock(Clock::tokio(1_000))
        .checkpoint_every(5)
}

fn first_record(store: &Watched) -> u64 {
    store.store.journal("r", 0, 1).unwrap()[0].0
}

#[tokio::test(start_paused = true)]
async fn of_a_long_run_the_oldest_records_go_and_it_goes_on() {
    let store = Watched::of(MemoryStore::new());
    let service = Arc::<Service>::default();
    let runtime = forgetful(&store, &service).open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(200)).await;
    runtime.settle("r").await.unwrap();
    let next = store.store.head("r").unwrap().next_seq;
    assert!(next > 400 && first_record(&store) > next - 40);
    assert!(store.store.verify().unwrap().is_clean());
    let view = runtime.run("r").unwrap();
    assert_eq!(view.records_from, Some(first_record(&store)));
    runtime.suspend("r", None).await.unwrap();
    let refused = runtime.fork("r", "/nap", None).await.unwrap_err();
    assert!(refused.to_string().contains("CD0230"), "{refused}");
    let left = Watched::of(store.store.snapshot());
    runtime.shutdown().await;
    let runtime = forgetful(&left, &service).open().await.unwrap();
    runtime.resume("r").await.unwrap();
    let view = runtime.wait("r").await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"was": "last"})));
    let again = runtime.restart("r", None, None).await.unwrap();
    assert_ne!(again, "r");
    assert_eq!(service.asked.lock()["199"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_its_first_records_needs_its_checkpoint() {
    let store = Watched::of(MemoryStore::new());
    let runtime = forgetful(&store, &Arc::default()).open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(200)).await;
    runtime.settle("r").await.unwrap();
    runtime.shutdown().await;
    let left = Watched::of(store.store.snapshot());
    let put = Batch::new().put(Table::Checkpoint, "r", "{}");
    left.store.commit(put).wait().unwrap();
    let before = left.store.head("r").unwrap();
    let runtime = forgetful(&left, &Arc::default()).open().await.unwrap();
    let refused = runtime.suspend("r", None).await.unwrap_err().to_string();
    assert!(refused.contains("CD0231"), "{refused}");
    assert_eq!(left.store.head("r").unwrap(), before, "it is left as it is");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_faulted_without_its_first_records_is_not_redriven() {
    let store = Watched::of(MemoryStore::new());
    let runtime = forgetful(&store, &Arc::default()).open().await.unwrap();
    let fails = "  - over: {call: svc.keep, with: {what: end, fail: refused}}\n";
    begin(&runtime, &format!("{}{fails}", calls_and_a_wait(100))).await;
    assert_eq!(runtime.wait("r").await.unwrap().status, Status::Faulted);
    let refused = runtime.redrive("r", None).await.unwrap_err().to_string();
    assert!(refused.contains("CD0230"), "{refused}");
    assert_eq!(runtime.run("r").unwrap().status, Status::Faulted);
}

#[tokio::test(start_paused = true)]
async fn no_record_goes_before_its_checkpoint_was_read_back() {
    let store = Watched::of(MemoryStore::new());
    store.damages.store(true, Ordering::SeqCst);
    let service = Arc::<Service>::default();
    let runtime = forgetful(&store, &service).open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(200)).await;
    assert_eq!(runtime.wait("r").await.unwrap().status, Status::Completed);
    assert!(store.checkpoints.load(Ordering::SeqCst) > 50);
    assert_eq!(first_record(&store), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_long_run_is_told_of_every_task() {
    let store = Watched::of(MemoryStore::new());
    let runtime = builder(&store, &Arc::default()).open().await.unwrap();
    let (calls, waits) = (1_000, "  - nap: {wait: {hours: 1}}\n");
    begin(&runtime, &calls_and_a_wait(calls).replace(waits, "")).await;
    let view = runtime.wait("r").await.unwrap();
    assert_eq!(
        (view.tasks.len(), view.provenance.len()),
        (calls + 2, calls + 1)
    );
}

#[tokio::test(start_paused = true)]
async fn no_record_goes_that_the_checkpoint_does_not_have() {
    let store = Watched::of(MemoryStore::new());
    let service = Arc::<Service>::default();
    let open = |store: &Arc<Watched>| keeping(store, &service, 2).checkpoint_every(50).open();
    let runtime = open(&store).await.unwrap();
    begin(&runtime, &calls_and_a_wait(60)).await;
    runtime.settle("r").await.unwrap();
    assert!(first_record(&store) > 40);
    let left = Watched::of(store.store.snapshot());
    runtime.shutdown().await;
    let runtime = open(&left).await.unwrap();
    let view = runtime.wait("r").await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"was": "last"})));
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_is_not_at_hand_any_more_still_begins_runs() {
    let store = Watched::of(MemoryStore::new());
    let runtime = forgetful(&store, &Arc::default()).open().await.unwrap();
    let task = "  - a: {set: {n: 1}}\n";
    let first = define(&runtime, "first", task);
    // More than are kept.
    for n in 0..=1_000 {
        define(&runtime, &format!("other-{n}"), task);
    }
    let run = runtime.start(&first, json!({})).await.unwrap();
    assert_eq!(runtime.wait(&run).await.unwrap().status, Status::Completed);
}

/// So many times it is taken up, goes on by a record or two, and is set aside.
async fn take_up(runtime: &Runtime, times: usize) {
    for _ in 0..times {
        runtime.suspend("r", None).await.unwrap();
        runtime.settle("r").await.unwrap();
        runtime.resume("r").await.unwrap();
        runtime.settle("r").await.unwrap();
    }
    assert_eq!(runtime.active_runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_counts_for_the_next_checkpoint_however_often_a_run_is_taken_up() {
    let store = Watched::of(MemoryStore::new());
    let keeping = keeping(&store, &Arc::default(), 20).checkpoint_every(50);
    let runtime = keeping.open().await.unwrap();
    begin(&runtime, &calls_and_a_wait(1)).await;
    runtime.settle("r").await.unwrap();
    take_up(&runtime, 100).await;
    let next = store.store.head("r").unwrap().next_seq;
    let written = store.checkpoints.load(Ordering::SeqCst) as u64;
    assert!(
        (next / 60..=next / 50).contains(&written),
        "{written} of {next}"
    );
    assert!(first_record(&store) > next - 80);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_stands_for_its_records_also_for_who_takes_the_run_up_after_it() {
    let store = Watched::of(after(30, Some(7)).await);
    let keeping = keeping(&store, &Arc::default(), 20).checkpoint_every(1_000);
    let runtime = keeping.open().await.unwrap();
    take_up(&runtime, 1).await;
    assert_eq!(store.checkpoints.load(Ordering::SeqCst), 0);
    assert!(first_record(&store) > 40);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_missing_between_others_were_not_let_go() {
    let left = after(600, None).await;
    // In a page of the journal, and where one ends.
    for (gone, says) in [(700, "record 701 follows"), (1_000, "record 1001 follows")] {
        let store = left.snapshot();
        let gap = Batch::new().prune("r", gone..gone + 1).unwrap();
        store.commit(gap).wait().unwrap();
        let error = Query::new(&store).run("r").unwrap_err();
        assert!(error.is_storage(), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!Query::new(&store).verify().unwrap().is_clean());
    }
    // From the oldest on without a gap: they were let go.
    let store = left.snapshot();
    let oldest = Batch::new().prune("r", 0..1_000).unwrap();
    store.commit(oldest).wait().unwrap();
    let view = Query::new(&store).run("r").unwrap();
    assert_eq!(view.records_from, Some(1_000));
    assert!(Query::new(&store).verify().unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_run_beside_its_runner_is_not_misled_by_records_that_go_meanwhile() {
    let whole = after(600, Some(7)).await;
    let store = Watched::of(whole.snapshot());
    let runtime = forgetful(&store, &Arc::default()).open().await.unwrap();
    take_up(&runtime, 1).await;
    let pruned = store.store.snapshot();
    assert!(first_record(&store) > 1_000);
    take_up(&runtime, 30).await;
    let later = store.store.snapshot();
    // The first page of records was read, and the checkpoint was.
    let misled = [
        (&whole, &pruned, Table::Journal),
        (&pruned, &later, Table::Checkpoint),
    ]
    .map(|(before, after, table)| {
        let after = Mutex::new(Some(after.clone()));
        let look = move |read| after.lock().take_if(|_| read == table);
        let beside = Looked::new(before.clone(), look);
        let view = Query::new(&beside).run("r");
        let first = beside.journal("r", 0, 1).unwrap()[0].0;
        match view {
            Ok(view) if view.records_from.is_some_and(|from| from <= first) => None,
            other => Some((table, other)),
        }
    });
    assert!(misled.iter().all(Option::is_none), "{misled:?}");
    let error = {
        // Nobody writes one anew where it is damaged.
        let damaged = later.snapshot();
        let damage = Batch::new().put(Table::Checkpoint, "r", "{}");
        damaged.commit(damage).wait().unwrap();
        Query::new(&damaged).run("r").unwrap_err()
    };
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
}
