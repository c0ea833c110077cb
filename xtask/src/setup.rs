//! `cargo xtask setup`: what a build needs besides Rust itself.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    Verb,
    args::Args,
    shell::{self, say},
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "setup",
    usage: "",
    summary: "find or prepare what a build needs",
    help: "\
Makes sure that some Rust compiler can build for wasm32-wasip2: the one in use if it has the
target; else rustup adds it, unless RUSTUP_AUTO_INSTALL=0 forbids that; else the target's
library is built once from Debian's packages. tools/wasm-toolchain says how. The result is
kept in $WASM_TOOLCHAIN_DIR, or in the user's cache folder, and shared between clones.

Tests run with cargo-nextest if it is installed, else with `cargo test`.",
    run: |args| {
        Args::none(args)?;
        run(&Workspace::host()?)?;
        Ok(ExitCode::SUCCESS)
    },
};

const SCRIPT: &str = "tools/wasm-toolchain/setup-wasm-toolchain.sh";

/// A compiler that can build guests.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    /// The target to build for.
    pub(crate) target: String,
    /// Changes whenever the compiler or the library of its target does.
    pub(crate) identity: String,
}

/// Finds or makes the toolchain, and tells what else will be used.
pub(crate) fn run(workspace: &Workspace) -> Result<Toolchain> {
    let toolchain = wasm_toolchain(workspace)?;
    let runner = if nextest() {
        "cargo-nextest: found"
    } else {
        "cargo-nextest: not installed; tests will run with `cargo test`"
    };
    say("setup", runner);
    Ok(toolchain)
}

/// Is cargo-nextest installed?
pub(crate) fn nextest() -> bool {
    shell::which("cargo-nextest").is_some()
}

fn wasm_toolchain(workspace: &Workspace) -> Result<Toolchain> {
    let prefix = prefix()?;
    let mut script = Command::new("bash");
    script
        .arg(workspace.root.join(SCRIPT))
        .arg("--prefix")
        .arg(&prefix);
    if std::env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0") {
        script.arg("--rustup-add");
    }
    if !prefix.join("env").is_file() {
        say(
            "setup",
            "wasm32-wasip2 target: preparing it (a minute or two, once)",
        );
    }
    // On success it says what is said below; on failure it explains itself on standard error.
    shell::run(script.stdout(Stdio::null()))
        .context("no compiler for wasm32-wasip2; the lines above name the remedy")?;
    let toolchain = read_env(&prefix)?;
    let version = shell::output(Command::new(&toolchain.rustc).arg("--version"))?;
    say(
        "setup",
        &format!("{} target: found ({version})", toolchain.target),
    );
    Ok(toolchain)
}

/// The folder that the script writes to unless told otherwise, so that clones share it.
fn prefix() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = set("WASM_TOOLCHAIN_DIR") {
        return Ok(dir.into());
    }
    let cache = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("neither HOME nor WASM_TOOLCHAIN_DIR is set; set one of them"),
    };
    Ok(cache.join("wasm-toolchain"))
}

/// Reads what the script decided. The file is shell code, so a shell reads it.
fn read_env(prefix: &Path) -> Result<Toolchain> {
    let mut shell = Command::new("bash");
    shell.args([
        "-euc",
        r#". "$0"; printf '%s\n' "$WASM_RUSTC" "$WASM_TARGET""#,
    ]);
    let told = shell::output(shell.arg(prefix.join("env")))?;
    let Some((rustc, target)) = told.split_once('\n') else {
        bail!(
            "{} names no compiler; delete the file and run this again",
            prefix.join("env").display()
        );
    };
    let version = shell::output(Command::new(rustc).arg("-vV"))?;
    // Cargo does not notice that the library of a compiler was built anew; the stamp does.
    let stamp = if Path::new(rustc).starts_with(prefix) {
        std::fs::read_to_string(prefix.join("stamp")).unwrap_or_default()
    } else {
        String::new()
    };
    Ok(Toolchain {
        rustc: rustc.into(),
        target: target.to_owned(),
        identity: format!("{rustc}\n{version}\n{stamp}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix_with(compiler: &str, stamp: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let env =
            format!("export WASM_KIND=x\nexport WASM_RUSTC={compiler}\nexport WASM_TARGET=t\n");
        std::fs::write(dir.path().join("env"), env).expect("written");
        std::fs::write(dir.path().join("stamp"), stamp).expect("written");
        dir
    }

    #[test]
    fn quoted_paths_of_the_env_file_are_understood() {
        // What bash's `%q` makes of a path with a space.
        let toolchain = read_env(prefix_with(r"/bin/\e\cho", "").path()).expect("valid");
        assert_eq!(toolchain.rustc, Path::new("/bin/echo"));
        assert_eq!(toolchain.target, "t");
        assert!(toolchain.identity.contains("-vV"), "{}", toolchain.identity);
    }

    #[test]
    fn a_rebuilt_library_is_another_identity() {
        let identity = |stamp: &str| {
            let dir = prefix_with("$(dirname \"$0\")/rustc", stamp);
            std::os::unix::fs::symlink("/bin/echo", dir.path().join("rustc")).expect("linked");
            let identity = read_env(dir.path()).expect("valid").identity;
            identity.replace(&dir.path().display().to_string(), "")
        };
        assert_eq!(identity("one"), identity("one"));
        assert_ne!(identity("one"), identity("two"));
    }
}
