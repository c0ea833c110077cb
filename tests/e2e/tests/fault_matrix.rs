//! The table in `docs/fault-matrix.md` holds: every fault that a service can show, met by an
//! action of every effect, through the real connectors, chambers and engine.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "fault_matrix/cell.rs"]
mod cell;
#[path = "fault_matrix/services.rs"]
mod services;
mod stage;
#[path = "fault_matrix/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use cell::Cell;
use cofferdam::{Config, Definition, Runtime, Source, Sources};
use cofferdam_store::{JournalStore, MemoryStore};
use services::Service;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Cells that are tried at the same time, so that a busy machine makes none of them slow.
const CONCURRENCY: usize = 6;

async fn cells() -> Vec<Cell> {
    let rows = table::read().unwrap_or_else(|complaints| panic!("\n{}\n", complaints.join("\n")));
    let mut cells = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        cells.push(Cell::new(index, row).await);
    }
    cells
}

/// One runtime with a connection for each cell.
async fn open(cells: &[Cell], store: &MemoryStore) -> Runtime {
    let dir = tempfile::tempdir().unwrap();
    for service in table::EFFECTS.map(Service::of) {
        let (name, secret) = service.secret();
        std::fs::write(dir.path().join(name), secret).unwrap();
    }
    let text: String = cells.iter().map(Cell::config).collect();
    let config = stage::with_plugins(Config::parse(&text, "test", dir.path()).unwrap());
    let store: Arc<dyn JournalStore> = Arc::new(store.clone());
    Runtime::builder(config).store(store).open().await.unwrap()
}

fn define(runtime: &Runtime, cell: &Cell) -> Definition {
    let main = Source {
        origin: "fault.json".into(),
        text: cell.workflow(),
    };
    let others = BTreeMap::default();
    runtime.define(&Sources { main, others }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_matrix_is_as_the_table_says() {
    let cells = cells().await;
    let store = MemoryStore::new();
    let runtime = Arc::new(open(&cells, &store).await);
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    let mut trials = JoinSet::new();
    for cell in cells {
        let (runtime, store, places) = (Arc::clone(&runtime), store.clone(), Arc::clone(&places));
        trials.spawn(async move {
            let definition = define(&runtime, &cell);
            // Those that wait for a timeout do little else.
            let _place = if cell.is_slow() {
                None
            } else {
                Some(places.acquire().await.unwrap())
            };
            let seen = cell.observe(&runtime, &store, &definition).await;
            let corrected = cell.row.corrected(&seen);
            (corrected != cell.row).then(|| format!("- {}\n+ {corrected}", cell.row))
        });
    }
    let mut wrong: Vec<String> = trials.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "docs/fault-matrix.md says (-) what is not so (+):\n{}",
        wrong.join("\n")
    );
}
