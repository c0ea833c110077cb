//! Programs that a verb needs and that not everybody has installed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    shell::{self, say},
    workspace::Workspace,
};

/// Where `program` is: on the path, in cargo's own folder, or built once into `<target>/tools`.
pub(crate) fn find_or_build(
    workspace: &Workspace,
    verb: &str,
    program: &str,
    version: &str,
    options: &[&str],
) -> Result<PathBuf> {
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
            .map(|dir| dir.join(program))
            .find(|file| file.is_file())
    };
    if let Some(found) = shell::which(program).or_else(in_folder) {
        return Ok(found);
    }
    say(
        verb,
        &format!("{program} {version}: building it (some minutes, once)"),
    );
    let mut install = shell::cargo();
    install.args([
        "install",
        "--locked",
        "--quiet",
        program,
        "--version",
        version,
    ]);
    install.args(options).arg("--root").arg(&tools);
    // It runs for seconds: optimising it would take longer than it could ever save.
    install
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    install.env("CARGO_TARGET_DIR", tools.join("build"));
    shell::run(&mut install)?;
    let _ = std::fs::remove_dir_all(tools.join("build"));
    Ok(tools.join("bin").join(program))
}
