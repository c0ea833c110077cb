//! How many groups of commits have to be in the database: a number beside it.
//!
//! A database whose file was cut short, or whose log has a damaged place, looks to itself like one
//! that was killed a little earlier, and would open without a word. So each group counts itself in
//! a row of its own, and after the group has been synced the number is written here too. A
//! database that has counted less than that has lost what was acknowledged.
//!
//! The file is written without a sync: a kill of the process leaves it as it is, and after a loss
//! of power it may be behind, which says less and never something wrong.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use super::layout::io_error;
use crate::Error;

pub(super) const FILE: &str = "cofferdam.mark";

/// The number and its checksum.
const LEN: usize = 12;

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    failed: bool,
}

impl Mark {
    /// Opens the mark of a database, or makes one.
    pub(super) fn open(database: &Path) -> Result<Self, Error> {
        let path = database.join(FILE);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io_error("opening", &path, &error))?;
        Ok(Self {
            file,
            failed: false,
        })
    }

    /// The number; 0 if there is none, or one that was torn by a loss of power.
    pub(super) fn get(&mut self) -> io::Result<u64> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        (&self.file).take(LEN as u64).read_to_end(&mut bytes)?;
        let Some((number, crc)) = bytes.split_first_chunk::<8>() else {
            return Ok(0);
        };
        if crc == crc32fast::hash(number).to_le_bytes() {
            Ok(u64::from_le_bytes(*number))
        } else {
            Ok(0)
        }
    }

    /// Sets the number. A mark that stays behind says less, so that a failure stops nothing.
    pub(super) fn set(&mut self, number: u64) {
        let number = number.to_le_bytes();
        let mut bytes = number.to_vec();
        bytes.extend(crc32fast::hash(&number).to_le_bytes());
        let written = self
            .file
            .rewind()
            .and_then(|()| self.file.write_all(&bytes));
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!(%error, "the store's mark cannot be written: a cut of its files would go unnoticed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_read_back_and_a_torn_one_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path()).unwrap();
        assert_eq!(mark.get().unwrap(), 0);
        mark.set(7);
        mark.set(u64::MAX - 1);
        assert_eq!(Mark::open(dir.path()).unwrap().get().unwrap(), u64::MAX - 1);
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(Mark::open(dir.path()).unwrap().get().unwrap(), 0);
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Mark::open(dir.path()).unwrap().get().unwrap(), 0);
        }
    }
}
