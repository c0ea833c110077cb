//! `cofferdam reviews …`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use cofferdam::Decision;

use crate::context::{Context, block_on};
use crate::follow::follow;
use crate::run::tell;
use crate::runs::instant;
use crate::{input, interrupt, output};

const EXAMPLES_LIST: &str = "\
A task is in review when only a person can know what to do: a call that may have happened and must
not happen twice, a failing undo.

Examples:
  cofferdam reviews list
  cofferdam reviews list --output json";

const EXAMPLES_DECIDE: &str = "\
  approve  the call happened: go on with this value as its output
  retry    the call did not happen: call again
  reject   give up; the task fails with this reason

The decision is on the disk before the run goes on. The run is then followed as by `cofferdam run`.

Examples:
  cofferdam reviews decide 01K0ABC /charge approve --value '{\"id\": \"ch_1\"}'
  cofferdam reviews decide 01K0ABC /charge retry
  cofferdam reviews decide 01K0ABC /charge reject --reason \"the customer cancelled\"";

/// What can be done with reviews.
#[derive(Debug, Subcommand)]
pub enum ReviewsVerb {
    /// List tasks that wait for a person
    #[command(after_long_help = EXAMPLES_LIST)]
    List,
    /// Decide about a task, and let its run go on
    #[command(after_long_help = EXAMPLES_DECIDE)]
    Decide(DecideArgs),
}

/// What `reviews decide` takes.
#[derive(Debug, Args)]
pub struct DecideArgs {
    /// The run's id
    run: String,
    /// The task, as `reviews list` names it
    task: String,
    #[command(subcommand)]
    decision: DecisionArgs,
    /// How long to wait for the run if it is parked or waits for a person again
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::args::duration)]
    wait: Duration,
}

/// What can be decided.
#[derive(Debug, Subcommand)]
enum DecisionArgs {
    /// The call happened: go on with this output
    Approve {
        /// The output: JSON, `@FILE`, or `-` for standard input
        #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
        value: String,
    },
    /// The call did not happen: call again
    Retry,
    /// Give up
    Reject {
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub fn run(context: &Context, verb: ReviewsVerb) -> Result<ExitCode> {
    match verb {
        ReviewsVerb::List => list(context),
        ReviewsVerb::Decide(args) => decide(context, args),
    }
}

fn list(context: &Context) -> Result<ExitCode> {
    let archive = context.archive()?;
    let reviews = archive.query().reviews()?;
    if context.is_json() {
        output::json(&reviews)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 4]> = reviews
        .iter()
        .map(|review| {
            [
                review.run.clone(),
                review.task.clone(),
                instant(review.at_ms),
                review.failure.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no reviews in {}", archive.path().display());
    }
    output::table(["RUN", "TASK", "SINCE", "WHY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn decide(context: &Context, args: DecideArgs) -> Result<ExitCode> {
    let decision = match args.decision {
        DecisionArgs::Approve { value } => Decision::Approve {
            output: input::inline(&value)?,
        },
        DecisionArgs::Retry => Decision::Retry,
        DecisionArgs::Reject { reason } => Decision::Reject { reason },
    };
    block_on(async {
        let runtime = context.runtime().await?;
        let done = match runtime.decide(&args.run, &args.task, decision).await {
            Err(error) => Err(error.into()),
            Ok(()) => match follow(&runtime, &args.run, args.wait, interrupt::asked()).await {
                Ok(followed) => tell(context, &args.run, followed, false),
                Err(error) => Err(error),
            },
        };
        runtime.shutdown().await;
        done
    })
}
