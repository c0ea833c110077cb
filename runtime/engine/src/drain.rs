//! Lets parked tasks go on when their connection works again.
//!
//! One task per connection. While the breaker is open it does nothing; when the wait is over it
//! asks the plugin's `check`, so that no parked task is spent as a probe. Then it wakes parked
//! tasks in growing numbers (1, 2, 4 … at most the bulkhead), and starts over with one as soon
//! as some come back parked: a backlog must not be what brings the connection down again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_store::{KeyRange, Table};

use crate::admission::{self, Admission};
use crate::connections::Slot;
use crate::rows::{parked_prefix, parse_parked_key};
use crate::runner::Message;
use crate::runtime::Inner;

/// Between two portions: long enough that the first results are in, short enough that nobody
/// waits for it.
const PORTION_PAUSE: Duration = Duration::from_millis(40);

/// The idempotency key of probes.
const PROBE_KEY: &str = "";

/// Runs until the runtime shuts down.
pub(crate) async fn drain(inner: Arc<Inner>, slot: Arc<Slot>) {
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = slot.parked.notified() => {}
        }
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = drain_once(&inner, &slot) => {}
        }
    }
}

/// Until nothing is parked on the connection.
async fn drain_once(inner: &Arc<Inner>, slot: &Arc<Slot>) {
    while has_parked(inner, slot) {
        wait_for_probe(slot).await;
        if !probe(slot).await {
            // Without a breaker that opened there is no probe time; wait as if there were.
            if slot.probe_due_ms().is_none() {
                tokio::time::sleep(Duration::from_millis(slot.wait_ms)).await;
            }
            continue;
        }
        if !ramp_up(inner, slot).await {
            tokio::time::sleep(Duration::from_millis(slot.wait_ms)).await;
        }
    }
}

fn has_parked(inner: &Inner, slot: &Slot) -> bool {
    match inner.store.scan(
        Table::Parked,
        KeyRange::prefix(parked_prefix(&slot.name)),
        1,
    ) {
        Ok(rows) => !rows.is_empty(),
        Err(error) => {
            crate::runtime::storage_failed(&error);
            false
        }
    }
}

async fn wait_for_probe(slot: &Slot) {
    while let Some(due_ms) = slot.probe_due_ms() {
        let now_ms = slot.clock.now_ms();
        if due_ms <= now_ms {
            return;
        }
        tokio::time::sleep(Duration::from_millis(due_ms - now_ms)).await;
    }
}

async fn probe(slot: &Arc<Slot>) -> bool {
    // No call has this key: the generation that serves answers, or the one on trial.
    match admission::try_admit(slot, PROBE_KEY) {
        Admission::Admitted(admitted) => admitted.check().await.is_ok(),
        Admission::Refused(_) => {
            tokio::time::sleep(PORTION_PAUSE).await;
            false
        }
        // The bulkhead is full of calls: they are probe enough.
        Admission::Full => true,
    }
}

/// Wakes parked tasks in growing portions; false if some came back parked.
async fn ramp_up(inner: &Arc<Inner>, slot: &Arc<Slot>) -> bool {
    let most = slot.concurrency_max().max(1);
    let mut portion = 1;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let before = slot.parked_total.load(Ordering::Relaxed);
        let mut range = KeyRange::prefix(parked_prefix(&slot.name));
        if let Some(key) = &after {
            range = range.after(key);
        }
        let rows = match inner.store.scan(Table::Parked, range, portion) {
            Ok(rows) => rows,
            Err(error) => {
                crate::runtime::storage_failed(&error);
                return false;
            }
        };
        if rows.is_empty() {
            // Those woken remove their rows; give them the time before looking again.
            tokio::time::sleep(PORTION_PAUSE * 5).await;
            return true;
        }
        after = rows.last().map(|(key, _)| key.clone());
        for parked in rows.iter().filter_map(|(key, _)| parse_parked_key(key)) {
            let message = Message::Recovered {
                task: parked.task,
                connection: slot.name.clone(),
            };
            inner.wake(&parked.run, message);
        }
        tokio::time::sleep(PORTION_PAUSE).await;
        let came_back = slot.parked_total.load(Ordering::Relaxed) > before;
        if came_back || slot.probe_due_ms().is_some() {
            return false;
        }
        portion = (portion * 2).min(most);
    }
}
