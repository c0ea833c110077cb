//! The process that does the work: a runtime, and the leads that arrive.
//!
//! It is told what to do by a file, tells how things are on its standard output, and can be killed
//! at any time: started again on the same store it goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cofferdam::{Config, RunView, Runtime, StartOptions, Status};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;

use super::leads::{self, Lead};
use super::message::{Calls, Done, Ended, Line, Message, Outcome, Snapshot};

/// Between two snapshots.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at whether a run has gone from memory.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// No store of a demo has more runs.
const RUNS_MAX: usize = 100_000;

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub config: PathBuf,
    pub workflow: PathBuf,
    pub leads: PathBuf,
    pub rows: PathBuf,
    /// Where runs are kept; nowhere if none, and then a lead is a run of its own each time that it
    /// is read.
    pub store: Option<PathBuf>,
    /// The first so many leads.
    pub most: usize,
    /// Leads that have arrived before; the others arrive at this pace.
    pub arrived: usize,
    pub pace_ms: u64,
    /// Runs that are in memory at once; more leads wait outside. A parked run is not in memory.
    #[serde(default = "active_max")]
    pub active_max: usize,
}

fn active_max() -> usize {
    super::ACTIVE_MAX
}

/// Does a job.
pub async fn work(file: &Path) -> Result<()> {
    let job = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let job: Job = serde_json::from_slice(&job)?;
    let mut config = Config::load(&job.config).map_err(cofferdam::Error::from)?;
    if let Some(store) = &job.store {
        config = config.with_store(store);
    }
    let names = config
        .connections()
        .map(|connection| connection.name().to_owned())
        .collect();
    let runtime = crate::context::open(config).await?;
    crate::run::listen(&runtime);
    let text = std::fs::read_to_string(&job.leads)?;
    let worker = Worker {
        leads: leads::read(&text, job.most)?,
        names,
        arrived: AtomicUsize::new(0),
        runtime,
        job,
    };
    let (runs, ()) = tokio::try_join!(worker.take_in(), worker.watch())?;
    tell(&Message::Done(worker.sum_up(&runs).await?))?;
    worker.runtime.shutdown().await;
    Ok(())
}

struct Worker {
    job: Job,
    runtime: Runtime,
    leads: Vec<Lead>,
    /// The connections, in the order of the configuration.
    names: Vec<String>,
    arrived: AtomicUsize,
}

impl Worker {
    /// Begins a run for each lead when it arrives; the run of each line.
    async fn take_in(&self) -> Result<BTreeMap<usize, String>> {
        let workflow = self.runtime.load_workflow(&self.job.workflow)?;
        let mut runs = BTreeMap::new();
        let mut pace = tokio::time::interval(Duration::from_millis(self.job.pace_ms.max(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (index, lead) in self.leads.iter().enumerate() {
            if index >= self.job.arrived {
                pace.tick().await;
            }
            // Runs leave memory when they end or wait, and each of their calls has a deadline.
            while self.runtime.active_runs() >= self.job.active_max {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let id = self.job.store.as_ref().map(|_| lead.run.clone());
            let options = StartOptions {
                id,
                ..StartOptions::default()
            };
            let run = self
                .runtime
                .start_with(&workflow, lead.input.clone(), options)
                .await?;
            runs.insert(lead.line, run);
            self.arrived.store(index + 1, Ordering::Release);
        }
        Ok(runs)
    }

    /// Tells how things are until every run has come to rest.
    async fn watch(&self) -> Result<()> {
        let mut ticks = tokio::time::interval(SNAPSHOT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Before the runs are looked at, so that one that begins meanwhile is missed by nobody.
            let arrived = self.arrived.load(Ordering::Acquire);
            let (snapshot, at_rest) = self.look(arrived)?;
            tell(&Message::Snapshot(snapshot))?;
            if at_rest && arrived == self.leads.len() {
                return Ok(());
            }
        }
    }

    fn look(&self, arrived: usize) -> Result<(Snapshot, bool)> {
        let query = self.runtime.query();
        let reviewed: BTreeSet<String> = query
            .reviews()?
            .into_iter()
            .map(|review| review.run)
            .collect();
        let rows = query.runs(None, RUNS_MAX)?;
        let in_review = |run: &str, status| status == Status::Waiting && reviewed.contains(run);
        let count =
            |test: &dyn Fn(&cofferdam::RunRow) -> bool| rows.iter().filter(|row| test(row)).count();
        let snapshot = Snapshot {
            arrived,
            twice: arrived.saturating_sub(rows.len()),
            ended: count(&|row| row.status.is_final()),
            degraded: count(&|row| row.status == Status::Completed && row.degraded),
            faulted: count(&|row| row.status == Status::Faulted),
            review: count(&|row| in_review(&row.run, row.status)),
            connections: self.connections()?,
            resident_bytes: resident_bytes(),
        };
        let at_rest = rows
            .iter()
            .all(|row| row.status.is_final() || in_review(&row.run, row.status));
        Ok((snapshot, at_rest))
    }

    fn connections(&self) -> Result<Vec<Line>> {
        let line = |state: cofferdam::ConnectionState| -> Result<Line> {
            Ok(Line {
                parked: self.runtime.query().parked(&state.name)?,
                name: state.name,
                plugin: state.plugin,
                breaker: state.breaker,
                in_flight: state.in_flight,
                calls: state.calls,
                failures: state.failures,
                busy: state.busy,
                last_failure: state.last_failure,
            })
        };
        let mut lines = self
            .runtime
            .connections()
            .into_iter()
            .map(line)
            .collect::<Result<Vec<_>>>()?;
        lines.sort_by_key(|line| self.names.iter().position(|name| *name == line.name));
        Ok(lines)
    }

    async fn sum_up(&self, runs: &BTreeMap<usize, String>) -> Result<Done> {
        let mut told = BTreeSet::new();
        let (mut ended, mut calls) = (Vec::new(), BTreeMap::<String, Calls>::new());
        for lead in &self.leads {
            let Some(run) = runs
                .get(&lead.line)
                .filter(|run| told.insert((*run).clone()))
            else {
                continue;
            };
            let view = self.runtime.run(run)?;
            for attempt in view.tasks.iter().flat_map(|task| &task.attempts) {
                calls
                    .entry(attempt.connection.clone())
                    .or_default()
                    .count(attempt);
            }
            ended.push(self.ended(lead, &view));
        }
        Ok(Done {
            leads: ended,
            calls,
            rows: self.rows().await?,
        })
    }

    fn ended(&self, lead: &Lead, view: &RunView) -> Ended {
        let outcome = match view.status {
            Status::Completed if view.degraded => Outcome::Degraded,
            Status::Completed => Outcome::Whole,
            Status::Faulted if view.tasks.is_empty() => Outcome::Invalid,
            Status::Faulted if self.job.store.is_some() => Outcome::DeadLetter,
            Status::Faulted | Status::Cancelled => Outcome::Failed,
            Status::Queued
            | Status::Running
            | Status::Waiting
            | Status::Suspended
            | Status::Compensating => Outcome::Review,
        };
        let waits = view
            .waiting()
            .next()
            .map(|(task, why)| format!("{task}: {why}"));
        let detail = view
            .error
            .as_ref()
            .map(|error| error.detail.clone().unwrap_or_else(|| error.to_string()));
        let parts = view
            .provenance
            .iter()
            .filter(|(_, provenance)| provenance.is_degraded());
        Ended {
            run: view.run.clone(),
            line: lead.line,
            email: lead.email.clone(),
            outcome,
            parts: parts
                .map(|(task, p)| (task.trim_start_matches('/').to_owned(), p.to_string()))
                .collect(),
            reason: detail.or(waits),
        }
    }

    /// Asks the database, on the connection that the leads went through.
    async fn rows(&self) -> Result<Vec<String>> {
        let workflow = self.runtime.load_workflow(&self.job.rows)?;
        let run = self.runtime.start(&workflow, serde_json::json!({})).await?;
        let view = self.runtime.wait(&run).await?;
        match (view.output, view.error) {
            (Some(output), _) => Ok(serde_json::from_value((*output).clone())?),
            // A database that no lead has reached has no table.
            (None, _) => Ok(Vec::new()),
        }
    }
}

/// One line, at once.
fn tell(message: &Message) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

/// What this process holds in memory; zero where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
