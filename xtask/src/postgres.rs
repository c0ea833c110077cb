//! A PostgreSQL for the tests that want a real one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::shell::{self, say};

/// Tells the tests where `initdb` and `postgres` are; they start a cluster of their own with
/// these, on a loopback address, and remove it. Without it they use `SQLite`.
pub(crate) const BIN: &str = "COFFERDAM_TEST_PG_BIN";

/// Where Debian and its kin keep the programs of each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder of PostgreSQL's programs: what [`BIN`] says, what is installed, or, if `install`
/// is set and this may be done here, what apt-get installs.
pub(crate) fn find(install: bool) -> Result<Option<PathBuf>> {
    if let Some(dir) = std::env::var_os(BIN) {
        say(
            "test",
            &format!("PostgreSQL: {} (from {BIN})", dir.display()),
        );
        return Ok(Some(dir.into()));
    }
    if let Some(dir) = installed() {
        say("test", &format!("PostgreSQL: found in {}", dir.display()));
        return Ok(Some(dir));
    }
    if !install {
        say(
            "test",
            "PostgreSQL: not installed; SQLite is used instead (see --with-postgres)",
        );
        return Ok(None);
    }
    if shell::which("apt-get").is_none() || !is_root() {
        say(
            "test",
            "PostgreSQL: not installed, and not root or no apt-get; SQLite is used instead",
        );
        return Ok(None);
    }
    say("test", "PostgreSQL: installing it with apt-get");
    apt_get(&["-q", "update"])?;
    apt_get(&[
        "-q",
        "-y",
        "--no-install-recommends",
        "install",
        "postgresql",
    ])?;
    Ok(installed())
}

fn installed() -> Option<PathBuf> {
    let on_path = || shell::which("initdb").and_then(|file| Some(file.parent()?.to_owned()));
    newest(Path::new(DEBIAN)).or_else(|| on_path().filter(|dir| is_complete(dir)))
}

/// The programs of the highest major version below `root`.
fn newest(root: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?.flatten();
    let version = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    entries
        .filter_map(|entry| Some((version(&entry)?, entry.path().join("bin"))))
        .filter(|(_, bin)| is_complete(bin))
        .max()
        .map(|(_, bin)| bin)
}

fn is_complete(bin: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|program| bin.join(program).is_file())
}

fn is_root() -> bool {
    shell::output(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0")
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(command.stdout(std::io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_complete_version_is_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(newest(dir.path()), None);
        for (version, programs) in [
            ("9", &["initdb", "postgres"][..]),
            ("15", &["initdb", "postgres"]),
            ("16", &["psql"]),
        ] {
            let bin = dir.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).expect("made");
            for program in programs {
                std::fs::write(bin.join(program), "").expect("written");
            }
        }
        assert_eq!(newest(dir.path()), Some(dir.path().join("15/bin")));
    }
}
