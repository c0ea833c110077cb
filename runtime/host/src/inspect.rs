//! What a component imports and exports, read from its bytes without compiling or running it.

use cofferdam_core::descriptor::{self, Descriptor};
use wasmparser::{Parser, Payload};

use crate::host::check_manifest;
use crate::{Artifact, Error, artifact, capabilities};

/// What the world requires.
const CONNECTOR: &str = "cofferdam:connector/connector@1.0.0";
/// What the world allows besides.
const RECOVERY: &str = "cofferdam:connector/recovery@1.0.0";
/// The package of the contract.
const PACKAGE: &str = "cofferdam:connector";
/// The one major version of the contract that this host offers.
const WIT_MAJOR: u64 = 1;

/// What is known of a component before it is compiled.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The names of the host capabilities it imports, in the order of the host's list: `log`,
    /// `config`, `secrets`, `kv`, `sql`, `smtp`, `http`, `wasi`.
    pub capabilities: Vec<&'static str>,
    /// Whether it exports `recovery`: whether it can be asked for the outcome of earlier calls.
    pub recovery: bool,
    /// The descriptor that travels in it; `None` for a component that was never stamped.
    pub descriptor: Option<Descriptor>,
}

impl Artifact {
    /// Everything that decides whether a plugin is taken, short of compiling it: the kind of file,
    /// the world, each import, the descriptor, and what the manifest asks for. No guest code is
    /// run, and nothing is read but the artifact itself.
    ///
    /// # Errors
    /// [`Error`] tells what kind of file it is, what it lacks, what it imports that nobody
    /// provides, or what its manifest does not ask for.
    pub fn inspect(&self) -> Result<Inspected, Error> {
        let inspected = inspect(self.component(), self.origin())?;
        let Some(manifest) = self.manifest() else {
            return Ok(inspected);
        };
        check_manifest(manifest, inspected.descriptor.as_ref(), self.origin())?;
        for capability in capabilities::ALL {
            if inspected.capabilities.contains(&capability.name())
                && let Some(line) = capability.unrequested(manifest)
            {
                return Err(Error::NotRequested {
                    origin: self.origin().to_owned(),
                    capability: capability.name(),
                    line,
                });
            }
        }
        Ok(inspected)
    }
}

/// Checks kind, world and imports, and reads the descriptor.
fn inspect(component: &[u8], origin: &str) -> Result<Inspected, Error> {
    let bytes = component.len() as u64;
    if bytes > artifact::COMPONENT_BYTES_MAX {
        let bytes_max = artifact::COMPONENT_BYTES_MAX;
        return Err(Error::TooLarge {
            origin: origin.to_owned(),
            bytes,
            bytes_max,
        });
    }
    artifact::check_header(component, origin)?;
    let (imports, exports) = names(component).map_err(|error| Error::Malformed {
        origin: origin.to_owned(),
        reason: error.to_string(),
    })?;
    check_exports(&exports, origin)?;
    let mut capabilities = Vec::new();
    for import in &imports {
        let name = capability_of(import, origin)?;
        if let Some(name) = name
            && !capabilities.contains(&name)
        {
            capabilities.push(name);
        }
    }
    Ok(Inspected {
        capabilities,
        recovery: exports.iter().any(|export| export == RECOVERY),
        descriptor: read_descriptor(component, origin)?,
    })
}

/// The names that the component itself imports and exports.
pub(crate) fn names(
    component: &[u8],
) -> Result<(Vec<String>, Vec<String>), wasmparser::BinaryReaderError> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn check_exports(exports: &[String], origin: &str) -> Result<(), Error> {
    if exports.iter().any(|export| export == CONNECTOR) {
        return Ok(());
    }
    let other = exports.iter().find_map(|export| {
        let (package, version) = split_version(export);
        (package == "cofferdam:connector/connector").then_some(version)
    });
    if let Some(found) = other {
        return Err(Error::WitMajor {
            origin: origin.to_owned(),
            found: found.to_owned(),
        });
    }
    let exports = if exports.is_empty() {
        "nothing".to_owned()
    } else {
        exports
            .iter()
            .take(8)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(Error::WrongWorld {
        origin: origin.to_owned(),
        missing: CONNECTOR,
        exports,
    })
}

/// Which capability provides an import; `None` for one that only shares types.
fn capability_of(import: &str, origin: &str) -> Result<Option<&'static str>, Error> {
    let (interface, version) = split_version(import);
    if interface.starts_with(PACKAGE) {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u64>().ok());
        if major != Some(WIT_MAJOR) {
            return Err(Error::WitMajor {
                origin: origin.to_owned(),
                found: version.to_owned(),
            });
        }
        if interface == "cofferdam:connector/protocol" {
            return Ok(None);
        }
    }
    if let Some(capability) = capabilities::ALL
        .iter()
        .find(|c| c.provides(interface, version))
    {
        return Ok(Some(capability.name()));
    }
    Err(Error::UnknownImport {
        origin: origin.to_owned(),
        import: import.to_owned(),
        remedy: remedy(interface, version).to_owned(),
    })
}

fn remedy(interface: &str, version: &str) -> &'static str {
    if interface.starts_with("wasi:") && version.starts_with("0.3") {
        "WASI 0.3 is not stable yet; build for WASI 0.2 (`wasm32-wasip2`)"
    } else if interface.starts_with("wasi:") {
        "offered are io, clocks, random, filesystem, cli, sockets and http of WASI 0.2; use what these have"
    } else if interface == "env" || interface.starts_with("wasi_snapshot_preview1") {
        "build for the target `wasm32-wasip2`, so that no such import remains"
    } else {
        "import only interfaces of `cofferdam:connector` and WASI 0.2, and compose everything else into the component"
    }
}

/// `a:b/c@1.0.0` as `a:b/c` and `1.0.0`.
fn split_version(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

fn read_descriptor(component: &[u8], origin: &str) -> Result<Option<Descriptor>, Error> {
    let Some(bytes) = artifact::custom_section(component, descriptor::SECTION) else {
        return Ok(None);
    };
    Descriptor::parse(&String::from_utf8_lossy(bytes))
        .map(Some)
        .map_err(|source| Error::Descriptor {
            origin: origin.to_owned(),
            source,
        })
}
