//! Waiting for runs, and what those who wait are told.

use std::collections::HashMap;
use std::sync::Arc;

use cofferdam_core::run::Status;
use cofferdam_store::Batch;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::runtime::{Inner, Runtime};
use crate::view::RunView;
use crate::{Error, query};

/// What is told when a run is let go of: how it is, if it has ended.
type Told = Option<Arc<RunView>>;

/// Who waits until a run is let go of, by run.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<HashMap<String, Vec<oneshot::Sender<Told>>>>);

impl Waiters {
    /// Resolves when the run is next let go of.
    pub fn changed(&self, run: &str) -> oneshot::Receiver<Told> {
        let (sender, changed) = oneshot::channel();
        let mut waiters = self.0.lock();
        let waiting = waiters.entry(run.to_owned()).or_default();
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        changed
    }

    /// Whether anybody waits for the run.
    pub fn are_there(&self, run: &str) -> bool {
        self.0.lock().contains_key(run)
    }

    /// Tells all who wait, and forgets them.
    pub fn tell(&self, run: &str, told: &Told) {
        let waiting = self.0.lock().remove(run);
        for waiter in waiting.into_iter().flatten() {
            let _ = waiter.send(told.clone());
        }
    }

    /// Forgets those who wait no more.
    fn forget_closed(&self, run: &str) {
        let mut waiters = self.0.lock();
        if let Some(waiting) = waiters.get_mut(run) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                waiters.remove(run);
            }
        }
    }
}

impl Runtime {
    /// Waits for the end of a run. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NoRun`]; [`Error::Store`] if the run cannot go on; [`Error::ShuttingDown`].
    pub async fn wait(&self, run: &str) -> Result<RunView, Error> {
        self.wait_until(run, Status::is_final).await
    }

    /// Waits until a run has ended or waits itself, for a connection, an instant or a person.
    ///
    /// # Errors
    /// As for [`Runtime::wait`].
    pub async fn settle(&self, run: &str) -> Result<RunView, Error> {
        self.wait_until(run, |status| {
            status.is_final() || matches!(status, Status::Waiting | Status::Suspended)
        })
        .await
    }

    async fn wait_until(
        &self,
        run: &str,
        enough: impl Fn(Status) -> bool,
    ) -> Result<RunView, Error> {
        loop {
            let changed = self.inner.waiters.changed(run);
            let Some(row) = self.inner.row(run)? else {
                drop(changed);
                self.inner.waiters.forget_closed(run);
                let run = run.to_owned();
                return Err(Error::NoRun { run });
            };
            // While it is held, what its row says may not be on the disk yet.
            let held = self.inner.is_held(run);
            let stopped = self.inner.is_stopped(run);
            if enough(row.status) && !held {
                // First, so that it is what was asked for: somebody may go on with the run.
                let view = self.run(run);
                self.is_on_disk(run, stopped).await?;
                drop(changed);
                self.inner.waiters.forget_closed(run);
                if view.as_ref().is_ok_and(|view| !enough(view.status)) {
                    tokio::task::yield_now().await;
                    continue;
                }
                return view;
            }
            if stopped {
                return Err(self.inner.why_stopped(run));
            }
            if self.inner.closing.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            tokio::select! {
                biased;
                told = changed => if let Ok(Some(view)) = told {
                    return Ok(Arc::unwrap_or_clone(view));
                },
                () = self.inner.closing.cancelled() => return Err(Error::ShuttingDown),
            }
        }
    }

    /// What was read of a run may come of a commit that failed, and whose runner nobody remembers.
    async fn is_on_disk(&self, run: &str, stopped: bool) -> Result<(), Error> {
        match self.inner.is_on_disk(run).await {
            Err(_) if stopped => Err(self.inner.why_stopped(run)),
            told => told,
        }
    }

    /// One run, read from its journal.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Store`], [`Error::Journal`].
    pub fn run(&self, run: &str) -> Result<RunView, Error> {
        let mut view = self.inner.view(run)?;
        for wait in &mut view.waits {
            self.inner.explain(wait);
        }
        Ok(view)
    }
}

impl Inner {
    /// Returns when what was read of a run before is on the disk. The store knows of most runs that
    /// they are, whatever has become of the disk since; of others only a commit after it tells,
    /// which waits for room on a full disk.
    pub(crate) async fn is_on_disk(&self, run: &str) -> Result<(), Error> {
        if self.store.is_durable(run) {
            return Ok(());
        }
        Ok(self.store.commit(Batch::new()).await?)
    }

    /// A run as its journal has it.
    pub(crate) fn view(&self, run: &str) -> Result<RunView, Error> {
        query::view(&*self.store, run, |hash| self.definition(hash))
    }
}
