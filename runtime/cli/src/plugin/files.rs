//! Files that a verb makes: whole or not at all, and never over others unasked.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use cofferdam_host::artifact::Packed;

use crate::exit::usage;

/// Readable by everybody, like what a compiler writes.
pub const MODE_PUBLIC: u32 = 0o644;
/// For this user alone.
pub const MODE_PRIVATE: u32 = 0o600;
const MODE_FOLDER: u32 = 0o755;

/// Writes beside the file and renames, so that nobody reads half of it. What it replaces gives its
/// permissions to it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(_) => MODE_PUBLIC,
    };
    let failed = || format!("cannot write `{}`", path.display());
    fresh(path, bytes, mode)?
        .persist(path)
        .map_err(|error| error.error)
        .with_context(failed)?;
    Ok(())
}

/// The same, and refuses to replace anything unless it is forced to.
pub fn create(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<()> {
    let file = fresh(path, bytes, mode)?;
    let persisted = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    match persisted {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(is_there(path)),
        Err(error) => {
            Err(error.error).with_context(|| format!("cannot write `{}`", path.display()))
        }
    }
}

/// What a layout consists of.
const LAYOUT: [&str; 3] = ["oci-layout", "index.json", "blobs"];

/// Refuses a file that is there, unless it may be replaced. Another may come before it is written;
/// [`create`] refuses that.
pub fn check_free(path: &Path, force: bool) -> Result<()> {
    check_folder(path)?;
    if path.exists() && !force {
        return Err(is_there(path));
    }
    Ok(())
}

/// Refuses a folder that is there and not empty; a layout may be replaced, and nothing else.
pub fn check_free_folder(path: &Path, force: bool) -> Result<()> {
    check_folder(path)?;
    let holds = |fine: &dyn Fn(&OsStr) -> bool| {
        std::fs::read_dir(path)
            .is_ok_and(|entries| entries.flatten().all(|entry| fine(&entry.file_name())))
    };
    let is_layout = holds(&|name| LAYOUT.iter().any(|part| name == *part));
    if !path.exists() || holds(&|_| false) || (force && is_layout) {
        return Ok(());
    }
    if is_layout {
        return Err(is_there(path));
    }
    Err(usage(format!(
        "`{}` is there, and is no packed plugin\nhelp: name another folder, or a file that ends in .cofferdam",
        path.display()
    )))
}

/// Writes a layout as a folder, in place of another only if it is forced to.
pub fn create_folder(path: &Path, packed: &Packed, force: bool) -> Result<()> {
    check_free_folder(path, force)?;
    let failed = || format!("cannot write `{}`", path.display());
    let made = tempfile::Builder::new()
        .permissions(Permissions::from_mode(MODE_FOLDER))
        .tempdir_in(parent(path))
        .with_context(failed)?;
    packed.write_folder(made.path()).with_context(failed)?;
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(failed)?;
    }
    std::fs::rename(made.keep(), path).with_context(failed)?;
    Ok(())
}

/// Refuses a place in a folder that is not there, before anything is done for it.
pub fn check_folder(path: &Path) -> Result<()> {
    let folder = parent(path);
    if folder.is_dir() {
        return Ok(());
    }
    let what = if folder.exists() {
        "is no folder"
    } else {
        "is not there"
    };
    Err(usage(format!(
        "cannot write `{}`: `{}` {what}\nhelp: make the folder, or name another place",
        path.display(),
        folder.display()
    )))
}

fn is_there(path: &Path) -> anyhow::Error {
    usage(format!(
        "`{}` is there already\nhelp: name another, or replace it with --force",
        path.display()
    ))
}

fn fresh(path: &Path, bytes: &[u8], mode: u32) -> Result<tempfile::NamedTempFile> {
    let failed = || format!("cannot write `{}`", path.display());
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(parent(path))
        .with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    Ok(file)
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
