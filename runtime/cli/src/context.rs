//! What the global arguments stand for.

use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cofferdam::{Archive, ChildCompiler, Compiler, Config, Engine, Error, Runtime};
use cofferdam_host::{Host, HostOptions};

use crate::args::Global;
use crate::compile;
use crate::exit::{storage, usage};
use crate::output::Format;

/// Where runs are kept if nobody says otherwise.
const DATA_DEFAULT: &str = ".cofferdam";
const CONFIG_DEFAULT: &str = "cofferdam.toml";
/// A program that makes one call at a time needs no large pool.
const CHAMBERS: u32 = 4;

/// The global arguments; files are read when a verb asks for them.
#[derive(Clone)]
pub struct Context {
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    format: Format,
    verbose: bool,
}

impl Context {
    pub fn new(global: &Global) -> Self {
        let default = Path::new(CONFIG_DEFAULT);
        Self {
            config: global
                .config
                .clone()
                .or_else(|| default.is_file().then(|| default.to_owned())),
            data: global.data.clone(),
            format: global.output,
            verbose: global.verbose > 0,
        }
    }

    /// The same for one workflow: if no configuration is named and none is in this folder, that
    /// beside the workflow is used, so that an example runs as it lies there.
    pub fn beside(&self, workflow: &Path) -> Self {
        let beside = workflow.with_file_name(CONFIG_DEFAULT);
        let config = self
            .config
            .clone()
            .or_else(|| beside.is_file().then_some(beside));
        Self {
            config,
            ..self.clone()
        }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether more is to be told.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// What to write to go on with a run.
    pub fn resume_command(&self, run: &str) -> String {
        self.command(&format!("runs resume {run}"))
    }

    /// A command on the same configuration and the same store, to be copied.
    pub fn command(&self, verb: &str) -> String {
        let mut command = format!("cofferdam {verb}");
        for (flag, path) in [("--config", &self.config), ("--data", &self.data)] {
            if let Some(path) = path {
                // Writing to a string cannot fail.
                let _ = write!(command, " {flag} {}", path.display());
            }
        }
        command
    }

    /// The configuration's file, if there is one.
    pub fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration, with the place of the store filled in.
    pub fn config(&self) -> Result<Config> {
        let config = match &self.config {
            Some(path) => Config::load(path).map_err(Error::from)?,
            // What is used without a configuration was named on the command line.
            None => Config::default().with_allow_unsigned(true),
        };
        let configured = config.store_path().map(Path::to_owned);
        let data = self
            .data
            .clone()
            .or(configured)
            .unwrap_or_else(|| DATA_DEFAULT.into());
        Ok(config.with_store(data))
    }

    /// Where the store is. `--data` alone decides if it is given, so that a store can be looked at
    /// beside a configuration that is broken.
    pub fn store_path(&self) -> Result<PathBuf> {
        match &self.data {
            Some(path) => Ok(path.clone()),
            None => Ok(self
                .config()?
                .store_path()
                .map_or_else(|| DATA_DEFAULT.into(), Path::to_owned)),
        }
    }

    /// Whether `--data` says where the store is, or is to be.
    pub fn names_data(&self) -> bool {
        self.data.is_some()
    }

    /// Where the store is and what keeps it, and nothing else: `--data` beside a configuration that
    /// is broken is enough.
    pub fn place(&self) -> Result<Config> {
        match self.config() {
            Ok(config) => Ok(config),
            Err(_) if self.data.is_some() => Ok(Config::default().with_store(self.store_path()?)),
            Err(error) => Err(error),
        }
    }

    /// What the configuration says of the store's engine, if it can be read.
    pub fn engine(&self) -> Option<Engine> {
        self.config().ok()?.engine()
    }

    /// The store, to look at it. It has to be there.
    pub fn archive(&self) -> Result<Archive> {
        let path = self.store_path()?;
        Archive::open(&path)?.ok_or_else(|| {
            storage(format!(
                "there is no store at `{}`\nhelp: `cofferdam run` makes one; name another with --data DIR",
                path.display()
            ))
        })
    }

    /// Refuses a store that is not there, which would else be made.
    pub fn store_is_there(&self) -> Result<()> {
        let path = self.store_path()?;
        if path.exists() {
            return Ok(());
        }
        Err(usage(format!(
            "there is no store at `{}`\nhelp: name the one that you mean with --data DIR",
            path.display()
        )))
    }

    /// This program, as it compiles components and does nothing else.
    pub fn compiler() -> Result<Compiler> {
        let child = ChildCompiler::this_program([compile::VERB])?;
        Ok(Compiler::Child(child))
    }

    /// Chambers for single calls.
    pub fn host(config: &Config) -> Result<Host> {
        let options = HostOptions {
            code_cache_dir: config.code_cache_dir(),
            concurrency_max: CHAMBERS,
            compiler: Self::compiler()?,
        };
        Ok(Host::new(options)?)
    }
}

/// Opens a runtime, and says which plugins nobody vouches for.
pub async fn open(config: Config) -> Result<Runtime> {
    for warning in config.warnings() {
        eprintln!("warning: {}", warning.replace('\n', "\n  "));
    }
    let compiler = Context::compiler()?;
    let runtime = Runtime::builder(config).compiler(compiler).open().await?;
    let unsigned = runtime.unsigned_plugins();
    if !unsigned.is_empty() {
        eprintln!(
            "warning: not signed by a trusted key, and let in by allow-unsigned: {}",
            unsigned.join(", ")
        );
    }
    Ok(runtime)
}

/// Runs a future to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
