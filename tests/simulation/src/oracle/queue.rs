//! Whose turn it is: keys that runs share, and room in memory.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam::{OnConflict, Status};

use super::shadow::Shadow;
use crate::world::State;

impl State {
    /// A run's turn has come: as many others of its key are under way as may be, and not more.
    pub(super) fn judge_turn(&self, shadow: &Shadow) -> Result<(), String> {
        let Some(key) = &shadow.concurrency_key else {
            return Ok(());
        };
        let most = self.oracle.admission.key(key);
        let others = self.oracle.runs.values().filter(|other| {
            other.has_turn
                && other.run.id() != shadow.run.id()
                && other.concurrency_key.as_ref() == Some(key)
        });
        let others: Vec<&str> = others.map(|other| other.run.id()).collect();
        if others.len() >= most {
            return Err(format!(
                "begins beside {others:?}, and `{key}` lets {most} in"
            ));
        }
        Ok(())
    }

    /// Where nothing wakes a run but its turn, those that call are those in memory.
    pub(super) fn judge_memory(&mut self, run: &str) {
        if !self.swarm.tame || !self.oracle.starts.contains_key(run) {
            return;
        }
        let waiting = self.services.waiting.values();
        let mut runs: BTreeSet<&str> = waiting
            .map(|request| super::run_of(&request.identity))
            .filter(|run| self.oracle.starts.contains_key(*run))
            .collect();
        runs.insert(run);
        let admission = &self.oracle.admission;
        let most = admission.runs_active_max;
        let tenant = &self.oracle.starts[run];
        let own = runs
            .iter()
            .filter(|run| self.oracle.starts[**run] == *tenant);
        let own_most = admission.tenant(tenant).runs_max;
        let wrong = if runs.len() > most {
            format!("{runs:?} are under way, and {most} may be")
        } else if own.clone().count() > own_most && self.processes == 1 {
            // One that was stopped gave its place away, and is taken up with the others.
            let own: Vec<_> = own.collect();
            format!("{own:?} of `{tenant}` are under way, and {own_most} may be")
        } else {
            return;
        };
        self.violated(wrong);
    }

    /// A run of a key begins: there is no other, or those before have ended as the policy says.
    pub(super) fn judge_key(&self, run: &str, key: &str) -> Result<(), String> {
        let others = self.oracle.runs.iter().filter(|(other, shadow)| {
            // Who redrives a run that has failed does not ask what was begun instead of it.
            let is_another = other.as_str() != run && shadow.redriven == 0;
            shadow.key.as_deref() == Some(key) && is_another
        });
        for (other, shadow) in others {
            let status = shadow.status();
            if !begins_another(self.oracle.on_conflict, status) {
                return Err(format!("begins for `{key}`, and {other} is {status:?}"));
            }
        }
        Ok(())
    }

    /// The runs of a key that are so durably ended that a start with it begins another.
    pub fn used_up(&self, key: &str) -> BTreeMap<String, u64> {
        // Who redrives a run that has failed does not ask either.
        let all = self.oracle.runs.iter().filter(|_| !self.swarm.verbs);
        let of_key = all.filter(|(_, shadow)| shadow.key.as_deref() == Some(key));
        let over = of_key.filter(|(_, s)| begins_another(self.oracle.on_conflict, s.status()));
        over.map(|(run, shadow)| (run.clone(), shadow.born))
            .collect()
    }

    /// A start with a key gave this run.
    pub fn judge_given(&self, run: &str, used_up: &BTreeMap<String, u64>) -> Result<(), String> {
        let Some(shadow) = self.oracle.runs.get(run) else {
            return Ok(());
        };
        // One of the same id may have begun where that one is gone.
        if used_up.get(run) == Some(&shadow.born) {
            let how = self.oracle.on_conflict;
            let status = shadow.status();
            return Err(format!(
                "a start that is to {how:?} gives {run}, which is {status:?}"
            ));
        }
        Ok(())
    }
}

/// Whether a start with the key of a run that is there begins another.
fn begins_another(how: OnConflict, status: Status) -> bool {
    match how {
        OnConflict::UseExisting | OnConflict::Fail => false,
        OnConflict::RestartIfFaulted => matches!(status, Status::Faulted | Status::Cancelled),
        OnConflict::RestartIfEnded => status.is_final(),
    }
}
