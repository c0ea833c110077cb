//! `cofferdam events …`

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use cofferdam::{EventRow, Look};

use crate::context::Context;
use crate::output;
use crate::reach::look;
use crate::runs::instant;

const EXAMPLES: &str = "\
Events are CloudEvents that workflows published with `emit`.

Examples:
  cofferdam events list
  cofferdam events list --output json | jq '.[].event.data'";

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub enum EventsVerb {
    /// List the events that workflows published, the oldest first
    #[command(after_long_help = EXAMPLES)]
    List,
}

pub fn run(context: &Context, verb: &EventsVerb) -> Result<ExitCode> {
    let EventsVerb::List = verb;
    let events: Vec<EventRow> = look(context, Look::Events)?;
    if context.is_json() {
        output::json(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 4]> = events
        .iter()
        .map(|row| {
            let kind = row.event["type"].as_str().unwrap_or("-").to_owned();
            [instant(row.at_ms), kind, row.run.clone(), row.task.clone()]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no events in {}", context.store_path()?.display());
    }
    output::table(["AT", "TYPE", "RUN", "TASK"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
