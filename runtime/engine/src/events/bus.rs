//! The bus: events, numbered in the order in which they become true.

use std::collections::HashSet;
use std::sync::Arc;

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::consume::Watch;
use cofferdam_store::{Batch, Commit, JournalStore, KeyRange, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::keys::{self, CursorRow, Hash, Owner, WatchRow};
use crate::Error;
use crate::payloads;
use crate::rows::{EventRow, decode, encode};
use crate::runtime::{Inner, Runtime};

/// How many events are read in one go; each may have a megabyte.
pub(crate) const EVENTS_PAGE: usize = 32;
/// How often a publisher looks what became of an event that somebody else was publishing too.
const PUBLISH_TRIES: u32 = 5;

/// What became of an event that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Its number. Numbers grow; some may be missing.
    pub seq: u64,
    /// Whether it had been published before: the event with this source and id is kept once.
    pub duplicate: bool,
}

/// Where numbers come from. A number is given and the batch handed over under one lock, so that
/// the store applies events in the order of their numbers.
pub(crate) struct Bus {
    sequence: Mutex<Sequence>,
    /// There may be something to dispatch.
    pub published: Notify,
    /// The number of the last event that is on the disk, for those who follow.
    pub last: watch::Sender<u64>,
}

struct Sequence {
    next: u64,
    /// Events and subscribers that were handed over and are not yet decided.
    pending: HashSet<Hash>,
}

/// What goes into a batch and has to be numbered, in order.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Event(Box<EventRow>),
    Watch {
        owner: Owner,
        watches: Vec<Watch>,
    },
    /// The first place of a subscriber; without a number it gets what is published from here on.
    Cursor {
        name: String,
        done_seq: Option<u64>,
        at_ms: u64,
    },
}

/// A batch on its way, with the events that are in it.
pub(crate) struct HandedOver {
    pub commit: Commit,
    pending: Vec<Hash>,
    /// The numbers of the events; none for one that was published before.
    pub seqs: Vec<Option<u64>>,
}

impl Bus {
    /// Finds the number that comes next.
    pub fn open(store: &dyn JournalStore) -> Result<Self, Error> {
        let dispatched = match store.get(Table::Cursor, &keys::DISPATCH)? {
            None => 0,
            Some(bytes) => keys::seq_of("cursor", &bytes)?,
        };
        let mut last = dispatched;
        loop {
            let range = KeyRange::between(keys::event_key(last + 1), keys::EVENTS_END);
            let rows = store.scan(Table::Event, range, EVENTS_PAGE)?;
            match rows.last().and_then(|(key, _)| keys::parse_event_key(key)) {
                Some(seq) => last = seq,
                None => break,
            }
        }
        // A batch that was refused takes its numbers with it; those who have begun to listen or to read
        // since do not wait for them, and must not miss what would get them.
        let promised = match store.get(Table::Cursor, &keys::PROMISED)? {
            None => 0,
            Some(bytes) => keys::seq_of("cursor", &bytes)?,
        };
        let sequence = Sequence {
            next: promised.max(last + 1),
            pending: HashSet::new(),
        };
        Ok(Self {
            sequence: Mutex::new(sequence),
            published: Notify::new(),
            last: watch::channel(last).0,
        })
    }

    /// The number that the next event gets.
    pub fn next_seq(&self) -> u64 {
        self.sequence.lock().next
    }

    /// Numbers what goes out and hands the batch over.
    pub fn hand_over(
        &self,
        store: &dyn JournalStore,
        mut batch: Batch,
        outgoing: Vec<Outgoing>,
    ) -> Result<HandedOver, Error> {
        let mut handed = HandedOver {
            commit: Commit::resolved(Ok(())),
            pending: Vec::new(),
            seqs: Vec::new(),
        };
        if outgoing.is_empty() {
            handed.commit = store.commit(batch);
            return Ok(handed);
        }
        let mut sequence = self.sequence.lock();
        let mut next = sequence.next;
        for outgoing in outgoing {
            match outgoing {
                Outgoing::Event(mut row) => {
                    let Ok(event) = CloudEvent::new(row.event.clone()) else {
                        continue;
                    };
                    let identity = keys::identity(&event);
                    let key = keys::identity_key(&identity);
                    let is_known = sequence.pending.contains(&identity)
                        || handed.pending.contains(&identity)
                        || store.get(Table::Event, &key)?.is_some();
                    if is_known {
                        handed.seqs.push(None);
                        continue;
                    }
                    row.seq = Some(next);
                    let packed = payloads::pack(&row, || vec!["/event".to_owned()])?;
                    batch = payloads::put_row(batch, Table::Event, keys::event_key(next), packed)
                        .put(Table::Event, key, encode(&next)?);
                    handed.pending.push(identity);
                    handed.seqs.push(Some(next));
                    next += 1;
                }
                Outgoing::Watch { owner, watches } => {
                    batch = put_watches(batch, &owner, &watches, next)?.put(
                        Table::Cursor,
                        keys::PROMISED,
                        encode(&next)?,
                    );
                }
                Outgoing::Cursor {
                    name,
                    done_seq,
                    at_ms,
                } => {
                    let (key, identity) = (keys::cursor_key(&name), keys::subscriber(&name));
                    // The first to begin says where: what it was promised would be lost.
                    if sequence.pending.contains(&identity)
                        || store.get(Table::Cursor, &key)?.is_some()
                    {
                        continue;
                    }
                    let row = CursorRow {
                        done_seq: done_seq.unwrap_or(next - 1),
                        at_ms,
                        ..CursorRow::default()
                    };
                    batch = batch.put(Table::Cursor, key, encode(&row)?).put(
                        Table::Cursor,
                        keys::PROMISED,
                        encode(&next)?,
                    );
                    handed.pending.push(identity);
                }
            }
        }
        // Numbers of a batch that the store refuses would be missing for ever.
        batch.validate()?;
        sequence.next = next;
        sequence.pending.extend(&handed.pending);
        handed.commit = store.commit(batch);
        Ok(handed)
    }

    /// The batch is durable, or refused.
    pub fn settled(&self, pending: &[Hash], seqs: &[Option<u64>], is_durable: bool) {
        if pending.is_empty() {
            return;
        }
        let mut sequence = self.sequence.lock();
        for identity in pending {
            sequence.pending.remove(identity);
        }
        drop(sequence);
        if let Some(last) = seqs.iter().flatten().max().filter(|_| is_durable) {
            self.last.send_if_modified(|known| {
                let is_newer = *last > *known;
                *known = (*known).max(*last);
                is_newer
            });
            self.published.notify_one();
        }
    }
}

/// Rows for one that waits; `from_seq` is the number of the first event that is not too old.
fn put_watches(
    mut batch: Batch,
    owner: &Owner,
    watches: &[Watch],
    from_seq: u64,
) -> Result<Batch, Error> {
    for watch in watches {
        let shape = keys::shape_id(&watch.shape)?;
        let row = WatchRow {
            owner: owner.clone(),
            from_seq,
        };
        batch = batch
            .put(
                Table::Subscription,
                keys::shape_key(&shape),
                encode(&watch.shape)?,
            )
            .put(
                Table::Subscription,
                keys::watch_key(&shape, &watch.values, owner),
                encode(&row)?,
            );
    }
    Ok(batch)
}

/// Takes the rows of one that does not wait any more out.
pub(crate) fn delete_watches(
    mut batch: Batch,
    owner: &Owner,
    watches: &[Watch],
) -> Result<Batch, Error> {
    for watch in watches {
        let shape = keys::shape_id(&watch.shape)?;
        let key = keys::watch_key(&shape, &watch.values, owner);
        batch = batch.delete(Table::Subscription, key);
    }
    Ok(batch)
}

impl HandedOver {
    /// Waits until it is on the disk. Once awaited it must not be dropped before its end.
    pub async fn settle(self, bus: &Bus) -> Result<Vec<Option<u64>>, cofferdam_store::Error> {
        let settled = self.commit.await;
        bus.settled(&self.pending, &self.seqs, settled.is_ok());
        settled.map(|()| self.seqs)
    }
}

impl Runtime {
    /// Publishes an event. When this returns, it is on the disk, and everybody who waits for it will
    /// be told, whatever happens to this process. An event with the same source and id as one
    /// that is still kept is not published again, so that a publisher that does not know whether
    /// its last attempt arrived just publishes again. Cancel-safe: the event may be published.
    ///
    /// # Errors
    /// [`Error::Store`]: the event may or may not be published; publish it again.
    pub async fn publish(&self, event: CloudEvent) -> Result<Published, Error> {
        if self.inner.closing.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        self.inner.publish(event).await
    }

    /// The same for JSON that was not checked.
    ///
    /// # Errors
    /// [`Error::Event`] says what is wrong with it; as for [`Runtime::publish`].
    pub async fn publish_json(&self, event: serde_json::Value) -> Result<Published, Error> {
        self.publish(CloudEvent::new(event)?).await
    }
}

impl Inner {
    pub(crate) async fn publish(self: &Arc<Self>, event: CloudEvent) -> Result<Published, Error> {
        let identity = keys::identity_key(&keys::identity(&event));
        for _ in 0..PUBLISH_TRIES {
            let row = EventRow {
                seq: None,
                run: None,
                task: None,
                event: event.to_value(),
                at_ms: self.clock.now_ms(),
            };
            let outgoing = vec![Outgoing::Event(Box::new(row))];
            let handed = self.bus.hand_over(&*self.store, Batch::new(), outgoing)?;
            let inner = Arc::clone(self);
            // Not on the caller's task: who stops waiting must not keep the bus from hearing.
            let settling = self
                .tasks
                .spawn(async move { handed.settle(&inner.bus).await });
            let seqs = settling
                .await
                .unwrap_or(Err(cofferdam_store::Error::Closed))?;
            if let Some(Some(seq)) = seqs.first() {
                let (seq, duplicate) = (*seq, false);
                return Ok(Published { seq, duplicate });
            }
            // What another publisher hands over at this moment may still be refused.
            self.store.commit(Batch::new()).await?;
            if let Some(bytes) = self.store.get(Table::Event, &identity)? {
                let seq = decode("event", "number", &bytes)?;
                let duplicate = true;
                return Ok(Published { seq, duplicate });
            }
        }
        Err(cofferdam_store::Error::Busy {
            commits: 1,
            bytes: 0,
        }
        .into())
    }
}
