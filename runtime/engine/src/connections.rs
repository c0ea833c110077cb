//! The connections of a runtime: each with its generation, its breaker and its bulkhead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use cofferdam_core::breaker::{self, Breaker};
use cofferdam_core::canary;
use cofferdam_core::failure::{BUSY, Class, Failure};
use cofferdam_core::quarantine;
use cofferdam_core::rate::Rate;
use cofferdam_core::run::Binding;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::ambient::Clock;
use crate::config::{self, Bulkhead};
use crate::connector::Backend;
use crate::generations::{Generations, Judgement, Lineup, Served};
use crate::health::Health;
use crate::hedging::HedgeBudget;
use crate::outbox::{Outbox, OutboxState};
use crate::pace::Line;
use crate::ramp::Ramp;
use crate::service::{Keeping, ServiceRow};

/// All connections by name.
pub(crate) type Connections = BTreeMap<String, Arc<Slot>>;

/// One connection.
pub(crate) struct Slot {
    pub name: String,
    pub enabled: bool,
    /// Its generations; replaced as a whole by `activation.rs` alone.
    pub lineup: ArcSwap<Lineup>,
    /// Held while the line-up is being changed, so that changes come one after another.
    pub changing: tokio::sync::Mutex<()>,
    /// Held while a swap is prepared and made, so that swaps come one after another.
    pub swapping: tokio::sync::Mutex<()>,
    /// Told when something is to be done about the generations.
    pub judged: Notify,
    judgements: Mutex<Vec<Judgement>>,
    pub clock: Clock,
    concurrency_max: usize,
    /// Calls at the same time.
    pub bulkhead: Arc<Semaphore>,
    bulkhead_config: Bulkhead,
    /// How many wait for a place.
    queued: AtomicUsize,
    rate: Option<Rate>,
    /// Where calls wait that come too soon.
    pub line: Arc<Line>,
    /// How long the breaker stays open, which is also how long parked tasks wait at least.
    pub wait_ms: u64,
    pub slow_ms: u64,
    /// Told when a task is parked on it.
    pub parked: Notify,
    /// How many tasks were ever parked on it: tells the drain that some came back.
    pub parked_total: AtomicU64,
    /// How many second attempts it may get.
    pub hedges: Arc<HedgeBudget>,
    /// Told when it may have come into service or out of it.
    pub changed: Notify,
    /// Told when the breaker has another state.
    pub breaker_moved: Notify,
    /// Along which parked tasks are let go.
    pub ramp: Ramp,
    pub outbox: Outbox,
    pub health: Health,
    pub keeping: Keeping,
    pub(crate) breaker: Mutex<Breaker>,
    counts: Counts,
    pub(crate) last_failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
}

/// How a connection is, for operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionState {
    /// Its name.
    pub name: String,
    /// The plugin behind it.
    pub plugin: String,
    /// The plugin's own version.
    pub version: String,
    /// Digest of the plugin's component.
    pub digest: String,
    /// The generation that serves.
    pub generation: u64,
    /// Whether that generation is held for its crashes.
    pub quarantine: quarantine::State,
    /// The generation on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<u64>,
    /// `Closed`, `Open`, `HalfOpen`, `ForcedOpen` or `Disabled`.
    pub breaker: String,
    /// `unknown`, `healthy` or `unhealthy`; none if it is not probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Calls made since the runtime was opened.
    pub calls: u64,
    /// Calls that failed in a way that speaks against the connection.
    pub failures: u64,
    /// Calls that were not let through: breaker, health, quarantine, no room.
    pub refused: u64,
    /// Of those, calls that found no place and no room in the queue for one, or waited too long.
    #[serde(default)]
    pub busy: u64,
    /// Calls under way.
    pub in_flight: usize,
    /// Calls that wait for a place in the bulkhead.
    #[serde(default)]
    pub queued: usize,
    /// Tasks that were ever parked on it.
    pub parked: u64,
    /// Tasks that are parked on it at this moment.
    #[serde(default)]
    pub parked_now: usize,
    /// Calls that were left to it.
    #[serde(default)]
    pub outbox: OutboxState,
    /// The last failure that speaks against the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

impl Slot {
    /// A connection as it is configured, and as it was when it was last kept.
    pub fn new(
        connection: &config::Connection,
        lineup: Lineup,
        saved: Option<ServiceRow>,
        clock: Clock,
    ) -> Self {
        let config = connection.breaker();
        let limits = lineup.active.connection.limits();
        let concurrency_max = usize::try_from(limits.concurrency_max).unwrap_or(1);
        let rate = limits.rate;
        let (breaker, parked, last_failure) = match &saved {
            None => (Breaker::new(config), 0, None),
            Some(row) => {
                lineup.restore_quarantines(&row.quarantines, clock.now_ms());
                (
                    Breaker::restore(config, &row.breaker, clock.now_ms()),
                    row.parked,
                    row.last_failure.clone(),
                )
            }
        };
        let known = saved.map(|row| (row.health, row.probed_ms));
        Self {
            name: connection.name().to_owned(),
            enabled: connection.enabled(),
            bulkhead: Arc::new(Semaphore::new(concurrency_max)),
            concurrency_max,
            bulkhead_config: connection.bulkhead(),
            queued: AtomicUsize::new(0),
            rate,
            line: Line::new(rate),
            wait_ms: config.wait_duration_in_open_state_ms,
            slow_ms: config.slow_call_duration_ms,
            parked: Notify::new(),
            hedges: Arc::default(),
            parked_total: AtomicU64::new(parked),
            changed: Notify::new(),
            breaker_moved: Notify::new(),
            ramp: Ramp::new(concurrency_max),
            outbox: Outbox::new(connection.outbox_max()),
            health: Health::new(connection.health(), known),
            keeping: Keeping::default(),
            breaker: Mutex::new(breaker),
            counts: Counts::default(),
            last_failure: Mutex::new(last_failure),
            lineup: ArcSwap::from_pointee(lineup),
            changing: tokio::sync::Mutex::new(()),
            swapping: tokio::sync::Mutex::new(()),
            judged: Notify::new(),
            judgements: Mutex::default(),
            clock,
        }
    }

    /// What runs that begin pin of it.
    pub fn binding(&self) -> Binding {
        self.lineup.load().active.binding.clone()
    }

    /// The generation that serves, for questions that are no calls.
    pub fn connection(&self) -> Backend {
        self.lineup.load().active.connection.clone()
    }

    /// How often it may be called.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// How long a call may wait for a place in the bulkhead.
    pub fn bulkhead_wait(&self) -> Duration {
        self.bulkhead_config.max_wait
    }

    /// Takes a place in the queue for the bulkhead; false if there is none.
    pub fn queue_up(&self) -> bool {
        let grow = |queued| (queued < self.bulkhead_config.queue_max).then_some(queued + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.queued.fetch_update(set, fetch, grow).is_ok()
    }

    /// Gives it back.
    pub fn leave_queue(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// That there is no room for a call.
    pub fn busy(&self, why: &str) -> Failure {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.counts.busy.fetch_add(1, Ordering::Relaxed);
        let running = match self.concurrency_max {
            1 => "1 call".to_owned(),
            most => format!("{most} calls"),
        };
        let what = format!(
            "has {running} running and {why}; raise `limits.concurrency` or `bulkhead.queue`"
        );
        self.refusal(BUSY, &what, None)
    }

    /// What is to be done about the generations, each judgement once.
    pub fn take_judgements(&self) -> Vec<Judgement> {
        std::mem::take(&mut *self.judgements.lock())
    }

    pub fn judge_later(&self, judgement: Judgement) {
        if judgement != Judgement::Nothing {
            self.judgements.lock().push(judgement);
            self.judged.notify_one();
        }
    }

    /// Chooses the generation that serves the call with this key.
    fn serve(&self, key: &str) -> Result<Served, Failure> {
        self.lineup
            .load()
            .serve(key, self.clock.now_ms())
            .map_err(|retry_in_ms| {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                self.refusal(
                    "plugin.quarantined",
                    "is out: its plugin crashed too often and is held",
                    Some(retry_in_ms),
                )
            })
    }

    /// Asks for leave to make the call with this key: a generation in service, then a permit of
    /// the breaker.
    pub fn ask(&self, key: &str) -> Result<(Served, breaker::Permit), Failure> {
        if !self.enabled {
            return Err(self.refusal(
                "connection.disabled",
                "is switched off in the configuration",
                None,
            ));
        }
        if let Some(retry_in_ms) = self.health.retry_in_ms() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(self.refusal(
                "connection.unhealthy",
                "is out: its last health checks failed",
                Some(retry_in_ms),
            ));
        }
        let served = self.serve(key)?;
        let mut retry_in = None;
        for effect in self.step(breaker::Event::Asked) {
            match effect {
                breaker::Effect::Permitted(permit) => return Ok((served, permit)),
                breaker::Effect::Rejected { retry_in_ms } => retry_in = Some(retry_in_ms),
                breaker::Effect::Changed { .. } => {}
            }
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let why = self.why_open();
        Err(self.refusal("breaker.open", &format!("is out: {why}"), retry_in))
    }

    fn why_open(&self) -> String {
        if self.breaker_state() == "ForcedOpen" {
            return "its breaker was forced open by an operator".to_owned();
        }
        match &*self.last_failure.lock() {
            Some(failure) => format!("its breaker is open ({failure})"),
            None => "its breaker is open".to_owned(),
        }
    }

    fn refusal(&self, code: &str, what: &str, retry_in_ms: Option<u64>) -> Failure {
        let message = format!("connection `{}` {what}", self.name);
        let retry_after_ms = retry_in_ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        Failure {
            retry_after_ms,
            ..Failure::new(Class::Unavailable, code, message)
        }
    }

    /// Gives a permit back.
    pub fn ended(&self, permit: breaker::Permit, verdict: breaker::Verdict) {
        self.step(breaker::Event::Ended(permit, verdict));
    }

    /// Does to the breaker what an operator wants, or what else is no call.
    pub fn set_breaker(&self, event: breaker::Event) {
        self.step(event);
    }

    /// The breaker's time may be over.
    pub fn breaker_elapsed(&self) {
        self.step(breaker::Event::Elapsed);
    }

    /// When time alone moves the breaker, if ever.
    pub fn breaker_due_ms(&self) -> Option<u64> {
        self.breaker.lock().due_ms()
    }

    /// Hands to the store how it is.
    pub fn keep_now(&self) {
        let breaker = self.breaker.lock();
        self.keeping
            .now(&self.name, || self.row_with(breaker.save()));
    }

    /// It may have come into service or out of it: those who wait look again.
    pub fn tell_changed(&self) {
        self.parked.notify_one();
        self.changed.notify_one();
    }

    fn step(&self, event: breaker::Event) -> Vec<breaker::Effect> {
        let mut breaker = self.breaker.lock();
        let effects = breaker.step(event, self.clock.now_ms());
        let is_change =
            |effect: &breaker::Effect| matches!(effect, breaker::Effect::Changed { .. });
        if effects.iter().any(is_change) {
            // Before anybody can be turned away by the state, and write that down.
            self.keeping
                .now(&self.name, || self.row_with(breaker.save()));
        }
        drop(breaker);
        for effect in &effects {
            if let breaker::Effect::Changed { from, to } = effect {
                tracing::info!(connection = self.name, from, to, "breaker changed");
                self.tell_changed();
                self.breaker_moved.notify_one();
                if *to == "Open" {
                    self.tripped();
                }
            }
        }
        effects
    }

    fn tripped(&self) {
        if let Some(trial) = &self.lineup.load().trial {
            let verdict = trial.step(canary::Event::Tripped, self.clock.now_ms());
            if verdict != canary::Verdict::None {
                let number = trial.generation.row.number;
                self.judge_later(Judgement::Decided(number, verdict));
            }
        }
    }

    /// What one call says about the connection.
    pub fn judge(&self, result: Result<(), &Failure>, took_ms: u64) -> breaker::Verdict {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) if took_ms >= self.slow_ms => breaker::Verdict::Slow,
            Err(failure) if failure.is_busy() => breaker::Verdict::Ignored,
            Err(failure) if failure.class.is_outage() => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                *self.last_failure.lock() = Some(failure.to_string());
                self.keeping.later();
                if took_ms >= self.slow_ms {
                    breaker::Verdict::SlowFailure
                } else {
                    breaker::Verdict::Failure
                }
            }
            Err(failure) if failure.class == Class::RateLimited => breaker::Verdict::Ignored,
            // A logical failure says that the other side is well.
            Ok(()) | Err(_) => breaker::Verdict::Success,
        }
    }

    /// When an open breaker, or a generation that is held, lets a probe through; none if neither
    /// stands in the way.
    pub fn probe_due_ms(&self) -> Option<u64> {
        let held = self.lineup.load().active.held_until_ms();
        held.max(self.breaker.lock().probe_due_ms())
    }

    /// How the generations are.
    pub fn generations(&self) -> Generations {
        self.lineup.load().state(&self.name)
    }

    /// The name of the breaker's state.
    pub fn breaker_state(&self) -> &'static str {
        self.breaker.lock().state().name()
    }

    pub fn state(&self) -> ConnectionState {
        let generations = self.generations();
        ConnectionState {
            name: self.name.clone(),
            plugin: generations.active.row.plugin,
            version: generations.active.row.version,
            digest: generations.active.row.digest,
            generation: generations.active.row.number,
            quarantine: generations.active.quarantine,
            trial: generations.trial.map(|trial| trial.generation.row.number),
            breaker: self.breaker_state().to_owned(),
            health: self.health.state().map(|state| state.name().to_owned()),
            calls: self.counts.calls.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            busy: self.counts.busy.load(Ordering::Relaxed),
            in_flight: self
                .concurrency_max
                .saturating_sub(self.bulkhead.available_permits()),
            queued: self.queued.load(Ordering::Relaxed),
            parked: self.parked_total.load(Ordering::Relaxed),
            parked_now: 0,
            outbox: OutboxState {
                depth: self.outbox.depth(),
                oldest_ms: None,
            },
            last_failure: self.last_failure.lock().clone(),
        }
    }
}
