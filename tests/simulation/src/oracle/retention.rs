//! Runs that have ended are there as long as they are to be kept, and go as a whole.

use cofferdam::Status;
use cofferdam_store::{JournalStore, KeyRange, Table};

use super::Touched;
use crate::world::State;

const ENDED: [Status; 3] = [Status::Completed, Status::Faulted, Status::Cancelled];

impl State {
    /// Whether somebody has to see to what a run left.
    pub(super) fn is_kept(&self, run: &str) -> bool {
        let store = &self.disk.durable;
        let reviews = KeyRange::prefix(format!("{run}\0"));
        self.oracle.kept_ms.is_some()
            && (matches!(store.get(Table::DeadLetter, run.as_bytes()), Ok(Some(_)))
                || store
                    .scan(Table::Review, reviews, 1)
                    .is_ok_and(|found| !found.is_empty()))
    }

    /// People saw to what runs left; of a run that has ended nothing is written then.
    pub(super) fn note_seen_to(&mut self, touched: &Touched) {
        for key in &touched.reviews {
            let run = key.split(|byte| *byte == 0).next().unwrap_or_default();
            let run = String::from_utf8_lossy(run);
            let is_kept = self.is_kept(&run);
            if let Some(shadow) = self.oracle.runs.get_mut(&*run) {
                shadow.is_kept = is_kept;
            }
        }
    }

    /// A run is not there any more: its time was over.
    pub(super) fn judge_removal(&mut self, run: &str) -> Result<(), String> {
        let kept_ms = self.oracle.kept_ms.filter(|_| !self.oracle.removes);
        let Some(kept_ms) = kept_ms else {
            return Ok(());
        };
        let now_ms = self.now_ms();
        let ended_ms = self.oracle.ended_ms(run);
        let shadow = self.oracle.runs.get(run);
        let is_kept = shadow.is_some_and(|shadow| shadow.is_kept);
        let has_key = shadow.is_some_and(|shadow| shadow.key.is_some());
        if is_kept || ended_ms.is_none_or(|at| at + kept_ms > now_ms) {
            return Err(format!(
                "{run} is removed, has ended at {ended_ms:?}, and is to be kept: {is_kept}"
            ));
        }
        self.judge_gone(run)?;
        self.oracle.gone.insert(run.to_owned());
        if self.swarm.reuse && has_key {
            // Its key may begin another of the same id, which has all before it.
            self.oracle.runs.remove(run);
            self.oracle.cancelled.remove(run);
            self.services
                .forget(|identity| super::run_of(identity) == run);
        }
        Ok(())
    }

    /// Nothing is left of a run that was removed.
    fn judge_gone(&self, run: &str) -> Result<(), String> {
        let store = &self.disk.durable;
        let head = store.head(run).map_err(|e| e.to_string())?;
        let keys = ENDED.map(|status| format!("{}\0{run}", status.as_str()));
        let by_status = keys.map(|key| (Table::RunByStatus, key));
        let named = [Table::Checkpoint, Table::DeadLetter].map(|table| (table, run.to_owned()));
        for (table, key) in by_status.into_iter().chain(named) {
            if !matches!(store.get(table, key.as_bytes()), Ok(None)) {
                return Err(format!("{run} is removed, and has a row in {table}"));
            }
        }
        if head.next_seq != 0 || self.is_kept(run) {
            return Err(format!("{run} is removed, and is at {head:?}"));
        }
        Ok(())
    }
}
