//! `cofferdam schedules …`

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use cofferdam::ScheduleRow;
use cofferdam::control::Request;
use serde_json::Value;

use crate::bus::ask;
use crate::context::Context;
use crate::output;
use crate::runs::instant;

const EXAMPLES: &str = "\
`cofferdam serve` runs the workflows that [workflows] of the configuration names and that have a
`schedule`. Here is when they are next due, and what they began last.

Examples:
  cofferdam schedules list
  cofferdam schedules pause nightly
  cofferdam schedules resume nightly";

/// What can be done with schedules.
#[derive(Debug, Subcommand)]
pub enum SchedulesVerb {
    /// List schedules
    #[command(after_long_help = EXAMPLES)]
    List,
    /// Keep a schedule from beginning runs
    #[command(after_long_help = EXAMPLES)]
    Pause {
        /// The schedule
        name: String,
    },
    /// Let a paused schedule go on; what it missed is made up for by one run
    #[command(after_long_help = EXAMPLES)]
    Resume {
        /// The schedule
        name: String,
    },
}

pub fn run(context: &Context, verb: &SchedulesVerb) -> Result<ExitCode> {
    match verb {
        SchedulesVerb::List => list(context),
        SchedulesVerb::Pause { name } => mark(context, name, true),
        SchedulesVerb::Resume { name } => mark(context, name, false),
    }
}

fn mark(context: &Context, name: &str, paused: bool) -> Result<ExitCode> {
    let name = name.to_owned();
    let _: Value = ask(context, Request::PauseSchedule { name, paused })?;
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode> {
    let schedules: Vec<ScheduleRow> = ask(context, Request::Schedules)?;
    if context.is_json() {
        output::json(&schedules)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = schedules
        .iter()
        .map(|row| {
            let next = match row.next_ms {
                _ if row.paused => "paused".to_owned(),
                Some(next_ms) => instant(next_ms),
                None if row.awaits_end => "after its run".to_owned(),
                None => "with an event".to_owned(),
            };
            let run = row.run.clone().unwrap_or_else(|| "-".to_owned());
            [
                row.name.clone(),
                row.when.clone(),
                next,
                run,
                row.workflow.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!(
            "no schedules in {}: `cofferdam serve` takes them from [workflows]",
            context.store_path()?.display()
        );
    }
    output::table(["SCHEDULE", "WHEN", "NEXT", "LAST RUN", "WORKFLOW"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
