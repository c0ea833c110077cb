//! What a run wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Deferred;
use crate::consume::Watch;
use crate::descriptor;
use crate::failure::Failure;

/// What a run wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask for admission; answer with [`Event::Started`](super::Event::Started) or [`Event::Refused`](super::Event::Refused), and once started
    /// with [`Event::Succeeded`](super::Event::Succeeded) or [`Event::Failed`](super::Event::Failed).
    Attempt(Attempt),
    /// Ask the connector what became of a call; answer with [`Event::LookedUp`](super::Event::LookedUp).
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
    /// Keep a call in its connection's outbox; answer with [`Event::Deferred`](super::Event::Deferred) or
    /// [`Event::NotDeferred`](super::Event::NotDeferred).
    Defer {
        /// To be given back.
        ticket: u64,
        /// The task.
        task: String,
        /// What is to be called, and until when.
        deferred: Deferred,
    },
    /// Tell [`Event::Recovered`](super::Event::Recovered) when this connection works again.
    Park {
        /// The task.
        task: String,
        /// The connection.
        connection: String,
    },
    /// A person must decide; answer with [`Event::Decided`](super::Event::Decided). Told again when another person is
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
    /// Look for an earlier answer; answer with [`Event::Recalled`](super::Event::Recalled).
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
    /// Tell [`Event::Heard`](super::Event::Heard) of events that these watches may let through.
    Listen {
        /// The task.
        task: String,
        /// What to look events up by.
        watches: Vec<Watch>,
    },
    /// The task is ready for its next event.
    Hear {
        /// The task.
        task: String,
    },
    /// The task does not listen any more.
    ListenClosed {
        /// The task.
        task: String,
        /// As they were in [`Effect::Listen`].
        watches: Vec<Watch>,
    },
    /// The run has ended; see [`Run::outcome`](super::Run::outcome).
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
