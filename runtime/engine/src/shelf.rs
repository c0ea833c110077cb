//! Copies of the plugins that serve, served before, or are on trial, so that a restart finds them as
//! they were whatever became of the files that were named.
//!
//! ```text
//! DATA/plugins/CONNECTION/NUMBER/plugin.wasm   the component that was judged and loaded
//!                               /plugin.toml   its manifest, if it has one
//!                               /plugin.sig    who vouches for it, if somebody does
//! ```
//!
//! A copy is written from memory, under another name, synced and renamed: it is complete when its
//! folder has its name, and never of other bytes than those that serve. What no row names any more
//! is removed; a crash in between leaves a folder that the next swap removes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cofferdam_host::Artifact;

use crate::Error;

/// Below the store's folder.
pub(crate) const FOLDER: &str = "plugins";
const COMPONENT: &str = "plugin.wasm";
const MANIFEST: &str = "plugin.toml";
const SIGNATURE: &str = "plugin.sig";

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

    /// Keeps a plugin durably, unless it is kept already or there is no folder. Blocks.
    pub fn keep(&self, connection: &str, number: u64, plugin: &Artifact) -> Result<(), Error> {
        let Some(place) = self.place(connection, number) else {
            return Ok(());
        };
        if place.is_dir() {
            return Ok(());
        }
        write(plugin, &place).map_err(|source| Error::Shelf {
            path: place.display().to_string(),
            source,
        })
    }

    /// Where the copy of a generation is.
    pub fn find(&self, connection: &str, number: u64) -> Option<PathBuf> {
        let place = self.place(connection, number)?;
        place.is_dir().then_some(place)
    }

    /// Removes what an earlier runtime left under a number that is to be used again.
    pub fn clear(&self, connection: &str, number: u64) {
        if let Some(place) = self.place(connection, number) {
            remove(&place);
        }
    }

    /// Removes the copies of a connection but these. A copy that cannot be removed takes up room
    /// and does no harm.
    pub fn retain(&self, connection: &str, numbers: &[u64]) {
        let Some(root) = &self.root else { return };
        let entries = fs::read_dir(root.join(connection));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if !number.is_some_and(|number| numbers.contains(&number)) {
                remove(&entry.path());
            }
        }
    }

    fn place(&self, connection: &str, number: u64) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        Some(root.join(connection).join(number.to_string()))
    }
}

fn remove(place: &Path) {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %place.display(), %error, "an old plugin could not be removed");
        }
        _ => {}
    }
}

fn write(plugin: &Artifact, place: &Path) -> io::Result<()> {
    let unfinished = place.with_extension("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(&unfinished)?;
    write_synced(&unfinished.join(COMPONENT), plugin.component())?;
    if let Some(manifest) = plugin.manifest_text() {
        write_synced(&unfinished.join(MANIFEST), manifest.as_bytes())?;
    }
    if !plugin.signatures().is_empty() {
        let text = plugin.signature_text();
        write_synced(&unfinished.join(SIGNATURE), text.as_bytes())?;
    }
    sync_dir(&unfinished)?;
    fs::rename(&unfinished, place)?;
    let parents = place.ancestors().skip(1).take(3);
    parents
        .filter(|dir| !dir.as_os_str().is_empty())
        .try_for_each(sync_dir)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> Artifact {
        let manifest = "name = \"crm\"\nversion = \"1.0.0\"\nwit = \"1.0\"\n";
        Artifact::new(b"component".to_vec(), Some(manifest), "crm.wasm").unwrap()
    }

    #[test]
    fn what_is_kept_is_what_was_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Some(dir.path()));
        shelf.keep("crm", 2, &plugin()).unwrap();
        let kept = Artifact::read(&shelf.find("crm", 2).unwrap()).unwrap();
        assert_eq!(kept.component(), plugin().component());
        assert_eq!(kept.manifest_text(), plugin().manifest_text());
        assert_eq!(shelf.find("crm", 3), None);
        assert_eq!(Shelf::new(None).find("crm", 2), None);
    }

    #[test]
    fn what_is_not_named_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Some(dir.path()));
        for number in 2..6 {
            shelf.keep("crm", number, &plugin()).unwrap();
        }
        shelf.keep("mail", 2, &plugin()).unwrap();
        shelf.retain("crm", &[4, 5]);
        let left: Vec<bool> = (2..6).map(|n| shelf.find("crm", n).is_some()).collect();
        assert_eq!(left, [false, false, true, true]);
        assert!(shelf.find("mail", 2).is_some());
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_an_error_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FOLDER), "in the way").unwrap();
        let shelf = Shelf::new(Some(dir.path()));
        let error = shelf.keep("crm", 2, &plugin()).unwrap_err().to_string();
        assert!(
            error.contains("CD0270") && error.contains("crm/2"),
            "{error}"
        );
    }
}
