//! Finds again in the workflow what a frame or an undoing pointed to.

use std::sync::Arc;

use super::Error;
use super::pool::Pooled;
use super::saved::{SavedCall, SavedFrame, SavedUndo, SavedWork};
use crate::run::Run;
use crate::run::frame::{BlockWork, CallWork, FlowWork, Frame, Slot, Work};
use crate::run::saga::Undo;
use crate::run::tasks::escape;
use crate::workflow::{Block, Kind, Task, Workflow};

/// What a frame is of.
enum Part {
    /// A whole workflow.
    Flow(Arc<Workflow>),
    /// A block inside of a task.
    Block(Arc<Block>),
    Task(Arc<Task>),
    /// A call that is no task of the workflow.
    Inner,
}

/// A frame whose frames around it are in the run already. The run has so many undoings.
pub(super) fn frame(
    run: &Run,
    key: &str,
    saved: SavedFrame<'_>,
    undos: usize,
    pool: &Pooled,
) -> Result<Frame, Error> {
    let misplaced = |why| Error::Place {
        key: key.to_owned(),
        why,
    };
    let part = part(run, &saved).ok_or_else(|| misplaced("nothing is there"))?;
    let task = match &part {
        Part::Task(task) => Some(Arc::clone(task)),
        Part::Flow(_) | Part::Block(_) | Part::Inner => None,
    };
    if saved.task.as_deref() != task.as_ref().map(|task| task.reference.as_str()) {
        return Err(misplaced("another task is there"));
    }
    if !fits(&part, &saved.work, undos, saved.slot) {
        return Err(misplaced("it does something else there"));
    }
    let work = work(run, saved.work, &part, pool)?;
    Ok(Frame {
        task,
        parent: saved.parent.map(Into::into),
        slot: saved.slot,
        raw_input: pool.value(saved.raw_input)?,
        input: pool.value(saved.input)?,
        scope: pool.scope(saved.scope)?,
        started_ms: saved.started_ms,
        deadline_ms: saved.deadline_ms,
        work: work.ok_or_else(|| misplaced("its work is another"))?,
    })
}

/// What the frame around it, and what it is to that, say it is of.
fn part(run: &Run, saved: &SavedFrame<'_>) -> Option<Part> {
    let Some(parent) = &saved.parent else {
        return Some(match saved.slot {
            Slot::Undo(_) => Part::Inner,
            _ => Part::Flow(Arc::clone(&run.workflow)),
        });
    };
    let around = run.frames.get(parent.as_ref())?;
    let kind = around.task.as_ref().map(|task| &task.kind);
    Some(match (saved.slot, &around.work, kind) {
        (Slot::Task, Work::Block(work), _) => {
            Part::Task(Arc::clone(work.block.tasks.get(work.index)?))
        }
        (Slot::Task, _, Some(Kind::Run { workflow, .. })) => Part::Flow(Arc::clone(workflow)),
        (Slot::Iteration(_), _, Some(Kind::For(each))) => Part::Block(Arc::clone(&each.body)),
        (Slot::Branch(index), _, Some(Kind::Fork(fork))) => {
            Part::Task(Arc::clone(fork.branches.get(index)?))
        }
        (Slot::Tried, _, Some(Kind::Try(attempt))) => Part::Block(Arc::clone(&attempt.body)),
        (Slot::Catch, _, Some(Kind::Try(attempt))) => {
            Part::Block(Arc::clone(attempt.catch.body.as_ref()?))
        }
        (Slot::Heard(_), _, Some(Kind::Listen(listen))) => {
            Part::Block(Arc::clone(listen.foreach.as_ref()?.body.as_ref()?))
        }
        (Slot::Fallback(_), Work::Call(_), _) => Part::Inner,
        _ => return None,
    })
}

/// Whether the frame is of what does this. What the machine takes for granted is asked here: a row
/// that is damaged must not bring it down.
fn fits(part: &Part, work: &SavedWork<'_>, undos: usize, slot: Slot) -> bool {
    if matches!(slot, Slot::Undo(index) if index >= undos) {
        return false;
    }
    match (part, work) {
        (Part::Flow(_) | Part::Block(_), SavedWork::Block { .. }) => true,
        (Part::Inner, SavedWork::Call(call)) => !call.plan.connections.is_empty(),
        (Part::Task(task), work) => match (&task.kind, work) {
            (Kind::Call(_), SavedWork::Call(call)) => !call.plan.connections.is_empty(),
            (Kind::Fork(fork), SavedWork::Fork(work)) => fork.branches.len() == work.outputs.len(),
            (Kind::Do(_), SavedWork::Block { .. })
            | (Kind::For(_), SavedWork::For(_))
            | (Kind::Try(_), SavedWork::Try(_))
            | (Kind::Wait(_) | Kind::Run { .. }, SavedWork::Wait { .. })
            | (Kind::Listen(_), SavedWork::Listen(_)) => true,
            _ => false,
        },
        _ => false,
    }
}

/// None if it does not fit what the frame is of.
fn work(
    run: &Run,
    saved: SavedWork<'_>,
    part: &Part,
    pool: &Pooled,
) -> Result<Option<Work>, Error> {
    Ok(Some(match saved {
        SavedWork::Block {
            index,
            visits,
            context,
        } => {
            let (block, workflow) = match part {
                Part::Flow(workflow) => (&workflow.body, Some(workflow)),
                Part::Block(block) => (block, None),
                Part::Task(task) => match &task.kind {
                    Kind::Do(block) => (block, None),
                    _ => return Ok(None),
                },
                Part::Inner => return Ok(None),
            };
            let tasks = block.tasks.len();
            if visits.len() != tasks || index > tasks || context.is_some() != workflow.is_some() {
                return Ok(None);
            }
            let flow = match (workflow, context) {
                (Some(workflow), Some(context)) => Some(FlowWork {
                    workflow: Arc::clone(workflow),
                    context: pool.value(context)?,
                }),
                _ => None,
            };
            Work::Block(BlockWork {
                block: Arc::clone(block),
                index,
                visits: visits.into_owned(),
                flow,
            })
        }
        SavedWork::Call(saved) => Work::Call(Box::new(call(run, *saved, pool)?)),
        SavedWork::For(work) => Work::For(work.into_owned()),
        SavedWork::Fork(work) => Work::Fork(work.into_owned()),
        SavedWork::Try(work) => Work::Try(work.into_owned()),
        SavedWork::Wait { due_ms } => Work::Wait { due_ms },
        SavedWork::Listen(work) => Work::Listen(Box::new(work.into_owned())),
    }))
}

fn call(run: &Run, saved: SavedCall<'_>, pool: &Pooled) -> Result<CallWork, Error> {
    Ok(CallWork {
        plan: saved.plan.into_owned(),
        state: saved.state.into_owned(),
        action: saved.action.into_owned(),
        input: pool.value(saved.input)?,
        key: saved.key.into_owned(),
        timeout_ms: saved.timeout_ms,
        ticket: saved.ticket,
        hedge_ticket: saved.hedge_ticket,
        asked_after: saved.asked_after,
        recall: saved.recall,
        keep_ms: saved.keep_ms,
        effect: saved.effect.map(Into::into),
        policy: saved.policy.into_owned(),
        secrets: Arc::clone(&run.secrets),
    })
}

pub(super) fn undo(
    workflow: &Workflow,
    saved: SavedUndo<'_>,
    pool: &Pooled,
) -> Result<Undo, Error> {
    let SavedUndo {
        task_key,
        task: reference,
        fallback,
        input,
        effect,
        begun,
    } = saved;
    let Some(task) = in_block(&workflow.body, &task_key, &reference) else {
        return Err(Error::Place {
            key: task_key.into_owned(),
            why: "no such task is there",
        });
    };
    Ok(Undo {
        task_key: task_key.into_owned(),
        task: Arc::clone(task),
        fallback,
        input: pool.value(input)?,
        effect: effect.into_owned(),
        begun,
    })
}

/// The task with this key and this JSON pointer. The pointer alone is not enough, since workflows
/// that are run have pointers of their own; nor is the key, since `a#2` may be a name.
fn in_block<'w>(block: &'w Block, key: &str, reference: &str) -> Option<&'w Arc<Task>> {
    let (name, rest) = first(key)?;
    let mut named = block.tasks.iter().filter(|task| is_named(task, name));
    named.find_map(|task| in_task(task, rest, reference))
}

fn in_task<'w>(task: &'w Arc<Task>, rest: &str, reference: &str) -> Option<&'w Arc<Task>> {
    let Some((part, rest)) = first(rest).filter(|(part, _)| !part.starts_with("~fallback[")) else {
        return (task.reference == reference).then_some(task);
    };
    match (&task.kind, part) {
        (Kind::Do(block), name) => {
            let mut named = block.tasks.iter().filter(|task| is_named(task, name));
            named.find_map(|task| in_task(task, rest, reference))
        }
        (Kind::For(each), _) => in_block(&each.body, rest, reference),
        (Kind::Fork(fork), name) => {
            let mut named = fork.branches.iter().filter(|task| is_named(task, name));
            named.find_map(|task| in_task(task, rest, reference))
        }
        (Kind::Try(attempt), "~try") => in_block(&attempt.body, rest, reference),
        (Kind::Try(attempt), "~catch") => in_block(attempt.catch.body.as_ref()?, rest, reference),
        (Kind::Run { workflow, .. }, "~run") => in_block(&workflow.body, rest, reference),
        (Kind::Listen(listen), _) => {
            in_block(listen.foreach.as_ref()?.body.as_ref()?, rest, reference)
        }
        _ => None,
    }
}

/// The first part of a key, and what comes after it.
fn first(key: &str) -> Option<(&str, &str)> {
    let key = key.strip_prefix('/')?;
    Some(key.find('/').map_or((key, ""), |at| key.split_at(at)))
}

/// Whether a part of a key is of this task, on whatever visit.
fn is_named(task: &Task, part: &str) -> bool {
    let name = escape(&task.name);
    let visit = part.strip_prefix(name.as_str()).map(|rest| {
        let digits = rest.strip_prefix('#');
        rest.is_empty() || digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()))
    });
    visit == Some(true)
}
