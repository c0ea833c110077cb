//! JSON Schema (2020-12): the data contracts of workflows and actions.

use std::sync::Arc;

use serde_json::Value;

/// A compiled schema. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    source: Arc<Value>,
    validator: Arc<jsonschema::Validator>,
}

/// Why a schema could not be compiled.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotASchema(String);

/// One place where a value breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", if pointer.is_empty() { String::new() } else { format!("`{pointer}`: ") })]
pub struct Violation {
    /// JSON pointer into the value; empty for the whole value.
    pub pointer: String,
    /// What the schema wants.
    pub reason: String,
}

/// No more violations than these are told of one value.
const VIOLATIONS_MAX: usize = 8;

impl Schema {
    /// Compiles a schema. References to other documents are refused: a contract must not
    /// depend on what a network answers.
    pub fn compile(source: &Value) -> Result<Self, NotASchema> {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(source)
            .map_err(|e| NotASchema(e.to_string()))?;
        Ok(Self {
            source: Arc::new(source.clone()),
            validator: Arc::new(validator),
        })
    }

    /// Checks a value; at most the first eight violations are returned.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        Err(self
            .validator
            .iter_errors(value)
            .take(VIOLATIONS_MAX)
            .map(|e| Violation {
                pointer: e.instance_path().to_string(),
                reason: bounded(&e.to_string()),
            })
            .collect())
    }

    /// The schema as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema({})", self.source)
    }
}

/// The validator quotes the offending value, which may be megabytes.
fn bounded(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_violation_names_the_place() {
        let schema = Schema::compile(
            &json!({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}),
        )
        .unwrap();
        let violations = schema.check(&json!({"a":"x"})).unwrap_err();
        assert_eq!(violations[0].pointer, "/a");
        assert!(schema.check(&json!({"a":1})).is_ok());
    }

    #[test]
    fn a_reference_to_another_document_is_refused() {
        let source = json!({"$ref":"http://example.com/schema.json"});
        assert!(Schema::compile(&source).is_err());
    }
}
