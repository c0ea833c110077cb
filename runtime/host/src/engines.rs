//! The wasmtime engines: one pool of slots for ordinary plugins and one for large ones, and the
//! clock that interrupts guests.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy};
use wasmtime::{PoolingAllocationConfig, WasmBacktraceDetails};

use crate::chamber::State;
use crate::{Error, capabilities};

/// How often a running guest is looked at. Measured: a loop is cut 0.7 ms after its deadline.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How long the ticker goes on without a call before it sleeps; a wake-up costs more than a tick.
const LINGER: Duration = Duration::from_millis(200);
/// Never more ticks are made up for at once; a guest is cut at the first of them anyway.
const CATCH_UP_MAX: u128 = 100;

/// The two sizes of slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Up to 64 MiB: Rust, C, Go.
    Small,
    /// Up to 256 MiB: JavaScript, Python.
    Large,
}

impl Size {
    pub(crate) fn for_memory(bytes: u64) -> Self {
        if bytes <= Self::Small.memory_bytes_max() {
            Self::Small
        } else {
            Self::Large
        }
    }

    pub(crate) fn memory_bytes_max(self) -> u64 {
        match self {
            Self::Small => 64 << 20,
            Self::Large => crate::limits::MEMORY_BYTES_MAX,
        }
    }

    /// Core modules of one component: a Python guest links its interpreter from two dozen.
    fn core_instances_max(self) -> u32 {
        match self {
            Self::Small => 20,
            Self::Large => 60,
        }
    }
}

/// One engine, its linker with every capability, and the slots of its pool.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) slots: Semaphore,
}

/// Both pools; the large one is made when it is first wanted.
pub(crate) struct Engines {
    small: Pool,
    large: OnceLock<Pool>,
    slots: u32,
    ticker: Arc<Ticker>,
}

impl Engines {
    pub(crate) fn new(slots: u32) -> Result<Self, Error> {
        let small = Pool::new(Size::Small, slots)?;
        let ticker = Ticker::start()?;
        ticker.add(&small.engine);
        Ok(Self {
            small,
            large: OnceLock::new(),
            slots,
            ticker,
        })
    }

    pub(crate) fn pool(&self, size: Size) -> Result<&Pool, Error> {
        match size {
            Size::Small => Ok(&self.small),
            Size::Large => {
                if let Some(pool) = self.large.get() {
                    return Ok(pool);
                }
                // Two callers may build one each at the same time; the second is dropped unused.
                let pool = Pool::new(Size::Large, self.slots)?;
                let pool = self.large.get_or_init(|| pool);
                self.ticker.add(&pool.engine);
                Ok(pool)
            }
        }
    }

    pub(crate) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.ticker.stop();
    }
}

impl Pool {
    fn new(size: Size, slots: u32) -> Result<Self, Error> {
        let fail = |error: wasmtime::Error| Error::Engine {
            reason: format!("{error:#}"),
        };
        let engine = Engine::new(&config(size, slots)).map_err(fail)?;
        let mut linker = Linker::new(&engine);
        for capability in capabilities::ALL {
            capability.link(&mut linker).map_err(fail)?;
        }
        Ok(Self {
            engine,
            linker,
            slots: Semaphore::new(slots as usize),
        })
    }
}

fn config(size: Size, slots: u32) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(size, slots)));
    config
}

fn pool(size: Size, slots: u32) -> PoolingAllocationConfig {
    /// Kept mapped between calls; most calls of a small guest dirty less.
    const MEMORY_KEEP_RESIDENT_BYTES: usize = 2 << 20;
    const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
    /// Components with more memories or tables than these are refused when they are compiled.
    const MEMORIES_MAX: u32 = 2;
    const TABLES_MAX: u32 = 12;
    const TABLE_ELEMENTS_MAX: usize = 100_000;
    /// Metadata of one instance; a Python guest's main module has thousands of functions.
    const INSTANCE_BYTES_MAX: usize = 4 << 20;

    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots * size.core_instances_max())
        .max_core_instances_per_component(size.core_instances_max())
        .total_memories(slots * MEMORIES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .total_tables(slots * TABLES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .total_stacks(slots)
        .max_memory_size(size.memory_bytes_max() as usize)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_unused_warm_slots(slots);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
            .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES);
    }
    pool
}

/// An OS thread that advances the epoch of every engine by the time that has passed. It holds the
/// engines weakly, and sleeps while no call runs.
pub(crate) struct Ticker {
    state: Mutex<TickerState>,
    wake: Condvar,
}

struct TickerState {
    engines: Vec<EngineWeak>,
    calls: usize,
    asleep: bool,
    stopped: bool,
}

impl Ticker {
    fn start() -> Result<Arc<Self>, Error> {
        let state = TickerState {
            engines: Vec::new(),
            calls: 0,
            asleep: false,
            stopped: false,
        };
        let ticker = Arc::new(Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        let run = Arc::clone(&ticker);
        std::thread::Builder::new()
            .name("cofferdam-ticker".to_owned())
            .spawn(move || run.run())
            .map_err(|error| Error::Engine {
                reason: error.to_string(),
            })?;
        Ok(ticker)
    }

    fn add(&self, engine: &Engine) {
        self.state.lock().engines.push(engine.weak());
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }

    /// Keeps the ticker awake until the guard is dropped.
    pub(crate) fn call(self: &Arc<Self>) -> Ticking {
        let mut state = self.state.lock();
        state.calls += 1;
        if state.asleep {
            state.asleep = false;
            self.wake.notify_all();
        }
        Ticking(Arc::clone(self))
    }

    fn run(&self) {
        let mut ticked = Instant::now();
        let mut busy = Instant::now();
        loop {
            std::thread::sleep(TICK);
            let mut state = self.state.lock();
            if state.calls > 0 {
                busy = Instant::now();
            } else if busy.elapsed() > LINGER && !state.stopped {
                state.asleep = true;
                self.wake
                    .wait_while(&mut state, |state| state.asleep && !state.stopped);
                ticked = Instant::now();
                busy = ticked;
            }
            if state.stopped {
                return;
            }
            // A thread that slept too long makes up for it, or deadlines would drift with the load.
            let due = (ticked.elapsed().as_nanos() / TICK.as_nanos()).min(CATCH_UP_MAX);
            ticked = Instant::now();
            state.engines.retain(|engine| match engine.upgrade() {
                Some(engine) => {
                    (0..due).for_each(|_| engine.increment_epoch());
                    true
                }
                None => false,
            });
        }
    }
}

/// A call that runs; see [`Ticker::call`].
pub(crate) struct Ticking(Arc<Ticker>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.state.lock().calls -= 1;
    }
}
