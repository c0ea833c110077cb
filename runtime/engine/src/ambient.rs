//! Time and chance: the only place where the engine takes them from.
//!
//! So that a simulation can hold the clock and the dice in its hand, nothing else in this crate
//! reads a clock or draws a number. Waiting is tokio's (`tokio::time`), durations are measured with
//! tokio's `Instant`, and every `select!` is `biased`: tokio would else choose a branch with dice
//! that nobody can hold.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;
use ulid::Ulid;

/// Says what time it is.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// As much later than an instant as tokio's clock has gone on since. With tokio's time paused
    /// it stands still while anything can be done, and then jumps to the next timer: for tests and
    /// simulations.
    Tokio {
        /// What time it was, in milliseconds since the Unix epoch.
        from_ms: u64,
        /// When it was that time.
        since: Instant,
    },
}

impl Clock {
    /// A clock that says `from_ms` at this moment and goes on with tokio's.
    pub fn tokio(from_ms: u64) -> Self {
        let since = Instant::now();
        Self::Tokio { from_ms, since }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                let since = since.unwrap_or_default().as_millis();
                u64::try_from(since).unwrap_or(u64::MAX)
            }
            Self::Tokio { from_ms, since } => {
                let passed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                from_ms.saturating_add(passed)
            }
        }
    }
}

/// Random numbers. Clones draw from one sequence.
#[derive(Debug, Clone)]
pub struct Rng(Arc<Mutex<fastrand::Rng>>);

impl Default for Rng {
    /// Numbers that nobody can foresee well enough to repeat them; not for secrets.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }
}

impl Rng {
    /// The same numbers for the same seed: for tests and simulations.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Any 32-bit number.
    pub fn u32(&self) -> u32 {
        self.0.lock().u32(..)
    }

    fn u128(&self) -> u128 {
        self.0.lock().u128(..)
    }
}

/// Makes ids that sort by the order in which they were made, even when the clock is set back.
#[derive(Debug, Default)]
pub(crate) struct Ids(Mutex<Option<Ulid>>);

impl Ids {
    pub fn next(&self, clock: &Clock, rng: &Rng) -> String {
        let fresh = Ulid::from_parts(clock.now_ms(), rng.u128());
        let mut last = self.0.lock();
        let next = match *last {
            Some(last) if last.timestamp_ms() >= fresh.timestamp_ms() => {
                // Running out takes 2^79 ids within a millisecond.
                last.increment().unwrap_or(fresh)
            }
            _ => fresh,
        };
        *last = Some(next);
        next.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_within_one_millisecond_and_when_the_clock_is_set_back() {
        let (ids, rng) = (Ids::default(), Rng::seeded(7));
        let at = |from_ms| Clock::Tokio {
            from_ms,
            since: Instant::now(),
        };
        let made: Vec<String> = [1_000, 1_000, 500, 2_000]
            .into_iter()
            .map(|ms| ids.next(&at(ms), &rng))
            .collect();
        assert!(made.is_sorted_by(|a, b| a < b), "{made:?}");
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let rng = Rng::seeded(seed);
            let other = rng.clone();
            [rng.u32(), other.u32(), rng.u32()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
