//! Tasks of one run that ask for the same effect: they name one `idempotencyKey`, or one of them is
//! tried again while what it asked for before is under way.
//!
//! At most one of them has an attempt under way (and a second one beside that, if it is hedged);
//! the others wait for its end as if it were their own. Whenever a call is about to ask, the ledger
//! is asked first: after a backoff, a recovery, a review or a refusal others may have learnt what
//! this task cannot know.

use super::calls::provenance;
use super::frame::{CallWork, Frame, Key, Work};
use super::ledger::Entry;
use super::saga::Undo;
use super::{Illegal, InFlight, Run, Step};
use crate::call::{Decision, Event, Lookup, Phase, Plan};

/// Runs of these semantics or later ones ask the ledger whenever a call is about to begin; before,
/// only when its task began.
const HEEDED_SINCE: u32 = 2;

/// Whether a call is about to ask for its effect.
fn is_asking(work: &CallWork) -> bool {
    matches!(work.state.phase, Phase::Ready | Phase::Deferring { .. })
}

impl Run {
    pub(super) fn heeds_the_ledger(&self) -> bool {
        self.bindings.semantics >= HEEDED_SINCE
    }

    fn call_of(&mut self, key: &str) -> Option<&mut CallWork> {
        match self.frames.get_mut(key).map(|f| &mut f.work) {
            Some(Work::Call(work)) => Some(work),
            _ => None,
        }
    }

    /// Before a call asks for its effect: takes the outcome if there is one (true), waits for an
    /// attempt that is under way, or finds out about one whose effect nobody knows.
    pub(super) fn heed(&mut self, key: &str, step: &mut Step) -> bool {
        if !self.heeds_the_ledger() {
            return false;
        }
        let Some(known) = self.known_before_asking(key) else {
            return false;
        };
        self.adopt(key);
        if let Some((output, provenance)) = known.outcome.clone() {
            self.took_known(key, output, provenance, step);
            return true;
        }
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return false;
        };
        if let Some(ticket) = known.ticket
            && let Some(attempt) = self.in_flight.get_mut(&ticket)
        {
            wait_for(work, ticket, &known);
            if attempt.task != key {
                attempt.beside.push(key.to_owned());
            }
        } else if known.maybe && !work.state.tainted {
            reach(&mut work.plan, &known.connection);
            let CallWork { state, plan, .. } = &mut **work;
            state.find_out(&known.connection, step.now_ms, plan);
        }
        false
    }

    /// What is known of the effect that a call is about to ask for.
    fn known_before_asking(&self, key: &str) -> Option<Entry> {
        match self.frames.get(key).map(|f| &f.work) {
            Some(Work::Call(work)) if is_asking(work) => {
                self.ledger.get(work.effect.as_ref()?).cloned()
            }
            _ => None,
        }
    }

    /// Who shares an effect and says how it is undone sees to that, unless another task does.
    pub(super) fn adopt(&mut self, key: &str) {
        let (owner, fallback) = self.undone_with(key);
        let (Some(owner), Some(Work::Call(work))) = (owner, self.frames.get(key).map(|f| &f.work))
        else {
            return;
        };
        let Some(id) = &work.effect else { return };
        if self.ledger.adopt(id) {
            let undo = Undo::new(key, &owner, fallback, &work.input, id);
            self.undos.push(undo);
        }
    }

    /// Tasks that are about to ask for the effect of this attempt wait for it instead.
    pub(super) fn gather(&mut self, key: &str, ticket: u64) {
        let Some(effect) = self.shared_effect(key) else {
            return;
        };
        let Some(known) = self.ledger.get(&effect).cloned() else {
            return;
        };
        for other in self.asking_for(&effect, key) {
            let Some(work) = self.call_of(&other) else {
                continue;
            };
            let open = work.ticket;
            wait_for(work, ticket, &known);
            self.open.remove(&open);
            self.adopt(&other);
            if let Some(attempt) = self.in_flight.get_mut(&ticket) {
                attempt.beside.push(other);
            }
        }
    }

    /// What came of this task's effect may be known: tasks that are about to ask for it take that.
    pub(super) fn share(&mut self, key: &str, step: &mut Step) {
        let Some(effect) = self.shared_effect(key) else {
            return;
        };
        if self.ledger.get(&effect).is_none_or(|e| e.outcome.is_none()) {
            return;
        }
        for other in self.asking_for(&effect, key) {
            if let Some(work) = self.call_of(&other) {
                let open = work.ticket;
                self.open.remove(&open);
                self.follow_call(&other, step);
            }
        }
    }

    /// The effect of a task that others may ask for as well.
    fn shared_effect(&self, key: &str) -> Option<String> {
        if !self.heeds_the_ledger() {
            return None;
        }
        match self.frames.get(key).map(|f| &f.work) {
            // Nobody else has the key that a task has by itself.
            Some(Work::Call(work)) if work.key != self.call_key(key, None) => work.effect.clone(),
            _ => None,
        }
    }

    /// The other tasks that wait for leave to ask for an effect.
    fn asking_for(&self, effect: &str, key: &str) -> Vec<Key> {
        let asks = |open: u64, other: &Key| match self.frames.get(other).map(|f| &f.work) {
            Some(Work::Call(work)) => {
                work.ticket == open && work.effect.as_deref() == Some(effect) && is_asking(work)
            }
            _ => false,
        };
        let others = self
            .open
            .iter()
            .filter(|(open, other)| other.as_str() != key && asks(**open, other));
        others.map(|(_, other)| other.clone()).collect()
    }

    /// Takes one event into the machine of a call, and into the ledger.
    pub(super) fn apply(&mut self, key: &str, event: &Event, step: &Step) -> Result<(), Illegal> {
        let heeds = self.heeds_the_ledger();
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return Err(Illegal::Task(key.to_owned()));
        };
        let state = work
            .state
            .clone()
            .step(event.clone(), step.now_ms, &work.plan);
        work.state = state.map_err(|source| Illegal::Call {
            task: key.to_owned(),
            source,
        })?;
        let Some(id) = &work.effect else {
            return Ok(());
        };
        if heeds
            && self
                .ledger
                .get(id)
                .is_some_and(|e| is_behind(work, event, e))
        {
            // What it says is of attempts before; what came after them is in the ledger.
            work.state.phase = Phase::Ready;
            work.state.tainted = false;
            return Ok(());
        }
        self.ledger.learnt(id, event, provenance(work));
        Ok(())
    }

    /// Remembers how much is known when somebody is asked what came of a call.
    pub(super) fn note_asked(&mut self, key: &str) {
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        if !matches!(
            work.state.phase,
            Phase::LookingUp { .. } | Phase::Review { .. }
        ) {
            return;
        }
        let known = work.effect.as_ref().and_then(|id| self.ledger.get(id));
        work.asked_after = known.map_or(0, |known| known.attempts);
    }

    /// Whether a decision about a task in review would take back what has become known of its effect by
    /// another task: that it happened, and with which output. What was known first stands. Asked before the
    /// decision is told, since journals have decisions that were taken.
    pub fn takes_back(&self, task: &str, decision: &Decision) -> bool {
        let Some(Work::Call(work)) = self.frames.get(task).map(|f| &f.work) else {
            return false;
        };
        // What is held is the task's own outcome, which a person may want another instead of.
        if !matches!(work.state.phase, Phase::Review { .. }) || work.state.held.is_some() {
            return false;
        }
        let known = work.effect.as_ref().and_then(|id| self.ledger.get(id));
        let Some((known, (happened, _))) = known.and_then(|k| Some((k, k.outcome.as_ref()?)))
        else {
            return false;
        };
        match decision {
            // One that is behind goes on with what is known.
            Decision::Retry => !self.heeds_the_ledger() || known.attempts <= work.asked_after,
            Decision::Approve { output } => **happened != *output,
            Decision::Accept | Decision::Answer { .. } | Decision::Reject { .. } => false,
        }
    }

    /// A call of unknown outcome is taken over by another task: it belongs to that now.
    pub(super) fn hand_over(&mut self, ticket: u64, key: &str) {
        if let Some(InFlight { task, beside, .. }) = self.in_flight.get_mut(&ticket) {
            let before = std::mem::replace(task, key.to_owned());
            beside.push(before);
        }
    }
}

/// Whether an answer that nothing happened is about less than is known: others have made attempts
/// since it was asked for, and one of them happened, may have, or is under way.
fn is_behind(work: &CallWork, event: &Event, known: &Entry) -> bool {
    let denies = matches!(
        event,
        Event::LookedUp(Lookup::Absent, _) | Event::Decided(Decision::Retry)
    );
    denies && known.attempts > work.asked_after && known.may_have_happened()
}

/// The end of that attempt is the end of this call's as well.
fn wait_for(work: &mut CallWork, ticket: u64, known: &Entry) {
    work.ticket = ticket;
    reach(&mut work.plan, &known.connection);
    work.state
        .wait_beside(&known.connection, known.maybe, &work.plan);
}

/// What may have happened on a connection is repeated there or nowhere, also by a task that would
/// not have asked it.
pub(super) fn reach(plan: &mut Plan, connection: &str) {
    let connections = &mut plan.connections;
    if !connection.is_empty() && !connections.iter().any(|c| c == connection) {
        connections.push(connection.to_owned());
    }
}
