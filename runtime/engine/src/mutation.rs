//! Deliberate defects, to check that the simulation (`tests/simulation`) sees them.
//!
//! Without the feature `mutations` none can be armed, and the compiler removes what asks for them.
//! With it, a program arms one with `RuntimeBuilder::mutation`; nothing else can.

/// One deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "mutations"),
    allow(dead_code, reason = "none can be armed")
)]
pub enum Mutation {
    /// An effect begins before its intent is durable.
    SkipIntent,
    /// Outcomes that were held back are not written before the next effect.
    HoldBack,
    /// Attempts under way when the process died are not told lost.
    ForgetLost,
    /// Who waits for a commit is told before it.
    TellFirst,
    /// A place in a bulkhead is given back twice.
    ReleaseTwice,
    /// Second attempts are made however many there were.
    HedgeFreely,
    /// A run takes an event out of its letter box before it is on the disk that it has.
    TakeLetterFirst,
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
    /// Runs that stand in the queue are let in two minutes after there was room.
    LateTurns,
    /// A key is forgotten when its run has ended.
    ForgetKeys,
    /// What an outbox has delivered gives something else than the answer.
    LoseDelivered,
}

/// What is armed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Armed {
    #[cfg(feature = "mutations")]
    mutation: Option<Mutation>,
}

impl Armed {
    #[cfg(feature = "mutations")]
    pub fn with(mutation: Mutation) -> Self {
        Self {
            mutation: Some(mutation),
        }
    }

    #[cfg(feature = "mutations")]
    pub fn has(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(feature = "mutations"))]
    #[expect(
        clippy::unused_self,
        reason = "the same call with and without the feature"
    )]
    pub fn has(self, _: Mutation) -> bool {
        false
    }
}
