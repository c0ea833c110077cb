//! A service that does what it is told, and runtimes in front of it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cofferdam::{
    Call, Class, Clock, Config, Connection, ConnectionState, Connector, Definition, Descriptor,
    Effect, EffectState, Failure, Health, RunView, Runtime, StartOptions,
};
use cofferdam_store::{JournalStore, MemoryStore};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

pub use crate::common::{LONG, memory, sources, until};
use crate::common::{descriptor, healthy};

pub const HOUR_MS: u64 = 3_600_000;
/// When the clocks of the tests begin.
pub const EPOCH_MS: u64 = 1_000_000 * HOUR_MS;

/// How a service is.
#[derive(Default)]
pub struct Telling {
    /// Calls fail with this, and nothing happens.
    pub fails: Option<Failure>,
    /// The next so many calls happen, and nobody hears of it.
    pub loses: usize,
    /// How long a call takes, while others are in flight.
    pub takes: Duration,
    pub check_fails: bool,
    pub check_takes: Duration,
}

/// What a service saw.
#[derive(Default, Clone)]
pub struct Seen {
    /// Keys of all calls, in order.
    pub calls: Vec<String>,
    /// On whose behalf each call was.
    pub tenants: Vec<String>,
    /// How often the effect of a key took place.
    pub happened: BTreeMap<String, u32>,
    pub in_flight: usize,
    pub ended_well: usize,
    /// Set when more were in flight than calls had ended well, and one.
    pub stampede: bool,
    pub in_flight_max: usize,
    pub checks: usize,
    pub checks_in_flight: usize,
    pub checks_in_flight_max: usize,
    /// The most runs that were in memory at a call, if somebody watches that.
    pub held_max: usize,
}

pub struct Service {
    pub telling: Mutex<Telling>,
    seen: Mutex<Seen>,
    /// Each call takes one of these and gives it back.
    pub gate: Semaphore,
    watched: OnceLock<Runtime>,
}

impl Service {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            telling: Mutex::default(),
            seen: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            watched: OnceLock::new(),
        })
    }

    /// Calls hang until the gate is given permits.
    pub fn shut() -> Arc<Self> {
        Arc::new(Self {
            telling: Mutex::default(),
            seen: Mutex::default(),
            gate: Semaphore::new(0),
            watched: OnceLock::new(),
        })
    }

    /// Looks at each call how many runs are in memory.
    pub fn watch(&self, runtime: &Runtime) {
        let _ = self.watched.set(runtime.clone());
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    pub fn fail_with(&self, failure: Option<Failure>) {
        self.telling.lock().fails = failure;
    }

    fn begin(&self, call: &Call) {
        let held = self.watched.get().map_or(0, Runtime::active_runs);
        let mut seen = self.seen.lock();
        seen.held_max = seen.held_max.max(held);
        seen.calls.push(call.idempotency_key.clone());
        seen.tenants.push(call.tenant.clone());
        seen.in_flight += 1;
        seen.in_flight_max = seen.in_flight_max.max(seen.in_flight);
        seen.stampede |= seen.in_flight > seen.ended_well + 1;
    }

    fn act(&self, key: &str) -> Result<Value, Failure> {
        let mut telling = self.telling.lock();
        if let Some(failure) = telling.fails.clone() {
            return Err(failure);
        }
        let mut seen = self.seen.lock();
        *seen.happened.entry(key.to_owned()).or_default() += 1;
        if telling.loses > 0 {
            telling.loses -= 1;
            let lost = Failure::new(Class::Timeout, "timeout", "no answer");
            return Err(lost.with_effect(EffectState::Unknown));
        }
        seen.ended_well += 1;
        Ok(json!({"key": key}))
    }
}

pub fn down() -> Failure {
    Failure::new(Class::Unavailable, "http.503", "down")
}

pub fn crash() -> Failure {
    Failure::new(Class::Internal, "plugin.trap", "it crashed")
}

#[async_trait]
impl Connector for Service {
    fn descriptor(&self) -> Descriptor {
        let actions = [
            ("read", Effect::Read),
            ("keep", Effect::Idempotent),
            ("pay", Effect::Once),
            ("post", Effect::Once),
        ];
        let mut descriptor = descriptor("service", &actions);
        descriptor.actions.get_mut("pay").unwrap().lookup = true;
        descriptor
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        self.begin(&call);
        let takes = self.telling.lock().takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let permit = self.gate.acquire().await.unwrap();
        let acted = self.act(&call.idempotency_key);
        drop(permit);
        self.seen.lock().in_flight -= 1;
        acted
    }

    async fn lookup(&self, _: &str, key: &str) -> Result<Option<Value>, Failure> {
        let happened = self.seen.lock().happened.contains_key(key);
        Ok(happened.then(|| json!({"key": key})))
    }

    async fn check(&self) -> Result<Health, Failure> {
        let (takes, fails) = {
            let telling = self.telling.lock();
            (telling.check_takes, telling.check_fails)
        };
        {
            let mut seen = self.seen.lock();
            seen.checks += 1;
            seen.checks_in_flight += 1;
            seen.checks_in_flight_max = seen.checks_in_flight_max.max(seen.checks_in_flight);
        }
        tokio::time::sleep(takes).await;
        self.seen.lock().checks_in_flight -= 1;
        if fails {
            return Err(down());
        }
        Ok(healthy())
    }
}

/// A connection without retries that waits long for a first probe.
pub fn connection(name: &str) -> Connection {
    let breaker = cofferdam::BreakerConfig {
        sliding_window_size: 2,
        minimum_number_of_calls: 2,
        wait_duration_in_open_state_ms: HOUR_MS,
        ..cofferdam::BreakerConfig::default()
    };
    Connection::new(name, "no-such-plugin")
        .with_retry(1, cofferdam_core::retry::Backoff::default())
        .with_breaker(breaker)
}

/// A runtime at an instant, with a service behind each connection.
pub async fn open_at(
    store: &MemoryStore,
    from_ms: u64,
    connections: impl IntoIterator<Item = (Connection, Arc<Service>)>,
) -> Runtime {
    let (mut config, mut services) = (Config::new(), Vec::new());
    for (connection, service) in connections {
        services.push((connection.name().to_owned(), service));
        config = config.with_connection(connection);
    }
    let store: Arc<dyn JournalStore> = Arc::new(store.clone());
    let mut builder = Runtime::builder(config)
        .store(store)
        .clock(Clock::tokio(from_ms));
    for (name, service) in services {
        builder = builder.connector(&name, service);
    }
    builder.open().await.unwrap()
}

pub async fn open(
    store: &MemoryStore,
    connections: impl IntoIterator<Item = (Connection, Arc<Service>)>,
) -> Runtime {
    open_at(store, EPOCH_MS, connections).await
}

/// One call of an action, with a policy.
pub fn one_call(runtime: &Runtime, target: &str, policy: &str) -> Definition {
    let task =
        format!("  - act: {{call: {target}, with: {{}}, metadata: {{cofferdam: {{{policy}}}}}}}\n");
    runtime.define(&sources(&task)).unwrap()
}

pub async fn start(runtime: &Runtime, definition: &Definition, id: &str) -> String {
    let options = StartOptions {
        id: Some(id.to_owned()),
        ..Default::default()
    };
    let started = runtime.start_with(definition, json!({}), options).await;
    started.unwrap()
}

/// Where a run has come to: its end, or a wait.
pub async fn settle(runtime: &Runtime, run: &str) -> RunView {
    let settled = tokio::time::timeout(LONG, runtime.settle(run)).await;
    settled.expect("every run settles").unwrap()
}

pub async fn wait(runtime: &Runtime, run: &str) -> RunView {
    let ended = tokio::time::timeout(LONG, runtime.wait(run)).await;
    ended.expect("every run ends").unwrap()
}

pub async fn call(runtime: &Runtime, definition: &Definition, id: &str) -> RunView {
    let run = start(runtime, definition, id).await;
    settle(runtime, &run).await
}

/// The code of the failure that a run ended with.
pub fn code(view: &RunView) -> String {
    let error = view.error.as_ref().expect("it faulted");
    error.cofferdam.as_ref().unwrap().code.clone()
}

pub fn state(runtime: &Runtime, name: &str) -> ConnectionState {
    let states = runtime.connections();
    states.into_iter().find(|s| s.name == name).unwrap()
}
