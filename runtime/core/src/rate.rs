//! How often something may happen: a token bucket.
//!
//! The algorithm is GCRA (ITU-T I.371), which is a token bucket whose whole state is one instant: the
//! one at which the bucket will be full again. So a shell can keep it in one atomic number, and
//! nothing has to refill it.

use std::time::Duration;

/// Most calls in one period, and most at once.
const CALLS_MAX: u32 = 1_000_000;
const PERIOD_MIN: Duration = Duration::from_millis(1);
const PERIOD_MAX: Duration = Duration::from_hours(1);

/// So many calls in each period, spread evenly, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: u32,
    per: Duration,
    burst: u32,
    max_wait: Duration,
}

/// A rate that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key} = {value}`: must be from {min} to {max}")]
pub struct Error {
    /// `calls`, `per` or `burst`.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// The least that makes sense.
    pub min: String,
    /// The most.
    pub max: String,
}

impl Rate {
    /// At most `calls` (1 to a million) in each `per` (1 ms to 1 h), and at most `burst` (1 to a
    /// million) at the same instant. Over any span of time, no more than `burst` calls and one for
    /// each `per / calls` of it.
    ///
    /// # Errors
    /// [`Error`] names what is out of range.
    pub fn new(calls: u32, per: Duration, burst: u32) -> Result<Self, Error> {
        for (key, value) in [("calls", calls), ("burst", burst)] {
            if !(1..=CALLS_MAX).contains(&value) {
                return Err(Error {
                    key,
                    value: value.to_string(),
                    min: "1".to_owned(),
                    max: CALLS_MAX.to_string(),
                });
            }
        }
        if !(PERIOD_MIN..=PERIOD_MAX).contains(&per) {
            return Err(Error {
                key: "per",
                value: format!("{per:?}"),
                min: "1ms".to_owned(),
                max: "1h".to_owned(),
            });
        }
        Ok(Self {
            calls,
            per,
            burst,
            max_wait: Duration::ZERO,
        })
    }

    /// The same for calls that wait so long for their turn, if need be, before they are turned away.
    /// By itself none waits.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// How long a call may wait.
    pub fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Calls in each period.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// The period.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// Calls at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// What one call costs, in nanoseconds; at least 1.
    fn interval_ns(&self) -> u64 {
        (self.per.as_nanos() as u64 / u64::from(self.calls)).max(1)
    }
}

/// The state of one bucket; [`Bucket::default`] is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it will be full again; in the past if it is.
    full_at_ns: u64,
}

impl Bucket {
    /// The state that [`Bucket::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self { full_at_ns: bits }
    }

    /// The state as one number.
    pub fn to_bits(self) -> u64 {
        self.full_at_ns
    }

    /// Whether one can be promised at an instant, told in nanoseconds since any fixed one, beside
    /// others that were promised and are taken later. Each of them can be taken then, whenever that
    /// is: no instant is used twice.
    ///
    /// # Errors
    /// The nanoseconds after which it is worth asking again.
    pub fn promise(self, rate: &Rate, now_ns: u64, promised: u64) -> Result<(), u64> {
        let interval_ns = rate.interval_ns();
        let ahead_ns = self.full_at_ns.saturating_sub(now_ns);
        let ahead_ns = ahead_ns.saturating_add(interval_ns.saturating_mul(promised));
        let ahead_ns_max = interval_ns.saturating_mul(u64::from(rate.burst) - 1);
        match ahead_ns.checked_sub(ahead_ns_max) {
            None | Some(0) => Ok(()),
            Some(wait_ns) => Err(wait_ns),
        }
    }

    /// Takes one, at an instant that is told in nanoseconds since any fixed one.
    ///
    /// # Errors
    /// The nanoseconds after which it is worth asking again; the bucket stays as it is.
    pub fn take(self, rate: &Rate, now_ns: u64) -> Result<Self, u64> {
        self.promise(rate, now_ns, 0)?;
        let full_at_ns = self.full_at_ns.max(now_ns);
        Ok(Self {
            full_at_ns: full_at_ns.saturating_add(rate.interval_ns()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let rate = Rate::new(10, Duration::from_secs(1), 3).unwrap();
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            bucket = bucket.take(&rate, 0).unwrap();
        }
        assert_eq!(bucket.take(&rate, 0), Err(SECOND_NS / 10));
        assert_eq!(bucket.take(&rate, SECOND_NS / 20), Err(SECOND_NS / 20));
        bucket = bucket.take(&rate, SECOND_NS / 10).unwrap();
        assert!(bucket.take(&rate, SECOND_NS / 10).is_err());
        // A long pause fills it, and no further than to the burst.
        for _ in 0..3 {
            bucket = bucket.take(&rate, 3_600 * SECOND_NS).unwrap();
        }
        assert!(bucket.take(&rate, 3_600 * SECOND_NS).is_err());
    }

    #[test]
    fn rates_without_sense_are_refused_by_name() {
        let second = Duration::from_secs(1);
        for (rate, key) in [
            (Rate::new(0, second, 1), "calls"),
            (Rate::new(u32::MAX, second, 1), "calls"),
            (Rate::new(1, second, 0), "burst"),
            (Rate::new(1, Duration::ZERO, 1), "per"),
            (Rate::new(1, Duration::from_hours(2), 1), "per"),
        ] {
            assert_eq!(rate.unwrap_err().key, key);
        }
    }

    #[test]
    fn what_is_promised_can_be_taken_whenever_that_is() {
        let rate = Rate::new(10, Duration::from_secs(1), 2).unwrap();
        let bucket = Bucket::default();
        assert_eq!(bucket.promise(&rate, 0, 1), Ok(()));
        // However long two wait, no third is promised beside them.
        for now_ns in [0, SECOND_NS, 3_600 * SECOND_NS] {
            assert_eq!(bucket.promise(&rate, now_ns, 2), Err(SECOND_NS / 10));
        }
        let bucket = bucket.take(&rate, 7).unwrap().take(&rate, 7).unwrap();
        assert_eq!(bucket.promise(&rate, 7, 0), Err(SECOND_NS / 10));
    }

    proptest! {
        #[test]
        fn over_any_span_no_more_than_burst_and_rate_pass(
            calls in 1..1_000_u32, per_ms in 1..100_000_u64, burst in 1..50_u32,
            gaps in prop::collection::vec(0..2_000_000_000_u64, 1..200),
        ) {
            let rate = Rate::new(calls, Duration::from_millis(per_ms), burst).unwrap();
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0_u64, Vec::new());
            for gap in gaps {
                now += gap;
                if let Ok(next) = bucket.take(&rate, now) {
                    bucket = next;
                    passed.push(now);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / rate.interval_ns();
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_passes(
            calls in 1..1_000_u32, per_ms in 1..100_000_u64, burst in 1..50_u32, tries in 1..100_u32,
        ) {
            let rate = Rate::new(calls, Duration::from_millis(per_ms), burst).unwrap();
            let (mut bucket, mut now) = (Bucket::default(), 7_u64);
            for _ in 0..tries {
                match bucket.take(&rate, now) {
                    Ok(next) => bucket = next,
                    Err(wait_ns) => {
                        prop_assert!(bucket.take(&rate, now + wait_ns - 1).is_err());
                        now += wait_ns;
                        prop_assert!(bucket.take(&rate, now).is_ok());
                    }
                }
            }
        }
    }
}
