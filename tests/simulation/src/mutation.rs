//! Deliberate defects, to check the checker: each must be seen by the oracle.
//!
//! Some are in the engine, behind its feature `mutations`, and armed by a call of the builder
//! alone. The others are made between the engine and the world (`tamper.rs`), where they have the
//! same effect as the defect that they are named for.

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
    /// Connections take their calls ten times as fast as they are told to.
    Hurry,
    /// The least important goes first.
    TurnPriorities,
    /// Whoever has most to do goes first.
    Favour,
    /// A subscriber that is set back is told so, and stays where it is.
    ForgetReplay,
    /// Dead letters of events are to be told again, and are not.
    ForgetLetters,
    /// What is purged is purged whosever it is and however it ended.
    PurgeMore,
    /// A run that is removed leaves its place among those that ended behind.
    PurgeLess,
    /// Runs that have ended are removed long before their time.
    SweepEarly,
    /// Runs that have ended are removed although they left a dead letter.
    SweepLetters,
    /// Runs that stand in the queue are let in two minutes after there was room.
    LateTurns,
    /// A key is forgotten when its run has ended.
    ForgetKeys,
    /// A key is remembered when its run is gone.
    KeepKeys,
    /// A start by key gives the run that there is, whatever it was told to do.
    NeverRestart,
    /// What an outbox has delivered gives something else than the answer.
    LoseDelivered,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 44] = [
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
        Self::Hurry,
        Self::TurnPriorities,
        Self::Favour,
        Self::ForgetReplay,
        Self::ForgetLetters,
        Self::PurgeMore,
        Self::PurgeLess,
        Self::SweepEarly,
        Self::SweepLetters,
        Self::LateTurns,
        Self::ForgetKeys,
        Self::KeepKeys,
        Self::NeverRestart,
        Self::LoseDelivered,
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
            Self::LateTurns => Some(cofferdam::Mutation::LateTurns),
            Self::ForgetKeys => Some(cofferdam::Mutation::ForgetKeys),
            Self::LoseDelivered => Some(cofferdam::Mutation::LoseDelivered),
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
            | Self::TurnForks
            | Self::Hurry
            | Self::TurnPriorities
            | Self::Favour
            | Self::ForgetReplay
            | Self::ForgetLetters
            | Self::PurgeMore
            | Self::PurgeLess
            | Self::SweepEarly
            | Self::SweepLetters
            | Self::KeepKeys
            | Self::NeverRestart => None,
        }
    }
}
