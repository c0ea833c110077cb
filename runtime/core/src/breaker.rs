//! The circuit breaker of one connection, as a pure machine.
//!
//! Parameters and state names are those of resilience4j's `CircuitBreaker`: a count-based sliding
//! window, a failure-rate and a slow-call-rate threshold, a wait in Open, a number of permitted
//! calls in HalfOpen. Permits carry the generation of the state that gave them, so that the
//! result of a call begun before a transition cannot move the state after it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What makes the breaker open and close.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Opens at this share of failures, above 0 and at most 1.
    pub failure_rate_threshold_ratio: f64,
    /// Opens at this share of slow calls, above 0 and at most 1.
    pub slow_call_rate_threshold_ratio: f64,
    /// A call that takes longer is slow, in milliseconds.
    pub slow_call_duration_ms: u64,
    /// How many of the last calls count; 1 to 10 000.
    pub sliding_window_size: usize,
    /// No rate is taken from fewer calls than these; at most the window.
    pub minimum_number_of_calls: usize,
    /// How long it stays Open before it lets a probe through, in milliseconds.
    pub wait_duration_in_open_state_ms: u64,
    /// How many calls HalfOpen permits; all must succeed before it closes.
    pub permitted_number_of_calls_in_half_open_state: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failure_rate_threshold_ratio: 0.5,
            slow_call_rate_threshold_ratio: 1.0,
            slow_call_duration_ms: 20_000,
            sliding_window_size: 20,
            minimum_number_of_calls: 5,
            wait_duration_in_open_state_ms: 5_000,
            permitted_number_of_calls_in_half_open_state: 3,
        }
    }
}

/// A configuration that cannot work: the key and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("breaker.{key} must be {must}")]
pub struct BadConfig {
    /// The key.
    pub key: &'static str,
    /// What its value must be.
    pub must: &'static str,
}

impl Config {
    /// Refuses values with which the breaker could never open, never close, or never decide.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn validate(&self) -> Result<(), BadConfig> {
        let ratio = |r: f64| r > 0.0 && r <= 1.0;
        let rules = [
            (
                ratio(self.failure_rate_threshold_ratio),
                "failure-rate-threshold-ratio",
                "above 0 and at most 1",
            ),
            (
                ratio(self.slow_call_rate_threshold_ratio),
                "slow-call-rate-threshold-ratio",
                "above 0 and at most 1",
            ),
            (
                (1..=10_000).contains(&self.sliding_window_size),
                "sliding-window-size",
                "from 1 to 10000",
            ),
            (
                (1..=self.sliding_window_size).contains(&self.minimum_number_of_calls),
                "minimum-number-of-calls",
                "at least 1 and at most sliding-window-size",
            ),
            (
                self.permitted_number_of_calls_in_half_open_state > 0,
                "permitted-number-of-calls-in-half-open-state",
                "at least 1",
            ),
        ];
        match rules.into_iter().find(|(fine, ..)| !fine) {
            Some((_, key, must)) => Err(BadConfig { key, must }),
            None => Ok(()),
        }
    }
}

/// The state. Times are milliseconds of the caller's clock.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Calls go through and are counted.
    Closed {
        /// The last calls, oldest first.
        window: VecDeque<Verdict>,
    },
    /// No call goes through.
    Open {
        /// When a probe may.
        until_ms: u64,
    },
    /// A few calls go through and decide.
    HalfOpen {
        /// Permits not yet given.
        permits: u32,
        /// Calls that succeeded.
        succeeded: u32,
    },
    /// Open until somebody says otherwise.
    ForcedOpen,
    /// Everything goes through and nothing is counted.
    Disabled,
}

/// How one call went, as far as the breaker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It worked.
    Success,
    /// It worked, slowly.
    Slow,
    /// It failed in a way that speaks against the connection.
    Failure,
    /// It says nothing about the connection (it was never sent).
    Ignored,
}

/// Leave to make one call. Give it back with [`Event::Ended`], however the call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
}

/// What happens to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to make a call.
    Asked,
    /// A permitted call ended.
    Ended(Permit, Verdict),
    /// An operator opens it.
    ForcedOpen,
    /// An operator switches it off.
    Disabled,
    /// An operator puts it back to Closed.
    Reset,
}

/// What a breaker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call may be made.
    Permitted(Permit),
    /// The call may not be made; try again after so many milliseconds.
    Rejected {
        /// At least 1.
        retry_in_ms: u64,
    },
    /// The state changed.
    Changed {
        /// The name of the state it was in.
        from: &'static str,
        /// The name of the state it is in.
        to: &'static str,
    },
}

/// A breaker: its state and the generation that its permits carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    config: Config,
    state: State,
    generation: u64,
}

/// A rejected caller of a half-open breaker comes back after this long: its probes are under way.
const HALF_OPEN_RETRY_MS: u64 = 50;

impl Breaker {
    /// A closed breaker.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: closed(),
            generation: 0,
        }
    }

    /// Its state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it next lets a probe through, if it is Open.
    pub fn probe_due_ms(&self) -> Option<u64> {
        match self.state {
            State::Open { until_ms } => Some(until_ms),
            State::Closed { .. } | State::HalfOpen { .. } | State::ForcedOpen | State::Disabled => {
                None
            }
        }
    }

    /// Takes one event. Every pair of state and event is legal: late results of earlier
    /// generations are dropped.
    pub fn step(mut self, event: Event, now_ms: u64) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match event {
            Event::Asked => self.ask(now_ms, &mut effects),
            Event::Ended(permit, verdict) if permit.generation == self.generation => {
                self.ended(verdict, now_ms, &mut effects);
            }
            Event::Ended(..) => {}
            Event::ForcedOpen => self.enter(State::ForcedOpen, &mut effects),
            Event::Disabled => self.enter(State::Disabled, &mut effects),
            Event::Reset => self.enter(closed(), &mut effects),
        }
        (self, effects)
    }

    fn ask(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let State::Open { until_ms } = self.state
            && now_ms >= until_ms
        {
            let permits = self.config.permitted_number_of_calls_in_half_open_state;
            self.enter(
                State::HalfOpen {
                    permits,
                    succeeded: 0,
                },
                effects,
            );
        }
        let permit = Effect::Permitted(Permit {
            generation: self.generation,
        });
        effects.push(match &mut self.state {
            State::Closed { .. } | State::Disabled => permit,
            State::HalfOpen { permits, .. } if *permits > 0 => {
                *permits -= 1;
                permit
            }
            State::HalfOpen { .. } => Effect::Rejected {
                retry_in_ms: HALF_OPEN_RETRY_MS,
            },
            State::Open { until_ms } => Effect::Rejected {
                retry_in_ms: until_ms.saturating_sub(now_ms).max(1),
            },
            State::ForcedOpen => Effect::Rejected {
                retry_in_ms: self.config.wait_duration_in_open_state_ms.max(1),
            },
        });
    }

    fn ended(&mut self, verdict: Verdict, now_ms: u64, effects: &mut Vec<Effect>) {
        let open = State::Open {
            until_ms: now_ms.saturating_add(self.config.wait_duration_in_open_state_ms),
        };
        match &mut self.state {
            State::Closed { window } => {
                if verdict != Verdict::Ignored {
                    window.push_back(verdict);
                }
                while window.len() > self.config.sliding_window_size {
                    window.pop_front();
                }
                if trips(window, &self.config) {
                    self.enter(open, effects);
                }
            }
            State::HalfOpen { permits, succeeded } => match verdict {
                Verdict::Ignored => *permits += 1,
                Verdict::Failure => self.enter(open, effects),
                Verdict::Success | Verdict::Slow => {
                    *succeeded += 1;
                    if *succeeded >= self.config.permitted_number_of_calls_in_half_open_state {
                        self.enter(closed(), effects);
                    }
                }
            },
            State::Open { .. } | State::ForcedOpen | State::Disabled => {}
        }
    }

    fn enter(&mut self, state: State, effects: &mut Vec<Effect>) {
        let from = self.state.name();
        self.state = state;
        self.generation += 1;
        effects.push(Effect::Changed {
            from,
            to: self.state.name(),
        });
    }
}

impl State {
    /// The name of the state, as operators know it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "Closed",
            Self::Open { .. } => "Open",
            Self::HalfOpen { .. } => "HalfOpen",
            Self::ForcedOpen => "ForcedOpen",
            Self::Disabled => "Disabled",
        }
    }
}

fn closed() -> State {
    State::Closed {
        window: VecDeque::new(),
    }
}

fn trips(window: &VecDeque<Verdict>, config: &Config) -> bool {
    if window.len() < config.minimum_number_of_calls {
        return false;
    }
    let share =
        |wanted| window.iter().filter(|v| **v == wanted).count() as f64 / window.len() as f64;
    share(Verdict::Failure) >= config.failure_rate_threshold_ratio
        || share(Verdict::Slow) >= config.slow_call_rate_threshold_ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(breaker: Breaker, now_ms: u64) -> (Breaker, Option<Permit>) {
        let (breaker, effects) = breaker.step(Event::Asked, now_ms);
        let permit = effects.iter().find_map(|e| match e {
            Effect::Permitted(permit) => Some(*permit),
            Effect::Rejected { .. } | Effect::Changed { .. } => None,
        });
        (breaker, permit)
    }

    fn call(breaker: Breaker, verdict: Verdict, now_ms: u64) -> Breaker {
        let (breaker, permit) = ask(breaker, now_ms);
        breaker
            .step(Event::Ended(permit.unwrap(), verdict), now_ms)
            .0
    }

    fn opened() -> Breaker {
        (0..5).fold(Breaker::new(Config::default()), |b, _| {
            call(b, Verdict::Failure, 0)
        })
    }

    #[test]
    fn it_opens_at_the_threshold_and_not_before_the_minimum() {
        let four = (0..4).fold(Breaker::new(Config::default()), |b, _| {
            call(b, Verdict::Failure, 0)
        });
        assert_eq!(four.state().name(), "Closed");
        assert_eq!(opened().state().name(), "Open");
    }

    #[test]
    fn it_rejects_until_the_wait_is_over_then_probes_and_closes() {
        let (breaker, permit) = ask(opened(), 4_999);
        assert_eq!(permit, None);
        let breaker = (0..3).fold(breaker, |b, _| call(b, Verdict::Success, 5_000));
        assert_eq!(breaker.state().name(), "Closed");
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        assert_eq!(
            call(opened(), Verdict::Failure, 5_000).probe_due_ms(),
            Some(10_000)
        );
    }

    #[test]
    fn half_open_gives_no_more_permits_than_configured() {
        let mut breaker = opened();
        let mut given = 0;
        for _ in 0..10 {
            let (next, permit) = ask(breaker, 5_000);
            breaker = next;
            given += usize::from(permit.is_some());
        }
        assert_eq!(given, 3);
    }

    #[test]
    fn a_result_from_before_a_transition_moves_nothing() {
        let (breaker, old) = ask(Breaker::new(Config::default()), 0);
        let breaker = (0..5).fold(breaker, |b, _| call(b, Verdict::Failure, 0));
        let (breaker, _) = ask(breaker, 5_000);
        let (breaker, effects) = breaker.step(Event::Ended(old.unwrap(), Verdict::Failure), 5_000);
        assert_eq!((breaker.state().name(), effects.len()), ("HalfOpen", 0));
    }

    #[test]
    fn a_zero_window_is_refused() {
        let config = Config {
            sliding_window_size: 0,
            ..Config::default()
        };
        assert_eq!(config.validate().unwrap_err().key, "sliding-window-size");
    }

    proptest! {
        #[test]
        fn a_half_open_breaker_never_gets_stuck(events in prop::collection::vec((0u8..5, 0u64..3_000), 1..200)) {
            let (mut breaker, mut now_ms, mut held) = (Breaker::new(Config::default()), 0, Vec::new());
            for (kind, pause_ms) in events {
                now_ms += pause_ms;
                let verdict = [Verdict::Success, Verdict::Slow, Verdict::Failure, Verdict::Ignored]
                    [usize::from(kind % 4)];
                if kind == 4 {
                    let (next, permit) = ask(breaker, now_ms);
                    breaker = next;
                    held.extend(permit);
                } else if let Some(permit) = held.pop() {
                    breaker = breaker.step(Event::Ended(permit, verdict), now_ms).0;
                }
            }
            for permit in held {
                breaker = breaker.step(Event::Ended(permit, Verdict::Ignored), now_ms).0;
            }
            now_ms += 1_000_000;
            prop_assert!(ask(breaker, now_ms).1.is_some());
        }
    }
}
