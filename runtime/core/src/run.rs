//! One run of a workflow, as a pure machine.
//!
//! A run's journal is exactly the list of [`Event`]s that were fed to [`Run::step`], each with its
//! instant. Folding them again rebuilds the state, without calling any connector: what is random
//! or comes from outside is in the event. [`Run::outstanding`] then says what has to be done
//! again, and [`Run::in_flight`] which attempts nobody saw the end of.
//!
//! The state is a tree of frames, one for each task that is under way, kept in a map by task
//! key: `/charge`, `/each/[3]/charge`, `undo:/charge`. A step works through a list of small
//! operations (enter, complete, raise) until none is left, so that depth of nesting never becomes
//! depth of the call stack.

mod beside;
mod bindings;
mod calls;
mod changes;
mod checkpoint;
mod control;
mod deferral;
mod detached;
mod effect;
mod emit;
mod environment;
mod event;
mod fallback;
mod flow;
mod frame;
mod hedge;
mod ledger;
mod listen;
mod places;
mod report;
mod saga;
mod slim;
mod tasks;
mod validate;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use bindings::{
    ActionBinding, Binding, Bindings, DELIVER_MS_DEFAULT, PARK_MS_DEFAULT, SEMANTICS,
};
pub use checkpoint::{Checkpoint, Error as CheckpointError};
pub use control::{Origin, Suspension, Taken, TakenOver};
pub use deferral::Deferred;
pub use effect::{Attempt, Effect, Question};
pub use emit::instant;
pub use event::Event;
pub use fallback::Kept;
pub use listen::{Hearing, TAKEN_BYTES_MAX, TAKEN_MAX};
pub use report::{AttemptReport, TaskChange, TaskReport, TaskStatus, WaitsFor};
pub use waits::{For, Wait};

use crate::call;
use crate::error::WorkflowError;
use crate::provenance::Provenance;
use crate::workflow::Workflow;
use control::Control;
use frame::{Frame, Key, Op};
use ledger::Ledger;
use saga::Undo;
use slim::Slim;

/// How a run ended. Persisted in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// All went well, or well enough.
    Completed {
        /// The workflow's output.
        output: Arc<Value>,
    },
    /// An error was not caught; what could be undone was undone.
    Faulted {
        /// The error.
        error: WorkflowError,
        /// Whether the run is to be kept as a dead letter.
        dead_letter: bool,
    },
    /// Somebody stopped it.
    Cancelled {
        /// Why.
        reason: Option<String>,
        /// Whether what was done was undone.
        compensated: bool,
    },
}

/// Where a run is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was accepted and waits for its turn.
    Queued,
    /// Something is under way.
    Running,
    /// Nothing is under way until a timer, a connection or a person lets it go on.
    Waiting,
    /// Somebody lets it begin nothing until it is resumed.
    Suspended,
    /// It ends without an output, and tasks are being undone.
    Compensating,
    /// It has its output.
    Completed,
    /// An error was not caught.
    Faulted,
    /// Somebody stopped it.
    Cancelled,
}

impl Status {
    /// The word used in JSON and in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Faulted => "faulted",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Faulted | Self::Cancelled)
    }
}

/// An event that cannot happen where the run is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Illegal {
    /// The run is not where this event belongs.
    #[error("a run that is {phase} cannot take {event}")]
    Phase {
        /// Where the run is.
        phase: &'static str,
        /// The event.
        event: &'static str,
    },
    /// It cannot go on from where it failed without doing something twice or mixing answers.
    #[error("it cannot go on from where it failed: {0}")]
    NoWayOn(&'static str),
    /// It has forgotten what only a run that is folded whole knows; see [`Run::slim`].
    #[error("it goes on from what it needs and not from its whole journal")]
    Slim,
    /// What the run did was undone, or is about to be.
    #[error("what the run did was undone")]
    Undone,
    /// No attempt or question with this ticket is open.
    #[error("there is no open call with ticket {0}")]
    Ticket(u64),
    /// No such task is under way.
    #[error("no call task `{0}` is under way")]
    Task(String),
    /// The task does not take this event, or has taken it before.
    #[error("task `{0}` does not take this event")]
    Unheard(String),
    /// The task is not where this event belongs.
    #[error("task `{task}`: {source}")]
    Call {
        /// The task.
        task: String,
        /// What is wrong.
        source: call::Illegal,
    },
}

/// The phases of a run. Persisted in checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Phase {
    New,
    Queued,
    Running,
    /// Waits for what is in flight, then undoes what was done.
    Compensating {
        error: WorkflowError,
        dead_letter: bool,
    },
    /// Waits for what is in flight, then undoes what was done if it is to.
    Cancelling {
        reason: Option<String>,
        compensate: bool,
    },
    Ended(Outcome),
}

/// An attempt that is under way. Persisted in checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InFlight {
    task: Key,
    /// Tasks that asked for the same effect before, and may still wait for it.
    beside: Vec<Key>,
    /// Its effect in the ledger; none for reads.
    effect: Option<String>,
    /// Index into the attempts of the task's report.
    report: usize,
}

/// A run. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Run {
    id: String,
    workflow: Arc<Workflow>,
    bindings: Arc<Bindings>,
    phase: Phase,
    begun_ms: u64,
    input: Arc<Value>,
    frames: BTreeMap<Key, Frame>,
    dues: BTreeSet<(u64, Key)>,
    /// Attempts asked for and questions open, by ticket.
    open: BTreeMap<u64, Key>,
    in_flight: BTreeMap<u64, InFlight>,
    tickets: u64,
    undos: Vec<Undo>,
    ledger: Ledger,
    reports: IndexMap<Key, TaskReport>,
    degraded: bool,
    /// How many events it has published.
    emitted: u64,
    /// What became of tasks, if somebody wants to know.
    changes: Option<Vec<TaskChange>>,
    control: Control,
    /// The run's placeholders; see [`Attempt::secrets`].
    secrets: Arc<BTreeMap<String, String>>,
    /// What it may forget, if it forgets anything.
    slim: Option<Slim>,
}

/// What a step works with besides the run itself.
struct Step {
    now_ms: u64,
    ops: Vec<Op>,
    effects: Vec<Effect>,
    /// Events and runs that it gives, and their bytes: all of them are written at once.
    given: usize,
    given_bytes: usize,
    /// Scopes that were over in it; see [`slim`].
    over: Vec<Key>,
}

/// One step never gives more events and runs than so many, nor more bytes of them: they are written
/// together with what led to them, and a store takes only so much at once.
const GIVEN_MAX: usize = 1_000;
const GIVEN_BYTES_MAX: usize = 16 << 20;

impl Step {
    fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            ops: Vec::new(),
            effects: Vec::new(),
            given: 0,
            given_bytes: 0,
            over: Vec::new(),
        }
    }
}

/// One step never does more than so many operations: a loop of tasks that wait for nothing would
/// never end otherwise.
const OPERATIONS_MAX: usize = 200_000;

impl Run {
    /// A run that has not begun.
    pub fn new(id: impl Into<String>, workflow: Arc<Workflow>, bindings: Arc<Bindings>) -> Self {
        let id = id.into();
        let secrets = Arc::new(workflow.secrets.placeholders(&id));
        Self {
            id,
            workflow,
            secrets,
            bindings,
            phase: Phase::New,
            begun_ms: 0,
            input: Arc::new(Value::Null),
            frames: BTreeMap::new(),
            dues: BTreeSet::new(),
            open: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            tickets: 0,
            undos: Vec::new(),
            ledger: Ledger::default(),
            reports: IndexMap::new(),
            degraded: false,
            emitted: 0,
            changes: None,
            control: Control::default(),
            slim: None,
        }
    }

    /// Takes one event at one instant (milliseconds since the Unix epoch) and says what is to be
    /// done. The same events at the same instants always give the same state and effects.
    ///
    /// # Errors
    /// [`Illegal`] if the event does not belong here; the run is as it was before.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Result<Vec<Effect>, Illegal> {
        self.check_phase(&event)?;
        let mut step = Step::new(now_ms);
        match event {
            Event::Begun { input } => self.begin(input, &mut step),
            Event::Queued { input } => self.queued(input, &step),
            Event::Forked {
                input,
                origin,
                taken,
            } => self.forked(input, origin, taken, &step),
            Event::Admitted => self.admitted(&mut step),
            Event::Cancelled { reason, compensate } => {
                self.cancelled(reason, compensate, &mut step)?;
            }
            Event::Suspended { reason } => self.suspended(reason, &step)?,
            Event::Resumed => self.resumed(&mut step)?,
            Event::Redriven { input, taken } => self.redriven(input, taken)?,
            Event::Started { ticket, digest } => self.started(ticket, digest, &mut step)?,
            Event::Refused { ticket, failure } => {
                self.call_event(ticket, &call::Event::Refused(failure), &mut step)?;
            }
            Event::Succeeded { ticket, output } => {
                self.ended(ticket, &call::Event::Succeeded(output), &mut step)?;
            }
            Event::Failed {
                ticket,
                failure,
                draw,
            } => {
                self.ended(ticket, &call::Event::Failed(failure, draw), &mut step)?;
            }
            Event::Lost { ticket } => self.ended(ticket, &call::Event::Lost, &mut step)?,
            Event::LookedUp {
                ticket,
                answer,
                draw,
            } => {
                self.call_event(ticket, &call::Event::LookedUp(answer, draw), &mut step)?;
            }
            Event::Recovered { task } => {
                self.task_event(&task, &call::Event::Recovered, &mut step)?;
            }
            Event::Deferred { ticket } => {
                self.call_event(ticket, &call::Event::Deferred, &mut step)?;
            }
            Event::NotDeferred { ticket } => {
                self.call_event(ticket, &call::Event::NotDeferred, &mut step)?;
            }
            Event::Decided { task, decision } => {
                self.task_event(&task, &call::Event::Decided(decision), &mut step)?;
            }
            Event::Heard { task, seq, event } => self.heard(&task, seq, &event, &mut step)?,
            Event::Recalled { ticket, found } => self.recalled(ticket, found, &mut step)?,
            Event::Tick => self.tick(&mut step),
        }
        self.settle(&mut step);
        self.hold_back(&mut step.effects);
        self.sweep(&mut step);
        #[cfg(test)]
        checkpoint::check::gives_the_same_run(self);
        Ok(step.effects)
    }

    /// Works until nothing is left to do at this instant.
    fn settle(&mut self, step: &mut Step) {
        let (mut operations, mut taken_left) = (0, self.control.taken_left());
        loop {
            while let Some(op) = step.ops.pop() {
                operations += 1;
                // Tasks that were finished before come in one step, however many there are.
                if self.control.taken_left() < taken_left {
                    taken_left = self.control.taken_left();
                    operations = 0;
                }
                if operations > OPERATIONS_MAX {
                    step.ops.clear();
                    self.fault(endless(), None, step);
                    break;
                }
                self.perform(op, step);
            }
            if !self.compensate_next(step) {
                break;
            }
        }
        self.forget_stale_dues();
    }

    fn perform(&mut self, op: Op, step: &mut Step) {
        match op {
            Op::Enter(entry) => self.enter(entry, step),
            Op::Next { block, value } => self.next_in_block(&block, value, step),
            Op::Complete { key, output, then } => self.complete(&key, output, then, step),
            Op::Skip { key } => self.skip(&key, step),
            Op::Raise { key, error } => self.raise(&key, error, step),
        }
    }

    /// The earliest instant at which [`Event::Tick`] is to be told, if any.
    pub fn next_due_ms(&self) -> Option<u64> {
        if self.is_suspended() {
            return None;
        }
        self.dues.first().map(|(due_ms, _)| *due_ms)
    }

    fn forget_stale_dues(&mut self) {
        while let Some((due_ms, key)) = self.dues.first() {
            if self.frames.get(key).is_some_and(|f| f.is_due_at(*due_ms)) {
                break;
            }
            self.dues.pop_first();
        }
    }

    fn tick(&mut self, step: &mut Step) {
        while let Some(due_ms) = self.next_due_ms()
            && due_ms <= step.now_ms
        {
            let Some((due_ms, key)) = self.dues.pop_first() else {
                break;
            };
            if self.frames.get(&key).is_some_and(|f| f.is_due_at(due_ms)) {
                self.due(&key, due_ms, step);
                self.settle(step);
            }
        }
    }

    /// Where the run is.
    pub fn status(&self) -> Status {
        match &self.phase {
            Phase::Ended(Outcome::Completed { .. }) => Status::Completed,
            Phase::Ended(Outcome::Faulted { .. }) => Status::Faulted,
            Phase::Ended(Outcome::Cancelled { .. }) => Status::Cancelled,
            _ if self.is_suspended() => Status::Suspended,
            Phase::New | Phase::Queued => Status::Queued,
            Phase::Running if self.is_idle() => Status::Waiting,
            Phase::Running
            | Phase::Cancelling {
                compensate: false, ..
            } => Status::Running,
            Phase::Compensating { .. } | Phase::Cancelling { .. } => Status::Compensating,
        }
    }

    /// Whether nothing is under way: the run goes on only by a timer, a recovery or a person,
    /// and need not be held in memory until then.
    pub fn is_idle(&self) -> bool {
        // Asked after each event: a look at every frame would cost a run of many tasks dearly.
        debug_assert!(
            !self.in_flight.is_empty()
                || self.open.is_empty() == self.frames.values().all(|f| !f.wants_something())
        );
        self.in_flight.is_empty() && (self.is_suspended() || self.open.is_empty())
    }

    /// How the run ended, if it did.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            Phase::New
            | Phase::Queued
            | Phase::Running
            | Phase::Compensating { .. }
            | Phase::Cancelling { .. } => None,
        }
    }

    /// Whether some output is not what a healthy world would have given.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The workflow that it runs.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// Its raw input.
    pub fn input(&self) -> &Value {
        &self.input
    }

    /// When it began, in milliseconds since the Unix epoch.
    pub fn begun_ms(&self) -> u64 {
        self.begun_ms
    }

    /// What became of each task so far, in the order in which they began.
    pub fn reports(&self) -> impl Iterator<Item = &TaskReport> {
        self.reports.values()
    }

    /// How each call task's output came to be, by task.
    pub fn provenance(&self) -> IndexMap<String, Provenance> {
        self.reports
            .values()
            .filter_map(|r| Some((r.task.clone(), r.provenance.clone()?)))
            .collect()
    }

    /// The tickets of attempts that are under way. After a restart each of them is
    /// [`Event::Lost`].
    pub fn in_flight(&self) -> Vec<u64> {
        self.in_flight.keys().copied().collect()
    }

    /// Whether an attempt that was asked for is still wanted, or a question.
    pub fn is_open(&self, ticket: u64) -> bool {
        self.open.contains_key(&ticket)
    }

    /// What has to be done for the run to go on: all effects that were not answered yet, except
    /// attempts that are under way (see [`Run::in_flight`]) and events already published.
    pub fn outstanding(&self) -> Vec<Effect> {
        if matches!(self.phase, Phase::Ended(_)) {
            return vec![Effect::Finished];
        }
        let mut outstanding = self
            .frames
            .iter()
            .filter_map(|(key, frame)| frame.outstanding(key))
            .collect();
        self.hold_back(&mut outstanding);
        outstanding
    }
}

fn endless() -> WorkflowError {
    WorkflowError::runtime(
        format!(
            "the workflow did {OPERATIONS_MAX} steps without waiting for anything; \
             does a `then` lead back without a call or a wait, or is a `for` without either too long? \
             Let an expression (`map`) do the latter"
        ),
        "",
    )
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
