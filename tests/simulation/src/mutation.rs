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
    /// A checkpoint lacks the last record that it says it has.
    LateCheckpoint,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 13] = [
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
            Self::AcknowledgeEarly
            | Self::ForgetAttempts
            | Self::ForgetTimer
            | Self::RepeatUnknown
            | Self::ForgetParked
            | Self::SkipUndo
            | Self::FreshKeys
            | Self::LateCheckpoint => None,
        }
    }
}

/// What the engine would have written with the defect.
pub(crate) fn tamper(mutation: Option<Mutation>, mut batch: Batch) -> Batch {
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

/// What the engine would have read with the defect.
pub(crate) fn tamper_row(mutation: Option<Mutation>, table: Table, row: Vec<u8>) -> Vec<u8> {
    let Ok(mut pinned) = serde_json::from_slice::<Value>(&row) else {
        return row;
    };
    match (mutation, table) {
        (Some(Mutation::ForgetAttempts), Table::Definition) => {}
        (Some(Mutation::LateCheckpoint), Table::Checkpoint) => {
            let seq = pinned["seq"].as_u64().unwrap_or_default();
            pinned["seq"] = Value::from(seq + 1);
            return serde_json::to_vec(&pinned).unwrap_or(row);
        }
        _ => return row,
    }
    if let Some(connections) = pinned["bindings"]["connections"].as_object_mut() {
        for binding in connections.values_mut() {
            binding["attemptsMax"] = Value::from(1_000);
        }
    }
    serde_json::to_vec(&pinned).unwrap_or(row)
}
