//! When commits are answered, and what becomes of them when the disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::committer::Syncer;
use super::super::queue::GROUP_COMMITS_MAX;
use super::super::{Sled, Tree};
use super::{open, open_as, open_with};
use crate::{Batch, Error, JournalStore, SledStore, Table};

/// Reports each sync that begins, and ends it when told how.
struct Gate {
    begun: Sender<()>,
    end: Receiver<Result<(), Error>>,
}

struct Gated<T: Tree> {
    store: super::TreeStore<T>,
    begun: Receiver<()>,
    end: Sender<Result<(), Error>>,
    dir: tempfile::TempDir,
}

impl<T: Tree> Syncer<T> for Gate {
    fn sync(&mut self, _: &T) -> Result<(), Error> {
        let _ = self.begun.send(());
        // The test is over: let the store close.
        self.end.recv().unwrap_or(Ok(()))
    }
}

fn gated<T: Tree>() -> Gated<T> {
    let dir = tempfile::tempdir().unwrap();
    let (begun_sender, begun) = channel();
    let (end, end_receiver) = channel();
    let gate = Gate {
        begun: begun_sender,
        end: end_receiver,
    };
    let store = open_with(dir.path(), Box::new(gate));
    Gated {
        store,
        begun,
        end,
        dir,
    }
}

fn put(store: &dyn JournalStore, key: impl Into<Vec<u8>>) -> crate::Commit {
    store.commit(Batch::new().put(Table::Kv, key, "v"))
}

#[test]
fn a_commit_is_answered_only_after_its_sync() {
    answers_after_the_sync::<Sled>();
    #[cfg(feature = "fjall")]
    answers_after_the_sync::<super::super::Fjall>();
}

fn answers_after_the_sync<T: Tree>() {
    let Gated::<T> {
        store,
        begun,
        end,
        dir: _dir,
    } = gated();
    let commit = put(&store, "k");
    begun.recv().unwrap();
    // Applied and visible, as the trait says, but not acknowledged.
    assert!(store.get(Table::Kv, b"k").unwrap().is_some());
    assert!(!commit.is_resolved());
    end.send(Ok(())).unwrap();
    assert_eq!(commit.wait(), Ok(()));
}

fn run_of(name: &str) -> Batch {
    Batch::new().put(Table::Run, name, "row").claim(name, 1)
}

#[test]
fn a_run_is_durable_only_after_the_sync_of_what_touches_it() {
    durable_after_the_sync::<Sled>();
    #[cfg(feature = "fjall")]
    durable_after_the_sync::<super::super::Fjall>();
}

fn durable_after_the_sync<T: Tree>() {
    let Gated::<T> {
        store,
        begun,
        end,
        dir: _dir,
    } = gated();
    let old = store.commit(run_of("old"));
    begun.recv().unwrap();
    assert!(store.get(Table::Run, b"old").unwrap().is_some());
    assert!(!store.is_durable("old"), "seen, and not synced");
    end.send(Ok(())).unwrap();
    assert_eq!(old.wait(), Ok(()));
    assert!(store.is_durable("old"));
    // A row alone is enough of a touch.
    let new = store.commit(Batch::new().put(Table::Run, "new", "row"));
    begun.recv().unwrap();
    assert!(store.is_durable("old") && !store.is_durable("new"));
    let failed = Error::Io {
        action: "syncing".to_owned(),
        detail: "the disk is full".to_owned(),
    };
    end.send(Err(failed)).unwrap();
    assert!(new.wait().is_err());
    // For good: nothing is known of it any more, and all of the other one.
    assert!(store.get(Table::Run, b"new").unwrap().is_some());
    assert!(store.is_durable("old") && !store.is_durable("new"));
}

#[test]
fn commits_that_arrive_during_a_sync_share_the_next_one() {
    let Gated::<Sled> {
        store,
        begun,
        end,
        dir: _dir,
    } = gated();
    let first = put(&store, "first");
    begun.recv().unwrap();
    let commits: Vec<_> = (0..GROUP_COMMITS_MAX as u64)
        .map(|at| put(&store, at.to_be_bytes()))
        .collect();
    end.send(Ok(())).unwrap();
    assert_eq!(first.wait(), Ok(()));
    begun.recv().unwrap();
    assert!(commits.iter().all(|commit| !commit.is_resolved()));
    end.send(Ok(())).unwrap();
    for commit in commits {
        assert_eq!(commit.wait(), Ok(()));
    }
    assert!(begun.try_recv().is_err(), "there was a third sync");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_the_store_is_opened_again() {
    stops_after_a_failed_sync::<Sled>();
    #[cfg(feature = "fjall")]
    stops_after_a_failed_sync::<super::super::Fjall>();
}

fn stops_after_a_failed_sync<T: Tree>() {
    let Gated::<T> {
        store,
        begun,
        end,
        dir,
    } = gated();
    let before = put(&store, "before");
    begun.recv().unwrap();
    end.send(Ok(())).unwrap();
    assert_eq!(before.wait(), Ok(()));
    let failed = put(&store, "failed");
    begun.recv().unwrap();
    let waiting = put(&store, "waiting");
    let full = Error::Io {
        action: "syncing".to_owned(),
        detail: "no space left on device".to_owned(),
    };
    end.send(Err(full)).unwrap();
    let error = failed.wait().unwrap_err();
    assert!(error.is_unknown_outcome());
    assert_eq!(waiting.wait(), Err(error.clone()));
    for _ in 0..3 {
        assert_eq!(put(&store, "later").wait(), Err(error.clone()));
        assert_eq!(store.commit(Batch::new()).wait(), Err(error.clone()));
    }
    assert!(begun.try_recv().is_err(), "it synced again");
    assert!(store.get(Table::Kv, b"before").unwrap().is_some());
    drop(store);
    let store = open_as::<T>(dir.path());
    assert!(store.get(Table::Kv, b"before").unwrap().is_some());
    assert!(store.get(Table::Kv, b"waiting").unwrap().is_none());
    assert_eq!(put(&store, "later").wait(), Ok(()));
}

#[test]
fn closing_writes_and_answers_what_was_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let commits: Vec<_> = (0..500_u64)
        .map(|at| put(&store, at.to_be_bytes()))
        .collect();
    drop(store);
    for commit in commits {
        assert_eq!(commit.wait(), Ok(()));
    }
    let store = open(dir.path());
    assert_eq!(store.verify().unwrap().rows, 500);
}

#[test]
fn a_panic_while_writing_is_told_to_the_callers() {
    struct Panic;
    impl Syncer<Sled> for Panic {
        fn sync(&mut self, _: &Sled) -> Result<(), Error> {
            panic!("on purpose");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store: SledStore = open_with(dir.path(), Box::new(Panic));
    for _ in 0..2 {
        let error = put(&store, "k").wait().unwrap_err();
        assert!(matches!(&error, Error::Io { detail, .. } if detail == "on purpose"));
    }
}

#[test]
fn readers_never_see_a_part_of_a_batch() {
    const KEYS: u64 = 50;
    const BATCHES: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let done = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..BATCHES {
                let mut batch = Batch::new();
                for key in 0..KEYS {
                    // The last one is cut into chunks.
                    let times = if key + 1 == KEYS { 5000 } else { 1 };
                    let value = number.to_be_bytes().repeat(times);
                    batch = batch.put(Table::Kv, key.to_be_bytes(), value);
                }
                store.commit(batch).wait().unwrap();
            }
            done.store(1, Ordering::SeqCst);
        });
        while done.load(Ordering::SeqCst) == 0 {
            let rows = store.scan(Table::Kv, crate::KeyRange::all(), 1000).unwrap();
            let Some((_, first)) = rows.first() else {
                continue;
            };
            assert_eq!(rows.len() as u64, KEYS);
            assert!(rows.iter().all(|(_, value)| value[..8] == first[..8]));
        }
    });
}

#[test]
fn a_backup_keeps_commits_waiting_and_readers_not() {
    readers_go_on_beside_a_backup::<Sled>();
    #[cfg(feature = "fjall")]
    readers_go_on_beside_a_backup::<super::super::Fjall>();
}

/// Longer than a read takes on the busiest machine.
const LONG: std::time::Duration = std::time::Duration::from_mins(1);

fn readers_go_on_beside_a_backup<T: Tree>() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open_as::<T>(dir.path()));
    put(&*store, "before").wait().unwrap();
    let mut waiting = None;
    store
        .read_all(&mut |_| {
            if waiting.is_some() {
                return Ok(());
            }
            // What is committed meanwhile waits, and would keep out who reads after it.
            waiting = Some(put(&*store, "after"));
            while store.inner()?.queue.is_waiting() {
                std::thread::yield_now();
            }
            let (told, read) = channel();
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for _ in 0..1_000 {
                    let _ = store.get(Table::Kv, b"before");
                }
                told.send(store.get(Table::Kv, b"after"))
            });
            let found = read.recv_timeout(LONG).expect("reads do not wait");
            assert_eq!(found, Ok(None));
            Ok(())
        })
        .unwrap();
    waiting.unwrap().wait().unwrap();
    assert!(store.get(Table::Kv, b"after").unwrap().is_some());
}
