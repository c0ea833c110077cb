//! Earlier answers, kept for the time when a connection does not answer.
//!
//! An answer is a row, written with the outcome that it is; a run that uses one has it in its
//! journal. Which rows there are, and how old, is held in memory for every connection, so that both
//! their number and their bytes stay bounded whatever the workflows ask. What is asked is kept as a
//! hash, never as text.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::run::Kept;
use cofferdam_store::{Batch, JournalStore, KeyRange, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::rows::{decode, encode};
use crate::runtime::Inner;

/// How many answers, and how many bytes of them, are kept of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Answers; at least 1.
    pub entries_max: usize,
    /// Bytes of all of them, as JSON. An answer that is larger by itself is not kept.
    pub bytes_max: usize,
}

impl Default for AnswerLimits {
    /// 1,000 answers with 16 MiB: enough for the customers of a day, small beside a journal.
    fn default() -> Self {
        Self {
            entries_max: 1_000,
            bytes_max: 16 << 20,
        }
    }
}

/// How often answers that are too old to be of use are cleared away.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How many rows are read, or cleared away, in one go.
const PAGE: usize = 500;

/// One row.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    at_ms: u64,
    max_age_ms: u64,
    output: Value,
}

/// What is known of a row without reading it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at_ms: u64,
    max_age_ms: u64,
    bytes: usize,
}

impl Entry {
    fn is_over(&self, now_ms: u64) -> bool {
        self.at_ms.saturating_add(self.max_age_ms) < now_ms
    }
}

/// The rows of one connection.
#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<Vec<u8>, Entry>,
    by_age: BTreeSet<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Shelf {
    fn insert(&mut self, key: Vec<u8>, entry: Entry) {
        self.remove(&key);
        self.bytes += entry.bytes;
        self.by_age.insert((entry.at_ms, key.clone()));
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            self.by_age.remove(&(entry.at_ms, key.to_vec()));
        }
    }

    /// Takes out the oldest until the rest fits.
    fn evict(&mut self, limits: AnswerLimits) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while (self.entries.len() > limits.entries_max || self.bytes > limits.bytes_max)
            && let Some((_, key)) = self.by_age.first().cloned()
        {
            self.remove(&key);
            gone.push(key);
        }
        gone
    }
}

/// The answers that are kept.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    limits: HashMap<String, AnswerLimits>,
    shelves: Mutex<HashMap<String, Shelf>>,
}

impl Answers {
    /// None yet; `limits` by connection.
    pub fn new(limits: HashMap<String, AnswerLimits>) -> Self {
        Self {
            limits,
            shelves: Mutex::default(),
        }
    }

    fn limits(&self, connection: &str) -> AnswerLimits {
        self.limits.get(connection).copied().unwrap_or_default()
    }

    /// Finds out what is in the store. What does not fit the limits any more is cleared away.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self, store: &dyn JournalStore) -> Result<(), Error> {
        let mut gone = Vec::new();
        let mut range = KeyRange::all();
        loop {
            let rows = store.scan(Table::Cache, range, PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            range = KeyRange::all().after(last);
            for (key, bytes) in rows {
                // A row that another version wrote is no answer.
                let Ok(row) = decode::<Row>("answer", "", &bytes) else {
                    gone.push(key);
                    continue;
                };
                let entry = Entry {
                    at_ms: row.at_ms,
                    max_age_ms: row.max_age_ms,
                    bytes: bytes.len(),
                };
                let connection = connection_of(&key);
                let mut shelves = self.shelves.lock();
                shelves.entry(connection).or_default().insert(key, entry);
            }
        }
        for (connection, shelf) in &mut *self.shelves.lock() {
            gone.extend(shelf.evict(self.limits(connection)));
        }
        gone.sort_unstable();
        Ok(clear_away(store, &gone).await?)
    }

    /// Adds to a batch what keeps this answer, and clears away the oldest if there are too many.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn keep(
        &self,
        batch: Batch,
        (tenant, connection, action, input): (&str, &str, &str, &Value),
        output: &Value,
        max_age_ms: u64,
        now_ms: u64,
    ) -> Result<Batch, Error> {
        let limits = self.limits(connection);
        let key = key(connection, tenant, action, input);
        let mut all = self.shelves.lock();
        let own = all.entry(connection.to_owned()).or_default();
        // Others may have use for it longer than this task.
        let before = own.entries.get(&key).map_or(0, |e| e.max_age_ms);
        let row = Row {
            at_ms: now_ms,
            max_age_ms: max_age_ms.max(before),
            output: output.clone(),
        };
        let bytes = encode(&row)?;
        if bytes.len() > limits.bytes_max {
            return Ok(batch);
        }
        let entry = Entry {
            at_ms: now_ms,
            max_age_ms: row.max_age_ms,
            bytes: bytes.len(),
        };
        own.insert(key.clone(), entry);
        let evicted = own.evict(limits);
        let batch = batch.put(Table::Cache, key, bytes);
        let clear = |batch: Batch, key| batch.delete(Table::Cache, key);
        Ok(evicted.into_iter().fold(batch, clear))
    }

    /// Takes out of the lists what is too old to be of use.
    fn take_over(&self, now_ms: u64) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        for shelf in self.shelves.lock().values_mut() {
            let over = shelf.entries.iter().filter(|(_, e)| e.is_over(now_ms));
            let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
            for key in &over {
                shelf.remove(key);
            }
            gone.extend(over);
        }
        // A map gives them in any order, and one seed has to give one history.
        gone.sort_unstable();
        gone
    }

    /// How many are kept of a connection.
    #[cfg(test)]
    fn count(&self, connection: &str) -> usize {
        let shelves = self.shelves.lock();
        shelves.get(connection).map_or(0, |s| s.entries.len())
    }
}

/// The first of these connections that has answered this before, not too long ago.
///
/// # Errors
/// The store's.
pub(crate) fn recall(
    store: &dyn JournalStore,
    connections: &[String],
    (tenant, action, input): (&str, &str, &Value),
    max_age_ms: u64,
    now_ms: u64,
) -> Result<Option<Kept>, Error> {
    for connection in connections {
        let Some(bytes) = store.get(Table::Cache, &key(connection, tenant, action, input))? else {
            continue;
        };
        // What cannot be understood is no answer.
        let Ok(row) = decode::<Row>("answer", connection, &bytes) else {
            continue;
        };
        if now_ms.saturating_sub(row.at_ms) <= max_age_ms {
            let (output, at_ms) = (row.output, row.at_ms);
            return Ok(Some(Kept { output, at_ms }));
        }
    }
    Ok(None)
}

/// Clears away what is too old, until the runtime shuts down.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let over = inner.answers.take_over(inner.clock.now_ms());
        if let Err(error) = clear_away(&*inner.store, &over).await {
            crate::runtime::storage_failed(&error);
        }
    }
}

async fn clear_away(
    store: &dyn JournalStore,
    keys: &[Vec<u8>],
) -> Result<(), cofferdam_store::Error> {
    for keys in keys.chunks(PAGE) {
        let clear = |batch: Batch, key: &Vec<u8>| batch.delete(Table::Cache, key.clone());
        store.commit(keys.iter().fold(Batch::new(), clear)).await?;
    }
    Ok(())
}

/// Stands between the parts of a key; no name contains it.
const SEPARATOR: u8 = 0;

/// What one tenant was answered is nothing to another: a plugin may answer each its own.
fn key(connection: &str, tenant: &str, action: &str, input: &Value) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    digest(&mut hasher, input);
    let hash = hasher.finalize();
    let mut key = Vec::with_capacity(connection.len() + tenant.len() + action.len() + 35);
    for part in [connection, tenant, action].map(str::as_bytes) {
        key.extend_from_slice(part);
        key.push(SEPARATOR);
    }
    key.extend_from_slice(hash.as_bytes());
    key
}

fn connection_of(key: &[u8]) -> String {
    let name = key.split(|b| *b == SEPARATOR).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Hashes a value so that the order of an object's keys does not count.
fn digest(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            hasher.update(value.to_string().as_bytes());
        }
        Value::String(text) => {
            hasher.update(format!("s{}:", text.len()).as_bytes());
            hasher.update(text.as_bytes());
        }
        Value::Array(items) => {
            hasher.update(format!("a{}:", items.len()).as_bytes());
            for item in items {
                digest(hasher, item);
                hasher.update(b",");
            }
        }
        Value::Object(entries) => {
            hasher.update(format!("o{}:", entries.len()).as_bytes());
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            for (name, value) in entries {
                hasher.update(format!("{}:{name}", name.len()).as_bytes());
                digest(hasher, value);
                hasher.update(b",");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_store::MemoryStore;
    use serde_json::json;

    use super::*;

    fn answers(entries_max: usize, bytes_max: usize) -> Answers {
        let limits = AnswerLimits {
            entries_max,
            bytes_max,
        };
        Answers::new([("crm".to_owned(), limits)].into())
    }

    async fn keep(answers: &Answers, store: &MemoryStore, n: u64, output: &Value) {
        let input = json!({ "n": n });
        let about = ("", "crm", "get", &input);
        let batch = answers.keep(Batch::new(), about, output, 1_000, n).unwrap();
        store.commit(batch).await.unwrap();
    }

    fn rows(store: &MemoryStore) -> usize {
        store
            .scan(Table::Cache, KeyRange::all(), 100)
            .unwrap()
            .len()
    }

    fn found(store: &MemoryStore, n: u64, now_ms: u64) -> Option<Value> {
        let input = json!({ "n": n });
        let names = ["crm".to_owned()];
        let kept = recall(store, &names, ("", "get", &input), 1_000, now_ms).unwrap();
        kept.map(|kept| kept.output)
    }

    #[test]
    fn the_order_of_keys_does_not_count_and_everything_else_does() {
        let same = [json!({"a": 1, "b": [2]}), json!({"b": [2], "a": 1})];
        assert_eq!(key("c", "", "a", &same[0]), key("c", "", "a", &same[1]));
        let others = [
            json!({"a": 1, "b": 2}),
            json!({"a": 1, "b": [2, []]}),
            json!({"a": "1", "b": [2]}),
            json!([["a", 1]]),
            json!(["a", "1"]),
            json!(["a,1"]),
            json!(null),
        ];
        let keys: BTreeSet<_> = others.iter().map(|v| key("c", "", "a", v)).collect();
        assert_eq!(keys.len(), others.len());
        assert!(!keys.contains(&key("c", "", "a", &same[0])));
        assert_ne!(key("c", "t", "a", &same[0]), key("c", "", "a", &same[0]));
    }

    #[tokio::test]
    async fn the_oldest_go_when_there_are_too_many_also_after_a_restart() {
        let store = MemoryStore::new();
        let first = answers(3, 1 << 20);
        for n in 0..5 {
            keep(&first, &store, n, &json!(n)).await;
        }
        assert_eq!((rows(&store), found(&store, 1, 5)), (3, None));
        assert_eq!(found(&store, 4, 5), Some(json!(4)));
        let second = answers(2, 1 << 20);
        second.load(&store).await.unwrap();
        assert_eq!((rows(&store), second.count("crm")), (2, 2));
        assert_eq!(found(&store, 4, 5), Some(json!(4)));
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_one_that_is_too_large_is_not_kept() {
        let store = MemoryStore::new();
        let answers = answers(100, 1_000);
        for n in 0..10 {
            keep(&answers, &store, n, &json!("x".repeat(300))).await;
        }
        assert_eq!(rows(&store), 2);
        keep(&answers, &store, 11, &json!("x".repeat(2_000))).await;
        assert_eq!((rows(&store), found(&store, 11, 11)), (2, None));
    }

    #[tokio::test]
    async fn what_is_too_old_is_no_answer_and_is_cleared_away() {
        let store = MemoryStore::new();
        let answers = answers(100, 1 << 20);
        keep(&answers, &store, 7, &json!("old")).await;
        assert_eq!(found(&store, 7, 1_007), Some(json!("old")));
        assert_eq!(found(&store, 7, 1_008), None);
        assert_eq!(answers.take_over(1_007).len(), 0);
        assert_eq!(
            (answers.take_over(1_008).len(), answers.count("crm")),
            (1, 0)
        );
    }
}
