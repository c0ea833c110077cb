//! Calls that are left to their connection: nothing lost, nothing doubled, in order.

use cofferdam::{BreakerSetting, Provenance, Runtime, StartOptions, Status};
use cofferdam_store::{JournalStore as _, KeyRange, MemoryStore, Table};
use serde_json::json;

use super::stage::*;

const QUEUE: &str = "onOutage: queueAndForward";

async fn set(runtime: &Runtime, setting: BreakerSetting) {
    runtime.set_breaker("crm", setting).await.unwrap();
}

#[tokio::test]
async fn calls_are_kept_while_the_connection_is_out_and_delivered_in_order_under_their_keys() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let runtime = open(&store, [(connection("crm"), crm.clone())]).await;
    set(&runtime, BreakerSetting::ForceOpen).await;
    let pay = one_call(&runtime, "crm.pay", QUEUE);
    let ids = ["a", "b", "c", "d", "e"];
    for id in ids {
        let view = call(&runtime, &pay, id).await;
        assert_eq!(view.status, Status::Completed);
        assert_eq!(view.provenance["/act"], Provenance::Deferred);
        let output = json!({"deferred": true, "key": format!("{id}/act")});
        assert_eq!(
            (view.output.as_deref(), view.degraded),
            (Some(&output), true)
        );
    }
    let outbox = state(&runtime, "crm").outbox;
    assert_eq!(outbox.depth, 5);
    assert!(outbox.oldest_ms.is_some_and(|at_ms| at_ms >= EPOCH_MS));
    assert_eq!(crm.seen().calls.len(), 0);

    set(&runtime, BreakerSetting::Reset).await;
    until(|| state(&runtime, "crm").outbox.depth == 0).await;
    let seen = crm.seen();
    assert_eq!(seen.calls, ids.map(|id| format!("{id}/act")));
    assert_eq!(seen.in_flight_max, 1);
    assert_eq!(state(&runtime, "crm").outbox.oldest_ms, None);
}

/// Opens on the store as a crash left it, and waits until everything has come to its end.
async fn finish(store: &MemoryStore, crm: &std::sync::Arc<Service>) -> Vec<Status> {
    let runtime = open(store, [(connection("crm"), crm.clone())]).await;
    set(&runtime, BreakerSetting::Reset).await;
    until(|| {
        let runs = runtime.query().runs(None, 100).unwrap();
        let are_final = runs.iter().all(|run| run.status.is_final());
        are_final && state(&runtime, "crm").outbox.depth == 0
    })
    .await;
    let runs = runtime.query().runs(None, 100).unwrap();
    runtime.shutdown().await;
    runs.into_iter().map(|run| run.status).collect()
}

#[tokio::test]
async fn whatever_write_is_the_last_what_was_taken_is_delivered_exactly_once() {
    for commits in 1.. {
        let (store, crm) = (MemoryStore::new(), Service::new());
        store.stop_after(commits);
        let first = open(&store, [(connection("crm"), crm.clone())]).await;
        let _ = first.set_breaker("crm", BreakerSetting::ForceOpen).await;
        let pay = one_call(&first, "crm.pay", QUEUE);
        let options = StartOptions {
            id: Some("a".into()),
            ..Default::default()
        };
        let started = first.start_with(&pay, json!({}), options).await.is_ok();
        if started {
            let _ = tokio::time::timeout(LONG, first.settle("a")).await.unwrap();
        }
        let _ = first.set_breaker("crm", BreakerSetting::Reset).await;
        until(|| store.is_stopped() || state(&first, "crm").outbox.depth == 0).await;
        let is_whole = !store.is_stopped();
        let crashed = store.snapshot();
        let had_begun = crashed_has_run(&crashed);
        drop(first);
        let statuses = finish(&crashed, &crm).await;
        assert!(
            statuses.iter().all(|status| *status == Status::Completed),
            "after {commits} writes: {statuses:?}"
        );
        let happened = crm.seen().happened.get("a/act").copied().unwrap_or(0);
        assert_eq!(happened, u32::from(had_begun), "after {commits} writes");
        assert!(had_begun || !started, "an acknowledged run is there");
        if is_whole {
            break;
        }
    }
}

fn crashed_has_run(store: &MemoryStore) -> bool {
    !cofferdam::Query::new(store)
        .runs(None, 10)
        .unwrap()
        .is_empty()
}

#[tokio::test]
async fn what_could_not_be_delivered_in_time_is_a_dead_letter_with_all_that_is_needed() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(connection("crm"), crm.clone())]).await;
    set(&first, BreakerSetting::ForceOpen).await;
    let policy = "onOutage: {queueAndForward: {deliverWithin: PT1H}}";
    let pay = one_call(&first, "crm.pay", policy);
    for id in ["a", "b"] {
        call(&first, &pay, id).await;
    }
    // The first is being delivered already, the second waits behind it.
    until(|| first.query().runs(None, 10).unwrap().len() == 3).await;
    first.shutdown().await;
    let later_ms = EPOCH_MS + 2 * HOUR_MS;
    let second = open_at(&store, later_ms, [(connection("crm"), crm.clone())]).await;
    until(|| state(&second, "crm").outbox.depth == 0).await;
    let letters = second.query().dead_letters().unwrap();
    let keys: Vec<_> = letters.iter().map(|letter| &letter.input["key"]).collect();
    assert_eq!(keys, ["a/act", "b/act"]);
    for letter in &letters {
        assert_eq!(letter.error.status, 408);
        assert_eq!(letter.input["action"], "pay");
        assert_eq!(letter.input["connection"], "crm");
        assert!(letter.input["from"]["run"].is_string());
    }
    assert_eq!(crm.seen().calls.len(), 0);
}

#[tokio::test]
async fn a_call_is_delivered_for_the_tenant_that_it_was_left_by() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let runtime = open(&store, [(connection("crm"), crm.clone())]).await;
    set(&runtime, BreakerSetting::ForceOpen).await;
    let pay = one_call(&runtime, "crm.pay", QUEUE);
    let options = StartOptions {
        id: Some("a".into()),
        tenant: "acme".into(),
        ..StartOptions::default()
    };
    runtime.start_with(&pay, json!({}), options).await.unwrap();
    assert_eq!(wait(&runtime, "a").await.status, Status::Completed);
    set(&runtime, BreakerSetting::Reset).await;
    until(|| state(&runtime, "crm").outbox.depth == 0).await;
    assert_eq!(crm.seen().tenants, ["acme"]);
}

#[tokio::test]
async fn a_call_for_which_there_is_no_room_parks() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let small = connection("crm").with_outbox_max(1);
    let runtime = open(&store, [(small, crm.clone())]).await;
    set(&runtime, BreakerSetting::ForceOpen).await;
    let pay = one_call(&runtime, "crm.pay", QUEUE);
    assert_eq!(call(&runtime, &pay, "a").await.status, Status::Completed);
    assert_eq!(call(&runtime, &pay, "b").await.status, Status::Waiting);
    set(&runtime, BreakerSetting::Reset).await;
    assert_eq!(
        wait(&runtime, "b").await.provenance["/act"],
        Provenance::Live
    );
    until(|| crm.seen().calls.len() == 2).await;
}

#[tokio::test]
async fn a_delivery_of_which_nobody_knows_waits_for_a_person_and_holds_up_nobody() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    // One lost answer is not to open the breaker.
    let patient = connection("crm").with_breaker(cofferdam::BreakerConfig::default());
    let runtime = open(&store, [(patient, crm.clone())]).await;
    set(&runtime, BreakerSetting::ForceOpen).await;
    let post = one_call(&runtime, "crm.post", QUEUE);
    for id in ["a", "b"] {
        call(&runtime, &post, id).await;
    }
    crm.telling.lock().loses = 1;
    set(&runtime, BreakerSetting::Reset).await;
    until(|| state(&runtime, "crm").outbox.depth == 0).await;
    let reviews = runtime.query().reviews().unwrap();
    assert_eq!(reviews.len(), 1);
    let happened = crm.seen().happened;
    assert_eq!((happened["a/act"], happened["b/act"]), (1, 1));
}

#[tokio::test]
async fn a_read_cannot_be_left_to_its_connection() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let runtime = open(&store, [(connection("crm"), crm)]).await;
    let task =
        format!("  - act: {{call: crm.read, with: {{}}, metadata: {{cofferdam: {{{QUEUE}}}}}}}\n");
    let refused = runtime.define(&sources(&task)).unwrap_err().to_string();
    assert!(refused.starts_with("test.yaml:3: CD0250"), "{refused}");
}

#[tokio::test]
async fn a_connection_says_for_all_its_calls_that_they_are_kept() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    let deliver_within_ms = HOUR_MS;
    let queues = connection("crm")
        .with_on_outage(cofferdam::OnOutage::QueueAndForward { deliver_within_ms });
    let runtime = open(&store, [(queues, crm.clone())]).await;
    set(&runtime, BreakerSetting::ForceOpen).await;
    let pay = one_call(&runtime, "crm.pay", "");
    assert_eq!(call(&runtime, &pay, "a").await.status, Status::Completed);
    // Nobody could use what a read gives later.
    let read = one_call(&runtime, "crm.read", "");
    assert_eq!(call(&runtime, &read, "b").await.status, Status::Waiting);
    set(&runtime, BreakerSetting::Reset).await;
    assert_eq!(
        wait(&runtime, "b").await.provenance["/act"],
        Provenance::Live
    );
    until(|| crm.seen().happened.contains_key("a/act")).await;
}

#[tokio::test]
async fn whatever_write_is_the_last_the_depth_of_an_outbox_is_what_is_in_it() {
    let mut depths = std::collections::BTreeSet::new();
    for commits in 1.. {
        let (store, crm) = (MemoryStore::new(), Service::new());
        crm.fail_with(Some(down()));
        store.stop_after(commits);
        let first = open(&store, [(connection("crm"), crm.clone())]).await;
        let _ = first.set_breaker("crm", BreakerSetting::ForceOpen).await;
        let pay = one_call(&first, "crm.pay", QUEUE);
        for id in ["a", "b"] {
            let options = StartOptions {
                id: Some(id.into()),
                ..Default::default()
            };
            if first.start_with(&pay, json!({}), options).await.is_ok() {
                let _ = tokio::time::timeout(LONG, first.settle(id)).await.unwrap();
            }
        }
        let is_whole = !store.is_stopped();
        let crashed = store.snapshot();
        drop(first);
        let rows = crashed.scan(Table::Outbox, KeyRange::all(), 10).unwrap();
        let second = open(&crashed, [(connection("crm"), crm.clone())]).await;
        let depth = state(&second, "crm").outbox.depth;
        assert_eq!(depth, rows.len(), "after {commits} writes");
        depths.insert(depth);
        if is_whole {
            break;
        }
    }
    assert_eq!(depths, [0, 1, 2].into());
}
