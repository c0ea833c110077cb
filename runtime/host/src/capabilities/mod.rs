//! What a plugin can import, one part each.
//!
//! A part has a small lifecycle: it is linked once for each engine; it is admitted for each
//! connection, which is where grants are checked; and it works for each call, through the traits
//! that the contract's bindings ask of [`State`]. To add one, write its file and name it in [`ALL`].

use cofferdam_core::manifest::Manifest;
use wasmtime::component::Linker;

use crate::Error;
use crate::chamber::State;
use crate::plugin::Plugin;
use crate::spec::ConnectionSpec;

pub(crate) mod config;
pub(crate) mod http;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod secrets;
pub(crate) mod smtp;
pub(crate) mod sql;
pub(crate) mod wasi;

/// Every capability that this host has.
pub(crate) const ALL: &[&dyn Capability] = &[
    &log::Log,
    &config::Config,
    &secrets::Secrets,
    &kv::Kv,
    &sql::Sql,
    &smtp::Smtp,
    &http::Http,
    &wasi::Wasi,
];

/// One thing that a plugin can import.
pub(crate) trait Capability: Sync {
    /// The name in manifests, grants and messages.
    fn name(&self) -> &'static str;

    /// Whether it provides this interface (`wasi:http/types`) in this version (`0.2.12`).
    fn provides(&self, interface: &str, version: &str) -> bool;

    /// Adds its functions to a linker; called once for each engine.
    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()>;

    /// The line that is missing in a manifest whose component imports this.
    fn unrequested(&self, _manifest: &Manifest) -> Option<String> {
        None
    }

    /// Checks the grants of a connection whose plugin imports this.
    fn admit(&self, _plugin: &Plugin, _spec: &ConnectionSpec) -> Result<(), Error> {
        Ok(())
    }
}

/// A refusal that names what is missing and the line that would grant it.
fn missing(
    plugin: &Plugin,
    spec: &ConnectionSpec,
    what: impl Into<String>,
    line: impl Into<String>,
) -> Error {
    Error::MissingGrant {
        connection: spec.name.clone(),
        plugin: plugin.name().to_owned(),
        what: what.into(),
        line: line.into(),
    }
}
