//! What people and the queue do with a run, as events of its journal.

use cofferdam_core::run::{Event, Illegal, Run, Status, TakenOver};
use cofferdam_store::Table;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{NEAR_MS, Runner, SET_ASIDE};
use crate::checkpoints::Tail;
use crate::mutation::Mutation;
use crate::rows::{Record, decode, timer_key};
use crate::{Error, query, queue, verbs};

/// What is to be done with a run.
#[derive(Debug)]
pub(crate) enum Verb {
    Cancel {
        reason: Option<String>,
        compensate: bool,
    },
    Suspend {
        reason: Option<String>,
    },
    Resume,
    Redrive {
        input: Option<Value>,
        taken: TakenOver,
    },
}

impl Verb {
    /// For messages: a run that is … cannot be ….
    fn participle(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancelled",
            Self::Suspend { .. } => "suspended",
            Self::Resume => "resumed",
            Self::Redrive { .. } => "redriven",
        }
    }
}

impl Runner {
    /// Does it, and answers once it is on the disk.
    pub(super) fn act(&mut self, verb: Verb, told: oneshot::Sender<Result<(), Error>>) {
        let participle = verb.participle();
        let is_so = match &verb {
            Verb::Cancel { compensate, .. } => verbs::is_cancelled(&self.run, *compensate),
            Verb::Suspend { .. } if self.inner.armed.has(Mutation::SuspendNobody) => true,
            Verb::Suspend { .. } => self.run.suspension().is_some(),
            Verb::Resume => self.run.suspension().is_none() && !self.row.status.is_final(),
            Verb::Redrive { .. } => false,
        };
        if is_so {
            self.told.push(told);
            return;
        }
        let redrives = matches!(verb, Verb::Redrive { .. });
        if redrives
            && self.run.status() == Status::Faulted
            && let Err(error) = self.read_whole()
        {
            let _ = told.send(Err(error));
            return;
        }
        let event = match verb {
            Verb::Cancel { reason, compensate } => Event::Cancelled { reason, compensate },
            Verb::Suspend { reason } => Event::Suspended { reason },
            Verb::Resume => Event::Resumed,
            Verb::Redrive { input, taken } => Event::Redriven { input, taken },
        };
        match self.tell(event) {
            Ok(()) => {
                if redrives {
                    self.queue_again();
                    // What a run that forgets was then is not where this one goes on.
                    self.edit(|batch, row| batch.delete(Table::Checkpoint, row.run.as_bytes()));
                    self.checkpoint.void(self.head.next_seq);
                    self.tail = Tail::default();
                    self.run.be_slim();
                }
                self.must_commit = true;
                self.told.push(told);
            }
            Err(illegal) => {
                let run = self.row.run.clone();
                let error = match illegal {
                    Illegal::Undone => Error::Undone { run },
                    Illegal::NoWayOn(why) => Error::NoWayOn { run, why },
                    _ => Error::wrong_state(&run, self.run.status(), participle),
                };
                // Nobody waits any more if the caller was cancelled.
                let _ = told.send(Err(error));
            }
        }
    }

    /// A run that is redriven enters its tasks again, and may ask for all that it ever asked for.
    fn read_whole(&mut self) -> Result<(), Error> {
        let run = &self.row.run;
        let definition = self.inner.definition(&self.row.definition)?;
        let fresh = Run::new(run, definition.workflow(), definition.bindings());
        let mut whole = query::fold_into(&*self.inner.store, fresh)?;
        for (at, bytes) in self.records.iter().enumerate() {
            let record: Record = decode("journal record", run, bytes)?;
            let stepped = whole.step(record.event, record.at);
            stepped.map_err(|illegal| Error::Journal {
                run: run.clone(),
                seq: self.head.next_seq + at as u64,
                reason: illegal.to_string(),
            })?;
        }
        self.run = whole;
        self.begin_to_announce();
        Ok(())
    }

    /// The run's turn has come.
    pub(super) fn admitted_by_queue(&mut self) {
        if self.feed(Event::Admitted) {
            self.must_commit = true;
        }
        if self.row.queued_ms.take().is_some() {
            self.edit(queue::admitted);
            self.must_commit = true;
        }
    }

    /// A run that is redriven waits for its turn as one that begins.
    fn queue_again(&mut self) {
        let since_ms = self.inner.clock.now_ms();
        self.row.queued_ms = Some(since_ms);
        self.row.queue_seq = self.inner.gate.next_seq(since_ms);
        self.row.ended_ms = None;
        self.row.degraded = self.run.is_degraded();
        self.set_status(Status::Queued);
        self.edit(|batch, row| {
            queue::waits(batch, row).delete(Table::DeadLetter, row.run.as_bytes())
        });
        self.note_queue = true;
    }

    /// Leaves behind, with the next commit, what is needed to go on with a run that does nothing and
    /// waits for long; false if it is not such a one.
    pub(super) fn set_aside(&mut self) -> bool {
        let has_work = !(self.under_way.is_empty() && self.launches.is_empty());
        let status = self.run.status();
        if has_work || !self.run.is_idle() || status.is_final() {
            return false;
        }
        if self.is_set_aside() {
            return true;
        }
        let due_ms = self.run.next_due_ms();
        let near_ms = self.inner.clock.now_ms().saturating_add(NEAR_MS);
        if due_ms.is_some_and(|due_ms| due_ms <= near_ms) {
            return false;
        }
        // One that compensates keeps its status.
        if self.row.status != status || due_ms.is_some() {
            self.row.due_ms = due_ms;
            self.row.degraded = self.run.is_degraded();
            self.set_status(status);
            self.must_commit = true;
        }
        if let Some(due_ms) = due_ms {
            self.edit(|batch, row| {
                batch.put(Table::Timer, timer_key(due_ms, &row.run), Vec::new())
            });
            self.note_timer = true;
        }
        true
    }

    /// Whether what is in the store says that nothing is done with the run. One that compensates
    /// keeps its status, and has a timer all the same.
    pub(super) fn is_set_aside(&self) -> bool {
        SET_ASIDE.contains(&self.row.status) || self.row.due_ms.is_some()
    }
}
