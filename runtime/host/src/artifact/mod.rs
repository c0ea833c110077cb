//! A plugin as files: read from any of its forms, packed, signed, and judged by who signed it.
//!
//! A plugin is found as a component with `plugin.toml` beside it or inside it, as a folder with
//! both, or packed: an OCI image layout in a folder or in one file. [`Artifact::read`] takes them
//! all. Whatever the form, what counts is the *sealed* component: the component with descriptor
//! and manifest in its sections. It is what is packed and what is signed, so that a signature holds
//! in every form.
//!
//! Everything read here comes from strangers. See `docs/adr/0007-plugin-artifacts.md`.

mod error;
mod files;
mod key;
mod layout;
mod oci;
mod pack;
mod sections;
mod signature;
mod tar;
mod trust;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use cofferdam_core::manifest::{MANIFEST_BYTES_MAX, Manifest};
use cofferdam_core::{descriptor, manifest};

use crate::host::digest;

pub use error::Error;
pub use key::{PrivateKey, PublicKey};
pub use pack::Packed;
pub use sections::stamp;
pub(crate) use sections::{check_header, custom_section};
pub use signature::{SIGNATURES_MAX, Signature};
pub use trust::{Signer, Trust};

use pack::Documents;
use signature::Statement;

/// No component may be larger. The largest kind, Python with its interpreter, has some 20 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// A packed file ends in this: `hubspot.cofferdam`.
pub const PACKED_EXTENSION: &str = "cofferdam";
/// The signatures of a component that is not packed stand beside it, in a file of the same name
/// with this extension: `plugin.sig`.
pub const SIGNATURE_EXTENSION: &str = "sig";

/// The file names that a plugin's folder holds.
const MANIFEST_FILE: &str = "plugin.toml";
const COMPONENT_FILE: &str = "plugin.wasm";

/// A plugin as it was read, not checked yet.
#[derive(Debug, Clone)]
pub struct Artifact {
    component: Vec<u8>,
    /// As text, because every byte of it is signed, and as what it says.
    manifest: Option<(String, Manifest)>,
    origin: String,
    signatures: Vec<Signature>,
    /// Of one that was packed: kept, so that packing it again makes the same.
    documents: Option<Documents>,
}

impl Artifact {
    /// Reads a plugin in any of its forms: a packed file; a folder that is an OCI image layout; a
    /// component file, with the `plugin.toml` beside it if there is one; a folder that holds
    /// `plugin.toml` and one component. Without a `plugin.toml` the manifest that travels in the
    /// component is taken. Blocks for as long as reading takes; nothing of it is run.
    ///
    /// # Errors
    /// [`crate::Error::Read`], [`crate::Error::TooLarge`], [`crate::Error::Manifest`] or
    /// [`crate::Error::Artifact`]. Signatures are read, and not verified.
    pub fn read(path: &Path) -> Result<Self, crate::Error> {
        let origin = path.display().to_string();
        if path.join(oci::LAYOUT_FILE).exists() {
            return layout::read_folder(path, &origin);
        }
        let (file, manifest_file) = if path.is_dir() {
            (component_in(path)?, path.join(MANIFEST_FILE))
        } else {
            (path.to_owned(), path.with_file_name(MANIFEST_FILE))
        };
        let origin = file.display().to_string();
        let is_packed = file.extension().is_some_and(|e| e == PACKED_EXTENSION);
        let bytes_max = if is_packed {
            layout::ARCHIVE_BYTES_MAX
        } else {
            COMPONENT_BYTES_MAX
        };
        let bytes = read_file(&file, bytes_max)?;
        if is_packed || tar::is_tar(&bytes) {
            return layout::read_archive(&bytes, &origin);
        }
        let text = read_text(&manifest_file, MANIFEST_BYTES_MAX)?;
        let manifest = match text {
            Some(text) => {
                let parsed = Manifest::parse(&text, &manifest_file.display().to_string())?;
                Some((text, parsed))
            }
            None => embedded_manifest(&bytes, &origin)?,
        };
        let signature_file = file.with_extension(SIGNATURE_EXTENSION);
        let signatures = match read_text(&signature_file, signature::SIGNATURES_TEXT_BYTES_MAX)? {
            Some(text) => Signature::parse_all(&text, &signature_file.display().to_string())?,
            None => Vec::new(),
        };
        Ok(Self {
            component: bytes,
            manifest,
            origin,
            signatures,
            documents: None,
        })
    }

    /// A plugin out of bytes in memory: a component, and the text of its manifest. Without one, the
    /// manifest that travels in the component is taken. `origin` is what messages begin with.
    ///
    /// # Errors
    /// [`crate::Error::Manifest`].
    pub fn new(
        component: Vec<u8>,
        manifest: Option<&str>,
        origin: impl Into<String>,
    ) -> Result<Self, crate::Error> {
        let origin = origin.into();
        let manifest = match manifest {
            Some(text) => Some((text.to_owned(), Manifest::parse(text, MANIFEST_FILE)?)),
            None => embedded_manifest(&component, &origin)?,
        };
        Ok(Self {
            component,
            manifest,
            origin,
            signatures: Vec::new(),
            documents: None,
        })
    }

    /// A packed plugin out of bytes in memory, as [`Packed::to_archive`] makes them. `origin` is what
    /// messages begin with.
    ///
    /// # Errors
    /// As [`Artifact::read`] of a packed file.
    pub fn from_archive(bytes: &[u8], origin: &str) -> Result<Self, crate::Error> {
        let bytes_max = layout::ARCHIVE_BYTES_MAX;
        if bytes.len() as u64 > bytes_max {
            return Err(crate::Error::TooLarge {
                origin: origin.to_owned(),
                bytes: bytes.len() as u64,
                bytes_max,
            });
        }
        layout::read_archive(bytes, origin)
    }

    /// The component's bytes, as they are loaded.
    pub fn component(&self) -> &[u8] {
        &self.component
    }

    /// Its manifest, if there is one. Without it the operator's grants alone decide.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().map(|(_, manifest)| manifest)
    }

    /// The text of its manifest.
    pub fn manifest_text(&self) -> Option<&str> {
        self.manifest.as_ref().map(|(text, _)| text.as_str())
    }

    /// Where it came from, for messages: the component, or what it was packed in.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Its name, or where it came from if it has no manifest.
    pub fn name(&self) -> &str {
        self.manifest()
            .map_or(&self.origin, |manifest| &manifest.name)
    }

    /// Who is said to vouch for it; [`Trust::judge`] finds out whether it is true.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether it was read from a layout or a packed file.
    pub fn is_packed(&self) -> bool {
        self.documents.is_some()
    }

    /// The component with descriptor and manifest in it: what is packed, and what is signed.
    ///
    /// # Errors
    /// [`Error::NoManifest`]; [`crate::Error::DescriptorMissing`] for a component that was never
    /// stamped; what [`stamp`] refuses.
    pub fn sealed(&self) -> Result<Cow<'_, [u8]>, crate::Error> {
        let Some((text, _)) = &self.manifest else {
            self.required_manifest()?;
            return Ok(Cow::Borrowed(&self.component));
        };
        check_header(&self.component, &self.origin)?;
        let described = custom_section(&self.component, descriptor::SECTION).ok_or_else(|| {
            crate::Error::DescriptorMissing {
                origin: self.origin.clone(),
            }
        })?;
        if custom_section(&self.component, manifest::SECTION) == Some(text.as_bytes()) {
            return Ok(Cow::Borrowed(&self.component));
        }
        let described = String::from_utf8_lossy(described);
        Ok(Cow::Owned(stamp(&self.component, &described, Some(text))?))
    }

    /// The digest of the image manifest that names the plugin, by which registries know it too:
    /// `sha256:…`. The same for a plugin that is not packed yet as after packing it.
    ///
    /// # Errors
    /// As [`Artifact::sealed`].
    pub fn digest(&self) -> Result<String, crate::Error> {
        if let Some(documents) = &self.documents {
            return Ok(oci::digest(&documents.manifest));
        }
        let documents = pack::documents(self, &self.sealed()?)?;
        Ok(oci::digest(&documents.manifest))
    }

    /// The form in which it travels, signatures included. The same artifact makes the same bytes.
    ///
    /// # Errors
    /// As [`Artifact::sealed`].
    pub fn pack(&self) -> Result<Packed, crate::Error> {
        pack::pack(self)
    }

    /// Adds a signature, in place of one by the same key, and of those that are not of this plugin
    /// as it is now; answers how many of the latter there were.
    ///
    /// # Errors
    /// As [`Artifact::sealed`]; [`Error::Signature`] if there are [`SIGNATURES_MAX`] already.
    pub fn sign(&mut self, key: &PrivateKey) -> Result<usize, crate::Error> {
        let sealed = digest(&self.sealed()?);
        let statement = self.statement(&sealed)?;
        let added = Signature::new(&statement, key)?;
        let others = self.signatures.iter().filter(|s| s.key() != added.key());
        let total = others.clone().count();
        let mut signatures: Vec<Signature> = others
            .filter(|signature| signature.is_of(&statement))
            .copied()
            .collect();
        let stale = total - signatures.len();
        signatures.push(added);
        signature::check_all(&signatures, &self.origin)?;
        self.signatures = signatures;
        Ok(stale)
    }

    /// The signatures as the file beside a component that is not packed holds them.
    pub fn signature_text(&self) -> String {
        let lines: Vec<String> = self.signatures.iter().map(Signature::to_string).collect();
        lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// Whether every signature is one of this plugin. Says nothing about who signed.
    ///
    /// # Errors
    /// [`Error::BadSignature`] for the first that is not; as [`Artifact::sealed`] if there are any
    /// and nothing that they could be of.
    pub fn verify(&self) -> Result<(), crate::Error> {
        if self.signatures.is_empty() {
            return Ok(());
        }
        let sealed = digest(&self.sealed()?);
        let statement = self.statement(&sealed)?;
        match self.signatures.iter().find(|s| !s.is_of(&statement)) {
            None => Ok(()),
            Some(bad) => Err(Error::BadSignature {
                origin: self.origin.clone(),
                key: bad.key().id(),
            }
            .into()),
        }
    }

    fn statement<'a>(&'a self, sealed: &'a str) -> Result<Statement<'a>, Error> {
        let manifest = self.required_manifest()?;
        Ok(Statement {
            name: &manifest.name,
            version: &manifest.version,
            sealed,
        })
    }

    fn required_manifest(&self) -> Result<&Manifest, Error> {
        self.manifest().ok_or_else(|| Error::NoManifest {
            origin: self.origin.clone(),
        })
    }
}

fn component_in(folder: &Path) -> Result<PathBuf, crate::Error> {
    let named = folder.join(COMPONENT_FILE);
    if named.is_file() {
        return Ok(named);
    }
    let read = |source| crate::Error::Read {
        path: named.display().to_string(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            found.push(path);
        }
    }
    match <[_; 1]>::try_from(found) {
        Ok([only]) => Ok(only),
        Err(found) => Err(read(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!(
                "the folder holds {} components; name the right one plugin.wasm",
                found.len()
            ),
        ))),
    }
}

fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, crate::Error> {
    files::read_bounded(path, bytes_max).map_err(|error| match error {
        files::Error::Io(source) => crate::Error::Read {
            path: path.display().to_string(),
            source,
        },
        files::Error::TooLarge(bytes) => crate::Error::TooLarge {
            origin: path.display().to_string(),
            bytes,
            bytes_max,
        },
    })
}

/// A text beside a component; none if it is not there.
fn read_text(path: &Path, bytes_max: u64) -> Result<Option<String>, crate::Error> {
    if !path.exists() {
        return Ok(None);
    }
    let no_text = |_| crate::Error::Read {
        path: path.display().to_string(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it is no text"),
    };
    let bytes = read_file(path, bytes_max)?;
    String::from_utf8(bytes).map(Some).map_err(no_text)
}

fn embedded_manifest(
    component: &[u8],
    origin: &str,
) -> Result<Option<(String, Manifest)>, crate::Error> {
    if check_header(component, origin).is_err() {
        return Ok(None);
    }
    let Some(bytes) = custom_section(component, manifest::SECTION) else {
        return Ok(None);
    };
    let place = format!("{origin} (section {})", manifest::SECTION);
    let text = std::str::from_utf8(bytes).map_err(|_| crate::Error::Malformed {
        origin: origin.to_owned(),
        reason: "its manifest is no text".to_owned(),
    })?;
    let parsed = Manifest::parse(text, &place)?;
    Ok(Some((text.to_owned(), parsed)))
}
