//! Lays events into the letter boxes of those who wait for them, and lets old events go.
//!
//! One task goes through the bus in the order of the numbers. Whom an event may concern is looked
//! up: an event is asked the questions of each *shape* that filters have, and its answers are the
//! key under which those wait who want just these. So an event costs a look for each form of filter
//! and a row for each that gets it, and nothing for the others, however many wait.
//!
//! A letter has the event in it, and is written together with the dispatcher's own place: after a
//! crash events are gone through again from there, and a letter that is there already is written
//! over by itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::consume::Shape;
use cofferdam_core::expr::{Expr, Vars};
use cofferdam_store::{Batch, JournalStore, KeyRange, Table};
use serde_json::Value;

use super::bus::EVENTS_PAGE;
use super::keys::{self, EventLetter, Hash, Letter, Owner, WatchRow};
use crate::Error;
use crate::payloads::{self, delete_row, pack, put_row, unpack};
use crate::rows::{EventRow, decode, encode};
use crate::runtime::Inner;

/// Letters in one box that nobody has taken out; more are dead letters. A run that works on each
/// event for long, or that cannot go on, must not fill the store.
pub(crate) const LETTERS_MAX: usize = 10_000;
/// How many forms of filters are looked at.
const SHAPES_MAX: usize = 10_000;
/// Letters and bytes of one batch.
const BATCH_LETTERS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How many that wait are read in one go.
const PAGE: usize = 1_000;
/// The dispatcher's place is written at least after so many events; there is no need to write it
/// for events that nobody waited for.
const UNWRITTEN_MAX: u64 = 256;
/// How often old events are looked for when nothing is published, and after how many events else.
const PRUNE_EVERY: Duration = Duration::from_mins(1);
const PRUNE_AFTER: u64 = 1_000;
/// How long it waits after the store has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Compiled expressions of shapes that are kept.
const EXPRESSIONS_MAX: usize = 1_024;

/// What the dispatcher remembers.
struct Dispatcher {
    inner: Arc<Inner>,
    /// The number of the last event that was gone through, and of the last that was written.
    done_seq: u64,
    written_seq: u64,
    /// Whether what was gone through may not have been written.
    is_lost: bool,
    pruned_seq: u64,
    expressions: HashMap<String, Option<Expr>>,
    batch: Batch,
    letters: usize,
    bytes: usize,
    /// Payloads in the batch.
    carried: HashSet<payloads::Hash>,
    /// Who has letters in the batch, once for each, and once for all.
    laid: Vec<Owner>,
    wake: BTreeSet<Owner>,
}

/// Runs until the runtime shuts down.
pub(crate) async fn dispatch(inner: Arc<Inner>) {
    let done_seq = loop {
        match read_place(&*inner.store) {
            Ok(seq) => break seq,
            Err(error) => tracing::error!(%error, "events wait to be dispatched"),
        }
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    };
    let mut dispatcher = Dispatcher {
        inner: Arc::clone(&inner),
        done_seq,
        written_seq: done_seq,
        is_lost: false,
        pruned_seq: 0,
        expressions: HashMap::new(),
        batch: Batch::new(),
        letters: 0,
        bytes: 0,
        carried: HashSet::new(),
        laid: Vec::new(),
        wake: BTreeSet::new(),
    };
    loop {
        let nap = match dispatcher.go_on().await {
            Ok(true) => continue,
            Ok(false) => PRUNE_EVERY,
            Err(error) => {
                tracing::error!(%error, "events wait to be dispatched");
                dispatcher.forget();
                AGAIN_AFTER
            }
        };
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.bus.published.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// The number of the last event that was dispatched.
fn read_place(store: &dyn JournalStore) -> Result<u64, Error> {
    match store.get(Table::Cursor, &keys::DISPATCH)? {
        None => Ok(0),
        Some(bytes) => keys::seq_of("cursor", &bytes),
    }
}

impl Dispatcher {
    /// Goes through some events; whether there may be more.
    async fn go_on(&mut self) -> Result<bool, Error> {
        if self.is_lost {
            self.done_seq = read_place(&*self.inner.store)?;
            self.written_seq = self.done_seq;
            self.pruned_seq = self.pruned_seq.min(self.done_seq);
            self.is_lost = false;
        }
        let from = keys::event_key(self.done_seq + 1);
        let range = KeyRange::between(from, keys::EVENTS_END);
        let store = Arc::clone(&self.inner.store);
        let rows = store.scan(Table::Event, range, EVENTS_PAGE)?;
        if rows.is_empty() || self.inner.closing.is_cancelled() {
            self.prune().await?;
            return Ok(false);
        }
        // Read after the events: whoever waits for one of them is in the store already.
        let shapes = shapes(&*store)?;
        for (key, bytes) in &rows {
            let Some(seq) = keys::parse_event_key(key) else {
                continue;
            };
            let row: EventRow = unpack(&*store, "event", "event", bytes)?;
            if let Ok(event) = CloudEvent::new(row.event) {
                self.deliver(seq, &event, &shapes).await?;
            }
            self.done_seq = seq;
        }
        if self.letters > 0 || self.done_seq - self.written_seq >= UNWRITTEN_MAX {
            let place = encode(&self.done_seq)?;
            let batch = std::mem::take(&mut self.batch);
            self.batch = batch.put(Table::Cursor, keys::DISPATCH, place);
            self.written_seq = self.done_seq;
            self.send().await?;
        }
        if self.done_seq - self.pruned_seq >= PRUNE_AFTER {
            self.prune().await?;
        }
        Ok(true)
    }

    /// Writes a letter to each that waits for the event.
    async fn deliver(
        &mut self,
        seq: u64,
        event: &CloudEvent,
        shapes: &[(Hash, Shape)],
    ) -> Result<(), Error> {
        let store = Arc::clone(&self.inner.store);
        let mut told: HashSet<Owner> = HashSet::new();
        for (id, shape) in shapes {
            let answers = shape.answers(event, &mut |source, value| self.evaluate(source, value));
            let Some(answers) = answers else { continue };
            let prefix = keys::watch_prefix(id, &answers);
            let mut range = KeyRange::prefix(prefix.clone());
            loop {
                let rows = store.scan(Table::Subscription, range, PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                range = KeyRange::prefix(prefix.clone()).after(last);
                for (_, bytes) in &rows {
                    let row: WatchRow = decode("subscription", "watch", bytes)?;
                    if seq >= row.from_seq && told.insert(row.owner.clone()) {
                        self.write(seq, event, row.owner)?;
                    }
                    if self.letters >= BATCH_LETTERS_MAX || self.bytes >= BATCH_BYTES_MAX {
                        self.send().await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, seq: u64, event: &CloudEvent, owner: Owner) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        if self.inner.letters.add(&owner) > LETTERS_MAX {
            let letter = EventLetter {
                seq,
                subscriber: owner.to_string(),
                reason: format!("{LETTERS_MAX} events wait there already"),
                event: event.to_value(),
                at_ms: self.inner.clock.now_ms(),
            };
            let key = keys::dead_key(&letter.subscriber, seq);
            self.batch = batch.put(Table::DeadLetter, key, encode(&letter)?);
        } else {
            let task = match &owner {
                Owner::Task { task, .. } => Some(task.clone()),
                Owner::Schedule { .. } => None,
            };
            let event = event.clone();
            let letter = pack(&Letter { task, seq, event }, || vec!["/event".to_owned()])?;
            let letter = letter.once(&mut self.carried);
            self.bytes += letter.len_bytes();
            let key = keys::letter_key(&owner, seq);
            self.batch = put_row(batch, Table::Subscription, key, letter);
        }
        self.letters += 1;
        self.laid.push(owner.clone());
        self.wake.insert(owner);
        Ok(())
    }

    /// Commits the batch, and then wakes those who have letters in it.
    async fn send(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.inner.store.commit(batch).await?;
        (self.letters, self.bytes) = (0, 0);
        self.carried.clear();
        self.laid.clear();
        for owner in std::mem::take(&mut self.wake) {
            match owner {
                Owner::Task { run, .. } => self.inner.has_letters(run),
                Owner::Schedule { .. } => self.inner.schedules_changed.notify_one(),
            }
        }
        Ok(())
    }

    /// What was gone through since the last commit is gone through again.
    fn forget(&mut self) {
        for owner in self.laid.drain(..) {
            self.inner.letters.take(&owner);
        }
        self.batch = Batch::new();
        (self.letters, self.bytes) = (0, 0);
        self.carried.clear();
        self.wake.clear();
        self.is_lost = true;
    }

    fn evaluate(&mut self, source: &str, value: &Value) -> Option<Value> {
        if self.expressions.len() >= EXPRESSIONS_MAX && !self.expressions.contains_key(source) {
            self.expressions.clear();
        }
        let expr = self
            .expressions
            .entry(source.to_owned())
            .or_insert_with(|| Expr::compile(source, &[]).ok());
        expr.as_ref()?.evaluate(value, &Vars::new()).ok()
    }

    /// Lets the oldest events go: beyond the number that is kept, and beyond the age.
    async fn prune(&mut self) -> Result<(), Error> {
        self.pruned_seq = self.done_seq;
        let options = *self.inner.config.events();
        let keep_from = (self.done_seq + 1).saturating_sub(options.keep_max);
        let age_ms = u64::try_from(options.keep_for.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = self.inner.clock.now_ms().saturating_sub(age_ms);
        loop {
            // The last event stays: its number says where to go on.
            let range = KeyRange::between(keys::event_key(0), keys::event_key(self.done_seq));
            let rows = self.inner.store.scan(Table::Event, range, EVENTS_PAGE)?;
            let mut batch = Batch::new();
            let mut is_old = true;
            for (key, bytes) in &rows {
                let row: EventRow = unpack(&*self.inner.store, "event", "event", bytes)?;
                let seq = keys::parse_event_key(key).unwrap_or(u64::MAX);
                is_old = seq < keep_from || row.at_ms < oldest_ms;
                if !is_old {
                    break;
                }
                batch = delete_row(batch, Table::Event, key.clone(), bytes);
                if let Ok(event) = CloudEvent::new(row.event) {
                    let identity = keys::identity_key(&keys::identity(&event));
                    batch = batch.delete(Table::Event, identity);
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.inner.store.commit(batch).await?;
            if !is_old || rows.len() < EVENTS_PAGE {
                return Ok(());
            }
        }
    }
}

/// The forms of filters that anybody has waited with.
fn shapes(store: &dyn JournalStore) -> Result<Vec<(Hash, Shape)>, Error> {
    let range = KeyRange::prefix(keys::shape_prefix());
    let rows = store.scan(Table::Subscription, range, SHAPES_MAX)?;
    rows.iter()
        .filter_map(|(key, bytes)| {
            let id = keys::parse_shape_key(key)?;
            Some(decode("subscription", "shape", bytes).map(|shape| (id, shape)))
        })
        .collect()
}

/// Takes forms of filters out that nobody waits with any more; before anything is dispatched.
pub(crate) async fn forget_shapes(store: &dyn JournalStore) -> Result<(), Error> {
    let mut batch = Batch::new();
    for (id, _) in shapes(store)? {
        let range = KeyRange::prefix(keys::watches_prefix(&id));
        if store.scan(Table::Subscription, range, 1)?.is_empty() {
            batch = batch.delete(Table::Subscription, keys::shape_key(&id));
        }
    }
    if !batch.is_empty() {
        store.commit(batch).await?;
    }
    Ok(())
}
