//! `cofferdam call`: one action, in a chamber, without a store.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cofferdam::Config;
use cofferdam::config::Connection;
use cofferdam_host::{
    Artifact, Call, ConnectionSpec, LogLevel, LogLine, MemoryKv, Outcome, Plugin, Secret, Services,
    Trust,
};
use serde_json::{Value, json};

use crate::context::{Context, block_on};
use crate::exit::{self, usage};
use crate::{input, output, plugin, run};

pub const EXAMPLES: &str = "\
The plugin gets what is allowed here and nothing else (state that it keeps is forgotten); with --connection it gets what the
configuration gives to that connection, and what is allowed here besides. Prints the output as JSON.
A call that fails prints {class, code, message, effect, ...} and exits with 1: on standard error, or
with --output json on standard output.

Examples:
  cofferdam call ./echo.wasm echo --input '{\"text\": \"hello\"}'
  cofferdam call http get --input '{\"url\": \"https://api.example.com/v1\"}' \\
      --allow-http https://api.example.com
  cofferdam call hubspot get-contact --input @contact.json --setting base_url=http://127.0.0.1:9000 \\
      --allow-http http://127.0.0.1:9000 --secret HUBSPOT_TOKEN=MY_TOKEN@127.0.0.1
  cofferdam call hubspot get-contact --input - --connection crm --timeout 5s";

/// What `call` takes.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// The component, or the name of a plugin
    #[arg(value_name = "COMPONENT.wasm|NAME")]
    plugin: String,
    /// The action, as `cofferdam plugin inspect` names it
    action: String,
    /// The input: JSON, `@FILE`, or `-` for standard input [default: an empty object]
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// Let it send requests to the origin of this URL; may be repeated
    #[arg(long, value_name = "URL")]
    allow_http: Vec<String>,
    /// Let it use the value of an environment variable as a secret toward a host; may be repeated
    #[arg(long, value_name = "NAME=ENVVAR[@HOST]")]
    secret: Vec<String>,
    /// A setting that it reads; the value is JSON, or else text; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    setting: Vec<String>,
    /// Instructions it may spend, roughly
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Memory it may use: 64MiB
    #[arg(long, value_name = "SIZE", value_parser = crate::args::bytes)]
    memory: Option<u64>,
    /// How long it may take: 30s
    #[arg(long, value_name = "DURATION", value_parser = crate::args::duration)]
    timeout: Option<Duration>,
    /// Take config, secrets, grants and limits from this connection of the configuration
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// The idempotency key, to repeat a call safely [default: a fresh one]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Print what the call used and logged beside its output
    #[arg(long)]
    details: bool,
}

pub fn run(context: &Context, args: &CallArgs) -> Result<ExitCode> {
    let input = match &args.input {
        Some(text) => input::inline(text, "--input")?,
        None => json!({}),
    };
    let config = context.config()?;
    let path = plugin::locate(&config, &args.plugin)?;
    let host = Context::host(&config)?;
    let artifact = Artifact::read(&path)?;
    trust(args, &config).judge(&artifact)?;
    let plugin = plugin::described(host.load(artifact)?)?;
    check_action(&plugin, &args.action)?;
    let spec = spec(args, &config, &plugin)?;
    let timeout = spec.limits.timeout;
    let services = Services {
        kv: Arc::new(MemoryKv::default()),
    };
    let connection = plugin
        .connect(spec, services)
        .map_err(|error| refused(args, error))?;
    let call = Call {
        action: args.action.clone(),
        input,
        idempotency_key: args
            .key
            .clone()
            .unwrap_or_else(|| format!("call-{}", ulid::Ulid::generate())),
        attempt: 1,
        timeout,
        tenant: String::new(),
        traceparent: String::new(),
        secrets: std::collections::BTreeMap::new(),
    };
    let outcome = block_on(async { Ok(connection.invoke(call).await) })?;
    tell(context, args, &outcome)
}

/// A plugin that gets what a connection has needs what the connection's plugin needs. Any other gets
/// what the command line gives it, and may be unsigned; a signature that does not fit is refused.
fn trust(args: &CallArgs, config: &Config) -> Trust {
    match args
        .connection
        .as_deref()
        .map(|name| config.connection(name))
    {
        Some(Some(connection)) => config.trust(connection),
        // That there is none is told where it is looked up.
        Some(None) | None => Trust {
            allow_unsigned: true,
            ..config.trust_default().clone()
        },
    }
}

/// What is missing is given on the command line here, not in a file.
fn refused(args: &CallArgs, error: cofferdam_host::Error) -> anyhow::Error {
    let code = error.code();
    match error {
        cofferdam_host::Error::MissingGrant {
            plugin, what, line, ..
        } => usage(format!(
            "{code}: plugin `{plugin}` needs {what}, which is not allowed\n\
             help: allow it with --allow-http URL or --secret NAME=ENVVAR@HOST; or write `{line}` \
             into the grants of a connection and name that with --connection NAME"
        )),
        cofferdam_host::Error::BadLimit {
            key, value, reason, ..
        } => {
            let option = match key {
                "memory_bytes" => args.memory.map(|bytes| format!("--memory {bytes}B")),
                "timeout" => args
                    .timeout
                    .map(|timeout| format!("--timeout {}", humantime::format_duration(timeout))),
                "fuel" => args.fuel.map(|fuel| format!("--fuel {fuel}")),
                _ => None,
            };
            let what = option.unwrap_or_else(|| format!("`{key} = {value}`"));
            usage(format!(
                "{code}: {what}: it {reason}\nhelp: write a value in that range, or leave the option out"
            ))
        }
        other => other.into(),
    }
}

fn check_action(plugin: &Plugin, action: &str) -> Result<()> {
    let Some(descriptor) = plugin.descriptor() else {
        return Ok(());
    };
    if descriptor.actions.contains_key(action) {
        return Ok(());
    }
    let offered: Vec<&str> = descriptor.actions.keys().map(String::as_str).collect();
    Err(usage(format!(
        "plugin `{}` offers no action `{action}`\nhelp: it offers {}",
        plugin.name(),
        offered.join(", ")
    )))
}

fn spec(args: &CallArgs, config: &Config, plugin: &Plugin) -> Result<ConnectionSpec> {
    let connection = match &args.connection {
        None => Connection::new("call", &args.plugin),
        Some(name) => config.connection(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = config.connections().map(Connection::name).collect();
            let known = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            usage(format!(
                "there is no connection `{name}`\nhelp: the configuration has {known}"
            ))
        })?,
    };
    let mut spec = connection.spec_for(plugin.manifest());
    for url in &args.allow_http {
        spec.grants.http.push(run::origin(url)?);
    }
    // It ends with the call, so there is nothing to guard.
    spec.grants.kv = true;
    for text in &args.secret {
        spec.secrets.push(secret(text)?);
    }
    for text in &args.setting {
        set(&mut spec.config, text)?;
    }
    if let Some(fuel) = args.fuel {
        spec.limits.fuel = Some(fuel);
    }
    if let Some(bytes) = args.memory {
        spec.limits.memory_bytes = bytes;
    }
    if let Some(timeout) = args.timeout {
        spec.limits.timeout = timeout;
    }
    Ok(spec)
}

/// Reads `NAME=ENVVAR@HOST`. The value itself is never on the command line, where others see it.
fn secret(text: &str) -> Result<Secret> {
    let form = || {
        usage(
            "--secret is not of the form NAME=ENVVAR[@HOST]\nhelp: put the value into an environment variable and name that: TOKEN=MY_TOKEN@api.example.com",
        )
    };
    let (name, source) = text.split_once('=').ok_or_else(form)?;
    let (variable, audience) = match source.split_once('@') {
        Some((variable, host)) => (variable, vec![host.to_owned()]),
        None => (source, Vec::new()),
    };
    if name.is_empty()
        || variable.is_empty()
        || variable.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
    {
        return Err(form());
    }
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
        usage(format!("--secret {name}: the environment variable {variable} is not set\nhelp: set it before the call"))
    })?;
    Ok(Secret {
        name: name.to_owned(),
        value,
        audience,
    })
}

fn set(config: &mut Value, text: &str) -> Result<()> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
        usage(format!("--setting `{text}` is not of the form KEY=VALUE\nhelp: write --setting base_url=http://127.0.0.1:9000"))
    })?;
    if let Some(settings) = config.as_object_mut() {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        settings.insert(key.to_owned(), value);
    }
    Ok(())
}

fn tell(context: &Context, args: &CallArgs, outcome: &Outcome) -> Result<ExitCode> {
    if args.details {
        output::json(&json!({
            "output": outcome.result.as_ref().ok(),
            "failure": outcome.result.as_ref().err(),
            "usage": usage_of(outcome),
            "logs": outcome.logs,
        }))?;
    } else {
        outcome
            .logs
            .iter()
            .filter(|line| context.verbose() || line.level >= LogLevel::Warn)
            .for_each(tell_log);
    }
    match &outcome.result {
        Ok(_) if args.details => Ok(ExitCode::SUCCESS),
        Ok(value) => output::json(value).map(|()| ExitCode::SUCCESS),
        Err(_) if args.details => Ok(ExitCode::from(exit::FAILED)),
        Err(failure) => {
            if context.is_json() {
                output::json(failure)?;
            } else {
                eprintln!("{}", serde_json::to_string_pretty(failure)?);
            }
            Ok(ExitCode::from(exit::FAILED))
        }
    }
}

fn tell_log(line: &LogLine) {
    let fields = if line.fields.is_null() {
        String::new()
    } else {
        format!(" {}", line.fields)
    };
    eprintln!("{:>5}  {}{fields}", line.level.as_str(), line.message);
}

fn usage_of(outcome: &Outcome) -> Value {
    let used = &outcome.usage;
    json!({
        "fuel": used.fuel,
        "cpuMs": used.cpu.as_secs_f64() * 1e3,
        "wallMs": used.wall.as_secs_f64() * 1e3,
        "memoryBytesPeak": used.memory_bytes_peak,
        "requests": used.requests,
        "logBytes": used.log_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_json_or_text() {
        let mut config = json!({});
        for text in ["retries=3", "name=Ada", "deep={\"a\":1}"] {
            set(&mut config, text).unwrap();
        }
        assert_eq!(
            config,
            json!({"retries": 3, "name": "Ada", "deep": {"a": 1}})
        );
        assert!(set(&mut config, "nothing").is_err());
    }

    #[test]
    fn a_secret_that_is_written_out_is_refused_without_repeating_it() {
        let error = secret("TOKEN=pat-na1!secret").unwrap_err().to_string();
        assert!(!error.contains("pat-na1"), "{error}");
    }
}
