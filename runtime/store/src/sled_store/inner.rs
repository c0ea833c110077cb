//! The tree and the reads on it.

use std::any::Any;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::committer::Changes;
use super::queue::Queue;
use super::row::{self, HEADS};
use crate::store::Rows;
use crate::{Error, Head, KeyRange};

/// What the store and its committer share.
pub(super) struct Inner {
    pub(super) queue: Queue,
    db: sled::Db,
    /// Held for writing while a group is applied, and for reading by whatever reads more than one
    /// row: sled's iterators and gets are points in time of their own each.
    applying: RwLock<()>,
}

/// Proof that no group is being applied.
pub(super) struct Still<'a> {
    inner: &'a Inner,
    _lock: RwLockReadGuard<'a, ()>,
}

impl Inner {
    pub(super) fn new(db: sled::Db) -> Self {
        Self {
            queue: Queue::default(),
            db,
            applying: RwLock::new(()),
        }
    }

    pub(super) fn apply(&self, changes: Changes) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        let _applying = self
            .applying
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.db
            .apply_batch(batch)
            .map_err(|error| sled_error("writing to the database", &error))
    }

    /// Blocking, on purpose: `flush_async` has been reported to deadlock.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.db
            .flush()
            .map_err(|error| sled_error("flushing the database", &error))?;
        Ok(())
    }

    pub(super) fn size_on_disk(&self) -> Result<u64, Error> {
        self.db
            .size_on_disk()
            .map_err(|error| sled_error("measuring the database", &error))
    }

    /// The value of a key of the tree, frame and all.
    pub(super) fn raw(&self, tree_key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.db.get(tree_key);
        let value = value.map_err(|error| read_error(tree_key, &error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Waits until no group is being applied, and keeps the next one waiting.
    pub(super) fn still(&self) -> Still<'_> {
        Still {
            inner: self,
            // The lock guards no data of its own that a panic could have left half done.
            _lock: self.applying.read().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Still<'_> {
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
        // sled panics on a range that ends before it starts.
        let end = end.max(start.clone());
        self.inner.db.range(start.clone()..end).map(move |row| {
            let (key, value) = row.map_err(|error| read_error(&start, &error))?;
            let key = key.get(1..).unwrap_or_default().to_vec();
            Ok((key, value.to_vec()))
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
fn read_error(tree_key: &[u8], error: &sled::Error) -> Error {
    match sled_error("reading from the database", error) {
        Error::Corrupt { detail, .. } => Error::Corrupt {
            place: row::place(tree_key),
            detail,
        },
        other => other,
    }
}

pub(super) fn sled_error(action: &str, error: &sled::Error) -> Error {
    match error {
        sled::Error::Corruption { .. } => Error::Corrupt {
            place: "the database file".to_owned(),
            detail: error.to_string(),
        },
        sled::Error::Io(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_) => Error::Io {
            action: action.to_owned(),
            detail: error.to_string(),
        },
    }
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    message.unwrap_or("it panicked").to_owned()
}
