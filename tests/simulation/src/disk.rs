//! A disk that fails: a [`JournalStore`] that keeps to the letter of its contract and no more.
//!
//! Batches wait, are applied (reads see them), become durable, and are acknowledged, each some time
//! after the other and in order. What was not durable when the process died is there up to a point
//! that the dice choose, and gone from there on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam_store::{
    Answer, Batch, Commit, Error, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows,
    Table, Write,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::mutation::Mutation;
use crate::tamper;
use crate::world::{State, World};

/// What survives the process.
pub(crate) struct Disk {
    pub durable: MemoryStore,
    /// Applied and not yet durable, in order.
    unflushed: VecDeque<Batch>,
}

/// How the store goes wrong with one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Refused; nothing else is affected.
    Busy,
    /// Refused as if another node had taken the run over.
    Stale,
    /// The disk fails: nobody knows what of it is there, and the store takes nothing more.
    Io,
}

/// Batches that become durable together.
const GROUP_MAX: u64 = 4;

impl Disk {
    pub fn new() -> Self {
        Self {
            durable: MemoryStore::new(),
            unflushed: VecDeque::new(),
        }
    }
}

impl State {
    /// The process is gone: so many of the batches that were not durable are there after all, none
    /// after one that is not.
    pub fn lose_what_was_not_durable(&mut self) {
        let total = self.disk.unflushed.len() as u64;
        let kept = self.dice.range(0..=total);
        if total > 0 {
            self.note("", &format!("disk: {kept} of {total} batches were written"));
        }
        for _ in 0..kept {
            self.flush_one();
        }
        self.disk.unflushed.clear();
    }

    fn flush_one(&mut self) {
        let Some(batch) = self.disk.unflushed.pop_front() else {
            return;
        };
        match self.disk.durable.commit(batch.clone()).wait() {
            Ok(()) => self.judge_durable(&batch),
            // It was applied before: the durable part is a prefix of what was.
            Err(error) => self.violated(format!("what was applied cannot be written: {error}")),
        }
    }
}

/// The store as one process sees it.
pub(crate) struct FaultyStore {
    world: Arc<World>,
    visible: MemoryStore,
    queue: mpsc::UnboundedSender<(Batch, Answer)>,
    unanswered: Mutex<Vec<Answer>>,
}

impl FaultyStore {
    /// Opens what is on the disk. To be called inside of the process's runtime.
    pub fn open(world: &Arc<World>) -> Arc<Self> {
        let visible = world.lock().disk.durable.snapshot();
        let (queue, waiting) = mpsc::unbounded_channel();
        let committer = Committer {
            world: Arc::clone(world),
            visible: visible.clone(),
            broken: AtomicBool::new(false),
        };
        tokio::spawn(committer.run(waiting));
        Arc::new(Self {
            world: Arc::clone(world),
            visible,
            queue,
            unanswered: Mutex::default(),
        })
    }

    fn read<T>(&self, what: &str, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.world.lock();
        if state.dead {
            return Err(Error::Closed);
        }
        if state.bad_luck(2) {
            state.store_fails();
            state.note("", &format!("store: reading {what} fails"));
            return Err(io());
        }
        drop(state);
        read()
    }
}

struct Committer {
    world: Arc<World>,
    visible: MemoryStore,
    /// Set when the disk has failed: it takes nothing more.
    broken: AtomicBool,
}

impl Committer {
    async fn run(self, mut waiting: mpsc::UnboundedReceiver<(Batch, Answer)>) {
        while let Some(first) = waiting.recv().await {
            let (size, before, between) = {
                let mut state = self.world.lock();
                (
                    state.dice.range(1..=GROUP_MAX),
                    state.pause(),
                    state.pause(),
                )
            };
            pause(before).await;
            let mut group = vec![first];
            while (group.len() as u64) < size
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            let mut told = Vec::new();
            for (batch, answer) in group {
                if let Some(answer) = self.apply(batch, answer) {
                    told.push(answer);
                }
            }
            if !self.world.step(|| "store: applied".to_owned()) {
                // Answers must not be dropped: that would tell that the store was closed.
                return World::never().await;
            }
            pause(between).await;
            if !self.flush() {
                return World::never().await;
            }
            let is_broken = self.broken.load(Ordering::Relaxed);
            for answer in told {
                answer.send(if is_broken { Err(io()) } else { Ok(()) });
            }
        }
    }

    /// Applies one batch; gives its answer back if it is to be told when the batch is durable.
    fn apply(&self, batch: Batch, answer: Answer) -> Option<Answer> {
        let mut state = self.world.lock();
        if self.broken.load(Ordering::Relaxed) {
            answer.send(Err(io()));
            return None;
        }
        let fault = state.fault();
        if fault.is_some() {
            state.store_fails();
        }
        match fault {
            Some(Fault::Busy) => {
                state.note("", "store: busy");
                let (commits, bytes) = (1, batch.len_bytes());
                answer.send(Err(Error::Busy { commits, bytes }));
                return None;
            }
            Some(Fault::Stale) if !batch.guards.is_empty() => {
                state.note("", "store: stale");
                answer.send(Err(stale(&batch)));
                return None;
            }
            Some(Fault::Stale | Fault::Io) | None => {}
        }
        if let Err(error) = self.visible.commit(batch.clone()).wait() {
            state.note("", &format!("store: refused: {error}"));
            answer.send(Err(error));
            return None;
        }
        state.disk.unflushed.push_back(batch);
        if fault == Some(Fault::Io) {
            state.note("", "store: the disk fails");
            // Nothing goes on until the process is started again.
            state.oracle.timing.closes();
            self.broken.store(true, Ordering::Relaxed);
            self.world.stuck.notify_one();
            answer.send(Err(io()));
            return None;
        }
        if state.is_mutated(Mutation::AcknowledgeEarly) {
            answer.send(Ok(()));
            return None;
        }
        Some(answer)
    }

    /// Makes what was applied durable; false if the process died before or after it.
    fn flush(&self) -> bool {
        if self.broken.load(Ordering::Relaxed) {
            return self.world.step(|| "store: nothing is flushed".to_owned());
        }
        if !self.world.step(|| "store: flush".to_owned()) {
            return false;
        }
        let mut state = self.world.lock();
        while !state.disk.unflushed.is_empty() {
            state.flush_one();
        }
        drop(state);
        self.world.step(|| "store: flushed".to_owned())
    }
}

impl State {
    fn store_fails(&mut self) {
        let now_ms = self.now_ms();
        self.oracle.timing.fails(now_ms);
    }

    fn fault(&mut self) -> Option<Fault> {
        if !self.bad_luck(4) {
            return None;
        }
        Some(*self.dice.pick(&[Fault::Busy, Fault::Stale, Fault::Io]))
    }

    /// How long the disk takes for one thing, in milliseconds: mostly no time at all.
    fn pause(&mut self) -> u64 {
        match self.dice.range(0..=99) {
            0..=69 => 0,
            70..=94 => self.dice.range(1..=20),
            _ => self.dice.range(20..=3_000),
        }
    }
}

async fn pause(ms: u64) {
    if ms == 0 {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn io() -> Error {
    Error::Io {
        action: "a simulated disk".to_owned(),
        detail: "bad luck".to_owned(),
    }
}

fn stale(batch: &Batch) -> Error {
    let (run, expected) = batch
        .guards
        .first()
        .map_or((String::new(), Head::default()), |guard| {
            (guard.run.clone(), guard.head())
        });
    let found = Head {
        epoch: expected.epoch + 1,
        ..expected
    };
    Error::Stale {
        run,
        expected,
        found,
    }
}

fn describe(batch: &Batch) -> String {
    let mut words: Vec<String> = Vec::new();
    for write in &batch.writes {
        words.push(match write {
            Write::Append { run, record, .. } => {
                let text = String::from_utf8_lossy(record);
                let kind = text.split("\"kind\":\"").nth(1).unwrap_or_default();
                let kind = kind.split('"').next().unwrap_or_default();
                format!("{run}+{kind}")
            }
            Write::Put { table, key, .. } | Write::PutNew { table, key, .. } => {
                format!("{table}={}", key.escape_ascii())
            }
            Write::Delete { table, key } | Write::DeleteUnreferenced { table, key, .. } => {
                format!("{table}-{}", key.escape_ascii())
            }
            Write::Claim { run, epoch } => format!("{run}@{epoch}"),
            Write::Place { run, .. } => format!("{run}^"),
            Write::Forget { run } => format!("{run}!"),
        });
    }
    words.join(" ")
}

impl JournalStore for FaultyStore {
    fn commit(&self, batch: Batch) -> Commit {
        if let Err(error) = batch.validate() {
            return Commit::resolved(Err(error));
        }
        let batch = tamper::batch(self.world.lock().mutation, batch);
        let (answer, commit) = Commit::pair();
        if !self
            .world
            .step(|| format!("store: commit {}", describe(&batch)))
        {
            // Dropped, it would tell that the store was closed; the dead hear nothing.
            self.unanswered.lock().push(answer);
            return commit;
        }
        // The committer lives as long as the process.
        let _ = self.queue.send((batch, answer));
        commit
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mutation = self.world.lock().mutation;
        let row = self.read("a row", || self.visible.get(table, key))?;
        let row = row.filter(|_| !tamper::hides_row(mutation, table));
        Ok(row.map(|bytes| tamper::row(mutation, table, bytes)))
    }

    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Result<Rows, Error> {
        let rows = self.read("rows", || self.visible.scan(table, range, limit))?;
        let state = self.world.lock();
        Ok(tamper::rows(state.mutation, table, rows, state.now_ms()))
    }

    fn head(&self, run: &str) -> Result<Head, Error> {
        self.read("a head", || self.visible.head(run))
    }

    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Result<Records, Error> {
        let records = self.read("a journal", || self.visible.journal(run, from_seq, limit))?;
        Ok(tamper::records(self.world.lock().mutation, records))
    }

    fn verify(&self) -> Result<Report, Error> {
        self.visible.verify()
    }

    fn size_on_disk(&self) -> Result<u64, Error> {
        self.visible.size_on_disk()
    }
}
