//! Frames and undoings without what they point to.
//!
//! Each is taken apart whole: a field that is added to one of them has to be thought of here.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::pool::Pool;
use crate::call;
use crate::run::frame::{
    BlockWork, CallPolicy, CallWork, FlowWork, ForWork, ForkWork, Frame, Recall, Slot, TryWork,
    Work,
};
use crate::run::listen::ListenWork;
use crate::run::saga::Undo;

/// A frame. Numbers of values and scopes are those of the pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedFrame<'r> {
    /// The JSON pointer of its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Cow<'r, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Cow<'r, str>>,
    pub slot: Slot,
    pub raw_input: usize,
    pub input: usize,
    pub scope: usize,
    pub started_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    pub work: SavedWork<'r>,
}

/// What a frame does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum SavedWork<'r> {
    Block {
        index: usize,
        visits: Cow<'r, [u32]>,
        /// The context, if the block is a whole workflow.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<usize>,
    },
    Call(Box<SavedCall<'r>>),
    For(Cow<'r, ForWork>),
    Fork(Cow<'r, ForkWork>),
    Try(Cow<'r, TryWork>),
    Wait {
        due_ms: u64,
    },
    Listen(Cow<'r, ListenWork>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedCall<'r> {
    pub plan: Cow<'r, call::Plan>,
    pub state: Cow<'r, call::State>,
    pub action: Cow<'r, str>,
    pub input: usize,
    pub key: Cow<'r, str>,
    pub timeout_ms: u64,
    pub ticket: u64,
    pub hedge_ticket: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asked_after: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<Recall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Cow<'r, str>>,
    pub policy: Cow<'r, CallPolicy>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like that"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A task that can be undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedUndo<'r> {
    pub task_key: Cow<'r, str>,
    /// The JSON pointer of the task.
    pub task: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<usize>,
    pub input: usize,
    pub effect: Cow<'r, str>,
    pub begun: bool,
}

impl<'r> SavedFrame<'r> {
    pub fn of(frame: &'r Frame, pool: &mut Pool) -> Self {
        let Frame {
            task,
            parent,
            slot,
            raw_input,
            input,
            scope,
            started_ms,
            deadline_ms,
            work,
        } = frame;
        Self {
            task: task.as_ref().map(|task| task.reference.as_str().into()),
            parent: parent.as_ref().map(Into::into),
            slot: *slot,
            raw_input: pool.value(raw_input),
            input: pool.value(input),
            scope: pool.scope(scope),
            started_ms: *started_ms,
            deadline_ms: *deadline_ms,
            work: SavedWork::of(work, pool),
        }
    }
}

impl<'r> SavedWork<'r> {
    fn of(work: &'r Work, pool: &mut Pool) -> Self {
        match work {
            Work::Block(BlockWork {
                block: _,
                index,
                visits,
                flow,
            }) => Self::Block {
                index: *index,
                visits: Cow::Borrowed(visits),
                context: flow.as_ref().map(
                    |FlowWork {
                         workflow: _,
                         context,
                     }| pool.value(context),
                ),
            },
            Work::Call(call) => Self::Call(Box::new(SavedCall::of(call, pool))),
            Work::For(work) => Self::For(Cow::Borrowed(work)),
            Work::Fork(work) => Self::Fork(Cow::Borrowed(work)),
            Work::Try(work) => Self::Try(Cow::Borrowed(work)),
            Work::Wait { due_ms } => Self::Wait { due_ms: *due_ms },
            Work::Listen(work) => Self::Listen(Cow::Borrowed(work)),
        }
    }
}

impl<'r> SavedCall<'r> {
    fn of(work: &'r CallWork, pool: &mut Pool) -> Self {
        let CallWork {
            plan,
            state,
            action,
            input,
            key,
            timeout_ms,
            ticket,
            hedge_ticket,
            asked_after,
            recall,
            keep_ms,
            effect,
            policy,
            secrets: _,
        } = work;
        Self {
            plan: Cow::Borrowed(plan),
            state: Cow::Borrowed(state),
            action: action.into(),
            input: pool.value(input),
            key: key.into(),
            timeout_ms: *timeout_ms,
            ticket: *ticket,
            hedge_ticket: *hedge_ticket,
            asked_after: *asked_after,
            recall: *recall,
            keep_ms: *keep_ms,
            effect: effect.as_ref().map(Into::into),
            policy: Cow::Borrowed(policy),
        }
    }
}

impl<'r> SavedUndo<'r> {
    pub fn of(undo: &'r Undo, pool: &mut Pool) -> Self {
        let Undo {
            task_key,
            task,
            fallback,
            input,
            effect,
            begun,
        } = undo;
        Self {
            task_key: task_key.into(),
            task: task.reference.as_str().into(),
            fallback: *fallback,
            input: pool.value(input),
            effect: effect.into(),
            begun: *begun,
        }
    }
}
