//! Whether a task costs more when much has happened before it.

use std::time::{Duration, Instant};

use anyhow::Result;
use cofferdam_bench::{percentile_us, ratio};
use serde_json::{Value, json};

use crate::many::on_disk;
use crate::stage::{Stage, begin, define, name};

/// Runs that are measured at each size.
const SAMPLES: usize = 100;
/// How often a run that waits is taken up in each way.
const TAKEN_UP: usize = 15;

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

/// A run that waits after so many calls: what it costs to take it up again, by the length of its
/// history, with checkpoints and without.
pub(crate) async fn resumed(stage: &Stage, lengths: &[usize]) -> Result<Value> {
    let mut curve = Vec::new();
    for tasks in lengths {
        let with = taken_up(stage, *tasks, true).await?;
        let without = taken_up(stage, *tasks, false).await?;
        curve.push(json!({
            "tasks": tasks,
            "takeUpUs": with.as_micros() as u64,
            "takeUpWithoutCheckpointsUs": without.as_micros() as u64,
            "ratioToWithout": ratio(with.as_secs_f64(), without.as_secs_f64()),
        }));
    }
    Ok(json!(curve))
}

/// The median of a few times in which a run is read, told to suspend or to resume, and written.
async fn taken_up(stage: &Stage, tasks: usize, checkpoints: bool) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    let runtime = if checkpoints {
        stage.open(&dir).await?
    } else {
        stage.open_without_checkpoints(&dir).await?
    };
    let each = format!(
        "  - each:\n      for: {{each: n, in: \"${{ [range({tasks})] }}\"}}\n      do:\n        \
         - call: {{call: echo.keep, with: {{n: \"${{ $n }}\"}}}}\n  - nap: {{wait: {{hours: 24}}}}\n"
    );
    let definition = define(&runtime, &each)?;
    begin(&runtime, &definition, 0..1).await?;
    runtime.settle(&name(0)).await?;
    let mut took = Vec::new();
    for _ in 0..TAKEN_UP {
        while runtime.active_runs() > 0 {
            tokio::task::yield_now().await;
        }
        let at = Instant::now();
        runtime.suspend(&name(0), None).await?;
        took.push(at.elapsed());
        while runtime.active_runs() > 0 {
            tokio::task::yield_now().await;
        }
        let at = Instant::now();
        runtime.resume(&name(0)).await?;
        took.push(at.elapsed());
    }
    runtime.shutdown().await;
    took.sort_unstable();
    Ok(took[took.len() / 2])
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
