//! How a task begins and ends, whatever its kind: conditions, inputs, outputs, exports.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::environment::Around;
use super::frame::{BlockWork, Entry, FlowWork, Frame, Key, Op, Scope, Slot, Work};
use super::report::TaskStatus;
use super::{Outcome, Phase, Run, Step};
use crate::call;
use crate::error::WorkflowError;
use crate::schema::Schema;
use crate::workflow::{Input, Kind, Output, Task, Then, Workflow};

/// Key of the frame of the whole workflow.
pub(super) const ROOT: &str = "";

impl Run {
    /// The run begins: its workflow is entered.
    pub(super) fn begin(&mut self, input: Value, step: &mut Step) {
        self.begun_ms = step.now_ms;
        self.phase = Phase::Running;
        self.input = Arc::new(input);
        let workflow = Arc::clone(&self.workflow);
        let input = Arc::clone(&self.input);
        self.enter_flow(ROOT.to_owned(), None, &workflow, &input, step);
    }

    /// Enters a workflow: the run's own, or that of a `run` task.
    pub(super) fn enter_flow(
        &mut self,
        key: Key,
        parent: Option<Key>,
        workflow: &Arc<Workflow>,
        raw_input: &Arc<Value>,
        step: &mut Step,
    ) {
        let flow = FlowWork {
            workflow: Arc::clone(workflow),
            context: Arc::new(Value::Null),
        };
        let frame = Frame {
            task: None,
            parent,
            slot: Slot::Task,
            raw_input: Arc::clone(raw_input),
            input: Arc::clone(raw_input),
            scope: Scope::default(),
            started_ms: step.now_ms,
            deadline_ms: None,
            work: Work::Block(BlockWork {
                block: Arc::clone(&workflow.body),
                index: 0,
                visits: vec![0; workflow.body.tasks.len()],
                flow: Some(flow),
            }),
        };
        self.frames.insert(key.clone(), frame);
        let ready = self
            .transform_input(&key, &workflow.input, raw_input)
            .and_then(|input| {
                Ok((
                    input,
                    self.deadline_ms(&key, workflow.timeout.as_ref(), step.now_ms)?,
                ))
            });
        match ready {
            Err(error) => step.ops.push(Op::Raise { key, error }),
            Ok((input, deadline_ms)) => {
                if let Some(frame) = self.frames.get_mut(&key) {
                    frame.input = Arc::clone(&input);
                }
                self.set_deadline(&key, deadline_ms);
                step.ops.push(Op::Next {
                    block: key,
                    value: input,
                });
            }
        }
    }

    /// Enters a task: condition, input, and then what its kind does first.
    pub(super) fn enter(&mut self, entry: Entry, step: &mut Step) {
        let Entry {
            key,
            task,
            parent,
            slot,
            input: raw_input,
            scope,
        } = entry;
        if !self.frames.contains_key(&parent) {
            // Something beside it ended what is around it, in this very step.
            return;
        }
        let raw_input = self.edited_input(&key, raw_input);
        let report = self.fresh_report(&key, &task, step);
        self.reports.insert(key.clone(), report);
        self.note_change(&key, false);
        let frame = Frame {
            task: Some(Arc::clone(&task)),
            parent: Some(parent),
            slot,
            raw_input: Arc::clone(&raw_input),
            input: Arc::clone(&raw_input),
            scope,
            started_ms: step.now_ms,
            deadline_ms: None,
            work: Work::Wait { due_ms: u64::MAX },
        };
        self.frames.insert(key.clone(), frame);
        match self.prepare(&key, &task, &raw_input, step.now_ms) {
            Err(error) => step.ops.push(Op::Raise { key, error }),
            Ok(None) => step.ops.push(Op::Skip { key }),
            Ok(Some((input, deadline_ms))) => {
                if let Some(frame) = self.frames.get_mut(&key) {
                    frame.input = Arc::clone(&input);
                }
                self.set_deadline(&key, deadline_ms);
                if self.take_over(&key, step) {
                    return;
                }
                if let Err(error) = self.start(&key, &task, &input, step) {
                    step.ops.push(Op::Raise { key, error });
                }
            }
        }
    }

    /// The transformed input and the deadline; none if the task's condition does not hold.
    #[expect(clippy::type_complexity, reason = "said once, in the sentence above")]
    fn prepare(
        &self,
        key: &str,
        task: &Task,
        raw_input: &Arc<Value>,
        now_ms: u64,
    ) -> Result<Option<(Arc<Value>, Option<u64>)>, WorkflowError> {
        if let Some(condition) = &task.condition
            && !self.holds(condition, raw_input, &Around::new(self, key))?
        {
            return Ok(None);
        }
        let input = self.transform_input(key, &task.input, raw_input)?;
        let deadline_ms = self.deadline_ms(key, task.timeout.as_ref(), now_ms)?;
        Ok(Some((input, deadline_ms)))
    }

    fn start(
        &mut self,
        key: &str,
        task: &Arc<Task>,
        input: &Arc<Value>,
        step: &mut Step,
    ) -> Result<(), WorkflowError> {
        let complete = |output: Arc<Value>, then: Option<Then>| Op::Complete {
            key: key.to_owned(),
            output,
            then,
        };
        match &task.kind {
            Kind::Set(template) => {
                let value = self.evaluate(template, input, &Around::new(self, key))?;
                step.ops.push(complete(Arc::new(value), None));
            }
            Kind::Switch(cases) => {
                let mut then = None;
                for case in cases {
                    let taken = match &case.when {
                        None => true,
                        Some(when) => self.holds(when, input, &Around::new(self, key))?,
                    };
                    if taken {
                        then = Some(case.then);
                        break;
                    }
                }
                step.ops.push(complete(Arc::clone(input), then));
            }
            Kind::Raise(spec) => {
                let value = self.evaluate(&spec.template, input, &Around::new(self, key))?;
                let broken = |why| WorkflowError::expression(why, &task.reference);
                return Err(
                    WorkflowError::from_value(&value, &task.reference).unwrap_or_else(broken)
                );
            }
            Kind::Wait(duration) => {
                let wait_ms = self.duration_ms(key, duration)?;
                self.set_work(
                    key,
                    Work::Wait {
                        due_ms: step.now_ms.saturating_add(wait_ms),
                    },
                );
            }
            Kind::Listen(listen) => self.start_listen(key, task, listen, step)?,
            Kind::Emit(template) => {
                let event = self.evaluate(template, input, &Around::new(self, key))?;
                if !crate::depth::is_fine(&event) {
                    let detail = "the event nests too deeply to be kept";
                    return Err(WorkflowError::expression(detail, &task.reference));
                }
                let event = self.completed_event(event, step.now_ms);
                self.check_event(&event, &task.reference)?;
                self.check_given(&event, &task.reference, step)?;
                step.effects.push(super::Effect::Emit {
                    task: key.to_owned(),
                    event,
                });
                step.ops.push(complete(Arc::clone(input), None));
            }
            Kind::Do(block) => {
                self.set_work(
                    key,
                    Work::Block(BlockWork {
                        block: Arc::clone(block),
                        index: 0,
                        visits: vec![0; block.tasks.len()],
                        flow: None,
                    }),
                );
                step.ops.push(Op::Next {
                    block: key.to_owned(),
                    value: Arc::clone(input),
                });
            }
            Kind::Run {
                workflow,
                input: template,
                detached,
            } => {
                let value = match template {
                    Some(t) => Arc::new(self.evaluate(t, input, &Around::new(self, key))?),
                    None => Arc::clone(input),
                };
                if *detached {
                    let begin = self.detach(key, workflow, &value)?;
                    self.check_given(&value, &task.reference, step)?;
                    step.effects.push(begin);
                    step.ops.push(complete(Arc::clone(input), None));
                    return Ok(());
                }
                let parent = key.to_owned();
                let inner = format!("{key}/~run");
                self.enter_flow(inner, Some(parent), workflow, &value, step);
            }
            Kind::Call(call) => self.start_call(key, task, call, input, step)?,
            Kind::For(each) => self.start_for(key, each, input, step)?,
            Kind::Fork(fork) => self.start_fork(key, fork, input, step),
            Kind::Try(_) => self.start_try(key, input, step),
        }
        Ok(())
    }

    /// A frame has its raw output: transforms, exports, and hands it to the frame around it.
    pub(super) fn complete(
        &mut self,
        key: &str,
        output: Arc<Value>,
        then: Option<Then>,
        step: &mut Step,
    ) {
        let Some(frame) = self.frames.get(key) else {
            return;
        };
        let raw = self.is_recording().then(|| Arc::clone(&output));
        match self.transform_output(key, frame, output) {
            Err(error) => step.ops.push(Op::Raise {
                key: key.to_owned(),
                error,
            }),
            Ok((output, exported)) => {
                if let Some(context) = exported {
                    self.set_context(key, context);
                }
                self.record(key, raw);
                self.report_end(key, TaskStatus::Completed, step.now_ms);
                let Some(frame) = self.remove(key, step) else {
                    return;
                };
                let own = frame.task.as_ref().map_or(Then::Continue, |t| t.then);
                self.deliver(&frame, output, then.unwrap_or(own), step);
            }
        }
    }

    /// A task is passed over: what came in goes on to the next one, untouched.
    pub(super) fn skip(&mut self, key: &str, step: &mut Step) {
        self.report_end(key, TaskStatus::Skipped, step.now_ms);
        let Some(frame) = self.remove(key, step) else {
            return;
        };
        let output = Arc::clone(&frame.raw_input);
        self.deliver(&frame, output, Then::Continue, step);
    }

    fn deliver(&mut self, frame: &Frame, output: Arc<Value>, then: Then, step: &mut Step) {
        if let Slot::Undo(_) = frame.slot {
            return; // The step goes on with the next undoing.
        }
        let Some(parent) = &frame.parent else {
            step.effects.push(super::Effect::Finished);
            self.cancel_all(step);
            self.phase = Phase::Ended(Outcome::Completed { output });
            return;
        };
        self.child_completed(parent, frame.slot, output, then, step);
    }

    fn transform_input(
        &self,
        key: &str,
        spec: &Input,
        raw: &Arc<Value>,
    ) -> Result<Arc<Value>, WorkflowError> {
        let around = Around::new(self, key);
        check(spec.schema.as_ref(), raw, "input", around.reference())?;
        match &spec.from {
            None => Ok(Arc::clone(raw)),
            Some(from) => Ok(Arc::new(self.evaluate(from, raw, &around)?)),
        }
    }

    /// The transformed output, and the new context if the task exports one.
    fn transform_output(
        &self,
        key: &str,
        frame: &Frame,
        raw: Arc<Value>,
    ) -> Result<(Arc<Value>, Option<Arc<Value>>), WorkflowError> {
        let mut output = raw;
        if let Work::Block(BlockWork {
            flow: Some(flow), ..
        }) = &frame.work
        {
            output = self.apply_output(key, &flow.workflow.output, &output)?;
        }
        let Some(task) = &frame.task else {
            return Ok((output, None));
        };
        output = self.apply_output(key, &task.output, &output)?;
        let around = Around::new(self, key).with_output(&output);
        let exported = match &task.export.r#as {
            None => None,
            Some(template) => Some(Arc::new(self.evaluate(template, &output, &around)?)),
        };
        let context = exported.as_deref().unwrap_or(around.context());
        // Runs of the first semantics looked at the schema only beside an `as`.
        let is_checked = exported.is_some() || self.bindings.semantics >= 2;
        let schema = task.export.schema.as_ref().filter(|_| is_checked);
        check(schema, context, "export", &task.reference)?;
        Ok((output, exported))
    }

    fn apply_output(
        &self,
        key: &str,
        spec: &Output,
        raw: &Arc<Value>,
    ) -> Result<Arc<Value>, WorkflowError> {
        let around = Around::new(self, key).with_output(raw);
        let output = match &spec.r#as {
            None => Arc::clone(raw),
            Some(template) => Arc::new(self.evaluate(template, raw, &around)?),
        };
        check(spec.schema.as_ref(), &output, "output", around.reference())?;
        Ok(output)
    }

    /// Changes what a frame does, and remembers when it falls due.
    pub(super) fn set_work(&mut self, key: &str, work: Work) {
        let Some(frame) = self.frames.get_mut(key) else {
            return;
        };
        frame.work = work;
        self.note_due(key);
    }

    pub(super) fn note_due(&mut self, key: &str) {
        if let Some(due_ms) = self.frames.get(key).and_then(Frame::work_due_ms) {
            self.dues.insert((due_ms, key.to_owned()));
        }
    }

    fn set_deadline(&mut self, key: &str, deadline_ms: Option<u64>) {
        let (Some(frame), Some(deadline_ms)) = (self.frames.get_mut(key), deadline_ms) else {
            return;
        };
        frame.deadline_ms = Some(deadline_ms);
        self.dues.insert((deadline_ms, key.to_owned()));
    }

    /// Takes a frame out, with everything inside it. What is in flight goes on unobserved.
    pub(super) fn remove(&mut self, key: &str, step: &mut Step) -> Option<Frame> {
        let frame = self.frames.remove(key)?;
        self.withdraw(key, &frame, step);
        let prefix = format!("{key}/");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let inside: Vec<Key> = self
            .frames
            .range::<str, _>(from)
            .map(|(k, _)| k)
            .take_while(|k| k.starts_with(&prefix))
            .cloned()
            .collect();
        for key in inside {
            self.cancel(&key, step);
        }
        Some(frame)
    }

    pub(super) fn cancel_all(&mut self, step: &mut Step) {
        while let Some(key) = self.frames.keys().next().cloned() {
            self.cancel(&key, step);
        }
        step.ops.clear();
    }

    fn cancel(&mut self, key: &str, step: &mut Step) {
        self.report_end(key, TaskStatus::Cancelled, step.now_ms);
        if let Some(frame) = self.frames.remove(key) {
            self.withdraw(key, &frame, step);
        }
    }

    /// What a frame that goes had asked for is not wanted any more.
    fn withdraw(&mut self, key: &str, frame: &Frame, step: &mut Step) {
        Self::unlisten(key, frame, step);
        for due_ms in [frame.deadline_ms, frame.work_due_ms()]
            .into_iter()
            .flatten()
        {
            self.dues.remove(&(due_ms, key.to_owned()));
        }
        let Work::Call(work) = &frame.work else {
            return;
        };
        self.open.remove(&work.ticket);
        self.open.remove(&work.hedge_ticket);
        if matches!(work.state.phase, call::Phase::Review { .. }) {
            step.effects.push(super::Effect::ReviewClosed {
                task: key.to_owned(),
            });
        }
    }

    pub(super) fn report_end(&mut self, key: &str, status: TaskStatus, now_ms: u64) {
        if let Some(report) = self.reports.get_mut(key) {
            report.end(status, now_ms);
        }
        self.note_change(key, false);
    }

    /// The context of the workflow that a task belongs to.
    pub(super) fn context_around(&self, key: &str) -> Option<Arc<Value>> {
        let mut at = self.frames.get(key)?.parent.as_deref();
        while let Some(key) = at {
            let frame = self.frames.get(key)?;
            if let Work::Block(BlockWork {
                flow: Some(flow), ..
            }) = &frame.work
            {
                return Some(Arc::clone(&flow.context));
            }
            at = frame.parent.as_deref();
        }
        None
    }

    pub(super) fn set_context(&mut self, key: &str, context: Arc<Value>) {
        // A task exports into the workflow that it belongs to.
        let mut at = self.frames.get(key).and_then(|f| f.parent.clone());
        while let Some(key) = at {
            let Some(frame) = self.frames.get_mut(&key) else {
                return;
            };
            if let Work::Block(BlockWork {
                flow: Some(flow), ..
            }) = &mut frame.work
            {
                flow.context = context;
                return;
            }
            let parent = frame.parent.clone();
            at = parent;
        }
    }

    /// What falls due: a task's time is over, or its work goes on.
    pub(super) fn due(&mut self, key: &str, due_ms: u64, step: &mut Step) {
        let Some(frame) = self.frames.get(key) else {
            return;
        };
        if frame.deadline_ms == Some(due_ms) {
            let reference = Around::new(self, key).reference().to_owned();
            let error = WorkflowError::timeout("the time given by `timeout` is over", &reference);
            step.ops.push(Op::Raise {
                key: key.to_owned(),
                error,
            });
            return;
        }
        match &frame.work {
            Work::Wait { .. } => {
                let output = Arc::clone(&frame.input);
                step.ops.push(Op::Complete {
                    key: key.to_owned(),
                    output,
                    then: None,
                });
            }
            Work::Call(_) => self.call_due(key, step),
            Work::Try(_) => self.retry_due(key, step),
            Work::Block(_) | Work::For(_) | Work::Fork(_) | Work::Listen(_) => {}
        }
    }
}

pub(super) fn check(
    schema: Option<&Schema>,
    value: &Value,
    what: &str,
    reference: &str,
) -> Result<(), WorkflowError> {
    let Some(schema) = schema else { return Ok(()) };
    schema.check(value).map_err(|violations| {
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let detail = format!("the {what} does not match its schema: {}", list.join("; "));
        WorkflowError::validation(detail, reference)
    })
}

/// Task names become parts of keys, which use `/` between them.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A scope with one more variable.
pub(super) fn scope_with(scope: &Scope, added: impl IntoIterator<Item = (String, Value)>) -> Scope {
    let mut inner: BTreeMap<String, Value> = (**scope).clone();
    inner.extend(added);
    Arc::new(inner)
}
