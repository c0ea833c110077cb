//! `cofferdam plugin list`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use cofferdam_host::Host;
use serde_json::json;

use crate::context::Context;
use crate::output;

pub const EXAMPLES: &str = "\
Looks into the configuration's [plugins] dir, the folder that COFFERDAM_PLUGINS names, and `plugins`
beside the program. Each plugin is checked as for a connection; its code is not run.

Examples:
  cofferdam plugin list
  COFFERDAM_PLUGINS=target/plugins cofferdam plugin list --output json";

pub fn run(context: &Context) -> Result<ExitCode> {
    let config = context.config()?;
    let plugins = config.plugins();
    if plugins.is_empty() {
        let looked: Vec<String> = config
            .plugin_folders()
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        eprintln!("no plugins in {}", looked.join(", "));
    }
    let host = Context::host(&config)?;
    let mut listed = Vec::new();
    let mut rows = Vec::new();
    for (name, path) in &plugins {
        match admit(&host, path) {
            Ok((version, actions, digest)) => {
                rows.push([
                    name.clone(),
                    version.clone(),
                    actions.join(" "),
                    path.display().to_string(),
                ]);
                listed.push(json!({
                    "name": name, "version": version, "actions": actions, "digest": digest, "path": path,
                }));
            }
            Err(error) => {
                eprintln!("{name}: {}: {error}", error.code());
                listed.push(json!({
                    "name": name, "path": path, "error": {"code": error.code(), "message": error.to_string()},
                }));
            }
        }
    }
    if context.is_json() {
        output::json(&listed)?;
    } else {
        output::table(["NAME", "VERSION", "ACTIONS", "PATH"], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Version, actions and digest.
fn admit(
    host: &Host,
    path: &Path,
) -> Result<(String, Vec<String>, String), Box<cofferdam_host::Error>> {
    let plugin = super::load(host, path)?;
    let missing = || {
        Box::new(cofferdam_host::Error::DescriptorMissing {
            origin: plugin.origin().to_owned(),
        })
    };
    let descriptor = plugin.descriptor().ok_or_else(missing)?;
    Ok((
        descriptor.version.clone(),
        descriptor.actions.keys().cloned().collect(),
        plugin.digest().to_owned(),
    ))
}
