//! Probes connections, beside their calls; see [`cofferdam_core::health`].

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::failure::Class;
use cofferdam_core::health::{Change, Config, State, Verdict};
use cofferdam_host::HealthStatus;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::connections::Slot;
use crate::runtime::Inner;

/// How many connections are probed at the same time: probes are cheap, but each takes a chamber.
pub(crate) const PROBES_MAX: usize = 4;

/// What is known of the health of one connection.
pub(crate) struct Health {
    config: Option<Config>,
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    state: State,
    probed_ms: Option<u64>,
}

impl Health {
    /// What was known counts only while the connection is still probed.
    pub fn new(config: Option<Config>, saved: Option<(State, Option<u64>)>) -> Self {
        let known = saved.filter(|_| config.is_some());
        let known = known.map_or_else(Known::default, |(state, probed_ms)| Known {
            state,
            probed_ms,
        });
        Self {
            config,
            known: Mutex::new(known),
        }
    }

    /// The state, and when it was last probed.
    pub fn known(&self) -> (State, Option<u64>) {
        let known = *self.known.lock();
        (known.state, known.probed_ms)
    }

    /// The state, if it is probed at all.
    pub fn state(&self) -> Option<State> {
        self.config.map(|_| self.known.lock().state)
    }

    /// After how long it is worth asking again, if no call may go to it.
    pub fn retry_in_ms(&self) -> Option<u64> {
        let config = self.config?;
        (!self.known.lock().state.is_in_service()).then_some(config.interval_ms)
    }
}

impl Slot {
    /// How long it may take to answer whether it works: `health.timeout`, else as long as a call.
    pub fn probe_timeout(&self) -> Duration {
        let configured = self.health.config.map(|config| config.timeout_ms);
        let timeout_ms =
            configured.unwrap_or_else(|| self.lineup.load().active.binding.start_to_close_ms);
        Duration::from_millis(timeout_ms)
    }

    /// Takes the end of one probe.
    fn probed(&self, verdict: Verdict, config: &Config) {
        let now_ms = self.clock.now_ms();
        let mut known = self.health.known.lock();
        let (state, change) = known.state.step(verdict, config, now_ms);
        *known = Known {
            state,
            probed_ms: Some(now_ms),
        };
        drop(known);
        match change {
            Change::None => self.keeping.later(),
            Change::Unhealthy | Change::Healthy => {
                tracing::info!(
                    connection = self.name,
                    health = state.name(),
                    "health changed"
                );
                self.keep_now();
                self.tell_changed();
            }
        }
    }
}

/// Probes one connection until the runtime shuts down. `places` are shared by all connections.
pub(crate) async fn watch(inner: Arc<Inner>, slot: Arc<Slot>, places: Arc<Semaphore>) {
    let Some(config) = slot.health.config.filter(|_| slot.enabled) else {
        return;
    };
    let (_, probed_ms) = slot.health.known();
    let mut due_ms = config.first_ms(probed_ms, slot.clock.now_ms(), inner.rng.u32());
    loop {
        let nap = Duration::from_millis(due_ms.saturating_sub(slot.clock.now_ms()));
        let probing = async {
            tokio::time::sleep(nap).await;
            let Ok(_place) = places.acquire().await else {
                return Verdict::Ignored;
            };
            probe(&slot, &config).await
        };
        let verdict = tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            verdict = probing => verdict,
        };
        slot.probed(verdict, &config);
        due_ms = config.next_ms(slot.clock.now_ms(), inner.rng.u32());
    }
}

async fn probe(slot: &Slot, config: &Config) -> Verdict {
    let begun = Instant::now();
    let timeout = Duration::from_millis(config.timeout_ms);
    let connection = slot.connection();
    let is_good = match tokio::time::timeout(timeout, connection.check()).await {
        Ok(Ok(health)) => health.status != HealthStatus::Unhealthy,
        // A plugin that cannot tell is not held against what is behind it.
        Ok(Err(failure)) if failure.class == Class::Unsupported => true,
        Ok(Err(failure)) if failure.is_busy() => return Verdict::Ignored,
        Ok(Err(_)) | Err(_) => false,
    };
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    config.judge(is_good, took_ms)
}
