//! The directory of a store, and everything that can be wrong with one.
//!
//! ```text
//! cofferdam.store       what this directory is; there once creation is complete
//! cofferdam.store.new   the same, while it is being created
//! sled/                 the database
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inner::{panic_message, sled_error};
use super::row::{self, SELF};
use super::{Options, SEGMENT_BYTES};
use crate::Error;

const MAGIC: &str = "cofferdam.store";
const MAGIC_NEW: &str = "cofferdam.store.new";
const DATABASE: &str = "sled";
const FORMAT: &str = "cofferdam-store";
const VERSION: u64 = 1;
const ENGINE: &str = "sled";

/// Longest magic file that is read; ours has some 60 bytes.
const MAGIC_LEN_MAX: u64 = 4096;

/// How many entries of a foreign directory a message names.
const FOUND_MAX: usize = 3;

/// What the root of a file system has of its own; a volume may be mounted at the directory.
const LOST_FOUND: &str = "lost+found";

/// How often, and how many times, to look whether a database that was closed in this very process
/// is unlocked: threads of sled's can outlive its last handle for a moment, and so can a copy of
/// its descriptor in a child that is being started.
const UNLOCK_POLL_MS: u64 = 10;
const UNLOCK_POLLS_MAX: u32 = 200;

/// The row that says that the database is the one of this store. sled takes a database file that
/// is empty or all garbage for a new one; the row's absence tells.
const WITNESS: &[u8] = b"created";

#[derive(Serialize, Deserialize)]
struct Magic {
    format: String,
    version: u64,
    /// Later versions may have no such thing.
    #[serde(default)]
    engine: String,
}

pub(super) struct Opened {
    pub(super) db: sled::Db,
    /// The database file, to sync it.
    pub(super) file: File,
    /// Nobody else opens the store while this is open.
    pub(super) lock: Lock,
}

/// The lock of a directory, released when dropped.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do: a child that another thread is just starting has a copy of
        // the descriptor until its `exec`, and with it the lock. On failure closing has to do.
        let _ = self.0.unlock();
    }
}

pub(super) fn open(dir: &Path, options: &Options) -> Result<Opened, Error> {
    create_dir(dir)?;
    let lock = lock(dir)?;
    let database = dir.join(DATABASE);
    let survey = survey(dir)?;
    let (db, file) = match survey {
        Survey::Store => {
            check_files(&database)?;
            let (db, file) = open_database(&database, options)?;
            check_witness(&db, &database)?;
            (db, file)
        }
        Survey::Unfinished => {
            // Nothing in it was ever acknowledged, since creation was not complete.
            remove_dir(&database)?;
            create(dir, &database, options)?
        }
        Survey::Empty => create(dir, &database, options)?,
    };
    make_durable(dir, &database, &file)?;
    if survey != Survey::Store {
        // Last, so that the magic stands for a database that is complete and durable.
        let path = dir.join(MAGIC);
        fs::rename(dir.join(MAGIC_NEW), &path)
            .map_err(|error| io_error("creating", &path, &error))?;
        sync_dir(dir)?;
    }
    Ok(Opened { db, file, lock })
}

/// Creates the directory and what is missing above it, durably.
fn create_dir(dir: &Path) -> Result<(), Error> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(foreign(dir, "it is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("opening", dir, &error)),
    }
    fs::create_dir_all(dir).map_err(|error| io_error("creating", dir, &error))?;
    // Which of them are new is not known; to sync one that is not costs nothing.
    for parent in dir.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        // Directories of others above ours may not be readable, and then were not created here.
        if let Err(Error::Io { .. }) = sync_dir(parent) {
            break;
        }
    }
    Ok(())
}

/// Locks the directory itself, so that a directory that turns out to be foreign stays untouched.
fn lock(dir: &Path) -> Result<Lock, Error> {
    let lock = File::open(dir).map_err(|error| io_error("opening", dir, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("locking", dir, &error)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Survey {
    /// Nothing is there.
    Empty,
    /// A creation that was interrupted.
    Unfinished,
    /// A store of this format and engine.
    Store,
}

fn survey(dir: &Path) -> Result<Survey, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| io_error("reading", dir, &error))? {
        let entry = entry.map_err(|error| io_error("reading", dir, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != LOST_FOUND {
            names.push(name);
        }
    }
    if names.iter().any(|name| name == MAGIC) {
        check_magic(dir)?;
        return Ok(Survey::Store);
    }
    if names.is_empty() {
        return Ok(Survey::Empty);
    }
    let ours = |name: &String| name == MAGIC_NEW || name == DATABASE;
    if names.iter().all(ours) && is_unfinished(dir, names.len())? {
        return Ok(Survey::Unfinished);
    }
    names.sort();
    names.truncate(FOUND_MAX);
    let found = names.join("`, `");
    Err(foreign(
        dir,
        &format!("it has no {MAGIC}, but holds `{found}`"),
    ))
}

/// Whether creation was interrupted: the new magic is there as a whole, or it is alone and there
/// in part.
fn is_unfinished(dir: &Path, entries: usize) -> Result<bool, Error> {
    let path = dir.join(MAGIC_NEW);
    if !path.exists() {
        return Ok(false);
    }
    let written = read_magic(&path)?;
    let whole = magic()?;
    Ok(written == whole || (entries == 1 && whole.starts_with(&written)))
}

fn check_magic(dir: &Path) -> Result<(), Error> {
    let bytes = read_magic(&dir.join(MAGIC))?;
    let Ok(magic) = serde_json::from_slice::<Magic>(&bytes) else {
        return Err(foreign(dir, &format!("its {MAGIC} cannot be read")));
    };
    if magic.format != FORMAT {
        let found = format!("its {MAGIC} says it is `{}`", magic.format);
        return Err(foreign(dir, &found));
    }
    if magic.version != VERSION {
        return Err(Error::Version {
            path: dir.to_owned(),
            found: magic.version,
            supported: VERSION,
        });
    }
    if magic.engine != ENGINE {
        let found = format!(
            "its {MAGIC} says it is kept by `{}`, not by sled",
            magic.engine
        );
        return Err(foreign(dir, &found));
    }
    Ok(())
}

fn magic() -> Result<Vec<u8>, Error> {
    let magic = Magic {
        format: FORMAT.to_owned(),
        version: VERSION,
        engine: ENGINE.to_owned(),
    };
    let mut bytes =
        serde_json::to_vec(&magic).map_err(|error| Error::invalid(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read_magic(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAGIC_LEN_MAX).read_to_end(&mut bytes))
        .map_err(|error| io_error("reading", path, &error))?;
    Ok(bytes)
}

fn create(dir: &Path, database: &Path, options: &Options) -> Result<(sled::Db, File), Error> {
    let path = dir.join(MAGIC_NEW);
    let magic = magic()?;
    File::create(&path)
        .and_then(|mut file| {
            file.write_all(&magic)?;
            file.sync_all()
        })
        .map_err(|error| io_error("creating", &path, &error))?;
    // Before there is a database: one without the new magic beside it would be foreign.
    sync_dir(dir)?;
    let (db, file) = open_database(database, options)?;
    let key = row::tree_key(SELF, WITNESS);
    let (value, _) = row::encode(&key, &[]);
    db.insert(key, value)
        .and_then(|_| db.flush())
        .map_err(|error| sled_error("creating the database", &error))?;
    Ok((db, file))
}

/// sled makes anew what it does not find; in a store that exists that would be a loss in silence.
fn check_files(database: &Path) -> Result<(), Error> {
    for name in ["db", "conf"] {
        let path = database.join(name);
        let len = fs::metadata(&path).map(|metadata| metadata.len());
        let detail = match len {
            Ok(0) => "it is empty".to_owned(),
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
            Err(error) => return Err(io_error("opening", &path, &error)),
        };
        return Err(corrupt(&path, detail));
    }
    Ok(())
}

fn check_witness(db: &sled::Db, database: &Path) -> Result<(), Error> {
    let witness = db
        .get(row::tree_key(SELF, WITNESS))
        .map_err(|error| sled_error("reading from the database", &error))?;
    if witness.is_none() {
        let detail = "nothing of what was written at its creation is in it".to_owned();
        return Err(corrupt(&database.join("db"), detail));
    }
    Ok(())
}

fn open_database(database: &Path, options: &Options) -> Result<(sled::Db, File), Error> {
    fs::create_dir_all(database).map_err(|error| io_error("creating", database, &error))?;
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
        // No thread that flushes by itself: the committer does, and it must hear of every error.
        .flush_every_ms(None);
    // sled panics on some kinds of damage instead of returning an error.
    let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
        .map_err(|panic| corrupt(database, panic_message(&*panic)))?;
    let db = opened.map_err(|error| match &error {
        sled::Error::Io(io) => io_error("opening", database, io),
        // Settings that cannot be read are reported as unsupported ones.
        sled::Error::Corruption { .. }
        | sled::Error::Unsupported(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::ReportableBug(_) => corrupt(database, error.to_string()),
    })?;
    Ok((db, file))
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

/// Syncs all there is: the last process may have been killed between a write and its sync, and
/// what is read from here on must not be lost with the power.
fn make_durable(dir: &Path, database: &Path, file: &File) -> Result<(), Error> {
    let path = database.join("db");
    file.sync_all()
        .map_err(|error| io_error("syncing", &path, &error))?;
    // sled creates this one without a sync, and the snapshots' names as well.
    let path = database.join("conf");
    File::open(&path)
        .and_then(|conf| conf.sync_all())
        .map_err(|error| io_error("syncing", &path, &error))?;
    sync_dir(&database.join("blobs"))?;
    sync_dir(database)?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io_error("syncing", dir, &error))
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("removing", dir, &error))
        }
        _ => Ok(()),
    }
}

fn foreign(dir: &Path, found: &str) -> Error {
    Error::Foreign {
        path: dir.to_owned(),
        found: found.to_owned(),
    }
}

fn corrupt(path: &Path, detail: String) -> Error {
    Error::Corrupt {
        place: PathBuf::from(path).display().to_string(),
        detail,
    }
}

fn io_error(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::Io {
        action: format!("{verb} {}", path.display()),
        detail: error.to_string(),
    }
}
