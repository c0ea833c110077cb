//! Durable tasks per second at 1, 16 and 256 concurrent runs, beside two floors of the same run:
//! append and `fdatasync` with group commit, and bare commits to the store.
//!
//! Each task is a real call in a chamber. `every-task` flushes each outcome before the next task;
//! `output-commit` flushes before something leaves.
//!
//! `--only RUNS every-task|output-commit|bare-store SECONDS` measures one thing without the
//! floors, for a profiler.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cofferdam::{Config, Connection, Durability, Runtime, Source, Sources};
use cofferdam_bench::{
    cpu_seconds, load, percentile_us, plugins, quick, ratio, reset_peak, resident_bytes,
};
use cofferdam_store::{Batch, JournalStore, Options, SledStore, Table};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

const WRITERS: [usize; 3] = [1, 16, 256];
const TASKS: usize = 10;
const RECORD_BYTES: usize = 400;

#[tokio::main]
async fn main() -> Result<()> {
    if let Some((runs, durability, span)) = only() {
        let measured = match durability {
            Some(durability) => engine(runs, span, durability)
                .await?
                .json(f64::NAN, f64::NAN),
            None => json!({"bareStorePerS": bare_store(runs, span).await?.round()}),
        };
        println!("{measured}");
        return Ok(());
    }
    let span = Duration::from_millis(if quick() { 300 } else { 2_000 });
    let before = load();
    let mut rows = Vec::new();
    for writers in WRITERS {
        let floor = floor(writers, span).await?;
        let store = bare_store(writers, span).await?;
        let every = engine(writers, span, Durability::EveryTask).await?;
        let output = engine(writers, span, Durability::OutputCommit).await?;
        rows.push(json!({
            "concurrentRuns": writers,
            "appendFdatasyncPerS": floor.round(),
            "bareStorePerS": store.round(),
            "everyTask": every.json(floor, store),
            "outputCommit": output.json(floor, store),
        }));
    }
    let report = json!({
        "bench": "durable", "unit": "tasks per second, runs of 10 tasks",
        "before": before, "after": load(), "rows": rows,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// The one row that is asked for, if one is.
fn only() -> Option<(usize, Option<Durability>, Duration)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--only");
    arguments.next()?;
    let runs = arguments.next()?.parse().ok()?;
    let durability = match arguments.next()?.as_str() {
        "every-task" => Some(Durability::EveryTask),
        "output-commit" => Some(Durability::OutputCommit),
        "bare-store" => None,
        _ => return None,
    };
    let seconds = arguments.next()?.parse().ok()?;
    Some((runs, durability, Duration::from_secs(seconds)))
}

/// One thread appends to a file what has gathered, syncs, and answers all.
async fn floor(writers: usize, span: Duration) -> Result<f64> {
    let mut file = tempfile::tempfile()?;
    let (sender, mut queue) = mpsc::channel::<oneshot::Sender<()>>(1_024);
    let committer = std::thread::spawn(move || -> std::io::Result<()> {
        let mut group = Vec::new();
        while queue.blocking_recv_many(&mut group, 1_024) > 0 {
            file.write_all(&vec![7; RECORD_BYTES * group.len()])?;
            file.sync_data()?;
            for answer in group.drain(..) {
                let _ = answer.send(());
            }
        }
        Ok(())
    });
    let sender = Arc::new(sender);
    let done = concurrently(writers, span, move |_, _| {
        let sender = Arc::clone(&sender);
        async move {
            let (answer, answered) = oneshot::channel();
            sender
                .send(answer)
                .await
                .ok()
                .context("the committer stopped")?;
            Ok(answered.await?)
        }
    })
    .await?;
    committer.join().ok().context("the committer panicked")??;
    Ok(done)
}

/// Two keys of about 400 bytes together, as one task writes them.
async fn bare_store(writers: usize, span: Duration) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn JournalStore> =
        Arc::new(SledStore::open(folder.path(), &Options::default())?);
    concurrently(writers, span, move |writer, n| {
        let store = Arc::clone(&store);
        async move {
            let key = format!("{writer}/{n}");
            let half = vec![7; RECORD_BYTES / 2];
            let batch =
                Batch::new()
                    .put(Table::Kv, key.clone(), half.clone())
                    .put(Table::Event, key, half);
            Ok(store.commit(batch).await?)
        }
    })
    .await
}

/// How many times a second the work is done by so many at a time.
async fn concurrently<F, W>(writers: usize, span: Duration, work: F) -> Result<f64>
where
    F: Fn(usize, u64) -> W + Send + Sync + Clone + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let work = work.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < span {
                work(writer, done).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    drop(work);
    let mut total = 0;
    while let Some(done) = tasks.join_next().await {
        total += done??;
    }
    Ok(total as f64 / begun.elapsed().as_secs_f64())
}

struct Measured {
    tasks_per_s: f64,
    p50_run_ms: f64,
    p99_run_ms: f64,
    cpu_s_per_1000: f64,
    peak_bytes: u64,
}

impl Measured {
    fn json(&self, floor: f64, store: f64) -> Value {
        json!({
            "tasksPerS": self.tasks_per_s.round(),
            "ratioToFloor": ratio(self.tasks_per_s, floor),
            "ratioToStore": ratio(self.tasks_per_s, store),
            "p50RunMs": (self.p50_run_ms * 100.0).round() / 100.0,
            "p99RunMs": (self.p99_run_ms * 100.0).round() / 100.0,
            "cpuSPer1000Tasks": (self.cpu_s_per_1000 * 1e3).round() / 1e3,
            "peakResidentMb": self.peak_bytes >> 20,
        })
    }
}

async fn engine(runs: usize, span: Duration, durability: Durability) -> Result<Measured> {
    let folder = tempfile::tempdir()?;
    let config = Config::new()
        .with_plugins_dir(plugins()?)
        .with_allow_unsigned(true)
        .with_store(folder.path().join("store"))
        .with_durability(durability)
        .with_connection(Connection::new("phone", "normalize"));
    let runtime = Runtime::open(config).await?;
    let definition = Arc::new(runtime.define(&sources())?);
    reset_peak();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..runs {
        let (runtime, definition) = (runtime.clone(), Arc::clone(&definition));
        tasks.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < span {
                let at = Instant::now();
                let run = runtime
                    .start(&definition, json!({"phone": "030 901820", "country": "DE"}))
                    .await?;
                let end = runtime.wait(&run).await?;
                anyhow::ensure!(end.output.is_some(), "a run failed: {:?}", end.error);
                took.push(at.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(one) = tasks.join_next().await {
        took.extend(one??);
    }
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (_, peak_bytes) = resident_bytes();
    runtime.shutdown().await;
    let done = (took.len() * TASKS) as f64;
    Ok(Measured {
        tasks_per_s: done / elapsed,
        p50_run_ms: percentile_us(&mut took, 0.5) / 1e3,
        p99_run_ms: percentile_us(&mut took, 0.99) / 1e3,
        cpu_s_per_1000: cpu / done * 1e3,
        peak_bytes,
    })
}

fn sources() -> Sources {
    let head = "document: {dsl: \"1.0.3\", namespace: bench, name: ten, version: \"1.0.0\"}\ndo:\n";
    let with = "{phone: \"030 901820\", country: DE}";
    let task = |n| format!("  - t{n}: {{call: phone.normalize-phone, with: {with}}}\n");
    let text = (0..TASKS).fold(head.to_owned(), |text, n| text + &task(n));
    let main = Source {
        origin: "ten.yaml".into(),
        text,
    };
    Sources {
        main,
        others: std::collections::BTreeMap::new(),
    }
}
