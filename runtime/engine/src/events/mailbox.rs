//! How a run takes events out of its letter box.

use std::collections::{BTreeSet, HashMap};

use cofferdam_core::run::{Event, Hearing};
use cofferdam_store::{KeyRange, Table};
use parking_lot::Mutex;

use super::bus::{Outgoing, delete_watches};
use super::keys::{self, Letter, Owner};
use crate::Error;
use crate::rows::decode;
use crate::runner::Runner;

/// How many letters are read in one go; each may have a megabyte.
const PAGE: usize = 16;

/// How many letters lie in each box, as far as this process has put them there.
#[derive(Default)]
pub(crate) struct Letters(Mutex<HashMap<Owner, usize>>);

impl Letters {
    /// One more; how many there are.
    pub fn add(&self, owner: &Owner) -> usize {
        let mut boxes = self.0.lock();
        let letters = boxes.entry(owner.clone()).or_default();
        *letters += 1;
        *letters
    }

    /// One was taken out.
    pub fn take(&self, owner: &Owner) {
        let mut boxes = self.0.lock();
        if let Some(letters) = boxes.get_mut(owner) {
            *letters = letters.saturating_sub(1);
            if *letters == 0 {
                boxes.remove(owner);
            }
        }
    }
}

/// What a runner knows of its box.
#[derive(Default)]
pub(crate) struct Mailbox {
    /// Whether to look into it.
    pub look: bool,
    /// Letters that were dealt with, and that the next commit takes out.
    pub done: BTreeSet<Vec<u8>>,
}

impl Runner {
    /// Tells the machine of events in the order of their numbers, as far as its tasks are ready.
    pub(crate) fn read_letters(&mut self) -> Result<(), Error> {
        self.mailbox.look = false;
        let owner = |task: &str| Owner::Task {
            run: self.run_id().to_owned(),
            task: task.to_owned(),
        };
        let range = KeyRange::prefix(keys::letter_prefix(&owner("")));
        let mut range = Some(range);
        while let Some(page) = range.take() {
            let rows = self.inner().store.scan(Table::Subscription, page.clone(), PAGE)?;
            let mut told = 0;
            for (key, bytes) in &rows {
                if self.mailbox.done.contains(key) {
                    continue;
                }
                let letter: Letter = decode("letter", self.run_id(), bytes)?;
                let task = letter.task.unwrap_or_default();
                match self.hearing(&task) {
                    Hearing::Busy => continue,
                    Hearing::Gone => {}
                    Hearing::Ready => {
                        let (task, seq, event) = (task.clone(), letter.seq, letter.event);
                        self.feed(Event::Heard { task, seq, event });
                        told += 1;
                    }
                }
                let owner = Owner::Task {
                    run: self.run_id().to_owned(),
                    task,
                };
                self.inner().letters.take(&owner);
                self.discard(key);
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

    fn discard(&mut self, key: &[u8]) {
        self.mailbox.done.insert(key.to_vec());
        self.edit(|batch, _| batch.delete(Table::Subscription, key));
        self.must_commit();
    }

    /// A task listens: its rows go with the commit that makes it true.
    pub(crate) fn listen(&mut self, task: String, watches: Vec<cofferdam_core::consume::Watch>) {
        let run = self.run_id().to_owned();
        let owner = Owner::Task { run, task };
        self.send(Outgoing::Watch { owner, watches });
    }

    /// A task does not listen any more. Letters that are on their way are found without a reader.
    pub(crate) fn unlisten(
        &mut self,
        task: &str,
        watches: &[cofferdam_core::consume::Watch],
    ) -> Result<(), Error> {
        let owner = Owner::Task {
            run: self.run_id().to_owned(),
            task: task.to_owned(),
        };
        let batch = self.take_batch();
        let batch = delete_watches(batch, &owner, watches)?;
        self.put_batch(batch);
        self.mailbox.look = true;
        Ok(())
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task { run, task } => write!(f, "{run}{task}"),
            Self::Schedule { name } => write!(f, "{name}"),
        }
    }
}
