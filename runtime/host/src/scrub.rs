//! Removes the values of secrets from whatever leaves a chamber.
//!
//! A match is overwritten with asterisks of the same length, so that lengths announced elsewhere
//! (`content-length`, JSON escapes) stay true. Looked for are the value itself, its base64 forms
//! and its percent-encoded form.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Shorter values occur by chance in any text; they are not looked for.
pub(crate) const SECRET_BYTES_MIN: usize = 4;

/// The forms of all secrets of one connection. Empty for a connection without any.
#[derive(Default)]
pub(crate) struct Scrubber {
    /// Longest first, so that a padded form goes before the same without padding.
    patterns: Vec<Vec<u8>>,
}

impl Scrubber {
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns = Vec::new();
        for secret in secrets.filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
            patterns.push(secret.as_bytes().to_vec());
            for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
                patterns.push(engine.encode(secret).into_bytes());
            }
            patterns.push(
                utf8_percent_encode(secret, NON_ALPHANUMERIC)
                    .to_string()
                    .into_bytes(),
            );
            patterns.push(
                serde_json::to_string(secret)
                    .unwrap_or_default()
                    .trim_matches('"')
                    .as_bytes()
                    .to_vec(),
            );
        }
        patterns.retain(|pattern| pattern.len() >= SECRET_BYTES_MIN);
        patterns.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup();
        Self { patterns }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Overwrites every whole match.
    pub(crate) fn bytes(&self, bytes: &mut [u8]) {
        for pattern in &self.patterns {
            let mut from = 0;
            while let Some(at) = find(&bytes[from..], pattern) {
                let start = from + at;
                bytes[start..start + pattern.len()].fill(b'*');
                from = start + pattern.len();
            }
        }
    }

    pub(crate) fn text(&self, text: String) -> String {
        if self.is_empty() {
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
                let text = self.text(number.to_string());
                if text.contains('*') {
                    Value::String(text)
                } else {
                    Value::Number(number)
                }
            }
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// How many bytes at the end might be the beginning of a match that goes on in the next chunk.
    fn open_end(&self, bytes: &[u8]) -> usize {
        let longest = self.patterns.first().map_or(0, Vec::len).saturating_sub(1);
        let mut from = bytes.len().saturating_sub(longest);
        while from < bytes.len() {
            let tail = &bytes[from..];
            if self
                .patterns
                .iter()
                .any(|p| p.len() > tail.len() && p.starts_with(tail))
            {
                return tail.len();
            }
            from += 1;
        }
        0
    }
}

/// Scrubs a body that arrives in pieces; a secret that is cut in two is found as well.
#[derive(Default)]
pub(crate) struct StreamScrub {
    held: Vec<u8>,
}

impl StreamScrub {
    /// Takes a piece and returns what can be passed on.
    pub(crate) fn push(&mut self, scrubber: &Scrubber, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        scrubber.bytes(&mut bytes);
        self.held = bytes.split_off(bytes.len() - scrubber.open_end(&bytes));
        bytes
    }

    /// What was held back, when nothing more comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while haystack.len() - from >= needle.len() {
        let at = from + haystack[from..].iter().position(|byte| *byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "s3cr3t/+ä\"val";

    fn scrubber() -> Scrubber {
        Scrubber::new([SECRET].into_iter())
    }

    #[test]
    fn every_form_of_a_secret_is_overwritten() {
        let scrubber = scrubber();
        for form in [
            SECRET.to_owned(),
            STANDARD.encode(SECRET),
            STANDARD_NO_PAD.encode(SECRET),
            URL_SAFE_NO_PAD.encode(SECRET),
            utf8_percent_encode(SECRET, NON_ALPHANUMERIC).to_string(),
        ] {
            let text = format!("before {form} after");
            let bytes = text.len();
            let clean = scrubber.text(text);
            assert!(!clean.contains(&form), "{clean}");
            assert_eq!(clean.len(), bytes);
            assert!(clean.starts_with("before *") && clean.ends_with("* after"));
        }
    }

    #[test]
    fn json_is_scrubbed_in_depth() {
        let value = json!({"a": [{SECRET: SECRET}], "n": 1});
        let text = scrubber().value(value).to_string();
        assert!(!text.contains("s3cr3t"), "{text}");
    }

    #[test]
    fn a_number_that_is_a_secret_is_overwritten() {
        let scrubber = Scrubber::new(["987654321"].into_iter());
        assert_eq!(
            scrubber.value(json!({"a": 987_654_321})),
            json!({"a": "*********"})
        );
    }

    #[test]
    fn a_secret_cut_anywhere_in_a_stream_is_found() {
        let scrubber = scrubber();
        let text = format!("xx{SECRET}yy{SECRET}");
        for cut in 0..text.len() {
            let mut stream = StreamScrub::default();
            let mut out = stream.push(&scrubber, &text.as_bytes()[..cut]);
            out.extend(stream.push(&scrubber, &text.as_bytes()[cut..]));
            out.extend(stream.finish());
            assert_eq!(out.len(), text.len());
            assert!(find(&out, b"s3cr3t").is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn text_without_secrets_is_left_alone() {
        assert_eq!(scrubber().text("s3cr3t".to_owned()), "s3cr3t");
    }
}
