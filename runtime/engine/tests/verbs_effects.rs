//! What verbs mean for effects: what is done, undone and not repeated, with a restart in between.

#![allow(clippy::unwrap_used, reason = "a test whose stage cannot be set fails")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam::{
    Call, Class, Config, Connection, Connector, Definition, Descriptor, Effect, Error, Failure,
    Health, Runtime, StartOptions, Status,
};
use cofferdam_store::{JournalStore, MemoryStore};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use common::{descriptor, healthy, sources};

/// A service that counts what it is asked, with the keys and tenants; `stuck` waits for a signal.
#[derive(Default)]
struct Service {
    calls: Mutex<Vec<(String, String, String)>>,
    broken: Mutex<bool>,
    entered: Notify,
    go_on: Notify,
}

#[async_trait]
impl Connector for Service {
    fn descriptor(&self) -> Descriptor {
        let actions = ["pay", "undo", "tell", "stuck"];
        descriptor("service", &actions.map(|name| (name, Effect::Idempotent)))
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        let seen = (call.action.clone(), call.idempotency_key, call.tenant);
        self.calls.lock().push(seen);
        if call.action == "stuck" {
            self.entered.notify_one();
            self.go_on.notified().await;
        }
        if call.action == "tell" && *self.broken.lock() {
            return Err(Failure::new(Class::NotFound, "gone", "no such address"));
        }
        Ok(json!({"done": call.action}))
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(healthy())
    }
}

impl Service {
    fn asked(&self) -> Vec<String> {
        self.calls.lock().iter().map(|(a, ..)| a.clone()).collect()
    }
}

struct Stage {
    store: Arc<dyn JournalStore>,
    service: Arc<Service>,
    runtime: Runtime,
}

impl Stage {
    async fn new() -> Self {
        let store: Arc<dyn JournalStore> = Arc::new(MemoryStore::new());
        let service = Arc::new(Service::default());
        let runtime = open(&store, &service).await;
        Self {
            store,
            service,
            runtime,
        }
    }

    async fn restarted(self) -> Self {
        self.runtime.shutdown().await;
        let runtime = open(&self.store, &self.service).await;
        Self { runtime, ..self }
    }

    fn define(&self, tasks: &str) -> Definition {
        self.runtime.define(&sources(tasks)).unwrap()
    }

    async fn start(&self, tasks: &str) -> String {
        let options = StartOptions {
            id: Some("run-1".into()),
            tenant: "acme".into(),
            ..StartOptions::default()
        };
        let definition = self.define(tasks);
        let started = self.runtime.start_with(&definition, json!({}), options);
        started.await.unwrap()
    }
}

async fn open(store: &Arc<dyn JournalStore>, service: &Arc<Service>) -> Runtime {
    Runtime::builder(Config::new().with_connection(Connection::new("s", "no-such-plugin")))
        .connector("s", service.clone())
        .store(Arc::clone(store))
        .open()
        .await
        .unwrap()
}

const UNDO: &str = "metadata: {cofferdam: {compensate: {call: s.undo, with: {}}}}";

#[tokio::test]
async fn a_plugin_is_told_whose_run_it_works_for() {
    let stage = Stage::new().await;
    let run = stage.start("  - a: {call: s.tell, with: {}}\n").await;
    stage.runtime.wait(&run).await.unwrap();
    let calls = stage.service.calls.lock().clone();
    assert_eq!(calls, [("tell".into(), "run-1/a".into(), "acme".into())]);
}

#[tokio::test]
async fn cancelling_undoes_what_was_done_and_leaves_it_if_it_is_not_asked_to() {
    for compensate in [true, false] {
        let stage = Stage::new().await;
        let tasks = format!(
            "  - a: {{call: s.pay, with: {{}}, {UNDO}}}\n  - b: {{call: s.pay, with: {{}}, {UNDO}}}\n  - w: {{wait: {{hours: 1}}}}\n"
        );
        let run = stage.start(&tasks).await;
        stage.runtime.settle(&run).await.unwrap();
        let stage = stage.restarted().await;
        stage.runtime.cancel(&run, None, compensate).await.unwrap();
        let stage = stage.restarted().await;
        let view = stage.runtime.wait(&run).await.unwrap();
        assert_eq!(view.status, Status::Cancelled);
        assert_eq!(view.cancelled.unwrap().compensated, compensate);
        let keys: Vec<String> = stage.service.calls.lock()[2..]
            .iter()
            .map(|(_, key, _)| key.clone())
            .collect();
        let undone = ["run-1undo:/b", "run-1undo:/a"];
        assert_eq!(keys, if compensate { &undone[..] } else { &[] });
        stage.runtime.shutdown().await;
    }
}

#[tokio::test]
async fn an_attempt_under_way_ends_before_a_cancelled_run_undoes_it() {
    let stage = Stage::new().await;
    let run = stage
        .start(&format!("  - a: {{call: s.stuck, with: {{}}, {UNDO}}}\n"))
        .await;
    stage.service.entered.notified().await;
    stage.runtime.cancel(&run, None, true).await.unwrap();
    assert_eq!(stage.service.asked(), ["stuck"]);
    stage.service.go_on.notify_one();
    let view = stage.runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Cancelled);
    assert_eq!(stage.service.asked(), ["stuck", "undo"]);
}

#[tokio::test]
async fn a_suspended_run_lets_its_attempt_end_and_begins_no_other() {
    let stage = Stage::new().await;
    let tasks = "  - a: {call: s.stuck, with: {}}\n  - b: {call: s.tell, with: {}}\n";
    let run = stage.start(tasks).await;
    stage.service.entered.notified().await;
    stage.runtime.suspend(&run, None).await.unwrap();
    stage.service.go_on.notify_one();
    let view = stage.runtime.settle(&run).await.unwrap();
    assert_eq!(view.status, Status::Suspended);
    let stage = stage.restarted().await;
    assert_eq!(stage.service.asked(), ["stuck"]);
    stage.runtime.resume(&run).await.unwrap();
    stage.runtime.wait(&run).await.unwrap();
    assert_eq!(stage.service.asked(), ["stuck", "tell"]);
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_redrive_repeats_the_call_that_failed_under_its_key_and_no_other() {
    let stage = Stage::new().await;
    *stage.service.broken.lock() = true;
    let run = stage
        .start("  - a: {call: s.pay, with: {}}\n  - b: {call: s.tell, with: {}}\n")
        .await;
    let view = stage.runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Faulted);
    let stage = stage.restarted().await;
    *stage.service.broken.lock() = false;
    stage.runtime.redrive(&run, None).await.unwrap();
    let stage = stage.restarted().await;
    let view = stage.runtime.wait(&run).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    let keys: Vec<String> = stage
        .service
        .calls
        .lock()
        .iter()
        .map(|(_, key, _)| key.clone())
        .collect();
    assert_eq!(keys[..2], ["run-1/a", "run-1/b"]);
    // A call that the shutdown cut short is asked again under the same key.
    assert!(keys[2..].iter().all(|key| key == "run-1/b"), "{keys:?}");
    stage.runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_whose_effects_were_undone_is_restarted_instead_of_redriven() {
    let stage = Stage::new().await;
    *stage.service.broken.lock() = true;
    let tasks = format!(
        "  - a: {{call: s.pay, with: {{}}, {UNDO}}}\n  - b: {{call: s.tell, with: {{}}}}\n"
    );
    let run = stage.start(&tasks).await;
    stage.runtime.wait(&run).await.unwrap();
    let refused = stage.runtime.redrive(&run, None).await.unwrap_err();
    assert!(matches!(refused, Error::Undone { .. }), "{refused}");
    assert!(refused.to_string().contains("runs restart"), "{refused}");
    *stage.service.broken.lock() = false;
    let again = stage.runtime.restart(&run, None, None).await.unwrap();
    let view = stage.runtime.wait(&again).await.unwrap();
    assert_eq!(
        (view.status, view.tenant.as_str()),
        (Status::Completed, "acme")
    );
    assert_eq!(
        stage.service.asked(),
        ["pay", "tell", "undo", "pay", "tell"]
    );
}

#[tokio::test]
async fn a_fork_neither_repeats_nor_undoes_what_it_took_over() {
    let stage = Stage::new().await;
    let tasks = format!(
        "  - a: {{call: s.pay, with: {{}}, {UNDO}}}\n  - b: {{call: s.tell, with: {{}}}}\n"
    );
    let run = stage.start(&tasks).await;
    stage.runtime.wait(&run).await.unwrap();
    *stage.service.broken.lock() = true;
    let fork = stage.runtime.fork(&run, "/b", None).await.unwrap();
    let view = stage.runtime.wait(&fork).await.unwrap();
    assert_eq!(view.status, Status::Faulted);
    assert_eq!(stage.service.asked(), ["pay", "tell", "tell"]);
}
