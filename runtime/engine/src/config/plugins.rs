//! Where plugins are found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cofferdam_host::artifact::PACKED_EXTENSION;

use super::document::list;
use super::error::{Error, Place};

/// Names the folder that is searched after `[plugins] dir`.
pub const PLUGINS_VARIABLE: &str = "COFFERDAM_PLUGINS";

/// What a connection names as its plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginRef {
    /// A name, looked up in the plugin folders.
    Name(String),
    /// A component, a packed plugin, or a folder that holds one.
    Path(PathBuf),
}

impl PluginRef {
    /// Reads what `plugin = "…"` means: a path if it contains a slash or ends in `.wasm` or
    /// `.cofferdam`, else a name. A relative path is relative to `base_dir`.
    pub fn parse(text: &str, base_dir: &Path) -> Self {
        let is_path =
            text.contains(['/', std::path::MAIN_SEPARATOR]) || is_plugin_file(Path::new(text));
        if is_path {
            Self::Path(base_dir.join(text))
        } else {
            Self::Name(text.to_owned())
        }
    }
}

impl std::fmt::Display for PluginRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// The folders that are searched, in order: the configured one, that of `COFFERDAM_PLUGINS`, and
/// `plugins` beside the program or beside its folder.
pub(super) fn folders(configured: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = configured.map(Path::to_owned).into_iter().collect();
    folders.extend(
        std::env::var_os(PLUGINS_VARIABLE)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from),
    );
    let program = std::env::current_exe().ok();
    if let Some(dir) = program.as_deref().and_then(Path::parent) {
        folders.push(dir.join("plugins"));
        folders.extend(dir.parent().map(|above| above.join("plugins")));
    }
    folders
}

/// Every plugin in the folders, by name; the first folder that has a name wins.
pub(super) fn found(folders: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if let Some(name) = plugin_name(&path) {
                found.entry(name).or_insert(path);
            }
        }
    }
    found
}

/// Whether a name is that of a component or of a packed plugin.
fn is_plugin_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "wasm" || extension == PACKED_EXTENSION)
}

/// The name of the plugin at a path: a folder with a manifest, a component or an image layout; a
/// component; a packed file.
fn plugin_name(path: &Path) -> Option<String> {
    let is_folder = ["plugin.toml", "plugin.wasm", "oci-layout"]
        .iter()
        .any(|file| path.join(file).is_file());
    let is_file = is_plugin_file(path) && path.is_file();
    let name = if is_folder {
        path.file_name()
    } else if is_file {
        path.file_stem()
    } else {
        None
    };
    name.map(|name| name.to_string_lossy().into_owned())
}

/// The component or folder of a plugin.
pub(super) fn resolve(
    plugin: &PluginRef,
    configured: Option<&Path>,
    place: &Place,
) -> Result<PathBuf, Error> {
    let name = match plugin {
        PluginRef::Path(path) if path.exists() => return Ok(path.clone()),
        PluginRef::Path(path) => {
            return Err(Error::NoPlugin {
                place: place.clone(),
                name: path.display().to_string(),
                searched: "no such file or folder".to_owned(),
                remedy: "check the path; it is relative to the configuration's folder".to_owned(),
            });
        }
        PluginRef::Name(name) => name,
    };
    let folders = folders(configured);
    let mut found = found(&folders);
    if let Some(path) = found.remove(name) {
        return Ok(path);
    }
    let looked: Vec<String> = folders
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let remedy = if names.is_empty() {
        format!(
            "there are no plugins at all in these folders; name the right one with \
             `[plugins] dir` or {PLUGINS_VARIABLE} (in a checkout, `cargo xtask guests` builds them)"
        )
    } else {
        format!("there are {}", list(&names))
    };
    Err(Error::NoPlugin {
        place: place.clone(),
        name: name.clone(),
        searched: format!("looked in {}", looked.join(", ")),
        remedy,
    })
}
