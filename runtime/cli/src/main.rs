//! The command line. Each verb parses its arguments, checks what they name, and acts; one verb
//! per file. Data goes to stdout and nothing else does; messages go to stderr.

mod args;
mod backup;
mod call;
mod chaos;
mod compile;
mod completions;
mod connection;
mod context;
mod deadletters;
mod demo;
mod doctor;
mod errors;
mod events;
mod exit;
mod follow;
mod input;
mod interrupt;
mod output;
mod plugin;
mod reach;
mod reviews;
mod run;
mod runs;
mod serve;
mod style;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use context::Context;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_clap(&error, exit::wants_json(std::env::args_os())),
    };
    let context = Context::new(&cli.global);
    log_to_stderr(cli.global.verbose);
    match act(cli.verb, &context) {
        Ok(code) => code,
        Err(error) => exit::report(&error, context.is_json()),
    }
}

fn act(verb: Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(args) => run::run(context, &args),
        Verb::Serve => serve::run(context),
        Verb::Call(args) => call::run(context, &args),
        Verb::Plugin(verb) => plugin::run(context, verb),
        Verb::Runs(verb) => runs::run(context, verb),
        Verb::Deadletters(verb) => deadletters::run(context, &verb),
        Verb::Reviews(verb) => reviews::run(context, verb),
        Verb::Connection(verb) => connection::run(context, &verb),
        Verb::Events(verb) => events::run(context, &verb),
        Verb::Backup(args) => backup::backup(context, &args),
        Verb::Restore(args) => backup::restore(context, &args),
        Verb::MigrateStore(args) => backup::migrate(context, &args),
        Verb::Doctor(args) => doctor::run(context, &args),
        Verb::Demo(args) => demo::run(context, &args),
        Verb::Chaos(args) => chaos::run(context, &args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Errors(args) => errors::run(&args),
        Verb::CompileComponent(args) => Ok(compile::run(&args)),
    }
}

/// `RUST_LOG` decides if it is set; else warnings, and more with each `-v`.
fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        // The store under the store tells in its own words what ours tells better.
        0 => "error,sled=off,fjall=off,lsm_tree=off",
        1 => "cofferdam=info,warn,sled=off,fjall=off,lsm_tree=off",
        2 => "cofferdam=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(style::stderr_is_terminal())
        .init();
}
