//! What goes in and comes out.

use cofferdam_sdk::prelude::*;
use serde_json::Value;

/// What a call wants, and how it is to fail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// What the answer carries.
    #[serde(default)]
    pub value: Value,
    /// How the call fails; not at all if it is left out.
    pub fail: Option<Fail>,
    /// How long the call takes, in milliseconds.
    #[schemars(range(max = 3_600_000))]
    pub takes_ms: Option<u32>,
}

/// How calls fail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fail {
    /// How many attempts of one task fail, the first ones.
    #[serde(default = "one")]
    pub times: u32,
    /// In which way.
    #[serde(default)]
    pub class: FailClass,
    /// Whether the effect takes place before the call fails: the answer is lost.
    #[serde(default)]
    pub after: bool,
    /// How long to be left alone, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

fn one() -> u32 {
    1
}

/// The classes of failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract explains them")]
pub enum FailClass {
    InvalidInput,
    Unauthenticated,
    Denied,
    NotFound,
    Conflict,
    RateLimited,
    Timeout,
    #[default]
    Unavailable,
    Refused,
    Unsupported,
    Internal,
    Other,
}

impl From<FailClass> for Class {
    fn from(class: FailClass) -> Self {
        match class {
            FailClass::InvalidInput => Self::InvalidInput,
            FailClass::Unauthenticated => Self::Unauthenticated,
            FailClass::Denied => Self::Denied,
            FailClass::NotFound => Self::NotFound,
            FailClass::Conflict => Self::Conflict,
            FailClass::RateLimited => Self::RateLimited,
            FailClass::Timeout => Self::Timeout,
            FailClass::Unavailable => Self::Unavailable,
            FailClass::Refused => Self::Refused,
            FailClass::Unsupported => Self::Unsupported,
            FailClass::Internal => Self::Internal,
            FailClass::Other => Self::Other,
        }
    }
}

impl Fail {
    /// The failure of the attempt with this number, on this connection.
    pub(crate) fn failure(&self, asked: u32, connection: &str) -> Failure {
        let message = format!(
            "`{connection}` fails as it was told ({asked} of {})",
            self.times
        );
        let effect = if self.after {
            EffectState::Unknown
        } else {
            EffectState::None
        };
        let failure = Failure::new(self.class.into(), "practice.told", message).effect(effect);
        match self.retry_after_ms {
            Some(retry_after_ms) => failure.retry_after_ms(retry_after_ms),
            None => failure,
        }
    }
}

/// What came of a call.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// What was asked for.
    pub value: Value,
    /// The call's idempotency key.
    pub key: String,
    /// How often it was asked under this key.
    pub asked: u32,
    /// How often its effect took place under this key.
    pub happened: u32,
}

/// What repeating a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Nothing,
    Once,
    Again,
}

impl Repeat {
    /// How often the effect has taken place after one more call.
    pub(crate) fn happened(self, before: u32) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Once => 1,
            Self::Again => before.saturating_add(1),
        }
    }
}

/// What is to be undone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Undo {
    /// The idempotency key of the call.
    #[schemars(length(min = 1, max = 128))]
    pub key: String,
    /// How the undoing fails; not at all if it is left out.
    pub fail: Option<Fail>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Undone {
    /// Whether something had happened.
    pub was: bool,
}

/// For how long to go down.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoDown {
    /// How many calls and checks fail.
    #[schemars(range(max = 1_000_000))]
    pub calls: u32,
}

/// For how long it goes down.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Down {
    /// How many calls and checks fail.
    pub calls: u32,
}
