//! Two attempts of one call side by side: which of them an event is about, and what becomes of the
//! one that is slower.

use super::frame::{CallWork, Frame, Work};
use super::{Effect, Run, Step};
use crate::call::{Event, Hedge, HedgeEvent, Phase};

/// Which attempt of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    First,
    Second,
}

impl Role {
    /// The event as the machine of the call knows it.
    pub fn tell(self, event: &Event) -> Event {
        match (self, event) {
            (Self::Second, Event::Started) => Event::Hedge(HedgeEvent::Started),
            (Self::Second, Event::Refused(_)) => Event::Hedge(HedgeEvent::Refused),
            (Self::Second, Event::Succeeded(output)) => {
                Event::Hedge(HedgeEvent::Succeeded(output.clone()))
            }
            (Self::Second, Event::Failed(failure, draw)) => {
                Event::Hedge(HedgeEvent::Failed(failure.clone(), *draw))
            }
            (Self::Second, Event::Lost) => Event::Hedge(HedgeEvent::Lost),
            (
                Self::Second,
                Event::Due
                | Event::Recovered
                | Event::LookedUp(..)
                | Event::Deferred
                | Event::NotDeferred
                | Event::Decided(_)
                | Event::Hedge(_),
            )
            | (Self::First, _) => event.clone(),
        }
    }
}

impl CallWork {
    /// The connection that this attempt goes to.
    pub fn connection_of(&self, role: Role) -> &str {
        match (role, &self.state.hedge) {
            (Role::Second, Hedge::Running { connection, .. }) => {
                &self.plan.connections[*connection]
            }
            _ => self.state.connection(&self.plan),
        }
    }
}

impl Run {
    /// Which attempt of its task this is; none if nobody waits for it.
    pub(super) fn role_of(&self, key: &str, ticket: u64) -> Option<Role> {
        match &self.frames.get(key)?.work {
            Work::Call(work) if work.ticket == ticket => Some(Role::First),
            Work::Call(work) if work.hedge_ticket == ticket => Some(Role::Second),
            _ => None,
        }
    }

    /// Asks for leave to make a second attempt, if it is time for one.
    pub(super) fn ask_beside(&mut self, key: &str, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        if work.state.hedge != Hedge::Asked {
            return;
        }
        self.tickets += 1;
        work.hedge_ticket = self.tickets;
        self.open.insert(work.hedge_ticket, key.to_owned());
        step.effects.push(work.hedge(key));
    }

    /// Forgets the attempts that do not count any more once a call is not in flight. One that only
    /// reads is dropped. One with an effect goes on unobserved: it must have ended before its
    /// effect can be undone.
    pub(super) fn settle_race(&mut self, key: &str, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        if work.state.phase == Phase::InFlight || work.hedge_ticket == 0 {
            return;
        }
        let tickets = [
            std::mem::take(&mut work.ticket),
            std::mem::take(&mut work.hedge_ticket),
        ];
        for ticket in tickets {
            self.open.remove(&ticket);
            let only_reads = |attempt: &super::InFlight| attempt.effect.is_none();
            if !self.in_flight.get(&ticket).is_some_and(only_reads) {
                continue;
            }
            let Some(attempt) = self.in_flight.remove(&ticket) else {
                continue;
            };
            let report = self.reports.get_mut(&attempt.task);
            if let Some(told) = report.and_then(|r| r.attempts.get_mut(attempt.report)) {
                told.ended_ms = Some(step.now_ms);
                told.dropped = true;
            }
            step.effects.push(Effect::Cancel { ticket });
        }
    }
}
