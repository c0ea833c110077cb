//! What every [`JournalStore`] does, as a suite to run on each.
//!
//! Behind the feature `conformance`, for tests. What only a store with a disk can show (crashes,
//! damage, sharing) is tested beside that store.

#![allow(
    clippy::unwrap_used,
    reason = "a suite of tests fails by panicking, like any test"
)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Batch, Error, Head, JournalStore, KEY_LEN_MAX, KeyRange,
    RUN_LEN_MAX, Table, VALUE_LEN_MAX,
};

/// A name of a behaviour and the function that checks it on an empty store.
pub type Check = (&'static str, fn(&dyn JournalStore));

/// Every check; each wants an empty store of its own and panics if the store fails it.
pub const CHECKS: &[Check] = &[
    ("an empty store has nothing", empty),
    ("what is put is got until deleted", put_get_delete),
    ("tables do not see each other", tables_are_apart),
    ("of two writes to a key the later counts", later_counts),
    ("values of every size come back", sizes),
    (
        "large values can be replaced and removed",
        large_values_shrink,
    ),
    ("what is put if absent stays as it is", put_new),
    ("what is referred to is not deleted", delete_unreferenced),
    (
        "whoever refers and whoever lets go come one after the other",
        references_in_groups,
    ),
    ("racing references lose nothing", racing_references),
    ("a scan returns the range in order", scan_range),
    ("a scan is gone through in pages", scan_pages),
    ("records are appended and read in order", append_read),
    ("runs do not see each other's records", runs_are_apart),
    ("a stale guard applies nothing", stale_guard),
    ("a wrong sequence number applies nothing", wrong_sequence),
    ("a claim shuts the one before out", claim_fences),
    ("a claim must be higher", claim_must_grow),
    ("a refused batch leaves its neighbours alone", neighbours),
    ("limits refuse before anything is written", limits),
    ("batches without sense are refused", nonsense),
    ("an empty batch is a barrier", barrier),
    ("a dropped commit is not cancelled", dropped),
    ("a commit can be awaited", awaited),
    ("a run is pruned and forgotten", prune_forget),
    ("a gap in a journal is an error and is reported", gap),
    ("racing claims let one through", race),
];

/// Runs every check on a store of its own.
///
/// # Panics
/// If a store fails a check; the name of the check is printed first.
pub fn check_all(mut fresh: impl FnMut() -> Box<dyn JournalStore>) {
    for (name, check) in CHECKS {
        println!("{name}");
        check(&*fresh());
    }
}

/// Everything that can be read, to compare two stores or one before and after.
///
/// # Errors
/// Those of [`JournalStore::scan`].
pub fn contents(store: &dyn JournalStore) -> Result<Vec<(Table, crate::Rows)>, Error> {
    let tables = Table::ALL.into_iter();
    tables
        .map(|table| Ok((table, store.scan(table, KeyRange::all(), usize::MAX)?)))
        .collect()
}

fn ok(store: &dyn JournalStore, batch: Batch) {
    assert_eq!(store.commit(batch).wait(), Ok(()));
}

/// Commits a batch that must be refused, and checks that it left nothing behind.
fn refused(store: &dyn JournalStore, batch: Batch) -> Error {
    let before = contents(store).unwrap();
    let error = store.commit(batch).wait().unwrap_err();
    assert_eq!(contents(store).unwrap(), before);
    assert!(!error.is_unknown_outcome());
    error
}

fn head(epoch: u64, next_seq: u64) -> Head {
    Head { epoch, next_seq }
}

fn begin(store: &dyn JournalStore, run: &str, records: u64) {
    let mut batch = Batch::new().guard(run, 0, 0).claim(run, 1);
    for seq in 0..records {
        batch = batch.append(run, seq, format!("{run}/{seq}"));
    }
    ok(store, batch);
}

fn empty(store: &dyn JournalStore) {
    for (_, rows) in contents(store).unwrap() {
        assert!(rows.is_empty());
    }
    assert_eq!(store.get(Table::Kv, b""), Ok(None));
    assert_eq!(store.head("r"), Ok(Head::default()));
    assert_eq!(store.journal("r", 0, 10), Ok(vec![]));
    let report = store.verify().unwrap();
    assert!(report.is_clean());
    assert_eq!((report.rows, report.runs), (0, 0));
}

fn put_get_delete(store: &dyn JournalStore) {
    for key in [&b""[..], b"k", &[0, 255]] {
        ok(store, Batch::new().put(Table::Kv, key, "v"));
        assert_eq!(store.get(Table::Kv, key), Ok(Some(b"v".to_vec())));
        ok(store, Batch::new().delete(Table::Kv, key));
        assert_eq!(store.get(Table::Kv, key), Ok(None));
        ok(store, Batch::new().delete(Table::Kv, key));
    }
}

fn tables_are_apart(store: &dyn JournalStore) {
    let mut batch = Batch::new();
    let tables = Table::ALL.into_iter().filter(|t| *t != Table::Journal);
    for table in tables.clone() {
        batch = batch.put(table, [255; 3], table.as_str());
    }
    ok(store, batch);
    for table in tables {
        let rows = store.scan(table, KeyRange::all(), 10).unwrap();
        assert_eq!(rows, [(vec![255; 3], table.as_str().as_bytes().to_vec())]);
    }
}

fn later_counts(store: &dyn JournalStore) {
    let batch = Batch::new()
        .put(Table::Kv, "k", vec![1; 50_000])
        .put(Table::Kv, "k", "2")
        .delete(Table::Kv, "l")
        .put(Table::Kv, "l", "3")
        .put(Table::Kv, "m", vec![4; 50_000])
        .delete(Table::Kv, "m");
    ok(store, batch);
    assert_eq!(store.get(Table::Kv, b"k"), Ok(Some(b"2".to_vec())));
    assert_eq!(store.get(Table::Kv, b"l"), Ok(Some(b"3".to_vec())));
    assert_eq!(store.get(Table::Kv, b"m"), Ok(None));
    assert!(store.verify().unwrap().is_clean());
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn sizes(store: &dyn JournalStore) {
    let lens = [0, 1, 16_383, 16_384, 16_385, 32_768, 100_000, VALUE_LEN_MAX];
    for (seq, len) in lens.into_iter().enumerate() {
        let seq = seq as u64;
        let batch = Batch::new()
            .put(Table::Kv, "k", bytes(len))
            .claim("r", seq + 1)
            .append("r", seq, bytes(len));
        ok(store, batch);
        assert!(store.get(Table::Kv, b"k").unwrap() == Some(bytes(len)));
        assert!(store.journal("r", seq, 1).unwrap() == [(seq, bytes(len))]);
    }
    assert!(store.verify().unwrap().is_clean());
}

fn large_values_shrink(store: &dyn JournalStore) {
    for len in [200_000, 40_000, 3, 70_000, 0] {
        ok(store, Batch::new().put(Table::Kv, "k", bytes(len)));
        assert!(store.get(Table::Kv, b"k").unwrap() == Some(bytes(len)));
        // A part that outlived its value would be reported.
        assert!(store.verify().unwrap().is_clean());
    }
    ok(store, Batch::new().put(Table::Kv, "k", bytes(200_000)));
    ok(store, Batch::new().delete(Table::Kv, "k"));
    let report = store.verify().unwrap();
    assert!(report.is_clean());
    assert_eq!(report.rows, 0);
}

fn put_new(store: &dyn JournalStore) {
    let new = |value: Vec<u8>| Batch::new().put_new(Table::Kv, "k", value);
    ok(store, new(bytes(100_000)));
    ok(store, new(bytes(50_000)));
    assert!(store.get(Table::Kv, b"k").unwrap() == Some(bytes(100_000)));
    // It sees what its own batch did before.
    ok(
        store,
        Batch::new()
            .delete(Table::Kv, "k")
            .put_new(Table::Kv, "k", "2"),
    );
    ok(
        store,
        new(b"3".to_vec())
            .put_new(Table::Kv, "l", "4")
            .put_new(Table::Kv, "l", "5"),
    );
    assert_eq!(store.get(Table::Kv, b"k"), Ok(Some(b"2".to_vec())));
    assert_eq!(store.get(Table::Kv, b"l"), Ok(Some(b"4".to_vec())));
    assert!(store.verify().unwrap().is_clean());
}

/// A batch that makes a value, or makes sure of it, and refers to it.
fn refer(name: &str) -> Batch {
    let batch = Batch::new().put_new(Table::Payload, "value", bytes(40_000));
    batch.put(Table::Payload, format!("by/{name}"), "")
}

/// A batch that lets go of the value.
fn let_go(name: &str) -> Batch {
    let batch = Batch::new().delete(Table::Payload, format!("by/{name}"));
    batch.delete_unreferenced(Table::Payload, "value", "by/")
}

fn is_kept(store: &dyn JournalStore) -> bool {
    store.get(Table::Payload, b"value").unwrap().is_some()
}

fn delete_unreferenced(store: &dyn JournalStore) {
    // Rows beside the prefix, and of another table, are no references.
    let beside = Batch::new()
        .put(Table::Payload, "by", "")
        .put(Table::Payload, "by0", "")
        .put(Table::Kv, "by/other", "");
    ok(store, beside);
    for name in ["a", "b", ""] {
        ok(store, refer(name));
    }
    for name in ["a", "b", "nobody"] {
        ok(store, let_go(name));
        assert!(is_kept(store));
    }
    ok(store, let_go(""));
    assert!(!is_kept(store));
    // In the order of the writes of one batch.
    let early = Batch::new().delete_unreferenced(Table::Payload, "value", "by/");
    ok(store, refer("a"));
    let mut batch = early;
    batch.writes.extend(let_go("a").writes);
    batch.writes.extend(refer("b").writes);
    ok(store, batch);
    assert!(is_kept(store));
    ok(store, let_go("b"));
    assert!(!is_kept(store));
    assert!(store.verify().unwrap().is_clean());
    for batch in [
        Batch::new().delete_unreferenced(Table::Payload, "by/value", "by/"),
        Batch::new().delete_unreferenced(Table::Payload, "value", ""),
        Batch::new().delete_unreferenced(Table::Journal, "value", "by/"),
        Batch::new().put_new(Table::Journal, "k", "v"),
    ] {
        assert!(matches!(refused(store, batch), Error::Invalid { .. }));
    }
}

fn references_in_groups(store: &dyn JournalStore) {
    begin(store, "r", 1);
    // Handed over together, so that a store that writes in groups has them in one group.
    let together = |batches: Vec<Batch>| {
        let commits: Vec<_> = batches.into_iter().map(|b| store.commit(b)).collect();
        commits
            .into_iter()
            .map(crate::Commit::wait)
            .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        together(vec![
            refer("a"),
            let_go("a"),
            refer("b"),
            refer("c"),
            let_go("b"),
        ]);
        assert!(is_kept(store));
        together(vec![refer("d"), let_go("c"), let_go("d")]);
        assert!(!is_kept(store));
        together(vec![refer("a"), let_go("a"), refer("a")]);
        assert!(is_kept(store));
        // What is refused keeps nothing and takes nothing away.
        let stale = |batch: Batch| batch.guard("r", 7, 7);
        let results = together(vec![stale(let_go("a")), stale(refer("b"))]);
        assert!(results.iter().all(Result::is_err));
        assert!(is_kept(store));
        let results = together(vec![stale(refer("b")), let_go("a")]);
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        assert!(!is_kept(store));
    }
    assert!(store.verify().unwrap().is_clean());
}

fn racing_references(store: &dyn JournalStore) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for at in 0..25 {
                    let name = format!("{thread}-{at}");
                    ok(store, refer(&name));
                    assert!(is_kept(store), "what {name} refers to is lost");
                    ok(store, let_go(&name));
                }
            });
        }
    });
    assert!(!is_kept(store));
}

fn keys(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<&[u8]> {
    rows.iter().map(|(key, _)| key.as_slice()).collect()
}

fn scan_range(store: &dyn JournalStore) {
    let mut batch = Batch::new();
    for key in ["b", "a", "ab", "abc", "b\u{0}", "c"] {
        batch = batch.put(Table::Timer, key, key);
    }
    ok(store, batch.put(Table::Parked, "a", "other"));
    let scan = |range, limit| store.scan(Table::Timer, range, limit).unwrap();
    let all: [&[u8]; 6] = [b"a", b"ab", b"abc", b"b", b"b\0", b"c"];
    assert_eq!(keys(&scan(KeyRange::all(), 10)), all);
    assert_eq!(keys(&scan(KeyRange::all(), 2)), all[..2]);
    assert_eq!(keys(&scan(KeyRange::all(), 0)), all[..0]);
    assert_eq!(keys(&scan(KeyRange::prefix("ab"), 10)), all[1..3]);
    assert_eq!(keys(&scan(KeyRange::between("ab", "b"), 10)), all[1..3]);
    assert_eq!(keys(&scan(KeyRange::from("b"), 10)), all[3..]);
    assert_eq!(keys(&scan(KeyRange::between("c", "a"), 10)), all[..0]);
    assert_eq!(keys(&scan(KeyRange::between("c", "c"), 10)), all[..0]);
}

fn scan_pages(store: &dyn JournalStore) {
    let mut batch = Batch::new();
    for at in 0..100_u8 {
        batch = batch.put(Table::Timer, [at], [at]);
    }
    ok(store, batch);
    let mut range = KeyRange::all();
    let mut seen = Vec::new();
    loop {
        let rows = store.scan(Table::Timer, range.clone(), 7).unwrap();
        let Some((last, _)) = rows.last() else { break };
        range = range.after(last);
        seen.extend(rows.into_iter().map(|(key, _)| key[0]));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

fn append_read(store: &dyn JournalStore) {
    begin(store, "r", 300);
    let batch = Batch::new().guard("r", 1, 300).append("r", 300, "last");
    ok(store, batch);
    assert_eq!(store.head("r"), Ok(head(1, 301)));
    let all = store.journal("r", 0, 1000).unwrap();
    assert_eq!(all.len(), 301);
    assert!((0..).zip(&all).all(|(seq, (at, _))| seq == *at));
    assert_eq!(all[255].1, b"r/255");
    assert_eq!(store.journal("r", 255, 2).unwrap(), all[255..257]);
    assert_eq!(store.journal("r", 301, 2), Ok(vec![]));
    let report = store.verify().unwrap();
    assert_eq!((report.rows, report.runs), (301, 1));
}

fn runs_are_apart(store: &dyn JournalStore) {
    // Names that begin with each other, and one that looks like the end of a key.
    let runs = ["r", "rr", "r\u{0}", "\u{0}", "r1"];
    for run in runs {
        begin(store, run, 3);
    }
    for run in runs {
        let records = store.journal(run, 0, 10).unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(records[2].1, format!("{run}/2").into_bytes());
    }
    assert!(store.verify().unwrap().is_clean());
}

fn stale_guard(store: &dyn JournalStore) {
    begin(store, "r", 2);
    for (epoch, next_seq) in [(0, 0), (0, 2), (1, 1), (1, 3), (2, 2)] {
        let batch = Batch::new()
            .put(Table::Kv, "k", "v")
            .guard("r", epoch, next_seq)
            .append("r", next_seq, "lost");
        let expected = Error::Stale {
            run: "r".to_owned(),
            expected: head(epoch, next_seq),
            found: head(1, 2),
        };
        assert_eq!(refused(store, batch), expected);
    }
    // A guard without an append is checked as well.
    let batch = Batch::new().guard("r", 1, 1).put(Table::Kv, "k", "v");
    assert!(matches!(refused(store, batch), Error::Stale { .. }));
    ok(
        store,
        Batch::new().guard("r", 1, 2).put(Table::Kv, "k", "v"),
    );
    assert_eq!(store.head("r"), Ok(head(1, 2)));
}

fn wrong_sequence(store: &dyn JournalStore) {
    begin(store, "r", 2);
    let batch = || Batch::new().guard("r", 1, 2);
    for wrong in [
        batch().append("r", 3, "gap"),
        batch().append("r", 1, "again"),
        batch().append("r", 2, "right").append("r", 2, "twice"),
        Batch::new().claim("r", 2).append("r", 1, "again"),
    ] {
        assert!(matches!(refused(store, wrong), Error::Stale { .. }));
    }
    assert_eq!(store.head("r"), Ok(head(1, 2)));
}

fn claim_fences(store: &dyn JournalStore) {
    begin(store, "r", 2);
    ok(store, Batch::new().claim("r", 2).append("r", 2, "mine"));
    assert_eq!(store.head("r"), Ok(head(2, 3)));
    let late = Batch::new().guard("r", 1, 2).append("r", 2, "late");
    assert!(matches!(refused(store, late), Error::Stale { .. }));
    let late = Batch::new().guard("r", 1, 3).append("r", 3, "late");
    assert!(matches!(refused(store, late), Error::Stale { .. }));
    ok(store, Batch::new().guard("r", 2, 3).append("r", 3, "on"));
}

fn claim_must_grow(store: &dyn JournalStore) {
    ok(store, Batch::new().claim("r", 5));
    for epoch in [0, 4, 5] {
        let error = refused(store, Batch::new().claim("r", epoch));
        assert!(matches!(error, Error::Stale { found, .. } if found == head(5, 0)));
    }
    ok(store, Batch::new().claim("r", 6));
}

fn neighbours(store: &dyn JournalStore) {
    begin(store, "r", 1);
    // Handed over together, so that a store that writes in groups has them in one group.
    let commits = [
        store.commit(Batch::new().guard("r", 1, 1).append("r", 1, "a")),
        store.commit(Batch::new().guard("r", 1, 1).append("r", 1, "b")),
        store.commit(Batch::new().put(Table::Kv, "k", "v")),
        store.commit(Batch::new().guard("r", 1, 2).append("r", 2, "c")),
    ];
    let results = commits.map(crate::Commit::wait);
    assert!(matches!(&results[1], Err(Error::Stale { found, .. }) if *found == head(1, 2)));
    assert!([0, 2, 3].iter().all(|at| results[*at].is_ok()));
    let records = store.journal("r", 1, 10).unwrap();
    assert_eq!(records, [(1, b"a".to_vec()), (2, b"c".to_vec())]);
    assert_eq!(store.get(Table::Kv, b"k"), Ok(Some(b"v".to_vec())));
}

fn limits(store: &dyn JournalStore) {
    let good = || Batch::new().put(Table::Kv, "good", "v");
    let mut long = good();
    let mut heavy = good();
    for at in 0..BATCH_WRITES_MAX as u64 {
        long = long.delete(Table::Kv, at.to_be_bytes());
    }
    for at in 0..=(BATCH_BYTES_MAX / VALUE_LEN_MAX) as u64 {
        heavy = heavy.put(Table::Kv, at.to_be_bytes(), vec![0; VALUE_LEN_MAX]);
    }
    let run = "r".repeat(RUN_LEN_MAX + 1);
    for batch in [
        good().put(Table::Kv, vec![0; KEY_LEN_MAX + 1], ""),
        good().delete(Table::Kv, vec![0; KEY_LEN_MAX + 1]),
        good().put(Table::Kv, "k", vec![0; VALUE_LEN_MAX + 1]),
        good()
            .claim("r", 1)
            .append("r", 0, vec![0; VALUE_LEN_MAX + 1]),
        good().claim(run.as_str(), 1),
        good().guard(run.as_str(), 0, 0),
        long,
        heavy,
    ] {
        assert!(matches!(refused(store, batch), Error::TooLarge { .. }));
    }
    assert!(matches!(store.head(&run), Err(Error::TooLarge { .. })));
    assert!(matches!(
        store.journal(&run, 0, 1),
        Err(Error::TooLarge { .. })
    ));
    ok(store, good().put(Table::Kv, vec![0; KEY_LEN_MAX], ""));
    ok(store, Batch::new().claim("r".repeat(RUN_LEN_MAX), 1));
}

fn nonsense(store: &dyn JournalStore) {
    for batch in [
        Batch::new().append("r", 0, "neither guarded nor claimed"),
        Batch::new().guard("s", 0, 0).append("r", 0, "another is"),
        Batch::new().append("r", 0, "claimed later").claim("r", 1),
        Batch::new().forget("r"),
        Batch::new().guard("r", 0, 0).guard("r", 0, 0),
        Batch::new().put(Table::Journal, "k", "v"),
        Batch::new().claim("", 1),
    ] {
        assert!(matches!(refused(store, batch), Error::Invalid { .. }));
    }
}

fn barrier(store: &dyn JournalStore) {
    let put = store.commit(Batch::new().put(Table::Kv, "k", "v"));
    assert!(Batch::new().is_empty());
    ok(store, Batch::new());
    assert!(put.is_resolved());
}

fn dropped(store: &dyn JournalStore) {
    for at in 0..100_u8 {
        drop(store.commit(Batch::new().put(Table::Kv, [at], "v")));
    }
    ok(store, Batch::new());
    let rows = store.scan(Table::Kv, KeyRange::all(), 1000).unwrap();
    assert_eq!(rows.len(), 100);
}

fn awaited(store: &dyn JournalStore) {
    let mut commit = pin!(store.commit(Batch::new().put(Table::Kv, "k", "v")));
    let mut context = Context::from_waker(Waker::noop());
    let first = commit.as_mut().poll(&mut context);
    // Everything before a barrier has been answered by then.
    ok(store, Batch::new());
    let last = commit.as_mut().poll(&mut context);
    assert!(first.is_pending() || first == Poll::Ready(Ok(())));
    assert_eq!(last, Poll::Ready(Ok(())));
}

fn prune_forget(store: &dyn JournalStore) {
    begin(store, "r", 10);
    ok(store, Batch::new().prune("r", 0..4).unwrap());
    let records = store.journal("r", 0, 100).unwrap();
    assert_eq!(records.first().map(|(seq, _)| *seq), Some(4));
    assert_eq!(store.head("r"), Ok(head(1, 10)));
    assert!(store.verify().unwrap().is_clean());
    let last = Batch::new().guard("r", 1, 10).prune("r", 4..10).unwrap();
    ok(store, last.forget("r"));
    assert_eq!(store.head("r"), Ok(Head::default()));
    let report = store.verify().unwrap();
    assert_eq!((report.rows, report.runs, report.is_clean()), (0, 0, true));
    let many = Batch::new().prune("r", 0..u64::MAX);
    assert!(matches!(many, Err(Error::TooLarge { .. })));
}

fn gap(store: &dyn JournalStore) {
    begin(store, "r", 5);
    begin(store, "s", 5);
    begin(store, "t", 5);
    ok(store, Batch::new().prune("r", 2..3).unwrap());
    ok(store, Batch::new().prune("s", 4..5).unwrap());
    ok(store, Batch::new().guard("t", 1, 5).forget("t"));
    assert!(matches!(
        store.journal("r", 0, 10),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(store.journal("r", 3, 10).unwrap().len(), 2);
    let report = store.verify().unwrap();
    let places: Vec<_> = report.problems.iter().map(|p| p.place.as_str()).collect();
    assert_eq!(places, ["run `r`", "run `s`", "run `t`"]);
}

fn race(store: &dyn JournalStore) {
    let won = std::thread::scope(|scope| {
        let claim = || {
            let batch = Batch::new().guard("r", 0, 0).claim("r", 1);
            store.commit(batch.append("r", 0, "begun")).wait().is_ok()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(store.head("r"), Ok(head(1, 1)));
}
