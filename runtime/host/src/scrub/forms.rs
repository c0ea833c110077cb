//! The forms in which a text is commonly written down again.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// What forms leave alone (`application/x-www-form-urlencoded`), with blanks as plus signs.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b' ');
/// What `encodeURIComponent` leaves alone.
const COMPONENT: &AsciiSet = &FORM
    .remove(b'!')
    .remove(b'~')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .add(b' ');
/// Only what RFC 3986 leaves alone.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What a URL's path leaves alone.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// Every form of one secret, itself included; with repetitions.
pub(super) fn of(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    base64(secret, &mut forms);
    for set in [NON_ALPHANUMERIC, UNRESERVED, COMPONENT, PATH] {
        percent(utf8_percent_encode(secret, set).to_string(), &mut forms);
    }
    let form = utf8_percent_encode(secret, FORM)
        .to_string()
        .replace(' ', "+");
    percent(form, &mut forms);
    let digits = hex::encode(secret);
    forms.push(digits.to_ascii_uppercase().into_bytes());
    forms.push(digits.into_bytes());
    json(secret, &mut forms);
    forms.push(html(secret, "&#39;").into_bytes());
    forms.push(html(secret, "&apos;").into_bytes());
    forms
}

/// Whole, and as it looks inside of a longer text that was encoded: without the first and last
/// characters, which depend on its neighbours.
fn base64(secret: &str, forms: &mut Vec<Vec<u8>>) {
    for engine in [&STANDARD, &URL_SAFE] {
        forms.push(engine.encode(secret).into_bytes());
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret).into_bytes());
        for before in 0..3_usize {
            let padded = [&vec![0; before][..], secret.as_bytes()].concat();
            let first = (before * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            forms.push(engine.encode(&padded).as_bytes()[first..last].to_vec());
        }
    }
}

/// With the digits of escapes in either case.
fn percent(encoded: String, forms: &mut Vec<Vec<u8>>) {
    let mut lower = encoded.clone().into_bytes();
    let mut at = 0;
    while let Some(found) = lower[at..].iter().position(|byte| *byte == b'%') {
        let digits = at + found + 1;
        let end = (digits + 2).min(lower.len());
        lower[digits..end].make_ascii_lowercase();
        at = end;
    }
    forms.push(lower);
    forms.push(encoded.into_bytes());
}

/// With as few escapes as JSON allows, with slashes escaped too, and with ASCII letters only.
fn json(secret: &str, forms: &mut Vec<Vec<u8>>) {
    let quoted = serde_json::to_string(secret).unwrap_or_default();
    let inside = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default()
        .to_owned();
    let ascii: String = inside
        .chars()
        .map(|letter| {
            if letter.is_ascii() {
                return letter.to_string();
            }
            let mut units = [0; 2];
            let escape = |unit: &u16| format!("\\u{unit:04x}");
            letter.encode_utf16(&mut units).iter().map(escape).collect()
        })
        .collect();
    for text in [inside, ascii] {
        forms.push(text.replace('/', "\\/").into_bytes());
        forms.push(text.into_bytes());
    }
}

fn html(secret: &str, apostrophe: &str) -> String {
    secret
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', apostrophe)
}
