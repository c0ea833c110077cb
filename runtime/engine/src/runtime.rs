//! The runtime: what an embedder holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_core::call::Decision;
use cofferdam_core::depth;
use cofferdam_core::run::{Run, Status};
use cofferdam_host::{Compiler, Host, HostOptions, Services};
use cofferdam_store::{Batch, JournalStore, KeyRange, MemoryStore, SledStore, Table};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::connections::{ConnectionState, Connections, Slot};
use crate::definition::Definition;
use crate::kv::StoreKv;
use crate::rows::{RunRow, encode, review_key, status_prefix};
use crate::runner::{Begin, Message, Runner};
use crate::view::RunView;
use crate::{Error, drain, query, scheduler};

/// When outcomes are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Before anything that depends on them leaves: an effect, an answer, an event. Outcomes of
    /// `read` actions and of data tasks ride along; after a crash they are simply done again.
    #[default]
    OutputCommit,
    /// Each before the next task begins.
    EveryTask,
}

/// How a run is begun.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// The run's id; made up if none. Starting a run that exists already gives that run, so that
    /// a caller that does not know whether its last start arrived just starts again.
    pub id: Option<String>,
}

/// The embeddable runtime. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// Opens a [`Runtime`] with parts of the embedder's own.
pub struct RuntimeBuilder {
    config: Config,
    store: Option<Arc<dyn JournalStore>>,
    host: Option<Host>,
    compiler: Compiler,
}

pub(crate) struct Inner {
    pub store: Arc<dyn JournalStore>,
    pub connections: Connections,
    pub durability: Durability,
    pub closing: CancellationToken,
    pub timers_changed: Notify,
    config: Config,
    active: Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>,
    definitions: Mutex<HashMap<String, Definition>>,
    waiters: Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>,
    /// Runs that an error has stopped, and why.
    stopped: Mutex<HashMap<String, Stop>>,
    ids: Mutex<ulid::Generator>,
    tasks: TaskTracker,
}

/// Why a run does not go on.
#[derive(Clone)]
struct Stop {
    reason: String,
    is_storage: bool,
}

/// How often the row of a run that another caller begins is looked for.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(5);
/// How many runs are looked up in one go when the runtime is opened.
const PAGE: usize = 1_000;
const RUN_ID_LEN_MAX: usize = 100;
/// Well below what a record of the store may have.
const INPUT_BYTES_MAX: usize = 8 << 20;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl RuntimeBuilder {
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

    /// Opens the store, admits the plugins, and takes up the runs that were under way.
    ///
    /// # Errors
    /// [`Error::Host`] if a plugin is not admitted, [`Error::Store`] if the store cannot be
    /// opened; nothing was begun then.
    pub async fn open(self) -> Result<Runtime, Error> {
        self.config.validate()?;
        let store = match (self.store, self.config.store_path()) {
            (Some(store), _) => store,
            (None, None) => Arc::new(MemoryStore::new()),
            (None, Some(path)) => {
                let path = path.to_owned();
                let options = cofferdam_store::Options::default();
                let store = off_thread(move || Ok(SledStore::open(path, &options)?)).await?;
                let store: Arc<dyn JournalStore> = Arc::new(store);
                store
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
        let (config, connections) = off_thread(move || {
            let connections = connect(&config, &host, &services)?;
            Ok((config, connections))
        })
        .await?;
        let inner = Arc::new(Inner {
            store,
            connections,
            durability: config.durability(),
            closing: CancellationToken::new(),
            timers_changed: Notify::new(),
            config,
            active: Mutex::default(),
            definitions: Mutex::default(),
            waiters: Mutex::default(),
            stopped: Mutex::default(),
            ids: Mutex::new(ulid::Generator::new()),
            tasks: TaskTracker::new(),
        });
        inner.take_up_all()?;
        inner.tasks.spawn(scheduler::schedule(Arc::clone(&inner)));
        for slot in inner.connections.values() {
            inner
                .tasks
                .spawn(drain::drain(Arc::clone(&inner), Arc::clone(slot)));
            slot.parked.notify_one();
        }
        Ok(Runtime { inner })
    }
}

/// Opening a store and compiling plugins take long enough to hold up other tasks of a thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::ShuttingDown))
}

fn connect(config: &Config, host: &Host, services: &Services) -> Result<Connections, Error> {
    let mut plugins: HashMap<std::path::PathBuf, cofferdam_host::Plugin> = HashMap::new();
    let mut connections = Connections::new();
    for connection in config.connections() {
        let path = connection.resolve_plugin()?;
        let plugin = match plugins.get(&path) {
            Some(plugin) => plugin.clone(),
            None => host.load(cofferdam_host::Artifact::read(&path)?)?,
        };
        plugins.insert(path, plugin.clone());
        for line in plugin
            .manifest()
            .map_or_else(Vec::new, |manifest| connection.unmet_wishes(manifest))
        {
            tracing::warn!(
                connection = connection.name(),
                "the plugin wishes for more than it gets; if it may have it, write under [connections.{}.limits]: {line}",
                connection.name()
            );
        }
        let generation =
            plugin.connect(connection.spec_for(plugin.manifest()), services.clone())?;
        let slot = Slot::new(
            generation,
            connection.enabled(),
            connection.binding_policy(),
            connection.breaker(),
        );
        connections.insert(slot.name.clone(), Arc::new(slot));
    }
    Ok(connections)
}

impl Runtime {
    /// Opens a runtime as configured.
    ///
    /// # Errors
    /// As for [`RuntimeBuilder::open`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        Self::builder(config).open().await
    }

    /// A runtime with parts of the embedder's own.
    pub fn builder(config: Config) -> RuntimeBuilder {
        RuntimeBuilder {
            config,
            store: None,
            host: None,
            compiler: Compiler::default(),
        }
    }

    /// Reads a workflow and checks it against the connections, so that what can be found wrong
    /// before a run begins is found.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Workflow`] with every place that is wrong, [`Error::Binding`].
    pub fn load_workflow(&self, path: impl AsRef<Path>) -> Result<Definition, Error> {
        let sources =
            crate::definition::read_sources(path.as_ref(), self.inner.config.workflows_dir())?;
        self.define(&sources)
    }

    /// The same for texts that are in memory.
    ///
    /// # Errors
    /// As for [`Runtime::load_workflow`].
    pub fn define(&self, sources: &cofferdam_core::workflow::Sources) -> Result<Definition, Error> {
        let definition = Definition::new(sources, &self.inner.connections)?;
        self.inner
            .definitions
            .lock()
            .insert(definition.hash().to_owned(), definition.clone());
        Ok(definition)
    }

    /// Begins a run and returns its id. When this returns, the run is on the disk and will be
    /// brought to its end whatever happens to this process.
    ///
    /// # Errors
    /// [`Error::Store`]: then the run may or may not have begun; start it again under the same id.
    pub async fn start(&self, definition: &Definition, input: Value) -> Result<String, Error> {
        self.start_with(definition, input, StartOptions::default())
            .await
    }

    /// [`Runtime::start`] with options.
    ///
    /// # Errors
    /// [`Error::RunId`] for an id that cannot be one; as for [`Runtime::start`].
    pub async fn start_with(
        &self,
        definition: &Definition,
        input: Value,
        options: StartOptions,
    ) -> Result<String, Error> {
        if self.inner.closing.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let run = match options.id {
            Some(id) => checked(id)?,
            None => self.inner.next_id(),
        };
        check_input(&input)?;
        if let Some(row) = self.inner.row(&run)? {
            if row.workflow != definition.name() {
                let workflow = row.workflow;
                return Err(Error::OtherRun { run, workflow });
            }
            // What was read may not be on the disk yet, and this answer says that it is.
            self.inner.store.commit(Batch::new()).await?;
            return Ok(run);
        }
        self.inner.begin(&run, definition, input).await?;
        Ok(run)
    }

    /// Waits for the end of a run. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoRun`]; [`Error::Store`] if the run cannot go on; [`Error::ShuttingDown`].
    pub async fn wait(&self, run: &str) -> Result<RunView, Error> {
        self.wait_until(run, Status::is_final).await
    }

    /// Waits until a run has ended or waits itself, for a connection, an instant or a person.
    ///
    /// # Errors
    /// As for [`Runtime::wait`].
    pub async fn settle(&self, run: &str) -> Result<RunView, Error> {
        self.wait_until(run, |status| status.is_final() || status == Status::Waiting)
            .await
    }

    async fn wait_until(
        &self,
        run: &str,
        enough: impl Fn(Status) -> bool,
    ) -> Result<RunView, Error> {
        loop {
            let changed = self.inner.changed(run);
            let row = self.inner.row(run)?.ok_or_else(|| Error::NoRun {
                run: run.to_owned(),
            })?;
            // While it is held, what its row says may not be on the disk yet.
            let held = self.inner.active.lock().contains_key(run);
            if enough(row.status) && !held {
                self.inner.waiters.lock().remove(run);
                return self.run(run);
            }
            if self.inner.stopped.lock().contains_key(run) {
                return Err(self.inner.why_stopped(run));
            }
            if self.inner.closing.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            tokio::select! {
                _ = changed => {}
                () = self.inner.closing.cancelled() => return Err(Error::ShuttingDown),
            }
        }
    }

    /// One run, read from its journal.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Store`], [`Error::Journal`].
    pub fn run(&self, run: &str) -> Result<RunView, Error> {
        query::view(&*self.inner.store, run)
    }

    /// What the store knows; see [`query::Query`].
    pub fn query(&self) -> query::Query<'_> {
        query::Query::new(&*self.inner.store)
    }

    /// Decides about a task in review. When this returns, the decision is on the disk.
    ///
    /// # Errors
    /// [`Error::NoReview`] if the task does not wait for one; [`Error::Store`].
    pub async fn decide(&self, run: &str, task: &str, decision: Decision) -> Result<(), Error> {
        let row = self.inner.row(run)?.ok_or_else(|| Error::NoRun {
            run: run.to_owned(),
        })?;
        if row.status.is_final() {
            return self.acknowledge(run, task, &decision).await;
        }
        let (told, answer) = oneshot::channel();
        let message = Message::Decided {
            task: task.to_owned(),
            decision,
            told,
        };
        self.inner.wake(run, message);
        answer
            .await
            .unwrap_or_else(|_| Err(self.inner.why_stopped(run)))
    }

    /// A run that has ended left something for a person to put right: an undoing that failed.
    /// Approving or rejecting says that it was seen to.
    async fn acknowledge(&self, run: &str, task: &str, decision: &Decision) -> Result<(), Error> {
        let key = review_key(run, task);
        let waits = self.inner.store.get(Table::Review, &key)?.is_some();
        if !waits || *decision == Decision::Retry {
            let (run, task) = (run.to_owned(), task.to_owned());
            return Err(Error::NoReview { run, task });
        }
        let seen_to = Batch::new().delete(Table::Review, key);
        Ok(self.inner.store.commit(seen_to).await?)
    }

    /// How the connections are.
    pub fn connections(&self) -> Vec<ConnectionState> {
        self.inner
            .connections
            .values()
            .map(|slot| slot.state())
            .collect()
    }

    /// How many runs are held in memory.
    pub fn active_runs(&self) -> usize {
        self.inner.active.lock().len()
    }

    /// Asks a connection's plugin whether what is behind it works.
    ///
    /// # Errors
    /// The failure that the plugin told; none if there is no such connection.
    pub async fn check(
        &self,
        connection: &str,
    ) -> Option<Result<cofferdam_host::Health, cofferdam_core::failure::Failure>> {
        let slot = self.inner.connections.get(connection)?;
        Some(slot.connection.check().await)
    }

    /// Stops: nothing begins any more, calls under way get five seconds to end, and everything
    /// that is known is on the disk when this returns. Runs go on when the store is opened again.
    pub async fn shutdown(self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Refuses what could not be read back from the journal.
fn check_input(input: &Value) -> Result<(), Error> {
    if !depth::is_fine(input) {
        let what = format!("nests deeper than {} levels", depth::DEPTH_MAX);
        return Err(Error::Input { what });
    }
    let bytes = encode(input)?.len();
    if bytes > INPUT_BYTES_MAX {
        let what = format!("has {bytes} bytes, and at most {INPUT_BYTES_MAX} are taken");
        return Err(Error::Input { what });
    }
    Ok(())
}

fn checked(id: String) -> Result<String, Error> {
    let fine = (1..=RUN_ID_LEN_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    if fine {
        Ok(id)
    } else {
        Err(Error::RunId { run: id })
    }
}

impl Inner {
    pub fn next_id(&self) -> String {
        let mut ids = self.ids.lock();
        match ids.generate() {
            Ok(id) => id.to_string(),
            // The generator ran out of numbers within one millisecond.
            Err(_) => ulid::Ulid::generate().to_string(),
        }
    }

    fn why_stopped(&self, run: &str) -> Error {
        match self.stopped.lock().get(run).cloned() {
            None => Error::ShuttingDown,
            Some(Stop { reason, is_storage }) => Error::Stopped {
                run: run.to_owned(),
                reason,
                is_storage,
            },
        }
    }

    /// Resolves when the run is next let go of.
    fn changed(&self, run: &str) -> oneshot::Receiver<()> {
        let (sender, changed) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        let waiting = waiters.entry(run.to_owned()).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        changed
    }

    fn row(&self, run: &str) -> Result<Option<RunRow>, Error> {
        query::row(&*self.store, run)
    }

    async fn begin(
        self: &Arc<Self>,
        run: &str,
        definition: &Definition,
        input: Value,
    ) -> Result<(), Error> {
        let machine = Run::new(run, definition.workflow(), definition.bindings());
        let row = RunRow {
            run: run.to_owned(),
            workflow: definition.name(),
            definition: definition.hash().to_owned(),
            status: Status::Running,
            degraded: false,
            begun_ms: now_ms(),
            ended_ms: None,
            due_ms: None,
        };
        let mut rows = Batch::new();
        let hash = definition.hash().as_bytes();
        if self.store.get(Table::Definition, hash)?.is_none() {
            rows = rows.put(Table::Definition, hash, definition.pinned());
        }
        let (told, answer) = oneshot::channel();
        let begin = Begin { input, told };
        let runner = Runner::begin(Arc::clone(self), machine, row, rows, begin);
        self.spawn(run.to_owned(), Some(runner), Message::Resume);
        match answer.await {
            Ok(answer) => answer,
            Err(_) if self.closing.is_cancelled() => Err(Error::ShuttingDown),
            // Another start of the same run was first; its answer is ours.
            Err(_) => self.begun_elsewhere(run).await,
        }
    }

    async fn begun_elsewhere(&self, run: &str) -> Result<(), Error> {
        loop {
            let changed = self.changed(run);
            if self.row(run)?.is_some() {
                return Ok(self.store.commit(Batch::new()).await?);
            }
            if !self.active.lock().contains_key(run) {
                let reason = "it could not be begun".to_owned();
                return Err(Error::Stopped {
                    run: run.to_owned(),
                    reason,
                    is_storage: true,
                });
            }
            // The row appears while the run is held: look again soon, or when it is let go of.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    /// Takes up every run that was under way when the store was last closed.
    fn take_up_all(self: &Arc<Self>) -> Result<(), Error> {
        for status in [Status::Running, Status::Compensating] {
            let prefix = status_prefix(status);
            let mut range = KeyRange::prefix(prefix.clone());
            loop {
                let rows = self.store.scan(Table::RunByStatus, range, PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                range = KeyRange::prefix(prefix.clone()).after(last);
                for (key, _) in &rows {
                    if let Ok(run) = std::str::from_utf8(&key[prefix.len()..]) {
                        self.wake(run, Message::Resume);
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells a run something, beginning it again from its journal if it is not held.
    pub fn wake(self: &Arc<Self>, run: &str, message: Message) {
        self.spawn(run.to_owned(), None, message);
    }

    fn spawn(self: &Arc<Self>, run: String, runner: Option<Runner>, message: Message) {
        let mut active = self.active.lock();
        if let Some(mailbox) = active.get(&run) {
            // A runner takes itself off the list before its mailbox closes.
            let _ = mailbox.send(message);
            return;
        }
        if self.closing.is_cancelled() {
            return;
        }
        let (sender, mailbox) = mpsc::unbounded_channel();
        let _ = sender.send(message);
        active.insert(run.clone(), sender);
        drop(active);
        self.stopped.lock().remove(&run);
        self.tasks
            .spawn(Arc::clone(self).drive(run, runner, mailbox));
    }

    async fn drive(
        self: Arc<Self>,
        run: String,
        runner: Option<Runner>,
        mut mailbox: mpsc::UnboundedReceiver<Message>,
    ) {
        let mut runner = runner;
        loop {
            let driven = match runner.take().map_or_else(|| self.read_runner(&run), Ok) {
                Ok(mut runner) => runner.drive(&mut mailbox).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &driven {
                tracing::error!(run, %error, "a run stopped; it goes on when the runtime is opened again");
                let stop = Stop {
                    reason: error.to_string(),
                    is_storage: error.is_storage(),
                };
                self.stopped.lock().insert(run.clone(), stop);
            }
            let mut active = self.active.lock();
            // Messages that came in the last moment must not be lost.
            if driven.is_ok() && !mailbox.is_empty() && !self.closing.is_cancelled() {
                continue;
            }
            active.remove(&run);
            break;
        }
        for waiter in self.waiters.lock().remove(&run).unwrap_or_default() {
            let _ = waiter.send(());
        }
    }

    /// A runner for a run that is only in the store.
    fn read_runner(self: &Arc<Self>, run: &str) -> Result<Runner, Error> {
        let row = self.row(run)?.ok_or_else(|| Error::NoRun {
            run: run.to_owned(),
        })?;
        let definition = self.definition(&row.definition)?;
        let bound = definition.bindings();
        if let Some(name) = bound
            .connections
            .keys()
            .find(|n| !self.connections.contains_key(*n))
        {
            let (run, connection) = (run.to_owned(), name.clone());
            return Err(Error::NoConnection { run, connection });
        }
        let machine = query::fold(&*self.store, run, &definition)?;
        let head = self.store.head(run)?;
        Ok(Runner::new(Arc::clone(self), machine, row, head))
    }

    fn definition(&self, hash: &str) -> Result<Definition, Error> {
        if let Some(definition) = self.definitions.lock().get(hash) {
            return Ok(definition.clone());
        }
        let definition = query::definition(&*self.store, hash)?;
        self.definitions
            .lock()
            .insert(hash.to_owned(), definition.clone());
        Ok(definition)
    }
}

/// A background task met an error of the store; it tries again later.
pub(crate) fn storage_failed(error: &cofferdam_store::Error) {
    tracing::error!(code = error.code(), %error, "the store failed");
}
