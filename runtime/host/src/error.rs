//! Why a plugin was not loaded, or a connection not made.

use cofferdam_core::{descriptor, failure::Failure, manifest};

/// Why a plugin was refused before any call. Every message names the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}; check that the path is right and may be read")]
    Read {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The component is larger than any real connector.
    #[error(
        "`{origin}` has {bytes} bytes, and at most {bytes_max} are taken; build it optimised and stripped"
    )]
    TooLarge {
        /// The file.
        origin: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Not WebAssembly at all.
    #[error(
        "`{origin}` is not WebAssembly: it does not begin with `\\0asm`; give the path of a component (.wasm)"
    )]
    NotWasm {
        /// The file.
        origin: String,
    },
    /// A core module where a component is needed.
    #[error(
        "`{origin}` is a core WebAssembly module, not a component; build for the target `wasm32-wasip2`, or wrap it with `wasm-tools component new`"
    )]
    CoreModule {
        /// The file.
        origin: String,
    },
    /// A component that does not validate.
    #[error("`{origin}` is not a valid component: {reason}; build it again")]
    Malformed {
        /// The file.
        origin: String,
        /// What the validator said.
        reason: String,
    },
    /// A component of another world.
    #[error(
        "`{origin}` is not a connector: it does not export `{missing}`, it exports {exports}; build it against the world `plugin` of `cofferdam:connector@1.0.0`"
    )]
    WrongWorld {
        /// The file.
        origin: String,
        /// The export that is missing.
        missing: &'static str,
        /// What it does export, for the message.
        exports: String,
    },
    /// Built for a contract that this host does not have.
    #[error(
        "`{origin}` is built for `cofferdam:connector@{found}`, and this host offers 1.x; build it against 1.0.0, or use a host that offers its version"
    )]
    WitMajor {
        /// The file.
        origin: String,
        /// The version it wants.
        found: String,
    },
    /// An import that nobody provides.
    #[error("`{origin}` imports `{import}`, which no host capability provides; {remedy}")]
    UnknownImport {
        /// The file.
        origin: String,
        /// The import.
        import: String,
        /// What to do about it.
        remedy: String,
    },
    /// The manifest is not valid.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Manifest and descriptor disagree.
    #[error(
        "`{origin}`: the manifest says `{key} = \"{manifest}\"` and the descriptor in the component says `{descriptor}`; make them the same and stamp the component again"
    )]
    ManifestMismatch {
        /// The file.
        origin: String,
        /// `name` or `version`.
        key: &'static str,
        /// What the manifest says.
        manifest: String,
        /// What the descriptor says.
        descriptor: String,
    },
    /// The component carries no descriptor.
    #[error(
        "`{origin}` carries no descriptor (custom section `cofferdam:descriptor`); run `cofferdam plugin stamp {origin}`"
    )]
    DescriptorMissing {
        /// The file.
        origin: String,
    },
    /// The descriptor is not valid.
    #[error("`{origin}`: {source}; correct what `describe` returns and stamp the component again")]
    Descriptor {
        /// The file.
        origin: String,
        /// What is wrong with it.
        source: descriptor::Error,
    },
    /// The compiler refused the component.
    #[error("`{origin}` cannot be compiled: {reason}")]
    Compile {
        /// The file.
        origin: String,
        /// What the compiler said.
        reason: String,
    },
    /// Compiling took too long.
    #[error(
        "`{origin}` is not compiled within {time_max:?}; build it optimised and smaller, or give the compiler more time"
    )]
    CompileTime {
        /// The file.
        origin: String,
        /// The bound.
        time_max: std::time::Duration,
    },
    /// Compiling took too much memory.
    #[error(
        "`{origin}` takes more than {bytes_max} bytes of memory to compile; build it optimised and smaller, or give the compiler more memory"
    )]
    CompileMemory {
        /// The file.
        origin: String,
        /// The bound.
        bytes_max: u64,
    },
    /// The program that compiles does not work.
    #[error(
        "the compiler `{program}` does not work: {reason}; name a program that calls `compile_child`, or compile in the process itself"
    )]
    Compiler {
        /// The program.
        program: String,
        /// How it failed.
        reason: String,
    },
    /// The plugin imports what its connection does not grant.
    #[error(
        "connection `{connection}`: plugin `{plugin}` needs {what}, which is not granted; add to [connections.{connection}.grants]: {line}"
    )]
    MissingGrant {
        /// The connection.
        connection: String,
        /// The plugin.
        plugin: String,
        /// The capability: `sql`, `http`, `secret TOKEN`.
        what: String,
        /// The line to add to the configuration.
        line: String,
    },
    /// The plugin imports what its manifest does not ask for.
    #[error(
        "`{origin}` imports {capability} and its manifest does not ask for it; write `{line}` under [capabilities] in plugin.toml"
    )]
    NotRequested {
        /// The file.
        origin: String,
        /// The capability.
        capability: &'static str,
        /// The line to add to the manifest.
        line: String,
    },
    /// A grant that makes no sense.
    #[error("{place}: `{key} = \"{value}\"`: {reason}")]
    BadGrant {
        /// The connection or the manifest.
        place: String,
        /// The key.
        key: &'static str,
        /// What was written, without credentials.
        value: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// A limit that makes no sense.
    #[error("{place}: `{key} = {value}`: {reason}")]
    BadLimit {
        /// The connection with its plugin, the manifest, or `limits` where nobody knows better.
        place: String,
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// The range, and what to write where that is not plain.
        reason: String,
    },
    /// The sandbox could not be set up on this machine.
    #[error(
        "the sandbox cannot be set up: {reason}; lower `concurrency_max`, or raise the limit on virtual memory (`ulimit -v`)"
    )]
    Engine {
        /// What the engine said.
        reason: String,
    },
    /// The folder of compiled code cannot be used.
    #[error(
        "the code cache `{path}` cannot be used: {source}; make the folder writable for this user, or choose another"
    )]
    Cache {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The artifact, a signature or a key.
    #[error(transparent)]
    Artifact(#[from] crate::artifact::Error),
    /// `describe` failed.
    #[error("`{origin}`: `describe` failed: {failure}")]
    Describe {
        /// The file.
        origin: String,
        /// How it failed.
        failure: Failure,
    },
}

impl Error {
    /// The stable code under which the documentation explains this.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "CD0301",
            Self::TooLarge { .. } => "CD0302",
            Self::NotWasm { .. } => "CD0303",
            Self::CoreModule { .. } => "CD0304",
            Self::Malformed { .. } => "CD0305",
            Self::WrongWorld { .. } => "CD0306",
            Self::WitMajor { .. } => "CD0307",
            Self::UnknownImport { .. } => "CD0308",
            Self::Manifest(_) => "CD0309",
            Self::ManifestMismatch { .. } => "CD0310",
            Self::DescriptorMissing { .. } => "CD0311",
            Self::Descriptor { .. } => "CD0312",
            Self::Compile { .. } => "CD0313",
            Self::MissingGrant { .. } => "CD0314",
            Self::NotRequested { .. } => "CD0315",
            Self::BadGrant { .. } => "CD0316",
            Self::BadLimit { .. } => "CD0317",
            Self::Engine { .. } => "CD0318",
            Self::Cache { .. } => "CD0319",
            Self::Describe { .. } => "CD0320",
            Self::Artifact(source) => source.code(),
            Self::CompileTime { .. } => "CD0330",
            Self::CompileMemory { .. } => "CD0331",
            Self::Compiler { .. } => "CD0332",
        }
    }
}
