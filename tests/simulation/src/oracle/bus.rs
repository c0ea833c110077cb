//! Events: each has one number, each listener hears all that are for it, and a subscriber misses
//! none.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::run::Event;
use cofferdam_store::Table;
use serde_json::Value;

use super::shadow::Shadow;
use super::{Facts, Touched, rows, text};
use crate::dice::Dice;
use crate::world::State;

/// What is known of the bus.
#[derive(Default)]
pub(crate) struct Book {
    /// Every event that became durable, by number.
    pub events: BTreeMap<u64, CloudEvent>,
    known: BTreeSet<(String, String)>,
    /// What is to be published by somebody outside, and was not acknowledged.
    pub pending: Option<Value>,
    pub published: u64,
    subscribers: BTreeMap<String, Reader>,
}

/// What a subscriber was given.
#[derive(Default)]
struct Reader {
    /// It was told that this one is done with, whether or not that was acknowledged.
    done: BTreeSet<u64>,
    /// The last that it was acknowledged to be done with.
    acknowledged: u64,
    /// Kept as dead letters.
    dead: BTreeSet<u64>,
    /// Letters that were there once: their numbers, and when they were written.
    letters: BTreeSet<(u64, u64)>,
    /// Letters that are to be told again.
    again: BTreeSet<u64>,
}

impl Book {
    /// The number of the last event.
    pub fn last_seq(&self) -> u64 {
        self.events.keys().next_back().copied().unwrap_or_default()
    }

    /// It is about to say that it is done with an event.
    pub fn is_done_with(&mut self, name: &str, seq: u64) {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        reader.done.insert(seq);
    }

    /// That was acknowledged.
    pub fn has_acknowledged(&mut self, name: &str, seq: u64) {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        reader.acknowledged = reader.acknowledged.max(seq);
    }

    /// Whether every subscriber has seen to every event.
    pub fn is_caught_up(&self, names: &[&str]) -> bool {
        let none = Reader::default();
        names.iter().all(|name| {
            let reader = self.subscribers.get(*name).unwrap_or(&none);
            reader.again.is_empty() && self.events.keys().all(|seq| reader.has(*seq))
        })
    }

    /// A subscriber is about to be set back to an event that it was done with; none if there is none.
    pub fn goes_back(&mut self, name: &str, dice: &mut Dice) -> Option<u64> {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        let from = 1 + dice.roll() % reader.acknowledged.checked_add(1)?;
        // Whether or not that will be acknowledged.
        reader.acknowledged = reader.acknowledged.min(from - 1);
        Some(from)
    }

    /// It was told that it is: it gets all of them once more.
    pub fn went_back(&mut self, name: &str, from: u64) {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        reader.done.retain(|seq| *seq < from);
        reader.dead.retain(|seq| *seq < from);
    }

    /// Its letters were to be told again, and that was acknowledged.
    pub fn are_told_again(&mut self, name: &str, letters: &BTreeSet<u64>) {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        reader.again.extend(letters);
    }

    /// A letter is told again.
    pub fn judge_again(&mut self, name: &str, seq: u64, event: &CloudEvent) -> Result<(), String> {
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        reader.again.remove(&seq);
        let was_letter = reader.letters.iter().any(|(letter, _)| *letter == seq);
        if self.events.get(&seq) == Some(event) && was_letter {
            return Ok(());
        }
        Err(format!(
            "`{name}` gets event {seq} again, and it was no dead letter"
        ))
    }

    /// An event is handed to a subscriber.
    pub fn judge_delivery(
        &mut self,
        name: &str,
        seq: u64,
        event: &CloudEvent,
    ) -> Result<(), String> {
        if self.events.get(&seq) != Some(event) {
            return Err(format!(
                "`{name}` gets event {seq}, which is not on the disk"
            ));
        }
        let reader = self.subscribers.entry(name.to_owned()).or_default();
        if seq <= reader.acknowledged {
            return Err(format!(
                "`{name}` gets event {seq} again, and was done with it"
            ));
        }
        if let Some(passed) = self.events.keys().find(|s| **s < seq && !reader.has(**s)) {
            return Err(format!(
                "`{name}` gets event {seq} and was not done with {passed}"
            ));
        }
        Ok(())
    }
}

impl Reader {
    fn has(&self, seq: u64) -> bool {
        self.done.contains(&seq) || self.dead.contains(&seq)
    }
}

impl State {
    /// Reads what has been published since the last time.
    pub(super) fn fold_events(&mut self, touched: &Touched) -> Result<(), String> {
        if touched.has(Table::Event) {
            self.fold_new_events()?;
        }
        if self.swarm.events && touched.has(Table::DeadLetter) {
            self.fold_letters()?;
        }
        Ok(())
    }

    fn fold_new_events(&mut self) -> Result<(), String> {
        let known = self.oracle.bus.last_seq();
        let from = cofferdam_store::KeyRange::between((known + 1).to_be_bytes().to_vec(), vec![1]);
        let store = &self.disk.durable;
        let fresh = cofferdam_store::JournalStore::scan(store, Table::Event, from, usize::MAX);
        for (key, row) in fresh.map_err(|e| e.to_string())? {
            let seq = key.as_slice().try_into().map(u64::from_be_bytes);
            let seq = seq.map_err(|_| "an event has no number".to_owned())?;
            let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
            let event = CloudEvent::new(row["event"].clone()).map_err(|e| e.to_string())?;
            let identity = (event.source().to_owned(), event.id().to_owned());
            if !self.oracle.bus.known.insert(identity.clone()) {
                return Err(format!("event {identity:?} was published twice"));
            }
            self.oracle.bus.events.insert(seq, event);
        }
        Ok(())
    }

    fn fold_letters(&mut self) -> Result<(), String> {
        for (key, row) in rows(&self.disk.durable, Table::DeadLetter) {
            if key.first() == Some(&0) {
                let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
                let seq = row["seq"].as_u64().unwrap_or_default();
                let readers = &mut self.oracle.bus.subscribers;
                let reader = readers.entry(text(&row, "subscriber")).or_default();
                let at_ms = row["atMs"].as_u64().unwrap_or_default();
                if reader.letters.insert((seq, at_ms)) {
                    reader.dead.insert(seq);
                }
            }
        }
        Ok(())
    }

    /// The dead letters that a subscriber has.
    pub fn letters_of(&self, name: &str) -> BTreeSet<u64> {
        let all = rows(&self.disk.durable, Table::DeadLetter);
        let letters = all.iter().filter(|(key, _)| key.first() == Some(&0));
        let read = letters.filter_map(|(_, row)| serde_json::from_slice::<Value>(row).ok());
        let own = read.filter(|row| text(row, "subscriber") == name);
        own.filter_map(|row| row["seq"].as_u64()).collect()
    }

    /// Whoever was told that an event is published finds it on the disk.
    pub fn judge_published(&mut self, seq: u64, id: &str) {
        let found = self.oracle.bus.events.get(&seq);
        if found.is_none_or(|event| event.id() != id) {
            self.violated(format!(
                "event `{id}` is acknowledged as {seq} and not on the disk"
            ));
        }
    }
}

impl Shadow {
    /// An event is heard: it was published after the task began to listen, and none before it was
    /// passed over.
    pub(super) fn judge_heard(
        &self,
        event: &Event,
        task: &str,
        seq: u64,
        at: u64,
        facts: &Facts<'_>,
    ) -> Result<(), String> {
        let Event::Heard { event: heard, .. } = event else {
            return Ok(());
        };
        let Some(listening) = self.listening.get(task) else {
            return Err(format!("`{task}` hears event {seq} and does not listen"));
        };
        if facts.events.get(&seq) != Some(heard) {
            return Err(format!(
                "`{task}` hears event {seq}, which is not on the disk"
            ));
        }
        if seq < listening.may {
            return Err(format!(
                "`{task}` hears event {seq}, and listens since {listening:?}"
            ));
        }
        for (passed, event) in facts.events.range(listening.must..seq.max(listening.must)) {
            if self.would_take(task, *passed, event, at) {
                return Err(format!(
                    "`{task}` hears event {seq} and has missed {passed}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the task would take this event here. None that it has taken is taken again.
    fn would_take(&self, task: &str, seq: u64, event: &CloudEvent, at: u64) -> bool {
        let heard = Event::Heard {
            task: task.to_owned(),
            seq,
            event: event.clone(),
        };
        self.run.clone().step(heard, at).is_ok()
    }

    /// An event that a task waits for, and was not given.
    pub(super) fn unheard(
        &self,
        before: u64,
        events: &BTreeMap<u64, CloudEvent>,
        at: u64,
    ) -> Option<String> {
        if self.run.suspension().is_some() {
            return None;
        }
        let mut all = self.listening.iter().flat_map(|(task, listening)| {
            let range = events.range(listening.must..before.max(listening.must));
            range.map(move |(seq, event)| (task, *seq, event))
        });
        let (task, seq, _) =
            all.find(|(task, seq, event)| self.would_take(task, *seq, event, at))?;
        Some(format!(
            "event {seq} is for `{task}` of {}, who has not heard it",
            self.run.id()
        ))
    }
}
