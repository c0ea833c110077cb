//! `cofferdam runs list`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use cofferdam::{Look, RunRow, Status};

use super::{instant, span};
use crate::context::Context;
use crate::output;
use crate::reach::look;

pub const EXAMPLES: &str = "\
Asks the process that has the store open, or reads the store: no run goes on by that. A run that was under way when its process died is shown
as running; `cofferdam runs resume` takes it up.

Examples:
  cofferdam runs list
  cofferdam runs list --status waiting --output json";

/// What `runs list` takes.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only runs that are there
    #[arg(long, value_enum)]
    status: Option<Wanted>,
    /// Only runs of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::args::count)]
    limit: usize,
}

/// A status as it is written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Wanted {
    Queued,
    Running,
    Waiting,
    Suspended,
    Compensating,
    Completed,
    Faulted,
    Cancelled,
}

impl From<Wanted> for Status {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Queued => Self::Queued,
            Wanted::Suspended => Self::Suspended,
            Wanted::Cancelled => Self::Cancelled,
            Wanted::Running => Self::Running,
            Wanted::Waiting => Self::Waiting,
            Wanted::Compensating => Self::Compensating,
            Wanted::Completed => Self::Completed,
            Wanted::Faulted => Self::Faulted,
        }
    }
}

pub fn run(context: &Context, args: &ListArgs) -> Result<ExitCode> {
    let runs: Vec<RunRow> = look(
        context,
        Look::Runs {
            status: args.status.map(Status::from),
            tenant: args.tenant.clone(),
            limit: args.limit,
        },
    )?;
    if context.is_json() {
        output::json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = runs
        .iter()
        .map(|run| {
            let degraded = if run.degraded { " (degraded)" } else { "" };
            [
                run.run.clone(),
                format!("{}{degraded}", run.status.as_str()),
                instant(run.begun_ms),
                run.ended_ms
                    .map_or_else(|| "-".to_owned(), |ended_ms| span(run.begun_ms, ended_ms)),
                run.workflow.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no such runs in {}", context.store_path()?.display());
    }
    output::table(["RUN", "STATUS", "BEGUN", "TOOK", "WORKFLOW"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
