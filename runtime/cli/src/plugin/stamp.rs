//! `cofferdam plugin stamp`: makes a component carry its own descriptor and manifest.
//!
//! Admission never runs guest code to find out what a plugin is; it reads what this verb wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_core::manifest::Manifest;
use cofferdam_host::{Artifact, Host, HostOptions, check_wishes};
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
    let read = Artifact::read(&args.component)?;
    if read.is_packed() {
        return Err(usage(format!(
            "`{}` is packed, and stamped already\nhelp: stamp the component, then pack it again",
            args.component.display()
        )));
    }
    let out = args.out.as_deref().unwrap_or(&args.component);
    super::files::check_folder(out)?;
    let manifest = manifest(args)?;
    let artifact = match &manifest {
        Some((_, text)) => Artifact::new(read.component().to_owned(), Some(text), read.origin())?,
        None => read,
    };
    if let Some(wanted) = artifact.manifest() {
        let place = manifest
            .as_ref()
            .map(|(path, _)| path.display().to_string());
        let place = place.unwrap_or_else(|| artifact.origin().to_owned());
        check_wishes(&wanted.limits, &place)?;
    }
    let component = artifact.component().to_owned();
    let descriptor = describe(artifact)?;
    let text = serde_json::to_string(&descriptor)?;
    let stamped = cofferdam_host::stamp(
        &component,
        &text,
        manifest.as_ref().map(|(_, text)| text.as_str()),
    )?;
    super::files::replace(out, &stamped)?;
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
    // Here, where messages can name the file.
    Manifest::parse(&text, &path.display().to_string()).map_err(cofferdam_host::Error::from)?;
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
