//! What is known of each effect, whatever became of the task that asked for it.
//!
//! A task can be stopped by a timeout, lose a race or be tried again while its call is under way
//! or of unknown outcome. The ledger outlives the task: whoever asks for the same effect again
//! (same connection, action and key) gets its outcome, waits for it, or has to find it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Decision, Event, HedgeEvent, Lookup};
use crate::failure::EffectState;
use crate::provenance::Provenance;

/// The effects that a run has asked for, by [`id`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Ledger(BTreeMap<String, Entry>);

/// What is known of one effect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// The attempt that is under way.
    pub ticket: Option<u64>,
    /// The second attempt beside it.
    pub beside: Option<u64>,
    /// Whether an attempt that has ended may have had the effect.
    pub maybe: bool,
    /// What came of it.
    pub outcome: Option<(Arc<Value>, Provenance)>,
    /// The connection that was asked last.
    pub connection: String,
    /// Attempts begun.
    pub attempts: u32,
    /// Whether the saga has an entry for it.
    pub in_saga: bool,
}

/// Names an effect: the same key at another action or connection is another effect.
pub(super) fn id(connection: &str, action: &str, key: &str) -> String {
    format!("{connection}.{action} {key}")
}

impl Ledger {
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.0.get(id)
    }

    /// Notes that the saga has an entry for an effect; false if it had one, or nothing is known of
    /// it.
    pub fn adopt(&mut self, id: &str) -> bool {
        let entry = self.0.get_mut(id);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.in_saga, true))
    }

    /// An attempt begins.
    pub fn begun(&mut self, id: &str, ticket: u64, connection: &str) -> &mut Entry {
        let entry = self.0.entry(id.to_owned()).or_default();
        match entry.ticket {
            None => entry.ticket = Some(ticket),
            Some(_) => entry.beside = Some(ticket),
        }
        entry.attempts += 1;
        connection.clone_into(&mut entry.connection);
        entry
    }

    /// An attempt has ended, or nobody will see its end.
    pub fn ended(&mut self, id: &str, ticket: u64) {
        let Some(entry) = self.0.get_mut(id) else {
            return;
        };
        if entry.beside == Some(ticket) {
            entry.beside = None;
        } else if entry.ticket == Some(ticket) {
            entry.ticket = entry.beside.take();
        }
    }

    /// The effect was left to an outbox: whoever asks for it again gets the same answer.
    pub fn deferred(&mut self, id: &str, connection: &str, output: &Arc<Value>) {
        let entry = self.0.entry(id.to_owned()).or_default();
        connection.clone_into(&mut entry.connection);
        entry.outcome = Some((Arc::clone(output), Provenance::Deferred));
    }

    /// Something was learnt about the effect. `provenance` is that of an outcome, if this is one.
    pub fn learnt(&mut self, id: &str, event: &Event, provenance: Provenance) {
        let Some(entry) = self.0.get_mut(id) else {
            return;
        };
        match event {
            Event::Succeeded(output)
            | Event::Hedge(HedgeEvent::Succeeded(output))
            | Event::LookedUp(Lookup::Found { output }, _) => {
                entry.settle(output, provenance);
            }
            Event::Failed(failure, _) | Event::Hedge(HedgeEvent::Failed(failure, _)) => {
                entry.maybe |= failure.effect != EffectState::None;
            }
            Event::Lost | Event::Hedge(HedgeEvent::Lost) => entry.maybe = true,
            Event::LookedUp(Lookup::Absent, _) => entry.maybe = false,
            Event::Decided(Decision::Retry) => {
                // A person who saw an outcome wants another; that one still happened.
                entry.maybe = entry.outcome.take().is_some();
            }
            Event::Decided(Decision::Approve { output }) => {
                entry.settle(output, Provenance::Manual);
            }
            Event::Started
            | Event::Refused(_)
            | Event::Due
            | Event::Recovered
            | Event::Deferred
            | Event::NotDeferred
            | Event::LookedUp(Lookup::Failed { .. }, _)
            | Event::Hedge(HedgeEvent::Started | HedgeEvent::Refused)
            | Event::Decided(
                Decision::Accept | Decision::Answer { .. } | Decision::Reject { .. },
            ) => {}
        }
    }
}

impl Ledger {
    /// How many effects it knows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops an effect that nobody asks for again; false if an attempt of it is under way. One that
    /// is to be undone stays.
    pub fn forget(&mut self, id: &str) -> bool {
        let Some(entry) = self.0.get(id) else {
            return true;
        };
        if entry.ticket.is_some() || entry.beside.is_some() {
            return false;
        }
        if !entry.in_saga {
            self.0.remove(id);
        }
        true
    }
}

impl Entry {
    fn settle(&mut self, output: &Value, provenance: Provenance) {
        self.outcome = Some((Arc::new(output.clone()), provenance));
    }

    /// Whether the effect happened or may have.
    pub fn may_have_happened(&self) -> bool {
        self.outcome.is_some() || self.maybe || self.ticket.is_some()
    }
}
