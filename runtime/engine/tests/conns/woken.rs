//! What wakes many runs at once never holds more of them in memory than the configuration allows.

use std::sync::Arc;

use cofferdam::config::{Admission, Tenant};
use cofferdam::{
    BreakerSetting, Clock, CloudEvent, Config, Definition, Runtime, StartOptions, Status,
};
use cofferdam_store::{JournalStore, MemoryStore};
use serde_json::json;

use super::stage::*;

const RUNS: usize = 60;
const PLACES: usize = 4;

/// A runtime with a few places in memory, and a service that looks how many are taken at each call.
async fn open_few(service: &Arc<Service>) -> Runtime {
    let admission = Admission {
        runs_active_max: PLACES,
        ..Admission::default()
    };
    let config = Config::new()
        .with_admission(admission)
        .with_connection(connection("crm"));
    let store: Arc<dyn JournalStore> = Arc::new(MemoryStore::new());
    let runtime = Runtime::builder(config)
        .store(store)
        .clock(Clock::tokio(EPOCH_MS))
        .connector("crm", Arc::clone(service) as _)
        .open()
        .await
        .unwrap();
    service.telling.lock().takes = std::time::Duration::from_millis(1);
    service.watch(&runtime);
    runtime
}

/// This, and then a call.
fn then_a_call(runtime: &Runtime, first: &str) -> Definition {
    let tasks = format!("  - first: {first}\n  - act: {{call: crm.keep, with: {{}}}}\n");
    runtime.define(&sources(&tasks)).unwrap()
}

async fn begin_all(runtime: &Runtime, definition: &Definition) -> Vec<String> {
    let mut runs = Vec::new();
    for n in 0..RUNS {
        let run = start(runtime, definition, &format!("r{n}")).await;
        assert_eq!(settle(runtime, &run).await.status, Status::Waiting);
        runs.push(run);
    }
    runs
}

async fn all_end(runtime: &Runtime, service: &Service, runs: &[String]) {
    for run in runs {
        assert_eq!(wait(runtime, run).await.status, Status::Completed);
    }
    let seen = service.seen();
    assert_eq!(seen.ended_well, runs.len());
    assert!((2..=PLACES).contains(&seen.held_max), "{}", seen.held_max);
}

async fn publish(runtime: &Runtime) {
    let event = json!({"specversion": "1.0", "id": "1", "source": "/test", "type": "paid"});
    let event = CloudEvent::new(event).unwrap();
    runtime.publish(event).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn runs_that_wait_for_one_event() {
    let service = Service::new();
    let runtime = open_few(&service).await;
    let listen = then_a_call(&runtime, "{listen: {to: {one: {with: {type: paid}}}}}");
    let runs = begin_all(&runtime, &listen).await;
    publish(&runtime).await;
    all_end(&runtime, &service, &runs).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_fall_due_at_one_instant() {
    let service = Service::new();
    let runtime = open_few(&service).await;
    let sleep = then_a_call(&runtime, "{wait: {seconds: 30}}");
    let runs = begin_all(&runtime, &sleep).await;
    all_end(&runtime, &service, &runs).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_parked_on_one_connection() {
    let service = Service::new();
    let runtime = open_few(&service).await;
    let set = async |setting| runtime.set_breaker("crm", setting).await.unwrap();
    set(BreakerSetting::ForceOpen).await;
    let act = one_call(&runtime, "crm.keep", "");
    let runs = begin_all(&runtime, &act).await;
    set(BreakerSetting::Reset).await;
    all_end(&runtime, &service, &runs).await;
}

#[tokio::test(start_paused = true)]
async fn runs_with_letters_when_the_runtime_is_opened() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(connection("crm"), service.clone())]).await;
    let listen = then_a_call(&first, "{listen: {to: {one: {with: {type: paid}}}}}");
    let runs = begin_all(&first, &listen).await;
    first.shutdown().await;
    // Letters that were laid when nobody looked after them any more.
    let first = open(&store, [(connection("crm"), service.clone())]).await;
    publish(&first).await;
    drop(first);
    let store = store.snapshot();
    let runtime = open(&store, [(connection("crm"), service.clone())]).await;
    for run in &runs {
        assert_eq!(wait(&runtime, run).await.status, Status::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_woken_does_not_wait_for_the_end_of_the_queue() {
    let service = Service::new();
    let runtime = open_few(&service).await;
    let listen = then_a_call(&runtime, "{listen: {to: {one: {with: {type: paid}}}}}");
    let run = start(&runtime, &listen, "woken").await;
    assert_eq!(settle(&runtime, &run).await.status, Status::Waiting);
    let act = one_call(&runtime, "crm.keep", "");
    let mut queued = Vec::new();
    for n in 0..RUNS {
        queued.push(start(&runtime, &act, &format!("q{n}")).await);
    }
    publish(&runtime).await;
    wait(&runtime, &run).await;
    assert!(service.seen().ended_well < RUNS / 2);
    for run in queued {
        wait(&runtime, &run).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_woken_goes_on_whatever_its_tenant_has_in_memory() {
    let service = Service::shut();
    let one = Tenant {
        runs_max: 1,
        ..Tenant::default()
    };
    let admission = Admission {
        tenants: [("acme".to_owned(), one)].into(),
        ..Admission::default()
    };
    let config = Config::new()
        .with_admission(admission)
        .with_connection(connection("crm"));
    let runtime = Runtime::builder(config)
        .store(memory())
        .clock(Clock::tokio(EPOCH_MS))
        .connector("crm", Arc::clone(&service) as _)
        .open()
        .await
        .unwrap();
    let listen = then_a_call(&runtime, "{listen: {to: {one: {with: {type: paid}}}}}");
    let of_acme = |id: &str| StartOptions {
        id: Some(id.to_owned()),
        tenant: "acme".to_owned(),
        ..StartOptions::default()
    };
    for id in ["a", "b"] {
        let run = runtime.start_with(&listen, json!({}), of_acme(id)).await;
        let view = settle(&runtime, &run.unwrap()).await;
        assert_eq!(view.status, Status::Waiting);
    }
    publish(&runtime).await;
    until(|| service.seen().in_flight == 2).await;
    // One that begins has to wait for both.
    let begins = runtime.start_with(&listen, json!({}), of_acme("c")).await;
    assert_eq!(
        runtime.run(&begins.unwrap()).unwrap().status,
        Status::Queued
    );
    service.gate.add_permits(2);
    for id in ["a", "b"] {
        assert_eq!(wait(&runtime, id).await.status, Status::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_its_turn_while_many_runs_are_woken() {
    let service = Service::new();
    let runtime = open_few(&service).await;
    let sleep = then_a_call(&runtime, "{wait: {seconds: 30}}");
    let runs = begin_all(&runtime, &sleep).await;
    while service.seen().ended_well == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let act = one_call(&runtime, "crm.keep", "");
    let queued = start(&runtime, &act, "queued").await;
    wait(&runtime, &queued).await;
    assert!(service.seen().ended_well < RUNS / 2);
    for run in runs {
        wait(&runtime, &run).await;
    }
}
