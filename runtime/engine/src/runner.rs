//! Drives one run: obeys the effects of its machine and feeds back what came of them.
//!
//! The order is always the same: events go into the machine, then what must be durable is
//! committed together with the rows that depend on it, and only then does anything leave. A run
//! that waits for long leaves a row behind and ends; the scheduler, the drain or a person's
//! decision begins it again from its journal.

mod hear;
mod launch;
mod letters;
mod lifecycle;
mod obey;
mod outbox;
mod verbs;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::call::{Decision, Lookup};
use cofferdam_core::descriptor;
use cofferdam_core::failure::Failure;
use cofferdam_core::run::{Attempt, Effect, Event, Illegal, Run, Status};
use cofferdam_store::{Batch, Head, Table};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::admission::Admitted;
use crate::checkpoints::{self, Resumed, Since, Tail};
use crate::events::bus::Outgoing;
use crate::mutation::Mutation;
use crate::payloads::{self, By, Packed, Payload};
use crate::ramp::Leave;
use crate::rows::{Record, RunRow, encode, status_key, timer_key};
use crate::runtime::{Durability, Inner};
use crate::view::RunView;
use crate::{Error, queue};

pub(crate) use verbs::Verb;

/// What the rest of the runtime tells a run.
#[derive(Debug)]
pub(crate) enum Message {
    /// Its turn in the queue has come.
    Admitted,
    /// Somebody does something with it.
    Verb {
        verb: Verb,
        told: tokio::sync::oneshot::Sender<Result<(), Error>>,
    },
    /// Its instant has come.
    Due,
    /// A connection that a task is parked on works again.
    Recovered {
        task: String,
        connection: String,
        /// The drain's, to be held until the call has ended.
        leave: Option<Leave>,
    },
    /// There may be events in its letter box.
    Letters,
    /// A person decided.
    Decided {
        task: String,
        decision: Decision,
        told: tokio::sync::oneshot::Sender<Result<(), Error>>,
    },
}

/// What was under way and has ended.
enum Done {
    Admitted {
        attempt: Attempt,
        admitted: Result<Admitted, Failure>,
    },
    Called {
        ticket: u64,
        effect: descriptor::Effect,
        result: Result<Value, Failure>,
    },
    LookedUp {
        ticket: u64,
        answer: Lookup,
    },
}

/// A call that begins once its intent is durable.
enum Launch {
    Call(Attempt, Admitted),
    Lookup {
        ticket: u64,
        connection: String,
        action: String,
        key: String,
    },
}

/// How a run begins.
pub(crate) struct Begin {
    /// The first event of its journal.
    pub event: Event,
    /// Told when the run is on the disk, or cannot be; false if another caller began it.
    pub told: tokio::sync::oneshot::Sender<Result<bool, Error>>,
}

impl Launch {
    fn is_call(&self, ticket: u64) -> bool {
        matches!(self, Self::Call(attempt, _) if attempt.ticket == ticket)
    }
}

/// A run whose next instant is nearer than this stays in memory.
const NEAR_MS: u64 = 2_000;
/// Records that need not be durable yet are held back up to these; a run of reads would else grow
/// without bound, and lose all of it in a crash.
const BUFFERED_BYTES_MAX: usize = 1 << 20;
const BUFFERED_RECORDS_MAX: usize = 256;
/// A step that writes more, thousands of tasks that park at once, is written in parts of about this
/// many rows and records: a batch of the store has an end.
const PART_MAX: usize = 2_000;
const PART_BYTES_MAX: usize = 8 << 20;
/// How long calls under way may still take when the runtime shuts down.
const GRACE: Duration = Duration::from_secs(5);

/// How a run is that is there and is not held in memory.
const SET_ASIDE: [Status; 3] = [Status::Queued, Status::Waiting, Status::Suspended];

/// Places in an event as places in its record.
fn in_record(places: &[String]) -> Vec<String> {
    places
        .iter()
        .map(|place| format!("/event{place}"))
        .collect()
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each says what the next commit has to do besides"
)]
pub(crate) struct Runner {
    inner: Arc<Inner>,
    /// Set for a run that is not in the store yet.
    begin: Option<Begin>,
    run: Run,
    row: RunRow,
    head: Head,
    checkpoint: Since,
    tail: Tail,
    /// Whether the epoch has to be raised with the next commit.
    claim: bool,
    /// What the next commit holds besides records.
    batch: Batch,
    /// What the next commit holds and has to be numbered.
    outgoing: Vec<Outgoing>,
    mailbox: letters::Mailbox,
    announced: lifecycle::Announced,
    records: Vec<Vec<u8>>,
    /// What the records and rows of the next commit refer to.
    payloads: Vec<Payload>,
    must_commit: bool,
    /// Whether anything of it was made durable.
    has_committed: bool,
    effects: VecDeque<Effect>,
    launches: Vec<Launch>,
    under_way: JoinSet<Done>,
    /// Attempts under way, by ticket.
    calls: HashMap<u64, AbortHandle>,
    /// Attempts that wait for admission, by ticket.
    waits: HashMap<u64, AbortHandle>,
    /// Steps since it was looked who of these waits for nothing.
    steps_in_line: usize,
    parked: Vec<String>,
    /// Connections that calls were left to.
    deferred: Vec<String>,
    /// Of tasks that a drain has let go, until they ask for admission.
    leaves: HashMap<String, Leave>,
    told: Vec<tokio::sync::oneshot::Sender<Result<(), Error>>>,
    /// Whether the queue has to look, once this is on the disk.
    note_queue: bool,
    /// Whether the scheduler has to look, once this is on the disk.
    note_timer: bool,
    /// Whether the next commit puts runs of their own into the queue.
    begun: bool,
}

impl Runner {
    /// A run that begins. `rows` is what has to be in the store with it.
    pub fn begin(inner: Arc<Inner>, run: Run, row: RunRow, rows: Batch, begin: Begin) -> Self {
        let rows = rows.put(
            Table::RunByStatus,
            status_key(row.status, &row.run),
            Vec::new(),
        );
        Self {
            begin: Some(begin),
            batch: rows,
            // Told with its first commit, whether or not who asked for it still waits.
            note_queue: row.status == Status::Queued,
            ..Self::new(inner, run, row, Head::default())
        }
    }

    /// A run that is in the store.
    pub fn new(inner: Arc<Inner>, run: Run, row: RunRow, head: Head) -> Self {
        Self {
            inner,
            begin: None,
            run,
            row,
            head,
            checkpoint: Since::default(),
            tail: Tail::default(),
            claim: true,
            batch: Batch::new(),
            outgoing: Vec::new(),
            mailbox: letters::Mailbox::default(),
            announced: lifecycle::Announced::default(),
            records: Vec::new(),
            payloads: Vec::new(),
            must_commit: false,
            has_committed: false,
            effects: VecDeque::new(),
            launches: Vec::new(),
            under_way: JoinSet::new(),
            calls: HashMap::new(),
            waits: HashMap::new(),
            steps_in_line: 0,
            parked: Vec::new(),
            deferred: Vec::new(),
            leaves: HashMap::new(),
            told: Vec::new(),
            note_queue: false,
            note_timer: false,
            begun: false,
        }
    }

    /// A run that was read to go on.
    pub fn resumed(inner: Arc<Inner>, resumed: Resumed, row: RunRow, head: Head) -> Self {
        let mut runner = Self::new(inner, resumed.run, row, head);
        runner.checkpoint = resumed.since;
        if let Some(seq) = resumed.stands {
            runner.tail.stand(seq);
        }
        runner
    }

    /// Whom the run belongs to.
    pub fn tenant(&self) -> &str {
        &self.row.tenant
    }

    /// How the run is, once it has ended and that is on the disk; none if the journal tells more.
    pub fn ended(&self) -> Option<RunView> {
        // What it was read as may have been applied and lost with a sync that failed.
        let ended = self.has_committed && self.row.status.is_final() && !self.run.has_forgotten();
        ended.then(|| RunView::new(&self.run, &self.row))
    }

    /// Runs until the run has ended, waits for long, or the runtime shuts down.
    ///
    /// # Errors
    /// The store's: the run stops where it is and can be resumed when the store works again.
    pub async fn drive(
        &mut self,
        mailbox: &mut mpsc::UnboundedReceiver<Message>,
    ) -> Result<(), Error> {
        self.begin_to_announce();
        match self.begin.take() {
            None => {
                match self.take_pending()? {
                    None => self.take_up(),
                    Some(input) => {
                        if self.row.queued_ms.is_some() {
                            self.edit(queue::admitted);
                            self.row.queued_ms = None;
                        }
                        self.feed(Event::Begun { input });
                        // Its row goes into the batch, without the input.
                        self.set_status(Status::Running);
                        self.must_commit = true;
                    }
                }
                // Who wakes a run to suspend or cancel it comes before what the run would do.
                while let Ok(message) = mailbox.try_recv() {
                    self.take(message);
                }
            }
            Some(begin) => {
                if !self.first_commit(begin).await {
                    return Ok(());
                }
            }
        }
        loop {
            self.work().await?;
            if self.inner.closing.is_cancelled() {
                return self.close().await;
            }
            if self.row.status.is_final() {
                // What comes late still tidies up: a row of a task that was parked, say.
                while let Ok(message) = mailbox.try_recv() {
                    self.take(message);
                }
                if self.row.status.is_final() {
                    if self.mailbox.look {
                        self.read_letters()?;
                    }
                    self.commit().await?;
                    self.tell_all();
                    return Ok(());
                }
                continue;
            }
            if !self.wait(mailbox).await? {
                return Ok(());
            }
        }
    }

    /// Makes the beginning durable, with what followed from it at once; false if the run is not
    /// ours to go on with.
    async fn first_commit(&mut self, begin: Begin) -> bool {
        self.feed(begin.event);
        self.must_commit = true;
        let answer = match self.work().await {
            Ok(()) => Ok(true),
            // Somebody else began the same run meanwhile. Who asked looks for it, and is told
            // when it is on the disk.
            Err(Error::Store {
                source: cofferdam_store::Error::Stale { .. },
            }) => return false,
            Err(error) => Err(error),
        };
        // Nobody waits for the answer if the caller was cancelled; the run goes on all the same.
        let is_ours = answer.is_ok();
        let _ = begin.told.send(answer);
        is_ours
    }

    /// The input of a run that another one asked for and that has not begun.
    fn take_pending(&mut self) -> Result<Option<Value>, Error> {
        let Some(hash) = self.row.pending_payload.take() else {
            return Ok(self.row.pending.take());
        };
        payloads::fetch(&*self.inner.store, "run", &self.row.run, &hash).map(Some)
    }

    /// What a run that was read from its journal begins with.
    fn take_up(&mut self) {
        if let Some(due_ms) = self.row.due_ms.take() {
            self.edit(|batch, row| batch.delete(Table::Timer, timer_key(due_ms, &row.run)));
            self.must_commit = true;
        }
        // Reviews and parked tasks have rows, written in one batch with the event that led there.
        let again = self.run.outstanding().into_iter();
        self.effects
            .extend(again.filter(|e| !matches!(e, Effect::Park { .. } | Effect::Review { .. })));
        let lost = if self.inner.armed.has(Mutation::ForgetLost) {
            Vec::new()
        } else {
            self.run.in_flight()
        };
        for ticket in lost {
            self.feed(Event::Lost { ticket });
        }
        if SET_ASIDE.contains(&self.row.status) {
            self.set_status(Status::Running);
        }
    }

    /// Tells the machine what happened; false if it did not fit.
    fn feed(&mut self, event: Event) -> bool {
        self.try_feed(event).is_ok()
    }

    fn try_feed(&mut self, event: Event) -> Result<(), Illegal> {
        match self.tell(event) {
            Ok(()) => Ok(()),
            // A task may be gone by the time its attempt is admitted or its connection is back.
            Err(
                illegal @ (Illegal::Ticket(_)
                | Illegal::Task(_)
                | Illegal::Unheard(_)
                | Illegal::Call { .. }),
            ) => {
                tracing::debug!(run = self.row.run, %illegal, "event without a task");
                Err(illegal)
            }
            Err(
                illegal @ (Illegal::Phase { .. }
                | Illegal::NoWayOn(_)
                | Illegal::Undone
                | Illegal::Slim),
            ) => {
                tracing::debug!(run = self.row.run, %illegal, "event out of place");
                Err(illegal)
            }
        }
    }

    /// The same, and why it did not fit.
    fn tell(&mut self, event: Event) -> Result<(), Illegal> {
        let at = self.inner.clock.now_ms();
        let effects = self.run.step(event.clone(), at)?;
        // That a call begins is no outcome; it says itself if it must be on the disk before.
        let is_outcome = !matches!(event, Event::Started { .. });
        self.must_commit |= is_outcome && self.inner.durability == Durability::EveryTask;
        self.announce(&event, &effects, at);
        self.mailbox.look |= matches!(event, Event::Resumed);
        // What follows from an effect comes before the effects beside it, so that a long list of
        // them can be written in parts.
        for effect in effects.into_iter().rev() {
            self.effects.push_front(effect);
        }
        let places = event.places();
        match payloads::pack(&Record { at, event }, || in_record(&places)) {
            Ok(Packed { bytes, payloads }) => {
                self.records.push(bytes);
                self.payloads.extend(payloads);
            }
            Err(error) => tracing::error!(run = self.row.run, %error, "event lost"),
        }
        Ok(())
    }

    /// Obeys effects until none is left, commits if anything must be durable, then lets go what
    /// was waiting for that.
    async fn work(&mut self) -> Result<(), Error> {
        self.work_once().await?;
        while self.mailbox.look {
            self.read_letters()?;
            self.work_once().await?;
        }
        Ok(())
    }

    /// Nobody waits in a line for a task that is gone.
    fn leave_lines(&mut self) {
        // Thousands may wait: as many steps as they are, and it costs a step nothing that grows with
        // them. A run that has nothing else to do looks at once.
        self.steps_in_line += 1;
        if self.steps_in_line < self.waits.len() && !self.run.is_idle() {
            return;
        }
        self.steps_in_line = 0;
        let run = &self.run;
        self.waits.retain(|ticket, wait| {
            let is_open = run.is_open(*ticket);
            if !is_open {
                wait.abort();
            }
            is_open
        });
    }

    async fn work_once(&mut self) -> Result<(), Error> {
        self.leave_lines();
        while let Some(effect) = self.effects.pop_front() {
            self.obey(effect)?;
            let is_long = self.rows() > PART_MAX || self.bytes() > PART_BYTES_MAX;
            if is_long && self.is_whole() {
                self.commit().await?;
            }
        }
        if self.inner.armed.has(Mutation::TellFirst) {
            self.tell_all();
        }
        if self.inner.armed.has(Mutation::HoldBack) && self.head.next_seq > 0 {
            self.launch_all();
        }
        // With what led there: two commits would be two syncs.
        let waits = !self.mailbox.look && self.set_aside();
        if self.must_commit || self.is_full() || waits {
            self.commit().await?;
        }
        self.launch_all();
        for connection in self.parked.drain(..) {
            if let Some(slot) = self.inner.connections.get(&connection) {
                slot.parked_total
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                slot.keeping.later();
                slot.parked.notify_one();
            }
        }
        for connection in self.deferred.drain(..) {
            if let Some(slot) = self.inner.connections.get(&connection) {
                slot.outbox.changed.notify_one();
            }
        }
        if std::mem::take(&mut self.begun) {
            self.inner.gate.note_tenant(&self.row.tenant);
        }
        self.tell_all();
        Ok(())
    }

    /// Whether no more is to be held back from the journal.
    fn is_full(&self) -> bool {
        self.rows() > BUFFERED_RECORDS_MAX || self.bytes() > BUFFERED_BYTES_MAX
    }

    /// Records and rows of the next commit. An event is a row, and one for somebody who hears it.
    fn rows(&self) -> usize {
        self.records.len() + self.batch.writes.len() + 2 * self.outgoing.len()
    }

    /// Bytes of the next commit without the events, which are bounded by their number.
    fn bytes(&self) -> usize {
        let payloads = self.payloads.iter().map(Payload::len_bytes);
        let records = self.records.iter().map(Vec::len);
        records.chain(payloads).sum::<usize>() + self.batch.len_bytes()
    }

    /// What was asked for is on the disk.
    fn tell_all(&mut self) {
        for told in self.told.drain(..) {
            let _ = told.send(Ok(()));
        }
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.edit(|batch, _| batch.put(table, key, value));
        self.must_commit = true;
    }

    /// Puts a row whose large values stay for as long as the run: it may be written again and again.
    fn put_large<T: Serialize>(
        &mut self,
        table: Table,
        key: Vec<u8>,
        row: &T,
        places: &[&str],
    ) -> Result<(), Error> {
        let places = || places.iter().map(|place| (*place).to_owned()).collect();
        let Packed { bytes, payloads } = payloads::pack(row, places)?;
        self.payloads.extend(payloads);
        self.put(table, key, bytes);
        Ok(())
    }

    fn edit(&mut self, change: impl FnOnce(Batch, &RunRow) -> Batch) {
        let batch = std::mem::take(&mut self.batch);
        self.batch = change(batch, &self.row);
    }

    fn set_status(&mut self, status: Status) {
        let before = self.row.status;
        self.row.status = status;
        self.edit(|batch, row| {
            batch
                .delete(Table::RunByStatus, status_key(before, &row.run))
                .put(Table::RunByStatus, status_key(status, &row.run), Vec::new())
        });
    }

    /// Makes everything so far durable.
    async fn commit(&mut self) -> Result<(), Error> {
        self.must_commit = false;
        if self.records.is_empty() && self.batch.is_empty() && self.outgoing.is_empty() {
            return Ok(());
        }
        let changed = !self.batch.is_empty();
        let run = &self.row.run;
        // First, so that what a letter hands on to the journal is not let go of in between.
        let payloads = std::mem::take(&mut self.payloads);
        let mut batch = payloads::keep(Batch::new(), By::Run(run), payloads);
        batch
            .writes
            .append(&mut std::mem::take(&mut self.batch).writes);
        batch = batch.guard(run, self.head.epoch, self.head.next_seq);
        if self.claim {
            self.head.epoch += 1;
            batch = batch.claim(run, self.head.epoch);
            self.claim = false;
        }
        if let Some(most) = self.inner.config.records_max() {
            let definition = || self.inner.definition(&self.row.definition);
            let length = (self.head.next_seq, most);
            let store = &*self.inner.store;
            batch = self.tail.prune(store, batch, run, definition, length)?;
        }
        for record in std::mem::take(&mut self.records) {
            self.checkpoint.wrote(&record);
            batch = batch.append(run, self.head.next_seq, record);
            self.head.next_seq += 1;
        }
        let mut stands = None;
        if self.inner.checkpoints.is_due(self.checkpoint, &self.run) {
            let (seq, definition) = (self.head.next_seq, &self.row.definition);
            let since = &mut self.checkpoint;
            let (with, is_written) = checkpoints::write(batch, &self.run, seq, definition, since)?;
            batch = with;
            stands = is_written.then_some(seq);
        }
        if changed {
            batch = batch.put(Table::Run, run.as_bytes(), encode(&self.row)?);
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        let bus = &self.inner.bus;
        let handed = bus.hand_over(&*self.inner.store, batch, outgoing)?;
        handed.settle(bus).await?;
        self.has_committed = true;
        if let Some(seq) = stands {
            self.tail.stand(seq);
        }
        self.mailbox.done.clear();
        if std::mem::take(&mut self.note_queue) {
            self.inner.gate.note(&self.row);
        }
        if std::mem::take(&mut self.note_timer) {
            self.inner.timers_changed.notify_one();
        }
        Ok(())
    }

    /// The runtime shuts down: what is under way may still end, nothing begins.
    async fn close(&mut self) -> Result<(), Error> {
        let mut left = std::mem::take(&mut self.under_way);
        let ending = async {
            while let Some(done) = left.join_next().await {
                if matches!(done, Ok(Done::Called { .. } | Done::LookedUp { .. })) {
                    self.done(done);
                }
            }
        };
        let _ = tokio::time::timeout(GRACE, ending).await;
        while let Some(effect) = self.effects.pop_front() {
            if !matches!(effect, Effect::Attempt(_) | Effect::Lookup { .. }) {
                self.obey(effect)?;
            }
        }
        self.commit().await
    }
}
