//! Whether a connection is well, by what its probes say, as a pure machine.
//!
//! A probe asks the plugin's `check`, beside the calls and not instead of one: who is unhealthy is
//! left out before a request is wasted on it. Some bad probes in a row make a connection unhealthy,
//! some good ones in a row healthy again, so that one lost packet moves nothing; a probe that
//! answers too slowly is a bad one. This is the active health check of Envoy and `HAProxy`
//! (`rise` and `fall`), with their hysteresis.

use serde::{Deserialize, Serialize};

/// When and how a connection is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// Time between two probes, in milliseconds, a tenth more or less; at least 1.
    pub interval_ms: u64,
    /// A probe that takes longer is bad, in milliseconds; at least 1.
    pub timeout_ms: u64,
    /// Bad probes in a row that make it unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// Good probes in a row that make it healthy again; at least 1.
    pub healthy_threshold: u32,
    /// A good answer that takes longer is a bad probe all the same, in milliseconds.
    pub slow_ms: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            timeout_ms: 5_000,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            slow_ms: None,
        }
    }
}

/// The state. Times are milliseconds of the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum State {
    /// Nothing good was heard of it yet; calls go to it.
    Unknown {
        /// Bad probes in a row.
        bad: u32,
    },
    /// It is well.
    Healthy {
        /// Bad probes in a row.
        bad: u32,
    },
    /// It is not; no call goes to it.
    Unhealthy {
        /// Good probes in a row.
        good: u32,
        /// Since when.
        since_ms: u64,
    },
}

/// How one probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered, and in time.
    Good,
    /// It was not, or too slowly, or with the answer that something is wrong.
    Bad,
    /// It was never made: the host itself had no room for it.
    Ignored,
}

/// What a probe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that others need to know.
    None,
    /// It is unhealthy from now on.
    Unhealthy,
    /// It is healthy from now on.
    Healthy,
}

impl Default for State {
    fn default() -> Self {
        Self::Unknown { bad: 0 }
    }
}

/// A probe of something that was due long ago comes within this time, and not all at once.
const SPREAD_MS: u64 = 1_000;

impl Config {
    /// How a probe that took so long is counted.
    pub fn judge(&self, is_good: bool, took_ms: u64) -> Verdict {
        let slow_ms = self.slow_ms.unwrap_or(u64::MAX).min(self.timeout_ms);
        if is_good && took_ms <= slow_ms {
            Verdict::Good
        } else {
            Verdict::Bad
        }
    }

    /// When the next probe is due after one at `now_ms`: an interval later, a tenth more or less by
    /// the draw (any 32-bit number), so that connections that began together drift apart.
    pub fn next_ms(&self, now_ms: u64, draw: u32) -> u64 {
        let tenth_ms = self.interval_ms / 10;
        let wait_ms = self.interval_ms - tenth_ms + scaled(2 * tenth_ms, draw);
        now_ms.saturating_add(wait_ms.max(1))
    }

    /// When the first probe is due after a start, the last one having been at `probed_ms` if ever.
    pub fn first_ms(&self, probed_ms: Option<u64>, now_ms: u64, draw: u32) -> u64 {
        // A clock that was set back makes nobody wait for longer than an interval.
        let due_ms = probed_ms.map_or(0, |at| at.min(now_ms).saturating_add(self.interval_ms));
        due_ms.max(now_ms.saturating_add(scaled(self.interval_ms.min(SPREAD_MS), draw)))
    }
}

/// From 0 to `most`, evenly by the draw.
fn scaled(most: u64, draw: u32) -> u64 {
    ((u128::from(most) * u128::from(draw)) >> 32) as u64
}

impl State {
    /// Whether calls may go to it.
    pub fn is_in_service(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Healthy { .. } => true,
            Self::Unhealthy { .. } => false,
        }
    }

    /// The word used in lists.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown",
            Self::Healthy { .. } => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }

    /// Takes the end of one probe.
    pub fn step(self, verdict: Verdict, config: &Config, now_ms: u64) -> (Self, Change) {
        match (self, verdict) {
            (
                Self::Unknown { .. } | Self::Healthy { .. } | Self::Unhealthy { .. },
                Verdict::Ignored,
            ) => (self, Change::None),
            (Self::Unknown { .. }, Verdict::Good) => (Self::Healthy { bad: 0 }, Change::Healthy),
            (Self::Healthy { .. }, Verdict::Good) => (Self::Healthy { bad: 0 }, Change::None),
            (Self::Unknown { bad }, Verdict::Bad) => {
                worse(bad, |bad| Self::Unknown { bad }, config, now_ms)
            }
            (Self::Healthy { bad }, Verdict::Bad) => {
                worse(bad, |bad| Self::Healthy { bad }, config, now_ms)
            }
            (Self::Unhealthy { since_ms, .. }, Verdict::Bad) => {
                (Self::Unhealthy { good: 0, since_ms }, Change::None)
            }
            (Self::Unhealthy { good, since_ms }, Verdict::Good) => {
                let good = good.saturating_add(1);
                if good >= config.healthy_threshold {
                    (Self::Healthy { bad: 0 }, Change::Healthy)
                } else {
                    (Self::Unhealthy { good, since_ms }, Change::None)
                }
            }
        }
    }
}

fn worse(
    bad: u32,
    stays: impl FnOnce(u32) -> State,
    config: &Config,
    now_ms: u64,
) -> (State, Change) {
    let bad = bad.saturating_add(1);
    if bad >= config.unhealthy_threshold {
        let since_ms = now_ms;
        (State::Unhealthy { good: 0, since_ms }, Change::Unhealthy)
    } else {
        (stays(bad), Change::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> Config {
        Config::default()
    }

    fn after(verdicts: &[Verdict]) -> State {
        verdicts.iter().fold(State::default(), |state, verdict| {
            state.step(*verdict, &config(), 7).0
        })
    }

    #[test]
    fn every_pair_of_state_and_verdict_leads_where_it_is_written() {
        use Verdict::{Bad, Good, Ignored};
        let (unknown, healthy) = (State::Unknown { bad: 2 }, State::Healthy { bad: 2 });
        let unhealthy = |good| State::Unhealthy { good, since_ms: 3 };
        let fresh = State::Unhealthy {
            good: 0,
            since_ms: 7,
        };
        let well = State::Healthy { bad: 0 };
        for (state, verdict, expected, change) in [
            (
                State::Unknown { bad: 0 },
                Bad,
                State::Unknown { bad: 1 },
                Change::None,
            ),
            (unknown, Bad, fresh, Change::Unhealthy),
            (unknown, Good, well, Change::Healthy),
            (unknown, Ignored, unknown, Change::None),
            (State::Healthy { bad: 1 }, Bad, healthy, Change::None),
            (healthy, Bad, fresh, Change::Unhealthy),
            (healthy, Good, well, Change::None),
            (healthy, Ignored, healthy, Change::None),
            (unhealthy(1), Bad, unhealthy(0), Change::None),
            (unhealthy(0), Good, unhealthy(1), Change::None),
            (unhealthy(1), Good, well, Change::Healthy),
            (unhealthy(1), Ignored, unhealthy(1), Change::None),
        ] {
            let stepped = state.step(verdict, &config(), 7);
            assert_eq!(stepped, (expected, change), "{state:?} and {verdict:?}");
        }
    }

    #[test]
    fn one_bad_probe_between_good_ones_moves_nothing() {
        use Verdict::{Bad, Good};
        let state = after(&[Good, Bad, Bad, Good, Bad, Bad]);
        assert_eq!(state, State::Healthy { bad: 2 });
        assert!(state.is_in_service());
        assert!(!after(&[Good, Bad, Bad, Bad]).is_in_service());
    }

    #[test]
    fn slow_is_unhealthy() {
        let config = Config {
            slow_ms: Some(100),
            ..config()
        };
        assert_eq!(config.judge(true, 100), Verdict::Good);
        assert_eq!(config.judge(true, 101), Verdict::Bad);
        assert_eq!(config.judge(false, 1), Verdict::Bad);
        assert_eq!(Config::default().judge(true, 5_001), Verdict::Bad);
    }

    #[test]
    fn what_is_saved_comes_back() {
        for state in [
            State::Unknown { bad: 1 },
            State::Healthy { bad: 2 },
            State::Unhealthy {
                good: 1,
                since_ms: 9,
            },
        ] {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }

    proptest! {
        #[test]
        fn probes_are_spread_and_never_further_apart_than_a_tenth_more(
            interval_ms in 1..100_000_000_u64, now_ms in 0..1_u64 << 50, draw: u32, ago_ms in 0..1_u64 << 40,
        ) {
            let config = Config { interval_ms, ..config() };
            let wait_ms = config.next_ms(now_ms, draw) - now_ms;
            prop_assert!(wait_ms >= (interval_ms - interval_ms / 10).max(1));
            prop_assert!(wait_ms <= interval_ms + interval_ms / 10);
            for probed in [None, Some(now_ms.saturating_sub(ago_ms)), Some(now_ms + ago_ms)] {
                let first_ms = config.first_ms(probed, now_ms, draw);
                prop_assert!(first_ms >= now_ms && first_ms - now_ms <= interval_ms);
            }
        }
    }
}
