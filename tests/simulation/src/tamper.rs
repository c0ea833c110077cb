//! Defects that are made between the engine and the world: in what it writes, reads, and is told.

use std::time::Duration;

use cofferdam::{Config, OnConflict, PRIORITY_MAX, Sources, StartOptions};
use cofferdam_core::rate::Rate;
use cofferdam_store::{Batch, Records, Rows, Table, Write};
use serde_json::Value;

use crate::mutation::Mutation;
use crate::oracle::Oracle;
use crate::plan::Start;

/// How late what is late comes: a whole number of every schedule's periods.
const LATE_MS: u64 = 7 * 60 * 1_000;

/// What the engine would have written with the defect.
pub(crate) fn batch(mutation: Option<Mutation>, mut batch: Batch) -> Batch {
    if mutation == Some(Mutation::ForgetListener) {
        batch.writes.retain(|write| !is_listener(write));
        return batch;
    }
    let removes = |table| batch.writes.iter().any(|write| is_deleted(write, table));
    let is_told_again = mutation == Some(Mutation::ForgetLetters) && removes(Table::DeadLetter);
    let is_removed = mutation == Some(Mutation::PurgeLess) && removes(Table::Run);
    if is_told_again {
        batch
            .writes
            .retain(|write| !is_put(write, Table::Subscription));
        return batch;
    }
    if is_removed {
        batch
            .writes
            .retain(|write| !is_deleted(write, Table::RunByStatus));
        return batch;
    }
    let lost = match mutation {
        Some(Mutation::ForgetTimer) => Table::Timer,
        Some(Mutation::ForgetParked) => Table::Parked,
        _ => return batch,
    };
    batch.writes.retain(|write| !is_put(write, lost));
    batch
}

fn is_put(write: &Write, of: Table) -> bool {
    matches!(write, Write::Put { table, .. } if *table == of)
}

fn is_deleted(write: &Write, of: Table) -> bool {
    matches!(write, Write::Delete { table, .. } if *table == of)
}

/// The configuration that the engine would have kept to with the defect.
pub(crate) fn config(mutation: Option<Mutation>, config: &Config) -> Config {
    let mut changed = config.clone();
    match mutation {
        Some(Mutation::Hurry) => {
            for connection in config.connections() {
                let mut limits = connection.spec().limits.clone();
                limits.rate = limits.rate.and_then(|rate| {
                    let faster = Rate::new(rate.calls() * 10, rate.per(), rate.burst() * 10);
                    Some(faster.ok()?.with_max_wait(rate.max_wait()))
                });
                changed = changed.with_connection(connection.clone().with_limits(limits));
            }
        }
        Some(Mutation::SweepEarly) if config.retention().is_some() => {
            changed = changed.with_retention(Duration::from_secs(10));
        }
        Some(Mutation::Favour) => {
            let mut admission = config.admission().clone();
            for (name, tenant) in &mut admission.tenants {
                tenant.weight = if name == "acme" { 1_000_000 } else { 1 };
            }
            changed = changed.with_admission(admission);
        }
        _ => {}
    }
    changed
}

/// How important the engine would have taken a run to be with the defect.
pub(crate) fn start(mutation: Option<Mutation>, mut options: StartOptions) -> StartOptions {
    if mutation == Some(Mutation::TurnPriorities) {
        options.priority = options.priority.map(|priority| PRIORITY_MAX - priority);
    }
    if mutation == Some(Mutation::NeverRestart) && options.key.is_some() {
        options.on_conflict = OnConflict::UseExisting;
    }
    options
}

/// The run that the engine would have given for a key with the defect, without a look.
pub(crate) fn given(mutation: Option<Mutation>, oracle: &Oracle, start: &Start) -> Option<String> {
    let remembers = mutation == Some(Mutation::KeepKeys) && start.options.key.is_some();
    oracle.by_key.clone().filter(|_| remembers)
}

/// A row by which events are found to be for somebody.
fn is_listener(write: &Write) -> bool {
    const WATCH: u8 = 2;
    matches!(write, Write::Put { table: Table::Subscription, key, .. } if key.first() == Some(&WATCH))
}

/// What the engine would have read with the defect.
pub(crate) fn row(mutation: Option<Mutation>, table: Table, row: Vec<u8>) -> Vec<u8> {
    let change = match (mutation, table) {
        (Some(Mutation::LateCheckpoint), Table::Checkpoint) => late_checkpoint,
        (Some(Mutation::ForgetAttempts), Table::Definition) => many_attempts,
        (Some(Mutation::LateReviews), Table::Definition) => late_reviews,
        (Some(Mutation::LateSchedules), Table::Schedule) => late_schedule,
        (Some(Mutation::FreshenAnswers), Table::Cache) => fresh_answer,
        _ => return row,
    };
    let Ok(mut read) = serde_json::from_slice::<Value>(&row) else {
        return row;
    };
    change(&mut read);
    serde_json::to_vec(&read).unwrap_or(row)
}

/// Whether the engine would not have seen a row with the defect.
pub(crate) fn hides_row(mutation: Option<Mutation>, table: Table) -> bool {
    (mutation, table) == (Some(Mutation::SweepLetters), Table::DeadLetter)
}

/// The rows that the engine would have found with the defect.
pub(crate) fn rows(mutation: Option<Mutation>, table: Table, rows: Rows, now_ms: u64) -> Rows {
    if (mutation, table) != (Some(Mutation::LateTimers), Table::Timer) {
        return rows;
    }
    let due_ms = |key: &[u8]| key.first_chunk().copied().map_or(0, u64::from_be_bytes);
    let is_hidden = |due_ms: u64| due_ms <= now_ms && due_ms + LATE_MS > now_ms;
    let mut rows = rows;
    rows.retain(|(key, _)| !is_hidden(due_ms(key)));
    rows
}

/// The workflow that the engine would have run with the defect.
pub(crate) fn sources(mutation: Option<Mutation>, sources: &Sources) -> Sources {
    let mut sources = sources.clone();
    if mutation == Some(Mutation::TurnForks)
        && let Ok(mut main) = serde_json::from_str::<Value>(&sources.main.text)
    {
        turn_forks(&mut main);
        sources.main.text = main.to_string();
    }
    sources
}

fn turn_forks(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(turn_forks),
        Value::Object(all) => {
            for (name, value) in all {
                if name == "branches"
                    && let Some(branches) = value.as_array_mut()
                {
                    branches.reverse();
                }
                turn_forks(value);
            }
        }
        _ => {}
    }
}

/// The journal that the engine would have read with the defect.
pub(crate) fn records(mutation: Option<Mutation>, mut records: Records) -> Records {
    if mutation != Some(Mutation::MixRecords) {
        return records;
    }
    let mut first = None;
    for (_, record) in &mut records {
        let Ok(mut read) = serde_json::from_slice::<Value>(record) else {
            continue;
        };
        if read["event"]["kind"] == "succeeded" {
            let output = &mut read["event"]["output"];
            *output = first.get_or_insert_with(|| output.clone()).clone();
            *record = serde_json::to_vec(&read).unwrap_or_default();
        }
    }
    records
}

fn fresh_answer(row: &mut Value) {
    if let Some(at_ms) = row["atMs"].as_u64() {
        row["atMs"] = Value::from(at_ms + 60_000);
    }
}

fn late_checkpoint(row: &mut Value) {
    let seq = row["seq"].as_u64().unwrap_or_default();
    row["seq"] = Value::from(seq + 1);
}

fn each_binding(row: &mut Value, change: impl Fn(&mut Value)) {
    let connections = row["bindings"]["connections"].as_object_mut();
    connections
        .into_iter()
        .flat_map(|all| all.values_mut())
        .for_each(change);
}

fn many_attempts(row: &mut Value) {
    each_binding(row, |binding| binding["attemptsMax"] = Value::from(1_000));
}

fn late_reviews(row: &mut Value) {
    each_binding(row, |binding| {
        if let Some(ms) = binding["review"]["deadlineMs"].as_u64() {
            binding["review"]["deadlineMs"] = Value::from(ms * 100);
        }
    });
}

fn late_schedule(row: &mut Value) {
    if let Some(next_ms) = row["nextMs"].as_u64() {
        row["nextMs"] = Value::from(next_ms + LATE_MS);
    }
}
