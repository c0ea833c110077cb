//! `cargo xtask deny`: licences, bans and sources of every dependency.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    Verb,
    args::Args,
    shell::{self, say},
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
    let program = find_or_build(workspace)?;
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

fn find_or_build(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let mut folders = vec![tools.join("bin")];
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        folders.push(Path::new(&home).join("bin"));
    } else if let Some(home) = std::env::var_os("HOME") {
        folders.push(Path::new(&home).join(".cargo/bin"));
    }
    let in_folder = || {
        folders
            .iter()
            .map(|dir| dir.join("cargo-deny"))
            .find(|file| file.is_file())
    };
    if let Some(program) = shell::which("cargo-deny").or_else(in_folder) {
        return Ok(program);
    }
    say(
        "deny",
        &format!("cargo-deny {VERSION}: building it (some minutes, once)"),
    );
    let mut install = shell::cargo();
    install.args([
        "install",
        "--locked",
        "--quiet",
        "--no-default-features",
        "cargo-deny",
    ]);
    install.args(["--version", VERSION, "--root"]).arg(&tools);
    // It runs for seconds: optimising it would take longer than it could ever save.
    install
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    install.env("CARGO_TARGET_DIR", tools.join("build"));
    shell::run(&mut install)?;
    let _ = std::fs::remove_dir_all(tools.join("build"));
    Ok(tools.join("bin/cargo-deny"))
}
