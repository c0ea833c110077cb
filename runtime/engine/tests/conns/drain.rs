//! What was parked goes on one by one, not all at once.

use std::time::Duration;

use cofferdam::{BreakerConfig, BreakerSetting, HealthConfig, Status};
use cofferdam_store::MemoryStore;

use super::stage::*;

/// What a parked task waits for when its connection works again while a probe of it hangs.
async fn wait_after_a_probe_that_hangs(crm: cofferdam::Connection) -> Duration {
    let (store, service) = (MemoryStore::new(), Service::new());
    let breaker = BreakerConfig {
        wait_duration_in_open_state_ms: 1_000,
        ..BreakerConfig::default()
    };
    let runtime = open(&store, [(crm.with_breaker(breaker), service.clone())]).await;
    service.fail_with(Some(down()));
    service.telling.lock().check_takes = Duration::from_hours(1);
    let keep = one_call(&runtime, "crm.keep", "");
    assert_eq!(call(&runtime, &keep, "a").await.status, Status::Waiting);
    until(|| service.seen().checks_in_flight == 1).await;
    service.fail_with(None);
    service.telling.lock().check_takes = Duration::ZERO;
    let works = tokio::time::Instant::now();
    assert_eq!(wait(&runtime, "a").await.status, Status::Completed);
    works.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up_when_a_call_would_be() {
    let crm = connection("crm").with_timeouts(Duration::from_secs(2), Duration::from_hours(1));
    let waited = wait_after_a_probe_that_hangs(crm).await;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up_when_a_health_check_would_be() {
    let health = HealthConfig {
        interval_ms: HOUR_MS,
        timeout_ms: 500,
        ..HealthConfig::default()
    };
    let waited = wait_after_a_probe_that_hangs(connection("crm").with_health(health)).await;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}

/// Tasks of one run, each of which calls by itself.
fn many(runtime: &cofferdam::Runtime, tasks: usize) -> cofferdam::Definition {
    let text = format!(
        "  - all:\n      for: {{in: \"${{ [range({tasks})] }}\"}}\n      metadata: {{cofferdam: {{maxConcurrency: {tasks}}}}}\n      do:\n        - act: {{call: crm.keep, with: {{}}}}\n"
    );
    runtime.define(&sources(&text)).unwrap()
}

#[tokio::test]
async fn of_ten_thousand_parked_tasks_never_more_go_on_at_once_than_the_ramp_allows() {
    const TASKS: usize = 10_000;
    let (store, crm) = (MemoryStore::new(), Service::new());
    crm.telling.lock().takes = Duration::from_millis(1);
    let runtime = open(&store, [(connection("crm"), crm.clone())]).await;
    let set = async |setting| runtime.set_breaker("crm", setting).await.unwrap();
    set(BreakerSetting::ForceOpen).await;
    let all = many(&runtime, TASKS);
    let view = call(&runtime, &all, "a").await;
    assert_eq!((view.status, crm.seen().calls.len()), (Status::Waiting, 0));
    assert_eq!(runtime.query().parked("crm").unwrap(), TASKS);

    set(BreakerSetting::Reset).await;
    assert_eq!(wait(&runtime, "a").await.status, Status::Completed);
    let seen = crm.seen();
    assert_eq!((seen.calls.len(), seen.ended_well), (TASKS, TASKS));
    assert!(!seen.stampede, "more in flight than had ended well before");
    assert!(
        (2..=16).contains(&seen.in_flight_max),
        "{}",
        seen.in_flight_max
    );
}

#[tokio::test]
async fn a_service_that_fails_again_while_it_is_drained_loses_nothing() {
    const TASKS: usize = 60;
    let (store, crm) = (MemoryStore::new(), Service::new());
    let quick = BreakerConfig {
        wait_duration_in_open_state_ms: 10,
        ..BreakerConfig::default()
    };
    let runtime = open(
        &store,
        [(connection("crm").with_breaker(quick), crm.clone())],
    )
    .await;
    let set = async |setting| runtime.set_breaker("crm", setting).await.unwrap();
    set(BreakerSetting::ForceOpen).await;
    let all = many(&runtime, TASKS);
    call(&runtime, &all, "a").await;
    crm.fail_with(Some(down()));
    set(BreakerSetting::Reset).await;
    until(|| crm.seen().calls.len() > 3).await;
    crm.fail_with(None);
    assert_eq!(wait(&runtime, "a").await.status, Status::Completed);
    let seen = crm.seen();
    assert_eq!(seen.ended_well, TASKS);
    assert!(seen.happened.values().all(|times| *times == 1));
}
