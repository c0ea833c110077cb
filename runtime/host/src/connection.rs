//! A connection: a plugin with config, secrets, grants and limits, ready to be called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::descriptor::Descriptor;
use cofferdam_core::failure::{Class, EffectState, Failure};
use serde_json::Value;

use crate::call::{Call, Health, Occupancy, Outcome, Usage};
use crate::capabilities::kv::KeyValue;
use crate::capabilities::{secrets, smtp, sql, wasi};
use crate::chamber::{self, Answer, Work};
use crate::egress::Egress;
use crate::engines::Size;
use crate::gate::{Entered, Gate};
use crate::limits::Limits;
use crate::plugin::{Loaded, Plugin};
use crate::scrub::Scrubber;
use crate::spec::ConnectionSpec;
use crate::{Error, capabilities, limits, verdict};

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
    /// Whether the last call computed for long or was the plugin's fault: the next one then begins
    /// in the slow lane.
    pub(crate) suspect: AtomicBool,
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

impl Plugin {
    /// Joins this plugin with what an operator configured. Nothing is contacted and no guest code
    /// runs; the first call opens what it needs.
    ///
    /// # Errors
    /// [`Error::MissingGrant`] names what the plugin imports and the line that would grant it;
    /// [`Error::BadGrant`] and [`Error::BadLimit`] name the key; [`Error::DescriptorMissing`] if
    /// the component was never stamped.
    pub fn connect(&self, spec: ConnectionSpec, services: Services) -> Result<Connection, Error> {
        let named = |error| limits::named(error, &spec.name, self.manifest());
        spec.limits.validate().map_err(named)?;
        let descriptor = self.described()?;
        for capability in capabilities::ALL {
            if self.imports().contains(&capability.name()) {
                capability.admit(self, &spec)?;
            }
        }
        let size = Size::for_memory(spec.limits.memory_bytes);
        let loaded = self.loaded(size)?;
        let gate = Gate::new(&spec.limits, spec.shared.clone());
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
            suspect: AtomicBool::new(false),
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
            suspect: AtomicBool::new(false),
        })
    }
}

impl Connection {
    /// Performs one action in a chamber of its own and returns what came of it. Never panics and
    /// never outlasts the deadline by more than a few milliseconds.
    ///
    /// Dropping the future ends the call, with its requests; what they did stays done. It is over at
    /// once, or, if the guest computes at that moment, within a tick of a millisecond.
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
        let settings = &self.inner.settings;
        if let Some(failure) = secrets::missing_in(&settings.secrets, &settings.name, &call) {
            return rejected(failure);
        }
        let timeout = call.timeout.min(settings.limits.timeout);
        let asked = Instant::now();
        let entered = match self.enter(true, timeout).await {
            Ok(entered) => entered,
            Err(failure) => return rejected(failure),
        };
        let timeout = timeout.saturating_sub(asked.elapsed());
        let tenant = call.tenant.clone();
        let ran = self.run(Work::Invoke(call), tenant, timeout, entered).await;
        let result = ran.result.and_then(|answer| match answer {
            Answer::Output(text) => {
                verdict::output(&text, action, &self.inner.settings, ran.effect)
            }
            Answer::Described(_) | Answer::Health(_) | Answer::Lookup(_) => {
                Err(verdict::defect("the chamber answered another question"))
            }
        });
        let faulty = matches!(&result, Err(failure) if failure.class == Class::Internal);
        let suspect = faulty || chamber::is_long(ran.usage.cpu);
        self.inner
            .settings
            .suspect
            .store(suspect, Ordering::Relaxed);
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
        let entered = self.enter(false, timeout).await?;
        let ran = self.run(Work::Check, String::new(), timeout, entered).await;
        match ran.result? {
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
        let entered = self.enter(false, timeout).await?;
        let work = Work::Lookup {
            action: action.to_owned(),
            key: key.to_owned(),
        };
        let ran = self.run(work, String::new(), timeout, entered).await;
        match ran.result? {
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

    /// Whether it has a secret of this name.
    pub fn has_secret(&self, name: &str) -> bool {
        let secrets = &self.inner.settings.secrets;
        secrets.iter().any(|secret| secret.name == name)
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

    /// Calls of this generation that run or wait. Both are zero when all have ended, however they
    /// did.
    pub fn occupancy(&self) -> Occupancy {
        self.inner.gate.occupancy()
    }

    /// The plugin that is called.
    pub fn plugin(&self) -> &Plugin {
        &self.inner.plugin
    }

    async fn run(
        &self,
        work: Work,
        tenant: String,
        timeout: Duration,
        entered: Entered,
    ) -> chamber::Ran {
        let inner = &*self.inner;
        let host = inner.plugin.host();
        let settings = &inner.settings;
        let held = Some(entered);
        chamber::run(host, &inner.loaded, settings, work, tenant, timeout, held).await
    }

    async fn enter(&self, rated: bool, timeout: Duration) -> Result<Entered, Failure> {
        let inner = &*self.inner;
        let engines = &inner.plugin.host().inner.engines;
        let pool = engines
            .pool(inner.size)
            .map_err(|error| Failure::new(Class::Unavailable, "busy", error.to_string()))?;
        let (gate, settings) = (&inner.gate, &inner.settings);
        gate.enter(&pool.slots, settings, rated, timeout).await
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
