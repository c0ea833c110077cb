//! When to try again.
//!
//! Capped backoff with full jitter, as in Marc Brooker, "Exponential Backoff and Jitter" (AWS
//! Architecture Blog, 2015): the delay is drawn evenly from zero to the backoff. Where a
//! language-level policy names a jitter range, that is drawn and added instead.

use serde::{Deserialize, Serialize};

use crate::failure::{Class, Failure};

/// How the time between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Delay before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// How it grows.
    pub growth: Growth,
    /// No delay is longer, in milliseconds.
    pub delay_ms_max: u64,
    /// How it is spread.
    pub jitter: Jitter,
}

/// How a delay grows with the number of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Growth {
    /// It does not.
    Constant,
    /// By the initial delay each time.
    Linear,
    /// By a factor each time.
    Exponential {
        /// At least 1.
        factor: f64,
    },
}

/// How delays are spread, so that clients do not come back all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Jitter {
    /// From zero to the whole delay.
    Full,
    /// The delay and between `from_ms` and `to_ms` more.
    Range {
        /// In milliseconds.
        from_ms: u64,
        /// In milliseconds.
        to_ms: u64,
    },
    /// None.
    None,
}

/// What some failures are retried by instead of what holds for all. A failure that can be retried
/// at all goes by the first rule that fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The classes it is about; all if empty.
    #[serde(default)]
    pub classes: Vec<Class>,
    /// The codes it is about; all if empty.
    #[serde(default)]
    pub codes: Vec<String>,
    /// Attempts on each connection, the first included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// Time between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

impl Rule {
    /// Whether it is about this failure.
    pub fn fits(&self, failure: &Failure) -> bool {
        (self.classes.is_empty() || self.classes.contains(&failure.class))
            && (self.codes.is_empty() || self.codes.contains(&failure.code))
    }
}

/// A delay is never longer than this, whatever a policy says: 24 hours.
pub const DELAY_MS_CEILING: u64 = 24 * 60 * 60 * 1000;

impl Default for Backoff {
    /// 1 s, 2 s, 4 s … at most 60 s, full jitter.
    fn default() -> Self {
        Self {
            initial_ms: 1_000,
            growth: Growth::Exponential { factor: 2.0 },
            delay_ms_max: 60_000,
            jitter: Jitter::Full,
        }
    }
}

impl Backoff {
    /// The delay after the given number of failed attempts (at least 1), in milliseconds.
    /// `draw` is the randomness: any 32-bit number, each as likely as the other.
    pub fn delay_ms(&self, failed: u32, draw: u32) -> u64 {
        let steps = failed.max(1) - 1;
        let base = match self.growth {
            Growth::Constant => self.initial_ms as f64,
            Growth::Linear => self.initial_ms as f64 * (f64::from(steps) + 1.0),
            Growth::Exponential { factor } => {
                self.initial_ms as f64 * factor.max(1.0).powi(steps.min(1_000) as i32)
            }
        };
        let ceiling = self.delay_ms_max.min(DELAY_MS_CEILING);
        let capped = base.min(ceiling as f64) as u64;
        let share = f64::from(draw) / f64::from(u32::MAX);
        match self.jitter {
            Jitter::None => capped,
            Jitter::Full => (capped as f64 * share) as u64,
            Jitter::Range { from_ms, to_ms } => {
                let spread = to_ms.saturating_sub(from_ms) as f64 * share;
                capped
                    .saturating_add(from_ms)
                    .saturating_add(spread as u64)
                    .min(ceiling)
            }
        }
    }

    /// The delay when the other side asked for one: at least what it asked for, still capped.
    pub fn delay_after_ms(&self, failed: u32, draw: u32, retry_after_ms: Option<u32>) -> u64 {
        let asked = u64::from(retry_after_ms.unwrap_or(0)).min(DELAY_MS_CEILING);
        self.delay_ms(failed, draw).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exponential_doubles_up_to_the_cap() {
        let backoff = Backoff {
            jitter: Jitter::None,
            delay_ms_max: 5_000,
            ..Backoff::default()
        };
        let delays: Vec<_> = (1..=5).map(|n| backoff.delay_ms(n, 0)).collect();
        assert_eq!(delays, [1_000, 2_000, 4_000, 5_000, 5_000]);
    }

    #[test]
    fn what_the_other_side_asks_for_is_honoured() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay_after_ms(1, 0, Some(7_000)), 7_000);
    }

    proptest! {
        #[test]
        fn no_delay_is_above_the_cap(
            initial_ms in 0..u64::MAX, factor in 0.0..1e9f64, delay_ms_max in 0..u64::MAX,
            failed in 0..u32::MAX, draw in 0..u32::MAX,
        ) {
            let backoff = Backoff {
                initial_ms, growth: Growth::Exponential { factor }, delay_ms_max, jitter: Jitter::Full,
            };
            prop_assert!(backoff.delay_ms(failed, draw) <= delay_ms_max.min(DELAY_MS_CEILING));
        }
    }
}
