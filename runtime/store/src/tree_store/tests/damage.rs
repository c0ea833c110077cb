//! Directories that are not a store, not this one's, or not whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::row;
use super::{Options, open};
use crate::{Batch, Engine, Error, JournalStore as _, KEY_LEN_MAX, SledStore, Table};

fn open_error(dir: &Path) -> Error {
    SledStore::open(dir, &Options::default()).unwrap_err()
}

/// Every file below a directory, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, Vec::new());
        } else {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

/// A store with some rows in it, closed.
fn store_with_rows() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..100_u8 {
        let batch = Batch::new().put(Table::Kv, [at], vec![at; 300]);
        store.commit(batch).wait().unwrap();
    }
    dir
}

#[test]
fn a_store_is_created_where_nothing_is_and_found_again() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b/c");
    let store = open(&dir);
    store
        .commit(Batch::new().put(Table::Kv, "k", "v"))
        .wait()
        .unwrap();
    assert!(store.size_on_disk().unwrap() > 0);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.get(Table::Kv, b"k"), Ok(Some(b"v".to_vec())));
    let magic = fs::read_to_string(dir.join("cofferdam.store")).unwrap();
    let expected = r#"{"format":"cofferdam-store","version":1,"engine":"sled"}"#;
    assert_eq!(magic.trim_end(), expected);
}

#[test]
fn the_root_of_a_mounted_volume_counts_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    drop(open(dir.path()));
    drop(open(dir.path()));
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_and_not_touched() {
    let magic = |text: &str| vec![("cofferdam.store", text.to_owned())];
    for content in [
        vec![("notes.txt", "mine".to_owned())],
        vec![("sled/db", "mine".to_owned())],
        vec![("cofferdam.store.new", "mine".to_owned())],
        vec![
            ("cofferdam.store.new", String::new()),
            ("sled/db", "mine".to_owned()),
        ],
        magic(""),
        magic("garbage"),
        magic(r#"{"format":"other","version":1,"engine":"sled"}"#),
        magic(r#"{"format":"cofferdam-store","version":1,"engine":"other"}"#),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in content {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let before = files(dir.path());
        let error = open_error(dir.path());
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains(&dir.path().display().to_string())
        );
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn a_store_of_another_engine_is_refused_with_the_way_out_and_not_touched() {
    let dir = store_with_rows();
    let magic = dir.path().join("cofferdam.store");
    fs::write(
        &magic,
        r#"{"format":"cofferdam-store","version":1,"engine":"fjall"}"#,
    )
    .unwrap();
    let before = files(dir.path());
    let error = open_error(dir.path());
    assert!(matches!(
        error,
        Error::OtherEngine {
            found: Engine::Fjall,
            wanted: Engine::Sled,
            ..
        }
    ));
    assert!(
        error
            .to_string()
            .contains("cofferdam migrate-store --to sled"),
        "{error}"
    );
    assert_eq!(files(dir.path()), before);
    assert_eq!(Engine::of(dir.path()), Ok(Some(Engine::Fjall)));
}

#[cfg(not(feature = "fjall"))]
#[test]
fn an_engine_that_is_not_built_in_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = crate::open(dir.path(), Some(Engine::Fjall), &Options::default());
    let Err(error) = error else {
        panic!("it was opened");
    };
    assert_eq!(error.code(), "CD0412");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    assert!(matches!(open_error(&path), Error::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_later_format_is_refused_and_not_touched() {
    let dir = store_with_rows();
    let path = dir.path().join("cofferdam.store");
    fs::write(
        &path,
        r#"{"format":"cofferdam-store","version":2,"new":true}"#,
    )
    .unwrap();
    let before = files(dir.path());
    let error = open_error(dir.path());
    assert!(matches!(
        error,
        Error::Version {
            found: 2,
            supported: 1,
            ..
        }
    ));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_store_that_is_open_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(open_error(dir.path()), Error::InUse { .. }));
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn an_interrupted_creation_is_done_again() {
    let whole = "{\"format\":\"cofferdam-store\",\"version\":1,\"engine\":\"sled\"}\n";
    for (magic, database) in [
        ("", false),
        ("{\"form", false),
        (whole, false),
        (whole, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cofferdam.store.new"), magic).unwrap();
        if database {
            fs::create_dir(dir.path().join("sled")).unwrap();
            fs::write(dir.path().join("sled/db"), "torn").unwrap();
        }
        let store = open(dir.path());
        store
            .commit(Batch::new().put(Table::Kv, "k", "v"))
            .wait()
            .unwrap();
        drop(store);
        assert!(!dir.path().join("cofferdam.store.new").exists());
        assert_eq!(open(dir.path()).verify().unwrap().rows, 1);
    }
}

type Damage = fn(&Path);

#[test]
fn a_database_that_is_missing_or_garbled_is_corrupt_and_never_begun_anew() {
    let damages: [(&str, Damage); 7] = [
        ("no database", |sled| fs::remove_dir_all(sled).unwrap()),
        ("no file", |sled| fs::remove_file(sled.join("db")).unwrap()),
        ("empty file", |sled| fs::write(sled.join("db"), "").unwrap()),
        ("zeros", |sled| garble(&sled.join("db"), |_| 0)),
        ("noise", |sled| {
            garble(&sled.join("db"), |at| (at * at / 7) as u8);
        }),
        ("no settings", |sled| {
            fs::remove_file(sled.join("conf")).unwrap();
        }),
        ("settings", |sled| {
            garble(&sled.join("conf"), |at| at as u8 | 0x80);
        }),
    ];
    for (name, damage) in damages {
        let dir = store_with_rows();
        // Without its snapshot sled has only the log to go by, and takes noise for an empty one.
        for entry in fs::read_dir(dir.path().join("sled")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        damage(&dir.path().join("sled"));
        let error = open_error(dir.path());
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
    }
}

fn garble(path: &Path, byte: fn(usize) -> u8) {
    let len = fs::metadata(path).unwrap().len() as usize;
    fs::write(path, (0..len).map(byte).collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_garbled_snapshot_is_corrupt() {
    let dir = store_with_rows();
    // Opening writes one.
    drop(open(dir.path()));
    let mut snapshots = 0;
    for entry in fs::read_dir(dir.path().join("sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("snap.") {
            garble(&path, |at| at as u8);
            snapshots += 1;
        }
    }
    assert!(snapshots > 0);
    assert!(matches!(open_error(dir.path()), Error::Corrupt { .. }));
}

#[test]
fn a_damaged_row_is_named_on_reading_and_by_verify() {
    let dir = store_with_rows();
    let store = open(dir.path());
    let key = row::tree_key(Table::Kv.byte(), &[5]);
    let inner = store.inner().unwrap();
    let mut value = inner.raw(&key).unwrap().unwrap();
    *value.last_mut().unwrap() ^= 1;
    inner.apply(BTreeMap::from([(key, Some(value))])).unwrap();
    let error = store.get(Table::Kv, &[5]).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { place, .. } if place == r"table kv, key `\x05`"));
    assert!(store.scan(Table::Kv, crate::KeyRange::all(), 10).is_err());
    assert!(store.get(Table::Kv, &[6]).unwrap().is_some());
    let report = store.verify().unwrap();
    assert_eq!(report.rows, 100);
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].place, r"table kv, key `\x05`");
    // It can be mended by writing it again.
    store
        .commit(Batch::new().put(Table::Kv, [5], "new"))
        .wait()
        .unwrap();
    assert!(store.verify().unwrap().is_clean());
}

#[test]
fn a_part_without_an_owner_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .commit(Batch::new().put(Table::Kv, "k", vec![1; 50_000]))
        .wait()
        .unwrap();
    let key = row::tree_key(Table::Kv.byte(), b"k");
    let inner = store.inner().unwrap();
    inner.apply(BTreeMap::from([(key, None)])).unwrap();
    let report = store.verify().unwrap();
    assert_eq!(report.problems.len(), 4);
    assert_eq!(report.problems[0].place, "part 0 of table kv, key `k`");
}

/// Blob files are never synced by sled; see `row::CHUNK_LEN`.
#[test]
fn the_longest_keys_and_values_make_no_blob_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let commit = |batch: Batch| {
        store.commit(batch).wait().unwrap();
        // After each: sled removes a blob file once its page is written anew.
        let blobs = fs::read_dir(dir.path().join("sled/blobs")).unwrap();
        assert_eq!(blobs.count(), 0);
    };
    let key = |at: u64| {
        // Different from the first byte on, so that no common prefix shortens the nodes.
        let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        mixed.repeat(KEY_LEN_MAX / 8)
    };
    // Enough leaves for inner nodes to be full, at eight rows and more to a leaf.
    for step in 0..8 {
        let mut batch = Batch::new();
        for at in step * 1000..(step + 1) * 1000 {
            batch = batch.put(Table::Kv, key(at), "v");
        }
        commit(batch);
    }
    // Leaves that are full of the longest rows, made and merged again.
    for len in [row::CHUNK_LEN, row::CHUNK_LEN * 4, 1] {
        let mut batch = Batch::new();
        for at in 0..200 {
            batch = batch.put(Table::Timer, key(at), vec![1; len]);
        }
        commit(batch);
    }
    for step in 0..8 {
        let mut batch = Batch::new();
        for at in step * 1000..step * 1000 + 990 {
            batch = batch.delete(Table::Kv, key(at));
        }
        commit(batch);
    }
}

#[test]
fn options_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        cache_bytes: 1,
        ..Options::default()
    };
    let error = SledStore::open(dir.path(), &options).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(serde_json::from_str::<Options>(r#"{"cachebytes":1}"#).is_err());
    assert_eq!(
        serde_json::from_str::<Options>("{}").unwrap(),
        Options::default()
    );
}
