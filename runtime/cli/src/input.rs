//! JSON that comes from the command line, a file or standard input.

use std::io::Read as _;

use anyhow::Result;
use serde_json::Value;

use crate::exit::usage;

/// No input is larger; whatever is has the wrong path.
const BYTES_MAX: u64 = 64 << 20;

/// Reads a file, or standard input for `-`.
pub fn from_file(path: &str) -> Result<Value> {
    if path == "-" {
        parse(
            &read(std::io::stdin().lock(), "standard input")?,
            "standard input",
        )
    } else {
        let file = std::fs::File::open(path).map_err(|error| {
            usage(format!("cannot read the input `{path}`: {error}\nhelp: name a JSON file, or `-` for standard input"))
        })?;
        parse(&read(file, path)?, path)
    }
}

/// Reads JSON text, `@FILE`, or `-` for standard input; `option` is where the text was given.
pub fn inline(text: &str, option: &str) -> Result<Value> {
    match text.strip_prefix('@') {
        Some(path) => from_file(path),
        None if text == "-" => from_file("-"),
        None => parse(text, option),
    }
}

fn read(from: impl std::io::Read, origin: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            usage(format!(
                "cannot read {origin}: {error}\nhelp: name a JSON file"
            ))
        })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(usage(format!(
            "{origin} has more than {BYTES_MAX} bytes\nhelp: pass a reference to the data instead"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        usage(format!(
            "{origin} is not text: {error}\nhelp: pass JSON in UTF-8"
        ))
    })
}

/// Reads JSON, or says where it stops being JSON.
pub fn parse(text: &str, origin: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        if error.to_string().starts_with("recursion limit") {
            return usage(format!(
                "{origin}: nested too deeply\nhelp: nest at most 100 levels"
            ));
        }
        usage(format!(
            "{origin}:{}:{}: not JSON: {error}\nhelp: correct it; text needs double quotes: '{{\"name\": \"Ada\"}}'",
            error.line(),
            error.column()
        ))
    })
}
