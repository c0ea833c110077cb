//! The saga: what was begun is undone, last first, when the run faults.
//!
//! Garcia-Molina and Salem, "Sagas" (1987). Order is that of the beginnings, so that a call whose
//! outcome nobody knows is undone too. An undoing that fails goes to review and never stops the
//! others.

use std::sync::Arc;

use serde_json::Value;

use super::calls::InnerCall;
use super::frame::Slot;
use super::ledger::Ledger;
use super::report::TaskStatus;
use super::{Effect, Outcome, Phase, Question, Run, Step};
use crate::error::WorkflowError;
use crate::expr::Vars;
use crate::failure::{Class, EffectState, Failure};
use crate::workflow::{
    Call, Compensate, CompensateWhen, Fallback, Kind, OnExhausted, Target, Task,
};

/// A task that can be undone. Whether its effect happened is in the ledger.
#[derive(Debug, Clone)]
pub(super) struct Undo {
    pub task_key: String,
    pub task: Arc<Task>,
    /// Which fallback of the task made the effect; its own call if none.
    pub fallback: Option<usize>,
    pub input: Arc<Value>,
    pub effect: String,
    /// Whether its undoing was begun.
    pub begun: bool,
}

impl Undo {
    pub fn new(
        task_key: &str,
        task: &Arc<Task>,
        fallback: Option<usize>,
        input: &Arc<Value>,
        effect: &str,
    ) -> Self {
        Self {
            task_key: task_key.to_owned(),
            task: Arc::clone(task),
            fallback,
            input: Arc::clone(input),
            effect: effect.to_owned(),
            begun: false,
        }
    }

    fn call(&self) -> Option<&Call> {
        match &self.task.kind {
            Kind::Call(call) => Some(call),
            _ => None,
        }
    }

    /// How it is undone, and the connection that the undoing names if it names only an action.
    fn how(&self) -> Option<(&Compensate, Option<&str>)> {
        let call = self.call()?;
        let own = match &call.target {
            Target::Action { connection, .. } => Some(connection.as_str()),
            Target::Http => None,
        };
        let fallback = self.fallback.and_then(|i| call.policy.fallback.get(i));
        if let Some(Fallback::Call {
            compensate: Some(compensate),
            connection,
            ..
        }) = fallback
        {
            return Some((compensate, Some(connection)));
        }
        Some((call.policy.compensate.as_ref()?, own))
    }

    fn compensate(&self) -> Option<&Compensate> {
        self.how().map(|(compensate, _)| compensate)
    }

    fn is_wanted(&self, ledger: &Ledger) -> bool {
        let (Some(entry), Some(compensate)) = (ledger.get(&self.effect), self.compensate()) else {
            return false;
        };
        let happened = match compensate.when {
            CompensateWhen::Attempted => entry.may_have_happened(),
            CompensateWhen::Completed => entry.outcome.is_some(),
        };
        happened && !self.begun
    }

    /// The connection that had the effect knows how to undo it; unless the workflow names another.
    fn connection(&self, compensate: &Compensate, asked: &str) -> String {
        match self.how() {
            Some((_, Some(own))) if own == compensate.connection && !asked.is_empty() => {
                asked.to_owned()
            }
            _ => compensate.connection.clone(),
        }
    }
}

impl Run {
    /// The task that says how the effect of this call is undone, and which fallback of the task
    /// the call is.
    pub(super) fn undone_with(&self, key: &str) -> (Option<Arc<Task>>, Option<usize>) {
        let Some(frame) = self.frames.get(key) else {
            return (None, None);
        };
        let (task, fallback) = match (&frame.slot, &frame.parent) {
            (Slot::Fallback(index), Some(parent)) if self.bindings.semantics >= 2 => {
                let parent = self.frames.get(parent);
                (parent.and_then(|f| f.task.as_ref()), Some(*index))
            }
            _ => (frame.task.as_ref(), None),
        };
        let wanted = task.filter(|task| match &task.kind {
            Kind::Call(call) => {
                let own = fallback.and_then(|i| call.policy.fallback.get(i));
                let own = matches!(
                    own,
                    Some(Fallback::Call {
                        compensate: Some(_),
                        ..
                    })
                );
                own || call.policy.compensate.is_some()
            }
            _ => false,
        });
        (wanted.cloned(), fallback)
    }

    /// An error that nothing catches: everything is stopped, and what was done is undone.
    pub(super) fn fault(
        &mut self,
        error: WorkflowError,
        on_exhausted: Option<OnExhausted>,
        step: &mut Step,
    ) {
        self.cancel_all(step);
        let wanted = on_exhausted.or(self.workflow.on_exhausted);
        let dead_letter = wanted != Some(OnExhausted::Fault);
        let error = error.told();
        self.phase = Phase::Compensating { error, dead_letter };
    }

    /// Begins the next undoing if it is time for it; returns whether there is more to do at
    /// this instant.
    pub(super) fn compensate_next(&mut self, step: &mut Step) -> bool {
        let (outcome, undoes) = match &self.phase {
            Phase::Compensating { error, dead_letter } => {
                let outcome = Outcome::Faulted {
                    error: error.clone(),
                    dead_letter: *dead_letter,
                };
                (outcome, true)
            }
            Phase::Cancelling { reason, compensate } => {
                let outcome = Outcome::Cancelled {
                    reason: reason.clone(),
                    compensated: *compensate,
                };
                (outcome, *compensate)
            }
            Phase::New | Phase::Queued | Phase::Running | Phase::Ended(_) => return false,
        };
        // An effect must not arrive after its own undoing: first everything in flight ends.
        if !self.in_flight.is_empty() || !self.frames.is_empty() {
            return false;
        }
        let Some(index) = self
            .undos
            .iter()
            .rposition(|undo| undoes && undo.is_wanted(&self.ledger))
        else {
            self.phase = Phase::Ended(outcome);
            step.effects.push(Effect::Finished);
            return false;
        };
        self.begin_undo(index, step);
        true
    }

    /// Whether any undoing was begun.
    pub(super) fn was_undone(&self) -> bool {
        self.undos.iter().any(|undo| undo.begun)
    }

    fn begin_undo(&mut self, index: usize, step: &mut Step) {
        self.undos[index].begun = true;
        let undo = self.undos[index].clone();
        let Some(compensate) = undo.compensate() else {
            return;
        };
        let key = format!("undo:{}", undo.task_key);
        let entry = self.ledger.get(&undo.effect).cloned().unwrap_or_default();
        let output = entry
            .outcome
            .map_or(Value::Null, |(output, _)| (*output).clone());
        let connection = undo.connection(compensate, &entry.connection);
        let vars = Vars::new()
            .with("input", &undo.input)
            .with("output", &output);
        let input = match compensate.with.evaluate(&output, &vars) {
            Ok(input) => Arc::new(input),
            Err(broken) => {
                let error = WorkflowError::expression(broken.to_string(), &undo.task.reference);
                self.undo_stuck(index, &key, &error, step);
                return;
            }
        };
        let call_key = self.call_key(&key, None);
        let inner = InnerCall {
            key,
            parent: None,
            slot: Slot::Undo(index),
            reference: &undo.task.reference,
            connection: &connection,
            action: &compensate.action,
            input,
            call_key,
        };
        self.start_inner_call(inner, step);
    }

    /// An undoing failed for good: a person must see to it; the others go on.
    pub(super) fn undo_stuck(
        &mut self,
        index: usize,
        key: &str,
        error: &WorkflowError,
        step: &mut Step,
    ) {
        let task = &self.undos[index].task_key;
        let message = format!("`{task}` could not be undone: {error}");
        let failure =
            Failure::new(Class::Other, "undo.stuck", message).with_effect(EffectState::Applied);
        if let Some(report) = self.reports.get_mut(key) {
            report.end(TaskStatus::Failed, step.now_ms);
        }
        step.effects.push(Effect::Review {
            task: key.to_owned(),
            failure,
            question: Question::default(),
        });
    }
}
