//! From an HTTP status to a failure.

use std::time::{Duration, SystemTime};

use crate::failure::{Class, EffectState};

/// The class that a status without success stands for.
pub(super) fn class(status: u16) -> Class {
    match status {
        400 | 405 | 406 | 411 | 413..=417 | 422 | 431 => Class::InvalidInput,
        401 | 407 => Class::Unauthenticated,
        402 => Class::Refused,
        403 | 451 => Class::Denied,
        404 | 410 => Class::NotFound,
        408 => Class::Timeout,
        409 | 412 | 423 | 424 | 428 => Class::Conflict,
        425 | 429 => Class::RateLimited,
        501 => Class::Unsupported,
        500..=599 => Class::Unavailable,
        _ => Class::Other,
    }
}

/// What a request that was answered with this status left behind.
pub(super) fn effect(safe: bool, status: u16) -> EffectState {
    if safe || (400..500).contains(&status) || status == 501 {
        EffectState::None
    } else {
        EffectState::Unknown
    }
}

/// The wait that a `Retry-After` asks for, in milliseconds: a number of seconds or an HTTP
/// date (RFC 9110, 10.2.3). Waits longer than `u32` can say are cut to the longest.
pub(super) fn retry_after_ms(value: &str, now: SystemTime) -> Option<u32> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .unwrap_or_default()
    };
    Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_classes_of_the_table() {
        for (status, expected) in [
            (302, Class::Other),
            (400, Class::InvalidInput),
            (401, Class::Unauthenticated),
            (402, Class::Refused),
            (403, Class::Denied),
            (404, Class::NotFound),
            (408, Class::Timeout),
            (409, Class::Conflict),
            (410, Class::NotFound),
            (412, Class::Conflict),
            (418, Class::Other),
            (422, Class::InvalidInput),
            (425, Class::RateLimited),
            (429, Class::RateLimited),
            (500, Class::Unavailable),
            (501, Class::Unsupported),
            (503, Class::Unavailable),
            (599, Class::Unavailable),
        ] {
            assert_eq!(class(status), expected, "{status}");
        }
    }

    #[test]
    fn a_server_error_leaves_an_unknown_effect_only_behind_a_write() {
        assert_eq!(effect(false, 500), EffectState::Unknown);
        assert_eq!(effect(true, 500), EffectState::None);
        assert_eq!(effect(false, 404), EffectState::None);
        assert_eq!(effect(false, 303), EffectState::Unknown);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after_ms("7", now), Some(7_000));
        assert_eq!(
            retry_after_ms("Sun, 06 Nov 1994 08:49:47 GMT", now),
            Some(10_000)
        );
        assert_eq!(
            retry_after_ms("Sun, 06 Nov 1994 08:49:07 GMT", now),
            Some(0)
        );
        assert_eq!(retry_after_ms("99999999999", now), Some(u32::MAX));
        assert_eq!(retry_after_ms("soon", now), None);
    }
}
