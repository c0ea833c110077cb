//! The clock that interrupts guests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::{Engine, EngineWeak};

use crate::Error;

/// How often a running guest is looked at. Measured: a loop is cut 0.7 ms after its deadline.
const TICK: Duration = Duration::from_millis(1);
/// How long the ticker goes on without a call before it sleeps; a wake-up costs more than a tick.
const LINGER: Duration = Duration::from_millis(200);
/// Never more ticks are made up for at once; a guest is cut at the first of them anyway.
const CATCH_UP_MAX: u128 = 100;

/// An OS thread that advances the epoch of every engine by the time that has passed. It holds the
/// engines weakly, and sleeps while no call runs.
///
/// A call takes no lock of it: it counts itself in, and wakes the thread only if that sleeps.
pub(crate) struct Ticker {
    calls: AtomicUsize,
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
    /// Locked by the thread, and when an engine is made; never by a call.
    engines: Mutex<Vec<EngineWeak>>,
}

impl Ticker {
    pub(crate) fn start() -> Result<Arc<Self>, Error> {
        let ticker = Arc::new(Self {
            calls: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
            engines: Mutex::default(),
        });
        let run = Arc::clone(&ticker);
        let thread = std::thread::Builder::new()
            .name("cofferdam-ticker".to_owned())
            .spawn(move || run.run())
            .map_err(|error| Error::Engine {
                reason: error.to_string(),
            })?;
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    pub(crate) fn add(&self, engine: &Engine) {
        self.engines.lock().push(engine.weak());
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.wake();
    }

    /// Keeps the ticker awake until the guard is dropped.
    pub(crate) fn call(self: &Arc<Self>) -> Ticking {
        // The thread first says that it sleeps and then looks at the count; here it is the other
        // way round. In the one order of both, one of the two sees what the other did.
        self.calls.fetch_add(1, SeqCst);
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.wake();
        }
        Ticking(Arc::clone(self))
    }

    /// Calls that run.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self) {
        let mut ticked = Instant::now();
        let mut busy = Instant::now();
        loop {
            std::thread::sleep(TICK);
            if self.calls() > 0 {
                busy = Instant::now();
            } else if busy.elapsed() > LINGER {
                self.sleep();
                ticked = Instant::now();
                busy = ticked;
            }
            if self.stopped.load(SeqCst) {
                return;
            }
            // A thread that slept too long makes up for it, or deadlines would drift with the load.
            let due = (ticked.elapsed().as_nanos() / TICK.as_nanos()).min(CATCH_UP_MAX);
            ticked = Instant::now();
            self.engines.lock().retain(|engine| match engine.upgrade() {
                Some(engine) => {
                    (0..due).for_each(|_| engine.increment_epoch());
                    true
                }
                None => false,
            });
        }
    }

    /// Until a call begins or the engines are gone.
    fn sleep(&self) {
        self.asleep.store(true, SeqCst);
        while self.calls() == 0 && self.asleep.load(SeqCst) && !self.stopped.load(SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, SeqCst);
    }
}

/// A call that runs; see [`Ticker::call`].
pub(crate) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_without_calls_and_wakes_for_one() {
        let ticker = Ticker::start().unwrap();
        for _ in 0..3 {
            while !ticker.asleep.load(SeqCst) {
                std::thread::yield_now();
            }
            let call = ticker.call();
            assert_eq!(ticker.calls(), 1);
            assert!(
                !ticker.asleep.load(SeqCst),
                "it would not tick for this call"
            );
            drop(call);
        }
        assert_eq!(ticker.calls(), 0);
        ticker.stop();
    }
}
