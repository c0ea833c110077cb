//! What goes in and out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cofferdam_sdk::prelude::*;
use serde::ser::SerializeMap;

/// A number.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Count {
    /// How many.
    pub count: u32,
}

/// How much to log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    /// How many lines.
    pub lines: u32,
    /// How long each is.
    pub bytes: u32,
}

/// How much to return.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// How many bytes.
    pub bytes: u32,
}

/// A long text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Big {
    /// The text.
    pub text: String,
}

/// How long to wait.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nap {
    /// How many milliseconds.
    pub ms: u32,
}

/// What to request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The address.
    pub url: String,
    /// `GET` unless told otherwise.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers to send.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A body to send.
    #[serde(default)]
    pub body: Option<String>,
}

/// What to panic with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The message.
    pub message: String,
}

/// Whom to hold up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Linger {
    /// `host:port`, without encryption.
    pub authority: String,
    /// Whether the request never ends; else the answer is read to its end.
    pub upload: bool,
}

/// What came back.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// What to request how often.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// The address.
    pub url: String,
    /// How often.
    pub n: u32,
}

/// Which secret to misuse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// The secret's name.
    pub name: String,
    /// Where to send it, as a bearer token.
    #[serde(default)]
    pub url: Option<String>,
}

/// What the connector saw of a secret.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SecretSeen {
    /// What the host gave.
    pub placeholder: String,
    /// What the server answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// How to fail.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fail {
    /// The class, as in the contract.
    #[schemars(with = "String")]
    pub class: Class,
    /// The code.
    pub code: String,
    /// The message.
    #[serde(default = "on_purpose")]
    pub message: String,
    /// What is left behind: `none`, `unknown` or `applied`.
    #[serde(default = "none")]
    #[schemars(with = "String", default = "none_word")]
    pub effect: EffectState,
    /// How long to be left alone.
    #[serde(default)]
    pub retry_after_ms: Option<u32>,
    /// More for a machine.
    #[serde(default)]
    pub details: Value,
}

fn on_purpose() -> String {
    "failed on purpose".to_owned()
}

fn none() -> EffectState {
    EffectState::None
}

fn none_word() -> String {
    "none".to_owned()
}

/// What to keep.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remember {
    /// Under which key.
    pub key: String,
    /// Which value.
    pub value: String,
}

/// What was kept before.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Remembered {
    /// The value before; null if there was none.
    pub before: Option<String>,
}

/// What the host told of a call.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShownCall {
    /// The connection's name.
    pub connection: String,
    /// The idempotency key.
    pub idempotency_key: String,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The time left.
    pub deadline_ms: u32,
    /// The tenant.
    pub tenant: String,
    /// The trace.
    pub traceparent: String,
    /// What later versions add.
    pub ext: String,
}

/// Says that it is a [`Count`] and is written with a text instead of the number.
#[derive(Debug)]
pub struct Lie;

impl Serialize for Lie {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("count", "many")?;
        map.end()
    }
}

impl JsonSchema for Lie {
    fn schema_name() -> Cow<'static, str> {
        Count::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Count::json_schema(generator)
    }
}
