//! A run publishes what becomes of it, in the batch that makes it true.

use cofferdam_core::run::{Effect, Event, Outcome, TaskChange, TaskStatus};
use serde_json::{Map, Value, json};

use super::Runner;
use crate::events::bus::Outgoing;
use crate::events::lifecycle::{self, Lifecycle};
use crate::rows::EventRow;

/// What a runner has told of its run.
#[derive(Default)]
pub(super) struct Announced {
    /// The last word for its status.
    status: &'static str,
    /// Events told since the last record, so that each has an id of its own.
    count: usize,
}

impl Runner {
    /// To be called before the first event goes into the machine: tells the machine to remember
    /// what becomes of tasks, and remembers where the run is.
    pub(super) fn begin_to_announce(&mut self) {
        self.announced.status = self.run.status().as_str();
        if self.inner.config.events().lifecycle >= Lifecycle::Task {
            self.run.watch_tasks();
        }
    }

    /// Tells what an event has changed.
    pub(super) fn announce(&mut self, event: &Event, effects: &[Effect], at_ms: u64) {
        if self.inner.config.events().lifecycle == Lifecycle::Off {
            return;
        }
        self.announced.count = 0;
        if matches!(event, Event::Begun { .. }) {
            let document = &self.run.workflow().document;
            let mut data = lifecycle::of_run(document, &self.row.run, "startedAt", at_ms);
            let (namespace, name, version) =
                (&document.namespace, &document.name, &document.version);
            data.insert(
                "definition".to_owned(),
                json!({"namespace": namespace, "name": name, "version": version}),
            );
            self.publish("workflow.started", data, at_ms);
        }
        for change in self.run.take_task_changes() {
            self.announce_task(&change, at_ms);
        }
        for effect in effects {
            match effect {
                Effect::Listen { task, .. } => self.announce_correlation(task, true, at_ms),
                Effect::ListenClosed { task, .. } => self.announce_correlation(task, false, at_ms),
                _ => {}
            }
        }
        let (before, status) = (self.announced.status, self.run.status().as_str());
        self.announced.status = status;
        if before == status {
            return;
        }
        // By word, so that a status is announced as the specification calls it.
        match (before, status) {
            (_, "completed") => self.announce_end("completed", at_ms),
            (_, "faulted") => self.announce_end("faulted", at_ms),
            (_, "cancelled") => self.announce_end("cancelled", at_ms),
            (_, "suspended") => self.announce_end("suspended", at_ms),
            ("suspended", _) => self.announce_end("resumed", at_ms),
            _ => {}
        }
    }

    fn announce_end(&mut self, word: &str, at_ms: u64) {
        let document = &self.run.workflow().document;
        let mut data = lifecycle::of_run(document, &self.row.run, &format!("{word}At"), at_ms);
        match self.run.outcome() {
            Some(Outcome::Completed { output }) if word == "completed" => {
                if let Some(output) = lifecycle::output(output) {
                    data.insert("output".to_owned(), output);
                }
            }
            Some(Outcome::Faulted { error, .. }) if word == "faulted" => {
                data.insert("error".to_owned(), error.to_value());
            }
            _ => {}
        }
        self.publish(&format!("workflow.{word}"), data, at_ms);
    }

    fn announce_task(&mut self, change: &TaskChange, at_ms: u64) {
        let words: &[&str] = match change.status {
            TaskStatus::Running if change.is_retry => &["retried"],
            TaskStatus::Running => &["created", "started"],
            TaskStatus::Completed | TaskStatus::Skipped => &["completed"],
            TaskStatus::Failed => &["faulted"],
            TaskStatus::Cancelled => &["cancelled"],
            TaskStatus::Waiting => &[],
        };
        for word in words {
            let document = &self.run.workflow().document;
            let at = format!("{word}At");
            let run = &self.row.run;
            let mut data = lifecycle::of_task(document, run, &change.reference, &at, at_ms);
            if let Some(error) = &change.error {
                data.insert("error".to_owned(), error.to_value());
            }
            self.publish(&format!("task.{word}"), data, at_ms);
        }
    }

    /// That a task waits for events, or has all of them.
    fn announce_correlation(&mut self, task: &str, is_begun: bool, at_ms: u64) {
        let is_completed = self
            .run
            .report(task)
            .is_some_and(|report| report.status == TaskStatus::Completed);
        let (kind, at) = match (is_begun, is_completed) {
            (true, _) => ("workflow.correlation-started", "startedAt"),
            (false, true) => ("workflow.correlation-completed", "completedAt"),
            (false, false) => return,
        };
        let data = lifecycle::of_run(&self.run.workflow().document, &self.row.run, at, at_ms);
        self.publish(kind, data, at_ms);
    }

    fn publish(&mut self, kind: &str, data: Map<String, Value>, at_ms: u64) {
        // The same step publishes the same event again after a crash, and not another one.
        let record = self.head.next_seq + self.records.len() as u64;
        let id = format!("{}-{record}-{}-{kind}", self.row.run, self.announced.count);
        self.announced.count += 1;
        let document = &self.run.workflow().document;
        let event = lifecycle::event(document, &self.row.run, &id, kind, Value::Object(data));
        self.outgoing.push(Outgoing::Event(Box::new(EventRow {
            seq: None,
            run: Some(self.row.run.clone()),
            task: None,
            event,
            at_ms,
        })));
    }
}
