//! What the rules look at: files and packages.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The folder that all of this is in.
pub(crate) struct Repository {
    pub(crate) root: PathBuf,
}

/// A file that is committed, or would be by `git add .`.
pub(crate) struct File {
    /// From the root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }
}

/// A package and what it depends on directly.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's `Cargo.toml`.
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only for tests, benches and examples.
    pub(crate) is_dev: bool,
    /// The folder it is in, if it is part of this repository.
    pub(crate) path: Option<PathBuf>,
}

impl Repository {
    pub(crate) fn open() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .ancestors()
            .nth(2)
            .expect("tests/e2e is two folders deep");
        Self { root: root.into() }
    }

    /// Every file, in the order of the paths.
    pub(crate) fn files(&self) -> Vec<File> {
        let list = [
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ];
        // A clone may belong to another user than the one who tests it.
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*", "-C"]).arg(&self.root);
        let told = output(git.args(list));
        let paths = told.split('\0').filter(|path| !path.is_empty());
        let unique: BTreeMap<_, _> = paths.map(|path| (path, self.root.join(path))).collect();
        // One that is deleted and not yet committed is still listed.
        let read = |(path, file)| {
            let text = std::fs::read(file).ok()?;
            let text = String::from_utf8_lossy(&text).into_owned();
            Some(File {
                path: String::from(path),
                text,
            })
        };
        unique.into_iter().filter_map(read).collect()
    }

    /// The packages of the workspace of `manifest`; none if there is no such file.
    pub(crate) fn packages(&self, manifest: &str) -> Vec<Package> {
        let manifest = self.root.join(manifest);
        if !manifest.is_file() {
            return Vec::new();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--manifest-path",
        ]);
        let told = output(cargo.arg(manifest));
        let metadata: Value = serde_json::from_str(&told).expect("cargo metadata is JSON");
        let packages = metadata["packages"].as_array().expect("a list");
        packages.iter().map(package).collect()
    }
}

fn package(value: &Value) -> Package {
    let dependencies = value["dependencies"].as_array().expect("a list");
    Package {
        name: text(&value["name"]).expect("a name"),
        dependencies: dependencies
            .iter()
            .map(|dependency| Dependency {
                name: text(&dependency["name"]).expect("a name"),
                is_dev: dependency["kind"] == "dev",
                path: text(&dependency["path"]).map(PathBuf::from),
            })
            .collect(),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn output(command: &mut Command) -> String {
    let out = command.output().expect("the program can be started");
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("its output is text")
}
