//! How a runtime is opened.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cofferdam_host::{Compiler, Host, HostOptions, Services};
use cofferdam_store::{Batch, JournalStore, MemoryStore};
use parking_lot::Mutex;

use crate::activation::Workshop;
use crate::ambient::{Clock, Rng};
use crate::checkpoints::Policy;
use crate::config::{self, Config};
use crate::connections::Connections;
use crate::connector::Connector;
use crate::events::bus::Bus;
use crate::kv::StoreKv;
use crate::mutation::Armed;
use crate::runtime::{Inner, Runtime};
use crate::shelf::Shelf;
use crate::{Error, keeper};

/// Opens a [`Runtime`] with parts of the embedder's own.
pub struct RuntimeBuilder {
    config: Config,
    store: Option<Arc<dyn JournalStore>>,
    host: Option<Host>,
    idle: bool,
    compiler: Compiler,
    connectors: BTreeMap<String, Arc<dyn Connector>>,
    clock: Clock,
    rng: Rng,
    armed: Armed,
    checkpoints: Policy,
}

impl RuntimeBuilder {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            store: None,
            host: None,
            idle: false,
            compiler: Compiler::default(),
            connectors: BTreeMap::new(),
            clock: Clock::default(),
            rng: Rng::default(),
            armed: Armed::default(),
            checkpoints: Policy::default(),
        }
    }

    /// Keeps runs in this store instead of the configured one.
    pub fn store(mut self, store: Arc<dyn JournalStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Uses this host, so that several runtimes share one pool of chambers.
    pub fn host(mut self, host: Host) -> Self {
        self.host = Some(host);
        self
    }

    /// Leaves runs where they are, and writes nothing by itself: for maintenance, such as a swap
    /// while nothing else is open.
    pub fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    /// Compiles plugins there, instead of in this process without bounds. Does not count if a host
    /// is given.
    ///
    /// ```no_run
    /// use cofferdam::{ChildCompiler, Compiler, Config, Runtime, compile_child};
    ///
    /// # async fn example() -> Result<(), cofferdam::Error> {
    /// // First of all in `main`:
    /// let mut arguments = std::env::args().skip(1);
    /// if arguments.next().as_deref() == Some("compile-component") {
    ///     std::process::exit(compile_child(arguments).into());
    /// }
    /// let child = ChildCompiler::this_program(["compile-component"])?;
    /// let runtime = Runtime::builder(Config::load("cofferdam.toml")?)
    ///     .compiler(Compiler::Child(child))
    ///     .open()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn compiler(mut self, compiler: Compiler) -> Self {
        self.compiler = compiler;
        self
    }

    /// Serves a configured connection by code of this program instead of its plugin, which is not
    /// looked for then. For tests and simulations of embedding programs: it runs **outside of any
    /// chamber**, and cannot be swapped. No configuration can ask for it.
    pub fn connector(mut self, connection: &str, connector: Arc<dyn Connector>) -> Self {
        self.connectors.insert(connection.to_owned(), connector);
        self
    }

    /// Takes the time from there instead of the machine's clock. For tests and simulations.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes random numbers (of backoffs and ids) from there. For tests and simulations.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Writes a checkpoint of a run after so many records instead of when it is worth while. For tests
    /// and simulations: it costs more than it saves.
    pub fn checkpoint_every(mut self, records: u64) -> Self {
        self.checkpoints = Policy::every(records);
        self
    }

    /// Makes the runtime wrong in this way, to see whether its tests notice.
    #[cfg(feature = "mutations")]
    pub fn mutation(mut self, mutation: crate::Mutation) -> Self {
        self.armed = Armed::with(mutation);
        self
    }

    /// Opens the store, admits the plugins, and takes up the runs that were under way.
    ///
    /// # Errors
    /// [`Error::Host`] if a plugin is not admitted, [`Error::Store`] if the store cannot be
    /// opened, [`Error::UnknownConnection`] if a connector is for no configured connection; nothing
    /// was begun then.
    pub async fn open(self) -> Result<Runtime, Error> {
        self.config.validate()?;
        let store = match (self.store, self.config.store_path()) {
            (Some(store), _) => store,
            (None, None) => Arc::new(MemoryStore::new()),
            (None, Some(path)) => {
                let path = path.to_owned();
                let (engine, options) = (self.config.engine(), self.config.store_options());
                off_thread(move || Ok(cofferdam_store::open(path, engine, &options)?)).await?
            }
        };
        let host = match self.host {
            Some(host) => host,
            None => Host::new(HostOptions {
                code_cache_dir: self.config.code_cache_dir(),
                compiler: self.compiler,
                ..HostOptions::default()
            })?,
        };
        let services = Services {
            kv: Arc::new(StoreKv {
                store: Arc::clone(&store),
            }),
        };
        let config = self.config;
        let workshop = Workshop {
            host,
            services,
            shelf: Shelf::new(config.store_path()),
            unsigned: Mutex::default(),
            shared: Mutex::default(),
            clock: self.clock,
        };
        let opened = Arc::clone(&store);
        let connectors = self.connectors;
        let named = plugins_of(&config, &connectors).map(|c| c.name().to_owned());
        let stamps: HashMap<_, _> = named
            .filter_map(|name| Some((name.clone(), keeper::stamp(&config, &name)?)))
            .collect();
        let mut served = serve(&config, &workshop, &*store, &connectors)?;
        let has_plugins = plugins_of(&config, &connectors).next().is_some();
        let connecting = move || {
            let wanted = plugins_of(&config, &connectors);
            let (connections, batch) = connect(&config, wanted, &workshop, &*opened)?;
            Ok((config, workshop, connections, batch))
        };
        let (config, workshop, connections, batch) = if has_plugins {
            off_thread(connecting).await?
        } else {
            connecting()?
        };
        served.extend(connections);
        let bus = Bus::open(&*store)?;
        let ambient = (self.rng, self.armed, self.checkpoints);
        let inner = Arc::new(Inner::new(store, served, config, workshop, ambient, bus));
        *inner.found.lock() = batch;
        if self.idle {
            return Ok(Runtime { inner });
        }
        crate::activation::settle(&inner).await?;
        crate::events::dispatch::forget_shapes(&*inner.store).await?;
        inner.answers.load(&*inner.store).await?;
        inner.begin_all(&stamps)?;
        Ok(Runtime { inner })
    }
}

/// Opening a store and compiling plugins take long enough to hold up other tasks of a thread.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::ShuttingDown))
}

/// The connections that plugins serve.
fn plugins_of<'a>(
    config: &'a Config,
    connectors: &'a BTreeMap<String, Arc<dyn Connector>>,
) -> impl Iterator<Item = &'a config::Connection> {
    let all = config.connections();
    all.filter(|connection| !connectors.contains_key(connection.name()))
}

/// The connections that code of the program serves.
fn serve(
    config: &Config,
    workshop: &Workshop,
    store: &dyn JournalStore,
    connectors: &BTreeMap<String, Arc<dyn Connector>>,
) -> Result<Connections, Error> {
    let served = connectors.iter().map(|(name, connector)| {
        let Some(connection) = config.connection(name) else {
            let connection = name.clone();
            return Err(Error::UnknownConnection { connection });
        };
        let slot = workshop.open_program(store, connection, connector)?;
        Ok((name.clone(), Arc::new(slot)))
    });
    served.collect()
}

fn connect<'a>(
    config: &Config,
    wanted: impl Iterator<Item = &'a config::Connection>,
    workshop: &Workshop,
    store: &dyn JournalStore,
) -> Result<(Connections, Batch), Error> {
    let mut plugins: HashMap<std::path::PathBuf, cofferdam_host::Plugin> = HashMap::new();
    let mut connections = Connections::new();
    let mut rows = Batch::new();
    for connection in wanted {
        let path = connection.resolve_plugin()?;
        let trust = config.trust(connection);
        let plugin = match plugins.get(&path) {
            Some(plugin) => {
                workshop.judge(&trust, plugin.artifact())?;
                plugin.clone()
            }
            None => workshop.load(&trust, &path)?,
        };
        let (slot, batch) = workshop.open(store, connection, &trust, &plugin, &path, rows)?;
        rows = batch;
        plugins.insert(path, plugin);
        connections.insert(slot.name.clone(), Arc::new(slot));
    }
    Ok((connections, rows))
}
