//! What a plugin asks for: the manifest `plugin.toml` that travels with its component.
//!
//! A manifest grants nothing. What a connection really has is what its plugin asks for here and
//! its operator grants there, both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Custom section of a component that holds its manifest as TOML text.
pub const SECTION: &str = "cofferdam:manifest";

/// No manifest is longer; whoever lists more hosts than that should grant by suffix.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Characters of the description, of the licence, and of each author.
const TEXT_CHARS_MAX: usize = 1_000;
/// A longer list of authors belongs into a file of its own.
const AUTHORS_MAX: usize = 64;
/// Characters of a version.
const VERSION_LEN_MAX: usize = 128;

/// The version of the contract that a manifest without `wit` is written for.
const WIT_DEFAULT: &str = "1.0";

/// A checked `plugin.toml`. Unknown keys are refused by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's name: lower-case letters, digits and hyphens; the same as in its descriptor.
    pub name: String,
    /// The plugin's version (semver); the same as in its descriptor.
    pub version: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Who made it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// An SPDX expression.
    #[serde(default)]
    pub license: String,
    /// The version of the contract it was built for, `MAJOR.MINOR`.
    #[serde(default = "wit_default")]
    pub wit: String,
    /// What is behind it, where that changes a default.
    #[serde(default)]
    pub kind: Kind,
    /// What it asks for.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What it needs more of than the defaults give.
    #[serde(default)]
    pub limits: Wishes,
}

/// What is behind a plugin, where that changes a default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Any system.
    #[default]
    System,
    /// A language model: five attempts instead of three, since it is busy more often than it is
    /// down.
    Llm,
}

/// What a plugin asks for. Everything is off unless named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Where it wants to send requests: `https://api.example.com`, `https://*.example.com:8443`.
    #[serde(default)]
    pub http: Vec<String>,
    /// The names of the secrets it uses.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whether it uses a database.
    #[serde(default)]
    pub sql: bool,
    /// Whether it sends mail.
    #[serde(default)]
    pub smtp: bool,
    /// Whether it keeps small state of its own.
    #[serde(default)]
    pub kv: bool,
    /// The directories it uses, as paths inside the chamber: `/data`.
    #[serde(default)]
    pub filesystem: Vec<String>,
}

/// Limits that a plugin wishes for. The operator's limits win.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// Memory of one call: `"64 MiB"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Wall clock of one call: `"30s"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// CPU time of one call: `"1s"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

impl Wishes {
    /// The wished memory in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory.as_deref().and_then(parse_bytes)
    }

    /// The wished wall clock time.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.as_deref().and_then(parse_duration)
    }

    /// The wished CPU time.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.cpu.as_deref().and_then(parse_duration)
    }
}

/// Why a manifest was refused. Every message begins with the place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not TOML, an unknown key, a missing key, or a value of the wrong type.
    #[error("{origin}:{line}:{column}: {reason}")]
    Shape {
        /// The file, as the caller named it.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A value has the right type and no sense.
    #[error("{origin}: `{key} = \"{value}\"`: {remedy}")]
    Value {
        /// The file, as the caller named it.
        origin: String,
        /// The key, with its table.
        key: &'static str,
        /// What was written.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
}

impl Manifest {
    /// Parses and checks a manifest; `origin` is the path that messages begin with.
    ///
    /// # Errors
    /// [`Error`] names the file, the line and column or the key, and what to write instead.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::Shape {
                origin: origin.to_owned(),
                line: 1,
                column: 1,
                reason: format!(
                    "the manifest has {} bytes, and at most {MANIFEST_BYTES_MAX} are taken",
                    text.len()
                ),
            });
        }
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            Error::Shape {
                origin: origin.to_owned(),
                line,
                column,
                reason: error.message().to_owned(),
            }
        })?;
        manifest.check(origin)?;
        Ok(manifest)
    }

    /// The major version of the contract it was built for.
    pub fn wit_major(&self) -> u32 {
        self.wit
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0)
    }

    fn check(&self, origin: &str) -> Result<(), Error> {
        let refuse = |key, value: &str, remedy| {
            Err(Error::Value {
                origin: origin.to_owned(),
                key,
                value: value
                    .chars()
                    .take(TEXT_CHARS_MAX)
                    .collect::<String>()
                    .escape_debug()
                    .to_string(),
                remedy,
            })
        };
        let texts = [
            ("description", &self.description),
            ("license", &self.license),
        ];
        let authors = self.authors.iter().map(|author| ("authors", author));
        for (key, text) in texts.into_iter().chain(authors) {
            if !is_line(text) {
                return refuse(key, text, "write one line of at most 1000 characters");
            }
        }
        if self.authors.len() > AUTHORS_MAX {
            let count = format!("{} authors", self.authors.len());
            return refuse("authors", &count, "name at most 64, or a group");
        }
        if !is_name(&self.name) {
            return refuse(
                "name",
                &self.name,
                "use 1 to 64 lower-case letters, digits and hyphens",
            );
        }
        if !is_version(&self.version) {
            return refuse("version", &self.version, "write a version like `1.0.0`");
        }
        if !is_wit(&self.wit) {
            return refuse("wit", &self.wit, "write the contract's version like `1.0`");
        }
        let limits = &self.limits;
        if limits.memory.is_some() && limits.memory_bytes().is_none() {
            let written = limits.memory.as_deref().unwrap_or_default();
            return refuse("limits.memory", written, "write a size like `64 MiB`");
        }
        if limits.timeout.is_some() && limits.timeout().is_none() {
            let written = limits.timeout.as_deref().unwrap_or_default();
            return refuse(
                "limits.timeout",
                written,
                "write a duration like `30s` or `500ms`",
            );
        }
        if limits.cpu.is_some() && limits.cpu_time().is_none() {
            let written = limits.cpu.as_deref().unwrap_or_default();
            return refuse(
                "limits.cpu",
                written,
                "write a duration like `1s` or `500ms`",
            );
        }
        Ok(())
    }
}

/// Reads a size: a positive whole number with `B` (or nothing), `KiB`, `MiB` or `GiB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// Reads a duration: a positive whole number with `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number
        .checked_mul(factor_ms)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn wit_default() -> String {
    WIT_DEFAULT.to_owned()
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Fit for a terminal and for a registry: what moves a cursor is not.
fn is_line(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
}

/// A semantic version. Only the characters that it may consist of, since it is part of what is
/// signed.
fn is_version(version: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
    if version.len() > VERSION_LEN_MAX || !version.bytes().all(is_plain) {
        return false;
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u64>().is_ok())
}

fn is_wit(wit: &str) -> bool {
    let parts: Vec<&str> = wit.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

/// The line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "crm"
version = "1.2.0"
[capabilities]
http = ["https://api.example.com"]
secrets = ["TOKEN"]
[limits]
memory = "256 MiB"
timeout = "1m"
"#;

    #[test]
    fn a_manifest_tells_what_is_asked_for() {
        let manifest = Manifest::parse(GOOD, "plugin.toml").unwrap();
        assert_eq!(manifest.capabilities.secrets, ["TOKEN"]);
        assert_eq!(manifest.limits.memory_bytes(), Some(256 << 20));
        assert_eq!(manifest.limits.timeout(), Some(Duration::from_mins(1)));
        assert_eq!(manifest.wit_major(), 1);
        assert!(!manifest.capabilities.sql);
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line() {
        let text = "name = \"crm\"\nversion = \"1.0.0\"\n[capabilities]\nhtpp = []\n";
        let message = Manifest::parse(text, "crm/plugin.toml")
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("crm/plugin.toml:4:1: "), "{message}");
        assert!(message.contains("htpp"), "{message}");
    }

    #[test]
    fn values_without_sense_are_told_with_a_remedy() {
        for (from, to, key) in [
            ("crm", "C R M", "name"),
            ("1.2.0", "one", "version"),
            ("256 MiB", "lots", "limits.memory"),
            ("\"1m\"", "\"0s\"", "limits.timeout"),
        ] {
            let message = Manifest::parse(&GOOD.replace(from, to), "p.toml")
                .unwrap_err()
                .to_string();
            assert!(
                message.starts_with(&format!("p.toml: `{key} = ")),
                "{message}"
            );
        }
    }

    #[test]
    fn texts_fit_a_line_and_a_terminal() {
        for (line, key) in [
            ("description = \"one\\ntwo\"", "description"),
            ("license = \"\\u001b[2J\"", "license"),
            ("authors = [\"Ada\", \"a\\tb\"]", "authors"),
        ] {
            let text = format!("{line}\n{GOOD}");
            let message = Manifest::parse(&text, "p.toml").unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("p.toml: `{key} = ")),
                "{message}"
            );
            assert!(!message.contains(char::is_control), "{message:?}");
        }
        let long = format!(
            "description = \"{}\"\n{GOOD}",
            "x".repeat(TEXT_CHARS_MAX + 1)
        );
        assert!(Manifest::parse(&long, "p.toml").is_err());
        let many = format!("authors = [{}]\n{GOOD}", "\"x\",".repeat(AUTHORS_MAX + 1));
        assert!(Manifest::parse(&many, "p.toml").is_err());
        let huge = format!("# {}\n{GOOD}", "x".repeat(MANIFEST_BYTES_MAX as usize));
        let message = Manifest::parse(&huge, "p.toml").unwrap_err().to_string();
        assert!(message.contains("65536"), "{message}");
    }

    #[test]
    fn a_version_is_one_word() {
        for version in ["1.0.0-\\nx", "1.0.0 beta", "1.0.0-ü", "1.0.0+\\u0000"] {
            assert!(Manifest::parse(&GOOD.replace("1.2.0", version), "p.toml").is_err());
        }
        assert!(Manifest::parse(&GOOD.replace("1.2.0", "1.0.0-rc.1+b7"), "p.toml").is_ok());
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(parse_bytes("65536"), Some(65_536));
        assert_eq!(parse_bytes("64MB"), None);
        assert_eq!(parse_bytes("0 MiB"), None);
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10"), None);
        assert_eq!(parse_duration("99999999999999999999s"), None);
    }
}
