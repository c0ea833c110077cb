//! Files that were cut short or damaged at any byte: all of what was acknowledged is there, or the
//! store says that it is damaged. It never panics, and never gives something else for what was
//! written, nor nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Sled, mark};
use super::{Options, Tree, TreeStore, open_as};
use crate::{Batch, Error, JournalStore as _, Table};

const COMMITS: u64 = 200;
const DAMAGES: u64 = 120;

#[derive(Debug, Clone, Copy)]
enum Damage {
    /// The file ends here.
    Cut(usize),
    /// A bit is another.
    Flip(usize),
    /// A sector from here on is empty.
    Zero(usize),
}

fn value(at: u64) -> Vec<u8> {
    let len = if at % 20 == 19 { 40_000 } else { 400 };
    at.to_be_bytes().repeat(len / 8)
}

/// A copy of a store as a kill leaves it: every commit acknowledged, and nothing closed.
fn killed<T: Tree>() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    // Some of it before the last opening, so that there is more than one kind of file.
    let store = open_as::<T>(dir.path());
    write(&store, 0..COMMITS / 2);
    drop(store);
    let store = open_as::<T>(dir.path());
    write(&store, COMMITS / 2..COMMITS);
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    copy
}

fn write<T: Tree>(store: &TreeStore<T>, range: std::ops::Range<u64>) {
    for at in range {
        let batch = Batch::new()
            .put(Table::Kv, at.to_be_bytes(), value(at))
            .put(Table::Meta, "last", at.to_be_bytes());
        store.commit(batch).wait().unwrap();
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            copy_sparse(&entry.path(), &target);
        }
    }
}

/// Without writing the zeros at the end, which fjall's journal has many of.
fn copy_sparse(from: &Path, to: &Path) {
    let bytes = fs::read(from).unwrap();
    fs::write(to, &bytes[..used(&bytes)]).unwrap();
    let file = fs::File::options().write(true).open(to).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// The files of the database with something in them, but for the mark, which only says more.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 && !path.ends_with(mark::FILE) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn damage(path: &Path, random: &mut impl FnMut(usize) -> usize) -> Damage {
    let mut bytes = fs::read(path).unwrap();
    let used = used(&bytes).max(1);
    let at = random(used);
    let damage = match random(3) {
        0 => Damage::Cut(at),
        1 => Damage::Flip(at),
        _ => Damage::Zero(at),
    };
    match damage {
        Damage::Cut(at) => bytes.truncate(at),
        Damage::Flip(at) => bytes[at] ^= 1 << random(8),
        Damage::Zero(at) => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
    damage
}

/// Whether the damage was told; panics if something is wrong and it was not.
fn is_told<T: Tree>(dir: &Path) -> bool {
    let store = match TreeStore::<T>::open(dir, &Options::default()) {
        Ok(store) => store,
        Err(error) => {
            assert!(
                matches!(error, Error::Corrupt { .. } | Error::Io { .. }),
                "{error}"
            );
            return true;
        }
    };
    let mut told = false;
    let last = (COMMITS - 1).to_be_bytes().to_vec();
    let expected = (0..COMMITS).map(|at| (Table::Kv, at.to_be_bytes().to_vec(), value(at)));
    for (table, key, value) in expected.chain([(Table::Meta, b"last".to_vec(), last)]) {
        match store.get(table, &key) {
            Ok(Some(found)) => assert!(found == value, "another value"),
            Ok(None) => panic!("a value is missing and nobody says so"),
            Err(Error::Corrupt { .. } | Error::Io { .. }) => told = true,
            Err(error) => panic!("{error}"),
        }
    }
    if let Ok(report) = store.verify() {
        assert_eq!(report.is_clean(), !told, "{report:?}");
    }
    told
}

fn says_so_or_has_all<T: Tree>(seed: u64) {
    let mut state = seed;
    let mut random = move |below: usize| {
        // A linear congruential generator (Knuth's MMIX); its high bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    };
    let whole = killed::<T>();
    assert!(!is_told::<T>(&{
        let copy = tempfile::tempdir().unwrap().keep();
        copy_all(whole.path(), &copy);
        copy
    }));
    let mut told = 0;
    for round in 0..DAMAGES {
        let copy = tempfile::tempdir().unwrap();
        copy_all(whole.path(), copy.path());
        let files = files(&copy.path().join(T::ENGINE.as_str()));
        // The file that holds the rows most of the time.
        let largest = files
            .iter()
            .max_by_key(|path| used(&fs::read(path).unwrap()));
        let path = match round % 3 {
            0 => &files[random(files.len())],
            _ => largest.unwrap(),
        };
        let damage = damage(path, &mut random);
        println!(
            "seed {seed}, round {round}: {damage:?} in {}",
            path.display()
        );
        told += u64::from(is_told::<T>(copy.path()));
    }
    assert!(told > DAMAGES / 4, "damage was noticed {told} times only");
}

#[test]
fn a_cut_or_damaged_file_is_told_or_nothing_is_missing() {
    says_so_or_has_all::<Sled>(7);
}

#[cfg(feature = "fjall")]
#[test]
fn a_cut_or_damaged_file_of_fjall_is_told_or_nothing_is_missing() {
    says_so_or_has_all::<super::super::Fjall>(7);
}
