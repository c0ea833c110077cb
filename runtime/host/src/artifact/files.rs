//! Files, read up to a bound.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Access of anybody but the owner.
const MODE_OTHERS: u32 = 0o077;

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Error {
    /// What the system said.
    Io(io::Error),
    /// Its size.
    TooLarge(u64),
}

/// Reads a regular file of at most this size. What grows while it is read is refused all the same.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    // Asked before it is opened: opening a pipe waits for whoever writes to it.
    if !std::fs::metadata(path).map_err(Error::Io)?.is_file() {
        let other = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(Error::Io(other));
    }
    let file = File::open(path).map_err(Error::Io)?;
    let bytes = file.metadata().map_err(Error::Io)?.len();
    if bytes > bytes_max {
        return Err(Error::TooLarge(bytes));
    }
    let mut contents = Vec::with_capacity(bytes as usize);
    let read = file
        .take(bytes_max + 1)
        .read_to_end(&mut contents)
        .map_err(Error::Io)? as u64;
    if read > bytes_max {
        return Err(Error::TooLarge(read));
    }
    Ok(contents)
}

/// Refuses a file that others may read or write, with the remedy.
pub(super) fn only_for_owner(path: &Path) -> Result<(), String> {
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("cannot be read: {error}; check the path"))?
        .permissions()
        .mode();
    if mode & MODE_OTHERS != 0 {
        return Err(format!(
            "others may read this private key (mode {:03o}); run `chmod 600 {}`, and make a new key if somebody may have read it",
            mode & 0o777,
            path.display()
        ));
    }
    Ok(())
}
