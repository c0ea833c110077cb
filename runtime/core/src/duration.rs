//! Durations as workflows write them: ISO 8601 text (`PT1M30S`) or an object of units.

use jiff::{Span, SpanRelativeTo, Unit};
use serde_json::Value;

/// Something that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{written} is not a duration: write ISO 8601 such as `PT1M30S`, or an object of days, hours, minutes, seconds, milliseconds"
)]
pub struct Error {
    written: String,
}

const UNITS_MS: [(&str, u64); 5] = [
    ("days", 86_400_000),
    ("hours", 3_600_000),
    ("minutes", 60_000),
    ("seconds", 1_000),
    ("milliseconds", 1),
];

/// The duration in milliseconds. A day has 24 hours; months and years have no fixed length and
/// are refused, and so is everything negative.
///
/// # Errors
/// [`Error`] quotes what was written.
pub fn parse(value: &Value) -> Result<u64, Error> {
    let parsed = match value {
        Value::String(text) => parse_text(text),
        Value::Object(units) if !units.is_empty() => {
            units.iter().try_fold(0_u64, |sum, (unit, count)| {
                let (_, ms) = UNITS_MS.iter().find(|(name, _)| name == unit)?;
                sum.checked_add(count.as_u64()?.checked_mul(*ms)?)
            })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    };
    parsed.ok_or_else(|| Error {
        written: value.to_string(),
    })
}

fn parse_text(text: &str) -> Option<u64> {
    if !text.starts_with('P') {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let ms = span
        .total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours()))
        .ok()?;
    (ms >= 0.0).then_some(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_ways_of_writing_give_the_same() {
        assert_eq!(parse(&json!("P1DT1M30.5S")), Ok(86_490_500));
        assert_eq!(
            parse(&json!({"days": 1, "minutes": 1, "seconds": 30, "milliseconds": 500})),
            Ok(86_490_500)
        );
    }

    #[test]
    fn what_is_no_duration_is_quoted() {
        for bad in [
            json!("1 hour"),
            json!("P1M"),
            json!("-PT1S"),
            json!({"weeks": 1}),
            json!({}),
            json!(5),
        ] {
            assert!(
                parse(&bad)
                    .unwrap_err()
                    .to_string()
                    .contains(&bad.to_string()),
                "{bad}"
            );
        }
    }
}
