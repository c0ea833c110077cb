//! A store in memory: the model that the others are compared with, and the one that tests break
//! on purpose.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::audit::Audit;
use crate::commit::Answer;
use crate::heads;
use crate::store::{Records, Rows, records};
use crate::table::{check_run, journal_key, parse_journal_key, run_prefix};
use crate::{Batch, Commit, Entry, Error, Head, JournalStore, KeyRange, Report, Table, Write};

/// A [`JournalStore`] without a disk: everything is gone with the last clone of it.
///
/// Clones share their contents. Commits take effect and resolve at once, on the caller's thread,
/// in the order of the calls, so that a simulation with it is deterministic. Faults are planned
/// with [`inject`](Self::inject), [`hold`](Self::hold) and [`stop_after`](Self::stop_after).
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

/// What is to happen to one commit that would otherwise be applied and acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not applied; resolves to [`Error::Io`].
    Lost,
    /// Applied; resolves to [`Error::Io`] all the same, as when the machine dies between the
    /// write and the acknowledgement.
    Unacknowledged,
    /// Not applied; resolves to [`Error::Busy`].
    Busy,
}

#[derive(Debug, Default)]
struct State {
    data: Data,
    /// Commits applied so far.
    applied: u64,
    faults: VecDeque<Fault>,
    /// Of the next row that cannot be read.
    unreadable: Option<Table>,
    holding: bool,
    held: VecDeque<(Batch, Answer)>,
    /// Commits that are still applied before the store stops.
    left: Option<u64>,
    /// Runs that a commit touched which was applied and not acknowledged.
    doubtful: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
struct Data {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    heads: BTreeMap<String, Head>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans a fault for the next commit that is not refused for reasons of its own; several are
    /// used up in order, one per commit.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// The next row that is asked for by its key in this table cannot be read.
    pub fn fail_get(&self, table: Table) {
        self.lock().unreadable = Some(table);
    }

    /// From here on commits wait, unapplied and in order, until [`release`](Self::release): a
    /// slow disk. What waits is not in a [`snapshot`](Self::snapshot), as it would be lost.
    pub fn hold(&self) {
        self.lock().holding = true;
    }

    /// Applies what waits, in order, and stops holding.
    pub fn release(&self) {
        let mut state = self.lock();
        state.holding = false;
        let mut answers = Vec::new();
        while let Some((batch, answer)) = state.held.pop_front() {
            answers.push((answer, state.commit(&batch)));
        }
        drop(state);
        // Outside of the lock: an answer may wake somebody who commits at once.
        for (answer, result) in answers {
            answer.send(result);
        }
    }

    /// Lets `commits` more commits through; then the store is as if the process had been killed
    /// there: every later commit resolves to [`Error::Closed`], and [`snapshot`](Self::snapshot)
    /// is what a restart would find.
    pub fn stop_after(&self, commits: u64) {
        self.lock().left = Some(commits);
    }

    /// Whether the store has come to the end set by [`stop_after`](Self::stop_after).
    pub fn is_stopped(&self) -> bool {
        self.lock().left == Some(0)
    }

    /// How many commits were applied, empty ones included.
    pub fn commits(&self) -> u64 {
        self.lock().applied
    }

    /// Another store, with the same contents, without faults and independent of this one: what a
    /// restart would find after a crash here.
    pub fn snapshot(&self) -> Self {
        let state = State {
            data: self.lock().data.clone(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A batch is checked in full before the first write of it is applied, and applying it
        // does not panic: the state behind a poisoned lock is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if self.left == Some(0) {
            return Err(Error::Closed);
        }
        let changes = heads::resolve(batch, |run| Ok(self.data.head(run)))?;
        let fault = self.faults.pop_front();
        match fault {
            Some(Fault::Lost) => return Err(injected("a commit")),
            Some(Fault::Busy) => {
                return Err(Error::Busy {
                    commits: self.held.len() + 1,
                    bytes: batch.len_bytes(),
                });
            }
            Some(Fault::Unacknowledged) | None => {}
        }
        if fault.is_some() {
            self.doubtful.extend(changes.keys().cloned());
            self.doubtful.extend(rows_of_runs(batch));
        }
        self.data.apply(batch, changes)?;
        self.applied += 1;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        match fault {
            Some(_) => Err(injected("a commit")),
            None => Ok(()),
        }
    }
}

/// Runs whose rows a batch writes, without their journals.
fn rows_of_runs(batch: &Batch) -> impl Iterator<Item = String> {
    batch.writes.iter().filter_map(|write| match write {
        Write::Put { table, key, .. } | Write::Delete { table, key } if *table == Table::Run => {
            Some(String::from_utf8_lossy(key).into_owned())
        }
        _ => None,
    })
}

fn injected(action: &str) -> Error {
    Error::Io {
        action: action.to_owned(),
        detail: "injected fault".to_owned(),
    }
}

impl Data {
    fn head(&self, run: &str) -> Head {
        self.heads.get(run).copied().unwrap_or_default()
    }

    fn apply(&mut self, batch: &Batch, changes: heads::Changes) -> Result<(), Error> {
        for write in &batch.writes {
            match write {
                Write::Append { run, seq, record } => {
                    let key = (Table::Journal, journal_key(run, *seq)?);
                    self.rows.insert(key, record.clone());
                }
                Write::Put { table, key, value } => {
                    self.rows.insert((*table, key.clone()), value.clone());
                }
                Write::PutNew { table, key, value } => {
                    let key = (*table, key.clone());
                    self.rows.entry(key).or_insert_with(|| value.clone());
                }
                Write::Delete { table, key } => {
                    self.rows.remove(&(*table, key.clone()));
                }
                Write::DeleteUnreferenced {
                    table,
                    key,
                    references,
                } => {
                    let kept_by = KeyRange::prefix(references.as_slice());
                    if self.scan(*table, &kept_by, 1).is_empty() {
                        self.rows.remove(&(*table, key.clone()));
                    }
                }
                Write::Claim { .. } | Write::Place { .. } | Write::Forget { .. } => {}
            }
        }
        for (run, head) in changes {
            match head {
                Some(head) => self.heads.insert(run, head),
                None => self.heads.remove(&run),
            };
        }
        Ok(())
    }

    fn scan(&self, table: Table, range: &KeyRange, limit: usize) -> Rows {
        self.rows
            .range((table, range.start.clone())..)
            .take_while(|((of, key), _)| {
                *of == table && range.end.as_ref().is_none_or(|end| key < end)
            })
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl JournalStore for MemoryStore {
    fn commit(&self, batch: Batch) -> Commit {
        if let Err(error) = batch.validate() {
            return Commit::resolved(Err(error));
        }
        let mut state = self.lock();
        if state.holding {
            let (answer, commit) = Commit::pair();
            state.held.push_back((batch, answer));
            return commit;
        }
        let result = state.commit(&batch);
        Commit::resolved(result)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut state = self.lock();
        if state.unreadable.take_if(|of| *of == table).is_some() {
            return Err(injected("a read"));
        }
        Ok(state.data.rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Result<Rows, Error> {
        Ok(self.lock().data.scan(table, &range, limit))
    }

    fn head(&self, run: &str) -> Result<Head, Error> {
        check_run(run)?;
        Ok(self.lock().data.head(run))
    }

    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Result<Records, Error> {
        let range = KeyRange {
            start: journal_key(run, from_seq)?,
            ..KeyRange::prefix(run_prefix(run)?)
        };
        let rows = self.lock().data.scan(Table::Journal, &range, limit);
        records(run, rows)
    }

    fn read_all(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let data = self.lock().data.clone();
        for ((table, key), value) in &data.rows {
            visit(Entry::Row {
                table: *table,
                key,
                value,
            })?;
        }
        for (run, head) in &data.heads {
            visit(Entry::Head { run, head: *head })?;
        }
        visit(Entry::End)
    }

    fn is_durable(&self, run: &str) -> bool {
        !self.lock().doubtful.contains(run)
    }

    fn verify(&self) -> Result<Report, Error> {
        let state = self.lock();
        let data = &state.data;
        let mut report = Report {
            rows: data.rows.len() as u64,
            bytes: data.rows.values().map(|value| value.len() as u64).sum(),
            runs: data.heads.len() as u64,
            ..Report::default()
        };
        let mut audit = Audit::default();
        let head = |run: &str| data.heads.get(run).copied();
        for (table, key) in data.rows.keys() {
            let Some((run, seq)) = parse_journal_key(key).filter(|_| *table == Table::Journal)
            else {
                continue;
            };
            if audit.run() != run {
                let done = std::mem::replace(&mut audit, Audit::of(run));
                let at = head(done.run());
                done.end(at, &mut report);
            }
            audit.record(seq, &mut report);
        }
        let at = head(audit.run());
        audit.end(at, &mut report);
        Ok(report)
    }

    fn size_on_disk(&self) -> Result<u64, Error> {
        let state = self.lock();
        let rows = state.data.rows.iter();
        Ok(rows
            .map(|((_, key), value)| (key.len() + value.len()) as u64)
            .sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    fn put(store: &MemoryStore, key: &str) -> Commit {
        store.commit(Batch::new().put(Table::Kv, key, "v"))
    }

    fn has(store: &MemoryStore, key: &str) -> bool {
        store.get(Table::Kv, key.as_bytes()).unwrap().is_some()
    }

    #[test]
    fn the_model_passes_the_conformance_suite() {
        conformance::check_all(|| Box::new(MemoryStore::new()));
    }

    #[test]
    fn each_planned_fault_hits_one_commit() {
        let store = MemoryStore::new();
        store.inject(Fault::Lost);
        store.inject(Fault::Unacknowledged);
        store.inject(Fault::Busy);
        assert!(put(&store, "lost").wait().unwrap_err().is_unknown_outcome());
        let error = put(&store, "there").wait().unwrap_err();
        assert!(error.is_unknown_outcome());
        assert!(matches!(
            put(&store, "busy").wait(),
            Err(Error::Busy { .. })
        ));
        assert_eq!(put(&store, "fine").wait(), Ok(()));
        let found = ["lost", "there", "busy", "fine"].map(|key| has(&store, key));
        assert_eq!(found, [false, true, false, true]);
    }

    #[test]
    fn held_commits_are_applied_in_order_on_release_and_lost_in_a_crash() {
        let store = MemoryStore::new();
        store.hold();
        let commits = [put(&store, "a"), store.commit(Batch::new().claim("r", 1))];
        assert!(commits.iter().all(|commit| !commit.is_resolved()));
        let crashed = store.snapshot();
        store.release();
        assert!(commits.map(Commit::wait).iter().all(Result::is_ok));
        assert!(has(&store, "a"));
        assert!(!has(&crashed, "a"));
        assert_eq!(put(&store, "b").wait(), Ok(()));
    }

    #[test]
    fn a_stopped_store_keeps_what_a_restart_would_find() {
        let store = MemoryStore::new();
        store.stop_after(2);
        for key in ["a", "b"] {
            assert!(!store.is_stopped());
            assert_eq!(put(&store, key).wait(), Ok(()));
        }
        assert!(store.is_stopped());
        assert_eq!(put(&store, "c").wait(), Err(Error::Closed));
        let restarted = store.snapshot();
        let found = ["a", "b", "c"].map(|key| has(&restarted, key));
        assert_eq!(found, [true, true, false]);
        assert_eq!(put(&restarted, "c").wait(), Ok(()));
        assert!(!has(&store, "c"));
    }
}
