//! The default store: sled 0.34, made durable.
//!
//! One tree with prefixed keys, one thread that writes, one flush and one sync per group of
//! commits; see `committer.rs` for the order of things and `row.rs` for what is in the tree.

mod committer;
mod inner;
mod layout;
mod queue;
mod row;
#[cfg(test)]
mod tests;
mod verify;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use self::committer::{Committer, DataSync, Syncer};
use self::inner::{Inner, panic_message};
pub use self::queue::{QUEUE_BYTES_MAX, QUEUE_COMMITS_MAX};
use crate::store::{Records, Rows, records};
use crate::table::{check_run, run_prefix};
use crate::{Batch, Commit, Error, Head, JournalStore, KeyRange, Report, Table, journal_key};

/// Bytes of a segment of sled's log; four times what `row::CHUNK_LEN` explains. It cannot be
/// changed for a store that exists.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// Least [`Options::cache_bytes`]: sled cuts its cache into 256 parts, which are to hold a page
/// each.
pub const CACHE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// How to open a [`SledStore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Options {
    /// Bytes of memory for pages that were read or written; 64 MiB. At least
    /// [`CACHE_BYTES_MIN`].
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A [`JournalStore`] in a directory, for one process at a time.
///
/// Dropping it closes it: commits that were handed over are still written and answered, which
/// blocks until the disk is done. A crash at any time leaves a store that opens; see
/// [`JournalStore::commit`] for what is in it.
pub struct SledStore {
    /// Taken out by `drop` only, for the order in which things end there.
    open: Option<Open>,
}

struct Open {
    inner: Arc<Inner>,
    committer: JoinHandle<()>,
    /// Held until all else is closed.
    _lock: layout::Lock,
}

impl SledStore {
    /// Opens the store in `dir`, or creates one there if the directory is empty or absent.
    ///
    /// Blocks for as long as reading the log takes. When this returns, everything that can be
    /// read is durable, whatever the last process left unsynced. A crash during creation leaves
    /// nothing that the next call does not clear up.
    ///
    /// # Errors
    /// [`Error::Foreign`] if something else is in `dir`, and [`Error::Version`] if a version
    /// unknown to this one wrote it: nothing is touched then. [`Error::InUse`] if another process
    /// or another `SledStore` has it open. [`Error::Corrupt`] if files are damaged or missing.
    /// [`Error::Invalid`] for options out of bounds. [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        Self::open_with(dir.as_ref(), options, Box::new(DataSync))
    }

    fn open_with(dir: &Path, options: &Options, syncer: Box<dyn Syncer>) -> Result<Self, Error> {
        if options.cache_bytes < CACHE_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the store's cacheBytes is {}; set it to {CACHE_BYTES_MIN} or more",
                options.cache_bytes
            )));
        }
        let layout::Opened { db, file, lock } = layout::open(dir, options)?;
        let inner = Arc::new(Inner::new(db));
        let committer = Committer::new(Arc::clone(&inner), file, syncer);
        let committer = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| Error::Io {
                action: "starting the store's thread".to_owned(),
                detail: error.to_string(),
            })?;
        Ok(Self {
            open: Some(Open {
                inner,
                committer,
                _lock: lock,
            }),
        })
    }

    fn inner(&self) -> Result<&Inner, Error> {
        self.open
            .as_ref()
            .map(|open| &*open.inner)
            .ok_or(Error::Closed)
    }
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledStore").finish_non_exhaustive()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let Some(Open {
            inner,
            committer,
            _lock,
        }) = self.open.take()
        else {
            return;
        };
        inner.queue.close();
        if committer.join().is_err() {
            tracing::error!("the store's thread ended in a panic");
        }
        // sled syncs when its last handle goes, and panics if that fails; all that was
        // acknowledged has been synced before.
        let closed = catch_unwind(AssertUnwindSafe(|| drop(inner)));
        if let Err(panic) = closed {
            tracing::error!(
                detail = panic_message(&*panic),
                "closing the database failed"
            );
        }
    }
}

impl JournalStore for SledStore {
    fn commit(&self, batch: Batch) -> Commit {
        match (batch.validate(), self.inner()) {
            (Ok(()), Ok(inner)) => inner.queue.push(batch),
            (Err(error), _) | (_, Err(error)) => Commit::resolved(Err(error)),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.inner()?.still().get(table.byte(), key)
    }

    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Result<Rows, Error> {
        self.inner()?.still().scan(table.byte(), &range, limit)
    }

    fn head(&self, run: &str) -> Result<Head, Error> {
        check_run(run)?;
        Ok(self.inner()?.still().head(run)?.unwrap_or_default())
    }

    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Result<Records, Error> {
        let range = KeyRange {
            start: journal_key(run, from_seq)?,
            ..KeyRange::prefix(run_prefix(run)?)
        };
        records(run, self.scan(Table::Journal, range, limit)?)
    }

    fn verify(&self) -> Result<Report, Error> {
        verify::verify(self.inner()?)
    }

    fn size_on_disk(&self) -> Result<u64, Error> {
        self.inner()?.size_on_disk()
    }
}
