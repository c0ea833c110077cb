//! `cargo xtask demo`: see it work, from nothing but a clone.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    Verb,
    args::Args,
    guests::{self, HostBuild},
    shell::{line, say},
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "demo",
    usage: "[-- ARGUMENTS]",
    summary: "build what the demo needs and run it",
    help: "\
Prepares the wasm target, builds the command line, the stand-in services and the plugins, and
runs `cofferdam demo ARGUMENTS` with COFFERDAM_PLUGINS and COFFERDAM_STANDINS set. The exit
code is the demo's own.",
    run,
};

fn run(args: &[String]) -> Result<ExitCode> {
    let args = Args::parse(args, &[], 0)?;
    let workspace = Workspace::host()?;
    // Before the plugins: an edit of the host alone does not concern them.
    let cofferdam = HostBuild::Dev.build(&workspace)?;
    let plugins = guests::ensure(&workspace, HostBuild::Dev)?;
    let mut demo = Command::new(cofferdam);
    demo.arg("demo").args(&args.rest);
    demo.env("COFFERDAM_PLUGINS", plugins);
    demo.env(
        "COFFERDAM_STANDINS",
        workspace.program(HostBuild::Dev.profile(), "cofferdam-standins"),
    );
    say("demo", &line(&demo));
    become_program(&mut demo)
}

/// Replaces this process, so that signals and the exit code are the program's own.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    use anyhow::Context;

    // `exec` only ever comes back with a reason why it could not.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", line(command)))
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result<ExitCode> {
    let code = command
        .status()?
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
