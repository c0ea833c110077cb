//! `cargo xtask ci`: all that a change must pass, the cheap steps first.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{
    Verb,
    args::Args,
    deny, shell,
    shell::timed,
    test::{self, native_target},
    workspace::Workspace,
};

pub(crate) const FMT: Verb = Verb {
    name: "fmt",
    usage: "[--check]",
    summary: "format both workspaces",
    help: "With --check nothing is changed; a file that is not formatted fails.",
    run: |args| {
        let check = Args::parse(args, &["--check"], 0)?.has("--check");
        fmt(&Workspace::host()?, check)?;
        Ok(ExitCode::SUCCESS)
    },
};

pub(crate) const LINT: Verb = Verb {
    name: "lint",
    usage: "",
    summary: "run clippy over both workspaces; a warning fails",
    help: "The plugins are checked as programs of this machine, so no wasm target is needed.",
    run: |args| {
        Args::none(args)?;
        lint(&Workspace::host()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

pub(crate) const DOCS: Verb = Verb {
    name: "docs",
    usage: "",
    summary: "build the API documentation; a warning fails",
    help: "The pages are in <target>/doc.",
    run: |args| {
        Args::none(args)?;
        docs(&Workspace::host()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

pub(crate) const VERB: Verb = Verb {
    name: "ci",
    usage: "",
    summary: "everything that a change must pass",
    help: "\
Runs, in this order, fmt --check, locks (both lock files are up to date), deny, lint, docs and
test. The first failing step ends the run. `.ci/run` is the same with the settings of CI.",
    run: |args| {
        Args::none(args)?;
        run(&Workspace::host()?)
    },
};

/// Both workspaces, as cargo wants them named.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "plugins/Cargo.toml"];

type Step = (&'static str, fn(&Workspace) -> Result<()>);

/// Cheap first; documentation after clippy, whose results it shares.
const STEPS: [Step; 6] = [
    ("fmt", |workspace| fmt(workspace, true)),
    ("locks", locks),
    ("deny", deny::run),
    ("lint", lint),
    ("docs", docs),
    ("test", |workspace| {
        let parts = test::run_all(workspace, std::env::var_os("CI").is_some(), &[])?;
        if test::summary(&parts) != ExitCode::SUCCESS {
            bail!("tests failed; the lines above name the parts");
        }
        Ok(())
    }),
];

fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut times = Vec::new();
    for (name, step) in STEPS {
        eprintln!("== {name}");
        let (outcome, secs) = timed(|| step(workspace));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("== {name} {verdict} ({secs} s)");
        times.push(format!("{name} {secs} s"));
        outcome?;
    }
    eprintln!("== passed: {}", times.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn fmt(workspace: &Workspace, check: bool) -> Result<()> {
    for manifest in MANIFESTS {
        let mut cargo = on(workspace, &["fmt", "--all"], manifest);
        shell::run(if check {
            cargo.arg("--check")
        } else {
            &mut cargo
        })?;
    }
    Ok(())
}

/// A lock file that cargo would change is one that somebody forgot to commit.
fn locks(workspace: &Workspace) -> Result<()> {
    for manifest in MANIFESTS {
        let args = ["metadata", "--locked", "--format-version=1"];
        shell::output(&mut on(workspace, &args, manifest))?;
    }
    Ok(())
}

fn lint(workspace: &Workspace) -> Result<()> {
    for manifest in MANIFESTS {
        let mut cargo = on(
            workspace,
            &["clippy", "--workspace", "--all-targets"],
            manifest,
        );
        shell::run(cargo.args(["--", "-Dwarnings"]))?;
    }
    Ok(())
}

fn docs(workspace: &Workspace) -> Result<()> {
    let mut cargo = on(
        workspace,
        &["doc", "--workspace", "--no-deps"],
        MANIFESTS[0],
    );
    shell::run(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// A cargo command for one of the two workspaces.
fn on(workspace: &Workspace, args: &[&str], manifest: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo
        .args(args)
        .arg("--manifest-path")
        .arg(workspace.root.join(manifest));
    if manifest != MANIFESTS[0] {
        cargo.env("CARGO_TARGET_DIR", native_target(&workspace.target));
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_checked_in_a_folder_of_their_own() {
        let workspace = Workspace {
            root: "/r".into(),
            target: "/t".into(),
            members: Vec::new(),
        };
        let folder = |manifest| {
            let command = on(&workspace, &["fmt"], manifest);
            let mut vars = command.get_envs();
            vars.find(|(name, _)| *name == "CARGO_TARGET_DIR")
                .and_then(|(_, value)| Some(value?.to_owned()))
        };
        assert_eq!(
            folder("plugins/Cargo.toml").as_deref(),
            Some("/t/guests-native".as_ref())
        );
        assert_eq!(folder("Cargo.toml"), None);
    }

    #[test]
    fn the_cheapest_step_comes_first_and_the_tests_last() {
        assert_eq!(STEPS.first().map(|(name, _)| *name), Some("fmt"));
        assert_eq!(STEPS.last().map(|(name, _)| *name), Some("test"));
    }
}
