//! Which database keeps a store.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tree_store::layout;
use crate::{Error, JournalStore, Options, SledStore};

/// What keeps the rows of a store on the disk; chosen when the store is made.
///
/// All engines keep the same rows and make the same promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// sled 0.34 with a sync of our own: the default.
    #[default]
    Sled,
    /// fjall 3: log-structured, about twice as fast; behind the feature `fjall`.
    Fjall,
}

impl Engine {
    /// Every engine, whether or not it is built in.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Fjall];

    /// The name in configurations, messages and folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Fjall => "fjall",
        }
    }

    /// The engine of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.as_str() == name)
    }

    /// Which engine keeps the store in a directory; `None` if no store is there. Touches nothing,
    /// and works while the store is in use.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Version`], [`Error::Io`].
    pub fn of(dir: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        layout::engine_of(dir.as_ref())
    }

    /// Whether this program has the engine.
    pub fn is_built_in(self) -> bool {
        self == Self::Sled || cfg!(feature = "fjall")
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Opens the store in a directory, or makes one there if the directory is empty or absent.
///
/// `engine` is the one to use: if none is named, the one that keeps the store that is there, and
/// sled for one that is made.
///
/// # Errors
/// [`Error::OtherEngine`] if another engine keeps the store, [`Error::NoEngine`] if this program
/// was built without it; else those of [`SledStore::open`].
pub fn open(
    dir: impl AsRef<Path>,
    engine: Option<Engine>,
    options: &Options,
) -> Result<Arc<dyn JournalStore>, Error> {
    let dir = dir.as_ref();
    let engine = match engine {
        Some(engine) => engine,
        None => Engine::of(dir)?.unwrap_or_default(),
    };
    match engine {
        Engine::Sled => Ok(Arc::new(SledStore::open(dir, options)?)),
        #[cfg(feature = "fjall")]
        Engine::Fjall => Ok(Arc::new(crate::FjallStore::open(dir, options)?)),
        #[cfg(not(feature = "fjall"))]
        Engine::Fjall => Err(Error::NoEngine {
            path: dir.to_owned(),
            engine,
        }),
    }
}
