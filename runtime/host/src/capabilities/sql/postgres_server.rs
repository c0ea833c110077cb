//! A PostgreSQL server for the tests: the one that the environment names, or one of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::egress::tests::authority::Vouched;

/// A server; one that was started is stopped when this is dropped.
pub(super) struct Server {
    url: String,
    own: Option<(PathBuf, tempfile::TempDir)>,
}

impl Server {
    /// The server of `COFFERDAM_TEST_POSTGRES`, else one of its own; none where PostgreSQL is not
    /// installed. Where it is installed and does not start, the test fails rather than passes by.
    pub(super) fn find() -> Option<Self> {
        if let Ok(url) = std::env::var("COFFERDAM_TEST_POSTGRES") {
            return Some(Self { url, own: None });
        }
        let Some(programs) = programs() else {
            eprintln!("PostgreSQL is not installed: only SQLite is tested");
            return None;
        };
        Some(Self::start(&programs, None))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// One of the test's own that speaks TLS and nothing else; none where PostgreSQL is not
    /// installed.
    pub(super) fn with_tls(vouched: &Vouched) -> Option<Self> {
        Some(Self::start(&programs()?, Some(vouched)))
    }

    fn start(programs: &Path, vouched: Option<&Vouched>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        if is_root() {
            let owner = Command::new("chown")
                .arg("postgres")
                .arg(folder.path())
                .status();
            assert!(
                owner.is_ok_and(|s| s.success()),
                "cannot give the folder to `postgres`"
            );
        }
        let mut initdb = program(programs, "initdb");
        initdb
            .args(["--auth=trust", "--username=tester", "--no-sync", "-D"])
            .arg(&data);
        run(&mut initdb);
        let port = free_port();
        let mut options = format!("-p {port} -h 127.0.0.1 -k {}", folder.path().display());
        if let Some(vouched) = vouched {
            encrypt(&data, vouched);
            options += " -c ssl=on";
        }
        let mut start = program(programs, "pg_ctl");
        start.args(["start", "--wait", "--silent", "-o", &options, "-l"]);
        run(start.arg(folder.path().join("log")).arg("-D").arg(&data));
        let url = format!("postgresql://tester@127.0.0.1:{port}/postgres");
        Self {
            url,
            own: Some((programs.to_owned(), folder)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((programs, folder)) = &self.own {
            let _ = program(programs, "pg_ctl")
                .args(["stop", "--silent", "--mode=immediate", "-D"])
                .arg(folder.path().join("data"))
                .status();
        }
    }
}

/// Puts a certificate where the server looks for it, and takes no line without it.
fn encrypt(data: &Path, vouched: &Vouched) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let owner = std::fs::metadata(data).expect("a folder");
    for (name, text) in [
        ("server.crt", vouched.certificate_pem()),
        ("server.key", vouched.key_pem()),
        (
            "pg_hba.conf",
            "hostssl all all 127.0.0.1/32 trust\n".to_owned(),
        ),
    ] {
        let file = data.join(name);
        std::fs::write(&file, text).expect("writable");
        let (user, group) = (Some(owner.uid()), Some(owner.gid()));
        std::os::unix::fs::chown(&file, user, group).expect("the owner");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, private).expect("permissions");
    }
}

/// PostgreSQL refuses to run as root; Debian's package makes a user for it.
fn program(programs: &Path, name: &str) -> Command {
    if !is_root() {
        return Command::new(programs.join(name));
    }
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(programs.join(name));
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) {
    // Its output goes to files: a server that inherited a pipe would keep the pipe open.
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()), "{command:?} failed");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Where PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("COFFERDAM_TEST_PG_BIN") {
        return Some(PathBuf::from(folder));
    }
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect());
    let mut folders: Vec<PathBuf> = on_path.unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").is_file())
}
