//! What people and queues do with a whole run: queue and admit it, cancel, suspend and resume it,
//! redrive it after a fault, fork another one from it.
//!
//! All of it is events of the journal like any other, so that it survives a crash exactly, and
//! folding gives the same state again. A run that is redriven or forked does not repeat what was
//! finished: the event carries what finished tasks gave ([`TakenOver`]), and a task that is
//! entered and found there completes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frame::{Frame, Key, Op, Slot};
use super::report::{AttemptReport, TaskReport, TaskStatus};
use super::tasks::ROOT;
use super::{Effect, Event, Illegal, Outcome, Phase, Run, Step};
use crate::provenance::Provenance;
use crate::workflow::{Kind, Task};

/// What finished tasks gave, by task key.
pub type TakenOver = BTreeMap<String, Taken>;

/// What one finished task gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// Its output before `output` and `export` of the task.
    pub output: Value,
    /// The workflow's context after it, if tasks inside of it may have exported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// How its output and those of the tasks inside of it came to be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provenance: BTreeMap<String, Provenance>,
}

/// A run that begins no attempts until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why, in the words of who suspended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The run and the task that another run was forked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The run.
    pub run: String,
    /// The task at which the new run takes another way.
    pub task: String,
}

/// The part of a run's state that belongs to this module. Persisted in checkpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Control {
    suspension: Option<Suspension>,
    origin: Option<Origin>,
    redriven: u32,
    /// Finished tasks that were not entered again yet.
    taken: BTreeMap<Key, Arc<Taken>>,
    /// Attempts that tasks made before the run was redriven.
    earlier: BTreeMap<Key, Vec<AttemptReport>>,
    /// What the innermost task that failed had come in, until something catches the error.
    failing: Option<(Key, Arc<Value>)>,
    /// What is to come into a task instead.
    edited: Option<(Key, Arc<Value>)>,
    #[serde(skip)]
    recorder: Option<Recorder>,
}

/// Keeps what finished tasks gave. Runs that are under way have none: it costs memory.
#[derive(Debug, Clone, Default)]
struct Recorder {
    until: Option<Key>,
    stopped: bool,
    finished: BTreeMap<Key, (Arc<Value>, Option<Arc<Value>>)>,
}

impl Control {
    /// How many finished tasks were not entered again yet.
    pub fn taken_left(&self) -> usize {
        self.taken.len()
    }
}

impl Recorder {
    /// A task begins, perhaps again: what it gave before does not count.
    fn entered(&mut self, key: &str) {
        if self.stopped {
            return;
        }
        self.finished.remove(key);
        self.forget_inside(key);
        self.stopped = self.until.as_deref() == Some(key);
    }

    fn forget_inside(&mut self, key: &str) {
        let prefix = format!("{key}/");
        let inside: Vec<Key> = self
            .finished
            .range(prefix.clone()..)
            .map(|(k, _)| k)
            .take_while(|k| k.starts_with(&prefix))
            .cloned()
            .collect();
        for key in inside {
            self.finished.remove(&key);
        }
    }
}

impl Run {
    /// The run waits in a queue for [`super::Event::Admitted`].
    pub(super) fn queued(&mut self, input: Value, step: &Step) {
        self.begun_ms = step.now_ms;
        self.input = Arc::new(input);
        self.phase = Phase::Queued;
    }

    /// The run waits in a queue, and will not repeat what another one has finished.
    pub(super) fn forked(&mut self, input: Value, origin: Origin, taken: TakenOver, step: &Step) {
        self.queued(input, step);
        self.control.origin = Some(origin);
        self.control.taken = shared(taken);
    }

    /// The run's turn has come.
    pub(super) fn admitted(&mut self, step: &mut Step) {
        if self.control.redriven == 0 {
            self.begun_ms = step.now_ms;
        }
        self.phase = Phase::Running;
        let (workflow, input) = (Arc::clone(&self.workflow), Arc::clone(&self.input));
        self.enter_flow(ROOT.to_owned(), None, &workflow, &input, step);
    }

    /// Stops everything; what was done is undone if `compensate` says so. Attempts under way are
    /// waited for: an effect must not arrive after its own undoing.
    pub(super) fn cancelled(
        &mut self,
        reason: Option<String>,
        compensate: bool,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        match self.phase {
            Phase::New
            | Phase::Compensating { .. }
            | Phase::Cancelling { .. }
            | Phase::Ended(_) => return Err(self.illegal("cancelled")),
            Phase::Queued | Phase::Running => {}
        }
        self.control.suspension = None;
        self.cancel_all(step);
        self.phase = Phase::Cancelling { reason, compensate };
        Ok(())
    }

    /// No attempt begins and no instant comes until [`super::Event::Resumed`].
    pub(super) fn suspended(&mut self, reason: Option<String>, step: &Step) -> Result<(), Illegal> {
        if self.control.suspension.is_some() {
            return Err(self.illegal("suspended"));
        }
        self.control.suspension = Some(Suspension {
            since_ms: step.now_ms,
            reason,
        });
        Ok(())
    }

    /// Goes on: what was held back is wanted now.
    pub(super) fn resumed(&mut self, step: &mut Step) -> Result<(), Illegal> {
        if self.control.suspension.take().is_none() {
            return Err(self.illegal("resumed"));
        }
        let held = self.outstanding().into_iter().filter(begins_a_call);
        step.effects.extend(held);
        Ok(())
    }

    /// A run that faulted goes back into the queue, to go on from the task that failed.
    pub(super) fn redriven(
        &mut self,
        input: Option<Value>,
        taken: TakenOver,
    ) -> Result<(), Illegal> {
        if !matches!(self.phase, Phase::Ended(Outcome::Faulted { .. })) {
            return Err(self.illegal("redriven"));
        }
        if self.was_undone() {
            return Err(Illegal::Undone);
        }
        if self.is_slim() {
            return Err(Illegal::Slim);
        }
        self.check_way_on(input.is_some(), &taken)?;
        if let (Some(input), Some((task, _))) = (input, self.control.failing.take()) {
            let input = Arc::new(input);
            if task == ROOT {
                self.input = input;
            } else {
                self.control.edited = Some((task, input));
            }
        }
        self.control.redriven += 1;
        self.control.taken = shared(taken);
        self.keep_finished_reports();
        self.phase = Phase::Queued;
        Ok(())
    }

    /// Refuses to go on where that would do something twice, or mix answers to two inputs.
    fn check_way_on(&self, is_edited: bool, taken: &TakenOver) -> Result<(), Illegal> {
        let Some((failing, _)) = &self.control.failing else {
            return Ok(());
        };
        let is_handler = |around: &str| around.ends_with("/~catch");
        if within(failing).any(is_handler) {
            // What was tried would be tried again, beside what was done instead of it.
            return Err(Illegal::NoWayOn("it failed while it handled an error"));
        }
        if taken.keys().any(|task| within(task).any(is_handler)) {
            return Err(Illegal::NoWayOn(
                "an error was being handled beside the task that failed",
            ));
        }
        let is_inside = |task: &String| {
            task != failing && (failing == ROOT || within(task).any(|around| around == failing))
        };
        if is_edited && taken.keys().any(is_inside) {
            return Err(Illegal::NoWayOn(
                "tasks inside the one that failed have answered to its old input",
            ));
        }
        Ok(())
    }

    /// Of tasks that will be entered again only the attempts are kept.
    fn keep_finished_reports(&mut self) {
        let taken: BTreeSet<&str> = self.control.taken.keys().map(String::as_str).collect();
        let is_finished = |key: &str| within(key).any(|around| taken.contains(around));
        let mut earlier = BTreeMap::new();
        self.reports.retain(|key, report| {
            let keep = is_finished(key);
            if !keep && !report.attempts.is_empty() {
                earlier.insert(key.clone(), std::mem::take(&mut report.attempts));
            }
            keep
        });
        self.degraded = self
            .reports
            .values()
            .any(|r| r.provenance.as_ref().is_some_and(Provenance::is_degraded));
        self.control.earlier = earlier;
    }

    /// The report of a task that is entered.
    pub(super) fn fresh_report(&mut self, key: &str, task: &Task, step: &Step) -> TaskReport {
        if let Some(recorder) = &mut self.control.recorder {
            recorder.entered(key);
        }
        if self.control.taken.contains_key(key)
            && let Some(known) = self.reports.get(key)
        {
            return known.clone();
        }
        let mut report = TaskReport::new(key, &task.reference, task.kind.word(), step.now_ms);
        report.attempts = self.control.earlier.remove(key).unwrap_or_default();
        report
    }

    /// What comes into a task, unless somebody has put it right.
    pub(super) fn edited_input(&mut self, key: &str, input: Arc<Value>) -> Arc<Value> {
        match self.control.edited.take_if(|(edited, _)| edited == key) {
            Some((_, edited)) => edited,
            None => input,
        }
    }

    /// Completes a task that was finished before; false if it was not.
    pub(super) fn take_over(&mut self, key: &str, step: &mut Step) -> bool {
        let Some(taken) = self.control.taken.remove(key) else {
            return false;
        };
        if let Some(context) = &taken.context {
            self.set_context(key, Arc::new(context.clone()));
        }
        let from = self.control.origin.as_ref().map(|o| o.run.clone());
        for (task, provenance) in &taken.provenance {
            self.degraded |= provenance.is_degraded();
            let reference = self.reports.get(key).map(|r| r.reference.clone());
            let report = self.reports.entry(task.clone()).or_insert_with(|| {
                let mut inner =
                    TaskReport::new(task, &reference.unwrap_or_default(), "call", step.now_ms);
                inner.end(TaskStatus::Completed, step.now_ms);
                inner
            });
            report.provenance = Some(provenance.clone());
        }
        if let Some(from) = from {
            for report in self.reports.values_mut() {
                if within(&report.task).any(|around| around == key) {
                    report.taken_from = Some(from.clone());
                }
            }
        }
        step.ops.push(Op::Complete {
            key: key.to_owned(),
            output: Arc::new(taken.output.clone()),
            then: None,
        });
        true
    }

    /// A task has its raw output.
    pub(super) fn record(&mut self, key: &str, output: Option<Arc<Value>>) {
        let context = self.context_around(key);
        let Some(recorder) = self.control.recorder.as_mut().filter(|r| !r.stopped) else {
            return;
        };
        let Some(Frame {
            task: Some(task),
            slot,
            ..
        }) = self.frames.get(key)
        else {
            return;
        };
        // Where a switch leads to is found out again: it is not in its output.
        if matches!(task.kind, Kind::Switch(_)) || matches!(slot, Slot::Undo(_)) {
            return;
        }
        let is_leaf = matches!(
            task.kind,
            Kind::Set(_) | Kind::Call(_) | Kind::Wait(_) | Kind::Emit(_)
        );
        recorder.forget_inside(key);
        if let Some(output) = output {
            let context = context.filter(|c| !is_leaf && !c.is_null());
            recorder.finished.insert(key.to_owned(), (output, context));
        }
    }

    /// Whether outputs are to be kept.
    pub(super) fn is_recording(&self) -> bool {
        self.control.recorder.is_some()
    }

    /// Remembers the innermost task that failed. Errors travel outwards at once, one at a time.
    pub(super) fn note_failing(&mut self, key: &str) {
        let is_around = |inner: &Key| within(inner).any(|around| around == key) || key == ROOT;
        if self
            .control
            .failing
            .as_ref()
            .is_some_and(|(k, _)| is_around(k))
        {
            return;
        }
        // What a person can put right is what came into a task, or into the workflow.
        let mut at = key;
        while let Some(frame) = self.frames.get(at) {
            let is_own = frame.task.is_some() && !matches!(frame.slot, Slot::Fallback(_));
            match &frame.parent {
                Some(parent) if !is_own => at = parent,
                _ => {
                    self.control.failing = Some((at.to_owned(), Arc::clone(&frame.raw_input)));
                    return;
                }
            }
        }
    }

    /// An error was dealt with.
    pub(super) fn forget_failing(&mut self) {
        self.control.failing = None;
    }

    /// Drops what is not to happen while the run is suspended; it stays outstanding.
    pub(super) fn hold_back(&self, effects: &mut Vec<Effect>) {
        if self.control.suspension.is_some() {
            effects.retain(|effect| !begins_a_call(effect));
        }
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.control.suspension.is_some()
    }

    /// Whether an event belongs where the run is.
    pub(super) fn check_phase(&self, event: &Event) -> Result<(), Illegal> {
        let fits = match (&self.phase, event) {
            (Phase::New, event) => matches!(
                event,
                Event::Begun { .. } | Event::Queued { .. } | Event::Forked { .. }
            ),
            (Phase::Queued, event) => matches!(
                event,
                Event::Admitted
                    | Event::Cancelled { .. }
                    | Event::Suspended { .. }
                    | Event::Resumed
            ),
            (
                Phase::Running | Phase::Compensating { .. } | Phase::Cancelling { .. },
                Event::Started { .. },
            ) => !self.is_suspended(),
            (Phase::Running | Phase::Compensating { .. } | Phase::Cancelling { .. }, event) => {
                !matches!(
                    event,
                    Event::Begun { .. }
                        | Event::Queued { .. }
                        | Event::Forked { .. }
                        | Event::Admitted
                        | Event::Redriven { .. }
                )
            }
            // Attempts that nobody waits for any more may still end.
            (Phase::Ended(_), event) => matches!(
                event,
                Event::Succeeded { .. }
                    | Event::Failed { .. }
                    | Event::Lost { .. }
                    | Event::Redriven { .. }
            ),
        };
        if fits {
            return Ok(());
        }
        Err(Illegal::Phase {
            phase: self.phase_name(),
            event: event.name(),
        })
    }

    fn illegal(&self, event: &'static str) -> Illegal {
        Illegal::Phase {
            phase: self.phase_name(),
            event,
        }
    }

    /// Where the run is, for messages.
    pub(super) fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::New => "new",
            Phase::Ended(_) => "ended",
            _ if self.is_suspended() => "suspended",
            Phase::Queued => "queued",
            Phase::Running => "running",
            Phase::Compensating { .. } => "compensating",
            Phase::Cancelling { .. } => "cancelling",
        }
    }

    /// Keeps what tasks give, up to the first beginning of the task `until`, for
    /// [`Run::finished`]. To be said before the first event; costs the memory of all outputs.
    pub fn recording(mut self, until: Option<String>) -> Self {
        self.control.recorder = Some(Recorder {
            until,
            ..Recorder::default()
        });
        self
    }

    /// What the tasks gave that were finished, innermost ones only where those around them are
    /// not. None if the run does not keep it, or if the task at which it was to stop never began.
    pub fn finished(&self) -> Option<TakenOver> {
        let recorder = self.control.recorder.as_ref()?;
        if recorder.until.is_some() && !recorder.stopped {
            return None;
        }
        let mut provenance: BTreeMap<&str, BTreeMap<String, Provenance>> = BTreeMap::new();
        for report in self.reports.values() {
            let key = within(&report.task).find(|k| recorder.finished.contains_key(*k));
            if let (Some(key), Some(how)) = (key, &report.provenance) {
                let known = provenance.entry(key).or_default();
                known.insert(report.task.clone(), how.clone());
            }
        }
        let taken = recorder.finished.iter().map(|(key, (output, context))| {
            let taken = Taken {
                output: (**output).clone(),
                context: context.as_deref().cloned(),
                provenance: provenance.remove(key.as_str()).unwrap_or_default(),
            };
            (key.clone(), taken)
        });
        Some(taken.collect())
    }

    /// The task whose failure made the run fault, and what had come into it; the empty key is
    /// the workflow itself.
    pub fn failed_task(&self) -> Option<(&str, &Value)> {
        let is_fault = matches!(
            self.phase,
            Phase::Compensating { .. } | Phase::Ended(Outcome::Faulted { .. })
        );
        let (task, input) = self.control.failing.as_ref().filter(|_| is_fault)?;
        Some((task, input))
    }

    /// Since when and why the run begins nothing, if it is suspended.
    pub fn suspension(&self) -> Option<&Suspension> {
        self.control.suspension.as_ref()
    }

    /// Where it was forked from, if it was.
    pub fn origin(&self) -> Option<&Origin> {
        self.control.origin.as_ref()
    }

    /// Whether anything that it did was undone, or is being undone.
    pub fn was_compensated(&self) -> bool {
        self.was_undone()
    }

    /// How often it was redriven.
    pub fn redriven_count(&self) -> u32 {
        self.control.redriven
    }
}

fn begins_a_call(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Attempt(_) | Effect::Lookup { .. } | Effect::Defer { .. }
    )
}

fn shared(taken: TakenOver) -> BTreeMap<Key, Arc<Taken>> {
    let share = |(key, taken)| (key, Arc::new(taken));
    taken.into_iter().map(share).collect()
}

/// A key, and those of everything around it, the innermost first; not the workflow's own.
pub(super) fn within(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| key.rfind('/').map(|at| &key[..at]))
        .filter(|key| !key.is_empty())
}
