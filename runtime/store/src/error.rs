//! What can go wrong with a store.

use std::path::PathBuf;

use cofferdam_core::failure::Class;

use crate::{Engine, Head};

/// Why a store refused or failed; each message names the place, the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The run is not where the batch believed it to be: somebody else has gone on with it.
    /// Nothing of the batch was applied.
    #[error(
        "run `{run}` is at {found}, but the batch was made for {expected}: somebody else has gone \
         on with it; read its journal again before deciding anything"
    )]
    Stale {
        /// The run.
        run: String,
        /// Where the batch believed the run to be.
        expected: Head,
        /// Where it is.
        found: Head,
    },
    /// The batch makes no sense, whatever the store holds. Nothing of it was applied.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it, and what to do instead.
        what: String,
    },
    /// Something exceeds a limit of the store. Nothing of the batch was applied.
    #[error("{what} has {len}, the limit is {len_max}; split it or store it elsewhere")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is, in bytes or entries.
        len: usize,
        /// How large it may be, in the same unit.
        len_max: usize,
    },
    /// More is waiting to be written than the store is willing to hold. Nothing of the batch was
    /// applied.
    #[error(
        "{commits} commits with {bytes} bytes are waiting to be written; wait for some of them \
         before making more"
    )]
    Busy {
        /// How many commits wait.
        commits: usize,
        /// How many bytes wait.
        bytes: usize,
    },
    /// The operating system failed the store. From a commit it means that the outcome is unknown:
    /// the batch may be there, whole, or not at all, when the store is opened again.
    #[error(
        "{action} failed: {detail}; see to the disk (space, permissions, health), then open the \
         store again"
    )]
    Io {
        /// What was being done.
        action: String,
        /// What the operating system said.
        detail: String,
    },
    /// What is on disk is not what was written there.
    #[error(
        "{place} is damaged: {detail}; stop, copy the directory away as it is, and restore the \
         store from a backup"
    )]
    Corrupt {
        /// Which file, or which table and key.
        place: String,
        /// What was found.
        detail: String,
    },
    /// The directory belongs to something else. It was not touched.
    #[error(
        "{} is not a store of Cofferdam: {found}; name an empty or absent directory, or the one \
         that holds the store", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The store was written by a version of Cofferdam that this one does not know. It was not
    /// touched.
    #[error(
        "{} has store format {found}, this version of Cofferdam reads {supported}; open it with \
         the version that wrote it, or a later one", path.display()
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The version that can be read.
        supported: u64,
    },
    /// Another process has the store open. It was not touched.
    #[error(
        "{} is in use by another process; stop that process, or name another directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The disk has less room than the store leaves free. Nothing of the batch was applied.
    #[error(
        "the disk of {} has {free_bytes} bytes free, and the store leaves {reserve_bytes}; make \
         room (what was begun goes on by itself then), or lower [store] reserve", path.display()
    )]
    Full {
        /// The store's directory.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is to be left free.
        reserve_bytes: u64,
    },
    /// Another engine keeps the store. It was not touched.
    #[error(
        "{} holds a store that is kept by {found}, and {wanted} was asked for; set [store] engine \
         = \"{found}\", or move it with `cofferdam migrate-store --to {wanted}`", path.display()
    )]
    OtherEngine {
        /// The directory.
        path: PathBuf,
        /// What keeps the store.
        found: Engine,
        /// What was asked for.
        wanted: Engine,
    },
    /// This program was built without the engine. Nothing was touched.
    #[error(
        "{} is to be kept by {engine}, which this program was built without; build it with the \
         feature `{engine}`, or set [store] engine to another", path.display()
    )]
    NoEngine {
        /// The directory.
        path: PathBuf,
        /// The engine.
        engine: Engine,
    },
    /// A backup is not what was written there. Nothing was restored from it.
    #[error("{} is damaged at byte {offset}: {detail}; take another backup", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// Where the part begins that does not fit.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// A backup was written by a version of Cofferdam that this one does not know.
    #[error(
        "{} has backup format {found}, this version of Cofferdam reads {supported}; restore it \
         with the version that wrote it, or a later one", path.display()
    )]
    BackupVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A place that something was to be written to holds something. It was not touched.
    #[error("{} is not empty: {found}; name a place where nothing is", path.display())]
    NotEmpty {
        /// The file or directory.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// What was written is not what was read back. It was not put to use.
    #[error(
        "{} does not hold what was written to it: {detail}; see to the disk, and try again",
        path.display()
    )]
    Mismatch {
        /// The file or directory.
        path: PathBuf,
        /// Which row differs, and how.
        detail: String,
    },
    /// The store was closed. Nothing of the batch was applied.
    #[error("the store is closed; open it again")]
    Closed,
}

impl Error {
    /// The stable code of this error; it has a page of its own in the documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stale { .. } => "CD0400",
            Self::Invalid { .. } => "CD0401",
            Self::TooLarge { .. } => "CD0402",
            Self::Busy { .. } => "CD0403",
            Self::Io { .. } => "CD0404",
            Self::Corrupt { .. } => "CD0405",
            Self::Foreign { .. } => "CD0406",
            Self::Version { .. } => "CD0407",
            Self::InUse { .. } => "CD0408",
            Self::Closed => "CD0409",
            Self::Full { .. } => "CD0410",
            Self::OtherEngine { .. } => "CD0411",
            Self::NoEngine { .. } => "CD0412",
            Self::Backup { .. } => "CD0413",
            Self::BackupVersion { .. } => "CD0414",
            Self::NotEmpty { .. } => "CD0415",
            Self::Mismatch { .. } => "CD0416",
        }
    }

    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Stale { .. } => Class::Conflict,
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::Foreign { .. }
            | Self::OtherEngine { .. }
            | Self::Backup { .. }
            | Self::NotEmpty { .. } => Class::InvalidInput,
            Self::Busy { .. } => Class::RateLimited,
            Self::Io { .. } | Self::InUse { .. } | Self::Closed | Self::Full { .. } => {
                Class::Unavailable
            }
            Self::Version { .. } | Self::NoEngine { .. } | Self::BackupVersion { .. } => {
                Class::Unsupported
            }
            Self::Corrupt { .. } | Self::Mismatch { .. } => Class::Internal,
        }
    }

    /// Whether a commit that failed with this may have been applied all the same.
    pub fn is_unknown_outcome(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn too_large(what: impl Into<String>, len: usize, len_max: usize) -> Self {
        Self::TooLarge {
            what: what.into(),
            len,
            len_max,
        }
    }
}
