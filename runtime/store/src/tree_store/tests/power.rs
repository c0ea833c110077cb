//! A model of a power cut: what is on the disk is what was there at the last sync. `tear` has the
//! same with any pages of what was written since.
//!
//! The file in question is sled's database, and fjall's journal: of so little fjall writes nothing
//! else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::super::Sled;
use super::super::committer::Syncer;
use super::{Options, Tree, TreeStore, open_as, open_with};
use crate::{Batch, Engine, Error, JournalStore as _, Table};

const WRITERS: u64 = 4;
const COMMITS_PER_CUT: u64 = 12;
const CUTS: u64 = 12;

/// What the file system writes by itself, in any order.
pub(super) const PAGE_LEN: usize = 4096;

/// The file in question, below the store's directory.
pub(super) fn file_of<T: Tree>() -> &'static str {
    match T::ENGINE {
        Engine::Sled => "sled/db",
        Engine::Fjall => "fjall/0.jnl",
    }
}

/// That file as of the last sync.
type Disk = Arc<Mutex<Vec<u8>>>;

struct Recorder {
    path: PathBuf,
    disk: Disk,
}

impl<T: Tree> Syncer<T> for Recorder {
    fn sync(&mut self, tree: &T) -> Result<(), Error> {
        tree.sync()?;
        *self.disk.lock().unwrap() = read::<T>(&self.path);
        Ok(())
    }
}

/// Without the zeros at the end of fjall's journal, which is made 64 MiB long.
pub(super) fn read<T: Tree>(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    if T::ENGINE == Engine::Sled {
        return bytes;
    }
    let sorted = path.with_file_name("keyspaces/1/tables");
    let written = fs::read_dir(sorted).unwrap().next();
    assert!(written.is_none(), "more was written than fits in memory");
    let len = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    bytes.truncate(len.next_multiple_of(PAGE_LEN).min(bytes.len()));
    bytes
}

/// A committer that forgot to sync, as sled's own `flush` does.
struct NoSync;

impl<T: Tree> Syncer<T> for NoSync {
    fn sync(&mut self, _: &T) -> Result<(), Error> {
        Ok(())
    }
}

struct Machine<T: Tree> {
    dir: tempfile::TempDir,
    disk: Disk,
    store: TreeStore<T>,
}

impl<T: Tree> Machine<T> {
    fn start(syncs: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Creation syncs all it writes, and so does every opening.
        drop(open_as::<T>(dir.path()));
        let path = dir.path().join(file_of::<T>());
        let disk: Disk = Disk::default();
        let syncer: Box<dyn Syncer<T>> = if syncs {
            let disk = Arc::clone(&disk);
            Box::new(Recorder {
                path: path.clone(),
                disk,
            })
        } else {
            Box::new(NoSync)
        };
        let store = open_with(dir.path(), syncer);
        *disk.lock().unwrap() = read::<T>(&path);
        Self { dir, disk, store }
    }

    /// What a restart finds after the power was cut at this moment.
    fn cut(&self) -> tempfile::TempDir {
        let after = tempfile::tempdir().unwrap();
        let synced = self.disk.lock().unwrap();
        // What these say may be behind the file and never ahead of it: no sync begins meanwhile.
        copy_all_but(self.dir.path(), after.path(), file_of::<T>());
        fs::write(after.path().join(file_of::<T>()), &*synced).unwrap();
        after
    }
}

/// Copies a folder but for one file, named from there.
pub(super) fn copy_all_but(from: &Path, to: &Path, skip: &str) {
    let skip_below = |name: &str| {
        skip.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('/'))
    };
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(to.join(&name)).unwrap();
            copy_all_but(
                &entry.path(),
                &to.join(&name),
                skip_below(&name).unwrap_or("/"),
            );
        } else if name != skip {
            fs::copy(entry.path(), to.join(&name)).unwrap();
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
fn write<T: Tree>(store: &TreeStore<T>, writer: u64, from: u64, to: u64) {
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
fn lost<T: Tree>(after: &Path, acknowledged: u64) -> Result<u64, Error> {
    let store = TreeStore::<T>::open(after, &Options::default())?;
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
fn cut_repeatedly<T: Tree>(machine: &Machine<T>) -> Vec<Result<u64, Error>> {
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
            machine.cut()
        });
        cuts.push(lost::<T>(after.path(), acknowledged));
    }
    cuts
}

fn outlives_power_cuts<T: Tree>() {
    let machine = Machine::<T>::start(true);
    for lost in cut_repeatedly(&machine) {
        assert_eq!(lost, Ok(0));
    }
}

/// Shows that the above can fail. The mark, which is not synced either, happened to reach the
/// disk here, and so the loss is noticed.
fn loses_commits_without_the_sync<T: Tree>() {
    let machine = Machine::<T>::start(false);
    for lost in cut_repeatedly(&machine) {
        let Err(Error::Corrupt { detail, .. }) = lost else {
            panic!("{lost:?}");
        };
        assert!(detail.contains("are missing"), "{detail}");
    }
}

#[test]
fn every_acknowledged_commit_outlives_a_power_cut() {
    outlives_power_cuts::<Sled>();
}

#[test]
fn without_the_sync_the_same_power_cut_loses_acknowledged_commits() {
    loses_commits_without_the_sync::<Sled>();
}

#[cfg(feature = "fjall")]
mod fjall {
    use super::super::super::Fjall;

    #[test]
    fn every_acknowledged_commit_outlives_a_power_cut() {
        super::outlives_power_cuts::<Fjall>();
    }

    #[test]
    fn without_the_sync_the_same_power_cut_loses_acknowledged_commits() {
        super::loses_commits_without_the_sync::<Fjall>();
    }
}
