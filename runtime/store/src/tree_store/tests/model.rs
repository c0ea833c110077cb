//! The stores and the model in memory are the same for any sequence of batches.

use proptest::prelude::*;

use super::super::Sled;
use super::{Tree, open_as};
use crate::conformance::contents;
use crate::{Batch, JournalStore, MemoryStore, Table};

const RUNS: [&str; 3] = ["a", "b", "run-c"];
const KEYS: [&str; 4] = ["", "k", "k\u{0}", "l"];
const TABLES: [Table; 3] = [Table::Meta, Table::Kv, Table::RunByStatus];

#[derive(Debug, Clone)]
enum Step {
    /// Batches handed over without waiting in between.
    Group(Vec<Vec<Part>>),
    Reopen,
}

/// A part of a batch; what depends on the run's head is filled in from the model.
#[derive(Debug, Clone)]
enum Part {
    Guard {
        run: usize,
        off_by: (u64, u64),
    },
    Append {
        run: usize,
        off_by: u64,
        len: usize,
    },
    Put {
        table: usize,
        key: usize,
        len: usize,
    },
    PutNew {
        table: usize,
        key: usize,
        len: usize,
    },
    Delete {
        table: usize,
        key: usize,
    },
    /// The prefix is another key, which may be the beginning of others.
    DeleteUnreferenced {
        table: usize,
        key: usize,
        prefix: usize,
    },
    Claim {
        run: usize,
        up_by: u64,
    },
    Forget {
        run: usize,
    },
    Prune {
        run: usize,
        len: u64,
    },
    Place {
        run: usize,
        at: (u64, u64),
    },
}

/// Mostly 0: a batch that always fails teaches little.
fn off_by() -> impl Strategy<Value = u64> {
    prop_oneof![20 => Just(0), 1 => Just(1)]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0_usize..200, 1 => 16_000_usize..50_000]
}

fn part() -> impl Strategy<Value = Part> {
    let run = 0..RUNS.len();
    let (table, key) = (0..TABLES.len(), 0..KEYS.len());
    prop_oneof![
        6 => (run.clone(), (off_by(), off_by())).prop_map(|(run, off_by)| Part::Guard { run, off_by }),
        6 => (run.clone(), off_by(), len()).prop_map(|(run, off_by, len)| Part::Append { run, off_by, len }),
        6 => (table.clone(), key.clone(), len()).prop_map(|(table, key, len)| Part::Put { table, key, len }),
        3 => (table.clone(), key.clone(), len()).prop_map(|(table, key, len)| Part::PutNew { table, key, len }),
        3 => (table.clone(), key.clone()).prop_map(|(table, key)| Part::Delete { table, key }),
        3 => (table, key.clone(), key).prop_map(|(table, key, prefix)| Part::DeleteUnreferenced { table, key, prefix }),
        3 => (run.clone(), 0..3_u64).prop_map(|(run, up_by)| Part::Claim { run, up_by }),
        1 => run.clone().prop_map(|run| Part::Forget { run }),
        1 => (run.clone(), 0..3_u64).prop_map(|(run, len)| Part::Prune { run, len }),
        1 => (run, (0..3_u64, 0..3_u64)).prop_map(|(run, at)| Part::Place { run, at }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let batch = prop::collection::vec(part(), 0..6);
    prop_oneof![
        8 => prop::collection::vec(batch, 1..8).prop_map(Step::Group),
        1 => Just(Step::Reopen),
    ]
}

fn batch(model: &MemoryStore, parts: &[Part]) -> Batch {
    let mut appended = [0; RUNS.len()];
    let head = |run: usize| model.head(RUNS[run]).unwrap();
    let mut batch = Batch::new();
    for part in parts {
        batch = match *part {
            Part::Guard { run, off_by } => {
                let head = head(run);
                batch.guard(RUNS[run], head.epoch + off_by.0, head.next_seq + off_by.1)
            }
            Part::Append { run, off_by, len } => {
                let seq = head(run).next_seq + appended[run] + off_by;
                appended[run] += 1;
                batch.append(RUNS[run], seq, vec![seq as u8; len])
            }
            Part::Put { table, key, len } => {
                batch.put(TABLES[table], KEYS[key], vec![len as u8; len])
            }
            Part::PutNew { table, key, len } => {
                batch.put_new(TABLES[table], KEYS[key], vec![len as u8; len])
            }
            Part::Delete { table, key } => batch.delete(TABLES[table], KEYS[key]),
            Part::DeleteUnreferenced { table, key, prefix } => {
                batch.delete_unreferenced(TABLES[table], KEYS[key], KEYS[prefix])
            }
            Part::Claim { run, up_by } => batch.claim(RUNS[run], head(run).epoch + up_by),
            Part::Forget { run } => batch.forget(RUNS[run]),
            Part::Place { run, at } => {
                let (epoch, next_seq) = at;
                batch.place(RUNS[run], crate::Head { epoch, next_seq })
            }
            Part::Prune { run, len } => {
                let records = model
                    .scan(Table::Journal, crate::KeyRange::all(), usize::MAX)
                    .unwrap();
                let mut keys = records
                    .iter()
                    .filter_map(|(key, _)| crate::parse_journal_key(key));
                let first = keys
                    .find(|(of, _)| *of == RUNS[run])
                    .map_or(0, |(_, seq)| seq);
                batch.prune(RUNS[run], first..first + len).unwrap()
            }
        };
    }
    batch
}

fn equals_the_model<T: Tree>(steps: &[Step]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_as::<T>(dir.path());
    let model = MemoryStore::new();
    for step in steps.iter().chain([&Step::Reopen]) {
        match step {
            Step::Group(group) => {
                let mut expected = Vec::new();
                let mut commits = Vec::new();
                for parts in group {
                    let batch = batch(&model, parts);
                    expected.push(model.commit(batch.clone()).wait());
                    commits.push(store.commit(batch));
                }
                let results: Vec<_> = commits.into_iter().map(crate::Commit::wait).collect();
                prop_assert_eq!(results, expected);
            }
            Step::Reopen => {
                drop(store);
                store = open_as(dir.path());
            }
        }
        prop_assert_eq!(contents(&store), contents(&model));
        prop_assert_eq!(everything(&store), everything(&model));
        prop_assert_eq!(store.verify(), model.verify());
        for run in RUNS {
            prop_assert_eq!(store.head(run), model.head(run));
            prop_assert_eq!(store.journal(run, 1, 3), model.journal(run, 1, 3));
        }
    }
    Ok(())
}

/// What `read_all` visits, as text.
fn everything(store: &dyn JournalStore) -> Vec<String> {
    let mut seen = Vec::new();
    let visited = store.read_all(&mut |entry| {
        seen.push(format!("{entry:?}"));
        Ok(())
    });
    visited.unwrap();
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_equals_the_model(steps in prop::collection::vec(step(), 1..25)) {
        equals_the_model::<Sled>(&steps)?;
    }
}

#[cfg(feature = "fjall")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fjall_equals_the_model(steps in prop::collection::vec(step(), 1..25)) {
        equals_the_model::<super::super::Fjall>(&steps)?;
    }
}
