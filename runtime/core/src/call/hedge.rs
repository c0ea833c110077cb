//! A second attempt beside one that takes long: the first success of the two counts.
//!
//! Dean and Barroso, "The Tail at Scale" (2013). Both attempts carry the same key. A read goes to
//! the next connection of the task if there is one; a call with an effect never does, since the
//! first may have had its effect: it is sent to the same connection again, which repeats no effect.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LOST_MAX, Phase, Plan, State, lost};
use crate::descriptor;
use crate::failure::{EffectState, Failure};

/// The second attempt beside the one that is under way. There is at most one for each attempt.
/// Persisted in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Hedge {
    /// There is none, or no other.
    Off,
    /// It is asked for at this instant, unless the attempt has ended by then.
    Due {
        /// The instant.
        due_ms: u64,
    },
    /// Leave to make it was asked for.
    Asked,
    /// It is under way.
    Running {
        /// Index into [`Plan::connections`].
        connection: usize,
        /// How the first attempt failed meanwhile, if it did.
        first: Option<Failure>,
    },
}

/// What happens to a second attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum HedgeEvent {
    /// Admitted: it begins.
    Started,
    /// Not admitted: the first attempt goes on alone.
    Refused,
    /// It succeeded.
    Succeeded(Value),
    /// It failed. The number is the randomness of the backoff.
    Failed(Failure, u32),
    /// The runtime stopped while it was under way.
    Lost,
}

impl Hedge {
    /// For an attempt that begins at this instant.
    pub(super) fn armed(plan: &Plan, now_ms: u64) -> Self {
        match plan.hedge_ms {
            Some(ms) if plan.effect != descriptor::Effect::Once => Self::Due {
                due_ms: now_ms.saturating_add(ms),
            },
            Some(_) | None => Self::Off,
        }
    }

    /// When it is to be asked for, if it is.
    pub(super) fn due_ms(&self) -> Option<u64> {
        match self {
            Self::Due { due_ms } => Some(*due_ms),
            Self::Off | Self::Asked | Self::Running { .. } => None,
        }
    }
}

impl State {
    /// Index of the connection that a second attempt goes to.
    pub(crate) fn hedge_connection(&self, plan: &Plan) -> usize {
        let next = self.connection + 1;
        if plan.effect == descriptor::Effect::Read && next < plan.connections.len() {
            next
        } else {
            self.connection
        }
    }

    /// The first attempt failed: that counts once the second has failed as well.
    pub(super) fn first_failed(
        &mut self,
        failure: Failure,
        draw: u32,
        now_ms: u64,
        plan: &Plan,
    ) -> Phase {
        match std::mem::replace(&mut self.hedge, Hedge::Off) {
            Hedge::Running { connection, .. } => {
                self.tainted |= failure.effect != EffectState::None;
                let first = Some(failure);
                self.hedge = Hedge::Running { connection, first };
                Phase::InFlight
            }
            Hedge::Off | Hedge::Due { .. } | Hedge::Asked => {
                self.failed(failure, draw, now_ms, plan)
            }
        }
    }

    /// Nobody saw the end of the first attempt.
    pub(super) fn first_lost(&mut self, now_ms: u64, plan: &Plan) -> Phase {
        self.tainted = true;
        self.lost += 1;
        match std::mem::replace(&mut self.hedge, Hedge::Off) {
            Hedge::Running { connection, .. } => {
                let first = Some(lost());
                self.hedge = Hedge::Running { connection, first };
                Phase::InFlight
            }
            // Perhaps it is this call that kills the process.
            Hedge::Off | Hedge::Due { .. } | Hedge::Asked
                if plan.is_careful() && self.lost >= LOST_MAX =>
            {
                Phase::Review { failure: lost() }
            }
            Hedge::Off | Hedge::Due { .. } | Hedge::Asked => {
                self.unknown(lost(), None, now_ms, plan)
            }
        }
    }

    /// Something happened to the second attempt; none if it cannot happen to it.
    pub(super) fn hedged(&mut self, event: HedgeEvent, now_ms: u64, plan: &Plan) -> Option<Phase> {
        match (std::mem::replace(&mut self.hedge, Hedge::Off), event) {
            (Hedge::Asked, HedgeEvent::Started) => {
                self.attempts += 1;
                let connection = self.hedge_connection(plan);
                let first = None;
                self.hedge = Hedge::Running { connection, first };
                Some(Phase::InFlight)
            }
            (Hedge::Asked, HedgeEvent::Refused) => Some(Phase::InFlight),
            (Hedge::Running { connection, .. }, HedgeEvent::Succeeded(output)) => {
                self.connection = connection;
                Some(Phase::Succeeded {
                    output,
                    manual: false,
                })
            }
            (Hedge::Running { connection, first }, HedgeEvent::Failed(failure, draw)) => {
                if connection == self.connection {
                    self.failed_here += 1;
                    self.tainted |= failure.effect != EffectState::None;
                }
                Some(match first {
                    None => Phase::InFlight,
                    Some(first) => {
                        let first = self.both_failed(first, &failure, connection);
                        self.failed(first, draw, now_ms, plan)
                    }
                })
            }
            (Hedge::Running { connection, first }, HedgeEvent::Lost) => {
                self.tainted |= connection == self.connection;
                Some(match first {
                    None => Phase::InFlight,
                    Some(first) if plan.counts_each_failure() && first.code != lost().code => {
                        self.first_failed_alone(first, now_ms, plan)
                    }
                    Some(_) => self.unknown(lost(), None, now_ms, plan),
                })
            }
            (Hedge::Off | Hedge::Due { .. } | Hedge::Asked | Hedge::Running { .. }, _) => None,
        }
    }

    /// The first attempt failed, and nobody saw the end of the second: one attempt is used up. A read goes
    /// on as if there had been no second one; of all else nobody knows what became of the call.
    fn first_failed_alone(&mut self, first: Failure, now_ms: u64, plan: &Plan) -> Phase {
        // The restart took its time, but who said how long to wait is not asked sooner.
        let draw = first.retry_after_ms.map(|_| 0);
        if plan.effect == descriptor::Effect::Read {
            return self.failed(first, draw.unwrap_or(0), now_ms, plan);
        }
        let unseen = Failure {
            retry_after_ms: first.retry_after_ms,
            ..lost()
        };
        self.failed_here += 1;
        match self.unknown(unseen, draw, now_ms, plan) {
            Phase::Exhausted { .. } => {
                self.failed_here -= 1;
                self.failed(first, draw.unwrap_or(0), now_ms, plan)
            }
            phase => phase,
        }
    }

    /// What two attempts that failed say together: the first counts, with the worse of what they
    /// left behind.
    fn both_failed(&self, mut first: Failure, second: &Failure, connection: usize) -> Failure {
        if connection == self.connection && first.effect == EffectState::None {
            first.effect = second.effect;
        }
        first.retry_after_ms = first.retry_after_ms.max(second.retry_after_ms);
        first
    }
}
