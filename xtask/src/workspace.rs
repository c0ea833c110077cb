//! Where things are, as cargo tells it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell;

/// A cargo workspace: ours, or that of the guests.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of its `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where builds go; follows `CARGO_TARGET_DIR` and cargo's configuration.
    pub(crate) target: PathBuf,
    /// Its packages.
    pub(crate) members: Vec<Member>,
}

/// A package of a workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The folder of its `Cargo.toml`.
    pub(crate) dir: PathBuf,
    /// The names of its programs.
    pub(crate) bins: Vec<String>,
    /// The file that a build for wasm makes of it, if it is a component.
    pub(crate) component: Option<String>,
}

impl Workspace {
    /// The workspace of the host: the one that this program belongs to.
    pub(crate) fn host() -> Result<Self> {
        // Set by `cargo run`; without it, as when the program is started by hand, cargo looks
        // upward from the working folder.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map(|xtask| Path::new(&xtask).join("../Cargo.toml"));
        Self::read(manifest.as_deref())
    }

    /// The workspace of `manifest`, or of the working folder.
    pub(crate) fn read(manifest: Option<&Path>) -> Result<Self> {
        let mut command = shell::cargo();
        command.args(["metadata", "--format-version=1", "--no-deps"]);
        if let Some(path) = manifest {
            command.arg("--manifest-path").arg(path);
        }
        let told = shell::output(&mut command)?;
        let metadata: Value = serde_json::from_str(&told).context("cargo metadata is not JSON")?;
        Self::from_metadata(&metadata)
            .context("cargo metadata lacks a field that cargo documents for format 1")
    }

    fn from_metadata(metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?;
        Some(Self {
            root: metadata["workspace_root"].as_str()?.into(),
            target: metadata["target_directory"].as_str()?.into(),
            members: packages.iter().map(member).collect::<Option<_>>()?,
        })
    }

    /// The package called `name`, if there is one.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The program `name` in the folder of a profile (`debug`, `release`).
    pub(crate) fn program(&self, profile: &str, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.target.join(profile).join(file)
    }
}

fn member(package: &Value) -> Option<Member> {
    let targets = package["targets"].as_array()?;
    let of_kind = |kind: &'static str| {
        targets.iter().filter(move |target| {
            let kinds = target["kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(|k| k == kind))
        })
    };
    let name_of = |target: &Value| target["name"].as_str().map(str::to_owned);
    let component = of_kind("cdylib").find_map(name_of);
    Some(Member {
        name: package["name"].as_str()?.to_owned(),
        version: package["version"].as_str()?.to_owned(),
        dir: Path::new(package["manifest_path"].as_str()?)
            .parent()?
            .to_owned(),
        bins: of_kind("bin").filter_map(name_of).collect(),
        component: component.map(|name| format!("{}.wasm", name.replace('-', "_"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_finds_its_own_workspace() {
        let host = Workspace::host().expect("cargo metadata");
        let xtask = host.member("xtask").expect("a member");
        assert_eq!(xtask.bins, ["xtask"]);
        assert_eq!(xtask.component, None);
        assert!(host.root.join("Cargo.lock").is_file());
    }

    #[test]
    fn a_component_is_a_cdylib_whose_file_has_underscores() {
        let package = serde_json::json!({
            "name": "cofferdam-plugin-my-crm", "version": "1.2.3",
            "manifest_path": "/x/plugins/my-crm/Cargo.toml",
            "targets": [{"name": "cofferdam-plugin-my-crm", "kind": ["cdylib", "rlib"]}],
        });
        let member = member(&package).expect("all fields are there");
        assert_eq!(
            member.component.as_deref(),
            Some("cofferdam_plugin_my_crm.wasm")
        );
        assert_eq!(member.dir, Path::new("/x/plugins/my-crm"));
    }
}
