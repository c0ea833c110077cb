//! What [`crate::connector`] implements, and the functions that its code calls.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::{self, Call, Health};
use crate::failure::{Class, EffectState, Failure};

/// A connector. Implemented by the attribute macro [`crate::connector`], so that descriptor
/// and code cannot differ.
pub trait Connector: Sized {
    /// What this connector offers.
    fn descriptor() -> Descriptor;
    /// Reads the connection's settings.
    fn open() -> Result<Self, Failure>;
    /// Performs one action and returns its output as JSON text.
    fn invoke(&self, call: &Call) -> Result<String, Failure>;
    /// Tells whether the system behind the connection works.
    fn check(&self) -> Result<Health, Failure>;
    /// Tells what came of the call of `action` with this idempotency key.
    fn lookup(&self, action: &str, key: &str) -> Result<Option<String>, Failure>;
    /// Fails unless `input` is one that `action` takes. Performs nothing.
    fn accepts(action: &str, input: &str) -> Result<(), Failure>;
}

/// What repeating an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// Repeating it with the same idempotency key changes nothing more.
    Idempotent,
    /// Repeating it hurts.
    Once,
}

/// What a connector offers, in the shape that travels with the component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The connector's name.
    pub name: String,
    /// The version of the connector's crate.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// The actions by name, in the order of the code.
    pub actions: Map<String, Value>,
}

/// One action of a descriptor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// A short title for people.
    pub title: String,
    /// What it does, in sentences.
    pub description: String,
    /// What repeating it does.
    pub effect: Effect,
    /// JSON Schema (2020-12) of the input.
    pub input: Value,
    /// JSON Schema (2020-12) of the output.
    pub output: Value,
    /// The action that undoes this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensated_by: Option<String>,
    /// Whether a lookup can answer for this action.
    pub lookup: bool,
    /// Inputs that work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Value>,
}

impl Descriptor {
    /// The descriptor as the JSON text that `describe` returns and the component carries.
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys only: serialising cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// The input of an action without one: an object without properties.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Opens the connector and performs one call.
pub fn run<C: Connector>(call: &Call) -> Result<String, Failure> {
    let _current = call::enter(call);
    C::open()?.invoke(call)
}

/// An action as the descriptor has it.
#[doc(hidden)]
pub fn entry(action: &Action) -> Value {
    // Strings, booleans and JSON values only: this cannot fail.
    serde_json::to_value(action).unwrap_or_default()
}

/// The inputs of `example = …`. Text that is not JSON stays a string, which
/// [`crate::testing::assert_examples`] reports.
#[doc(hidden)]
pub fn examples(texts: &[&str]) -> Vec<Value> {
    texts
        .iter()
        .map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(*text)))
        .collect()
}

/// The schema of what an action takes.
#[doc(hidden)]
pub fn input_schema<T: schemars::JsonSchema>() -> Value {
    schema::<T>(schemars::generate::SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of what an action returns.
#[doc(hidden)]
pub fn output_schema<T: schemars::JsonSchema>() -> Value {
    schema::<T>(schemars::generate::SchemaSettings::draft2020_12().for_serialize())
}

fn schema<T: schemars::JsonSchema>(settings: schemars::generate::SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Parses an action's input.
#[doc(hidden)]
pub fn parse<T: DeserializeOwned>(input: &str) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_str(input);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." {
            "the input".to_owned()
        } else {
            format!("input `{path}`")
        };
        Failure::invalid_input("input", format!("{place}: {}", error.inner()))
    })
}

/// Writes an action's output.
#[doc(hidden)]
pub fn answer<T: Serialize>(result: Result<T, Failure>) -> Result<String, Failure> {
    serde_json::to_string(&result?).map_err(|error| {
        Failure::internal(
            "output",
            format!("the output cannot be written as JSON: {error}"),
        )
        .effect(EffectState::Unknown)
    })
}

/// Writes what a lookup found.
#[doc(hidden)]
pub fn found<T: Serialize>(result: Result<Option<T>, Failure>) -> Result<Option<String>, Failure> {
    result?.map(|output| answer(Ok(output))).transpose()
}

/// Answers a call of an action that is not there.
#[doc(hidden)]
pub fn no_such_action(action: &str) -> Failure {
    Failure::new(
        Class::Unsupported,
        "action",
        format!("this connector has no action `{action}`; see its descriptor"),
    )
}

/// Answers a lookup for an action that has none.
#[doc(hidden)]
pub fn no_lookup(action: &str) -> Failure {
    Failure::new(
        Class::Unsupported,
        "lookup",
        format!("action `{action}` cannot be looked up; see `lookup` in the descriptor"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        inner: Vec<u8>,
    }

    #[test]
    fn an_input_error_names_the_place() {
        let failure = parse::<Outer>(r#"{"inner":[1,"x"]}"#).unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput);
        assert!(
            failure
                .message
                .starts_with("input `inner[1]`: invalid type"),
            "{failure}"
        );
    }

    #[test]
    fn the_schema_of_an_empty_input_allows_nothing() {
        let schema = input_schema::<Empty>();
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["additionalProperties"], false);
    }
}
