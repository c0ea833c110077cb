//! `cofferdam plugin keygen`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use cofferdam_host::artifact::{Error, PrivateKey};
use serde_json::json;

use super::files::{self, MODE_PRIVATE, MODE_PUBLIC};
use crate::context::Context;
use crate::output;

pub const EXAMPLES: &str = "\
Makes NAME.key, which signs plugins and is readable for you alone, and NAME.pub, which operators
write into `[plugins] trusted-keys`. Prints the public key.

Examples:
  cofferdam plugin keygen
  cofferdam plugin keygen --out keys/acme";

/// What `plugin keygen` takes.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Where to write, without the extension
    #[arg(long, value_name = "DIR/NAME", default_value = "cofferdam")]
    out: PathBuf,
    /// Replace a key that is there; plugins can then no longer be signed with it
    #[arg(long)]
    force: bool,
}

pub fn run(context: &Context, args: &KeygenArgs) -> Result<ExitCode> {
    files::check_folder(&args.out)?;
    let key = PrivateKey::generate().map_err(cofferdam_host::Error::from)?;
    let (private_file, public_file) = (with(&args.out, "key"), with(&args.out, "pub"));
    let public = key.public();
    let text = key.to_text();
    files::create(&private_file, text.as_bytes(), MODE_PRIVATE, args.force)?;
    let line = format!("{public}\n");
    files::create(&public_file, line.as_bytes(), MODE_PUBLIC, args.force)?;
    if context.is_json() {
        output::json(&json!({
            "id": public.id(),
            "publicKey": public.to_string(),
            "publicFile": public_file,
            "privateFile": private_file,
        }))?;
    } else {
        eprintln!(
            "key {}: {} signs plugins, keep it to yourself; operators trust it by this line of {}",
            public.id(),
            private_file.display(),
            public_file.display()
        );
        output::text(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `acme` and `acme.v2` as `acme.key` and `acme.v2.key`.
fn with(out: &Path, extension: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// A private key's file.
pub fn private(path: &Path) -> Result<PrivateKey> {
    Ok(PrivateKey::read(path).map_err(|error: Error| cofferdam_host::Error::from(error))?)
}
