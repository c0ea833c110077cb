//! The frames of a run: one for each task, block or workflow that is under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::listen::ListenWork;
use super::{Attempt, Deferred, Effect, Question};
use crate::call::{self, Hedge, Phase};
use crate::error::WorkflowError;
use crate::workflow::{self, Block, Task, Then, Workflow};

/// A task key: `/charge`, `/each/[3]/charge`, `undo:/charge`.
pub(super) type Key = String;

/// Variables that tasks around this one have set (`$item`, `$index`, `$error`).
pub(super) type Scope = Arc<BTreeMap<String, Value>>;

/// Something under way.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The task; none for the blocks inside `for`, `try` and workflows.
    pub task: Option<Arc<Task>>,
    /// The frame around it; none for the workflow and for undoing.
    pub parent: Option<Key>,
    /// What it is to the frame around it.
    pub slot: Slot,
    pub raw_input: Arc<Value>,
    pub input: Arc<Value>,
    pub scope: Scope,
    pub started_ms: u64,
    /// `timeout.after` of the task or workflow, as an instant.
    pub deadline_ms: Option<u64>,
    pub work: Work,
}

/// What a frame is to the frame around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Slot {
    /// A task of a block, or the workflow itself.
    Task,
    /// An iteration of a `for`.
    Iteration(usize),
    /// A branch of a `fork`.
    Branch(usize),
    /// What a `try` tries.
    Tried,
    /// What a `try` does with an error.
    Catch,
    /// What stands in for a call.
    Fallback(usize),
    /// What a `listen` does with an event.
    Heard(usize),
    /// The undoing of a task: index into the saga.
    Undo(usize),
}

/// What a frame does.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Block(BlockWork),
    Call(Box<CallWork>),
    For(ForWork),
    Fork(ForkWork),
    Try(TryWork),
    Wait { due_ms: u64 },
    Listen(Box<ListenWork>),
}

#[derive(Debug, Clone)]
pub(super) struct BlockWork {
    pub block: Arc<Block>,
    pub index: usize,
    /// How often each task of the block was entered: a task that `then` leads back to is
    /// another task, with a key of its own.
    pub visits: Vec<u32>,
    /// Set if the block is a whole workflow.
    pub flow: Option<FlowWork>,
}

/// A workflow around its block.
#[derive(Debug, Clone)]
pub(super) struct FlowWork {
    pub workflow: Arc<Workflow>,
    pub context: Arc<Value>,
}

#[derive(Debug, Clone)]
pub(super) struct CallWork {
    pub plan: call::Plan,
    pub state: call::State,
    pub action: String,
    pub input: Arc<Value>,
    pub key: String,
    pub timeout_ms: u64,
    /// The open attempt or question.
    pub ticket: u64,
    /// The second attempt beside it; 0 if there is none.
    pub hedge_ticket: u64,
    /// The fallback for which earlier answers are looked through.
    pub recall: Option<Recall>,
    /// How long its answers can be of use, in milliseconds; they are not kept if none.
    pub keep_ms: Option<u64>,
    /// How many attempts for its effect had begun when somebody was last asked what came of them.
    pub asked_after: u32,
    /// Its effect in the ledger; none for reads.
    pub effect: Option<String>,
    pub policy: CallPolicy,
    /// The run's placeholders; see [`Attempt::secrets`].
    pub secrets: Arc<BTreeMap<String, String>>,
}

/// A question for an earlier answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Recall {
    /// Which fallback of the task it is.
    pub index: usize,
    /// In milliseconds.
    pub max_age_ms: u64,
}

/// What is done with the end of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallPolicy {
    pub critical: bool,
    /// What the workflow says; the effect decides if it says nothing.
    pub on_exhausted: Option<workflow::OnExhausted>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ForWork {
    pub items: Vec<Value>,
    pub next: usize,
    pub running: usize,
    pub failed: usize,
    /// Outputs by index; only kept when iterations run side by side.
    pub outputs: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ForkWork {
    pub running: usize,
    pub outputs: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TryWork {
    pub attempts: u32,
    pub first_started_ms: u64,
    /// When the next attempt begins, while waiting for it.
    pub due_ms: Option<u64>,
}

/// One thing to do within a step.
#[derive(Debug)]
pub(super) enum Op {
    Enter(Entry),
    /// Begin the task at the block's index.
    Next {
        block: Key,
        value: Arc<Value>,
    },
    /// A frame has its raw output. `then` overrides the task's own.
    Complete {
        key: Key,
        output: Arc<Value>,
        then: Option<Then>,
    },
    /// A call is passed over.
    Skip {
        key: Key,
    },
    Raise {
        key: Key,
        error: WorkflowError,
    },
}

/// A task that is about to begin.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    pub task: Arc<Task>,
    pub parent: Key,
    pub slot: Slot,
    pub input: Arc<Value>,
    pub scope: Scope,
}

impl Frame {
    /// Whether something falls due at exactly this instant.
    pub fn is_due_at(&self, due_ms: u64) -> bool {
        self.deadline_ms == Some(due_ms) || self.work_due_ms() == Some(due_ms)
    }

    /// When the work itself goes on, as opposed to when its time is over.
    pub fn work_due_ms(&self) -> Option<u64> {
        match &self.work {
            Work::Call(call) => call.state.due_ms(),
            Work::Wait { due_ms } => Some(*due_ms),
            Work::Try(work) => work.due_ms,
            Work::Block(_) | Work::For(_) | Work::Fork(_) | Work::Listen(_) => None,
        }
    }

    /// Whether an unanswered effect is open.
    pub fn wants_something(&self) -> bool {
        match &self.work {
            Work::Call(call) => {
                call.recall.is_some()
                    || matches!(
                        call.state.phase,
                        Phase::Ready
                            | Phase::InFlight
                            | Phase::LookingUp { .. }
                            | Phase::Deferring { .. }
                    )
            }
            Work::Block(_)
            | Work::For(_)
            | Work::Fork(_)
            | Work::Try(_)
            | Work::Wait { .. }
            | Work::Listen(_) => false,
        }
    }

    /// The effect that this frame waits for an answer to.
    pub fn outstanding(&self, key: &str) -> Option<Effect> {
        match &self.work {
            Work::Call(call) => call.outstanding(key),
            Work::Block(_)
            | Work::For(_)
            | Work::Fork(_)
            | Work::Try(_)
            | Work::Wait { .. }
            | Work::Listen(_) => None,
        }
    }
}

impl CallWork {
    /// The effect that belongs to the phase the call is in.
    pub fn outstanding(&self, key: &str) -> Option<Effect> {
        if let Some(recall) = self.recall {
            return Some(self.ask_for_kept(recall));
        }
        let connection = self.state.connection(&self.plan).to_owned();
        match &self.state.phase {
            Phase::Ready => Some(self.attempt(key, self.ticket, connection)),
            Phase::LookingUp { .. } => Some(Effect::Lookup {
                ticket: self.ticket,
                task: key.to_owned(),
                connection,
                action: self.action.clone(),
                key: self.key.clone(),
            }),
            Phase::Parked { .. } => Some(Effect::Park {
                task: key.to_owned(),
                connection,
            }),
            Phase::Review { failure } => Some(Effect::Review {
                task: key.to_owned(),
                failure: failure.clone(),
                question: Question {
                    output: self.state.held.clone(),
                    due_ms: self.state.review_due_ms,
                    reviewer: self.state.reviewer(&self.plan).map(str::to_owned),
                    escalations: self.state.escalations,
                },
            }),
            Phase::Deferring {
                deliver_within_ms, ..
            } => Some(Effect::Defer {
                ticket: self.ticket,
                task: key.to_owned(),
                deferred: Deferred {
                    connection,
                    action: self.action.clone(),
                    input: Arc::clone(&self.input),
                    key: self.key.clone(),
                    deliver_within_ms: *deliver_within_ms,
                },
            }),
            Phase::InFlight
            | Phase::Backoff { .. }
            | Phase::Deferred
            | Phase::Succeeded { .. }
            | Phase::Exhausted { .. } => None,
        }
    }

    /// The second attempt that is asked for.
    pub fn hedge(&self, key: &str) -> Effect {
        let index = self.state.hedge_connection(&self.plan);
        self.attempt(key, self.hedge_ticket, self.plan.connections[index].clone())
    }

    fn attempt(&self, key: &str, ticket: u64, connection: String) -> Effect {
        let is_careful = self.plan.semantics >= 2;
        Effect::Attempt(Attempt {
            ticket,
            task: key.to_owned(),
            connection,
            action: self.action.clone(),
            input: Arc::clone(&self.input),
            key: self.key.clone(),
            attempt: self.state.attempts + 1,
            effect: self.plan.effect,
            timeout_ms: self.timeout_ms,
            deadline_ms: is_careful.then_some(self.state.close_at_ms),
            is_hedge: self.state.hedge == Hedge::Asked,
            secrets: Arc::clone(&self.secrets),
        })
    }

    fn ask_for_kept(&self, recall: Recall) -> Effect {
        Effect::Recall {
            ticket: self.ticket,
            connections: self.plan.connections.clone(),
            action: self.action.clone(),
            input: Arc::clone(&self.input),
            max_age_ms: recall.max_age_ms,
        }
    }
}
