//! `cofferdam plugin …`

mod files;
pub mod history;
mod inspect;
mod keygen;
mod list;
mod pack;
mod sign;
mod stamp;
pub mod swap;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use cofferdam::Config;
use cofferdam_host::{Artifact, Host, Plugin};

use crate::context::{Context, block_on};

/// What can be done with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginVerb {
    /// Show what a plugin offers and what it asks for; its code is not run
    #[command(after_long_help = inspect::EXAMPLES)]
    Inspect(inspect::InspectArgs),
    /// Make a key that signs plugins
    #[command(after_long_help = keygen::EXAMPLES)]
    Keygen(keygen::KeygenArgs),
    /// List the plugins that can be named in a configuration
    #[command(after_long_help = list::EXAMPLES)]
    List,
    /// Make one file or folder of a plugin, to hand it to others
    #[command(after_long_help = pack::EXAMPLES)]
    Pack(pack::PackArgs),
    /// Vouch for a plugin with your key
    #[command(after_long_help = sign::EXAMPLES)]
    Sign(sign::SignArgs),
    /// Write descriptor and manifest into a component
    #[command(after_long_help = stamp::EXAMPLES)]
    Stamp(stamp::StampArgs),
    /// Bring a new plugin into service while calls go on
    #[command(after_long_help = swap::EXAMPLES)]
    Swap(swap::SwapArgs),
    /// Let the plugin on trial take over now
    #[command(after_long_help = swap::EXAMPLES)]
    Promote(swap::ConnectionArg),
    /// End the trial; without one, bring the plugin back that served before
    #[command(after_long_help = swap::EXAMPLES)]
    Rollback(swap::ConnectionArg),
    /// Show the generations of a connection and what happened to them
    #[command(after_long_help = history::EXAMPLES)]
    History(swap::ConnectionArg),
    /// Check that a plugin is what somebody you trust has signed
    #[command(after_long_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
}

pub fn run(context: &Context, verb: PluginVerb) -> Result<ExitCode> {
    match verb {
        PluginVerb::Inspect(args) => inspect::run(context, &args),
        PluginVerb::Keygen(args) => keygen::run(context, &args),
        PluginVerb::List => list::run(context),
        PluginVerb::Pack(args) => pack::run(context, &args),
        PluginVerb::Sign(args) => sign::run(context, &args),
        PluginVerb::Stamp(args) => stamp::run(context, &args),
        PluginVerb::Swap(args) => swap::run(context, &args),
        PluginVerb::Promote(args) => swap::promote(context, &args),
        PluginVerb::Rollback(args) => swap::roll_back(context, &args),
        PluginVerb::History(args) => history::run(context, &args),
        PluginVerb::Verify(args) => verify::run(context, &args),
    }
}

/// The file or folder of a plugin that is given by name or path.
pub fn locate(config: &Config, plugin: &str) -> Result<PathBuf> {
    let as_path = Path::new(plugin);
    let is_folder = ["plugin.wasm", "plugin.toml", "oci-layout"]
        .iter()
        .any(|file| as_path.join(file).is_file());
    if as_path.is_file() || is_folder {
        return Ok(as_path.to_owned());
    }
    Ok(config.find_plugin(plugin).map_err(cofferdam::Error::from)?)
}

/// The plugin with a descriptor; one that was never stamped is asked, in a chamber that is granted
/// nothing.
pub fn described(plugin: Plugin) -> Result<Plugin> {
    if plugin.descriptor().is_some() {
        return Ok(plugin);
    }
    let descriptor = block_on(async { Ok(plugin.describe().await?) })?;
    Ok(plugin.with_descriptor(descriptor))
}

/// A plugin, checked and compiled as for a connection.
pub fn load(host: &Host, path: &Path) -> Result<Plugin, Box<cofferdam_host::Error>> {
    let artifact = Artifact::read(path)?;
    Ok(host.load(artifact)?)
}
