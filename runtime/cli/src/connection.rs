//! `cofferdam connection …`

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, Subcommand};
use cofferdam::config::Connection;
use cofferdam::control::Request;
use cofferdam::{BreakerSetting, ConnectionState};
use serde_json::{Value, json};

use crate::context::{Context, block_on};
use crate::{exit, output};

const EXAMPLES: &str = "\
Shows what the configuration says; nothing is contacted. `cofferdam doctor` asks each connection
whether it works. Secrets are shown by name only.

Examples:
  cofferdam connection list --config cofferdam.toml
  cofferdam connection list --output json";

const STATUS_EXAMPLES: &str = "\
Asks the process that has the store open (`cofferdam serve`, or a run that is under way): breaker,
generation, quarantine, calls since it was started. Exit code 3 if there is none.

Examples:
  cofferdam connection status --config cofferdam.toml
  cofferdam connection status --output json";

const BREAKER_EXAMPLES: &str = "\
Works beside `cofferdam serve` and without it, and outlives both until `connection reset`.

Examples:
  cofferdam connection force-open crm       # no call goes to it: for its maintenance
  cofferdam connection disable-breaker crm  # every call goes to it, whatever comes of them
  cofferdam connection reset crm            # its breaker is closed, and judges again";

/// What can be done with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionVerb {
    /// List the configured connections: plugin, grants, limits, policy
    #[command(after_long_help = EXAMPLES)]
    List,
    /// Show how connections are in the process that has the store open
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status,
    /// Open a connection's breaker until it is reset: tasks park, fail over or fall back
    #[command(after_long_help = BREAKER_EXAMPLES)]
    ForceOpen(ConnectionArg),
    /// Switch a connection's breaker off until it is reset
    #[command(after_long_help = BREAKER_EXAMPLES)]
    DisableBreaker(ConnectionArg),
    /// Close a connection's breaker
    #[command(after_long_help = BREAKER_EXAMPLES)]
    Reset(ConnectionArg),
}

/// A connection by its name.
#[derive(Debug, Args)]
pub struct ConnectionArg {
    /// The connection's name in the configuration
    #[arg(value_name = "NAME")]
    connection: String,
}

pub fn run(context: &Context, verb: &ConnectionVerb) -> Result<ExitCode> {
    match verb {
        ConnectionVerb::List => list(context),
        ConnectionVerb::Status => status(context),
        ConnectionVerb::ForceOpen(of) => set_breaker(context, of, BreakerSetting::ForceOpen),
        ConnectionVerb::DisableBreaker(of) => set_breaker(context, of, BreakerSetting::Disable),
        ConnectionVerb::Reset(of) => set_breaker(context, of, BreakerSetting::Reset),
    }
}

fn set_breaker(context: &Context, of: &ConnectionArg, setting: BreakerSetting) -> Result<ExitCode> {
    let connection = of.connection.clone();
    let request = Request::Breaker {
        connection,
        setting,
    };
    let state: ConnectionState = crate::plugin::swap::ask(context, request)?;
    if context.is_json() {
        output::json(&state)?;
    } else {
        output::table(STATUS_HEAD, &[status_row(&state)])?;
    }
    Ok(ExitCode::SUCCESS)
}

const STATUS_HEAD: [&str; 10] = [
    "CONNECTION",
    "PLUGIN",
    "GENERATION",
    "BREAKER",
    "HEALTH",
    "PLUGIN IS",
    "CALLS",
    "FAILED",
    "PARKED",
    "OUTBOX",
];

fn status(context: &Context) -> Result<ExitCode> {
    let store = context.store_path()?;
    let request = Request::Connections;
    let answer = block_on(async { Ok(cofferdam::control::ask(&store, &request).await?) })?;
    let Some(answer) = answer else {
        eprintln!(
            "no process that can be asked has the store `{}` open\nhelp: start one with: {}",
            store.display(),
            context.command("serve")
        );
        return Ok(ExitCode::from(exit::WAITING));
    };
    if context.is_json() {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let states: Vec<ConnectionState> = serde_json::from_value(answer)?;
    let rows: Vec<[String; 10]> = states.iter().map(status_row).collect();
    output::table(STATUS_HEAD, &rows)?;
    for state in &states {
        if let Some(failure) = &state.last_failure {
            eprintln!("{}: last failure: {failure}", state.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status_row(state: &ConnectionState) -> [String; 10] {
    let generation = match state.trial {
        Some(trial) => format!("{} (trial: {trial})", state.generation),
        None => state.generation.to_string(),
    };
    [
        state.name.clone(),
        format!("{} {}", state.plugin, state.version),
        generation,
        state.breaker.clone(),
        state.health.clone().unwrap_or_else(|| "-".to_owned()),
        crate::plugin::history::health(state.quarantine),
        state.calls.to_string(),
        state.failures.to_string(),
        state.parked_now.to_string(),
        outbox(state),
    ]
}

/// How much is in it, and since when the oldest waits.
fn outbox(state: &ConnectionState) -> String {
    let depth = state.outbox.depth.to_string();
    let Some(oldest_ms) = state.outbox.oldest_ms else {
        return depth;
    };
    let since = UNIX_EPOCH + Duration::from_millis(oldest_ms);
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
    format!("{depth} (oldest: {age})")
}

fn list(context: &Context) -> Result<ExitCode> {
    let config = context.config()?;
    if context.is_json() {
        output::json(&config.connections().map(details).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = config.connections().map(row).collect();
    if rows.is_empty() {
        eprintln!("no connections are configured");
    }
    output::table(
        ["CONNECTION", "PLUGIN", "ENABLED", "BACKUPS", "MAY REACH"],
        &rows,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn row(connection: &Connection) -> [String; 5] {
    let enabled = if connection.enabled() { "yes" } else { "no" };
    let backups = connection.backups().join(" ");
    let reach = reach(connection);
    [
        connection.name().to_owned(),
        connection.plugin().to_string(),
        enabled.to_owned(),
        if backups.is_empty() {
            "-".to_owned()
        } else {
            backups
        },
        if reach.is_empty() {
            "nothing".to_owned()
        } else {
            reach.join(" ")
        },
    ]
}

fn reach(connection: &Connection) -> Vec<String> {
    let grants = connection.spec().grants;
    let mut reach = grants.http;
    reach.extend(grants.sql.map(|_| "sql".to_owned()));
    reach.extend(
        grants
            .smtp
            .map(|smtp| format!("smtp://{}:{}", smtp.host, smtp.port)),
    );
    reach.extend(grants.kv.then(|| "kv".to_owned()));
    reach.extend(grants.filesystem.into_iter().map(|dir| dir.guest_path));
    reach
}

fn details(connection: &Connection) -> Value {
    let spec = connection.spec();
    let secrets: Vec<Value> = spec
        .secrets
        .iter()
        .map(|secret| json!({"name": secret.name, "audience": secret.audience}))
        .collect();
    let mut policy = json!(connection.binding_policy());
    if let Some(policy) = policy.as_object_mut() {
        // The plugin's to say, not the configuration's.
        policy.shift_remove("actions");
    }
    let limits = spec.limits;
    json!({
        "name": connection.name(),
        "plugin": connection.plugin().to_string(),
        "enabled": connection.enabled(),
        "secrets": secrets,
        "reach": reach(connection),
        "policy": policy,
        "breaker": connection.breaker(),
        "health": connection.health(),
        "bulkhead": {
            "queue": connection.bulkhead().queue_max,
            "maxWaitMs": connection.bulkhead().max_wait.as_millis() as u64,
        },
        "outbox": connection.outbox_max(),
        "limits": {
            "memoryBytes": limits.memory_bytes,
            "timeoutMs": limits.timeout.as_millis() as u64,
            "cpuMs": limits.cpu_time.as_millis() as u64,
            "fuel": limits.fuel,
            "outputBytes": limits.output_bytes,
            "logBytes": limits.log_bytes,
            "requests": limits.requests_max,
            "concurrency": limits.concurrency_max,
            "queue": limits.queue_max,
        },
    })
}
