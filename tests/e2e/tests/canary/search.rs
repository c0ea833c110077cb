//! Looks for texts in bytes, in every form that they may have been written down in.
//!
//! The forms are made here and not by the host's own code: a form that is forgotten there is to be
//! found here.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What to look for.
pub(crate) struct Search {
    /// What it is, for the report, and its bytes.
    needles: Vec<(String, Vec<u8>)>,
}

impl Search {
    pub(crate) fn new(texts: &[&str]) -> Self {
        let mut needles: Vec<(String, Vec<u8>)> = Vec::new();
        for text in texts {
            let mut add = |form: &str, bytes: Vec<u8>| {
                needles.push((format!("`{text}` {form}"), bytes));
            };
            add("as it is", text.as_bytes().to_vec());
            add("in JSON", json(text).into_bytes());
            add("in JSON in JSON", json(&json(text)).into_bytes());
            add("as digits", hex(text, false).into_bytes());
            add("as capital digits", hex(text, true).into_bytes());
            for keep in ["", "-._~", "-._~!*'()", "-._*"] {
                for upper in [false, true] {
                    add("in a URL", url(text, keep, upper).into_bytes());
                }
            }
            let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            add("in UTF-16", utf16);
            for before in 0..3 {
                for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                    let form = format!("in base64 behind {before} bytes");
                    add(&form, inside(engine, text, before));
                }
            }
        }
        Self { needles }
    }

    /// What is found in some bytes.
    pub(crate) fn bytes(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let found =
            |(_, needle): &&(String, Vec<u8>)| memchr::memmem::find(bytes, needle).is_some();
        let here = self.needles.iter().filter(found);
        here.map(|(form, _)| format!("{place}: {form}")).collect()
    }

    /// The files below a folder, and what is found in them and in their names.
    pub(crate) fn folder(&self, root: &Path) -> (Vec<PathBuf>, Vec<String>) {
        let (mut files, mut finds) = (Vec::new(), Vec::new());
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_owned();
                let place = format!("file {}", name.display());
                finds.extend(self.bytes(&place, name.as_os_str().as_encoded_bytes()));
                if path.is_dir() {
                    folders.push(path);
                } else {
                    finds.extend(self.bytes(&place, &std::fs::read(&path).unwrap()));
                    files.push(name);
                }
            }
        }
        (files, finds)
    }
}

/// One text in forms that have to be found.
pub(crate) fn examples(text: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![
        text.to_owned(),
        json(text),
        hex(text, true),
        url(text, "-._~", true),
        url(text, "-._~", false),
    ];
    for before in ["", "u", "us", "user:"] {
        forms.push(STANDARD_NO_PAD.encode(format!("{before}{text} and more")));
        forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{text} and more")));
    }
    forms.into_iter().map(String::into_bytes).collect()
}

pub(crate) fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_owned()
}

pub(crate) fn hex(text: &str, upper: bool) -> String {
    let digits = |byte: u8| {
        if upper {
            format!("{byte:02X}")
        } else {
            format!("{byte:02x}")
        }
    };
    text.bytes().map(digits).collect()
}

pub(crate) fn url(text: &str, keep: &str, upper: bool) -> String {
    let escaped = |byte: u8| {
        let letter = char::from(byte);
        if letter.is_ascii_alphanumeric() || keep.contains(letter) {
            letter.to_string()
        } else {
            format!("%{}", hex(&letter.to_string(), upper))
        }
    };
    text.bytes().map(escaped).collect()
}

/// The characters of base64 that come of the text alone, when so many bytes stand before it.
fn inside(engine: &impl base64::Engine, text: &str, before: usize) -> Vec<u8> {
    let whole = engine.encode([&vec![0; before], text.as_bytes()].concat());
    let bits = (before + text.len()) * 8;
    whole.as_bytes()[(before * 8).div_ceil(6)..bits / 6].to_vec()
}
