//! What happens to a run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kept, Origin, TakenOver};
use crate::call::{Decision, Lookup};
use crate::cloud_event::CloudEvent;
use crate::failure::Failure;

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
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "crate::present::deserialize"
        )]
        input: Option<Value>,
        /// What was finished, and is not repeated.
        taken: TakenOver,
    },
    /// An attempt was admitted and begins: the intent.
    Started {
        /// From [`Attempt::ticket`](super::Attempt::ticket).
        ticket: u64,
        /// Digest of the plugin that serves it.
        digest: String,
    },
    /// An attempt was not admitted.
    Refused {
        /// From [`Attempt::ticket`](super::Attempt::ticket).
        ticket: u64,
        /// Why.
        failure: Failure,
    },
    /// An attempt succeeded.
    Succeeded {
        /// From [`Attempt::ticket`](super::Attempt::ticket).
        ticket: u64,
        /// The action's output.
        output: Value,
    },
    /// An attempt failed.
    Failed {
        /// From [`Attempt::ticket`](super::Attempt::ticket).
        ticket: u64,
        /// How.
        failure: Failure,
        /// Any 32-bit number: the randomness of the backoff.
        draw: u32,
    },
    /// The runtime stopped while the attempt was under way.
    Lost {
        /// From [`Attempt::ticket`](super::Attempt::ticket).
        ticket: u64,
    },
    /// A connector answered what became of a call.
    LookedUp {
        /// From [`Effect::Lookup`](super::Effect::Lookup).
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
        /// From [`Effect::Defer`](super::Effect::Defer).
        ticket: u64,
    },
    /// The outbox has no room for a call.
    NotDeferred {
        /// From [`Effect::Defer`](super::Effect::Defer).
        ticket: u64,
    },
    /// An instant that [`Run::next_due_ms`](super::Run::next_due_ms) named has come.
    Tick,
    /// A person decided about a task in review.
    Decided {
        /// The task.
        task: String,
        /// What.
        decision: Decision,
    },
    /// An event for a task that listens.
    Heard {
        /// The task.
        task: String,
        /// The event's number: a task takes events in the order of their numbers, each once.
        seq: u64,
        /// The event.
        event: CloudEvent,
    },
    /// What is kept of earlier answers was looked through.
    Recalled {
        /// From [`Effect::Recall`](super::Effect::Recall).
        ticket: u64,
        /// What was found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Kept>,
    },
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
            Self::Heard { .. } => "heard",
            Self::Recalled { .. } => "recalled",
        }
    }
}
