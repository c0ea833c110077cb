//! What is outside of the engine's process, and outlives it: time, chance, the disk, the services,
//! and the record of everything that happened.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::oracle::Oracle;
use crate::services::Services;
use crate::swarm::Swarm;

/// 2026-01-01: a number that looks like an instant in a trace.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// A world in which more happens goes round in circles.
const STEPS_MAX: u64 = 60_000;

/// The world of one seed. Everything that the engine does to it is a *step*; a crash is a step
/// that does not happen, nor anything after it.
pub(crate) struct World {
    state: Mutex<State>,
    /// Told when the process is to die.
    pub died: Notify,
    /// Told when somebody should start the process again: a run or the store has stopped.
    pub stuck: Notify,
}

pub(crate) struct State {
    pub dice: Dice,
    pub mutation: Option<Mutation>,
    pub swarm: Swarm,
    pub disk: Disk,
    pub services: Services,
    pub oracle: Oracle,
    /// Whether the process is dead: nothing that it does counts any more.
    pub dead: bool,
    /// From here on nothing goes wrong any more.
    pub fair_from_ms: u64,
    /// How often something goes wrong until then, in percent.
    pub badness: u64,
    /// The step that the process does not survive.
    pub dies_at: Option<u64>,
    /// What is wrong; the first of these decides.
    pub violations: Vec<String>,
    /// Processes that were begun.
    pub processes: u64,
    steps: u64,
    from_ms: u64,
    since: Option<Instant>,
    history: blake3::Hasher,
    trace: Option<String>,
}

impl World {
    pub fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let badness = *dice.pick(&[0, 5, 15, 30, 50]);
        let fair_from_ms = EPOCH_MS + dice.range(1_000..=60_000);
        let state = State {
            mutation,
            swarm: Swarm::of(seed),
            disk: Disk::new(),
            services: Services::new(&mut dice),
            oracle: Oracle::default(),
            dead: false,
            fair_from_ms,
            badness,
            dies_at: None,
            violations: Vec::new(),
            processes: 0,
            steps: 0,
            from_ms: EPOCH_MS,
            since: None,
            history: blake3::Hasher::new(),
            trace: trace.then(String::new),
            dice,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            died: Notify::new(),
            stuck: Notify::new(),
        })
    }

    /// Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Something happens; false if the process is dead, or dies before it.
    pub fn step(&self, what: impl FnOnce() -> String) -> bool {
        let mut state = self.lock();
        let lives = state.step(what);
        if state.dead {
            self.died.notify_one();
        }
        lives
    }

    /// Says what is wrong, and ends the world.
    pub fn violated(&self, what: String) {
        self.lock().violated(what);
        self.died.notify_one();
    }

    /// The wait of somebody who is dead.
    pub async fn never<T>() -> T {
        std::future::pending().await
    }
}

impl State {
    pub fn now_ms(&self) -> u64 {
        let passed = self
            .since
            .map_or(0, |since| since.elapsed().as_millis() as u64);
        self.from_ms + passed
    }

    /// How long ago the world began.
    pub fn age_ms(&self) -> u64 {
        self.now_ms() - EPOCH_MS
    }

    pub fn is_fair(&self) -> bool {
        self.now_ms() >= self.fair_from_ms
    }

    /// Whether something goes wrong here, with `share` percent of the world's bad luck.
    pub fn bad_luck(&mut self, share: u64) -> bool {
        !self.is_fair() && self.dice.roll() % 10_000 < self.badness * share
    }

    pub fn is_mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A process begins, in a runtime whose clock stands at zero.
    pub fn begin_process(&mut self) {
        self.since = Some(Instant::now());
        self.dead = false;
        self.services.begin_process();
        self.oracle.pace.begins();
        let now_ms = self.now_ms();
        self.oracle.lines.opens(now_ms);
        self.processes += 1;
        self.dies_at = (!self.is_fair() && self.dice.percent(70))
            .then(|| self.steps + self.dice.range(1..=60));
    }

    /// The process is over; `down_ms` pass before the next one. To be called inside of its runtime.
    pub fn end_process(&mut self, down_ms: u64) {
        self.from_ms = self.now_ms() + down_ms;
        self.since = None;
        self.dead = true;
        self.oracle.timing.closes();
    }

    /// The process dies so many steps from here.
    pub fn dies_after(&mut self, steps: u64) {
        self.dies_at = Some(self.steps + steps);
    }

    pub fn step(&mut self, what: impl FnOnce() -> String) -> bool {
        if self.dead {
            return false;
        }
        self.steps += 1;
        if self.dies_at == Some(self.steps) {
            self.note("crash", &what());
            self.dead = true;
            return false;
        }
        self.note("", &what());
        if self.steps > STEPS_MAX {
            self.violated(format!(
                "more than {STEPS_MAX} steps: it goes round in circles"
            ));
        }
        !self.dead
    }

    /// Writes into the history what happened, step or not.
    pub fn note(&mut self, mark: &str, what: &str) {
        let mut line = String::new();
        let at_ms = self.now_ms() - EPOCH_MS;
        let _ = writeln!(line, "{at_ms:>9} {mark:<5} {what}");
        self.history.update(line.as_bytes());
        if let Some(trace) = &mut self.trace {
            trace.push_str(&line);
        }
    }

    pub fn violated(&mut self, what: String) {
        self.note("WRONG", &what);
        self.violations.push(what);
        self.dead = true;
    }

    pub fn is_violated(&self) -> bool {
        !self.violations.is_empty()
    }

    /// The hash of everything that happened, the steps, and the trace if one was asked for.
    pub fn history(&self) -> (String, u64, Option<String>) {
        let hash = self.history.finalize().to_hex().to_string();
        (hash, self.steps, self.trace.clone())
    }
}
