//! From the files of a layout to an artifact. Nothing in it is believed: every file is bounded,
//! every blob has to have its digest, and what the package says of the plugin has to be true.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::Error;
use super::oci::{self, Descriptor, Image, Index, Layout, WasmConfig};
use super::pack::Documents;
use super::signature::{self, SIGNATURE_TEXT_BYTES_MAX, SIGNATURES_MAX, Signature};
use super::{Artifact, COMPONENT_BYTES_MAX, files, tar};

/// An index, a manifest: some kilobytes.
const DOCUMENT_BYTES_MAX: u64 = 256 << 10;
/// A packed plugin: its component, its documents, and the blocks around them.
pub(super) const ARCHIVE_BYTES_MAX: u64 = COMPONENT_BYTES_MAX + (2 << 20);

/// Where the files of a layout are.
enum Source<'a> {
    Folder(&'a Path),
    Archive {
        files: BTreeMap<String, &'a [u8]>,
        /// What was asked for.
        used: RefCell<BTreeSet<String>>,
    },
}

struct Reader<'a> {
    source: Source<'a>,
    origin: &'a str,
}

/// Reads a folder that holds an `oci-layout`.
pub(super) fn read_folder(folder: &Path, origin: &str) -> Result<Artifact, crate::Error> {
    Reader {
        source: Source::Folder(folder),
        origin,
    }
    .read()
}

/// Reads a packed file.
pub(super) fn read_archive(bytes: &[u8], origin: &str) -> Result<Artifact, crate::Error> {
    let files = tar::read(bytes).map_err(|reason| Error::Packed {
        origin: origin.to_owned(),
        reason,
    })?;
    let reader = Reader {
        source: Source::Archive {
            files,
            used: RefCell::default(),
        },
        origin,
    };
    let artifact = reader.read()?;
    reader.check_all_used()?;
    Ok(artifact)
}

impl Reader<'_> {
    fn read(&self) -> Result<Artifact, crate::Error> {
        let layout: Layout = self.json(
            &self.file(oci::LAYOUT_FILE, DOCUMENT_BYTES_MAX)?,
            oci::LAYOUT_FILE,
        )?;
        self.expect(
            "the version of the layout",
            &layout.image_layout_version,
            oci::LAYOUT_VERSION,
        )?;
        let index: Index = self.json(
            &self.file(oci::INDEX_FILE, DOCUMENT_BYTES_MAX)?,
            oci::INDEX_FILE,
        )?;
        self.check_document(
            oci::INDEX_FILE,
            index.schema_version,
            index.media_type.as_deref(),
            oci::INDEX,
        )?;
        if index.manifests.len() > 1 + SIGNATURES_MAX {
            return Err(self.refuse("index.json names too many manifests").into());
        }
        let mut plugin: Option<(Descriptor, Documents, Image)> = None;
        let mut signatures = Vec::new();
        for named in index.manifests {
            self.expect(
                "the media type of a manifest",
                &named.media_type,
                oci::MANIFEST,
            )?;
            let bytes = self.blob(&named, "a manifest", DOCUMENT_BYTES_MAX)?;
            let image: Image = self.json(&bytes, "a manifest")?;
            self.check_document(
                "a manifest",
                image.schema_version,
                image.media_type.as_deref(),
                oci::MANIFEST,
            )?;
            if image.artifact_type.as_deref() == Some(oci::SIGNATURE) {
                signatures.push(image);
                continue;
            }
            self.expect(
                "the media type of a manifest's config",
                &image.config.media_type,
                oci::WASM_CONFIG,
            )?;
            let config = self.blob(&image.config, "the config", DOCUMENT_BYTES_MAX)?;
            let documents = Documents {
                config,
                manifest: bytes,
            };
            if plugin.replace((named, documents, image)).is_some() {
                return Err(self.refuse("it holds more than one plugin").into());
            }
        }
        let (named, documents, image) = plugin.ok_or_else(|| self.refuse("it holds no plugin"))?;
        let mut artifact = self.plugin(&image, &documents)?;
        artifact.documents = Some(documents);
        artifact.signatures = self.signatures(&signatures, &named)?;
        Ok(artifact)
    }

    /// The component, and that the documents say the truth about it.
    fn plugin(&self, image: &Image, documents: &Documents) -> Result<Artifact, crate::Error> {
        if let Some(kind) = &image.artifact_type {
            self.expect("the artifact type", kind, oci::WASM_CONFIG)?;
        }
        let config: WasmConfig = self.json(&documents.config, "the config")?;
        self.expect(
            "the config's architecture",
            &config.architecture,
            oci::ARCHITECTURE,
        )?;
        self.expect("the config's os", &config.os, oci::OS)?;
        let [layer] = image.layers.as_slice() else {
            let reason = format!(
                "its manifest has {} layers instead of one",
                image.layers.len()
            );
            return Err(self.refuse(reason).into());
        };
        self.expect(
            "the media type of the layer",
            &layer.media_type,
            oci::WASM_LAYER,
        )?;
        if config.layer_digests != [layer.digest.as_str()] {
            return Err(self
                .contradiction("layer", &config.layer_digests.join(", "), &layer.digest)
                .into());
        }
        if layer.size > COMPONENT_BYTES_MAX {
            return Err(crate::Error::TooLarge {
                origin: self.origin.to_owned(),
                bytes: layer.size,
                bytes_max: COMPONENT_BYTES_MAX,
            });
        }
        let component = self.blob(layer, "the component", COMPONENT_BYTES_MAX)?;
        let artifact = Artifact::new(component, None, self.origin)?;
        let inside = oci::annotations(artifact.required_manifest()?);
        for key in oci::TOLD_OF_PLUGIN {
            if let Some(outside) = image.annotations.get(key)
                && inside.get(key).map(String::as_str).unwrap_or_default() != outside
            {
                let inside = inside.get(key).map(String::as_str).unwrap_or_default();
                return Err(self.contradiction(key, outside, inside).into());
            }
        }
        Ok(artifact)
    }

    /// The signatures of the manifest that is named.
    fn signatures(
        &self,
        referrers: &[Image],
        plugin: &Descriptor,
    ) -> Result<Vec<Signature>, Error> {
        let mut signatures = Vec::new();
        for referrer in referrers {
            let subject = referrer
                .subject
                .as_ref()
                .map(|subject| subject.digest.as_str());
            if subject != Some(plugin.digest.as_str()) {
                let outside = subject.unwrap_or("nothing");
                return Err(self.contradiction("subject of a signature", outside, &plugin.digest));
            }
            self.expect(
                "the media type of a signature's config",
                &referrer.config.media_type,
                oci::EMPTY,
            )?;
            self.blob(&referrer.config, "a signature's config", DOCUMENT_BYTES_MAX)?;
            let [layer] = referrer.layers.as_slice() else {
                return Err(self.refuse("a signature has not one layer"));
            };
            self.expect(
                "the media type of a signature",
                &layer.media_type,
                oci::SIGNATURE,
            )?;
            let line = self.blob(layer, "a signature", SIGNATURE_TEXT_BYTES_MAX)?;
            let line =
                String::from_utf8(line).map_err(|_| self.refuse("a signature is no text"))?;
            let origin = format!("{} (signature)", self.origin);
            signatures.push(Signature::parse(line.trim_end_matches('\n'), &origin)?);
        }
        if !signatures.is_empty() {
            signature::check_all(&signatures, self.origin)?;
        }
        Ok(signatures)
    }

    /// A blob, with the size and the digest that it is named with.
    fn blob(&self, named: &Descriptor, what: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let name = named.file().ok_or_else(|| {
            let shown: String = named.digest.chars().take(80).collect();
            self.refuse(format!(
                "the digest of {what}, `{}`, is no SHA-256",
                shown.escape_debug()
            ))
        })?;
        if named.size > bytes_max {
            return Err(self.refuse(format!(
                "{what} is said to have {} bytes, and at most {bytes_max} are taken",
                named.size
            )));
        }
        let bytes = self.file(&name, named.size)?;
        let found = oci::digest(&bytes);
        if bytes.len() as u64 != named.size || found != named.digest {
            return Err(Error::Digest {
                origin: self.origin.to_owned(),
                what: what.to_owned(),
                found,
                wanted: named.digest.clone(),
            });
        }
        Ok(bytes)
    }

    fn file(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let too_large = |bytes| {
            self.refuse(format!(
                "`{name}` has {bytes} bytes, and at most {bytes_max} are taken"
            ))
        };
        match &self.source {
            Source::Folder(folder) => {
                let path = folder.join(name);
                let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
                if is_link {
                    return Err(self.refuse(format!("`{name}` is a link; copy the file itself")));
                }
                files::read_bounded(&path, bytes_max).map_err(|error| match error {
                    files::Error::Io(error) => {
                        self.refuse(format!("`{name}` cannot be read: {error}"))
                    }
                    files::Error::TooLarge(bytes) => too_large(bytes),
                })
            }
            Source::Archive { files, used } => {
                let contents = files
                    .get(name)
                    .ok_or_else(|| self.refuse(format!("`{name}` is not in it")))?;
                if contents.len() as u64 > bytes_max {
                    return Err(too_large(contents.len() as u64));
                }
                used.borrow_mut().insert(name.to_owned());
                Ok(contents.to_vec())
            }
        }
    }

    /// What nothing refers to was not looked at, and has no business in an archive.
    fn check_all_used(&self) -> Result<(), Error> {
        let Source::Archive { files, used } = &self.source else {
            return Ok(());
        };
        match files.keys().find(|name| !used.borrow().contains(*name)) {
            None => Ok(()),
            Some(name) => Err(self.refuse(format!(
                "it holds `{}`, which nothing in it refers to",
                name.escape_debug()
            ))),
        }
    }

    fn json<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| self.refuse(format!("{what}: {error}")))
    }

    fn check_document(
        &self,
        what: &str,
        version: u32,
        media_type: Option<&str>,
        wanted: &'static str,
    ) -> Result<(), Error> {
        if version != oci::SCHEMA_VERSION {
            return Err(self.unsupported(
                &format!("the schema version of {what}"),
                &version.to_string(),
                "2",
            ));
        }
        self.expect(
            &format!("the media type of {what}"),
            media_type.unwrap_or(wanted),
            wanted,
        )
    }

    fn expect(&self, what: &str, found: &str, wanted: &'static str) -> Result<(), Error> {
        if found == wanted {
            Ok(())
        } else {
            Err(self.unsupported(what, found, wanted))
        }
    }

    fn unsupported(&self, what: &str, found: &str, wanted: &'static str) -> Error {
        Error::Unsupported {
            origin: self.origin.to_owned(),
            what: what.to_owned(),
            found: shown(found),
            wanted,
        }
    }

    fn contradiction(&self, key: &str, outside: &str, inside: &str) -> Error {
        Error::Contradiction {
            origin: self.origin.to_owned(),
            key: key.to_owned(),
            outside: shown(outside),
            inside: inside.to_owned(),
        }
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Packed {
            origin: self.origin.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A stranger's text, fit for a message.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    cut.escape_debug().to_string()
}
