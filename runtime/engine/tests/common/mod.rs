//! What the stages of several tests have in common.

use cofferdam_store::{
    Batch, Commit, Head, JournalStore, KeyRange, MemoryStore, Records, Report, Rows, Table,
};
use parking_lot::Mutex;

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
