//! Removes the values of secrets from whatever leaves a chamber, or comes into one.
//!
//! A match is overwritten with asterisks of the same length, so that lengths announced elsewhere
//! (`content-length`) stay true. Looked for are all forms in which software commonly writes a text
//! down again: as it is, in JSON, in HTML, percent-encoded, as hexadecimal digits, and in base64 at
//! each of the three places where it may begin inside a longer text. What somebody encodes
//! otherwise on purpose (encrypted, reversed, in base32) is not found; SECURITY.md says so.

mod forms;

use memchr::memmem::Finder;
use serde_json::Value;

/// Shorter values occur by chance in any text; they are not looked for.
pub(crate) const SECRET_BYTES_MIN: usize = 4;
/// A stream is searched in pieces of at least this size, so that a body that arrives byte by byte
/// is not searched byte by byte.
const PIECE_BYTES_MIN: usize = 256;

/// The forms of all secrets of one connection. Empty for a connection without any.
#[derive(Default)]
pub(crate) struct Scrubber {
    /// Each of them searches in time that grows with the text alone, whatever is in it.
    finders: Vec<Finder<'static>>,
    /// For names of headers, which arrive in lower case whatever they were.
    lower: Vec<Finder<'static>>,
    /// The longest form.
    bytes_max: usize,
}

impl Scrubber {
    /// Values that are too short to be told from other text are left out.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Vec<u8>> = secrets
            .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
            .flat_map(forms::of)
            .filter(|pattern| pattern.len() >= SECRET_BYTES_MIN)
            .collect();
        patterns.sort();
        patterns.dedup();
        let finder = |pattern: &Vec<u8>| Finder::new(pattern).into_owned();
        let lower = |pattern: &Vec<u8>| finder(&pattern.to_ascii_lowercase());
        Self {
            finders: patterns.iter().map(finder).collect(),
            lower: patterns.iter().map(lower).collect(),
            bytes_max: patterns.iter().map(Vec::len).max().unwrap_or_default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.finders.is_empty()
    }

    /// Where matches are; those of different forms may overlap.
    fn ranges(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let found = self.finders.iter().flat_map(|finder| {
            let bytes_found = finder.needle().len();
            finder
                .find_iter(bytes)
                .map(move |start| (start, start + bytes_found))
        });
        found.collect()
    }

    /// Overwrites every whole match.
    pub(crate) fn bytes(&self, bytes: &mut [u8]) {
        for (start, end) in self.ranges(bytes) {
            bytes[start..end].fill(b'*');
        }
    }

    /// Whether any form of a secret is in there.
    pub(crate) fn finds(&self, bytes: &[u8]) -> bool {
        let finds = |finder: &Finder<'_>| finder.find(bytes).is_some();
        self.finders.iter().any(finds)
    }

    /// The same for a text in lower case, whatever the case of the secret.
    pub(crate) fn finds_in_lower_case(&self, bytes: &[u8]) -> bool {
        let finds = |finder: &Finder<'_>| finder.find(bytes).is_some();
        self.lower.iter().any(finds)
    }

    pub(crate) fn text(&self, text: String) -> String {
        if !self.finds(text.as_bytes()) {
            return text;
        }
        let mut bytes = text.into_bytes();
        self.bytes(&mut bytes);
        // Patterns are whole UTF-8 strings, so what is left is UTF-8 as well.
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Scrubs every string of a JSON value, keys included.
    pub(crate) fn value(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(key, item)| (self.text(key), self.value(item)))
                    .collect(),
            ),
            Value::Number(number) => {
                let text = number.to_string();
                if self.finds(text.as_bytes()) {
                    Value::String(self.text(text))
                } else {
                    Value::Number(number)
                }
            }
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// Scrubs a text that holds JSON, so that it still does.
    pub(crate) fn json(&self, text: String) -> String {
        if !self.finds(text.as_bytes()) {
            return text;
        }
        match serde_json::from_str(&text) {
            Ok(value) => self.value(value).to_string(),
            Err(_) => self.text(text),
        }
    }
}

/// Scrubs a body that arrives in pieces; a secret that is cut in two is found as well.
///
/// How much is held back depends on how much came and never on what came: whoever sends a guess and
/// watches how soon it arrives learns nothing of a secret's beginning.
#[derive(Default)]
pub(crate) struct StreamScrub {
    /// As it came.
    held: Vec<u8>,
    /// So many of the bytes held are the end of a match that was passed on in part.
    covered: usize,
}

impl StreamScrub {
    /// Takes a piece and returns what can be passed on.
    pub(crate) fn push(&mut self, scrubber: &Scrubber, piece: &[u8]) -> Vec<u8> {
        if scrubber.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        let keep = scrubber.bytes_max - 1;
        if self.held.len() < keep + PIECE_BYTES_MIN {
            return Vec::new();
        }
        let cut = self.held.len() - keep;
        self.pass(scrubber, cut)
    }

    /// What was held back, when nothing more comes.
    pub(crate) fn finish(&mut self, scrubber: &Scrubber) -> Vec<u8> {
        let all = self.held.len();
        self.pass(scrubber, all)
    }

    /// Passes on what is before `cut`; every match that begins there is known by now.
    fn pass(&mut self, scrubber: &Scrubber, cut: usize) -> Vec<u8> {
        let rest = self.held[cut..].to_vec();
        let mut bytes = std::mem::replace(&mut self.held, rest);
        let mut covered = self.covered;
        let ranges = scrubber.ranges(&bytes);
        bytes[..covered].fill(b'*');
        for (start, end) in ranges {
            bytes[start..end].fill(b'*');
            if start < cut {
                covered = covered.max(end);
            }
        }
        self.covered = covered.saturating_sub(cut);
        bytes.truncate(cut);
        bytes
    }
}

#[cfg(test)]
#[path = "scrub/tests.rs"]
mod tests;
