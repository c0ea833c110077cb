//! The worker of the demo is killed, again and again, at any moment, with faults on. When it is
//! left alone at last, no lead is lost and nothing has happened twice.
//!
//! `COFFERDAM_SEED` repeats the instants of a run that failed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cofferdam_standins::Fault;
use serde_json::{Value, json};
use stage::{Stage, cofferdam, with_plugins};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const KILLS: usize = 50;
/// After so many kills one job may end; the next has a store of its own.
const KILLS_PER_JOB: usize = 25;
/// From the moment the worker is at work.
const ALIVE_MS: std::ops::RangeInclusive<u64> = 20..=400;
/// Fewer leads served whole would say that the kills left no time for any work.
const SERVED_MIN: usize = 10;
/// A worker that says nothing for longer is stuck.
const SILENT_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn fifty_kills_lose_no_lead_and_repeat_no_effect() {
    let named = std::env::var("COFFERDAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = named.unwrap_or_else(|| fastrand::u64(..));
    println!("COFFERDAM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    while kills < KILLS {
        let stage = Stage::new().await;
        let most = KILLS_PER_JOB.min(KILLS - kills);
        let (done, killed) = job(&stage, most, &mut rng).await;
        assert!(killed > 0, "the job was over before anybody could kill it");
        kills += killed;
        judge(&stage, &done);
    }
    println!("{kills} kills");
}

/// Runs all leads, killing the worker at most so often; what it said in the end.
async fn job(stage: &Stage, kills_max: usize, rng: &mut fastrand::Rng) -> (Value, usize) {
    let services = &stage.standins;
    let crm = vec![Fault::status(503).times(30), Fault::latency(30)];
    services.hubspot.set_faults(crm).await.unwrap();
    let lost = Fault::accept_then_drop()
        .times(10)
        .on_path("/v1/payment_intents");
    services
        .stripe
        .set_faults(vec![Fault::latency(20), lost])
        .await
        .unwrap();
    services
        .smtp
        .set_faults(vec![Fault::latency(10)])
        .await
        .unwrap();
    services
        .slack
        .set_faults(vec![Fault::latency(10)])
        .await
        .unwrap();
    let file = stage.path("job.json");
    let job = json!({
        "config": stage.path("cofferdam.toml"), "workflow": stage.path("workflow.yaml"),
        "leads": stage.path("leads.csv"), "rows": stage.path("rows.yaml"),
        "store": stage.path("store"), "most": 100, "arrived": 0, "paceMs": 1,
    });
    std::fs::write(&file, job.to_string()).unwrap();
    let mut killed = 0;
    loop {
        let mut worker = Worker::start(&file);
        let first = worker.next().await.expect("a worker that works");
        let alive = Duration::from_millis(rng.u64(ALIVE_MS));
        let patience = if killed < kills_max {
            alive
        } else {
            Duration::MAX
        };
        let done = if is_done(&first) {
            Ok(first)
        } else {
            tokio::time::timeout(patience, worker.done()).await
        };
        if let Ok(done) = done {
            return (done, killed);
        }
        worker.process.kill().await.unwrap();
        killed += 1;
    }
}

/// The demo's worker, as a process.
struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(job: &Path) -> Self {
        let mut command = Command::new(cofferdam());
        command.args(["demo", "--worker"]).arg(job);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if let [plugins, ..] = with_plugins(cofferdam::Config::new())
            .plugin_folders()
            .as_slice()
        {
            command.env("COFFERDAM_PLUGINS", plugins);
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(SILENT_MAX, self.lines.next_line()).await;
        let line = line.expect("the worker says something").unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    async fn done(&mut self) -> Value {
        loop {
            let message = self
                .next()
                .await
                .expect("the worker goes on until it is done");
            if is_done(&message) {
                return message;
            }
        }
    }
}

fn is_done(message: &Value) -> bool {
    message["kind"] == "done"
}

/// Counts at the services what became of each lead.
fn judge(stage: &Stage, done: &Value) {
    let rows: BTreeSet<&str> = done["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let leads = done["leads"].as_array().unwrap();
    assert_eq!(leads.len(), 98, "every different row has a run");
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for lead in leads {
        let outcome = lead["outcome"].as_str().unwrap();
        *outcomes.entry(outcome).or_default() += 1;
        if outcome == "invalid" {
            continue;
        }
        let email = lead["email"].as_str().unwrap();
        let (made, archived) = stage.contacts(email);
        let (mails, charges) = (stage.mails(email), stage.charges(email));
        assert!(
            made <= 1 && mails <= 1 && charges <= 1,
            "{email}: {made} contacts, {mails} mails, {charges} charges"
        );
        let is_row = rows.contains(email);
        match outcome {
            "whole" | "degraded" => {
                assert_eq!(
                    (made, archived, is_row, mails, charges),
                    (1, 0, true, 1, 1),
                    "{lead}"
                );
            }
            "deadLetter" => {
                assert_eq!((made, is_row, charges), (archived, false, 0), "{lead}");
                assert!(
                    lead["reason"].as_str().unwrap().contains("declined"),
                    "{lead}"
                );
            }
            other => {
                assert_eq!(other, "review", "{lead}");
                // The only reason to ask a person: a mail or a message was under way at a kill.
                let reason = lead["reason"].as_str().unwrap();
                assert!(reason.contains("runtime.lost"), "{lead}");
            }
        }
    }
    println!("{outcomes:?}");
    let served = outcomes.get("whole").copied().unwrap_or(0);
    assert!(served > SERVED_MIN, "only {served} leads were served whole");
    assert!(
        stage.standins.stripe.duplicates().is_empty(),
        "{:?}",
        stage.standins.stripe.duplicates()
    );
    assert!(
        stage.standins.smtp.duplicates().is_empty(),
        "{:?}",
        stage.standins.smtp.duplicates()
    );
    assert!(
        stage.standins.slack.duplicates().is_empty(),
        "{:?}",
        stage.standins.slack.duplicates()
    );
}
