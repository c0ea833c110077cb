//! The runtime: what an embedder holds.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use cofferdam_core::call::Decision;
use cofferdam_store::{Batch, JournalStore, Table};
use futures::FutureExt;
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activation::Workshop;
use crate::ambient::{Clock, Ids, Rng};
use crate::answers::{self, Answers};
use crate::builder::RuntimeBuilder;
use crate::checkpoints::{self, Policy};
use crate::config::Config;
use crate::connections::{ConnectionState, Connections};
use crate::definition::Definition;
use crate::events::bus::Bus;
use crate::events::mailbox::Letters;
use crate::keeper::Stamp;
use crate::mutation::Armed;
use crate::queue::{Gate, Place};
use crate::rows::review_key;
use crate::runner::{Message, Runner};
use crate::take_up::TakeUp;
use crate::waiting::Waiters;
use crate::waking::{self, Listeners};
use crate::{
    Error, drain, events, health, keeper, outbox, query, queue, retention, scheduler, service,
};

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

/// The embeddable runtime. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Arc<dyn JournalStore>,
    pub connections: Connections,
    pub durability: Durability,
    pub closing: CancellationToken,
    pub gate: Arc<Gate>,
    pub timers_changed: Notify,
    pub config: Config,
    pub workshop: Workshop,
    /// Earlier answers.
    pub answers: Answers,
    /// What opening found out about generations, until it is written.
    pub found: Mutex<Batch>,
    active: Mutex<HashMap<String, mpsc::UnboundedSender<Message>>>,
    definitions: Mutex<IndexMap<String, Definition>>,
    pub waiters: Waiters,
    /// Runs that an error has stopped, and why.
    stopped: Mutex<HashMap<String, Stop>>,
    pub bus: Bus,
    /// How many events wait in letter boxes.
    pub letters: Letters,
    /// Runs that have letters and wait for a place in memory.
    pub listeners: Listeners,
    /// A schedule may have something to do.
    pub schedules_changed: Notify,
    pub clock: Clock,
    pub rng: Rng,
    pub armed: Armed,
    pub checkpoints: Policy,
    ids: Ids,
    pub tasks: TaskTracker,
}

/// Why a run does not go on.
#[derive(Clone)]
struct Stop {
    reason: String,
    is_storage: bool,
}

/// How long a shutdown waits for room on a full disk: longer than calls under way may take to end.
const FULL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Compiled definitions that are kept at hand.
const DEFINITIONS_MAX: usize = 1_000;

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
        RuntimeBuilder::new(config)
    }

    /// Reads a workflow and checks it against the connections, so that what can be found wrong
    /// before a run begins is found.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Workflow`] with every place that is wrong, [`Error::Binding`].
    pub fn load_workflow(&self, path: impl AsRef<Path>) -> Result<Definition, Error> {
        self.define(&self.inner.config.read_workflow(path)?)
    }

    /// The same for texts that are in memory.
    ///
    /// # Errors
    /// As for [`Runtime::load_workflow`].
    pub fn define(&self, sources: &cofferdam_core::workflow::Sources) -> Result<Definition, Error> {
        let definition = Definition::new(sources, &self.inner.connections)?;
        events::lifecycle::check(&definition, self.inner.config.events().lifecycle)?;
        self.inner.remember(&definition);
        Ok(definition)
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
        self.inner.check_room()?;
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
        if !waits || matches!(decision, Decision::Retry | Decision::Accept) {
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
            .map(|slot| self.inner.state_of(slot))
            .collect()
    }

    /// The plugins that run although no trusted key vouches for them, because the configuration
    /// says `allow-unsigned`; by name, in order.
    pub fn unsigned_plugins(&self) -> Vec<String> {
        self.inner.workshop.unsigned()
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
        Some(slot.connection().check().await)
    }

    /// Where runs are kept, if that is a folder.
    pub fn store_path(&self) -> Option<&Path> {
        self.inner.config.store_path()
    }

    pub(crate) fn closing(&self) -> CancellationToken {
        self.inner.closing.clone()
    }

    /// Runs beside the runs; `shutdown` waits for it.
    pub(crate) fn spawn_until_closing(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(work);
    }

    /// Stops: nothing begins any more, calls under way get five seconds to end, and everything
    /// that is known is on the disk when this returns. Runs go on when the store is opened again.
    pub async fn shutdown(self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        while tokio::time::timeout(FULL_PATIENCE, self.inner.tasks.wait())
            .await
            .is_err()
        {
            // What waits for room waits in vain; nothing of it was acknowledged.
            if self.inner.store.full().is_some() {
                tracing::error!(
                    "the disk is full: what was not on it is done again at the next start"
                );
                return;
            }
        }
        if let Err(error) = service::write_all(&self.inner).await {
            tracing::error!(%error, "how connections are could not be written");
        }
    }
}

impl Inner {
    pub fn new(
        store: Arc<dyn JournalStore>,
        connections: Connections,
        config: Config,
        workshop: Workshop,
        (rng, armed, checkpoints): (Rng, Armed, Policy),
        bus: Bus,
    ) -> Self {
        Self {
            bus,
            letters: Letters::default(),
            listeners: Listeners::default(),
            schedules_changed: Notify::new(),
            store,
            connections,
            durability: config.durability(),
            answers: Answers::new(config.answer_limits()),
            closing: CancellationToken::new(),
            gate: Arc::new(Gate::new(config.admission().clone())),
            timers_changed: Notify::new(),
            clock: workshop.clock,
            config,
            workshop,
            found: Mutex::default(),
            active: Mutex::default(),
            definitions: Mutex::default(),
            waiters: Waiters::default(),
            stopped: Mutex::default(),
            rng,
            armed,
            checkpoints,
            ids: Ids::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes up what was under way, and begins to look after timers and connections. `stamps` are
    /// of the plugins' files before they were loaded.
    pub fn begin_all(self: &Arc<Self>, stamps: &HashMap<String, Stamp>) -> Result<(), Error> {
        queue::load(self)?;
        self.tasks.spawn(queue::admit(Arc::clone(self)));
        self.tasks.spawn(answers::sweep(Arc::clone(self)));
        let mut under_way = TakeUp::new();
        if !under_way.go_on(self)? {
            self.tasks.spawn(under_way.finish(Arc::clone(self)));
        }
        let changed = Arc::new(Notify::new());
        for slot in self.connections.values() {
            slot.keeping
                .begin(Arc::clone(&self.store), Arc::clone(&changed));
        }
        let keeping = service::write_behind(Arc::clone(self), changed);
        self.tasks.spawn(keeping);
        self.tasks.spawn(scheduler::schedule(Arc::clone(self)));
        let probes = Arc::new(Semaphore::new(health::PROBES_MAX));
        if let Some(kept) = self.config.retention() {
            self.tasks.spawn(retention::sweep(Arc::clone(self), kept));
        }
        self.tasks
            .spawn(events::dispatch::dispatch(Arc::clone(self)));
        self.tasks.spawn(waking::wake_listeners(Arc::clone(self)));
        for slot in self.connections.values() {
            let draining = drain::drain(Arc::clone(self), Arc::clone(slot));
            self.tasks.spawn(draining);
            slot.parked.notify_one();
            let timing = drain::keep_time(Arc::clone(self), Arc::clone(slot));
            self.tasks.spawn(timing);
            let delivering = outbox::deliver(Arc::clone(self), Arc::clone(slot));
            self.tasks.spawn(delivering);
            let watching = health::watch(Arc::clone(self), Arc::clone(slot), Arc::clone(&probes));
            self.tasks.spawn(watching);
            let stamp = stamps.get(&slot.name).cloned();
            let keeping = keeper::keep(Arc::clone(self), Arc::clone(slot), stamp);
            self.tasks.spawn(keeping);
        }
        Ok(())
    }

    pub fn next_id(&self) -> String {
        self.ids.next(&self.clock, &self.rng)
    }

    pub(crate) fn why_stopped(&self, run: &str) -> Error {
        match self.stopped.lock().get(run).cloned() {
            None => Error::ShuttingDown,
            Some(Stop { reason, is_storage }) => Error::Stopped {
                run: run.to_owned(),
                reason,
                is_storage,
            },
        }
    }

    /// Refuses work, and the decisions that lead to some, while the disk has no room: what is
    /// committed then waits, and nobody should wait for that unawares.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        match self.store.full() {
            Some(full) => Err(full.into()),
            None => Ok(()),
        }
    }

    /// Tells a run something, beginning it again from its journal if it is not held.
    pub fn wake(self: &Arc<Self>, run: &str, message: Message) {
        self.spawn(run.to_owned(), None, None, Some(message));
    }

    /// Tells a run something if it is in memory; else the message is given back.
    pub fn tell_held(&self, run: &str, message: Message) -> Result<(), Message> {
        match self.active.lock().get(run) {
            // A runner takes itself off the list before its mailbox closes.
            Some(mailbox) => mailbox.send(message).map_err(|unsent| unsent.0),
            None => Err(message),
        }
    }

    /// Wakes a run whose turn has come, and tells it why if it is not simply to go on.
    pub fn let_in(self: &Arc<Self>, run: &str, place: Place, message: Option<Message>) {
        self.spawn(run.to_owned(), None, Some(place), message);
    }

    /// Whether an error has stopped it.
    pub fn is_stopped(&self, run: &str) -> bool {
        self.stopped.lock().contains_key(run)
    }

    /// Whether it is in memory.
    pub fn is_held(&self, run: &str) -> bool {
        self.active.lock().contains_key(run)
    }

    pub fn spawn(
        self: &Arc<Self>,
        run: String,
        runner: Option<Runner>,
        place: Option<Place>,
        message: Option<Message>,
    ) {
        let mut active = self.active.lock();
        if let Some(mailbox) = active.get(&run) {
            if let Some(message) = message {
                // A runner takes itself off the list before its mailbox closes.
                let _ = mailbox.send(message);
            }
            return;
        }
        if self.closing.is_cancelled() {
            return;
        }
        let (sender, mailbox) = mpsc::unbounded_channel();
        if let Some(message) = message {
            let _ = sender.send(message);
        }
        active.insert(run.clone(), sender);
        drop(active);
        self.stopped.lock().remove(&run);
        self.tasks
            .spawn(Arc::clone(self).drive(run, runner, place, mailbox));
    }

    async fn drive(
        self: Arc<Self>,
        run: String,
        runner: Option<Runner>,
        mut place: Option<Place>,
        mut mailbox: mpsc::UnboundedReceiver<Message>,
    ) {
        let mut runner = runner;
        let mut ended;
        loop {
            ended = None;
            let driven = match runner.take().map_or_else(|| self.read_runner(&run), Ok) {
                Ok(mut runner) => {
                    place
                        .get_or_insert_with(|| self.gate.enter(runner.tenant(), &run))
                        .belongs_to(runner.tenant());
                    // A defect must cost this run alone; its journal is whole, and the runner goes.
                    let driving = AssertUnwindSafe(runner.drive(&mut mailbox)).catch_unwind();
                    let defect = || Err(Error::Defect { run: run.clone() });
                    let driven = driving.await.unwrap_or_else(|_| defect());
                    let told = driven.is_ok() && self.waiters.are_there(&run);
                    ended = runner.ended().filter(|_| told).map(Arc::new);
                    driven
                }
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
        match place {
            None => self.gate.look_again(),
            Some(place) => drop(place),
        }
        self.waiters.tell(&run, &ended);
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
        let resumed = checkpoints::resume(&*self.store, run, &definition)?;
        let head = self.store.head(run)?;
        Ok(Runner::resumed(Arc::clone(self), resumed, row, head))
    }

    pub(crate) fn definition(&self, hash: &str) -> Result<Definition, Error> {
        if let Some(definition) = self.definitions.lock().get(hash) {
            return Ok(definition.clone());
        }
        let definition = query::definition(&*self.store, hash)?;
        self.remember(&definition);
        Ok(definition)
    }

    /// Keeps a compiled definition at hand.
    pub(crate) fn remember(&self, definition: &Definition) {
        let mut definitions = self.definitions.lock();
        // To the end: it is not the next to go.
        definitions.shift_remove(definition.hash());
        definitions.insert(definition.hash().to_owned(), definition.clone());
        // The oldest goes: what is asked for again is compiled again.
        if definitions.len() > DEFINITIONS_MAX {
            definitions.shift_remove_index(0);
        }
    }
}

/// A background task met an error of the store; it tries again later.
pub(crate) fn storage_failed(error: &cofferdam_store::Error) {
    tracing::error!(code = error.code(), %error, "the store failed");
}
