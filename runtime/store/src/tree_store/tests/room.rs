//! A disk without room: nothing is begun, nothing is lost, and it goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Sled;
use super::super::committer::TreeSync;
use super::{Options, Tree, TreeStore};
use crate::{Batch, Commit, Error, JournalStore, Table};

const RESERVE: u64 = 1_000;

fn open<T: Tree>(dir: &std::path::Path, free: &Arc<AtomicU64>) -> TreeStore<T> {
    open_counting(dir, free, &Arc::default())
}

/// Counts how often the disk is looked at.
fn open_counting<T: Tree>(
    dir: &std::path::Path,
    free: &Arc<AtomicU64>,
    looks: &Arc<AtomicU64>,
) -> TreeStore<T> {
    let (free, looks) = (Arc::clone(free), Arc::clone(looks));
    let options = Options {
        reserve_bytes: RESERVE,
        ..Options::default()
    };
    let probe = Box::new(move || {
        looks.fetch_add(1, Ordering::SeqCst);
        Ok(free.load(Ordering::SeqCst))
    });
    TreeStore::open_with(dir, &options, Box::new(TreeSync), probe).unwrap()
}

fn put(store: &dyn JournalStore, key: &str) -> Commit {
    store.commit(Batch::new().put(Table::Kv, key, "v"))
}

fn waits_for_room<T: Tree>() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(RESERVE));
    let looks = Arc::new(AtomicU64::new(0));
    let store = open_counting::<T>(dir.path(), &free, &looks);
    assert_eq!(store.full(), None);
    assert_eq!(put(&store, "before").wait(), Ok(()));
    free.store(RESERVE - 1, Ordering::SeqCst);
    let full = store.full().unwrap();
    assert_eq!(full.code(), "CD0410");
    let waiting: Vec<_> = ["a", "b", "c"].map(|key| put(&store, key)).into();
    let looked = looks.load(Ordering::SeqCst);
    let is_resolved = || waiting.iter().any(Commit::is_resolved);
    while looks.load(Ordering::SeqCst) < looked + 3 && !is_resolved() {
        std::thread::yield_now();
    }
    assert!(!is_resolved());
    // What is there can be read.
    assert!(store.get(Table::Kv, b"before").unwrap().is_some());
    free.store(RESERVE, Ordering::SeqCst);
    for commit in waiting {
        assert_eq!(commit.wait(), Ok(()));
    }
    assert_eq!(store.full(), None);
    assert!(store.get(Table::Kv, b"c").unwrap().is_some());
}

#[test]
fn commits_wait_for_room_and_go_on_by_themselves() {
    waits_for_room::<Sled>();
    #[cfg(feature = "fjall")]
    waits_for_room::<super::super::Fjall>();
}

#[test]
fn closing_without_room_refuses_what_waits_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(RESERVE));
    let store = open::<Sled>(dir.path(), &free);
    assert_eq!(put(&store, "before").wait(), Ok(()));
    free.store(0, Ordering::SeqCst);
    let waiting = [put(&store, "a"), put(&store, "b")];
    drop(store);
    for commit in waiting {
        let refused = commit.wait().unwrap_err();
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        assert!(!refused.is_unknown_outcome());
    }
    free.store(RESERVE, Ordering::SeqCst);
    let store = open::<Sled>(dir.path(), &free);
    assert_eq!(store.verify().unwrap().rows, 1);
}
