//! One showing: fresh services, a worker, the script, and what it came to.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::example;
use super::message::{Done, Message, Snapshot};
use super::screen::Screen;
use super::script::{Step, What, When};
use super::standins::Standins;
use super::tally::{self, Tally};
use super::watched::Watched;
use super::worker::Job;
use crate::interrupt;

/// How much of the worker's log is told when it ends unasked.
const LOG_LINES: usize = 12;

/// What is shown.
pub struct Plan {
    /// The title.
    pub title: &'static str,
    /// Where everything is written.
    pub dir: PathBuf,
    /// How many leads.
    pub leads: usize,
    /// How fast they arrive.
    pub pace_ms: u64,
    /// The version without policies and without a journal.
    pub brittle: bool,
    /// The leads, as CSV.
    pub csv: String,
    /// The text of a configuration that is used instead of the example's.
    pub config: Option<String>,
    /// Runs that are in memory at once; more leads wait outside.
    pub active_max: usize,
    /// What goes wrong.
    pub script: Vec<Step>,
    /// A showing that takes longer is stuck.
    pub takes_max: Duration,
}

/// What it came to.
pub struct Shown {
    pub tally: Tally,
    pub done: Done,
    /// From the first lead to the last run.
    pub took: Duration,
    /// From the CRM's recovery until nothing was parked on it.
    pub drained: Option<Duration>,
    /// The largest backlog.
    pub parked_max: usize,
    /// How the connections were while it ran.
    pub watched: Watched,
}

/// Shows it.
pub async fn show(plan: Plan, screen: &mut Screen) -> Result<Shown> {
    std::fs::create_dir_all(&plan.dir)
        .with_context(|| format!("cannot make {}", plan.dir.display()))?;
    let standins = Standins::start(&[]).await?;
    let example = example::write(&plan, &standins.addresses)?;
    let job = Job {
        config: example.config,
        workflow: example.workflow,
        leads: example.leads,
        rows: example.rows,
        store: (!plan.brittle).then(|| plan.dir.join("store")),
        most: plan.leads,
        arrived: 0,
        pace_ms: plan.pace_ms,
        active_max: plan.active_max,
    };
    screen.begin(plan.title, plan.leads);
    let mut act = Act {
        standins,
        dir: plan.dir,
        job,
        steps: plan.script.into(),
        stepped: Instant::now(),
        snapshot: Snapshot::default(),
        begun: Instant::now(),
        recovered: None,
        drained: None,
        parked_max: 0,
        watched: Watched::default(),
    };
    let takes_max = plan.takes_max;
    let played = tokio::select! {
        done = tokio::time::timeout(takes_max, act.play(screen)) => match done {
            Ok(done) => done,
            Err(_) => Err(anyhow::anyhow!("it is stuck: it took more than {takes_max:?}")),
        },
        () = interrupt::asked() => Err(anyhow::anyhow!("interrupted")),
    };
    screen.end();
    let done = played?;
    let took = act.begun.elapsed();
    let tally = tally::count(&act.standins, &done).await?;
    act.standins.stop().await?;
    Ok(Shown {
        tally,
        done,
        took,
        drained: act.drained,
        parked_max: act.parked_max,
        watched: act.watched,
    })
}

struct Act {
    standins: Standins,
    dir: PathBuf,
    job: Job,
    /// What has not happened yet.
    steps: std::collections::VecDeque<Step>,
    /// When the last step was done.
    stepped: Instant,
    snapshot: Snapshot,
    begun: Instant,
    recovered: Option<Instant>,
    drained: Option<Duration>,
    parked_max: usize,
    watched: Watched,
}

/// A worker, and what it tells.
struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Act {
    async fn play(&mut self, screen: &mut Screen) -> Result<Done> {
        self.follow_script(screen).await?;
        let mut worker = self.spawn()?;
        loop {
            let Some(line) = worker.lines.next_line().await? else {
                let status = worker.process.wait().await?;
                bail!("the worker ended ({status}):\n{}", self.log()?);
            };
            match serde_json::from_str(&line).context("the worker said something odd")? {
                Message::Snapshot(snapshot) => self.note(snapshot),
                Message::Done(done) => {
                    worker.process.wait().await?;
                    return Ok(done);
                }
            }
            if self.follow_script(screen).await? {
                worker
                    .process
                    .kill()
                    .await
                    .context("cannot kill the worker")?;
                self.job.arrived = self.snapshot.arrived;
                worker = self.spawn()?;
            }
            screen.draw(&self.snapshot, self.begun.elapsed());
        }
    }

    fn note(&mut self, snapshot: Snapshot) {
        // The first snapshots after a new start know less than what has been.
        let arrived = snapshot.arrived.max(self.snapshot.arrived);
        if self.snapshot.arrived == 0 && arrived > 0 {
            self.begun = Instant::now();
        }
        self.watched.note(&snapshot);
        let parked = snapshot.connections.iter().map(|line| line.parked).sum();
        self.parked_max = self.parked_max.max(parked);
        if let (Some(recovered), None, 0) = (self.recovered, self.drained, parked) {
            self.drained = Some(recovered.elapsed());
        }
        self.snapshot = Snapshot {
            arrived,
            ..snapshot
        };
    }

    /// Does what is due; whether the worker is to be killed.
    async fn follow_script(&mut self, screen: &mut Screen) -> Result<bool> {
        let mut kill = false;
        let (arrived, stepped) = (self.snapshot.arrived, &mut self.stepped);
        while let Some(step) = self.steps.pop_front_if(|step| match step.when {
            When::Arrived(leads) => leads <= arrived,
            When::After(pause) => pause <= stepped.elapsed(),
        }) {
            *stepped = Instant::now();
            match &step.what {
                What::Faults(service, faults) => self.standins.set_faults(service, faults).await?,
                What::Recover(service) => {
                    self.standins
                        .set_faults(service, &serde_json::json!([]))
                        .await?;
                    self.recovered = Some(Instant::now());
                }
                What::Kill => kill = true,
            }
            screen.tell(self.begun.elapsed(), step.says);
        }
        Ok(kill)
    }

    fn spawn(&self) -> Result<Worker> {
        let file = self.dir.join("job.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&self.job)?)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("worker.log"))?;
        let mut process = Command::new(std::env::current_exe()?)
            // Ctrl-C is for this process.
            .process_group(0)
            .args(["demo", "--worker"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the worker")?;
        let stdout = process.stdout.take().context("the worker has no output")?;
        Ok(Worker {
            process,
            lines: BufReader::new(stdout).lines(),
        })
    }

    fn log(&self) -> Result<String> {
        tail(&self.dir.join("worker.log"))
    }
}

fn tail(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)?;
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}
