//! A plugin as files: the component, its manifest, and the custom sections they travel in.

use std::path::Path;

use cofferdam_core::{descriptor, manifest, manifest::Manifest};

use crate::Error;

/// No component may be larger. The largest kind, Python with its interpreter, has some 20 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// The file names that a plugin's folder holds.
const MANIFEST_FILE: &str = "plugin.toml";
const COMPONENT_FILE: &str = "plugin.wasm";

/// `\0asm`, then the version; components and core modules differ in the second half.
const MAGIC: &[u8; 4] = b"\0asm";
const VERSION_COMPONENT: &[u8; 4] = &[0x0d, 0, 1, 0];
const VERSION_CORE: &[u8; 4] = &[1, 0, 0, 0];
const HEADER_BYTES: usize = 8;
const SECTION_CUSTOM: u8 = 0;

/// A plugin as it was read, not checked yet.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Its manifest, if there is one. Without it the operator's grants alone decide.
    pub manifest: Option<Manifest>,
    /// Where it came from, for messages.
    pub origin: String,
}

impl Artifact {
    /// Reads a component file, with the `plugin.toml` beside it if there is one, or a folder that
    /// holds `plugin.toml` and one component. Without a `plugin.toml` the manifest that travels in
    /// the component is taken.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::TooLarge`] or [`Error::Manifest`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (file, manifest_file) = if path.is_dir() {
            (component_in(path)?, path.join(MANIFEST_FILE))
        } else {
            (path.to_owned(), path.with_file_name(MANIFEST_FILE))
        };
        let read = |path: &Path, source| Error::Read {
            path: path.display().to_string(),
            source,
        };
        let origin = file.display().to_string();
        let bytes = std::fs::metadata(&file).map_err(|e| read(&file, e))?.len();
        if bytes > COMPONENT_BYTES_MAX {
            return Err(Error::TooLarge {
                origin,
                bytes,
                bytes_max: COMPONENT_BYTES_MAX,
            });
        }
        let component = std::fs::read(&file).map_err(|e| read(&file, e))?;
        let manifest = if manifest_file.is_file() {
            let text =
                std::fs::read_to_string(&manifest_file).map_err(|e| read(&manifest_file, e))?;
            Some(Manifest::parse(
                &text,
                &manifest_file.display().to_string(),
            )?)
        } else {
            embedded_manifest(&component, &origin)?
        };
        Ok(Self {
            component,
            manifest,
            origin,
        })
    }
}

fn component_in(folder: &Path) -> Result<std::path::PathBuf, Error> {
    let named = folder.join(COMPONENT_FILE);
    if named.is_file() {
        return Ok(named);
    }
    let read = |source| Error::Read {
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

pub(crate) fn embedded_manifest(component: &[u8], origin: &str) -> Result<Option<Manifest>, Error> {
    if check_header(component, origin).is_err() {
        return Ok(None);
    }
    let Some(bytes) = custom_section(component, manifest::SECTION) else {
        return Ok(None);
    };
    let place = format!("{origin} (section {})", manifest::SECTION);
    Ok(Some(Manifest::parse(
        &String::from_utf8_lossy(bytes),
        &place,
    )?))
}

/// Writes the descriptor, and the manifest if one is given, into a component, in place of those
/// that it carries. Everything else stays byte for byte. Guest code is not run.
///
/// # Errors
/// [`Error::NotWasm`], [`Error::CoreModule`] or [`Error::Malformed`] for the component;
/// [`Error::Descriptor`] or [`Error::Manifest`] for what is to be written.
pub fn stamp(component: &[u8], descriptor: &str, manifest: Option<&str>) -> Result<Vec<u8>, Error> {
    const ORIGIN: &str = "component";
    check_header(component, ORIGIN)?;
    descriptor::Descriptor::parse(descriptor).map_err(|source| Error::Descriptor {
        origin: ORIGIN.to_owned(),
        source,
    })?;
    if let Some(text) = manifest {
        Manifest::parse(text, MANIFEST_FILE)?;
    }
    let mut stamped = component[..HEADER_BYTES].to_vec();
    for section in Sections::new(component) {
        let section = section.ok_or_else(|| Error::Malformed {
            origin: ORIGIN.to_owned(),
            reason: "a section is cut off".to_owned(),
        })?;
        let replaced = section.name == Some(descriptor::SECTION.as_bytes())
            || (manifest.is_some() && section.name == Some(manifest::SECTION.as_bytes()));
        if !replaced {
            stamped.extend_from_slice(section.whole);
        }
    }
    append_custom(&mut stamped, descriptor::SECTION, descriptor.as_bytes());
    if let Some(text) = manifest {
        append_custom(&mut stamped, manifest::SECTION, text.as_bytes());
    }
    Ok(stamped)
}

/// Whether the bytes are a component at all; what kind of thing they are otherwise.
pub(crate) fn check_header(component: &[u8], origin: &str) -> Result<(), Error> {
    let origin = || origin.to_owned();
    match component.get(..HEADER_BYTES) {
        Some(header) if header.starts_with(MAGIC) => match &header[4..] {
            version if version == VERSION_COMPONENT => Ok(()),
            version if version == VERSION_CORE => Err(Error::CoreModule { origin: origin() }),
            version => Err(Error::Malformed {
                origin: origin(),
                reason: format!("unknown binary version {version:02x?}"),
            }),
        },
        _ => Err(Error::NotWasm { origin: origin() }),
    }
}

/// The contents of a custom section of the component itself; those of modules inside do not count.
pub(crate) fn custom_section<'a>(component: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Sections::new(component)
        .map_while(|section| section)
        .find(|section| section.name == Some(name.as_bytes()))
        .map(|section| section.contents)
}

/// One section at the top level of a component.
struct Section<'a> {
    /// With its header.
    whole: &'a [u8],
    /// The name of a custom section.
    name: Option<&'a [u8]>,
    /// After the header and the name.
    contents: &'a [u8],
}

/// Walks the sections; yields `None` once where the bytes do not make sense, and ends.
struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    fn new(component: &'a [u8]) -> Self {
        Self {
            rest: component.get(HEADER_BYTES..).unwrap_or_default(),
        }
    }

    fn step(&mut self) -> Option<Section<'a>> {
        let all = std::mem::take(&mut self.rest);
        let (id, after_id) = all.split_first()?;
        let (size, payload) = read_length(after_id)?;
        let contents = payload.get(..size)?;
        let whole_bytes = all.len() - payload.len() + size;
        self.rest = &payload[size..];
        let whole = &all[..whole_bytes];
        if *id != SECTION_CUSTOM {
            return Some(Section {
                whole,
                name: None,
                contents,
            });
        }
        let (name_bytes, after_length) = read_length(contents)?;
        let name = after_length.get(..name_bytes)?;
        Some(Section {
            whole,
            name: Some(name),
            contents: &after_length[name_bytes..],
        })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Option<Section<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            None
        } else {
            Some(self.step())
        }
    }
}

/// Reads an unsigned LEB128 number of at most 32 bits.
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u64 = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((value as usize, &bytes[index + 1..]));
        }
    }
    None
}

fn append_custom(component: &mut Vec<u8>, name: &str, contents: &[u8]) {
    let mut body = Vec::with_capacity(contents.len() + name.len() + 5);
    write_length(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(contents);
    component.push(SECTION_CUSTOM);
    write_length(component, body.len());
    component.extend_from_slice(&body);
}

fn write_length(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR: &str = r#"{"name":"demo","version":"1.0.0","actions":{}}"#;

    fn empty_component() -> Vec<u8> {
        [MAGIC.as_slice(), VERSION_COMPONENT].concat()
    }

    #[test]
    fn stamping_twice_leaves_the_last_descriptor_once() {
        let other = DESCRIPTOR.replace("demo", "other");
        let once = stamp(
            &empty_component(),
            &other,
            Some("name=\"other\"\nversion=\"1.0.0\""),
        );
        let twice = stamp(&once.unwrap(), DESCRIPTOR, None).unwrap();
        assert_eq!(
            custom_section(&twice, descriptor::SECTION),
            Some(DESCRIPTOR.as_bytes())
        );
        assert_eq!(Sections::new(&twice).count(), 2);
        assert!(custom_section(&twice, manifest::SECTION).is_some());
    }

    #[test]
    fn a_descriptor_that_is_not_valid_is_never_written() {
        assert!(matches!(
            stamp(&empty_component(), "{}", None),
            Err(Error::Descriptor { .. })
        ));
    }

    #[test]
    fn a_section_that_is_cut_off_is_refused() {
        let mut component = empty_component();
        component.extend_from_slice(&[7, 0x80, 0x80, 0x01, 1, 2, 3]);
        assert!(matches!(
            stamp(&component, DESCRIPTOR, None),
            Err(Error::Malformed { .. })
        ));
        assert_eq!(custom_section(&component, "x"), None);
    }
}
