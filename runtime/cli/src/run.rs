//! `cofferdam run`: one workflow, from its input to its output.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cofferdam::Sources;
use cofferdam::config::Connection;
use cofferdam::{Act, Config, OnConflict, RunView, Runtime, StartOptions, Status};
use serde_json::Value;

use crate::context::{Context, block_on};
use crate::exit::{self, usage};
use crate::follow::{Followed, follow};
use crate::reach::{Others, Reach};
use crate::{input, interrupt, output};

pub const EXAMPLES: &str = "\
Prints the workflow's output as JSON, alone, on standard output. A run that faults prints its error
object on standard error and exits with 1. A run that is parked or waits for a person is told on
standard error with exit code 3, and goes on with `cofferdam runs resume`; pauses of up to a minute
(retries, `wait`) are waited for in any case. Ctrl-C stops gracefully: the run can be resumed.

Examples:
  cofferdam run lead-intake.yaml --input lead.json --config cofferdam.toml
  echo '{\"email\": \"ada@example.com\"}' | cofferdam run lead-intake.yaml --input - --details
  cofferdam run fetch.yaml --allow-http https://api.example.com
  cofferdam run nightly.yaml --id nightly-2026-11-21 --wait 10m";

/// What `run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The workflow (Open Workflow Specification, YAML or JSON)
    workflow: PathBuf,
    /// Its input as JSON: a file, or `-` for standard input [default: an empty object]
    #[arg(long, value_name = "FILE|-")]
    input: Option<String>,
    /// Let `call: http` reach the origin of this URL; may be repeated
    #[arg(long, value_name = "URL")]
    allow_http: Vec<String>,
    /// Print an envelope: run, status, output or error, provenance and tasks
    #[arg(long)]
    details: bool,
    /// How long to wait for a run that is parked or waits for a person
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::args::duration)]
    wait: Duration,
    /// The run's id; starting the same id again gives the run that there is
    #[arg(long, value_name = "RUN")]
    id: Option<String>,
    /// What the start is for, instead of an id: starts of this workflow with the same key and the
    /// same input are one run
    #[arg(long, value_name = "KEY", conflicts_with = "id")]
    key: Option<String>,
    /// What to do if there is a run of this id or key
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    on_conflict: Conflict,
    /// Whom the run belongs to
    #[arg(
        long,
        value_name = "TENANT",
        default_value = "",
        hide_default_value = true
    )]
    tenant: String,
    /// 0 to 9: higher ones go first among the runs of the tenant that wait [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Runs with the same key of this kind go one after another, or as many at a time as
    /// [workflows.concurrency] says
    #[arg(long, value_name = "KEY")]
    concurrency_key: Option<String>,
}

/// What to do if there is a run.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Conflict {
    /// Give that run
    #[default]
    UseExisting,
    /// Fail
    Fail,
    /// Begin another one if that one faulted or was cancelled
    RestartIfFaulted,
    /// Begin another one if that one has ended
    RestartIfEnded,
}

impl From<Conflict> for OnConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::UseExisting => Self::UseExisting,
            Conflict::Fail => Self::Fail,
            Conflict::RestartIfFaulted => Self::RestartIfFaulted,
            Conflict::RestartIfEnded => Self::RestartIfEnded,
        }
    }
}

pub fn run(context: &Context, args: &RunArgs) -> Result<ExitCode> {
    let context = &context.beside(&args.workflow);
    let input = match &args.input {
        Some(path) => input::from_file(path)?,
        None => Value::Object(serde_json::Map::new()),
    };
    if !args.workflow.is_file() {
        let path = args.workflow.display();
        return Err(usage(format!(
            "cannot read the workflow `{path}`: {}\nhelp: check the path",
            if args.workflow.exists() {
                "it is no file"
            } else {
                "no such file"
            }
        )));
    }
    let config = allow_http(context.config()?, &args.allow_http)?;
    block_on(async {
        let sources = config.read_workflow(&args.workflow)?;
        let reach = Reach::new(config, Others::GoOn).await?;
        let done = start(context, args, &reach, sources, input).await;
        reach.close().await;
        done
    })
}

async fn start(
    context: &Context,
    args: &RunArgs,
    reach: &Reach,
    sources: Sources,
    input: Value,
) -> Result<ExitCode> {
    let interrupted = interrupt::asked();
    if matches!(reach, Reach::Held(_)) && !args.allow_http.is_empty() {
        return Err(usage(
            "CD0216: --allow-http cannot change what a process that has the store open may reach\n\
             help: configure [connections.http] there, or name another store with --data DIR",
        ));
    }
    if let Reach::Open(runtime) = reach {
        for warning in runtime.define(&sources)?.warnings() {
            eprintln!("warning: {warning}");
        }
    }
    let options = StartOptions {
        id: args.id.clone(),
        key: args.key.clone(),
        on_conflict: args.on_conflict.into(),
        tenant: args.tenant.clone(),
        priority: args.priority,
        concurrency_key: args.concurrency_key.clone(),
    };
    let act = Act::Start {
        sources,
        input,
        options,
    };
    let run: String = reach.act(act).await?;
    if context.verbose() {
        eprintln!("run {run}");
    }
    let followed = follow(reach, &run, args.wait, interrupted).await?;
    tell(context, &run, followed, args.details)
}

/// Lets `plugin swap` and its like reach this process. That it cannot be reached stops no run.
pub fn listen(runtime: &Runtime) {
    if let Err(error) = runtime.listen() {
        eprintln!("warning: this process cannot be asked by others: {error}");
    }
}

/// Does something that lets no run go on, and says nothing if it is done.
pub fn act_alone(context: &Context, act: Act) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    block_on(async {
        let reach = Reach::new(config, Others::Stay).await?;
        let done = reach.act::<()>(act).await;
        reach.close().await;
        done
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The built-in connection for `call: http`, with these origins besides what is configured.
fn allow_http(config: Config, urls: &[String]) -> Result<Config> {
    if urls.is_empty() {
        return Ok(config);
    }
    let configured = config.connection("http").cloned();
    let mut connection = configured.unwrap_or_else(|| Connection::new("http", "http"));
    for url in urls {
        connection = connection.allow_http(origin(url)?);
    }
    Ok(config.with_connection(connection))
}

/// The origin of a URL, which is what can be granted.
pub fn origin(url: &str) -> Result<String> {
    const FORM: &str = "help: write a URL such as https://api.example.com or http://127.0.0.1:8080";
    let parsed = url::Url::parse(url)
        .map_err(|error| usage(format!("--allow-http `{url}`: {error}\n{FORM}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(usage(format!(
            "--allow-http `{url}`: only http and https can be allowed\n{FORM}"
        )));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(usage(format!(
            "--allow-http: a URL with credentials cannot be allowed\n{FORM}"
        )));
    }
    Ok(parsed.origin().ascii_serialization())
}

/// Prints what became of a run and chooses the exit code.
pub fn tell(context: &Context, run: &str, followed: Followed, details: bool) -> Result<ExitCode> {
    let (view, is_waiting) = match followed {
        Followed::Ended(view) => (view, false),
        Followed::Waiting(view) => (view, true),
        Followed::Interrupted => {
            eprintln!(
                "stopped; nothing is lost. Go on with: {}",
                context.resume_command(run)
            );
            return Ok(ExitCode::from(exit::WAITING));
        }
    };
    if details {
        output::json(&view)?;
    }
    if is_waiting {
        tell_waiting(context, &view);
        return Ok(ExitCode::from(exit::WAITING));
    }
    if view.status == Status::Faulted {
        if let Some(error) = &view.error {
            eprintln!("{}", serde_json::to_string_pretty(error)?);
        }
        return Ok(ExitCode::from(exit::FAILED));
    }
    if view.status == Status::Cancelled {
        let reason = view.cancelled.as_ref().and_then(|c| c.reason.as_deref());
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        eprintln!("run {} was cancelled{reason}", view.run);
        return Ok(ExitCode::from(exit::FAILED));
    }
    tell_degraded(&view);
    if !details {
        output::json(&view.output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_waiting(context: &Context, view: &RunView) {
    match view.status {
        Status::Suspended => eprintln!("run {} is suspended", view.run),
        Status::Queued => eprintln!("run {} waits for its turn", view.run),
        _ => eprintln!("run {} waits:", view.run),
    }
    for wait in &view.waits {
        let subject = if wait.task.is_empty() {
            "it"
        } else {
            &wait.task
        };
        eprintln!("  {subject} {}", wait.sentence(crate::runs::instant));
    }
    eprintln!("go on with: {}", context.resume_command(&view.run));
    let for_person = view
        .tasks
        .iter()
        .find(|t| t.waits_for == Some(cofferdam::WaitsFor::Person));
    if let Some(task) = for_person {
        eprintln!(
            "decide with: {}",
            context.command(&format!(
                "reviews approve|retry|reject {} {}",
                view.run, task.task
            ))
        );
    }
}

fn tell_degraded(view: &RunView) {
    if view.degraded {
        let parts: Vec<String> = view
            .provenance
            .iter()
            .filter(|(_, provenance)| provenance.is_degraded())
            .map(|(task, provenance)| format!("{task} {provenance}"))
            .collect();
        eprintln!("degraded: {}", parts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_allowed_by_its_origin() {
        assert_eq!(
            origin("https://api.example.com/v1?x=1").unwrap(),
            "https://api.example.com"
        );
        assert_eq!(
            origin("http://127.0.0.1:8080/").unwrap(),
            "http://127.0.0.1:8080"
        );
        for bad in [
            "api.example.com",
            "ftp://example.com",
            "https://u:p@example.com",
            "https://",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
