//! A connection as configured, by a file or by a program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::breaker;
use cofferdam_core::health;
use cofferdam_core::manifest::Manifest;
use cofferdam_core::quarantine;
use cofferdam_core::retry::Backoff;
use cofferdam_core::run::Binding;
use cofferdam_core::workflow::OnOutage;
use cofferdam_host::{ConnectionSpec, Grants, Limits, MEMORY_BYTES_MAX, Secret};
use serde_json::Value;

use super::error::{Error, Place};
use super::plugins::{self, PluginRef};
use super::read::HOUR;
use super::resilience::Bulkhead;

/// One `[connections.NAME]`: a use of a plugin, with everything that belongs to it.
///
/// Made by a program, it is granted nothing and has these defaults: enabled, no backups, parks for
/// an hour in an outage, three attempts 1 s and 2 s apart with full jitter, 30 s for an attempt and
/// 1 h for all of them, [`Limits::default`], [`breaker::Config::default`].
#[derive(Clone)]
pub struct Connection {
    pub(super) name: String,
    pub(super) plugin: PluginRef,
    pub(super) enabled: bool,
    pub(super) config: Value,
    pub(super) secrets: Vec<Secret>,
    pub(super) grants: Grants,
    pub(super) limits: Limited,
    pub(super) binding: Binding,
    /// Whether somebody said how many attempts there are.
    pub(super) attempts_chosen: bool,
    pub(super) answers: crate::AnswerLimits,
    pub(super) breaker: breaker::Config,
    pub(super) bulkhead: Bulkhead,
    pub(super) health: Option<health::Config>,
    pub(super) outbox_max: usize,
    pub(super) quarantine: quarantine::Config,
    pub(super) allow_unsigned: Option<bool>,
    pub(super) place: Place,
    /// `[plugins] dir`.
    pub(super) plugins_dir: Option<Arc<PathBuf>>,
}

/// Limits, and whether somebody chose those that a plugin may wish for.
#[derive(Debug, Clone, Default)]
pub(super) struct Limited {
    pub limits: Limits,
    pub memory_chosen: bool,
    pub timeout_chosen: bool,
    pub cpu_chosen: bool,
}

impl Limited {
    /// The limits, lowered to what the plugin wishes where nobody chose. No wish raises one.
    fn with_wishes(&self, manifest: Option<&Manifest>) -> Limits {
        let mut limits = self.limits.clone();
        let Some(wishes) = manifest.map(|manifest| &manifest.limits) else {
            return limits;
        };
        if let Some(bytes) = wishes.memory_bytes().filter(|_| !self.memory_chosen) {
            limits.memory_bytes = bytes.min(limits.memory_bytes);
        }
        if let Some(timeout) = wishes.timeout().filter(|_| !self.timeout_chosen) {
            limits.timeout = timeout.min(limits.timeout);
        }
        if let Some(cpu) = wishes.cpu_time().filter(|_| !self.cpu_chosen) {
            limits.cpu_time = cpu.min(limits.cpu_time);
        }
        limits
    }

    /// The lines that would give the plugin what it wishes for beyond these limits.
    fn unmet(&self, manifest: &Manifest) -> Vec<String> {
        let (limits, wishes) = (&self.limits, &manifest.limits);
        // No line that would be refused: there is a most that any connection can have.
        let memory = wishes.memory_bytes().map(|w| w.min(MEMORY_BYTES_MAX));
        let memory = memory.filter(|wish| *wish > limits.memory_bytes);
        let timeout = wishes.timeout().map(|wish| wish.min(HOUR));
        let timeout = timeout.filter(|wish| *wish > limits.timeout);
        let cpu = wishes.cpu_time().map(|wish| wish.min(HOUR));
        let cpu = cpu.filter(|wish| *wish > limits.cpu_time);
        let span = |key: &str, wish| format!("{key} = \"{}\"", humantime::format_duration(wish));
        let memory = memory.map(|bytes| format!("memory = \"{}KiB\"", bytes.div_ceil(1 << 10)));
        let timeout = timeout.map(|wish| span("timeout", wish));
        let cpu = cpu.map(|wish| span("cpu", wish));
        [memory, timeout, cpu].into_iter().flatten().collect()
    }
}

impl Connection {
    /// A connection that uses a plugin, by name or by path (it contains a slash or ends in
    /// `.wasm`), and is granted nothing.
    pub fn new(name: impl Into<String>, plugin: &str) -> Self {
        let name = name.into();
        Self {
            place: Place {
                origin: "configuration".to_owned(),
                line: 0,
                column: 0,
                key: format!("connections.{name}"),
            },
            name,
            plugin: PluginRef::parse(plugin, std::path::Path::new("")),
            enabled: true,
            config: Value::Object(serde_json::Map::new()),
            secrets: Vec::new(),
            grants: Grants::default(),
            limits: Limited::default(),
            binding: Binding::default(),
            attempts_chosen: false,
            answers: crate::AnswerLimits::default(),
            breaker: breaker::Config::default(),
            bulkhead: Bulkhead::default(),
            health: None,
            outbox_max: crate::outbox::ENTRIES_MAX,
            quarantine: quarantine::Config::default(),
            allow_unsigned: None,
            plugins_dir: None,
        }
    }

    /// The settings that the plugin reads: a JSON object, not secret.
    pub fn with_config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// A secret that the plugin may use toward these hosts and never sees.
    pub fn with_secret(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        audience: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.secrets.push(Secret {
            name: name.into(),
            value: value.into(),
            audience: audience.into_iter().map(Into::into).collect(),
        });
        self
    }

    /// Lets requests go to this origin: `https://api.example.com`.
    pub fn allow_http(mut self, origin: impl Into<String>) -> Self {
        self.grants.http.push(origin.into());
        self
    }

    /// What it may reach, instead of what was granted so far.
    pub fn with_grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self
    }

    /// What its calls may use; what the plugin wishes for does not count then.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Limited {
            limits,
            memory_chosen: true,
            timeout_chosen: true,
            cpu_chosen: true,
        };
        self
    }

    /// Connections that calls fail over to, in order.
    pub fn with_backups(mut self, backups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.binding.backups = backups.into_iter().map(Into::into).collect();
        self
    }

    /// What calls do while the connection is out.
    pub fn with_on_outage(mut self, on_outage: OnOutage) -> Self {
        self.binding.on_outage = on_outage;
        self
    }

    /// How often and when transient failures are tried again; the first attempt counts.
    pub fn with_retry(mut self, attempts_max: u32, backoff: Backoff) -> Self {
        self.binding.attempts_max = attempts_max;
        self.attempts_chosen = true;
        self.binding.backoff = backoff;
        self
    }

    /// How long one attempt, and how long all attempts with the time between them, may take.
    pub fn with_timeouts(mut self, start_to_close: Duration, schedule_to_close: Duration) -> Self {
        self.binding.start_to_close_ms = start_to_close.as_millis() as u64;
        self.binding.schedule_to_close_ms = schedule_to_close.as_millis() as u64;
        self
    }

    /// When the breaker opens and closes.
    pub fn with_breaker(mut self, breaker: breaker::Config) -> Self {
        self.breaker = breaker;
        self
    }

    /// How many calls may wait for a place, and for how long.
    pub fn with_bulkhead(mut self, bulkhead: Bulkhead) -> Self {
        self.bulkhead = bulkhead;
        self
    }

    /// How many calls may wait for a place, and for how long.
    pub fn bulkhead(&self) -> Bulkhead {
        self.bulkhead
    }

    /// Probes it: while it is unhealthy no call goes to it.
    pub fn with_health(mut self, health: health::Config) -> Self {
        self.health = Some(health);
        self
    }

    /// When and how it is probed, if it is.
    pub fn health(&self) -> Option<health::Config> {
        self.health
    }

    /// Most calls that may be left to it in an outage; more are parked.
    pub fn with_outbox_max(mut self, entries: usize) -> Self {
        self.outbox_max = entries;
        self
    }

    /// Most calls that may be left to it in an outage.
    pub fn outbox_max(&self) -> usize {
        self.outbox_max
    }

    /// After how many crashes a generation is held, and for how long.
    pub fn with_quarantine(mut self, quarantine: quarantine::Config) -> Self {
        self.quarantine = quarantine;
        self
    }

    /// After how many crashes a generation is held, and for how long.
    pub fn quarantine(&self) -> quarantine::Config {
        self.quarantine
    }

    /// Whether this connection's plugin may be one that no trusted key vouches for, whatever the
    /// configuration says for all.
    pub fn with_allow_unsigned(mut self, allow: bool) -> Self {
        self.allow_unsigned = Some(allow);
        self
    }

    /// The name by which workflows call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it names as its plugin.
    pub fn plugin(&self) -> &PluginRef {
        &self.plugin
    }

    /// Whether calls are let through at all. A disabled connection's secrets are not read.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Connections that calls fail over to, in order.
    pub fn backups(&self) -> &[String] {
        &self.binding.backups
    }

    /// When its breaker opens and closes.
    pub fn breaker(&self) -> breaker::Config {
        self.breaker
    }

    /// Where it stands in the configuration.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The plugin's component, or the folder that holds it. Looks at the file system.
    ///
    /// # Errors
    /// [`Error::NoPlugin`] says where it was looked for and what is there.
    pub fn resolve_plugin(&self) -> Result<PathBuf, Error> {
        let place = self.place.with_key(format!("{}.plugin", self.place.key));
        plugins::resolve(
            &self.plugin,
            self.plugins_dir.as_ref().map(|dir| dir.as_path()),
            &place,
        )
    }

    /// What the host needs to know of it, with the operator's limits alone.
    pub fn spec(&self) -> ConnectionSpec {
        self.spec_for(None)
    }

    /// What the host needs to know of it; a limit that nobody chose is lowered to what the plugin's
    /// manifest wishes for. No manifest raises a limit.
    pub fn spec_for(&self, manifest: Option<&Manifest>) -> ConnectionSpec {
        ConnectionSpec {
            name: self.name.clone(),
            config: self.config.clone(),
            secrets: self.secrets.clone(),
            grants: self.grants.clone(),
            limits: self.limits.with_wishes(manifest),
            shared: cofferdam_host::Shared::default(),
        }
    }

    /// The lines for `[connections.NAME.limits]` that would give a plugin what its manifest wishes
    /// for and this connection does not give: `memory = "256MiB"`.
    pub fn unmet_wishes(&self, manifest: &Manifest) -> Vec<String> {
        self.limits.unmet(manifest)
    }

    /// What decisions depend on; the actions are the plugin's to name.
    pub fn binding_policy(&self) -> Binding {
        self.binding.clone()
    }

    /// What is written and can have no effect: one attempt may take longer by
    /// `timeout.start-to-close` than `limits.timeout` lets any call take, with what a plugin of this
    /// manifest wishes for. A hint, and no reason to refuse it.
    pub fn advice(&self, manifest: Option<&Manifest>) -> Option<String> {
        let limit = self.limits.with_wishes(manifest).timeout;
        let wanted = Duration::from_millis(self.binding.start_to_close_ms);
        // What nobody wrote is nobody's mistake.
        let is_written = self.binding.start_to_close_ms != Binding::default().start_to_close_ms;
        if !is_written || wanted <= limit {
            return None;
        }
        let by = match manifest.and_then(|manifest| manifest.limits.timeout()) {
            Some(wish) if wish == limit && !self.limits.timeout_chosen => "the plugin's manifest",
            _ => "the connection",
        };
        let (place, name) = (&self.place, &self.name);
        let (limit, wanted) = (
            humantime::format_duration(limit),
            humantime::format_duration(wanted),
        );
        Some(format!(
            "{place}: `connections.{name}.timeout.start-to-close` is {wanted}, and each call ends after \
             `limits.timeout` of {by}, {limit}\nhelp: write `timeout = \"{wanted}\"` under \
             [connections.{name}.limits], or lower start-to-close"
        ))
    }

    /// Refuses what would stop every call.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let refuse = |key: &str, problem: String, remedy: String| {
            let place = self.place.with_key(format!("{}.{key}", self.place.key));
            Err(Error::Value {
                place,
                problem,
                remedy,
            })
        };
        if !is_name(&self.name) {
            return Err(Error::Value {
                place: self.place.clone(),
                problem: format!("`{}` cannot be the name of a connection", self.name),
                remedy: "use 1 to 64 lower-case letters, digits, `-` and `_`, a letter first"
                    .to_owned(),
            });
        }
        if !self.config.is_object() {
            return refuse(
                "config",
                "it is no object".into(),
                "give a JSON object".into(),
            );
        }
        if let Err(error) = self.limits.limits.validate() {
            return refuse(
                "limits",
                error.to_string(),
                "choose a value in that range".into(),
            );
        }
        if let Err(error) = self.breaker.validate() {
            return refuse(
                &format!("breaker.{}", error.key),
                format!("{} is out of range", error.found),
                format!("it must be {}", error.must),
            );
        }
        if let Some(health) = &self.health
            && [
                health.interval_ms,
                health.timeout_ms,
                health.unhealthy_threshold.into(),
                health.healthy_threshold.into(),
            ]
            .contains(&0)
        {
            return refuse(
                "health",
                "an interval, a timeout or a threshold is 0".into(),
                "each has to be at least 1".into(),
            );
        }
        if self.binding.attempts_max == 0 {
            return refuse(
                "retry.attempts",
                "0 attempts are none".into(),
                "the first counts: write at least 1".into(),
            );
        }
        if self.binding.start_to_close_ms == 0
            || self.binding.start_to_close_ms > self.binding.schedule_to_close_ms
        {
            let remedy = "an attempt needs time, and no more than all attempts together";
            return refuse(
                "timeout.start-to-close",
                format!(
                    "{} ms does not fit schedule-to-close, {} ms",
                    self.binding.start_to_close_ms, self.binding.schedule_to_close_ms
                ),
                remedy.into(),
            );
        }
        Ok(())
    }
}

/// Without what a secret or a grant contains.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.name)
            .field("plugin", &self.plugin)
            .field("enabled", &self.enabled)
            .field("secrets", &self.secrets)
            .field("limits", &self.limits.limits)
            .field("binding", &self.binding)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

fn is_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=64).contains(&name.len())
        && name.bytes().all(fine)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}
