//! Deliberate defects, to check the checker: each must be seen by the oracle.
//!
//! Some are in the engine, behind its feature `mutations`, and armed by a call of the builder
//! alone. The others are made here, between the engine and the world, where they have the same
//! effect as the defect that they are named for.

use cofferdam::Sources;
use cofferdam_store::{Batch, Records, Rows, Table, Write};
use serde_json::Value;

/// One deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// An effect begins before its intent is durable.
    SkipIntent,
    /// The store acknowledges what is applied and not yet durable.
    AcknowledgeEarly,
    /// A run that is taken up again may make as many attempts as it likes.
    ForgetAttempts,
    /// A run that waits for an instant leaves no row behind.
    ForgetTimer,
    /// A place in a bulkhead is given back twice.
    ReleaseTwice,
    /// Attempts under way when the process died are not told lost.
    ForgetLost,
    /// A failure that may have had its effect is taken for one that had none.
    RepeatUnknown,
    /// Who decides or starts is told before it is durable.
    TellFirst,
    /// A task that is parked leaves no row behind.
    ForgetParked,
    /// An undoing is said to have succeeded and is never sent.
    SkipUndo,
    /// Each attempt has an idempotency key of its own.
    FreshKeys,
    /// Outcomes that were held back are not written before the next effect.
    HoldBack,
    /// Second attempts are made however many there were.
    HedgeFreely,
    /// A run takes an event out of its letter box before it is on the disk that it has.
    TakeLetterFirst,
    /// A task that listens leaves no row behind.
    ForgetListener,
    /// A schedule moves on before its run is begun.
    MoveScheduleFirst,
    /// One run more is let into memory than there is room for.
    Crowd,
    /// A concurrency key counts only while its run is in memory.
    LoseKey,
    /// A call leaves the outbox before its delivery is begun.
    EmptyOutboxFirst,
    /// A subscriber's place moves on when an event is handed out.
    MoveCursorFirst,
    /// A run that is redriven does again what it had finished.
    RedriveAll,
    /// Who suspends a run is told so, and it goes on.
    SuspendNobody,
    /// A checkpoint lacks the last record that it says it has.
    LateCheckpoint,
    /// Runs that wait for an instant are woken seven minutes after it.
    LateTimers,
    /// Schedules begin their runs seven minutes after the instant.
    LateSchedules,
    /// A run that is taken up again gives people a hundred times as long to decide.
    LateReviews,
    /// A connection gives one answer to whatever it is asked.
    MixAnswers,
    /// A run that is taken up again has one answer for all of its tasks.
    MixRecords,
    /// Earlier answers are taken to be a minute younger than they are.
    FreshenAnswers,
    /// A fork gives what its branches gave, the last one first.
    TurnForks,
}

/// How late what is late comes: a whole number of every schedule's periods.
const LATE_MS: u64 = 7 * 60 * 1_000;

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::SkipIntent,
        Self::AcknowledgeEarly,
        Self::ForgetAttempts,
        Self::ForgetTimer,
        Self::ReleaseTwice,
        Self::ForgetLost,
        Self::RepeatUnknown,
        Self::TellFirst,
        Self::ForgetParked,
        Self::SkipUndo,
        Self::FreshKeys,
        Self::HoldBack,
        Self::HedgeFreely,
        Self::TakeLetterFirst,
        Self::ForgetListener,
        Self::MoveScheduleFirst,
        Self::Crowd,
        Self::LoseKey,
        Self::EmptyOutboxFirst,
        Self::MoveCursorFirst,
        Self::RedriveAll,
        Self::SuspendNobody,
        Self::LateCheckpoint,
        Self::LateTimers,
        Self::LateSchedules,
        Self::LateReviews,
        Self::MixAnswers,
        Self::MixRecords,
        Self::FreshenAnswers,
        Self::TurnForks,
    ];

    /// The one of this name, as `Debug` writes it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mutation| format!("{mutation:?}") == name)
    }

    /// The engine's own part in it.
    pub(crate) fn of_engine(self) -> Option<cofferdam::Mutation> {
        match self {
            Self::SkipIntent => Some(cofferdam::Mutation::SkipIntent),
            Self::ReleaseTwice => Some(cofferdam::Mutation::ReleaseTwice),
            Self::ForgetLost => Some(cofferdam::Mutation::ForgetLost),
            Self::TellFirst => Some(cofferdam::Mutation::TellFirst),
            Self::HoldBack => Some(cofferdam::Mutation::HoldBack),
            Self::HedgeFreely => Some(cofferdam::Mutation::HedgeFreely),
            Self::TakeLetterFirst => Some(cofferdam::Mutation::TakeLetterFirst),
            Self::MoveScheduleFirst => Some(cofferdam::Mutation::MoveScheduleFirst),
            Self::Crowd => Some(cofferdam::Mutation::Crowd),
            Self::LoseKey => Some(cofferdam::Mutation::LoseKey),
            Self::EmptyOutboxFirst => Some(cofferdam::Mutation::EmptyOutboxFirst),
            Self::MoveCursorFirst => Some(cofferdam::Mutation::MoveCursorFirst),
            Self::RedriveAll => Some(cofferdam::Mutation::RedriveAll),
            Self::SuspendNobody => Some(cofferdam::Mutation::SuspendNobody),
            Self::AcknowledgeEarly
            | Self::ForgetAttempts
            | Self::ForgetTimer
            | Self::RepeatUnknown
            | Self::ForgetParked
            | Self::SkipUndo
            | Self::FreshKeys
            | Self::ForgetListener
            | Self::LateCheckpoint
            | Self::LateTimers
            | Self::LateSchedules
            | Self::LateReviews
            | Self::MixAnswers
            | Self::MixRecords
            | Self::FreshenAnswers
            | Self::TurnForks => None,
        }
    }
}

/// What the engine would have written with the defect.
pub(crate) fn tamper(mutation: Option<Mutation>, mut batch: Batch) -> Batch {
    if mutation == Some(Mutation::ForgetListener) {
        batch.writes.retain(|write| !is_listener(write));
        return batch;
    }
    let lost = match mutation {
        Some(Mutation::ForgetTimer) => Table::Timer,
        Some(Mutation::ForgetParked) => Table::Parked,
        _ => return batch,
    };
    batch
        .writes
        .retain(|write| !matches!(write, Write::Put { table, .. } if *table == lost));
    batch
}

/// A row by which events are found to be for somebody.
fn is_listener(write: &Write) -> bool {
    const WATCH: u8 = 2;
    matches!(write, Write::Put { table: Table::Subscription, key, .. } if key.first() == Some(&WATCH))
}

/// What the engine would have read with the defect.
pub(crate) fn tamper_row(mutation: Option<Mutation>, table: Table, row: Vec<u8>) -> Vec<u8> {
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

/// The rows that the engine would have found with the defect.
pub(crate) fn tamper_rows(
    mutation: Option<Mutation>,
    table: Table,
    rows: Rows,
    now_ms: u64,
) -> Rows {
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
pub(crate) fn tamper_sources(mutation: Option<Mutation>, sources: &Sources) -> Sources {
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
pub(crate) fn tamper_records(mutation: Option<Mutation>, mut records: Records) -> Records {
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
