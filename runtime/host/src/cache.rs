//! Compiled code on disk, so that a plugin is compiled once for each version of the host.
//!
//! Compiled code runs outside any sandbox, so a file is used only if its keyed hash is that of this
//! cache's own key, which only this user can read. Anything else, whatever is wrong with it, is
//! compiled again and overwritten. Code never comes from outside.
//!
//! The folder is bounded: what was not used for the longest time goes first.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Error;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
/// What all entries together may take on disk: a hundred of the largest kind, thousands of the usual.
const CACHE_BYTES_MAX: u64 = 2 << 30;
/// Read at a time while the hash is computed.
const CHUNK_BYTES: usize = 64 << 10;

/// One folder of compiled code.
#[derive(Debug)]
pub(crate) struct CodeCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    bytes_max: u64,
}

/// All files of one entry, those of an interrupted writer included.
struct Entry {
    files: Vec<PathBuf>,
    bytes: u64,
    used: SystemTime,
}

impl CodeCache {
    /// Opens the folder, and makes it and its key if they do not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Cache {
            path: folder.display().to_string(),
            source,
        };
        create_private_folder(folder).map_err(fail)?;
        refuse_shared_folder(folder).map_err(fail)?;
        let key = read_or_create_key(&folder.join(KEY_FILE)).map_err(fail)?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            bytes_max: CACHE_BYTES_MAX,
        })
    }

    /// The compiled component, if it is there, whole, and made by this cache for this engine.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let name = entry_name(engine, digest);
        let path = self.folder.join(&name);
        let mut file = File::open(&path).ok()?;
        let mac_path = path.with_extension("mac");
        let expected = fs::read(&mac_path).ok()?;
        let expected = blake3::Hash::from_slice(&expected).ok()?;
        // `blake3::Hash` compares in constant time.
        if self.mac(&name, &mut file).ok()? != expected {
            tracing::warn!(file = %path.display(), "compiled code was altered; compiling again");
            return None;
        }
        drop(file);
        // The time of the code is that of its making; that of the hash tells of its last use.
        if let Err(error) = touch(&mac_path) {
            tracing::debug!(%error, file = %mac_path.display(), "the use of compiled code is not noted");
        }
        deserialize(engine, &path)
    }

    /// Keeps compiled code. A failure is told in the log and otherwise harmless: the next start
    /// compiles again. A crash in between leaves a file whose hash does not match.
    pub(crate) fn store(&self, engine: &Engine, digest: &str, code: &[u8]) {
        let name = entry_name(engine, digest);
        let kept = self.mac(&name, &mut &*code).and_then(|mac| {
            self.write(&name, code)?;
            let mac_name = Path::new(&name).with_extension("mac");
            self.write(&mac_name.to_string_lossy(), mac.as_bytes())
        });
        if let Err(error) = kept {
            tracing::warn!(%error, file = name, "compiled code could not be kept");
        }
        self.evict(stem(&name));
    }

    /// Removes the entries that were not used for the longest time until the rest is within bounds.
    /// The key and the entry named `newest` stay. Code that another process has mapped goes on there.
    /// A failure is told in the log, and the folder stays larger than it should be.
    fn evict(&self, newest: &str) {
        let mut entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => {
                let folder = self.folder.display();
                tracing::warn!(%error, %folder, "the code cache cannot be kept within bounds");
                return;
            }
        };
        let mut bytes: u64 = entries.values().map(|entry| entry.bytes).sum();
        entries.remove(newest);
        let mut oldest_first: Vec<Entry> = entries.into_values().collect();
        oldest_first.sort_by_key(|entry| entry.used);
        for entry in oldest_first {
            if bytes <= self.bytes_max {
                break;
            }
            bytes = bytes.saturating_sub(entry.bytes);
            for file in entry.files {
                match fs::remove_file(&file) {
                    Ok(()) => {}
                    // Another process that shares the folder was faster.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let file = file.display();
                        tracing::warn!(%error, %file, "compiled code could not be removed");
                    }
                }
            }
        }
    }

    fn entries(&self) -> std::io::Result<HashMap<String, Entry>> {
        let mut entries = HashMap::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let name = file.file_name();
            // Nothing of a name that this cache does not give is ever removed; nor is the key.
            let Some(name) = name.to_str().filter(|name| is_of_entry(name)) else {
                continue;
            };
            let metadata = match file.metadata() {
                Ok(metadata) => metadata,
                // Another process has renamed or removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let entry = entries.entry(stem(name).to_owned()).or_insert(Entry {
                files: Vec::new(),
                bytes: 0,
                used: SystemTime::UNIX_EPOCH,
            });
            entry.files.push(file.path());
            entry.bytes = entry.bytes.saturating_add(metadata.len());
            entry.used = entry.used.max(metadata.modified()?);
        }
        Ok(entries)
    }

    /// The name is part of the hash, so that one entry cannot be passed off as another.
    fn mac(&self, name: &str, code: &mut dyn Read) -> std::io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match code.read(&mut chunk)? {
                0 => return Ok(hasher.finalize()),
                read => hasher.update(&chunk[..read]),
            };
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let temporary = self.folder.join(format!("{name}.{}", random_suffix()?));
        let written = private_file(&temporary)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&temporary, self.folder.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Code that this process, or its own compiler, made a moment ago and nobody else has touched.
#[allow(unsafe_code)]
pub(crate) fn deserialize_own(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` comes straight from `Compiler::compile`: from the compiler in this process, or
    // over a pipe from the compiler that the embedder named, which is trusted like the embedder's
    // own program. It never was in a file, and what strangers wrote is its source only.
    unsafe { Component::deserialize(engine, code) }
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, path: &Path) -> Option<Component> {
    // SAFETY: the bytes were written by `CodeCache::store`, which gets what the compiler made: their
    // keyed hash, with a key that only this user can read, was checked just before. The folder is
    // refused by `CodeCache::open` if anybody else can write to it, so nobody but this user, who
    // owns the process anyway, can change the file between the check and the mapping or later.
    // Wasmtime itself refuses code of another version, configuration or processor.
    unsafe { Component::deserialize_file(engine, path) }.ok()
}

fn entry_name(engine: &Engine, digest: &str) -> String {
    let mut hasher = Compatibility(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let compatibility = hasher.0.finalize().to_hex();
    format!("{digest}-{}.cwasm", &compatibility[..16])
}

/// What the files of one entry have in common.
fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// `….cwasm`, `….mac`, and either of them followed by what a file has while it is written.
fn is_of_entry(name: &str) -> bool {
    matches!(name.split('.').nth(1), Some("cwasm" | "mac"))
}

fn touch(path: &Path) -> std::io::Result<()> {
    File::options()
        .write(true)
        .open(path)?
        .set_modified(SystemTime::now())
}

/// Feeds what an engine says of its compatibility into a hash that is the same in every process.
struct Compatibility(blake3::Hasher);

impl Hasher for Compatibility {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn read_or_create_key(path: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    if let Ok(bytes) = fs::read(path)
        && let Ok(key) = <[u8; KEY_BYTES]>::try_from(bytes)
    {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    // By a rename, so that two processes that start together never read half a key.
    let temporary = path.with_extension(random_suffix()?);
    private_file(&temporary)?.write_all(&key)?;
    fs::rename(&temporary, path)?;
    Ok(key)
}

fn random_suffix() -> std::io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(format!("{}.tmp", hex::encode(bytes)))
}

#[cfg(unix)]
fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
}

#[cfg(unix)]
fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(unix)]
fn refuse_shared_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o022 == 0 {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!("other users can write to it (mode {:03o})", mode & 0o777),
    ))
}

#[cfg(not(unix))]
fn refuse_shared_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
