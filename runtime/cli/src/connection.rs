//! `cofferdam connection …`

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use cofferdam::config::Connection;
use serde_json::{Value, json};

use crate::context::Context;
use crate::output;

const EXAMPLES: &str = "\
Shows what the configuration says; nothing is contacted. `cofferdam doctor` asks each connection
whether it works. Secrets are shown by name only.

Examples:
  cofferdam connection list --config cofferdam.toml
  cofferdam connection list --output json";

/// What can be done with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionVerb {
    /// List the configured connections: plugin, grants, limits, policy
    #[command(after_long_help = EXAMPLES)]
    List,
}

pub fn run(context: &Context, verb: &ConnectionVerb) -> Result<ExitCode> {
    let ConnectionVerb::List = verb;
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
