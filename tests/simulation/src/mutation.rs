//! Deliberate defects, to check the checker: each must be seen by the oracle.
//!
//! Some are in the engine, behind its feature `mutations`, and armed by a call of the builder
//! alone. The others are made here, between the engine and the world, where they have the same
//! effect as the defect that they are named for.

use cofferdam_store::{Batch, Table, Write};
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
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 23] = [
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
            | Self::LateCheckpoint => None,
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
    let is_late = (mutation, table) == (Some(Mutation::LateCheckpoint), Table::Checkpoint);
    let forgets = (mutation, table) == (Some(Mutation::ForgetAttempts), Table::Definition);
    if !is_late && !forgets {
        return row;
    }
    let Ok(mut pinned) = serde_json::from_slice::<Value>(&row) else {
        return row;
    };
    if is_late {
        let seq = pinned["seq"].as_u64().unwrap_or_default();
        pinned["seq"] = Value::from(seq + 1);
        return serde_json::to_vec(&pinned).unwrap_or(row);
    }
    if let Some(connections) = pinned["bindings"]["connections"].as_object_mut() {
        for binding in connections.values_mut() {
            binding["attemptsMax"] = Value::from(1_000);
        }
    }
    serde_json::to_vec(&pinned).unwrap_or(row)
}
