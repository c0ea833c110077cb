//! Copies of the artifacts that were swapped in, so that a restart finds them as they were
//! whatever became of the files that were named.
//!
//! ```text
//! DATA/plugins/CONNECTION/NUMBER/…   the artifact, as it was read
//! ```
//!
//! A copy is complete when its folder has its name: it is written under another one, synced and
//! renamed. What no row names any more is removed; a crash in between leaves a folder that the
//! next swap removes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

const FOLDER: &str = "plugins";
/// What may lie beside a component and belongs to it: its manifest, and its signature under the
/// component's own name.
const MANIFEST: &str = "plugin.toml";
const SIGNATURE: &str = "sig";
/// More than an artifact of any form has.
const FILES_MAX: usize = 64;
const DEPTH_MAX: usize = 4;
const BYTES_MAX: u64 = 2 * cofferdam_host::COMPONENT_BYTES_MAX;

/// The shelf of one runtime; none if its store has no folder.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    root: Option<PathBuf>,
}

impl Shelf {
    pub fn new(store: Option<&Path>) -> Self {
        Self {
            root: store.map(|dir| dir.join(FOLDER)),
        }
    }

    /// Copies an artifact durably and returns where the copy is; none without a folder. Blocks.
    pub fn keep(
        &self,
        connection: &str,
        number: u64,
        source: &Path,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(place) = self.place(connection, number) else {
            return Ok(None);
        };
        let copied = copy_artifact(source, &place);
        copied.map_err(|source| Error::Shelf {
            path: place.display().to_string(),
            source,
        })?;
        Ok(Some(only_entry(&place)))
    }

    /// Where the copy of a generation is.
    pub fn find(&self, connection: &str, number: u64) -> Option<PathBuf> {
        let place = self.place(connection, number)?;
        place.is_dir().then(|| only_entry(&place))
    }

    /// Removes the copies of a connection but these. A copy that cannot be removed takes up room
    /// and does no harm.
    pub fn retain(&self, connection: &str, numbers: &[u64]) {
        let Some(root) = &self.root else { return };
        let entries = fs::read_dir(root.join(connection));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if !number.is_some_and(|number| numbers.contains(&number))
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "an old plugin could not be removed");
            }
        }
    }

    fn place(&self, connection: &str, number: u64) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        Some(root.join(connection).join(number.to_string()))
    }
}

/// The artifact in the folder of a copy: the component among its companions, or the only entry.
fn only_entry(place: &Path) -> PathBuf {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let is_companion = |path: &PathBuf| {
        path.file_name() == Some(OsStr::new(MANIFEST))
            || path.extension() == Some(OsStr::new(SIGNATURE))
    };
    entries
        .map(|entry| entry.path())
        .find(|path| !is_companion(path))
        .unwrap_or_else(|| place.to_owned())
}

fn copy_artifact(source: &Path, place: &Path) -> io::Result<()> {
    let unfinished = place.with_extension("new");
    for old in [place, &unfinished] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::create_dir_all(&unfinished)?;
    let mut budget = Budget {
        files: FILES_MAX,
        bytes: BYTES_MAX,
    };
    let name = source
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    if source.is_dir() {
        budget.copy_dir(source, &unfinished.join(name), 0)?;
    } else {
        budget.copy_file(source, &unfinished.join(name))?;
        let beside = [
            source.with_file_name(MANIFEST),
            source.with_extension(SIGNATURE),
        ];
        for companion in beside.iter().filter(|path| path.is_file()) {
            if let Some(name) = companion.file_name() {
                budget.copy_file(companion, &unfinished.join(name))?;
            }
        }
    }
    sync_dir(&unfinished)?;
    fs::rename(&unfinished, place)?;
    let parents = place.ancestors().skip(1).take(3);
    parents
        .filter(|dir| !dir.as_os_str().is_empty())
        .try_for_each(sync_dir)
}

/// How much one copy may still take.
struct Budget {
    files: usize,
    bytes: u64,
}

impl Budget {
    fn copy_dir(&mut self, from: &Path, to: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(too_large("has too many folders inside each other"));
        }
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let Some(name) = path.file_name() else {
                continue;
            };
            if path.is_dir() {
                self.copy_dir(&path, &to.join(name), depth + 1)?;
            } else {
                self.copy_file(&path, &to.join(name))?;
            }
        }
        sync_dir(to)
    }

    fn copy_file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let left = self.files.checked_sub(1);
        self.files = left.ok_or_else(|| too_large("has too many files"))?;
        let size = fs::metadata(from)?.len();
        let left = self.bytes.checked_sub(size);
        self.bytes = left.ok_or_else(|| too_large("is too large"))?;
        fs::copy(from, to)?;
        File::open(to)?.sync_all()
    }
}

fn too_large(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("the folder {what} for a plugin; name the plugin's own folder"),
    )
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_kept_with_its_manifest_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("build");
        fs::create_dir(&source).unwrap();
        for name in [
            "crm.wasm",
            "crm.sig",
            "mail.sig",
            "plugin.toml",
            "notes.txt",
        ] {
            fs::write(source.join(name), name).unwrap();
        }
        let shelf = Shelf::new(Some(&dir.path().join("data")));
        let kept = shelf.keep("crm", 2, &source.join("crm.wasm")).unwrap();
        let kept = kept.unwrap();
        assert_eq!(kept.file_name().unwrap(), "crm.wasm");
        assert!(kept.with_file_name("plugin.toml").is_file());
        assert!(kept.with_file_name("crm.sig").is_file());
        assert!(!kept.with_file_name("mail.sig").exists());
        assert!(!kept.with_file_name("notes.txt").exists());
        assert_eq!(shelf.find("crm", 2), Some(kept));
        assert_eq!(shelf.find("crm", 3), None);
    }

    #[test]
    fn what_is_not_named_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("crm");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("plugin.wasm"), "x").unwrap();
        let shelf = Shelf::new(Some(dir.path()));
        for number in 2..6 {
            shelf.keep("crm", number, &source).unwrap();
        }
        shelf.keep("mail", 2, &source).unwrap();
        shelf.retain("crm", &[4, 5]);
        let left: Vec<bool> = (2..6).map(|n| shelf.find("crm", n).is_some()).collect();
        assert_eq!(left, [false, false, true, true]);
        assert!(shelf.find("mail", 2).is_some());
    }

    #[test]
    fn a_folder_that_is_no_plugin_is_not_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("home");
        fs::create_dir(&source).unwrap();
        for n in 0..=FILES_MAX {
            fs::write(source.join(n.to_string()), "x").unwrap();
        }
        let shelf = Shelf::new(Some(dir.path()));
        let error = shelf.keep("crm", 2, &source).unwrap_err().to_string();
        assert!(error.contains("too many files"), "{error}");
        assert_eq!(shelf.find("crm", 2), None);
    }
}
