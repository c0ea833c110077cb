//! A PostgreSQL server for the tests: the one that the environment names, or one of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A server; one that was started is stopped when this is dropped.
pub(super) struct Server {
    url: String,
    own: Option<(PathBuf, tempfile::TempDir)>,
}

impl Server {
    pub(super) fn find() -> Option<Self> {
        if let Ok(url) = std::env::var("COFFERDAM_TEST_POSTGRES") {
            return Some(Self { url, own: None });
        }
        Self::start(&programs()?)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn start(programs: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let data = folder.path().join("data");
        let made = Command::new(programs.join("initdb"))
            .args(["--auth=trust", "--username=tester", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .ok()?;
        // It refuses to run as root, among others.
        if !made.status.success() {
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .ok()?
            .local_addr()
            .ok()?
            .port();
        let options = format!("-p {port} -h 127.0.0.1 -k {}", folder.path().display());
        let started = Command::new(programs.join("pg_ctl"))
            .args(["start", "--wait", "--silent", "-o", &options, "-l"])
            .arg(folder.path().join("log"))
            .arg("-D")
            .arg(&data)
            .status()
            .ok()?;
        let url = format!("postgresql://tester@127.0.0.1:{port}/postgres");
        started.success().then(|| Self {
            url,
            own: Some((programs.to_owned(), folder)),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((programs, folder)) = &self.own {
            let _ = Command::new(programs.join("pg_ctl"))
                .args(["stop", "--silent", "--mode=immediate", "-D"])
                .arg(folder.path().join("data"))
                .status();
        }
    }
}

/// Where PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect());
    let mut folders: Vec<PathBuf> = on_path.unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file())
}
