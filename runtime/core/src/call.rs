//! One call task, from its first attempt to its end, as a pure machine.
//!
//! It decides what DESIGN calls retry, failover, parking and the unknown-outcome path. Two rules
//! carry it: a call that may have happened is never sent to *another* connection, and a `once`
//! call that may have happened is never sent again at all unless a lookup says that it did not.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor;
use crate::failure::{Class, EffectState, Failure};
use crate::retry::{Backoff, Rule};
use crate::workflow::{OnOutage, OnUnknown, ReviewPolicy};

mod beside;
mod hedge;
mod review;

pub use hedge::{Hedge, HedgeEvent};

/// Everything that is fixed when the task begins. Persisted in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What repeating the action does.
    pub effect: descriptor::Effect,
    /// Whether the connector can be asked for the outcome of an earlier call.
    pub lookup: bool,
    /// The connection of the task and those to fail over to, in order; never empty.
    pub connections: Vec<String>,
    /// Attempts on each connection, the first included.
    pub attempts_max: u32,
    /// Time between attempts.
    pub backoff: Backoff,
    /// What to do while the connection is out.
    pub on_outage: OnOutage,
    /// What to do when nobody knows whether the call happened; the effect decides if none.
    pub on_unknown: Option<OnUnknown>,
    /// All attempts and backoffs together, in milliseconds; parking does not count.
    pub schedule_to_close_ms: u64,
    /// Waiting for the first attempt, for admission or parked, in milliseconds; unbounded if none.
    pub schedule_to_start_ms: Option<u64>,
    /// After how long an attempt gets a second one beside it, in milliseconds; never if none.
    pub hedge_ms: Option<u64>,
    /// What some failures are retried by instead; the first that fits counts.
    pub retries: Vec<Rule>,
    /// How long a person may take.
    pub review: ReviewPolicy,
    /// The behaviour that the run pins; see [`crate::run::Bindings::semantics`].
    pub semantics: u32,
}

impl Plan {
    /// Attempts and the time between them for this failure.
    fn retry(&self, failure: &Failure) -> (u32, &Backoff) {
        let rule = self.retries.iter().find(|rule| rule.fits(failure));
        let attempts_max = rule.and_then(|r| r.attempts_max);
        let backoff = rule.and_then(|r| r.backoff.as_ref());
        (
            attempts_max.unwrap_or(self.attempts_max),
            backoff.unwrap_or(&self.backoff),
        )
    }

    /// Whether the rules of [`crate::run::SEMANTICS`] 2 hold.
    fn is_careful(&self) -> bool {
        self.semantics >= 2
    }

    /// Whether those of 3 do.
    fn counts_each_failure(&self) -> bool {
        self.semantics >= 3
    }
}

/// Where a call task is. Persisted in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Index into [`Plan::connections`].
    pub connection: usize,
    /// Attempts begun in all.
    pub attempts: u32,
    /// Attempts that failed on this connection since it was last chosen.
    pub failed_here: u32,
    /// Whether an attempt on this connection may have had its effect.
    pub tainted: bool,
    /// Time for attempts and backoffs is over at this instant.
    pub close_at_ms: u64,
    /// When it was first parked, if ever: the parking deadline counts from there.
    pub parked_since_ms: Option<u64>,
    /// The first attempt has to begin before this instant.
    pub start_by_ms: Option<u64>,
    /// The second attempt beside the one that is under way.
    pub hedge: Hedge,
    /// When the review is over or goes to somebody else.
    pub review_due_ms: Option<u64>,
    /// How often the review went to somebody else.
    pub escalations: usize,
    /// The output that a person looks at.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::present::deserialize"
    )]
    pub held: Option<Value>,
    /// Whether a person took the output as it is.
    pub accepted: bool,
    /// How many attempts nobody saw the end of, since the runtime stopped.
    pub lost: u32,
    /// What it is doing.
    pub phase: Phase,
}

/// What a call task is doing. Persisted in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// It wants to make an attempt and waits for admission.
    Ready,
    /// An attempt is under way.
    InFlight,
    /// It waits before the next attempt, or before asking again for the outcome.
    Backoff {
        /// When it goes on.
        due_ms: u64,
        /// What it goes on with.
        then: Next,
        /// The failure that it waits after.
        failure: Failure,
    },
    /// It waits for the connection to recover.
    Parked {
        /// When it stops waiting, in milliseconds.
        deadline_ms: u64,
        /// Why it was parked.
        failure: Failure,
    },
    /// It asks the connector what became of the call.
    LookingUp {
        /// Why it has to ask.
        failure: Failure,
        /// How often it asked.
        asked: u32,
    },
    /// It wants its call to be kept in the connection's outbox.
    Deferring {
        /// Why.
        failure: Failure,
        /// For how long the outbox may try, in milliseconds.
        deliver_within_ms: u64,
    },
    /// Its call is in the connection's outbox: the task has nothing more to do.
    Deferred,
    /// It waits for a person.
    Review {
        /// Why.
        failure: Failure,
    },
    /// It has its output.
    Succeeded {
        /// The action's output.
        output: Value,
        /// Whether a person supplied it.
        manual: bool,
    },
    /// It is out of options.
    Exhausted {
        /// The last failure.
        failure: Failure,
        /// Whether the workflow's fallbacks may be used.
        fallback: bool,
    },
}

/// What follows a backoff. Persisted in checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Next {
    /// Another attempt.
    Attempt,
    /// Another question, having asked so often.
    Lookup {
        /// Questions asked.
        asked: u32,
    },
}

/// What happens to a call task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Admitted: the attempt begins.
    Started,
    /// Not admitted; says nothing happened.
    Refused(Failure),
    /// The attempt succeeded.
    Succeeded(Value),
    /// The attempt failed. The number is the randomness of the backoff.
    Failed(Failure, u32),
    /// The runtime stopped while the attempt was under way.
    Lost,
    /// The instant of a backoff or of a parking deadline has come.
    Due,
    /// The connection works again.
    Recovered,
    /// The connector answered what became of the call.
    LookedUp(Lookup, u32),
    /// The call is in the outbox.
    Deferred,
    /// The outbox has no room.
    NotDeferred,
    /// A person decided.
    Decided(Decision),
    /// Something happened to the second attempt.
    Hedge(HedgeEvent),
}

/// What a connector knows about an earlier call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Lookup {
    /// It happened, with this output.
    Found {
        /// The output.
        output: Value,
    },
    /// It certainly did not happen.
    Absent,
    /// The question itself failed.
    Failed {
        /// How.
        failure: Failure,
    },
}

/// What a person can decide about a call in review.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Decision {
    /// It happened: go on with this output.
    Approve {
        /// The output.
        output: Value,
    },
    /// The output that is looked at is taken as it is.
    Accept,
    /// Go on with this output, whatever happened.
    Answer {
        /// The output.
        output: Value,
    },
    /// It did not happen, or not well: call again.
    Retry,
    /// Give up.
    Reject {
        /// Why, for the record.
        reason: String,
    },
}

/// A pair of state and event that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("a call task cannot take {event} while it is {phase}")]
pub struct Illegal {
    phase: &'static str,
    event: &'static str,
}

impl Illegal {
    /// Whether the task waits for a person, who decided what cannot be decided about it.
    pub fn is_in_review(&self) -> bool {
        self.phase == REVIEW
    }
}

impl Decision {
    /// One word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve { .. } => "approve",
            Self::Accept => "accept",
            Self::Answer { .. } => "answer",
            Self::Retry => "retry",
            Self::Reject { .. } => "reject",
        }
    }
}

/// The name of the phase in which a person must decide.
const REVIEW: &str = "in review";

/// After so many attempts that ended with the runtime a person looks at the call: it may be what
/// kills the process at each start.
const LOST_MAX: u32 = 20;

/// How often a connector is asked for an outcome before a person is.
const LOOKUPS_MAX: u32 = 5;

impl State {
    /// A task that is about to make its first attempt.
    pub fn new(plan: &Plan, now_ms: u64) -> Self {
        Self {
            connection: 0,
            attempts: 0,
            failed_here: 0,
            tainted: false,
            close_at_ms: now_ms.saturating_add(plan.schedule_to_close_ms),
            parked_since_ms: None,
            start_by_ms: plan
                .schedule_to_start_ms
                .map(|ms| now_ms.saturating_add(ms)),
            hedge: Hedge::Off,
            review_due_ms: None,
            escalations: 0,
            held: None,
            accepted: false,
            lost: 0,
            phase: Phase::Ready,
        }
    }

    /// A task whose effect was asked for before, by a task that is gone, on this connection. `last`
    /// is none if that attempt is still under way.
    /// `maybe` says whether an earlier attempt may have had the effect.
    pub fn taking_over(
        plan: &Plan,
        connection: &str,
        last: Option<Failure>,
        maybe: bool,
        now_ms: u64,
    ) -> Self {
        let mut state = Self::new(plan, now_ms);
        let index = plan.connections.iter().position(|c| c == connection);
        state.connection = index.unwrap_or(0);
        state.tainted = last.is_some() || (maybe && plan.is_careful());
        state.start_by_ms = None;
        state.phase = match last {
            None => Phase::InFlight,
            Some(failure) => state.unknown(failure, None, now_ms, plan),
        };
        state.watch_review(now_ms, plan);
        state
    }

    /// The connection that the next attempt goes to.
    pub fn connection<'a>(&self, plan: &'a Plan) -> &'a str {
        &plan.connections[self.connection.min(plan.connections.len() - 1)]
    }

    /// When [`Event::Due`] is to be told, if ever.
    pub fn due_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Backoff { due_ms, .. } => Some(due_ms),
            Phase::Parked { deadline_ms, .. } => Some(
                self.start_by_ms
                    .map_or(deadline_ms, |at| at.min(deadline_ms)),
            ),
            Phase::Ready => self.start_by_ms,
            Phase::InFlight => self.hedge.due_ms(),
            Phase::Review { .. } => self.review_due_ms,
            Phase::LookingUp { .. }
            | Phase::Deferring { .. }
            | Phase::Deferred
            | Phase::Succeeded { .. }
            | Phase::Exhausted { .. } => None,
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// [`Illegal`] if the task cannot take this event where it is; nothing has changed then.
    pub fn step(mut self, event: Event, now_ms: u64, plan: &Plan) -> Result<Self, Illegal> {
        let illegal = Illegal {
            phase: self.phase.name(),
            event: event.name(),
        };
        let was_review = matches!(self.phase, Phase::Review { .. });
        self.phase = match (self.phase.clone(), event) {
            (Phase::Ready, Event::Started) => {
                self.attempts += 1;
                self.start_by_ms = None;
                self.hedge = Hedge::armed(plan, now_ms);
                Phase::InFlight
            }
            (Phase::Ready, Event::Due) if self.start_by_ms.is_some() => Phase::Exhausted {
                failure: not_started(),
                fallback: true,
            },
            (Phase::Ready, Event::Refused(failure)) => self.elsewhere(failure, now_ms, plan),
            (Phase::InFlight, Event::Succeeded(output)) => Phase::Succeeded {
                output,
                manual: false,
            },
            (Phase::InFlight, Event::Failed(failure, draw)) => {
                self.first_failed(failure, draw, now_ms, plan)
            }
            (Phase::InFlight, Event::Lost) => self.first_lost(now_ms, plan),
            (Phase::InFlight, Event::Due) if self.hedge.due_ms().is_some() => {
                self.hedge = Hedge::Asked;
                Phase::InFlight
            }
            (Phase::InFlight, Event::Hedge(event)) => {
                self.hedged(event, now_ms, plan).ok_or(illegal)?
            }
            (
                Phase::Backoff {
                    then: Next::Attempt,
                    ..
                },
                Event::Due,
            ) => Phase::Ready,
            (
                Phase::Backoff {
                    then: Next::Lookup { asked },
                    failure,
                    ..
                },
                Event::Due,
            ) => Phase::LookingUp { failure, asked },
            (Phase::Parked { .. }, Event::Recovered) => {
                self.unpark(now_ms, plan);
                Phase::Ready
            }
            (Phase::Parked { failure, .. }, Event::Due) => Phase::Exhausted {
                failure,
                fallback: true,
            },
            (Phase::LookingUp { failure, asked }, Event::LookedUp(answer, draw)) => {
                self.looked_up(answer, failure, asked + 1, draw, now_ms, plan)
            }
            (Phase::Review { failure }, Event::Decided(decision)) => self
                .decided(decision, failure, now_ms, plan)
                .ok_or(illegal)?,
            (Phase::Review { failure }, Event::Due) => self.overdue(failure, now_ms, plan),
            (Phase::Deferring { .. }, Event::Deferred) => Phase::Deferred,
            (
                Phase::Deferring {
                    failure,
                    deliver_within_ms,
                },
                Event::NotDeferred,
            ) => self.park(failure, deliver_within_ms, now_ms, plan),
            _ => return Err(illegal),
        };
        if !was_review {
            self.watch_review(now_ms, plan);
        }
        Ok(self)
    }

    fn failed(&mut self, failure: Failure, draw: u32, now_ms: u64, plan: &Plan) -> Phase {
        self.failed_here += 1;
        if failure.effect != EffectState::None {
            self.tainted = true;
            if plan.effect == descriptor::Effect::Once || !failure.class.is_transient() {
                return self.unknown(failure, Some(draw), now_ms, plan);
            }
        }
        let no_access = failure.class == Class::Unauthenticated;
        if no_access && plan.is_careful() {
            // The credentials are the connection's: somebody renews them, and all goes on.
            return self.elsewhere(failure, now_ms, plan);
        }
        if !failure.class.is_transient() {
            return if failure.class.is_outage() && !no_access {
                self.next_connection(
                    failure,
                    |_, failure| Phase::Exhausted {
                        failure,
                        fallback: true,
                    },
                    plan,
                )
            } else {
                Phase::Exhausted {
                    failure,
                    fallback: true,
                }
            };
        }
        let (attempts_max, backoff) = plan.retry(&failure);
        let delay_ms = backoff.delay_after_ms(self.failed_here, draw, failure.retry_after_ms);
        let due_ms = now_ms.saturating_add(delay_ms);
        if self.failed_here < attempts_max && due_ms < self.close_at_ms {
            return Phase::Backoff {
                due_ms,
                then: Next::Attempt,
                failure,
            };
        }
        self.elsewhere(failure, now_ms, plan)
    }

    /// The connection is out: another one, else what the policy says.
    fn elsewhere(&mut self, failure: Failure, now_ms: u64, plan: &Plan) -> Phase {
        self.next_connection(
            failure,
            |state, failure| state.outage(failure, now_ms, plan),
            plan,
        )
    }

    fn next_connection(
        &mut self,
        failure: Failure,
        otherwise: impl FnOnce(&mut Self, Failure) -> Phase,
        plan: &Plan,
    ) -> Phase {
        let may_leave = !self.tainted || plan.effect == descriptor::Effect::Read;
        if may_leave && self.connection + 1 < plan.connections.len() {
            self.connection += 1;
            self.failed_here = 0;
            self.tainted = false;
            return Phase::Ready;
        }
        otherwise(self, failure)
    }

    fn outage(&mut self, failure: Failure, now_ms: u64, plan: &Plan) -> Phase {
        match plan.on_outage {
            OnOutage::Fallback => Phase::Exhausted {
                failure,
                fallback: true,
            },
            OnOutage::Fail => Phase::Exhausted {
                failure,
                fallback: false,
            },
            OnOutage::Park { deadline_ms } => self.park(failure, deadline_ms, now_ms, plan),
            OnOutage::QueueAndForward { deliver_within_ms } => {
                self.come_home();
                Phase::Deferring {
                    failure,
                    deliver_within_ms,
                }
            }
        }
    }

    fn park(&mut self, failure: Failure, wait_ms: u64, now_ms: u64, plan: &Plan) -> Phase {
        let since_ms = *self.parked_since_ms.get_or_insert(now_ms);
        let deadline_ms = since_ms.saturating_add(wait_ms);
        if deadline_ms <= now_ms {
            return Phase::Exhausted {
                failure,
                fallback: true,
            };
        }
        if failure.class == Class::RateLimited {
            // The connection is well: it would be woken at once, and asked too soon.
            let (_, backoff) = plan.retry(&failure);
            let delay_ms =
                backoff.delay_after_ms(self.failed_here, u32::MAX, failure.retry_after_ms);
            let due_ms = now_ms.saturating_add(delay_ms);
            if due_ms > deadline_ms && plan.is_careful() {
                // To ask at the deadline would be sooner than it was asked to.
                return Phase::Exhausted {
                    failure,
                    fallback: true,
                };
            }
            return Phase::Backoff {
                due_ms: due_ms.min(deadline_ms),
                then: Next::Attempt,
                failure,
            };
        }
        self.come_home();
        Phase::Parked {
            deadline_ms,
            failure,
        }
    }

    /// It waits for the connection that the workflow names, not for a backup; unless it may have
    /// had its effect at the backup.
    fn come_home(&mut self) {
        if !self.tainted {
            self.connection = 0;
        }
    }

    fn unpark(&mut self, now_ms: u64, plan: &Plan) {
        self.failed_here = 0;
        self.close_at_ms = now_ms.saturating_add(plan.schedule_to_close_ms);
    }

    /// Nobody knows whether the call happened. `draw` is the randomness of a backoff; there is
    /// none after a restart, which took its time.
    fn unknown(&mut self, failure: Failure, draw: Option<u32>, now_ms: u64, plan: &Plan) -> Phase {
        let default = match plan.effect {
            descriptor::Effect::Read => OnUnknown::Repeat,
            _ if plan.lookup => OnUnknown::Lookup,
            descriptor::Effect::Idempotent => OnUnknown::Repeat,
            descriptor::Effect::Once => OnUnknown::Review,
        };
        match plan.on_unknown.unwrap_or(default) {
            OnUnknown::Lookup if plan.lookup => Phase::LookingUp { failure, asked: 0 },
            OnUnknown::Lookup | OnUnknown::Review => Phase::Review { failure },
            OnUnknown::Repeat if self.failed_here < plan.retry(&failure).0 => {
                self.again(failure, draw, now_ms, plan)
            }
            OnUnknown::Repeat => Phase::Exhausted {
                failure,
                fallback: true,
            },
        }
    }

    /// Another attempt under the same key, when it is time for it.
    fn again(&self, failure: Failure, draw: Option<u32>, now_ms: u64, plan: &Plan) -> Phase {
        let Some(draw) = draw.filter(|_| plan.is_careful() && self.failed_here > 0) else {
            return Phase::Ready;
        };
        let (_, backoff) = plan.retry(&failure);
        let delay_ms = backoff.delay_after_ms(self.failed_here, draw, failure.retry_after_ms);
        let due_ms = now_ms.saturating_add(delay_ms);
        if due_ms >= self.close_at_ms {
            return Phase::Exhausted {
                failure,
                fallback: true,
            };
        }
        Phase::Backoff {
            due_ms,
            then: Next::Attempt,
            failure,
        }
    }

    fn looked_up(
        &mut self,
        answer: Lookup,
        failure: Failure,
        asked: u32,
        draw: u32,
        now_ms: u64,
        plan: &Plan,
    ) -> Phase {
        match answer {
            Lookup::Found { output } => Phase::Succeeded {
                output,
                manual: false,
            },
            Lookup::Absent => {
                self.tainted = false;
                if self.failed_here < plan.retry(&failure).0 {
                    self.again(failure, Some(draw), now_ms, plan)
                } else if failure.class.is_transient() {
                    self.elsewhere(failure, now_ms, plan)
                } else {
                    Phase::Exhausted {
                        failure,
                        fallback: true,
                    }
                }
            }
            Lookup::Failed { failure: again }
                if again.class.is_transient() && asked < LOOKUPS_MAX =>
            {
                let due_ms = now_ms.saturating_add(plan.backoff.delay_ms(asked, draw));
                Phase::Backoff {
                    due_ms,
                    then: Next::Lookup { asked },
                    failure,
                }
            }
            Lookup::Failed { .. } => Phase::Review { failure },
        }
    }
}

/// What is known of an attempt that nobody saw the end of.
pub(crate) fn lost() -> Failure {
    Failure::new(
        Class::Unavailable,
        "runtime.lost",
        "the runtime stopped while the call was under way",
    )
    .with_effect(EffectState::Unknown)
}

/// The first attempt could not begin in time.
fn not_started() -> Failure {
    Failure::new(
        Class::Timeout,
        "timeout.schedule-to-start",
        "the call could not begin within `scheduleToStart`",
    )
}

impl Phase {
    /// One word for messages and lists.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::InFlight => "in flight",
            Self::Backoff { .. } => "backing off",
            Self::Parked { .. } => "parked",
            Self::LookingUp { .. } => "looking up",
            Self::Review { .. } => REVIEW,
            Self::Deferring { .. } => "deferring",
            Self::Deferred => "deferred",
            Self::Succeeded { .. } => "succeeded",
            Self::Exhausted { .. } => "exhausted",
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Refused(_) => "refused",
            Self::Succeeded(_) => "succeeded",
            Self::Failed(..) => "failed",
            Self::Lost => "lost",
            Self::Due => "due",
            Self::Recovered => "recovered",
            Self::LookedUp(..) => "looked up",
            Self::Decided(decision) => decision.name(),
            Self::Hedge(_) => "an event of a second attempt",
            Self::Deferred => "deferred",
            Self::NotDeferred => "not deferred",
        }
    }
}

#[cfg(test)]
mod tests;
