//! A store as a file, and back; see `cofferdam_store::backup` for the format.

use std::path::{Path, PathBuf};

use cofferdam_store::JournalStore;
use cofferdam_store::transfer::{self, Beside};

pub use cofferdam_store::Engine;
pub use cofferdam_store::backup::Summary as BackupSummary;

use crate::builder::off_thread;
use crate::{Archive, Config, Error, Runtime, shelf};

/// Writes a store and the copies of its plugins, without which its generations could not be
/// served again.
fn write(store: &dyn JournalStore, dir: Option<&Path>, to: &Path) -> Result<BackupSummary, Error> {
    let beside = dir.map(|dir| Beside {
        dir,
        folder: shelf::FOLDER,
    });
    Ok(transfer::backup(store, beside, to)?)
}

impl Runtime {
    /// Writes everything in the store, and the kept copies of plugins, to a file that must not be
    /// there: as of one point in time, complete and read back when this returns. Runs go on, but
    /// what they commit waits until the store has been read.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<BackupSummary, Error> {
        let (inner, to) = (self.inner.clone(), to.into());
        off_thread(move || write(&*inner.store, inner.config.store_path(), &to)).await
    }
}

impl Archive {
    /// [`Runtime::backup`] of a store that no runtime has open. Blocks.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn backup(&self, to: &Path) -> Result<BackupSummary, Error> {
        write(self.store(), Some(self.path()), to)
    }
}

/// Makes a store out of a backup in the configured folder, which must be empty or absent, with the
/// configured engine. It is a store only when all of it has been compared with the file. Blocks.
///
/// # Errors
/// [`Error::Store`].
pub fn restore(from: &Path, config: &Config) -> Result<BackupSummary, Error> {
    let (dir, options) = place(config)?;
    let engine = config.engine().unwrap_or_default();
    check_built_in(dir, engine)?;
    Ok(transfer::restore(from, dir, engine, &options)?)
}

/// Makes the store in the configured folder one of another engine, compared record by record.
/// Blocks; nobody else may have the store open.
///
/// # Errors
/// [`Error::Store`].
pub fn migrate_store(config: &Config, to: Engine) -> Result<BackupSummary, Error> {
    let (dir, options) = place(config)?;
    check_built_in(dir, to)?;
    Ok(transfer::migrate(dir, to, &options)?)
}

/// Whether the store in a folder, if one is there, is kept by this engine, so that a configuration
/// that names it can open it. Touches nothing, and works while the store is in use.
///
/// # Errors
/// [`Error::Store`] if another engine keeps it, this program lacks the engine, or the folder holds
/// something else.
pub fn check_engine(dir: &Path, wanted: Engine) -> Result<(), Error> {
    check_built_in(dir, wanted)?;
    match Engine::of(dir)? {
        Some(found) if found != wanted => Err(Error::Store {
            source: cofferdam_store::Error::OtherEngine {
                path: dir.to_owned(),
                found,
                wanted,
            },
        }),
        Some(_) | None => Ok(()),
    }
}

fn place(config: &Config) -> Result<(&Path, cofferdam_store::Options), Error> {
    let dir = config.store_path().ok_or_else(|| Error::Store {
        source: cofferdam_store::Error::Invalid {
            what: "no folder is named for the store; set [store] path".to_owned(),
        },
    })?;
    Ok((dir, config.store_options()))
}

/// Before anything is touched.
fn check_built_in(dir: &Path, engine: Engine) -> Result<(), Error> {
    if engine.is_built_in() {
        return Ok(());
    }
    Err(Error::Store {
        source: cofferdam_store::Error::NoEngine {
            path: dir.to_owned(),
            engine,
        },
    })
}
