//! What only a store with a disk can show; for each engine.

mod crash;
mod cut;
mod damage;
mod model;
mod power;
mod room;
mod sync;
mod tear;

use std::path::Path;

use super::committer::Syncer;
use super::{Options, Tree, TreeStore, room as space};
use crate::{JournalStore, SledStore, conformance};

fn open(dir: &Path) -> SledStore {
    open_as(dir)
}

fn open_as<T: Tree>(dir: &Path) -> TreeStore<T> {
    TreeStore::open(dir, &Options::default()).unwrap()
}

fn open_with<T: Tree>(dir: &Path, syncer: Box<dyn Syncer<T>>) -> TreeStore<T> {
    TreeStore::open_with(dir, &Options::default(), syncer, space::free_in(dir)).unwrap()
}

fn passes_the_conformance_suite<T: Tree>() {
    let mut dirs = Vec::new();
    conformance::check_all(|| {
        let dir = tempfile::tempdir().unwrap();
        let store: Box<dyn JournalStore> = Box::new(open_as::<T>(dir.path()));
        dirs.push(dir);
        store
    });
}

#[test]
fn sled_passes_the_conformance_suite() {
    passes_the_conformance_suite::<super::Sled>();
}

#[cfg(feature = "fjall")]
#[test]
fn fjall_passes_the_conformance_suite() {
    passes_the_conformance_suite::<super::Fjall>();
}
