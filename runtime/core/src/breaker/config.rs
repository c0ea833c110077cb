//! What makes a breaker open and close.

use serde::{Deserialize, Serialize};

/// The parameters of resilience4j's `CircuitBreakerConfig`, by its names; durations end in `_ms`
/// and shares in `_ratio` (0..=1 instead of percent). Which calls count as failures is decided by
/// their class, so that there are no lists of exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Opens at this share of failures, above 0 and at most 1.
    pub failure_rate_threshold_ratio: f64,
    /// Opens at this share of slow calls, above 0 and at most 1.
    pub slow_call_rate_threshold_ratio: f64,
    /// A call that takes longer is slow, in milliseconds.
    pub slow_call_duration_ms: u64,
    /// Whether the last calls count, or those of the last seconds.
    pub sliding_window_type: WindowType,
    /// How many of the last calls count, 1 to 10 000; or of how many seconds, 1 to 3 600.
    pub sliding_window_size: usize,
    /// No rate is taken from fewer calls than these; with a window of calls at most its size.
    pub minimum_number_of_calls: usize,
    /// How long it stays Open before it lets a probe through, in milliseconds.
    pub wait_duration_in_open_state_ms: u64,
    /// Whether it becomes `HalfOpen` when that time is over, and not only with the next call.
    pub automatic_transition_from_open_to_half_open_enabled: bool,
    /// How many calls `HalfOpen` permits; it closes when all of them ended well.
    pub permitted_number_of_calls_in_half_open_state: u32,
    /// `HalfOpen` that has not decided after so many milliseconds opens again; 0: it has time.
    pub max_wait_duration_in_half_open_state_ms: u64,
}

/// What the window of a breaker is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowType {
    /// The last calls, whenever they were.
    CountBased,
    /// All calls of the last seconds.
    TimeBased,
}

/// Longest window of calls: each is remembered.
pub const WINDOW_CALLS_MAX: usize = 10_000;
/// Longest window of time: each second is remembered.
pub const WINDOW_SECONDS_MAX: usize = 3_600;

impl Default for Config {
    fn default() -> Self {
        Self {
            failure_rate_threshold_ratio: 0.5,
            slow_call_rate_threshold_ratio: 1.0,
            slow_call_duration_ms: 20_000,
            sliding_window_type: WindowType::CountBased,
            sliding_window_size: 20,
            minimum_number_of_calls: 5,
            wait_duration_in_open_state_ms: 5_000,
            automatic_transition_from_open_to_half_open_enabled: false,
            permitted_number_of_calls_in_half_open_state: 3,
            max_wait_duration_in_half_open_state_ms: 0,
        }
    }
}

/// A configuration that cannot work: the key, its value, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("breaker.{key} = {found}: it must be {must}")]
pub struct BadConfig {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What its value must be.
    pub must: String,
}

impl Config {
    /// Refuses values with which the breaker could never open, never close, or never decide.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), BadConfig> {
        const RATIO: &str = "above 0 and at most 1";
        let ratio = |r: f64| r > 0.0 && r <= 1.0;
        let (size, calls) = (self.sliding_window_size, self.minimum_number_of_calls);
        let (size_max, unit, calls_max, why) = match self.sliding_window_type {
            WindowType::CountBased => (WINDOW_CALLS_MAX, "calls", size, " (sliding-window-size)"),
            WindowType::TimeBased => (WINDOW_SECONDS_MAX, "seconds", WINDOW_CALLS_MAX, ""),
        };
        let rules = [
            (
                ratio(self.failure_rate_threshold_ratio),
                "failure-rate-threshold-ratio",
                self.failure_rate_threshold_ratio.to_string(),
                RATIO.to_owned(),
            ),
            (
                ratio(self.slow_call_rate_threshold_ratio),
                "slow-call-rate-threshold-ratio",
                self.slow_call_rate_threshold_ratio.to_string(),
                RATIO.to_owned(),
            ),
            (
                (1..=size_max).contains(&size),
                "sliding-window-size",
                size.to_string(),
                format!("from 1 to {size_max} {unit}"),
            ),
            (
                (1..=calls_max).contains(&calls),
                "minimum-number-of-calls",
                calls.to_string(),
                format!("from 1 to {calls_max}{why}"),
            ),
            (
                self.permitted_number_of_calls_in_half_open_state > 0,
                "permitted-number-of-calls-in-half-open-state",
                self.permitted_number_of_calls_in_half_open_state
                    .to_string(),
                "at least 1".to_owned(),
            ),
        ];
        match rules.into_iter().find(|(fine, ..)| !fine) {
            Some((_, key, found, must)) => Err(BadConfig { key, found, must }),
            None => Ok(()),
        }
    }
}
