//! The compiled workflow: what a run interprets.
//!
//! Made once from Open Workflow text by [`crate::dsl`], immutable afterwards. Nothing here is
//! persisted: a run pins the *text* by hash (see [`Sources`]), and compiling the same text
//! again gives the same tree.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::expr::{Expr, Template};
use crate::schema::Schema;

mod calls;
mod secrets;

pub(crate) use calls::http_action;
pub use calls::{HTTP_ACTIONS, HTTP_CONNECTION};
pub(crate) use secrets::placeholder;
pub use secrets::{SecretUse, Secrets};

/// A whole workflow, ready to run.
#[derive(Debug)]
pub struct Workflow {
    /// Name, namespace and version.
    pub document: Document,
    /// What the workflow takes.
    pub input: Input,
    /// Its tasks.
    pub body: Arc<Block>,
    /// What it returns.
    pub output: Output,
    /// How long a run may take, if bounded.
    pub timeout: Option<DurationSpec>,
    /// What to do with a run that has faulted: `metadata.cofferdam.onExhausted` of the document.
    pub on_exhausted: Option<OnExhausted>,
    /// `use.secrets`, and where they go.
    pub secrets: Secrets,
    /// The whole document, for `$workflow.definition` and `$task.definition`.
    pub definition: Value,
    /// What is allowed and should be put right; places and remedies as in errors.
    pub warnings: Vec<crate::dsl::Error>,
}

/// The head of a workflow document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Version of the language.
    pub dsl: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Version of the workflow (semver).
    pub version: String,
    /// Title for people; empty if none.
    #[serde(default)]
    pub title: String,
    /// Summary for people; empty if none.
    #[serde(default)]
    pub summary: String,
}

/// The texts that a workflow was compiled from: all that must be kept to compile it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The workflow's own text.
    pub main: Source,
    /// The texts of the workflows that it runs, keyed by `namespace/name:version`.
    #[serde(default)]
    pub others: std::collections::BTreeMap<String, Source>,
}

/// One workflow text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// File name or other origin, for messages.
    pub origin: String,
    /// YAML or JSON.
    pub text: String,
}

/// `input:` of a workflow or task.
#[derive(Debug, Default, Clone)]
pub struct Input {
    /// Checked before `from` is applied.
    pub schema: Option<Schema>,
    /// Makes the transformed input from the raw one.
    pub from: Option<Template>,
}

/// `output:` of a workflow or task.
#[derive(Debug, Default, Clone)]
pub struct Output {
    /// Makes the transformed output from the raw one.
    pub r#as: Option<Template>,
    /// Checked after `as` was applied.
    pub schema: Option<Schema>,
}

/// `export:` of a task.
#[derive(Debug, Default, Clone)]
pub struct Export {
    /// Makes the new context; evaluated on the transformed output.
    pub r#as: Option<Template>,
    /// Checked after `as` was applied.
    pub schema: Option<Schema>,
}

/// A list of named tasks, run one after the other.
#[derive(Debug)]
pub struct Block {
    /// The tasks, in order.
    pub tasks: Vec<Arc<Task>>,
}

impl Block {
    /// Position of the task with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|t| t.name == name)
    }
}

/// One task.
#[derive(Debug)]
pub struct Task {
    /// Its name in its block.
    pub name: String,
    /// JSON pointer into the document: `/do/0/charge`.
    pub reference: String,
    /// 1-based line in the source.
    pub line: usize,
    /// `if`.
    pub condition: Option<Expr>,
    /// `input`.
    pub input: Input,
    /// `output`.
    pub output: Output,
    /// `export`.
    pub export: Export,
    /// `timeout.after`.
    pub timeout: Option<DurationSpec>,
    /// `then`.
    pub then: Then,
    /// What it does.
    pub kind: Kind,
}

/// Where the flow goes after a task. Task names are checked at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next task of the block.
    Continue,
    /// Leave the block.
    Exit,
    /// End the workflow, gracefully.
    End,
    /// Go on with the task at this position of the same block.
    Goto(usize),
}

/// What a task does.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a workflow has a handful of tasks, each behind an `Arc`, and most of them are calls"
)]
pub enum Kind {
    /// Runs tasks one after the other.
    Do(Arc<Block>),
    /// Makes a value.
    Set(Template),
    /// Calls an action of a connection.
    Call(Call),
    /// Chooses where to go on.
    Switch(Vec<Case>),
    /// Runs tasks for each item.
    For(For),
    /// Runs tasks side by side.
    Fork(Fork),
    /// Runs tasks and handles their errors.
    Try(Try),
    /// Fails on purpose.
    Raise(ErrorSpec),
    /// Waits.
    Wait(DurationSpec),
    /// Publishes a CloudEvent; the template makes its attributes and data.
    Emit(Template),
    /// Runs another workflow, and waits for it unless it is detached.
    Run {
        /// The other workflow, pinned with this one.
        workflow: Arc<Workflow>,
        /// Its input; the task's input if none.
        input: Option<Template>,
        /// `await: false`: it becomes a run of its own, and the task goes on with its input.
        detached: bool,
    },
}

impl Kind {
    /// The word of the language for this kind of task.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Do(_) => "do",
            Self::Set(_) => "set",
            Self::Call(_) => "call",
            Self::Switch(_) => "switch",
            Self::For(_) => "for",
            Self::Fork(_) => "fork",
            Self::Try(_) => "try",
            Self::Raise(_) => "raise",
            Self::Wait(_) => "wait",
            Self::Emit(_) => "emit",
            Self::Run { .. } => "run",
        }
    }
}

/// A call of an action.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub target: Target,
    /// `with`: the action's input.
    pub with: Template,
    /// `metadata.cofferdam`.
    pub policy: Policy,
}

/// What a call task calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `call: <connection>.<action>`.
    Action {
        /// The connection.
        connection: String,
        /// The action.
        action: String,
    },
    /// `call: http`: the `http` connection, the action chosen by `with.method`: GET and HEAD
    /// call `get`, PUT and DELETE call `put`, all else calls `send`.
    Http,
}

/// One case of a switch.
#[derive(Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// When it is taken; the default case has none.
    pub when: Option<Expr>,
    /// Where it leads.
    pub then: Then,
}

/// `for`.
#[derive(Debug)]
pub struct For {
    /// Variable of the item, without `$`.
    pub each: String,
    /// Variable of the index, without `$`.
    pub at: String,
    /// The collection.
    pub r#in: Expr,
    /// Goes on as long as this holds; checked before each iteration. Forces one at a time.
    pub r#while: Option<Expr>,
    /// What is run for each item.
    pub body: Arc<Block>,
    /// `metadata.cofferdam.maxConcurrency`, 1..=10 000. With 1 each iteration's input is the
    /// output of the one before, as the specification says, and the task's output is the last
    /// one's. With more, each iteration gets the task's input and the task's output is the
    /// array of their outputs, in order.
    pub concurrency_max: usize,
    /// `metadata.cofferdam.toleratedFailurePercent` as 0..=1: failed iterations up to this
    /// share yield `null` instead of failing the task. Only with `concurrency_max` above 1.
    pub tolerated_failure_ratio: f64,
}

/// `fork`.
#[derive(Debug)]
pub struct Fork {
    /// The branches.
    pub branches: Vec<Arc<Task>>,
    /// Whether the first branch that completes wins and the others are cancelled.
    pub compete: bool,
}

/// `try`.
#[derive(Debug)]
pub struct Try {
    /// What is tried.
    pub body: Arc<Block>,
    /// What is done with errors.
    pub catch: Catch,
}

/// `catch`.
#[derive(Debug)]
pub struct Catch {
    /// `errors.with`: attributes that an error must have to be caught (`type`, `status`,
    /// `title`, `detail`, `instance`); all errors if empty.
    pub errors: IndexMap<String, Value>,
    /// Variable of the error, without `$`; `error` unless `as` says otherwise.
    pub r#as: String,
    /// Catches only when this holds.
    pub when: Option<Expr>,
    /// Does not catch when this holds.
    pub except_when: Option<Expr>,
    /// Tries again before handling.
    pub retry: Option<Retry>,
    /// What is run when the error is caught and not retried (any more).
    pub body: Option<Arc<Block>>,
    /// Where the flow goes then; where the `try` task says if none.
    pub then: Option<Then>,
}

/// A retry policy. The same shape serves the language's `retry` and a connection's own.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Retries only when this holds.
    pub when: Option<Expr>,
    /// Does not retry when this holds.
    pub except_when: Option<Expr>,
    /// How long between attempts.
    pub backoff: crate::retry::Backoff,
    /// How many attempts in all, the first included; unbounded if none.
    pub attempts_max: Option<u32>,
    /// How long all attempts may take, in milliseconds; unbounded if none.
    pub total_ms_max: Option<u64>,
    /// How long one attempt may take, in milliseconds; unbounded if none.
    pub attempt_ms_max: Option<u64>,
}

/// A duration: a number of milliseconds, or a template that yields an ISO 8601 duration or a
/// duration object.
#[derive(Debug, Clone)]
pub enum DurationSpec {
    /// Known at compile time, in milliseconds.
    Fixed(u64),
    /// Computed by the run.
    Computed(Template),
}

/// What `raise` raises.
#[derive(Debug, Clone)]
pub struct ErrorSpec {
    /// Yields an object with `type`, `status`, and optionally `title`, `detail`, `instance`.
    pub template: Template,
}

/// `metadata.cofferdam` of a call task. What is `None` comes from the connection.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether the run faults when this task is out of options (default true).
    pub critical: Option<bool>,
    /// Evaluated on the task's input; default: run id and task path.
    pub idempotency_key: Option<Expr>,
    /// Connections to try when this one is out, in order.
    pub failover: Option<Vec<String>>,
    /// What to use instead of an answer, in order.
    pub fallback: Vec<Fallback>,
    /// What to do while the connection is out.
    pub on_outage: Option<OnOutage>,
    /// What to do when the task is out of options.
    pub on_exhausted: Option<OnExhausted>,
    /// What to do when nobody knows whether the call happened.
    pub on_unknown: Option<OnUnknown>,
    /// What undoes this task if the run faults later.
    pub compensate: Option<Compensate>,
    /// `timeout.startToClose`: how long one attempt may take, in milliseconds.
    pub start_to_close_ms: Option<u64>,
    /// `timeout.scheduleToClose`: how long the task may take over all attempts and backoffs
    /// (parking has its own deadline), in milliseconds.
    pub schedule_to_close_ms: Option<u64>,
    /// `timeout.scheduleToStart`: how long the task may wait for its first attempt, in
    /// milliseconds.
    pub schedule_to_start_ms: Option<u64>,
    /// Attempts per connection, the first included.
    pub attempts_max: Option<u32>,
    /// What some failures are retried by instead; the connection's if none.
    pub retries: Option<Vec<crate::retry::Rule>>,
    /// After how long an attempt gets a second one beside it, in milliseconds.
    pub hedge_ms: Option<u64>,
    /// What must hold for an output; evaluated on it.
    pub validate: Vec<Expr>,
    /// How long a person may take, and who is asked then.
    pub review: Option<ReviewPolicy>,
}

/// How long a person may take, and what happens then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewPolicy {
    /// In milliseconds; for ever if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_deadline: OnDeadline,
    /// Who is asked next, in order, each for as long. The last has all the time there is.
    #[serde(default)]
    pub escalate_to: Vec<String>,
}

/// What happens when nobody decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnDeadline {
    /// The task is rejected, as a person would.
    #[default]
    Reject,
    /// The next one is asked.
    Escalate,
}

/// What to use instead of an answer.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// The last answer to the same input; provenance `stale:<age>`.
    Cache {
        /// It must not be older, in milliseconds.
        max_age_ms: u64,
    },
    /// This value; provenance `default`.
    Value(Template),
    /// The answer of another action; provenance `backup:<connection>`.
    Call {
        /// The connection.
        connection: String,
        /// The action.
        action: String,
        /// Its input; the same as the task's if none.
        with: Option<Template>,
        /// What undoes it; if none, what undoes the task, on the connection that was called.
        compensate: Option<Box<Compensate>>,
    },
}

/// What to do while a connection is out (its breaker is open, or attempts ended in an outage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum OnOutage {
    /// Wait, durably and at no cost, until it recovers, at most this long.
    Park {
        /// In milliseconds.
        deadline_ms: u64,
    },
    /// Complete at once; the call is kept in the connection's outbox and delivered, in order, when
    /// the connection works again. Only where nobody needs the output: not for reads, nor for a
    /// task that is to be undone; these park.
    QueueAndForward {
        /// In milliseconds.
        deliver_within_ms: u64,
    },
    /// Go to the fallbacks at once.
    Fallback,
    /// Be out of options at once.
    Fail,
}

impl OnOutage {
    /// The same where the call must not be left to an outbox: parked for as long.
    pub fn never_deferred(self) -> Self {
        match self {
            Self::QueueAndForward {
                deliver_within_ms: deadline_ms,
            } => Self::Park { deadline_ms },
            Self::Park { .. } | Self::Fallback | Self::Fail => self,
        }
    }
}

/// What to do when a task is out of options and has no fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnExhausted {
    /// The run faults.
    Fault,
    /// The task waits for a person.
    Review,
    /// The run faults and is kept as a dead letter.
    DeadLetter,
}

/// What to do when nobody knows whether a call happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnUnknown {
    /// Ask the connector.
    Lookup,
    /// Call again with the same key.
    Repeat,
    /// Ask a person.
    Review,
}

/// What undoes a task.
#[derive(Debug, Clone)]
pub struct Compensate {
    /// The connection; the task's own if the text names only an action.
    pub connection: String,
    /// The action.
    pub action: String,
    /// Its input, evaluated with `$input` (the action's input) and `$output` (the action's
    /// output, or null if it is not known).
    pub with: Template,
    /// Whether the task must have completed.
    pub when: CompensateWhen,
}

/// When a task is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompensateWhen {
    /// Only if it completed.
    Completed,
    /// Also if it was only begun: its outcome may be unknown.
    Attempted,
}
