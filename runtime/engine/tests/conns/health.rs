//! Health checks: who is unhealthy is left out before a request is wasted.

use std::time::Duration;

use cofferdam::{HealthConfig, OnOutage, Provenance, Status};
use cofferdam_store::MemoryStore;

use super::stage::*;

fn probed() -> HealthConfig {
    HealthConfig {
        interval_ms: 5,
        timeout_ms: 60_000,
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        slow_ms: None,
    }
}

fn health(runtime: &cofferdam::Runtime) -> String {
    state(runtime, "crm").health.unwrap()
}

#[tokio::test]
async fn calls_go_to_the_backup_while_a_connection_is_unhealthy_and_come_back_when_it_is_well() {
    let (store, crm, eu) = (MemoryStore::new(), Service::new(), Service::new());
    crm.telling.lock().check_fails = true;
    let primary = connection("crm")
        .with_health(probed())
        .with_backups(["crm-eu"]);
    let runtime = open(
        &store,
        [(primary, crm.clone()), (connection("crm-eu"), eu.clone())],
    )
    .await;
    until(|| health(&runtime) == "unhealthy").await;
    let keep = one_call(&runtime, "crm.keep", "");
    let view = call(&runtime, &keep, "a").await;
    let backup = Provenance::Backup("crm-eu".into());
    assert_eq!(view.provenance["/act"], backup);
    assert_eq!((crm.seen().calls.len(), eu.seen().calls.len()), (0, 1));
    // No request was spent, and none of the attempts.
    assert_eq!(view.tasks[0].attempts.len(), 1);

    crm.telling.lock().check_fails = false;
    until(|| health(&runtime) == "healthy").await;
    let view = call(&runtime, &keep, "b").await;
    assert_eq!(view.provenance["/act"], Provenance::Live);
    assert_eq!(crm.seen().calls.len(), 1);
}

#[tokio::test]
async fn what_is_parked_goes_on_when_the_checks_are_good_again() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    crm.telling.lock().check_fails = true;
    let primary = connection("crm").with_health(probed());
    let runtime = open(&store, [(primary, crm.clone())]).await;
    until(|| health(&runtime) == "unhealthy").await;
    let keep = one_call(&runtime, "crm.keep", "");
    let view = call(&runtime, &keep, "a").await;
    assert_eq!((view.status, crm.seen().calls.len()), (Status::Waiting, 0));
    crm.telling.lock().check_fails = false;
    assert_eq!(wait(&runtime, "a").await.status, Status::Completed);
}

#[tokio::test]
async fn an_unhealthy_connection_is_unhealthy_after_a_crash() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    crm.telling.lock().check_fails = true;
    let fails = |config| {
        connection("crm")
            .with_health(config)
            .with_on_outage(OnOutage::Fail)
    };
    let first = open(&store, [(fails(probed()), crm.clone())]).await;
    until(|| health(&first) == "unhealthy").await;
    let crashed = store.snapshot();
    crm.telling.lock().check_fails = false;
    let rarely = HealthConfig {
        interval_ms: HOUR_MS,
        ..probed()
    };
    let second = open(&crashed, [(fails(rarely), crm.clone())]).await;
    assert_eq!(health(&second), "unhealthy");
    let keep = one_call(&second, "crm.keep", "");
    assert_eq!(
        code(&call(&second, &keep, "a").await),
        "connection.unhealthy"
    );
    assert_eq!(crm.seen().calls.len(), 0);
    // Whoever does not probe it any more is not kept from calling it.
    let plain = connection("crm").with_on_outage(OnOutage::Fail);
    let third = open(&crashed.snapshot(), [(plain, crm.clone())]).await;
    assert_eq!(call(&third, &keep, "b").await.status, Status::Completed);
}

#[tokio::test]
async fn a_check_that_is_too_slow_is_a_bad_one() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    crm.telling.lock().check_takes = Duration::from_millis(30);
    let config = HealthConfig {
        slow_ms: Some(5),
        ..probed()
    };
    let runtime = open(&store, [(connection("crm").with_health(config), crm)]).await;
    until(|| health(&runtime) == "unhealthy").await;
}

#[tokio::test]
async fn however_many_connections_there_are_few_are_probed_at_once() {
    let (store, crm) = (MemoryStore::new(), Service::new());
    crm.telling.lock().check_takes = Duration::from_millis(3);
    let connections = (0..30).map(|n| {
        let connection = connection(&format!("crm-{n}")).with_health(HealthConfig {
            interval_ms: 1,
            ..probed()
        });
        (connection, crm.clone())
    });
    let runtime = open(&store, connections).await;
    until(|| crm.seen().checks > 200).await;
    assert!((2..=4).contains(&crm.seen().checks_in_flight_max));
    runtime.shutdown().await;
}
