//! The bulkhead: waiting for a place is bounded in number and in time.

use std::time::Duration;

use cofferdam::{Bulkhead, Connection, OnOutage, Provenance, Status};
use cofferdam_host::Limits;
use cofferdam_store::MemoryStore;

use super::stage::*;

fn narrow(queue_max: usize, max_wait: Duration) -> Connection {
    let limits = Limits {
        concurrency_max: 1,
        timeout: LONG,
        ..Limits::default()
    };
    connection("crm")
        .with_limits(limits)
        .with_timeouts(LONG, LONG)
        .with_bulkhead(Bulkhead {
            queue_max,
            max_wait,
        })
}

#[tokio::test]
async fn what_finds_the_queue_full_is_turned_away_as_busy_and_uses_no_attempt() {
    let (store, crm) = (MemoryStore::new(), Service::shut());
    let connection = narrow(1, LONG).with_on_outage(OnOutage::Fail);
    let runtime = open(&store, [(connection, crm.clone())]).await;
    let keep = one_call(&runtime, "crm.keep", "");
    start(&runtime, &keep, "a").await;
    until(|| crm.seen().in_flight == 1).await;
    start(&runtime, &keep, "b").await;
    until(|| state(&runtime, "crm").queued == 1).await;
    let view = call(&runtime, &keep, "c").await;
    assert_eq!(
        (code(&view).as_str(), view.tasks[0].attempts.len()),
        ("busy", 0)
    );
    crm.gate.add_permits(10);
    for id in ["a", "b"] {
        assert_eq!(wait(&runtime, id).await.status, Status::Completed);
    }
    let state = state(&runtime, "crm");
    assert_eq!(
        (state.queued, state.in_flight, state.breaker.as_str()),
        (0, 0, "Closed")
    );
}

#[tokio::test]
async fn what_has_waited_too_long_parks_and_goes_on_when_there_is_room() {
    let (store, crm) = (MemoryStore::new(), Service::shut());
    let connection = narrow(10, Duration::from_millis(5));
    let runtime = open(&store, [(connection, crm.clone())]).await;
    let keep = one_call(&runtime, "crm.keep", "");
    start(&runtime, &keep, "a").await;
    until(|| crm.seen().in_flight == 1).await;
    let view = call(&runtime, &keep, "b").await;
    assert_eq!(view.status, Status::Waiting);
    assert!(view.tasks[0].waiting.as_ref().unwrap().contains("busy"));
    crm.gate.add_permits(10);
    for id in ["a", "b"] {
        let view = wait(&runtime, id).await;
        assert_eq!(
            (view.status, view.tasks[0].attempts.len()),
            (Status::Completed, 1)
        );
    }
}

#[tokio::test]
async fn what_finds_no_room_goes_to_the_backup() {
    let (store, crm, eu) = (MemoryStore::new(), Service::shut(), Service::new());
    let primary = narrow(0, LONG).with_backups(["crm-eu"]);
    let runtime = open(&store, [(primary, crm.clone()), (connection("crm-eu"), eu)]).await;
    let keep = one_call(&runtime, "crm.keep", "");
    start(&runtime, &keep, "a").await;
    until(|| crm.seen().in_flight == 1).await;
    let view = call(&runtime, &keep, "b").await;
    assert_eq!(view.provenance["/act"], Provenance::Backup("crm-eu".into()));
    crm.gate.add_permits(10);
    assert_eq!(
        wait(&runtime, "a").await.provenance["/act"],
        Provenance::Live
    );
}
