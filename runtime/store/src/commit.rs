//! The promise of a commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::Error;

/// A batch on its way to the disk: resolves when it is durable, or refused.
///
/// `Ok` means that the batch survives a kill of the process and a loss of power. The batch is
/// handed over when [`crate::JournalStore::commit`] returns; **dropping the `Commit` does not
/// cancel it**, it only forgoes the answer. After [`Error::Io`] the outcome is unknown.
#[must_use = "a batch is durable only when its commit has resolved"]
#[derive(Debug)]
pub struct Commit {
    slot: Arc<Slot>,
}

/// The other end of a [`Commit`]. Dropped without an answer, it answers [`Error::Closed`], so
/// that nobody waits for ever.
#[derive(Debug)]
pub struct Answer {
    slot: Arc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), Error>>,
    waker: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// A commit that has resolved already.
    pub fn resolved(result: Result<(), Error>) -> Self {
        let (answer, commit) = Self::pair();
        answer.send(result);
        commit
    }

    /// A commit and the one who answers it: for stores outside of this crate.
    pub fn pair() -> (Answer, Self) {
        let slot = Arc::new(Slot::default());
        let answer = Answer {
            slot: Arc::clone(&slot),
        };
        (answer, Self { slot })
    }

    /// Blocks the thread until the commit has resolved. For callers outside of async code: on a
    /// thread of an async runtime it would keep other tasks from running.
    pub fn wait(self) -> Result<(), Error> {
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state = self
                .slot
                .answered
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the commit has resolved, so that awaiting it would not wait.
    pub fn is_resolved(&self) -> bool {
        self.slot.lock().result.is_some()
    }
}

impl Future for Commit {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        // The result stays, so that a future polled once more after completion answers again
        // instead of waiting for ever.
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Answer {
    /// Resolves the commit.
    pub fn send(self, result: Result<(), Error>) {
        self.resolve(result);
    }

    /// The first answer counts.
    fn resolve(&self, result: Result<(), Error>) {
        let mut state = self.slot.lock();
        if state.result.is_some() {
            return;
        }
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.slot.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.resolve(Err(Error::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_whose_other_end_is_lost_answers_closed() {
        let (answer, commit) = Commit::pair();
        assert!(!commit.is_resolved());
        drop(answer);
        assert_eq!(commit.wait(), Err(Error::Closed));
    }

    #[test]
    fn a_waiting_task_is_woken_by_the_answer() {
        let (answer, mut commit) = Commit::pair();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut commit).poll(&mut context).is_pending());
        answer.send(Ok(()));
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(
            Pin::new(&mut commit).poll(&mut context),
            Poll::Ready(Ok(()))
        );
        assert_eq!(
            Pin::new(&mut commit).poll(&mut context),
            Poll::Ready(Ok(()))
        );
    }

    #[test]
    fn a_waiting_thread_is_woken_by_the_answer() {
        let (answer, commit) = Commit::pair();
        let thread = std::thread::spawn(move || commit.wait());
        answer.send(Ok(()));
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
}
