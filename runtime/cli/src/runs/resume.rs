//! `cofferdam runs resume`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cofferdam::{Act, Look, RunRow, RunView, Status};

use crate::context::{Context, block_on};
use crate::exit;
use crate::follow::{Followed, follow};
use crate::reach::{Others, Reach};
use crate::run::tell;
use crate::{interrupt, output};

pub const EXAMPLES: &str = "\
Takes up every run that was under way, and asks connections that runs are parked on whether they work
again; a process that has the store open does so anyway, and is asked. With a run's id its output is
printed as by `cofferdam run`, and if it was suspended it goes on; without, a line for each run that was
not finished.

Examples:
  cofferdam runs resume 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs resume --wait 10m";

/// What `runs resume` takes.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The run's id [default: every run that has not ended]
    run: Option<String>,
    /// How long to wait for runs that are parked or wait for a person
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::args::duration)]
    wait: Duration,
    /// Print an envelope: run, status, output or error, provenance and tasks
    #[arg(long, requires = "run")]
    details: bool,
}

/// How many runs are followed; the rest go on beside them.
const RUNS_MAX: usize = 10_000;

pub fn run(context: &Context, args: &ResumeArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    block_on(async {
        let reach = Reach::new(config, Others::GoOn).await?;
        let done = match &args.run {
            Some(run) => one(context, &reach, run, args).await,
            None => all(context, &reach, args.wait).await,
        };
        reach.close().await;
        done
    })
}

async fn one(context: &Context, reach: &Reach, run: &str, args: &ResumeArgs) -> Result<ExitCode> {
    let view: RunView = reach
        .look(Look::Run {
            run: run.to_owned(),
        })
        .await?;
    if view.status == Status::Suspended {
        let run = run.to_owned();
        let () = reach.act(Act::Resume { run }).await?;
    }
    let followed = follow(reach, run, args.wait, interrupt::asked()).await?;
    tell(context, run, followed, args.details)
}

async fn all(context: &Context, reach: &Reach, wait: Duration) -> Result<ExitCode> {
    let every = Look::Runs {
        status: None,
        tenant: None,
        limit: usize::MAX,
    };
    let mut runs: Vec<RunRow> = reach.look(every).await?;
    // Who suspended a run lets it go on by name.
    runs.retain(|run| !run.status.is_final() && run.status != Status::Suspended);
    runs.truncate(RUNS_MAX);
    if runs.is_empty() {
        eprintln!("every run has ended");
    }
    let deadline = tokio::time::Instant::now() + wait;
    let (mut listed, mut rows) = (Vec::new(), Vec::new());
    let (mut faulted, mut waiting) = (false, false);
    for run in &runs {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let view = match follow(reach, &run.run, left, interrupt::asked()).await? {
            Followed::Ended(view) => view,
            Followed::Waiting(view) => {
                waiting = true;
                view
            }
            Followed::Interrupted => {
                eprintln!(
                    "stopped; nothing is lost. Go on with: {}",
                    context.command("runs resume")
                );
                return Ok(ExitCode::from(exit::WAITING));
            }
        };
        faulted |= view.status == Status::Faulted;
        let why: Vec<String> = view
            .waiting()
            .map(|(task, why)| format!("{task}: {why}"))
            .collect();
        rows.push([
            view.run.clone(),
            view.status.as_str().to_owned(),
            why.join("; "),
        ]);
        listed.push(view);
    }
    if context.is_json() {
        output::json(&listed)?;
    } else {
        output::table(["RUN", "STATUS", "WAITS"], &rows)?;
    }
    Ok(match (waiting, faulted) {
        (true, _) => ExitCode::from(exit::WAITING),
        (false, true) => ExitCode::from(exit::FAILED),
        (false, false) => ExitCode::SUCCESS,
    })
}
