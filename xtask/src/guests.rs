//! `cargo xtask guests`: from the sources in `plugins/` to installable plugins.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    Verb,
    args::Args,
    fingerprint::Fingerprint,
    setup::{self, Toolchain},
    shell::{self, say},
    workspace::{Member, Workspace},
};

pub(crate) const VERB: Verb = Verb {
    name: "guests",
    usage: "",
    summary: "build the plugins and stamp them",
    help: "\
Builds the workspace plugins/ for wasm32-wasip2, once, in release mode, and lays every member
with a plugin.toml out as <target>/plugins/NAME/{plugin.wasm, plugin.toml}; `cofferdam plugin
stamp` writes the manifest's digest and the descriptor into the component.

Nothing is done while the contents of plugins/, sdk/, wit/, tests/guests/ and
examples/lead-intake/plugins/, the compiler and Cofferdam's version are what they were. The
folder is replaced as a whole, so it is never half old and half new.",
    run: |args| {
        Args::none(args)?;
        ensure(&Workspace::host()?, HostBuild::Dev)?;
        Ok(ExitCode::SUCCESS)
    },
};

/// What a plugin is made of; paths from the root of the repository.
const INPUTS: &[&str] = &[
    "plugins",
    "sdk",
    "wit",
    "tests/guests",
    "examples/lead-intake/plugins",
    // What a stamp writes into a component.
    "runtime/core/src/manifest.rs",
    "runtime/core/src/descriptor.rs",
    // The sdk takes the versions of its dependencies from here.
    "Cargo.toml",
];

/// Packages of first-party plugins are called this and the plugin's name.
const PACKAGE_PREFIX: &str = "cofferdam-plugin-";

/// How the host's programs are built when one is needed for stamping.
///
/// Which packages are named together decides about the features of shared dependencies; using
/// one and the same set avoids compiling the WebAssembly engine twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostBuild {
    /// All programs of the workspace, in the dev profile.
    Dev,
    /// All programs and tests of the workspace, in the dev profile.
    Tests,
    /// The benches and the command line, in the release profile.
    Release,
}

impl HostBuild {
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &["build", "--workspace", "--bins"],
            Self::Tests => &["build", "--workspace", "--bins", "--tests"],
            Self::Release => &[
                "build",
                "--release",
                "--package=cofferdam-bench",
                "--package=cofferdam-cli",
            ],
        }
    }

    /// The folder below the target folder in which the programs are.
    pub(crate) fn profile(self) -> &'static str {
        match self {
            Self::Dev | Self::Tests => "debug",
            Self::Release => "release",
        }
    }

    /// Builds the programs and answers where `cofferdam` is.
    pub(crate) fn build(self, workspace: &Workspace) -> Result<PathBuf> {
        shell::run(
            shell::cargo()
                .args(self.args())
                .current_dir(&workspace.root),
        )?;
        Ok(workspace.program(self.profile(), "cofferdam"))
    }
}

/// Makes sure that the plugins are built, and answers the folder in which they are.
pub(crate) fn ensure(workspace: &Workspace, host: HostBuild) -> Result<PathBuf> {
    let toolchain = setup::run(workspace)?;
    fs::create_dir_all(&workspace.target)?;
    // Two runs at once would replace each other's folders; the lock ends with the process.
    let lock = fs::File::create(workspace.target.join("guests.lock"))?;
    lock.lock().context("cannot lock the guests' folder")?;

    let out = Output::new(workspace);
    let fingerprint = fingerprint(workspace, &toolchain)?;
    if let Some(count) = out.up_to_date(&fingerprint) {
        say(
            "guests",
            &format!("unchanged: {count} plugins in {}", out.plugins.display()),
        );
        return Ok(out.plugins);
    }
    let manifest = workspace.root.join("plugins/Cargo.toml");
    let guests = Workspace::read(Some(&manifest)).context("cannot read the plugins' workspace")?;
    let cofferdam = host.build(workspace)?;
    let built = build(workspace, &toolchain, &manifest)?;
    let mut names = Vec::new();
    for member in &guests.members {
        if let Some(component) = component(member)? {
            stamp(&cofferdam, member, &built.join(component), &out.fresh)?;
            names.push(plugin_name(member));
        }
    }
    out.publish(&fingerprint, &names)?;
    say(
        "guests",
        &format!(
            "built: {} plugins in {}",
            names.len(),
            out.plugins.display()
        ),
    );
    Ok(out.plugins)
}

fn fingerprint(workspace: &Workspace, toolchain: &Toolchain) -> Result<String> {
    let mut print = Fingerprint::default();
    print.text("compiler", &toolchain.identity);
    print.text("flags", INITIAL_MEMORY);
    let stamper = workspace
        .member("cofferdam-cli")
        .map(|cli| cli.version.as_str());
    print.text("stamped by", stamper.unwrap_or_default());
    for path in INPUTS {
        print.files(&workspace.root, path)?;
    }
    Ok(print.finish())
}

/// Heap enough for a usual call from the beginning: to grow it, and to undo that for the next
/// instance, costs the host two system calls that stop all its threads for a moment.
const INITIAL_MEMORY: &str = "-Clink-arg=--initial-memory=2097152";

/// Compiles all guests in one call; answers the folder with the components.
fn build(workspace: &Workspace, toolchain: &Toolchain, manifest: &Path) -> Result<PathBuf> {
    let target = workspace.target.join("guests");
    let identity = target.join("compiler");
    // Cargo would go on using what another standard library was linked with.
    if target.exists() && fs::read_to_string(&identity).ok().as_ref() != Some(&toolchain.identity) {
        say(
            "guests",
            "the compiler is another one: building everything anew",
        );
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&target)?;
    fs::write(&identity, &toolchain.identity)?;
    let mut cargo = shell::cargo();
    cargo.args([
        "build",
        "--release",
        "--target",
        &toolchain.target,
        "--manifest-path",
    ]);
    cargo
        .arg(manifest)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC", &toolchain.rustc);
    // Flags for this machine's linker make no sense for a component.
    for host_only in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(host_only);
    }
    // Panic messages name source files; those of a plugin must not tell whose machine built it.
    let remap = format!("--remap-path-prefix={}=.", workspace.root.display());
    cargo.env("RUSTFLAGS", format!("{remap} {INITIAL_MEMORY}"));
    shell::run(&mut cargo)?;
    Ok(target.join(&toolchain.target).join("release"))
}

/// The component file of a member that is a plugin; none for one without a manifest.
fn component(member: &Member) -> Result<Option<&str>> {
    if !member.dir.join("plugin.toml").is_file() {
        return Ok(None);
    }
    match &member.component {
        Some(file) => Ok(Some(file)),
        None => bail!(
            "{} has a plugin.toml and makes no component; add `[lib] crate-type = [\"cdylib\"]` \
             to {}/Cargo.toml",
            member.name,
            member.dir.display()
        ),
    }
}

fn plugin_name(member: &Member) -> &str {
    member
        .name
        .strip_prefix(PACKAGE_PREFIX)
        .unwrap_or(&member.name)
}

/// Lays one plugin out below `fresh`.
fn stamp(cofferdam: &Path, member: &Member, component: &Path, fresh: &Path) -> Result<()> {
    let dir = fresh.join(plugin_name(member));
    let manifest = member.dir.join("plugin.toml");
    fs::create_dir_all(&dir)?;
    fs::copy(&manifest, dir.join("plugin.toml"))?;
    let mut command = Command::new(cofferdam);
    command.args(["plugin", "stamp"]).arg(component);
    command
        .arg("--manifest")
        .arg(&manifest)
        .arg("--out")
        .arg(dir.join("plugin.wasm"));
    shell::run(command.stdout(std::io::stderr()))
        .with_context(|| format!("cannot stamp {}", member.name))
}

/// The folders and the file that one build replaces.
struct Output {
    /// What others read.
    plugins: PathBuf,
    /// Where the next `plugins` grows.
    fresh: PathBuf,
    /// The fingerprint and the names of what is in `plugins`.
    record: PathBuf,
}

impl Output {
    fn new(workspace: &Workspace) -> Self {
        Self {
            plugins: workspace.target.join("plugins"),
            fresh: workspace.target.join("plugins.new"),
            record: workspace.target.join("plugins.fingerprint"),
        }
    }

    /// How many plugins there are if they were built from just these inputs and none has been
    /// taken away; clears the place for the next build otherwise.
    fn up_to_date(&self, fingerprint: &str) -> Option<usize> {
        let record = fs::read_to_string(&self.record).unwrap_or_default();
        let mut lines = record.lines();
        let same = lines.next() == Some(fingerprint);
        let mut names = lines.map(|name| self.plugins.join(name));
        if same && names.all(|dir| dir.join("plugin.wasm").is_file()) {
            return Some(record.lines().count() - 1);
        }
        // What an interrupted run left there; if it stays, building says why.
        let _ = fs::remove_dir_all(&self.fresh);
        None
    }

    /// Puts the finished folder in place. A crash in between leaves no record, so that the next
    /// run builds again.
    fn publish(&self, fingerprint: &str, names: &[&str]) -> Result<()> {
        let old = self.plugins.with_extension("old");
        for leftover in [&self.record, &old] {
            if leftover.is_dir() {
                fs::remove_dir_all(leftover)?;
            } else if leftover.exists() {
                fs::remove_file(leftover)?;
            }
        }
        fs::create_dir_all(&self.fresh)?;
        if self.plugins.exists() {
            fs::rename(&self.plugins, &old)?;
        }
        fs::rename(&self.fresh, &self.plugins)?;
        let record = std::iter::once(&fingerprint)
            .chain(names)
            .map(|line| format!("{line}\n"));
        fs::write(&self.record, record.collect::<String>())?;
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(dir: &tempfile::TempDir) -> Workspace {
        Workspace {
            root: dir.path().into(),
            target: dir.path().join("target"),
            members: Vec::new(),
        }
    }

    fn lay_out(out: &Output, name: &str, text: &str) {
        fs::create_dir_all(out.fresh.join(name)).expect("made");
        fs::write(out.fresh.join(name).join("plugin.wasm"), text).expect("written");
    }

    fn member(dir: &Path, component: Option<&str>) -> Member {
        Member {
            name: "cofferdam-plugin-echo".into(),
            version: "0.1.0".into(),
            dir: dir.into(),
            bins: Vec::new(),
            component: component.map(String::from),
        }
    }

    #[test]
    fn a_published_folder_counts_until_its_inputs_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = Output::new(&workspace(&dir));
        assert_eq!(out.up_to_date("f1"), None);
        lay_out(&out, "echo", "one");
        out.publish("f1", &["echo"]).expect("published");
        assert_eq!(out.up_to_date("f1"), Some(1));
        assert_eq!(out.up_to_date("f2"), None);

        fs::remove_file(out.plugins.join("echo/plugin.wasm")).expect("removed");
        assert_eq!(
            out.up_to_date("f1"),
            None,
            "a missing component is built again"
        );
    }

    #[test]
    fn a_plugin_that_is_gone_from_the_sources_is_gone_from_the_output() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = Output::new(&workspace(&dir));
        lay_out(&out, "old", "one");
        out.publish("f1", &["old"]).expect("published");
        lay_out(&out, "echo", "two");
        out.publish("f2", &["echo"]).expect("published");
        assert!(!out.plugins.join("old").exists());
        assert!(out.plugins.join("echo/plugin.wasm").is_file());
    }

    #[test]
    fn an_interrupted_build_leaves_the_last_plugins_and_nothing_of_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = Output::new(&workspace(&dir));
        lay_out(&out, "echo", "one");
        out.publish("f1", &["echo"]).expect("published");
        lay_out(&out, "half", "");

        assert_eq!(out.up_to_date("f2"), None);
        assert!(!out.fresh.exists(), "the half-written folder is cleared");
        let kept = fs::read_to_string(out.plugins.join("echo/plugin.wasm"));
        assert_eq!(kept.expect("still there"), "one");
    }

    #[test]
    fn a_failing_stamp_names_the_plugin() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("plugin.toml"), "").expect("written");
        let member = member(dir.path(), Some("echo.wasm"));
        let error = stamp(
            Path::new("/bin/false"),
            &member,
            Path::new("x"),
            &dir.path().join("new"),
        )
        .expect_err("false fails");
        assert!(
            error.to_string().contains("cofferdam-plugin-echo"),
            "{error}"
        );
    }

    #[test]
    fn a_manifest_beside_a_crate_that_is_no_component_is_an_error_with_a_remedy() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(
            component(&member(dir.path(), None))
                .expect("not a plugin")
                .is_none()
        );
        fs::write(dir.path().join("plugin.toml"), "").expect("written");
        let error = component(&member(dir.path(), None)).expect_err("no component");
        assert!(error.to_string().contains("cdylib"), "{error}");
        let plugin = member(dir.path(), Some("echo.wasm"));
        assert_eq!(component(&plugin).expect("a plugin"), Some("echo.wasm"));
        assert_eq!(plugin_name(&plugin), "echo");
    }
}
