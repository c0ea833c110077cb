//! What became of each task, for people and for `--details`.

use serde::{Deserialize, Serialize};

use crate::error::WorkflowError;
use crate::failure::Failure;
use crate::provenance::Provenance;

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskReport {
    /// The task's key: `/charge`, `/each/[3]/charge`, `undo:/charge`.
    pub task: String,
    /// Where it stands in the workflow, as a JSON pointer.
    pub reference: String,
    /// `call`, `set`, `for` and so on.
    pub kind: String,
    /// Where it is.
    pub status: TaskStatus,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How its output came to be; only for calls that ended well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// The attempts made, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptReport>,
    /// Why it waits: a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Who or what must come before it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// The run that it was taken over from, finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<String>,
    /// The error it ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkflowError>,
}

/// That a task began, was tried again, or ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskChange {
    /// Where the task stands in the workflow, as a JSON pointer.
    pub reference: String,
    /// Where it is.
    pub status: TaskStatus,
    /// Whether this is another attempt.
    pub is_retry: bool,
    /// The error it ended with.
    pub error: Option<WorkflowError>,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskStatus {
    /// Under way.
    Running,
    /// Waits for a timer, a connection or a person.
    Waiting,
    /// Has its output.
    Completed,
    /// Passed over: its `if` did not hold, or it failed and is not critical.
    Skipped,
    /// Ended with an error.
    Failed,
    /// Stopped because something around it ended.
    Cancelled,
}

/// Who or what a waiting task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// An instant: it goes on by itself.
    Timer,
    /// A connection that works again.
    Connection,
    /// A person's decision.
    Person,
    /// Events.
    Event,
}

/// One attempt of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptReport {
    /// The connection called.
    pub connection: String,
    /// The action called.
    pub action: String,
    /// Digest of the plugin that served it.
    pub digest: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended; none if nobody saw its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// How it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Whether it was made beside another one that took long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hedge: bool,
    /// Whether it was dropped, since the one beside it had succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

impl TaskReport {
    /// A task that begins.
    pub(super) fn new(task: &str, reference: &str, kind: &str, now_ms: u64) -> Self {
        Self {
            task: task.to_owned(),
            reference: reference.to_owned(),
            kind: kind.to_owned(),
            status: TaskStatus::Running,
            started_ms: now_ms,
            ended_ms: None,
            provenance: None,
            attempts: Vec::new(),
            waiting: None,
            waits_for: None,
            taken_from: None,
            error: None,
        }
    }

    pub(super) fn end(&mut self, status: TaskStatus, now_ms: u64) {
        self.status = status;
        self.ended_ms = Some(now_ms);
        self.waiting = None;
        self.waits_for = None;
    }
}
