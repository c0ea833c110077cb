//! Subscribers: programs that read the bus, each from a place of its own that outlives them.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_store::{Batch, JournalStore, KeyRange, Table};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::bus::{EVENTS_PAGE, Outgoing};
use super::keys::{self, CursorRow, EventLetter};
use crate::Error;
use crate::mutation::Mutation;
use crate::payloads::unpack_row;
use crate::rows::{EventRow, decode, encode};
use crate::runtime::{Inner, Runtime};

/// Longest name of a subscriber, in bytes.
const NAME_LEN_MAX: usize = 64;
/// How many dead letters of a subscriber are told again in one go.
const AGAIN_MAX: usize = 1_000;
/// How often it looks what became of a subscriber that somebody else was beginning too.
const BEGIN_TRIES: u32 = 5;
/// Longest time between two attempts.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Where a subscriber begins that the store does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// With what is published from here on.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Oldest,
    /// With this number, or the first after it that is kept.
    Seq(u64),
}

/// How a subscriber is treated.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Where it begins if the store does not know it; else it goes on where it was.
    pub start: StartAt,
    /// How often an event is handed out before it becomes a dead letter and the next one comes;
    /// default 5.
    pub attempts_max: u32,
    /// How long after it failed an event comes again, doubled with each attempt up to a minute;
    /// default 1 s.
    pub pause: Duration,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            start: StartAt::default(),
            attempts_max: 5,
            pause: Duration::from_secs(1),
        }
    }
}

/// How far a subscriber has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberState {
    /// Its name.
    pub name: String,
    /// The number of the last event that it is done with.
    pub done_seq: u64,
    /// How many numbers are behind that; some may be missing.
    pub lag: u64,
    /// How often the event at hand was handed out.
    pub attempts: u32,
    /// How many events were let go before it came to them.
    pub missed: u64,
    /// Its dead letters.
    pub dead_letters: usize,
    /// When it last moved, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Reads the bus. Its place is in the store, by its name: a subscriber that is opened again goes on
/// with the event that it was not done with. One subscriber neither waits for another nor keeps
/// it, or a publisher, waiting.
pub struct Subscriber {
    inner: Arc<Inner>,
    name: String,
    attempts_max: u32,
    pause: Duration,
    row: CursorRow,
    last: watch::Receiver<u64>,
    /// When the event that failed may come again.
    next_at: Option<tokio::time::Instant>,
}

/// An event, handed out to a subscriber.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its number.
    pub seq: u64,
    /// The event.
    pub event: CloudEvent,
    /// 1 if it is handed out for the first time.
    pub attempt: u32,
    /// The run that published it, if one did.
    pub run: Option<String>,
    /// Whether it was a dead letter, told again.
    pub is_again: bool,
}

impl Runtime {
    /// Opens the subscriber of this name; it is on the disk before this returns. Of several that open
    /// a new one at once, the first says where it begins. Nobody else should have it open at the
    /// same time: both would get the same events. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Subscriber`] for a name that cannot be one; [`Error::Store`].
    pub async fn subscribe(
        &self,
        name: &str,
        options: SubscribeOptions,
    ) -> Result<Subscriber, Error> {
        check_name(name)?;
        let inner = Arc::clone(&self.inner);
        let last = inner.bus.last.subscribe();
        let row = place(&inner, name, options.start).await?;
        Ok(Subscriber {
            inner,
            name: name.to_owned(),
            attempts_max: options.attempts_max.max(1),
            pause: options.pause,
            row,
            last,
            next_at: None,
        })
    }

    /// Sets a subscriber back, or forward: the next event that it gets is this one, or the first
    /// after it that is kept. One that is open hears of it when it is opened again.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`]; [`Error::Store`].
    pub async fn replay(&self, name: &str, from_seq: u64) -> Result<(), Error> {
        let mut row = known(&*self.inner.store, name)?;
        row.done_seq = from_seq.saturating_sub(1);
        row.attempts = 0;
        row.at_ms = self.inner.clock.now_ms();
        write(&self.inner, name, &row, Batch::new()).await
    }

    /// Has the dead letters of a subscriber told to it again, before anything else; how many.
    /// At most 1,000 in one go.
    ///
    /// # Errors
    /// [`Error::NoSubscriber`]; [`Error::Store`].
    pub async fn replay_dead(&self, name: &str) -> Result<usize, Error> {
        known(&*self.inner.store, name)?;
        let store = &self.inner.store;
        let range = KeyRange::prefix(keys::dead_of_prefix(name));
        let rows = store.scan(Table::DeadLetter, range, AGAIN_MAX)?;
        let mut batch = Batch::new();
        for (key, bytes) in &rows {
            let letter: EventLetter = decode("dead letter", name, bytes)?;
            let row = EventRow {
                seq: Some(letter.seq),
                run: None,
                task: None,
                event: letter.event,
                at_ms: letter.at_ms,
            };
            let again = keys::again_key(name, letter.seq);
            batch = batch.delete(Table::DeadLetter, key.clone()).put(
                Table::Subscription,
                again,
                encode(&row)?,
            );
        }
        store.commit(batch).await?;
        self.inner.bus.last.send_modify(|_| {});
        Ok(rows.len())
    }
}

impl Subscriber {
    /// The next event that it is not done with; waits for one. None when the runtime shuts down.
    /// Until [`Subscriber::done`] says so, the same event comes again, and it becomes a dead letter
    /// when it was handed out too often. That it was handed out is on the disk before it is,
    /// so that an event which brings its subscriber down comes to an end too. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Lagged`], once, if events were let go before it came to them: the next call goes
    /// on with the oldest that is kept. [`Error::Store`].
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            if self.inner.closing.is_cancelled() {
                return Ok(None);
            }
            if !self.pause().await {
                return Ok(None);
            }
            self.last.mark_unchanged();
            if let Some(delivery) = self.again().await? {
                return Ok(Some(delivery));
            }
            match self.find()? {
                Some(row) => {
                    if let Some(delivery) = self.hand_out(row).await? {
                        return Ok(Some(delivery));
                    }
                }
                None => {
                    tokio::select! {
                        biased;
                        () = self.inner.closing.cancelled() => return Ok(None),
                        changed = self.last.changed() => if changed.is_err() { return Ok(None) },
                    }
                }
            }
        }
    }

    /// Says that it is done with an event, which does not come again. When this returns, that is on
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Store`]: the event may come again.
    pub async fn done(&mut self, delivery: &Delivery) -> Result<(), Error> {
        self.next_at = None;
        if delivery.is_again {
            let key = keys::again_key(&self.name, delivery.seq);
            let batch = Batch::new().delete(Table::Subscription, key);
            return Ok(self.inner.store.commit(batch).await?);
        }
        if delivery.seq <= self.row.done_seq {
            return Ok(());
        }
        self.move_to(delivery.seq, Batch::new()).await
    }

    /// Says that it could not deal with an event: it comes again after a pause, which grows, or
    /// becomes a dead letter if it was its last attempt.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn failed(&mut self, delivery: &Delivery, reason: &str) -> Result<(), Error> {
        if delivery.attempt < self.attempts_max && !delivery.is_again {
            let doubled = self
                .pause
                .saturating_mul(1 << (delivery.attempt - 1).min(6));
            self.next_at = Some(tokio::time::Instant::now() + doubled.min(PAUSE_MAX));
            return Ok(());
        }
        self.give_up(delivery, reason).await
    }

    /// The name under which its place is kept.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the next attempt may be made; false when the runtime shuts down.
    async fn pause(&mut self) -> bool {
        if let Some(at) = self.next_at {
            tokio::select! {
                biased;
                () = self.inner.closing.cancelled() => return false,
                () = tokio::time::sleep_until(at) => {}
            }
            self.next_at = None;
        }
        true
    }

    /// The first dead letter that is to be told again.
    async fn again(&mut self) -> Result<Option<Delivery>, Error> {
        let range = KeyRange::prefix(keys::again_prefix(&self.name));
        let rows = self.inner.store.scan(Table::Subscription, range, 1)?;
        let Some((_, bytes)) = rows.first() else {
            return Ok(None);
        };
        let row: EventRow = decode("event", &self.name, bytes)?;
        // What was read may not be on the disk yet, and leaves here.
        self.inner.store.commit(Batch::new()).await?;
        Ok(Some(Delivery {
            seq: row.seq.unwrap_or_default(),
            event: CloudEvent::new(row.event)?,
            attempt: 1,
            run: row.run,
            is_again: true,
        }))
    }

    /// The first event behind its place.
    fn find(&mut self) -> Result<Option<EventRow>, Error> {
        let from = keys::event_key(self.row.done_seq + 1);
        let range = KeyRange::between(from, keys::EVENTS_END);
        loop {
            let rows = self.inner.store.scan(Table::Event, range.clone(), 1)?;
            let Some((key, bytes)) = rows.first() else {
                return Ok(None);
            };
            // One that is let go of just now is not the first any more.
            let at = (Table::Event, key.as_slice());
            if let Some(row) = unpack_row(&*self.inner.store, "event", at, bytes)? {
                return Ok(Some(row));
            }
        }
    }

    async fn hand_out(&mut self, row: EventRow) -> Result<Option<Delivery>, Error> {
        let seq = row.seq.unwrap_or_default();
        if self.row.attempts == 0 && self.row.done_seq > 0 && seq > self.row.done_seq + 1 {
            self.notice_gap(seq).await?;
        }
        let event = CloudEvent::new(row.event)?;
        let delivery = Delivery {
            seq,
            event,
            attempt: self.row.attempts + 1,
            run: row.run,
            is_again: false,
        };
        if self.row.attempts >= self.attempts_max {
            let reason = "it was handed out as often as is allowed, and nobody was done with it";
            self.give_up(&delivery, reason).await?;
            return Ok(None);
        }
        // Counted once it is written: who stops waiting for this has been handed nothing.
        let mut row = self.row.clone();
        row.attempts += 1;
        if self.inner.armed.has(Mutation::MoveCursorFirst) {
            row.done_seq = seq;
        }
        row.at_ms = self.inner.clock.now_ms();
        write(&self.inner, &self.name, &row, Batch::new()).await?;
        self.row = row;
        Ok(Some(delivery))
    }

    /// Numbers are missing if a publisher was refused by the store, and if old events were let go.
    /// The oldest event that is kept tells which.
    async fn notice_gap(&mut self, seq: u64) -> Result<(), Error> {
        let range = KeyRange::between(keys::event_key(0), keys::EVENTS_END);
        let rows = self.inner.store.scan(Table::Event, range, 1)?;
        let oldest = rows.first().and_then(|(key, _)| keys::parse_event_key(key));
        if oldest != Some(seq) {
            return Ok(());
        }
        let missed = seq - self.row.done_seq - 1;
        self.row.missed += missed;
        self.move_to(seq - 1, Batch::new()).await?;
        let name = self.name.clone();
        Err(Error::Lagged { name, missed })
    }

    async fn give_up(&mut self, delivery: &Delivery, reason: &str) -> Result<(), Error> {
        let letter = EventLetter {
            seq: delivery.seq,
            subscriber: self.name.clone(),
            reason: reason.to_owned(),
            event: delivery.event.to_value(),
            at_ms: self.inner.clock.now_ms(),
        };
        let key = keys::dead_key(&self.name, delivery.seq);
        let batch = Batch::new().put(Table::DeadLetter, key, encode(&letter)?);
        self.next_at = None;
        if delivery.is_again {
            let again = keys::again_key(&self.name, delivery.seq);
            let batch = batch.delete(Table::Subscription, again);
            return Ok(self.inner.store.commit(batch).await?);
        }
        self.move_to(delivery.seq, batch).await
    }

    async fn move_to(&mut self, done_seq: u64, batch: Batch) -> Result<(), Error> {
        let row = CursorRow {
            done_seq,
            attempts: 0,
            at_ms: self.inner.clock.now_ms(),
            missed: self.row.missed,
        };
        write(&self.inner, &self.name, &row, batch).await?;
        self.row = row;
        Ok(())
    }
}

/// Where a subscriber is, on the disk; one that the store does not know begins.
async fn place(inner: &Arc<Inner>, name: &str, start: StartAt) -> Result<CursorRow, Error> {
    for _ in 0..BEGIN_TRIES {
        if read(&*inner.store, name)?.is_none() {
            begin(inner, name, start).await?;
        }
        // What is read may come of a commit that is not on the disk yet.
        inner.store.commit(Batch::new()).await?;
        if let Some(row) = read(&*inner.store, name)? {
            return Ok(row);
        }
        // Somebody else was beginning the same one, and was refused.
    }
    Err(cofferdam_store::Error::Busy {
        commits: 1,
        bytes: 0,
    }
    .into())
}

/// Writes the first place of a subscriber, unless somebody else has done so meanwhile.
async fn begin(inner: &Arc<Inner>, name: &str, start: StartAt) -> Result<(), Error> {
    let done_seq = match start {
        StartAt::Now => None,
        StartAt::Oldest => Some(0),
        StartAt::Seq(seq) => Some(seq.saturating_sub(1)),
    };
    let cursor = Outgoing::Cursor {
        name: name.to_owned(),
        done_seq,
        at_ms: inner.clock.now_ms(),
    };
    let handed = inner
        .bus
        .hand_over(&*inner.store, Batch::new(), vec![cursor])?;
    let settling = Arc::clone(inner);
    // Not on the caller's task: who stops waiting must not keep the name for ever.
    let settled = inner
        .tasks
        .spawn(async move { handed.settle(&settling.bus).await });
    settled
        .await
        .unwrap_or(Err(cofferdam_store::Error::Closed))?;
    Ok(())
}

async fn write(inner: &Inner, name: &str, row: &CursorRow, batch: Batch) -> Result<(), Error> {
    let batch = batch.put(Table::Cursor, keys::cursor_key(name), encode(row)?);
    Ok(inner.store.commit(batch).await?)
}

fn read(store: &dyn JournalStore, name: &str) -> Result<Option<CursorRow>, Error> {
    match store.get(Table::Cursor, &keys::cursor_key(name))? {
        None => Ok(None),
        Some(bytes) => decode("subscriber", name, &bytes).map(Some),
    }
}

fn known(store: &dyn JournalStore, name: &str) -> Result<CursorRow, Error> {
    read(store, name)?.ok_or_else(|| Error::NoSubscriber {
        name: name.to_owned(),
    })
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_fine = (1..=NAME_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_fine {
        return Ok(());
    }
    Err(Error::Subscriber {
        name: name.chars().take(NAME_LEN_MAX).collect(),
    })
}

/// Every subscriber that the store knows, by name.
pub(crate) fn states(store: &dyn JournalStore) -> Result<Vec<SubscriberState>, Error> {
    let mut states = Vec::new();
    let last = last_seq(store)?;
    let mut range = KeyRange::prefix(keys::cursor_prefix());
    loop {
        let rows = store.scan(Table::Cursor, range, EVENTS_PAGE)?;
        let Some((at, _)) = rows.last() else {
            return Ok(states);
        };
        range = KeyRange::prefix(keys::cursor_prefix()).after(at);
        for (key, bytes) in &rows {
            let Some(name) = keys::parse_cursor_key(key) else {
                continue;
            };
            let row: CursorRow = decode("subscriber", name, bytes)?;
            let dead = KeyRange::prefix(keys::dead_of_prefix(name));
            states.push(SubscriberState {
                name: name.to_owned(),
                done_seq: row.done_seq,
                lag: last.saturating_sub(row.done_seq),
                attempts: row.attempts,
                missed: row.missed,
                dead_letters: store.scan(Table::DeadLetter, dead, AGAIN_MAX)?.len(),
                at_ms: row.at_ms,
            });
        }
    }
}

/// The number of the last event: found from the dispatcher's place, which is near.
pub(crate) fn last_seq(store: &dyn JournalStore) -> Result<u64, Error> {
    super::bus::Bus::open(store).map(|bus| bus.next_seq() - 1)
}
