//! The one thread that writes.
//!
//! It takes a group of commits, checks each against what is there and what the group has changed
//! so far, applies them as one atomic batch, flushes, syncs, and only then answers them all.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;
use std::time::Instant;

use super::Tree;
use super::inner::{Inner, caught};
use super::mark::Mark;
use super::pace::Pace;
use super::queue::Job;
use super::room::Room;
use super::row::{self, COUNT, HEADS};
use crate::{Batch, Error, Head, KeyRange, Table, Write, heads};

/// Makes what was applied to a tree durable. Apart from tests there is [`TreeSync`] only.
pub(crate) trait Syncer<T>: Send + 'static {
    /// Returns when everything applied and flushed survives a loss of power.
    fn sync(&mut self, tree: &T) -> Result<(), Error>;
}

/// The tree's own way.
pub(crate) struct TreeSync;

impl<T: Tree> Syncer<T> for TreeSync {
    fn sync(&mut self, tree: &T) -> Result<(), Error> {
        tree.sync()
    }
}

pub(super) struct Committer<T> {
    pub(super) inner: Arc<Inner<T>>,
    pub(super) syncer: Box<dyn Syncer<T>>,
    pub(super) room: Arc<Room>,
    pub(super) mark: Mark,
    pub(super) pace: Pace,
    /// Groups in the tree.
    pub(super) count: u64,
}

impl<T: Tree> Committer<T> {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(group) = self.inner.queue.take_group(self.pace.patience()) {
            let (batches, answers): (Vec<_>, Vec<_>) = group
                .into_iter()
                .map(|Job { batch, answer, .. }| (batch, answer))
                .unzip();
            let inner = Arc::clone(&self.inner);
            let turn = loop {
                if let Err(full) = self.room.wait(&self.inner.queue) {
                    break Err(full);
                }
                let turn = inner.pause();
                // A backup may have filled the disk meanwhile.
                if self.room.check().is_ok() {
                    break Ok(turn);
                }
            };
            let _turn = match turn {
                Ok(turn) => turn,
                Err(full) => {
                    // Nothing was touched: this is a refusal, not a failure.
                    for answer in answers {
                        answer.send(Err(full.clone()));
                    }
                    continue;
                }
            };
            let begun = Instant::now();
            // Trees panic on some kinds of damage; the callers are to hear of that.
            let written = caught(|| self.write(&batches)).unwrap_or_else(|panicked| {
                Err(Error::Io {
                    action: "writing to the database".to_owned(),
                    detail: panicked,
                })
            });
            let came = self.inner.queue.len();
            self.pace.wrote(batches.len(), came, begun.elapsed());
            match written {
                Ok(verdicts) => {
                    for (answer, verdict) in answers.into_iter().zip(verdicts) {
                        answer.send(verdict);
                    }
                }
                Err(error) => {
                    tracing::error!(code = error.code(), %error, "the store takes no more commits");
                    // First, so that nobody who hears of the error gets another commit in.
                    self.inner.queue.fail(&error);
                    for answer in answers {
                        answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes a group; one verdict per batch, or an error that concerns them all.
    fn write(&mut self, batches: &[Batch]) -> Result<Vec<Result<(), Error>>, Error> {
        let mut staged = Staged::new(&self.inner);
        let verdicts = batches.iter().map(|batch| staged.add(batch)).collect();
        let mut changes = staged.finish();
        // A group that changes nothing has nothing to make durable: this thread has synced what
        // every group before it changed.
        if changes.is_empty() {
            return Ok(verdicts);
        }
        self.count += 1;
        let (value, _) = row::encode(&[COUNT], &self.count.to_le_bytes());
        changes.insert(vec![COUNT], Some(value));
        // One group at a time, each synced before the next is applied: sled uses a segment of its
        // log again once what replaced the segment's content has been flushed, and flushed is to
        // mean synced by then, or else a power cut could take the new copy and the old one. And
        // so at most one group is ever torn.
        self.inner.touches(&changes);
        self.inner.apply(changes)?;
        self.inner.tree().flush()?;
        self.syncer.sync(self.inner.tree())?;
        self.inner.synced();
        self.mark.set(self.count);
        Ok(verdicts)
    }
}

/// Keys of the tree and what becomes of them; `None` removes.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A group of batches as it grows: reads see the tree as it will be after them.
struct Staged<'a, T> {
    inner: &'a Inner<T>,
    /// Of the batches that have passed.
    group: Changes,
    /// Of the batch at hand.
    batch: Changes,
}

impl<'a, T: Tree> Staged<'a, T> {
    fn new(inner: &'a Inner<T>) -> Self {
        Self {
            inner,
            group: Changes::new(),
            batch: Changes::new(),
        }
    }

    /// Adds a batch as a whole, or not at all.
    fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        let result = self.stage(batch);
        let batch = std::mem::take(&mut self.batch);
        if result.is_ok() {
            // Not `append`, which builds the whole group anew.
            self.group.extend(batch);
        }
        result
    }

    fn finish(self) -> Changes {
        self.group
    }

    fn stage(&mut self, batch: &Batch) -> Result<(), Error> {
        let changes = heads::resolve(batch, |run| self.head(run))?;
        for write in &batch.writes {
            match write {
                Write::Append { run, seq, record } => {
                    let key = crate::journal_key(run, *seq)?;
                    self.put_new(Table::Journal.byte(), &key, record);
                }
                Write::Put { table, key, value } => self.put(table.byte(), key, value)?,
                Write::PutNew { table, key, value } => {
                    let tree_key = row::tree_key(table.byte(), key);
                    if self.get(&tree_key)?.is_none() {
                        self.put(table.byte(), key, value)?;
                    }
                }
                Write::Delete { table, key } => self.delete(table.byte(), key)?,
                Write::DeleteUnreferenced {
                    table,
                    key,
                    references,
                } => {
                    if !self.has_any(table.byte(), references)? {
                        self.delete(table.byte(), key)?;
                    }
                }
                Write::Claim { .. } | Write::Place { .. } | Write::Forget { .. } => {}
            }
        }
        for (run, head) in changes {
            match head {
                Some(head) => self.put(HEADS, run.as_bytes(), &row::encode_head(head))?,
                None => self.delete(HEADS, run.as_bytes())?,
            }
        }
        Ok(())
    }

    fn put(&mut self, space: u8, key: &[u8], payload: &[u8]) -> Result<(), Error> {
        self.remove_chunks(&row::tree_key(space, key))?;
        self.put_new(space, key, payload);
        Ok(())
    }

    /// For a key that is not there, as that of a record: its run's head says so.
    fn put_new(&mut self, space: u8, key: &[u8], payload: &[u8]) {
        let tree_key = row::tree_key(space, key);
        let (value, chunks) = row::encode(&tree_key, payload);
        let prefix = row::chunk_prefix(&tree_key);
        for (index, chunk) in chunks.enumerate() {
            let key = row::chunk_key(&prefix, index as u32);
            self.batch.insert(key, Some(chunk.to_vec()));
        }
        self.batch.insert(tree_key, Some(value));
    }

    fn delete(&mut self, space: u8, key: &[u8]) -> Result<(), Error> {
        let tree_key = row::tree_key(space, key);
        self.remove_chunks(&tree_key)?;
        self.batch.insert(tree_key, None);
        Ok(())
    }

    /// Removes the chunks of the value that is about to be replaced. The look at it has a second use: each
    /// read lets sled drop some of what earlier groups replaced, which else piles up.
    fn remove_chunks(&mut self, tree_key: &[u8]) -> Result<(), Error> {
        let old = self.get(tree_key)?;
        let count = old.map_or(0, |old| row::chunk_count(&old));
        let prefix = row::chunk_prefix(tree_key);
        for index in 0..count {
            self.batch.insert(row::chunk_key(&prefix, index), None);
        }
        Ok(())
    }

    fn head(&self, run: &str) -> Result<Head, Error> {
        let tree_key = row::tree_key(HEADS, run.as_bytes());
        let Some(value) = self.get(&tree_key)? else {
            return Ok(Head::default());
        };
        // Heads are too short to have chunks.
        let payload = row::decode(&tree_key, &value, |_| Ok(None))?;
        row::decode_head(&tree_key, &payload)
    }

    /// Whether there is a row whose key begins with a prefix.
    fn has_any(&self, space: u8, prefix: &[u8]) -> Result<bool, Error> {
        let start = row::tree_key(space, prefix);
        for changes in [&self.batch, &self.group] {
            let rows = changes.range::<[u8], _>((Included(start.as_slice()), Unbounded));
            let mut keys = rows
                .map(|(key, _)| key)
                .take_while(|key| key.starts_with(&start));
            if keys.any(|key| self.staged(key).is_some_and(Option::is_some)) {
                return Ok(true);
            }
        }
        // Only this thread writes: what is in the tree stays there meanwhile.
        let still = self.inner.still();
        for row in still.iter(space, &KeyRange::prefix(prefix)) {
            let (key, _) = row?;
            if self.staged(&row::tree_key(space, &key)).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What becomes of a key of the tree, if the group so far changes it.
    fn staged(&self, tree_key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.batch
            .get(tree_key)
            .or_else(|| self.group.get(tree_key))
    }

    fn get(&self, tree_key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.staged(tree_key) {
            Some(value) => Ok(value.clone()),
            None => self.inner.raw(tree_key),
        }
    }
}
