//! What is bounded, what costs nothing while nothing can be done, and what keeps apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam::config::Admission;
use cofferdam::{
    BreakerSetting, Clock, Config, Error, Provenance, Runtime, Source, Sources, StartOptions,
    Status,
};
use cofferdam_store::{
    Batch, Commit, Entry, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows, Table,
};
use serde_json::{Value, json};

use super::stage::*;

/// A store that counts how often it is asked who waits, and whose disk can be full.
#[derive(Default)]
struct Watched {
    store: MemoryStore,
    looks: AtomicUsize,
    is_full: AtomicBool,
}

impl JournalStore for Watched {
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
        if table == Table::Queue {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
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

    fn read_all(
        &self,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<(), cofferdam_store::Error>,
    ) -> Result<(), cofferdam_store::Error> {
        self.store.read_all(visit)
    }

    fn full(&self) -> Option<cofferdam_store::Error> {
        self.is_full
            .load(Ordering::Relaxed)
            .then_some(cofferdam_store::Error::Full {
                path: "here".into(),
                free_bytes: 0,
                reserve_bytes: 1,
            })
    }

    fn verify(&self) -> Result<Report, cofferdam_store::Error> {
        self.store.verify()
    }

    fn size_on_disk(&self) -> Result<u64, cofferdam_store::Error> {
        self.store.size_on_disk()
    }
}

/// A runtime with this many places in memory.
async fn open_with(store: Arc<dyn JournalStore>, places: usize, crm: &Arc<Service>) -> Runtime {
    let admission = Admission {
        runs_active_max: places,
        ..Admission::default()
    };
    let config = Config::new()
        .with_admission(admission)
        .with_connection(connection("crm"));
    Runtime::builder(config)
        .store(store)
        .clock(Clock::tokio(EPOCH_MS))
        .connector("crm", Arc::clone(crm) as _)
        .open()
        .await
        .unwrap()
}

fn status(runtime: &Runtime, run: &str) -> Option<Status> {
    let runs = runtime.query().runs(None, usize::MAX).unwrap();
    runs.into_iter()
        .find(|row| row.run == run)
        .map(|row| row.status)
}

#[tokio::test]
async fn what_a_step_publishes_is_written_with_it_and_has_an_end() {
    let runtime = open_with(memory(), 10, &Service::new()).await;
    let publish = |count: usize| {
        let tasks = format!(
            "  - all:\n      for: {{in: \"${{ [range({count})] }}\"}}\n      do:\n        - tell: {{emit: {{event: {{with: {{source: /t, type: x, data: {{n: \"${{ $item }}\"}}}}}}}}}}\n"
        );
        runtime.define(&sources(&tasks)).unwrap()
    };
    let view = call(&runtime, &publish(1_000), "most").await;
    assert_eq!(view.status, Status::Completed, "{:?}", view.error);
    assert_eq!(
        runtime
            .query()
            .events_from(Some(1_000), 10, usize::MAX)
            .unwrap()
            .len(),
        1
    );
    let view = call(&runtime, &publish(5_000), "more").await;
    assert_eq!(view.status, Status::Faulted);
    let told = view.error.unwrap().to_string();
    assert!(told.contains("may publish 1000 events"), "{told}");
}

/// Runs that can be begun beside each other, each until it is cancelled.
const BUSY: &str =
    "  - loop: {for: {in: \"${ [range(100000)] }\"}, do: [{w: {wait: {milliseconds: 900}}}]}\n";

#[tokio::test(start_paused = true)]
async fn the_queue_is_hardly_looked_at_while_nobody_can_be_let_in() {
    let store = Arc::new(Watched::default());
    let runtime = open_with(store.clone(), 1, &Service::new()).await;
    let busy = runtime.define(&sources(BUSY)).unwrap();
    for id in ["a", "b", "c"] {
        start(&runtime, &busy, id).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = store.looks.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let looks = store.looks.load(Ordering::Relaxed) - before;
    assert!(looks < 60, "{looks}");
    assert_eq!(status(&runtime, "b"), Some(Status::Queued));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_hardly_looked_at_for_a_run_that_cannot_go_on() {
    let store = Arc::new(Watched::default());
    let runtime = open_with(store.clone(), 1, &Service::new()).await;
    let busy = runtime.define(&sources(BUSY)).unwrap();
    for id in ["a", "b"] {
        start(&runtime, &busy, id).await;
    }
    // What the run pins is gone.
    let rows = store.scan(Table::Definition, KeyRange::all(), 10).unwrap();
    let broken = rows.into_iter().fold(Batch::new(), |batch, (key, _)| {
        batch.delete(Table::Definition, key)
    });
    store.commit(broken).await.unwrap();
    runtime.shutdown().await;
    let runtime = open_with(store.clone(), 1, &Service::new()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = store.looks.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let looks = store.looks.load(Ordering::Relaxed) - before;
    assert!(looks < 60, "{looks}");
    assert_eq!(status(&runtime, "b"), Some(Status::Queued));
}

fn with_another(tasks: &str, other: &str) -> Sources {
    let head = "document: {dsl: \"1.0.3\", namespace: t, name: other, version: \"1.0.0\"}\ndo:\n";
    let mut sources = sources(tasks);
    let text = format!("{head}{other}");
    let origin = "other.yaml".to_owned();
    let other = Source { origin, text };
    sources.others.insert("t/other:1.0.0".into(), other);
    sources
}

#[tokio::test(start_paused = true)]
async fn runs_that_a_run_begins_beside_itself_wait_for_their_turn() {
    const OTHERS: usize = 30;
    let service = Service::new();
    service.telling.lock().takes = Duration::from_millis(5);
    let runtime = open_with(memory(), 3, &service).await;
    service.watch(&runtime);
    let begin = "  - all:\n      for: {in: \"${ [range(30)] }\"}\n      do:\n        - go: {run: {await: false, workflow: {namespace: t, name: other, version: \"1.0.0\"}}}\n";
    let sources = with_another(begin, "  - act: {call: crm.keep, with: {}}\n");
    let definition = runtime.define(&sources).unwrap();
    let view = call(&runtime, &definition, "parent").await;
    assert_eq!(view.status, Status::Completed, "{:?}", view.error);
    until(|| service.seen().ended_well == OTHERS).await;
    let held = service.seen().held_max;
    assert!((1..=3).contains(&held), "{held}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_on_a_full_disk_comes_to_its_end() {
    let (store, service) = (Arc::new(Watched::default()), Service::new());
    let runtime = open_with(store.clone(), 10, &service).await;
    let act = one_call(&runtime, "crm.keep", "");
    let options = StartOptions {
        id: Some("a".into()),
        ..StartOptions::default()
    };
    store.store.hold();
    let starting = runtime.start_with(&act, json!({}), options);
    let waits = tokio::time::timeout(Duration::from_secs(1), starting).await;
    assert!(waits.is_err(), "there is no room for it");
    store.is_full.store(true, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    runtime.shutdown().await;
    assert!(
        begun.elapsed() <= Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn what_is_kept_of_answers_is_kept_for_each_tenant_apart() {
    let service = Service::new();
    let runtime = open_with(memory(), 10, &service).await;
    let policy =
        "attempts: 1, onOutage: fallback, fallback: [{cache: {maxAge: PT1H}}, {value: none}]";
    let read = one_call(&runtime, "crm.read", policy);
    let asked = async |tenant: &str| -> (Option<Value>, Provenance) {
        let options = StartOptions {
            tenant: tenant.to_owned(),
            ..StartOptions::default()
        };
        let run = runtime.start_with(&read, json!({}), options).await.unwrap();
        let view = wait(&runtime, &run).await;
        let output = view.output.as_deref().cloned();
        (output, view.provenance["/act"].clone())
    };
    assert_eq!(asked("acme").await.1, Provenance::Live);
    service.fail_with(Some(down()));
    assert!(matches!(asked("acme").await.1, Provenance::Stale { .. }));
    let (output, provenance) = asked("globex").await;
    assert_eq!(provenance, Provenance::Default);
    assert_eq!(output, Some(json!("none")));
}

#[tokio::test]
async fn what_a_run_that_is_gone_left_parked_is_cleared_away() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(connection("crm"), service.clone())]).await;
    let set = async |runtime: &Runtime, setting| {
        runtime.set_breaker("crm", setting).await.unwrap();
    };
    set(&first, BreakerSetting::ForceOpen).await;
    let act = one_call(&first, "crm.keep", "");
    for id in ["gone", "here"] {
        assert_eq!(call(&first, &act, id).await.status, Status::Waiting);
    }
    first.shutdown().await;
    let index = store.scan(Table::RunByStatus, KeyRange::all(), 10).unwrap();
    let of_gone = index.into_iter().find(|(key, _)| key.ends_with(b"gone"));
    let removed = Batch::new()
        .delete(Table::Run, "gone")
        .delete(Table::RunByStatus, of_gone.unwrap().0);
    store.commit(removed).await.unwrap();
    let second = open(&store, [(connection("crm"), service.clone())]).await;
    assert_eq!(second.query().parked("crm").unwrap(), 2);
    set(&second, BreakerSetting::Reset).await;
    assert_eq!(wait(&second, "here").await.status, Status::Completed);
    until(|| second.query().parked("crm").unwrap() == 0).await;
    assert_eq!(service.seen().calls, ["here/act"]);
}

/// A run that has faulted, and left nothing for people.
async fn faulted(store: &MemoryStore, service: &Arc<Service>) {
    let first = open(store, [(connection("crm"), service.clone())]).await;
    service.fail_with(Some(down()));
    let act = one_call(&first, "crm.keep", "onOutage: fail, onExhausted: fault");
    assert_eq!(call(&first, &act, "a").await.status, Status::Faulted);
    first.shutdown().await;
    service.fail_with(None);
}

#[tokio::test]
async fn a_run_is_removed_or_redriven_but_never_half_of_both() {
    for redrive_first in [false, true] {
        let (store, service) = (MemoryStore::new(), Service::new());
        faulted(&store, &service).await;
        let later_ms = EPOCH_MS + 100 * HOUR_MS;
        let runtime = open_at(&store, later_ms, [(connection("crm"), service.clone())]).await;
        store.hold();
        let remove = async {
            if redrive_first {
                tokio::task::yield_now().await;
            }
            runtime.remove_ended(Duration::from_hours(1)).await
        };
        let redrive = async {
            if !redrive_first {
                tokio::task::yield_now().await;
            }
            runtime.redrive("a", None).await
        };
        let release = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            store.release();
        };
        let (removed, redriven, ()) = tokio::join!(remove, redrive, release);
        removed.unwrap();
        match redriven {
            Ok(()) => assert_eq!(wait(&runtime, "a").await.status, Status::Completed),
            Err(_) => assert!(matches!(runtime.run("a"), Err(Error::NoRun { .. }))),
        }
        runtime.shutdown().await;
        assert!(store.verify().unwrap().is_clean());
    }
}
