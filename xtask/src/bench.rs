//! `cargo xtask bench`: what it costs on this machine.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{
    Verb,
    args::{self, Args},
    guests::{self, HostBuild},
    shell::{self, say},
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "bench",
    usage: "[NAME] [--quick] [-- ARGUMENTS]",
    summary: "measure, beside the machine's own floor",
    help: "\
Builds the benches in release mode and runs the one called NAME, or all in turn. Each prints
its figures as JSON on standard output, with the floor measured in the same run and the load
of the machine. --quick measures for a shorter time; the figures are then rougher. ARGUMENTS
are passed on.",
    run,
};

const PACKAGE: &str = "cofferdam-bench";

fn run(args: &[String]) -> Result<ExitCode> {
    let args = Args::parse(args, &["--quick"], 1)?;
    let workspace = Workspace::host()?;
    let package = workspace
        .member(PACKAGE)
        .with_context(|| format!("the workspace has no package {PACKAGE}"))?;
    let chosen = choose(&package.bins, args.names.first())?;
    HostBuild::Release.build(&workspace)?;
    let plugins = guests::ensure(&workspace, HostBuild::Release)?;
    for name in chosen {
        let mut bench = Command::new(workspace.program(HostBuild::Release.profile(), name));
        bench
            .current_dir(&workspace.root)
            .env("COFFERDAM_PLUGINS", &plugins);
        if args.has("--quick") {
            bench.arg("--quick");
        }
        say("bench", name);
        shell::run(bench.args(&args.rest))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The bench called `name`, or all.
fn choose<'a>(benches: &'a [String], name: Option<&String>) -> Result<Vec<&'a String>> {
    let chosen: Vec<_> = benches
        .iter()
        .filter(|b| name.is_none_or(|name| name == *b))
        .collect();
    if let (true, Some(name)) = (chosen.is_empty(), name) {
        let known = benches.join(", ");
        return Err(
            args::Error::new(format!("no bench is called `{name}`; there are: {known}")).into(),
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_refused_with_the_known_names() {
        let benches = ["calls".to_owned(), "durable".to_owned()];
        assert_eq!(choose(&benches, None).expect("all").len(), 2);
        assert_eq!(
            choose(&benches, Some(&"calls".into())).expect("one"),
            ["calls"]
        );
        let error = choose(&benches, Some(&"call".into())).expect_err("none is called so");
        assert!(error.to_string().contains("calls, durable"), "{error}");
    }
}
