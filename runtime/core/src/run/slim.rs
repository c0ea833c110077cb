//! What a run that goes on for ever may forget.
//!
//! A loop, or a task that listens, leaves a report of each of its tasks and an entry of the ledger for
//! each effect, iteration after iteration. A *scope* is an iteration of a loop, the tasks for one
//! event, or a visit of a task that `then` leads back to. Once it is over and nothing can enter it
//! again, nobody asks for its effects again, and its reports are only for people: they can be had by
//! folding the journal into a run that forgets nothing.
//!
//! Kept is whatever may be asked for again: everything inside of a `try` that tries again; what is to
//! be undone; effects whose key the workflow names, which another task may name as well; effects
//! with an attempt under way, until it has ended. A run that is redriven enters its tasks again, and
//! so has to be folded whole ([`super::Illegal::Slim`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::control::within;
use super::frame::{Frame, Key, Slot, Work};
use super::{Run, Step};
use crate::workflow::Kind;

/// What is to be forgotten, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slim {
    /// Effects whose key nobody but their task has, by task.
    effects: BTreeMap<Key, BTreeSet<String>>,
    /// Scopes that are over and whose reports are still there.
    over: BTreeSet<Key>,
    /// Effects of such scopes that had an attempt under way.
    late: BTreeSet<String>,
    /// With so many reports it looks for those that can go: twice as many as it last left.
    sweep_at: usize,
    /// Whether it has forgotten any report.
    #[serde(default)]
    has_forgotten: bool,
}

/// With fewer reports than these it does not look; in tests it soon does.
const REPORTS_MIN: usize = if cfg!(test) { 4 } else { 64 };

impl Run {
    /// The same run, forgetting from here on what nobody can ask for again but people: events lead to
    /// the same effects. [`Run::reports`], [`Run::provenance`] and [`Run::finished`] lack what was
    /// forgotten, and the run cannot be redriven.
    pub fn slim(mut self) -> Self {
        self.be_slim();
        self
    }

    /// See [`Run::slim`].
    pub fn be_slim(&mut self) {
        self.slim.get_or_insert_default();
    }

    /// Whether [`Run::reports`] lack something.
    pub fn has_forgotten(&self) -> bool {
        self.slim.as_ref().is_some_and(|slim| slim.has_forgotten)
    }

    /// Whether it forgets.
    pub(super) fn is_slim(&self) -> bool {
        self.slim.is_some()
    }

    /// An effect of this task, or of its fallback, is in the ledger.
    pub(super) fn note_effect(&mut self, key: &str) {
        let Some(Frame {
            work: Work::Call(work),
            task,
            slot,
            parent,
            ..
        }) = self.frames.get(key)
        else {
            return;
        };
        let Some(id) = work.effect.clone().filter(|_| self.slim.is_some()) else {
            return;
        };
        let task = match (slot, parent) {
            (Slot::Undo(_), _) => return,
            (Slot::Fallback(_), Some(parent)) => {
                self.frames.get(parent).and_then(|f| f.task.as_ref())
            }
            _ => task.as_ref(),
        };
        // A key that the workflow names may be named by another task as well.
        let is_own = task.is_some_and(|task| match &task.kind {
            Kind::Call(call) => call.policy.idempotency_key.is_none(),
            _ => false,
        });
        if let Some(slim) = self.slim.as_mut().filter(|_| is_own) {
            slim.effects.entry(key.to_owned()).or_default().insert(id);
        }
    }

    /// What is inside of this key is over. `around` is what it was in.
    pub(super) fn scope_over(&mut self, scope: &str, around: &str, step: &mut Step) {
        if !self.is_slim() || self.may_come_again(around) {
            return;
        }
        let inside = format!("{scope}/");
        let from = (Bound::Included(inside.as_str()), Bound::Unbounded);
        let Some(slim) = &mut self.slim else { return };
        let tasks: Vec<Key> = slim
            .effects
            .range::<str, _>(from)
            .map(|(task, _)| task)
            .take_while(|task| task.starts_with(&inside))
            .cloned()
            .chain([scope.to_owned()])
            .collect();
        for task in tasks {
            for id in slim.effects.remove(&task).unwrap_or_default() {
                if !self.ledger.forget(&id) {
                    slim.late.insert(id);
                }
            }
        }
        step.over.push(scope.to_owned());
    }

    /// Whether a `try` around may enter it again, with the same keys.
    fn may_come_again(&self, around: &str) -> bool {
        let mut at = self.frames.get(around);
        while let Some(frame) = at {
            let parent = frame.parent.as_ref().and_then(|key| self.frames.get(key));
            let task = parent.and_then(|parent| parent.task.as_ref());
            if frame.slot == Slot::Tried
                && let Some(Kind::Try(attempt)) = task.map(|task| &task.kind)
                && attempt.catch.retry.is_some()
            {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Forgets, from time to time, the reports of scopes that were over before this step: who is told
    /// of what it led to may still look at the others.
    pub(super) fn sweep(&mut self, step: &mut Step) {
        let Some(slim) = &mut self.slim else { return };
        let most = slim.sweep_at.max(REPORTS_MIN);
        if self.reports.len().max(slim.over.len()) > most {
            let (over, before) = (std::mem::take(&mut slim.over), self.reports.len());
            self.reports
                .retain(|key, _| !within(key).any(|around| over.contains(around)));
            slim.has_forgotten |= self.reports.len() < before;
            slim.sweep_at = 2 * self.reports.len();
            let ledger = &mut self.ledger;
            slim.late.retain(|id| !ledger.forget(id));
        }
        // Not `append`, which builds the whole set anew.
        slim.over.extend(step.over.drain(..));
    }
}
