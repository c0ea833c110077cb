//! A model of a power cut at the worst moment of a group: all of it is written, none of it synced,
//! and any pages of it reach the disk.
//!
//! sled's groups are large: it uses segments of its log again as soon as what replaced their content
//! was flushed, and must not do so within the group that replaces it. fjall's journal only grows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::Sled;
use super::super::committer::Syncer;
use super::power::{PAGE_LEN, copy_all_but, file_of, read};
use super::{Options, Tree, TreeStore, open_as, open_with};
use crate::{Batch, Engine, Error, JournalStore as _, Table};

const GROUPS: u64 = 14;
const TEARS_PER_GROUP: u32 = 3;
/// Keys that each group writes anew.
const KEYS: u64 = 24;

/// Bytes of each value of a group: now and then a group is longer than several of sled's segments.
/// All groups of fjall's fit in its memory, or it would write more than its journal.
fn value_len<T: Tree>(group: u64) -> usize {
    match (group.is_multiple_of(3), T::ENGINE) {
        (true, Engine::Sled) => 300_000,
        (true, Engine::Fjall) => 30_000,
        (false, _) => 4_000,
    }
}

fn value<T: Tree>(key: u64, group: u64) -> Vec<u8> {
    let stamp = [key.to_be_bytes(), group.to_be_bytes()].concat();
    stamp.repeat(value_len::<T>(group) / stamp.len())
}

/// Tears each group before it is synced.
struct Tearing {
    dir: PathBuf,
    /// How many groups share a sync; more than one is a defect.
    groups_per_sync: u64,
    /// The file in question as of the last sync.
    disk: Vec<u8>,
    group: u64,
    synced: u64,
    coins: u64,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Tearing {
    fn coin(&mut self) -> bool {
        // A linear congruential generator (Knuth's MMIX); its high bits are random enough.
        self.coins = self
            .coins
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.coins >> 63 == 1
    }

    /// The disk with some of the pages that were written since.
    fn torn(&mut self, written: &[u8]) -> Vec<u8> {
        let mut torn = self.disk.clone();
        for (at, page) in written.chunks(PAGE_LEN).enumerate() {
            let here = at * PAGE_LEN..at * PAGE_LEN + page.len();
            if self.disk.get(here.clone()) != Some(page) && self.coin() {
                torn.resize(torn.len().max(here.end), 0);
                torn[here].copy_from_slice(page);
            }
        }
        torn
    }

    /// Opens what such a cut left behind: one of the groups since the last sync, whole.
    fn check<T: Tree>(&self, torn: &[u8]) -> Result<(), String> {
        let after = tempfile::tempdir().unwrap();
        copy_all_but(&self.dir, after.path(), file_of::<T>());
        fs::write(after.path().join(file_of::<T>()), torn).unwrap();
        let store = TreeStore::<T>::open(after.path(), &Options::default());
        let store = store.map_err(|error| error.to_string())?;
        let found = |key: u64| store.get(Table::Kv, &key.to_be_bytes()).unwrap();
        let is_whole = |group: u64| {
            (0..KEYS).all(|key| found(key) == (group > 0).then(|| value::<T>(key, group)))
        };
        let whole = (self.synced..=self.group).any(is_whole);
        whole
            .then_some(())
            .ok_or_else(|| "no group is whole".to_owned())
    }
}

impl<T: Tree> Syncer<T> for Tearing {
    fn sync(&mut self, tree: &T) -> Result<(), Error> {
        self.group += 1;
        let written = read::<T>(&self.dir.join(file_of::<T>()));
        for _ in 0..TEARS_PER_GROUP {
            let torn = self.torn(&written);
            if let Err(what) = self.check::<T>(&torn) {
                let what = format!("group {}: {what}", self.group);
                self.wrong.lock().unwrap().push(what);
            }
        }
        if self.group.is_multiple_of(self.groups_per_sync) {
            tree.sync()?;
            (self.disk, self.synced) = (written, self.group);
        }
        Ok(())
    }
}

/// What was wrong after some of the cuts.
fn tear_each_group<T: Tree>(dir: &Path, groups_per_sync: u64) -> Vec<String> {
    // Creation syncs all it writes, and so does every opening.
    drop(open_as::<T>(dir));
    let wrong = Arc::<Mutex<Vec<String>>>::default();
    let tearing = Tearing {
        dir: dir.to_owned(),
        groups_per_sync,
        disk: read::<T>(&dir.join(file_of::<T>())),
        group: 0,
        synced: 0,
        coins: 7,
        wrong: Arc::clone(&wrong),
    };
    let store = open_with::<T>(dir, Box::new(tearing));
    for group in 1..=GROUPS {
        let put = |batch: Batch, key: u64| {
            batch.put(
                Table::Kv,
                key.to_be_bytes().to_vec(),
                value::<T>(key, group),
            )
        };
        let batch = (0..KEYS).fold(Batch::new(), put);
        store.commit(batch).wait().unwrap();
    }
    drop(store);
    wrong.lock().unwrap().clone()
}

fn outlives_torn_groups<T: Tree>() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tear_each_group::<T>(dir.path(), 1), Vec::<String>::new());
}

#[test]
fn a_group_that_was_torn_by_a_power_cut_takes_nothing_of_those_before_it() {
    outlives_torn_groups::<Sled>();
}

#[test]
fn groups_that_share_a_sync_would_take_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    assert_ne!(tear_each_group::<Sled>(dir.path(), 4), Vec::<String>::new());
}

#[cfg(feature = "fjall")]
#[test]
fn a_group_of_fjall_that_was_torn_by_a_power_cut_takes_nothing_of_those_before_it() {
    outlives_torn_groups::<super::super::Fjall>();
}
