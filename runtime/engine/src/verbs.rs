//! What people do with runs: cancel, suspend, resume, restart, fork, redrive.
//!
//! Each is an event of the run's journal: when the function returns, it is on the disk, and a crash
//! before or after changes nothing of what it means. Asking twice does no harm: a run that is
//! where it was asked to be is left there.

use cofferdam_core::run::{Event, Origin, Outcome, Run, Status, TakenOver};
use cofferdam_store::{Batch, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::definition::Definition;
use crate::mutation::Mutation;
use crate::rows::{DeadLetter, RunRow, encode};
use crate::runner::{Message, Verb};
use crate::runtime::Runtime;
use crate::start::{First, check_input};
use crate::{Error, query};

/// What finished tasks gave is carried by one record; below what a record of the store may have.
const TAKEN_BYTES_MAX: usize = 12 << 20;
/// Dead letters that are redriven by one request.
pub const REDRIVE_MAX: usize = 1_000;

/// Which dead letters are meant; all that fit every part that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LetterFilter {
    /// The workflow: `namespace/name`, or `namespace/name:version`.
    pub workflow: Option<String>,
    /// The error: its type, the last part of its type, or the class of the failure behind it.
    pub error: Option<String>,
    /// Whom the run belongs to.
    pub tenant: Option<String>,
}

/// What became of one dead letter that was to be redriven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redriven {
    /// The run.
    pub run: String,
    /// Why it was not redriven; none if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl LetterFilter {
    /// Whether this letter is meant.
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let workflow = |wanted: &str| {
            letter.workflow == wanted
                || letter
                    .workflow
                    .rsplit_once(':')
                    .is_some_and(|(w, _)| w == wanted)
        };
        let kind = letter.error.r#type.as_str();
        let error = |wanted: &str| {
            let details = letter.error.cofferdam.as_ref();
            kind == wanted
                || kind.rsplit('/').next() == Some(wanted)
                || details.is_some_and(|d| d.class.as_str() == wanted || d.code == wanted)
        };
        self.workflow.as_deref().is_none_or(workflow)
            && self.error.as_deref().is_none_or(error)
            && self.tenant.as_deref().is_none_or(|t| letter.tenant == t)
    }
}

impl Runtime {
    /// Stops a run for good. Attempts under way are let end, or cut at their deadline; then, with
    /// `compensate`, what was done is undone, what began last first. Nothing if it is cancelled.
    ///
    /// # Errors
    /// [`Error::NoRun`]; [`Error::WrongState`] for a run that has ended or is ending otherwise;
    /// [`Error::Store`].
    pub async fn cancel(
        &self,
        run: &str,
        reason: Option<String>,
        compensate: bool,
    ) -> Result<(), Error> {
        let verb = Verb::Cancel { reason, compensate };
        self.act(run, verb).await
    }

    /// Lets a run begin no attempt until it is resumed; attempts under way end, timers that come
    /// due wait. Nothing if it is suspended.
    ///
    /// # Errors
    /// As for [`Runtime::cancel`].
    pub async fn suspend(&self, run: &str, reason: Option<String>) -> Result<(), Error> {
        self.act(run, Verb::Suspend { reason }).await
    }

    /// Lets a suspended run go on. Nothing if it is not suspended, but wakes it.
    ///
    /// # Errors
    /// As for [`Runtime::cancel`].
    pub async fn resume(&self, run: &str) -> Result<(), Error> {
        self.act(run, Verb::Resume).await
    }

    async fn act(&self, run: &str, verb: Verb) -> Result<(), Error> {
        self.existing(run)?;
        let (told, answer) = oneshot::channel();
        self.inner.wake(run, Message::Verb { verb, told });
        answer
            .await
            .unwrap_or_else(|_| Err(self.inner.why_stopped(run)))
    }

    fn existing(&self, run: &str) -> Result<RunRow, Error> {
        self.inner.row(run)?.ok_or_else(|| Error::NoRun {
            run: run.to_owned(),
        })
    }

    /// Begins another run with the input of one that has ended, and gives its id: with the
    /// definition that it had, or with `definition`. Tenant, priority and concurrency key are the same.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run has not ended; as for [`Runtime::start_with`].
    pub async fn restart(
        &self,
        run: &str,
        definition: Option<&Definition>,
        id: Option<String>,
    ) -> Result<String, Error> {
        let (row, machine) = self.ended(run, "restarted", Status::is_final)?;
        let pinned = self.inner.definition(&row.definition)?;
        let definition = definition.unwrap_or(&pinned);
        if id.as_deref() == Some(run) {
            let what = format!(
                "the new run cannot have the id of the old one, `{run}`: leave the id out, or choose another"
            );
            return Err(Error::StartOption { what });
        }
        let options = crate::StartOptions {
            id,
            tenant: row.tenant,
            priority: Some(row.priority),
            concurrency_key: row.concurrency_key,
            ..crate::StartOptions::default()
        };
        self.start_with(definition, machine.input().clone(), options)
            .await
    }

    /// Begins another run that takes another way from `task` on, and gives its id: what the old
    /// run had finished before that task began is taken over with its provenance and not repeated.
    /// The old run stays as it is; what was taken over is never undone by the new one.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run is under way; [`Error::NoTask`] if the task never began;
    /// [`Error::Carry`] if too much was finished; [`Error::Pruned`]; [`Error::RunId`]; [`Error::Store`].
    pub async fn fork(&self, run: &str, task: &str, id: Option<String>) -> Result<String, Error> {
        let is_still = |status: Status| status.is_final() || status == Status::Suspended;
        let (row, _) = self.ended(run, "forked", is_still)?;
        let definition = self.inner.definition(&row.definition)?;
        let recording = Run::new(run, definition.workflow(), definition.bindings())
            .recording(Some(task.to_owned()));
        let machine = query::fold_into(&*self.inner.store, recording)?;
        let taken = machine.finished().ok_or_else(|| Error::NoTask {
            run: run.to_owned(),
            task: task.to_owned(),
        })?;
        check_carried(run, &taken)?;
        let new = match id {
            Some(id) if !crate::start::is_name(&id) => return Err(Error::RunId { run: id }),
            Some(id) => id,
            None => self.inner.next_id(),
        };
        if let Some(row) = self.inner.row(&new)? {
            let status = row.status;
            return Err(Error::Exists { run: new, status });
        }
        let event = Event::Forked {
            input: machine.input().clone(),
            origin: Origin {
                run: run.to_owned(),
                task: task.to_owned(),
            },
            taken,
        };
        let fresh = RunRow {
            tenant: row.tenant,
            priority: row.priority,
            concurrency_key: row.concurrency_key,
            ..RunRow::new(&new, &definition, self.inner.clock.now_ms())
        };
        let first = First::Forked(Box::new(event));
        self.inner.begin(fresh, &definition, first).await?;
        Ok(new)
    }

    /// Lets a run that faulted go on from the task that failed; finished tasks are not repeated, and
    /// what nobody knows about the failed call is found out first. `input` replaces what had come
    /// into that task.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the run did not fault; [`Error::Undone`] if what it did was undone;
    /// [`Error::Carry`]; [`Error::Pruned`]; [`Error::Input`]; [`Error::Store`].
    pub async fn redrive(&self, run: &str, input: Option<Value>) -> Result<(), Error> {
        if let Some(input) = &input {
            check_input(input)?;
        }
        let (row, _) = self.ended(run, "redriven", |status| status == Status::Faulted)?;
        let definition = self.inner.definition(&row.definition)?;
        let machine = Run::new(run, definition.workflow(), definition.bindings()).recording(None);
        let machine = query::fold_into(&*self.inner.store, machine)?;
        let mut taken = machine.finished().unwrap_or_default();
        if self.inner.armed.has(Mutation::RedriveAll) {
            taken.clear();
        }
        check_carried(run, &taken)?;
        self.act(run, Verb::Redrive { input, taken }).await
    }

    /// Redrives the dead letters that fit, at most `limit` and at most [`REDRIVE_MAX`], oldest
    /// first, and says of each what became of it.
    ///
    /// # Errors
    /// [`Error::Store`] if they cannot be listed.
    pub async fn redrive_all(
        &self,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<Redriven>, Error> {
        let mut letters = self.query().dead_letters()?;
        letters.retain(|letter| filter.fits(letter));
        letters.sort_by(|a, b| (a.at_ms, &a.run).cmp(&(b.at_ms, &b.run)));
        letters.truncate(limit.min(REDRIVE_MAX));
        let mut redriven = Vec::with_capacity(letters.len());
        for DeadLetter { run, .. } in letters {
            let done = self.redrive(&run, None).await;
            let error = done.err().map(|error| error.to_string());
            redriven.push(Redriven { run, error });
        }
        Ok(redriven)
    }

    /// Takes a dead letter off the list. The run stays, faulted, and can still be redriven.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`]; [`Error::Store`].
    pub async fn discard(&self, run: &str) -> Result<(), Error> {
        let key = run.as_bytes();
        if self.inner.store.get(Table::DeadLetter, key)?.is_none() {
            let run = run.to_owned();
            return Err(Error::NoDeadLetter { run });
        }
        let gone = Batch::new().delete(Table::DeadLetter, key);
        Ok(self.inner.store.commit(gone).await?)
    }

    /// A run that is where a verb needs it.
    fn ended(
        &self,
        run: &str,
        verb: &'static str,
        fits: impl Fn(Status) -> bool,
    ) -> Result<(RunRow, Run), Error> {
        let row = self.existing(run)?;
        let definition = self.inner.definition(&row.definition)?;
        let (machine, _) = query::fold(&*self.inner.store, run, &definition)?;
        // While it is held its row may be behind.
        let status = machine.status();
        if !fits(row.status) || !fits(status) {
            return Err(Error::wrong_state(run, status, verb));
        }
        if verb == "redriven" && machine.was_compensated() {
            let run = run.to_owned();
            return Err(Error::Undone { run });
        }
        Ok((row, machine))
    }
}

/// One record holds it.
fn check_carried(run: &str, taken: &TakenOver) -> Result<(), Error> {
    let bytes = encode(taken)?.len();
    if bytes <= TAKEN_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Carry {
        run: run.to_owned(),
        bytes,
        bytes_max: TAKEN_BYTES_MAX,
    })
}

impl Error {
    /// A verb that does not fit where a run is, with what to do instead.
    pub(crate) fn wrong_state(run: &str, status: Status, verb: &'static str) -> Self {
        let remedy = match (verb, status) {
            ("redriven", Status::Completed | Status::Cancelled) => {
                "`cofferdam runs restart` begins it again, `cofferdam runs fork` from one of its tasks"
            }
            ("restarted" | "forked" | "purged", _) => {
                "wait for its end, or stop it with `cofferdam runs cancel`"
            }
            (_, Status::Completed | Status::Faulted | Status::Cancelled) => {
                "it has ended: `cofferdam runs show` tells how"
            }
            ("redriven", _) => "it goes on already: `cofferdam runs show` tells where it is",
            _ => "wait for its end: `cofferdam runs show` tells where it is",
        };
        Self::WrongState {
            run: run.to_owned(),
            status,
            verb,
            remedy,
        }
    }
}

/// Whether a cancelled run is what was asked for.
pub(crate) fn is_cancelled(run: &Run, wants_compensation: bool) -> bool {
    matches!(run.outcome(), Some(Outcome::Cancelled { compensated, .. }) if *compensated || !wants_compensation)
}
