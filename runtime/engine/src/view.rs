//! A run as its users see it.

use std::sync::Arc;

use cofferdam_core::error::WorkflowError;
use cofferdam_core::provenance::Provenance;
use cofferdam_core::run::{
    For, Origin, Outcome, Run, Status, Suspension, TaskReport, TaskStatus, Wait,
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rows::RunRow;

/// A run: where it is, what it gave, and how each part came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Its id.
    pub run: String,
    /// The workflow: `namespace/name:version`.
    pub workflow: String,
    /// Where it is.
    pub status: Status,
    /// Whether some output is not what a healthy world would have given.
    pub degraded: bool,
    /// Its output, once it completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// Its error, once it faulted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkflowError>,
    /// How the output of each call came to be, by task.
    pub provenance: IndexMap<String, Provenance>,
    /// Every task so far, in the order in which they began.
    pub tasks: Vec<TaskReport>,
    /// Its raw input.
    #[serde(skip)]
    pub input: Value,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// When it goes on by itself, if it waits for an instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// Whom it belongs to; empty if it does not matter.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Since when and why it begins nothing, if it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<Suspension>,
    /// How it was cancelled, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancelled>,
    /// Where it was forked from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<Origin>,
    /// How often it was redriven.
    #[serde(default)]
    pub redriven: u32,
    /// What it waits for, and what will happen next.
    #[serde(default)]
    pub waits: Vec<Wait>,
    /// The number of the first record of its journal that is kept, if older ones were removed: tasks
    /// that ended before it may be missing from `tasks` and `provenance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_from: Option<u64>,
}

/// How a run was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancelled {
    /// Why, in the words of who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether what it had done was undone.
    pub compensated: bool,
}

impl RunView {
    pub(crate) fn new(run: &Run, row: &RunRow) -> Self {
        let (output, error) = match run.outcome() {
            None | Some(Outcome::Cancelled { .. }) => (None, None),
            Some(Outcome::Completed { output }) => (Some(Arc::clone(output)), None),
            Some(Outcome::Faulted { error, .. }) => (None, Some(error.clone())),
        };
        let cancelled = match run.outcome() {
            Some(Outcome::Cancelled {
                reason,
                compensated,
            }) => Some(Cancelled {
                reason: reason.clone(),
                compensated: *compensated,
            }),
            _ => None,
        };
        Self {
            run: row.run.clone(),
            workflow: row.workflow.clone(),
            status: run.status(),
            degraded: run.is_degraded(),
            output,
            error,
            provenance: run.provenance(),
            tasks: run.reports().cloned().collect(),
            input: run.input().clone(),
            begun_ms: row.begun_ms,
            ended_ms: row.ended_ms,
            due_ms: run.next_due_ms(),
            tenant: row.tenant.clone(),
            suspended: run.suspension().cloned(),
            cancelled,
            forked_from: run.origin().cloned(),
            redriven: run.redriven_count(),
            waits: waits(run, row),
            records_from: None,
        }
    }

    /// Why it waits, a sentence for each task that does.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tasks
            .iter()
            .filter(|t| t.status == TaskStatus::Waiting)
            .filter_map(|t| Some((t.task.as_str(), t.waiting.as_deref()?)))
    }
}

/// Of the queue the row knows more than the run.
fn waits(run: &Run, row: &RunRow) -> Vec<Wait> {
    let mut waits = run.waits();
    for wait in waits.iter_mut().filter(|wait| wait.r#for == For::Turn) {
        wait.since_ms = row.queued_ms.unwrap_or(wait.since_ms);
        wait.because = row.concurrency_key.as_ref().map(|key| {
            format!("runs with the concurrency key `{key}` are under way, or memory is full")
        });
    }
    waits
}
