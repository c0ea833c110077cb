//! Runs the program in a folder of its own, with nothing of the surroundings.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A folder, and the program in it.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// What came of a run of the program.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, contents).expect("written");
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.args(args).current_dir(self.dir.path());
        for variable in [
            "COFFERDAM_CONFIG",
            "COFFERDAM_DATA",
            "COFFERDAM_PLUGINS",
            "RUST_LOG",
        ] {
            command.env_remove(variable);
        }
        // Shared, so that each plugin is compiled once.
        command.env(
            "XDG_CACHE_HOME",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
        );
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Done {
        done(&mut self.command(args))
    }

    /// The same, with the plugins of `cargo xtask guests`.
    pub fn run_with_plugins(&self, args: &[&str]) -> Done {
        done(self.command(args).env("COFFERDAM_PLUGINS", plugins()))
    }
}

pub fn done(command: &mut Command) -> Done {
    let output = command.output().expect("the program starts");
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Done {
    /// Ended with this code, or shows what it said.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Standard output is one JSON document and nothing else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "not JSON alone: {error}\nstdout: {}\nstderr: {}",
                self.stdout, self.stderr
            )
        })
    }
}

/// A `cofferdam serve` that is ready; it ends with the test.
pub struct Serving(Child);

impl Serving {
    pub fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(&["serve"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
        let stderr = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(stderr).lines();
        let ready = lines.by_ref().map_while(Result::ok);
        assert!(ready.into_iter().any(|line| line.starts_with("ready: ")));
        // Read on, or the process would block.
        std::thread::spawn(move || lines.count());
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `cargo xtask guests` puts the plugins.
pub fn plugins() -> PathBuf {
    let beside = || {
        Path::new(env!("CARGO_BIN_EXE_cofferdam"))
            .ancestors()
            .nth(2)
            .map(|dir| dir.join("plugins"))
    };
    let dir = std::env::var_os("COFFERDAM_PLUGINS")
        .map(PathBuf::from)
        .or_else(beside)
        .expect("a folder");
    assert!(
        dir.join("http/plugin.wasm").is_file(),
        "there are no plugins in {}: run `cargo xtask guests` first",
        dir.display()
    );
    dir
}

/// A workflow of data tasks.
pub const GREET: &str = r#"
document: { dsl: '1.0.3', namespace: test, name: greet, version: '1.0.0' }
do:
  - greet:
      set: { greeting: '${ "hello " + .name }' }
"#;

/// A workflow that faults.
pub const FAULT: &str = r"
document: { dsl: '1.0.3', namespace: test, name: fault, version: '1.0.0' }
do:
  - stop:
      raise:
        error: { type: 'https://example.com/errors/closed', status: 418, title: Closed, detail: Come back tomorrow }
";

/// A workflow that takes a while and calls nothing.
pub const PAUSE: &str = r"
document: { dsl: '1.0.3', namespace: test, name: pause, version: '1.0.0' }
do:
  - rest: { wait: { seconds: 45 } }
";
