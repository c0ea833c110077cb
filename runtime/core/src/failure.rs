//! The one shape that every failed call has, whoever failed.
//!
//! Retry, breaker, failover and exit codes consult [`Failure::class`] and [`Failure::effect`],
//! never the text.

use serde::{Deserialize, Serialize};

/// What kind of failure this is; mirrors `failure-class` of the WIT contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The input can never work.
    InvalidInput,
    /// The credentials were not accepted.
    Unauthenticated,
    /// Not allowed, by the other system or by the host.
    Denied,
    /// What the input names does not exist.
    NotFound,
    /// The state of the other system forbids this.
    Conflict,
    /// Too many requests.
    RateLimited,
    /// No answer in time.
    Timeout,
    /// The other system cannot be reached or is not well.
    Unavailable,
    /// The other side understood and will not.
    Refused,
    /// The connector or the system cannot do that.
    Unsupported,
    /// A defect of the connector: a trap, an exceeded limit, an answer nobody understands.
    Internal,
    /// None of the above.
    Other,
}

impl Class {
    /// Every class, in the order of the WIT contract.
    pub const ALL: [Self; 12] = [
        Self::InvalidInput,
        Self::Unauthenticated,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimited,
        Self::Timeout,
        Self::Unavailable,
        Self::Refused,
        Self::Unsupported,
        Self::Internal,
        Self::Other,
    ];

    /// The name used in the WIT contract, in JSON and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid-input",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate-limited",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }

    /// Whether the same call may work later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Timeout | Self::Unavailable)
    }

    /// Whether the failure says something about the health of the connection, as opposed to
    /// this one call. Breakers count these.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Unavailable | Self::Internal | Self::Unauthenticated
        )
    }

    /// The HTTP status that an Open Workflow error object carries for this class.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidInput => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::RateLimited => 429,
            Self::Timeout => 408,
            Self::Unavailable => 503,
            Self::Refused => 422,
            Self::Unsupported => 501,
            Self::Internal | Self::Other => 500,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a failed call changed anything on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectState {
    /// Certainly nothing happened.
    None,
    /// It may have happened.
    Unknown,
    /// It happened.
    Applied,
}

/// The code of a failure that says that the host had no room for the call.
pub const BUSY: &str = "busy";

/// A failed call, from a connector or from the host on its behalf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{class}{}{}", said(": ", message, ""), said(" (", code, ")"))]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// A stable word: `card_declined`, `limit.cpu`, `plugin.trap`.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// How long the other side asks to be left alone, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// What the call left behind.
    pub effect: EffectState,
    /// More for a machine; `null` for nothing.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

/// A part of a sentence; nothing if there is nothing to say. A connector may leave out what it likes.
fn said(before: &str, text: &str, after: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("{before}{text}{after}"),
    }
}

impl Failure {
    /// A failure that certainly left nothing behind.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.into(),
            message: message.into(),
            retry_after_ms: None,
            effect: EffectState::None,
            details: serde_json::Value::Null,
        }
    }

    /// The same failure with another statement about what it left behind.
    pub fn with_effect(mut self, effect: EffectState) -> Self {
        self.effect = effect;
        self
    }

    /// Whether the plugin crashed: a trap, an exceeded limit of a call, a panic of the host on its
    /// behalf. A guest that tells such a failure of itself is taken at its word.
    pub fn is_crash(&self) -> bool {
        self.class == Class::Internal
            && (matches!(self.code.as_str(), "plugin.trap" | "host.panic")
                || self.code.starts_with("limit."))
    }

    /// Whether the host had no room for the call: nothing was sent, and nothing is known of the
    /// connection.
    pub fn is_busy(&self) -> bool {
        self.class == Class::Unavailable && self.code == BUSY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_does_not_say_leaves_no_hole_in_its_message() {
        let told =
            |code: &str, message: &str| Failure::new(Class::Timeout, code, message).to_string();
        assert_eq!(told("late", "it was late"), "timeout: it was late (late)");
        assert_eq!(told("", "it was late"), "timeout: it was late");
        assert_eq!(told("late", ""), "timeout (late)");
        assert_eq!(told("", ""), "timeout");
    }

    #[test]
    fn every_class_has_the_same_name_in_json_and_in_messages() {
        for class in Class::ALL {
            let json = serde_json::to_value(class).unwrap();
            assert_eq!(json, class.as_str());
        }
    }
}
