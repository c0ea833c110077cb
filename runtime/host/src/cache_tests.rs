//! What stays in the folder, and what goes.

use std::time::Duration;

use super::*;

/// The smallest component.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
const CODE_BYTES: usize = 1_000;
/// Room for two entries with their hashes, and not for three.
const TWO_BYTES: u64 = 2_500;

fn cache(folder: &Path) -> CodeCache {
    let mut cache = CodeCache::open(folder).unwrap();
    cache.bytes_max = TWO_BYTES;
    cache
}

fn store(cache: &CodeCache, digest: &str) {
    cache.store(&Engine::default(), digest, &[7; CODE_BYTES]);
}

/// Makes an entry as old as if it had been used so long ago.
fn age(cache: &CodeCache, digest: &str, seconds: u64) {
    let code = cache.folder.join(entry_name(&Engine::default(), digest));
    for path in [code.with_extension("mac"), code] {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(then).unwrap();
    }
}

/// The digests of which there is a file, and the files that are no entry's.
fn left(cache: &CodeCache) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&cache.folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.split('-').next().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn what_was_not_used_for_longest_goes_when_there_is_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    store(&cache, "a");
    age(&cache, "a", 300);
    store(&cache, "b");
    age(&cache, "b", 200);
    assert_eq!(left(&cache), ["a", "b", "key"], "there is room for two");
    store(&cache, "c");
    assert_eq!(left(&cache), ["b", "c", "key"]);
    age(&cache, "c", 100);
    age(&cache, "b", 50);
    store(&cache, "d");
    assert_eq!(left(&cache), ["b", "d", "key"]);
}

#[test]
fn what_is_loaded_counts_as_used() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::default();
    let mut cache = cache(folder.path());
    let code = engine.precompile_component(EMPTY).unwrap();
    cache.bytes_max = 2 * code.len() as u64 + TWO_BYTES;
    for (digest, seconds) in [("a", 300), ("b", 200)] {
        cache.store(&engine, digest, &code);
        age(&cache, digest, seconds);
    }
    assert!(cache.load(&engine, "a").is_some());
    cache.store(&engine, "c", &code);
    assert_eq!(left(&cache), ["a", "c", "key"]);
}

#[test]
fn what_was_just_written_and_the_key_stay_however_little_room_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut cache = cache(folder.path());
    cache.bytes_max = 0;
    store(&cache, "a");
    assert_eq!(left(&cache), ["a", "key"]);
    // Another host's clock was ahead.
    let ahead = SystemTime::now() + Duration::from_hours(1);
    let code = cache.folder.join(entry_name(&Engine::default(), "a"));
    let file = File::options().write(true).open(code).unwrap();
    file.set_modified(ahead).unwrap();
    store(&cache, "b");
    assert_eq!(left(&cache), ["b", "key"]);
    CodeCache::open(folder.path()).unwrap();
}

#[test]
fn what_a_crash_left_goes_too_and_what_is_not_the_caches_stays() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    for name in [
        "x-0.cwasm.0badcafe.tmp",
        "y-0.mac",
        "notes.txt",
        "key.0.tmp",
    ] {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_len(TWO_BYTES).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    store(&cache, "a");
    assert_eq!(left(&cache), ["a", "key", "key.0.tmp", "notes.txt"]);
}

#[test]
fn a_file_that_cannot_be_removed_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut cache = cache(folder.path());
    cache.bytes_max = 0;
    // Not a file, so that removing it fails whoever runs this.
    fs::create_dir(folder.path().join("x-0.cwasm")).unwrap();
    store(&cache, "a");
    store(&cache, "b");
    assert_eq!(left(&cache), ["b", "key", "x"]);
}
