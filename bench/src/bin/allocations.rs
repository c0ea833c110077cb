//! How often one call allocates: in a chamber with every limit on, and in bare wasmtime. The figures
//! of ADR 6.

use std::alloc::System;

use anyhow::Result;
use cofferdam_bench::fresh::{Bare, Chamber, measure};
use cofferdam_bench::ratio;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: usize = 1_000;

// On one thread, so that nothing else allocates beside the calls.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (bare, chamber) = (Bare::new()?, Chamber::new()?);
    let bare = counted(|| bare.call()).await?;
    let chamber = counted(|| chamber.call()).await?;
    let report = json!({
        "bench": "allocations", "unit": "per call, fresh instance, one small action",
        "calls": CALLS, "bareWasmtime": shown(bare), "chamber": shown(chamber),
        "ratio": ratio(chamber.0, bare.0),
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// Allocations and bytes of one call.
async fn counted<F: Future<Output = Result<()>>>(call: impl Fn() -> F) -> Result<(f64, f64)> {
    measure(CALLS, &call).await?;
    let region = Region::new(GLOBAL);
    measure(CALLS, &call).await?;
    let change = region.change();
    let each = |count: usize| count as f64 / CALLS as f64;
    Ok((
        each(change.allocations + change.reallocations),
        each(change.bytes_allocated),
    ))
}

fn shown((allocations, bytes): (f64, f64)) -> Value {
    json!({"allocations": allocations.round(), "bytes": bytes.round()})
}
