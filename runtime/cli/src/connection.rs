//! `cofferdam connection …`

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use cofferdam::ConnectionState;
use cofferdam::config::Connection;
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

/// What can be done with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionVerb {
    /// List the configured connections: plugin, grants, limits, policy
    #[command(after_long_help = EXAMPLES)]
    List,
    /// Show how connections are in the process that has the store open
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status,
}

pub fn run(context: &Context, verb: &ConnectionVerb) -> Result<ExitCode> {
    match verb {
        ConnectionVerb::List => list(context),
        ConnectionVerb::Status => status(context),
    }
}

fn status(context: &Context) -> Result<ExitCode> {
    let store = context.store_path()?;
    let request = cofferdam::control::Request::Connections;
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
    let rows: Vec<[String; 8]> = states.iter().map(status_row).collect();
    let head = [
        "CONNECTION",
        "PLUGIN",
        "GENERATION",
        "BREAKER",
        "PLUGIN IS",
        "CALLS",
        "FAILED",
        "PARKED",
    ];
    output::table(head, &rows)?;
    for state in &states {
        if let Some(failure) = &state.last_failure {
            eprintln!("{}: last failure: {failure}", state.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status_row(state: &ConnectionState) -> [String; 8] {
    let generation = match state.trial {
        Some(trial) => format!("{} (trial: {trial})", state.generation),
        None => state.generation.to_string(),
    };
    [
        state.name.clone(),
        format!("{} {}", state.plugin, state.version),
        generation,
        state.breaker.clone(),
        crate::plugin::history::health(state.quarantine),
        state.calls.to_string(),
        state.failures.to_string(),
        state.parked.to_string(),
    ]
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
