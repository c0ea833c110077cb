//! Lines in front of a connection that is well.

use std::time::Duration;

use cofferdam::{Bulkhead, Status};
use cofferdam_host::Limits;
use cofferdam_store::MemoryStore;

use super::stage::*;

#[tokio::test(start_paused = true)]
async fn what_ran_out_of_time_in_a_line_goes_on_along_the_ramp_once_there_is_room() {
    let (store, crm) = (MemoryStore::new(), Service::shut());
    let limits = Limits {
        concurrency_max: 4,
        timeout: LONG,
        ..Limits::default()
    };
    let crowded = connection("crm")
        .with_limits(limits)
        .with_timeouts(LONG, LONG)
        .with_bulkhead(Bulkhead {
            queue_max: 100,
            max_wait: LONG,
        });
    let runtime = open(&store, [(crowded, crm.clone())]).await;
    let patient = one_call(&runtime, "crm.keep", "");
    for n in 0..4 {
        start(&runtime, &patient, &format!("held-{n}")).await;
    }
    until(|| crm.seen().in_flight == 4).await;
    let hasty = one_call(
        &runtime,
        "crm.keep",
        "timeout: {startToClose: PT10S, scheduleToClose: PT10S}",
    );
    let runs: Vec<_> = (0..16).map(|n| format!("hasty-{n}")).collect();
    for run in &runs {
        start(&runtime, &hasty, run).await;
    }
    for run in &runs {
        let view = settle(&runtime, run).await;
        assert_eq!(view.status, Status::Waiting);
        let why = view.tasks[0].waiting.clone().unwrap();
        assert!(why.contains("scheduleToClose"), "{why}");
    }
    let begun = tokio::time::Instant::now();
    crm.telling.lock().takes = Duration::from_secs(1);
    crm.gate.add_permits(100);
    for run in &runs {
        assert_eq!(wait(&runtime, run).await.status, Status::Completed);
    }
    // One, two, and four at a time; one after the other they would take sixteen seconds.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(crm.seen().in_flight_max, 4);
}
