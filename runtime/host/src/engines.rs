//! The wasmtime engines: one pool of slots for ordinary plugins and one for large ones.

use std::sync::{Arc, OnceLock};

use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy};
use wasmtime::{PoolingAllocationConfig, WasmBacktraceDetails};

use crate::call::Occupancy;
use crate::chamber::State;
use crate::lane::Lane;
use crate::places::Places;
use crate::ticker::Ticker;
use crate::{Error, capabilities};

/// Components with more memories or tables than these are refused when they are compiled.
pub(crate) const MEMORIES_MAX: u32 = 2;
pub(crate) const TABLES_MAX: u32 = 12;
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The stack of a guest's own functions; deeper recursion traps.
pub(crate) const STACK_BYTES_MAX: usize = 512 << 10;

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

    /// How a child compiler is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Small, Self::Large]
            .into_iter()
            .find(|size| size.name() == name)
    }

    /// Core modules of one component: a Python guest links its interpreter from two dozen.
    pub(crate) fn core_instances_max(self) -> u32 {
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
    pub(crate) slots: Arc<Places>,
}

/// Both pools; the large one is made when it is first wanted.
pub(crate) struct Engines {
    small: Pool,
    large: OnceLock<Pool>,
    slots: u32,
    ticker: Arc<Ticker>,
    lane: Lane,
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
            lane: Lane::default(),
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

    /// Slots that are taken in both pools, and calls that wait for one.
    pub(crate) fn occupancy(&self) -> Occupancy {
        let pools = [Some(&self.small), self.large.get()];
        let mut sum = Occupancy::default();
        for pool in pools.into_iter().flatten() {
            sum.running += pool.slots.taken();
            sum.waiting += pool.slots.waiting();
        }
        // A chamber without a slot is `describe`, and a slot without a chamber is about to get one.
        sum.running = sum.running.max(self.ticker.calls() as u32);
        sum
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
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
            slots: Places::new(slots),
        })
    }
}

/// The one configuration of an engine: what a child compiles has to fit what this process runs.
pub(crate) fn config(size: Size, slots: u32) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_init_cow(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(size, slots)));
    config
}

fn pool(size: Size, slots: u32) -> PoolingAllocationConfig {
    /// Kept mapped between calls; most calls of a small guest dirty less.
    const MEMORY_KEEP_RESIDENT_BYTES: usize = 2 << 20;
    const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;
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
