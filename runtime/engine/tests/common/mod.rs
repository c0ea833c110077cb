//! What the stages of several tests have in common.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cofferdam::{Action, Descriptor, Effect, Health, HealthStatus, Source, Sources};
use cofferdam_store::{
    Batch, Commit, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows, Table,
};
use parking_lot::Mutex;
use serde_json::json;

/// Longer than anything here takes on the busiest machine.
pub const LONG: Duration = Duration::from_mins(2);

/// A workflow of these tasks.
pub fn sources(tasks: &str) -> Sources {
    named("t", tasks)
}

/// One of this name.
pub fn named(name: &str, tasks: &str) -> Sources {
    let document = format!("dsl: \"1.0.3\", namespace: t, name: {name}, version: \"1.0.0\"");
    let main = Source {
        origin: "test.yaml".into(),
        text: format!("document: {{{document}}}\ndo:\n{tasks}"),
    };
    let others = BTreeMap::new();
    Sources { main, others }
}

/// A store that is gone with the test.
pub fn memory() -> Arc<dyn JournalStore> {
    Arc::new(MemoryStore::new())
}

/// What a connector says of itself whose actions take anything.
pub fn descriptor(name: &str, actions: &[(&str, Effect)]) -> Descriptor {
    let action = |effect| Action {
        title: "Act".into(),
        description: String::new(),
        effect,
        input: json!({}),
        output: json!({}),
        compensated_by: None,
        lookup: false,
        examples: Vec::new(),
    };
    let actions = actions
        .iter()
        .map(|(name, effect)| ((*name).to_owned(), action(*effect)));
    Descriptor {
        name: name.into(),
        version: "1.0.0".into(),
        description: String::new(),
        actions: actions.collect(),
    }
}

/// What one says whose service works.
pub fn healthy() -> Health {
    Health {
        status: HealthStatus::Healthy,
        message: String::new(),
    }
}

/// Waits for what the runtime does by itself.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("it comes to pass");
}

type Read<T> = Result<T, cofferdam_store::Error>;

/// A store somebody looks at the reads of, after each. They may put another store in its place, as if
/// somebody had written to it just then.
pub struct Looked<L> {
    store: Mutex<MemoryStore>,
    look: L,
}

impl<L: Fn(Table) -> Option<MemoryStore> + Send + Sync + 'static> Looked<L> {
    /// A store, and who looks: they are told which table was read.
    pub fn new(store: MemoryStore, look: L) -> Self {
        Self {
            store: Mutex::new(store),
            look,
        }
    }

    fn store(&self) -> MemoryStore {
        self.store.lock().clone()
    }

    fn read<T>(&self, table: Table, read: impl FnOnce(&MemoryStore) -> Read<T>) -> Read<T> {
        let read = read(&self.store());
        if let Some(other) = (self.look)(table) {
            *self.store.lock() = other;
        }
        read
    }
}

impl<L: Fn(Table) -> Option<MemoryStore> + Send + Sync + 'static> JournalStore for Looked<L> {
    fn commit(&self, batch: Batch) -> Commit {
        self.store().commit(batch)
    }

    fn get(&self, table: Table, key: &[u8]) -> Read<Option<Vec<u8>>> {
        self.read(table, |store| store.get(table, key))
    }

    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Read<Rows> {
        self.read(table, |store| store.scan(table, range, limit))
    }

    fn head(&self, run: &str) -> Read<Head> {
        self.store().head(run)
    }

    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Read<Records> {
        self.read(Table::Journal, |store| store.journal(run, from_seq, limit))
    }

    fn verify(&self) -> Read<Report> {
        self.store().verify()
    }

    fn size_on_disk(&self) -> Read<u64> {
        self.store().size_on_disk()
    }
}
