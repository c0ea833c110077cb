//! Has anything changed since the last time?
//!
//! A fingerprint is a hash over the *contents* of files and over a few words, so that switching
//! branches back and forth or a fresh clone into a cached target folder does not cause a build.

use std::{
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Folders that builds make; they are never inputs.
const NOT_INPUTS: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// Collects what a result depends on.
///
/// The hash is the standard library's, 64 bits wide. It may differ between Rust releases,
/// which costs one needless build; and nobody gains by forging a collision in their own clone.
#[derive(Default)]
pub(crate) struct Fingerprint {
    hasher: DefaultHasher,
}

impl Fingerprint {
    /// Depends on `text`, which `label` keeps apart from other texts.
    pub(crate) fn text(&mut self, label: &str, text: &str) -> &mut Self {
        self.bytes(label.as_bytes());
        self.bytes(text.as_bytes());
        self
    }

    /// Depends on the name and content of every file at or below `root/path`; on nothing but
    /// its absence if there is none.
    pub(crate) fn files(&mut self, root: &Path, path: &str) -> Result<&mut Self> {
        self.bytes(path.as_bytes());
        let mut found = Vec::new();
        collect(&root.join(path), &mut found)
            .with_context(|| format!("cannot list the files below {path}"))?;
        // The order of a folder's entries is the file system's own.
        found.sort();
        for file in found {
            let name = file.strip_prefix(root).unwrap_or(&file);
            self.bytes(name.as_os_str().as_encoded_bytes());
            let content =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            self.bytes(&content);
        }
        Ok(self)
    }

    /// The fingerprint of all that was given.
    pub(crate) fn finish(&self) -> String {
        format!("{:016x}", self.hasher.finish())
    }

    /// The length goes first, so that `ab, c` and `a, bc` differ.
    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.hasher.write(bytes);
    }
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        found.push(path.to_owned());
    } else if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_input = !NOT_INPUTS.iter().any(|skipped| name == *skipped);
            // Links to folders are not followed: they could lead in circles.
            if is_input && (!entry.file_type()?.is_symlink() || entry.path().is_file()) {
                collect(&entry.path(), found)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(root: &Path) -> String {
        Fingerprint::default()
            .files(root, "in")
            .expect("readable")
            .finish()
    }

    fn write(root: &Path, name: &str, text: &str) {
        let file = root.join("in").join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }

    #[test]
    fn it_follows_contents_names_and_absence_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        let absent = of(root);
        write(root, "src/a.rs", "one");
        let first = of(root);
        assert_ne!(first, absent);

        write(root, "src/a.rs", "one");
        write(root, "target/x/out", "built");
        assert_eq!(
            of(root),
            first,
            "a touched file and a build folder change nothing"
        );

        write(root, "src/a.rs", "two");
        let changed = of(root);
        assert_ne!(changed, first, "a content counts");

        fs::rename(root.join("in/src/a.rs"), root.join("in/src/b.rs")).expect("renamed");
        assert_ne!(of(root), changed, "a name counts");
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let of = |a: &str, b: &str| Fingerprint::default().text(a, b).finish();
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}
