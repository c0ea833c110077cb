//! The tree and the reads on it.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::Tree;
use super::committer::Changes;
use super::queue::Queue;
use super::row::{self, COUNT, HEADS};
use crate::store::Rows;
use crate::{Error, Head, KeyRange, Table};

/// What the store and its committer share.
pub(super) struct Inner<T> {
    pub(super) queue: Queue,
    tree: T,
    /// Held for writing while a group is applied, and for reading by whatever reads more than one
    /// row: a tree's iterators and gets are points in time of their own each.
    applying: RwLock<()>,
    /// Held by the committer for each group, and by whoever reads everything.
    pause: Mutex<()>,
    /// The runs that the group touches which is in the tree, or about to be, and not synced; those
    /// of one that failed stay here.
    unsynced: Mutex<HashSet<Vec<u8>>>,
}

/// Proof that no group is being applied.
pub(super) struct Still<'a, T> {
    inner: &'a Inner<T>,
    _lock: RwLockReadGuard<'a, ()>,
}

impl<T: Tree> Inner<T> {
    pub(super) fn new(tree: T) -> Self {
        Self {
            queue: Queue::default(),
            tree,
            applying: RwLock::new(()),
            pause: Mutex::new(()),
            unsynced: Mutex::default(),
        }
    }

    /// Keeps the committer from its next group, and readers from nothing. The committer takes it
    /// before it asks for room.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tree(&self) -> &T {
        &self.tree
    }

    pub(super) fn apply(&self, changes: Changes) -> Result<(), Error> {
        let _applying = self
            .applying
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.tree.apply(changes)
    }

    /// Notes which runs a group touches. Before it is applied: who sees a part of it finds its run
    /// here.
    pub(super) fn touches(&self, changes: &Changes) {
        let of_runs = [HEADS, Table::Run.byte()];
        let names = changes.keys().filter_map(|key| match key.split_first() {
            Some((space, name)) if of_runs.contains(space) => Some(name.to_vec()),
            Some(_) | None => None,
        });
        *self.lock_unsynced() = names.collect();
    }

    /// The group that was noted last is on the disk.
    pub(super) fn synced(&self) {
        self.lock_unsynced().clear();
    }

    /// Whether no group touches the run that may be lost.
    pub(super) fn is_durable(&self, run: &str) -> bool {
        !self.lock_unsynced().contains(run.as_bytes())
    }

    fn lock_unsynced(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key of the tree, frame and all.
    pub(super) fn raw(&self, tree_key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = caught(|| self.tree.get(tree_key)).unwrap_or_else(|panicked| {
            Err(Error::Corrupt {
                place: String::new(),
                detail: panicked,
            })
        });
        value.map_err(|error| named(tree_key, error))
    }

    /// How many groups of commits are in the tree.
    pub(super) fn count(&self) -> Result<u64, Error> {
        match self.still().get(COUNT, &[])? {
            Some(payload) => row::decode_count(&payload),
            None => Ok(0),
        }
    }

    /// Waits until no group is being applied, and keeps the next one waiting. Not to be called by
    /// who holds one already.
    pub(super) fn still(&self) -> Still<'_, T> {
        Still {
            inner: self,
            // The lock guards no data of its own that a panic could have left half done.
            _lock: self.applying.read().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl<T: Tree> Still<'_, T> {
    pub(super) fn raw(&self, tree_key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.inner.raw(tree_key)
    }

    pub(super) fn get(&self, space: u8, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let tree_key = row::tree_key(space, key);
        match self.inner.raw(&tree_key)? {
            Some(value) => self.decode(&tree_key, &value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn head(&self, run: &str) -> Result<Option<Head>, Error> {
        let Some(payload) = self.get(HEADS, run.as_bytes())? else {
            return Ok(None);
        };
        let tree_key = row::tree_key(HEADS, run.as_bytes());
        row::decode_head(&tree_key, &payload).map(Some)
    }

    pub(super) fn scan(&self, space: u8, range: &KeyRange, limit: usize) -> Result<Rows, Error> {
        self.iter(space, range)
            .take(limit)
            .map(|row| {
                let (key, value) = row?;
                let value = self.decode(&row::tree_key(space, &key), &value)?;
                Ok((key, value))
            })
            .collect()
    }

    /// The rows of a range, frames and all.
    pub(super) fn iter(
        &self,
        space: u8,
        range: &KeyRange,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Error>> {
        let start = row::tree_key(space, &range.start);
        let end = match &range.end {
            Some(end) => row::tree_key(space, end),
            // Spaces are far from 255, the last byte.
            None => vec![space + 1],
        };
        // Trees panic on a range that ends before it starts.
        let end = end.max(start.clone());
        let mut pairs = Some(self.inner.tree.range(start.clone(), end));
        std::iter::from_fn(move || {
            let from = pairs.as_mut()?;
            let next = caught(|| from.next()).unwrap_or_else(|panicked| {
                Some(Err(Error::Corrupt {
                    place: String::new(),
                    detail: panicked,
                }))
            });
            let next = next.map(|pair| {
                let (key, value) = pair.map_err(|error| named(&start, error))?;
                Ok((key.get(1..).unwrap_or_default().to_vec(), value))
            });
            // What an iterator does after an error is its own affair.
            if !matches!(next, Some(Ok(_))) {
                pairs = None;
            }
            next
        })
    }

    pub(super) fn decode(&self, tree_key: &[u8], value: &[u8]) -> Result<Vec<u8>, Error> {
        let prefix = row::chunk_prefix(tree_key);
        row::decode(tree_key, value, |index| {
            self.inner.raw(&row::chunk_key(&prefix, index))
        })
    }
}

/// Names the row in place of the file's offset, which tells an operator nothing.
fn named(tree_key: &[u8], error: Error) -> Error {
    match error {
        Error::Corrupt { detail, .. } => Error::Corrupt {
            place: row::place(tree_key),
            detail,
        },
        other => other,
    }
}

/// Runs what may panic on damage in place of returning an error; with what it said then.
pub(super) fn caught<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic))
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    message.unwrap_or("it panicked").to_owned()
}
