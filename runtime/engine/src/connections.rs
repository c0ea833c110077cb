//! The connections of a runtime: each with its generation, its breaker and its bulkhead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_core::breaker::{self, Breaker};
use cofferdam_core::descriptor::Effect as ActionEffect;
use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::run::{ActionBinding, Binding};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};

use crate::runtime::now_ms;

/// All connections by name.
pub(crate) type Connections = BTreeMap<String, Arc<Slot>>;

/// One connection.
pub(crate) struct Slot {
    pub name: String,
    pub enabled: bool,
    /// The generation in use.
    pub connection: cofferdam_host::Connection,
    /// What runs that begin pin of it.
    pub binding: Binding,
    /// Calls at the same time.
    pub bulkhead: Arc<Semaphore>,
    /// How long the breaker stays open, which is also how long parked tasks wait at least.
    pub wait_ms: u64,
    pub slow_ms: u64,
    /// Told when a task is parked on it.
    pub parked: Notify,
    /// How many tasks were ever parked on it: tells the drain that some came back.
    pub parked_total: AtomicU64,
    breaker: Mutex<Breaker>,
    counts: Counts,
    last_failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

/// How a connection is, for operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionState {
    /// Its name.
    pub name: String,
    /// The plugin behind it.
    pub plugin: String,
    /// Digest of the plugin's component.
    pub digest: String,
    /// `Closed`, `Open`, `HalfOpen`, `ForcedOpen` or `Disabled`.
    pub breaker: &'static str,
    /// Calls made since the runtime was opened.
    pub calls: u64,
    /// Calls that failed in a way that speaks against the connection.
    pub failures: u64,
    /// Calls that the breaker did not let through.
    pub refused: u64,
    /// Calls under way.
    pub in_flight: usize,
    /// Tasks parked since the runtime was opened.
    pub parked: u64,
    /// The last failure that speaks against the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

impl Slot {
    pub fn new(
        connection: cofferdam_host::Connection,
        enabled: bool,
        mut binding: Binding,
        config: breaker::Config,
    ) -> Self {
        binding.actions = connection
            .descriptor()
            .actions
            .iter()
            .map(|(name, action)| {
                let lookup = action.lookup && action.effect != ActionEffect::Read;
                (
                    name.clone(),
                    ActionBinding {
                        effect: action.effect,
                        lookup,
                    },
                )
            })
            .collect();
        let concurrency = usize::try_from(connection.limits().concurrency_max).unwrap_or(1);
        Self {
            name: connection.name().to_owned(),
            enabled,
            bulkhead: Arc::new(Semaphore::new(concurrency)),
            wait_ms: config.wait_duration_in_open_state_ms,
            slow_ms: config.slow_call_duration_ms,
            parked: Notify::new(),
            parked_total: AtomicU64::new(0),
            breaker: Mutex::new(Breaker::new(config)),
            counts: Counts::default(),
            last_failure: Mutex::new(None),
            connection,
            binding,
        }
    }

    /// Asks the breaker for leave to make one call.
    pub fn ask(&self) -> Result<breaker::Permit, Failure> {
        if !self.enabled {
            return Err(self.refusal(
                "connection.disabled",
                "is switched off in the configuration",
                None,
            ));
        }
        let mut retry_in = None;
        for effect in self.step(breaker::Event::Asked) {
            match effect {
                breaker::Effect::Permitted(permit) => return Ok(permit),
                breaker::Effect::Rejected { retry_in_ms } => retry_in = Some(retry_in_ms),
                breaker::Effect::Changed { .. } => {}
            }
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let why = self.last_failure.lock().clone().unwrap_or_default();
        Err(self.refusal(
            "breaker.open",
            &format!("is out: its breaker is open ({why})"),
            retry_in,
        ))
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

    fn step(&self, event: breaker::Event) -> Vec<breaker::Effect> {
        let mut breaker = self.breaker.lock();
        let (next, effects) = breaker.clone().step(event, now_ms());
        *breaker = next;
        drop(breaker);
        for effect in &effects {
            if let breaker::Effect::Changed { from, to } = effect {
                tracing::info!(connection = self.name, from, to, "breaker changed");
                self.parked.notify_one();
            }
        }
        effects
    }

    /// What one call says about the connection.
    pub fn judge(&self, result: Result<(), &Failure>, took_ms: u64) -> breaker::Verdict {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) if took_ms >= self.slow_ms => breaker::Verdict::Slow,
            Err(failure) if failure.class.is_outage() => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                *self.last_failure.lock() = Some(failure.to_string());
                breaker::Verdict::Failure
            }
            Err(failure) if failure.class == Class::RateLimited => breaker::Verdict::Ignored,
            // A logical failure says that the other side is well.
            Ok(()) | Err(_) => breaker::Verdict::Success,
        }
    }

    /// When an open breaker lets a probe through; none if it is not open.
    pub fn probe_due_ms(&self) -> Option<u64> {
        self.breaker.lock().probe_due_ms()
    }

    /// The name of the breaker's state.
    pub fn breaker_state(&self) -> &'static str {
        self.breaker.lock().state().name()
    }

    pub fn state(&self) -> ConnectionState {
        let limit = usize::try_from(self.connection.limits().concurrency_max).unwrap_or(0);
        ConnectionState {
            name: self.name.clone(),
            plugin: self.connection.descriptor().name.clone(),
            digest: self.connection.digest().to_owned(),
            breaker: self.breaker_state(),
            calls: self.counts.calls.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            in_flight: limit.saturating_sub(self.bulkhead.available_permits()),
            parked: self.parked_total.load(Ordering::Relaxed),
            last_failure: self.last_failure.lock().clone(),
        }
    }
}
