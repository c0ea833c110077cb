//! The CPU time of one call: what its polls take on whatever thread, and nothing while it waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Measured by the thread that polls, read by the epoch callback on the same thread.
#[derive(Default)]
pub(crate) struct CpuMeter {
    /// Of polls that have ended.
    spent_ns: AtomicU64,
    /// The thread's clock when the running poll began; zero when none runs.
    poll_began_ns: AtomicU64,
}

impl CpuMeter {
    /// Runs one poll and counts what it takes.
    pub(crate) fn measure<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.poll_began_ns
            .store(thread_time_ns(), Ordering::Relaxed);
        let result = poll();
        let took = thread_time_ns().saturating_sub(self.poll_began_ns.swap(0, Ordering::Relaxed));
        self.spent_ns.fetch_add(took, Ordering::Relaxed);
        result
    }

    /// That of polls that have ended; right on every thread.
    pub(crate) fn ended(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed))
    }

    /// The sum so far. Right only on the thread that polls, or when no poll runs.
    pub(crate) fn spent(&self) -> Duration {
        let spent = self.spent_ns.load(Ordering::Relaxed);
        let running = match self.poll_began_ns.load(Ordering::Relaxed) {
            0 => 0,
            began => thread_time_ns().saturating_sub(began),
        };
        Duration::from_nanos(spent + running)
    }
}

/// The CPU time of this thread: unlike the wall clock it does not charge a guest for its
/// neighbours on a busy machine.
#[cfg(unix)]
fn thread_time_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

/// Without a clock for threads the wall clock has to do.
#[cfg(not(unix))]
fn thread_time_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_charged_and_work_is() {
        let meter = CpuMeter::default();
        let began = std::time::Instant::now();
        meter.measure(|| while meter.spent() < Duration::from_millis(3) {});
        assert!(meter.spent() >= Duration::from_millis(3));
        assert!(meter.spent() <= began.elapsed() + Duration::from_millis(1));
    }
}
