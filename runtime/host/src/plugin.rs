//! A plugin that was checked and compiled, and may be connected many times.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_core::descriptor::Descriptor;
use cofferdam_core::manifest::Manifest;
use cofferdam_core::schema::Schema;
use indexmap::IndexMap;
use wasmtime::component::InstancePre;

use crate::artifact::Artifact;
use crate::bindings::exports::cofferdam::connector::{connector, recovery};
use crate::chamber::{self, Answer, State, Work};
use crate::connection::Settings;
use crate::engines::Size;
use crate::host::{Host, check_manifest, digest};
use crate::inspect::Inspected;
use crate::{Error, verdict};

/// A checked and compiled plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    host: Host,
    inner: Arc<Inner>,
    described: Option<Arc<Described>>,
}

struct Inner {
    artifact: Artifact,
    digest: String,
    capabilities: Vec<&'static str>,
    recovery: bool,
    /// By size of slot: the operator's limits decide which is needed.
    small: OnceLock<Arc<Loaded>>,
    large: OnceLock<Arc<Loaded>>,
}

/// A descriptor with its schemas compiled.
pub(crate) struct Described {
    pub(crate) descriptor: Descriptor,
    pub(crate) actions: IndexMap<String, Action>,
}

pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) lookup: bool,
    pub(crate) input: Schema,
    pub(crate) output: Schema,
}

/// A component linked for one engine, with the places of its exports looked up.
pub(crate) struct Loaded {
    pub(crate) pre: InstancePre<State>,
    pub(crate) connector: connector::GuestIndices,
    pub(crate) recovery: Option<recovery::GuestIndices>,
}

/// How long `describe` may take; it only returns a constant.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Plugin {
    pub(crate) fn new(host: Host, artifact: Artifact, inspected: Inspected) -> Result<Self, Error> {
        let described = inspected.descriptor.map(Described::new).transpose();
        let described = described.map_err(|source| Error::Descriptor {
            origin: artifact.origin().to_owned(),
            source,
        })?;
        let wish = artifact.manifest().and_then(|m| m.limits.memory_bytes());
        let plugin = Self {
            host,
            inner: Arc::new(Inner {
                digest: digest(artifact.component()),
                capabilities: inspected.capabilities,
                recovery: inspected.recovery,
                small: OnceLock::new(),
                large: OnceLock::new(),
                artifact,
            }),
            described: described.map(Arc::new),
        };
        let size = wish.map_or(Size::Small, Size::for_memory);
        match plugin.loaded(size) {
            Ok(_) => Ok(plugin),
            // A component may need a large slot without having wished for one.
            Err(error) if size == Size::Small => plugin
                .loaded(Size::Large)
                .map(|_| plugin)
                .map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    /// The component's SHA-256, as hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What the plugin offers; `None` for a component that was never stamped.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        self.described
            .as_ref()
            .map(|described| &described.descriptor)
    }

    /// What the plugin asks for; `None` for a bare component.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.inner.artifact.manifest()
    }

    /// The host capabilities that its component imports: `log`, `config`, `secrets`, `kv`, `sql`,
    /// `smtp`, `http`, `wasi`.
    pub fn imports(&self) -> &[&'static str] {
        &self.inner.capabilities
    }

    /// Whether it can be asked for the outcome of earlier calls.
    pub fn exports_recovery(&self) -> bool {
        self.inner.recovery
    }

    /// What it was made of.
    pub fn artifact(&self) -> &Artifact {
        &self.inner.artifact
    }

    /// Where it came from.
    pub fn origin(&self) -> &str {
        self.inner.artifact.origin()
    }

    /// Its name, or where it came from if it has none.
    pub fn name(&self) -> &str {
        let manifest = self.manifest().map(|manifest| manifest.name.as_str());
        manifest
            .or(self.descriptor().map(|d| d.name.as_str()))
            .unwrap_or(self.origin())
    }

    /// Runs the plugin's `describe` in a chamber that is granted nothing.
    ///
    /// # Errors
    /// [`Error::Describe`] if it traps or takes too long, [`Error::Descriptor`] if what it returns
    /// is not a descriptor, [`Error::ManifestMismatch`] if it contradicts the manifest.
    pub async fn describe(&self) -> Result<Descriptor, Error> {
        let origin = self.origin().to_owned();
        let settings = Arc::new(Settings::nothing(&origin)?);
        let loaded = self.any_loaded()?;
        let ran = chamber::run(
            &self.host,
            &loaded,
            &settings,
            Work::Describe,
            String::new(),
            DESCRIBE_TIMEOUT,
            None,
        )
        .await;
        let text = match ran.result {
            Ok(Answer::Described(text)) => text,
            Ok(Answer::Output(_) | Answer::Health(_) | Answer::Lookup(_)) => {
                let failure = verdict::defect("the chamber answered another question");
                return Err(Error::Describe { origin, failure });
            }
            Err(failure) => return Err(Error::Describe { origin, failure }),
        };
        let descriptor = Descriptor::parse(&text).map_err(|source| Error::Descriptor {
            origin: origin.clone(),
            source,
        })?;
        if let Some(manifest) = self.manifest() {
            check_manifest(manifest, Some(&descriptor), &origin)?;
        }
        Ok(descriptor)
    }

    /// The same plugin with this descriptor, for a component that carries none.
    ///
    /// A descriptor whose schemas do not compile leaves the plugin without one, and
    /// `Plugin::connect` says so; one that was parsed with [`Descriptor::parse`] always compiles.
    pub fn with_descriptor(mut self, descriptor: Descriptor) -> Self {
        self.described = Described::new(descriptor).ok().map(Arc::new);
        self
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn described(&self) -> Result<Arc<Described>, Error> {
        let missing = || Error::DescriptorMissing {
            origin: self.origin().to_owned(),
        };
        self.described.clone().ok_or_else(missing)
    }

    /// The code for one size of slot; compiles it when it is first wanted.
    pub(crate) fn loaded(&self, size: Size) -> Result<Arc<Loaded>, Error> {
        let slot = match size {
            Size::Small => &self.inner.small,
            Size::Large => &self.inner.large,
        };
        if let Some(loaded) = slot.get() {
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(Loaded::new(&self.host, size, &self.inner)?);
        Ok(Arc::clone(slot.get_or_init(|| loaded)))
    }

    fn any_loaded(&self) -> Result<Arc<Loaded>, Error> {
        match self.inner.large.get() {
            Some(loaded) => Ok(Arc::clone(loaded)),
            None => self.loaded(Size::Small),
        }
    }
}

impl Described {
    fn new(descriptor: Descriptor) -> Result<Self, cofferdam_core::descriptor::Error> {
        let mut actions = IndexMap::with_capacity(descriptor.actions.len());
        for (name, action) in &descriptor.actions {
            let compile = |which, schema| {
                Schema::compile(schema).map_err(|error| cofferdam_core::descriptor::Error::Schema {
                    action: name.clone(),
                    which,
                    reason: error.to_string(),
                })
            };
            let compiled = Action {
                name: name.clone(),
                lookup: action.lookup,
                input: compile("input", &action.input)?,
                output: compile("output", &action.output)?,
            };
            actions.insert(name.clone(), compiled);
        }
        Ok(Self {
            descriptor,
            actions,
        })
    }
}

impl Loaded {
    fn new(host: &Host, size: Size, plugin: &Inner) -> Result<Self, Error> {
        let origin = plugin.artifact.origin();
        let bytes = plugin.artifact.component();
        let component = host.inner.compile(size, bytes, &plugin.digest, origin)?;
        let linker = &host.inner.engines.pool(size)?.linker;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| Error::UnknownImport {
                origin: origin.to_owned(),
                import: format!("{error:#}"),
                remedy: "build it against the contract's version 1.0.0 and WASI 0.2".to_owned(),
            })?;
        let shape = |error: wasmtime::Error| Error::WrongWorld {
            origin: origin.to_owned(),
            missing: "cofferdam:connector/connector@1.0.0",
            exports: format!("one with other functions ({error:#})"),
        };
        let connector = connector::GuestIndices::new(&pre).map_err(shape)?;
        let recovery = plugin
            .recovery
            .then(|| recovery::GuestIndices::new(&pre))
            .transpose()
            .map_err(shape)?;
        Ok(Self {
            pre,
            connector,
            recovery,
        })
    }

    pub(crate) fn offers_recovery(&self) -> bool {
        self.recovery.is_some()
    }
}
