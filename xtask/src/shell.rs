//! Running programs, and saying so.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// Tells what was found or done: `  setup    wasm32-wasip2 target: found`.
pub(crate) fn say(verb: &str, what: &str) {
    eprintln!("  {verb:<8} {what}");
}

/// The cargo that runs this program, in an environment fit for another build.
///
/// `cargo run` tells its child about the package that it runs. Some build scripts (ring's, for
/// one) ask to be run again when these variables change, and with them everything that depends
/// on them would be compiled again whenever `cargo test` and `cargo xtask test` take turns.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if names_this_package(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

fn names_this_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// Runs `command` to its end, its output going where ours goes; a failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs `command` and answers what it wrote to standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !out.status.success() {
        let told = String::from_utf8_lossy(&out.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            out.status,
            told.trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// A command as somebody would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_stem().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where `program` is, if it is on the path.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&path)
        .map(|dir| dir.join(&name))
        .find(|file| file.is_file())
}

/// Runs `step` and answers how many seconds it took beside what it answered.
pub(crate) fn timed<T>(step: impl FnOnce() -> T) -> (T, u64) {
    let start = Instant::now();
    let answer = step();
    (answer, start.elapsed().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_told_as_it_would_be_typed() {
        let error = run(Command::new("/bin/sh").args(["-c", "exit 7"])).expect_err("it exits 7");
        assert!(
            error.to_string().starts_with("`sh -c exit 7` failed"),
            "{error}"
        );
        assert!(error.to_string().contains('7'), "{error}");
    }

    #[test]
    fn only_the_variables_of_the_running_package_are_dropped() {
        assert!(names_this_package("CARGO_PKG_NAME"));
        assert!(names_this_package("CARGO_MANIFEST_DIR"));
        assert!(!names_this_package("CARGO_TARGET_DIR"));
        assert!(!names_this_package("CARGO_HOME"));
    }
}
