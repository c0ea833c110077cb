//! Lets parked tasks go on when their connection works again.
//!
//! One task per connection. While the breaker is open or the connection is unhealthy it does
//! nothing; when the wait is over it asks the plugin's `check`, so that no parked task is spent as a
//! probe. Then it wakes parked tasks along the connection's ramp: 1, 2, 4 … in flight at once, at
//! most the bulkhead and no faster than the rate limit, and one again as soon as one fails or comes
//! back parked: a backlog must not be what brings the connection down again.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::rate::Bucket;
use cofferdam_store::{Batch, KeyRange, Table};

use crate::admission::{self, Admission};
use crate::connections::Slot;
use crate::rows::{parked_prefix, parse_parked_key};
use crate::runner::Message;
use crate::runtime::Inner;

/// After something that a breaker did not see, it looks again at the latest after this long.
const NAP_MAX: Duration = Duration::from_secs(5);

/// After a read of the store has failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

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

/// Lets the breaker know when its time is over, where time alone moves it.
pub(crate) async fn keep_time(inner: Arc<Inner>, slot: Arc<Slot>) {
    loop {
        let due_ms = slot.breaker_due_ms();
        let now_ms = slot.clock.now_ms();
        let nap = Duration::from_millis(due_ms.unwrap_or(u64::MAX).saturating_sub(now_ms));
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = slot.breaker_moved.notified() => {}
            () = tokio::time::sleep(nap), if due_ms.is_some() => slot.breaker_elapsed(),
        }
    }
}

/// Until nothing is parked on the connection.
async fn drain_once(inner: &Arc<Inner>, slot: &Arc<Slot>) {
    let mut stuck: Option<Vec<u8>> = None;
    loop {
        let first = match first_parked(inner, slot) {
            Ok(Some(first)) => first,
            Ok(None) => return,
            Err(error) => {
                // Nobody else would come back for what is parked.
                crate::runtime::storage_failed(&error);
                tokio::time::sleep(STORE_PAUSE).await;
                continue;
            }
        };
        // What was woken and is still there was not wanted, or cannot be: not at full speed.
        if stuck.as_ref() == Some(&first) {
            nap(slot).await;
        }
        stuck = None;
        wait_for_probe(slot).await;
        if !probe(slot).await {
            // Without a breaker that opened there is no probe time, and one that has come does not
            // help while something else keeps calls away; wait as if there were another.
            let now_ms = slot.clock.now_ms();
            if slot.probe_due_ms().is_none_or(|due_ms| due_ms <= now_ms) {
                nap(slot).await;
            }
            continue;
        }
        if ramp_up(inner, slot).await {
            stuck = Some(first);
        } else {
            nap(slot).await;
        }
    }
}

/// As long as a breaker would wait, but not for long, or until the connection is another.
async fn nap(slot: &Slot) {
    let nap = Duration::from_millis(slot.wait_ms).min(NAP_MAX);
    tokio::select! {
        biased;
        () = slot.changed.notified() => {}
        () = tokio::time::sleep(nap) => {}
    }
}

fn first_parked(inner: &Inner, slot: &Slot) -> Result<Option<Vec<u8>>, cofferdam_store::Error> {
    let range = KeyRange::prefix(parked_prefix(&slot.name));
    let rows = inner.store.scan(Table::Parked, range, 1)?;
    Ok(rows.into_iter().next().map(|(key, _)| key))
}

async fn wait_for_probe(slot: &Slot) {
    while let Some(due_ms) = slot.probe_due_ms() {
        let now_ms = slot.clock.now_ms();
        if due_ms <= now_ms {
            return;
        }
        tokio::select! {
            biased;
            () = slot.changed.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(due_ms - now_ms)) => {}
        }
    }
}

async fn probe(slot: &Arc<Slot>) -> bool {
    // No call has this key: the generation that serves answers, or the one on trial.
    match admission::try_admit(slot, PROBE_KEY) {
        Admission::Admitted(admitted) => admitted.check().await.is_ok(),
        Admission::Refused(_) => false,
        // The bulkhead is full of calls: they are probe enough, but what is let go wants a place.
        Admission::Full(queued) => {
            let place = slot.bulkhead.acquire().await;
            drop(queued);
            place.is_ok()
        }
    }
}

/// Wakes parked tasks along the ramp; false if it has to back off.
async fn ramp_up(inner: &Arc<Inner>, slot: &Arc<Slot>) -> bool {
    let mut tempo = Pace::default();
    let mut after: Option<Vec<u8>> = None;
    slot.ramp.resume();
    loop {
        let room = slot.ramp.room().await;
        if room == 0 {
            return false;
        }
        tempo.wait(slot).await;
        // With a rate limit one at a time: each has to wait for its token.
        let portion = if slot.rate().is_some() { 1 } else { room };
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
        let Some((last, _)) = rows.last() else {
            return slot.ramp.settled().await;
        };
        after = Some(last.clone());
        for (key, _) in &rows {
            let Some(parked) = parse_parked_key(key) else {
                continue;
            };
            if is_gone(inner, &parked.run) {
                let forgotten = Batch::new().delete(Table::Parked, key.clone());
                if let Err(error) = inner.store.commit(forgotten).await {
                    crate::runtime::storage_failed(&error);
                }
                continue;
            }
            // The place first: who is let go counts as in flight.
            let place = if inner.is_held(&parked.run) {
                None
            } else {
                Some(inner.gate.place_for_woken(&parked.run).await)
            };
            let Some(leave) = slot.ramp.let_go() else {
                return false;
            };
            let message = Message::Recovered {
                task: parked.task,
                connection: slot.name.clone(),
                leave: Some(leave),
            };
            inner.spawn(parked.run, None, place, Some(message));
        }
    }
}

/// Whether the run was removed: it ended long ago, and left this behind.
fn is_gone(inner: &Inner, run: &str) -> bool {
    matches!(crate::query::row(&*inner.store, run), Ok(None))
}

/// Wakes no faster than the connection's rate limit lets calls through.
#[derive(Default)]
struct Pace {
    bucket: Bucket,
}

impl Pace {
    async fn wait(&mut self, slot: &Slot) {
        let Some(rate) = slot.rate() else { return };
        loop {
            let now_ns = slot.clock.now_ms().saturating_mul(1_000_000);
            match self.bucket.take(&rate, now_ns) {
                Ok(bucket) => {
                    self.bucket = bucket;
                    return;
                }
                Err(wait_ns) => {
                    // Rounded up: a clock of milliseconds has to see the token.
                    let nap = Duration::from_millis(wait_ns.div_ceil(1_000_000));
                    tokio::time::sleep(nap).await;
                }
            }
        }
    }
}
