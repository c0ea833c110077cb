//! Whether the disk has room for more.
//!
//! A database that meets a full disk fails in the middle of a write, and says nothing certain from
//! then on. So the store stops before: while less than a reserve is free, no group is begun; those
//! that have come wait, in their order and with nothing lost, and go on by themselves when there is
//! room again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::queue::Queue;
use crate::Error;

/// How often a full disk is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Answers how many bytes are free.
pub(crate) type Probe = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

pub(super) struct Room {
    path: PathBuf,
    reserve_bytes: u64,
    probe: Probe,
    /// Whether the operator was told that it is full.
    told: AtomicBool,
}

/// What the file system of a directory has free for this user.
pub(super) fn free_in(dir: &Path) -> Probe {
    let dir = dir.to_owned();
    Box::new(move || {
        let found = rustix::fs::statvfs(&dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    })
}

impl Room {
    pub(super) fn new(dir: &Path, reserve_bytes: u64, probe: Probe) -> Self {
        Self {
            path: dir.to_owned(),
            reserve_bytes,
            probe,
            told: AtomicBool::new(false),
        }
    }

    /// # Errors
    /// [`Error::Full`] if less than the reserve is free.
    pub(super) fn check(&self) -> Result<(), Error> {
        match (self.probe)() {
            Ok(free_bytes) if free_bytes < self.reserve_bytes => Err(Error::Full {
                path: self.path.clone(),
                free_bytes,
                reserve_bytes: self.reserve_bytes,
            }),
            // What cannot be asked cannot be refused for it; the write itself will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for room.
    ///
    /// # Errors
    /// [`Error::Full`] if the queue is closed before there is any.
    pub(super) fn wait(&self, queue: &Queue) -> Result<(), Error> {
        loop {
            let Err(full) = self.check() else {
                if self.told.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %self.path.display(), "the store has room again");
                }
                return Ok(());
            };
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::error!(code = full.code(), error = %full, "commits wait for room");
            }
            if queue.is_closed_within(LOOK_AGAIN) {
                return Err(full);
            }
        }
    }
}
