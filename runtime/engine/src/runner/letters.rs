//! How a run takes events out of its letter box, and publishes its own.

use std::collections::BTreeSet;

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::consume::Watch;
use cofferdam_core::run::{Event, Hearing};
use cofferdam_store::{Batch, KeyRange, Table};
use serde_json::Value;

use super::Runner;
use crate::Error;
use crate::events::bus::{Outgoing, delete_watches};
use crate::events::keys::{self, EventLetter, Letter, Owner, WatchRow};
use crate::mutation::Mutation;
use crate::payloads::{delete_row, unpack};
use crate::rows::{EventRow, decode, encode};

/// How many letters are read in one go; each may have a megabyte.
const PAGE: usize = 16;

/// What a runner knows of its box.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Whether to look into it.
    pub look: bool,
    /// Letters that were dealt with, and that the next commit takes out.
    pub done: BTreeSet<Vec<u8>>,
}

impl Runner {
    /// Tells the machine of events in the order of their numbers, as far as its tasks are ready.
    pub(super) fn read_letters(&mut self) -> Result<(), Error> {
        self.mailbox.look = false;
        let owner = |task: &str| Owner::Task {
            run: self.row.run.clone(),
            task: task.to_owned(),
        };
        let range = KeyRange::prefix(keys::letter_prefix(&owner("")));
        let mut range = Some(range);
        // What such a task is told next is an earlier letter, left to the next look.
        let mut busy = BTreeSet::new();
        while let Some(page) = range.take() {
            let rows = self
                .inner
                .store
                .scan(Table::Subscription, page.clone(), PAGE)?;
            let mut told = 0;
            for (key, bytes) in &rows {
                if self.mailbox.done.contains(key) {
                    continue;
                }
                let letter: Letter = unpack(&*self.inner.store, "letter", &self.row.run, bytes)?;
                let task = letter.task.unwrap_or_default();
                if busy.contains(&task) {
                    continue;
                }
                match self.run.hearing(&task) {
                    Hearing::Busy => {
                        busy.insert(task);
                        continue;
                    }
                    Hearing::Gone => {}
                    // It was written for the same task, before that was tried again.
                    Hearing::Ready if letter.seq < self.listens_from(&task)? => {}
                    Hearing::Ready => {
                        let (task, seq, event) = (task.clone(), letter.seq, letter.event);
                        self.feed(Event::Heard { task, seq, event });
                        told += 1;
                    }
                }
                let owner = Owner::Task {
                    run: self.row.run.clone(),
                    task,
                };
                self.inner.letters.take(&owner);
                self.discard(key, bytes);
            }
            if told >= PAGE {
                // What was taken is made durable before more is read.
                self.mailbox.look = true;
            } else if let Some((last, _)) = rows.last().filter(|_| rows.len() == PAGE) {
                range = Some(page.after(last));
            }
        }
        Ok(())
    }

    /// What was published before this number is not for the task, which listens.
    fn listens_from(&self, task: &str) -> Result<u64, Error> {
        let owner = Owner::Task {
            run: self.row.run.clone(),
            task: task.to_owned(),
        };
        for watch in self.run.watches(task) {
            let shape = keys::shape_id(&watch.shape)?;
            let key = keys::watch_key(&shape, &watch.values, &owner);
            if let Some(bytes) = self.inner.store.get(Table::Subscription, &key)? {
                let row: WatchRow = decode("subscription", "watch", &bytes)?;
                return Ok(row.from_seq);
            }
        }
        Ok(0)
    }

    fn discard(&mut self, key: &[u8], bytes: &[u8]) {
        if self.inner.armed.has(Mutation::TakeLetterFirst) {
            let gone = Batch::new().delete(Table::Subscription, key);
            drop(self.inner.store.commit(gone));
        }
        self.mailbox.done.insert(key.to_vec());
        self.edit(|batch, _| delete_row(batch, Table::Subscription, key.to_vec(), bytes));
        self.must_commit = true;
    }

    /// A task listens: its rows go with the commit that makes it true.
    pub(super) fn listen(&mut self, task: String, watches: Vec<Watch>) {
        let run = self.row.run.clone();
        let owner = Owner::Task { run, task };
        self.outgoing.push(Outgoing::Watch { owner, watches });
        self.must_commit = true;
    }

    /// A task does not listen any more. Letters that are on their way are found without a reader.
    pub(super) fn unlisten(&mut self, task: &str, watches: &[Watch]) -> Result<(), Error> {
        let owner = Owner::Task {
            run: self.row.run.clone(),
            task: task.to_owned(),
        };
        // One that began in the same step never listened.
        self.outgoing.retain(|outgoing| {
            !matches!(outgoing, Outgoing::Watch { owner: watching, .. } if *watching == owner)
        });
        let batch = std::mem::take(&mut self.batch);
        self.batch = delete_watches(batch, &owner, watches)?;
        self.mailbox.look = true;
        Ok(())
    }

    /// Publishes an event with the commit that makes it true.
    pub(super) fn emit(&mut self, task: String, event: Value) -> Result<(), Error> {
        let at_ms = self.inner.clock.now_ms();
        if let Err(invalid) = CloudEvent::new(event.clone()) {
            let seq = self.inner.bus.next_seq();
            let letter = EventLetter {
                seq,
                subscriber: format!("{}{task}", self.row.run),
                reason: format!("it is no event that can be published: {invalid}"),
                event,
                at_ms,
            };
            let key = keys::dead_key(&letter.subscriber, seq);
            self.put(Table::DeadLetter, key, encode(&letter)?);
            return Ok(());
        }
        self.outgoing.push(Outgoing::Event(Box::new(EventRow {
            seq: None,
            run: Some(self.row.run.clone()),
            task: Some(task),
            event,
            at_ms,
        })));
        self.must_commit = true;
        Ok(())
    }
}
