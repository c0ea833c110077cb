//! Stores that were moved hold what they held.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{Beside, backup, migrate, restore};
use crate::conformance::contents;
use crate::{Batch, Engine, Error, Head, JournalStore, MemoryStore, Options, Table};

/// Those that this program has.
fn engines() -> impl Iterator<Item = Engine> {
    Engine::ALL
        .into_iter()
        .filter(|engine| engine.is_built_in())
}

fn open(dir: &Path, engine: Option<Engine>) -> Arc<dyn JournalStore> {
    crate::open(dir, engine, &Options::default()).unwrap()
}

/// Runs that go on, that were pruned, that were pruned away, and that were only claimed; rows of
/// every size.
fn fill(store: &dyn JournalStore) {
    for run in ["a", "b", "pruned", "emptied"] {
        let mut batch = Batch::new().claim(run, 7);
        for seq in 0..20 {
            let len = if seq == 3 { 50_000 } else { 100 };
            batch = batch.append(run, seq, vec![seq as u8; len]);
        }
        store.commit(batch).wait().unwrap();
    }
    let prune = Batch::new().prune("pruned", 0..12).unwrap();
    let prune = prune.prune("emptied", 0..20).unwrap();
    let more = prune
        .claim("claimed", 2)
        .guard("unclaimed", 0, 0)
        .append("unclaimed", 0, "x")
        .put(Table::Kv, "", "")
        .put(Table::Kv, "large", vec![1; 3_000_000])
        .put(Table::Run, "a", "row");
    store.commit(more).wait().unwrap();
    // More than fits into one batch of the copy.
    for step in 0..3_u32 {
        let mut batch = Batch::new();
        for at in 0..1_000_u32 {
            batch = batch.put(Table::Event, (step * 1_000 + at).to_be_bytes(), "event");
        }
        store.commit(batch).wait().unwrap();
    }
}

fn same(a: &dyn JournalStore, b: &dyn JournalStore) {
    assert!(contents(a).unwrap() == contents(b).unwrap());
    for run in ["a", "b", "pruned", "emptied", "claimed", "unclaimed", "no"] {
        assert_eq!(a.head(run), b.head(run), "{run}");
    }
    assert!(b.verify().unwrap().is_clean());
}

fn filled() -> MemoryStore {
    let model = MemoryStore::new();
    fill(&model);
    model
}

#[test]
fn a_restored_store_holds_what_the_backup_was_made_of_and_goes_on() {
    let model = filled();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    let written = backup(&model, None, &file).unwrap();
    for engine in engines() {
        let to = dir.path().join(engine.as_str());
        let restored = restore(&file, &to, engine, &Options::default()).unwrap();
        assert_eq!(restored, written);
        assert_eq!(Engine::of(&to), Ok(Some(engine)));
        let store = open(&to, None);
        same(&model, &*store);
        let Head { epoch, next_seq } = store.head("pruned").unwrap();
        let on = Batch::new()
            .guard("pruned", epoch, next_seq)
            .append("pruned", next_seq, "more");
        assert_eq!(store.commit(on).wait(), Ok(()));
        drop(store);
        // And once more, from the store that was restored.
        let again = dir.path().join(format!("{engine}.backup"));
        assert_eq!(
            backup(&*open(&to, None), None, &again).unwrap().rows,
            written.rows + 1
        );
    }
}

#[test]
fn files_beside_the_store_come_along() {
    let from = tempfile::tempdir().unwrap();
    let large = vec![9; super::PIECE_LEN_MAX * 2 + 1];
    for (name, bytes) in [("crm/1/plugin.wasm", &large[..]), ("crm/1/empty", b"")] {
        let path = from.path().join("plugins").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let file = from.path().join("a.backup");
    let beside = Beside {
        dir: from.path(),
        folder: "plugins",
    };
    let written = backup(&filled(), Some(beside), &file).unwrap();
    assert_eq!(written.files, 2);
    let to = from.path().join("to");
    restore(&file, &to, Engine::Sled, &Options::default()).unwrap();
    let found = fs::read(to.join("plugins/crm/1/plugin.wasm")).unwrap();
    assert!(found == large);
    assert_eq!(fs::read(to.join("plugins/crm/1/empty")).unwrap(), b"");
    same(&filled(), &*open(&to, None));
}

#[test]
fn nothing_is_written_over_and_nothing_is_restored_into_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    backup(&filled(), None, &file).unwrap();
    let before = fs::read(&file).unwrap();
    let error = backup(&MemoryStore::new(), None, &file).unwrap_err();
    assert_eq!(error.code(), "CD0415");
    assert!(fs::read(&file).unwrap() == before);
    let store = dir.path().join("store");
    drop(open(&store, None));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), "mine").unwrap();
    for to in [&store, &other] {
        let error = restore(&file, to, Engine::Sled, &Options::default()).unwrap_err();
        assert_eq!(error.code(), "CD0415", "{error}");
    }
    assert_eq!(fs::read(other.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(open(&store, None).verify().unwrap().rows, 0);
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    backup(&filled(), None, &file).unwrap();
    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 50) {
        let bad = dir.path().join("bad.backup");
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        for bad_bytes in [&bytes[..at], &flipped] {
            fs::write(&bad, bad_bytes).unwrap();
            let to = dir.path().join("to");
            let error = restore(&bad, &to, Engine::Sled, &Options::default()).unwrap_err();
            assert!(matches!(error, Error::Backup { .. }), "{error}");
            assert!(!to.exists());
        }
    }
}

#[test]
fn an_interrupted_restore_is_no_store_and_is_cleared_up_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.backup");
    backup(&filled(), None, &file).unwrap();
    for moved in [false, true] {
        let to = dir.path().join(format!("to-{moved}"));
        // As a crash leaves it: built in part, or whole and not yet in its place.
        drop(open(&to.join("restoring"), Some(Engine::Sled)));
        fs::create_dir_all(to.join("restoring/plugins/crm")).unwrap();
        if moved {
            fs::rename(to.join("restoring/sled"), to.join("sled")).unwrap();
        }
        assert!(crate::open(&to, None, &Options::default()).is_err());
        restore(&file, &to, Engine::Sled, &Options::default()).unwrap();
        same(&filled(), &*open(&to, None));
        assert!(!to.join("plugins").exists());
        assert!(!to.join("restoring").exists());
    }
}

#[test]
fn a_store_that_is_kept_so_already_or_is_none_is_not_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let none = migrate(dir.path(), Engine::Sled, &options).unwrap_err();
    assert!(none.to_string().contains("there is no store"), "{none}");
    drop(open(dir.path(), None));
    let same = migrate(dir.path(), Engine::Sled, &options).unwrap_err();
    assert!(same.to_string().contains("kept by sled already"), "{same}");
}

#[cfg(feature = "fjall")]
#[test]
fn a_store_is_migrated_there_and_back() {
    let model = filled();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None);
    fill(&*store);
    let running = migrate(dir.path(), Engine::Fjall, &Options::default());
    assert!(matches!(running, Err(Error::InUse { .. })));
    drop(store);
    let mut digests = Vec::new();
    for to in [Engine::Fjall, Engine::Sled] {
        // What an interrupted migration leaves.
        fs::create_dir_all(dir.path().join("migrating/sled")).unwrap();
        fs::create_dir_all(dir.path().join(to.as_str())).unwrap();
        let moved = migrate(dir.path(), to, &Options::default()).unwrap();
        digests.push(moved.digest);
        assert_eq!(Engine::of(dir.path()), Ok(Some(to)));
        same(&model, &*open(dir.path(), Some(to)));
        let mut left = crate::tree_store::layout::names(dir.path()).unwrap();
        left.sort();
        assert_eq!(left, ["cofferdam.store", to.as_str()]);
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_first_part_that_differs_is_named() {
    let (a, b) = (filled(), filled());
    let other = Batch::new().put(Table::Run, "a", "another row");
    b.commit(other).wait().unwrap();
    let error = super::compare_stores(&a, &b, Path::new("dir")).unwrap_err();
    assert!(error.to_string().contains("table run, key `a`"), "{error}");
    let less = Batch::new().delete(Table::Run, "a");
    b.commit(less).wait().unwrap();
    assert_eq!(
        super::compare_stores(&a, &b, Path::new("dir"))
            .unwrap_err()
            .code(),
        "CD0416"
    );
}
