//! `cofferdam plugin pack`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_host::artifact::PACKED_EXTENSION;
use cofferdam_host::{Artifact, Host, check_wishes};
use serde_json::json;

use super::files::{self, MODE_PUBLIC};
use super::keygen;
use crate::context::Context;
use crate::exit::usage;
use crate::output;

pub const EXAMPLES: &str = "\
Makes one file, or one folder, of a component and its manifest: an OCI image layout with the media
types for WebAssembly, which registries take as it is. The plugin is checked as for a connection
first; one that was never stamped is stamped. The same plugin makes the same bytes. Prints the
digest by which registries know it.

Examples:
  cofferdam plugin pack . --out dist/crm.cofferdam --sign ~/keys/acme.key
  cofferdam plugin pack ./crm --out dist/crm";

/// What `plugin pack` takes.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// A component with plugin.toml beside it, the folder with both, or a packed plugin
    source: PathBuf,
    /// Where to write: one file if it ends in .cofferdam, else a folder
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Sign it with this private key
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

pub fn run(context: &Context, args: &PackArgs) -> Result<ExitCode> {
    let is_file = is_file(&args.out)?;
    if is_file {
        files::check_free(&args.out, args.force)?;
    } else {
        files::check_free_folder(&args.out, args.force)?;
    }
    let key = args.sign.as_deref().map(keygen::private).transpose()?;
    let host = Context::host(&context.config()?)?;
    let mut artifact = stamped(&host, Artifact::read(&args.source)?)?;
    match &key {
        Some(key) => super::sign::tell_stale(artifact.sign(key)?),
        None => artifact.verify()?,
    }
    let packed = artifact.pack()?;
    if is_file {
        files::create(&args.out, &packed.to_archive(), MODE_PUBLIC, args.force)?;
    } else {
        files::create_folder(&args.out, &packed, args.force)?;
    }
    let signers: Vec<String> = artifact.signatures().iter().map(|s| s.key().id()).collect();
    if context.is_json() {
        output::json(&json!({
            "out": args.out,
            "digest": packed.digest(),
            "name": artifact.name(),
            "version": artifact.manifest().map(|manifest| &manifest.version),
            "signedBy": signers,
        }))?;
    } else {
        let signed = if signers.is_empty() {
            "not signed".to_owned()
        } else {
            format!("signed by key {}", signers.join(", "))
        };
        let version = artifact.manifest().map(|m| m.version.as_str());
        eprintln!(
            "{} {}: packed to {}, {signed}",
            artifact.name(),
            version.unwrap_or_default(),
            args.out.display()
        );
        output::text(&format!("{}\n", packed.digest()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The plugin, checked, with its descriptor in it.
fn stamped(host: &Host, artifact: Artifact) -> Result<Artifact> {
    // What has no manifest cannot be packed, and is told so before it is compiled.
    let manifest = artifact.manifest_text().map(str::to_owned);
    match artifact.manifest() {
        Some(wanted) => check_wishes(&wanted.limits, &of(&artifact))?,
        None => drop(artifact.sealed()?),
    }
    let plugin = host.load(artifact.clone())?;
    if plugin.descriptor().is_some() {
        return Ok(artifact);
    }
    let plugin = super::described(plugin)?;
    let descriptor = serde_json::to_string(&plugin.descriptor())?;
    let component = cofferdam_host::stamp(artifact.component(), &descriptor, manifest.as_deref())?;
    Ok(Artifact::new(component, None, artifact.origin())?)
}

/// What messages about the manifest of a plugin begin with.
fn of(artifact: &Artifact) -> String {
    format!("plugin `{}` ({})", artifact.name(), artifact.origin())
}

/// Whether one file is to be written; the names of folders do not look like those of files.
fn is_file(out: &Path) -> Result<bool> {
    match out.extension() {
        Some(extension) if extension == PACKED_EXTENSION => Ok(true),
        Some(extension) if extension == "wasm" || extension == "tar" => Err(usage(format!(
            "--out `{}`: a packed file ends in .{PACKED_EXTENSION}\nhelp: write --out {}",
            out.display(),
            out.with_extension(PACKED_EXTENSION).display()
        ))),
        Some(_) | None => Ok(false),
    }
}
