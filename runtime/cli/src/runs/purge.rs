//! `cofferdam runs purge`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use cofferdam::{Act, PurgeFilter, Purged, Status};
use serde_json::json;

use crate::context::{Context, block_on};
use crate::output;
use crate::reach::{Others, Reach};

pub const EXAMPLES: &str = "\
Removes runs that have ended, with all that they left: journal, inputs and outputs, dead letter, reviews.
What they published stays, and so do calls that still wait for delivery. A run that has not ended is refused:
cancel it first. A run that is gone can be started again under its id or key. Nothing is removed unless runs
are named or --ended-before says how old they have to be; --dry-run tells what would go.

Examples:
  cofferdam runs purge 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs purge --ended-before 30d --status completed --dry-run
  cofferdam runs purge --ended-before 0s --tenant acme --output json";

/// What `runs purge` takes.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// The runs' ids
    #[arg(value_name = "RUN", required_unless_present = "ended_before")]
    runs: Vec<String>,
    /// Runs that ended at least so long ago
    #[arg(long, value_name = "DURATION", value_parser = crate::args::duration)]
    ended_before: Option<Duration>,
    /// Only runs that ended like this
    #[arg(long, value_enum)]
    status: Option<Ended>,
    /// Only runs of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Remove nothing, and tell what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// How a run has ended, as it is written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ended {
    Completed,
    Faulted,
    Cancelled,
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Faulted => Self::Faulted,
            Ended::Cancelled => Self::Cancelled,
        }
    }
}

pub fn run(context: &Context, args: &PurgeArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    let removed = block_on(async {
        let reach = Reach::new(config, Others::Stay).await?;
        let removed = purge(context, args, &reach).await;
        reach.close().await;
        removed
    })?;
    if context.is_json() {
        let key = if args.dry_run {
            "wouldRemove"
        } else {
            "removed"
        };
        output::json(&json!({ key: removed }))?;
    } else {
        let done = if args.dry_run {
            "would be removed"
        } else {
            "removed"
        };
        output::text(&format!("{removed} runs {done}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes from page to page, so that each request is short, unless runs are named: of those all go, or none.
/// How many were removed, or would be.
async fn purge(context: &Context, args: &PurgeArgs, reach: &Reach) -> Result<usize> {
    let filter = PurgeFilter {
        runs: args.runs.clone(),
        ended_before_ms: args.ended_before.map(|age| age.as_millis() as u64),
        status: args.status.map(Status::from),
        tenant: args.tenant.clone(),
        dry_run: args.dry_run,
    };
    let (mut removed, mut after) = (0, None);
    loop {
        let filter = filter.clone();
        let page: Purged = reach.act(Act::Purge { filter, after }).await?;
        removed += page.runs.len();
        if args.dry_run && !context.is_json() {
            for run in &page.runs {
                eprintln!("{run}");
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(removed);
        }
    }
}
