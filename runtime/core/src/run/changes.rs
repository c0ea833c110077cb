//! What a run tells of its tasks while it goes on.

use super::Run;
use super::listen::{Hearing, hearing};
use super::report::{TaskChange, TaskReport};

impl Run {
    /// What became of one task, by its key.
    pub fn report(&self, task: &str) -> Option<&TaskReport> {
        self.reports.get(task)
    }

    /// Remembers from here on what becomes of tasks, for [`Run::take_task_changes`].
    pub fn watch_tasks(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// What became of tasks since it was last asked, in order; nothing without
    /// [`Run::watch_tasks`].
    pub fn take_task_changes(&mut self) -> Vec<TaskChange> {
        self.changes
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    pub(super) fn note_change(&mut self, key: &str, is_retry: bool) {
        if let (Some(changes), Some(report)) = (&mut self.changes, self.reports.get(key)) {
            changes.push(TaskChange {
                reference: report.reference.clone(),
                status: report.status,
                is_retry,
                error: report.error.clone(),
            });
        }
    }

    /// Whether a task can be told of an event.
    pub fn hearing(&self, task: &str) -> Hearing {
        match hearing(self.frames.get(task)) {
            // What comes while it is suspended waits outside.
            Hearing::Ready if self.is_suspended() => Hearing::Busy,
            hearing => hearing,
        }
    }
}
