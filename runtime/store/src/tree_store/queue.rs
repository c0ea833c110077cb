//! The line in front of the committer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pace::Patience;
use crate::commit::Answer;
use crate::{Batch, Commit, Error};

/// Most commits that wait. Callers that await each commit never come near it; it bounds what
/// those that do not can pile up.
pub const QUEUE_COMMITS_MAX: usize = 65_536;

/// Most bytes of keys and values that wait.
pub const QUEUE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Most commits that share one flush. Beyond this a longer group makes each commit wait longer
/// and the throughput no better.
pub(super) const GROUP_COMMITS_MAX: usize = 1024;

/// Bytes after which a group takes no more commits: readers wait while a group is applied.
pub(super) const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Commits in the order of their calls, until the committer takes them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// The committer sleeps until so many wait.
    wanted: usize,
    closed: bool,
    /// Why nothing can be written any more.
    failed: Option<Error>,
}

impl State {
    /// Whether a group is worth writing.
    fn is_enough(&self) -> bool {
        self.jobs.len() >= self.wanted
            || self.bytes >= GROUP_BYTES_MAX
            || self.closed
            || self.failed.is_some()
    }
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: Answer,
    bytes: usize,
}

impl Queue {
    /// Puts a valid batch at the end of the line.
    pub(super) fn push(&self, batch: Batch) -> Commit {
        let bytes = batch.len_bytes();
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Commit::resolved(Err(error.clone()));
        }
        if state.closed {
            return Commit::resolved(Err(Error::Closed));
        }
        if state.jobs.len() >= QUEUE_COMMITS_MAX || state.bytes + bytes > QUEUE_BYTES_MAX {
            return Commit::resolved(Err(Error::Busy {
                commits: state.jobs.len(),
                bytes: state.bytes,
            }));
        }
        let (answer, commit) = Commit::pair();
        state.bytes += bytes;
        state.jobs.push_back(Job {
            batch,
            answer,
            bytes,
        });
        let is_enough = state.is_enough();
        drop(state);
        if is_enough {
            self.arrived.notify_one();
        }
        commit
    }

    /// How many commits wait.
    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether a batch is in the line that nobody has taken.
    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        !self.lock().jobs.is_empty()
    }

    /// Takes the next group, waiting for one, and then for those that may be expected with it;
    /// `None` once the queue is closed and empty.
    pub(super) fn take_group(&self, patience: Patience) -> Option<Vec<Job>> {
        let mut state = self.lock();
        state.wanted = 1;
        while state.jobs.is_empty() {
            if state.closed {
                return None;
            }
            state = self
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.wanted = patience.commits.min(GROUP_COMMITS_MAX);
        let mut state = self
            .arrived
            .wait_timeout_while(state, patience.time, |state| !state.is_enough())
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_COMMITS_MAX
            && (group.is_empty() || bytes < GROUP_BYTES_MAX)
            && let Some(job) = state.jobs.pop_front()
        {
            bytes += job.bytes;
            group.push(job);
        }
        state.bytes -= bytes;
        Some(group)
    }

    /// Waits for so long, or until the queue is closed; says which.
    pub(super) fn is_closed_within(&self, time: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self
            .arrived
            .wait_timeout_while(state, time, |state| !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    /// Takes no more commits; those that wait are still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Refuses every later commit with `error`, and those that wait as well.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.failed.get_or_insert_with(|| error.clone());
        state.bytes = 0;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        for job in jobs {
            job.answer.send(Err(error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock, but for a failing allocation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    const AT_ONCE: Patience = Patience {
        commits: 1,
        time: Duration::ZERO,
    };

    #[test]
    fn a_group_waits_for_those_that_are_expected_and_no_longer() {
        let queue = Queue::default();
        let _first = queue.push(Batch::new());
        let for_ever = Patience {
            commits: 2,
            time: Duration::MAX,
        };
        let group = std::thread::scope(|scope| {
            let taking = scope.spawn(|| queue.take_group(for_ever));
            let _second = queue.push(Batch::new());
            taking.join().unwrap()
        });
        assert_eq!(group.unwrap().len(), 2);
        let _third = queue.push(Batch::new());
        let soon = Patience {
            commits: 2,
            time: Duration::from_millis(1),
        };
        assert_eq!(queue.take_group(soon).unwrap().len(), 1);
    }

    #[test]
    fn what_waits_is_bounded_by_number_and_refused_beyond() {
        let queue = Queue::default();
        for _ in 0..QUEUE_COMMITS_MAX {
            assert!(!queue.push(Batch::new()).is_resolved());
        }
        let refused = queue.push(Batch::new()).wait();
        assert!(matches!(refused, Err(Error::Busy { .. })));
        assert_eq!(queue.take_group(AT_ONCE).unwrap().len(), GROUP_COMMITS_MAX);
        assert!(!queue.push(Batch::new()).is_resolved());
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_and_a_group_ends_when_it_is_large() {
        let queue = Queue::default();
        let large = || Batch::new().put(Table::Kv, "k", vec![0; crate::BATCH_BYTES_MAX / 2]);
        let mut accepted = 0;
        loop {
            let commit = queue.push(large());
            if commit.is_resolved() {
                assert!(matches!(commit.wait(), Err(Error::Busy { .. })));
                break;
            }
            accepted += 1;
        }
        assert!(accepted * (crate::BATCH_BYTES_MAX / 2) <= QUEUE_BYTES_MAX);
        assert_eq!(queue.take_group(AT_ONCE).unwrap().len(), 1);
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_then_ends() {
        let queue = Queue::default();
        let _unanswered = queue.push(Batch::new());
        queue.close();
        assert_eq!(queue.push(Batch::new()).wait(), Err(Error::Closed));
        assert_eq!(queue.take_group(AT_ONCE).unwrap().len(), 1);
        assert!(queue.take_group(AT_ONCE).is_none());
    }
}
