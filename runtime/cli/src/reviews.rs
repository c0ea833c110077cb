//! `cofferdam reviews …`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use cofferdam::{Act, Decision, Look, Review};

use crate::context::{Context, block_on};
use crate::follow::follow;
use crate::reach::{Others, Reach, look};
use crate::run::tell;
use crate::runs::instant;
use crate::{input, interrupt, output};

const EXAMPLES_LIST: &str = "\
A task is in review when only a person can know what to do: a call that may have happened and must
not happen twice, a failing undo, an output that does not pass the task's own checks.

Examples:
  cofferdam reviews list
  cofferdam reviews list --output json";

const EXAMPLES_SHOW: &str = "\
Prints the review as JSON: the task, why a person must decide, since when.

Examples:
  cofferdam reviews show 01K0ABC /charge";

const EXAMPLES_DECIDE: &str = "\
  approve  the call happened: go on with this value as its output; without one, with the output that
           the review shows
  answer   go on with this value, whatever happened
  retry    the call did not happen: call again
  reject   give up; the task fails with this reason

The decision is on the disk before the run goes on. The run is then followed as by `cofferdam run`.

Examples:
  cofferdam reviews approve 01K0ABC /charge --value '{\"id\": \"ch_1\"}'
  cofferdam reviews approve 01K0ABC /invoice
  cofferdam reviews answer 01K0ABC /invoice --value '{\"total\": 111}'
  cofferdam reviews retry 01K0ABC /charge
  cofferdam reviews reject 01K0ABC /charge --reason \"the customer cancelled\"";

/// What can be done with reviews.
#[derive(Debug, Subcommand)]
pub enum ReviewsVerb {
    /// List tasks that wait for a person
    #[command(after_long_help = EXAMPLES_LIST)]
    List,
    /// Print a review with everything that is known of it
    #[command(after_long_help = EXAMPLES_SHOW)]
    Show(TaskArgs),
    /// The call happened: go on with this output
    #[command(after_long_help = EXAMPLES_DECIDE)]
    Approve(ApproveArgs),
    /// Go on with this output, whatever happened
    #[command(after_long_help = EXAMPLES_DECIDE)]
    Answer(AnswerArgs),
    /// The call did not happen: call again
    #[command(after_long_help = EXAMPLES_DECIDE)]
    Retry(RetryArgs),
    /// Give up
    #[command(after_long_help = EXAMPLES_DECIDE)]
    Reject(RejectArgs),
    /// The same as `approve`, `retry` and `reject`, with the decision last
    #[command(hide = true, after_long_help = EXAMPLES_DECIDE)]
    Decide(DecideArgs),
}

/// A task in review.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// The run's id
    run: String,
    /// The task, as `reviews list` names it
    task: String,
}

/// How long the run is followed.
#[derive(Debug, Args)]
struct WaitArgs {
    /// How long to wait for the run if it is parked or waits for a person again
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::args::duration)]
    wait: Duration,
}

/// What `reviews approve` and `reviews answer` take.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The output: JSON, `@FILE`, or `-` for standard input; the one that the review shows if there
    /// is none
    #[arg(
        long,
        value_name = "JSON|@FILE|-",
        visible_alias = "output-json",
        allow_hyphen_values = true
    )]
    value: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `reviews answer` takes.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// The output: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `reviews retry` and `reviews accept` take.
#[derive(Debug, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    task: TaskArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `reviews reject` takes.
#[derive(Debug, Args)]
pub struct RejectArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What `reviews decide` takes.
#[derive(Debug, Args)]
pub struct DecideArgs {
    #[command(flatten)]
    task: TaskArgs,
    #[command(subcommand)]
    decision: DecisionArgs,
    #[command(flatten)]
    wait: WaitArgs,
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
    /// Go on with this output, whatever happened
    Answer {
        /// The output: JSON, `@FILE`, or `-` for standard input
        #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
        value: String,
    },
    /// Take the output that is looked at as it is
    Accept,
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
        ReviewsVerb::Show(args) => show(context, args),
        ReviewsVerb::Approve(args) => {
            let decision = match args.value {
                Some(value) => approve(&value)?,
                None => Decision::Accept,
            };
            decide(context, args.task, decision, args.wait.wait)
        }
        ReviewsVerb::Answer(args) => {
            let output = input::inline(&args.value, "--value")?;
            let decision = Decision::Answer { output };
            decide(context, args.task, decision, args.wait.wait)
        }
        ReviewsVerb::Retry(args) => decide(context, args.task, Decision::Retry, args.wait.wait),
        ReviewsVerb::Reject(args) => {
            let decision = Decision::Reject {
                reason: args.reason,
            };
            decide(context, args.task, decision, args.wait.wait)
        }
        ReviewsVerb::Decide(args) => {
            let decision = match args.decision {
                DecisionArgs::Approve { value } => approve(&value)?,
                DecisionArgs::Answer { value } => Decision::Answer {
                    output: input::inline(&value, "--value")?,
                },
                DecisionArgs::Accept => Decision::Accept,
                DecisionArgs::Retry => Decision::Retry,
                DecisionArgs::Reject { reason } => Decision::Reject { reason },
            };
            decide(context, args.task, decision, args.wait.wait)
        }
    }
}

fn approve(value: &str) -> Result<Decision> {
    let output = input::inline(value, "--value")?;
    Ok(Decision::Approve { output })
}

fn list(context: &Context) -> Result<ExitCode> {
    let reviews: Vec<Review> = look(context, Look::Reviews)?;
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
        eprintln!("no reviews in {}", context.store_path()?.display());
    }
    output::table(["RUN", "TASK", "SINCE", "WHY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn show(context: &Context, args: TaskArgs) -> Result<ExitCode> {
    let TaskArgs { run, task } = args;
    let review: Review = look(context, Look::Review { run, task })?;
    output::json(&review)?;
    Ok(ExitCode::SUCCESS)
}

fn decide(context: &Context, at: TaskArgs, decision: Decision, wait: Duration) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    let TaskArgs { run, task } = at;
    block_on(async {
        let reach = Reach::new(config, Others::GoOn).await?;
        let act = Act::Decide {
            run: run.clone(),
            task,
            decision,
        };
        let done = async {
            let () = reach.act(act).await?;
            let followed = follow(&reach, &run, wait, interrupt::asked()).await?;
            tell(context, &run, followed, false)
        };
        let done = done.await;
        reach.close().await;
        done
    })
}
