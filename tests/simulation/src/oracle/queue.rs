//! Whose turn it is: keys that runs share, and room in memory.

use std::collections::BTreeSet;

use cofferdam::Status;

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

    /// A run of a key begins: there is no other, or the one before has failed.
    pub(super) fn judge_key(&self, run: &str, key: &str) -> Result<(), String> {
        let others = self.oracle.runs.iter().filter(|(other, shadow)| {
            // Who redrives a run that has failed does not ask what was begun instead of it.
            let is_another = other.as_str() != run && shadow.redriven == 0;
            shadow.key.as_deref() == Some(key) && is_another
        });
        for (other, shadow) in others {
            let has_failed = matches!(shadow.status(), Status::Faulted | Status::Cancelled);
            if !self.oracle.restarts || !has_failed {
                let status = shadow.status();
                return Err(format!("begins for `{key}`, and {other} is {status:?}"));
            }
        }
        Ok(())
    }
}
