//! What is timed happens in time: waits and timeouts end, reviews that nobody decides go on, schedules
//! begin their runs.
//!
//! Time counts only while a runtime is open, since the store last failed, and while a run that is
//! woken finds a place. What has become durable says whether it happened; so nobody is late who
//! does what is due and holds back that it was done, as the output-commit rule lets a run that is in
//! memory.

use cofferdam::{RunView, Status, TaskStatus};
use serde_json::Value;

use super::schedules::AFTER_MS;
use super::shadow::Shadow;
use super::{Oracle, Touched};
use crate::world::State;

/// A run that was set aside is woken, and a schedule begins a run, so long after the instant at the
/// latest. The engine looks every five seconds whatever it is told; a slow disk takes as long again.
const LATE_MS_MAX: u64 = 12_000;
/// The same for a run that is in memory, and writes when it has to.
const HELD_MS_MAX: u64 = 30 * 60 * 1_000;

/// What counts as time.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    /// Since when a runtime is open; none while there is none.
    open_ms: Option<u64>,
    /// The same for its schedules.
    schedules_ms: Option<u64>,
    /// When the store last failed.
    failed_ms: u64,
    /// Whether as many runs are in memory as may be.
    full: bool,
    /// When that was last so.
    full_ms: u64,
}

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed {
    due_ms: u64,
    /// Since when that is known.
    since_ms: u64,
}

/// What the row of a run says of its time.
#[derive(Debug, Default)]
pub(super) struct Told {
    row: Vec<u8>,
    /// It waits in the store, and nowhere else.
    is_aside: bool,
    is_in_memory: bool,
    pub(super) ended_ms: Option<u64>,
    owed: Option<Owed>,
}

impl Owed {
    /// The same instant is owed since it was first known.
    fn next(before: Option<Self>, due_ms: Option<u64>, now_ms: u64) -> Option<Self> {
        let due_ms = due_ms?;
        let is_known = before.filter(|owed| owed.due_ms == due_ms);
        let since_ms = now_ms;
        is_known.or(Some(Self { due_ms, since_ms }))
    }

    fn begins_ms(self) -> u64 {
        self.due_ms.max(self.since_ms)
    }
}

impl Timing {
    /// A runtime is open.
    pub fn opens(&mut self, now_ms: u64) {
        self.open_ms = Some(now_ms);
    }

    /// It looks after its schedules.
    pub fn schedules_open(&mut self, now_ms: u64) {
        self.schedules_ms = Some(now_ms);
    }

    /// It is gone, or is being closed.
    pub fn closes(&mut self) {
        self.open_ms = None;
        self.schedules_ms = None;
    }

    /// When the store last failed.
    pub fn failed_ms(&self) -> u64 {
        self.failed_ms
    }

    /// The store has failed.
    pub fn fails(&mut self, now_ms: u64) {
        self.failed_ms = now_ms;
    }
}

impl Shadow {
    /// Reads what its row says, if it has changed.
    pub(super) fn look_at_row(&mut self, row: &[u8], changed: bool, now_ms: u64) {
        if !changed && self.told.row == row {
            return;
        }
        let Ok(read) = serde_json::from_slice::<Value>(row) else {
            return;
        };
        self.told.row = row.to_vec();
        let status = read["status"].as_str();
        let is = |all: &[Status]| all.iter().any(|is| Some(is.as_str()) == status);
        self.told.is_aside = read["dueMs"].is_u64() || is(&[Status::Waiting]);
        let is_under_way = is(&[Status::Running, Status::Compensating]);
        self.told.is_in_memory = is_under_way && !self.told.is_aside;
        self.told.ended_ms = read["endedMs"].as_u64();
        let due_ms = self.due_ms();
        self.told.owed = Owed::next(self.told.owed, due_ms, now_ms);
    }

    /// The first instant at which something is to happen, by all that the machine says of it.
    fn due_ms(&self) -> Option<u64> {
        if self.run.status().is_final() || self.run.suspension().is_some() {
            return None;
        }
        let due_ms = self.run.next_due_ms();
        if !self.told.is_aside {
            return due_ms;
        }
        let waits = self.run.waits().into_iter();
        let told = waits.flat_map(|wait| [wait.at_ms, wait.until_ms]);
        told.flatten().chain(due_ms).min()
    }
}

impl Oracle {
    /// The tenants of those who are in memory, each as often as it has runs there.
    pub(super) fn in_memory(&self) -> impl Iterator<Item = &str> {
        let all = self.runs.values().filter(|shadow| shadow.told.is_in_memory);
        all.map(|shadow| shadow.tenant.as_str())
    }

    /// When a run ended, by its row.
    pub fn ended_ms(&self, run: &str) -> Option<u64> {
        self.runs.get(run)?.told.ended_ms
    }
}

impl State {
    /// Nothing that is due was left undone for long.
    pub fn judge_time(&mut self) {
        let now_ms = self.now_ms();
        let timing = &mut self.oracle.timing;
        if timing.full {
            timing.full_ms = now_ms;
        }
        let Some(open_ms) = timing.open_ms else {
            return;
        };
        let from_ms = open_ms.max(timing.failed_ms);
        let late = |owed: Owed, from_ms: u64| now_ms.saturating_sub(owed.begins_ms().max(from_ms));
        let for_woken_ms = from_ms.max(timing.full_ms);
        let found = self.oracle.runs.values().find_map(|shadow| {
            let owed = shadow.told.owed?;
            let (most, from_ms) = if shadow.told.is_aside {
                (LATE_MS_MAX, for_woken_ms)
            } else {
                (HELD_MS_MAX, from_ms)
            };
            let late_ms = late(owed, from_ms);
            let run = shadow.run.id();
            let due_ms = owed.due_ms;
            (late_ms > most).then(|| format!("{run} was due at {due_ms} and is {late_ms} ms late"))
        });
        let of_schedules = || {
            let from_ms = from_ms.max(self.oracle.timing.schedules_ms?);
            self.oracle.schedules.iter().find_map(|(name, known)| {
                let owed = known.owed?;
                let late_ms = late(owed, from_ms);
                let due_ms = owed.due_ms;
                (late_ms > LATE_MS_MAX)
                    .then(|| format!("{name} was due at {due_ms} and is {late_ms} ms late"))
            })
        };
        if let Some(wrong) = found.or_else(of_schedules) {
            self.violated(wrong);
        }
        self.judge_turns(open_ms);
    }

    /// Where nobody has to decide, who was asked has been told all the same.
    pub(super) fn note_reviews(&mut self, touched: &Touched) {
        if !self.swarm.deadlines {
            return;
        }
        for key in &touched.reviews {
            let key = String::from_utf8_lossy(key).into_owned();
            if let Some((run, task)) = key.split_once('\0') {
                let told = (run.to_owned(), task.to_owned());
                self.oracle.reviewed.insert(told);
            }
        }
    }

    /// No task that waits was over before its time.
    pub(super) fn judge_waits(&self, view: &RunView) -> Result<(), String> {
        for report in view.tasks.iter().filter(|report| report.kind == "wait") {
            let name = report.task.rsplit('/').next().unwrap_or_default();
            let wait_ms = self.oracle.waits.get(name);
            let (Some(wait_ms), Some(ended_ms)) = (wait_ms, report.ended_ms) else {
                continue;
            };
            let is_done = report.status == TaskStatus::Completed && report.taken_from.is_none();
            let waited_ms = ended_ms - report.started_ms;
            if is_done && waited_ms < *wait_ms {
                let task = &report.task;
                return Err(format!("`{task}` waits {waited_ms} ms of {wait_ms}"));
            }
        }
        Ok(())
    }

    /// How long there has been a place in memory for a run that is woken.
    pub fn room_for_ms(&self) -> u64 {
        let timing = &self.oracle.timing;
        let room_ms = self.now_ms().saturating_sub(timing.full_ms);
        if timing.full { 0 } else { room_ms }
    }

    /// Notes what is due from here on.
    pub(super) fn note_time(&mut self) {
        let now_ms = self.now_ms();
        let in_memory = self.oracle.in_memory().count();
        self.oracle.timing.full = in_memory >= self.oracle.admission.runs_active_max;
        if !self.oracle.lines.is_empty() {
            self.note_room();
        }
        for (name, known) in &mut self.oracle.schedules {
            let awaited = known.awaited();
            let ended_ms = awaited
                .and_then(|run| self.oracle.runs.get(run))
                .and_then(|shadow| shadow.told.ended_ms);
            let due_ms = match awaited {
                Some(_) => ended_ms.map(|ended_ms| ended_ms + AFTER_MS),
                None => known.next_ms(),
            };
            let due_ms = due_ms.filter(|_| !self.oracle.paused.contains(name));
            known.owed = Owed::next(known.owed, due_ms, now_ms);
        }
    }
}
