//! The calls that a closed breaker judges by.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Config, Verdict, WindowType};

/// The last calls, or those of the last seconds, with their sums kept beside them, so that a call
/// costs the same however long the window is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    parts: VecDeque<Part>,
    sum: Tally,
}

/// One call, or all calls of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// The second since the epoch; 0 for a single call.
    second: u64,
    #[serde(flatten)]
    tally: Tally,
}

/// How many calls there were, and how many of them failed or were slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that took too long, whether or not they failed.
    pub slow: u64,
}

/// A window as it is kept: its parts, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Saved(Vec<Part>);

impl Tally {
    fn of(verdict: Verdict) -> Self {
        let (failed, slow) = match verdict {
            Verdict::Success | Verdict::Ignored => (0, 0),
            Verdict::Slow => (0, 1),
            Verdict::Failure => (1, 0),
            Verdict::SlowFailure => (1, 1),
        };
        Self {
            calls: 1,
            failed,
            slow,
        }
    }

    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }

    fn take(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }

    /// Whether one of the two rates has come to its threshold; never with fewer calls than the
    /// minimum.
    pub fn trips(&self, config: &Config, calls_min: u64) -> bool {
        if self.calls == 0 || self.calls < calls_min {
            return false;
        }
        let share = |part: u64| part as f64 / self.calls as f64;
        share(self.failed) >= config.failure_rate_threshold_ratio
            || share(self.slow) >= config.slow_call_rate_threshold_ratio
    }
}

impl Window {
    /// What is in it.
    pub fn tally(&self) -> Tally {
        self.sum
    }

    /// Takes the end of one call, and forgets what is too old or too much.
    pub fn record(&mut self, verdict: Verdict, config: &Config, now_ms: u64) {
        let tally = Tally::of(verdict);
        self.sum.add(tally);
        match config.sliding_window_type {
            WindowType::CountBased => {
                self.parts.push_back(Part { second: 0, tally });
                while self.parts.len() > config.sliding_window_size {
                    self.forget_oldest();
                }
            }
            WindowType::TimeBased => {
                // A clock that was set back goes on in the second it had come to.
                let last = self.parts.back().map_or(0, |part| part.second);
                let second = (now_ms / 1_000).max(last);
                match self.parts.back_mut() {
                    Some(part) if part.second == second => part.tally.add(tally),
                    Some(_) | None => self.parts.push_back(Part { second, tally }),
                }
                let size = config.sliding_window_size as u64;
                while self
                    .parts
                    .front()
                    .is_some_and(|part| part.second.saturating_add(size) <= second)
                {
                    self.forget_oldest();
                }
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(part) = self.parts.pop_front() {
            self.sum.take(part.tally);
        }
    }

    /// The window as it is to be kept.
    pub fn save(&self) -> Saved {
        Saved(self.parts.iter().copied().collect())
    }

    /// The window that was kept; an empty one if it was kept under another kind of window.
    pub fn restore(saved: &Saved, config: &Config) -> Self {
        let fits = |part: &Part| match config.sliding_window_type {
            WindowType::CountBased => part.second == 0 && part.tally.calls == 1,
            WindowType::TimeBased => part.second > 0,
        };
        if saved.0.len() > config.sliding_window_size || !saved.0.iter().all(fits) {
            return Self::default();
        }
        let mut window = Self::default();
        for part in &saved.0 {
            window.sum.add(part.tally);
            window.parts.push_back(*part);
        }
        window
    }
}
