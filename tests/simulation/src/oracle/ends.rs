//! How runs end, and what is left when all have.

use std::collections::BTreeMap;

use cofferdam::{Provenance, RunView, Status, TaskStatus};
use cofferdam_core::run::Outcome;
use cofferdam_store::{JournalStore, Table};
use serde_json::Value;

use super::shadow::Shadow;
use super::{name_of, rows, text};
use crate::world::State;

/// Rows of [`Table::Subscription`]: somebody who waits, and where in the key it says who.
const WATCH: u8 = 2;
const WATCHER: usize = 1 + 16 + 16;

/// Whether it can be undone.
fn is_effect(action: &str) -> bool {
    !matches!(action, "read" | "undo")
}

impl State {
    /// Judges a run that has ended.
    pub fn judge_end(&mut self, view: &RunView) -> Result<(), String> {
        let run = &view.run;
        let Some(shadow) = self.oracle.runs.get(run) else {
            return Err(format!("run {run} has ended and is not on the disk"));
        };
        if shadow.run.status() != view.status {
            let (told, durable) = (view.status, shadow.run.status());
            return Err(format!(
                "run {run} is told {told:?} and is {durable:?} on the disk"
            ));
        }
        for (task, (identity, action)) in &shadow.calls {
            let report = view.tasks.iter().find(|report| report.task == *task);
            // One that was redriven may have taken another way, and what a run has forgotten went
            // with its first records.
            let may_lack = shadow.redriven > 0 || view.records_from.is_some();
            if report.is_none() && !may_lack {
                return Err(format!("run {run} does not tell of `{task}`"));
            }
            let provenance = report.and_then(|report| report.provenance.as_ref());
            let lives = matches!(provenance, Some(Provenance::Live | Provenance::Backup(_)));
            let by_fallback = matches!(provenance, Some(Provenance::Backup(_)))
                && shadow
                    .calls
                    .keys()
                    .any(|k| k.starts_with(&format!("{task}/~fallback")));
            let happened = self.services.happened(identity);
            if is_effect(action) && lives && !by_fallback && !happened {
                return Err(format!("`{identity}` is told and never happened"));
            }
            let other = format!("{identity}~other");
            if happened && is_effect(action) && self.services.happened(&other) {
                return Err(format!("`{identity}` happened here and elsewhere"));
            }
            self.judge_undone(shadow, task, identity, action, happened)?;
        }
        if self.oracle.cancelled.contains(run) && view.status != Status::Cancelled {
            return Err(format!("run {run} was cancelled, and is {:?}", view.status));
        }
        if view.status == Status::Faulted {
            let letter = self.disk.durable.get(Table::DeadLetter, run.as_bytes());
            if !matches!(letter, Ok(Some(_))) {
                return Err(format!("run {run} has faulted and left no dead letter"));
            }
        }
        self.judge_output(shadow, view)?;
        self.judge_waits(view)?;
        self.judge_events(view)
    }

    fn judge_undone(
        &self,
        shadow: &Shadow,
        task: &str,
        identity: &str,
        action: &str,
        happened: bool,
    ) -> Result<(), String> {
        if !is_effect(action) {
            return Ok(());
        }
        let stays = match shadow.run.outcome() {
            Some(Outcome::Cancelled { compensated, .. }) => !compensated,
            outcome => matches!(outcome, Some(Outcome::Completed { .. })),
        };
        if stays {
            let undone = self.services.undo_sent.contains(identity);
            return if undone {
                Err(format!(
                    "`{identity}` was undone, and its run has not failed"
                ))
            } else {
                Ok(())
            };
        }
        let promise = self.oracle.promises.get(name_of(identity));
        if !promise.is_some_and(|p| p.compensated) || !happened || identity.contains("~other") {
            return Ok(());
        }
        let told = (shadow.run.id().to_owned(), format!("undo:{task}"));
        let row = format!("{}\0{}", told.0, told.1);
        let waits = self.disk.durable.get(Table::Review, row.as_bytes());
        if self.oracle.reviewed.contains(&told) || matches!(waits, Ok(Some(_))) {
            return Ok(());
        }
        let effected = self.services.effects.get(identity);
        for connection in effected.iter().flat_map(|e| e.outputs.keys()) {
            let undone = (identity.to_owned(), connection.clone());
            if !self.services.undone.contains(&undone) {
                return Err(format!(
                    "`{identity}` happened on `{connection}`, its run has faulted, and it was \
                     neither undone there nor told"
                ));
            }
        }
        Ok(())
    }

    fn judge_events(&self, view: &RunView) -> Result<(), String> {
        let mut published: BTreeMap<String, u32> = BTreeMap::new();
        for (_, row) in rows(&self.disk.durable, Table::Event) {
            let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
            if text(&row, "run") == view.run {
                *published.entry(text(&row, "task")).or_default() += 1;
            }
        }
        for report in view.tasks.iter().filter(|r| r.kind == "emit") {
            let count = published.get(&report.task).copied().unwrap_or_default();
            let is_own = report.taken_from.is_none();
            let wanted = u32::from(is_own && report.status == TaskStatus::Completed);
            // A task that is tried again publishes again.
            if count < wanted || (count > 1 && !report.task.contains("~try")) {
                return Err(format!("`{}` published {count} events", report.task));
            }
        }
        Ok(())
    }

    /// Judges what is left when every run has ended and everything is quiet.
    pub fn judge_rest(&self) -> Result<(), String> {
        for table in [Table::Timer, Table::Parked, Table::Queue] {
            if let Some((key, _)) = rows(&self.disk.durable, table).first() {
                return Err(format!("a row is left in {table}: {}", key.escape_ascii()));
            }
        }
        for (key, _) in rows(&self.disk.durable, Table::Subscription) {
            // Those of schedules stay; a letter to a run that has ended and could not be read is taken
            // out when the store is next opened.
            if key.first() == Some(&WATCH) && key.get(WATCHER) == Some(&b'r') {
                return Err(format!("a listener is left: {}", key.escape_ascii()));
            }
        }
        for (key, _) in rows(&self.disk.durable, Table::RunByStatus) {
            let key = String::from_utf8_lossy(&key).into_owned();
            let mut parts = key.split('\0');
            let (status, run) = (parts.next(), parts.next().unwrap_or_default());
            let is = self.oracle.status(run).map(Status::as_str);
            if is != status {
                return Err(format!("run {run} is listed as {status:?} and is {is:?}"));
            }
        }
        let report = self.disk.durable.verify().map_err(|e| e.to_string())?;
        if !report.is_clean() {
            return Err(format!("the store is not whole: {:?}", report.problems));
        }
        Ok(())
    }

    /// Runs that have ended are gone as a whole, but for those that somebody has to see to.
    pub fn judge_removed(&self) -> Result<(), String> {
        let store = &self.disk.durable;
        let reviews = rows(store, Table::Review);
        for run in self.oracle.all_runs() {
            let letter = store.get(Table::DeadLetter, run.as_bytes());
            let prefix = format!("{run}\0");
            let is_kept = matches!(letter, Ok(Some(_)))
                || reviews
                    .iter()
                    .any(|(key, _)| key.starts_with(prefix.as_bytes()));
            let row = matches!(store.get(Table::Run, run.as_bytes()), Ok(Some(_)));
            let records = store.journal(&run, 0, 1).map_or(0, |records| records.len());
            if is_kept != row || is_kept != (records > 0) {
                return Err(format!(
                    "of {run}, to be kept: {is_kept}, there are {records} records, row: {row}"
                ));
            }
        }
        Ok(())
    }
}
