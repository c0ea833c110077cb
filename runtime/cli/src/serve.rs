//! `cofferdam serve`: a process that stays.

use std::process::ExitCode;

use anyhow::Result;

use crate::context::{Context, block_on};
use crate::interrupt;

pub const EXAMPLES: &str = "\
Opens the store, goes on with every run that has not ended, and stays until it is asked to stop
(Ctrl-C, SIGTERM): parked runs go on when their connection works again, pauses end, plugins are
swapped by `cofferdam plugin swap` or, with `watch = true` in [plugins], when their file is written.
While it is up, `plugin …` and `connection status` ask it.

Examples:
  cofferdam serve --config cofferdam.toml
  cofferdam serve --config cofferdam.toml --data /var/lib/cofferdam -v";

pub fn run(context: &Context) -> Result<ExitCode> {
    block_on(async {
        let stop = interrupt::asked();
        let config = context.config()?;
        let runtime = crate::context::open(config).await?;
        crate::run::listen(&runtime);
        eprintln!(
            "ready: {} connections, {} runs under way; stop with Ctrl-C",
            runtime.connections().len(),
            runtime.active_runs()
        );
        stop.await;
        eprintln!("stopping; calls under way get five seconds");
        runtime.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}
