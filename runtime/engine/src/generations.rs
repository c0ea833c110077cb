//! The generations of one connection: which serves, which served before, which is on trial.
//!
//! The whole line-up is one value behind one pointer. A call takes it once and keeps the
//! generation that serves it until it ends; a swap replaces the pointer. So no call meets a
//! line-up that is half changed, and none waits for a swap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cofferdam_core::canary::{self, Canary, Side};
use cofferdam_core::descriptor::Effect;
use cofferdam_core::quarantine::{self, Quarantine};
use cofferdam_core::run::{ActionBinding, Binding};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::connector::Backend;

/// What is known of a generation without loading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationRow {
    /// Counted for each connection, from 1.
    pub number: u64,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's own version.
    pub version: String,
    /// SHA-256 of the component, as hexadecimal digits.
    pub digest: String,
    /// Where it came from.
    pub artifact: String,
    /// Since when it serves or is on trial, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// One generation, ready to be called.
pub(crate) struct Generation {
    pub row: GenerationRow,
    pub connection: Backend,
    /// What runs that begin pin of it.
    pub binding: Binding,
    quarantine: Mutex<Quarantine>,
    in_flight: AtomicUsize,
    calls: AtomicU64,
}

/// A generation on trial beside the one that serves.
pub(crate) struct Trial {
    pub generation: Arc<Generation>,
    canary: Mutex<Canary>,
    config: canary::Config,
}

/// Which generation does what.
#[derive(Clone)]
pub(crate) struct Lineup {
    pub active: Arc<Generation>,
    /// Since when that one serves.
    pub since_ms: u64,
    /// Resident, so that going back to it takes no time.
    pub previous: Option<Arc<Generation>>,
    pub trial: Option<Arc<Trial>>,
}

/// How a generation is, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationState {
    /// What it is.
    #[serde(flatten)]
    pub row: GenerationRow,
    /// Whether it is held for its crashes.
    pub quarantine: quarantine::State,
    /// Calls that it has served since the runtime was opened.
    pub calls: u64,
    /// Calls that it serves at this moment.
    pub in_flight: usize,
}

/// A trial, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialState {
    /// The generation on trial.
    pub generation: GenerationState,
    /// What is known of both sides.
    pub canary: Canary,
}

/// The generations of a connection, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generations {
    /// The connection.
    pub connection: String,
    /// The one that serves.
    pub active: GenerationState,
    /// The one that a rollback brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<GenerationState>,
    /// The one on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialState>,
}

impl Generation {
    /// A generation without strikes. `policy` is what the configuration decides.
    pub fn new(
        row: GenerationRow,
        connection: Backend,
        mut policy: Binding,
        strikes: quarantine::Config,
    ) -> Self {
        policy.actions = connection
            .descriptor()
            .actions
            .iter()
            .map(|(name, action)| {
                let lookup = action.lookup && action.effect != Effect::Read;
                let effect = action.effect;
                (name.clone(), ActionBinding { effect, lookup })
            })
            .collect();
        Self {
            row,
            connection,
            binding: policy,
            quarantine: Mutex::new(Quarantine::new(strikes)),
            in_flight: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// Until when it is held, if it is.
    pub fn held_until_ms(&self) -> Option<u64> {
        match self.quarantine.lock().state() {
            quarantine::State::Held { until_ms, .. } => Some(until_ms),
            quarantine::State::Clear { .. } | quarantine::State::Probation { .. } => None,
        }
    }

    pub fn state(&self) -> GenerationState {
        GenerationState {
            row: self.row.clone(),
            quarantine: self.quarantine.lock().state(),
            calls: self.calls.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

impl Trial {
    pub fn new(generation: Arc<Generation>, canary: Canary) -> Self {
        Self {
            generation,
            config: canary.config,
            canary: Mutex::new(canary),
        }
    }

    /// Tells the judge what happened.
    pub fn step(&self, event: canary::Event, now_ms: u64) -> canary::Verdict {
        self.canary.lock().step(event, now_ms)
    }

    /// What is known so far.
    pub fn canary(&self) -> Canary {
        self.canary.lock().clone()
    }
}

/// The generation that serves one call, held until the call has ended.
pub(crate) struct Served {
    pub generation: Arc<Generation>,
    /// The trial that was under way when the call began, and the call's side in it.
    trial: Option<(Arc<Trial>, Side)>,
    permit: quarantine::Permit,
}

/// What the end of a call asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Nothing,
    /// The generation of this number is held for its crashes.
    Held(u64),
    /// The trial of this number is decided.
    Decided(u64, canary::Verdict),
}

impl Lineup {
    pub fn of(active: Generation) -> Self {
        Self {
            since_ms: active.row.since_ms,
            active: Arc::new(active),
            previous: None,
            trial: None,
        }
    }

    /// The line-up after this generation has taken over.
    pub fn replaced_by(&self, generation: Arc<Generation>, now_ms: u64) -> Self {
        Self {
            active: generation,
            since_ms: now_ms,
            previous: Some(Arc::clone(&self.active)),
            trial: None,
        }
    }

    /// The line-up with this trial, or without one.
    pub fn with_trial(&self, trial: Option<Arc<Trial>>) -> Self {
        Self {
            trial,
            ..self.clone()
        }
    }

    /// Chooses who serves the call with this key. A generation on trial that is held passes its
    /// calls to the one that serves.
    ///
    /// # Errors
    /// For how many milliseconds more the generation that serves is held.
    pub fn serve(&self, key: &str, now_ms: u64) -> Result<Served, u64> {
        if let Some(trial) = &self.trial {
            // The share never changes, so that no lock is needed for it.
            let side = canary::side_of(&trial.config, key);
            let generation = match side {
                Side::Trial => &trial.generation,
                Side::Stable => &self.active,
            };
            if let Ok(served) = Served::new(generation, Some((trial, side)), now_ms) {
                return Ok(served);
            }
        }
        Served::new(&self.active, None, now_ms)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Generation>> {
        let trial = self.trial.as_ref().map(|trial| &trial.generation);
        std::iter::once(&self.active)
            .chain(&self.previous)
            .chain(trial)
    }

    /// The strikes of its generations, by number.
    pub fn quarantines(&self) -> Vec<(u64, quarantine::State)> {
        self.all()
            .map(|generation| (generation.row.number, generation.quarantine.lock().state()))
            .collect()
    }

    /// Goes on from the strikes that were kept.
    pub fn restore_quarantines(&self, kept: &[(u64, quarantine::State)], now_ms: u64) {
        for generation in self.all() {
            let known = kept
                .iter()
                .find(|(number, _)| *number == generation.row.number);
            if let Some((_, state)) = known {
                generation.quarantine.lock().restore(*state, now_ms);
            }
        }
    }

    pub fn state(&self, connection: &str) -> Generations {
        let mut active = self.active.state();
        active.row.since_ms = self.since_ms;
        Generations {
            connection: connection.to_owned(),
            active,
            previous: self.previous.as_ref().map(|g| g.state()),
            trial: self.trial.as_ref().map(|trial| TrialState {
                generation: trial.generation.state(),
                canary: trial.canary(),
            }),
        }
    }
}

impl Served {
    fn new(
        generation: &Arc<Generation>,
        trial: Option<(&Arc<Trial>, Side)>,
        now_ms: u64,
    ) -> Result<Self, u64> {
        match generation.quarantine.lock().ask(now_ms) {
            quarantine::Answer::Held { retry_in_ms } => Err(retry_in_ms),
            quarantine::Answer::Permitted(permit) => {
                generation.in_flight.fetch_add(1, Ordering::Relaxed);
                Ok(Self {
                    generation: Arc::clone(generation),
                    trial: trial.map(|(trial, side)| (Arc::clone(trial), side)),
                    permit,
                })
            }
        }
    }

    /// Whether the generation that serves the call is on trial.
    pub fn is_on_trial(&self) -> bool {
        matches!(&self.trial, Some((_, Side::Trial)))
    }

    /// Takes the end of the call that it served.
    pub fn ended(&self, crashed: bool, failed: bool, took_ms: u64, now_ms: u64) -> Judgement {
        self.generation.calls.fetch_add(1, Ordering::Relaxed);
        let verdict = if crashed {
            quarantine::Verdict::Crash
        } else {
            quarantine::Verdict::Good
        };
        let mut quarantine = self.generation.quarantine.lock();
        let change = quarantine.ended(self.permit, verdict, now_ms);
        drop(quarantine);
        if let Some((trial, side)) = &self.trial {
            let number = trial.generation.row.number;
            let event = if change == quarantine::Change::Held && *side == Side::Trial {
                canary::Event::Struck
            } else {
                let side = *side;
                canary::Event::Ended {
                    side,
                    failed,
                    took_ms,
                }
            };
            let verdict = trial.step(event, now_ms);
            if verdict != canary::Verdict::None {
                return Judgement::Decided(number, verdict);
            }
        }
        match change {
            quarantine::Change::Held => Judgement::Held(self.generation.row.number),
            quarantine::Change::None | quarantine::Change::Cleared => Judgement::Nothing,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.generation.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
