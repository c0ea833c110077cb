//! What many runs cost: a fan-out, a recovery, a million that wait, a long history, a full store, one
//! large event that many hear; for each engine that this program has, beside bare commits to the same
//! store in the same run.
//!
//! Calls go to code of this program, not to a chamber: what is measured is the journal and the
//! engine. `durable` measures tasks with a chamber.
//!
//! `--only sled output-commit fanOut` measures one engine, one durability, one part, or several of
//! each; of what is not named, all. A number is how many runs wait.

mod grow;
mod many;
mod shared;
mod stage;

use anyhow::Result;
use cofferdam::{Durability, Engine};
use cofferdam_bench::{load, quick};
use serde_json::{Value, json};

use crate::stage::Stage;

const PARTS: [&str; 7] = [
    "fanOut",
    "recovery",
    "history",
    "takenUp",
    "listeners",
    "stored",
    "waiting",
];

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

const USAGE: &str = "scale [--quick] [--only ENGINE… DURABILITY… PART… RUNS…]";

fn main() -> Result<()> {
    if let Some(child) = stage::child() {
        return block_on(child.work());
    }
    if let Some(unknown) = named().find(|name| kind(name).is_none()) {
        anyhow::bail!("`{unknown}` is nothing that is measured; {USAGE}, of the parts {PARTS:?}");
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

/// Whether `--only NAME…` names it, or nothing of its kind.
fn is_asked(name: &str) -> bool {
    let mut of_its_kind = named().filter(|other| kind(other) == kind(name));
    let first = of_its_kind.next();
    first.is_none()
        || first
            .into_iter()
            .chain(of_its_kind)
            .any(|other| other == name)
}

/// What stands on the command line.
fn named() -> impl Iterator<Item = String> {
    let switches = ["--quick", "--only"];
    std::env::args()
        .skip(1)
        .filter(move |argument| !switches.contains(&argument.as_str()))
}

#[derive(PartialEq)]
enum Kind {
    Engine,
    Durability,
    Part,
    Runs,
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        _ if Engine::from_name(name).is_some() => Some(Kind::Engine),
        "output-commit" | "every-task" => Some(Kind::Durability),
        _ if PARTS.contains(&name) => Some(Kind::Part),
        _ => name.parse::<usize>().ok().map(|_| Kind::Runs),
    }
}

/// Each part is told as soon as it is known: the whole takes long.
async fn measure(stage: &Stage, size: &Size) -> Result<Value> {
    let floor = many::bare_commits_per_s(stage, size.commits).await?;
    let mut row = json!({
        "engine": stage.engine.as_str(),
        "durability": stage.durability_name(),
        "bareCommitsPerS": floor.round(),
    });
    for part in PARTS.into_iter().filter(|part| is_asked(part)) {
        let value = match part {
            "fanOut" => many::fan_out(stage, size.fan_out, floor).await?,
            "recovery" => many::recovery(stage, size.in_flight, floor).await?,
            "history" => grow::history(stage, size.history, floor).await?,
            "takenUp" => grow::resumed(stage, size.history).await?,
            "listeners" => shared::listeners(stage, size.listeners).await?,
            "stored" => grow::stored(stage, size.stored, floor).await?,
            _ => waiting(stage, size, floor).await?,
        };
        eprintln!("{} {part}: {value}", stage.engine.as_str());
        row[part] = value;
    }
    Ok(row)
}

async fn waiting(stage: &Stage, size: &Size, floor: f64) -> Result<Value> {
    let mut sizes: Vec<usize> = named().filter_map(|name| name.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = size.waiting.to_vec();
    }
    let mut rows = Vec::new();
    for runs in sizes {
        let row = many::waiting(stage, runs, floor).await?;
        eprintln!("{} waiting: {row}", stage.engine.as_str());
        rows.push(row);
    }
    Ok(Value::Array(rows))
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
