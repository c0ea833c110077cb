//! `cofferdam plugin sign`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_host::Artifact;
use cofferdam_host::artifact::SIGNATURE_EXTENSION;
use serde_json::json;

use super::{files, keygen};
use crate::context::Context;
use crate::output;

pub const EXAMPLES: &str = "\
A signature vouches for the plugin's name, its version and every byte of it, manifest included. It
goes into a packed plugin, and beside any other: plugin.wasm gets plugin.sig. Signatures by other
keys are kept, unless the plugin has changed since. Prints the key's id.

Examples:
  cofferdam plugin sign dist/crm.cofferdam --key ~/keys/acme.key
  cofferdam plugin sign ./plugins/crm --key ~/keys/acme.key";

/// What `plugin sign` takes.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// A packed plugin, a component, or the folder of one
    artifact: PathBuf,
    /// The private key, as `cofferdam plugin keygen` made it
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
}

pub fn run(context: &Context, args: &SignArgs) -> Result<ExitCode> {
    let key = keygen::private(&args.key)?;
    let mut artifact = Artifact::read(&args.artifact)?;
    tell_stale(artifact.sign(&key)?);
    let written = write(&artifact, &args.artifact)?;
    let id = key.public().id();
    if context.is_json() {
        output::json(&json!({
            "out": written,
            "name": artifact.name(),
            "digest": artifact.digest()?,
            "key": key.public().to_string(),
            "id": id,
        }))?;
    } else {
        eprintln!(
            "{}: signed by key {id}, written to {}",
            artifact.name(),
            written.display()
        );
        output::text(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the signatures where the plugin has them, and answers where that is.
fn write(artifact: &Artifact, path: &Path) -> Result<PathBuf> {
    if !artifact.is_packed() {
        let beside = Path::new(artifact.origin()).with_extension(SIGNATURE_EXTENSION);
        files::replace(&beside, artifact.signature_text().as_bytes())?;
        return Ok(beside);
    }
    let packed = artifact.pack()?;
    if path.is_dir() {
        packed.write_folder(path)?;
    } else {
        files::replace(path, &packed.to_archive())?;
    }
    Ok(path.to_owned())
}

/// Says what became of signatures that no longer fit.
pub fn tell_stale(count: usize) {
    if count > 0 {
        eprintln!(
            "{count} signatures by other keys were left out: the plugin has changed since they were made"
        );
    }
}
