//! CloudEvents 1.0: what may be published, and how it is read.
//!
//! An event is kept as the JSON object that it is in the structured mode of the
//! [specification](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), so that
//! what comes out is what came in. A value is checked once, when it becomes a [`CloudEvent`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::depth;

/// No event is larger, in bytes of JSON: an event tells of something, and large data is referred
/// to.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// No attribute is longer, in bytes, the payload aside: attributes are looked up and indexed.
pub const ATTRIBUTE_BYTES_MAX: usize = 2_048;
/// More attributes no event has.
pub const ATTRIBUTES_MAX: usize = 64;
/// No name of an attribute is longer; the specification asks for at most 20.
const NAME_BYTES_MAX: usize = 64;

/// A checked CloudEvent: it has `specversion` 1.0, `id`, `source` and `type`, and every attribute
/// is of its kind. At most [`EVENT_BYTES_MAX`] long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct CloudEvent(Map<String, Value>);

/// Why something is no event that can be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An attribute is missing or not what it must be.
    #[error("`{attribute}` {problem}; {remedy}")]
    Attribute {
        /// Which.
        attribute: String,
        /// What is wrong with it.
        problem: String,
        /// What to write.
        remedy: &'static str,
    },
    /// It is no object.
    #[error("an event is a JSON object, not {0}; write it in the structured mode of CloudEvents")]
    Kind(&'static str),
    /// It is too large.
    #[error(
        "the event has {bytes} bytes and may have {EVENT_BYTES_MAX}; \
         put the data elsewhere and refer to it"
    )]
    TooLarge {
        /// Bytes of JSON.
        bytes: usize,
    },
    /// It nests too deeply to be kept.
    #[error(
        "the event nests deeper than {} levels; flatten its data",
        depth::DEPTH_MAX
    )]
    TooDeep,
}

impl Invalid {
    fn attribute(name: &str, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self::Attribute {
            attribute: name.chars().take(NAME_BYTES_MAX).collect(),
            problem: problem.into(),
            remedy,
        }
    }
}

impl CloudEvent {
    /// Checks a JSON value. Attributes that are `null` are as good as absent and are left out.
    ///
    /// # Errors
    /// [`Invalid`] names the attribute, what is wrong with it and what to write.
    pub fn new(value: Value) -> Result<Self, Invalid> {
        if !depth::is_fine(&value) {
            return Err(Invalid::TooDeep);
        }
        let bytes = size(&value);
        if bytes > EVENT_BYTES_MAX {
            return Err(Invalid::TooLarge { bytes });
        }
        let mut attributes = match value {
            Value::Object(attributes) => attributes,
            other => return Err(Invalid::Kind(kind_of(&other))),
        };
        attributes.retain(|name, value| !value.is_null() || name == "data");
        check(&attributes)?;
        Ok(Self(attributes))
    }

    /// Identifies the event, together with its source.
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// The context in which it happened: a URI reference.
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// What kind of thing happened.
    pub fn kind(&self) -> &str {
        self.text("type")
    }

    /// What the event is about, in the context of its source; empty if it does not say.
    pub fn subject(&self) -> &str {
        self.text("subject")
    }

    /// An attribute, or the payload under `data`.
    pub fn get(&self, attribute: &str) -> Option<&Value> {
        self.0.get(attribute)
    }

    /// The payload; `null` if there is none. A binary payload is its Base64 text.
    pub fn data(&self) -> &Value {
        let payload = self.0.get("data").or_else(|| self.0.get("data_base64"));
        payload.unwrap_or(&Value::Null)
    }

    /// Attributes and payload as one object.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    fn text(&self, attribute: &str) -> &str {
        self.0.get(attribute).and_then(Value::as_str).unwrap_or("")
    }
}

impl From<CloudEvent> for Value {
    fn from(event: CloudEvent) -> Self {
        Self::Object(event.0)
    }
}

impl TryFrom<Value> for CloudEvent {
    type Error = Invalid;

    fn try_from(value: Value) -> Result<Self, Invalid> {
        Self::new(value)
    }
}

fn check(attributes: &Map<String, Value>) -> Result<(), Invalid> {
    const VERSION: &str = "write \"specversion\": \"1.0\"";
    match attributes.get("specversion") {
        Some(Value::String(version)) if version == "1.0" => {}
        None => return Err(Invalid::attribute("specversion", "is missing", VERSION)),
        Some(_) => return Err(Invalid::attribute("specversion", "is not 1.0", VERSION)),
    }
    for name in ["id", "source", "type"] {
        if !attributes.contains_key(name) {
            let remedy = "every event has an id, a source and a type: add it";
            return Err(Invalid::attribute(name, "is missing", remedy));
        }
    }
    if attributes.len() > ATTRIBUTES_MAX {
        let problem = format!("is one of more than {ATTRIBUTES_MAX} attributes");
        let name = attributes.keys().next_back().map_or("", String::as_str);
        return Err(Invalid::attribute(
            name,
            problem,
            "put what it says into `data`",
        ));
    }
    if attributes.contains_key("data") && attributes.contains_key("data_base64") {
        let remedy = "keep one of the two";
        return Err(Invalid::attribute(
            "data_base64",
            "stands beside `data`",
            remedy,
        ));
    }
    attributes
        .iter()
        .try_for_each(|(name, value)| check_attribute(name, value))
}

fn check_attribute(name: &str, value: &Value) -> Result<(), Invalid> {
    match name {
        "data" => Ok(()),
        "data_base64" => match value {
            Value::String(text) if is_base64(text) => Ok(()),
            _ => Err(Invalid::attribute(
                name,
                "is not Base64 text",
                "encode the bytes",
            )),
        },
        "id" | "type" | "subject" | "specversion" | "datacontenttype" => {
            plain(name, value).map(drop)
        }
        "source" | "dataschema" => {
            let text = plain(name, value)?;
            if text.contains(|c: char| c.is_whitespace() || "<>\"{}|\\^`".contains(c)) {
                let remedy = "write a URI or a relative reference such as /orders";
                return Err(Invalid::attribute(name, "is not a URI", remedy));
            }
            Ok(())
        }
        "time" => {
            let text = plain(name, value)?;
            text.parse::<jiff::Timestamp>().map(drop).map_err(|_| {
                let remedy = "write an instant such as 2026-11-22T10:00:00Z";
                Invalid::attribute(name, "is not an instant of RFC 3339", remedy)
            })
        }
        _ => extension(name, value),
    }
}

/// An attribute that the specification does not define: a short lower-case name, a simple value.
fn extension(name: &str, value: &Value) -> Result<(), Invalid> {
    if !is_name(name) {
        let remedy = "name attributes with lower-case letters and digits only, or use `data`";
        return Err(Invalid::attribute(
            name,
            "cannot be the name of an attribute",
            remedy,
        ));
    }
    match value {
        Value::Bool(_) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
            Ok(())
        }
        Value::String(_) => plain(name, value).map(drop),
        _ => {
            let problem = format!("is {}", kind_of(value));
            let remedy =
                "an attribute is text, a boolean or a 32-bit number; put the rest into `data`";
            Err(Invalid::attribute(name, problem, remedy))
        }
    }
}

/// Whether an attribute of the specification or an extension may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Text that is there, bounded and printable.
fn plain<'v>(name: &str, value: &'v Value) -> Result<&'v str, Invalid> {
    let Value::String(text) = value else {
        let problem = format!("is {}, not text", kind_of(value));
        return Err(Invalid::attribute(name, problem, "put it in quotes"));
    };
    if text.is_empty() {
        return Err(Invalid::attribute(
            name,
            "is empty",
            "write its value, or leave it out",
        ));
    }
    if text.len() > ATTRIBUTE_BYTES_MAX {
        let problem = format!("has more than {ATTRIBUTE_BYTES_MAX} bytes");
        return Err(Invalid::attribute(name, problem, "put it into `data`"));
    }
    if text.contains(char::is_control) {
        let remedy = "remove them, or put the text into `data`";
        return Err(Invalid::attribute(name, "has control characters", remedy));
    }
    Ok(text)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

/// Bytes of the value as JSON, without writing it. Recursion is bounded by [`depth::DEPTH_MAX`].
pub fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| size(v) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(k, v)| k.len() + 4 + size(v))
                .sum::<usize>()
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(change: impl FnOnce(&mut Value)) -> Result<CloudEvent, Invalid> {
        let mut value = json!({
            "specversion": "1.0", "id": "1", "source": "/orders", "type": "order.paid",
            "time": "2026-11-22T10:00:00Z", "tenant": "acme", "data": {"total": 5},
        });
        change(&mut value);
        CloudEvent::new(value)
    }

    #[test]
    fn a_good_event_comes_out_as_it_came_in() {
        let event = event(|_| {}).unwrap();
        assert_eq!(
            (event.id(), event.source(), event.kind()),
            ("1", "/orders", "order.paid")
        );
        assert_eq!(event.data(), &json!({"total": 5}));
        assert_eq!(CloudEvent::new(event.to_value()), Ok(event));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let bad: [(&str, Value); 14] = [
            ("specversion", json!("0.3")),
            ("id", json!("")),
            ("id", json!(7)),
            ("type", json!(null)),
            ("source", json!("not a uri")),
            ("time", json!("yesterday")),
            ("subject", json!("a\u{0}b")),
            ("Tenant", json!("x")),
            ("tenant-id", json!("x")),
            ("tenant", json!({"a": 1})),
            ("tenant", json!(1.5)),
            ("data_base64", json!("AAAA")),
            ("dataschema", json!("a b")),
            ("id", json!("x".repeat(ATTRIBUTE_BYTES_MAX + 1))),
        ];
        for (name, value) in bad {
            let error = event(|e| e[name] = value.clone()).unwrap_err();
            let told = error.to_string();
            assert!(
                told.starts_with(&format!("`{name}` ")) && told.contains("; "),
                "{told}"
            );
        }
    }

    #[test]
    fn an_event_that_is_too_large_or_too_deep_is_refused() {
        let large = event(|e| e["data"] = json!("x".repeat(10 << 20)));
        assert!(matches!(large, Err(Invalid::TooLarge { .. })));
        let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
        assert_eq!(event(|e| e["data"] = deep), Err(Invalid::TooDeep));
        assert!(event(|e| (0..100).for_each(|n| e[format!("a{n}")] = json!(n))).is_err());
        assert!(matches!(
            CloudEvent::new(json!([])),
            Err(Invalid::Kind("a list"))
        ));
    }

    #[test]
    fn a_binary_payload_is_its_base64_text() {
        let event = event(|e| {
            e["data"] = Value::Null;
            e.as_object_mut().unwrap().remove("data");
            e["data_base64"] = json!("AAE=");
        });
        assert_eq!(event.unwrap().data(), &json!("AAE="));
    }
}
