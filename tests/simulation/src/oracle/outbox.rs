//! What is left to an outbox is there in the write that says so, and is delivered once.

use cofferdam::Status;
use cofferdam_core::run::{Effect, Event};
use cofferdam_store::{JournalStore, Table};
use serde_json::Value;

use super::shadow::Shadow;
use super::{Oracle, rows, text};
use crate::services::Given;
use crate::world::State;

/// What the ids of deliveries begin with.
pub(super) const DELIVERY: &str = "outbox-";

/// A call that was left to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deferral {
    connection: String,
    action: String,
    key: String,
    identity: String,
}

impl Deferral {
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.key == key
    }

    /// Whether this was answered to this call, by its connection.
    pub(super) fn is_answered_by(&self, given: &Given) -> bool {
        let asked = (&given.identity, &given.connection, &given.key);
        asked == (&self.identity, &self.connection, &self.key)
    }

    /// Whether the answer says that it is one to this call.
    pub(super) fn is_named_by(&self, answer: &Value) -> bool {
        answer["id"] == self.identity.as_str()
    }
}

impl Oracle {
    /// The call that a run delivers.
    pub(super) fn deferral_of(&self, shadow: &Shadow) -> Result<&Deferral, String> {
        let mut all = self.deferrals.iter();
        all.find(|deferral| shadow.delivers(deferral))
            .ok_or_else(|| format!("{} delivers what nobody left", shadow.run.id()))
    }
}

impl Shadow {
    /// What the machine asked to be left, before it is told that it was.
    pub(super) fn deferral(&self, ticket: u64) -> Result<Deferral, String> {
        let mut all = self.run.outstanding().into_iter();
        all.find_map(|effect| match effect {
            Effect::Defer {
                ticket: of,
                deferred,
                ..
            } if of == ticket => Some(Deferral {
                connection: deferred.connection.clone(),
                action: deferred.action.clone(),
                key: deferred.key.clone(),
                identity: text(&deferred.input, "id"),
            }),
            _ => None,
        })
        .ok_or_else(|| "a call is left to an outbox that nobody wanted there".to_owned())
    }

    /// Whether it delivers this call.
    fn delivers(&self, deferral: &Deferral) -> bool {
        let input = self.run.input();
        self.run.id().starts_with(DELIVERY)
            && text(input, "key") == deferral.key
            && text(input, "connection") == deferral.connection
            && text(input, "action") == deferral.action
    }
}

impl State {
    /// The task was told that its call is in the outbox: it is, from the same write on.
    pub(super) fn judge_deferral(&mut self, deferral: Deferral) -> Result<(), String> {
        if self.oracle.deferrals.contains(&deferral) {
            return Err(format!("{deferral:?} was left twice"));
        }
        let prefix = format!("{}\0", deferral.connection);
        let is_there = rows(&self.disk.durable, Table::Outbox)
            .iter()
            .filter(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter_map(|(_, row)| serde_json::from_slice::<Value>(row).ok())
            .any(|row| text(&row, "key") == deferral.key);
        if !is_there {
            return Err(format!("{deferral:?} is not in the outbox"));
        }
        self.oracle.deferrals.push(deferral);
        Ok(())
    }

    /// Whether nothing is left in an outbox.
    pub fn is_delivered(&self) -> bool {
        rows(&self.disk.durable, Table::Outbox).is_empty()
    }

    /// Everything is quiet: each call was delivered by one run, or is kept for a person.
    pub fn judge_deliveries(&self) -> Result<(), String> {
        if let Some((key, _)) = rows(&self.disk.durable, Table::Outbox).first() {
            return Err(format!(
                "a call is left in the outbox: {}",
                key.escape_ascii()
            ));
        }
        for deferral in &self.oracle.deferrals {
            let all = self.oracle.runs.values();
            let runs: Vec<&Shadow> = all.filter(|shadow| shadow.delivers(deferral)).collect();
            let [shadow] = runs.as_slice() else {
                return Err(format!("{deferral:?} has {} deliveries", runs.len()));
            };
            let run = shadow.run.id();
            let identity = &deferral.identity;
            let happened = self.services.happened(identity);
            let letter = self.disk.durable.get(Table::DeadLetter, run.as_bytes());
            match shadow.status() {
                Status::Completed if !happened && !self.oracle.was_reviewed(run) => {
                    return Err(format!("`{identity}` was delivered and never happened"));
                }
                Status::Faulted if !matches!(letter, Ok(Some(_))) => {
                    return Err(format!("`{identity}` was given up without a dead letter"));
                }
                _ => {}
            }
            if happened && self.services.happened(&format!("{identity}~other")) {
                return Err(format!(
                    "`{identity}` was delivered, and happened elsewhere"
                ));
            }
        }
        Ok(())
    }

    /// Deliveries that are begun belong to calls that were left.
    pub(super) fn judge_delivery(&self, event: &Event, run: &str) -> Result<(), String> {
        let (Event::Begun { input } | Event::Queued { input }) = event else {
            return Ok(());
        };
        let key = text(input, "key");
        if !run.starts_with(DELIVERY) || self.oracle.deferrals.iter().any(|d| d.key == key) {
            return Ok(());
        }
        Err(format!("{run} delivers `{key}`, which nobody left"))
    }
}
