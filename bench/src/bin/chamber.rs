//! What hostile guests can do to the clock and to a neighbour: one row for each guest of the corpus.
//! Beside that, how soon a plugin from the cache is ready, and what a fresh call costs over bare
//! wasmtime.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cofferdam_bench::fresh::{Bare, Chamber, measure};
use cofferdam_bench::{load, percentile_us, plugins, quick, ratio};
use cofferdam_host::{Artifact, Call, Connection, Host, HostOptions, Limits, Outcome};
use cofferdam_hostile::corpus::{Case, Ends, corpus};
use cofferdam_hostile::harness::{self, Attacker};
use cofferdam_hostile::{Text, guest};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
/// Attacks at the same time: as many as there are threads.
const ATTACKERS: usize = 2;

fn main() -> Result<()> {
    // As on the machine that the goals are for, whatever this one has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(report())?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

async fn report() -> Result<Value> {
    let before = load();
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for case in corpus() {
        // One that is refused when it is loaded is never called.
        if !matches!(case.ends, Ends::Refused(_)) {
            let row = row(&case, folder.path()).await;
            rows.push(row.with_context(|| case.name)?);
        }
    }
    Ok(json!({
        "bench": "chamber", "unit": "milliseconds unless the name says otherwise; two worker threads, two attacks at a time",
        "goals": {"overshootP50": 5, "overshootMax": 50, "neighbourP99Ratio": 2, "readyFromCacheMax": 5, "freshCallRatio": 1.3},
        "before": before, "hostile": rows, "readyFromCache": ready(folder.path())?,
        "freshCall": fresh().await?, "after": load(),
    }))
}

/// Attacks again and again beside a neighbour that is called without a pause.
async fn row(case: &Case, cache: &Path) -> Result<Value> {
    let span = Duration::from_millis(if quick() { 400 } else { 2_000 });
    let host = harness::host(Some(cache.to_owned()))?;
    let beside = harness::neighbour(&host, "neighbour")?;
    let attacker = Attacker::new(&host, case).await?;
    let hostile = attacker.connect()?;
    hostile.invoke(attacker.attack()).await;
    let mut baseline = while_calling(&beside, tokio::time::sleep(span)).await?.0;
    let mut attacks = tokio::task::JoinSet::new();
    for _ in 0..ATTACKERS {
        let (hostile, call, limits) = (hostile.clone(), attacker.attack(), case.limits.clone());
        // Tasks of their own, so that they take threads from the neighbour.
        attacks.spawn(async move {
            let (mut over, begun) = (Vec::new(), Instant::now());
            while begun.elapsed() < span {
                let asked = Instant::now();
                let outcome = hostile.invoke(call.clone()).await;
                let took = asked.elapsed();
                over.push((overshoot(&call, &limits, &outcome, took), took));
            }
            over
        });
    }
    let (mut beset, over) = while_calling(&beside, attacks.join_all()).await?;
    let over: Vec<_> = over.into_iter().flatten().collect();
    let mut overshoot: Vec<Duration> = over.iter().filter_map(|(over, _)| *over).collect();
    let mut took: Vec<Duration> = over.iter().map(|(_, took)| *took).collect();
    let (base_p99, beset_p99) = (p_ms(&mut baseline, 0.99), p_ms(&mut beset, 0.99));
    let cut = !overshoot.is_empty();
    Ok(json!({
        "guest": case.name, "attacks": took.len(),
        "overshootP50": cut.then(|| p_ms(&mut overshoot, 0.5)),
        "overshootMax": cut.then(|| p_ms(&mut overshoot, 1.0)),
        "attackP50": p_ms(&mut took, 0.5),
        "neighbourCalls": beset.len(),
        "neighbourP99Baseline": base_p99, "neighbourP99": beset_p99,
        "neighbourP99Ratio": ratio(beset_p99, base_p99),
    }))
}

/// How far past its deadline or its CPU time a call ended, if that is what ended it.
fn overshoot(call: &Call, limits: &Limits, outcome: &Outcome, took: Duration) -> Option<Duration> {
    let failure = outcome.result.as_ref().err()?;
    match failure.code.as_str() {
        "timeout" => Some(took.saturating_sub(call.timeout)),
        "limit.cpu" => Some(outcome.usage.cpu.saturating_sub(limits.cpu_time)),
        _ => None,
    }
}

/// How long each call of a neighbour takes while something else goes on.
async fn while_calling<T: Send>(
    neighbour: &Connection,
    work: impl Future<Output = T> + Send,
) -> Result<(Vec<Duration>, T)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (connection, stopped) = (neighbour.clone(), Arc::clone(&stop));
    let calls = tokio::spawn(async move {
        let mut took = Vec::new();
        while !stopped.load(Ordering::Acquire) {
            let begun = Instant::now();
            let call = harness::call(guest::ACTION, guest::good(), LONG);
            let outcome = connection.invoke(call).await;
            took.push(begun.elapsed());
            outcome.result.context("the neighbour lost a call")?;
        }
        anyhow::Ok(took)
    });
    let done = work.await;
    stop.store(true, Ordering::Release);
    Ok((calls.await??, done))
}

fn p_ms(samples: &mut [Duration], share_ratio: f64) -> f64 {
    (percentile_us(samples, share_ratio)).round() / 1e3
}

/// From the bytes of an artifact to a connection, with the code in the cache.
fn ready(cache: &Path) -> Result<Value> {
    let turns = if quick() { 10 } else { 100 };
    let mut report = serde_json::Map::new();
    let host = Host::new(HostOptions {
        code_cache_dir: Some(cache.to_owned()),
        ..HostOptions::default()
    })?;
    let by_hand = Text::default().artifact()?;
    let normalize = Artifact::read(&plugins()?.join("normalize"))?;
    for (name, artifact) in [("byHand", by_hand), ("normalize", normalize)] {
        host.load(artifact.clone())?;
        let mut took = Vec::with_capacity(turns);
        for _ in 0..turns {
            let artifact = artifact.clone();
            let begun = Instant::now();
            let plugin = host.load(artifact)?;
            let spec = cofferdam_host::ConnectionSpec::new("ready");
            let connection = plugin.connect(spec, harness::services())?;
            took.push(begun.elapsed());
            drop(connection);
        }
        let (p50, max) = (p_ms(&mut took, 0.5), p_ms(&mut took, 1.0));
        report.insert(name.to_owned(), json!({"p50": p50, "max": max}));
    }
    Ok(report.into())
}

async fn fresh() -> Result<Value> {
    let calls = if quick() { 500 } else { 20_000 };
    let (bare, chamber) = (Bare::new()?, Chamber::new()?);
    // In turns, so that a change of the machine's load meets both.
    let (mut of_bare, mut of_chamber) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        of_bare.extend(measure(calls / 10, || bare.call()).await?);
        of_chamber.extend(measure(calls / 10, || chamber.call()).await?);
    }
    let bare_us = percentile_us(&mut of_bare, 0.5);
    let chamber_us = percentile_us(&mut of_chamber, 0.5);
    Ok(json!({
        "bareWasmtimeUs": bare_us, "chamberUs": chamber_us, "ratio": ratio(chamber_us, bare_us),
    }))
}
