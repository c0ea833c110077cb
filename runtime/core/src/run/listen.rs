//! `listen`: a task that waits for events, takes them one after the other, and ends when it has
//! enough.
//!
//! While it waits, the frame holds what was taken so far and nothing else; where events come from,
//! and which may concern it, is the engine's business ([`Effect::Listen`]). Events are told in the
//! order of their numbers. With `foreach` the next one is taken only when the tasks for the one
//! before have ended, and waits outside of the machine until then ([`Effect::Hear`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::environment::Around;
use super::frame::{Frame, Op, Slot, Work};
use super::report::{TaskStatus, WaitsFor};
use super::tasks::{check, scope_with};
use super::{Effect, Illegal, Run, Step};
use crate::cloud_event::{self, CloudEvent};
use crate::consume::{Collector, Verdict, Watch, read};
use crate::error::WorkflowError;
use crate::workflow::{Kind, Listen, ListenEach, Strategy, Task, Until};

/// More events no task keeps for its output; see [`TAKEN_BYTES_MAX`].
pub const TAKEN_MAX: usize = 10_000;
/// The output of a task that listens is bounded, in bytes: it is held in memory while the run goes
/// on. A task that ends by nothing (`until: false`) keeps nothing and is not bounded.
pub const TAKEN_BYTES_MAX: usize = 8 << 20;

/// Whether a task can be told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// It waits for one.
    Ready,
    /// Its tasks for the event before are under way: [`Effect::Hear`] says when it is ready.
    Busy,
    /// It does not listen, or not any more.
    Gone,
}

/// What a task that listens has taken so far. Persisted in checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListenWork {
    pub collector: Collector,
    /// What each event gave: always a list.
    taken: Value,
    taken_bytes: usize,
    /// How many events were taken.
    count: usize,
    /// The number of the last event that was taken.
    heard_seq: Option<u64>,
    /// Whether the tasks for an event are under way.
    is_busy: bool,
    /// That event, as it was read.
    current: Value,
    /// Whether the event that is worked on is the last.
    is_last: bool,
}

impl ListenWork {
    /// Whether the tasks for an event are under way.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

impl Run {
    /// By what events are looked up for a task that listens; none if it does not.
    pub fn watches(&self, task: &str) -> Vec<Watch> {
        match self.listening(task).map(|(task, work)| (&task.kind, work)) {
            Some((Kind::Listen(listen), work)) => work.collector.watches(&listen.to),
            _ => Vec::new(),
        }
    }

    pub(super) fn start_listen(
        &mut self,
        key: &str,
        task: &Task,
        listen: &Listen,
        step: &mut Step,
    ) -> Result<(), WorkflowError> {
        let around = Around::new(self, key);
        let collector = Collector::new(&listen.to, |template| {
            self.evaluate(template, around.input(), &around)
        })?;
        let watches = collector.watches(&listen.to);
        self.set_work(
            key,
            Work::Listen(Box::new(ListenWork {
                collector,
                taken: Value::Array(Vec::new()),
                taken_bytes: 0,
                count: 0,
                heard_seq: None,
                is_busy: false,
                current: Value::Null,
                is_last: false,
            })),
        );
        step.effects.push(Effect::Listen {
            task: key.to_owned(),
            watches,
        });
        if let Some(report) = self.reports.get_mut(key) {
            report.status = TaskStatus::Waiting;
            report.waits_for = Some(WaitsFor::Event);
            report.waiting = Some(waiting(&listen.to, &task.name));
        }
        Ok(())
    }

    /// An event for a task that listens.
    ///
    /// # Errors
    /// [`Illegal::Task`] if the task does not listen or is busy with another event, and
    /// [`Illegal::Unheard`] if it is none of its events or was told before; nothing has changed.
    pub(super) fn heard(
        &mut self,
        key: &str,
        seq: u64,
        event: &CloudEvent,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let not_listening = || Illegal::Task(key.to_owned());
        let (task, work) = self.listening(key).ok_or_else(not_listening)?;
        let Kind::Listen(listen) = &task.kind else {
            return Err(not_listening());
        };
        if work.is_busy {
            return Err(not_listening());
        }
        if work.heard_seq.is_some_and(|heard| seq <= heard) {
            return Err(Illegal::Unheard(key.to_owned()));
        }
        let around = Around::new(self, key);
        let mut collector = work.collector.clone();
        let verdict = collector.take(&listen.to, event, &|expr, value| {
            self.evaluate_expr(expr, value, &around).ok()
        });
        if verdict == Verdict::Ignored {
            return Err(Illegal::Unheard(key.to_owned()));
        }
        let task = Arc::clone(task);
        let Kind::Listen(listen) = &task.kind else {
            return Err(not_listening());
        };
        if let Some(work) = self.listen_work(key) {
            work.collector = collector;
            work.heard_seq = Some(seq);
        }
        match verdict {
            Verdict::Ignored => {}
            Verdict::Noted => step.effects.push(Effect::Hear {
                task: key.to_owned(),
            }),
            Verdict::Ends => self.complete_listen(key, step),
            Verdict::Taken { complete } => {
                self.take_event(key, listen, (seq, event), complete, step);
            }
        }
        Ok(())
    }

    fn take_event(
        &mut self,
        key: &str,
        listen: &Listen,
        (seq, event): (u64, &CloudEvent),
        is_last: bool,
        step: &mut Step,
    ) {
        let item = read(event, listen.read);
        let Some(work) = self.listen_work(key) else {
            return;
        };
        let index = work.count;
        work.count += 1;
        work.is_last = is_last;
        let Some(ListenEach {
            item: item_name,
            at,
            body: Some(body),
            ..
        }) = &listen.foreach
        else {
            self.item_done(key, index, &item, item.clone(), step);
            return;
        };
        work.is_busy = true;
        work.current = item.clone();
        let added = [(item_name.clone(), item), (at.clone(), Value::from(index))];
        let scope = scope_with(&self.scope_of(key), added);
        let Some(input) = self.frames.get(key).map(|f| Arc::clone(&f.input)) else {
            return;
        };
        // Named by the event: a listener that is entered again must not take what it did for one
        // event for what it does for another. Runs of the first semantics count from 0 each time.
        let name = match self.bindings.semantics {
            1 => u64::try_from(index).unwrap_or(u64::MAX),
            _ => seq,
        };
        self.enter_block(
            format!("{key}/[{name}]"),
            key,
            Slot::Heard(index),
            body,
            &input,
            scope,
            step,
        );
    }

    /// The tasks for an event have ended with this.
    pub(super) fn heard_done(
        &mut self,
        key: &str,
        index: usize,
        output: &Arc<Value>,
        step: &mut Step,
    ) {
        let Some(work) = self.listen_work(key) else {
            return;
        };
        work.is_busy = false;
        let item = std::mem::take(&mut work.current);
        let heard_seq = work.heard_seq;
        // As it was named when it was entered.
        let name = match self.bindings.semantics {
            1 => u64::try_from(index).ok(),
            _ => heard_seq,
        };
        if let Some(name) = name {
            self.scope_over(&format!("{key}/[{name}]"), key, step);
        }
        self.item_done(key, index, &item, (**output).clone(), step);
    }

    /// What an event gave is known: transforms and keeps it, and asks whether that is enough.
    fn item_done(&mut self, key: &str, index: usize, item: &Value, output: Value, step: &mut Step) {
        match self.keep_item(key, index, item, output) {
            Ok(true) => self.complete_listen(key, step),
            Ok(false) => step.effects.push(Effect::Hear {
                task: key.to_owned(),
            }),
            Err(error) => step.ops.push(Op::Raise {
                key: key.to_owned(),
                error,
            }),
        }
    }

    fn keep_item(
        &mut self,
        key: &str,
        index: usize,
        item: &Value,
        output: Value,
    ) -> Result<bool, WorkflowError> {
        let Some((task, _)) = self.listening(key) else {
            return Ok(false);
        };
        let task = Arc::clone(task);
        let Kind::Listen(listen) = &task.kind else {
            return Ok(false);
        };
        let mut output = output;
        if let Some(each) = &listen.foreach {
            output = self.transform_item(key, each, index, item, output, &task.reference)?;
        }
        let is_kept = !matches!(
            listen.to,
            Strategy::Any {
                until: Until::Never,
                ..
            }
        );
        let Some(work) = self.listen_work(key) else {
            return Ok(false);
        };
        let is_last = work.is_last;
        if is_kept {
            work.taken_bytes += cloud_event::size(&output);
            if let Value::Array(taken) = &mut work.taken {
                taken.push(output);
            }
            if work.count > TAKEN_MAX || work.taken_bytes > TAKEN_BYTES_MAX {
                let detail = format!(
                    "the task has taken more than {TAKEN_MAX} events or {TAKEN_BYTES_MAX} bytes; \
                     end it sooner with `until`, or keep less of each with `foreach.output`"
                );
                return Err(WorkflowError::runtime(detail, &task.reference));
            }
        }
        if is_last {
            return Ok(true);
        }
        let Strategy::Any {
            until: Until::Holds(condition),
            ..
        } = &listen.to
        else {
            return Ok(false);
        };
        let Some((_, work)) = self.listening(key) else {
            return Ok(false);
        };
        self.holds(condition, &work.taken, &Around::new(self, key))
    }

    /// `foreach.output` and `foreach.export`.
    fn transform_item(
        &mut self,
        key: &str,
        each: &ListenEach,
        index: usize,
        item: &Value,
        output: Value,
        reference: &str,
    ) -> Result<Value, WorkflowError> {
        let added = [
            (each.item.clone(), item.clone()),
            (each.at.clone(), Value::from(index)),
        ];
        let scope = scope_with(&self.scope_of(key), added);
        let mut output = output;
        if let Some(template) = &each.output.r#as {
            let around = Around::new(self, key)
                .with_scope(&scope)
                .with_output(&output);
            output = self.evaluate(template, &output, &around)?;
        }
        check(each.output.schema.as_ref(), &output, "output", reference)?;
        if let Some(template) = &each.export.r#as {
            let around = Around::new(self, key)
                .with_scope(&scope)
                .with_output(&output);
            let context = self.evaluate(template, &output, &around)?;
            check(each.export.schema.as_ref(), &context, "export", reference)?;
            self.set_context(key, Arc::new(context));
        }
        Ok(output)
    }

    fn complete_listen(&mut self, key: &str, step: &mut Step) {
        let Some(work) = self.listen_work(key) else {
            return;
        };
        // Nothing more is taken while the output is made of what was.
        work.is_busy = true;
        let output = Arc::new(std::mem::take(&mut work.taken));
        step.ops.push(Op::Complete {
            key: key.to_owned(),
            output,
            then: None,
        });
    }

    /// The watches that are given up with a frame.
    pub(super) fn unlisten(key: &str, frame: &Frame, step: &mut Step) {
        let Some((task, work)) = listening_frame(frame) else {
            return;
        };
        let Kind::Listen(listen) = &task.kind else {
            return;
        };
        step.effects.push(Effect::ListenClosed {
            task: key.to_owned(),
            watches: work.collector.watches(&listen.to),
        });
    }

    fn listening(&self, key: &str) -> Option<(&Arc<Task>, &ListenWork)> {
        self.frames.get(key).and_then(listening_frame)
    }

    fn listen_work(&mut self, key: &str) -> Option<&mut ListenWork> {
        match &mut self.frames.get_mut(key)?.work {
            Work::Listen(work) => Some(work),
            Work::Block(_)
            | Work::Call(_)
            | Work::For(_)
            | Work::Fork(_)
            | Work::Try(_)
            | Work::Wait { .. } => None,
        }
    }
}

fn listening_frame(frame: &Frame) -> Option<(&Arc<Task>, &ListenWork)> {
    let Work::Listen(work) = &frame.work else {
        return None;
    };
    Some((frame.task.as_ref()?, work))
}

pub(super) fn hearing(frame: Option<&Frame>) -> Hearing {
    match frame.and_then(listening_frame) {
        None => Hearing::Gone,
        Some((_, work)) if work.is_busy => Hearing::Busy,
        Some(_) => Hearing::Ready,
    }
}

/// Why the task waits, for people.
fn waiting(to: &Strategy, name: &str) -> String {
    let kinds: Vec<&str> = to
        .filters()
        .iter()
        .filter_map(|filter| match filter.with.get("type") {
            Some(crate::workflow::Match::Is(kind)) => kind.as_str(),
            _ => None,
        })
        .collect();
    match (to, kinds.as_slice()) {
        (_, []) => format!("waits for an event (task `{name}`)"),
        (Strategy::All(_), kinds) => format!("waits for events {}", kinds.join(" and ")),
        (_, kinds) => format!("waits for an event {}", kinds.join(" or ")),
    }
}
