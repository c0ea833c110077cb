//! Form parameters as Stripe reads them.

use std::collections::BTreeMap;

use super::Refusal;
use crate::http::Request;

/// Most keys, longest key and longest value of metadata.
const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;

/// The parameters of one request. Two sets are equal whatever the order they were sent in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads the body; the last of two equal names wins.
    pub(super) fn read(request: &Request) -> Result<Self, Refusal> {
        if request.is("application/json") {
            let message = "Invalid request: send parameters as application/x-www-form-urlencoded, not as JSON.";
            return Err(Refusal::invalid(
                "parameter_unknown",
                "body",
                message.to_owned(),
            ));
        }
        Ok(Self(request.form().into_iter().collect()))
    }

    /// Refuses names beyond `known`; `metadata[…]` and `expand[…]` go everywhere, and a known name
    /// may be followed by a bracket.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        for name in self.0.keys() {
            let stem = name.split('[').next().unwrap_or_default();
            if !known.contains(&stem) && !matches!(stem, "metadata" | "expand") {
                return Err(Refusal::invalid(
                    "parameter_unknown",
                    stem,
                    format!("Received unknown parameter: {stem}"),
                ));
            }
        }
        Ok(())
    }

    /// A parameter that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::missing(name))
    }

    /// A whole number of at least 1.
    pub(super) fn amount(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let invalid = |message| Refusal::invalid("parameter_invalid_integer", name, message);
        match self.text(name).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(amount @ 1..)) => Ok(Some(amount as u64)),
            Some(Ok(_)) => Err(invalid(
                "This value must be greater than or equal to 1.".to_owned(),
            )),
            Some(Err(_)) => Err(invalid(format!(
                "Invalid integer: {}",
                self.text(name).unwrap_or_default()
            ))),
        }
    }

    /// True, false, or absent, which is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(Refusal::invalid(
                "parameter_invalid_boolean",
                name,
                format!("Invalid boolean: {other}"),
            )),
        }
    }

    /// The pairs under `metadata[…]`.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>, Refusal> {
        let mut metadata = BTreeMap::new();
        for (name, value) in &self.0 {
            let Some(key) = name
                .strip_prefix("metadata[")
                .and_then(|rest| rest.strip_suffix(']'))
            else {
                continue;
            };
            let too_long = |what| {
                Refusal::invalid(
                    "parameter_invalid_string_too_long",
                    name,
                    format!("{what} is too long"),
                )
            };
            if key.chars().count() > METADATA_KEY_CHARS_MAX {
                return Err(too_long("The key"));
            }
            if value.chars().count() > METADATA_VALUE_CHARS_MAX {
                return Err(too_long("The value"));
            }
            metadata.insert(key.to_owned(), value.clone());
        }
        if metadata.len() > METADATA_KEYS_MAX {
            let message = format!("Metadata has at most {METADATA_KEYS_MAX} keys");
            return Err(Refusal::invalid("parameter_invalid", "metadata", message));
        }
        Ok(metadata)
    }
}
