//! What a run hears: calls that ended, instants that came, and what the rest of the runtime tells it.

use std::time::Duration;

use cofferdam_core::descriptor;
use cofferdam_core::run::{Event, Illegal};
use cofferdam_store::Table;
use tokio::sync::mpsc;

use super::{Done, Message, Runner};
use crate::Error;
use crate::rows::{parked_key, review_key};

impl Runner {
    /// Waits for the next thing to happen; false if the run need not be held any longer.
    pub(super) async fn wait(
        &mut self,
        mailbox: &mut mpsc::UnboundedReceiver<Message>,
    ) -> Result<bool, Error> {
        if self.set_aside() {
            self.commit().await?;
            match mailbox.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return Ok(false),
            }
            return Ok(true);
        }
        let due_ms = self.run.next_due_ms();
        let now_ms = self.inner.clock.now_ms();
        let nap = Duration::from_millis(due_ms.unwrap_or(u64::MAX).saturating_sub(now_ms));
        tokio::select! {
            // An instant that has come is not kept waiting by calls that end one after another.
            biased;
            () = self.inner.closing.cancelled() => {}
            () = tokio::time::sleep(nap), if due_ms.is_some() => self.tick(),
            Some(message) = mailbox.recv() => self.take(message),
            Some(done) = self.under_way.join_next() => self.done(done),
        }
        self.done_too()?;
        Ok(true)
    }

    /// What has ended besides, so that one commit makes all of it durable. What follows from one comes
    /// before what follows from the next, as if there were a commit between them.
    fn done_too(&mut self) -> Result<(), Error> {
        loop {
            while !self.is_full()
                && let Some(effect) = self.effects.pop_front()
            {
                self.obey(effect)?;
            }
            let goes_on = !self.inner.closing.is_cancelled() && !self.row.status.is_final();
            if !goes_on || self.is_full() {
                return Ok(());
            }
            match self.under_way.try_join_next() {
                Some(done) => self.done(done),
                None => return Ok(()),
            }
        }
    }

    pub(super) fn take(&mut self, message: Message) {
        if self.is_set_aside() {
            self.take_up();
        }
        match message {
            Message::Letters => self.mailbox.look = true,
            Message::Admitted => self.admitted_by_queue(),
            Message::Verb { verb, told } => self.act(verb, told),
            Message::Due => self.tick(),
            Message::Recovered {
                task,
                connection,
                leave,
            } => {
                let key = parked_key(&connection, &self.row.run, &task);
                self.edit(|batch, _| batch.delete(Table::Parked, key));
                self.must_commit = true;
                if self.feed(Event::Recovered { task: task.clone() })
                    && let Some(leave) = leave
                {
                    self.leaves.insert(task, leave);
                }
            }
            Message::Decided {
                task,
                decision,
                told,
            } => {
                let key = review_key(&self.row.run, &task);
                let what = decision.name();
                if self.run.takes_back(&task, &decision) {
                    let run = self.row.run.clone();
                    let _ = told.send(Err(Error::TakenBack { run, task, what }));
                    return;
                }
                match self.try_feed(Event::Decided {
                    task: task.clone(),
                    decision,
                }) {
                    Ok(()) => {
                        self.edit(|batch, _| batch.delete(Table::Review, key));
                        self.must_commit = true;
                        self.told.push(told);
                    }
                    Err(illegal) => {
                        let error = self.unfit(&illegal, task, what);
                        let _ = told.send(Err(error));
                    }
                }
            }
        }
    }

    /// Why a decision was not taken.
    fn unfit(&self, illegal: &Illegal, task: String, what: &'static str) -> Error {
        let run = self.row.run.clone();
        let is_review = matches!(illegal, Illegal::Call { source, .. } if source.is_in_review());
        if is_review {
            Error::UnfitDecision { run, task, what }
        } else {
            Error::NoReview { run, task }
        }
    }

    fn tick(&mut self) {
        if self
            .run
            .next_due_ms()
            .is_some_and(|due_ms| due_ms <= self.inner.clock.now_ms())
        {
            self.feed(Event::Tick);
        }
    }

    pub(super) fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Admitted { attempt, admitted }) => {
                let ticket = attempt.ticket;
                self.waits.remove(&ticket);
                match admitted {
                    Ok(admitted) => self.admitted(attempt, admitted),
                    Err(failure) => drop(self.feed(Event::Refused { ticket, failure })),
                }
            }
            Ok(Done::Called {
                ticket,
                effect,
                result,
            }) => {
                self.calls.remove(&ticket);
                // What came of an effect is durable before anything else leaves, a read included.
                self.must_commit |= effect != descriptor::Effect::Read;
                self.feed(match result {
                    Ok(output) => Event::Succeeded { ticket, output },
                    Err(failure) => Event::Failed {
                        ticket,
                        failure,
                        draw: self.inner.rng.u32(),
                    },
                });
            }
            Ok(Done::LookedUp { ticket, answer }) => {
                self.feed(Event::LookedUp {
                    ticket,
                    answer,
                    draw: self.inner.rng.u32(),
                });
            }
            // The slower of two attempts.
            Err(error) if error.is_cancelled() => {}
            // The chamber catches panics; what is left is a defect of the runtime itself. Nobody
            // saw the end of the attempt.
            Err(error) => {
                tracing::error!(run = self.row.run, %error, "a call's task died");
                let died = self.calls.iter().find(|(_, call)| call.id() == error.id());
                if let Some(ticket) = died.map(|(ticket, _)| *ticket) {
                    self.calls.remove(&ticket);
                    self.must_commit = true;
                    self.feed(Event::Lost { ticket });
                }
            }
        }
    }
}
