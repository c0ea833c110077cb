//! A process that keeps runs is killed at random moments, is stopped by a full disk, and dies with
//! ten thousand runs under way. A server outside of it counts what really happened: no run that was
//! acknowledged is lost, nothing that hurts when it is repeated happens twice, and every run ends.
//!
//! The process is this very program, started again, with a connector in its own code: it is up in
//! milliseconds, so that there is time for many kills. `sigkill.rs` kills the real program with real
//! chambers. `COFFERDAM_SEED` repeats the instants of a run that failed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "kills/child.rs"]
mod child;
#[path = "kills/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cofferdam::{Engine, Status};
use server::Server;

/// Together with those of `sigkill.rs` more than two hundred, of the engine that is the default.
const KILLS: usize = 160;
#[cfg(feature = "fjall")]
const KILLS_FJALL: usize = 60;
/// From the start of the process, in milliseconds: some die before they have opened the store.
const ALIVE_MS: std::ops::RangeInclusive<u64> = 1..=120;
const RUNS: usize = 400;
const IN_FLIGHT: usize = 10_000;

/// Not a test by itself: the process that is killed.
#[test]
fn child_that_keeps_runs_until_it_is_killed() {
    child::work_if_told();
}

/// What a process is to do, and what it said.
struct Keeper<'a> {
    dir: &'a Path,
    server: &'a Server,
    engine: Engine,
    runs: usize,
    acknowledged: BTreeSet<String>,
}

impl<'a> Keeper<'a> {
    fn new(dir: &'a Path, server: &'a Server, engine: Engine, runs: usize) -> Self {
        Self {
            dir,
            server,
            engine,
            runs,
            acknowledged: BTreeSet::new(),
        }
    }

    fn command(&self, mut command: Command) -> Child {
        self.server.settle();
        command
            .args(["--exact", "--nocapture"])
            .arg("child_that_keeps_runs_until_it_is_killed")
            .env(child::DIR, self.dir)
            .env(child::SERVER, self.server.address().to_string())
            .env(child::ENGINE, self.engine.as_str())
            .env(child::RUNS, self.runs.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn start(&self) -> Child {
        self.command(Command::new(std::env::current_exe().unwrap()))
    }

    /// Reads what the process says until it is gone or says that it is done; whether it was done.
    fn listen(&mut self, child: &mut Child, mut each: impl FnMut(&mut Child, usize)) -> bool {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut done = false;
        // The last line may have been cut short by the kill, and the first ones are the harness's.
        for line in lines.map_while(Result::ok) {
            if let Some((_, run)) = line.split_once("acknowledged ")
                && let Some(run) = run.strip_suffix('.')
            {
                self.acknowledged.insert(run.to_owned());
                each(child, self.acknowledged.len());
            }
            done |= line.ends_with("all done.");
        }
        child.wait().unwrap();
        done
    }

    /// Kills it after some time; whether it was done before.
    fn run_and_kill(&mut self, alive: Duration) -> bool {
        let mut child = self.start();
        std::thread::sleep(alive);
        child.kill().unwrap();
        self.listen(&mut child, |_, _| ())
    }

    /// Lets it come to its end, and judges.
    fn finish(&mut self) {
        let mut child = self.start();
        assert!(
            self.listen(&mut child, |_, _| ()),
            "it did not come to its end"
        );
        self.judge();
    }

    fn judge(&self) {
        let archive = cofferdam::Archive::open(self.dir).unwrap().unwrap();
        assert!(archive.verify().unwrap().is_clean());
        let rows = archive.query().runs(None, usize::MAX).unwrap();
        let kept: BTreeSet<String> = rows.iter().map(|row| row.run.clone()).collect();
        let lost: Vec<_> = self.acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        for row in &rows {
            assert_eq!(row.status, Status::Completed, "{}", row.run);
        }
        let twice = self.server.happened_twice("pay ");
        assert!(twice.is_empty(), "happened twice: {twice:?}");
        assert_eq!(self.server.happened("pay "), kept.len());
        assert_eq!(self.server.happened("keep "), kept.len());
    }
}

fn survives_kills(engine: Engine, kills: usize) {
    let named = std::env::var("COFFERDAM_SEED").ok();
    let seed = named.and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("COFFERDAM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut killed = 0;
    let mut stores = 0;
    while killed < kills {
        stores += 1;
        let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
        let dir = dir.path().join("store");
        let mut keeper = Keeper::new(&dir, &server, engine, RUNS);
        while killed < kills {
            let alive = Duration::from_millis(rng.u64(ALIVE_MS));
            if keeper.run_and_kill(alive) {
                break;
            }
            killed += 1;
        }
        keeper.finish();
    }
    println!("{killed} kills of {stores} stores");
}

#[test]
fn kills_at_random_moments_lose_nothing_and_repeat_nothing() {
    survives_kills(Engine::Sled, KILLS);
}

#[cfg(feature = "fjall")]
#[test]
fn kills_at_random_moments_lose_nothing_and_repeat_nothing_with_fjall() {
    survives_kills(Engine::Fjall, KILLS_FJALL);
}

#[test]
fn ten_thousand_runs_under_way_at_a_kill_all_end_and_nothing_is_repeated() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let dir = dir.path().join("store");
    let mut keeper = Keeper::new(&dir, &server, Engine::Sled, IN_FLIGHT);
    server.hold();
    let mut child = keeper.start();
    let done = keeper.listen(&mut child, |child, acknowledged| {
        if acknowledged == IN_FLIGHT {
            child.kill().unwrap();
        }
    });
    assert!(!done);
    assert_eq!(keeper.acknowledged.len(), IN_FLIGHT);
    server.release();
    keeper.finish();
}

/// A limit on the length of files is what can be had without being root; the write fails just so.
#[test]
fn a_disk_that_fails_in_the_middle_of_a_write_loses_nothing_that_was_acknowledged() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::start());
    let dir = dir.path().join("store");
    let mut keeper = Keeper::new(&dir, &server, Engine::Sled, RUNS * 4);
    let mut shell = Command::new("bash");
    // In KiB; the signal is ignored, so that the write itself fails.
    let limited = "trap '' XFSZ; ulimit -f 2100; exec \"$0\" \"$@\"";
    shell
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap());
    let mut child = keeper.command(shell);
    let done = keeper.listen(&mut child, |_, _| ());
    let acknowledged = keeper.acknowledged.len();
    println!("{acknowledged} acknowledged before the disk failed");
    assert!(!done, "the limit was never met");
    keeper.finish();
}
