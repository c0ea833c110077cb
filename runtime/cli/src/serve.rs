//! `cofferdam serve`: a process that stays.

use std::process::ExitCode;

use anyhow::Result;

use crate::context::{Context, block_on};
use crate::interrupt;

pub const EXAMPLES: &str = "\
Opens the store, goes on with every run that has not ended, and stays until it is asked to stop
(Ctrl-C, SIGTERM): parked runs go on when their connection works again, pauses end, plugins are
swapped by `cofferdam plugin swap` or, with `watch = true` in [plugins], when their file is written.
Workflows that [workflows] names and that have a `schedule` are run when it says so.
While it is up, `plugin …`, `events …`, `schedules …` and `connection status` ask it.

Examples:
  cofferdam serve --config cofferdam.toml
  cofferdam serve --config cofferdam.toml --data /var/lib/cofferdam -v";

pub fn run(context: &Context) -> Result<ExitCode> {
    block_on(async {
        let stop = interrupt::asked();
        let config = context.config()?;
        let runtime = crate::context::open(config).await?;
        // Before others can ask: an event that they publish then is not too early for a schedule.
        let schedules = match runtime.run_schedules().await {
            Ok(schedules) => schedules,
            Err(error) => {
                runtime.shutdown().await;
                return Err(error.into());
            }
        };
        crate::run::listen(&runtime);
        eprintln!(
            "ready: {} connections, {} runs under way, {} schedules; stop with Ctrl-C",
            runtime.connections().len(),
            runtime.active_runs(),
            schedules.len()
        );
        stop.await;
        eprintln!("stopping; calls under way get five seconds");
        runtime.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}
