//! What one call in a chamber costs, beside the same component in bare wasmtime: same engine
//! settings, a fresh instance per call, no Cofferdam.

use anyhow::Result;
use cofferdam_bench::fresh::{Bare, Chamber, measure};
use cofferdam_bench::{load, percentile_us, quick, ratio};
use serde_json::json;
#[tokio::main]
async fn main() -> Result<()> {
    let calls = if quick() { 500 } else { 20_000 };
    let before = load();
    let (bare, ours) = (Bare::new()?, Chamber::new()?);
    let mut bare = measure(calls, || bare.call()).await?;
    let mut ours = measure(calls, || ours.call()).await?;
    let (bare_p50, ours_p50) = (percentile_us(&mut bare, 0.5), percentile_us(&mut ours, 0.5));
    let report = json!({
        "bench": "calls", "unit": "microseconds per call, fresh instance, one small action",
        "before": before, "after": load(), "calls": calls,
        "bareWasmtime": {"p50": bare_p50, "p99": percentile_us(&mut bare, 0.99)},
        "chamber": {"p50": ours_p50, "p99": percentile_us(&mut ours, 0.99)},
        "ratio": ratio(ours_p50, bare_p50),
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
