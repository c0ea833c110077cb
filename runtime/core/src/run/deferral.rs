//! A call that is left to its connection's outbox: what the task gives instead of an answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::environment::Around;
use super::frame::{Frame, Op, Work};
use super::{Run, Step};
use crate::provenance::Provenance;
use crate::workflow::{Fallback, Kind};

/// A call that is left to an outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Deferred {
    /// The connection to call.
    pub connection: String,
    /// The action to call.
    pub action: String,
    /// Its input.
    pub input: Arc<Value>,
    /// The idempotency key: the same that the task's own attempts had.
    pub key: String,
    /// For how long delivery may be tried, in milliseconds.
    pub deliver_within_ms: u64,
}

impl Run {
    /// The task ends with what `fallback.value` says, or with `{deferred: true, key}`.
    pub(super) fn complete_deferred(&mut self, key: &str, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            task,
            input,
            ..
        }) = self.frames.get(key)
        else {
            return;
        };
        let fallbacks = match task.as_ref().map(|task| &task.kind) {
            Some(Kind::Call(call)) => call.policy.fallback.as_slice(),
            _ => &[],
        };
        let value = fallbacks.iter().find_map(|fallback| {
            let Fallback::Value(template) = fallback else {
                return None;
            };
            Some(template.clone())
        });
        let (input, call_key) = (Arc::clone(input), work.key.clone());
        let effect = work.effect.clone();
        let connection = work.state.connection(&work.plan).to_owned();
        // Whatever becomes of the task, the call is in the outbox.
        if let Some(id) = &effect {
            let answer = Arc::new(deferred(&call_key));
            self.ledger.deferred(id, &connection, &answer);
            self.note_effect(key);
        }
        let around = Around::new(self, key);
        let output = match value.map(|template| self.evaluate(&template, &input, &around)) {
            None => deferred(&call_key),
            Some(Ok(value)) => value,
            Some(Err(error)) => {
                let key = key.to_owned();
                step.ops.push(Op::Raise { key, error });
                return;
            }
        };
        let output = Arc::new(output);
        if let Some(id) = &effect {
            self.ledger.deferred(id, &connection, &output);
        }
        self.succeed(key, output, Provenance::Deferred, step);
    }
}

fn deferred(key: &str) -> Value {
    json!({"deferred": true, "key": key})
}
