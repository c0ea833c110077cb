//! What workflows take from files beside them: functions of catalogs, OpenAPI documents, schemas.
//!
//! Everything is read when a workflow is loaded and pinned with it. What is not found is left out
//! here; compiling then says what is missing, and where it is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cofferdam_core::dsl::{CatalogFunction, external};
use cofferdam_core::workflow::{Source, Sources};

use crate::Error;

/// Files that one workflow takes in, with all that it runs.
const FILES_MAX: usize = 256;
/// No file is longer, in bytes; what is longer is not read and so is not found.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads everything that the texts name outside of themselves. Paths are relative to the folder of
/// the workflow that is loaded, and do not lead out of it; catalogs of the configuration may be
/// anywhere.
///
/// # Errors
/// [`Error::Read`] if a file that is there cannot be read.
pub(crate) fn read(
    sources: &mut Sources,
    catalogs: &BTreeMap<String, PathBuf>,
) -> Result<(), Error> {
    let main = PathBuf::from(&sources.main.origin);
    let folder = match main.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut texts: Vec<String> = vec![sources.main.text.clone()];
    texts.extend(sources.others.values().map(|source| source.text.clone()));
    let mut own = BTreeMap::new();
    let mut taken = 0;
    while let Some(text) = texts.pop() {
        let named = external(&text);
        let files = named
            .files
            .into_iter()
            .map(|uri| (place(&folder, &uri), uri));
        for function in &named.functions {
            let path = function
                .endpoint
                .as_deref()
                .and_then(|uri| place(&folder, uri));
            own.extend(path.map(|path| (function.catalog.clone(), path)));
        }
        let functions = named.functions.iter();
        let functions = functions.map(|f| (of_catalog(f, catalogs, &own), f.key.clone()));
        for (path, key) in files.chain(functions).collect::<Vec<_>>() {
            let Some(path) =
                path.filter(|_| !sources.others.contains_key(&key) && taken < FILES_MAX)
            else {
                continue;
            };
            taken += 1;
            let Some(source) = source(&path)? else {
                continue;
            };
            texts.push(source.text.clone());
            sources.others.insert(key, source);
        }
    }
    Ok(())
}

/// The file that a function of a catalog is.
fn of_catalog(
    function: &CatalogFunction,
    catalogs: &BTreeMap<String, PathBuf>,
    own: &BTreeMap<String, PathBuf>,
) -> Option<PathBuf> {
    // What the operator says counts more than what a workflow says.
    let folder = catalogs
        .get(&function.catalog)
        .or_else(|| own.get(&function.catalog))?;
    within(folder, &folder.join(function.path()))
}

/// The file that a `file:` address leads to, inside of a folder.
fn place(folder: &Path, uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    within(folder, &folder.join(path))
}

/// The path, if it is there and lies in the folder, links followed.
fn within(folder: &Path, path: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let path = path.canonicalize().ok()?;
    path.starts_with(folder).then_some(path)
}

fn source(path: &Path) -> Result<Option<Source>, Error> {
    let broken = |source| Error::Read {
        path: path.display().to_string(),
        source,
    };
    let about = std::fs::metadata(path).map_err(broken)?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(broken)?;
    Ok(Some(Source {
        origin: path.display().to_string(),
        text,
    }))
}
