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

mod bindings;
mod calls;
mod control;
mod deferral;
mod detached;
mod environment;
mod fallback;
mod flow;
mod frame;
mod hedge;
mod ledger;
mod report;
mod saga;
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
pub use control::{Origin, Suspension, Taken, TakenOver};
pub use deferral::Deferred;
pub use fallback::Kept;
pub use report::{AttemptReport, TaskReport, TaskStatus, WaitsFor};
pub use waits::{For, Wait};

use crate::call::{self, Decision, Lookup};
use crate::descriptor;
use crate::error::WorkflowError;
use crate::failure::Failure;
use crate::provenance::Provenance;
use crate::workflow::Workflow;
use control::Control;
use frame::{Frame, Key, Op};
use ledger::Ledger;
use saga::Undo;

/// What happens to a run. Persisted: names and fields are part of the journal's format 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    /// The run begins.
    Begun {
        /// The workflow's raw input.
        input: Value,
    },
    /// The run was accepted and waits in a queue for [`Event::Admitted`].
    Queued {
        /// The workflow's raw input.
        input: Value,
    },
    /// The run was accepted as the continuation of another one, and waits in a queue.
    Forked {
        /// The workflow's raw input.
        input: Value,
        /// Where it was forked from.
        origin: Origin,
        /// What was finished there, and is not repeated.
        taken: TakenOver,
    },
    /// The run's turn has come.
    Admitted,
    /// Somebody stops the run.
    Cancelled {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether what was done is undone.
        compensate: bool,
    },
    /// Somebody lets the run begin nothing for now.
    Suspended {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Somebody lets a suspended run go on.
    Resumed,
    /// Somebody lets a run that faulted go on from the task that failed; it waits in a queue.
    Redriven {
        /// What is to come into the task that failed, if not what came before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Value>,
        /// What was finished, and is not repeated.
        taken: TakenOver,
    },
    /// An attempt was admitted and begins: the intent.
    Started {
        /// From [`Attempt::ticket`].
        ticket: u64,
        /// Digest of the plugin that serves it.
        digest: String,
    },
    /// An attempt was not admitted.
    Refused {
        /// From [`Attempt::ticket`].
        ticket: u64,
        /// Why.
        failure: Failure,
    },
    /// An attempt succeeded.
    Succeeded {
        /// From [`Attempt::ticket`].
        ticket: u64,
        /// The action's output.
        output: Value,
    },
    /// An attempt failed.
    Failed {
        /// From [`Attempt::ticket`].
        ticket: u64,
        /// How.
        failure: Failure,
        /// Any 32-bit number: the randomness of the backoff.
        draw: u32,
    },
    /// The runtime stopped while the attempt was under way.
    Lost {
        /// From [`Attempt::ticket`].
        ticket: u64,
    },
    /// A connector answered what became of a call.
    LookedUp {
        /// From [`Effect::Lookup`].
        ticket: u64,
        /// Its answer.
        answer: Lookup,
        /// Any 32-bit number: the randomness of the backoff.
        draw: u32,
    },
    /// The connection that a task is parked on works again.
    Recovered {
        /// The task.
        task: String,
    },
    /// A call was put into its connection's outbox, in the same write as this event.
    Deferred {
        /// From [`Effect::Defer`].
        ticket: u64,
    },
    /// The outbox has no room for a call.
    NotDeferred {
        /// From [`Effect::Defer`].
        ticket: u64,
    },
    /// An instant that [`Run::next_due_ms`] named has come.
    Tick,
    /// A person decided about a task in review.
    Decided {
        /// The task.
        task: String,
        /// What.
        decision: Decision,
    },
    /// What is kept of earlier answers was looked through.
    Recalled {
        /// From [`Effect::Recall`].
        ticket: u64,
        /// What was found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Kept>,
    },
}

/// What a run wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask for admission; answer with [`Event::Started`] or [`Event::Refused`], and once started
    /// with [`Event::Succeeded`] or [`Event::Failed`].
    Attempt(Attempt),
    /// Ask the connector what became of a call; answer with [`Event::LookedUp`].
    Lookup {
        /// To be given back.
        ticket: u64,
        /// The task.
        task: String,
        /// The connection to ask.
        connection: String,
        /// The action of the call.
        action: String,
        /// The key of the call.
        key: String,
    },
    /// Keep a call in its connection's outbox; answer with [`Event::Deferred`] or
    /// [`Event::NotDeferred`].
    Defer {
        /// To be given back.
        ticket: u64,
        /// The task.
        task: String,
        /// What is to be called, and until when.
        deferred: Deferred,
    },
    /// Tell [`Event::Recovered`] when this connection works again.
    Park {
        /// The task.
        task: String,
        /// The connection.
        connection: String,
    },
    /// A person must decide; answer with [`Event::Decided`]. Told again when another person is
    /// asked; then it replaces what was told before.
    Review {
        /// The task.
        task: String,
        /// Why.
        failure: Failure,
        /// What is asked, and how long.
        question: Question,
    },
    /// The decision that was asked for is not wanted any more: the task was stopped.
    ReviewClosed {
        /// The task.
        task: String,
    },
    /// Begin a run of its own, once: durably with the event that led here, or not at all.
    Begin {
        /// The task.
        task: String,
        /// The run's id: the same whenever this task of this run asks for it.
        run: String,
        /// The workflow, `namespace/name:version`; one of those that came with this one.
        workflow: String,
        /// Its input.
        input: Value,
    },
    /// Look for an earlier answer; answer with [`Event::Recalled`].
    Recall {
        /// To be given back.
        ticket: u64,
        /// The connections whose answers would do, the best first.
        connections: Vec<String>,
        /// The action.
        action: String,
        /// Its input.
        input: Arc<Value>,
        /// An older answer does not count, in milliseconds.
        max_age_ms: u64,
    },
    /// Keep this answer for [`Effect::Recall`], with the next commit. Nothing depends on it.
    Keep {
        /// The connection that gave it.
        connection: String,
        /// The action.
        action: String,
        /// Its input.
        input: Arc<Value>,
        /// Its output.
        output: Arc<Value>,
        /// How long it can be of use, in milliseconds.
        max_age_ms: u64,
    },
    /// This attempt may be dropped: nobody waits for its answer, which is not to be told.
    Cancel {
        /// From [`Attempt::ticket`].
        ticket: u64,
    },
    /// Publish this CloudEvent.
    Emit {
        /// The task.
        task: String,
        /// Attributes and data.
        event: Value,
    },
    /// The run has ended; see [`Run::outcome`].
    Finished,
}

/// One attempt of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// To be given back with every event about this attempt.
    pub ticket: u64,
    /// The task.
    pub task: String,
    /// The connection to call.
    pub connection: String,
    /// The action to call.
    pub action: String,
    /// Its input.
    pub input: Arc<Value>,
    /// The idempotency key: the same for every attempt of the task.
    pub key: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// What repeating the action does: decides whether the intent must be durable first.
    pub effect: descriptor::Effect,
    /// How long the attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// What stands for the workflow's secrets in the input, with the name of each.
    pub secrets: Arc<BTreeMap<String, String>>,
    /// It is to end before this instant, unless that is over when it begins.
    pub deadline_ms: Option<u64>,
    /// Whether it is a second attempt beside one that is under way. It is refused rather than made
    /// to wait, and whenever it could harm: see [`crate::call::Hedge`].
    pub is_hedge: bool,
}

/// What a person is asked, besides why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Question {
    /// The output that is to be looked at.
    pub output: Option<Value>,
    /// When it is decided without them, or goes to the next one.
    pub due_ms: Option<u64>,
    /// Who is asked, if anybody in particular.
    pub reviewer: Option<String>,
    /// How often somebody else was asked before.
    pub escalations: usize,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
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
    /// What the run did was undone, or is about to be.
    #[error("what the run did was undone")]
    Undone,
    /// No attempt or question with this ticket is open.
    #[error("there is no open call with ticket {0}")]
    Ticket(u64),
    /// No such task is under way.
    #[error("no call task `{0}` is under way")]
    Task(String),
    /// The task is not where this event belongs.
    #[error("task `{task}`: {source}")]
    Call {
        /// The task.
        task: String,
        /// What is wrong.
        source: call::Illegal,
    },
}

/// The phases of a run.
#[derive(Debug, Clone)]
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

/// An attempt that is under way.
#[derive(Debug, Clone)]
struct InFlight {
    task: Key,
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
    control: Control,
    /// The run's placeholders; see [`Attempt::secrets`].
    secrets: Arc<BTreeMap<String, String>>,
}

/// What a step works with besides the run itself.
struct Step {
    now_ms: u64,
    ops: Vec<Op>,
    effects: Vec<Effect>,
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
            control: Control::default(),
        }
    }

    /// Takes one event at one instant (milliseconds since the Unix epoch) and says what is to be
    /// done. The same events at the same instants always give the same state and effects.
    ///
    /// # Errors
    /// [`Illegal`] if the event does not belong here; the run is as it was before.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Result<Vec<Effect>, Illegal> {
        self.check_phase(&event)?;
        let mut step = Step {
            now_ms,
            ops: Vec::new(),
            effects: Vec::new(),
        };
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
            Event::Recalled { ticket, found } => self.recalled(ticket, found, &mut step)?,
            Event::Tick => self.tick(&mut step),
        }
        self.settle(&mut step);
        self.hold_back(&mut step.effects);
        Ok(step.effects)
    }

    /// Works until nothing is left to do at this instant.
    fn settle(&mut self, step: &mut Step) {
        let mut operations = 0;
        loop {
            while let Some(op) = step.ops.pop() {
                operations += 1;
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
            Phase::Queued => Status::Queued,
            Phase::New | Phase::Running if self.is_idle() => Status::Waiting,
            Phase::New
            | Phase::Running
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

impl Event {
    /// The event's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "begun",
            Self::Queued { .. } => "queued",
            Self::Forked { .. } => "forked",
            Self::Admitted => "admitted",
            Self::Cancelled { .. } => "cancelled",
            Self::Suspended { .. } => "suspended",
            Self::Resumed => "resumed",
            Self::Redriven { .. } => "redriven",
            Self::Started { .. } => "started",
            Self::Refused { .. } => "refused",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Lost { .. } => "lost",
            Self::LookedUp { .. } => "looked up",
            Self::Recovered { .. } => "recovered",
            Self::Deferred { .. } => "deferred",
            Self::NotDeferred { .. } => "not deferred",
            Self::Tick => "tick",
            Self::Decided { .. } => "decided",
            Self::Recalled { .. } => "recalled",
        }
    }
}

fn endless() -> WorkflowError {
    WorkflowError::runtime(
        format!(
            "the workflow did {OPERATIONS_MAX} steps without waiting for anything; \
             does a `then` lead back without a call or a wait?"
        ),
        "",
    )
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
