//! What the worker tells: one JSON document a line on its standard output.

use std::collections::BTreeMap;

use cofferdam_core::run::AttemptReport;
use serde::{Deserialize, Serialize};

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Message {
    /// How things are; every tenth of a second.
    Snapshot(Snapshot),
    /// Every run has come to rest; nothing follows.
    Done(Done),
}

/// How things are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Leads that have arrived: their runs are on the disk.
    pub arrived: usize,
    /// Of those, leads whose run there was already.
    pub twice: usize,
    /// Runs that are over.
    pub ended: usize,
    /// Of those, runs that completed with less than the whole.
    pub degraded: usize,
    /// Of those, runs that faulted.
    pub faulted: usize,
    /// Runs that wait for a person.
    pub review: usize,
    /// The connections.
    pub connections: Vec<Line>,
    /// What the worker holds in memory.
    pub resident_bytes: u64,
}

/// One connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its name.
    pub name: String,
    /// The plugin behind it.
    pub plugin: String,
    /// The breaker's state.
    pub breaker: String,
    /// Calls under way.
    pub in_flight: usize,
    /// Tasks that are parked on it.
    pub parked: usize,
    /// Calls made since the worker was started.
    pub calls: u64,
    /// Of those, calls that speak against it.
    pub failures: u64,
    /// Calls that were turned away since there was no room for them.
    pub busy: u64,
    /// The last of those failures.
    pub last_failure: Option<String>,
}

/// How it ended.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// What became of each lead, in the order of the file; a lead that is there twice is told of
    /// once.
    pub leads: Vec<Ended>,
    /// The addresses that the database has.
    pub rows: Vec<String>,
    /// The attempts of all leads, by connection.
    pub calls: BTreeMap<String, Calls>,
}

/// The attempts on one connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    /// How many.
    pub attempts: u64,
    /// Of those, how many failed.
    pub failed: u64,
    /// How long the longest took.
    pub longest_ms: u64,
}

impl Calls {
    /// Counts one more.
    pub fn count(&mut self, attempt: &AttemptReport) {
        self.attempts += 1;
        self.failed += u64::from(attempt.failure.is_some());
        let took_ms = attempt
            .ended_ms
            .map_or(0, |ended_ms| ended_ms.saturating_sub(attempt.started_ms));
        self.longest_ms = self.longest_ms.max(took_ms);
    }
}

/// What became of one lead.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The run.
    pub run: String,
    /// The lead's line in the file, the head being the first.
    pub line: usize,
    /// The lead's address, in lower case.
    pub email: Option<String>,
    /// How the run ended.
    pub outcome: Outcome,
    /// Parts that are not what a healthy world would have given: task and provenance.
    pub parts: Vec<(String, String)>,
    /// Why it is a dead letter, or in review.
    pub reason: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Completed, everything live.
    Whole,
    /// Completed with less.
    Degraded,
    /// Waits for a person.
    Review,
    /// Its input was refused before anything was called.
    Invalid,
    /// Out of options, undone, and kept.
    DeadLetter,
    /// Out of options, and forgotten.
    Failed,
}
