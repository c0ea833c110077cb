//! Cron expressions: five fields, in UTC.
//!
//! The fields and their syntax are those of the standard crontab, with the extensions that
//! [`cronexpr`] documents (`L`, `W`, `#`). A zone is not part of the language, so there is none here:
//! every instant is UTC, and no hour is missing or doubled when clocks are changed.

use jiff::Timestamp;

/// A cron expression.
#[derive(Debug, Clone)]
pub struct Cron {
    source: String,
    tab: cronexpr::Crontab,
}

/// No expression is longer, in bytes.
const SOURCE_BYTES_MAX: usize = 256;

impl Cron {
    /// Reads minute, hour, day of month, month and day of week.
    ///
    /// # Errors
    /// A sentence that says what is wrong, also for an expression that never comes true.
    pub fn parse(source: &str) -> Result<Self, String> {
        let source = source.trim();
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("it has more than {SOURCE_BYTES_MAX} bytes"));
        }
        let fields = source.split_whitespace().count();
        if fields != 5 {
            return Err(format!(
                "it has {fields} fields and needs 5: minute, hour, day of month, month, day of week"
            ));
        }
        // The zone is given, so that a name in the text is one field too many, said above.
        let tab = cronexpr::parse_crontab(&format!("{source} UTC")).map_err(|error| {
            error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })?;
        let cron = Self {
            source: source.to_owned(),
            tab,
        };
        if cron.next_ms(0).is_none() {
            return Err("no such day exists".to_owned());
        }
        Ok(cron)
    }

    /// The first instant after this one, in milliseconds since the Unix epoch; none if there is
    /// none within four years.
    pub fn next_ms(&self, after_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
        let next = self.tab.find_next(after.to_string().as_str()).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, after: &str) -> String {
        let after: Timestamp = after.parse().unwrap();
        let after_ms = u64::try_from(after.as_millisecond()).unwrap();
        let next_ms = Cron::parse(cron).unwrap().next_ms(after_ms).unwrap();
        let next = Timestamp::from_millisecond(i64::try_from(next_ms).unwrap());
        next.unwrap().to_string()
    }

    #[test]
    fn instants_are_utc_and_strictly_later() {
        assert_eq!(
            next("0 0 * * *", "2026-03-29T00:00:00Z"),
            "2026-03-30T00:00:00Z"
        );
        assert_eq!(
            next("*/15 * * * *", "2026-03-29T01:59:59.5Z"),
            "2026-03-29T02:00:00Z"
        );
        assert_eq!(
            next("0 9 * * MON-FRI", "2026-11-20T09:00:00Z"),
            "2026-11-23T09:00:00Z"
        );
        assert_eq!(
            next("0 0 29 2 *", "2025-01-01T00:00:00Z"),
            "2028-02-29T00:00:00Z"
        );
    }

    #[test]
    fn what_is_no_cron_expression_is_refused() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* * 31 2 *",
            "x * * * *",
            "0 0 * * * Europe/Berlin",
            "@daily",
        ] {
            assert!(Cron::parse(bad).is_err(), "{bad}");
        }
        assert!(Cron::parse(&format!("0{} * * * *", ",1".repeat(200))).is_err());
    }
}
