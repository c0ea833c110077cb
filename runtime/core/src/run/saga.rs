//! The saga: what was begun is undone, last first, when the run faults.
//!
//! Garcia-Molina and Salem, "Sagas" (1987). Order is that of the beginnings, so that a call whose
//! outcome nobody knows is undone too. An undoing that fails goes to review and never stops the
//! others.

use std::sync::Arc;

use serde_json::Value;

use super::calls::InnerCall;
use super::frame::{Frame, Slot, Work};
use super::report::TaskStatus;
use super::{Effect, Outcome, Phase, Run, Step};
use crate::call;
use crate::error::WorkflowError;
use crate::expr::Vars;
use crate::failure::{Class, EffectState, Failure};
use crate::workflow::{Call, CompensateWhen, Kind, OnExhausted, Task};

/// A task that can be undone.
#[derive(Debug, Clone)]
pub(super) struct Undo {
    task_key: String,
    task: Arc<Task>,
    input: Arc<Value>,
    happened: Happened,
    /// Whether its undoing was begun.
    begun: bool,
}

#[derive(Debug, Clone)]
enum Happened {
    /// Certainly not.
    No,
    /// Nobody knows.
    Maybe,
    Yes {
        output: Arc<Value>,
    },
}

impl Undo {
    pub fn begun(task_key: &str, task: &Arc<Task>, input: &Arc<Value>) -> Self {
        Self {
            task_key: task_key.to_owned(),
            task: Arc::clone(task),
            input: Arc::clone(input),
            happened: Happened::Maybe,
            begun: false,
        }
    }

    pub fn completed(&mut self, output: &Arc<Value>) {
        self.happened = Happened::Yes {
            output: Arc::clone(output),
        };
    }

    pub fn never_happened(&mut self) {
        self.happened = Happened::No;
    }

    /// An attempt ended, perhaps unobserved: the task around it may be gone.
    pub fn attempt_ended(&mut self, event: &call::Event) {
        if let call::Event::Succeeded(output) = event {
            self.happened = Happened::Yes {
                output: Arc::new(output.clone()),
            };
        }
    }

    fn is_wanted(&self) -> bool {
        let Kind::Call(Call { policy, .. }) = &self.task.kind else {
            return false;
        };
        let Some(compensate) = &policy.compensate else {
            return false;
        };
        match (&self.happened, compensate.when) {
            (Happened::Yes { .. }, _) | (Happened::Maybe, CompensateWhen::Attempted) => !self.begun,
            (Happened::No, _) | (Happened::Maybe, CompensateWhen::Completed) => false,
        }
    }
}

impl Run {
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
        self.phase = Phase::Compensating { error, dead_letter };
    }

    /// Begins the next undoing if it is time for it; returns whether there is more to do at
    /// this instant.
    pub(super) fn compensate_next(&mut self, step: &mut Step) -> bool {
        let Phase::Compensating { error, dead_letter } = &self.phase else {
            return false;
        };
        // An effect must not arrive after its own undoing: first everything in flight ends.
        if !self.in_flight.is_empty() || !self.frames.is_empty() {
            return false;
        }
        let Some(index) = self.undos.iter().rposition(Undo::is_wanted) else {
            let outcome = Outcome::Faulted {
                error: error.clone(),
                dead_letter: *dead_letter,
            };
            self.phase = Phase::Ended(outcome);
            step.effects.push(Effect::Finished);
            return false;
        };
        self.begin_undo(index, step);
        true
    }

    fn begin_undo(&mut self, index: usize, step: &mut Step) {
        self.undos[index].begun = true;
        let undo = self.undos[index].clone();
        let Kind::Call(Call { policy, .. }) = &undo.task.kind else {
            return;
        };
        let Some(compensate) = &policy.compensate else {
            return;
        };
        let key = format!("undo:{}", undo.task_key);
        let output = match &undo.happened {
            Happened::Yes { output } => (**output).clone(),
            Happened::No | Happened::Maybe => Value::Null,
        };
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
            connection: &compensate.connection,
            action: &compensate.action,
            input,
            call_key,
        };
        self.start_inner_call(inner, step);
    }

    /// An undoing is done; the step goes on with the next one.
    pub(super) fn undone(&mut self, index: usize, _step: &mut Step) {
        self.undos[index].never_happened();
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
        });
    }

    pub(super) fn close_ticket(&mut self, frame: &Frame) {
        if let Work::Call(work) = &frame.work {
            self.open.remove(&work.ticket);
        }
    }
}
