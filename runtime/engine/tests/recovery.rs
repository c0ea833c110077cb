//! What is under way when a process dies is taken up in bounded memory; a disk without room stops
//! what begins and loses nothing of what has begun.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use cofferdam::config::Admission;
use cofferdam::{
    Call, Config, Connection, Connector, Descriptor, Effect, Failure, Health, Runtime,
    StartOptions, Status,
};
use cofferdam_store::{
    Batch, Commit, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows, Table,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use common::{descriptor, healthy, sources, until};

/// Answers when it is let, and counts.
struct Gate {
    open: Semaphore,
    begun: AtomicUsize,
}

impl Gate {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Semaphore::new(places),
            begun: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl Connector for Gate {
    fn descriptor(&self) -> Descriptor {
        descriptor("gate", &[("pass", Effect::Idempotent)])
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Ok(place) = self.open.acquire().await {
            place.forget();
        }
        Ok(call.input)
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

const PASS: &str = "  - a: {call: gate.pass, with: {n: \"${ .n }\"}}\n";

async fn runtime(store: Arc<dyn JournalStore>, gate: &Arc<Gate>) -> Runtime {
    runtime_of(store, gate, Admission::default().runs_active_max).await
}

/// With so many runs in memory at most.
async fn runtime_of(
    store: Arc<dyn JournalStore>,
    gate: &Arc<Gate>,
    runs_active_max: usize,
) -> Runtime {
    let admission = Admission {
        runs_active_max,
        ..Admission::default()
    };
    let config = Config::new()
        .with_connection(Connection::new("gate", "none"))
        .with_admission(admission);
    let builder = Runtime::builder(config).store(store);
    builder
        .connector("gate", gate.clone())
        .open()
        .await
        .unwrap()
}

fn id(n: usize) -> StartOptions {
    StartOptions {
        id: Some(format!("run-{n}")),
        ..StartOptions::default()
    }
}

/// What a process leaves that was killed with so many runs under way.
async fn killed_with(runs: usize) -> MemoryStore {
    let store = MemoryStore::new();
    let first = runtime(Arc::new(store.clone()), &Gate::new(0)).await;
    let definition = first.define(&sources(PASS)).unwrap();
    for n in 0..runs {
        let run = first.start_with(&definition, json!({"n": n}), id(n));
        run.await.unwrap();
    }
    store.snapshot()
}

#[tokio::test]
async fn more_runs_than_there_is_room_for_all_end_after_a_crash() {
    const RUNS: usize = 1_000;
    const ROOM: usize = 300;
    let left = killed_with(RUNS).await;
    let gate = Gate::new(0);
    let second = runtime_of(Arc::new(left), &gate, ROOM).await;
    assert_eq!(second.active_runs(), ROOM);
    gate.open.add_permits(RUNS);
    for n in 0..RUNS {
        let view = second.wait(&format!("run-{n}")).await.unwrap();
        assert_eq!(view.output.as_deref(), Some(&json!({"n": n})));
        assert!(second.active_runs() <= ROOM);
    }
    assert_eq!(gate.begun.load(Ordering::SeqCst), RUNS);
}

#[tokio::test]
async fn a_run_whose_row_is_damaged_is_not_in_the_way_of_the_others() {
    let left = killed_with(2).await;
    let damage = Batch::new().put(Table::Run, "run-0", b"?".to_vec());
    left.commit(damage).await.unwrap();
    let second = runtime(Arc::new(left), &Gate::new(1)).await;
    let view = second.wait("run-1").await.unwrap();
    assert_eq!(view.status, Status::Completed);
    assert!(second.wait("run-0").await.is_err());
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_at_once_is_taken_up_later() {
    const RUNS: usize = 3;
    let left = killed_with(RUNS).await;
    let gate = Gate::new(0);
    let second = runtime_of(Arc::new(left.clone()), &gate, 1).await;
    until(|| gate.begun.load(Ordering::SeqCst) == 1).await;
    left.fail_get(Table::Run);
    gate.open.add_permits(RUNS);
    until(|| gate.begun.load(Ordering::SeqCst) == RUNS).await;
    second.shutdown().await;
}

/// A store on a disk that may have no room: commits wait then, as those of a real one do.
struct Tight {
    store: MemoryStore,
    full: AtomicBool,
}

impl Tight {
    fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
        self.store.hold();
    }

    fn make_room(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.store.release();
    }
}

impl JournalStore for Tight {
    fn commit(&self, batch: Batch) -> Commit {
        self.store.commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, cofferdam_store::Error> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange,
        limit: usize,
    ) -> Result<Rows, cofferdam_store::Error> {
        self.store.scan(table, range, limit)
    }

    fn head(&self, run: &str) -> Result<Head, cofferdam_store::Error> {
        self.store.head(run)
    }

    fn journal(
        &self,
        run: &str,
        from_seq: u64,
        limit: usize,
    ) -> Result<Records, cofferdam_store::Error> {
        self.store.journal(run, from_seq, limit)
    }

    fn full(&self) -> Option<cofferdam_store::Error> {
        let full = self.full.load(Ordering::SeqCst);
        full.then(|| cofferdam_store::Error::Full {
            path: "store".into(),
            free_bytes: 1,
            reserve_bytes: 2,
        })
    }

    fn verify(&self) -> Result<Report, cofferdam_store::Error> {
        self.store.verify()
    }

    fn size_on_disk(&self) -> Result<u64, cofferdam_store::Error> {
        self.store.size_on_disk()
    }
}

#[tokio::test]
async fn without_room_nothing_begins_and_what_has_begun_keeps_its_results_until_there_is_some() {
    let store = Arc::new(Tight {
        store: MemoryStore::new(),
        full: AtomicBool::new(false),
    });
    let gate = Gate::new(0);
    let runtime = runtime(store.clone(), &gate).await;
    let definition = runtime.define(&sources(PASS)).unwrap();
    for n in 0..10 {
        let run = runtime.start_with(&definition, json!({"n": n}), id(n));
        run.await.unwrap();
    }
    while gate.begun.load(Ordering::SeqCst) < 10 {
        tokio::task::yield_now().await;
    }
    store.fill();
    gate.open.add_permits(1_000);
    let refused = runtime.start_with(&definition, json!({"n": 10}), id(10));
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("CD0410"), "{refused}");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // Their calls have ended and nobody was told so.
    let rows = runtime.query().runs(None, 100).unwrap();
    assert!(rows.iter().all(|row| row.status == Status::Running));
    store.make_room();
    for n in 0..10 {
        let view = runtime.wait(&format!("run-{n}")).await.unwrap();
        assert_eq!(view.status, Status::Completed);
    }
    assert_eq!(gate.begun.load(Ordering::SeqCst), 10, "a call was repeated");
    let run = runtime.start_with(&definition, json!({"n": 10}), id(10));
    runtime.wait(&run.await.unwrap()).await.unwrap();
}
