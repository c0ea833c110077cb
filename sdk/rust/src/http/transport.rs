//! Requests that got no answer.

use crate::failure::{Class, EffectState, Failure};

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    /// The operator's allow-list, or the rule against private addresses, forbids it.
    Denied(String),
    /// The host's name could not be resolved.
    Unresolved,
    /// Nothing accepts connections there, or there is no way there.
    Unreachable,
    /// No connection in time.
    ConnectTimeout,
    /// The two sides could not agree on TLS, or the certificate is not valid.
    Tls,
    /// The host would not make another connection.
    Busy,
    /// The request itself was refused by the host: a header, the address, its size.
    InvalidRequest(String),
    /// The connection broke after the request was sent, or what came back was not HTTP.
    Broken(String),
    /// The request was sent and no answer came in time.
    ResponseTimeout,
    /// The answer is larger than the request allows.
    ResponseTooLarge {
        /// The bound, in bytes.
        bytes_max: usize,
    },
}

impl TransportError {
    /// The failure that this is. A `safe` request changes nothing.
    pub(crate) fn into_failure(self, safe: bool, authority: &str) -> Failure {
        let sent = if safe {
            EffectState::None
        } else {
            EffectState::Unknown
        };
        let (class, code, effect, what) = match self {
            Self::Denied(why) => (
                Class::Denied,
                "http.denied",
                EffectState::None,
                format!(
                    "the host denied the request to {authority}: {why}; it must be in the connection's `http` grant"
                ),
            ),
            Self::Unresolved => (
                Class::Unavailable,
                "http.dns",
                EffectState::None,
                format!("the name in {authority} could not be resolved"),
            ),
            Self::Unreachable => (
                Class::Unavailable,
                "http.unreachable",
                EffectState::None,
                format!("{authority} accepts no connection"),
            ),
            Self::ConnectTimeout => (
                Class::Timeout,
                "http.connect-timeout",
                EffectState::None,
                format!("no connection to {authority} in time"),
            ),
            Self::Tls => (
                Class::Unavailable,
                "http.tls",
                EffectState::None,
                format!("no secure connection to {authority}: TLS or the certificate failed"),
            ),
            Self::Busy => (
                Class::Unavailable,
                "http.busy",
                EffectState::None,
                format!("the host has no connection to spare for {authority}"),
            ),
            Self::InvalidRequest(why) => (
                Class::InvalidInput,
                "http.request",
                EffectState::None,
                format!("the request to {authority} cannot be sent: {why}"),
            ),
            Self::Broken(why) => (
                Class::Unavailable,
                "http.broken",
                sent,
                format!("{authority} broke off after the request was sent: {why}"),
            ),
            Self::ResponseTimeout => (
                Class::Timeout,
                "http.timeout",
                sent,
                format!("no answer from {authority} in time"),
            ),
            Self::ResponseTooLarge { bytes_max } => (
                Class::Internal,
                "http.response-too-large",
                sent,
                format!("the answer of {authority} is larger than {bytes_max} bytes"),
            ),
        };
        Failure::new(class, code, what).effect(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_may_have_happened() {
        for (error, class, effect) in [
            (
                TransportError::Denied("x".into()),
                Class::Denied,
                EffectState::None,
            ),
            (
                TransportError::Unresolved,
                Class::Unavailable,
                EffectState::None,
            ),
            (
                TransportError::Unreachable,
                Class::Unavailable,
                EffectState::None,
            ),
            (
                TransportError::ConnectTimeout,
                Class::Timeout,
                EffectState::None,
            ),
            (TransportError::Tls, Class::Unavailable, EffectState::None),
            (TransportError::Busy, Class::Unavailable, EffectState::None),
            (
                TransportError::InvalidRequest("x".into()),
                Class::InvalidInput,
                EffectState::None,
            ),
            (
                TransportError::Broken("x".into()),
                Class::Unavailable,
                EffectState::Unknown,
            ),
            (
                TransportError::ResponseTimeout,
                Class::Timeout,
                EffectState::Unknown,
            ),
            (
                TransportError::ResponseTooLarge { bytes_max: 1 },
                Class::Internal,
                EffectState::Unknown,
            ),
        ] {
            let posted = error.clone().into_failure(false, "h");
            assert_eq!((posted.class, posted.effect), (class, effect), "{error:?}");
            assert_eq!(error.into_failure(true, "h").effect, EffectState::None);
        }
    }
}
