//! The directory of a store, and everything that can be wrong with one.
//!
//! ```text
//! cofferdam.store         what this directory is; there once creation is complete
//! cofferdam.store.new     the same, while it is being created
//! sled/ or fjall/         the database
//!      /cofferdam.mark    how many groups of commits have to be in it
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mark::Mark;
use super::row::{self, SELF};
use super::{Options, Tree};
use crate::{Engine, Error};

const MAGIC: &str = "cofferdam.store";
const MAGIC_NEW: &str = "cofferdam.store.new";
const FORMAT: &str = "cofferdam-store";
const VERSION: u64 = 1;

/// Longest magic file that is read; ours has some 60 bytes.
const MAGIC_LEN_MAX: u64 = 4096;

/// How many entries of a foreign directory a message names.
const FOUND_MAX: usize = 3;

/// What the root of a file system has of its own; a volume may be mounted at the directory.
const LOST_FOUND: &str = "lost+found";

/// The row that says that the database is the one of this store. Databases
/// take files that are empty or all garbage for new ones; the row's absence tells.
const WITNESS: &[u8] = b"created";

#[derive(Serialize, Deserialize)]
struct Magic {
    format: String,
    version: u64,
    /// Later versions may have no such thing.
    #[serde(default)]
    engine: String,
}

pub(super) struct Opened<T> {
    pub(super) tree: T,
    pub(super) mark: Mark,
    /// Nobody else opens the store while this is open.
    pub(super) lock: Lock,
}

/// The lock of a directory, released when dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do: a child that another thread is just starting has a copy of
        // the descriptor until its `exec`, and with it the lock. On failure closing has to do.
        let _ = self.0.unlock();
    }
}

pub(super) fn open<T: Tree>(dir: &Path, options: &Options) -> Result<Opened<T>, Error> {
    create_dir(dir)?;
    let lock = lock(dir)?;
    let database = dir.join(T::ENGINE.as_str());
    let survey = survey(dir, T::ENGINE)?;
    let tree = match survey {
        Survey::Store => {
            T::check_files(&database)?;
            let tree = T::open(&database, options)?;
            check_witness(&tree, &database)?;
            tree
        }
        Survey::Unfinished => {
            // Nothing in it was ever acknowledged, since creation was not complete.
            remove_dir(&database)?;
            create(dir, &database, options)?
        }
        Survey::Empty => create(dir, &database, options)?,
    };
    let mark = Mark::open(&database)?;
    tree.make_durable(&database)?;
    sync_dir(dir)?;
    if survey != Survey::Store {
        // Last, so that the magic stands for a database that is complete and durable.
        let path = dir.join(MAGIC);
        fs::rename(dir.join(MAGIC_NEW), &path)
            .map_err(|error| io_error("creating", &path, &error))?;
        sync_dir(dir)?;
    }
    Ok(Opened { tree, mark, lock })
}

/// Which engine keeps the store in a directory; `None` if no store is there. Touches nothing.
pub(crate) fn engine_of(dir: &Path) -> Result<Option<Engine>, Error> {
    match fs::exists(dir.join(MAGIC)) {
        Ok(true) => read_engine(dir).map(Some),
        Ok(false) => Ok(None),
        // Whoever opens it says so.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(io_error("opening", dir, &error)),
    }
}

/// Makes the store in a directory one of another engine, whose database is complete and durable in
/// it. Atomic.
pub(crate) fn set_engine(dir: &Path, engine: Engine) -> Result<(), Error> {
    write_magic(dir, engine)?;
    let path = dir.join(MAGIC);
    fs::rename(dir.join(MAGIC_NEW), &path).map_err(|error| io_error("replacing", &path, &error))?;
    sync_dir(dir)
}

/// Creates the directory and what is missing above it, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<(), Error> {
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
pub(crate) fn lock(dir: &Path) -> Result<Lock, Error> {
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

fn survey(dir: &Path, engine: Engine) -> Result<Survey, Error> {
    let database = engine.as_str();
    let mut names = names(dir)?;
    if names.iter().any(|name| name == MAGIC) {
        let found = read_engine(dir)?;
        if found != engine {
            return Err(Error::OtherEngine {
                path: dir.to_owned(),
                found,
                wanted: engine,
            });
        }
        return Ok(Survey::Store);
    }
    if names.is_empty() {
        return Ok(Survey::Empty);
    }
    let ours = |name: &String| name == MAGIC_NEW || name == database;
    if names.iter().all(ours) && is_unfinished(dir, engine, names.len())? {
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

/// What is in a directory, but for what a file system has of its own.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| io_error("reading", dir, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name != LOST_FOUND {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether creation was interrupted: the new magic is there as a whole, or it is alone and there
/// in part.
fn is_unfinished(dir: &Path, engine: Engine, entries: usize) -> Result<bool, Error> {
    let path = dir.join(MAGIC_NEW);
    if !path.exists() {
        return Ok(false);
    }
    let written = read_magic(&path)?;
    let whole = magic(engine)?;
    Ok(written == whole || (entries == 1 && whole.starts_with(&written)))
}

fn read_engine(dir: &Path) -> Result<Engine, Error> {
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
    Engine::from_name(&magic.engine).ok_or_else(|| {
        let found = format!(
            "its {MAGIC} says it is kept by `{}`, which this version does not know",
            magic.engine
        );
        foreign(dir, &found)
    })
}

fn magic(engine: Engine) -> Result<Vec<u8>, Error> {
    let magic = Magic {
        format: FORMAT.to_owned(),
        version: VERSION,
        engine: engine.as_str().to_owned(),
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

fn create<T: Tree>(dir: &Path, database: &Path, options: &Options) -> Result<T, Error> {
    // Before there is a database: one without the new magic beside it would be foreign.
    write_magic(dir, T::ENGINE)?;
    fs::create_dir_all(database).map_err(|error| io_error("creating", database, &error))?;
    let tree = T::open(database, options)?;
    let key = row::tree_key(SELF, WITNESS);
    let (value, _) = row::encode(&key, &[]);
    tree.apply([(key, Some(value))].into())?;
    tree.flush()?;
    Ok(tree)
}

/// Writes the new magic, durably.
fn write_magic(dir: &Path, engine: Engine) -> Result<(), Error> {
    let path = dir.join(MAGIC_NEW);
    let magic = magic(engine)?;
    File::create(&path)
        .and_then(|mut file| {
            file.write_all(&magic)?;
            file.sync_all()
        })
        .map_err(|error| io_error("creating", &path, &error))?;
    sync_dir(dir)
}

pub(super) fn check_not_empty(path: &Path) -> Result<(), Error> {
    let detail = match fs::metadata(path).map(|metadata| metadata.len()) {
        Ok(0) => "it is empty".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
        Err(error) => return Err(io_error("opening", path, &error)),
    };
    Err(corrupt(path, detail))
}

fn check_witness<T: Tree>(tree: &T, database: &Path) -> Result<(), Error> {
    if tree.get(&row::tree_key(SELF, WITNESS))?.is_none() {
        let detail = "nothing of what was written at its creation is in it".to_owned();
        return Err(corrupt(database, detail));
    }
    Ok(())
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| io_error("syncing", dir, &error))
}

pub(crate) fn remove_dir(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("removing", dir, &error))
        }
        _ => Ok(()),
    }
}

pub(crate) fn foreign(dir: &Path, found: &str) -> Error {
    Error::Foreign {
        path: dir.to_owned(),
        found: found.to_owned(),
    }
}

pub(super) fn corrupt(path: &Path, detail: String) -> Error {
    Error::Corrupt {
        place: PathBuf::from(path).display().to_string(),
        detail,
    }
}

pub(crate) fn io_error(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::Io {
        action: format!("{verb} {}", path.display()),
        detail: error.to_string(),
    }
}
