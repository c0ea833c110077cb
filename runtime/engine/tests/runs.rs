//! Whole runs on a real store: begun, interrupted, taken up again, waited for.

mod common;

use std::sync::Arc;

use cofferdam::{Config, Error, Runtime, StartOptions, Status};
use cofferdam_store::{Fault, JournalStore, MemoryStore, Options, SledStore};
use serde_json::{Value, json};

use common::{memory, sources};

async fn runtime(store: &Arc<dyn JournalStore>) -> Runtime {
    Runtime::builder(Config::new())
        .store(Arc::clone(store))
        .open()
        .await
        .expect("the store opens")
}

const DOUBLE: &str = "  - a: {set: {n: \"${ .n * 2 }\"}}\n";

#[tokio::test]
async fn a_run_ends_with_its_output() {
    let runtime = runtime(&memory()).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    let run = runtime.start(&definition, json!({"n": 21})).await.unwrap();
    let view = runtime.wait(&run).await.unwrap();
    assert_eq!(
        (view.status, view.output.as_deref()),
        (Status::Completed, Some(&json!({"n": 42})))
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn starting_a_run_that_exists_gives_that_run() {
    let runtime = runtime(&memory()).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    for n in [1, 2] {
        let options = StartOptions {
            id: Some("lead-1".into()),
            ..StartOptions::default()
        };
        let run = runtime
            .start_with(&definition, json!({"n": n}), options)
            .await
            .unwrap();
        assert_eq!(
            runtime.wait(&run).await.unwrap().output.as_deref(),
            Some(&json!({"n": 2}))
        );
    }
    assert_eq!(runtime.query().runs(None, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn an_id_that_cannot_be_one_is_refused() {
    let runtime = runtime(&memory()).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    for id in ["", "a/b", "a\0b", &"x".repeat(101)] {
        let options = StartOptions {
            id: Some(id.to_owned()),
            ..StartOptions::default()
        };
        let refused = runtime.start_with(&definition, Value::Null, options).await;
        assert!(matches!(refused, Err(Error::RunId { .. })), "{id:?}");
    }
}

#[tokio::test]
async fn a_run_that_waits_for_long_holds_no_memory_and_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn JournalStore> {
        Arc::new(SledStore::open(folder.path().join("store"), &Options::default()).unwrap())
    };
    let tasks = "  - w: {wait: {seconds: 4}}\n  - a: {set: {woken: true}}\n";
    let first = runtime(&open()).await;
    let definition = first.define(&sources(tasks)).unwrap();
    let run = first.start(&definition, json!({})).await.unwrap();
    assert_eq!(first.settle(&run).await.unwrap().status, Status::Waiting);
    assert_eq!(first.active_runs(), 0);
    first.shutdown().await;
    let second = runtime(&open()).await;
    assert_eq!(
        second.wait(&run).await.unwrap().output.as_deref(),
        Some(&json!({"woken": true}))
    );
    second.shutdown().await;
}

#[tokio::test]
async fn a_run_that_was_under_way_is_taken_up_again() {
    let store = memory();
    let first = runtime(&store).await;
    let tasks = "  - w: {wait: {milliseconds: 300}}\n  - a: {set: {woken: true}}\n";
    let definition = first.define(&sources(tasks)).unwrap();
    let run = first.start(&definition, json!({})).await.unwrap();
    first.shutdown().await;
    let second = runtime(&store).await;
    assert_eq!(second.wait(&run).await.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn an_invalid_input_faults_the_run_and_leaves_a_dead_letter() {
    let runtime = runtime(&memory()).await;
    let mut sources = sources(DOUBLE);
    sources.main.text = sources.main.text.replace(
        "do:\n",
        "input: {schema: {document: {type: object, required: [email]}}}\ndo:\n",
    );
    let definition = runtime.define(&sources).unwrap();
    let run = runtime.start(&definition, json!({"n": 1})).await.unwrap();
    assert_eq!(runtime.wait(&run).await.unwrap().status, Status::Faulted);
    let letters = runtime.query().dead_letters().unwrap();
    assert_eq!(
        (letters[0].run.as_str(), &letters[0].input),
        (run.as_str(), &json!({"n": 1}))
    );
    assert!(
        letters[0]
            .error
            .detail
            .as_deref()
            .unwrap()
            .contains("email")
    );
}

#[tokio::test]
async fn published_events_are_kept() {
    let runtime = runtime(&memory()).await;
    let tasks = "  - e: {emit: {event: {with: {source: \"https://example.com/t\", type: com.example.done, data: {n: \"${ .n }\"}}}}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({"n": 7})).await.unwrap();
    runtime.wait(&run).await.unwrap();
    let events = runtime.query().events().unwrap();
    assert_eq!(
        (
            events[0].run.as_deref().unwrap(),
            &events[0].event["data"]["n"]
        ),
        (run.as_str(), &json!(7))
    );
}

#[tokio::test]
async fn a_workflow_that_calls_an_unknown_connection_is_refused_with_its_line() {
    let runtime = runtime(&memory()).await;
    let error = runtime
        .define(&sources("  - a: {call: crm.upsert, with: {}}\n"))
        .unwrap_err();
    assert!(error.to_string().contains("test.yaml:3: CD0250"), "{error}");
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_nothing_is_said_to_have_begun() {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = runtime(&shared).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    store.inject(Fault::Lost);
    let refused = runtime.start(&definition, json!({"n": 1})).await;
    assert!(
        matches!(refused, Err(ref e) if e.is_storage()),
        "{refused:?}"
    );
    assert_eq!(runtime.query().runs(None, 10).unwrap(), []);
}

#[tokio::test]
async fn a_thousand_runs_side_by_side_all_end() {
    let runtime = runtime(&memory()).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    let mut runs = Vec::new();
    for n in 0..1_000 {
        runs.push(runtime.start(&definition, json!({"n": n})).await.unwrap());
    }
    for (n, run) in runs.iter().enumerate() {
        let view = runtime.wait(run).await.unwrap();
        assert_eq!(view.output.as_deref(), Some(&json!({"n": n * 2})));
    }
}

#[tokio::test]
async fn a_run_that_the_store_stops_is_told_to_whoever_waits() {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = runtime(&shared).await;
    let tasks = "  - w: {wait: {milliseconds: 200}}\n  - a: {set: {x: 1}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    store.inject(Fault::Lost);
    let told = runtime.wait(&run).await;
    assert!(matches!(told, Err(Error::Stopped { .. })), "{told:?}");
}

#[tokio::test]
async fn an_input_that_the_journal_could_not_give_back_is_refused() {
    let runtime = runtime(&memory()).await;
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    let deep = (0..101).fold(Value::Null, |inner, _| json!([inner]));
    let large = json!("x".repeat(9 << 20));
    for input in [deep, large] {
        let refused = runtime.start(&definition, input).await;
        assert!(matches!(refused, Err(Error::Input { .. })), "{refused:?}");
    }
    assert_eq!(runtime.query().runs(None, 10).unwrap(), []);
}

#[tokio::test]
async fn an_id_that_another_workflow_has_is_refused() {
    let runtime = runtime(&memory()).await;
    let mut other = sources(DOUBLE);
    other.main.text = other.main.text.replace("name: t", "name: other");
    let id = || StartOptions {
        id: Some("lead-1".into()),
        ..StartOptions::default()
    };
    let definition = runtime.define(&sources(DOUBLE)).unwrap();
    runtime
        .start_with(&definition, json!({"n": 1}), id())
        .await
        .unwrap();
    let other = runtime.define(&other).unwrap();
    let refused = runtime.start_with(&other, json!({"n": 1}), id()).await;
    assert!(
        matches!(refused, Err(Error::OtherRun { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn many_starts_of_one_id_make_one_run() {
    let runtime = runtime(&memory()).await;
    let definition = Arc::new(runtime.define(&sources(DOUBLE)).unwrap());
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..50 {
        let (runtime, definition) = (runtime.clone(), Arc::clone(&definition));
        starts.spawn(async move {
            let options = StartOptions {
                id: Some("lead-1".into()),
                ..StartOptions::default()
            };
            runtime
                .start_with(&definition, json!({"n": n}), options)
                .await
        });
    }
    while let Some(started) = starts.join_next().await {
        assert_eq!(started.unwrap().unwrap(), "lead-1");
    }
    runtime.wait("lead-1").await.unwrap();
    assert_eq!(runtime.query().runs(None, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_that_need_not_commit_does_so_all_the_same_before_it_has_held_back_too_much() {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = runtime(&shared).await;
    let tasks = "  - many:\n      for: {each: n, in: \"${ [range(300)] }\"}\n      do:\n        - w: {wait: {milliseconds: 1}}\n";
    let definition = runtime.define(&sources(tasks)).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    runtime.wait(&run).await.unwrap();
    assert!(
        store.commits() >= 3,
        "beginning, one between, end: {}",
        store.commits()
    );
}

/// Panics at one commit, as a defect of the program would.
struct Panicking {
    store: MemoryStore,
    commits_left: std::sync::atomic::AtomicI64,
}

impl JournalStore for Panicking {
    fn commit(&self, batch: cofferdam_store::Batch) -> cofferdam_store::Commit {
        let left = &self.commits_left;
        let left = left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        assert!(left != 0, "a defect, on purpose");
        self.store.commit(batch)
    }

    fn get(
        &self,
        table: cofferdam_store::Table,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, cofferdam_store::Error> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: cofferdam_store::Table,
        range: cofferdam_store::KeyRange,
        limit: usize,
    ) -> Result<cofferdam_store::Rows, cofferdam_store::Error> {
        self.store.scan(table, range, limit)
    }

    fn head(&self, run: &str) -> Result<cofferdam_store::Head, cofferdam_store::Error> {
        self.store.head(run)
    }

    fn journal(
        &self,
        run: &str,
        from_seq: u64,
        limit: usize,
    ) -> Result<cofferdam_store::Records, cofferdam_store::Error> {
        self.store.journal(run, from_seq, limit)
    }

    fn verify(&self) -> Result<cofferdam_store::Report, cofferdam_store::Error> {
        self.store.verify()
    }

    fn size_on_disk(&self) -> Result<u64, cofferdam_store::Error> {
        self.store.size_on_disk()
    }
}

#[tokio::test]
async fn a_defect_stops_one_run_and_it_goes_on_when_the_runtime_is_opened_again() {
    let store: Arc<dyn JournalStore> = Arc::new(Panicking {
        store: MemoryStore::new(),
        commits_left: 1.into(),
    });
    let first = runtime(&store).await;
    let tasks = "  - w: {wait: {milliseconds: 2100}}\n  - a: {set: {n: 1}}\n";
    let definition = first.define(&sources(tasks)).unwrap();
    let run = first.start(&definition, json!({})).await.unwrap();
    let stopped = first.wait(&run).await.unwrap_err().to_string();
    assert!(stopped.contains("CD0275"), "{stopped}");
    let other = first.define(&sources(DOUBLE)).unwrap();
    let other = first.start(&other, json!({"n": 2})).await.unwrap();
    assert_eq!(first.wait(&other).await.unwrap().status, Status::Completed);
    first.shutdown().await;
    let second = runtime(&store).await;
    let view = second.wait(&run).await.unwrap();
    assert_eq!(view.output.as_deref(), Some(&json!({"n": 1})));
    second.shutdown().await;
}
