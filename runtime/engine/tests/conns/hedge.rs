//! A second attempt that is admitted and not made: it does not leave, and it costs nothing.

use std::sync::Arc;
use std::time::Duration;

use cofferdam::{Definition, RunView, Runtime, Status};
use cofferdam_store::MemoryStore;

use super::stage::*;

/// A read with a second attempt after a second, and beside it an effect a little earlier, whose
/// intent has to be durable before anything goes on.
const BESIDE: &str = "  - both:
      fork:
        branches:
          - look: {call: crm.read, with: {}, metadata: {cofferdam: {hedge: PT1S}}}
          - keep:
              do:
                - nap: {wait: {milliseconds: 900}}
                - put: {call: pay.keep, with: {}}
";

struct Stage {
    store: MemoryStore,
    crm: Arc<Service>,
    runtime: Runtime,
    beside: Definition,
}

impl Stage {
    async fn new() -> Self {
        let (store, crm, pay) = (MemoryStore::new(), Service::shut(), Service::new());
        // Long enough for whatever leaves beside it to arrive.
        pay.telling.lock().takes = Duration::from_secs(1);
        let connections = [
            (connection("crm"), Arc::clone(&crm)),
            (connection("pay"), pay),
        ];
        let runtime = open(&store, connections).await;
        let beside = runtime.define(&sources(BESIDE)).unwrap();
        Self {
            store,
            crm,
            runtime,
            beside,
        }
    }

    /// A run whose disk is slow: by the time that the intent is durable, the instant of the second
    /// attempt has come, and so has the answer to the first.
    async fn play(&self, id: &str) -> RunView {
        let before = self.crm.seen().ended_well;
        let run = start(&self.runtime, &self.beside, id).await;
        until(|| self.crm.seen().in_flight == 1).await;
        self.store.hold();
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.crm.gate.add_permits(1);
        until(|| self.crm.seen().ended_well == before + 1).await;
        self.crm.gate.acquire().await.unwrap().forget();
        self.store.release();
        wait(&self.runtime, &run).await
    }
}

/// The second attempt was admitted, and dropped.
fn was_dropped(view: &RunView) {
    assert_eq!(view.status, Status::Completed);
    let look = view.tasks.iter().find(|task| task.task.ends_with("/look"));
    let attempts = &look.unwrap().attempts;
    let told: Vec<_> = attempts.iter().map(|a| (a.hedge, a.dropped)).collect();
    assert_eq!(told, [(false, false), (true, true)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_nobody_waits_for_any_more_does_not_leave() {
    let stage = Stage::new().await;
    was_dropped(&stage.play("a").await);
    assert_eq!(stage.crm.seen().calls.len(), 1);
    let crm = state(&stage.runtime, "crm");
    assert_eq!((crm.in_flight, crm.breaker.as_str()), (0, "Closed"));
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_did_not_leave_is_not_counted_among_a_tenth_of_the_calls() {
    let stage = Stage::new().await;
    // More than are saved up.
    for n in 0..13 {
        was_dropped(&stage.play(&n.to_string()).await);
    }
    assert_eq!(stage.crm.seen().calls.len(), 13);
}
