//! Schedules: each instant and each event begins one run, which is there before the schedule moves on.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam::Status;
use cofferdam_core::run::instant;
use cofferdam_store::{JournalStore, Table};
use serde_json::Value;

use super::time::Owed;
use super::{rows, text};
use crate::world::State;

const EVERY_MS: u64 = 7_000;
const MINUTE_MS: u64 = 60_000;
pub(super) const AFTER_MS: u64 = 5_000;

/// What is known of one schedule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    row: Value,
    /// Events from this number on are for it.
    from_seq: u64,
    /// When it is to begin a run.
    pub owed: Option<Owed>,
}

impl Known {
    /// The run whose end it waits for.
    pub fn awaited(&self) -> Option<&str> {
        let waits = self.row["awaitsEnd"] == true;
        self.row["run"].as_str().filter(|_| waits)
    }

    /// When it is next due, by its row.
    pub fn next_ms(&self) -> Option<u64> {
        self.row["nextMs"].as_u64()
    }
}

impl State {
    /// Looks at the schedules that have moved, and which are paused.
    pub(super) fn fold_schedules(&mut self) -> Result<(), String> {
        self.oracle.paused.clear();
        for (key, row) in rows(&self.disk.durable, Table::Schedule) {
            if key.first() != Some(&0) {
                let name = String::from_utf8_lossy(&key[1..]).into_owned();
                self.oracle.paused.insert(name);
                continue;
            }
            let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
            let name = text(&row, "name");
            let from_seq = self.oracle.bus.last_seq() + 1;
            match self.oracle.schedules.get(&name) {
                Some(known) if known.row == row => {}
                Some(known) => {
                    self.judge_moved(&known.row, &row)
                        .map_err(|wrong| format!("schedule {name}: {wrong}: {row}"))?;
                    if let Some(known) = self.oracle.schedules.get_mut(&name) {
                        known.row = row;
                    }
                }
                None => {
                    let owed = None;
                    let known = Known {
                        row,
                        from_seq,
                        owed,
                    };
                    self.oracle.schedules.insert(name, known);
                }
            }
        }
        Ok(())
    }

    fn judge_moved(&self, before: &Value, after: &Value) -> Result<(), String> {
        let run = text(after, "run");
        if run != text(before, "run") {
            let row = self.disk.durable.get(Table::Run, run.as_bytes());
            if !matches!(row, Ok(Some(_))) {
                return Err("it has moved on, and its run is not there".to_owned());
            }
        }
        let name = text(after, "name");
        let due = before["nextMs"].as_u64();
        let next = after["nextMs"].as_u64();
        let stamp = |ms: u64| format!("{name}.{}", instant(ms).replace(['-', ':'], ""));
        match (name.as_str(), due, next) {
            ("every", Some(due), Some(next)) => self.judge_step(EVERY_MS, due, next, &run, &stamp),
            ("cron", Some(due), Some(next)) => self.judge_step(MINUTE_MS, due, next, &run, &stamp),
            ("after", Some(due), None) if run != stamp(due) => Err(format!("it was due at {due}")),
            ("after", None, Some(next)) => self.judge_after(&text(before, "run"), next),
            ("every" | "cron", ..) => Err("it is never due again".to_owned()),
            _ => Ok(()),
        }
    }

    /// From one instant to a later one: the last that has come has its run.
    fn judge_step(
        &self,
        every_ms: u64,
        due: u64,
        next: u64,
        run: &str,
        stamp: &dyn Fn(u64) -> String,
    ) -> Result<(), String> {
        let last = next.saturating_sub(every_ms);
        if last < due || !(last - due).is_multiple_of(every_ms) {
            return Err(format!("it was due at {due}"));
        }
        if run != stamp(last) {
            return Err(format!("the last instant was {last}"));
        }
        if last > self.now_ms() {
            return Err("its run comes too early".to_owned());
        }
        Ok(())
    }

    fn judge_after(&self, run: &str, next: u64) -> Result<(), String> {
        let row = self.disk.durable.get(Table::Run, run.as_bytes());
        let Ok(Some(row)) = row else {
            return Ok(());
        };
        let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
        let ended = row["endedMs"].as_u64();
        let is_over = self.oracle.status(run).is_some_and(Status::is_final);
        if !is_over || ended.is_none_or(|ended| ended + AFTER_MS != next) {
            return Err(format!("{run} has ended at {ended:?}"));
        }
        Ok(())
    }

    /// Everything is quiet: each event has begun its run, and no other run was begun.
    pub fn judge_schedules(&self) -> Result<(), String> {
        let events = &self.oracle.bus.events;
        let kind = |event: &cofferdam::CloudEvent| {
            event.to_value()["type"].as_str().map(ToOwned::to_owned)
        };
        for (name, known) in &self.oracle.schedules {
            let prefix = format!("{name}.");
            let runs: BTreeSet<&str> = self
                .oracle
                .runs
                .keys()
                .filter_map(|run| run.strip_prefix(&prefix))
                .collect();
            let fits = |wanted: &str| -> BTreeSet<u64> {
                let own = events.range(known.from_seq..);
                let own = own.filter(|(_, event)| kind(event).as_deref() == Some(wanted));
                own.map(|(seq, _)| *seq).collect()
            };
            let wanted: BTreeSet<u64> = match name.as_str() {
                "each" => fits("sim.a"),
                "pairs" => pairs(&fits("sim.a"), &fits("sim.b")),
                _ => continue,
            };
            let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
            let is_one_of = |run: &&str| wanted.contains(*run);
            if let Some(run) = runs.iter().find(|run| !is_one_of(run)) {
                return Err(format!(
                    "{name}.{run} was begun for nothing: those of {wanted:?} were to be"
                ));
            }
            if let Some(seq) = wanted.iter().find(|seq| !runs.contains(seq.as_str())) {
                return Err(format!("event {seq} has begun no run of {name}"));
            }
        }
        Ok(())
    }

    /// How many runs each schedule has begun.
    pub fn scheduled(&self) -> BTreeMap<String, usize> {
        let count = |name: &String| {
            let prefix = format!("{name}.");
            let runs = self.oracle.runs.keys();
            runs.filter(|run| run.starts_with(&prefix)).count()
        };
        let names = self.oracle.schedules.keys();
        names.map(|name| (name.clone(), count(name))).collect()
    }
}

/// The numbers of the events that complete a pair, one of each kind at a time.
fn pairs(first: &BTreeSet<u64>, second: &BTreeSet<u64>) -> BTreeSet<u64> {
    let mut complete = BTreeSet::new();
    let (mut has_first, mut has_second) = (false, false);
    for seq in first.union(second) {
        has_first |= first.contains(seq);
        has_second |= second.contains(seq);
        if has_first && has_second {
            complete.insert(*seq);
            (has_first, has_second) = (false, false);
        }
    }
    complete
}
