//! Many runs, or tasks, at the same time.

#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "a stage grows as more is measured"
)]

use std::time::{Duration, Instant};

use anyhow::Result;
use cofferdam::Clock;
use cofferdam_bench::{cpu_seconds, ratio, reset_peak, resident_bytes};
use cofferdam_store::{Batch, Options, Table};
use serde_json::{Value, json};

use crate::stage::{Stage, begin, begin_and_kill, define, name, wait_all};

/// What a commit of the engine has, about.
const RECORD_BYTES: usize = 400;
/// Commits that wait for the same sync.
const TOGETHER: usize = 256;
/// How long the runs wait that wait.
const WAIT_HOURS: u64 = 48;

/// The floor: bare commits, many at a time.
pub(crate) async fn bare_commits_per_s(stage: &Stage, commits: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let store = cofferdam_store::open(folder.path(), Some(stage.engine), &Options::default())?;
    let begun = Instant::now();
    let mut group = Vec::new();
    for n in 0..commits {
        let batch = Batch::new().put(Table::Kv, name(n), vec![7; RECORD_BYTES]);
        group.push(store.commit(batch));
        if group.len() == TOGETHER {
            for commit in group.drain(..) {
                commit.await?;
            }
        }
    }
    for commit in group {
        commit.await?;
    }
    Ok(commits as f64 / begun.elapsed().as_secs_f64())
}

/// One run that does so many tasks at the same time, and joins them.
pub(crate) async fn fan_out(stage: &Stage, tasks: usize, floor: f64) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    let runtime = stage.open(&dir).await?;
    let each = format!(
        "  - each:\n      for: {{each: n, in: \"${{ [range({tasks})] }}\"}}\n      \
         metadata: {{cofferdam: {{maxConcurrency: {tasks}}}}}\n      do:\n        \
         - call: {{call: echo.read, with: {{n: \"${{ $n }}\"}}}}\n"
    );
    let definition = define(&runtime, &each)?;
    let begun = Instant::now();
    begin(&runtime, &definition, 0..1).await?;
    wait_all(&runtime, 1).await?;
    let took = begun.elapsed();
    runtime.shutdown().await;
    let per_s = tasks as f64 / took.as_secs_f64();
    Ok(json!({
        "tasks": tasks,
        "tookMs": ms(took),
        "tasksPerS": per_s.round(),
        "ratioToFloor": ratio(per_s, floor),
    }))
}

/// So many runs under way in a process that is killed; until all have ended in the next.
pub(crate) async fn recovery(stage: &Stage, runs: usize, floor: f64) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    begin_and_kill(stage, &dir, runs)?;
    reset_peak();
    let (resident_before, _) = resident_bytes();
    let begun = Instant::now();
    let runtime = stage.open(&dir).await?;
    let opened = begun.elapsed();
    wait_all(&runtime, runs).await?;
    let took = begun.elapsed();
    let (_, peak) = resident_bytes();
    runtime.shutdown().await;
    let per_s = runs as f64 / took.as_secs_f64();
    Ok(json!({
        "runs": runs,
        "openedMs": ms(opened),
        "endedMs": ms(took),
        "runsPerS": per_s.round(),
        "ratioToFloor": ratio(per_s, floor),
        "peakMoreBytes": peak.saturating_sub(resident_before),
    }))
}

/// So many runs that wait for an instant: memory, start, and until all have gone on.
pub(crate) async fn waiting(stage: &Stage, runs: usize, floor: f64) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    let runtime = stage.open(&dir).await?;
    let (resident_before, _) = resident_bytes();
    let wait = format!(
        "  - wait: {{wait: {{hours: {WAIT_HOURS}}}}}\n  - call: {{call: echo.read, with: {{n: 1}}}}\n"
    );
    let definition = define(&runtime, &wait)?;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    begin(&runtime, &definition, 0..runs).await?;
    runtime.settle(&name(runs - 1)).await?;
    let (begin_took, begin_cpu) = (begun.elapsed(), cpu_seconds() - cpu);
    let (resident_waiting, _) = resident_bytes();
    runtime.shutdown().await;
    let bytes_on_disk = on_disk(stage, &dir)?;
    let begun = Instant::now();
    let runtime = stage.open(&dir).await?;
    let opened = begun.elapsed();
    let (resident_opened, _) = resident_bytes();
    runtime.shutdown().await;
    // Two days later.
    let later = now_ms() + (WAIT_HOURS + 1) * 3_600_000;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let runtime = stage.open_with(&dir, false, Clock::tokio(later)).await?;
    wait_all(&runtime, runs).await?;
    let (fired, fired_cpu) = (begun.elapsed(), cpu_seconds() - cpu);
    runtime.shutdown().await;
    let per_s = runs as f64 / fired.as_secs_f64();
    Ok(json!({
        "runs": runs,
        "beginPerS": (runs as f64 / begin_took.as_secs_f64()).round(),
        "beginCpuSPer1000": cpu_s_per_1000(begin_cpu, runs),
        "residentMoreBytes": resident_waiting.saturating_sub(resident_before),
        "residentMoreOpenedBytes": resident_opened.saturating_sub(resident_before),
        "openedMs": ms(opened),
        "firedAndEndedMs": ms(fired),
        "firedPerS": per_s.round(),
        "firedCpuSPer1000": cpu_s_per_1000(fired_cpu, runs),
        "ratioToFloor": ratio(per_s, floor),
        "bytesOnDiskPerRun": bytes_on_disk / runs as u64,
    }))
}

pub(crate) fn on_disk(stage: &Stage, dir: &std::path::Path) -> Result<u64> {
    let store = cofferdam_store::open(dir, Some(stage.engine), &Options::default())?;
    Ok(store.size_on_disk()?)
}

fn cpu_s_per_1000(cpu_s: f64, runs: usize) -> f64 {
    (cpu_s / runs as f64 * 1e6).round() / 1e3
}

fn ms(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e4).round() / 10.0
}

fn now_ms() -> u64 {
    Clock::default().now_ms()
}
