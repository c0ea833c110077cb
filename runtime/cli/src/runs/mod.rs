//! `cofferdam runs …`

pub mod control;
mod list;
mod purge;
mod resume;
mod show;
mod tree;

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub enum RunsVerb {
    /// List runs, the newest first
    #[command(after_long_help = list::EXAMPLES)]
    List(list::ListArgs),
    /// Draw a run: its tasks, attempts, times, provenance, and what it waits for
    #[command(after_long_help = show::EXAMPLES)]
    Show(show::ShowArgs),
    /// Run a workflow and print its output: the same as `cofferdam run`
    #[command(after_long_help = crate::run::EXAMPLES)]
    Start(Box<crate::run::RunArgs>),
    /// Let runs go on where they stopped, and suspended ones
    #[command(after_long_help = resume::EXAMPLES)]
    Resume(resume::ResumeArgs),
    /// Let a run begin nothing until it is resumed
    #[command(after_long_help = control::EXAMPLES_SUSPEND)]
    Suspend(control::SuspendArgs),
    /// Stop a run for good
    #[command(after_long_help = control::EXAMPLES_CANCEL)]
    Cancel(control::CancelArgs),
    /// Begin a new run with the input of one that has ended
    #[command(after_long_help = control::EXAMPLES_RESTART)]
    Restart(control::RestartArgs),
    /// Begin a new run from a task of an old one
    #[command(after_long_help = control::EXAMPLES_FORK)]
    Fork(control::ForkArgs),
    /// Let a run that faulted go on from the task that failed
    #[command(after_long_help = control::EXAMPLES_REDRIVE)]
    Redrive(control::RedriveArgs),
    /// Remove runs that have ended, with all that they left
    #[command(after_long_help = purge::EXAMPLES)]
    Purge(purge::PurgeArgs),
}

pub fn run(context: &Context, verb: RunsVerb) -> Result<ExitCode> {
    match verb {
        RunsVerb::List(args) => list::run(context, &args),
        RunsVerb::Show(args) => show::run(context, &args),
        RunsVerb::Start(args) => crate::run::run(context, &args),
        RunsVerb::Resume(args) => resume::run(context, &args),
        RunsVerb::Suspend(args) => control::suspend(context, &args),
        RunsVerb::Cancel(args) => control::cancel(context, &args),
        RunsVerb::Restart(args) => control::restart(context, &args),
        RunsVerb::Fork(args) => control::fork(context, &args),
        RunsVerb::Purge(args) => purge::run(context, &args),
        RunsVerb::Redrive(args) => {
            control::redrive(context, &args.run, args.input.as_deref(), &args.follow)
        }
    }
}

/// An instant in UTC, to the second.
pub fn instant(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// How long something took: `12ms`, `3.4s`, `2h 5m`.
pub fn span(from_ms: u64, to_ms: u64) -> String {
    let ms = to_ms.saturating_sub(from_ms);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1e3),
        _ => humantime::format_duration(Duration::from_secs(ms / 1_000)).to_string(),
    }
}
