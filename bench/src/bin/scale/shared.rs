//! What one large event costs that many runs hear.

#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "a stage grows as more is measured"
)]

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::many::on_disk;
use crate::stage::{Stage, begin, define, name, wait_all};

/// Bytes of the event.
const EVENT_BYTES: usize = 256 << 10;

/// So many runs that hear one event: until all have ended, and what it leaves on the disk beyond what
/// runs that hear a small one leave.
pub(crate) async fn listeners(stage: &Stage, runs: usize) -> Result<Value> {
    let (small, _) = heard(stage, runs, 16).await?;
    let (large, ended_ms) = heard(stage, runs, EVENT_BYTES).await?;
    let more = large.saturating_sub(small);
    Ok(json!({
        "listeners": runs,
        "eventBytes": EVENT_BYTES,
        "endedMs": ended_ms,
        "moreBytesOnDisk": more,
        "moreBytesOnDiskPerListener": more / runs as u64,
    }))
}

async fn heard(stage: &Stage, runs: usize, bytes: usize) -> Result<(u64, u64)> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("store");
    let runtime = stage.open(&dir).await?;
    let listens = "  - l: {listen: {to: {one: {with: {type: t}}}}, output: {as: \"${ 1 }\"}}\n";
    let definition = define(&runtime, listens)?;
    begin(&runtime, &definition, 0..runs).await?;
    for n in 0..runs {
        runtime.settle(&name(n)).await?;
    }
    let begun = Instant::now();
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/bench", "type": "t", "data": "x".repeat(bytes),
    });
    runtime.publish_json(event).await?;
    wait_all(&runtime, runs).await?;
    let ended_ms = begun.elapsed().as_millis() as u64;
    runtime.shutdown().await;
    Ok((on_disk(stage, &dir)?, ended_ms))
}
