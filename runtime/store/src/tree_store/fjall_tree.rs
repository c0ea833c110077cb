//! fjall 3 as the tree: a log-structured store with a journal that it can sync.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::committer::Changes;
use super::inner::caught;
use super::layout::{check_not_empty, corrupt, io_error, sync_dir};
use super::{Options, Pairs, Tree};
use crate::{Engine, Error};

/// The one keyspace; a row's table is the first byte of its key, as in sled.
const KEYSPACE: &str = "rows";

/// Bytes of recent rows that are held in memory before they are written as a sorted file. Up to
/// four such are held at times; fjall's own 64 MiB would be more memory than the rest of the
/// runtime takes.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

/// A block of 512 bytes is what the operating system counts in, whatever the disk's are.
const COUNTED_BLOCK_BYTES: u64 = 512;

/// A database of fjall's.
pub struct Fjall {
    // Before the database, which waits for its threads when it goes.
    rows: Keyspace,
    db: Database,
    path: PathBuf,
}

impl Tree for Fjall {
    const ENGINE: Engine = Engine::Fjall;

    fn open(database: &Path, options: &Options) -> Result<Self, Error> {
        let config = Database::builder(database)
            .cache_size(options.cache_bytes)
            // The committer syncs each group, and must hear of every error.
            .manual_journal_persist(true);
        let create = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let opened = caught(|| {
            let db = config.open()?;
            let rows = db.keyspace(KEYSPACE, create)?;
            let path = database.to_owned();
            Ok(Self { rows, db, path })
        });
        opened
            .map_err(|panicked| corrupt(database, panicked))?
            .map_err(|error| match fjall_error("opening the database", error) {
                Error::Corrupt { detail, .. } => corrupt(database, detail),
                Error::InUse { .. } => Error::InUse {
                    path: database.to_owned(),
                },
                other => other,
            })
    }

    /// fjall makes anew what it does not find, and removes what looks unfinished to it; in a store
    /// that exists both would be a loss in silence.
    fn check_files(database: &Path) -> Result<(), Error> {
        check_not_empty(&database.join("version"))?;
        let trees = database.join("keyspaces");
        for tree in ["0", "1"] {
            check_not_empty(&trees.join(tree).join("current"))?;
        }
        let entries = fs::read_dir(database);
        let entries = entries.map_err(|error| io_error("reading", database, &error))?;
        let is_journal = |entry: &fs::DirEntry| {
            Path::new(&entry.file_name()).extension() == Some("jnl".as_ref())
        };
        if !entries.flatten().any(|entry| is_journal(&entry)) {
            return Err(corrupt(database, "it has no journal".to_owned()));
        }
        Ok(())
    }

    /// fjall syncs the journal that it goes on with before it reads it, and every file and folder
    /// that it makes.
    fn make_durable(&self, database: &Path) -> Result<(), Error> {
        self.db
            .persist(PersistMode::SyncAll)
            .map_err(|error| fjall_error("syncing the database", error))?;
        sync_dir(database)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.rows.get(key);
        let value = value.map_err(|error| fjall_error("reading from the database", error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, start: Vec<u8>, end: Vec<u8>) -> Pairs<'_> {
        Box::new(self.rows.range(start..end).map(|row| {
            let (key, value) = row
                .into_inner()
                .map_err(|error| fjall_error("reading from the database", error))?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn apply(&self, changes: Changes) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.rows, key, value),
                None => batch.remove(&self.rows, key),
            }
        }
        batch
            .commit()
            .map_err(|error| fjall_error("writing to the database", error))
    }

    fn flush(&self) -> Result<(), Error> {
        self.db
            .persist(PersistMode::Buffer)
            .map_err(|error| fjall_error("flushing the database", error))
    }

    /// `fdatasync` of the journal. Sorted files are synced by fjall before it drops the journals
    /// that they replace.
    fn sync(&self) -> Result<(), Error> {
        self.db
            .persist(PersistMode::SyncData)
            .map_err(|error| fjall_error("syncing the database", error))
    }

    /// What is allocated, not the length: fjall's journal is made 64 MiB long, empty.
    fn size_on_disk(&self) -> Result<u64, Error> {
        allocated(&self.path)
    }
}

fn allocated(dir: &Path) -> Result<u64, Error> {
    let failed = |error: io::Error| io_error("measuring", dir, &error);
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += allocated(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * COUNTED_BLOCK_BYTES,
            // Files come and go while it works.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(bytes)
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn fjall_error(action: &str, error: fjall::Error) -> Error {
    let io = |error: &io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => None,
        _ => Some(error.to_string()),
    };
    let detail = match &error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => io(source),
        fjall::Error::Locked => {
            return Error::InUse {
                path: PathBuf::new(),
            };
        }
        fjall::Error::Poisoned => Some("an earlier write failed".to_owned()),
        _ => None,
    };
    match detail {
        Some(detail) => Error::Io {
            action: action.to_owned(),
            detail,
        },
        None => Error::Corrupt {
            place: "the database".to_owned(),
            detail: error.to_string(),
        },
    }
}
