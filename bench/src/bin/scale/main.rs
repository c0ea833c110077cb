//! What many runs cost: a fan-out, a recovery, a million that wait, a long history, a full store, one
//! large event that many hear; for each engine that this program has, beside bare commits to the same
//! store in the same run.
//!
//! Calls go to code of this program, not to a chamber: what is measured is the journal and the
//! engine. `durable` measures tasks with a chamber.

mod grow;
mod many;
mod shared;
mod stage;

use anyhow::Result;
use cofferdam::{Durability, Engine};
use cofferdam_bench::{load, quick};
use serde_json::{Value, json};

use crate::stage::Stage;

/// How much of each.
pub(crate) struct Size {
    pub fan_out: usize,
    pub in_flight: usize,
    pub waiting: &'static [usize],
    pub history: &'static [usize],
    pub stored: &'static [usize],
    /// Runs that hear one large event.
    pub listeners: usize,
    /// Commits to the bare store, for the floor.
    pub commits: usize,
}

const WHOLE: Size = Size {
    fan_out: 10_000,
    in_flight: 10_000,
    waiting: &[100_000, 1_000_000],
    history: &[100, 1_000, 10_000],
    stored: &[0, 1_000, 10_000, 100_000],
    listeners: 1_000,
    commits: 100_000,
};
const QUICK: Size = Size {
    fan_out: 200,
    in_flight: 300,
    waiting: &[500],
    history: &[50, 200],
    stored: &[0, 200],
    listeners: 50,
    commits: 500,
};

fn main() -> Result<()> {
    if let Some(child) = stage::child() {
        return block_on(child.work());
    }
    let size = if quick() { &QUICK } else { &WHOLE };
    let before = load();
    let mut rows = Vec::new();
    for engine in Engine::ALL.into_iter().filter(|e| e.is_built_in()) {
        for durability in [Durability::OutputCommit, Durability::EveryTask] {
            rows.push(block_on(measure(engine, durability, size))?);
        }
    }
    let report = json!({
        "bench": "scale", "unit": "named in each key", "before": before, "after": load(),
        "rows": rows,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

async fn measure(engine: Engine, durability: Durability, size: &Size) -> Result<Value> {
    let stage = Stage { engine, durability };
    let floor = many::bare_commits_per_s(&stage, size.commits).await?;
    let durability = match durability {
        Durability::OutputCommit => "output-commit",
        Durability::EveryTask => "every-task",
    };
    let mut waiting = Vec::new();
    for runs in size.waiting {
        waiting.push(many::waiting(&stage, *runs, floor).await?);
    }
    Ok(json!({
        "engine": engine.as_str(),
        "durability": durability,
        "bareCommitsPerS": floor.round(),
        "fanOut": many::fan_out(&stage, size.fan_out, floor).await?,
        "recovery": many::recovery(&stage, size.in_flight, floor).await?,
        "waiting": waiting,
        "history": grow::history(&stage, size.history, floor).await?,
        "takenUp": grow::resumed(&stage, size.history).await?,
        "stored": grow::stored(&stage, size.stored, floor).await?,
        "listeners": shared::listeners(&stage, size.listeners).await?,
    }))
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
