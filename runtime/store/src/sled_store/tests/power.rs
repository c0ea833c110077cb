//! A model of a power cut: what is on the disk is what was there at the last sync, and any pages
//! of what was written since.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::committer::Syncer;
use super::{Options, SledStore, open};
use crate::{Batch, Error, JournalStore as _, Table};

const WRITERS: u64 = 4;
const COMMITS_PER_CUT: u64 = 12;
const CUTS: u64 = 12;

/// What the file system writes by itself, in any order.
const PAGE_LEN: usize = 4096;

/// The database file as of the last sync.
type Disk = Arc<Mutex<Vec<u8>>>;

struct Recorder {
    path: PathBuf,
    disk: Disk,
}

impl Syncer for Recorder {
    fn sync(&mut self, file: &File) -> std::io::Result<()> {
        file.sync_data()?;
        *self.disk.lock().unwrap() = fs::read(&self.path)?;
        Ok(())
    }
}

/// A committer that forgot to sync, as sled's own `flush` does.
struct NoSync;

impl Syncer for NoSync {
    fn sync(&mut self, _: &File) -> std::io::Result<()> {
        Ok(())
    }
}

struct Machine {
    dir: tempfile::TempDir,
    disk: Disk,
    store: SledStore,
}

impl Machine {
    fn start(syncs: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Creation syncs all it writes, and so does every opening.
        drop(open(dir.path()));
        let path = dir.path().join("sled/db");
        let disk: Disk = Disk::default();
        let syncer: Box<dyn Syncer> = if syncs {
            let disk = Arc::clone(&disk);
            Box::new(Recorder {
                path: path.clone(),
                disk,
            })
        } else {
            Box::new(NoSync)
        };
        let store = SledStore::open_with(dir.path(), &Options::default(), syncer).unwrap();
        *disk.lock().unwrap() = fs::read(path).unwrap();
        Self { dir, disk, store }
    }

    /// What a restart finds after the power was cut at this moment. `survives` says of each page
    /// whether what was written to it since the last sync happened to reach the disk.
    fn cut(&self, mut survives: impl FnMut() -> bool) -> tempfile::TempDir {
        let mut db = self.disk.lock().unwrap().clone();
        let cached = fs::read(self.dir.path().join("sled/db")).unwrap();
        for (at, page) in cached.chunks(PAGE_LEN).enumerate() {
            if survives() {
                let start = at * PAGE_LEN;
                let end = start + page.len();
                db.resize(db.len().max(end), 0);
                db[start..end].copy_from_slice(page);
            }
        }
        let after = tempfile::tempdir().unwrap();
        copy_all_but(self.dir.path(), after.path(), "db");
        fs::write(after.path().join("sled/db"), db).unwrap();
        after
    }
}

fn copy_all_but(from: &Path, to: &Path, skip: &str) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all_but(&entry.path(), &target, skip);
        } else if entry.file_name() != skip {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn value(writer: u64, at: u64) -> Vec<u8> {
    let len = if at % 5 == 4 { 60_000 } else { 400 };
    [writer.to_be_bytes(), at.to_be_bytes()]
        .concat()
        .repeat(len / 16)
}

/// One writer's commits number `from..to`, each acknowledged: a record, and a row that is
/// overwritten each time, so that old parts of the log become free and are used again.
fn write(store: &SledStore, writer: u64, from: u64, to: u64) {
    let run = format!("run-{writer}");
    for at in from..to {
        let batch = if at == 0 {
            Batch::new().claim(run.as_str(), 1)
        } else {
            Batch::new().guard(run.as_str(), 1, at)
        };
        let batch = batch.append(run.as_str(), at, value(writer, at)).put(
            Table::Run,
            run.as_str(),
            value(writer, at),
        );
        store.commit(batch).wait().unwrap();
    }
}

/// Opens what a cut left behind and counts the writers' commits that are missing.
fn lost(after: &Path, acknowledged: u64) -> Result<u64, Error> {
    let store = SledStore::open(after, &Options::default())?;
    let mut lost = 0;
    for writer in 0..WRITERS {
        let run = format!("run-{writer}");
        let records = store.journal(&run, 0, usize::MAX)?;
        for (seq, record) in &records {
            assert!(*record == value(writer, *seq), "{run} was garbled");
        }
        let found = records.len() as u64;
        lost += acknowledged.saturating_sub(found);
        let row = store.get(Table::Run, run.as_bytes())?;
        assert!(row == found.checked_sub(1).map(|last| value(writer, last)));
    }
    assert!(store.verify()?.is_clean());
    Ok(lost)
}

/// Writes in rounds and cuts the power in each, with commits under way; returns the commits lost.
fn cut_repeatedly(
    machine: &Machine,
    mut survives: impl FnMut() -> bool,
) -> Vec<Result<u64, Error>> {
    let mut cuts = Vec::new();
    for round in 0..CUTS {
        let from = round * COMMITS_PER_CUT;
        let acknowledged = from + COMMITS_PER_CUT / 2;
        let half = std::sync::Barrier::new(WRITERS as usize + 1);
        let after = std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (half, store) = (&half, &machine.store);
                scope.spawn(move || {
                    write(store, writer, from, acknowledged);
                    half.wait();
                    write(store, writer, acknowledged, from + COMMITS_PER_CUT);
                });
            }
            half.wait();
            machine.cut(&mut survives)
        });
        cuts.push(lost(after.path(), acknowledged));
    }
    cuts
}

#[test]
fn every_acknowledged_commit_outlives_a_power_cut() {
    let machine = Machine::start(true);
    for lost in cut_repeatedly(&machine, || false) {
        assert_eq!(lost, Ok(0));
    }
}

#[test]
fn every_acknowledged_commit_outlives_a_power_cut_that_tears_later_writes() {
    for seed in 1..=3_u64 {
        println!("seed {seed}");
        let mut state = seed;
        let coin = move || {
            // A linear congruential generator (Knuth's MMIX); its high bits are random enough.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 63 == 1
        };
        let machine = Machine::start(true);
        for lost in cut_repeatedly(&machine, coin) {
            assert_eq!(lost, Ok(0), "seed {seed}");
        }
    }
}

/// Shows that the two tests above can fail.
#[test]
fn without_the_sync_the_same_power_cut_loses_acknowledged_commits() {
    let machine = Machine::start(false);
    for lost in cut_repeatedly(&machine, || false) {
        assert!(matches!(lost, Ok(1..)), "{lost:?}");
    }
}
