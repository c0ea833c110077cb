//! What a run wants done, turned into writes, calls and rows.

use std::sync::Arc;

use cofferdam_core::descriptor;
use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::ramp::Ended;
use cofferdam_core::run::{Attempt, Effect, Event, Outcome, Question};
use cofferdam_store::Table;

use super::{Done, Launch, Runner};
use crate::admission::{self, Admission, Admitted, OUT_OF_TIME};
use crate::mutation::Mutation;
use crate::pace::Pass;
use crate::ramp::Leave;
use crate::rows::{DeadLetter, Review, parked_key, review_key};
use crate::{Error, answers, detached, queue};

impl Runner {
    pub(super) fn obey(&mut self, effect: Effect) -> Result<(), Error> {
        let at_ms = self.inner.clock.now_ms();
        match effect {
            Effect::Attempt(attempt) => self.ask(attempt),
            Effect::Lookup {
                ticket,
                connection,
                action,
                key,
                ..
            } => {
                self.launches.push(Launch::Lookup {
                    ticket,
                    connection,
                    action,
                    key,
                });
            }
            Effect::Defer {
                ticket,
                task,
                deferred,
            } => self.defer(ticket, &task, &deferred, at_ms)?,
            Effect::Park { task, connection } => {
                let key = parked_key(&connection, &self.row.run, &task);
                self.put(Table::Parked, key, Vec::new());
                self.parked.push(connection);
            }
            Effect::Review {
                task,
                failure,
                question,
            } => self.review(task, failure, question, at_ms)?,
            Effect::Emit { task, event } => self.emit(task, event)?,
            Effect::Listen { task, watches } => self.listen(task, watches),
            Effect::Hear { .. } => self.mailbox.look = true,
            Effect::ListenClosed { task, watches } => self.unlisten(&task, &watches)?,
            Effect::Begin {
                run,
                workflow,
                input,
                ..
            } => {
                let wanted = detached::Wanted {
                    run,
                    workflow,
                    input,
                };
                self.begin_other(wanted, at_ms)?;
            }
            Effect::Recall {
                ticket,
                connections,
                action,
                input,
                max_age_ms,
            } => {
                let store = &*self.inner.store;
                let asked = (self.row.tenant.as_str(), action.as_str(), &*input);
                let found = answers::recall(store, &connections, asked, max_age_ms, at_ms)?;
                self.feed(Event::Recalled { ticket, found });
            }
            Effect::Keep {
                connection,
                action,
                input,
                output,
                max_age_ms,
            } => {
                // Nothing depends on it: it goes with the next commit that is needed anyway.
                let batch = std::mem::take(&mut self.batch);
                let tenant = self.row.tenant.as_str();
                let about = (tenant, connection.as_str(), action.as_str(), &*input);
                let answers = &self.inner.answers;
                self.batch = answers.keep(batch, about, &output, max_age_ms, at_ms)?;
            }
            Effect::Cancel { ticket } => {
                self.launches.retain(|launch| !launch.is_call(ticket));
                if let Some(slower) = self.calls.remove(&ticket) {
                    slower.abort();
                }
            }
            Effect::ReviewClosed { task } => {
                let key = review_key(&self.row.run, &task);
                self.edit(|batch, _| batch.delete(Table::Review, key));
            }
            Effect::Finished => self.finish(at_ms)?,
        }
        Ok(())
    }

    fn review(
        &mut self,
        task: String,
        failure: Failure,
        question: Question,
        at_ms: u64,
    ) -> Result<(), Error> {
        let key = review_key(&self.row.run, &task);
        let review = Review {
            run: self.row.run.clone(),
            task,
            workflow: self.row.workflow.clone(),
            failure,
            at_ms,
            output: question.output,
            due_ms: question.due_ms,
            reviewer: question.reviewer,
            escalations: question.escalations,
        };
        self.put_large(
            Table::Review,
            key,
            &review,
            &["/output", "/failure/details"],
        )?;
        Ok(())
    }

    fn ask(&mut self, attempt: Attempt) {
        let mut leave = self.leaves.remove(&attempt.task);
        let Some(slot) = self.inner.connections.get(&attempt.connection) else {
            let why = format!(
                "there is no connection `{}` in this configuration",
                attempt.connection
            );
            let failure = Failure::new(Class::Unavailable, "connection.missing", why);
            self.feed(Event::Refused {
                ticket: attempt.ticket,
                failure,
            });
            return;
        };
        if attempt.is_hedge {
            let ticket = attempt.ticket;
            match admission::try_hedge(slot, &attempt.key, self.inner.armed) {
                Ok(admitted) => self.admitted(attempt, admitted),
                Err(failure) => drop(self.feed(Event::Refused { ticket, failure })),
            }
            return;
        }
        let token = match slot.line.come() {
            Pass::Free | Pass::Full => None,
            Pass::Token(token) => Some(token),
            Pass::Wait(waiter) => {
                let (slot, ticket) = (Arc::clone(slot), attempt.ticket);
                let waiting = self.under_way.spawn(async move {
                    let waiting = admission::admit_in_turn(&slot, waiter, &attempt.key);
                    let admitted = admission::in_time(&slot, &attempt, waiting).await;
                    carried(attempt, admitted, leave)
                });
                self.waits.insert(ticket, waiting);
                return;
            }
        };
        match admission::try_admit(slot, &attempt.key) {
            Admission::Admitted(mut admitted) => {
                admitted.pay_with(token);
                admitted.carry(leave);
                self.admitted(attempt, admitted);
            }
            Admission::Refused(failure) => {
                if let Some(leave) = &mut leave {
                    leave.went(Ended::Bad);
                }
                self.feed(Event::Refused {
                    ticket: attempt.ticket,
                    failure,
                });
            }
            Admission::Full(queued) => {
                // It is another's as long as the call waits for a place.
                drop(token);
                let (slot, ticket) = (Arc::clone(slot), attempt.ticket);
                let waiting = self.under_way.spawn(async move {
                    let waiting = admission::admit_at_last(queued, &attempt.key);
                    let admitted = admission::in_time(&slot, &attempt, waiting).await;
                    carried(attempt, admitted, leave)
                });
                self.waits.insert(ticket, waiting);
            }
        }
    }

    pub(super) fn admitted(&mut self, attempt: Attempt, admitted: Admitted) {
        let (ticket, digest) = (attempt.ticket, admitted.digest().to_owned());
        if self.feed(Event::Started { ticket, digest }) {
            // The intent is durable before the effect can happen.
            self.must_commit |= attempt.effect != descriptor::Effect::Read
                && !self.inner.armed.has(Mutation::SkipIntent);
            self.launches.push(Launch::Call(attempt, admitted));
        }
    }

    /// Puts a run that is asked for into the next commit.
    fn begin_other(&mut self, wanted: detached::Wanted, at_ms: u64) -> Result<(), Error> {
        self.begun = true;
        let batch = std::mem::take(&mut self.batch);
        let by = &self.row;
        self.batch = detached::begin(&self.inner, by, wanted, at_ms, batch)?;
        self.must_commit = true;
        Ok(())
    }

    fn finish(&mut self, at_ms: u64) -> Result<(), Error> {
        // One that is redriven may have said before that it had ended.
        if self.row.status.is_final() || !self.run.status().is_final() {
            return Ok(());
        }
        self.row.degraded = self.run.is_degraded();
        self.row.ended_ms = Some(at_ms);
        if let Some(Outcome::Faulted {
            error,
            dead_letter: true,
        }) = self.run.outcome()
        {
            let failed = self.run.failed_task();
            let letter = DeadLetter {
                task: failed.map(|(task, _)| task.to_owned()),
                task_input: failed.map(|(_, input)| input.clone()),
                tenant: self.row.tenant.clone(),
                run: self.row.run.clone(),
                workflow: self.row.workflow.clone(),
                error: error.clone(),
                input: self.run.input().clone(),
                at_ms,
            };
            let key = self.row.run.clone().into_bytes();
            self.put_large(Table::DeadLetter, key, &letter, &["/input", "/taskInput"])?;
        }
        self.edit(queue::ended);
        self.row.queued_ms = None;
        self.note_queue |= self.row.concurrency_key.is_some();
        self.set_status(self.run.status());
        self.must_commit = true;
        Ok(())
    }
}

/// What came of waiting for admission; the leave of a drain goes with it.
fn carried(
    attempt: Attempt,
    mut admitted: Result<Admitted, Failure>,
    leave: Option<Leave>,
) -> Done {
    match (&mut admitted, leave) {
        (Ok(admitted), leave) => admitted.carry(leave),
        // That says nothing of what is behind the connection.
        (Err(failure), Some(mut leave)) if failure.code == OUT_OF_TIME => {
            leave.went(Ended::Neutral);
        }
        (Err(_), Some(mut leave)) => leave.went(Ended::Bad),
        (Err(_), None) => {}
    }
    Done::Admitted { attempt, admitted }
}
