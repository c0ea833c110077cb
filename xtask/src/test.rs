//! `cargo xtask test`: every test of the repository.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    Verb,
    args::Args,
    guests::{self, HostBuild},
    postgres, setup,
    shell::{self, say, timed},
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "test",
    usage: "[--with-postgres] [-- ARGUMENTS]",
    summary: "run every test",
    help: "\
Builds the host and the plugins, then runs the workspace's tests (with cargo-nextest if it is
installed, else with `cargo test`), the doc tests, and the plugins' unit tests on this machine.
A failing part does not stop the others; the last lines say how each part went.

ARGUMENTS are for the test runner (`-- house`, `-- -E 'package(cofferdam-core)'`); with them
the workspace's tests are the only part.

Property tests draw the same cases each time, so that a change is judged by what it changes;
PROPTEST_RNG_SEED=N draws others and PROPTEST_CASES=N more.

Tests that want PostgreSQL start a private one on a loopback address from the programs that
COFFERDAM_TEST_PG_BIN names or that are installed; --with-postgres (implied when CI is set)
lets apt-get install them. Without, these tests use SQLite.",
    run,
};

/// Where proptest looks for the seed of its cases.
const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

fn run(args: &[String]) -> Result<ExitCode> {
    let args = Args::parse(args, &["--with-postgres"], 0)?;
    let workspace = Workspace::host()?;
    let install = args.has("--with-postgres") || std::env::var_os("CI").is_some();
    let parts = run_all(&workspace, install, &args.rest)?;
    Ok(summary(&parts))
}

/// One part of the tests and how it went.
pub(crate) struct Part {
    name: &'static str,
    outcome: Result<()>,
    secs: u64,
}

impl Part {
    fn of(name: &'static str, command: &mut Command) -> Self {
        say("test", &format!("{name}: {}", shell::line(command)));
        let (outcome, secs) = timed(|| shell::run(command));
        Self {
            name,
            outcome,
            secs,
        }
    }
}

/// Runs the parts; only what is needed for them to start can fail as a whole.
pub(crate) fn run_all(workspace: &Workspace, install: bool, rest: &[String]) -> Result<Vec<Part>> {
    let cofferdam = HostBuild::Tests.build(workspace)?;
    let plugins = guests::ensure(workspace, HostBuild::Tests)?;
    let postgres = postgres::find(install)?;
    let standins = workspace.program(HostBuild::Tests.profile(), "cofferdam-standins");
    let prepare = |command: &mut Command| {
        command.current_dir(&workspace.root);
        command.env("COFFERDAM_BIN", &cofferdam);
        command
            .env("COFFERDAM_PLUGINS", &plugins)
            .env("COFFERDAM_STANDINS", &standins);
        if let Some(dir) = &postgres {
            command.env(postgres::BIN, dir);
        }
        if std::env::var_os(PROPTEST_SEED).is_none() {
            command.env(PROPTEST_SEED, "1");
        }
    };
    let mut tests = runner(setup::nextest(), rest);
    prepare(&mut tests);
    let mut parts = vec![Part::of("workspace", &mut tests)];
    if rest.is_empty() {
        let mut docs = shell::cargo();
        prepare(docs.args(["test", "--workspace", "--doc"]));
        parts.push(Part::of("doc tests", &mut docs));
        parts.push(Part::of("plugins", &mut native_guests(workspace)));
    }
    Ok(parts)
}

fn runner(nextest: bool, rest: &[String]) -> Command {
    let mut command = shell::cargo();
    if nextest {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        command.args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
    }
    command.args(rest);
    command
}

/// The plugins' unit tests, compiled for this machine.
fn native_guests(workspace: &Workspace) -> Command {
    let mut command = shell::cargo();
    command.args(["test", "--workspace", "--manifest-path"]);
    command.arg(workspace.root.join("plugins/Cargo.toml"));
    command.env("CARGO_TARGET_DIR", native_target(&workspace.target));
    command
}

/// Where guests are built for this machine; apart from the components, whose compiler may be
/// another one.
pub(crate) fn native_target(target: &Path) -> std::path::PathBuf {
    target.join("guests-native")
}

/// Says how each part went; success only if all succeeded.
pub(crate) fn summary(parts: &[Part]) -> ExitCode {
    for Part {
        name,
        outcome,
        secs,
    } in parts
    {
        match outcome {
            Ok(()) => say("test", &format!("{name}: passed ({secs} s)")),
            Err(error) => say("test", &format!("{name}: FAILED ({secs} s): {error}")),
        }
    }
    if parts.iter().all(|part| part.outcome.is_ok()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(outcome: Result<()>) -> Part {
        Part {
            name: "x",
            outcome,
            secs: 0,
        }
    }

    #[test]
    fn one_failing_part_fails_the_whole() {
        assert_eq!(summary(&[part(Ok(())), part(Ok(()))]), ExitCode::SUCCESS);
        let failed = part(Err(anyhow::anyhow!("it broke")));
        assert_eq!(summary(&[failed, part(Ok(()))]), ExitCode::FAILURE);
    }

    #[test]
    fn without_nextest_the_tests_run_with_cargo_alone() {
        let filter = ["house".to_owned()];
        assert!(shell::line(&runner(true, &filter)).starts_with("cargo nextest run --workspace"));
        let plain = shell::line(&runner(false, &filter));
        assert!(plain.starts_with("cargo test --workspace"), "{plain}");
        assert!(plain.ends_with(" house"), "{plain}");
    }
}
