//! Plays a page in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snapbox::IntoData as _;

use super::page::{Page, Step};

/// How long a process that stays up may take until it can be reached.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// What every command says of plugins that were built here; the pages say it once, in the README.
const UNSIGNED: &str = "warning: not signed by a trusted key";

/// Processes that stay up; ended with the page.
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs every command of the page; the first that shows something else is an error.
pub(crate) fn play(page: &Page, guide: &Path) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    lay_out(guide, &dir.path().join("docs/guide")).map_err(|error| error.to_string())?;
    let mut background = Background(Vec::new());
    for step in &page.steps {
        let place = format!("docs/guide/{}.md:{}", page.name, step.line);
        if let Some(command) = step.command.strip_suffix(" &") {
            let child = shell(&format!("exec {command}"), dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("{place}: {error}"))?;
            background.0.push(child);
            reachable(dir.path()).map_err(|what| format!("{place}: {what}"))?;
            continue;
        }
        check(step, dir.path()).map_err(|what| format!("{place}: {what}"))?;
    }
    Ok(())
}

fn lay_out(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            lay_out(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn check(step: &Step, dir: &Path) -> Result<(), String> {
    // One pipe for both, as a terminal is.
    let output = shell(&format!("{{ {}\n}} 2>&1", step.command), dir)
        .output()
        .map_err(|error| error.to_string())?;
    let shown = String::from_utf8_lossy(&output.stdout);
    let lines = shown.lines().filter(|line| !line.starts_with(UNSIGNED));
    let shown: String = lines.flat_map(|line| [line, "\n"]).collect();
    snapbox::Assert::new()
        .action(snapbox::assert::Action::Verify)
        .try_eq(
            Some(&step.command),
            shown.clone().into_data(),
            step.shown.clone().into_data(),
        )
        .map_err(|error| format!("{error}\nshown:\n{shown}"))
}

fn shell(command: &str, dir: &Path) -> Command {
    let program = program("COFFERDAM_BIN", "debug/cofferdam");
    let folder = program.parent().unwrap_or(Path::new("."));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", std::env::join_paths(path).unwrap_or_default())
        .env("COFFERDAM_PLUGINS", program_dir_plugins())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    for variable in ["COFFERDAM_CONFIG", "COFFERDAM_DATA", "RUST_LOG"] {
        shell.env_remove(variable);
    }
    shell
}

fn program_dir_plugins() -> PathBuf {
    program("COFFERDAM_PLUGINS", "plugins")
}

/// What `cargo xtask test` names, or where it lies in the target folder.
fn program(variable: &str, below: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(3).expect("a target folder");
    target.join(below)
}

/// Waits for the socket by which a process that stays up is reached.
fn reachable(dir: &Path) -> Result<(), String> {
    let socket = dir.join(".cofferdam/control.sock");
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        if begun.elapsed() > READY_WITHIN {
            return Err(format!("{} does not answer", socket.display()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
