//! What the store keeps of how a connection is: breaker, health, crash strikes, counts.
//!
//! A breaker's change is handed to the store at once, while the lock under which it was made is
//! held. The store applies what it is handed in order, so that whatever is written later because of
//! the change (a task that is parked, say) is there after a crash only if the change is. Nobody waits
//! for it. That a connection became unhealthy, or a generation is held, is handed over right after.
//! Everything else (a strike, a count) is written behind, a second later, for all connections in one
//! go.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_core::{breaker, health, quarantine};
use cofferdam_store::{Batch, JournalStore, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::Error;
use crate::connections::Slot;
use crate::rows::{decode, encode};
use crate::runtime::Inner;

/// How long changes are gathered before they are written behind.
const WRITE_BEHIND: Duration = Duration::from_secs(1);
/// Most rows in one write.
const ROWS_MAX: usize = 500;

/// How a connection was when this was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceRow {
    pub breaker: breaker::Saved,
    #[serde(default)]
    pub health: health::State,
    /// When it was last probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_ms: Option<u64>,
    /// The strikes of generations, by number.
    #[serde(default)]
    pub quarantines: Vec<(u64, quarantine::State)>,
    /// How many tasks were ever parked on it.
    #[serde(default)]
    pub parked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Where a connection writes its row, and what it wrote last.
#[derive(Default)]
pub(crate) struct Keeping {
    /// None for a runtime that writes nothing by itself.
    store: OnceLock<(Arc<dyn JournalStore>, Arc<Notify>)>,
    written: Mutex<Option<ServiceRow>>,
}

fn key(connection: &str) -> Vec<u8> {
    format!("service\0{connection}").into_bytes()
}

/// What the store knows of a connection.
///
/// # Errors
/// [`Error::Store`], [`Error::Row`].
pub(crate) fn read(
    store: &dyn JournalStore,
    connection: &str,
) -> Result<Option<ServiceRow>, Error> {
    match store.get(Table::Connection, &key(connection))? {
        None => Ok(None),
        Some(bytes) => decode("state of connection", connection, &bytes).map(Some),
    }
}

/// Adds a connection's row to a batch.
pub(crate) fn write(batch: Batch, connection: &str, row: &ServiceRow) -> Result<Batch, Error> {
    Ok(batch.put(Table::Connection, key(connection), encode(row)?))
}

impl Keeping {
    /// From here on changes are written.
    pub fn begin(&self, store: Arc<dyn JournalStore>, changed: Arc<Notify>) {
        // Only the start of a runtime gets here, once.
        let _ = self.store.set((store, changed));
    }

    /// Hands the row to the store at once. `row` is called while the order of rows is held.
    pub fn now(&self, connection: &str, row: impl FnOnce() -> ServiceRow) {
        let Some((store, changed)) = self.store.get() else {
            return;
        };
        let mut written = self.written.lock();
        let row = row();
        match write(Batch::new(), connection, &row) {
            // Dropping the commit does not cancel it. If it is refused, the write behind tries again.
            Ok(batch) => drop(store.commit(batch)),
            Err(error) => tracing::error!(connection, %error, "its state cannot be written"),
        }
        *written = None;
        drop(row);
        changed.notify_one();
    }

    /// Something changed that may be written later.
    pub fn later(&self) {
        if let Some((_, changed)) = self.store.get() {
            changed.notify_one();
        }
    }

    /// The row, if it is not the one that was written last.
    fn take_changed(&self, row: ServiceRow) -> Option<ServiceRow> {
        let mut written = self.written.lock();
        if written.as_ref() == Some(&row) {
            return None;
        }
        *written = Some(row.clone());
        Some(row)
    }

    fn forget_written(&self) {
        *self.written.lock() = None;
    }
}

/// Writes what has changed, a second after it has; until the runtime shuts down.
pub(crate) async fn write_behind(inner: Arc<Inner>, changed: Arc<Notify>) {
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = changed.notified() => {}
        }
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = tokio::time::sleep(WRITE_BEHIND) => {}
        }
        if let Err(error) = write_all(&inner).await {
            tracing::error!(%error, "how connections are could not be written");
            changed.notify_one();
        }
    }
}

/// Writes the rows of all connections that have changed.
pub(crate) async fn write_all(inner: &Inner) -> Result<(), Error> {
    let slots: Vec<&Arc<Slot>> = inner.connections.values().collect();
    for slots in slots.chunks(ROWS_MAX) {
        let mut batch = Batch::new();
        for slot in slots {
            if slot.keeping.store.get().is_none() {
                continue;
            }
            if let Some(row) = slot.keeping.take_changed(slot.service_row()) {
                batch = write(batch, &slot.name, &row)?;
            }
        }
        if batch.is_empty() {
            continue;
        }
        if let Err(error) = inner.store.commit(batch).await {
            for slot in slots {
                slot.keeping.forget_written();
            }
            return Err(error.into());
        }
    }
    Ok(())
}

impl Slot {
    /// How it is, to be kept.
    pub fn service_row(&self) -> ServiceRow {
        let breaker = self.breaker.lock().save();
        self.row_with(breaker)
    }

    pub(crate) fn row_with(&self, breaker: breaker::Saved) -> ServiceRow {
        let (health, probed_ms) = self.health.known();
        ServiceRow {
            breaker,
            health,
            probed_ms,
            quarantines: self.lineup.load().quarantines(),
            parked: self.parked_total.load(Ordering::Relaxed),
            last_failure: self.last_failure.lock().clone(),
        }
    }
}
