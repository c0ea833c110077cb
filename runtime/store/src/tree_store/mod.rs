//! Stores on a disk: an ordered tree with atomic batches, made a [`JournalStore`].
//!
//! One tree with prefixed keys, one thread that writes, one flush and one sync per group of
//! commits; see `committer.rs` for the order of things and `row.rs` for what is in the tree. What
//! is particular to sled or fjall is in `sled_tree.rs` and `fjall_tree.rs`, and nowhere else.

mod committer;
#[cfg(feature = "fjall")]
mod fjall_tree;
mod inner;
pub(crate) mod layout;
mod mark;
mod pace;
mod queue;
mod room;
mod row;
mod sled_tree;
#[cfg(test)]
mod tests;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use self::committer::{Changes, Committer, Syncer, TreeSync};
#[cfg(feature = "fjall")]
pub use self::fjall_tree::Fjall;
use self::inner::{Inner, caught};
pub use self::queue::{QUEUE_BYTES_MAX, QUEUE_COMMITS_MAX};
use self::room::{Probe, Room};
pub use self::sled_tree::Sled;
use crate::store::{Records, Rows, records};
use crate::table::{check_run, run_prefix};
use crate::{
    Batch, Commit, Engine, Entry, Error, Head, JournalStore, KeyRange, Report, Table, journal_key,
};

/// Least [`Options::cache_bytes`]: sled cuts its cache into 256 parts, which are to hold a page
/// each.
pub const CACHE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// How to open a store on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Options {
    /// Bytes of memory for pages that were read or written; 64 MiB. At least
    /// [`CACHE_BYTES_MIN`].
    pub cache_bytes: u64,
    /// Bytes of the disk that are left free: with less, commits wait and [`JournalStore::full`]
    /// says so. 64 MiB, which is more than what is under way at any time may take up.
    pub reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Rows of a tree: keys and values, in the order of the keys.
type Pairs<'a> = Box<dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>), Error>> + 'a>;

/// What a database has to do to keep a store. Only the committer writes, one group at a time.
pub trait Tree: Send + Sync + Sized + 'static {
    /// Its name, which is that of its folder too.
    const ENGINE: Engine;

    /// Opens the database in a folder that is there, or makes one in it.
    fn open(database: &Path, options: &Options) -> Result<Self, Error>;

    /// Refuses a database with parts missing that [`Tree::open`] would make anew.
    fn check_files(database: &Path) -> Result<(), Error>;

    /// Syncs all there is: the last process may have been killed between a write and its sync, and
    /// what is read from here on must not be lost with the power.
    fn make_durable(&self, database: &Path) -> Result<(), Error>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The rows from `start`, inclusive, to `end`, exclusive and not before `start`.
    fn range(&self, start: Vec<u8>, end: Vec<u8>) -> Pairs<'_>;

    /// Changes all or nothing.
    fn apply(&self, changes: Changes) -> Result<(), Error>;

    /// Hands what was applied to the operating system, so that it survives a kill.
    fn flush(&self) -> Result<(), Error>;

    /// Makes what was flushed survive a loss of power.
    fn sync(&self) -> Result<(), Error>;

    /// The bytes that it takes up on the disk.
    fn size_on_disk(&self) -> Result<u64, Error>;
}

/// A [`JournalStore`] in a directory, for one process at a time.
///
/// Dropping it closes it: commits that were handed over are still written and answered, which
/// blocks until the disk is done. A crash at any time leaves a store that opens; see
/// [`JournalStore::commit`] for what is in it.
pub struct TreeStore<T: Tree> {
    /// Taken out by `drop` only, for the order in which things end there.
    open: Option<Open<T>>,
}

/// The default store, kept by sled 0.34.
pub type SledStore = TreeStore<Sled>;

/// A store that is kept by fjall 3.
#[cfg(feature = "fjall")]
pub type FjallStore = TreeStore<Fjall>;

struct Open<T> {
    inner: Arc<Inner<T>>,
    room: Arc<Room>,
    committer: JoinHandle<()>,
    /// Held until all else is closed.
    _lock: layout::Lock,
}

impl<T: Tree> TreeStore<T> {
    /// Opens the store in `dir`, or creates one there if the directory is empty or absent.
    ///
    /// Blocks for as long as reading the log takes. When this returns, everything that can be
    /// read is durable, whatever the last process left unsynced. A crash during creation leaves
    /// nothing that the next call does not clear up.
    ///
    /// # Errors
    /// [`Error::Foreign`] if something else is in `dir`, [`Error::OtherEngine`] if another engine
    /// keeps the store, and [`Error::Version`] if a version unknown to this one wrote it: nothing
    /// is touched then. [`Error::InUse`] if another process or another store has it open.
    /// [`Error::Corrupt`] if files are damaged or missing, or if commits are missing that were
    /// acknowledged. [`Error::Invalid`] for options out of bounds. [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Self, Error> {
        let dir = dir.as_ref();
        Self::open_with(dir, options, Box::new(TreeSync), room::free_in(dir))
    }

    fn open_with(
        dir: &Path,
        options: &Options,
        syncer: Box<dyn Syncer<T>>,
        free: Probe,
    ) -> Result<Self, Error> {
        if options.cache_bytes < CACHE_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the store's cacheBytes is {}; set it to {CACHE_BYTES_MIN} or more",
                options.cache_bytes
            )));
        }
        let layout::Opened {
            tree,
            mut mark,
            lock,
        } = layout::open::<T>(dir, options)?;
        let inner = Arc::new(Inner::new(tree));
        let count = inner.count()?;
        let marked = mark.get().map_err(|error| Error::Io {
            action: "reading the store's mark".to_owned(),
            detail: error.to_string(),
        })?;
        if count < marked {
            return Err(Error::Corrupt {
                place: dir.join(T::ENGINE.as_str()).display().to_string(),
                detail: format!(
                    "of {marked} groups of commits that were acknowledged the last {} are missing",
                    marked - count
                ),
            });
        }
        let room = Arc::new(Room::new(dir, options.reserve_bytes, free));
        let committer = Committer {
            inner: Arc::clone(&inner),
            syncer,
            room: Arc::clone(&room),
            mark,
            pace: pace::Pace::default(),
            count,
        };
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
                room,
                committer,
                _lock: lock,
            }),
        })
    }

    fn inner(&self) -> Result<&Inner<T>, Error> {
        self.open
            .as_ref()
            .map(|open| &*open.inner)
            .ok_or(Error::Closed)
    }
}

impl<T: Tree> std::fmt::Debug for TreeStore<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeStore")
            .field("engine", &T::ENGINE)
            .finish_non_exhaustive()
    }
}

impl<T: Tree> Drop for TreeStore<T> {
    fn drop(&mut self) {
        let Some(Open {
            inner,
            room: _,
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
        if let Err(detail) = caught(|| drop(inner)) {
            tracing::error!(detail, "closing the database failed");
        }
    }
}

impl<T: Tree> JournalStore for TreeStore<T> {
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

    fn read_all(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Error>) -> Result<(), Error> {
        verify::read_all(self.inner()?, visit)
    }

    fn is_durable(&self, run: &str) -> bool {
        self.inner().is_ok_and(|inner| inner.is_durable(run))
    }

    fn full(&self) -> Option<Error> {
        self.open.as_ref()?.room.check().err()
    }

    fn verify(&self) -> Result<Report, Error> {
        verify::verify(self.inner()?)
    }

    fn size_on_disk(&self) -> Result<u64, Error> {
        self.inner()?.tree().size_on_disk()
    }
}
