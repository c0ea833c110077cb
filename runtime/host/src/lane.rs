//! The slow lane: threads of their own, of lower priority, for calls that compute for long.
//!
//! A guest that spins gives its thread back at every tick, and still a neighbour on that thread
//! waits for up to a tick whenever its turn comes: a hundred times what its own call takes. So a
//! call that has used more than a few milliseconds is moved to the lane, where it competes with its
//! like, and the system's scheduler puts whoever has little to do before it.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How much less the lane's threads get when others want to run as well: about a tenth.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Made when the first call needs it.
#[derive(Default)]
pub(crate) struct Lane {
    runtime: OnceLock<Option<Runtime>>,
}

impl Lane {
    /// Goes on with a call here. `Err` gives it back if the system has no thread to spare.
    pub(crate) fn spawn<F>(&self, call: F) -> Result<JoinHandle<F::Output>, F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self.runtime.get_or_init(runtime) {
            Some(runtime) => Ok(runtime.spawn(call)),
            None => Err(call),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The last call may end on a thread of the lane itself, which cannot wait for its own end.
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Option<Runtime> {
    let built = Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
        .thread_name("cofferdam-lane")
        .on_thread_start(lower_priority)
        .enable_all()
        .build();
    built
        .inspect_err(
            |error| tracing::warn!(%error, "calls that compute for long stay where they are"),
        )
        .ok()
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux this is the thread's own priority. Not getting it only makes neighbours slower.
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_in_it_has_a_lower_priority_and_its_own_threads() {
        let lane = Lane::default();
        let work = async { (std::thread::current().id(), priority()) };
        let Ok(task) = lane.spawn(work) else {
            panic!("there are threads to spare");
        };
        let (thread, theirs) = task.await.unwrap();
        assert_ne!(thread, std::thread::current().id());
        assert!(theirs >= priority());
        #[cfg(target_os = "linux")]
        assert!(theirs >= NICE);
    }

    /// Ending it from within has to be possible: the last call may hold the host.
    #[tokio::test]
    async fn it_can_end_on_one_of_its_own_threads() {
        let lane = std::sync::Arc::new(Lane::default());
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let held = std::sync::Arc::clone(&lane);
        let work = async move {
            let _ = receiver.await;
            drop(held);
        };
        let Ok(task) = lane.spawn(work) else {
            panic!("there are threads to spare");
        };
        drop(lane);
        sender.send(()).unwrap();
        assert!(task.await.is_ok_and(|()| true));
    }

    #[cfg(target_os = "linux")]
    fn priority() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[cfg(not(target_os = "linux"))]
    fn priority() -> i32 {
        0
    }
}
