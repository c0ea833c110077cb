//! A value that is there although it is null.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads an optional value for which `null` is a value: only where there is nothing is there none.
/// To be used with `default`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}
