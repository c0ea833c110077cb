//! The documents of an OCI image layout that holds one WebAssembly component.
//!
//! Sources: OCI image specification 1.1 (image layout, index, manifest, descriptor, annotations),
//! and the "Wasm OCI Artifact layout" of the CNCF TAG Runtime for the media types and the
//! configuration. Members that these documents allow and nobody here needs are read over.

use std::collections::BTreeMap;

use cofferdam_core::manifest::Manifest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Files of a layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const INDEX_FILE: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";

pub(super) const LAYOUT_VERSION: &str = "1.0.0";
pub(super) const SCHEMA_VERSION: u32 = 2;
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What an empty configuration consists of.
pub(super) const EMPTY_BYTES: &[u8] = b"{}";
pub(super) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub(super) const WASM_LAYER: &str = "application/wasm";
/// A referrer of the plugin's manifest with one layer: the line of a signature.
pub(super) const SIGNATURE: &str = "application/vnd.cofferdam.plugin.signature.v1";

pub(super) const ARCHITECTURE: &str = "wasm";
/// Components for WASI 0.2 and nothing else.
pub(super) const OS: &str = "wasip2";
/// There has to be an instant; a true one would make each packing another package.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The tag by which tools select a manifest of a layout.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const ANNOTATIONS: &str = "org.opencontainers.image.";

/// `oci-layout`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layout {
    pub image_layout_version: String,
}

/// `index.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
}

/// Names a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest: of a plugin, or of a signature.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    pub schema_version: u32,
    pub media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of a plugin's image.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WasmConfig {
    pub created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    pub architecture: String,
    pub os: String,
    pub layer_digests: Vec<String>,
    pub component: Option<Component>,
}

/// What the component imports and exports, for those who index registries.
#[derive(Serialize, Deserialize)]
pub(super) struct Component {
    pub exports: Vec<String>,
    pub imports: Vec<String>,
}

impl Descriptor {
    /// The name of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest: digest(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        }
    }

    /// The file of the blob; none if the digest is not a SHA-256 in lower-case digits, which may
    /// then be anything, a path that leads elsewhere too.
    pub fn file(&self) -> Option<String> {
        let hex = self.digest.strip_prefix("sha256:")?;
        let is_hex = hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_hex.then(|| format!("{BLOBS}{hex}"))
    }
}

impl WasmConfig {
    pub fn new(manifest: &Manifest, layer: &Descriptor, component: Component) -> Self {
        Self {
            created: CREATED.to_owned(),
            author: manifest.authors.first().cloned(),
            architecture: ARCHITECTURE.to_owned(),
            os: OS.to_owned(),
            layer_digests: vec![layer.digest.clone()],
            component: Some(component),
        }
    }
}

/// How a digest is written.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What a package says of the plugin in it; only what the manifest does say.
pub(super) fn annotations(manifest: &Manifest) -> BTreeMap<String, String> {
    let authors = manifest.authors.join(", ");
    [
        ("title", manifest.name.as_str()),
        ("version", &manifest.version),
        ("description", &manifest.description),
        ("authors", &authors),
        ("licenses", &manifest.license),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (format!("{ANNOTATIONS}{key}"), value.to_owned()))
    .collect()
}

/// The keys that must not contradict the plugin.
pub(super) const TOLD_OF_PLUGIN: [&str; 5] = [
    "org.opencontainers.image.title",
    "org.opencontainers.image.version",
    "org.opencontainers.image.description",
    "org.opencontainers.image.authors",
    "org.opencontainers.image.licenses",
];
