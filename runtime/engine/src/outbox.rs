//! Calls that tasks have left to their connection (`onOutage: queueAndForward`).
//!
//! A row per call, written in one batch with the event by which the task completed. One worker per
//! connection takes them in order, one at a time, and begins a run of its own for each, whose only
//! task makes the call under the same idempotency key. So delivery has all that a task has: it is
//! parked while the connection is out, retried, looked up, put to review if nobody knows whether it
//! happened, and kept as a dead letter with everything to redrive it. The run's id is the row's, so
//! that a crash between its beginning and the row's removal begins nothing twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam_core::run::{Deferred, Status, WaitsFor};
use cofferdam_core::workflow::{Source, Sources};
use cofferdam_store::{Batch, JournalStore, KeyRange, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::Error;
use crate::connections::Slot;
use crate::definition::Definition;
use crate::mutation::Mutation;
use crate::rows::{RunRow, decode, outbox_prefix};
use crate::runtime::{Inner, Runtime};
use crate::start::{self, StartOptions};

/// Most calls that wait in one outbox, unless the configuration says otherwise.
pub(crate) const ENTRIES_MAX: usize = 10_000;
/// How many rows are counted in one go when the runtime is opened.
const PAGE: usize = 1_000;
/// How long a worker waits after something that it cannot do anything about.
const TROUBLE: Duration = Duration::from_secs(5);
/// A definition for each action of a connection; more are compiled again.
const DEFINITIONS_MAX: usize = 100;

/// A call in an outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutboxRow {
    /// The run and the task that left it.
    pub run: String,
    pub task: String,
    pub action: String,
    pub input: Value,
    pub key: String,
    /// On whose behalf.
    #[serde(default)]
    pub tenant: String,
    /// Since when it waits, and until when delivery may be tried.
    pub at_ms: u64,
    pub until_ms: u64,
}

impl OutboxRow {
    pub fn new(of: &RunRow, task: &str, deferred: &Deferred, at_ms: u64) -> Self {
        Self {
            run: of.run.clone(),
            task: task.to_owned(),
            action: deferred.action.clone(),
            input: (*deferred.input).clone(),
            key: deferred.key.clone(),
            tenant: of.tenant.clone(),
            at_ms,
            until_ms: at_ms.saturating_add(deferred.deliver_within_ms),
        }
    }

    /// The input of the run that delivers it.
    fn run_input(&self, connection: &str, left_ms: u64) -> Value {
        json!({
            "connection": connection,
            "action": self.action,
            "input": self.input,
            "key": self.key,
            "from": {"run": self.run, "task": self.task},
            "late": left_ms == 0,
            "within": {"milliseconds": left_ms.max(1)},
        })
    }

    /// Whether a run can deliver it; what is too large or too deep for a run's input is not kept.
    pub fn fits(&self, connection: &str) -> bool {
        start::check_input(&self.run_input(connection, u64::MAX)).is_ok()
    }
}

/// How an outbox is, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxState {
    /// Calls that wait, the one that is being delivered among them.
    pub depth: usize,
    /// Since when the oldest waits, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
}

/// The outbox of one connection, as far as it is in memory.
pub(crate) struct Outbox {
    depth: AtomicUsize,
    entries_max: usize,
    pub changed: Notify,
}

impl Outbox {
    pub fn new(entries_max: usize) -> Self {
        Self {
            depth: AtomicUsize::new(0),
            entries_max,
            changed: Notify::new(),
        }
    }

    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Takes room for one; false if there is none.
    pub fn reserve(&self) -> bool {
        let grow = |depth| (depth < self.entries_max).then_some(depth + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.depth.fetch_update(set, fetch, grow).is_ok()
    }

    /// Gives the room of one back.
    pub fn release(&self) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let shrink = |depth: usize| Some(depth.saturating_sub(1));
        let _ = self.depth.fetch_update(set, fetch, shrink);
    }
}

/// How the outbox of a connection is.
pub(crate) fn state(store: &dyn JournalStore, slot: &Slot) -> OutboxState {
    let depth = slot.outbox.depth();
    let oldest = (depth > 0).then(|| head(store, slot));
    let oldest_ms = match oldest {
        Some(Ok(Some((_, row)))) => Some(row.at_ms),
        // Who asks how it is should hear the rest all the same.
        Some(Ok(None) | Err(_)) | None => None,
    };
    OutboxState { depth, oldest_ms }
}

fn head(store: &dyn JournalStore, slot: &Slot) -> Result<Option<(Vec<u8>, OutboxRow)>, Error> {
    let range = KeyRange::prefix(outbox_prefix(&slot.name));
    let Some((key, bytes)) = store.scan(Table::Outbox, range, 1)?.pop() else {
        return Ok(None);
    };
    let row = decode("outbox of connection", &slot.name, &bytes)?;
    Ok(Some((key, row)))
}

/// Counts what is in the outbox.
pub(crate) fn count(store: &dyn JournalStore, slot: &Slot) -> Result<(), Error> {
    let prefix = outbox_prefix(&slot.name);
    let (mut range, mut depth) = (KeyRange::prefix(prefix.clone()), 0);
    loop {
        let rows = store.scan(Table::Outbox, range, PAGE)?;
        let Some((last, _)) = rows.last() else { break };
        depth += rows.len();
        range = KeyRange::prefix(prefix.clone()).after(last);
    }
    slot.outbox.depth.store(depth, Ordering::Relaxed);
    Ok(())
}

/// Delivers what is in the outbox of one connection, until the runtime shuts down.
pub(crate) async fn deliver(inner: Arc<Inner>, slot: Arc<Slot>) {
    let mut worker = Worker {
        runtime: Runtime {
            inner: Arc::clone(&inner),
        },
        slot,
        definitions: HashMap::new(),
    };
    loop {
        let delivering = async {
            // What is counted may be on its way to the disk: only what is there can be delivered,
            // and who puts something there says so.
            loop {
                match worker.deliver_next().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    // Nothing is wrong: the next start goes on with it.
                    Err(Error::ShuttingDown) => std::future::pending().await,
                    Err(error) => {
                        let connection = &worker.slot.name;
                        tracing::error!(connection, %error, "the outbox waits");
                        tokio::time::sleep(TROUBLE).await;
                    }
                }
            }
            worker.slot.outbox.changed.notified().await;
        };
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = delivering => {}
        }
    }
}

struct Worker {
    runtime: Runtime,
    slot: Arc<Slot>,
    /// By action.
    definitions: HashMap<String, Definition>,
}

impl Worker {
    /// Delivers the oldest call, or what is left of its delivery; false if there is none.
    async fn deliver_next(&mut self) -> Result<bool, Error> {
        let inner = Arc::clone(&self.runtime.inner);
        let Some((key, row)) = head(&*inner.store, &self.slot)? else {
            return Ok(false);
        };
        let id = key.get(outbox_prefix(&self.slot.name).len()..);
        let id = String::from_utf8_lossy(id.unwrap_or_default());
        let run = format!("outbox-{id}");
        let left_ms = row.until_ms.saturating_sub(inner.clock.now_ms());
        let definition = match self.definition(&row.action) {
            Ok(definition) => definition,
            // The action may come back with the next generation, as long as there is time.
            Err(error) if left_ms > 0 => return Err(error),
            Err(_) => self.compile(None)?,
        };
        let input = row.run_input(&self.slot.name, left_ms);
        let options = StartOptions {
            id: Some(run.clone()),
            tenant: row.tenant.clone(),
            ..StartOptions::default()
        };
        if inner.armed.has(Mutation::EmptyOutboxFirst) {
            let gone = Batch::new().delete(Table::Outbox, key.clone());
            inner.store.commit(gone).await?;
        }
        self.runtime.start_with(&definition, input, options).await?;
        self.settled(&run).await?;
        inner
            .store
            .commit(Batch::new().delete(Table::Outbox, key))
            .await?;
        self.slot.outbox.release();
        Ok(true)
    }

    /// Waits until the run has ended, or only a person can go on with it.
    async fn settled(&self, run: &str) -> Result<(), Error> {
        let inner = &self.runtime.inner;
        loop {
            let changed = inner.waiters.changed(run);
            let view = inner.view(run)?;
            let waits = |task: &cofferdam_core::run::TaskReport| {
                task.waits_for.is_some_and(|on| on == WaitsFor::Person)
            };
            let is_a_persons = view.status == Status::Waiting && view.tasks.iter().any(waits);
            if view.status.is_final() || is_a_persons {
                return Ok(());
            }
            // Dropped by the other end only when the runtime goes.
            let _ = changed.await;
        }
    }

    fn definition(&mut self, action: &str) -> Result<Definition, Error> {
        if let Some(definition) = self.definitions.get(action) {
            return Ok(definition.clone());
        }
        let definition = self.compile(Some(action))?;
        if self.definitions.len() < DEFINITIONS_MAX {
            self.definitions
                .insert(action.to_owned(), definition.clone());
        }
        Ok(definition)
    }

    /// The workflow of a delivery. Its texts are the same for every call of one action, so that the
    /// store keeps them once.
    fn compile(&self, action: Option<&str>) -> Result<Definition, Error> {
        let late = json!({"late": {
            "if": "${ .late }",
            "raise": {"error": {
                "type": "https://open-workflow-specification.org/dsl/errors/types/timeout",
                "status": 408,
                "title": "Not delivered in time",
                "detail": "the call waited in the outbox for longer than deliverWithin; set `late` to false to deliver it all the same",
            }},
        }});
        let mut tasks = vec![late];
        if let Some(action) = action {
            tasks.push(json!({"deliver": {
                "call": format!("{}.{action}", self.slot.name),
                "with": "${ .input }",
                "timeout": {"after": "${ .within }"},
                "metadata": {"cofferdam": {
                    "idempotencyKey": "${ .key }",
                    "failover": [],
                    "onOutage": {"park": {"deadline": {"days": 3650}}},
                    "onExhausted": "deadLetter",
                }},
            }}));
        }
        if self.runtime.inner.armed.has(Mutation::LoseDelivered) {
            tasks.push(json!({"lose": {"set": {"delivered": true}}}));
        }
        let document = json!({
            "document": {
                "dsl": "1.0.3", "namespace": "cofferdam", "name": "deliver", "version": "1.0.0",
                "metadata": {"cofferdam": {"onExhausted": "deadLetter"}},
            },
            "do": tasks,
        });
        let main = Source {
            origin: format!("the outbox of `{}`", self.slot.name),
            text: document.to_string(),
        };
        let others = std::collections::BTreeMap::new();
        self.runtime.define(&Sources { main, others })
    }
}
