//! Kills a real process while it writes, and looks for what it was told is durable.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Batch, Engine, JournalStore, Options, Table};

const ROUNDS: u64 = 10;
const WRITERS: u64 = 4;
const DIR: &str = "COFFERDAM_STORE_TEST_DIR";
const ENGINE: &str = "COFFERDAM_STORE_TEST_ENGINE";

/// Not a test by itself: the process that is killed. Writes for ever, and prints each record
/// once it has been acknowledged.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else {
        assert!(std::env::var(DIR).is_err(), "run by the test below only");
        return;
    };
    let engine = std::env::var(ENGINE).unwrap();
    let store = open(Path::new(&dir), Engine::from_name(&engine).unwrap());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                let run = format!("run-{writer}");
                let head = store.head(&run).unwrap();
                let claim = Batch::new().claim(run.as_str(), head.epoch + 1);
                store.commit(claim).wait().unwrap();
                for seq in head.next_seq.. {
                    let batch = Batch::new()
                        .guard(run.as_str(), head.epoch + 1, seq)
                        .append(run.as_str(), seq, record(seq))
                        .put(Table::Run, run.as_str(), seq.to_be_bytes());
                    store.commit(batch).wait().unwrap();
                    let line = format!("acknowledged {writer} {seq}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

fn open(dir: &Path, engine: Engine) -> std::sync::Arc<dyn JournalStore> {
    crate::open(dir, Some(engine), &Options::default()).unwrap()
}

/// Mostly small, at times cut into chunks.
fn record(seq: u64) -> Vec<u8> {
    let len = if seq % 16 == 15 { 40_000 } else { 300 };
    seq.to_be_bytes().repeat(len / 8)
}

/// Starts the child, kills it after some acknowledgements, and returns the last record of each
/// writer that was acknowledged.
fn run_and_kill(dir: &Path, engine: Engine, after: u64) -> Vec<Option<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("tree_store::tests::crash::child_that_writes_until_it_is_killed")
        .env(DIR, dir)
        .env(ENGINE, engine.as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = vec![None; WRITERS as usize];
    let mut seen = 0;
    while let Some(Ok(line)) = lines.next() {
        // The last line may have been cut short by the kill, and the first ones are the harness's.
        let mut words = line
            .split(' ')
            .skip_while(|word| *word != "acknowledged")
            .skip(1);
        let numbers = (words.next(), words.next());
        if let (Some(Ok(writer)), Some(Ok(seq))) = (
            numbers.0.map(str::parse::<usize>),
            numbers.1.map(str::parse::<u64>),
        ) {
            acknowledged[writer] = acknowledged[writer].max(Some(seq));
            seen += 1;
        }
        if seen == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        seen >= after,
        "the child ended by itself after {seen} records"
    );
    acknowledged
}

#[test]
fn every_acknowledged_record_outlives_a_kill() {
    outlives_kills(Engine::Sled);
}

#[cfg(feature = "fjall")]
#[test]
fn every_acknowledged_record_outlives_a_kill_of_fjall() {
    outlives_kills(Engine::Fjall);
}

fn outlives_kills(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(dir.path(), engine, 20 + round * 13);
        let store = open(dir.path(), engine);
        for (writer, last) in acknowledged.into_iter().enumerate() {
            let run = format!("run-{writer}");
            let head = store.head(&run).unwrap();
            assert!(Some(head.next_seq) > last, "round {round}, {run}");
            let records = store.journal(&run, 0, usize::MAX).unwrap();
            assert_eq!(records.len() as u64, head.next_seq);
            assert!(records.iter().all(|(seq, bytes)| *bytes == record(*seq)));
            // Written in the same batches as the records.
            let row = store.get(Table::Run, run.as_bytes()).unwrap();
            let last = head
                .next_seq
                .checked_sub(1)
                .map(|last| last.to_be_bytes().to_vec());
            assert_eq!(row, last);
        }
        let report = store.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}
