//! Events: a durable bus, the runs and schedules that wait for them, and subscribers.
//!
//! An event that is published gets a number and is on the disk before its publisher hears of it
//! ([`bus`]). The [`dispatch`]er then looks up, event by event, who waits for it, and lays it into
//! their letter boxes; a run takes from its box in order ([`mailbox`]), a schedule begins a run
//! ([`crate::schedules`]). Programs that embed the runtime read the bus through [`subscriber`]s, each
//! with a place of its own. Nobody waits for anybody else.

pub(crate) mod bus;
pub(crate) mod dispatch;
pub(crate) mod keys;
pub(crate) mod lifecycle;
pub(crate) mod mailbox;
pub(crate) mod subscriber;

pub use bus::Published;
pub use lifecycle::Lifecycle;
pub use subscriber::{Delivery, StartAt, SubscribeOptions, Subscriber, SubscriberState};

use std::time::Duration;

/// How long events are kept, by number and by age, whichever ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventOptions {
    /// At most so many; default 100,000.
    pub keep_max: u64,
    /// At most so long; default 7 days.
    pub keep_for: Duration,
    /// Which events runs publish about themselves; default none.
    pub lifecycle: Lifecycle,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            keep_max: 100_000,
            keep_for: Duration::from_hours(24 * 7),
            lifecycle: Lifecycle::Off,
        }
    }
}
