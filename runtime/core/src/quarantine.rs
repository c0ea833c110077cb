//! Crash strikes of one generation of a connection, as a pure machine.
//!
//! A crash (a trap, a limit, output that is none) is a strike; two good calls take one back, so
//! that a plugin that stumbles over one input in fifty stays in service and one that always
//! crashes is out after three calls. A generation that is out is *held*: nothing calls it. After
//! the delay it is on *probation*: the next crash holds it twice as long, some good calls clear it.
//!
//! Permits carry the era that gave them, so that a call that was begun before the generation was
//! held cannot move the state after it.

use serde::{Deserialize, Serialize};

/// When a generation is held, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Held at this many strikes; at least 1.
    pub strikes_max: u32,
    /// How long at first, in milliseconds; doubled each time.
    pub delay_ms: u64,
    /// Never longer, in milliseconds.
    pub delay_ms_max: u64,
    /// Good calls that end probation; at least 1.
    pub good_calls_to_clear: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strikes_max: 3,
            delay_ms: 10_000,
            delay_ms_max: 600_000,
            good_calls_to_clear: 3,
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
    /// In service.
    Clear {
        /// Strikes, in halves: a crash adds two, a good call takes one.
        half_strikes: u32,
    },
    /// Out of service.
    Held {
        /// Until when.
        until_ms: u64,
        /// How often it was held in a row, from 1.
        round: u32,
    },
    /// In service again, to be watched.
    Probation {
        /// How often it was held in a row, from 1.
        round: u32,
        /// Good calls so far.
        good: u32,
    },
}

/// How one call went, as far as the plugin's own health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The plugin answered as it should, with an output or with a failure.
    Good,
    /// The plugin crashed.
    Crash,
    /// It says nothing about the plugin.
    Ignored,
}

/// Leave to make one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    era: u64,
}

/// What asking for leave gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The call may be made.
    Permitted(Permit),
    /// The generation is held for so many milliseconds more, at least 1.
    Held {
        /// See above.
        retry_in_ms: u64,
    },
}

/// What the end of a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that others need to know.
    None,
    /// The generation is held from now on.
    Held,
    /// The generation is in full service again.
    Cleared,
}

/// The strikes of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    config: Config,
    state: State,
    era: u64,
}

/// A strike, in halves.
const STRIKE: u32 = 2;

impl Quarantine {
    /// A generation without strikes.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Clear { half_strikes: 0 },
            era: 0,
        }
    }

    /// Goes on from a state that was kept. One that is held is held for what is left of it, and for
    /// no longer than the configuration says: a clock that was set back shuts nobody out.
    pub fn restore(&mut self, state: State, now_ms: u64) {
        let latest_ms = now_ms.saturating_add(self.config.delay_ms_max);
        self.enter(match state {
            State::Held { until_ms, round } => State::Held {
                until_ms: until_ms.min(latest_ms),
                round: round.max(1),
            },
            State::Clear { .. } | State::Probation { .. } => state,
        });
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Asks for leave to make one call.
    pub fn ask(&mut self, now_ms: u64) -> Answer {
        if let State::Held { until_ms, round } = self.state {
            if now_ms < until_ms {
                let retry_in_ms = until_ms - now_ms;
                return Answer::Held { retry_in_ms };
            }
            self.enter(State::Probation { round, good: 0 });
        }
        Answer::Permitted(Permit { era: self.era })
    }

    /// Takes the end of one call. Results of earlier eras are dropped.
    pub fn ended(&mut self, permit: Permit, verdict: Verdict, now_ms: u64) -> Change {
        if permit.era != self.era {
            return Change::None;
        }
        match (self.state, verdict) {
            (_, Verdict::Ignored) | (State::Held { .. }, _) => Change::None,
            (State::Clear { half_strikes }, Verdict::Good) => {
                let half_strikes = half_strikes.saturating_sub(1);
                self.state = State::Clear { half_strikes };
                Change::None
            }
            (State::Clear { half_strikes }, Verdict::Crash) => {
                let half_strikes = half_strikes + STRIKE;
                if half_strikes >= self.config.strikes_max.saturating_mul(STRIKE) {
                    return self.hold(1, now_ms);
                }
                self.state = State::Clear { half_strikes };
                Change::None
            }
            (State::Probation { round, .. }, Verdict::Crash) => {
                self.hold(round.saturating_add(1), now_ms)
            }
            (State::Probation { round, good }, Verdict::Good) => {
                let good = good + 1;
                if good >= self.config.good_calls_to_clear {
                    self.enter(State::Clear { half_strikes: 0 });
                    return Change::Cleared;
                }
                self.state = State::Probation { round, good };
                Change::None
            }
        }
    }

    fn hold(&mut self, round: u32, now_ms: u64) -> Change {
        let doubled = 1_u64.checked_shl(round - 1).unwrap_or(u64::MAX);
        let delay_ms = self.config.delay_ms.saturating_mul(doubled);
        let until_ms = now_ms.saturating_add(delay_ms.min(self.config.delay_ms_max));
        self.enter(State::Held { until_ms, round });
        Change::Held
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine() -> Quarantine {
        Quarantine::new(Config::default())
    }

    fn call(quarantine: &mut Quarantine, verdict: Verdict, now_ms: u64) -> Option<Change> {
        match quarantine.ask(now_ms) {
            Answer::Permitted(permit) => Some(quarantine.ended(permit, verdict, now_ms)),
            Answer::Held { .. } => None,
        }
    }

    #[test]
    fn three_crashes_in_a_row_hold_a_generation() {
        let mut q = quarantine();
        assert_eq!(call(&mut q, Verdict::Crash, 0), Some(Change::None));
        assert_eq!(call(&mut q, Verdict::Crash, 0), Some(Change::None));
        assert_eq!(call(&mut q, Verdict::Crash, 0), Some(Change::Held));
        assert_eq!(q.ask(4), Answer::Held { retry_in_ms: 9_996 });
    }

    #[test]
    fn one_crash_in_ten_calls_holds_nothing() {
        let mut q = quarantine();
        for n in 0..1_000_u32 {
            let verdict = if n % 10 == 0 {
                Verdict::Crash
            } else {
                Verdict::Good
            };
            assert_eq!(call(&mut q, verdict, 0), Some(Change::None));
        }
    }

    #[test]
    fn every_other_call_crashing_holds_a_generation() {
        let mut q = quarantine();
        let changes = (0..20).map(|n| {
            let verdict = if n % 2 == 0 {
                Verdict::Crash
            } else {
                Verdict::Good
            };
            call(&mut q, verdict, 0)
        });
        assert!(changes.into_iter().any(|c| c == Some(Change::Held)));
    }

    #[test]
    fn each_crash_on_probation_doubles_the_delay_up_to_the_bound() {
        let mut q = quarantine();
        let mut now_ms = 0;
        for _ in 0..3 {
            call(&mut q, Verdict::Crash, now_ms);
        }
        let mut delays_ms = Vec::new();
        for _ in 0..9 {
            let Answer::Held { retry_in_ms } = q.ask(now_ms) else {
                panic!("it has to be held");
            };
            delays_ms.push(retry_in_ms);
            now_ms += retry_in_ms;
            assert_eq!(call(&mut q, Verdict::Crash, now_ms), Some(Change::Held));
        }
        assert_eq!(delays_ms[..3], [10_000, 20_000, 40_000]);
        assert_eq!(delays_ms[8], 600_000);
    }

    #[test]
    fn good_calls_on_probation_clear_it_and_the_delay() {
        let mut q = quarantine();
        for _ in 0..3 {
            call(&mut q, Verdict::Crash, 0);
        }
        assert_eq!(call(&mut q, Verdict::Good, 10_000), Some(Change::None));
        assert_eq!(call(&mut q, Verdict::Good, 10_000), Some(Change::None));
        assert_eq!(call(&mut q, Verdict::Good, 10_000), Some(Change::Cleared));
        assert_eq!(q.state(), State::Clear { half_strikes: 0 });
    }

    #[test]
    fn a_call_from_before_it_was_held_does_not_count_after() {
        let mut q = quarantine();
        let Answer::Permitted(early) = q.ask(0) else {
            panic!("it has to be clear");
        };
        for _ in 0..3 {
            call(&mut q, Verdict::Crash, 0);
        }
        let Answer::Permitted(_) = q.ask(10_000) else {
            panic!("it has to be on probation");
        };
        assert_eq!(q.ended(early, Verdict::Crash, 10_000), Change::None);
        assert_eq!(q.state(), State::Probation { round: 1, good: 0 });
    }

    #[test]
    fn a_generation_that_is_held_is_held_after_a_restart_and_the_time_meanwhile_counts() {
        let mut before = quarantine();
        for _ in 0..3 {
            call(&mut before, Verdict::Crash, 0);
        }
        for (now_ms, expected) in [(4_000, Some(6_000)), (10_000, None)] {
            let mut after = quarantine();
            after.restore(before.state(), now_ms);
            let held = match after.ask(now_ms) {
                Answer::Held { retry_in_ms } => Some(retry_in_ms),
                Answer::Permitted(_) => None,
            };
            assert_eq!(held, expected);
        }
        let mut set_back = quarantine();
        let until_ms = 1_000_000_000;
        set_back.restore(State::Held { until_ms, round: 1 }, 0);
        assert_eq!(
            set_back.ask(0),
            Answer::Held {
                retry_in_ms: 600_000
            }
        );
    }

    #[test]
    fn what_says_nothing_of_the_plugin_changes_nothing() {
        let mut q = quarantine();
        call(&mut q, Verdict::Crash, 0);
        call(&mut q, Verdict::Ignored, 0);
        assert_eq!(q.state(), State::Clear { half_strikes: 2 });
    }
}
