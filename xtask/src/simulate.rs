//! `cargo xtask simulate`: the engine in more simulated worlds than the tests have time for.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{
    Verb,
    shell::{self, say},
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "simulate",
    usage: "[--seeds N] [--from S] [--seed S --trace] [--mutation NAME]",
    summary: "play the engine in simulated worlds, by seed",
    help: "\
Plays the whole engine on a virtual clock, between a disk and services that fail, in processes
that die, and holds it to what is promised. One seed gives one history, on every machine.

--seeds N     so many worlds (1000), from --from S (0) on
--seed S      one world; with --trace every step of it on standard output
--mutation M  makes the engine wrong on purpose, to see the checker see it

Prints the seed of each world in which something is wrong, and a summary; exit code 1 if there is
one. `cargo xtask test` plays the first 10,000.",
    run,
};

const PROGRAM: &str = "cofferdam-simulation";

fn run(args: &[String]) -> Result<ExitCode> {
    let workspace = Workspace::host()?;
    let mut build = shell::cargo();
    // The whole workspace, so that nothing is built with other features than elsewhere.
    build.args(["build", "--workspace", "--bin", PROGRAM]);
    build.current_dir(&workspace.root);
    say("simulate", &shell::line(&build));
    shell::run(&mut build)?;
    let program = workspace.program("debug", PROGRAM);
    let status = Command::new(&program)
        .args(args)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}
