//! sled 0.34 as the tree, made durable.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::committer::Changes;
use super::inner::caught;
use super::layout::{check_not_empty, corrupt, io_error, sync_dir};
use super::{Options, Pairs, Tree};
use crate::{Engine, Error};

/// Bytes of a segment of sled's log; four times what `row::CHUNK_LEN` explains. It cannot be
/// changed for a store that exists.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// How often, and how many times, to look whether a database that was closed in this very process
/// is unlocked: threads of sled's can outlive its last handle for a moment, and so can a copy of
/// its descriptor in a child that is being started.
const UNLOCK_POLL_MS: u64 = 10;
const UNLOCK_POLLS_MAX: u32 = 200;

/// A database of sled's.
///
/// sled's own `flush()` does not make anything durable: on Linux it ends in `sync_file_range`
/// (`write_to_log` in sled's `pagecache/iobuf.rs`), which neither writes the file's length nor
/// empties the disk's cache, and so loses acknowledged records with the power. What does is
/// [`Tree::sync`] after it.
pub struct Sled {
    db: sled::Db,
    /// The database file, on a descriptor of its own: whatever sled does with its own, errors of
    /// the file are reported to this one too.
    file: File,
}

impl Tree for Sled {
    const ENGINE: Engine = Engine::Sled;

    fn open(database: &Path, options: &Options) -> Result<Self, Error> {
        let path = database.join("db");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io_error("opening", &path, &error))?;
        wait_until_unlocked(&file, database)?;
        let config = sled::Config::new()
            .path(database)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(options.cache_bytes)
            // No thread that flushes by itself: the committer does, and it must hear of every
            // error.
            .flush_every_ms(None);
        // sled panics on some kinds of damage instead of returning an error.
        let opened = caught(|| config.open()).map_err(|panicked| corrupt(database, panicked))?;
        let db = opened.map_err(|error| match &error {
            sled::Error::Io(io) => io_error("opening", database, io),
            // Settings that cannot be read are reported as unsupported ones.
            sled::Error::Corruption { .. }
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_)
            | sled::Error::ReportableBug(_) => corrupt(database, error.to_string()),
        })?;
        Ok(Self { db, file })
    }

    /// sled makes anew what it does not find; in a store that exists that would be a loss in
    /// silence.
    fn check_files(database: &Path) -> Result<(), Error> {
        check_not_empty(&database.join("db"))?;
        check_not_empty(&database.join("conf"))
    }

    fn make_durable(&self, database: &Path) -> Result<(), Error> {
        let path = database.join("db");
        self.file
            .sync_all()
            .map_err(|error| io_error("syncing", &path, &error))?;
        // sled creates this one without a sync, and the snapshots' names as well.
        let path = database.join("conf");
        File::open(&path)
            .and_then(|conf| conf.sync_all())
            .map_err(|error| io_error("syncing", &path, &error))?;
        let blobs = database.join("blobs");
        if fs::exists(&blobs).unwrap_or(true) {
            sync_dir(&blobs)?;
        }
        sync_dir(database)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.db.get(key);
        let value = value.map_err(|error| sled_error("reading from the database", &error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, start: Vec<u8>, end: Vec<u8>) -> Pairs<'_> {
        Box::new(self.db.range(start..end).map(|row| {
            let (key, value) =
                row.map_err(|error| sled_error("reading from the database", &error))?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn apply(&self, changes: Changes) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db
            .apply_batch(batch)
            .map_err(|error| sled_error("writing to the database", &error))
    }

    /// Blocking, on purpose: `flush_async` has been reported to deadlock.
    fn flush(&self) -> Result<(), Error> {
        self.db
            .flush()
            .map_err(|error| sled_error("flushing the database", &error))?;
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| Error::Io {
            action: "syncing the database file".to_owned(),
            detail: error.to_string(),
        })
    }

    fn size_on_disk(&self) -> Result<u64, Error> {
        self.db
            .size_on_disk()
            .map_err(|error| sled_error("measuring the database", &error))
    }
}

fn wait_until_unlocked(file: &File, database: &Path) -> Result<(), Error> {
    for _ in 0..UNLOCK_POLLS_MAX {
        match file.try_lock() {
            Ok(()) => {
                // sled takes the lock itself, through a descriptor of its own.
                return file
                    .unlock()
                    .map_err(|error| io_error("unlocking", database, &error));
            }
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_millis(UNLOCK_POLL_MS));
            }
            Err(TryLockError::Error(error)) => {
                return Err(io_error("locking", database, &error));
            }
        }
    }
    Err(Error::InUse {
        path: database.to_owned(),
    })
}

fn sled_error(action: &str, error: &sled::Error) -> Error {
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
