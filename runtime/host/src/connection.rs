//! A connection: a plugin with config, secrets, grants and limits, ready to be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::descriptor::Descriptor;
use cofferdam_core::failure::{Class, EffectState, Failure};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::call::{Call, Health, Outcome, Usage};
use crate::capabilities::kv::KeyValue;
use crate::capabilities::{secrets, smtp, sql, wasi};
use crate::chamber::{self, Answer, Work};
use crate::egress::Egress;
use crate::engines::Size;
use crate::limits::Limits;
use crate::plugin::{Loaded, Plugin};
use crate::scrub::Scrubber;
use crate::spec::ConnectionSpec;
use crate::{Error, capabilities, verdict};

/// What a host lends to connections from outside of this crate.
#[derive(Clone)]
pub struct Services {
    /// Where plugins keep small state; used only by connections with `kv` granted.
    pub kv: Arc<dyn KeyValue>,
}

/// A connection as its calls see it.
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) config: Value,
    pub(crate) limits: Limits,
    pub(crate) secrets: Vec<secrets::Held>,
    pub(crate) scrubber: Arc<Scrubber>,
    pub(crate) egress: Egress,
    pub(crate) kv: Option<Arc<dyn KeyValue>>,
    pub(crate) sql: Option<sql::Database>,
    pub(crate) smtp: Option<smtp::Mailer>,
    pub(crate) preopens: Vec<wasi::Preopen>,
}

/// One generation of a connection. Cheap to clone; calls that run keep it alive.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Arc<Settings>,
    plugin: Plugin,
    descriptor: Arc<Described>,
    size: Size,
    loaded: Arc<Loaded>,
    gate: Gate,
}

pub(crate) use crate::plugin::Described;

/// Lets so many calls in, so many wait, and turns the rest away.
struct Gate {
    calls: Semaphore,
    waiting: AtomicU32,
    waiting_max: u32,
}

impl Plugin {
    /// Joins this plugin with what an operator configured. Nothing is contacted and no guest code
    /// runs; the first call opens what it needs.
    ///
    /// # Errors
    /// [`Error::MissingGrant`] names what the plugin imports and the line that would grant it;
    /// [`Error::BadGrant`] and [`Error::BadLimit`] name the key; [`Error::DescriptorMissing`] if
    /// the component was never stamped.
    pub fn connect(&self, spec: ConnectionSpec, services: Services) -> Result<Connection, Error> {
        spec.limits.validate()?;
        let descriptor = self.described()?;
        for capability in capabilities::ALL {
            if self.imports().contains(&capability.name()) {
                capability.admit(self, &spec)?;
            }
        }
        let size = Size::for_memory(spec.limits.memory_bytes);
        let loaded = self.loaded(size)?;
        let gate = Gate::new(&spec.limits);
        let settings = Arc::new(Settings::new(self, spec, services)?);
        let plugin = self.clone();
        let inner = Inner {
            settings,
            plugin,
            descriptor,
            size,
            loaded,
            gate,
        };
        Ok(Connection {
            inner: Arc::new(inner),
        })
    }
}

impl Settings {
    fn new(plugin: &Plugin, spec: ConnectionSpec, services: Services) -> Result<Self, Error> {
        let place = format!("connection `{}`", spec.name);
        let egress = Egress::new(&place, &spec.grants, plugin.manifest())?;
        let held = secrets::hold(&place, spec.secrets)?;
        let mut hidden: Vec<&str> = held.iter().map(|secret| secret.value.as_str()).collect();
        let sql = spec.grants.sql.as_ref();
        let sql = sql
            .map(|grant| sql::Database::new(&place, grant, &egress))
            .transpose()?;
        hidden.extend(sql.as_ref().and_then(sql::Database::password));
        let smtp = spec.grants.smtp.as_ref();
        hidden.extend(smtp.and_then(|grant| grant.password.as_deref()));
        let scrubber = Arc::new(Scrubber::new(hidden.into_iter()));
        Ok(Self {
            sql,
            smtp: smtp
                .map(|grant| smtp::Mailer::new(&place, grant, &egress))
                .transpose()?,
            preopens: wasi::preopens(&place, &spec.grants.filesystem)?,
            kv: spec.grants.kv.then_some(services.kv),
            name: spec.name,
            config: spec.config,
            limits: spec.limits,
            secrets: held,
            scrubber,
            egress,
        })
    }

    /// For calls that are granted nothing at all.
    pub(crate) fn nothing(origin: &str) -> Result<Self, Error> {
        Ok(Self {
            name: origin.to_owned(),
            config: Value::Null,
            limits: Limits {
                requests_max: 0,
                ..Limits::default()
            },
            secrets: Vec::new(),
            scrubber: Arc::default(),
            egress: Egress::nothing()?,
            kv: None,
            sql: None,
            smtp: None,
            preopens: Vec::new(),
        })
    }
}

impl Connection {
    /// Performs one action in a chamber of its own and returns what came of it. Never panics and
    /// never outlasts the deadline by more than a few milliseconds.
    ///
    /// Dropping the future ends the call at once, with its requests; what they did stays done.
    pub async fn invoke(&self, call: Call) -> Outcome {
        let rejected = |failure| Outcome {
            result: Err(failure),
            usage: Usage::default(),
            logs: Vec::new(),
        };
        let Some(action) = self.inner.descriptor.actions.get(&call.action) else {
            return rejected(self.unknown_action(&call.action));
        };
        if let Err(violations) = action.input.check(&call.input) {
            return rejected(verdict::input_schema(&call.action, &violations));
        }
        let timeout = call.timeout.min(self.inner.settings.limits.timeout);
        let asked = Instant::now();
        let _permits = match self.enter(timeout).await {
            Ok(permits) => permits,
            Err(failure) => return rejected(failure),
        };
        let timeout = timeout.saturating_sub(asked.elapsed());
        let tenant = call.tenant.clone();
        let ran = self.run(Work::Invoke(call), tenant, timeout).await;
        let result = ran.result.and_then(|answer| match answer {
            Answer::Output(text) => {
                verdict::output(&text, action, &self.inner.settings, ran.effect)
            }
            Answer::Described(_) | Answer::Health(_) | Answer::Lookup(_) => {
                Err(verdict::defect("the chamber answered another question"))
            }
        });
        Outcome {
            result,
            usage: ran.usage,
            logs: ran.logs,
        }
    }

    /// Asks the plugin whether the system behind the connection works. Without side effects.
    ///
    /// # Errors
    /// Of the plugin, or `limit.*`, `timeout`, `busy` as with a call.
    pub async fn check(&self) -> Result<Health, Failure> {
        let timeout = self.inner.settings.limits.timeout;
        let _permits = self.enter(timeout).await?;
        match self.run(Work::Check, String::new(), timeout).await.result? {
            Answer::Health(health) => Ok(health),
            Answer::Output(_) | Answer::Described(_) | Answer::Lookup(_) => {
                Err(verdict::defect("the chamber answered another question"))
            }
        }
    }

    /// Asks the plugin whether the call with this key happened, and what came of it: the output
    /// that the call would have returned, or `None` if it certainly did not happen.
    ///
    /// # Errors
    /// Class `unsupported` if the plugin cannot tell for this action; else as with a call.
    pub async fn lookup(&self, action: &str, key: &str) -> Result<Option<Value>, Failure> {
        let Some(described) = self.inner.descriptor.actions.get(action) else {
            return Err(self.unknown_action(action));
        };
        if !self.inner.loaded.offers_recovery() || !described.lookup {
            let text = format!("action `{action}` offers no lookup");
            return Err(Failure::new(Class::Unsupported, "lookup.unsupported", text));
        }
        let timeout = self.inner.settings.limits.timeout;
        let _permits = self.enter(timeout).await?;
        let work = Work::Lookup {
            action: action.to_owned(),
            key: key.to_owned(),
        };
        match self.run(work, String::new(), timeout).await.result? {
            Answer::Lookup(None) => Ok(None),
            Answer::Lookup(Some(text)) => {
                let settings = &self.inner.settings;
                verdict::output(&text, described, settings, EffectState::None).map(Some)
            }
            Answer::Output(_) | Answer::Described(_) | Answer::Health(_) => {
                Err(verdict::defect("the chamber answered another question"))
            }
        }
    }

    /// What the plugin offers.
    pub fn descriptor(&self) -> &Descriptor {
        &self.inner.descriptor.descriptor
    }

    /// The component's SHA-256, as hexadecimal digits.
    pub fn digest(&self) -> &str {
        self.inner.plugin.digest()
    }

    /// The connection's name.
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// What one call may use.
    pub fn limits(&self) -> &Limits {
        &self.inner.settings.limits
    }

    /// The plugin that is called.
    pub fn plugin(&self) -> &Plugin {
        &self.inner.plugin
    }

    async fn run(&self, work: Work, tenant: String, timeout: Duration) -> chamber::Ran {
        let inner = &*self.inner;
        let host = inner.plugin.host();
        chamber::run(host, &inner.loaded, &inner.settings, work, tenant, timeout).await
    }

    /// Waits for a place at this connection, then for a slot of the pool.
    async fn enter(&self, timeout: Duration) -> Result<[SemaphorePermit<'_>; 2], Failure> {
        let inner = &*self.inner;
        let pool = inner
            .plugin
            .host()
            .inner
            .engines
            .pool(inner.size)
            .map_err(|error| Failure::new(Class::Unavailable, "busy", error.to_string()))?;
        let both = async {
            let place = inner.gate.enter(&inner.settings).await?;
            let slot = pool.slots.acquire().await.map_err(|_| closed())?;
            Ok([place, slot])
        };
        match tokio::time::timeout(timeout, both).await {
            Ok(entered) => entered,
            Err(_) => Err(busy(&inner.settings, "no call ended in time")),
        }
    }

    fn unknown_action(&self, action: &str) -> Failure {
        let offered: Vec<&str> = self
            .inner
            .descriptor
            .actions
            .keys()
            .map(String::as_str)
            .collect();
        let text = format!(
            "plugin `{}` offers no action `{action}`; it offers {}",
            self.descriptor().name,
            offered.join(", ")
        );
        Failure::new(Class::Unsupported, "action.unknown", text)
    }
}

impl Gate {
    fn new(limits: &Limits) -> Self {
        Self {
            calls: Semaphore::new(limits.concurrency_max as usize),
            waiting: AtomicU32::new(0),
            waiting_max: limits.queue_max,
        }
    }

    async fn enter(&self, settings: &Settings) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(permit) = self.calls.try_acquire() {
            return Ok(permit);
        }
        let _place = Waiting::enter(&self.waiting, self.waiting_max)
            .ok_or_else(|| busy(settings, "the queue is full"))?;
        self.calls.acquire().await.map_err(|_| closed())
    }
}

/// A place in the queue; given back when the wait ends, however it ends.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicU32, waiting_max: u32) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < waiting_max).then_some(count + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(settings: &Settings, why: &str) -> Failure {
    let text = format!(
        "connection `{}` has {} calls running and {why}; try later, or raise `limits.concurrency`",
        settings.name, settings.limits.concurrency_max
    );
    Failure::new(Class::Unavailable, "busy", text)
}

fn closed() -> Failure {
    Failure::new(Class::Unavailable, "busy", "the host is shutting down")
}
