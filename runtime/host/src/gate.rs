//! The gate of a connection: lets so many calls in, so many wait, so many in a time, and turns the
//! rest away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::rate::{Bucket, Rate};

use crate::call::Occupancy;
use crate::connection::Settings;
use crate::limits::Limits;
use crate::places::{Place, Places};

pub(crate) struct Gate {
    calls: Arc<Places>,
    waiting_max: u32,
    rate: Option<Rate>,
    shared: Shared,
}

/// What all generations of one connection have in common: a swap gives nobody a fresh bucket. Cheap
/// to clone; the clones are one.
#[derive(Clone)]
pub struct Shared {
    /// What [`Bucket::to_bits`] gave; nanoseconds since `opened`.
    bucket: Arc<AtomicU64>,
    opened: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            bucket: Arc::new(AtomicU64::new(Bucket::default().to_bits())),
            opened: Instant::now(),
        }
    }
}

/// A place at the connection and a slot of the pool; both are given back when this is dropped.
pub(crate) struct Entered {
    _call: Place,
    _slot: Place,
}

impl Gate {
    pub(crate) fn new(limits: &Limits, shared: Shared) -> Self {
        Self {
            calls: Places::new(limits.concurrency_max),
            waiting_max: limits.queue_max,
            // Whoever lets calls wait for their turn counts them before they come here.
            rate: limits.rate.filter(|rate| rate.max_wait().is_zero()),
            shared,
        }
    }

    /// Waits for a place at this connection, then for a slot of the pool; no longer than `timeout`
    /// in all. `rated` calls count for the rate.
    pub(crate) async fn enter(
        &self,
        slots: &Arc<Places>,
        settings: &Settings,
        rated: bool,
        timeout: Duration,
    ) -> Result<Entered, Failure> {
        let both = async {
            let call = self.calls.take(self.waiting_max).await;
            let call = call.ok_or_else(|| busy(settings, "the queue is full"))?;
            if rated {
                self.take_token(settings)?;
            }
            let slot = slots.take(u32::MAX).await;
            let slot = slot.ok_or_else(|| busy(settings, "no slot of the host is free"))?;
            Ok(Entered {
                _call: call,
                _slot: slot,
            })
        };
        match tokio::time::timeout(timeout, both).await {
            Ok(entered) => entered,
            Err(_) => Err(busy(settings, "no call ended in time")),
        }
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        Occupancy {
            running: self.calls.taken(),
            waiting: self.calls.waiting(),
        }
    }

    /// Only calls that have a place take from the bucket, so that none is charged for a call that
    /// never was.
    fn take_token(&self, settings: &Settings) -> Result<(), Failure> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        let now_ns = u64::try_from(self.shared.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut wait_ns = 0;
        let taken = self
            .shared
            .bucket
            .fetch_update(
                Ordering::Relaxed,
                Ordering::Relaxed,
                |bits| match Bucket::from_bits(bits).take(rate, now_ns) {
                    Ok(bucket) => Some(bucket.to_bits()),
                    Err(wait) => {
                        wait_ns = wait;
                        None
                    }
                },
            );
        taken
            .map(|_| ())
            .map_err(|_| too_often(settings, rate, wait_ns))
    }
}

fn busy(settings: &Settings, why: &str) -> Failure {
    let text = format!(
        "connection `{}` has {} calls running and {why}; try later, or raise `limits.concurrency`",
        settings.name, settings.limits.concurrency_max
    );
    Failure::new(Class::Unavailable, "busy", text)
}

fn too_often(settings: &Settings, rate: &Rate, left_ns: u64) -> Failure {
    // Rounded up: whoever comes back earlier is turned away again.
    let wait_ms = left_ns.div_ceil(1_000_000);
    let text = format!(
        "connection `{}` takes {} calls in {:?}, and {} at once; call again in {wait_ms} ms, or raise `rate-limit`",
        settings.name,
        rate.calls(),
        rate.per(),
        rate.burst()
    );
    Failure {
        retry_after_ms: Some(u32::try_from(wait_ms).unwrap_or(u32::MAX)),
        ..Failure::new(Class::RateLimited, "limit.rate", text)
    }
}
