//! What many runs cost: a fan-out, a recovery, a million that wait, a long history, a full store, one
//! large event that many hear; for each engine that this program has, beside bare commits to the same
//! store in the same run.
//!
//! Calls go to code of this program, not to a chamber: what is measured is the journal and the
//! engine. `durable` measures tasks with a chamber.
//!
//! `--only sled output-commit` measures one engine, one durability, or one of both.

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
            let stage = Stage { engine, durability };
            if is_asked(engine.as_str()) && is_asked(stage.durability_name()) {
                rows.push(block_on(measure(&stage, size))?);
            }
        }
    }
    let report = json!({
        "bench": "scale", "unit": "named in each key", "before": before, "after": load(),
        "rows": rows,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// Whether `--only NAME…` names it, or says nothing.
fn is_asked(name: &str) -> bool {
    let mut only = std::env::args().skip_while(|argument| argument != "--only");
    let names: Vec<String> = only.by_ref().skip(1).collect();
    let of_its_kind = |name: &str| Engine::from_name(name).is_some();
    let kind: Vec<&String> = names
        .iter()
        .filter(|other| of_its_kind(other) == of_its_kind(name))
        .collect();
    kind.is_empty() || kind.iter().any(|other| *other == name)
}

/// Each part is told as soon as it is known: the whole takes long.
async fn measure(stage: &Stage, size: &Size) -> Result<Value> {
    let floor = many::bare_commits_per_s(stage, size.commits).await?;
    let mut row = json!({
        "engine": stage.engine.as_str(),
        "durability": stage.durability_name(),
        "bareCommitsPerS": floor.round(),
    });
    let mut tell = |part: &str, value: Value| {
        eprintln!("{} {part}: {value}", stage.engine.as_str());
        row[part] = value;
    };
    tell("fanOut", many::fan_out(stage, size.fan_out, floor).await?);
    tell(
        "recovery",
        many::recovery(stage, size.in_flight, floor).await?,
    );
    tell("history", grow::history(stage, size.history, floor).await?);
    tell("takenUp", grow::resumed(stage, size.history).await?);
    tell("listeners", shared::listeners(stage, size.listeners).await?);
    tell("stored", grow::stored(stage, size.stored, floor).await?);
    let mut waiting = Vec::new();
    for runs in size.waiting {
        waiting.push(many::waiting(stage, *runs, floor).await?);
        tell("waiting", json!(waiting));
    }
    Ok(row)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
