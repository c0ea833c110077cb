//! The host: engines, code cache, and the way from a file to a plugin.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::Error;
use crate::artifact::Artifact;
use crate::cache::{CodeCache, deserialize_own};
use crate::call::Occupancy;
use crate::compiler::Compiler;
use crate::engines::{Engines, Size};
use crate::plugin::Plugin;

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where compiled code is kept, in a folder of its own that only this user may write to.
    /// Default: nowhere; every start compiles every plugin.
    pub code_cache_dir: Option<PathBuf>,
    /// Calls at the same time, of all connections together: the slots of the pool. Each takes
    /// address space, and memory only while it is used. Default 64, at least 1, at most 1,000.
    pub concurrency_max: u32,
    /// Where components are compiled. Default: in this process, without bounds.
    pub compiler: Compiler,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            code_cache_dir: None,
            concurrency_max: 64,
            compiler: Compiler::InProcess,
        }
    }
}

/// Everything that plugins share: engines, pools, compiled code. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engines: Engines,
    cache: Option<CodeCache>,
    compiler: Compiler,
}

pub(crate) const SLOTS_MAX: u32 = 1_000;

impl Host {
    /// Sets up the sandbox: reserves the pool, starts the ticker thread, opens the code cache.
    ///
    /// # Errors
    /// [`Error::BadLimit`], [`Error::Engine`] if the address space cannot be reserved,
    /// [`Error::Cache`] if the folder cannot be used.
    pub fn new(options: HostOptions) -> Result<Self, Error> {
        let HostOptions {
            code_cache_dir,
            concurrency_max: slots,
            compiler,
        } = options;
        compiler.validate()?;
        if !(1..=SLOTS_MAX).contains(&slots) {
            return Err(Error::BadLimit {
                place: "the host".to_owned(),
                key: "concurrency_max",
                value: slots.to_string(),
                reason: format!("must be from 1 to {SLOTS_MAX}"),
            });
        }
        let cache = code_cache_dir.as_deref().map(CodeCache::open).transpose()?;
        Ok(Self {
            inner: Arc::new(Inner {
                engines: Engines::new(slots)?,
                cache,
                compiler,
            }),
        })
    }

    /// Calls that run or wait for a slot, of all connections together. Both are zero when all have
    /// ended, however they did.
    pub fn occupancy(&self) -> Occupancy {
        self.inner.engines.occupancy()
    }

    /// Checks and compiles one plugin, or takes the compiled code from the cache. Never runs guest
    /// code. Blocks for as long as compiling takes (0.2 s for 100 KB, 12 s for a Python guest; a
    /// few milliseconds from the cache): call it from a thread that may block.
    ///
    /// # Errors
    /// [`Error`] tells what kind of file it is, what it lacks, or what it imports that nobody
    /// provides.
    pub fn load(&self, artifact: Artifact) -> Result<Plugin, Error> {
        let inspected = artifact.inspect()?;
        Plugin::new(self.clone(), artifact, inspected)
    }
}

impl Inner {
    /// The compiled component for one size of slot.
    pub(crate) fn compile(
        &self,
        size: Size,
        bytes: &[u8],
        digest: &str,
        origin: &str,
    ) -> Result<Component, Error> {
        let engine = &self.engines.pool(size)?.engine;
        let cached = || self.cache.as_ref().and_then(|c| c.load(engine, digest));
        if let Some(component) = cached() {
            return Ok(component);
        }
        let shape = (size, self.engines.slots());
        let code = self.compiler.compile(engine, shape, bytes, origin)?;
        if let Some(cache) = &self.cache {
            cache.store(engine, digest, &code);
        }
        // From the cache it is mapped from a file, and shared with other processes.
        if let Some(component) = cached() {
            return Ok(component);
        }
        deserialize_own(engine, &code).map_err(|error| Error::Compile {
            origin: origin.to_owned(),
            reason: format!("{error:#}"),
        })
    }
}

/// The digest by which runs and the code cache know a component.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Manifest and descriptor have to speak of the same plugin.
pub(crate) fn check_manifest(
    manifest: &cofferdam_core::manifest::Manifest,
    descriptor: Option<&cofferdam_core::descriptor::Descriptor>,
    origin: &str,
) -> Result<(), Error> {
    if manifest.wit_major() != 1 {
        return Err(Error::WitMajor {
            origin: origin.to_owned(),
            found: manifest.wit.clone(),
        });
    }
    let Some(descriptor) = descriptor else {
        return Ok(());
    };
    for (key, in_manifest, in_descriptor) in [
        ("name", &manifest.name, &descriptor.name),
        ("version", &manifest.version, &descriptor.version),
    ] {
        if in_manifest != in_descriptor {
            return Err(Error::ManifestMismatch {
                origin: origin.to_owned(),
                key,
                manifest: in_manifest.clone(),
                descriptor: in_descriptor.clone(),
            });
        }
    }
    Ok(())
}
