//! What went wrong, told so that the runtime can act on it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What kind of failure this is. The runtime decides by this alone whether to retry, fail
/// over, park or give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The input can never work. Not retried.
    InvalidInput,
    /// The credentials were not accepted. Not retried.
    Unauthenticated,
    /// The credentials are fine and do not allow this. Not retried.
    Denied,
    /// What the input names does not exist. Not retried.
    NotFound,
    /// The state of the other system forbids this now (duplicate, wrong version). Not retried.
    Conflict,
    /// Too many requests. Retried later.
    RateLimited,
    /// No answer in time. Retried if the effect allows it.
    Timeout,
    /// The other system cannot be reached or is not well. Retried, and counted by the
    /// connection's breaker.
    Unavailable,
    /// The other side understood and will not (a declined card, a policy). Not retried.
    Refused,
    /// This connector or this system cannot do that. Not retried.
    Unsupported,
    /// A defect in the connector, or an answer that it cannot understand. Not retried.
    Internal,
    /// None of the above. Not retried.
    Other,
}

/// Whether a failed call changed anything on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectState {
    /// Certainly nothing happened.
    None,
    /// It may have happened.
    Unknown,
    /// It happened, and something failed afterwards.
    Applied,
}

/// A failed call: class, code, message and what it left behind.
///
/// A failure says `effect: none` unless it is told otherwise, so set [`Failure::effect`] on
/// every failure that can follow a request which changes something. What [`crate::http`]
/// returns has it set already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// A stable word of the connector's or the vendor's own: `card_declined`. At most 128 bytes.
    pub code: String,
    /// One sentence for a person: what failed and what would help. No secrets. At most 4 KiB.
    pub message: String,
    /// How long the other side asks to be left alone, in milliseconds.
    #[serde(default)]
    pub retry_after_ms: Option<u32>,
    /// What the failed call left behind.
    pub effect: EffectState,
    /// More for a machine. At most 64 KiB as text. Boxed to keep results small.
    #[serde(default)]
    pub details: Option<Box<Value>>,
}

/// The contract's bound on a code, in bytes.
const CODE_BYTES_MAX: usize = 128;
/// The contract's bound on a message, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The contract's bound on details, in bytes of JSON text.
const DETAILS_BYTES_MAX: usize = 64 * 1024;

impl Failure {
    /// A failure that certainly left nothing behind. Code and message are cut to the contract's
    /// bounds (128 bytes, 4 KiB).
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code: bounded(code.into(), CODE_BYTES_MAX),
            message: bounded(message.into(), MESSAGE_BYTES_MAX),
            retry_after_ms: None,
            effect: EffectState::None,
            details: None,
        }
    }

    /// A failure of class [`Class::InvalidInput`].
    pub fn invalid_input(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Class::InvalidInput, code, message)
    }

    /// A failure of class [`Class::NotFound`].
    pub fn not_found(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Class::NotFound, code, message)
    }

    /// A failure of class [`Class::Internal`].
    pub fn internal(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Class::Internal, code, message)
    }

    /// The same failure of another class.
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The same failure with another code and message, for a vendor's own words.
    pub fn reworded(self, code: impl Into<String>, message: impl Into<String>) -> Self {
        let words = Self::new(self.class, code, message);
        Self {
            code: words.code,
            message: words.message,
            ..self
        }
    }

    /// The same failure with another statement about what it left behind.
    pub fn effect(mut self, effect: EffectState) -> Self {
        self.effect = effect;
        self
    }

    /// The same failure with the time that the other side asks to be left alone.
    pub fn retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// The same failure with details for a machine. Details of more than 64 KiB of JSON are
    /// left out.
    pub fn details(mut self, details: Value) -> Self {
        if details.to_string().len() <= DETAILS_BYTES_MAX {
            self.details = Some(Box::new(details)).filter(|details| !details.is_null());
        }
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {} ({})", self.class, self.message, self.code)
    }
}

impl std::error::Error for Failure {}

/// Cuts text to at most `bytes_max` bytes, at a character's boundary.
pub(crate) fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_to_the_bounds_of_the_contract() {
        let failure = Failure::internal("c".repeat(500), "ä".repeat(5_000))
            .details(Value::String("d".repeat(70_000)));
        assert_eq!(failure.code.len(), 128);
        assert_eq!(failure.message.len(), 4096);
        assert_eq!(failure.details, None);
    }

    #[test]
    fn classes_are_written_as_in_the_contract() {
        let json = serde_json::to_value(Failure::invalid_input("a", "b")).unwrap();
        assert_eq!(json["class"], "invalid-input");
        assert_eq!(json["effect"], "none");
    }
}
