//! From an artifact to the files of a layout. The same artifact makes the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use cofferdam_core::manifest::Manifest;
use serde::Serialize;

use super::oci::{self, Component, Descriptor, Image, Index, Layout, WasmConfig};
use super::signature::Signature;
use super::{Artifact, tar};
use crate::{Error, inspect};

/// The index while it is written.
const INDEX_FRESH: &str = "index.json.new";

/// A plugin in the form in which it travels: an OCI image layout.
#[derive(Debug, Clone)]
pub struct Packed {
    files: BTreeMap<String, Vec<u8>>,
    digest: String,
}

/// The two documents that name a component.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Packed {
    /// One file: the layout as a tar archive, sorted, without users and times.
    pub fn to_archive(&self) -> Vec<u8> {
        tar::write(&self.files)
    }

    /// The files of the layout, by path, with slashes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(path, contents)| (path.as_str(), contents.as_slice()))
    }

    /// Writes the layout into a folder: an absent one, an empty one, or one that holds the same
    /// plugin with other signatures. What is there stays as it was until `index.json` is replaced,
    /// last and at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_folder(&self, folder: &Path) -> std::io::Result<()> {
        for (path, contents) in &self.files {
            let file = folder.join(path);
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            if path == oci::INDEX_FILE {
                std::fs::write(folder.join(INDEX_FRESH), contents)?;
            } else {
                std::fs::write(file, contents)?;
            }
        }
        std::fs::rename(folder.join(INDEX_FRESH), folder.join(oci::INDEX_FILE))
    }

    /// The digest of the image manifest, by which registries know the plugin: `sha256:…`. Signing
    /// does not change it.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Lays the artifact and its signatures out.
pub(super) fn pack(artifact: &Artifact) -> Result<Packed, Error> {
    let sealed = artifact.sealed()?;
    let documents = documents(artifact, &sealed)?;
    let mut files = BTreeMap::new();
    let subject = Descriptor::of(oci::MANIFEST, &documents.manifest);
    let mut manifests = vec![Descriptor {
        annotations: [(
            oci::REF_NAME.to_owned(),
            artifact.required_manifest()?.version.clone(),
        )]
        .into(),
        ..subject.clone()
    }];
    for signature in artifact.signatures() {
        manifests.push(add_signature(&mut files, signature, &subject)?);
    }
    add(&mut files, sealed.into_owned());
    add(&mut files, documents.config);
    add(&mut files, documents.manifest);
    let index = Index {
        schema_version: oci::SCHEMA_VERSION,
        media_type: Some(oci::INDEX.to_owned()),
        manifests,
    };
    files.insert(oci::INDEX_FILE.to_owned(), json(&index)?);
    let layout = Layout {
        image_layout_version: oci::LAYOUT_VERSION.to_owned(),
    };
    files.insert(oci::LAYOUT_FILE.to_owned(), json(&layout)?);
    Ok(Packed {
        files,
        digest: subject.digest,
    })
}

/// The documents that the artifact was read with; made, for one that was not packed.
pub(super) fn documents(artifact: &Artifact, sealed: &[u8]) -> Result<Documents, Error> {
    if let Some(documents) = &artifact.documents {
        return Ok(documents.clone());
    }
    let plugin: &Manifest = artifact.required_manifest()?;
    let (imports, exports) = inspect::names(sealed).map_err(|error| Error::Malformed {
        origin: artifact.origin().to_owned(),
        reason: error.to_string(),
    })?;
    let layer = Descriptor::of(oci::WASM_LAYER, sealed);
    let config = json(&WasmConfig::new(
        plugin,
        &layer,
        Component { exports, imports },
    ))?;
    let manifest = json(&Image {
        schema_version: oci::SCHEMA_VERSION,
        media_type: Some(oci::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(oci::WASM_CONFIG, &config),
        layers: vec![layer],
        subject: None,
        annotations: oci::annotations(plugin),
    })?;
    Ok(Documents { config, manifest })
}

/// Adds a referrer of `subject` that holds the signature, and names it.
fn add_signature(
    files: &mut BTreeMap<String, Vec<u8>>,
    signature: &Signature,
    subject: &Descriptor,
) -> Result<Descriptor, Error> {
    let line = format!("{signature}\n").into_bytes();
    let referrer = json(&Image {
        schema_version: oci::SCHEMA_VERSION,
        media_type: Some(oci::MANIFEST.to_owned()),
        artifact_type: Some(oci::SIGNATURE.to_owned()),
        config: Descriptor::of(oci::EMPTY, oci::EMPTY_BYTES),
        layers: vec![Descriptor::of(oci::SIGNATURE, &line)],
        subject: Some(subject.clone()),
        annotations: BTreeMap::new(),
    })?;
    let named = Descriptor {
        artifact_type: Some(oci::SIGNATURE.to_owned()),
        ..Descriptor::of(oci::MANIFEST, &referrer)
    };
    add(files, line);
    add(files, oci::EMPTY_BYTES.to_vec());
    add(files, referrer);
    Ok(named)
}

fn add(files: &mut BTreeMap<String, Vec<u8>>, blob: Vec<u8>) {
    if let Some(path) = Descriptor::of(oci::WASM_LAYER, &blob).file() {
        files.insert(path, blob);
    }
}

/// Compact, members in the order of the types: always the same.
fn json(document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|error| {
        super::Error::Packed {
            origin: "a document of the package".to_owned(),
            reason: error.to_string(),
        }
        .into()
    })
}
