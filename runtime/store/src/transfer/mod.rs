//! Moving whole stores: into a file, out of one, and from one engine to another.
//!
//! Each of them reads back what it has written and compares it record by record before anything
//! is put to use.

mod fill;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::fill::{Filler, compare, compare_stores};
use crate::backup::{PIECE_LEN_MAX, Part, Reader, Summary, Writer};
use crate::tree_store::layout::{
    create_dir, io_error, lock, names, remove_dir, set_engine, sync_dir,
};
use crate::{Engine, Entry, Error, JournalStore, Options};

/// Where a store is built before it is put in its place.
const RESTORING: &str = "restoring";
const MIGRATING: &str = "migrating";

/// Folders deep below the store's directory; a link that leads in a circle ends here.
const DEPTH_MAX: usize = 16;

/// Files beside the store's rows that belong to them: a folder in the store's directory.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// The store's directory.
    pub dir: &'a Path,
    /// The folder's name.
    pub folder: &'a str,
}

/// Writes everything in a store, and the files beside it, to a file that must not be there.
///
/// As of one point in time; commits wait meanwhile. The file is complete and durable when it has
/// its name, and has been read back; a crash leaves at most `FILE.new`. Blocks.
///
/// # Errors
/// [`Error::NotEmpty`] if the file is there, [`Error::Mismatch`] if it does not read back as it
/// was written, [`Error::Corrupt`] for damage in the store, [`Error::Io`].
pub fn backup(
    store: &dyn JournalStore,
    beside: Option<Beside<'_>>,
    to: &Path,
) -> Result<Summary, Error> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::NotEmpty {
            path: to.to_owned(),
            found: "there is a file already".to_owned(),
        });
    }
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let written = write_backup(store, beside, &unfinished).and_then(|written| {
        fs::rename(&unfinished, to).map_err(|error| io_error("creating", to, &error))?;
        sync_parent(to)?;
        Ok(written)
    });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_backup(
    store: &dyn JournalStore,
    beside: Option<Beside<'_>>,
    to: &Path,
) -> Result<Summary, Error> {
    let failed = |error: std::io::Error| io_error("writing", to, &error);
    // What an earlier backup left unfinished; never a file that something else points to.
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let file = File::create_new(to).map_err(failed)?;
    let mut writer = Writer::new(BufWriter::with_capacity(PIECE_LEN_MAX, file)).map_err(failed)?;
    store.read_all(&mut |entry| match entry {
        Entry::Row { table, key, value } => writer.row(table, key, value).map_err(failed),
        Entry::Head { run, head } => writer.head(run, head).map_err(failed),
        // While nothing can be committed, so that every file that a row names is there.
        Entry::End => match beside {
            Some(beside) => write_files(&mut writer, beside, to),
            None => Ok(()),
        },
    })?;
    let (file, written) = writer.finish().map_err(failed)?;
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    drop(file);
    let read = Reader::open(to)?.check()?;
    if read == written {
        return Ok(written);
    }
    Err(Error::Mismatch {
        path: to.to_owned(),
        detail: format!("{read:?} was read, {written:?} was written"),
    })
}

fn write_files(
    writer: &mut Writer<impl std::io::Write>,
    beside: Beside<'_>,
    to: &Path,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| io_error("writing", to, &error);
    let mut paths = Vec::new();
    list(beside.dir, beside.folder, DEPTH_MAX, &mut paths)?;
    for path in paths {
        let from = beside.dir.join(&path);
        let bytes = match fs::read(&from) {
            Ok(bytes) => bytes,
            // It was on its way out; no row names it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("reading", &from, &error)),
        };
        writer.file(&path, bytes.len() as u64).map_err(failed)?;
        for piece in bytes.chunks(PIECE_LEN_MAX) {
            writer.piece(piece).map_err(failed)?;
        }
    }
    Ok(())
}

/// The files below a folder, in order; names that are not text are of others.
fn list(dir: &Path, folder: &str, depth: usize, paths: &mut Vec<String>) -> Result<(), Error> {
    let path = dir.join(folder);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("reading", &path, &error)),
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().into_string().ok()?,
                entry.file_type().ok()?,
            ))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in found {
        let name = format!("{folder}/{name}");
        if kind.is_file() {
            paths.push(name);
        } else if kind.is_dir() && depth > 0 {
            list(dir, &name, depth - 1, paths)?;
        }
    }
    Ok(())
}

/// Makes a store out of a backup, in a directory that is empty or absent.
///
/// The directory is a store only when all of it has been read back; a crash leaves one that is
/// none, and that the next restore clears up. Blocks.
///
/// # Errors
/// [`Error::Backup`] and [`Error::BackupVersion`] for the file, [`Error::NotEmpty`] for the
/// directory, [`Error::Mismatch`] if what was written is not read back; those of opening a store.
pub fn restore(
    from: &Path,
    dir: &Path,
    engine: Engine,
    options: &Options,
) -> Result<Summary, Error> {
    // All of it first: a damaged file should cost nothing but the look.
    let expected = Reader::open(from)?.check()?;
    create_dir(dir)?;
    let lock = lock(dir)?;
    let building = dir.join(RESTORING);
    clear_unfinished(dir, &building)?;
    let store = crate::open(&building, Some(engine), options)?;
    unpack(from, &store, &building)?;
    drop(store);
    let store = crate::open(&building, Some(engine), options)?;
    verify(from, &store, &building)?;
    drop(store);
    for name in names(&building)? {
        if building.join(&name).is_dir() {
            rename(&building.join(&name), &dir.join(&name))?;
        }
    }
    sync_dir(dir)?;
    // From here on it is a store.
    set_engine(dir, engine)?;
    remove_dir(&building)?;
    drop(lock);
    Ok(expected)
}

/// Makes a store one of another engine, in its directory.
///
/// The store is the old one until the new one is complete and has been compared with it record by
/// record; then it is the new one. A crash leaves one of the two, whole, and what is left over is
/// removed by the next migration. Needs room for both. Blocks.
///
/// # Errors
/// [`Error::Invalid`] if there is no store, or if that engine keeps it already;
/// [`Error::Mismatch`] if what was written is not read back; those of opening a store.
pub fn migrate(dir: &Path, to: Engine, options: &Options) -> Result<Summary, Error> {
    let found = Engine::of(dir)?.ok_or_else(|| {
        Error::invalid(format!(
            "there is no store at {}; name the directory of one",
            dir.display()
        ))
    })?;
    if found == to {
        let path = dir.display();
        return Err(Error::invalid(format!(
            "{path} is kept by {to} already, and stays as it is; name another engine"
        )));
    }
    let source = crate::open(dir, Some(found), options)?;
    let building = dir.join(MIGRATING);
    let place = dir.join(to.as_str());
    remove_dir(&building)?;
    remove_dir(&place)?;
    let target = crate::open(&building, Some(to), options)?;
    let mut filler = Filler::new(&*target);
    source.read_all(&mut |entry| filler.entry(entry))?;
    filler.finish()?;
    drop(target);
    let target = crate::open(&building, Some(to), options)?;
    let compared = compare_stores(&*source, &*target, dir)?;
    drop(target);
    rename(&building.join(to.as_str()), &place)?;
    sync_dir(dir)?;
    set_engine(dir, to)?;
    // Still locked, so that nobody looks at what is being removed.
    remove_dir(&building)?;
    drop(source);
    remove_dir(&dir.join(found.as_str()))?;
    Ok(compared)
}

/// Refuses a directory that holds something, but for what an interrupted restore left, which it
/// removes.
fn clear_unfinished(dir: &Path, building: &Path) -> Result<(), Error> {
    let mut found = names(dir)?;
    let is_unfinished = Engine::of(dir)?.is_none() && found.iter().any(|name| name == RESTORING);
    if is_unfinished {
        // The store was moved first and the mark of completion was to come last.
        for engine in Engine::ALL {
            remove_dir(&dir.join(engine.as_str()))?;
        }
        for name in names(building)? {
            remove_dir(&dir.join(name))?;
        }
        remove_dir(building)?;
        found = names(dir)?;
    }
    found.sort();
    match found.first() {
        None => Ok(()),
        Some(first) => Err(Error::NotEmpty {
            path: dir.to_owned(),
            found: format!("it holds `{first}`"),
        }),
    }
}

/// Writes a backup's rows to a store and its files beside it.
fn unpack(from: &Path, store: &Arc<dyn JournalStore>, dir: &Path) -> Result<(), Error> {
    let mut reader = Reader::open(from)?;
    let mut filler = Filler::new(&**store);
    let mut file: Option<(PathBuf, File)> = None;
    while let Some(part) = reader.next_part()? {
        match part {
            Part::Row { table, key, value } => filler.entry(Entry::Row {
                table,
                key: &key,
                value: &value,
            })?,
            Part::Head { run, head } => filler.entry(Entry::Head { run: &run, head })?,
            Part::File { path, .. } => {
                close(file.take())?;
                let path = dir.join(path);
                let parent = path.parent().unwrap_or(dir);
                fs::create_dir_all(parent).map_err(|error| io_error("creating", parent, &error))?;
                let made = File::create_new(&path);
                file = Some((
                    path.clone(),
                    made.map_err(|error| io_error("creating", &path, &error))?,
                ));
            }
            Part::Piece(bytes) => {
                if let Some((path, file)) = &mut file {
                    file.write_all(&bytes)
                        .map_err(|error| io_error("writing", path, &error))?;
                }
            }
        }
    }
    close(file)?;
    filler.finish()
}

/// Makes a file and the names above it durable.
fn close(file: Option<(PathBuf, File)>) -> Result<(), Error> {
    let Some((path, file)) = file else {
        return Ok(());
    };
    file.sync_all()
        .map_err(|error| io_error("syncing", &path, &error))?;
    path.ancestors()
        .skip(1)
        .take(DEPTH_MAX)
        .try_for_each(|dir| {
            if dir.as_os_str().is_empty() {
                Ok(())
            } else {
                sync_dir(dir)
            }
        })
}

/// Compares a store, and the files beside it, with the backup that they were made of.
fn verify(from: &Path, store: &Arc<dyn JournalStore>, dir: &Path) -> Result<(), Error> {
    let mut reader = Reader::open(from)?;
    let mut left = None;
    let mut next = || {
        let part = reader.next_part()?;
        match part {
            Some(Part::Row { .. } | Part::Head { .. }) => Ok(part),
            other => {
                left = other;
                Ok(None)
            }
        }
    };
    compare(&mut next, &**store, dir)?;
    let mut file: Option<(PathBuf, File)> = None;
    while let Some(part) = left {
        match part {
            Part::File { path, .. } => {
                let path = dir.join(path);
                let opened = File::open(&path);
                let opened = opened.map_err(|error| io_error("opening", &path, &error))?;
                file = Some((path, opened));
            }
            Part::Piece(bytes) => {
                if let Some((path, file)) = &mut file {
                    let mut found = vec![0; bytes.len()];
                    let read = file.read_exact(&mut found);
                    read.map_err(|error| io_error("reading", path, &error))?;
                    if found != bytes {
                        return Err(Error::Mismatch {
                            path: path.clone(),
                            detail: "its content differs".to_owned(),
                        });
                    }
                }
            }
            Part::Row { .. } | Part::Head { .. } => {}
        }
        left = reader.next_part()?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| io_error("creating", to, &error))
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}
