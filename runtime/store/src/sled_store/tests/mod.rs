//! What only a store with a disk can show.

mod crash;
mod damage;
mod model;
mod power;
mod sync;

use std::path::Path;

use super::{Options, SledStore};
use crate::conformance;

fn open(dir: &Path) -> SledStore {
    SledStore::open(dir, &Options::default()).unwrap()
}

#[test]
fn sled_passes_the_conformance_suite() {
    let mut dirs = Vec::new();
    conformance::check_all(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        dirs.push(dir);
        Box::new(store)
    });
}
