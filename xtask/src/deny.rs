//! `cargo xtask deny`: licences, bans and sources of every dependency.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{
    Verb,
    args::Args,
    shell::{self, say},
    tools,
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "deny",
    usage: "",
    summary: "check the dependencies against deny.toml",
    help: "\
Checks licences, bans and sources of the host's and the plugins' dependencies with cargo-deny.
One on the path or in cargo's own folder is used; else it is built once into <target>/tools.",
    run: |args| {
        Args::none(args)?;
        run(&Workspace::host()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

/// Built when none is installed. Any version that understands `deny.toml` will do.
const VERSION: &str = "0.20.2";

/// What is checked. Not `advisories`: deny.toml says why.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// Checks both workspaces.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let lean = ["--no-default-features"];
    let program = tools::find_or_build(workspace, "deny", "cargo-deny", VERSION, &lean)?;
    for manifest in ["Cargo.toml", "plugins/Cargo.toml"] {
        say("deny", manifest);
        let mut deny = Command::new(&program);
        deny.arg("--manifest-path")
            .arg(workspace.root.join(manifest));
        deny.arg("--config").arg(workspace.root.join("deny.toml"));
        deny.args(["check", "--hide-inclusion-graph"]).args(CHECKS);
        shell::run(&mut deny).with_context(|| format!("{manifest} is at odds with deny.toml"))?;
    }
    Ok(())
}
