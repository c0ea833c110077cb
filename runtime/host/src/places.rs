//! Places that calls take and give back: of a pool, of a connection.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::sync::Notify;

/// So many places. Whoever finds one free takes it without a lock; the others wait in order.
///
/// A semaphore that locks only when somebody waits: tokio's takes a lock each time a permit is
/// given back, and one of these is shared by all calls of a host.
pub(crate) struct Places {
    total: u32,
    free: AtomicU32,
    waiting: AtomicU32,
    wake: Notify,
}

impl Places {
    pub(crate) fn new(total: u32) -> Arc<Self> {
        Arc::new(Self {
            total,
            free: AtomicU32::new(total),
            waiting: AtomicU32::new(0),
            wake: Notify::new(),
        })
    }

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.take_free()
    }

    /// Waits for a place. Dropped, it waits no longer and has taken nothing. `None` if
    /// `waiting_max` wait already.
    pub(crate) async fn take(self: &Arc<Self>, waiting_max: u32) -> Option<Place> {
        if let Some(place) = self.try_take() {
            return Some(place);
        }
        let _waiting = Waiting::enter(&self.waiting, waiting_max)?;
        loop {
            let mut woken = pin!(self.wake.notified());
            // Who gives a place back looks for waiters after it; who waits looks for places after
            // having been counted. So one of the two sees the other.
            woken.as_mut().enable();
            if let Some(place) = self.take_free() {
                return Some(place);
            }
            woken.await;
        }
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.total.saturating_sub(self.free.load(SeqCst))
    }

    /// Calls that wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    fn take_free(self: &Arc<Self>) -> Option<Place> {
        let taken = self
            .free
            .fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1));
        taken.ok().map(|_| Place(Arc::clone(self)))
    }
}

/// A place that is taken; given back when it is dropped.
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, SeqCst);
        if self.0.waiting() > 0 {
            self.0.wake.notify_one();
        }
    }
}

/// One who waits; counted until the wait ends, however it ends.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicU32, waiting_max: u32) -> Option<Self> {
        waiting
            .fetch_update(SeqCst, SeqCst, |count| {
                (count < waiting_max).then_some(count + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(2);
        let (first, second) = (places.try_take(), places.try_take());
        assert!(first.is_some() && second.is_some() && places.try_take().is_none());
        drop(first);
        assert_eq!(places.taken(), 1);
        assert!(places.try_take().is_some());
    }

    #[test]
    fn whoever_waits_is_served_before_whoever_comes() {
        let places = Places::new(1);
        let held = places.try_take();
        let mut waits = Box::pin(places.take(1));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(places.take(1).now_or_never().is_some_and(|p| p.is_none()));
        drop(held);
        assert!(
            places.try_take().is_none(),
            "it is meant for the one that waits"
        );
        assert!(waits.as_mut().now_or_never().flatten().is_some());
        drop(waits);
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[test]
    fn a_wait_that_is_dropped_passes_its_turn_on() {
        let places = Places::new(1);
        let held = places.try_take();
        let mut first = Box::pin(places.take(2));
        let mut second = Box::pin(places.take(2));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        drop(held);
        drop(first);
        assert!(second.as_mut().now_or_never().flatten().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_is_forgotten_and_no_place_is_taken_twice() {
        let places = Places::new(3);
        let inside = Arc::new(AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (places, inside) = (Arc::clone(&places), Arc::clone(&inside));
            tasks.spawn(async move {
                for _ in 0..100 {
                    let _place = places.take(u32::MAX).await;
                    assert!(inside.fetch_add(1, SeqCst) < 3);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, SeqCst);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            assert!(done.is_ok());
        }
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }
}
