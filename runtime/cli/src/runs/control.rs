//! `cofferdam runs cancel | suspend | restart | fork | redrive`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cofferdam::{Act, Look, RunView, Status};

use crate::context::{Context, block_on};
use crate::follow::follow;
use crate::reach::{Others, Reach};
use crate::run::tell;
use crate::{exit, input, interrupt, output};

pub const EXAMPLES_CANCEL: &str = "\
Stops a run for good. Attempts under way are let end, or cut at their deadline. With --compensate what
was done is undone, what began last first, as if the run had faulted. A cancelled run is no dead
letter. Cancelling it again does no harm.

Exit codes: 0 it is cancelled; 2 it has ended otherwise; 3 it is still ending.

Examples:
  cofferdam runs cancel 01K0ABCDEFGHJKMNPQRSTVWXYZ --reason \"ordered twice\"
  cofferdam runs cancel 01K0ABCDEFGHJKMNPQRSTVWXYZ --compensate --wait 5m";

pub const EXAMPLES_SUSPEND: &str = "\
Lets a run begin no attempt until `cofferdam runs resume RUN`. Attempts under way end; timers that come
due wait. It stays suspended over restarts.

Examples:
  cofferdam runs suspend 01K0ABCDEFGHJKMNPQRSTVWXYZ --reason \"audit\"";

pub const EXAMPLES_RESTART: &str = "\
Begins a new run with the input of one that has ended: with the definition that it had, or with the
one that a file has now. The new run's id is told on standard error; it is followed as by `cofferdam run`.

Examples:
  cofferdam runs restart 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs restart 01K0ABCDEFGHJKMNPQRSTVWXYZ --workflow intake.yaml --id intake-again";

pub const EXAMPLES_FORK: &str = "\
Begins a new run from a task of an old one, which has ended or is suspended: what was finished before
that task began is taken over with its provenance and not repeated; the task and what follows is done
anew. Tasks are named as `cofferdam runs show RUN --output json` names them.

Examples:
  cofferdam runs fork 01K0ABCDEFGHJKMNPQRSTVWXYZ --from /charge";

pub const EXAMPLES_REDRIVE: &str = "\
Lets a run that faulted go on from the task that failed; finished tasks are not repeated. If what it did
was undone when it faulted it cannot go on from there: restart it.

Examples:
  cofferdam runs redrive 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs redrive 01K0ABCDEFGHJKMNPQRSTVWXYZ --input edited.json";

/// What `runs cancel` takes.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The run's id
    run: String,
    /// Undo what was done, what began last first
    #[arg(long)]
    compensate: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for what is under way and for undoing that waits
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::args::duration)]
    wait: Duration,
}

/// What `runs suspend` takes.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// The run's id
    run: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What verbs that make a run go on take.
#[derive(Debug, Args)]
pub struct FollowArgs {
    /// How long to wait for a run that is parked or waits for a person
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::args::duration)]
    wait: Duration,
    /// Print an envelope: run, status, output or error, provenance and tasks
    #[arg(long)]
    details: bool,
}

/// What `runs restart` takes.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The run's id
    run: String,
    /// Use the definition that this file has now
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// The new run's id
    #[arg(long, value_name = "RUN")]
    id: Option<String>,
    #[command(flatten)]
    follow: FollowArgs,
}

/// What `runs fork` takes.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The run's id
    run: String,
    /// The task from which on everything is done anew
    #[arg(long, value_name = "TASK")]
    from: String,
    /// The new run's id
    #[arg(long, value_name = "RUN")]
    id: Option<String>,
    #[command(flatten)]
    follow: FollowArgs,
}

/// What `runs redrive` takes.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// The run's id
    pub run: String,
    /// What is to come into the task that failed, as JSON: a file, or `-` for standard input
    #[arg(long, value_name = "FILE|-")]
    pub input: Option<String>,
    #[command(flatten)]
    pub follow: FollowArgs,
}

pub fn cancel(context: &Context, args: &CancelArgs) -> Result<ExitCode> {
    let act = Act::Cancel {
        run: args.run.clone(),
        reason: args.reason.clone(),
        compensate: args.compensate,
    };
    context.store_is_there()?;
    let config = context.config()?;
    block_on(async {
        // Undoing makes calls, which may have to wait for their turn and their instants.
        let others = if args.compensate {
            Others::GoOn
        } else {
            Others::Stay
        };
        let reach = Reach::new(config, others).await?;
        let done = async {
            let () = reach.act(act).await?;
            follow(&reach, &args.run, args.wait, interrupt::asked()).await?;
            show_state(context, &reach, &args.run).await
        };
        let done = done.await;
        reach.close().await;
        done
    })
}

pub fn suspend(context: &Context, args: &SuspendArgs) -> Result<ExitCode> {
    let act = Act::Suspend {
        run: args.run.clone(),
        reason: args.reason.clone(),
    };
    context.store_is_there()?;
    let config = context.config()?;
    block_on(async {
        let reach = Reach::new(config, Others::Stay).await?;
        let done = async {
            let () = reach.act(act).await?;
            show_state(context, &reach, &args.run).await
        };
        let done = done.await;
        reach.close().await;
        done
    })
}

/// Where a run is after something was done with it.
async fn show_state(context: &Context, reach: &Reach, run: &str) -> Result<ExitCode> {
    let run = run.to_owned();
    let view: RunView = reach.look(Look::Run { run }).await?;
    if context.is_json() {
        output::json(&view)?;
    } else {
        let rows = [[view.run.clone(), view.status.as_str().to_owned()]];
        output::table(["RUN", "STATUS"], &rows)?;
    }
    Ok(match view.status {
        Status::Cancelled | Status::Suspended => ExitCode::SUCCESS,
        Status::Completed | Status::Faulted => ExitCode::from(exit::FAILED),
        Status::Queued | Status::Running | Status::Waiting | Status::Compensating => {
            ExitCode::from(exit::WAITING)
        }
    })
}

pub fn restart(context: &Context, args: &RestartArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    let read = |path: &PathBuf| config.read_workflow(path);
    let act = Act::Restart {
        run: args.run.clone(),
        sources: args.workflow.as_ref().map(read).transpose()?,
        id: args.id.clone(),
    };
    begin(context, act, &args.follow)
}

pub fn fork(context: &Context, args: &ForkArgs) -> Result<ExitCode> {
    let act = Act::Fork {
        run: args.run.clone(),
        task: args.from.clone(),
        id: args.id.clone(),
    };
    begin(context, act, &args.follow)
}

/// Begins a new run and follows it.
fn begin(context: &Context, act: Act, args: &FollowArgs) -> Result<ExitCode> {
    go_on(context, args, async |reach| {
        let run: String = reach.act(act).await?;
        eprintln!("run {run}");
        Ok(run)
    })
}

pub fn redrive(
    context: &Context,
    run: &str,
    input: Option<&str>,
    follow: &FollowArgs,
) -> Result<ExitCode> {
    let act = Act::Redrive {
        run: run.to_owned(),
        input: input.map(input::from_file).transpose()?,
    };
    go_on(context, follow, async |reach| {
        let () = reach.act(act).await?;
        Ok(run.to_owned())
    })
}

/// Does what makes a run go on, and tells what becomes of it.
fn go_on(
    context: &Context,
    args: &FollowArgs,
    act: impl AsyncFnOnce(&Reach) -> Result<String>,
) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    block_on(async {
        let reach = Reach::new(config, Others::GoOn).await?;
        let done = async {
            let run = act(&reach).await?;
            let followed = follow(&reach, &run, args.wait, interrupt::asked()).await?;
            let details = args.details || context.is_json();
            tell(context, &run, followed, details)
        };
        let done = done.await;
        reach.close().await;
        done
    })
}
