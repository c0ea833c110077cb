//! A store opened by itself, to look at it: no plugins, and no run goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cofferdam_store::Report as StoreReport;
use cofferdam_store::{JournalStore, Options};

use crate::Error;
use crate::query::Query;

/// A store that is only read. While it is open no runtime can open it.
pub struct Archive {
    store: Arc<dyn JournalStore>,
    path: PathBuf,
}

impl Archive {
    /// Opens a store that is there, whichever engine keeps it; `None` if the directory is absent. Blocks while the log is read.
    ///
    /// # Errors
    /// [`Error::Store`] if the directory holds something else, is in use, or is damaged.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let store = cofferdam_store::open(path, None, &Options::default())?;
        Ok(Some(Self {
            store,
            path: path.to_owned(),
        }))
    }

    pub(crate) fn store(&self) -> &dyn JournalStore {
        &*self.store
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store knows.
    pub fn query(&self) -> Query<'_> {
        Query::new(&*self.store)
    }

    /// Reads everything and reports what does not fit, payloads that are missing or that nothing
    /// refers to included. Blocks.
    ///
    /// # Errors
    /// [`Error::Store`] where damage keeps the rest from being read.
    pub fn verify(&self) -> Result<StoreReport, Error> {
        self.query().verify()
    }

    /// The bytes that the store takes up on the disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn size_on_disk(&self) -> Result<u64, Error> {
        Ok(self.store.size_on_disk()?)
    }
}
