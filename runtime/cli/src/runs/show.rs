//! `cofferdam runs show`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam::{Look, RunView};

use super::tree;
use crate::context::Context;
use crate::follow::now_ms;
use crate::output;
use crate::reach::look;
use crate::style::Style;

pub const EXAMPLES: &str = "\
Reads the run from its journal; it does not go on by that. Works beside a process that has the store open. For each task: what it is, how long it took, how
its output came to be (live, backup:NAME, default, stale:AGE, deferred, skipped, manual), and each attempt that failed.

Examples:
  cofferdam runs show 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs show nightly-2026-11-21 --output json";

/// What `runs show` takes.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run's id
    run: String,
}

pub fn run(context: &Context, args: &ShowArgs) -> Result<ExitCode> {
    let run = args.run.clone();
    let view: RunView = look(context, Look::Run { run })?;
    if context.is_json() {
        output::json(&view)?;
    } else {
        let resume = context.resume_command(&args.run);
        output::text(&tree::draw(&view, now_ms(), &resume, Style::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}
