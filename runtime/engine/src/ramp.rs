//! Leave for what a drain lets go; see [`cofferdam_core::ramp`].

use std::sync::Arc;

use cofferdam_core::ramp::{self, Ended, State};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The ramp of one connection. Clones are one.
#[derive(Clone)]
pub(crate) struct Ramp {
    shared: Arc<Shared>,
}

struct Shared {
    ramp: Mutex<ramp::Ramp>,
    changed: Notify,
}

/// Leave for one that was let go; it ends when this is dropped, wherever that is.
pub(crate) struct Leave {
    shared: Arc<Shared>,
    how: Ended,
}

impl Ramp {
    pub fn new(window_max: usize) -> Self {
        let window_max = u32::try_from(window_max).unwrap_or(u32::MAX);
        Self {
            shared: Arc::new(Shared {
                ramp: Mutex::new(ramp::Ramp::new(window_max)),
                changed: Notify::new(),
            }),
        }
    }

    /// Begins with one.
    pub fn resume(&self) {
        self.shared.ramp.lock().resume();
    }

    /// Waits until some may be let go, and says how many; 0 if it backs off.
    pub async fn room(&self) -> usize {
        self.until(|ramp| ramp.free() > 0).await;
        usize::try_from(self.shared.ramp.lock().free()).unwrap_or(usize::MAX)
    }

    /// Waits until all that were let go have ended; false if it backs off.
    pub async fn settled(&self) -> bool {
        self.until(|ramp| ramp.in_flight() == 0).await;
        self.shared.ramp.lock().state() != State::BackingOff
    }

    async fn until(&self, is_so: impl Fn(&ramp::Ramp) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            let ramp = *self.shared.ramp.lock();
            if is_so(&ramp) || ramp.state() == State::BackingOff {
                return;
            }
            changed.await;
        }
    }

    /// Lets one go, if one may be.
    pub fn let_go(&self) -> Option<Leave> {
        self.shared.ramp.lock().let_go().then(|| Leave {
            shared: Arc::clone(&self.shared),
            how: Ended::Neutral,
        })
    }
}

impl Leave {
    /// Says how it went; without a word it says nothing.
    pub fn went(&mut self, how: Ended) {
        self.how = how;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.ramp.lock().ended(self.how);
        // Only the drain of the connection waits; the permit is kept if it does not at this moment.
        self.shared.changed.notify_one();
    }
}

impl std::fmt::Debug for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leave")
    }
}
