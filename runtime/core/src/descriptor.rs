//! What a plugin offers: the descriptor that travels with the component.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Custom section of a component that holds its descriptor as JSON text.
pub const SECTION: &str = "cofferdam:descriptor";

/// What a plugin says of itself. JSON, camel case; unknown keys are kept out with an error so
/// that a misspelt key is told rather than ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Descriptor {
    /// The plugin's name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The plugin's own version (semver).
    pub version: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// The actions by name.
    pub actions: IndexMap<String, Action>,
}

/// One operation that a plugin offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Action {
    /// A short title for people.
    pub title: String,
    /// What it does, in sentences.
    #[serde(default)]
    pub description: String,
    /// What repeating it does.
    pub effect: Effect,
    /// JSON Schema (2020-12) of the input.
    pub input: Value,
    /// JSON Schema (2020-12) of the output.
    pub output: Value,
    /// The action of the same plugin that undoes this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensated_by: Option<String>,
    /// Whether `recovery.lookup` can answer for this action.
    #[serde(default)]
    pub lookup: bool,
    /// Inputs that work, for documentation and test kits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Value>,
}

/// What repeating an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// Repeating it with the same idempotency key changes nothing more.
    Idempotent,
    /// Repeating it hurts: a second mail, a second message.
    Once,
}

/// Why a descriptor was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not of this shape.
    #[error("the descriptor is not valid: {0}")]
    Shape(#[from] serde_json::Error),
    /// A name has characters or a length it may not have.
    #[error(
        "the descriptor's {what} `{name}` is not a valid name: use 1 to 64 lower-case letters, digits and hyphens"
    )]
    Name {
        /// `name` or `action`.
        what: &'static str,
        /// What was written.
        name: String,
    },
    /// `compensatedBy` names an action that is not there.
    #[error("action `{action}` is compensated by `{by}`, which this plugin does not offer")]
    Compensation {
        /// The action.
        action: String,
        /// What was written.
        by: String,
    },
    /// A schema is not a JSON Schema.
    #[error("the {which} schema of action `{action}` is not a JSON Schema: {reason}")]
    Schema {
        /// The action.
        action: String,
        /// `input` or `output`.
        which: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Descriptor {
    /// Parses and checks a descriptor, so that whoever holds one may rely on its names, its
    /// references and its schemas.
    ///
    /// # Errors
    /// [`Error`] names the place that is wrong.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let descriptor: Self = serde_json::from_str(json)?;
        check_name("name", &descriptor.name)?;
        for (name, action) in &descriptor.actions {
            check_name("action", name)?;
            if let Some(by) = &action.compensated_by
                && !descriptor.actions.contains_key(by)
            {
                return Err(Error::Compensation {
                    action: name.clone(),
                    by: by.clone(),
                });
            }
            for (which, schema) in [("input", &action.input), ("output", &action.output)] {
                crate::schema::Schema::compile(schema).map_err(|e| Error::Schema {
                    action: name.clone(),
                    which,
                    reason: e.to_string(),
                })?;
            }
        }
        Ok(descriptor)
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let fine = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine {
        Ok(())
    } else {
        Err(Error::Name {
            what,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(actions: &str) -> String {
        format!(r#"{{"name":"demo","version":"1.0.0","actions":{actions}}}"#)
    }

    #[test]
    fn a_descriptor_that_is_not_json_is_refused() {
        assert!(matches!(Descriptor::parse("hello"), Err(Error::Shape(_))));
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let text = descriptor(r#"{"go":{"title":"Go","efect":"read","input":{},"output":{}}}"#);
        assert!(
            Descriptor::parse(&text)
                .unwrap_err()
                .to_string()
                .contains("efect")
        );
    }

    #[test]
    fn a_compensation_that_is_not_offered_is_refused() {
        let text = descriptor(
            r#"{"go":{"title":"Go","effect":"once","input":{},"output":{},"compensatedBy":"undo"}}"#,
        );
        assert!(matches!(
            Descriptor::parse(&text),
            Err(Error::Compensation { .. })
        ));
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_its_place() {
        let text =
            descriptor(r#"{"go":{"title":"Go","effect":"read","input":{"type":7},"output":{}}}"#);
        let error = Descriptor::parse(&text).unwrap_err().to_string();
        assert!(error.contains("input schema of action `go`"), "{error}");
    }

    #[test]
    fn a_name_with_a_dot_is_refused() {
        let text = descriptor(r#"{"a.b":{"title":"","effect":"read","input":{},"output":{}}}"#);
        assert!(matches!(Descriptor::parse(&text), Err(Error::Name { .. })));
    }
}
