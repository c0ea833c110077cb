//! Flow: blocks, `for`, `fork`, `try`, and how errors travel outwards.

use std::sync::Arc;

use serde_json::Value;

use super::environment::Around;
use super::frame::{
    BlockWork, Entry, ForWork, ForkWork, Frame, Key, Op, Scope, Slot, TryWork, Work,
};
use super::report::{TaskReport, TaskStatus};
use super::tasks::{escape, scope_with};
use super::{Run, Step};
use crate::error::WorkflowError;
use crate::provenance::Provenance;
use crate::workflow::{Block, Catch, For, Fork, Kind, Then, Try};

impl Run {
    /// Begins the task at the block's index, or ends the block after its last task.
    pub(super) fn next_in_block(&mut self, block_key: &str, value: Arc<Value>, step: &mut Step) {
        let Some(Frame {
            work: Work::Block(work),
            scope,
            ..
        }) = self.frames.get_mut(block_key)
        else {
            return;
        };
        let Some(task) = work.block.tasks.get(work.index) else {
            step.ops.push(Op::Complete {
                key: block_key.to_owned(),
                output: value,
                then: None,
            });
            return;
        };
        let visit = &mut work.visits[work.index];
        *visit += 1;
        let visit = *visit;
        let key = visit_key(block_key, &task.name, visit);
        // A name that looks like a visit has the key of one.
        let before = (visit > 1 && !task.name.contains('#'))
            .then(|| visit_key(block_key, &task.name, visit - 1));
        step.ops.push(Op::Enter(Entry {
            key,
            task: Arc::clone(task),
            parent: block_key.to_owned(),
            slot: Slot::Task,
            input: value,
            scope: Arc::clone(scope),
        }));
        if let Some(before) = before {
            self.scope_over(&before, block_key, step);
        }
    }

    /// Something inside a frame has completed.
    pub(super) fn child_completed(
        &mut self,
        parent: &str,
        slot: Slot,
        output: Arc<Value>,
        then: Then,
        step: &mut Step,
    ) {
        if then == Then::End {
            self.end_flow(parent, output, step);
            return;
        }
        let Some(frame) = self.frames.get_mut(parent) else {
            return;
        };
        match (&mut frame.work, slot) {
            (Work::Block(work), _) => {
                match then {
                    Then::Continue => work.index += 1,
                    Then::Goto(index) => work.index = index,
                    Then::Exit | Then::End => work.index = work.block.tasks.len(),
                }
                step.ops.push(Op::Next {
                    block: parent.to_owned(),
                    value: output,
                });
            }
            (Work::For(work), Slot::Iteration(index)) => {
                work.running -= 1;
                if let Some(place) = work.outputs.get_mut(index) {
                    *place = (*output).clone();
                }
                self.scope_over(&format!("{parent}/[{index}]"), parent, step);
                self.advance_for(parent, Some(output), step);
            }
            (Work::Fork(work), Slot::Branch(index)) => {
                work.running -= 1;
                work.outputs[index] = (*output).clone();
                self.advance_fork(parent, Some(output), step);
            }
            (Work::Listen(_), Slot::Heard(index)) => {
                self.heard_done(parent, index, &output, step);
            }
            (Work::Call(_), Slot::Fallback(index)) => {
                self.fallback_answered(parent, index, output, step);
            }
            (Work::Try(_), Slot::Catch) => {
                let task = frame.task.as_ref();
                let then = task.and_then(|task| match &task.kind {
                    Kind::Try(attempt) => attempt.catch.then,
                    _ => None,
                });
                step.ops.push(Op::Complete {
                    key: parent.to_owned(),
                    output,
                    then,
                });
            }
            (Work::Try(_) | Work::Wait { .. }, _) => {
                step.ops.push(Op::Complete {
                    key: parent.to_owned(),
                    output,
                    then: None,
                });
            }
            (Work::For(_) | Work::Fork(_) | Work::Call(_) | Work::Listen(_), _) => {}
        }
    }

    /// `then: end`: the workflow around ends with this output.
    fn end_flow(&mut self, from: &str, output: Arc<Value>, step: &mut Step) {
        let mut at: Key = from.to_owned();
        loop {
            let Some(frame) = self.frames.get(&at) else {
                return;
            };
            if matches!(&frame.work, Work::Block(BlockWork { flow: Some(_), .. })) {
                step.ops.push(Op::Complete {
                    key: at,
                    output,
                    then: None,
                });
                return;
            }
            let Some(parent) = frame.parent.clone() else {
                return;
            };
            at = parent;
        }
    }

    /// A frame has failed: it is taken out, and the frame around it deals with the error.
    pub(super) fn raise(&mut self, key: &str, mut error: WorkflowError, step: &mut Step) {
        self.note_failing(key);
        let reference = Around::new(self, key).reference().to_owned();
        if error.instance.as_deref().is_none_or(str::is_empty) {
            error.instance = Some(reference.clone());
        }
        if let Some(report) = self.reports.get_mut(key) {
            report.end(TaskStatus::Failed, step.now_ms);
            report.error = Some(error.clone().told());
        }
        self.note_change(key, false);
        let Some(frame) = self.remove(key, step) else {
            return;
        };
        if let Slot::Undo(index) = frame.slot {
            self.undo_stuck(index, key, &error, step);
            return;
        }
        let Some(parent) = frame.parent else {
            let on_exhausted = error.cofferdam.as_ref().and_then(|d| d.on_exhausted);
            self.fault(error, on_exhausted, step);
            return;
        };
        match (
            self.frames.get_mut(&parent).map(|f| &mut f.work),
            frame.slot,
        ) {
            (Some(Work::For(work)), Slot::Iteration(index)) if work.outputs.len() > index => {
                work.running -= 1;
                work.failed += 1;
                if self.tolerates(&parent) {
                    self.report_tolerated(key, &reference, &error, step);
                    self.scope_over(key, &parent, step);
                    self.advance_for(&parent, None, step);
                } else {
                    step.ops.push(Op::Raise { key: parent, error });
                }
            }
            (Some(Work::Fork(work)), Slot::Branch(_)) => {
                work.running -= 1;
                let others = work.running > 0;
                if !(self.competes(&parent) && others) {
                    step.ops.push(Op::Raise { key: parent, error });
                }
            }
            (Some(Work::Try(_)), Slot::Tried) => self.caught(&parent, error, step),
            (Some(Work::Call(_)), Slot::Fallback(index)) => {
                self.forget_failing();
                self.next_fallback(&parent, index + 1, step);
            }
            (Some(_), _) => step.ops.push(Op::Raise { key: parent, error }),
            (None, _) => {}
        }
    }

    pub(super) fn start_for(
        &mut self,
        key: &str,
        each: &For,
        input: &Arc<Value>,
        step: &mut Step,
    ) -> Result<(), WorkflowError> {
        let items = match self.evaluate_expr(&each.r#in, input, &Around::new(self, key))? {
            Value::Array(items) => items,
            other => {
                let detail = format!("`for.in` must give an array and gave {}", kind_of(&other));
                return Err(WorkflowError::expression(detail, ""));
            }
        };
        let side_by_side = each.concurrency_max > 1;
        let outputs = if side_by_side {
            vec![Value::Null; items.len()]
        } else {
            Vec::new()
        };
        self.set_work(
            key,
            Work::For(ForWork {
                items,
                next: 0,
                running: 0,
                failed: 0,
                outputs,
            }),
        );
        self.advance_for(key, (!side_by_side).then(|| Arc::clone(input)), step);
        Ok(())
    }

    /// Begins as many iterations as may run, or ends the loop. `value` is the output of the
    /// iteration before, if they run one after the other.
    fn advance_for(&mut self, key: &str, value: Option<Arc<Value>>, step: &mut Step) {
        let Some(frame) = self.frames.get(key) else {
            return;
        };
        let (Work::For(work), Some(task)) = (&frame.work, &frame.task) else {
            return;
        };
        let Kind::For(each) = &task.kind else { return };
        let (index, total, running) = (work.next, work.items.len(), work.running);
        if each.concurrency_max > 1 {
            if index < total && running < each.concurrency_max {
                let input = Arc::clone(&frame.input);
                self.begin_iterations(key, each.concurrency_max - running, &input, step);
            } else if running == 0 {
                let output = Arc::new(Value::Array(work.outputs.clone()));
                step.ops.push(Op::Complete {
                    key: key.to_owned(),
                    output,
                    then: None,
                });
            }
            return;
        }
        let value = value.unwrap_or_else(|| Arc::clone(&frame.input));
        match self.goes_on(key, &value) {
            Err(error) => step.ops.push(Op::Raise {
                key: key.to_owned(),
                error,
            }),
            Ok(true) => self.begin_iterations(key, 1, &value, step),
            Ok(false) => step.ops.push(Op::Complete {
                key: key.to_owned(),
                output: value,
                then: None,
            }),
        }
    }

    /// Whether a loop that runs one iteration after the other begins another.
    fn goes_on(&self, key: &str, value: &Value) -> Result<bool, WorkflowError> {
        let Some(Frame {
            work: Work::For(work),
            task: Some(task),
            scope,
            ..
        }) = self.frames.get(key)
        else {
            return Ok(false);
        };
        let Kind::For(each) = &task.kind else {
            return Ok(false);
        };
        let Some(item) = work.items.get(work.next) else {
            return Ok(false);
        };
        let Some(condition) = &each.r#while else {
            return Ok(true);
        };
        let scope = iteration_scope(scope, each, work.next, item);
        self.holds(condition, value, &Around::new(self, key).with_scope(&scope))
    }

    fn begin_iterations(&mut self, key: &str, count: usize, input: &Arc<Value>, step: &mut Step) {
        let Some(frame) = self.frames.get_mut(key) else {
            return;
        };
        let (Work::For(work), Some(task)) = (&mut frame.work, &frame.task) else {
            return;
        };
        let Kind::For(each) = &task.kind else { return };
        let first = work.next;
        let last = (first + count).min(work.items.len());
        work.next = last;
        work.running += last - first;
        let body = Arc::clone(&each.body);
        let begun: Vec<(usize, Scope)> = (first..last)
            .map(|i| (i, iteration_scope(&frame.scope, each, i, &work.items[i])))
            .collect();
        // Operations are taken from the end.
        for (index, scope) in begun.into_iter().rev() {
            let inner = format!("{key}/[{index}]");
            self.enter_block(
                inner,
                key,
                Slot::Iteration(index),
                &body,
                input,
                scope,
                step,
            );
        }
    }

    fn tolerates(&self, key: &str) -> bool {
        let Some(Frame {
            work: Work::For(work),
            task: Some(task),
            ..
        }) = self.frames.get(key)
        else {
            return false;
        };
        let Kind::For(each) = &task.kind else {
            return false;
        };
        work.failed as f64 <= each.tolerated_failure_ratio * work.items.len() as f64
    }

    /// An iteration whose failure is tolerated leaves a hole, which must not look like an answer.
    fn report_tolerated(&mut self, key: &str, reference: &str, error: &WorkflowError, step: &Step) {
        let mut report = TaskReport::new(key, reference, "iteration", step.now_ms);
        report.end(TaskStatus::Skipped, step.now_ms);
        report.provenance = Some(Provenance::Skipped);
        report.error = Some(error.clone().told());
        self.reports.insert(key.to_owned(), report);
        self.degraded = true;
        self.forget_failing();
    }

    pub(super) fn start_fork(
        &mut self,
        key: &str,
        fork: &Fork,
        input: &Arc<Value>,
        step: &mut Step,
    ) {
        let count = fork.branches.len();
        let work = ForkWork {
            running: count,
            outputs: vec![Value::Null; count],
        };
        self.set_work(key, Work::Fork(work));
        let scope = self
            .frames
            .get(key)
            .map(|f| Arc::clone(&f.scope))
            .unwrap_or_default();
        for (index, branch) in fork.branches.iter().enumerate().rev() {
            step.ops.push(Op::Enter(Entry {
                key: format!("{key}/{}", escape(&branch.name)),
                task: Arc::clone(branch),
                parent: key.to_owned(),
                slot: Slot::Branch(index),
                input: Arc::clone(input),
                scope: Arc::clone(&scope),
            }));
        }
    }

    fn advance_fork(&mut self, key: &str, winner: Option<Arc<Value>>, step: &mut Step) {
        let competes = self.competes(key);
        let Some(Frame {
            work: Work::Fork(work),
            ..
        }) = self.frames.get(key)
        else {
            return;
        };
        let output = match winner {
            Some(output) if competes => output,
            _ if work.running == 0 => Arc::new(Value::Array(work.outputs.clone())),
            _ => return,
        };
        step.ops.push(Op::Complete {
            key: key.to_owned(),
            output,
            then: None,
        });
    }

    fn competes(&self, key: &str) -> bool {
        let task = self.frames.get(key).and_then(|f| f.task.as_ref());
        matches!(
            task.map(|t| &t.kind),
            Some(Kind::Fork(Fork { compete: true, .. }))
        )
    }

    pub(super) fn start_try(&mut self, key: &str, input: &Arc<Value>, step: &mut Step) {
        self.set_work(
            key,
            Work::Try(TryWork {
                attempts: 1,
                first_started_ms: step.now_ms,
                due_ms: None,
            }),
        );
        self.enter_tried(key, input, step);
    }

    fn enter_tried(&mut self, key: &str, input: &Arc<Value>, step: &mut Step) {
        let Some((body, scope)) = self.try_of(key, |t| Arc::clone(&t.body)) else {
            return;
        };
        self.enter_block(
            format!("{key}/~try"),
            key,
            Slot::Tried,
            &body,
            input,
            scope,
            step,
        );
    }

    /// A `try` deals with an error of what it tried: again, handled, or not its business.
    fn caught(&mut self, key: &str, error: WorkflowError, step: &mut Step) {
        match self.catches(key, &error) {
            Err(broken) => step.ops.push(Op::Raise {
                key: key.to_owned(),
                error: broken,
            }),
            Ok(false) => step.ops.push(Op::Raise {
                key: key.to_owned(),
                error,
            }),
            Ok(true) => {
                self.forget_failing();
                match self.retry_due_ms(key, &error, step.now_ms) {
                    Err(broken) => step.ops.push(Op::Raise {
                        key: key.to_owned(),
                        error: broken,
                    }),
                    Ok(Some(due_ms)) => {
                        if let Some(Frame {
                            work: Work::Try(work),
                            ..
                        }) = self.frames.get_mut(key)
                        {
                            work.due_ms = Some(due_ms);
                        }
                        self.note_due(key);
                    }
                    Ok(None) => self.handle(key, &error, step),
                }
            }
        }
    }

    fn catches(&self, key: &str, error: &WorkflowError) -> Result<bool, WorkflowError> {
        let Some((catch, scope)) = self.catch_scope(key, error) else {
            return Ok(false);
        };
        if !error.matches(&catch.errors) {
            return Ok(false);
        }
        self.wanted(key, catch.when.as_ref(), catch.except_when.as_ref(), &scope)
    }

    /// When the next attempt is to begin; none if there is to be no other.
    fn retry_due_ms(
        &self,
        key: &str,
        error: &WorkflowError,
        now_ms: u64,
    ) -> Result<Option<u64>, WorkflowError> {
        let Some((catch, scope)) = self.catch_scope(key, error) else {
            return Ok(None);
        };
        let Some(retry) = &catch.retry else {
            return Ok(None);
        };
        let Some(Frame {
            work: Work::Try(work),
            ..
        }) = self.frames.get(key)
        else {
            return Ok(None);
        };
        let spent = retry.attempts_max.is_some_and(|max| work.attempts >= max);
        if spent || !self.wanted(key, retry.when.as_ref(), retry.except_when.as_ref(), &scope)? {
            return Ok(None);
        }
        // The jitter is drawn from what is in the journal anyway, so that folding gives the
        // same instant again.
        let draw = scatter(now_ms ^ u64::from(work.attempts), key);
        let due_ms = now_ms.saturating_add(retry.backoff.delay_ms(work.attempts, draw));
        let over = retry
            .total_ms_max
            .is_some_and(|max| due_ms > work.first_started_ms.saturating_add(max));
        Ok((!over).then_some(due_ms))
    }

    pub(super) fn retry_due(&mut self, key: &str, step: &mut Step) {
        let Some(Frame {
            work: Work::Try(work),
            input,
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        work.attempts += 1;
        work.due_ms = None;
        let input = Arc::clone(input);
        self.enter_tried(key, &input, step);
    }

    fn handle(&mut self, key: &str, error: &WorkflowError, step: &mut Step) {
        let Some((catch, scope)) = self.catch_scope(key, error) else {
            return;
        };
        let (body, then) = (catch.body.clone(), catch.then);
        let Some(input) = self.frames.get(key).map(|f| Arc::clone(&f.input)) else {
            return;
        };
        match body {
            None => step.ops.push(Op::Complete {
                key: key.to_owned(),
                output: input,
                then,
            }),
            Some(body) => {
                self.enter_block(
                    format!("{key}/~catch"),
                    key,
                    Slot::Catch,
                    &body,
                    &input,
                    scope,
                    step,
                );
            }
        }
    }

    fn wanted(
        &self,
        key: &str,
        when: Option<&crate::expr::Expr>,
        except_when: Option<&crate::expr::Expr>,
        scope: &Scope,
    ) -> Result<bool, WorkflowError> {
        let around = Around::new(self, key).with_scope(scope);
        let input = around.input();
        let holds = |expr: Option<&crate::expr::Expr>, default: bool| match expr {
            None => Ok(default),
            Some(expr) => self.holds(expr, input, &around),
        };
        Ok(holds(when, true)? && !holds(except_when, false)?)
    }

    fn catch_scope(&self, key: &str, error: &WorkflowError) -> Option<(&Catch, Scope)> {
        let frame = self.frames.get(key)?;
        let Kind::Try(Try { catch, .. }) = &frame.task.as_ref()?.kind else {
            return None;
        };
        let scope = scope_with(&frame.scope, [(catch.r#as.clone(), error.to_value())]);
        Some((catch, scope))
    }

    fn try_of<T>(&self, key: &str, get: impl FnOnce(&Try) -> T) -> Option<(T, Scope)> {
        let frame = self.frames.get(key)?;
        let Kind::Try(inner) = &frame.task.as_ref()?.kind else {
            return None;
        };
        Some((get(inner), Arc::clone(&frame.scope)))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of a frame")]
    pub(super) fn enter_block(
        &mut self,
        key: Key,
        parent: &str,
        slot: Slot,
        block: &Arc<Block>,
        input: &Arc<Value>,
        scope: Scope,
        step: &mut Step,
    ) {
        let frame = Frame {
            task: None,
            parent: Some(parent.to_owned()),
            slot,
            raw_input: Arc::clone(input),
            input: Arc::clone(input),
            scope,
            started_ms: step.now_ms,
            deadline_ms: None,
            work: Work::Block(BlockWork {
                block: Arc::clone(block),
                index: 0,
                visits: vec![0; block.tasks.len()],
                flow: None,
            }),
        };
        self.frames.insert(key.clone(), frame);
        step.ops.push(Op::Next {
            block: key,
            value: Arc::clone(input),
        });
    }
}

/// A task that `then` leads back to is another task, with a key of its own.
fn visit_key(block: &str, name: &str, visit: u32) -> Key {
    let name = escape(name);
    if visit > 1 {
        format!("{block}/{name}#{visit}")
    } else {
        format!("{block}/{name}")
    }
}

fn iteration_scope(scope: &Scope, each: &For, index: usize, item: &Value) -> Scope {
    scope_with(
        scope,
        [
            (each.each.clone(), item.clone()),
            (each.at.clone(), Value::from(index)),
        ],
    )
}

/// A number that looks random and depends on nothing else: FNV-1a with a final mix.
fn scatter(seed: u64, key: &str) -> u32 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    let hash = key.bytes().fold(start, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
