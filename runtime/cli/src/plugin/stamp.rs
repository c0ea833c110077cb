//! `cofferdam plugin stamp`: makes a component carry its own descriptor and manifest.
//!
//! Admission never runs guest code to find out what a plugin is; it reads what this verb wrote.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use cofferdam_core::manifest::Manifest;
use cofferdam_host::{Artifact, Host, HostOptions};
use serde_json::json;

use crate::context::{Context, block_on};
use crate::exit::usage;
use crate::output;

pub const EXAMPLES: &str = "\
Runs the component's `describe` in a chamber that is granted nothing, checks what it returns against
the manifest, and writes both into the component. Doing it twice changes nothing. The file is
replaced as a whole or not at all.

Examples:
  cofferdam plugin stamp crm.wasm
  cofferdam plugin stamp crm.wasm --manifest plugin.toml --out dist/plugin.wasm";

/// What `plugin stamp` takes.
#[derive(Debug, Args)]
pub struct StampArgs {
    /// The component
    component: PathBuf,
    /// Its manifest [default: plugin.toml beside it, if there is one]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Where to write [default: over the component]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(context: &Context, args: &StampArgs) -> Result<ExitCode> {
    let mut artifact = Artifact::read(&args.component)?;
    let manifest = manifest(args)?;
    if let Some((path, text)) = &manifest {
        let parsed = Manifest::parse(text, &path.display().to_string());
        artifact.manifest = Some(parsed.map_err(cofferdam_host::Error::from)?);
    }
    let component = artifact.component.clone();
    let descriptor = describe(artifact)?;
    let text = serde_json::to_string(&descriptor)?;
    let stamped = cofferdam_host::stamp(
        &component,
        &text,
        manifest.as_ref().map(|(_, text)| text.as_str()),
    )?;
    let out = args.out.as_deref().unwrap_or(&args.component);
    write_whole(out, &stamped)?;
    if context.is_json() {
        output::json(&json!({"out": out, "bytes": stamped.len(), "descriptor": descriptor}))?;
    } else {
        let actions = descriptor.actions.len();
        eprintln!(
            "{} {}: {actions} actions, written to {}",
            descriptor.name,
            descriptor.version,
            out.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn manifest(args: &StampArgs) -> Result<Option<(PathBuf, String)>> {
    let beside = args.component.with_file_name("plugin.toml");
    let path = match &args.manifest {
        Some(path) => path.clone(),
        None if beside.is_file() => beside,
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        usage(format!(
            "cannot read the manifest `{}`: {error}\nhelp: check the path",
            path.display()
        ))
    })?;
    Ok(Some((path, text)))
}

/// What the component says of itself.
fn describe(artifact: Artifact) -> Result<cofferdam_core::descriptor::Descriptor> {
    block_on(async {
        let host = Host::new(HostOptions {
            concurrency_max: 1,
            compiler: Context::compiler()?,
            ..HostOptions::default()
        })?;
        let plugin = host.load(artifact)?;
        Ok(plugin.describe().await?)
    })
}

/// Writes beside the file and renames, so that nobody reads half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("cannot write `{}`", path.display());
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(permissions(path))
        .tempfile_in(dir)
        .with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(failed)?;
    Ok(())
}

/// Those of the file that is replaced; else readable by everybody, like what a compiler writes.
fn permissions(path: &Path) -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions(),
        Err(_) => std::fs::Permissions::from_mode(0o644),
    }
}
