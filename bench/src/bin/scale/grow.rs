//! Whether a task costs more when much has happened before it.

use std::time::{Duration, Instant};

use anyhow::Result;
use cofferdam_bench::{percentile_us, ratio};
use serde_json::{Value, json};

use crate::many::on_disk;
use crate::stage::{Stage, begin, define, name};

/// Runs that are measured at each size.
const SAMPLES: usize = 100;

/// One run of so many calls, one after the other: what one costs, by the length of the history.
pub(crate) async fn history(stage: &Stage, lengths: &[usize], floor: f64) -> Result<Value> {
    let mut curve = Vec::new();
    for tasks in lengths {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("store");
        let runtime = stage.open(&dir).await?;
        let each = format!(
            "  - each:\n      for: {{each: n, in: \"${{ [range({tasks})] }}\"}}\n      do:\n        \
             - call: {{call: echo.keep, with: {{n: \"${{ $n }}\"}}}}\n"
        );
        let definition = define(&runtime, &each)?;
        let begun = Instant::now();
        begin(&runtime, &definition, 0..1).await?;
        runtime.wait(&name(0)).await?;
        let took = begun.elapsed();
        runtime.shutdown().await;
        let per_s = *tasks as f64 / took.as_secs_f64();
        curve.push(json!({
            "tasks": tasks,
            "usPerTask": (took.as_secs_f64() * 1e6 / *tasks as f64).round(),
            "ratioToFloor": ratio(per_s, floor),
            "bytesOnDiskPerTask": on_disk(stage, &dir)? / *tasks as u64,
        }));
    }
    Ok(json!(curve))
}

/// What a run costs, by the number of runs that are stored; and what is left when all were removed.
pub(crate) async fn stored(stage: &Stage, sizes: &[usize], floor: f64) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    let runtime = stage.open(&dir).await?;
    let definition = define(
        &runtime,
        "  - call: {call: echo.keep, with: {n: \"${ .n }\"}}\n",
    )?;
    let (mut next, mut curve) = (0, Vec::new());
    for size in sizes {
        begin(&runtime, &definition, next..(*size).max(next)).await?;
        for n in next..*size {
            runtime.wait(&name(n)).await?;
        }
        next = next.max(*size);
        let mut took = Vec::new();
        for _ in 0..SAMPLES {
            let at = Instant::now();
            begin(&runtime, &definition, next..next + 1).await?;
            runtime.wait(&name(next)).await?;
            took.push(at.elapsed());
            next += 1;
        }
        let p50_us = percentile_us(&mut took, 0.5);
        curve.push(json!({
            "storedRuns": size,
            "p50RunUs": p50_us.round(),
            "p99RunUs": percentile_us(&mut took, 0.99).round(),
            "ratioToFloor": ratio(1e6 / p50_us, floor),
        }));
    }
    runtime.shutdown().await;
    let before = on_disk(stage, &dir)?;
    let runtime = stage.open(&dir).await?;
    let removing = Instant::now();
    let removed = runtime.remove_ended(Duration::ZERO).await?;
    let took = removing.elapsed();
    runtime.shutdown().await;
    let per_s = removed as f64 / took.as_secs_f64();
    Ok(json!({
        "curve": curve,
        "bytesOnDiskPerRun": before / next as u64,
        "removedRuns": removed,
        "removedPerS": per_s.round(),
        "removedRatioToFloor": ratio(per_s, floor),
        "bytesOnDiskAfterRemovalPerRun": on_disk(stage, &dir)? / next as u64,
    }))
}
