//! From TOML to a [`Connection`].

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::quarantine;
use cofferdam_core::rate::Rate;
use cofferdam_core::retry::{Backoff, DELAY_MS_CEILING, Growth};
use cofferdam_core::run::Binding;
use cofferdam_host::{Directory, Grants, PublicKey, Secret, SmtpGrant, SmtpTls, SqlGrant, Trust};

use super::Config;
use super::connection::{Connection, Limited};
use super::document::{Item, Section};
use super::error::Error;
use super::plugins::PluginRef;
use super::resilience;
use crate::Engine;

/// Of each run at least so many records are kept: several checkpoints are written meanwhile.
const RECORDS_MIN: u64 = 10_000;
/// A century is for ever.
const RETENTION_MAX: Duration = Duration::from_hours(100 * 366 * 24);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
/// Parking and whole tasks are bounded by this; longer waits belong into the workflow.
pub(super) const MONTH: Duration = Duration::from_hours(24 * 31);
const ATTEMPTS_MAX: u64 = 100;
const FACTOR_MAX: f64 = 100.0;
/// Enough to switch it off where crashing is the point.
const STRIKES_MAX: u64 = 1_000_000;
const POOL_MAX: u64 = 1_000;
const RATE_CALLS_MAX: u64 = 1_000_000;
/// No secret is larger; whatever is has the wrong path.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The bundle of a whole operating system has some 200 KiB.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;

/// What a connection inherits.
pub(super) struct Defaults {
    pub limits: Limited,
    pub plugins_dir: Option<Arc<PathBuf>>,
}

pub(super) fn connection(item: &Item<'_>, defaults: &Defaults) -> Result<Connection, Error> {
    let section = item.section()?;
    section.only(&[
        "plugin",
        "allow-unsigned",
        "enabled",
        "backups",
        "on-outage",
        "park-deadline",
        "config",
        "secrets",
        "grants",
        "limits",
        "retry",
        "timeout",
        "breaker",
        "bulkhead",
        "health",
        "outbox",
        "deliver-within",
        "quarantine",
        "rate-limit",
        "hedge",
        "cache",
        "review",
        "on-unknown",
        "on-exhausted",
    ])?;
    let plugin = section.require(
        "plugin",
        "write `plugin = \"NAME\"`, or a path to a .wasm file",
    )?;
    let enabled = section
        .get("enabled")
        .map_or(Ok(true), |item| item.bool())?;
    let config = match section.section("config")? {
        Some(_) => section
            .get("config")
            .map_or(Ok(serde_json::Value::Null), |item| item.json())?,
        None => serde_json::json!({}),
    };
    let connection = Connection {
        name: item.name.clone(),
        plugin: PluginRef::parse(plugin.text()?, item.document.base_dir),
        enabled,
        config,
        secrets: secrets(&section, enabled)?,
        grants: grants(&section, enabled)?,
        limits: rated(&section, limits(&section, &defaults.limits)?)?,
        binding: binding(&section)?,
        answers: super::tasks::answers(&section)?,
        attempts_chosen: section
            .section("retry")?
            .is_some_and(|retry| retry.get("attempts").is_some()),
        breaker: resilience::breaker(&section)?,
        bulkhead: resilience::bulkhead(&section)?,
        health: resilience::health(&section)?,
        outbox_max: resilience::outbox_max(&section)?,
        quarantine: quarantine(&section)?,
        allow_unsigned: section
            .get("allow-unsigned")
            .map(|item| item.bool())
            .transpose()?,
        place: section.place(),
        plugins_dir: defaults.plugins_dir.clone(),
    };
    connection.validate()?;
    Ok(connection)
}

/// Reads what keeps the store, and what it leaves free.
pub(super) fn store(section: &Section<'_>, config: &mut Config) -> Result<(), Error> {
    if let Some(item) = section.get("engine") {
        let engines = Engine::ALL.map(|engine| (engine.as_str(), engine));
        config.engine = Some(item.choice(&engines)?);
    }
    if let Some(item) = section.get("reserve") {
        config.store_options.reserve_bytes = item.bytes()?;
    }
    if let Some(item) = section.get("retention") {
        config.retention = Some(item.duration(RETENTION_MAX)?);
    }
    if let Some(item) = section.get("records-max") {
        config.records_max = Some(item.integer(RECORDS_MIN, i64::MAX as u64)?);
    }
    Ok(())
}

/// Reads whom `[plugins]` lets vouch for plugins.
pub(super) fn trust(section: &Section<'_>) -> Result<Trust, Error> {
    let mut trust = Trust::default();
    if let Some(list) = section.get("trusted-keys") {
        for item in list.items()? {
            let key = PublicKey::parse(item.text()?, "the key").map_err(|error| {
                item.refuse(
                    error.to_string(),
                    "write the line that `cofferdam plugin keygen` printed for the signer",
                )
            })?;
            trust.keys.push(key);
        }
    }
    if let Some(item) = section.get("allow-unsigned") {
        trust.allow_unsigned = item.bool()?;
    }
    Ok(trust)
}

fn secrets(section: &Section<'_>, enabled: bool) -> Result<Vec<Secret>, Error> {
    let Some(section) = section.section("secrets")? else {
        return Ok(Vec::new());
    };
    let secret = |item: Item<'_>| {
        let audience = match item.value.as_table() {
            Some(_) => item.section()?.get("audience"),
            None => None,
        };
        let audience = audience.map_or(Ok(Vec::new()), |audience| audience.texts())?;
        let value = secret_value(&item, &["env", "file", "audience"], enabled)?;
        Ok(Secret {
            name: item.name,
            value,
            audience,
        })
    };
    section.items().into_iter().map(secret).collect()
}

/// Reads `{ env = "NAME" }` or `{ file = "path" }`; an empty text for a disabled connection.
fn secret_value(item: &Item<'_>, known: &[&str], enabled: bool) -> Result<String, Error> {
    const REMEDY: &str = "write `{ env = \"NAME\" }` or `{ file = \"path\" }`";
    if item.value.as_table().is_none() {
        return Err(item.refuse("secrets are not written into a configuration", REMEDY));
    }
    let section = item.section()?;
    section.only(known)?;
    match (section.get("env"), section.get("file")) {
        (Some(env), None) => {
            let name = env.text()?;
            if enabled {
                from_env(&env, name)
            } else {
                Ok(String::new())
            }
        }
        (None, Some(file)) => {
            let path = item.document.path(file.text()?);
            if enabled {
                from_file(&file, &path)
            } else {
                Ok(String::new())
            }
        }
        (None, None) => Err(item.refuse("it says nowhere where the secret is", REMEDY)),
        (Some(_), Some(file)) => {
            Err(file.refuse("the secret has two sources", "keep `env` or `file`"))
        }
    }
}

fn from_env(item: &Item<'_>, name: &str) -> Result<String, Error> {
    let value = (item.document.env)(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Error::Secret {
        place: item.place(),
        problem: format!("the environment variable {name} is not set, or empty"),
        remedy: format!(
            "set {name} before the start, or write `enabled = false` for the connection"
        ),
    })
}

fn from_file(item: &Item<'_>, path: &std::path::Path) -> Result<String, Error> {
    let refuse = |problem: String| Error::Secret {
        place: item.place(),
        problem,
        remedy: "name a readable file that holds the secret and nothing else".to_owned(),
    };
    let shown = path.display();
    let bytes = std::fs::metadata(path)
        .map_err(|e| refuse(format!("cannot read {shown}: {e}")))?
        .len();
    if bytes > SECRET_BYTES_MAX {
        return Err(refuse(format!(
            "{shown} has {bytes} bytes, too many for a secret"
        )));
    }
    let mut text = String::new();
    // A device has no size and no end; what is read is bounded all the same.
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|e| refuse(format!("cannot read {shown}: {e}")))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(refuse(format!("{shown} holds too much for a secret")));
    }
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        Err(refuse(format!("{shown} is empty")))
    } else {
        Ok(value.to_owned())
    }
}

fn grants(section: &Section<'_>, enabled: bool) -> Result<Grants, Error> {
    let Some(section) = section.section("grants")? else {
        return Ok(Grants::default());
    };
    section.only(&[
        "http",
        "allow-private",
        "tls-ca",
        "kv",
        "sql",
        "smtp",
        "filesystem",
    ])?;
    let flag = |name| section.get(name).map_or(Ok(false), |item| item.bool());
    Ok(Grants {
        http: section
            .get("http")
            .map_or(Ok(Vec::new()), |item| item.texts())?,
        allow_private: flag("allow-private")?,
        tls_ca: section
            .get("tls-ca")
            .filter(|_| enabled)
            .map(|item| authorities(&item))
            .transpose()?,
        kv: flag("kv")?,
        sql: section
            .section("sql")?
            .map(|sql| sql_grant(&sql, enabled))
            .transpose()?,
        smtp: section
            .section("smtp")?
            .map(|smtp| smtp_grant(&smtp, enabled))
            .transpose()?,
        filesystem: match section.get("filesystem") {
            Some(list) => list
                .items()?
                .iter()
                .map(directory)
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
    })
}

/// Reads the file; what is in it is checked when the connection is made.
fn authorities(item: &Item<'_>) -> Result<String, Error> {
    let path = item.document.path(item.text()?);
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(AUTHORITIES_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| {
            item.refuse(
                format!("cannot read {}: {error}", path.display()),
                "name a readable file with certificates in PEM",
            )
        })?;
    Ok(text)
}

fn sql_grant(section: &Section<'_>, enabled: bool) -> Result<SqlGrant, Error> {
    section.only(&["url", "password", "pool"])?;
    let url = section.require(
        "url",
        "write `postgresql://user@host:5432/name` or `sqlite:path`",
    )?;
    let pool = section
        .get("pool")
        .map_or(Ok(0), |item| item.integer(1, POOL_MAX))?;
    Ok(SqlGrant {
        url: sql_url(&url)?,
        password: password(section, enabled)?,
        pool_max: pool as u32,
    })
}

/// Refuses a URL with a password in it, without repeating it; makes a SQLite path absolute.
fn sql_url(item: &Item<'_>) -> Result<String, Error> {
    let url = item.text()?;
    let authority = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    if authority.is_some_and(|(user, _)| user.contains(':')) {
        let remedy = "take it out and write `password = { env = \"NAME\" }` beside the URL";
        return Err(item.refuse("there is a password in the URL", remedy));
    }
    let path = url
        .strip_prefix("sqlite:")
        .filter(|path| !path.starts_with([':', '/']));
    Ok(match path {
        Some(path) => format!("sqlite:{}", item.document.path(path).display()),
        None => url.to_owned(),
    })
}

fn smtp_grant(section: &Section<'_>, enabled: bool) -> Result<SmtpGrant, Error> {
    section.only(&["host", "port", "tls", "username", "password"])?;
    let host = section.require("host", "write the mail server's name")?;
    let port = section.require("port", "write 587 for STARTTLS, 465 for implicit TLS")?;
    let tls = section.get("tls").map_or(Ok(SmtpTls::StartTls), |item| {
        item.choice(&[
            ("none", SmtpTls::None),
            ("starttls", SmtpTls::StartTls),
            ("implicit", SmtpTls::Implicit),
        ])
    })?;
    Ok(SmtpGrant {
        host: host.text()?.to_owned(),
        port: port.integer(1, u64::from(u16::MAX))? as u16,
        tls,
        username: section
            .get("username")
            .map(|item| item.text().map(str::to_owned))
            .transpose()?,
        password: password(section, enabled)?,
    })
}

fn password(section: &Section<'_>, enabled: bool) -> Result<Option<String>, Error> {
    let read = |item: Item<'_>| secret_value(&item, &["env", "file"], enabled);
    section.get("password").map(read).transpose()
}

fn directory(item: &Item<'_>) -> Result<Directory, Error> {
    let section = item.section()?;
    section.only(&["host", "guest", "writable"])?;
    let host = section.require("host", "write the folder's path")?;
    let guest = section.require("guest", "write the path that the plugin sees: `/data`")?;
    let guest_path = guest.text()?;
    if !guest_path.starts_with('/') {
        return Err(guest.refuse(
            "it does not begin with a slash",
            "write a path like `/data`",
        ));
    }
    Ok(Directory {
        host_path: item.document.path(host.text()?),
        guest_path: guest_path.to_owned(),
        writable: section
            .get("writable")
            .map_or(Ok(false), |item| item.bool())?,
    })
}

/// Reads `limits` of a section, on top of what it inherits.
pub(super) fn limits(section: &Section<'_>, inherited: &Limited) -> Result<Limited, Error> {
    let mut limited = inherited.clone();
    let is_root = section.key.is_empty();
    let Some(section) = section.section("limits")? else {
        return Ok(limited);
    };
    let mut known = vec![
        "memory",
        "timeout",
        "cpu",
        "fuel",
        "output",
        "log",
        "requests",
        "concurrency",
        "queue",
    ];
    if is_root {
        // Not of a connection; see `admission.rs`.
        known.push("runs-active-max");
    }
    section.only(&known)?;
    let limits = &mut limited.limits;
    for item in section.items() {
        match item.name.as_str() {
            "memory" => limits.memory_bytes = item.bytes()?,
            "timeout" => limits.timeout = item.duration(HOUR)?,
            "cpu" => limits.cpu_time = item.duration(HOUR)?,
            "fuel" if item.value.as_str() == Some("unlimited") => limits.fuel = None,
            "fuel" => limits.fuel = Some(item.integer(0, u64::MAX)?),
            "output" => limits.output_bytes = item.bytes()?,
            "log" => limits.log_bytes = item.bytes()?,
            "requests" => limits.requests_max = item.integer(0, u64::from(u32::MAX))? as u32,
            "concurrency" => limits.concurrency_max = item.integer(0, u64::from(u32::MAX))? as u32,
            "runs-active-max" => {}
            _ => limits.queue_max = item.integer(0, u64::from(u32::MAX))? as u32,
        }
        // After each key, so that the message has the place of the one that is out of range.
        limits.validate().map_err(|error| match error {
            cofferdam_host::Error::BadLimit { reason, .. } => {
                let problem = format!("{} is out of range", item.shown());
                item.refuse(problem, format!("it {reason}"))
            }
            other => item.refuse(other.to_string(), "choose another value"),
        })?;
    }
    limited.memory_chosen |= section.get("memory").is_some();
    limited.timeout_chosen |= section.get("timeout").is_some();
    limited.cpu_chosen |= section.get("cpu").is_some();
    Ok(limited)
}

/// Reads `rate-limit`: so many calls in a time, so many at once, and how long one waits.
fn rated(section: &Section<'_>, mut limited: Limited) -> Result<Limited, Error> {
    let Some(section) = section.section("rate-limit")? else {
        return Ok(limited);
    };
    section.only(&["calls", "per", "burst", "max-wait"])?;
    let count = |item: &Item<'_>| item.integer(1, RATE_CALLS_MAX).map(|count| count as u32);
    let calls = count(&section.require("calls", "write how many calls in each `per`")?)?;
    let burst = section
        .get("burst")
        .map_or(Ok(calls), |item| count(&item))?;
    let per = section
        .get("per")
        .map_or(Ok(Duration::from_secs(1)), |item| item.duration(HOUR))?;
    let rate = Rate::new(calls, per, burst).map_err(|error| Error::Value {
        place: section.place(),
        problem: error.to_string(),
        remedy: "choose a value in that range".to_owned(),
    })?;
    let max_wait = section
        .get("max-wait")
        .map_or(Ok(Duration::ZERO), |item| item.duration(HOUR))?;
    limited.limits.rate = Some(rate.with_max_wait(max_wait));
    Ok(limited)
}

fn binding(section: &Section<'_>) -> Result<Binding, Error> {
    let mut binding = Binding {
        backups: section
            .get("backups")
            .map_or(Ok(Vec::new()), |item| item.texts())?,
        on_outage: resilience::on_outage(section)?,
        ..Binding::default()
    };
    if let Some(retry) = section.section("retry")? {
        retry.only(&["attempts", "delay", "factor", "max-delay", "rules"])?;
        if let Some(attempts) = retry.get("attempts") {
            binding.attempts_max = attempts.integer(1, ATTEMPTS_MAX)? as u32;
        }
        binding.backoff = backoff(&retry)?;
    }
    if let Some(timeout) = section.section("timeout")? {
        timeout.only(&["start-to-close", "schedule-to-close", "schedule-to-start"])?;
        if let Some(item) = timeout.get("start-to-close") {
            binding.start_to_close_ms = item.duration_ms(HOUR)?;
        }
        if let Some(item) = timeout.get("schedule-to-close") {
            binding.schedule_to_close_ms = item.duration_ms(MONTH)?;
        }
        if binding.start_to_close_ms > binding.schedule_to_close_ms {
            return Err(Error::Value {
                place: timeout.place(),
                problem: format!(
                    "one attempt may take longer ({}, start-to-close) than all of them ({}, schedule-to-close)",
                    span(binding.start_to_close_ms),
                    span(binding.schedule_to_close_ms)
                ),
                remedy: "shorten the one or lengthen the other".to_owned(),
            });
        }
    }
    super::tasks::read(section, &mut binding)?;
    Ok(binding)
}

pub(super) fn backoff(retry: &Section<'_>) -> Result<Backoff, Error> {
    let mut backoff = Backoff::default();
    if let Some(item) = retry.get("delay") {
        backoff.initial_ms = item.duration_ms(HOUR)?;
        backoff.delay_ms_max = backoff.delay_ms_max.max(backoff.initial_ms);
    }
    if let Some(item) = retry.get("factor") {
        backoff.growth = Growth::Exponential {
            factor: item.number(1.0, FACTOR_MAX)?,
        };
    }
    if let Some(item) = retry.get("max-delay") {
        backoff.delay_ms_max = item.duration_ms(Duration::from_millis(DELAY_MS_CEILING))?;
        if backoff.delay_ms_max < backoff.initial_ms {
            let delay = span(backoff.initial_ms);
            return Err(item.refuse(
                format!("{} is shorter than the first delay, {delay}", item.shown()),
                format!("write at least \"{delay}\", or a shorter `delay`"),
            ));
        }
    }
    Ok(backoff)
}

/// Milliseconds as somebody would write them: `1m 30s`.
pub(super) fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

fn quarantine(section: &Section<'_>) -> Result<quarantine::Config, Error> {
    let mut config = quarantine::Config::default();
    let Some(section) = section.section("quarantine")? else {
        return Ok(config);
    };
    section.only(&["strikes", "delay", "max-delay"])?;
    for item in section.items() {
        match item.name.as_str() {
            "strikes" => config.strikes_max = item.integer(1, STRIKES_MAX)? as u32,
            "delay" => config.delay_ms = item.duration_ms(DAY)?,
            _ => config.delay_ms_max = item.duration_ms(DAY)?,
        }
    }
    match section.get("max-delay").or_else(|| section.get("delay")) {
        Some(item) if config.delay_ms > config.delay_ms_max => Err(item.refuse(
            format!(
                "the first delay, {}, is longer than the longest, {}",
                span(config.delay_ms),
                span(config.delay_ms_max)
            ),
            "make `max-delay` at least as long as `delay`",
        )),
        _ => Ok(config),
    }
}
