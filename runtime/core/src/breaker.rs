//! The circuit breaker of one connection, as a pure machine.
//!
//! Parameters and state names are those of resilience4j's `CircuitBreaker`: a sliding window of calls
//! or of time, a failure-rate and a slow-call-rate threshold, a wait in Open, a number of permitted
//! calls and a longest time in `HalfOpen`, two states that only an operator can enter. It deviates in
//! one point: the first failure in `HalfOpen` opens it again, instead of the rate over all permitted
//! calls, since what was parked is about to follow those probes.
//!
//! Permits carry the generation of the state that gave them, so that the result of a call begun
//! before a transition cannot move the state after it.

mod config;
mod window;

use serde::{Deserialize, Serialize};

pub use config::{BadConfig, Config, WINDOW_CALLS_MAX, WINDOW_SECONDS_MAX, WindowType};
pub use window::{Saved as SavedWindow, Tally, Window};

/// The state. Times are milliseconds of the caller's clock.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Calls go through and are counted.
    Closed {
        /// The calls that it judges by.
        window: Window,
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
        /// Calls that ended well, the slow ones among them.
        succeeded: u32,
        /// Of these, those that were slow.
        slow: u32,
        /// Since when.
        since_ms: u64,
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
    /// The same, and it took its time.
    SlowFailure,
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
    /// Time has passed; see [`Breaker::due_ms`].
    Elapsed,
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

/// A state as it outlives the process. Instants are of a clock that goes on meanwhile, so that the
/// time while the process was down counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Saved {
    /// [`State::Closed`].
    Closed {
        /// What it judged by.
        #[serde(default)]
        window: SavedWindow,
    },
    /// [`State::Open`].
    Open {
        /// When a probe may go through.
        until_ms: u64,
    },
    /// [`State::HalfOpen`]. Its probes are lost with the process, and their permits given anew.
    HalfOpen {
        /// Since when.
        since_ms: u64,
    },
    /// [`State::ForcedOpen`].
    ForcedOpen,
    /// [`State::Disabled`].
    Disabled,
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

    /// The breaker that was saved. One that is open stays open for what is left of its wait, and
    /// never for longer than the configuration says: a clock that was set back shuts nobody out.
    pub fn restore(config: Config, saved: &Saved, now_ms: u64) -> Self {
        let state = match saved {
            Saved::Closed { window } => State::Closed {
                window: Window::restore(window, &config),
            },
            Saved::Open { until_ms } => State::Open {
                until_ms: (*until_ms)
                    .min(now_ms.saturating_add(config.wait_duration_in_open_state_ms)),
            },
            Saved::HalfOpen { since_ms } => half_open(&config, (*since_ms).min(now_ms)),
            Saved::ForcedOpen => State::ForcedOpen,
            Saved::Disabled => State::Disabled,
        };
        Self {
            config,
            state,
            generation: 0,
        }
    }

    /// What is to be kept of it.
    pub fn save(&self) -> Saved {
        match &self.state {
            State::Closed { window } => Saved::Closed {
                window: window.save(),
            },
            State::Open { until_ms } => Saved::Open {
                until_ms: *until_ms,
            },
            State::HalfOpen { since_ms, .. } => Saved::HalfOpen {
                since_ms: *since_ms,
            },
            State::ForcedOpen => Saved::ForcedOpen,
            State::Disabled => Saved::Disabled,
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

    /// When [`Event::Elapsed`] next changes something, if ever.
    pub fn due_ms(&self) -> Option<u64> {
        let config = &self.config;
        match self.state {
            State::Open { until_ms } => config
                .automatic_transition_from_open_to_half_open_enabled
                .then_some(until_ms),
            State::HalfOpen { since_ms, .. } => {
                let wait_ms = config.max_wait_duration_in_half_open_state_ms;
                (wait_ms > 0).then(|| since_ms.saturating_add(wait_ms))
            }
            State::Closed { .. } | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// Takes one event. Every pair of state and event is legal: late results of earlier
    /// generations are dropped.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Asked => self.ask(now_ms, &mut effects),
            Event::Ended(permit, verdict) if permit.generation == self.generation => {
                self.ended(verdict, now_ms, &mut effects);
            }
            Event::Ended(..) => {}
            Event::Elapsed => self.elapsed(now_ms, &mut effects),
            Event::ForcedOpen => self.enter(State::ForcedOpen, &mut effects),
            Event::Disabled => self.enter(State::Disabled, &mut effects),
            Event::Reset => self.enter(closed(), &mut effects),
        }
        effects
    }

    fn ask(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        // What time alone decides is decided before the answer.
        self.elapsed(now_ms, effects);
        if let State::Open { until_ms } = self.state
            && now_ms >= until_ms
        {
            self.enter(half_open(&self.config, now_ms), effects);
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
        match (&mut self.state, verdict) {
            (State::Closed { .. }, Verdict::Ignored)
            | (State::Open { .. } | State::ForcedOpen | State::Disabled, _) => {}
            (
                State::Closed { window },
                Verdict::Success | Verdict::Slow | Verdict::Failure | Verdict::SlowFailure,
            ) => {
                window.record(verdict, &self.config, now_ms);
                let calls_min = self.config.minimum_number_of_calls as u64;
                if window.tally().trips(&self.config, calls_min) {
                    self.open(now_ms, effects);
                }
            }
            (State::HalfOpen { permits, .. }, Verdict::Ignored) => *permits += 1,
            (State::HalfOpen { .. }, Verdict::Failure | Verdict::SlowFailure) => {
                self.open(now_ms, effects);
            }
            (
                State::HalfOpen {
                    succeeded, slow, ..
                },
                Verdict::Success | Verdict::Slow,
            ) => {
                *succeeded += 1;
                *slow += u32::from(verdict == Verdict::Slow);
                if *succeeded < self.config.permitted_number_of_calls_in_half_open_state {
                    return;
                }
                let tally = Tally {
                    calls: u64::from(*succeeded),
                    failed: 0,
                    slow: u64::from(*slow),
                };
                if tally.trips(&self.config, 1) {
                    self.open(now_ms, effects);
                } else {
                    self.enter(closed(), effects);
                }
            }
        }
    }

    fn elapsed(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        match self.state {
            State::Open { .. } => self.enter(half_open(&self.config, now_ms), effects),
            State::HalfOpen { .. } => self.open(now_ms, effects),
            // Nothing falls due in these.
            State::Closed { .. } | State::ForcedOpen | State::Disabled => {}
        }
    }

    fn open(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let until_ms = now_ms.saturating_add(self.config.wait_duration_in_open_state_ms);
        self.enter(State::Open { until_ms }, effects);
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
        window: Window::default(),
    }
}

fn half_open(config: &Config, since_ms: u64) -> State {
    State::HalfOpen {
        permits: config.permitted_number_of_calls_in_half_open_state,
        succeeded: 0,
        slow: 0,
        since_ms,
    }
}

#[cfg(test)]
mod tests;
