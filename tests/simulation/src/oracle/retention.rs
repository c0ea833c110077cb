//! Runs that have ended are there as long as they are to be kept, and go as a whole.

use std::collections::BTreeSet;

use cofferdam::Status;
use cofferdam_store::{JournalStore, KeyRange, Table};

use super::rows;
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

    /// Looks which runs have been removed.
    pub(super) fn fold_gone(&mut self) -> Result<(), String> {
        let Some(kept_ms) = self.oracle.kept_ms.filter(|_| !self.oracle.removes) else {
            return Ok(());
        };
        let now_ms = self.now_ms();
        let there: BTreeSet<Vec<u8>> = rows(&self.disk.durable, Table::Run)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let oracle = &self.oracle;
        let is_gone =
            |run: &&String| !there.contains(run.as_bytes()) && !oracle.gone.contains(*run);
        let gone: Vec<String> = oracle.runs.keys().filter(is_gone).cloned().collect();
        for run in gone {
            let ended_ms = self.oracle.ended_ms(&run);
            let is_kept = self
                .oracle
                .runs
                .get(&run)
                .is_some_and(|shadow| shadow.is_kept);
            if is_kept || ended_ms.is_none_or(|at| at + kept_ms > now_ms) {
                return Err(format!(
                    "{run} is removed, has ended at {ended_ms:?}, and is to be kept: {is_kept}"
                ));
            }
            self.judge_gone(&run)?;
            self.oracle.gone.insert(run);
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
