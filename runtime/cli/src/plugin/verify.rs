//! `cofferdam plugin verify`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_host::artifact::Error;
use cofferdam_host::{Artifact, PublicKey, Trust};
use serde_json::json;

use crate::context::Context;
use crate::exit::{FAILED, usage};
use crate::output;

pub const EXAMPLES: &str = "\
Succeeds if every signature is one of this very plugin, and one is by a key that is given here or
stands in the configuration's `[plugins] trusted-keys`. `allow-unsigned` does not count. Nothing of
the plugin is run. Exits with 1 if it cannot be vouched for.

Examples:
  cofferdam plugin verify dist/crm.cofferdam --key ed25519:2b6Zk...
  cofferdam plugin verify crm --key acme.pub
  cofferdam plugin verify crm --config cofferdam.toml";

/// What `plugin verify` takes.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A plugin's name, or the path of a packed plugin, a component or its folder
    #[arg(value_name = "PATH|NAME")]
    artifact: String,
    /// A public key, or the file that holds it; may be repeated [default: the trusted keys of the configuration]
    #[arg(long, value_name = "PUB")]
    key: Vec<String>,
}

pub fn run(context: &Context, args: &VerifyArgs) -> Result<ExitCode> {
    let config = context.config()?;
    let keys = if args.key.is_empty() {
        config.trust_default().keys.clone()
    } else {
        args.key
            .iter()
            .map(|key| public(key))
            .collect::<Result<_>>()?
    };
    if keys.is_empty() {
        return Err(usage(
            "there is no key to verify with\nhelp: name one with --key PUB, or a configuration that has `[plugins] trusted-keys` with --config FILE",
        ));
    }
    let artifact = Artifact::read(&super::locate(&config, &args.artifact)?)?;
    let trust = Trust {
        keys,
        allow_unsigned: false,
    };
    match trust.judge(&artifact) {
        Ok(signer) => {
            if context.is_json() {
                output::json(&json!({
                    "verified": true,
                    "name": artifact.name(),
                    "version": artifact.manifest().map(|manifest| &manifest.version),
                    "digest": artifact.digest()?,
                    "signer": signer.to_string(),
                    "path": artifact.origin(),
                }))?;
            } else {
                let version = artifact.manifest().map(|m| m.version.as_str());
                let version = version.unwrap_or_default();
                output::text(&format!("{} {version}: {signer}\n", artifact.name()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        // The check was made and not passed; anything else is a file that could not be checked.
        Err(cofferdam_host::Error::Artifact(
            error @ (Error::BadSignature { .. }
            | Error::Unsigned { .. }
            | Error::UntrustedKey { .. }
            | Error::NoManifest { .. }),
        )) => {
            if context.is_json() {
                output::json(&json!({
                    "verified": false,
                    "code": error.code(),
                    "message": error.to_string(),
                    "path": artifact.origin(),
                }))?;
            } else {
                let message = error.to_string().replace('\n', "\n  ");
                eprintln!("error: {}: {message}", error.code());
            }
            Ok(ExitCode::from(FAILED))
        }
        Err(error) => Err(error.into()),
    }
}

/// A key as text, or the file that holds one.
fn public(key: &str) -> Result<PublicKey> {
    let read = if key.starts_with("ed25519:") {
        PublicKey::parse(key, "--key")
    } else {
        PublicKey::read(Path::new(key))
    };
    Ok(read.map_err(cofferdam_host::Error::from)?)
}
