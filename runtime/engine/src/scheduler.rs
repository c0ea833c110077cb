//! Wakes runs when their instant has come.
//!
//! Instants are rows of the store, so that a run that waits for a week holds no memory; only the
//! next one is looked at.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_store::{KeyRange, Table};

use crate::rows::{parse_timer_key, timer_key};
use crate::runner::Message;
use crate::runtime::Inner;

/// How many due runs are read in one go.
const PAGE: usize = 256;
/// How long it sleeps at most: a clock that was set forward is noticed after this.
const NAP_MAX: Duration = Duration::from_secs(5);
/// How long it sleeps at least, while those woken remove their rows.
const NAP_MIN: Duration = Duration::from_millis(20);

/// Runs until the runtime shuts down.
pub(crate) async fn schedule(inner: Arc<Inner>) {
    loop {
        let nap = tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            nap = wake_due(&inner) => nap,
        };
        let nap = nap.unwrap_or_else(|error| {
            crate::runtime::storage_failed(&error);
            NAP_MAX
        });
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.timers_changed.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Wakes all that are due, each when there is a place for it, and says how long it is until the
/// next.
async fn wake_due(inner: &Arc<Inner>) -> Result<Duration, cofferdam_store::Error> {
    let mut now_ms = inner.clock.now_ms();
    let mut from = Vec::new();
    loop {
        let due = KeyRange::between(from, timer_key(now_ms.saturating_add(1), ""));
        let rows = inner.store.scan(Table::Timer, due.clone(), PAGE)?;
        let Some((last, _)) = rows.last() else { break };
        from = due.after(last).start;
        for (key, _) in &rows {
            if let Some((_, run)) = parse_timer_key(key) {
                inner.wake_in_turn(run, Message::Due).await;
            }
        }
        // That may have taken its time.
        now_ms = inner.clock.now_ms();
    }
    let later = KeyRange::from(timer_key(now_ms.saturating_add(1), ""));
    let next = inner.store.scan(Table::Timer, later, 1)?;
    let next_ms = next
        .first()
        .and_then(|(key, _)| parse_timer_key(key))
        .map(|(due_ms, _)| due_ms);
    let nap = next_ms.map_or(NAP_MAX, |due_ms| {
        Duration::from_millis(due_ms.saturating_sub(now_ms))
    });
    Ok(nap.clamp(NAP_MIN, NAP_MAX))
}
