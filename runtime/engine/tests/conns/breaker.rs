//! The breaker, crash strikes and counts, across restarts.

use std::sync::Arc;

use cofferdam::{BreakerConfig, BreakerSetting, OnOutage, QuarantineState, Runtime, Status};
use cofferdam_store::{JournalStore, MemoryStore};

use super::stage::*;

fn failing() -> cofferdam::Connection {
    connection("crm").with_on_outage(OnOutage::Fail)
}

/// Two calls that fail open the breaker.
async fn trip(runtime: &Runtime, service: &Service) {
    let by_then = service.seen().calls.len();
    service.fail_with(Some(down()));
    let keep = one_call(runtime, "crm.keep", "");
    for n in 0..2 {
        let id = format!("trip-{by_then}-{n}");
        assert_eq!(call(runtime, &keep, &id).await.status, Status::Faulted);
    }
    assert_eq!(state(runtime, "crm").breaker, "Open");
}

#[tokio::test]
async fn an_open_breaker_is_open_after_a_crash_at_that_very_moment() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(failing(), service.clone())]).await;
    trip(&first, &service).await;
    let crashed = store.snapshot();
    service.fail_with(None);
    let second = open(&crashed, [(failing(), service.clone())]).await;
    assert_eq!(state(&second, "crm").breaker, "Open");
    let keep = one_call(&second, "crm.keep", "");
    assert_eq!(code(&call(&second, &keep, "c").await), "breaker.open");
    assert_eq!(service.seen().calls.len(), 2);
}

#[tokio::test]
async fn the_time_while_the_process_was_down_counts() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(failing(), service.clone())]).await;
    trip(&first, &service).await;
    service.fail_with(None);
    let crashed = store.snapshot();
    let later_ms = EPOCH_MS + 2 * HOUR_MS;
    let second = open_at(&crashed, later_ms, [(failing(), service.clone())]).await;
    let keep = one_call(&second, "crm.keep", "");
    assert_eq!(call(&second, &keep, "c").await.status, Status::Completed);
}

#[tokio::test]
async fn whatever_write_is_the_last_nothing_is_parked_by_a_breaker_that_is_closed_after_it() {
    let mut parked = 0;
    for commits in 1.. {
        let (store, service) = (MemoryStore::new(), Service::new());
        store.stop_after(commits);
        let connections = || [(connection("crm"), service.clone())];
        let first = open(&store, connections()).await;
        service.fail_with(Some(down()));
        let fail = one_call(&first, "crm.keep", "onOutage: fail");
        let park = one_call(&first, "crm.keep", "");
        for (id, definition) in [("a", &fail), ("b", &fail), ("c", &park)] {
            let options = cofferdam::StartOptions {
                id: Some(id.to_owned()),
                ..Default::default()
            };
            let started = first.start_with(definition, serde_json::json!({}), options);
            if started.await.is_ok() {
                let _ = tokio::time::timeout(LONG, first.settle(id)).await.unwrap();
            }
        }
        let is_whole = !store.is_stopped();
        let second = open(&store.snapshot(), connections()).await;
        if second.query().parked("crm").unwrap() > 0 {
            parked += 1;
            assert_eq!(
                state(&second, "crm").breaker,
                "Open",
                "after {commits} writes"
            );
        }
        if is_whole {
            break;
        }
    }
    assert!(parked > 0, "no crash left anything parked");
}

#[tokio::test]
async fn what_an_operator_says_of_a_breaker_holds_until_it_is_reset_and_across_restarts() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let first = open(&store, [(failing(), service.clone())]).await;
    let forced = first.set_breaker("crm", BreakerSetting::ForceOpen).await;
    assert_eq!(forced.unwrap().breaker, "ForcedOpen");
    let crashed = store.snapshot();

    let later_ms = EPOCH_MS + 100 * HOUR_MS;
    let second = open_at(&crashed, later_ms, [(failing(), service.clone())]).await;
    let keep = one_call(&second, "crm.keep", "");
    assert_eq!(code(&call(&second, &keep, "a").await), "breaker.open");
    let disabled = second.set_breaker("crm", BreakerSetting::Disable).await;
    assert_eq!(disabled.unwrap().breaker, "Disabled");
    let crashed = crashed.snapshot();

    let third = open(&crashed, [(failing(), service.clone())]).await;
    service.fail_with(Some(down()));
    for id in ["b", "c", "d", "e"] {
        assert_eq!(code(&call(&third, &keep, id).await), "http.503");
    }
    let reset = third.set_breaker("crm", BreakerSetting::Reset).await;
    assert_eq!(reset.unwrap().breaker, "Closed");
    trip(&third, &service).await;
}

#[tokio::test]
async fn a_breaker_is_set_beside_nobody_too_and_nothing_else_is_touched() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let config = cofferdam::Config::new().with_connection(failing());
    let idle = Runtime::builder(config)
        .store(Arc::new(store.clone()) as Arc<dyn JournalStore>)
        .connector("crm", service.clone())
        .idle()
        .open()
        .await
        .unwrap();
    assert_eq!(store.commits(), 0);
    idle.set_breaker("crm", BreakerSetting::ForceOpen)
        .await
        .unwrap();
    idle.shutdown().await;
    assert_eq!(store.commits(), 1);
    let runtime = open(&store, [(failing(), service)]).await;
    assert_eq!(state(&runtime, "crm").breaker, "ForcedOpen");
    let unknown = runtime.set_breaker("crn", BreakerSetting::Reset).await;
    assert!(unknown.unwrap_err().to_string().starts_with("CD0263"));
}

#[tokio::test]
async fn crash_strikes_and_a_generation_that_is_held_outlive_the_process() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let connections = || {
        let steady = BreakerConfig {
            minimum_number_of_calls: 20,
            ..BreakerConfig::default()
        };
        [(failing().with_breaker(steady), service.clone())]
    };
    service.fail_with(Some(crash()));
    let first = open(&store, connections()).await;
    let keep = one_call(&first, "crm.keep", "");
    for id in ["a", "b"] {
        call(&first, &keep, id).await;
    }
    first.shutdown().await;
    let second = open(&store, connections()).await;
    assert_eq!(
        state(&second, "crm").quarantine,
        QuarantineState::Clear { half_strikes: 4 }
    );
    call(&second, &keep, "c").await;
    // No shutdown: it crashes with the third strike.
    let third = open(&store.snapshot(), connections()).await;
    assert_eq!(code(&call(&third, &keep, "d").await), "plugin.quarantined");
    assert_eq!(service.seen().calls.len(), 3);
}

#[tokio::test]
async fn how_many_were_parked_and_why_the_last_call_failed_are_known_after_a_restart() {
    let (store, service) = (MemoryStore::new(), Service::new());
    service.fail_with(Some(down()));
    service.telling.lock().check_fails = true;
    let connections = || [(connection("crm"), service.clone())];
    let first = open(&store, connections()).await;
    let keep = one_call(&first, "crm.keep", "");
    for id in ["a", "b"] {
        assert_eq!(call(&first, &keep, id).await.status, Status::Waiting);
    }
    first.shutdown().await;
    let second = open(&store, connections()).await;
    let state = state(&second, "crm");
    assert!(state.parked >= 2, "{state:?}");
    assert_eq!(state.parked_now, 2);
    assert!(state.last_failure.unwrap().contains("503"));
}

#[tokio::test]
async fn with_the_automatic_transition_no_call_is_needed() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let config = BreakerConfig {
        sliding_window_size: 2,
        minimum_number_of_calls: 2,
        wait_duration_in_open_state_ms: 20,
        automatic_transition_from_open_to_half_open_enabled: true,
        ..BreakerConfig::default()
    };
    let connection = failing().with_breaker(config);
    let runtime = open(&store, [(connection, service.clone())]).await;
    service.fail_with(Some(down()));
    let keep = one_call(&runtime, "crm.keep", "");
    for id in ["a", "b"] {
        call(&runtime, &keep, id).await;
    }
    until(|| state(&runtime, "crm").breaker == "HalfOpen").await;
    assert_eq!(service.seen().calls.len(), 2);
}

#[tokio::test]
async fn who_is_turned_away_by_a_breaker_is_told_why_without_holes() {
    let (store, service) = (MemoryStore::new(), Service::new());
    let runtime = open(&store, [(failing(), service.clone())]).await;
    let keep = one_call(&runtime, "crm.keep", "");
    let forced = runtime.set_breaker("crm", BreakerSetting::ForceOpen).await;
    forced.unwrap();
    let told = message(&call(&runtime, &keep, "a").await);
    assert!(
        told.contains("its breaker was forced open by an operator"),
        "{told}"
    );
    assert!(!told.contains("()"), "{told}");
    let reset = runtime.set_breaker("crm", BreakerSetting::Reset).await;
    reset.unwrap();
    trip(&runtime, &service).await;
    let told = message(&call(&runtime, &keep, "b").await);
    assert!(
        told.contains("its breaker is open (unavailable: down (http.503))"),
        "{told}"
    );
}

fn message(view: &cofferdam::RunView) -> String {
    view.error.as_ref().expect("it faulted").to_string()
}
