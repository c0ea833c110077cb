//! Plugins swapped under load, one in four swaps bad: what callers feel, and what stays behind.
//!
//! Callers on several connections run workflows of one call each, first undisturbed, then while
//! the plugins under them are swapped all the time. Every run has to complete, whatever generation
//! served it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cofferdam::{Config, Connection, Definition, Runtime, Source, Sources, Status, Swap};
use cofferdam_bench::{load, percentile_us, plugins, quick, ratio};
use serde_json::{Value, json};

const CONNECTIONS: usize = 4;
/// Versions of the plugin that take turns.
const VERSIONS: u8 = 8;
/// An operator swaps once a day; this is a swap for each connection five times a second.
const PAUSE: Duration = Duration::from_millis(50);
const SWAPS_FIRST: u64 = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let swaps = if quick() { 100 } else { 1_000 };
    let before = load();
    let folder = tempfile::tempdir()?;
    let stage = Stage::new(folder.path())?;
    let runtime = Runtime::open(stage.config(folder.path())).await?;
    // Each version is compiled once, and the callers' ways are warm.
    stage
        .swap_all(&runtime, u64::from(VERSIONS), Duration::ZERO)
        .await?;
    let warm = Callers::start(&runtime)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    warm.stop().await?;

    let steady = Callers::start(&runtime)?;
    tokio::time::sleep(PAUSE * u32::try_from(swaps)? / 2).await;
    let mut steady = steady.stop().await?;

    let callers = Callers::start(&runtime)?;
    let (mut took, refused) = stage.swap_all(&runtime, swaps, PAUSE).await?;
    let mut swapped = callers.stop().await?;

    let (first_kb, last_kb) = stage.grows(swaps).await?;

    let steady_p99_us = percentile_us(&mut steady, 0.99);
    let swapped_p99_us = percentile_us(&mut swapped, 0.99);
    let report = json!({
        "bench": "swap", "before": before, "after": load(),
        "swaps": swaps, "refused": refused, "swapsPerS": (1.0 / PAUSE.as_secs_f64()).round(),
        "connections": CONNECTIONS,
        "swapUs": {"p50": percentile_us(&mut took, 0.5).round(), "p99": percentile_us(&mut took, 0.99).round()},
        "steady": {"runs": steady.len(), "p50Us": percentile_us(&mut steady, 0.5).round(), "p99Us": steady_p99_us.round()},
        "duringSwaps": {"runs": swapped.len(), "lost": 0, "p50Us": percentile_us(&mut swapped, 0.5).round(), "p99Us": swapped_p99_us.round()},
        "p99Ratio": ratio(swapped_p99_us, steady_p99_us), "p99RatioGoal": 1.5,
        "residentKb": {"after10": first_kb, "afterAll": last_kb, "ratio": ratio(last_kb as f64, first_kb as f64), "goal": 1.05},
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    runtime.shutdown().await;
    Ok(())
}

/// The versions of the plugin, and files that are none.
struct Stage {
    good: Vec<PathBuf>,
    bad: Vec<PathBuf>,
}

impl Stage {
    fn new(folder: &Path) -> Result<Self> {
        let component = std::fs::read(plugins()?.join("normalize/plugin.wasm"))?;
        let write = |name: String, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map(|()| path)
        };
        // One more section makes it another component that does the same.
        let version = |n: u8| {
            let section = [0, 3, 1, b'v', n];
            write(format!("v{n}.wasm"), &[&component[..], &section].concat())
        };
        let truncated = &component[..component.len() / 2];
        Ok(Self {
            good: (0..VERSIONS).map(version).collect::<std::io::Result<_>>()?,
            bad: vec![
                write("truncated.wasm".into(), truncated)?,
                write("junk.wasm".into(), b"not a plugin")?,
            ],
        })
    }

    /// What is resident after the first swaps of a runtime and after all. Nobody calls meanwhile,
    /// since the store caches runs.
    async fn grows(&self, swaps: u64) -> Result<(u64, u64)> {
        let folder = tempfile::tempdir()?;
        let runtime = Runtime::open(self.config(folder.path())).await?;
        self.swap_all(&runtime, SWAPS_FIRST, Duration::ZERO).await?;
        let first_kb = resident_kb()?;
        let more = swaps - SWAPS_FIRST;
        self.swap_all(&runtime, more, Duration::ZERO).await?;
        let last_kb = resident_kb()?;
        runtime.shutdown().await;
        Ok((first_kb, last_kb))
    }

    fn config(&self, folder: &Path) -> Config {
        let connection = |n: usize| {
            let plugin = self.good[0].display().to_string();
            Connection::new(format!("c{n}"), &plugin)
        };
        let config = Config::new()
            .with_allow_unsigned(true)
            .with_store(folder.join("store"));
        (0..CONNECTIONS).fold(config, |config, n| config.with_connection(connection(n)))
    }

    /// Swaps the connections in turn; how long those took that were let in, and how many were not.
    async fn swap_all(
        &self,
        runtime: &Runtime,
        swaps: u64,
        pause: Duration,
    ) -> Result<(Vec<Duration>, u64)> {
        let (mut took, mut refused) = (Vec::new(), 0);
        for n in 0..usize::try_from(swaps)? {
            let is_bad = n % 4 == 3;
            let from = if is_bad { &self.bad } else { &self.good };
            let swap = Swap {
                artifact: from[(n / 4 + n) % from.len()].clone(),
                canary: None,
                force: false,
            };
            let begun = Instant::now();
            match runtime.swap(&format!("c{}", n % CONNECTIONS), swap).await {
                Ok(_) => took.push(begun.elapsed()),
                Err(cofferdam::Error::Same { .. }) => {}
                Err(error) => {
                    ensure!(is_bad, "a good plugin was refused: {error}");
                    refused += 1;
                }
            }
            tokio::time::sleep(pause).await;
        }
        Ok((took, refused))
    }
}

/// One caller for each connection, until they are stopped.
struct Callers {
    calling: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<Result<Vec<Duration>>>,
}

impl Callers {
    fn start(runtime: &Runtime) -> Result<Self> {
        let calling = Arc::new(AtomicBool::new(true));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..CONNECTIONS {
            let definition = definition(runtime, n)?;
            let (runtime, calling) = (runtime.clone(), Arc::clone(&calling));
            tasks.spawn(async move {
                let mut took = Vec::new();
                while calling.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let run = runtime.start(&definition, json!({})).await?;
                    let view = runtime.wait(&run).await?;
                    ensure!(view.status == Status::Completed, "lost: {:?}", view.error);
                    took.push(begun.elapsed());
                }
                Ok(took)
            });
        }
        Ok(Self { calling, tasks })
    }

    async fn stop(mut self) -> Result<Vec<Duration>> {
        self.calling.store(false, Ordering::Relaxed);
        let mut took = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            took.extend(ended??);
        }
        Ok(took)
    }
}

fn definition(runtime: &Runtime, n: usize) -> Result<Definition> {
    let document: Value = json!({
        "document": {"dsl": "1.0.3", "namespace": "bench", "name": format!("c{n}"), "version": "1.0.0"},
        "do": [{"act": {"call": format!("c{n}.normalize-phone"), "with": {"phone": "030 901820", "country": "DE"}}}],
    });
    let main = Source {
        origin: "bench".into(),
        text: document.to_string(),
    };
    let others = std::collections::BTreeMap::default();
    Ok(runtime.define(&Sources { main, others })?)
}

/// What of this process is in memory, in KiB, less what is only mapped from files.
fn resident_kb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let number = line.and_then(|l| l.split_whitespace().next());
    Ok(number.context("no RssAnon in /proc/self/status")?.parse()?)
}
